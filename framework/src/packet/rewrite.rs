//! Changing packets in place, checksums included.
//!
//! The functions take the packet's bytes and what [`parse`](super::parse) made of them, and return whether the packet
//! has what was to be changed: where not, it is left as it was. Checksums are updated, not worked out anew: what was
//! wrong stays wrong, for the receiver to notice. They are those of IPv4, TCP, UDP and ICMPv6: other protocols that cover
//! the addresses (DCCP, UDP-Lite) do not survive a change of them. What changes addresses or ports makes [`Parsed::hash`] stale; what
//! moves headers, all of it.

use std::net::IpAddr;

use super::checksum::{Change, checksum_offset};
use super::names::{EtherType, IpVersion, Protocol};
use super::parse::Parsed;
use super::view::{Ipv4, Ipv6, VlanTag};

/// Exchanges source and destination of the Ethernet header.
#[inline]
pub fn swap_mac_addresses(bytes: &mut [u8]) -> bool {
    let Some(addresses) = bytes.first_chunk_mut::<12>() else { return false };
    let (destination, source) = addresses.split_at_mut(6);
    destination.swap_with_slice(source);
    true
}

/// Exchanges source and destination address of the IP header. No checksum changes by that.
#[inline]
pub fn swap_ip_addresses(bytes: &mut [u8], parsed: &Parsed) -> bool {
    let (at, len) = match parsed.ip() {
        Some(IpVersion::V4) => (parsed.l3() + 12, 4),
        Some(IpVersion::V6) => (parsed.l3() + 8, 16),
        None => return false,
    };
    let Some(addresses) = bytes.get_mut(at..at + 2 * len) else { return false };
    let (source, destination) = addresses.split_at_mut(len);
    source.swap_with_slice(destination);
    true
}

/// Exchanges source and destination port of the TCP or UDP header. No checksum changes by that.
#[inline]
pub fn swap_ports(bytes: &mut [u8], parsed: &Parsed) -> bool {
    let Some(ports) = ports(bytes, parsed) else { return false };
    ports.rotate_left(2);
    true
}

/// Sets the source address, and updates the checksums that cover it. False also if it is of the other IP version.
#[inline]
pub fn set_source(bytes: &mut [u8], parsed: &Parsed, address: IpAddr) -> bool {
    set_address(bytes, parsed, address, End::Source)
}

/// Sets the destination address, and updates the checksums that cover it. False also if it is of the other IP version.
#[inline]
pub fn set_destination(bytes: &mut [u8], parsed: &Parsed, address: IpAddr) -> bool {
    set_address(bytes, parsed, address, End::Destination)
}

/// Sets the source port of the TCP or UDP header, and updates its checksum.
#[inline]
pub fn set_source_port(bytes: &mut [u8], parsed: &Parsed, port: u16) -> bool {
    set_port(bytes, parsed, port, End::Source)
}

/// Sets the destination port of the TCP or UDP header, and updates its checksum.
#[inline]
pub fn set_destination_port(bytes: &mut [u8], parsed: &Parsed, port: u16) -> bool {
    set_port(bytes, parsed, port, End::Destination)
}

/// Takes one from the time to live or hop limit, and returns what remains.
///
/// Nothing, and the packet left as it was, if none would remain: such a packet is not forwarded but answered with
/// [`IcmpError::TimeExceeded`](super::reply::IcmpError::TimeExceeded). Nothing too if it is no IP packet.
#[inline]
pub fn decrement_ttl(bytes: &mut [u8], parsed: &Parsed) -> Option<u8> {
    let header = bytes.get_mut(parsed.l3()..)?;
    match parsed.ip()? {
        IpVersion::V4 => {
            let mut header = Ipv4::new_checked(header).ok()?;
            let ttl = header.ttl();
            let left = ttl.checked_sub(1).filter(|&left| left != 0)?;
            let change = Change::new().replace_u16(u16::from(ttl) << 8, u16::from(left) << 8);
            header.set_checksum(change.apply(header.checksum()));
            header.set_ttl(left);
            Some(left)
        }
        IpVersion::V6 => {
            let mut header = Ipv6::new_checked(header).ok()?;
            let left = header.hop_limit().checked_sub(1).filter(|&left| left != 0)?;
            header.set_hop_limit(left);
            Some(left)
        }
    }
}

/// Puts a VLAN tag before the EtherType. `bytes` begins with four bytes of room, the packet follows them.
///
/// ```
/// use afx::packet::{EtherType, Ethernet, VlanTag, rewrite};
///
/// let mut bytes = [0; 64];
/// assert!(rewrite::push_vlan(&mut bytes, EtherType::VLAN, VlanTag::from_id(100)));
/// assert_eq!(Ethernet::new_checked(&bytes)?.vlan(), Some(VlanTag::from_id(100)));
/// # Ok::<(), afx::packet::ParseError>(())
/// ```
#[inline]
pub fn push_vlan(bytes: &mut [u8], ethertype: EtherType, tag: VlanTag) -> bool {
    let Some(header) = bytes.first_chunk_mut::<18>() else { return false };
    header.copy_within(4..16, 0);
    header[12..14].copy_from_slice(&ethertype.0.to_be_bytes());
    header[14..16].copy_from_slice(&tag.0.to_be_bytes());
    true
}

/// Removes the outer VLAN tag and returns it: the packet then begins four bytes later. Nothing if there is none.
#[inline]
pub fn pop_vlan(bytes: &mut [u8]) -> Option<VlanTag> {
    let header = bytes.first_chunk_mut::<18>()?;
    if !EtherType(u16::from_be_bytes([header[12], header[13]])).is_vlan() {
        return None;
    }
    let tag = VlanTag(u16::from_be_bytes([header[14], header[15]]));
    header.copy_within(0..12, 4);
    Some(tag)
}

/// Which of a flow's two ends.
#[derive(Clone, Copy, PartialEq)]
enum End {
    Source,
    Destination,
}

#[inline]
fn set_address(bytes: &mut [u8], parsed: &Parsed, address: IpAddr, end: End) -> bool {
    let Some(header) = bytes.get_mut(parsed.l3()..) else { return false };
    let change = match (address, parsed.ip()) {
        (IpAddr::V4(new), Some(IpVersion::V4)) => {
            let Ok(mut header) = Ipv4::new_checked(header) else { return false };
            let old = if end == End::Source { header.source() } else { header.destination() };
            let change = Change::new().replace_v4(old, new);
            if end == End::Source {
                header.set_source(new)
            } else {
                header.set_destination(new)
            }
            header.set_checksum(change.apply(header.checksum()));
            change
        }
        (IpAddr::V6(new), Some(IpVersion::V6)) => {
            let Ok(mut header) = Ipv6::new_checked(header) else { return false };
            let old = if end == End::Source { header.source() } else { header.destination() };
            if end == End::Source {
                header.set_source(new)
            } else {
                header.set_destination(new)
            }
            Change::new().replace_v6(old, new)
        }
        _ => return false,
    };
    // A later fragment has no transport header; the first one's checksum covers the pseudo-header of all.
    if let Some(start) = parsed.transport()
        && matches!(parsed.protocol(), Some(Protocol::TCP | Protocol::UDP | Protocol::ICMPV6))
    {
        change_transport_checksum(bytes, start, parsed, change);
    }
    true
}

#[inline]
fn set_port(bytes: &mut [u8], parsed: &Parsed, port: u16, end: End) -> bool {
    let Some([a, b, c, d]) = ports(bytes, parsed) else { return false };
    let field = if end == End::Source { [a, b] } else { [c, d] };
    let change = Change::new().replace_u16(u16::from_be_bytes([*field[0], *field[1]]), port);
    [*field[0], *field[1]] = port.to_be_bytes();
    if let Some(start) = parsed.transport() {
        change_transport_checksum(bytes, start, parsed, change);
    }
    true
}

/// The two ports of a TCP or UDP header. SCTP is left out: its ports are covered by a CRC of the whole packet.
#[inline]
fn ports<'a>(bytes: &'a mut [u8], parsed: &Parsed) -> Option<&'a mut [u8; 4]> {
    match parsed.protocol()? {
        Protocol::TCP | Protocol::UDP => bytes.get_mut(parsed.transport()?..)?.first_chunk_mut(),
        _ => None,
    }
}

#[inline]
fn change_transport_checksum(bytes: &mut [u8], start: usize, parsed: &Parsed, change: Change) {
    let Some(protocol) = parsed.protocol() else { return };
    let at = start + checksum_offset(protocol);
    let Some(field) = bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<2>) else { return };
    let old = u16::from_be_bytes(*field);
    let new = if protocol == Protocol::UDP { change.apply_udp(old) } else { change.apply(old) };
    *field = new.to_be_bytes();
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use proptest::prelude::*;

    use super::super::{Builder, MacAddress, TcpFlags, checksum, flow_key, parse};
    use super::*;

    fn address(v6: bool) -> BoxedStrategy<IpAddr> {
        if v6 {
            any::<[u8; 16]>().prop_map(IpAddr::from).boxed()
        } else {
            any::<[u8; 4]>().prop_map(IpAddr::from).boxed()
        }
    }

    /// A packet, two addresses of its IP version and two ports to be written into it.
    fn case() -> impl Strategy<Value = (Vec<u8>, IpAddr, IpAddr, u16, u16)> {
        any::<bool>()
            .prop_flat_map(|v6| {
                let end = || (address(v6), any::<u16>());
                let payload = prop::collection::vec(any::<u8>(), 0..50);
                (end(), end(), end(), end(), 0..4u8, 0..3u8, payload)
            })
            .prop_map(|(a, b, c, d, kind, tags, payload)| {
                let (source, destination) = (SocketAddr::from(a), SocketAddr::from(b));
                let mut builder = match kind {
                    0 => Builder::udp(source, destination),
                    1 => Builder::tcp(source, destination).flags(TcpFlags::SYN),
                    2 => Builder::echo(a.0, b.0, a.1, b.1),
                    _ => Builder::udp(source, destination).without_checksum(),
                };
                for tag in 0..tags {
                    builder = builder.vlan(VlanTag::from_id(tag.into()));
                }
                let mut bytes = vec![0; 200];
                let len = builder.write(&mut bytes, &payload).unwrap();
                bytes.truncate(len);
                (bytes, c.0, d.0, c.1, d.1)
            })
    }

    fn assert_checksums(bytes: &[u8]) {
        let parsed = parse(bytes).unwrap();
        assert!(parsed.is_ipv6() || checksum::verify_ipv4(bytes, &parsed));
        let no_checksum = parsed.is_ipv6() && bytes[parsed.transport().unwrap() + 6..][..2] == [0, 0];
        let udp_without = parsed.protocol() == Some(Protocol::UDP) && no_checksum;
        assert_eq!(checksum::verify_transport(bytes, &parsed), Some(!udp_without));
    }

    proptest! {
        #[test]
        fn rewritten_packets_say_what_was_written_and_sum_up((mut bytes, source, destination, source_port, destination_port) in case()) {
            let parsed = parse(&bytes).unwrap();
            assert_checksums(&bytes);
            prop_assert!(set_source(&mut bytes, &parsed, source));
            assert_checksums(&bytes);
            prop_assert!(set_destination(&mut bytes, &parsed, destination));
            assert_checksums(&bytes);
            let has_ports = matches!(parsed.protocol(), Some(Protocol::TCP | Protocol::UDP));
            prop_assert_eq!(set_source_port(&mut bytes, &parsed, source_port), has_ports);
            prop_assert_eq!(set_destination_port(&mut bytes, &parsed, destination_port), has_ports);
            assert_checksums(&bytes);
            let key = flow_key(&bytes, &parse(&bytes).unwrap()).unwrap();
            prop_assert_eq!((key.source(), key.destination()), (source, destination));
            if has_ports {
                prop_assert_eq!((key.source_port(), key.destination_port()), (source_port, destination_port));
            }
            let reversed = key.reversed();
            prop_assert!(swap_ip_addresses(&mut bytes, &parsed));
            prop_assert_eq!(swap_ports(&mut bytes, &parsed), has_ports);
            assert_checksums(&bytes);
            prop_assert_eq!(flow_key(&bytes, &parsed), Some(reversed));
            prop_assert_eq!(reversed.reversed(), key);
        }

        #[test]
        fn a_hop_costs_one_until_none_is_left((mut bytes, ..) in case(), ttl: u8) {
            let parsed = parse(&bytes).unwrap();
            let at = parsed.l3() + if parsed.is_ipv4() { 8 } else { 7 };
            bytes[at] = ttl;
            checksum::fill_ipv4(&mut bytes, &parsed);
            let before = bytes.clone();
            let left = decrement_ttl(&mut bytes, &parsed);
            prop_assert_eq!(left, if ttl > 1 { Some(ttl - 1) } else { None });
            prop_assert_eq!(bytes[at], left.unwrap_or(ttl));
            prop_assert!(parsed.is_ipv6() || checksum::verify_ipv4(&bytes, &parsed));
            if left.is_none() {
                prop_assert_eq!(bytes, before);
            }
        }

        #[test]
        fn filling_makes_wrong_checksums_right((mut bytes, ..) in case(), wrong: u16) {
            let parsed = parse(&bytes).unwrap();
            let before = bytes.clone();
            let at = parsed.transport().unwrap() + checksum_offset(parsed.protocol().unwrap());
            // No checksum at all is one that UDP is content with.
            let wrong = if wrong == 0 { 1 } else { wrong };
            bytes[at..at + 2].copy_from_slice(&wrong.to_be_bytes());
            let right = before[at..at + 2] == wrong.to_be_bytes();
            if before[at..at + 2] != [0, 0] && before[at..at + 2] != [0xff, 0xff] && wrong != 0xffff {
                prop_assert_eq!(checksum::verify_transport(&bytes, &parsed), Some(right));
            }
            prop_assert!(checksum::fill_transport(&mut bytes, &parsed));
            prop_assert_eq!(checksum::verify_transport(&bytes, &parsed), Some(true));
        }

        #[test]
        fn a_pushed_tag_pops((bytes, ..) in case(), tag: u16) {
            let mut room = vec![0xaa; 4];
            room.extend(&bytes);
            prop_assert!(push_vlan(&mut room, EtherType::SERVICE_VLAN, VlanTag(tag)));
            prop_assert_eq!(&room[..12], &bytes[..12]);
            prop_assert_eq!(&room[12..16], &[0x88, 0xa8, (tag >> 8) as u8, tag as u8]);
            prop_assert_eq!(&room[16..], &bytes[12..]);
            prop_assert_eq!(pop_vlan(&mut room), Some(VlanTag(tag)));
            prop_assert_eq!(&room[4..], &bytes);
        }
    }

    #[test]
    fn fragments_keep_a_right_checksum_over_all() {
        // Two fragments of one datagram: the checksum in the first covers both.
        let (source, destination) = ("192.0.2.1:7".parse().unwrap(), "198.51.100.1:9".parse().unwrap());
        let mut whole = [0; 200];
        let len = Builder::udp(source, destination).write(&mut whole, &[0x5a; 88]).unwrap();
        let mut first = [0; 200];
        let cut = Builder::ip(source.ip(), destination.ip(), Protocol::UDP).fragment(1, 0, true);
        let first_len = cut.write(&mut first, &whole[34..34 + 48]).unwrap();
        let mut later = [0; 200];
        let cut = Builder::ip(source.ip(), destination.ip(), Protocol::UDP).fragment(1, 48, false);
        let later_len = cut.write(&mut later, &whole[34 + 48..len]).unwrap();

        let new = "203.0.113.77".parse().unwrap();
        for bytes in [&mut first[..first_len], &mut later[..later_len]] {
            let parsed = parse(bytes).unwrap();
            assert!(set_destination(bytes, &parsed, new));
            assert!(checksum::verify_ipv4(bytes, &parsed));
        }
        let parsed = parse(&whole[..len]).unwrap();
        assert!(set_destination(&mut whole[..len], &parsed, new));
        assert_eq!(first[34..first_len], whole[34..34 + 48]);
        assert_eq!(later[34..later_len], whole[34 + 48..len], "a later fragment is payload alone");
    }

    #[test]
    fn what_is_not_there_is_not_rewritten() {
        let mut arp = [7; 60];
        arp[12..14].copy_from_slice(&[8, 6]);
        let before = arp;
        let parsed = parse(&arp).unwrap();
        assert!(!swap_ip_addresses(&mut arp, &parsed) && !swap_ports(&mut arp, &parsed));
        assert!(
            !set_source(&mut arp, &parsed, IpAddr::from([1, 2, 3, 4]))
                && !set_source_port(&mut arp, &parsed, 1)
        );
        assert_eq!((decrement_ttl(&mut arp, &parsed), pop_vlan(&mut arp)), (None, None));
        assert_eq!(arp, before);

        let mut udp = [0; 100];
        Builder::udp("192.0.2.1:7".parse().unwrap(), "192.0.2.2:9".parse().unwrap())
            .write(&mut udp, b"")
            .unwrap();
        let before = udp;
        let parsed = parse(&udp).unwrap();
        assert!(!set_source(&mut udp, &parsed, IpAddr::from([0u16; 8])), "an IPv6 address");
        assert_eq!(udp, before);
    }

    #[test]
    fn mac_addresses_swap() {
        let (a, b) = (MacAddress([2, 0, 0, 0, 0, 7]), MacAddress([2, 0, 0, 0, 0, 8]));
        let mut bytes = [0; 100];
        let builder = Builder::udp("192.0.2.1:7".parse().unwrap(), "192.0.2.2:9".parse().unwrap()).macs(a, b);
        builder.write(&mut bytes, b"").unwrap();
        assert!(swap_mac_addresses(&mut bytes));
        let ethernet = super::super::Ethernet::new_checked(bytes).unwrap();
        assert_eq!((ethernet.source(), ethernet.destination()), (b, a));
        assert!(!swap_mac_addresses(&mut [0; 11]));
    }
}
