//! The VIPs.

use std::time::Duration;

use super::*;

#[test]
fn addresses_must_be_those_of_hosts() {
    let wrong = |address: &str, what: &str, help: &str| {
        changed(
            "\"10.0.0.11\"",
            &format!("\"{address}\""),
            &format!(
                "lb.toml:11:11: error: {what}\n    address = \"{address}\"\n              {}\n    {help}",
                "^".repeat(address.len() + 2)
            ),
        );
    };
    let example = "expected is an address such as \"192.0.2.1\" or \"2001:db8::1\"";
    wrong("10.0.0.256", "\"10.0.0.256\" is no IP address", example);
    wrong("10.0.0.0/24", "\"10.0.0.0/24\" is no IP address", "one address is meant here, not a prefix");
    wrong("224.0.0.1", "224.0.0.1 is not the address of one host in a network", example);
    wrong("127.0.0.1", "127.0.0.1 is not the address of one host in a network", example);
    wrong("0.0.0.0", "0.0.0.0 is not the address of one host in a network", example);
    wrong("::ffff:10.0.0.1", "::ffff:10.0.0.1 is an IPv4 address in IPv6 form", "write it as \"10.0.0.1\"");
    wrong(
        "198.51.100.10",
        "a VIP cannot be its own real: packets would come back here forever",
        "give the address that the server has for itself",
    );
}

#[test]
fn ports_and_protocols_must_be_right() {
    for (port, what) in
        [("0", "0 is out of range"), ("65536", "65536 is out of range"), ("-1", "-1 is out of range")]
    {
        changed(
            "443",
            port,
            &format!(
                "lb.toml:8:8: error: {what}\n    port = {port}\n           {}\n    \
                 expected is a number from 1 to 65535, or \"any\"",
                "^".repeat(port.len())
            ),
        );
    }
    for port in ["\"all\"", "\"443\""] {
        let help = "expected is a number from 1 to 65535, or \"any\"";
        wrong(&RIGHT.replace("443", port), 8, port, &format!("{port} is no port"), help);
    }
    let other = "a list where a port is expected";
    wrong(
        &RIGHT.replace("443", "[80, 443]"),
        8,
        "[80, 443]",
        other,
        "expected is a number from 1 to 65535, or \"any\"",
    );
    changed(
        "\"tcp\"",
        "\"tpc\"",
        "lb.toml:9:12: error: \"tpc\" is not known here\n    protocol = \"tpc\"\n               ^^^^^\n    \
         did you mean \"tcp\"?",
    );
    changed(
        "\"tcp\"",
        "\"sctp6\"",
        "lb.toml:9:12: error: \"sctp6\" is not known here\n    protocol = \"sctp6\"\n               ^^^^^^^\n    \
         expected is \"tcp\" or \"udp\"",
    );
    changed("port = 443\n", "", "lb.toml:6:1: error: `port` is missing in [[vip]]\n    [[vip]]\n    ^^^^^^^");
}

#[test]
fn what_a_vip_says_counts() {
    let text = with_vip(
        "hash = \"source\"\nserver_id = \"udp-header\"\nping = true\nfragments = \"together\"\n\
         udp_leaves_down = true\nslow_start = \"90s\"",
    );
    let vip = valid(
        &text.replace("tcp", "udp").replace("443", "\"any\"").replace("198.51.100.10", "198.51.100.0/24"),
    )
    .vips
    .remove(0);
    assert_eq!(vip.key(), key("198.51.100.0/24:*/udp"));
    assert_eq!((vip.hash, vip.server_id), (HashOn::Source, ServerIdIn::UdpHeader));
    assert_eq!((vip.ping, vip.fragments, vip.udp_leaves_down), (true, Fragments::Together, true));
    assert_eq!(vip.slow_start, Duration::from_secs(90));
    let plain = valid(RIGHT).vips.remove(0);
    assert_eq!((plain.hash, plain.server_id), (HashOn::FiveTuple, ServerIdIn::None));
    assert_eq!((plain.ping, plain.fragments, plain.udp_leaves_down), (false, Fragments::Drop, false));
    assert_eq!((plain.slow_start, plain.check), (Duration::ZERO, None));
}

#[test]
fn prefixes_have_no_host_bits_and_hold_hosts() {
    let refused = |address: &str, what: &str, help: &str| {
        wrong(&RIGHT.replace("198.51.100.10", address), 7, &format!("\"{address}\""), what, help);
    };
    let example = "expected is an address or a prefix, such as \"192.0.2.1\", \"198.51.100.0/24\" or \
                   \"2001:db8::/64\"";
    refused(
        "198.51.100.10/24",
        "\"198.51.100.10/24\" has bits set after its prefix",
        "write \"198.51.100.0/24\"",
    );
    refused("198.51.100.0/33", "\"198.51.100.0/33\" is no IP address and no prefix", example);
    refused("www.example.com", "\"www.example.com\" is no IP address and no prefix", example);
    refused("127.0.0.0/8", "127.0.0.0/8 does not hold the addresses of hosts in a network", example);
    refused("224.0.0.0/24", "224.0.0.0/24 does not hold the addresses of hosts in a network", example);
    refused("127.0.0.1/32", "127.0.0.1 is not the address of one host in a network", example);
    refused(
        "::ffff:198.51.100.0/120",
        "::ffff:198.51.100.0/120 holds IPv4 addresses in IPv6 form",
        "write it as \"198.51.100.0/24\"",
    );
    // One address with its length is that address.
    assert_eq!(valid(&RIGHT.replace("198.51.100.10", "198.51.100.10/32")), valid(RIGHT));
    changed(
        "198.51.100.10",
        "0.0.0.0/0",
        "lb.toml:7:11: warning: the VIP 0.0.0.0/0:443/tcp takes packets to all addresses, those of this machine \
         among them\n    address = \"0.0.0.0/0\"\n              ^^^^^^^^^^^\n    \
         name the prefix that clients connect to\n\n\
         lb.toml:11:11: warning: the real 10.0.0.11 has an address of its VIP 0.0.0.0/0: packets may come back \
         here\n    address = \"10.0.0.11\"\n              ^^^^^^^^^^^\n    have a route for it that is more specific",
    );
}

#[test]
fn a_server_id_is_where_the_protocol_can_have_it() {
    for place in ["quic", "udp-header"] {
        wrong(
            &with_vip(&format!("server_id = \"{place}\"")),
            10,
            &format!("\"{place}\""),
            &format!("\"{place}\" is in packets of a udp VIP only, and this one is tcp"),
            "expected is \"tcp-option\", or \"none\"",
        );
    }
    wrong(
        &with_vip("server_id = \"tcp-option\"").replace("\"tcp\"", "\"udp\""),
        10,
        "\"tcp-option\"",
        "\"tcp-option\" is in packets of a tcp VIP only, and this one is udp",
        "expected is \"quic\" or \"udp-header\", or \"none\"",
    );
    valid(&with_vip("server_id = \"tcp-option\""));
}

#[test]
fn only_flows_of_udp_leave_a_real_that_is_down() {
    wrong(
        &with_vip("udp_leaves_down = true"),
        10,
        "true",
        "the flows of a TCP VIP are not UDP: they stay with a real that is down",
        "leave this key out, or say `protocol = \"udp\"`",
    );
    valid(&with_vip("udp_leaves_down = false"));
}

#[test]
fn words_and_times_of_a_vip_must_be_right() {
    wrong(
        &with_vip("hash = \"5tuple\""),
        10,
        "\"5tuple\"",
        "\"5tuple\" is not known here",
        "did you mean \"5-tuple\"?",
    );
    wrong(
        &with_vip("fragments = \"keep\""),
        10,
        "\"keep\"",
        "\"keep\" is not known here",
        "expected is \"drop\" or \"together\"",
    );
    wrong(&with_vip("slow_start = \"2h\""), 10, "\"2h\"", "\"2h\" is out of range", "it can be 0s to 1h");
    wrong(
        &with_vip("ping = 1"),
        10,
        "1",
        "a whole number where true or false is expected",
        "expected is true or false, without quotes",
    );
}

#[test]
fn a_vip_is_given_once() {
    let again = |address: &str, port: &str| {
        let vip = format!("[[vip]]\naddress = \"{address}\"\nport = {port}\nprotocol = \"tcp\"");
        with(&format!("{vip}\n[[vip.real]]\naddress = \"10.0.0.1\""))
    };
    for address in ["198.51.100.10", "198.51.100.10/32"] {
        wrong(
            &again(address, "443"),
            13,
            &format!("\"{address}\""),
            "the VIP 198.51.100.10:443/tcp is given twice",
            "it is in line 7 already: put all its reals in one `[[vip]]`",
        );
    }
    // Prefixes may overlap, and any port may stand beside one port.
    valid(&again("198.51.100.0/24", "443"));
    valid(&again("198.51.100.10", "\"any\""));
}

#[test]
fn more_reals_than_slots_are_too_many() {
    let reals: String = (1..=8).map(|n| format!("[[vip.real]]\naddress = \"10.1.0.{n}\"\n")).collect();
    added(
        &format!("{reals}[maglev]\ntable_size = 7"),
        "lb.toml:7:11: error: the VIP 198.51.100.10:443/tcp has 9 reals, more than its table has slots\n    \
         address = \"198.51.100.10\"\n              ^^^^^^^^^^^^^^^\n    raise `table_size` in [maglev] above 7",
    );
}

#[test]
fn more_reals_than_can_be_told_apart_are_too_many() {
    let real = |n: u32| format!("[[vip.real]]\naddress = \"10.1.{}.{}\"\n", n >> 8, n & 0xff);
    let half = |port: u32, count: u32| {
        format!("[[vip]]\naddress = \"198.51.100.10\"\nport = {port}\nprotocol = \"udp\"\n")
            + &(0..count).map(real).collect::<String>()
    };
    let all = |count| with(&(half(1, 1 << 15) + &half(2, count)));
    // With the one that is there anyway.
    wrong(
        &all(1 << 15),
        1,
        "v",
        "there are 65537 reals in all VIPs together",
        "at most 65536 can be told apart",
    );
    let most = all((1 << 15) - 1);
    valid(&most);
    // Not even then does it take long to say what is wrong with each of them.
    assert_eq!(messages(&most.replace("10.1.", "10.256.")).len(), 65_535);
}

#[test]
fn what_drops_packets_is_allowed_but_said() {
    changed(
        "[[vip.real]]\naddress = \"10.0.0.11\"\n",
        "",
        "lb.toml:7:11: warning: the VIP 198.51.100.10:443/tcp has no reals: its packets will be dropped\n    \
         address = \"198.51.100.10\"\n              ^^^^^^^^^^^^^^^\n    add sections `[[vip.real]]`",
    );
    let none = &RIGHT[..RIGHT.find("[[vip]]").unwrap()];
    assert_eq!(
        messages(none),
        ["lb.toml:1:1: warning: there is no VIP: no packet will be taken\n    version = 1\n    ^\n    \
          add a section `[[vip]]` for each"]
    );
}
