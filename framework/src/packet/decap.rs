//! The way back from [`encap`](super::encap): packets within packets.
//!
//! ```
//! use afx::packet::{Builder, Protocol, decap, parse, rewrite};
//!
//! // A packet to a VIP, in IP in IP to the address of a balancer.
//! let mut inner = [0; 100];
//! let len = Builder::udp("192.0.2.1:4000".parse()?, "198.51.100.7:53".parse()?).write(&mut inner, b"query").unwrap();
//! let outer = Builder::ip("10.0.0.1".parse()?, "10.0.0.2".parse()?, Protocol::IPV4);
//! let mut bytes = [0; 200];
//! let len = outer.write(&mut bytes, &inner[14..len]).unwrap();
//!
//! let parsed = parse(&bytes[..len])?;
//! let inner = decap::inner(&bytes[..len], &parsed, None).expect("there is a packet within");
//! assert_eq!(inner.outer_destination(), "10.0.0.2".parse::<std::net::IpAddr>()?);
//! let taken = decap::strip(&mut bytes[..len], &parsed, &inner).expect("it is the packet that was looked at");
//! let bytes = &mut bytes[taken..len];
//! // A packet that was taken out has come one hop further.
//! let parsed = parse(bytes)?;
//! assert_eq!(rewrite::decrement_ttl(bytes, &parsed), Some(63));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::net::IpAddr;

use super::names::{EtherType, Protocol};
use super::parse::{Fragment, Parsed};
use super::view::{Ipv4, Ipv6};

const UDP_LEN: usize = 8;

/// Where a packet within another is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inner {
    outer_destination: IpAddr,
    offset: usize,
    ethertype: EtherType,
}

impl Inner {
    /// The address that the outer header is addressed to: whether packets to it are to be taken out is the caller's
    /// affair, and should be asked, for else anybody can send what seems to come from inside a network.
    #[inline]
    pub const fn outer_destination(&self) -> IpAddr {
        self.outer_destination
    }

    /// Where the inner IP header begins, counted from the outer packet's first byte.
    #[inline]
    pub const fn offset(&self) -> usize {
        self.offset
    }

    /// The EtherType of the inner packet: [`EtherType::IPV4`] or [`EtherType::IPV6`].
    #[inline]
    pub const fn ethertype(&self) -> EtherType {
        self.ethertype
    }
}

/// The packet within a packet that was parsed as `parsed`: in IP in IP of either version in either version; and, with
/// `gue_port`, in UDP to that port, as Generic UDP Encapsulation has it in its variant 1.
///
/// Nothing if it is no such packet, or a fragment of one, or if what it carries does not begin as an IP header of the
/// version that it should have. Of the inner header nothing else is looked at: [`parse`](super::parse) does that once
/// the outer one is off. The outer UDP checksum is not verified, for there are senders that do not write a right one;
/// the inner packet has its own.
#[inline]
pub fn inner(bytes: &[u8], parsed: &Parsed, gue_port: Option<u16>) -> Option<Inner> {
    let protocol = parsed.protocol()?;
    if parsed.fragment() != Fragment::None {
        return None;
    }
    let payload = parsed.ip_payload_range()?;
    let (offset, end) = match protocol {
        Protocol::IPV4 | Protocol::IPV6 => (payload.start, payload.end),
        Protocol::UDP => {
            let header = bytes.get(parsed.transport()?..)?.first_chunk::<UDP_LEN>()?;
            if gue_port != Some(u16::from_be_bytes([header[2], header[3]])) {
                return None;
            }
            let udp_len = usize::from(u16::from_be_bytes([header[4], header[5]]));
            (payload.start + UDP_LEN, payload.start + udp_len)
        }
        _ => return None,
    };
    let version = bytes.get(..end.min(bytes.len()))?.get(offset)? >> 4;
    let ethertype = match (version, protocol) {
        (4, Protocol::IPV4 | Protocol::UDP) => EtherType::IPV4,
        (6, Protocol::IPV6 | Protocol::UDP) => EtherType::IPV6,
        _ => return None,
    };
    Some(Inner { outer_destination: outer_destination(bytes, parsed)?, offset, ethertype })
}

/// Puts the link header, VLAN tags included, in front of the inner packet, which then begins as many bytes later as
/// are returned: what lies before is to be taken off.
///
/// The outer header's congestion mark is lost (RFC 6040 would carry it over). What was parsed is stale.
///
/// Nothing, and the packet left as it was, if `parsed` and `inner` are not of this packet.
#[inline]
pub fn strip(bytes: &mut [u8], parsed: &Parsed, inner: &Inner) -> Option<usize> {
    let link_len = parsed.l3();
    let taken = inner.offset.checked_sub(link_len)?;
    let link = bytes.get_mut(..inner.offset)?;
    link.copy_within(..link_len, taken);
    *link.last_chunk_mut()? = inner.ethertype.0.to_be_bytes();
    Some(taken)
}

fn outer_destination(bytes: &[u8], parsed: &Parsed) -> Option<IpAddr> {
    let header = bytes.get(parsed.l3()..)?;
    Some(if parsed.is_ipv4() {
        Ipv4::new_checked(header).ok()?.destination().into()
    } else {
        Ipv6::new_checked(header).ok()?.destination().into()
    })
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use proptest::prelude::*;
    use proptest::sample::select;

    use super::super::encap::{GueIpv4, GueIpv6, OuterIpv4, OuterIpv6};
    use super::super::{Builder, MacAddress, VlanTag, checksum, parse, rewrite};
    use super::*;

    const PORT: u16 = 9886;

    #[derive(Clone, Copy, Debug)]
    enum Tunnel {
        Ipip,
        Gue,
    }

    /// The link header of `inner`, an outer header, and the IP packet of `inner` in it.
    fn wrapped(inner: &[u8], tunnel: Tunnel, outer: IpAddr) -> Vec<u8> {
        let parsed = parse(inner).unwrap();
        let (link, ip) = inner.split_at(parsed.l3());
        let protocol = if parsed.is_ipv4() { Protocol::IPV4 } else { Protocol::IPV6 };
        let len = ip.len() as u16;
        let mut headers = [0; 48];
        let (headers, ethertype) = match (tunnel, outer) {
            (Tunnel::Ipip, IpAddr::V4(to)) => {
                let header = OuterIpv4::new([10, 0, 0, 1].into(), to, protocol, 64, false);
                assert!(header.write(headers.first_chunk_mut().unwrap(), len, 0, 0));
                (&headers[..20], EtherType::IPV4)
            }
            (Tunnel::Ipip, IpAddr::V6(to)) => {
                let header = OuterIpv6::new(1.into(), to, protocol, 64);
                header.write(headers.first_chunk_mut().unwrap(), len, 0, 0);
                (&headers[..40], EtherType::IPV6)
            }
            (Tunnel::Gue, IpAddr::V4(to)) => {
                let header = GueIpv4::new([10, 0, 0, 1].into(), to, PORT, 64, false);
                assert!(header.write(headers.first_chunk_mut().unwrap(), 0xc000, len, 0, 0));
                (&headers[..28], EtherType::IPV4)
            }
            (Tunnel::Gue, IpAddr::V6(to)) => {
                let header = GueIpv6::new(1.into(), to, PORT, 64);
                let sum = checksum::Sum::new().add_bytes(ip);
                assert!(header.write(headers.first_chunk_mut().unwrap(), 0xc000, len, sum, 0, 0));
                (&headers[..48], EtherType::IPV6)
            }
        };
        let mut bytes = [link, headers, ip].concat();
        bytes[link.len() - 2..link.len()].copy_from_slice(&ethertype.0.to_be_bytes());
        bytes
    }

    fn inner_packet() -> impl Strategy<Value = Vec<u8>> {
        let payload = prop::collection::vec(any::<u8>(), 0..60);
        (any::<bool>(), any::<[u8; 16]>(), any::<u16>(), 0..3u16, any::<u8>(), any::<bool>(), payload)
            .prop_map(|(v6, address, port, tags, ttl, tcp, payload)| {
                let address = if v6 {
                    IpAddr::from(address)
                } else {
                    IpAddr::from(*address.first_chunk::<4>().unwrap())
                };
                let (source, destination) = (SocketAddr::new(address, port), SocketAddr::new(address, 443));
                let mut builder =
                    if tcp { Builder::tcp(source, destination) } else { Builder::udp(source, destination) };
                for tag in 0..tags {
                    builder = builder.vlan(VlanTag::from_id(tag + 7));
                }
                let builder = builder.ttl(ttl).macs(MacAddress([2; 6]), MacAddress([4; 6]));
                let mut bytes = vec![0; 200];
                let len = builder.write(&mut bytes, &payload).unwrap();
                bytes.truncate(len);
                bytes
            })
    }

    fn outer() -> impl Strategy<Value = IpAddr> {
        prop_oneof![any::<[u8; 4]>().prop_map(IpAddr::from), any::<[u8; 16]>().prop_map(IpAddr::from)]
    }

    proptest! {
        #[test]
        fn what_was_put_in_comes_out(
            packet in inner_packet(), tunnel in select(&[Tunnel::Ipip, Tunnel::Gue][..]), outer in outer(), padding in 0..20usize,
        ) {
            let mut bytes = wrapped(&packet, tunnel, outer);
            let whole = bytes.len();
            bytes.resize(whole + padding, 0xee);
            let parsed = parse(&bytes).unwrap();
            let found = inner(&bytes, &parsed, Some(PORT)).unwrap();
            prop_assert_eq!(found.outer_destination(), outer);
            prop_assert_eq!(&bytes[found.offset()..whole], &packet[parsed.l3()..]);
            prop_assert_eq!(found.ethertype(), parse(&packet).unwrap().ethertype());

            let taken = strip(&mut bytes, &parsed, &found).unwrap();
            prop_assert_eq!(&bytes[taken..whole], &packet);
            prop_assert_eq!(parse(&bytes[taken..]), parse(&packet));
        }

        #[test]
        fn a_packet_taken_out_is_a_hop_further(mut packet in inner_packet(), outer in outer()) {
            let mut bytes = wrapped(&packet, Tunnel::Gue, outer);
            let parsed = parse(&bytes).unwrap();
            let found = inner(&bytes, &parsed, Some(PORT)).unwrap();
            let taken = strip(&mut bytes, &parsed, &found).unwrap();
            let bytes = &mut bytes[taken..];
            let parsed = parse(bytes).unwrap();
            let at = parsed.l3() + if parsed.is_ipv4() { 8 } else { 7 };
            let ttl = packet[at];
            let left = rewrite::decrement_ttl(bytes, &parsed);
            prop_assert_eq!(left, ttl.checked_sub(1).filter(|left| *left > 0));
            packet[at] = left.unwrap_or(ttl);
            checksum::fill_ipv4(&mut packet, &parsed);
            prop_assert_eq!(&bytes[..], &packet);
        }

        #[test]
        fn nothing_panics_not_even_on_a_packet_taken_for_another(
            packet in inner_packet(), tunnel in select(&[Tunnel::Ipip, Tunnel::Gue][..]), outer in outer(),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
            other in prop::collection::vec(any::<u8>(), 0..120),
        ) {
            let mut bytes = wrapped(&packet, tunnel, outer);
            for (index, byte) in changes {
                *index.get_mut(&mut bytes[..]) = byte;
            }
            if let Ok(parsed) = parse(&bytes) && let Some(found) = inner(&bytes, &parsed, Some(PORT)) {
                prop_assert!(found.offset() < bytes.len());
                let mut other = other;
                let _ = inner(&other, &parsed, Some(PORT));
                let before = other.clone();
                if strip(&mut other, &parsed, &found).is_none() {
                    prop_assert_eq!(other, before);
                }
                prop_assert!(strip(&mut bytes, &parsed, &found).is_some());
            }
        }
    }

    #[test]
    fn other_packets_carry_none() {
        let client = "192.0.2.1:4000".parse().unwrap();
        let written = |builder: Builder, payload: &[u8]| {
            let mut bytes = vec![0; 300];
            let len = builder.write(&mut bytes, payload).unwrap();
            bytes.truncate(len);
            bytes
        };
        let looked = |bytes: &[u8], port| inner(bytes, &parse(bytes).unwrap(), port);
        let packet = written(Builder::udp(client, "198.51.100.7:53".parse().unwrap()), b"query");
        assert_eq!(looked(&packet, Some(PORT)), None);
        let ip = &packet[14..];

        let to_port = |port| SocketAddr::new([10, 0, 0, 2].into(), port);
        let gue = written(Builder::udp(client, to_port(PORT)), ip);
        assert!(looked(&gue, Some(PORT)).is_some());
        assert_eq!(looked(&gue, Some(PORT + 1)), None);
        assert_eq!(looked(&gue, None), None);
        assert_eq!(looked(&written(Builder::tcp(client, to_port(PORT)), ip), Some(PORT)), None);
        for version in [0x05, 0x35, 0x55, 0x75, 0x85] {
            // Variant 0 has a header of its own, and there is no IP of these versions.
            let bytes = written(Builder::udp(client, to_port(PORT)), &[version; 40]);
            assert_eq!(looked(&bytes, Some(PORT)), None, "{version:#x}");
        }
        // UDP says that it carries nothing, and so the byte behind it is not its own.
        let mut empty = gue.clone();
        empty[14 + 20 + 4..][..2].copy_from_slice(&[0, 8]);
        assert_eq!(looked(&empty, Some(PORT)), None);

        let (from, to) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        assert!(looked(&written(Builder::ip(from, to, Protocol::IPV4), ip), None).is_some());
        assert_eq!(
            looked(&written(Builder::ip(from, to, Protocol::IPV6), ip), None),
            None,
            "not the version said"
        );
        assert_eq!(looked(&written(Builder::ip(from, to, Protocol::IPV4), &[]), None), None);
        let fragment = Builder::ip(from, to, Protocol::IPV4).fragment(1, 0, true);
        assert_eq!(looked(&written(fragment, &[0x45; 24]), None), None);
        let fragment = Builder::udp(client, to_port(PORT)).fragment(1, 0, true);
        assert_eq!(looked(&written(fragment, &[0x45; 24]), Some(PORT)), None);
    }
}
