//! Changes by command: what they make, and in which words they are refused.

use std::time::Duration;

use super::*;

const VIP: &str = "198.51.100.10:443/tcp";

fn address(text: &str) -> IpAddr {
    text.parse().expect("it is an address")
}

fn real(text: &str) -> Real {
    Real::new(address(text))
}

/// What a file means that has these lines more.
fn file(lines: &str) -> Config {
    valid(&with(lines))
}

#[test]
fn reals_come_and_go_as_by_the_file() {
    let config = valid(RIGHT);
    let two = file(
        "[[vip.real]]\naddress = \"10.0.0.12\"\nweight = 200\nsources = [\"10.0.0.0/8\", \"192.0.2.1\"]",
    );
    let sources = ["10.0.0.0/8", "192.0.2.1/32"].map(|prefix| prefix.parse().expect("it is a prefix"));
    let added = Real { weight: 200, sources: sources.to_vec(), ..real("10.0.0.12") };
    assert_eq!(config.add_real(&key(VIP), added).unwrap(), two);
    assert_eq!(two.remove_real(&key(VIP), address("10.0.0.12")).unwrap(), config);
    assert_eq!(config.set_weight(&key(VIP), address("10.0.0.11"), 65_535).unwrap(), file("weight = 65535"));
    let drained = two.set_state(&key(VIP), address("10.0.0.12"), RealState::Drain).unwrap();
    assert_eq!(drained.vips[0].reals[1].state, RealState::Drain);
    assert_eq!(drained.set_state(&key(VIP), address("10.0.0.12"), RealState::Up).unwrap(), two);
    // The last one may go, too.
    assert_eq!(config.remove_real(&key(VIP), address("10.0.0.11")).unwrap().vips[0].reals, []);
}

#[test]
fn vips_come_and_go_as_by_the_file() {
    let config = valid(RIGHT);
    let quic = key("[fc00:1::/96]:*/udp");
    let check = Check {
        probe: Probe::Icmp,
        interval: Duration::from_secs(2),
        timeout: Duration::from_secs(1),
        rise: 5,
        fall: 3,
        jitter: 10,
        flap: Flap { limit: 0, window: Duration::from_secs(60), hold: Duration::from_secs(60) },
    };
    let vip = Vip {
        server_id: ServerIdIn::Quic,
        ping: true,
        slow_start: Duration::from_secs(30),
        check: Some(check),
        ..Vip::new(quic)
    };
    let more = file(
        "[[vip]]\naddress = \"fc00:1::/96\"\nport = \"any\"\nprotocol = \"udp\"\nserver_id = \"quic\"\nping = true\n\
         slow_start = \"30s\"\ncheck = { type = \"icmp\", rise = 5 }\n\
         [[vip.real]]\naddress = \"fd00::1\"\nserver_ids = [1022, 7]",
    );
    let with_vip = config.add_vip(vip).unwrap();
    let added = Real { server_ids: vec![1022, 7], ..real("fd00::1") };
    assert_eq!(with_vip.add_real(&quic, added).unwrap(), more);
    assert_eq!(more.remove_vip(&quic).unwrap(), config);
    assert_eq!(config.remove_vip(&key(VIP)).unwrap().vips, []);
}

#[test]
fn a_change_that_the_file_could_not_make_is_refused_in_its_words() {
    let config = valid(RIGHT);
    let add = |real| config.add_real(&key(VIP), real).unwrap_err();
    assert_eq!(
        config.set_weight(&key(VIP), address("10.0.0.11"), 65_536).unwrap_err(),
        "65536 is out of range; expected is a number from 0 to 65535"
    );
    assert_eq!(
        config.set_weight(&key(VIP), address("10.0.0.11"), 0).unwrap_err(),
        "no usable weight: all reals of the VIP 198.51.100.10:443/tcp have weight 0; give one a weight above 0; a \
         real that shall get no new flows has `state = \"drain\"`"
    );
    assert_eq!(
        add(Real { server_ids: vec![7], ..real("10.0.0.12") }),
        "server ids are nothing to a VIP whose packets carry none; say where they are with `server_id` in [[vip]], or \
         leave `server_ids` out"
    );
    assert_eq!(
        add(Real { sources: vec!["2001:db8::/64".parse().unwrap()], ..real("10.0.0.12") }),
        "clients of an IPv4 VIP have no IPv6 addresses such as 2001:db8::/64; give an IPv4 prefix"
    );
    assert_eq!(
        add(real("198.51.100.10")),
        "a VIP cannot be its own real: packets would come back here forever; give the address that the server has for \
         itself"
    );
    assert_eq!(
        add(real("127.0.0.1")),
        "127.0.0.1 is not the address of one host in a network; expected is an address such as \"192.0.2.1\" or \
         \"2001:db8::1\""
    );
    let bits = VipKey { network: "198.51.100.1/24".parse().unwrap(), ..key(VIP) };
    assert_eq!(
        config.add_vip(Vip::new(bits)).unwrap_err(),
        "\"198.51.100.1/24\" has bits set after its prefix; write \"198.51.100.0/24\""
    );
    let leaving = Vip { udp_leaves_down: true, ..Vip::new(key("198.51.100.11:443/tcp")) };
    assert_eq!(
        config.add_vip(leaving).unwrap_err(),
        "the flows of a TCP VIP are not UDP: they stay with a real that is down; leave this key out, or say \
         `protocol = \"udp\"`"
    );
    let six = config.add_vip(Vip::new(key("[2001:db8::1]:443/tcp"))).unwrap();
    assert_eq!(
        six.add_real(&key("[2001:db8::1]:443/tcp"), real("10.0.0.11")).unwrap_err(),
        "IPv6 packets are not carried in IPv4: an IPv6 VIP cannot have an IPv4 real; give the real's IPv6 address"
    );
}

#[test]
fn what_is_not_there_is_named_with_what_is() {
    let config = valid(RIGHT);
    let other = key("198.51.100.10:443/udp");
    let no_vip = "there is no VIP 198.51.100.10:443/udp; there are: 198.51.100.10:443/tcp";
    assert_eq!(config.add_real(&other, real("10.0.0.12")).unwrap_err(), no_vip);
    assert_eq!(config.remove_real(&other, address("10.0.0.11")).unwrap_err(), no_vip);
    assert_eq!(config.remove_vip(&other).unwrap_err(), no_vip);
    let no_real = "the VIP 198.51.100.10:443/tcp has no real 10.0.0.99; its reals: 10.0.0.11";
    assert_eq!(config.remove_real(&key(VIP), address("10.0.0.99")).unwrap_err(), no_real);
    assert_eq!(config.set_weight(&key(VIP), address("10.0.0.99"), 1).unwrap_err(), no_real);
    assert_eq!(config.set_state(&key(VIP), address("10.0.0.99"), RealState::Up).unwrap_err(), no_real);
    assert_eq!(
        config.add_real(&key(VIP), real("10.0.0.11")).unwrap_err(),
        "the VIP 198.51.100.10:443/tcp has the real 10.0.0.11 already"
    );
    assert_eq!(
        config.add_vip(Vip::new(key(VIP))).unwrap_err(),
        "there is a VIP 198.51.100.10:443/tcp already"
    );
    let empty = config.remove_vip(&key(VIP)).unwrap();
    assert_eq!(
        empty.remove_vip(&key(VIP)).unwrap_err(),
        "there is no VIP 198.51.100.10:443/tcp; there are: none"
    );
    let reals: String = (20..40).map(|n| format!("[[vip.real]]\naddress = \"10.0.0.{n}\"\n")).collect();
    assert_eq!(
        file(&reals).remove_real(&key(VIP), address("10.0.0.99")).unwrap_err(),
        "the VIP 198.51.100.10:443/tcp has no real 10.0.0.99; its reals: 10.0.0.11, 10.0.0.20, 10.0.0.21, 10.0.0.22, \
         10.0.0.23, 10.0.0.24, 10.0.0.25, 10.0.0.26 and 13 more"
    );
}
