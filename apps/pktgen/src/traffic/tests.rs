//! Written packets by another parser's word.

use std::collections::HashMap;
use std::sync::Arc;

use afx::Time;
use etherparse::{LaxNetSlice, SlicedPacket, TransportSlice};
use proptest::prelude::*;

use super::*;
use crate::signature::Signature;

fn addresses(text: &str) -> AddressRange {
    text.parse().expect("addresses")
}

fn ports(text: &str) -> PortRange {
    text.parse().expect("ports")
}

/// UDP between two networks, 16 flows.
fn spec() -> Spec {
    Spec {
        macs: (MacAddress([2, 0, 0, 0, 0, 1]), MacAddress([2, 0, 0, 0, 0, 2])),
        tags: Vec::new(),
        kind: Kind::Udp,
        source: addresses("192.0.2.0/30"),
        destination: addresses("198.51.100.1"),
        source_ports: ports("1000-1003"),
        destination_ports: ports("9"),
        sizes: None,
        flows: None,
        order: Order::Walk,
        spoofed: false,
        signature: true,
        seed: 1,
    }
}

/// The first packets of some traffic, out of frames with rubbish in them.
fn packets(spec: &Spec, count: usize) -> Vec<Vec<u8>> {
    let mut writer = Writer::new(Arc::new(spec.prepare().expect("a right description")), 0);
    (0..count)
        .map(|index| {
            let mut bytes = vec![0xee; writer.length()];
            writer.write(&mut bytes, Time::from_nanos(0x0123_4567_89ab_0000 + index as u64));
            bytes
        })
        .collect()
}

/// Whether the checksums are right, and the lengths say how long the packet is.
fn check(bytes: &[u8]) {
    let packet = SlicedPacket::from_ethernet(bytes).expect("it parses");
    let net = packet.net.expect("an IP packet");
    let behind = net.ip_payload_ref().expect("a payload").payload.len();
    if let Some(ip) = net.ipv4_ref() {
        assert_eq!(ip.header().header_checksum(), ip.header().to_header().calc_header_checksum());
    }
    let (v4, v6) =
        (net.ipv4_ref().map(|ip| ip.header().to_header()), net.ipv6_ref().map(|ip| ip.header().to_header()));
    let (found, right, length) = match (packet.transport.expect("a transport header"), &v4, &v6) {
        (TransportSlice::Udp(udp), Some(ip), _) => {
            (udp.checksum(), udp.to_header().calc_checksum_ipv4(ip, udp.payload()), udp.length().into())
        }
        (TransportSlice::Udp(udp), _, Some(ip)) => {
            (udp.checksum(), udp.to_header().calc_checksum_ipv6(ip, udp.payload()), udp.length().into())
        }
        (TransportSlice::Tcp(tcp), Some(ip), _) => {
            (tcp.checksum(), tcp.to_header().calc_checksum_ipv4(ip, tcp.payload()), behind)
        }
        (TransportSlice::Tcp(tcp), _, Some(ip)) => {
            (tcp.checksum(), tcp.to_header().calc_checksum_ipv6(ip, tcp.payload()), behind)
        }
        (TransportSlice::Icmpv4(icmp), ..) => {
            (icmp.checksum(), Ok(icmp.header().icmp_type.calc_checksum(icmp.payload())), behind)
        }
        (TransportSlice::Icmpv6(icmp), _, Some(ip)) => {
            let right = icmp.header().icmp_type.calc_checksum(ip.source, ip.destination, icmp.payload());
            (icmp.checksum(), right, behind)
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(found, right.expect("no longer than an IP packet"));
    assert_eq!(length, behind);
}

fn kinds() -> impl Strategy<Value = Kind> {
    prop_oneof![Just(Kind::Udp), Just(Kind::Icmp), any::<u8>().prop_map(|flags| Kind::Tcp(TcpFlags(flags)))]
}

fn ranges() -> impl Strategy<Value = (AddressRange, AddressRange)> {
    let v4 = (any::<u32>(), 0u32..9, any::<u32>(), 0u32..9).prop_map(|(a, more, b, others)| {
        let range = |low: u32, more: u32| {
            let ends = [low, low.saturating_add(more)].map(std::net::Ipv4Addr::from_bits);
            addresses(&format!("{}-{}", ends[0], ends[1]))
        };
        (range(a, more), range(b, others))
    });
    let v6 = (any::<u128>(), 0u128..9, any::<u128>(), 0u128..9).prop_map(|(a, more, b, others)| {
        let range = |low: u128, more: u128| {
            let ends = [low, low.saturating_add(more)].map(std::net::Ipv6Addr::from_bits);
            addresses(&format!("{}-{}", ends[0], ends[1]))
        };
        (range(a, more), range(b, others))
    });
    prop_oneof![v4, v6]
}

fn specs() -> impl Strategy<Value = Spec> {
    let sizes = prop_oneof![
        Just(None),
        (130u16..9000).prop_map(|size| Some(Sizes::Fixed(size))),
        (130u16..1000, 1000u16..2000).prop_map(|(low, high)| Some(Sizes::Between(low, high))),
        Just(Some(Sizes::Shares(vec![(131, 7), (570, 4), (1518, 1)]))),
    ];
    let order = prop_oneof![Just(Order::Walk), Just(Order::Random), (0.0..2.0).prop_map(Order::Zipf)];
    let tags = prop::collection::vec(any::<u16>().prop_map(VlanTag), 0..=2);
    let port =
        (any::<u16>(), 0u16..5).prop_map(|(low, more)| ports(&format!("{low}-{}", low.saturating_add(more))));
    (kinds(), ranges(), sizes, order, tags, port, any::<bool>(), any::<bool>(), any::<u64>()).prop_map(
        |(kind, (source, destination), sizes, order, tags, source_ports, signature, spoofed, seed)| Spec {
            tags,
            kind,
            source,
            destination,
            source_ports,
            sizes,
            order,
            signature,
            spoofed,
            flows: spoofed.then_some(20),
            seed,
            ..spec()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_packet_is_as_described_and_right(spec in specs()) {
        let sizes = spec.prepare().expect("a right description").sizes;
        let mut next = HashMap::<u32, u32>::new();
        for (index, bytes) in packets(&spec, 40).into_iter().enumerate() {
            check(&bytes);
            let size = (bytes.len() + FCS) as u16;
            prop_assert!((sizes.shortest()..=sizes.longest()).contains(&size));
            prop_assert_eq!(&bytes[..12], &[spec.macs.1.0, spec.macs.0.0].concat()[..]);
            let parsed = afx::packet::parse(&bytes).expect("it parses");
            prop_assert_eq!(parsed.vlan_tags(), spec.tags.len());
            prop_assert_eq!(parsed.is_ipv4(), spec.source.is_ipv4());
            let signature = Signature::from_end(&bytes);
            prop_assert_eq!(signature.is_some(), spec.signature);
            if let Some(signature) = signature {
                let sequence = next.entry(signature.flow).or_default();
                prop_assert_eq!(signature.sequence, *sequence);
                prop_assert_eq!(signature.time, 0x0123_4567_89ab_0000 + index as u64);
                *sequence += 1;
            }
        }
    }
}

/// How often each flow's number is in the order.
fn shares(spec: &Spec) -> (Vec<u32>, usize) {
    let traffic = spec.prepare().expect("a right description");
    let mut counts = vec![0; traffic.flows.len()];
    traffic.order.iter().for_each(|packet| counts[packet.flow as usize] += 1);
    (counts, traffic.order.len())
}

#[test]
fn ranges_are_walked_in_order() {
    let seen: Vec<_> = packets(&spec(), 17)
        .iter()
        .map(|bytes| {
            let packet = SlicedPacket::from_ethernet(bytes).expect("it parses");
            let source = packet.net.expect("IP").ipv4_ref().expect("IPv4").header().source_addr();
            let Some(TransportSlice::Udp(udp)) = packet.transport else { panic!("no UDP") };
            format!("{source}:{}", udp.source_port())
        })
        .collect();
    assert_eq!(
        &seen[..5],
        ["192.0.2.0:1000", "192.0.2.0:1001", "192.0.2.0:1002", "192.0.2.0:1003", "192.0.2.1:1000"]
    );
    assert_eq!((&*seen[15], &*seen[16]), ("192.0.2.3:1003", "192.0.2.0:1000"));
}

#[test]
fn random_flows_have_equal_shares() {
    let (counts, all) = shares(&Spec { order: Order::Random, ..spec() });
    let mean = all as f64 / 16.0;
    // Six standard deviations of a binomial distribution.
    let off = 6.0 * (mean * 15.0 / 16.0).sqrt();
    assert!(counts.iter().all(|count| (f64::from(*count) - mean).abs() < off), "{counts:?}");
}

#[test]
fn zipf_shares_are_those_of_the_law() {
    let (counts, all) = shares(&Spec { order: Order::Zipf(1.0), ..spec() });
    let harmonic: f64 = (1..=16).map(|rank| 1.0 / f64::from(rank)).sum();
    for (rank, count) in (1..).zip(counts) {
        let share = 1.0 / f64::from(rank) / harmonic;
        let (mean, off) = (all as f64 * share, 6.0 * (all as f64 * share * (1.0 - share)).sqrt());
        assert!((f64::from(count) - mean).abs() < off, "rank {rank}: {count}, not {mean}");
    }
}

#[test]
fn an_imix_has_its_shares_exactly() {
    let traffic = Spec { sizes: Some("list 70:7,570:4,1518:1".parse().expect("sizes")), ..spec() };
    let traffic = traffic.prepare().expect("a right description");
    let of = |size: usize| {
        traffic.order.iter().filter(|packet| usize::from(packet.length) + FCS == size).count() * 12
            / traffic.order.len()
    };
    assert_eq!((of(70), of(570), of(1518)), (7, 4, 1));
    assert_eq!(traffic.order.len() % 48, 0, "whole rounds of flows and of shares");
}

#[test]
fn the_same_seed_gives_the_same_packets() {
    let random = |seed| packets(&Spec { seed, spoofed: true, flows: Some(50), ..spec() }, 50);
    assert_eq!(random(1), random(1));
    assert_ne!(random(1), random(2));
}

#[test]
fn spoofed_sources_differ_and_could_be_hosts() {
    let spoofed = Spec { spoofed: true, source: Shape::sources(true), flows: Some(1000), ..spec() };
    let mut sources: Vec<_> = packets(&spoofed, 1000).iter().map(|bytes| bytes[26..30].to_vec()).collect();
    assert!(sources.iter().all(|source| !matches!(source[0], 0 | 127 | 224..)));
    sources.sort_unstable();
    sources.dedup();
    assert!(sources.len() > 990, "{}", sources.len());
}

#[test]
fn fragments_make_whole_packets() {
    for (range, ipv4) in [("203.0.113.0/24", true), ("2001:db8::/64", false)] {
        let spec = Spec {
            kind: Kind::Fragments,
            source: addresses(range),
            destination: addresses(if ipv4 { "198.51.100.1" } else { "2001:db8:1::1" }),
            spoofed: true,
            flows: Some(10),
            signature: false,
            ..spec()
        };
        let written = packets(&spec, 30);
        for pieces in written.chunks(3) {
            let mut whole = Vec::new();
            let mut header = None;
            for (index, bytes) in pieces.iter().enumerate() {
                let packet = etherparse::LaxSlicedPacket::from_ethernet(bytes).expect("it parses");
                let net = packet.net.expect("IP");
                let payload = net.ip_payload_ref().expect("a payload");
                assert!(payload.fragmented);
                let parsed = afx::packet::parse(bytes).expect("afx parses it");
                assert!(parsed.fragment_id().is_some());
                if index == 0 {
                    header = Some(match &net {
                        LaxNetSlice::Ipv4(ip) => (Some(ip.header().to_header()), None),
                        LaxNetSlice::Ipv6(ip) => (None, Some(ip.header().to_header())),
                        other => panic!("{other:?}"),
                    });
                }
                whole.extend_from_slice(payload.payload);
            }
            let udp = etherparse::UdpHeaderSlice::from_slice(&whole).expect("UDP").to_header();
            assert_eq!(usize::from(udp.length), whole.len());
            let right = match header.expect("three pieces") {
                (Some(ip), _) => udp.calc_checksum_ipv4(&ip, &whole[8..]),
                (_, Some(ip)) => udp.calc_checksum_ipv6(&ip, &whole[8..]),
                _ => unreachable!("one or the other"),
            };
            assert_eq!(udp.checksum, right.expect("short enough"));
        }
    }
}

#[test]
fn what_would_be_right_is_said() {
    let refused = |spec: Spec| spec.prepare().expect_err("it cannot be").to_string();
    assert_eq!(
        refused(Spec { sizes: Some(Sizes::Fixed(64)), tags: vec![VlanTag(1)], ..spec() }),
        "frames of 64 bytes are too short: headers and a signature take 68; say `--size 68` at least, or leave the \
         signature out with `--no-signature`"
    );
    assert_eq!(
        refused(Spec { flows: Some(17), ..spec() }),
        "17 flows: the ranges of addresses and ports have 16"
    );
    assert_eq!(
        refused(Spec { source: addresses("10.0.0.0/8"), ..spec() }),
        "the ranges of addresses and ports have 67108864 flows: say how many of them with `--flows`, at most 4194304"
    );
    assert_eq!(
        refused(Spec { source: addresses("::1"), ..spec() }),
        "source and destination are of different IP versions"
    );
    assert_eq!(
        tcp_flags("syn,nop").unwrap_err().to_string(),
        "no TCP flag `nop`: fin, syn, rst, psh, ack, urg, ece, cwr, with commas between"
    );
    assert_eq!(tcp_flags("SYN, ack"), Ok(TcpFlags::SYN | TcpFlags::ACK));
    assert!("zipf".parse::<Order>().unwrap_err().to_string().contains("`zipf:1.0`"));
}
