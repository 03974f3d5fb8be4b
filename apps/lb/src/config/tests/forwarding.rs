//! How packets get to the reals.

use super::*;

#[test]
fn the_forwarding_must_make_sense() {
    changed(
        "[forwarding]\nmethod = \"ipip\"\n",
        "",
        "lb.toml:1:1: error: it is not said how packets get to the reals\n    version = 1\n    ^\n    \
         add a section `[forwarding]` with `method = \"ipip\"`, `method = \"gue\"` or \
         `method = \"l2dsr\"`",
    );
    changed(
        "\"ipip\"",
        "\"l2dsr\"\nsource_v4 = \"10.0.0.0/8\"",
        "lb.toml:6:13: error: forwarding by layer 2 has no outer header, hence no source address for it\n    \
         source_v4 = \"10.0.0.0/8\"\n                ^^^^^^^^^^^^\n    \
         leave this key out, or say `method = \"ipip\"` or `method = \"gue\"`",
    );
    changed(
        "\"ipip\"",
        "\"ipip\"\nsource_v4 = \"10.0.0.1/8\"",
        "lb.toml:6:13: error: \"10.0.0.1/8\" has bits set after its prefix\n    \
         source_v4 = \"10.0.0.1/8\"\n                ^^^^^^^^^^^^\n    write \"10.0.0.0/8\"",
    );
    changed(
        "\"ipip\"",
        "\"ipip\"\nsource_v6 = \"10.0.0.0/8\"",
        "lb.toml:6:13: error: \"10.0.0.0/8\" is no IPv6 prefix\n    \
         source_v6 = \"10.0.0.0/8\"\n                ^^^^^^^^^^^^\n    \
         expected is an IPv6 address or prefix, such as \"2001:db8::1\" or \"fd00:afb::/64\"",
    );
}

#[test]
fn a_real_must_be_reachable_by_the_forwarding() {
    let families = |method: &str, vip: &str, real: &str| {
        let text = RIGHT.replace("ipip", method).replace("198.51.100.10", vip).replace("10.0.0.11", real);
        messages(&text).join("\n\n")
    };
    for (method, vip, real) in [
        ("ipip", "192.0.2.1", "10.0.0.1"),
        ("ipip", "192.0.2.1", "fd00::1"),
        ("ipip", "2001:db8::1", "fd00::1"),
        ("gue", "192.0.2.1", "10.0.0.1"),
        ("gue", "192.0.2.1", "fd00::1"),
        ("gue", "2001:db8::1", "fd00::1"),
        ("l2dsr", "192.0.2.1", "10.0.0.1"),
        ("l2dsr", "2001:db8::1", "fd00::1"),
    ] {
        assert_eq!(families(method, vip, real), "", "{method} {vip} {real}");
    }
    for method in ["ipip", "gue"] {
        assert_eq!(
            families(method, "2001:db8::1", "10.0.0.1"),
            "lb.toml:11:11: error: IPv6 packets are not carried in IPv4: an IPv6 VIP cannot have an IPv4 real\n    \
             address = \"10.0.0.1\"\n              ^^^^^^^^^^\n    give the real's IPv6 address"
        );
    }
    assert_eq!(
        families("l2dsr", "192.0.2.1", "fd00::1"),
        "lb.toml:11:11: error: layer 2 forwarding cannot take packets of an IPv4 VIP to an IPv6 real\n    \
         address = \"fd00::1\"\n              ^^^^^^^^^\n    \
         give the real's IPv4 address, or forward by \"ipip\" or \"gue\""
    );
    assert_eq!(
        families("l2dsr", "2001:db8::1", "10.0.0.1"),
        "lb.toml:11:11: error: layer 2 forwarding cannot take packets of an IPv6 VIP to an IPv4 real\n    \
         address = \"10.0.0.1\"\n              ^^^^^^^^^^\n    give the real's IPv6 address"
    );
}

#[test]
fn next_hops_must_be_hosts() {
    let wrong = |mac: &str, what: &str| {
        added(
            &format!("next_hop = \"{mac}\""),
            &format!(
                "lb.toml:12:12: error: \"{mac}\" is {what}\n    next_hop = \"{mac}\"\n               {}\n    \
                 expected is a MAC address such as \"02:00:00:00:00:01\"",
                "^".repeat(mac.len() + 2)
            ),
        );
    };
    for mac in
        ["02:00:00:00:00", "02:00:00:00:00:0g", "10.0.0.1", "02:00:00:00:00:01:02", "02:00:00:00:00:+1"]
    {
        wrong(mac, "no MAC address");
    }
    wrong("ff:ff:ff:ff:ff:ff", "not the MAC address of one host");
    wrong("00:00:00:00:00:00", "not the MAC address of one host");
}

/// The right file with more lines in [forwarding]: they begin with line 6.
fn with_forwarding(method: &str, lines: &str) -> String {
    RIGHT.replace("\"ipip\"", &format!("\"{method}\"\n{lines}"))
}

#[test]
fn what_the_forwarding_says_counts() {
    let config = valid(&with_forwarding(
        "gue",
        "gue_port = 6081\nsource_v4 = \"10.1.0.0/16\"\nnext_hop = \"02:00:00:00:00:01\"\nclient_mtu = 1400\n\
         [icmp]\ntoo_big = false\nper_second = 1_000_000\n[decapsulation]\naddresses = [\"fc00:1404::1\", \
         \"192.0.2.9\"]",
    ));
    let source_v4 = Some("10.1.0.0/16".parse().unwrap());
    assert_eq!(config.forwarding, Forwarding::Gue { source_v4, source_v6: None, port: 6081 });
    assert_eq!(config.next_hop, Some(MacAddress([2, 0, 0, 0, 0, 1])));
    assert_eq!(config.client_mtu, Some(1400));
    assert_eq!(config.icmp, Icmp { too_big: false, per_second: 1_000_000 });
    let addresses: [IpAddr; 2] = ["fc00:1404::1".parse().unwrap(), "192.0.2.9".parse().unwrap()];
    assert_eq!(config.decapsulate, addresses);
    let plain = valid(&with_forwarding("gue", ""));
    assert_eq!(plain.forwarding, Forwarding::Gue { source_v4: None, source_v6: None, port: 6080 });
    assert_eq!((plain.next_hop, plain.client_mtu, plain.decapsulate), (None, None, vec![]));
    assert_eq!(plain.icmp, Icmp { too_big: true, per_second: 1000 });
}

#[test]
fn a_port_is_for_gue_only() {
    for method in ["ipip", "l2dsr"] {
        wrong(
            &with_forwarding(method, "gue_port = 6080"),
            6,
            "6080",
            "only GUE sends to a port",
            "leave this key out, or say `method = \"gue\"`",
        );
    }
    let range = "expected is a number from 1 to 65535";
    wrong(&with_forwarding("gue", "gue_port = 0"), 6, "0", "0 is out of range", range);
    wrong(
        &with_forwarding("geneve", ""),
        5,
        "\"geneve\"",
        "\"geneve\" is not known here",
        "expected is \"ipip\" or \"gue\" or \"l2dsr\"",
    );
}

#[test]
fn numbers_of_forwarding_and_icmp_have_their_bounds() {
    for (lines, line, number, help) in [
        ("client_mtu = 575", 6, "575", "expected is a number from 576 to 65535"),
        ("client_mtu = 65536", 6, "65536", "expected is a number from 576 to 65535"),
        ("[icmp]\nper_second = 0", 7, "0", "expected is a number from 1 to 1000000"),
        ("[icmp]\nper_second = 1000001", 7, "1000001", "expected is a number from 1 to 1000000"),
    ] {
        wrong(&with_forwarding("ipip", lines), line, number, &format!("{number} is out of range"), help);
    }
    wrong(
        &with("[icmp]\ntoo_big = \"yes\""),
        13,
        "\"yes\"",
        "a string where true or false is expected",
        "expected is true or false, without quotes",
    );
}

#[test]
fn decapsulation_is_at_addresses_of_hosts() {
    let one = "expected is an address such as \"192.0.2.1\" or \"2001:db8::1\"";
    let refused = |list: &str, part: &str, what: &str, help: &str| {
        wrong(&with(&format!("[decapsulation]\naddresses = {list}")), 13, part, what, help);
    };
    refused(
        "\"fc00:1404::1\"",
        "\"fc00:1404::1\"",
        "a string where a list is expected",
        "expected is a list of addresses, such as [\"192.0.2.1\", \"2001:db8::1\"]",
    );
    refused("[\"fc00::1\", \"fc00::g\"]", "\"fc00::g\"", "\"fc00::g\" is no IP address", one);
    refused(
        "[\"fc00::/64\"]",
        "\"fc00::/64\"",
        "\"fc00::/64\" is no IP address",
        "one address is meant here, not a prefix",
    );
    refused("[\"ff02::1\"]", "\"ff02::1\"", "ff02::1 is not the address of one host in a network", one);
    refused(
        "[\"fc00::1\", \"fc00::0:1\"]",
        "\"fc00::0:1\"",
        "the address fc00::1 is given twice",
        "give it once",
    );
}

#[test]
fn the_next_hop_of_all_reals_must_be_a_host() {
    wrong(
        &with_forwarding("l2dsr", "next_hop = \"01:00:5e:00:00:01\""),
        6,
        "\"01:00:5e:00:00:01\"",
        "\"01:00:5e:00:00:01\" is not the MAC address of one host",
        "expected is a MAC address such as \"02:00:00:00:00:01\"",
    );
}
