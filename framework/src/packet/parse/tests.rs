//! Packets by hand: one for each thing that can be wrong, and what fragments and tags come to.

use std::net::{IpAddr, SocketAddr};

use super::super::{Builder, IpVersion, VlanTag, flow_key};
use super::*;

fn v4(port: u16) -> SocketAddr {
    SocketAddr::new("192.0.2.1".parse().unwrap(), port)
}

fn v6(port: u16) -> SocketAddr {
    SocketAddr::new("2001:db8::1".parse().unwrap(), port)
}

fn written(builder: Builder, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 2000];
    let len = builder.write(&mut bytes, payload).unwrap();
    bytes.truncate(len);
    bytes
}

/// The packet with the bytes at `at` replaced.
fn with(mut bytes: Vec<u8>, at: usize, new: &[u8]) -> Vec<u8> {
    bytes[at..at + new.len()].copy_from_slice(new);
    bytes
}

fn cut(mut bytes: Vec<u8>, len: usize) -> Vec<u8> {
    bytes.truncate(len);
    bytes
}

#[test]
fn each_malformation_has_its_own_error() {
    let udp4 = || written(Builder::udp(v4(1), v4(2)), b"12345678");
    let tcp4 = || written(Builder::tcp(v4(1), v4(2)), b"12345678");
    let udp6 = || written(Builder::udp(v6(1), v6(2)), b"12345678");
    let tagged = written(Builder::udp(v4(1), v4(2)).vlan(VlanTag(5)), b"");
    let ip =
        |protocol, payload: &[u8]| written(Builder::ip(v4(0).ip(), v4(0).ip(), Protocol(protocol)), payload);
    let ip6 =
        |protocol, payload: &[u8]| written(Builder::ip(v6(0).ip(), v6(0).ip(), Protocol(protocol)), payload);
    let fragment = |offset, more, payload: &[u8]| {
        written(Builder::ip(v4(0).ip(), v4(0).ip(), Protocol::TCP).fragment(1, offset, more), payload)
    };
    let destination_options = [60, 0, 0, 0, 0, 0, 0, 0];
    let cases = [
        (cut(udp4(), 13), ParseError::EthernetTruncated),
        (cut(tagged, 17), ParseError::VlanTruncated),
        (cut(udp4(), 33), ParseError::Ipv4Truncated),
        (with(cut(udp4(), 34), 14, &[0x46, 0, 0, 24]), ParseError::Ipv4Truncated),
        (with(udp4(), 14, &[0x65]), ParseError::Ipv4Version),
        (with(udp4(), 14, &[0x44]), ParseError::Ipv4HeaderLength),
        (with(udp4(), 16, &[0, 19]), ParseError::Ipv4TotalLength),
        (with(udp4(), 16, &[0, 37]), ParseError::Ipv4TotalLength),
        (with(udp4(), 16, &[0, 0]), ParseError::Ipv4TotalLength),
        (cut(udp6(), 53), ParseError::Ipv6Truncated),
        (with(udp6(), 14, &[0x45]), ParseError::Ipv6Version),
        (with(udp6(), 18, &[0, 17]), ParseError::Ipv6PayloadLength),
        (ip6(60, &[17, 1, 0, 0, 0, 0, 0, 0]), ParseError::Ipv6ExtensionTruncated),
        (ip6(60, &[17, 0, 0, 0]), ParseError::Ipv6ExtensionTruncated),
        (ip6(60, &destination_options.repeat(20)), ParseError::Ipv6ExtensionChain),
        (ip6(60, &[0, 0, 0, 0, 0, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0, 0]), ParseError::Ipv6ExtensionChain),
        (fragment(800, true, &[0; 12]), ParseError::FragmentLength),
        (fragment(65_528, false, &[0; 8]), ParseError::FragmentLength),
        (fragment(0, true, &[0; 16]), ParseError::FragmentTiny),
        (fragment(8, false, &[0; 16]), ParseError::FragmentTiny),
        (ip(6, &[0; 19]), ParseError::TcpTruncated),
        (with(tcp4(), 46, &[0x40]), ParseError::TcpDataOffset),
        (with(tcp4(), 46, &[0x80]), ParseError::TcpDataOffset),
        (ip(17, &[0; 7]), ParseError::UdpTruncated),
        (with(udp4(), 38, &[0, 0]), ParseError::UdpLength),
        (with(udp4(), 38, &[0, 7]), ParseError::UdpLength),
        (with(udp4(), 38, &[0, 17]), ParseError::UdpLength),
        (ip(1, &[0; 7]), ParseError::IcmpTruncated),
        (ip6(58, &[0; 7]), ParseError::IcmpTruncated),
        (ip(132, &[0; 11]), ParseError::SctpTruncated),
    ];
    for (bytes, error) in &cases {
        // Padding must not lend its bytes to headers: those that are cut short are cut by the frame itself.
        assert_eq!(parse(bytes), Err(*error), "{bytes:02x?}");
    }
    for error in ParseError::ALL {
        assert!(cases.iter().any(|case| case.1 == error), "no case for {}", error.name());
    }
}

#[test]
fn padding_behind_the_ip_packet_is_no_payload() {
    for source in [v4(1), v6(1)] {
        let mut bytes = written(Builder::udp(source, source), b"data");
        let len = bytes.len();
        bytes.extend([0xff; 30]);
        let parsed = parse(&bytes).unwrap();
        assert_eq!(parsed.payload_range(), Some(len - 4..len));
        assert_eq!(parsed.ip_range(), Some(14..len));
    }
}

#[test]
fn what_is_not_ip_is_left_alone() {
    let mut arp = [0; 42];
    arp[12..14].copy_from_slice(&[8, 6]);
    let parsed = parse(&arp).unwrap();
    assert_eq!((parsed.ethertype(), parsed.ip(), parsed.protocol()), (EtherType::ARP, None, None));
    assert_eq!((parsed.ip_range(), parsed.transport(), parsed.hash()), (None, None, 0));
    assert_eq!(flow_key(&arp, &parsed), None);

    // A third tag is not looked behind.
    let mut tagged = [0; 60];
    for at in [12, 16, 20] {
        tagged[at..at + 2].copy_from_slice(&[0x81, 0]);
    }
    let parsed = parse(&tagged).unwrap();
    assert_eq!((parsed.vlan_tags(), parsed.ethertype(), parsed.ip()), (2, EtherType::VLAN, None));
}

#[test]
fn tags_shift_all_offsets() {
    let mut builder = Builder::tcp(v6(1), v6(2));
    for tags in 0..3 {
        let parsed = parse(&written(builder, b"x")).unwrap();
        assert_eq!((parsed.vlan_tags(), parsed.l3()), (tags, 14 + 4 * tags));
        assert_eq!(parsed.transport(), Some(54 + 4 * tags));
        assert_eq!(parsed.ip(), Some(IpVersion::V6));
        builder = builder.vlan(VlanTag(3));
    }
}

#[test]
fn fragments_of_a_packet_hash_alike() {
    for address in [v4(1), v6(1)] {
        let other = SocketAddr::new(address.ip(), 9);
        let hash = |builder: Builder| {
            let parsed = parse(&written(builder, &[0; 64])).unwrap();
            (parsed.fragment(), parsed.fragment_id(), parsed.hash())
        };
        let first = hash(Builder::udp(address, other).fragment(0x1234, 0, true));
        let middle = hash(Builder::udp(address, other).fragment(0x1234, 72, true));
        let last = hash(Builder::udp(address, other).fragment(0x1234, 136, false));
        assert_eq!((first.0, middle.0, last.0), (Fragment::First, Fragment::Later, Fragment::Later));
        assert_eq!((first.1, middle.1, last.1), (Some(0x1234), Some(0x1234), Some(0x1234)));
        assert_eq!((first.2, first.2), (middle.2, last.2));

        let next = hash(Builder::udp(address, other).fragment(0x1235, 0, true));
        let whole = hash(Builder::udp(address, other));
        assert_ne!(first.2, next.2);
        assert_ne!(first.2, whole.2);
        assert_eq!((whole.0, whole.1), (Fragment::None, None));
    }
}

#[test]
fn an_atomic_fragment_is_none() {
    let bytes = written(Builder::udp(v6(1), v6(2)).fragment(77, 0, false), b"x");
    let parsed = parse(&bytes).unwrap();
    assert_eq!((parsed.fragment(), parsed.fragment_id()), (Fragment::None, None));
    assert!(parsed.has_ip_options());
    // Its flow is that of packets without a fragment header.
    assert_eq!(parsed.hash(), parse(&written(Builder::udp(v6(1), v6(2)), b"x")).unwrap().hash());
}

#[test]
fn a_first_fragment_of_udp_says_the_length_of_all() {
    let bytes = written(Builder::udp(v4(1), v4(2)).fragment(7, 0, true), &[0; 64]);
    let parsed = parse(&with(bytes, 38, &2000u16.to_be_bytes())).unwrap();
    assert_eq!(parsed.transport(), Some(34));
}

#[test]
fn every_part_of_the_five_tuple_counts_in_the_hash() {
    let hash = |builder| parse(&written(builder, b"x")).unwrap().hash();
    for (a, b) in [
        (v4(1), SocketAddr::new("192.0.2.2".parse().unwrap(), 2)),
        (v6(1), SocketAddr::new("2001:db8::2".parse().unwrap(), 2)),
    ] {
        let other = |address: SocketAddr, port| SocketAddr::new(address.ip(), port);
        let hashes = [
            hash(Builder::udp(a, b)),
            hash(Builder::tcp(a, b)),
            hash(Builder::udp(b, a)),
            hash(Builder::udp(other(a, 3), b)),
            hash(Builder::udp(a, other(b, 3))),
            hash(Builder::udp(other(b, a.port()), b)),
            hash(Builder::udp(a, other(a, b.port()))),
        ];
        let distinct: std::collections::HashSet<_> = hashes.into_iter().collect();
        assert_eq!(distinct.len(), hashes.len());
        assert_eq!(hash(Builder::udp(a, b).ttl(3).tos(9)), hashes[0]);
    }
}

#[test]
fn pings_are_flows_by_their_identifier() {
    for address in [IpAddr::V4([192, 0, 2, 1].into()), v6(0).ip()] {
        let bytes = written(Builder::echo(address, address, 0x0102, 1), b"x");
        let key = flow_key(&bytes, &parse(&bytes).unwrap()).unwrap();
        assert_eq!((key.source_port(), key.destination_port()), (0x0102, 0x0102));
    }
}
