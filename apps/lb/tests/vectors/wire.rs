//! Packets taken apart by the RFCs, byte by byte, with nothing of the framework.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const UDP: u8 = 17;

/// A packet in another header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outer {
    pub(crate) eth_dst: String,
    pub(crate) eth_src: String,
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) ttl: u8,
    /// Type of service or traffic class.
    pub(crate) tos: u8,
    /// IPv4 only, else 0.
    pub(crate) ip_id: u16,
    /// Flags and offset; IPv4 only, else 0.
    pub(crate) frag: u16,
    /// IPv6 only, else 0.
    pub(crate) flow_label: u32,
    /// GUE's ports.
    pub(crate) ports: Option<(u16, u16)>,
    /// From the inner IP header on.
    pub(crate) inner: Vec<u8>,
}

impl Outer {
    /// Takes a packet apart, lengths and checksums compared: RFC 791, RFC 8200, RFC 768.
    pub(crate) fn decode(packet: &[u8]) -> Result<Self, String> {
        let (ethernet, ip) = packet.split_at_checked(14).ok_or("it is shorter than an Ethernet header")?;
        let header = Header::decode(ip)?;
        if ethernet[12..] != if header.destination.is_ipv4() { [0x08, 0x00] } else { [0x86, 0xdd] } {
            return Err(format!("the Ethernet type is {:02x?}", &ethernet[12..]));
        }
        if header.length != ip.len() {
            return Err(format!("the outer header says {} bytes of {}", header.length, ip.len()));
        }
        let payload = &ip[header.payload..];
        let (ports, inner) = match header.protocol {
            4 | 41 => (None, payload),
            UDP => {
                let (udp, inner) = payload.split_at_checked(8).ok_or("the UDP header is cut off")?;
                if usize::from(word(udp, 4)) != payload.len() {
                    return Err(format!("UDP says {} bytes of {}", word(udp, 4), payload.len()));
                }
                let checksum = word(udp, 6);
                if checksum != 0 && header.sum_with(payload) != 0xffff {
                    return Err(format!("the UDP checksum {checksum:#06x} is neither 0 nor right"));
                }
                (Some((word(udp, 0), word(udp, 2))), inner)
            }
            other => return Err(format!("what follows the outer header is of protocol {other}")),
        };
        let version = inner.first().map_or(0, |first| first >> 4);
        if header.protocol != UDP && version != if header.protocol == 4 { 4 } else { 6 } {
            return Err(format!("protocol {} and within it IP version {version}", header.protocol));
        }
        Ok(Self {
            eth_dst: mac(&ethernet[..6]),
            eth_src: mac(&ethernet[6..12]),
            source: header.source,
            destination: header.destination,
            ttl: header.ttl,
            tos: header.tos,
            ip_id: header.ip_id,
            frag: header.frag,
            flow_label: header.flow_label,
            ports,
            inner: inner.to_vec(),
        })
    }
}

/// An IP header.
struct Header {
    source: IpAddr,
    destination: IpAddr,
    ttl: u8,
    tos: u8,
    ip_id: u16,
    frag: u16,
    flow_label: u32,
    protocol: u8,
    /// Where the payload begins.
    payload: usize,
    /// Of the whole packet.
    length: usize,
}

impl Header {
    fn decode(ip: &[u8]) -> Result<Self, String> {
        match ip.first().map(|first| first >> 4) {
            Some(4) => {
                let length = usize::from(ip[0] & 0xf) * 4;
                let header =
                    ip.get(..length).filter(|header| header.len() >= 20).ok_or("a short IPv4 header")?;
                if sum(header, 0) != 0xffff {
                    return Err(format!("the IPv4 header's checksum {:#06x} is wrong", word(header, 10)));
                }
                let address = |at: usize| Ipv4Addr::from(<[u8; 4]>::try_from(&header[at..at + 4]).unwrap());
                Ok(Self {
                    source: address(12).into(),
                    destination: address(16).into(),
                    ttl: header[8],
                    tos: header[1],
                    ip_id: word(header, 4),
                    frag: word(header, 6),
                    flow_label: 0,
                    protocol: header[9],
                    payload: length,
                    length: usize::from(word(header, 2)),
                })
            }
            Some(6) => {
                let header = ip.get(..40).ok_or("a short IPv6 header")?;
                let address = |at: usize| Ipv6Addr::from(<[u8; 16]>::try_from(&header[at..at + 16]).unwrap());
                Ok(Self {
                    source: address(8).into(),
                    destination: address(24).into(),
                    ttl: header[7],
                    tos: header[0] << 4 | header[1] >> 4,
                    ip_id: 0,
                    frag: 0,
                    flow_label: u32::from(header[1] & 0xf) << 16 | u32::from(word(header, 2)),
                    protocol: header[6],
                    payload: 40,
                    length: 40 + usize::from(word(header, 4)),
                })
            }
            version => Err(format!("the IP version is {version:?}")),
        }
    }

    /// The sum over the pseudo-header and what follows: 0xffff where a checksum in it is right.
    fn sum_with(&self, payload: &[u8]) -> u16 {
        let octets = |address: IpAddr| match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        let pseudo = [octets(self.source), octets(self.destination)].concat();
        let rest = u32::from(self.protocol) + payload.len() as u32;
        sum(payload, u32::from(sum(&pseudo, 0)) + rest)
    }
}

/// The one's complement sum of 16-bit words (RFC 1071), not inverted.
fn sum(bytes: &[u8], start: u32) -> u16 {
    let words =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low)));
    let mut sum: u32 = start + words.sum::<u32>();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn mac(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

/// Which packets belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Flow {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) protocol: u8,
    pub(crate) ports: (u16, u16),
}

impl Flow {
    /// The flow of an IP packet; for an ICMP error that of the packet which it is about, as the client sends it.
    pub(crate) fn of(ip: &[u8]) -> Option<Self> {
        let header = Header::decode(ip).ok()?;
        let payload = ip.get(header.payload..)?;
        match (header.protocol, payload.first()) {
            (6 | UDP, _) if payload.len() >= 4 => Some(Self {
                source: header.source,
                destination: header.destination,
                protocol: header.protocol,
                ports: (word(payload, 0), word(payload, 2)),
            }),
            (1, Some(3 | 11 | 12)) | (58, Some(1..=4)) => {
                let quoted = Self::of(payload.get(8..)?)?;
                Some(Self {
                    source: quoted.destination,
                    destination: quoted.source,
                    ports: (quoted.ports.1, quoted.ports.0),
                    ..quoted
                })
            }
            _ => None,
        }
    }
}

/// The destination of an IP packet in Ethernet.
pub(crate) fn destination(packet: &[u8]) -> Option<IpAddr> {
    Header::decode(packet.get(14..)?).ok().map(|header| header.destination)
}

/// Whether a packet in Ethernet asks for an echo.
pub(crate) fn is_echo_request(packet: &[u8]) -> bool {
    let ip = packet.get(14..).unwrap_or_default();
    let Ok(header) = Header::decode(ip) else { return false };
    matches!((header.protocol, ip.get(header.payload)), (1, Some(8)) | (58, Some(128)))
}

/// The options of a TCP packet in Ethernet; none where it is no such packet.
pub(crate) fn tcp_options(packet: &[u8]) -> &[u8] {
    let ip = packet.get(14..).unwrap_or_default();
    let Ok(header) = Header::decode(ip) else { return &[] };
    let tcp = ip.get(header.payload..).filter(|tcp| header.protocol == 6 && tcp.len() >= 20);
    tcp.and_then(|tcp| tcp.get(20..usize::from(tcp[12] >> 4) * 4)).unwrap_or_default()
}
