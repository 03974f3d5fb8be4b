//! Parsing held against another's: etherparse writes the packets and slices them.

use etherparse::{
    IpAuthHeader, IpFragOffset, IpHeaders, IpNumber, Ipv4Extensions, Ipv4Header, Ipv6Extensions,
    Ipv6FragmentHeader, Ipv6Header, Ipv6RawExtHeader, LinkExtSlice, NetSlice, PacketBuilder, SlicedPacket,
    TcpHeader, TransportSlice, VlanId,
};
use proptest::prelude::*;

use super::super::{IpVersion, checksum, embedded_flow, flow_key, reply, rewrite};
use super::*;

/// An Ethernet packet as etherparse writes it.
fn packet() -> impl Strategy<Value = Vec<u8>> {
    let payload = prop::collection::vec(any::<u8>(), 0..80);
    (0..3usize, prop_oneof![ipv4(), ipv6()], transport_kind(), any::<(u16, u16)>(), payload, 0..20usize)
        .prop_map(|(tags, ip, kind, ports, mut payload, padding)| {
            let more = match &ip {
                IpHeaders::Ipv4(header, _) => header.more_fragments,
                IpHeaders::Ipv6(_, extensions) => {
                    extensions.fragment.as_ref().is_some_and(|header| header.more_fragments)
                }
            };
            if more {
                // All of a fragment but the last is a multiple of eight; TCP options are in words.
                payload.truncate(payload.len() / 8 * 8);
                if let Kind::Tcp(words) = kind {
                    payload.extend(vec![0; (words + 1) % 2 * 4]);
                }
            }
            let is_ipv4 = matches!(ip, IpHeaders::Ipv4(..));
            let mut bytes = Vec::new();
            let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
            let id = |id| VlanId::try_new(id).unwrap();
            let ip = match tags {
                0 => ethernet.ip(ip),
                1 => ethernet.single_vlan(id(7)).ip(ip),
                _ => ethernet.double_vlan(id(7), id(9)).ip(ip),
            };
            match kind {
                Kind::Udp => ip.udp(ports.0, ports.1).write(&mut bytes, &payload),
                Kind::Echo if is_ipv4 => ip.icmpv4_echo_request(ports.0, ports.1).write(&mut bytes, &payload),
                Kind::Echo => ip.icmpv6_echo_request(ports.0, ports.1).write(&mut bytes, &payload),
                Kind::Tcp(words) => {
                    let mut header = TcpHeader::new(ports.0, ports.1, 1, 2);
                    header.set_options_raw(&vec![1; words * 4]).unwrap();
                    ip.tcp_header(header).write(&mut bytes, &payload)
                }
            }
            .unwrap();
            bytes.extend(vec![0xee; padding]);
            bytes
        })
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Tcp(usize),
    Udp,
    Echo,
}

fn transport_kind() -> impl Strategy<Value = Kind> {
    prop_oneof![(0..11usize).prop_map(Kind::Tcp), Just(Kind::Udp), Just(Kind::Echo)]
}

/// Whether and which fragment: more to come, offset in words of eight bytes, identification.
fn fragment() -> impl Strategy<Value = Option<(bool, u16, u32)>> {
    prop_oneof![
        4 => Just(None),
        1 => (any::<bool>(), prop_oneof![Just(0u16), 3..4000u16], any::<u32>()).prop_map(Some),
    ]
}

fn ipv4() -> BoxedStrategy<IpHeaders> {
    (any::<[u8; 4]>(), any::<[u8; 4]>(), prop_oneof![3 => Just(0usize), 1 => 1..11usize], fragment())
        .prop_map(|(source, destination, option_words, fragment)| {
            let mut header = Ipv4Header::new(0, 64, IpNumber::UDP, source, destination).unwrap();
            header.options = vec![1; option_words * 4].as_slice().try_into().unwrap();
            if let Some((more, offset, id)) = fragment {
                header.dont_fragment = false;
                header.more_fragments = more;
                header.fragment_offset = IpFragOffset::try_new(offset).unwrap();
                header.identification = id as u16;
            }
            IpHeaders::Ipv4(header, Ipv4Extensions::default())
        })
        .boxed()
}

fn ipv6() -> BoxedStrategy<IpHeaders> {
    let raw = || {
        prop::option::weighted(
            0.2,
            (0..4usize).prop_map(|n| Ipv6RawExtHeader::new_raw(IpNumber::UDP, &vec![0; 6 + 8 * n]).unwrap()),
        )
    };
    let auth = prop::option::weighted(
        0.1,
        (1..5usize).prop_map(|n| IpAuthHeader::new(IpNumber::UDP, 1, 2, &vec![0; 4 * n]).unwrap()),
    );
    (any::<[u8; 16]>(), any::<[u8; 16]>(), raw(), raw(), auth, fragment())
        .prop_map(|(source, destination, hop_by_hop_options, destination_options, auth, fragment)| {
            let header = Ipv6Header { source, destination, hop_limit: 64, ..Ipv6Header::default() };
            let fragment = fragment.map(|(more, offset, id)| {
                Ipv6FragmentHeader::new(IpNumber::UDP, IpFragOffset::try_new(offset).unwrap(), more, id)
            });
            // What would lie behind the fragment header is left out: of a later fragment it is no header.
            let auth = auth.filter(|_| fragment.is_none());
            let extensions =
                Ipv6Extensions { hop_by_hop_options, destination_options, routing: None, fragment, auth };
            IpHeaders::Ipv6(header, extensions)
        })
        .boxed()
}

/// A packet with some bytes of its headers changed, and maybe cut.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let changes =
        prop::collection::vec((0..80usize, prop_oneof![any::<u8>(), 0..8u8, Just(44), Just(60)]), 0..4);
    (packet(), changes, prop::option::weighted(0.3, 0..150usize)).prop_map(|(mut bytes, changes, cut)| {
        for (at, value) in changes {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        bytes.truncate(cut.unwrap_or(usize::MAX));
        bytes
    })
}

/// Asserts that what we say of a packet, etherparse says too.
fn assert_agreement(bytes: &[u8]) {
    let theirs = SlicedPacket::from_ethernet(bytes);
    let ours = match parse(bytes) {
        Ok(ours) => ours,
        Err(error) => return assert_rightly_refused(bytes, error, theirs.ok()),
    };
    if ours.ip().is_none() || beyond_etherparse(bytes, &ours) {
        return;
    }
    let theirs =
        theirs.unwrap_or_else(|error| panic!("etherparse refuses what we parse as {ours:?}: {error}"));
    let offset = |part: &[u8]| part.as_ptr() as usize - bytes.as_ptr() as usize;

    let tags = theirs.link_exts.iter().filter(|ext| matches!(ext, LinkExtSlice::Vlan(_))).count();
    assert_eq!(ours.vlan_tags(), tags);
    let net = theirs.net.as_ref().expect("IP");
    match net {
        NetSlice::Ipv4(ip) => {
            assert_eq!(ours.ip(), Some(IpVersion::V4));
            assert_eq!(ours.l3(), offset(ip.header().slice()));
            assert_eq!(ours.has_ip_options(), !ip.header().options().is_empty());
            if let Some(id) = ours.fragment_id() {
                assert_eq!(id, u32::from(ip.header().identification()));
            }
        }
        NetSlice::Ipv6(ip) => {
            assert_eq!(ours.ip(), Some(IpVersion::V6));
            assert_eq!(ours.l3(), offset(ip.header().slice()));
            assert_eq!(ours.has_ip_options(), ip.extensions().first_header().is_some());
        }
        NetSlice::Arp(_) => panic!("ARP parsed as {ours:?}"),
    }
    let payload = net.ip_payload_ref().expect("IP");
    assert_eq!(ours.fragment() != Fragment::None, payload.fragmented);
    assert_eq!(ours.protocol(), Some(Protocol(payload.ip_number.0)));
    let range = ours.ip_payload_range().unwrap();
    assert_eq!((range.start, range.len()), (offset(payload.payload), payload.payload.len()));
    if payload.fragmented {
        return;
    }
    let key = flow_key(bytes, &ours).unwrap();
    let ports = (key.source_port(), key.destination_port());
    let start = ours.payload_range().map(|range| range.start);
    match theirs.transport {
        Some(TransportSlice::Tcp(tcp)) => {
            assert_eq!(ports, (tcp.source_port(), tcp.destination_port()));
            assert_eq!(start, Some(offset(tcp.payload())));
        }
        Some(TransportSlice::Udp(udp)) => {
            assert_eq!(ports, (udp.source_port(), udp.destination_port()));
            assert_eq!(start, Some(offset(udp.payload())));
        }
        Some(TransportSlice::Icmpv4(_) | TransportSlice::Icmpv6(_)) => {
            assert_eq!(start, Some(range.start + 8))
        }
        Some(TransportSlice::Igmp(_)) | None => {
            let known = matches!(
                ours.protocol(),
                Some(Protocol::TCP | Protocol::UDP | Protocol::ICMP | Protocol::ICMPV6)
            );
            assert!(!known, "{ours:?}");
        }
    }
}

/// Packets of which etherparse has another idea by design.
fn beyond_etherparse(bytes: &[u8], ours: &Parsed) -> bool {
    let ip = &bytes[ours.l3()..];
    // It knows how long an ICMP timestamp must be.
    if ours.protocol() == Some(Protocol::ICMP)
        && ours.transport().is_some_and(|start| matches!(bytes[start], 13 | 14))
    {
        return true;
    }
    match ours.ip() {
        // It takes the authentication header for a part of the IPv4 header; and refuses IGMP that is too short.
        Some(IpVersion::V4) => matches!(ip[9], 2 | 51),
        // It takes no length for all that there is, and does not know mobility, HIP and shim6 for extension headers.
        Some(IpVersion::V6) => {
            let (mut next, mut at) = (ip[6], 40);
            while [0, 43, 44, 51, 60, 135, 139, 140].contains(&next)
                && let Some(&[following, len]) = ip.get(at..).and_then(<[u8]>::first_chunk)
            {
                if next >= 135 {
                    return true;
                }
                at += match next {
                    44 => 8,
                    51 => 8 + 4 * usize::from(len),
                    _ => 8 + 8 * usize::from(len),
                };
                next = following;
            }
            // In a later fragment it goes on to look for headers in the middle of the original.
            let middle = ours.fragment() == Fragment::Later
                && matches!(ours.protocol().map(|it| it.0), Some(0 | 43 | 44 | 51 | 60));
            middle || next == 2 || ip[4..6] == [0, 0]
        }
        None => true,
    }
}

/// Asserts that etherparse too refuses what is too short. It is laxer in other things.
fn assert_rightly_refused(bytes: &[u8], error: ParseError, accepted: Option<SlicedPacket<'_>>) {
    use ParseError::*;
    let lengths = [
        EthernetTruncated,
        VlanTruncated,
        Ipv4Truncated,
        Ipv4Version,
        Ipv4HeaderLength,
        Ipv4TotalLength,
        Ipv6Truncated,
        Ipv6Version,
        Ipv6PayloadLength,
        TcpTruncated,
        UdpTruncated,
    ];
    // It takes an IPv6 payload length of zero for all that there is.
    let unsized6 = |net: &NetSlice<'_>| net.ipv6_ref().is_some_and(|ip| ip.header().payload_length() == 0);
    let accepted = accepted.is_some_and(|theirs| !theirs.net.as_ref().is_some_and(unsized6));
    assert!(
        !(lengths.contains(&error) && accepted),
        "etherparse accepts what we refuse: {error}: {bytes:02x?}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn valid_packets_parse_as_etherparse_slices_them(bytes in packet()) {
        let parsed = parse(&bytes);
        prop_assert!(parsed.is_ok(), "{parsed:?}");
        assert_agreement(&bytes);
        let parsed = parsed.unwrap();
        prop_assert!(parsed.is_ipv6() || checksum::verify_ipv4(&bytes, &parsed));
        let whole = parsed.fragment() == Fragment::None;
        prop_assert_eq!(checksum::verify_transport(&bytes, &parsed), whole.then_some(true));
    }

    #[test]
    fn mutated_packets_parse_as_etherparse_slices_them(bytes in mutated()) {
        assert_agreement(&bytes);
    }

    #[test]
    fn the_short_way_agrees_with_the_long_one(bytes in mutated(), longer in 0..100usize, seed: u64) {
        for packet_len in [bytes.len(), bytes.len() + longer] {
            if let Some(parsed) = parse_common(&bytes, packet_len, HashSeed(seed)) {
                prop_assert_eq!(Ok(parsed), parse_any(&bytes, packet_len, HashSeed(seed)));
            }
        }
    }

    #[test]
    fn the_head_of_a_packet_parses_as_the_whole(bytes in packet(), seed: u64) {
        let whole = parse_head(&bytes, bytes.len(), HashSeed(seed)).unwrap();
        let headers = whole.payload_range().map_or(whole.ip_payload_range().unwrap().start, |payload| payload.start);
        for len in headers..bytes.len() {
            prop_assert_eq!(parse_head(&bytes[..len], bytes.len(), HashSeed(seed)), Ok(whole));
        }
    }

    #[test]
    fn the_flow_key_hashes_as_the_packet(bytes in packet(), seed: u64) {
        let parsed = parse_head(&bytes, bytes.len(), HashSeed(seed)).unwrap();
        let key = flow_key(&bytes, &parsed);
        prop_assert_eq!(key.is_none(), parsed.fragment() == Fragment::Later);
        if parsed.fragment() == Fragment::None {
            prop_assert_eq!(key.unwrap().hash(HashSeed(seed)), parsed.hash());
        }
    }

    /// Nothing that arrives makes anything here panic, not even a packet taken for another.
    #[test]
    fn nothing_panics(
        bytes in prop_oneof![mutated(), prop::collection::vec(any::<u8>(), 0..200)],
        other in mutated(),
    ) {
        let own = parse(&bytes);
        for parsed in own.into_iter().chain(parse(&other)) {
            let mut bytes = bytes.clone();
            let mut out = [0; 1400];
            let _ = (flow_key(&bytes, &parsed), embedded_flow(&bytes, &parsed));
            let _ = (checksum::verify_ipv4(&bytes, &parsed), checksum::verify_transport(&bytes, &parsed));
            for from in ["192.0.2.1", "2001:db8::1"] {
                let from = from.parse().unwrap();
                let _ = reply::icmp_error(&bytes, &parsed, reply::IcmpError::TimeExceeded, from, &mut out);
                let _ = rewrite::set_source(&mut bytes, &parsed, from) | rewrite::set_destination(&mut bytes, &parsed, from);
            }
            let _ = reply::echo_reply(&mut bytes, &parsed) | rewrite::swap_ip_addresses(&mut bytes, &parsed);
            let _ = rewrite::swap_ports(&mut bytes, &parsed) | rewrite::set_source_port(&mut bytes, &parsed, 1);
            let _ = (rewrite::decrement_ttl(&mut bytes, &parsed), rewrite::pop_vlan(&mut bytes));
            let _ = checksum::fill_ipv4(&mut bytes, &parsed) | checksum::fill_transport(&mut bytes, &parsed);
        }
    }
}
