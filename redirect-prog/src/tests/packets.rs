//! Packets, layer by layer. Each function puts its header in front of `payload`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::namespace::VETH1_MAC;

pub(crate) const ICMP: u8 = 1;
pub(crate) const IPIP: u8 = 4;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const IPV6: u8 = 41;
pub(crate) const ICMPV6: u8 = 58;
pub(crate) const HOP_BY_HOP: u8 = 0;
pub(crate) const ROUTING: u8 = 43;
pub(crate) const FRAGMENT: u8 = 44;
pub(crate) const DESTINATION_OPTIONS: u8 = 60;

const MORE_FRAGMENTS: u16 = 0x2000;

pub(crate) fn ethernet(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = VETH1_MAC.to_vec();
    frame.extend([2, 0, 0, 0, 0, 9]);
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The packet in an Ethernet frame.
pub(crate) fn frame(packet: &[u8]) -> Vec<u8> {
    ethernet(ethertype(packet), packet)
}

/// The packet in an Ethernet frame with these tags, outermost first: their ethertypes.
pub(crate) fn tagged(tags: &[u16], packet: &[u8]) -> Vec<u8> {
    let mut payload = packet.to_vec();
    let mut next = ethertype(packet);
    for &tag in tags.iter().rev() {
        let mut header = vec![0, 7];
        header.extend(next.to_be_bytes());
        header.append(&mut payload);
        (payload, next) = (header, tag);
    }
    ethernet(next, &payload)
}

fn ethertype(packet: &[u8]) -> u16 {
    if packet[0] >> 4 == 4 { 0x0800 } else { 0x86dd }
}

/// IPv4 or IPv6, as the addresses are.
pub(crate) fn ip(source: &str, destination: &str, protocol: u8, payload: &[u8]) -> Vec<u8> {
    match (source.parse(), destination.parse()) {
        (Ok(IpAddr::V4(source)), Ok(IpAddr::V4(destination))) => {
            ipv4(source, destination, protocol, 0, &[], payload)
        }
        (Ok(IpAddr::V6(source)), Ok(IpAddr::V6(destination))) => ipv6(source, destination, protocol, payload),
        _ => panic!("{source} and {destination} are no two addresses of one kind"),
    }
}

pub(crate) fn ipv4(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: u8,
    flags_and_offset: u16,
    options: &[u8],
    payload: &[u8],
) -> Vec<u8> {
    let header = 20 + options.len();
    let mut packet = vec![0x40 | (header / 4) as u8, 0];
    packet.extend(((header + payload.len()) as u16).to_be_bytes());
    packet.extend([0x12, 0x34]);
    packet.extend(flags_and_offset.to_be_bytes());
    packet.extend([64, protocol, 0, 0]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(options);
    let checksum = checksum(&packet);
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet.extend(payload);
    packet
}

fn ipv6(source: Ipv6Addr, destination: Ipv6Addr, next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((payload.len() as u16).to_be_bytes());
    packet.extend([next, 64]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(payload);
    packet
}

/// A fragment in IPv4 or IPv6, as the addresses are: the first, or one from the middle.
pub(crate) fn fragment(
    source: &str,
    destination: &str,
    protocol: u8,
    first: bool,
    payload: &[u8],
) -> Vec<u8> {
    let offset = if first { 0 } else { 100 };
    match (source.parse(), destination.parse()) {
        (Ok(IpAddr::V4(source)), Ok(IpAddr::V4(destination))) => {
            ipv4(source, destination, protocol, MORE_FRAGMENTS | offset, &[], payload)
        }
        _ => ip(source, destination, FRAGMENT, &fragment_header(protocol, offset << 3 | 1, payload)),
    }
}

/// IPv6's, with the offset in its upper 13 bits and whether more follow in the lowest.
pub(crate) fn fragment_header(next: u8, offset_and_more: u16, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![next, 0xff];
    header.extend(offset_and_more.to_be_bytes());
    header.extend([1, 2, 3, 4]);
    header.extend(payload);
    header
}

/// An extension header of IPv6, `length` times eight bytes longer than the least.
pub(crate) fn extension(next: u8, length: u8, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![0xaa; usize::from(length) * 8 + 8];
    header[..2].copy_from_slice(&[next, length]);
    header.extend(payload);
    header
}

/// As much of a TCP or UDP header as counts, and some bytes: a valid UDP header without checksum.
pub(crate) fn ports(source: u16, destination: u16) -> Vec<u8> {
    let mut header = source.to_be_bytes().to_vec();
    header.extend(destination.to_be_bytes());
    header.extend([0, 20, 0, 0]);
    header.extend(*b"twelve bytes");
    header
}

/// A whole UDP packet, in IPv4 or IPv6 as the addresses are.
pub(crate) fn udp(source: &str, destination: &str, port: u16, data: &[u8]) -> Vec<u8> {
    let length = (8 + data.len()) as u16;
    let mut datagram = vec![0x27, 0x0f];
    for field in [port, length, 0] {
        datagram.extend(field.to_be_bytes());
    }
    datagram.extend(data);

    let mut summed = Vec::new();
    for address in [source, destination] {
        match address.parse().expect("an address") {
            IpAddr::V4(address) => summed.extend(address.octets()),
            IpAddr::V6(address) => summed.extend(address.octets()),
        }
    }
    summed.extend([0, UDP]);
    summed.extend(length.to_be_bytes());
    summed.extend(&datagram);
    let checksum = checksum(&summed);
    datagram[6..8].copy_from_slice(&checksum.to_be_bytes());
    ip(source, destination, UDP, &datagram)
}

/// An ICMP or ICMPv6 message about `quoted`.
pub(crate) fn icmp(kind: u8, quoted: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0, 0, 0, 0, 0];
    message.extend(quoted);
    message
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
