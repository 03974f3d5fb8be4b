//! How a packet gets to its real: in another IP header, or by MAC address alone.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

use super::real::RealId;
use crate::batch::Packet;
use crate::packet::encap::{OuterIpv4, OuterIpv6};
use crate::packet::{MacAddress, Parsed, Protocol};
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
    mtu: usize,
    outer: Outer,
}

#[derive(Debug, Clone)]
enum Outer {
    V4 { header: OuterIpv4, host_mask: u32 },
    V6 { header: OuterIpv6, host_mask: u128 },
    None,
}

/// Why a packet could not be sent to its real.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    TooBig,
    NoHeadroom,
    Trailing,
}

/// The TTL of outer headers.
const TTL: u8 = 64;

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
        let outer = match forwarding {
            Forwarding::L2Dsr => Outer::None,
            Forwarding::Gue { .. } => return None,
            Forwarding::Ipip { source_v4, source_v6 } => {
                let inner = if vip_is_ipv4 { Protocol::IPV4 } else { Protocol::IPV6 };
                match real {
                    IpAddr::V4(real) => {
                        let (source, host_mask) = source_of_v4(*source_v4, hop.source)?;
                        Outer::V4 { header: OuterIpv4::new(source, real, inner, TTL, false), host_mask }
                    }
                    IpAddr::V6(real) => {
                        let (source, host_mask) = source_of_v6(*source_v6, hop.source)?;
                        Outer::V6 { header: OuterIpv6::new(source, real, inner, TTL), host_mask }
                    }
                }
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
        Some(Self { id, ethernet, port: hop.port, mtu: hop.mtu as usize, outer })
    }

    /// Puts the packet on its way. `entropy` is the same for all packets of a flow.
    #[inline]
    pub(super) fn send(&self, packet: &mut Packet<'_>, parsed: &Parsed, entropy: u64) -> Result<(), Refusal> {
        let ip = parsed.ip_range().unwrap_or(0..0);
        match &self.outer {
            Outer::None => {
                if ip.len() > self.mtu {
                    return Err(Refusal::TooBig);
                }
                packet.bytes_mut_same_flow()[..12].copy_from_slice(&self.ethernet[..12]);
            }
            Outer::V4 { header, host_mask } => {
                let tos = traffic_class(packet, ip.start);
                let room = self.push::<{ OuterIpv4::LEN }>(packet, &ip)?;
                if !header.write_from(room, entropy as u32 & host_mask, ip.len() as u16, tos, 0) {
                    return Err(Refusal::TooBig);
                }
            }
            Outer::V6 { header, host_mask } => {
                let tos = traffic_class(packet, ip.start);
                let room = self.push::<{ OuterIpv6::LEN }>(packet, &ip)?;
                let host = u128::from(entropy) & host_mask;
                header.write_from(room, host, ip.len() as u16, tos, entropy as u32);
            }
        }
        packet.transmit(self.port);
        Ok(())
    }

    /// Takes the packet's link header, and the padding behind it, away and puts ours and room for `LEN`
    /// bytes in its place.
    #[inline(always)]
    fn push<'p, const LEN: usize>(
        &self,
        packet: &'p mut Packet<'_>,
        ip: &std::ops::Range<usize>,
    ) -> Result<&'p mut [u8; LEN], Refusal> {
        if ip.len() + LEN > self.mtu {
            return Err(Refusal::TooBig);
        }
        let missing = (14 + LEN).saturating_sub(ip.start);
        if packet.headroom() < missing {
            return Err(Refusal::NoHeadroom);
        }
        let len = packet.len();
        if len > ip.end {
            // Short packets are padded to Ethernet's least length: that is not part of what is forwarded.
            // Nobody pads a packet that is longer than a frame.
            if packet.bytes().len() != len {
                return Err(Refusal::Trailing);
            }
            packet.set_len(ip.end);
        }
        packet.pull_front(ip.start);
        let front = packet.push_front(14 + LEN).ok_or(Refusal::NoHeadroom)?;
        let (ethernet, outer) = front.split_at_mut(14);
        ethernet.copy_from_slice(&self.ethernet);
        outer.first_chunk_mut().ok_or(Refusal::NoHeadroom)
    }
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
