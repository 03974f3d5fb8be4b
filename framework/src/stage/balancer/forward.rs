//! How a packet gets to its real: in another IP header, or by MAC address alone.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use ipnet::{Ipv4Net, Ipv6Net};

use super::explain::Leaving;
use super::real::RealId;
use crate::batch::Packet;
use crate::packet::checksum::Sum;
use crate::packet::encap::{GueIpv4, GueIpv6, OuterIpv4, OuterIpv6};
use crate::packet::{MacAddress, Parsed, Protocol, flow_key, parse};
use crate::port::PortId;

/// How packets get to the reals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Forwarding {
    /// IP in IP (RFC 2003, RFC 2473): 4 in 4, 6 in 6, 4 in 6.
    Ipip {
        /// Where IPv4 outer sources are taken from, an address for each flow; the interface's own address
        /// where there is none.
        source_v4: Option<Ipv4Net>,
        /// The same for IPv6.
        source_v6: Option<Ipv6Net>,
    },
    /// In UDP: GUE, variant 1, which is the IP packet behind the UDP header and nothing between (Generic UDP
    /// Encapsulation, draft-ietf-intarea-gue, section 4).
    Gue {
        /// Where IPv4 outer sources are taken from, as with IPIP.
        source_v4: Option<Ipv4Net>,
        /// The same for IPv6.
        source_v6: Option<Ipv6Net>,
        /// The UDP destination port.
        port: u16,
    },
    /// Unchanged, but for the MAC addresses: the reals have the VIP themselves (direct server return).
    L2Dsr,
}

impl Forwarding {
    /// The UDP port of GUE, where no other is named (IANA).
    pub const GUE_PORT: u16 = 6080;

    /// The Forwarding::TTL, or hop limit, of outer headers.
    pub const TTL: u8 = 64;

    /// The UDP port at which packets are taken out of GUE: the one that they are sent to, if they are.
    #[must_use]
    pub const fn gue_port(&self) -> u16 {
        match self {
            Self::Gue { port, .. } => *port,
            Self::Ipip { .. } | Self::L2Dsr => Self::GUE_PORT,
        }
    }
}

/// The next hop to a real.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hop {
    /// The port to send on.
    pub port: PortId,
    /// That port's MAC address.
    pub source_mac: MacAddress,
    /// The next hop's MAC address.
    pub destination_mac: MacAddress,
    /// The address to send from, where the forwarding says none.
    pub source: Option<IpAddr>,
    /// The longest IP packet that the way takes, in bytes.
    pub mtu: u32,
}

/// All that is needed to send a packet to a real, worked out beforehand.
#[derive(Debug, Clone)]
pub(super) struct Destination {
    pub(super) id: RealId,
    ethernet: [u8; 14],
    port: PortId,
    /// The longest packet that can be sent, in bytes, without what goes before it.
    room: u16,
    outer: Outer,
}

#[derive(Debug, Clone)]
enum Outer {
    V4 { header: OuterIpv4, host_mask: u32 },
    V6 { header: OuterIpv6, host_mask: u128, label_mask: u32 },
    Gue4 { header: GueIpv4, host_mask: u32 },
    Gue6 { header: GueIpv6, host_mask: u128 },
    None,
}

impl Outer {
    /// In bytes.
    const fn len(&self) -> usize {
        match self {
            Self::V4 { .. } => OuterIpv4::LEN,
            Self::V6 { .. } => OuterIpv6::LEN,
            Self::Gue4 { .. } => GueIpv4::LEN,
            Self::Gue6 { .. } => GueIpv6::LEN,
            Self::None => 0,
        }
    }
}

/// Why a packet could not be sent to its real.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    TooBig,
    NoHeadroom,
    Trailing,
}

impl Destination {
    /// The way to `real` for packets to a VIP of IPv4 or else IPv6. None, where an outer source is needed and
    /// there is none of the real's family.
    pub(super) fn new(
        id: RealId,
        real: IpAddr,
        vip_is_ipv4: bool,
        forwarding: &Forwarding,
        hop: &Hop,
    ) -> Option<Self> {
        let inner = if vip_is_ipv4 { Protocol::IPV4 } else { Protocol::IPV6 };
        let outer = match (*forwarding, real) {
            (Forwarding::L2Dsr, _) => Outer::None,
            (Forwarding::Ipip { source_v4, .. }, IpAddr::V4(real)) => {
                let (source, host_mask) = source_of_v4(source_v4, hop.source)?;
                Outer::V4 { header: OuterIpv4::new(source, real, inner, Forwarding::TTL, false), host_mask }
            }
            (Forwarding::Ipip { source_v6, .. }, IpAddr::V6(real)) => {
                let (source, host_mask) = source_of_v6(source_v6, hop.source)?;
                // Flows are told apart by their sources, or else by their labels (RFC 6438).
                let label_mask = if host_mask == 0 { u32::MAX } else { 0 };
                Outer::V6 {
                    header: OuterIpv6::new(source, real, inner, Forwarding::TTL),
                    host_mask,
                    label_mask,
                }
            }
            (Forwarding::Gue { source_v4, port, .. }, IpAddr::V4(real)) => {
                let (source, host_mask) = source_of_v4(source_v4, hop.source)?;
                Outer::Gue4 { header: GueIpv4::new(source, real, port, Forwarding::TTL, false), host_mask }
            }
            (Forwarding::Gue { source_v6, port, .. }, IpAddr::V6(real)) => {
                let (source, host_mask) = source_of_v6(source_v6, hop.source)?;
                Outer::Gue6 { header: GueIpv6::new(source, real, port, Forwarding::TTL), host_mask }
            }
        };
        let ethertype: [u8; 2] = match (&outer, real) {
            (Outer::None, _) => [0, 0],
            (_, IpAddr::V4(_)) => [0x08, 0x00],
            (_, IpAddr::V6(_)) => [0x86, 0xdd],
        };
        let mut ethernet = [0; 14];
        ethernet[..6].copy_from_slice(&hop.destination_mac.0);
        ethernet[6..12].copy_from_slice(&hop.source_mac.0);
        ethernet[12..].copy_from_slice(&ethertype);
        // No header can say more than 65,535 bytes, whatever the way takes.
        let mtu = u16::try_from(hop.mtu).unwrap_or(u16::MAX);
        let room = mtu.saturating_sub(outer.len() as u16);
        Some(Self { id, ethernet, port: hop.port, room, outer })
    }

    /// The longest packet that can be sent, in bytes, without the outer headers.
    pub(super) fn room(&self) -> u32 {
        self.room.into()
    }

    /// Puts the packet on its way. `entropy` is the same for all packets of a flow.
    #[inline(always)]
    pub(super) fn send(&self, packet: &mut Packet<'_>, parsed: &Parsed, entropy: u64) -> Result<(), Refusal> {
        let (start, end) = parsed.ip_bounds();
        if end - start > usize::from(self.room) {
            return Err(Refusal::TooBig);
        }
        let (ip, len) = (start..end, (end - start) as u16);
        match &self.outer {
            Outer::None => {
                packet.bytes_mut_same_flow()[..12].copy_from_slice(&self.ethernet[..12]);
            }
            Outer::V4 { header, host_mask } => {
                let tos = traffic_class(packet, ip.start);
                let room = self.push::<{ OuterIpv4::LEN }>(packet, &ip)?;
                header.write_from(room, entropy as u32 & host_mask, len, tos, 0);
            }
            Outer::V6 { header, host_mask, label_mask } => {
                let tos = traffic_class(packet, ip.start);
                let room = self.push::<{ OuterIpv6::LEN }>(packet, &ip)?;
                let (host, label) = (u128::from(entropy) & host_mask, entropy as u32 & label_mask);
                header.write_from(room, host, len, tos, label);
            }
            Outer::Gue4 { .. } | Outer::Gue6 { .. } => self.put_in_gue(packet, ip.start, ip.end, entropy)?,
        }
        packet.transmit(self.port);
        Ok(())
    }

    /// A function of its own, so that the others stay small.
    #[inline(never)]
    fn put_in_gue(
        &self,
        packet: &mut Packet<'_>,
        start: usize,
        end: usize,
        entropy: u64,
    ) -> Result<(), Refusal> {
        let ip = &(start..end);
        let (len, tos) = (ip.len() as u16, traffic_class(packet, ip.start));
        match &self.outer {
            Outer::Gue4 { header, host_mask } => {
                let room = self.push::<{ GueIpv4::LEN }>(packet, ip)?;
                header.write_from(room, entropy as u32 & host_mask, source_port(entropy), len, tos, 0);
            }
            Outer::Gue6 { header, host_mask } => {
                let inner = sum_from(packet, ip)?;
                let room = self.push::<{ GueIpv6::LEN }>(packet, ip)?;
                let host = u128::from(entropy) & host_mask;
                // Flows are told apart by their ports.
                header.write_from(room, host, source_port(entropy), len, inner, tos, 0);
            }
            Outer::V4 { .. } | Outer::V6 { .. } | Outer::None => {}
        }
        Ok(())
    }

    /// Takes the packet's link header, and the padding behind it, away and puts ours and room for `LEN`
    /// bytes in its place.
    #[inline(always)]
    fn push<'p, const LEN: usize>(
        &self,
        packet: &'p mut Packet<'_>,
        ip: &Range<usize>,
    ) -> Result<&'p mut [u8; LEN], Refusal> {
        let front =
            packet.reframe(ip.start..end_in_head(packet, ip)?, 14 + LEN).ok_or(Refusal::NoHeadroom)?;
        let (ethernet, rest) = front.split_first_chunk_mut().ok_or(Refusal::NoHeadroom)?;
        *ethernet = self.ethernet;
        rest.first_chunk_mut().ok_or(Refusal::NoHeadroom)
    }

    /// How the packets of a flow with this entropy leave.
    pub(super) fn leaving(&self, entropy: u64) -> Leaving {
        let mut bytes = [0; 14 + GueIpv6::LEN];
        bytes[..14].copy_from_slice(&self.ethernet);
        let (host4, host6) = (entropy as u32, u128::from(entropy));
        let port = source_port(entropy);
        let out = &mut bytes[14..];
        let written = match &self.outer {
            Outer::None => None,
            Outer::V4 { header, host_mask } => {
                out.first_chunk_mut().map(|out| header.write_from(out, host4 & host_mask, 0, 0, 0))
            }
            Outer::V6 { header, host_mask, label_mask } => out
                .first_chunk_mut()
                .map(|out| header.write_from(out, host6 & host_mask, 0, 0, entropy as u32 & label_mask))
                .map(|()| true),
            Outer::Gue4 { header, host_mask } => {
                out.first_chunk_mut().map(|out| header.write_from(out, host4 & host_mask, port, 0, 0, 0))
            }
            Outer::Gue6 { header, host_mask } => out
                .first_chunk_mut()
                .map(|out| header.write_from(out, host6 & host_mask, port, 0, Sum::new(), 0, 0)),
        };
        let headers = &bytes[..14 + self.outer.len()];
        let outer = || flow_key(headers, &parse(headers).ok()?);
        let [mac, own] = [0, 6].map(|at| MacAddress(std::array::from_fn(|index| self.ethernet[at + index])));
        Leaving {
            port: self.port,
            source_mac: own,
            destination_mac: mac,
            mtu: self.room() + self.outer.len() as u32,
            longest: self.room(),
            outer: if written == Some(true) { outer() } else { None },
        }
    }
}

/// Where the IP packet ends in the packet's first segment. Behind it is the padding of short packets, which are as long
/// as Ethernet demands: it is not part of what is forwarded. Nobody pads a packet that is longer than a frame.
#[inline(always)]
fn end_in_head(packet: &Packet<'_>, ip: &Range<usize>) -> Result<usize, Refusal> {
    let (head, len) = (packet.bytes().len(), packet.len());
    if head != len && len > ip.end {
        return Err(Refusal::Trailing);
    }
    Ok(ip.end.min(head))
}

/// The sum of the IP packet.
fn sum_from(packet: &Packet<'_>, ip: &Range<usize>) -> Result<Sum, Refusal> {
    let end = end_in_head(packet, ip)?;
    let first = packet.bytes().get(ip.start..end).unwrap_or_default();
    Ok(Sum::new().add_segments(std::iter::once(first).chain(packet.segments().skip(1))))
}

/// The outer UDP source port of a flow: one of those that are for passing use (RFC 6335).
#[inline(always)]
fn source_port(entropy: u64) -> u16 {
    0xc000 | (entropy >> 32) as u16 & 0x3fff
}

/// The traffic class of the packet whose IP header starts there: it is the outer one's too.
#[inline(always)]
fn traffic_class(packet: &Packet<'_>, start: usize) -> u8 {
    match packet.bytes().get(start..start + 2) {
        Some([first, second]) if first >> 4 == 4 => *second,
        Some([first, second]) => first << 4 | second >> 4,
        _ => 0,
    }
}

fn source_of_v4(prefix: Option<Ipv4Net>, own: Option<IpAddr>) -> Option<(Ipv4Addr, u32)> {
    match (prefix, own) {
        (Some(prefix), _) => Some((prefix.network(), prefix.hostmask().to_bits())),
        (None, Some(IpAddr::V4(own))) => Some((own, 0)),
        _ => None,
    }
}

fn source_of_v6(prefix: Option<Ipv6Net>, own: Option<IpAddr>) -> Option<(Ipv6Addr, u128)> {
    match (prefix, own) {
        (Some(prefix), _) => Some((prefix.network(), prefix.hostmask().to_bits())),
        (None, Some(IpAddr::V6(own))) => Some((own, 0)),
        _ => None,
    }
}
