//! What a network may send: every packet gets out or is counted with a reason, whatever its bytes are.

use std::net::SocketAddr;

use afx::packet::{Builder, Protocol, TcpFlags};
use afx::stage::balancer::{Forwarding, Fragments, HashOn, ServerIdIn, TooBig, VipOptions};
use proptest::prelude::*;

use crate::lab::{Lab, OWN_MAC, Real, Served, Setup, vip};
use crate::outer::Outer;
use crate::packets::{tcp, too_big, udp, with_tcp_option, written};

const VIP4: &str = "198.51.100.10:80";
const VIP6: &str = "[2001:db8::10]:80";
const CLIENT4: &str = "192.0.2.77:40000";
const CLIENT6: &str = "[2001:db8:c::77]:40000";

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn setup() -> Setup {
    Setup::new([
        (vip(VIP4, Protocol::TCP), vec![Real::new("10.0.0.11"), Real::new("fd00::11")]),
        (vip(VIP4, Protocol::UDP), vec![Real::new("10.0.0.12")]),
        (vip(VIP6, Protocol::TCP), vec![Real::new("fd00::12")]),
        (vip("198.51.100.99:80", Protocol::UDP), vec![]),
    ])
}

fn tcp4() -> Vec<u8> {
    tcp(address(CLIENT4), address(VIP4), TcpFlags::SYN)
}

fn udp4(payload: usize) -> Vec<u8> {
    udp(address(CLIENT4), address(VIP4), &vec![0x5a; payload])
}

fn tcp6() -> Vec<u8> {
    tcp(address(CLIENT6), address(VIP6), TcpFlags::SYN)
}

fn changed(mut packet: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    packet[at..at + bytes.len()].copy_from_slice(bytes);
    packet
}

fn cut(mut packet: Vec<u8>, len: usize) -> Vec<u8> {
    packet.truncate(len);
    packet
}

#[test]
fn a_bad_packet_is_dropped_for_what_is_wrong_with_it() {
    let echo = |to: &str| Builder::echo(address(CLIENT4).ip(), to.parse().unwrap(), 1, 1);
    let ip = |protocol| Builder::ip(address(CLIENT4).ip(), address(VIP4).ip(), Protocol(protocol));
    // A record route option of four bytes before the TCP header.
    let mut options = tcp4();
    options.splice(34..34, [7, 3, 4, 0]);
    let options = changed(changed(options, 14, &[0x46]), 16, &[0, 44]);
    let cases = [
        ("balancer.ip_options", options),
        ("parse.ethernet_truncated", cut(tcp4(), 1)),
        ("parse.ethernet_truncated", cut(tcp4(), 13)),
        ("parse.vlan_truncated", [&tcp4()[..12], &[0x81, 0x00, 0x00]].concat()),
        ("parse.ipv4_truncated", cut(tcp4(), 14)),
        ("parse.ipv4_truncated", cut(tcp4(), 33)),
        ("parse.ipv4_version", changed(tcp4(), 14, &[0x65])),
        ("parse.ipv4_header_length", changed(tcp4(), 14, &[0x44])),
        ("parse.ipv4_total_length", changed(tcp4(), 16, &[0, 0])),
        ("parse.ipv4_total_length", changed(tcp4(), 16, &[0xff, 0xff])),
        ("parse.ipv4_total_length", cut(udp4(100), 100)),
        ("parse.tcp_truncated", changed(tcp4(), 16, &[0, 39])),
        ("parse.tcp_data_offset", changed(tcp4(), 14 + 20 + 12, &[0x40])),
        ("parse.tcp_data_offset", changed(tcp4(), 14 + 20 + 12, &[0xf0])),
        // Fifteen words of header where there are ten of packet.
        ("parse.ipv4_truncated", changed(tcp4(), 14, &[0x4f])),
        ("parse.udp_truncated", changed(udp4(0), 16, &[0, 27])),
        ("parse.udp_length", changed(udp4(10), 14 + 20 + 4, &[0, 0])),
        ("parse.udp_length", changed(udp4(10), 14 + 20 + 4, &[0, 7])),
        ("parse.udp_length", changed(udp4(10), 14 + 20 + 4, &[0, 19])),
        ("parse.ipv6_truncated", cut(tcp6(), 14 + 39)),
        ("parse.ipv6_version", changed(tcp6(), 14, &[0x45])),
        ("parse.ipv6_payload_length", cut(tcp6(), 14 + 40 + 19)),
        ("parse.ipv6_extension_truncated", changed(tcp6(), 20, &[0])),
        ("parse.icmp_truncated", changed(written(&ip(1), b"1234567"), 14 + 9, &[1])),
        ("balancer.not_ip", changed(tcp4(), 12, &[0x08, 0x06])),
        ("balancer.not_ip", changed(tcp4(), 12, &[0, 0])),
        ("balancer.no_vip", written(&ip(0), b"")),
        ("balancer.no_vip", written(&ip(4), &tcp4()[14..])),
        ("balancer.no_vip", written(&ip(47), b"GRE, perhaps")),
        ("balancer.no_vip", written(&ip(255), b"?")),
        ("balancer.no_vip", written(&echo("198.51.100.10"), b"ping")),
        ("balancer.no_vip", udp(address(CLIENT4), address("198.51.100.10:81"), b"")),
        ("balancer.no_vip", udp(address(CLIENT4), address("198.51.100.11:80"), b"")),
        ("balancer.no_vip", udp(address(CLIENT6), address(VIP6), b"")),
        // An error that quotes somebody else's packet, and one that quotes none.
        (
            "balancer.no_vip",
            too_big(address(CLIENT4).ip(), address("203.0.113.1:80"), address(CLIENT4), Protocol::TCP),
        ),
        ("balancer.no_vip", written(&ip(1), &[3, 4, 0, 0, 0, 0, 0, 0])),
        ("balancer.no_real", udp(address(CLIENT4), address("198.51.100.99:80"), b"")),
        ("balancer.fragment", written(&ip(17).fragment(1, 0, true), &udp4(8)[34..])),
        ("balancer.fragment", written(&ip(17).fragment(1, 16, false), b"the rest")),
        // 1500 bytes less the 20 of the outer header, and one more.
        ("balancer.too_big", udp4(1480 - 28 + 1)),
    ];
    for (reason, packet) in cases {
        let mut lab = Lab::new(&setup());
        assert_eq!(lab.exchange([&packet]), Vec::<Vec<u8>>::new(), "{reason}: {packet:02x?}");
        assert_eq!(lab.finish().drops(), [(reason, 1)], "{packet:02x?}");
    }
}

#[test]
fn an_unusual_packet_that_is_right_goes_on() {
    // A destination options header before the TCP header.
    let mut extension = tcp6();
    extension.splice(54..54, [6, 0, 1, 4, 0, 0, 0, 0]);
    let extension = changed(changed(extension, 18, &[0, 28]), 20, &[60]);
    for (packet, ip) in [
        (udp4(0), 14..42),
        (udp4(1480 - 28), 14..1494),
        (extension.clone(), 14..extension.len()),
        // Padding of another kind than Ethernet's.
        ([tcp4(), vec![0xee; 700]].concat(), 14..54),
    ] {
        let mut lab = Lab::new(&setup());
        let out = lab.exchange([&packet]);
        assert_eq!(out.len(), 1, "{packet:02x?}");
        assert_eq!(Outer::decode(&out[0]).inner, packet[ip]);
        assert_eq!(lab.finish().dropped_total(), 0);
    }
}

#[test]
fn a_packet_of_several_segments_goes_on_or_is_dropped_as_a_whole() {
    let mut setup = setup();
    let reals = setup.vips.iter_mut().flat_map(|served| &mut served.reals);
    reals.for_each(|real| real.mtu = Some(9000));
    let mut lab = Lab::new(&setup);
    lab.peer.segment_at(1000);
    let jumbo = |payload| {
        let mut bytes = vec![0; 9000];
        let len = Builder::udp(address(CLIENT4), address(VIP4)).write(&mut bytes, &vec![7; payload]).unwrap();
        bytes.truncate(len);
        bytes
    };
    let good = jumbo(5000);
    let out = lab.exchange([&good]);
    assert_eq!(Outer::decode(&out[0]).inner, good[14..]);
    // The IP header says where the packet ends, and it is long before.
    for (payload, excess) in [(100, 2000), (1200, 1), (100, 950)] {
        assert_eq!(lab.exchange([[jumbo(payload), vec![0; excess]].concat()]), Vec::<Vec<u8>>::new());
    }
    assert_eq!(lab.finish().drops(), [("balancer.trailing", 3)]);
}

/// What mutations start from.
fn seeds() -> Vec<Vec<u8>> {
    let ip = Builder::ip(address(CLIENT4).ip(), address(VIP4).ip(), Protocol::UDP);
    vec![
        tcp4(),
        udp4(50),
        tcp6(),
        too_big(address(CLIENT4).ip(), address(VIP4), address(CLIENT4), Protocol::TCP),
        too_big(address(CLIENT6).ip(), address(VIP6), address(CLIENT6), Protocol::TCP),
        written(&ip.fragment(3, 0, true), &udp4(8)[34..]),
        [&tcp4()[..12], &[0x88, 0xa8, 0, 1, 0x81, 0, 0, 2], &tcp4()[12..]].concat(),
        written(&Builder::echo(address(CLIENT4).ip(), address(VIP4).ip(), 1, 2), b"ping"),
        written(&Builder::echo(address(CLIENT6).ip(), address(VIP6).ip(), 1, 2), b"ping"),
        written(&ip.fragment(3, 8, false), b"the rest"),
        udp(address(CLIENT6), address(VIP6), &[0x52, 0, 0, 1, 0, 0, 0, 0]),
        udp(address(CLIENT4), address(VIP4), &[0xe0, 0, 0, 0, 1, 4, 0x40, 0, 0x40, 0]),
        with_tcp_option(&tcp(address(CLIENT4), address(VIP4), TcpFlags::ACK), 1),
        written(&Builder::ip(address(CLIENT4).ip(), [10, 9, 9, 9].into(), Protocol::IPV4), &tcp4()[14..]),
        written(&Builder::ip(address(CLIENT4).ip(), [10, 9, 9, 9].into(), Protocol::IPV6), &tcp6()[14..]),
        udp(address(CLIENT4), address("10.9.9.9:6080"), &udp4(20)[14..]),
    ]
}

/// Bytes without any plan, or a valid packet with a few bytes changed and perhaps cut or stretched.
fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
    let seeds = seeds();
    let mutated = (
        0..seeds.len(),
        prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        prop::option::of(0..200_usize),
    )
        .prop_map(move |(seed, changes, len)| {
            let mut bytes = seeds[seed].clone();
            for (at, value) in changes {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            if let Some(len) = len {
                bytes.resize(len.max(1), 0x55);
            }
            bytes
        });
    prop_oneof![1 => prop::collection::vec(any::<u8>(), 1..300), 6 => mutated]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_are_lost_unexplained(packets in prop::collection::vec(any_bytes(), 1..150)) {
        let mut lab = Lab::new(&setup());
        let out = lab.exchange(&packets);
        for packet in &out {
            let outer = Outer::decode(packet);
            prop_assert_eq!(outer.source_mac, OWN_MAC.0);
            prop_assert!(["10.0.0.11", "fd00::11", "10.0.0.12", "fd00::12"].contains(&&*outer.destination.to_string()));
            prop_assert!(outer.inner.len() <= 1480);
            prop_assert!(packets.iter().any(|sent| sent.windows(outer.inner.len()).any(|part| part == outer.inner)));
        }
        let stats = lab.finish();
        prop_assert_eq!(stats.received(), packets.len() as u64);
        prop_assert_eq!(stats.sent(), out.len() as u64);
        prop_assert_eq!(stats.dropped("no_verdict"), 0);
        prop_assert!(stats.drops().iter().all(|(name, _)| name.starts_with("parse.") || name.starts_with("balancer.")));
    }

    #[test]
    fn nor_where_vips_ask_for_everything(packets in prop::collection::vec(any_bytes(), 1..150)) {
        let mut lab = Lab::new(&demanding());
        let out = lab.exchange(&packets);
        for packet in &out {
            // Back to whom it came from, or to a real.
            let back = [&packet[6..12], &packet[..6]].concat();
            if !packets.iter().any(|sent| sent.starts_with(&back)) {
                prop_assert_eq!(Outer::decode(packet).source_mac, OWN_MAC.0);
            }
        }
        let stats = lab.finish();
        prop_assert_eq!(stats.received(), packets.len() as u64);
        // A fragment may have waited until the end for its turn.
        prop_assert!(stats.sent() >= out.len() as u64);
        prop_assert!(stats.drops().iter().all(|(name, _)| name.starts_with("parse.") || name.starts_with("balancer.")));
    }
}

/// VIPs that have packets looked into, answered, kept together and taken out of tunnels.
fn demanding() -> Setup {
    let reals = || vec![Real::new("10.0.0.11").server_id(1), Real::new("fd00::11").source("192.0.2.0/24")];
    let options = |server_id| VipOptions {
        hash: HashOn::Source,
        server_id: Some(server_id),
        answer_echo: true,
        fragments: Fragments::Together,
        udp_leaves_down: true,
    };
    let services = [
        ("198.51.100.0/24:*/tcp", ServerIdIn::TcpOption),
        ("198.51.100.0/24:*/udp", ServerIdIn::Quic),
        ("[2001:db8::/64]:*/tcp", ServerIdIn::TcpOption),
        ("[2001:db8::/64]:*/udp", ServerIdIn::UdpHeader),
    ];
    let served = |(text, place): (&str, _)| Served {
        vip: text.parse().unwrap(),
        options: options(place),
        reals: reals(),
    };
    Setup {
        vips: services.map(served).into(),
        forwarding: Forwarding::Gue { source_v4: None, source_v6: None, port: 6080 },
        too_big: TooBig { answer: true, per_second: 1000 },
        client_mtu: Some(150),
        decapsulate: vec!["10.9.9.9".parse().unwrap()],
        ..Setup::new([])
    }
}
