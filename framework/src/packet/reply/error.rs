//! ICMP and ICMPv6 errors.

use std::net::IpAddr;

use super::super::checksum::Sum;
use super::super::encap::{OuterIpv4, OuterIpv6};
use super::super::names::Protocol;
use super::super::parse::{Fragment, Parsed};
use super::super::rewrite::swap_mac_addresses;
use super::super::view::{Icmp, Ipv4, Ipv6};
use super::{TTL, is_between_hosts, is_host, source};

/// No ICMP error is longer, in bytes with its IP header (RFC 1812, section 4.3.2.3).
const ICMP_ERROR_MAX: usize = 576;
/// No ICMPv6 error is longer: the least MTU of IPv6 (RFC 4443, section 2.4 c).
const ICMPV6_ERROR_MAX: usize = 1280;
/// ICMP errors go with precedence "internetwork control" (RFC 1812, section 4.3.2.5).
const ICMP_ERROR_TOS: u8 = 0xc0;

const ICMP_LEN: usize = Icmp::<&[u8]>::LEN;

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

/// Writes into `out` the ICMP or ICMPv6 error about the packet `original`, as [`ErrorForm::FULL`] has it. Returns the
/// length in bytes, or nothing where [`ErrorForm::write`] does not.
pub fn icmp_error(
    original: &[u8],
    parsed: &Parsed,
    error: IcmpError,
    from: IpAddr,
    out: &mut [u8],
) -> Option<usize> {
    ErrorForm::FULL.write(original, parsed, error, from, out)
}

/// What an ICMP or ICMPv6 error looks like, whatever it reports.
///
/// ```
/// use afx::packet::{Builder, parse, reply::{ErrorForm, IcmpError}};
///
/// let (client, vip) = ("192.0.2.1:4000".parse()?, "198.51.100.7:53".parse()?);
/// let mut packet = [0; 1600];
/// let len = Builder::udp(client, vip).write(&mut packet, &[7; 1500]).unwrap();
/// let packet = &packet[..len];
///
/// let (mut answer, error) = ([0; 1600], IcmpError::TooBig { mtu: 1500 });
/// let write = |form: ErrorForm, out: &mut [u8]| form.write(packet, &parse(packet).unwrap(), error, vip.ip(), out);
/// assert_eq!(write(ErrorForm::FULL, &mut answer), Some(14 + 576));
/// assert_eq!(write(ErrorForm::BRIEF, &mut answer), Some(14 + 112));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "made by struct update from a constant")]
pub struct ErrorForm {
    /// The most bytes of an IPv4 packet, with its header, that are quoted. More than 548 would make the error
    /// longer than the 576 bytes that it may have, so that is the limit.
    pub quote_v4: usize,
    /// The same of an IPv6 packet; the limit is 1232, for an error of 1280 bytes.
    pub quote_v6: usize,
    /// The type of service of an error in IPv4.
    pub tos: u8,
    /// Whether routers must not fragment an error in IPv4.
    pub dont_fragment: bool,
}

impl ErrorForm {
    /// What a router sends: it quotes as much as it may (RFC 1812, section 4.3.2.3; RFC 4443, section 2.4 c).
    pub const FULL: Self = Self {
        quote_v4: ICMP_ERROR_MAX - Ipv4::<&[u8]>::LEN - ICMP_LEN,
        quote_v6: ICMPV6_ERROR_MAX - Ipv6::<&[u8]>::LEN - ICMP_LEN,
        tos: ICMP_ERROR_TOS,
        dont_fragment: true,
    };

    /// What a balancer sends in the name of its VIPs: 84 bytes of an IPv4 packet and 248 of an IPv6 packet are quoted.
    ///
    /// The sender of a packet can be forged, and then the answer goes to somebody who asked for nothing. One of 112
    /// bytes to a packet that was too big is a small part of what it cost to send that: nobody wins by having it
    /// sent. What path MTU discovery needs is there: the longest IPv4 header (60 bytes) and a whole TCP header behind
    /// it; the IPv6 header and 208 bytes of extension headers and transport header. A receiver finds its connection by
    /// addresses and ports, and TCP looks at the sequence number (RFC 5927).
    pub const BRIEF: Self = Self { quote_v4: 84, quote_v6: 248, tos: 0, dont_fragment: false };

    /// Writes into `out` the ICMP or ICMPv6 error about the packet `original`, to its sender and back over the link
    /// that it came from (VLAN tags as there), from the address `from`. Returns the length in bytes.
    ///
    /// Returns nothing where no error may be sent (RFC 1122 section 3.2.2, RFC 1812 section 4.3.2.7, RFC 4443 section
    /// 2.4 e): about an ICMP error or redirect, a later fragment, a packet that on its link went to a group of
    /// stations, or one to or from an IP address that is not a single host's ("too big" may be about IPv6 multicast).
    /// Nothing too if `from` is of the other IP version or `out` is too small. How many errors are sent per second is
    /// the caller's to limit.
    pub fn write(
        &self,
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
        let (ip_len, most) = if parsed.is_ipv4() {
            (Ipv4::<&[u8]>::LEN, self.quote_v4.min(Self::FULL.quote_v4))
        } else {
            (Ipv6::<&[u8]>::LEN, self.quote_v6.min(Self::FULL.quote_v6))
        };
        let quoted = &quoted[..quoted.len().min(most)];
        let (l3, start) = (parsed.l3(), parsed.l3() + ip_len);
        let message_len = ICMP_LEN + quoted.len();
        let out = out.get_mut(..start + message_len)?;

        out[..l3].copy_from_slice(original.get(..l3)?);
        swap_mac_addresses(out);
        let (headers, message) = out.split_at_mut(start);
        let header = headers.get_mut(l3..)?;
        message[ICMP_LEN..].copy_from_slice(quoted);
        let ((kind, code, word), pseudo) = match (from, source(original, parsed)?) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let ip = OuterIpv4::new(from, to, Protocol::ICMP, TTL, self.dont_fragment);
                ip.write(header.first_chunk_mut()?, message_len as u16, self.tos, 0);
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
