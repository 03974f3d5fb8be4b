//! Answers held against etherparse, the RFCs' exceptions, and published ones.

use etherparse::{Icmpv4Type, Icmpv6Type, SlicedPacket, TransportSlice, icmpv4, icmpv6};

use super::super::{Builder, FlowKey, MacAddress, VlanTag, checksum, embedded_flow, flow_key, parse};
use super::*;

const ROUTER4: &str = "192.0.2.254";
const ROUTER6: &str = "2001:db8::ff";

fn written(builder: Builder, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 3000];
    let len = builder.write(&mut bytes, payload).unwrap();
    bytes.truncate(len);
    bytes
}

fn udp4() -> Builder {
    Builder::udp("192.0.2.1:4000".parse().unwrap(), "198.51.100.7:53".parse().unwrap())
}

fn udp6() -> Builder {
    Builder::udp("[2001:db8::1]:4000".parse().unwrap(), "[2001:db8::2]:53".parse().unwrap())
}

fn error_about(original: &[u8], error: IcmpError) -> Option<Vec<u8>> {
    let parsed = parse(original).unwrap();
    let from = if parsed.is_ipv4() { ROUTER4 } else { ROUTER6 };
    let mut out = vec![0xaa; 1500];
    let len = icmp_error(original, &parsed, error, from.parse().unwrap(), &mut out)?;
    out.truncate(len);
    Some(out)
}

#[test]
fn an_error_goes_back_to_the_sender_and_names_its_flow() {
    for (builder, router) in [(udp4(), ROUTER4), (udp6(), ROUTER6)] {
        let builder = builder.vlan(VlanTag::from_id(12)).macs(MacAddress([2; 6]), MacAddress([4; 6]));
        let original = written(builder, b"a payload");
        let error = error_about(&original, IcmpError::TimeExceeded).unwrap();
        let parsed = parse(&error).unwrap();
        let ethernet = Ethernet::new_checked(&error).unwrap();
        assert_eq!((ethernet.source(), ethernet.destination()), (MacAddress([4; 6]), MacAddress([2; 6])));
        assert_eq!(ethernet.vlan(), Some(VlanTag::from_id(12)));
        assert!(parsed.is_ipv6() || checksum::verify_ipv4(&error, &parsed));
        assert_eq!(checksum::verify_transport(&error, &parsed), Some(true));
        assert!(error.ends_with(&original[18..]), "all of a small packet is quoted");

        let flow = flow_key(&original, &parse(&original).unwrap()).unwrap();
        let outer = flow_key(&error, &parsed).unwrap();
        assert_eq!((outer.source(), outer.destination()), (router.parse().unwrap(), flow.source()));
        assert_eq!(embedded_flow(&error, &parsed), Some(flow));
    }
}

#[test]
fn a_brief_error_quotes_what_path_mtu_discovery_needs() {
    let client = MacAddress([1, 0, 0, 0, 0, 0]);
    for (builder, vip, header, quoted) in [(udp4(), "198.51.100.7", 20, 84), (udp6(), "2001:db8::2", 40, 248)]
    {
        let builder = builder.tos(0xb8).macs(client, MacAddress([4; 6])).vlan(VlanTag::from_id(12));
        for payload in [0, 1, 100, 250, 1472] {
            let original = written(builder, &vec![7; payload]);
            let (parsed, mut out) = (parse(&original).unwrap(), [0xaa; 1500]);
            let (error, vip) = (IcmpError::TooBig { mtu: 1400 }, vip.parse().unwrap());
            let len = ErrorForm::BRIEF.write(&original, &parsed, error, vip, &mut out).unwrap();
            let answer = &out[..len];
            assert_eq!(len, 18 + header + 8 + quoted.min(original.len() - 18));
            assert!(original[18..].starts_with(&answer[18 + header + 8..]));
            let parsed = parse(answer).unwrap();
            assert_eq!(checksum::verify_transport(answer, &parsed), Some(true));
            assert_eq!(Ethernet::new_checked(answer).unwrap().destination(), client);
            let key = flow_key(&original, &parse(&original).unwrap());
            assert_eq!(embedded_flow(answer, &parsed), key);
            if header == 20 {
                let ip = Ipv4::new_checked(&answer[18..]).unwrap();
                assert!(ip.verify_checksum() && !ip.dont_fragment());
                assert_eq!((ip.tos(), ip.identification(), ip.ttl()), (0, 0, 64));
            }
        }
    }
}

#[test]
fn a_form_may_ask_for_more_than_there_may_be() {
    let form = ErrorForm { quote_v4: 9000, quote_v6: 9000, ..ErrorForm::BRIEF };
    let mut out = [0; 1500];
    for (builder, from, most) in [(udp4(), ROUTER4, 576), (udp6(), ROUTER6, 1280)] {
        let original = written(builder, &[7; 1400]);
        let parsed = parse(&original).unwrap();
        let len = form.write(&original, &parsed, IcmpError::TimeExceeded, from.parse().unwrap(), &mut out);
        assert_eq!(len, Some(14 + most));
    }
}

#[test]
fn types_and_codes_are_what_etherparse_reads() {
    use IcmpError::*;
    use icmpv4::{DestUnreachableHeader as D4, TimeExceededCode as T4};
    use icmpv6::{DestUnreachableCode as D6, TimeExceededCode as T6};
    let cases = [
        (
            NetworkUnreachable,
            Icmpv4Type::DestinationUnreachable(D4::Network),
            Icmpv6Type::DestinationUnreachable(D6::NoRoute),
        ),
        (
            HostUnreachable,
            Icmpv4Type::DestinationUnreachable(D4::Host),
            Icmpv6Type::DestinationUnreachable(D6::Address),
        ),
        (
            PortUnreachable,
            Icmpv4Type::DestinationUnreachable(D4::Port),
            Icmpv6Type::DestinationUnreachable(D6::Port),
        ),
        (
            Prohibited,
            Icmpv4Type::DestinationUnreachable(D4::FilterProhibited),
            Icmpv6Type::DestinationUnreachable(D6::Prohibited),
        ),
        (
            TooBig { mtu: 1400 },
            Icmpv4Type::DestinationUnreachable(D4::FragmentationNeeded { next_hop_mtu: 1400 }),
            Icmpv6Type::PacketTooBig { mtu: 1400 },
        ),
        (
            TimeExceeded,
            Icmpv4Type::TimeExceeded(T4::TtlExceededInTransit),
            Icmpv6Type::TimeExceeded(T6::HopLimitExceeded),
        ),
    ];
    for (error, expected4, expected6) in cases {
        let bytes = error_about(&written(udp4(), b"x"), error).unwrap();
        let Some(TransportSlice::Icmpv4(icmp)) = SlicedPacket::from_ethernet(&bytes).unwrap().transport
        else {
            panic!()
        };
        assert_eq!(icmp.icmp_type(), expected4);
        let bytes = error_about(&written(udp6(), b"x"), error).unwrap();
        let Some(TransportSlice::Icmpv6(icmp)) = SlicedPacket::from_ethernet(&bytes).unwrap().transport
        else {
            panic!()
        };
        assert_eq!(icmp.icmp_type(), expected6);
    }
}

#[test]
fn quotes_end_at_the_limit() {
    let error = error_about(&written(udp4(), &[7; 1400]), IcmpError::TooBig { mtu: 1000 }).unwrap();
    assert_eq!(parse(&error).unwrap().ip_range(), Some(14..14 + 576));
    let error = error_about(&written(udp6(), &[7; 1400]), IcmpError::TooBig { mtu: 1300 }).unwrap();
    assert_eq!(parse(&error).unwrap().ip_range(), Some(14..14 + 1280));
    assert_eq!(checksum::verify_transport(&error, &parse(&error).unwrap()), Some(true));
    // Padding is not quoted.
    let mut padded = written(udp4(), b"x");
    padded.resize(60, 0xee);
    assert_eq!(error_about(&padded, IcmpError::TimeExceeded).unwrap().len(), 14 + 20 + 8 + 29);
}

#[test]
fn nothing_is_reported_where_the_rfcs_forbid() {
    let host4: IpAddr = "192.0.2.1".parse().unwrap();
    let to = |source: &str, destination: &str| {
        written(Builder::ip(source.parse().unwrap(), destination.parse().unwrap(), Protocol(99)), b"12345678")
    };
    let icmp = |kind| {
        written(
            Builder::ip(host4, "192.0.2.9".parse().unwrap(), Protocol::ICMP),
            &[kind, 0, 0, 0, 0, 0, 0, 0],
        )
    };
    let icmp6 = |kind| {
        let (source, destination) = ("2001:db8::1".parse().unwrap(), "2001:db8::2".parse().unwrap());
        written(Builder::ip(source, destination, Protocol::ICMPV6), &[kind, 0, 0, 0, 0, 0, 0, 0])
    };
    let silent = [
        to("192.0.2.1", "255.255.255.255"),
        to("192.0.2.1", "224.0.0.1"),
        to("0.0.0.0", "192.0.2.1"),
        to("127.0.0.1", "192.0.2.1"),
        to("239.1.1.1", "192.0.2.1"),
        to("::", "2001:db8::1"),
        to("ff02::1", "2001:db8::1"),
        to("2001:db8::1", "ff02::1"),
        written(udp4().macs(MacAddress([2; 6]), MacAddress::BROADCAST), b"x"),
        written(udp4().fragment(1, 80, false), b"12345678"),
        icmp(3),
        icmp(5),
        icmp(11),
        icmp6(1),
        icmp6(3),
        icmp6(137),
    ];
    for original in silent {
        assert_eq!(error_about(&original, IcmpError::TimeExceeded), None, "{original:02x?}");
    }
    for original in
        [icmp(8), icmp6(128), to("192.0.2.1", "198.51.100.1"), written(udp4().fragment(1, 0, true), &[0; 8])]
    {
        assert!(error_about(&original, IcmpError::TimeExceeded).is_some(), "{original:02x?}");
    }
    assert!(error_about(&to("2001:db8::1", "ff02::1"), IcmpError::TooBig { mtu: 1280 }).is_some());
    assert_eq!(error_about(&to("192.0.2.1", "224.0.0.1"), IcmpError::TooBig { mtu: 1280 }), None);
}

#[test]
fn no_error_without_room_or_from_another_version() {
    let original = written(udp4(), b"x");
    let parsed = parse(&original).unwrap();
    let from: IpAddr = ROUTER4.parse().unwrap();
    let needed = 14 + 20 + 8 + 29;
    assert_eq!(
        icmp_error(&original, &parsed, IcmpError::TimeExceeded, from, &mut vec![0; needed]),
        Some(needed)
    );
    assert_eq!(icmp_error(&original, &parsed, IcmpError::TimeExceeded, from, &mut vec![0; needed - 1]), None);
    let from: IpAddr = ROUTER6.parse().unwrap();
    assert_eq!(icmp_error(&original, &parsed, IcmpError::TimeExceeded, from, &mut vec![0; 1500]), None);
}

#[test]
fn a_ping_becomes_its_reply() {
    for (source, destination) in [("192.0.2.1", "198.51.100.7"), ("2001:db8::1", "2001:db8::2")] {
        let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
        // A source that says it is a group is answered all the same.
        let request =
            Builder::echo(source, destination, 0x77, 3).ttl(9).macs(MacAddress([3; 6]), MacAddress([4; 6]));
        let mut bytes = written(request, b"ping data");
        let parsed = parse(&bytes).unwrap();
        let flow = flow_key(&bytes, &parsed).unwrap();
        assert!(echo_reply(&mut bytes, &parsed));

        let parsed = parse(&bytes).unwrap();
        assert_eq!(flow_key(&bytes, &parsed), Some(flow.reversed()));
        assert!(parsed.is_ipv6() || checksum::verify_ipv4(&bytes, &parsed));
        assert_eq!(checksum::verify_transport(&bytes, &parsed), Some(true));
        assert!(bytes.ends_with(b"ping data"));
        let icmp = Icmp::new_checked(&bytes[parsed.transport().unwrap()..]).unwrap();
        assert_eq!(
            (icmp.kind(), icmp.identifier(), icmp.sequence()),
            (if parsed.is_ipv4() { 0 } else { 129 }, 0x77, 3)
        );
        assert_eq!(Ethernet::new_checked(&bytes).unwrap().destination(), MacAddress([3; 6]));
        let ttl = if parsed.is_ipv4() { bytes[22] } else { bytes[21] };
        assert_eq!(ttl, 64);

        let before = bytes.clone();
        assert!(!echo_reply(&mut bytes, &parsed), "a reply is not answered");
        assert_eq!(bytes, before);
    }
}

#[test]
fn a_ping_of_nothing_but_zeros_has_a_right_reply() {
    let (source, destination) = ("192.0.2.1".parse().unwrap(), "198.51.100.7".parse().unwrap());
    for payload in [0, 1, 56] {
        let mut bytes = written(Builder::echo(source, destination, 0, 0), &vec![0; payload]);
        // The padding of a short frame is no part of it.
        bytes.resize(bytes.len().max(60), 0xee);
        let parsed = parse(&bytes).unwrap();
        assert!(echo_reply(&mut bytes, &parsed));
        assert_eq!(checksum::verify_transport(&bytes, &parsed), Some(true));
    }
}

#[test]
fn only_whole_pings_between_hosts_are_answered() {
    let (a, b) = ("192.0.2.1".parse().unwrap(), "198.51.100.7".parse().unwrap());
    let packets = [
        written(udp4(), b"x"),
        written(Builder::echo(a, "224.0.0.1".parse().unwrap(), 1, 1), b"x"),
        written(Builder::echo("0.0.0.0".parse().unwrap(), b, 1, 1), b"x"),
        written(Builder::echo(a, b, 1, 1).macs(MacAddress([2; 6]), MacAddress::BROADCAST), b"x"),
        written(Builder::echo(a, b, 1, 1).fragment(9, 0, true), &[0; 16]),
    ];
    for mut bytes in packets {
        let before = bytes.clone();
        let parsed = parse(&bytes).unwrap();
        assert!(!echo_reply(&mut bytes, &parsed));
        assert_eq!(bytes, before);
    }
}

#[test]
fn a_quoted_flow_must_be_the_receivers() {
    let original = written(udp4(), b"x");
    let mut error = error_about(&original, IcmpError::PortUnreachable).unwrap();
    let parsed = parse(&error).unwrap();
    let expected =
        FlowKey::new("192.0.2.1".parse().unwrap(), "198.51.100.7".parse().unwrap(), Protocol::UDP, 4000, 53);
    assert_eq!(embedded_flow(&error, &parsed), expected);
    assert_eq!(embedded_flow(&original, &parse(&original).unwrap()), None, "no error");

    // The quoted source is another's: forged.
    error[14 + 20 + 8 + 12] ^= 1;
    assert_eq!(embedded_flow(&error, &parsed), None);
    error[14 + 20 + 8 + 12] ^= 1;
    // A quoted later fragment has no ports.
    error[14 + 20 + 8 + 7] = 4;
    assert_eq!(embedded_flow(&error, &parsed), None);
    error[14 + 20 + 8 + 7] = 0;
    // Eight bytes of transport header are quoted at least (RFC 792); seven do not do.
    let short = |len: usize| {
        let builder = Builder::ip(ROUTER4.parse().unwrap(), "192.0.2.1".parse().unwrap(), Protocol::ICMP);
        let bytes = written(builder, &error[34..34 + 8 + 20 + len]);
        embedded_flow(&bytes, &parse(&bytes).unwrap())
    };
    assert_eq!((short(8), short(7)), (expected, None));
}

/// The answers that Katran's published tests expect, byte for byte, in a file that is not part of the project.
#[test]
#[allow(clippy::print_stderr, reason = "says when there is nothing to compare with")]
fn published_answers_come_out() {
    let folder = std::env::var("AFX_VECTORS")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/vectors").to_owned());
    let Ok(text) = std::fs::read_to_string(format!("{folder}/katran.json")) else {
        eprintln!("skipped: no katran.json in {folder} (set AFX_VECTORS)");
        return;
    };
    let vectors: serde_json::Value = serde_json::from_str(&text).unwrap();
    let bytes = |text: &serde_json::Value| -> Vec<u8> {
        let text = text.as_str().unwrap();
        let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
        (0..text.len()).step_by(2).map(byte).collect()
    };
    let (mut pings, mut errors) = (0, 0);
    for suite in vectors["suites"].as_array().unwrap() {
        for vector in suite["vectors"].as_array().unwrap() {
            let mut original = bytes(&vector["input_hex"]);
            let answer = match vector["kind"].as_str().unwrap() {
                "icmp_echo_reply" => {
                    pings += 1;
                    let parsed = parse(&original).unwrap();
                    assert!(echo_reply(&mut original, &parsed), "{}", vector["id"]);
                    original
                }
                "icmp_too_big_reply" => {
                    errors += 1;
                    let parsed = parse(&original).unwrap();
                    let vip = destination(&original, &parsed).unwrap();
                    let mtu = suite["config"]["mtu_advertised"].as_u64().unwrap() as u32;
                    let (error, mut out) = (IcmpError::TooBig { mtu }, vec![0xaa; 500]);
                    let len = ErrorForm::BRIEF.write(&original, &parsed, error, vip, &mut out).unwrap();
                    out.truncate(len);
                    out
                }
                _ => continue,
            };
            assert_eq!(answer, bytes(&vector["output_hex"]), "{}", vector["id"]);
        }
    }
    assert!(pings > 0 && errors > 0, "the file has packets of both kinds");
}
