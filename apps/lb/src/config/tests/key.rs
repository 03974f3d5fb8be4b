//! How VIPs are named.

use super::*;

#[test]
fn a_name_is_read_as_it_is_written() {
    for name in [
        "198.51.100.10:443/tcp",
        "198.51.100.0/24:443/tcp",
        "198.51.100.0/24:*/udp",
        "[2001:db8::10]:443/tcp",
        "[fc00:1::/96]:*/udp",
        "[::/0]:53/udp",
    ] {
        assert_eq!(key(name).to_string(), name);
    }
    let expected = VipKey { network: "fc00:1::/96".parse().unwrap(), port: None, protocol: Protocol::Udp };
    assert_eq!(key("[fc00:1::/96]:*/udp"), expected);
    // One address may have its length.
    assert_eq!(key("198.51.100.10/32:1/tcp"), key("198.51.100.10:1/tcp"));
}

#[test]
fn what_names_no_vip_says_what_would_be_right() {
    let form = "expected is ADDRESS:PORT/PROTOCOL, such as 198.51.100.10:443/tcp, [2001:db8::10]:53/udp or, for \
                any port, 198.51.100.0/24:*/tcp";
    let port = "expected is a number from 1 to 65535, or * for any";
    let network = "expected is an address or a prefix, such as \"192.0.2.1\", \"198.51.100.0/24\" or \
                   \"2001:db8::/64\"";
    for (name, why) in [
        ("", format!("the protocol is missing; {form}")),
        ("198.51.100.10:443", format!("the protocol is missing; {form}")),
        ("198.51.100.0/24:443", format!("the protocol is missing; {form}")),
        ("[fc00:1::/96]:*", format!("the protocol is missing; {form}")),
        ("198.51.100.10:443/sctp", "the protocol \"sctp\" is not known; expected is tcp or udp".to_owned()),
        ("198.51.100.10/tcp", format!("the port is missing; {form}")),
        ("[2001:db8::10]/tcp", format!("the port is missing; {form}")),
        (
            "[2001:db8::10:443/tcp",
            "the bracket around the address is not closed; write ] after it".to_owned(),
        ),
        (
            "2001:db8::10:443/tcp",
            "an IPv6 address is written in brackets, such as [2001:db8::10]:53/udp".to_owned(),
        ),
        ("[198.51.100.10]:443/tcp", "an IPv4 address is written without brackets".to_owned()),
        ("198.51.100.10:0/tcp", format!("\"0\" is no port; {port}")),
        ("198.51.100.10:65536/tcp", format!("\"65536\" is no port; {port}")),
        ("198.51.100.10:+1/tcp", format!("\"+1\" is no port; {port}")),
        ("198.51.100.10:any/tcp", format!("\"any\" is no port; {port}")),
        ("198.51.100.256:443/tcp", format!("\"198.51.100.256\" is no IP address and no prefix; {network}")),
        (
            "198.51.100.10/24:443/tcp",
            "\"198.51.100.10/24\" has bits set after its prefix; write \"198.51.100.0/24\"".to_owned(),
        ),
        ("224.0.0.1:443/tcp", format!("224.0.0.1 is not the address of one host in a network; {network}")),
    ] {
        let error = name.parse::<VipKey>().expect_err(name);
        assert_eq!(error.to_string(), format!("\"{name}\" names no VIP: {why}"));
    }
}
