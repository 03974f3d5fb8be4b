//! Encapsulated packets taken apart by the RFCs, byte by byte, with nothing of the framework.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A packet in another IP header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outer {
    pub(crate) destination_mac: [u8; 6],
    pub(crate) source_mac: [u8; 6],
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) ttl: u8,
    /// Type of service or traffic class.
    pub(crate) tos: u8,
    /// IPv6 only, else 0.
    pub(crate) flow_label: u32,
    /// What the outer header says follows it: 4 or 41, or 17 where the packet is in UDP.
    pub(crate) protocol: u8,
    /// Source and destination port, if it is in UDP.
    pub(crate) ports: Option<(u16, u16)>,
    /// From the inner IP header on.
    pub(crate) inner: Vec<u8>,
}

impl Outer {
    /// Takes a packet apart.
    ///
    /// # Panics
    /// Where its Ethernet, outer IP or UDP header is not as RFC 791, RFC 8200 and RFC 768 have it, checksums and lengths
    /// included.
    pub(crate) fn decode(packet: &[u8]) -> Self {
        let mut outer = Self::decode_ip(packet);
        if outer.protocol == 17 {
            let datagram = &outer.inner;
            assert_eq!(usize::from(word(datagram, 4)), datagram.len(), "UDP length");
            match (outer.source, outer.destination) {
                (IpAddr::V6(source), IpAddr::V6(destination)) => {
                    assert_ne!(word(datagram, 6), 0, "a checksum, as RFC 8200 demands");
                    let mut summed = [source.octets(), destination.octets()].concat();
                    summed.extend([0, 17, 0, 0]);
                    summed.extend((datagram.len() as u16).to_be_bytes());
                    summed.extend(datagram);
                    summed.resize(summed.len().next_multiple_of(2), 0);
                    let sum: u32 = (0..summed.len()).step_by(2).map(|at| u32::from(word(&summed, at))).sum();
                    let folded = (sum & 0xffff) + (sum >> 16);
                    assert_eq!((folded & 0xffff) + (folded >> 16), 0xffff, "UDP checksum");
                }
                _ => assert_eq!(word(datagram, 6), 0, "no checksum"),
            }
            outer.ports = Some((word(datagram, 0), word(datagram, 2)));
            outer.inner.drain(..8);
        }
        outer
    }

    fn decode_ip(packet: &[u8]) -> Self {
        let (ethernet, ip) = packet.split_at(14);
        let destination_mac = ethernet[..6].try_into().unwrap();
        let source_mac = ethernet[6..12].try_into().unwrap();
        match ethernet[12..] {
            [0x08, 0x00] => {
                let (header, inner) = ip.split_at(20);
                assert_eq!(header[0], 0x45, "version 4, five words");
                assert_eq!(usize::from(word(header, 2)), ip.len(), "total length");
                assert_eq!(word(header, 6) & 0xbfff, 0, "no fragment");
                let sum: u32 = (0..20).step_by(2).map(|at| u32::from(word(header, at))).sum();
                let folded = (sum & 0xffff) + (sum >> 16);
                assert_eq!((folded & 0xffff) + (folded >> 16), 0xffff, "header checksum");
                let address = |at: usize| Ipv4Addr::from(<[u8; 4]>::try_from(&header[at..at + 4]).unwrap());
                Self {
                    destination_mac,
                    source_mac,
                    source: address(12).into(),
                    destination: address(16).into(),
                    ttl: header[8],
                    tos: header[1],
                    flow_label: 0,
                    protocol: header[9],
                    ports: None,
                    inner: inner.to_vec(),
                }
            }
            [0x86, 0xdd] => {
                let (header, inner) = ip.split_at(40);
                assert_eq!(header[0] >> 4, 6, "version 6");
                assert_eq!(usize::from(word(header, 4)), inner.len(), "payload length");
                let address = |at: usize| Ipv6Addr::from(<[u8; 16]>::try_from(&header[at..at + 16]).unwrap());
                Self {
                    destination_mac,
                    source_mac,
                    source: address(8).into(),
                    destination: address(24).into(),
                    ttl: header[7],
                    tos: header[0] << 4 | header[1] >> 4,
                    flow_label: u32::from(header[1] & 0xf) << 16 | u32::from(word(header, 2)),
                    protocol: header[6],
                    ports: None,
                    inner: inner.to_vec(),
                }
            }
            _ => panic!("an Ethernet header of IPv4 or IPv6: {ethernet:02x?}"),
        }
    }
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}
