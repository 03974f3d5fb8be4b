//! Headers read by the RFCs, with nothing of the framework: enough for packets that are well-formed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(super) const ICMP: u8 = 1;
pub(super) const IPV4: u8 = 4;
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
pub(super) const IPV6: u8 = 41;
pub(super) const FRAGMENT: u8 = 44;
pub(super) const ICMPV6: u8 = 58;

/// Who talks to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Flow {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) protocol: u8,
    /// Source and destination; zero where there are none.
    pub(super) ports: (u16, u16),
}

impl Flow {
    pub(super) fn reversed(self) -> Self {
        let Self { source, destination, protocol, ports: (from, to) } = self;
        Self { source: destination, destination: source, protocol, ports: (to, from) }
    }
}

/// What an IP header, and the one behind it, say.
#[derive(Debug, Clone, Copy)]
pub(super) struct View {
    pub(super) flow: Flow,
    pub(super) tos: u8,
    pub(super) has_options: bool,
    pub(super) is_fragment: bool,
    /// Where the transport header begins, from the IP header on.
    pub(super) transport: usize,
    /// The length of the packet that the IP header says.
    pub(super) len: usize,
}

/// The length of Ethernet header and VLAN tags.
pub(super) fn link_len(packet: &[u8]) -> usize {
    let tagged = |at: usize| matches!(packet.get(at..at + 2), Some([0x81, 0x00] | [0x88, 0xa8]));
    14 + if tagged(12) { 4 } else { 0 }
}

/// From the IP header on, without padding; none if it is no IP packet.
pub(super) fn ip_of(packet: &[u8]) -> Option<&[u8]> {
    let link = link_len(packet);
    let ip = &packet[link..];
    match packet[link - 2..link] {
        [0x08, 0x00] | [0x86, 0xdd] => Some(&ip[..view(ip).len]),
        _ => None,
    }
}

/// Reads an IP packet, of which at least eight bytes behind the IP header are there.
pub(super) fn view(ip: &[u8]) -> View {
    let (source, destination, mut protocol, transport, len): (IpAddr, IpAddr, u8, usize, usize);
    let (tos, has_options, is_fragment);
    if ip[0] >> 4 == 4 {
        let address = |at: usize| Ipv4Addr::from(<[u8; 4]>::try_from(&ip[at..at + 4]).unwrap());
        (source, destination, protocol) = (address(12).into(), address(16).into(), ip[9]);
        transport = usize::from(ip[0] & 0xf) * 4;
        (tos, len) = (ip[1], usize::from(word(ip, 2)));
        (has_options, is_fragment) = (transport > 20, word(ip, 6) & 0x3fff != 0);
    } else {
        let address = |at: usize| Ipv6Addr::from(<[u8; 16]>::try_from(&ip[at..at + 16]).unwrap());
        (source, destination, protocol) = (address(8).into(), address(24).into(), ip[6]);
        (tos, len) = (ip[0] << 4 | ip[1] >> 4, 40 + usize::from(word(ip, 4)));
        has_options = false;
        is_fragment = protocol == FRAGMENT;
        transport = if is_fragment { 48 } else { 40 };
        if is_fragment {
            protocol = ip[40];
        }
    }
    let has_ports = matches!(protocol, TCP | UDP) && !is_fragment;
    let ports = if has_ports { (word(ip, transport), word(ip, transport + 2)) } else { (0, 0) };
    let flow = Flow { source, destination, protocol, ports };
    View { flow, tos, has_options, is_fragment, transport, len }
}

pub(super) fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// The ones' complement sum of RFC 1071, folded.
pub(super) fn sum(parts: &[&[u8]]) -> u16 {
    let mut total = 0_u32;
    for part in parts {
        for pair in part.chunks(2) {
            total += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        }
    }
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

/// Writes an IPv4 header's checksum.
pub(super) fn fill_ipv4_checksum(header: &mut [u8]) {
    header[10..12].fill(0);
    let checksum = !sum(&[&header[..20]]);
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
}

/// Whether the checksums of an IP packet with ICMP, UDP or TCP in it are right.
pub(super) fn sums_up(ip: &[u8]) -> bool {
    let view = view(ip);
    let message = &ip[view.transport..view.len];
    let protocol = [0, view.flow.protocol];
    let len = (message.len() as u32).to_be_bytes();
    if ip[0] >> 4 == 4 {
        let pseudo: &[&[u8]] = if view.flow.protocol == ICMP { &[] } else { &[&ip[12..20], &protocol, &len] };
        let unsummed = view.flow.protocol == UDP && word(message, 6) == 0;
        sum(&[&ip[..view.transport]]) == 0xffff && (unsummed || sum(&[pseudo, &[message]].concat()) == 0xffff)
    } else {
        sum(&[&ip[8..40], &protocol, &len, message]) == 0xffff
    }
}
