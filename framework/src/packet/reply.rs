//! Answers to packets: ICMP and ICMPv6 echo replies and errors.

use std::net::IpAddr;

use super::checksum::{Change, Sum};
use super::encap::{OuterIpv4, OuterIpv6};
use super::names::{IpVersion, Protocol};
use super::parse::{Fragment, Parsed};
use super::rewrite::{swap_ip_addresses, swap_mac_addresses};
use super::view::{Ethernet, Icmp, Ipv4, Ipv6};

/// The time to live of answers.
const TTL: u8 = 64;
/// No ICMP error is longer, in bytes with its IP header (RFC 1812, section 4.3.2.3).
const ICMP_ERROR_MAX: usize = 576;
/// No ICMPv6 error is longer: the least MTU of IPv6 (RFC 4443, section 2.4 c).
const ICMPV6_ERROR_MAX: usize = 1280;
/// ICMP errors go with precedence "internetwork control" (RFC 1812, section 4.3.2.5).
const ICMP_ERROR_TOS: u8 = 0xc0;

/// Makes an ICMP or ICMPv6 echo request its own reply: addresses exchanged, time to live 64, checksums updated.
///
/// Returns false and leaves the packet as it was if it is no whole echo request, has IPv4 options (a source route
/// would have to be reversed) or IPv6 extension headers, or its addresses are not of single hosts.
pub fn echo_reply(bytes: &mut [u8], parsed: &Parsed) -> bool {
    let (request, reply) = match parsed.protocol() {
        Some(Protocol::ICMP) if parsed.is_ipv4() => (8, 0),
        Some(Protocol::ICMPV6) if parsed.is_ipv6() => (128, 129),
        _ => return false,
    };
    let Some(start) = parsed.transport() else { return false };
    if parsed.fragment() != Fragment::None || parsed.has_ip_options() || !is_between_hosts(bytes, parsed) {
        return false;
    }
    let Some(Ok(mut icmp)) = bytes.get_mut(start..).map(Icmp::new_checked) else { return false };
    if (icmp.kind(), icmp.code()) != (request, 0) {
        return false;
    }
    icmp.set_kind(reply, 0);
    let change = Change::new().replace_u16(u16::from(request) << 8, u16::from(reply) << 8);
    icmp.set_checksum(change.apply(icmp.checksum()));
    set_ttl(bytes, parsed);
    swap_ip_addresses(bytes, parsed) && swap_mac_addresses(bytes)
}

/// What an ICMP error reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum IcmpError {
    /// There is no route to the destination.
    NetworkUnreachable,
    /// The destination does not answer on its link.
    HostUnreachable,
    /// Nothing listens on the destination's port.
    PortUnreachable,
    /// A rule forbids it.
    Prohibited,
    /// It is larger than `mtu`, the next hop's in bytes, and must not be fragmented.
    TooBig {
        /// The most bytes that an IP packet may have on the next hop; in IPv4 what exceeds 65,535 is written as that.
        mtu: u32,
    },
    /// Its time to live is used up.
    TimeExceeded,
}

impl IcmpError {
    /// Type, code and second word in ICMP: RFC 792, RFC 1122 section 3.2.2.1, RFC 1191, RFC 1812 section 5.2.7.1.
    fn v4(self) -> (u8, u8, u32) {
        match self {
            Self::NetworkUnreachable => (3, 0, 0),
            Self::HostUnreachable => (3, 1, 0),
            Self::PortUnreachable => (3, 3, 0),
            Self::TooBig { mtu } => (3, 4, mtu.min(0xffff)),
            Self::Prohibited => (3, 13, 0),
            Self::TimeExceeded => (11, 0, 0),
        }
    }

    /// Type, code and second word in ICMPv6: RFC 4443, section 3.
    fn v6(self) -> (u8, u8, u32) {
        match self {
            Self::NetworkUnreachable => (1, 0, 0),
            Self::Prohibited => (1, 1, 0),
            Self::HostUnreachable => (1, 3, 0),
            Self::PortUnreachable => (1, 4, 0),
            Self::TooBig { mtu } => (2, 0, mtu),
            Self::TimeExceeded => (3, 0, 0),
        }
    }
}

/// Writes into `out` the ICMP or ICMPv6 error about the packet `original`, to its sender and back over the link that
/// it came from (VLAN tags as there), from the address `from`. Returns the length in bytes.
///
/// It quotes as much of the packet as the limits allow (576 bytes in all in IPv4, 1280 in IPv6) and `original` has.
///
/// Returns nothing where no error may be sent (RFC 1122 section 3.2.2, RFC 1812 section 4.3.2.7, RFC 4443 section
/// 2.4 e): about an ICMP error or redirect, a later fragment, a packet to or from what is not a single host (on the
/// link or in IP; "too big" may be about IPv6 multicast). Nothing too if `from` is of the other IP version or `out`
/// is too small. How many errors are sent per second is the caller's to limit.
pub fn icmp_error(
    original: &[u8],
    parsed: &Parsed,
    error: IcmpError,
    from: IpAddr,
    out: &mut [u8],
) -> Option<usize> {
    if !may_report(original, parsed, error) {
        return None;
    }
    let ip = parsed.ip_range()?;
    let quoted = original.get(ip.start..ip.end.min(original.len()))?;
    let (l3, start) = (parsed.l3(), parsed.l3() + if parsed.is_ipv4() { 20 } else { 40 });
    let limit = if parsed.is_ipv4() { ICMP_ERROR_MAX } else { ICMPV6_ERROR_MAX };
    let quoted = &quoted[..quoted.len().min(limit - (start - l3) - Icmp::<&[u8]>::LEN)];
    let message_len = Icmp::<&[u8]>::LEN + quoted.len();
    let out = out.get_mut(..start + message_len)?;

    out[..l3].copy_from_slice(original.get(..l3)?);
    swap_mac_addresses(out);
    let (headers, message) = out.split_at_mut(start);
    let header = headers.get_mut(l3..)?;
    message[Icmp::<&[u8]>::LEN..].copy_from_slice(quoted);
    let ((kind, code, word), pseudo) = match (from, source(original, parsed)?) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let ip = OuterIpv4::new(from, to, Protocol::ICMP, TTL, true);
            ip.write(header.first_chunk_mut()?, message_len as u16, ICMP_ERROR_TOS, 0);
            (error.v4(), Sum::new())
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let ip = OuterIpv6::new(from, to, Protocol::ICMPV6, TTL);
            ip.write(header.first_chunk_mut()?, message_len as u16, 0, 0);
            (error.v6(), Sum::new().add_pseudo_v6(from, to, Protocol::ICMPV6, message_len as u32))
        }
        _ => return None,
    };
    message[..4].copy_from_slice(&[kind, code, 0, 0]);
    message[4..8].copy_from_slice(&word.to_be_bytes());
    let checksum = pseudo.add_bytes(message).checksum();
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    Some(out.len())
}

fn may_report(original: &[u8], parsed: &Parsed, error: IcmpError) -> bool {
    let kind = parsed.transport().and_then(|start| original.get(start).copied());
    let about_error = match (parsed.protocol(), kind) {
        // What is not known to be a query (echo, timestamp, their replies) counts as an error.
        (Some(Protocol::ICMP), Some(kind)) => !matches!(kind, 0 | 8 | 13 | 14),
        // Errors have the high bit clear; redirect is 137.
        (Some(Protocol::ICMPV6), Some(kind)) => kind < 128 || kind == 137,
        _ => false,
    };
    if about_error || parsed.fragment() == Fragment::Later {
        return false;
    }
    let to_group_allowed = parsed.is_ipv6() && matches!(error, IcmpError::TooBig { .. });
    if to_group_allowed {
        source(original, parsed).is_some_and(is_host)
    } else {
        is_between_hosts(original, parsed)
    }
}

/// Whether neither the link's nor IP's addresses stand for several hosts or none.
fn is_between_hosts(bytes: &[u8], parsed: &Parsed) -> bool {
    let to_group = Ethernet::new_checked(bytes).is_ok_and(|ethernet| ethernet.destination().is_multicast());
    let from_group = Ethernet::new_checked(bytes).is_ok_and(|ethernet| ethernet.source().is_multicast());
    !to_group
        && !from_group
        && source(bytes, parsed).is_some_and(is_host)
        && destination(bytes, parsed).is_some_and(is_host)
}

/// Whether an address can be that of one host on a network.
fn is_host(address: IpAddr) -> bool {
    match address {
        // Class E, of which broadcast is the last, begins at 240.
        IpAddr::V4(address) => {
            address.octets()[0] != 0 && !address.is_loopback() && address.octets()[0] < 224
        }
        IpAddr::V6(address) => !address.is_unspecified() && !address.is_loopback() && !address.is_multicast(),
    }
}

fn source(bytes: &[u8], parsed: &Parsed) -> Option<IpAddr> {
    let header = bytes.get(parsed.l3()..)?;
    Some(match parsed.ip()? {
        IpVersion::V4 => Ipv4::new_checked(header).ok()?.source().into(),
        IpVersion::V6 => Ipv6::new_checked(header).ok()?.source().into(),
    })
}

fn destination(bytes: &[u8], parsed: &Parsed) -> Option<IpAddr> {
    let header = bytes.get(parsed.l3()..)?;
    Some(match parsed.ip()? {
        IpVersion::V4 => Ipv4::new_checked(header).ok()?.destination().into(),
        IpVersion::V6 => Ipv6::new_checked(header).ok()?.destination().into(),
    })
}

fn set_ttl(bytes: &mut [u8], parsed: &Parsed) {
    let Some(header) = bytes.get_mut(parsed.l3()..) else { return };
    if parsed.is_ipv4() {
        if let Ok(mut header) = Ipv4::new_checked(header) {
            let change = Change::new().replace_u16(u16::from(header.ttl()) << 8, u16::from(TTL) << 8);
            header.set_checksum(change.apply(header.checksum()));
            header.set_ttl(TTL);
        }
    } else if let Ok(mut header) = Ipv6::new_checked(header) {
        header.set_hop_limit(TTL);
    }
}

#[cfg(test)]
mod tests {
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
            written(
                Builder::ip(source.parse().unwrap(), destination.parse().unwrap(), Protocol(99)),
                b"12345678",
            )
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
        for original in [
            icmp(8),
            icmp6(128),
            to("192.0.2.1", "198.51.100.1"),
            written(udp4().fragment(1, 0, true), &[0; 8]),
        ] {
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
        assert_eq!(
            icmp_error(&original, &parsed, IcmpError::TimeExceeded, from, &mut vec![0; needed - 1]),
            None
        );
        let from: IpAddr = ROUTER6.parse().unwrap();
        assert_eq!(icmp_error(&original, &parsed, IcmpError::TimeExceeded, from, &mut vec![0; 1500]), None);
    }

    #[test]
    fn a_ping_becomes_its_reply() {
        for (source, destination) in [("192.0.2.1", "198.51.100.7"), ("2001:db8::1", "2001:db8::2")] {
            let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
            let request = Builder::echo(source, destination, 0x77, 3)
                .ttl(9)
                .macs(MacAddress([2; 6]), MacAddress([4; 6]));
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
            assert_eq!(Ethernet::new_checked(&bytes).unwrap().destination(), MacAddress([2; 6]));
            let ttl = if parsed.is_ipv4() { bytes[22] } else { bytes[21] };
            assert_eq!(ttl, 64);

            let before = bytes.clone();
            assert!(!echo_reply(&mut bytes, &parsed), "a reply is not answered");
            assert_eq!(bytes, before);
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
        let expected = FlowKey::new(
            "192.0.2.1".parse().unwrap(),
            "198.51.100.7".parse().unwrap(),
            Protocol::UDP,
            4000,
            53,
        );
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
}
