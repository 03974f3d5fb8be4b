//! Whole packets from scratch: for tests, generators and probes. Not made for the fast path.

use std::net::{IpAddr, SocketAddr};

use super::checksum::{self, Sum};
use super::names::{EtherType, MacAddress, Protocol};
use super::view::{Ipv4, Tcp, TcpFlags, VlanTag};

/// A packet to be written: what is not said has a plain default (locally administered MAC addresses, TTL 64, no
/// fragment). Lengths and checksums are worked out.
///
/// ```
/// use afx::packet::{Builder, Protocol, TcpFlags, parse};
///
/// let syn = Builder::tcp("[2001:db8::1]:4000".parse()?, "[2001:db8::2]:443".parse()?).flags(TcpFlags::SYN);
/// let mut bytes = [0; 128];
/// let len = syn.write(&mut bytes, &[]).expect("74 bytes fit");
/// assert_eq!(len, 14 + 40 + 20);
/// assert_eq!(parse(&bytes[..len])?.protocol(), Some(Protocol::TCP));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct Builder {
    macs: (MacAddress, MacAddress),
    tags: [Option<VlanTag>; 2],
    source: IpAddr,
    destination: IpAddr,
    transport: Transport,
    tos: u8,
    ttl: u8,
    identification: u16,
    dont_fragment: bool,
    fragment: Option<FragmentOf>,
}

#[derive(Clone, Copy, Debug)]
enum Transport {
    Udp { ports: (u16, u16), checksum: bool },
    Tcp { ports: (u16, u16), flags: TcpFlags, sequence: u32, acknowledgment: u32, window: u16 },
    Echo { identifier: u16, sequence: u16 },
    Other(Protocol),
}

#[derive(Clone, Copy, Debug)]
struct FragmentOf {
    id: u32,
    offset: u16,
    more: bool,
}

impl Builder {
    /// A UDP packet. Both addresses must be of one IP version, or it cannot be written; so in all of these.
    pub const fn udp(source: SocketAddr, destination: SocketAddr) -> Self {
        let ports = (source.port(), destination.port());
        Self::new(source.ip(), destination.ip(), Transport::Udp { ports, checksum: true })
    }

    /// A TCP packet with the flag ACK, sequence numbers zero and no options.
    pub const fn tcp(source: SocketAddr, destination: SocketAddr) -> Self {
        let ports = (source.port(), destination.port());
        let transport =
            Transport::Tcp { ports, flags: TcpFlags::ACK, sequence: 0, acknowledgment: 0, window: 0xffff };
        Self::new(source.ip(), destination.ip(), transport)
    }

    /// An ICMP or ICMPv6 echo request, as the addresses demand.
    pub const fn echo(source: IpAddr, destination: IpAddr, identifier: u16, sequence: u16) -> Self {
        Self::new(source, destination, Transport::Echo { identifier, sequence })
    }

    /// An IP packet of any protocol: the payload is what follows the IP header.
    pub const fn ip(source: IpAddr, destination: IpAddr, protocol: Protocol) -> Self {
        Self::new(source, destination, Transport::Other(protocol))
    }

    const fn new(source: IpAddr, destination: IpAddr, transport: Transport) -> Self {
        Self {
            macs: (MacAddress([2, 0, 0, 0, 0, 1]), MacAddress([2, 0, 0, 0, 0, 2])),
            tags: [None; 2],
            source,
            destination,
            transport,
            tos: 0,
            ttl: 64,
            identification: 0,
            dont_fragment: false,
            fragment: None,
        }
    }

    /// The Ethernet addresses.
    pub const fn macs(mut self, source: MacAddress, destination: MacAddress) -> Self {
        self.macs = (source, destination);
        self
    }

    /// One VLAN tag, or an inner one if called again; more than two there cannot be, the last counts.
    pub const fn vlan(mut self, tag: VlanTag) -> Self {
        let place = if self.tags[0].is_none() { 0 } else { 1 };
        self.tags[place] = Some(tag);
        self
    }

    /// The type of service or traffic class.
    pub const fn tos(mut self, tos: u8) -> Self {
        self.tos = tos;
        self
    }

    /// The time to live or hop limit.
    pub const fn ttl(mut self, ttl: u8) -> Self {
        self.ttl = ttl;
        self
    }

    /// The IPv4 identification.
    pub const fn identification(mut self, id: u16) -> Self {
        self.identification = id;
        self
    }

    /// Tells routers not to fragment it (IPv4).
    pub const fn dont_fragment(mut self) -> Self {
        self.dont_fragment = true;
        self
    }

    /// Makes it a fragment, `offset` bytes (a multiple of eight) into the original. One with an offset consists of
    /// the payload, without a transport header. That of the first has a checksum over what the first has.
    pub const fn fragment(mut self, id: u32, offset: u16, more: bool) -> Self {
        self.fragment = Some(FragmentOf { id, offset, more });
        self
    }

    /// The TCP flags.
    pub const fn flags(mut self, new: TcpFlags) -> Self {
        if let Transport::Tcp { flags, .. } = &mut self.transport {
            *flags = new;
        }
        self
    }

    /// The TCP sequence and acknowledgment number.
    pub const fn numbers(mut self, seq: u32, ack: u32) -> Self {
        if let Transport::Tcp { sequence, acknowledgment, .. } = &mut self.transport {
            *sequence = seq;
            *acknowledgment = ack;
        }
        self
    }

    /// Leaves the UDP checksum out, as IPv4 allows.
    pub const fn without_checksum(mut self) -> Self {
        if let Transport::Udp { checksum, .. } = &mut self.transport {
            *checksum = false;
        }
        self
    }

    /// Writes the packet with this payload at the start of `out`, and returns its length in bytes.
    ///
    /// Nothing if `out` is too small, the packet too long for IP, or the addresses are of different IP versions.
    pub fn write(&self, out: &mut [u8], payload: &[u8]) -> Option<usize> {
        let later = self.fragment.is_some_and(|fragment| fragment.offset != 0);
        let transport_len = if later { 0 } else { self.transport.header_len() };
        let l3 = 14 + 4 * self.tags.iter().flatten().count();
        let ip_len = match (self.source, self.destination) {
            (IpAddr::V4(_), IpAddr::V4(_)) => 20,
            (IpAddr::V6(_), IpAddr::V6(_)) => 40 + if self.fragment.is_some() { 8 } else { 0 },
            _ => return None,
        };
        let segment_len = transport_len + payload.len();
        let out = out.get_mut(..l3 + ip_len + segment_len)?;
        let (headers, segment) = out.split_at_mut(l3 + ip_len);
        let (ethernet, ip) = headers.split_at_mut(l3);
        self.write_ethernet(ethernet);
        self.write_ip(ip, segment_len)?;
        segment[transport_len..].copy_from_slice(payload);
        if !later {
            self.write_transport(segment)?;
        }
        Some(out.len())
    }

    fn write_ethernet(&self, out: &mut [u8]) {
        out[..6].copy_from_slice(&self.macs.1.0);
        out[6..12].copy_from_slice(&self.macs.0.0);
        let mut at = 12;
        let outer = if self.tags[1].is_some() { EtherType::SERVICE_VLAN } else { EtherType::VLAN };
        for (tag, ethertype) in self.tags.iter().flatten().zip([outer, EtherType::VLAN]) {
            out[at..at + 2].copy_from_slice(&ethertype.0.to_be_bytes());
            out[at + 2..at + 4].copy_from_slice(&tag.0.to_be_bytes());
            at += 4;
        }
        let ethertype = if self.source.is_ipv4() { EtherType::IPV4 } else { EtherType::IPV6 };
        out[at..at + 2].copy_from_slice(&ethertype.0.to_be_bytes());
    }

    fn write_ip(&self, out: &mut [u8], segment_len: usize) -> Option<()> {
        let protocol = self.protocol();
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let total_len = u16::try_from(20 + segment_len).ok()?;
                out.fill(0);
                out[0] = 0x45;
                let mut flags_offset = if self.dont_fragment { 0x4000 } else { 0 };
                let mut identification = self.identification;
                if let Some(fragment) = self.fragment {
                    flags_offset |= (fragment.offset / 8) | if fragment.more { 0x2000 } else { 0 };
                    identification = fragment.id as u16;
                }
                out[6..8].copy_from_slice(&flags_offset.to_be_bytes());
                let mut header = Ipv4::new_checked(out).ok()?;
                header.set_tos(self.tos);
                header.set_total_len(total_len);
                header.set_identification(identification);
                header.set_ttl(self.ttl);
                header.set_protocol(protocol);
                header.set_source(source);
                header.set_destination(destination);
                header.fill_checksum();
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let (header, extension) = out.split_at_mut(40);
                let payload_len = u16::try_from(extension.len() + segment_len).ok()?;
                let next = if self.fragment.is_some() { Protocol::FRAGMENT } else { protocol };
                super::encap::OuterIpv6::new(source, destination, next, self.ttl).write(
                    header.first_chunk_mut()?,
                    payload_len,
                    self.tos,
                    0,
                );
                if let Some(fragment) = self.fragment {
                    let offset_more = fragment.offset & !7 | u16::from(fragment.more);
                    extension[..2].copy_from_slice(&[protocol.0, 0]);
                    extension[2..4].copy_from_slice(&offset_more.to_be_bytes());
                    extension[4..8].copy_from_slice(&fragment.id.to_be_bytes());
                }
            }
            _ => return None,
        }
        Some(())
    }

    fn write_transport(&self, segment: &mut [u8]) -> Option<()> {
        let len = segment.len();
        match self.transport {
            Transport::Udp { ports, .. } => {
                let header = segment.first_chunk_mut::<8>()?;
                header[..2].copy_from_slice(&ports.0.to_be_bytes());
                header[2..4].copy_from_slice(&ports.1.to_be_bytes());
                header[4..6].copy_from_slice(&u16::try_from(len).ok()?.to_be_bytes());
                header[6..].fill(0);
            }
            Transport::Tcp { ports, flags, sequence, acknowledgment, window } => {
                let header = segment.first_chunk_mut::<20>()?;
                header.fill(0);
                header[12] = 5 << 4;
                let mut tcp = Tcp::new_checked(header).ok()?;
                tcp.set_source_port(ports.0);
                tcp.set_destination_port(ports.1);
                tcp.set_sequence(sequence);
                tcp.set_acknowledgment(acknowledgment);
                tcp.set_flags(flags);
                tcp.set_window(window);
            }
            Transport::Echo { identifier, sequence } => {
                let header = segment.first_chunk_mut::<8>()?;
                header.fill(0);
                header[0] = if self.source.is_ipv4() { 8 } else { 128 };
                header[4..6].copy_from_slice(&identifier.to_be_bytes());
                header[6..].copy_from_slice(&sequence.to_be_bytes());
            }
            Transport::Other(_) => return Some(()),
        }
        let protocol = self.protocol();
        if matches!(self.transport, Transport::Udp { checksum: false, .. }) {
            return Some(());
        }
        let pseudo = match (self.source, self.destination) {
            (IpAddr::V4(_), IpAddr::V4(_)) if protocol == Protocol::ICMP => Sum::new(),
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                Sum::new().add_pseudo_v4(source, destination, protocol, len as u16)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                Sum::new().add_pseudo_v6(source, destination, protocol, len as u32)
            }
            _ => return None,
        };
        let sum = pseudo.add_bytes(segment);
        let checksum = if protocol == Protocol::UDP { sum.udp_checksum() } else { sum.checksum() };
        let at = checksum::checksum_offset(protocol);
        segment[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
        Some(())
    }

    const fn protocol(&self) -> Protocol {
        match self.transport {
            Transport::Udp { .. } => Protocol::UDP,
            Transport::Tcp { .. } => Protocol::TCP,
            Transport::Echo { .. } if self.source.is_ipv4() => Protocol::ICMP,
            Transport::Echo { .. } => Protocol::ICMPV6,
            Transport::Other(protocol) => protocol,
        }
    }
}

impl Transport {
    const fn header_len(self) -> usize {
        match self {
            Self::Udp { .. } | Self::Echo { .. } => 8,
            Self::Tcp { .. } => 20,
            Self::Other(_) => 0,
        }
    }
}
