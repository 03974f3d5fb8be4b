//! The reals of a VIP.

use super::*;

/// The right file, whose VIP is UDP with server ids, with another real: a line of the first one is line 13, and one
/// of the second line 16.
fn with_second(first: &str, second: &str) -> String {
    let udp = RIGHT.replace("\"tcp\"", "\"udp\"\nserver_id = \"quic\"");
    format!("{udp}{first}\n[[vip.real]]\naddress = \"10.0.0.12\"\n{second}\n")
}

#[test]
fn what_a_real_says_counts() {
    let config = valid(&with_second(
        "weight = 0\nstate = \"down\"\nnext_hop = \"02:00:00:00:00:01\"\nserver_ids = [1, 4_294_967_295]\n\
         sources = [\"192.168.0.0/17\", \"192.0.2.1\"]",
        "",
    ));
    let real = Real {
        address: "10.0.0.11".parse().unwrap(),
        weight: 0,
        state: RealState::Down,
        next_hop: Some(MacAddress([2, 0, 0, 0, 0, 1])),
        server_ids: vec![1, u32::MAX],
        sources: vec!["192.168.0.0/17".parse().unwrap(), "192.0.2.1/32".parse().unwrap()],
    };
    assert_eq!(config.vips[0].reals[0], real);
    let plain = Real {
        address: "10.0.0.12".parse().unwrap(),
        weight: 100,
        state: RealState::Up,
        next_hop: None,
        server_ids: vec![],
        sources: vec![],
    };
    assert_eq!(config.vips[0].reals[1], plain);
}

#[test]
fn states_and_weights_must_be_right() {
    let states = "expected is \"up\" or \"drain\" or \"down\"";
    wrong(&with("state = \"off\""), 12, "\"off\"", "\"off\" is not known here", states);
    wrong(
        &with("weight = 65536"),
        12,
        "65536",
        "65536 is out of range",
        "expected is a number from 0 to 65535",
    );
    wrong(
        &with("weight = \"100\""),
        12,
        "\"100\"",
        "a string where a whole number is expected",
        "expected is a number from 0 to 65535",
    );
}

#[test]
fn a_real_is_given_once() {
    wrong(
        &with("[[vip.real]]\naddress = \"10.0.0.11\""),
        13,
        "\"10.0.0.11\"",
        "the real 10.0.0.11 is given twice in this VIP",
        "it is in line 11 already: give it once, with the weight it shall have",
    );
}

#[test]
fn one_real_must_be_able_to_get_flows() {
    let help = "give one a weight above 0; a real that shall get no new flows has `state = \"drain\"`";
    let none = |text: &str| {
        let what = "no usable weight: all reals of the VIP 198.51.100.10:443/tcp have weight 0";
        wrong(text, 7, "\"198.51.100.10\"", what, help);
    };
    none(&with("weight = 0"));
    none(&with("weight = 0\nstate = \"drain\""));
    none(&with("weight = 0\n[[vip.real]]\naddress = \"10.0.0.12\"\nweight = 0"));
    // Each of these can.
    valid(&with("weight = 0\nsources = [\"192.0.2.0/24\"]"));
    valid(&with("weight = 0\n[[vip.real]]\naddress = \"10.0.0.12\""));
    valid(&with_second("weight = 0\nserver_ids = [1]", "weight = 0"));
    // And one that drains may have been meant to.
    for state in ["drain", "down"] {
        changed(
            "address = \"10.0.0.11\"\n",
            &format!("address = \"10.0.0.11\"\nstate = \"{state}\"\n"),
            "lb.toml:7:11: warning: no real of the VIP 198.51.100.10:443/tcp is up: new flows will be dropped\n    \
             address = \"198.51.100.10\"\n              ^^^^^^^^^^^^^^^\n    give one `state = \"up\"`",
        );
    }
}

#[test]
fn a_real_is_not_where_its_packets_come_back_from() {
    wrong(
        &RIGHT.replace("10.0.0.11", "198.51.100.10"),
        11,
        "\"198.51.100.10\"",
        "a VIP cannot be its own real: packets would come back here forever",
        "give the address that the server has for itself",
    );
    wrong(
        &with("[decapsulation]\naddresses = [\"10.0.0.11\"]"),
        11,
        "\"10.0.0.11\"",
        "the real 10.0.0.11 is an address of [decapsulation]: packets would come back here",
        "give the address that the server has for itself",
    );
    changed(
        "198.51.100.10",
        "10.0.0.0/8",
        "lb.toml:11:11: warning: the real 10.0.0.11 has an address of its VIP 10.0.0.0/8: packets may come back \
         here\n    address = \"10.0.0.11\"\n              ^^^^^^^^^^^\n    have a route for it that is more specific",
    );
}

#[test]
fn a_server_id_is_of_one_real() {
    let twice = "give it to one real of the VIP only";
    wrong(
        &with_second("server_ids = [7, 8]", "server_ids = [9, 8]"),
        16,
        "8",
        "the server id 8 is the real 10.0.0.11's already",
        twice,
    );
    wrong(
        &with_second("server_ids = [7, 8, 7]", ""),
        13,
        "7",
        "the server id 7 is given twice",
        "give it once",
    );
    for id in ["0", "4294967296", "-1"] {
        wrong(
            &with_second("", &format!("server_ids = [1, {id}]")),
            16,
            id,
            &format!("{id} is out of range"),
            "expected is a number from 1 to 4294967295",
        );
    }
    wrong(
        &with_second("", "server_ids = 1"),
        16,
        "1",
        "a whole number where a list is expected",
        "expected is a list of numbers, such as [1022, 197630]",
    );
    wrong(
        &with("server_ids = [1022]"),
        12,
        "1022",
        "server ids are nothing to a VIP whose packets carry none",
        "say where they are with `server_id` in [[vip]], or leave `server_ids` out",
    );
    // Another VIP may use the same.
    let other = "[[vip]]\naddress = \"198.51.100.11\"\nport = 443\nprotocol = \"udp\"\nserver_id = \"quic\"\n\
                 [[vip.real]]\naddress = \"10.0.0.11\"\nserver_ids = [7]";
    valid(&with_second("server_ids = [7]", other));
}

#[test]
fn a_source_is_of_one_real_and_of_the_vips_family() {
    wrong(
        &with_second("sources = [\"192.0.2.0/24\"]", "sources = [\"192.0.2.0/25\", \"192.0.2.0/24\"]"),
        16,
        "\"192.0.2.0/24\"",
        "the source 192.0.2.0/24 is the real 10.0.0.11's already",
        "give it to one real of the VIP only",
    );
    wrong(
        &with("sources = [\"192.0.2.1\", \"192.0.2.1/32\"]"),
        12,
        "\"192.0.2.1/32\"",
        "the source 192.0.2.1 is given twice",
        "give it once",
    );
    wrong(
        &with("sources = [\"192.0.2.0/24\", \"2001:db8::/64\"]"),
        12,
        "\"2001:db8::/64\"",
        "clients of an IPv4 VIP have no IPv6 addresses such as 2001:db8::/64",
        "give an IPv4 prefix",
    );
    wrong(
        &with("sources = [\"10.0.0.0/8\"]")
            .replace("198.51.100.10", "2001:db8::10")
            .replace("10.0.0.11", "fd00::1"),
        12,
        "\"10.0.0.0/8\"",
        "clients of an IPv6 VIP have no IPv4 addresses such as 10.0.0.0/8",
        "give an IPv6 prefix",
    );
    wrong(
        &with("sources = [\"192.0.2.1/24\"]"),
        12,
        "\"192.0.2.1/24\"",
        "\"192.0.2.1/24\" has bits set after its prefix",
        "write \"192.0.2.0/24\"",
    );
    let example = "expected is a prefix or an address, such as \"192.0.2.0/24\" or \"2001:db8::/64\"";
    wrong(
        &with("sources = [\"192.0.2.0/33\"]"),
        12,
        "\"192.0.2.0/33\"",
        "\"192.0.2.0/33\" is no prefix",
        example,
    );
    wrong(
        &with("sources = \"192.0.2.0/24\""),
        12,
        "\"192.0.2.0/24\"",
        "a string where a list is expected",
        "expected is a list of prefixes, such as [\"192.0.2.0/24\"]",
    );
}
