//! What parsing finds out about a packet.

use std::ops::Range;

use super::super::names::{EtherType, IpVersion, Protocol};

/// Which part of an IP packet this is. Exhaustive: a packet is whole, or a first or later fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Fragment {
    /// Not a fragment. An IPv6 fragment header that says "from 0, no more" makes none (RFC 6946).
    None,
    /// The first of several: it has the transport header.
    First,
    /// Any other: it begins somewhere within the transport payload.
    Later,
}

/// Where the headers of a packet begin, and what they say that most stages ask. 24 bytes, cached per packet.
///
/// Offsets count from the packet's first byte. They hold until the packet is encapsulated, decapsulated or gets or
/// loses a VLAN tag; the hash until an address, port or protocol is rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parsed {
    pub(super) hash: u64,
    pub(super) fragment_id: u32,
    pub(super) ethertype: EtherType,
    /// Where the IP header and its extensions end. Up to 22 + 40 + 8 × 2048, so it fits.
    pub(super) ip_payload: u16,
    pub(super) ip_payload_len: u16,
    pub(super) l3: u8,
    pub(super) protocol: Protocol,
    /// Zero where there is no transport header that parsing knows.
    pub(super) transport_header_len: u8,
    pub(super) kind: Kind,
    pub(super) fragment: Fragment,
}

/// IP version and whether the header has options or extensions, in one byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    NotIp,
    V4,
    V4Options,
    V6,
    V6Extensions,
}

impl Parsed {
    /// The offset of what the EtherType describes: behind the Ethernet header and up to two VLAN tags.
    #[inline]
    pub const fn l3(&self) -> usize {
        self.l3 as usize
    }

    /// How many VLAN tags were skipped: none, one or two.
    #[inline]
    pub const fn vlan_tags(&self) -> usize {
        (self.l3 as usize - 14) / 4
    }

    /// The EtherType behind the VLAN tags.
    #[inline]
    pub const fn ethertype(&self) -> EtherType {
        self.ethertype
    }

    /// The version of the IP header, if it is an IP packet.
    #[inline]
    pub const fn ip(&self) -> Option<IpVersion> {
        match self.kind {
            Kind::NotIp => None,
            Kind::V4 | Kind::V4Options => Some(IpVersion::V4),
            Kind::V6 | Kind::V6Extensions => Some(IpVersion::V6),
        }
    }

    /// Whether it is an IPv4 packet.
    #[inline]
    pub const fn is_ipv4(&self) -> bool {
        matches!(self.kind, Kind::V4 | Kind::V4Options)
    }

    /// Whether it is an IPv6 packet.
    #[inline]
    pub const fn is_ipv6(&self) -> bool {
        matches!(self.kind, Kind::V6 | Kind::V6Extensions)
    }

    /// Whether the IPv4 header has options, or extension headers follow the IPv6 header.
    #[inline]
    pub const fn has_ip_options(&self) -> bool {
        matches!(self.kind, Kind::V4Options | Kind::V6Extensions)
    }

    /// The protocol of the IP payload, behind IPv6 extension headers. Of a later IPv6 fragment it is what its
    /// fragment header says, which can be an extension header.
    #[inline]
    pub const fn protocol(&self) -> Option<Protocol> {
        match self.kind {
            Kind::NotIp => None,
            _ => Some(self.protocol),
        }
    }

    /// The whole IP packet, without the padding that Ethernet may have added; nothing if it is not one.
    #[inline]
    pub const fn ip_range(&self) -> Option<Range<usize>> {
        match self.kind {
            Kind::NotIp => None,
            _ => Some(self.l3()..self.ip_payload as usize + self.ip_payload_len as usize),
        }
    }

    /// What follows the IP header and its extensions: for a later fragment the middle of something.
    #[inline]
    pub const fn ip_payload_range(&self) -> Option<Range<usize>> {
        match self.kind {
            Kind::NotIp => None,
            _ => Some(self.ip_payload as usize..self.ip_payload as usize + self.ip_payload_len as usize),
        }
    }

    /// The offset of the transport header (TCP, UDP, ICMP, ICMPv6 or SCTP), if the packet has one: whole and valid
    /// at least in its lengths. A later fragment has none.
    #[inline]
    pub const fn transport(&self) -> Option<usize> {
        match self.transport_header_len {
            0 => None,
            _ => Some(self.ip_payload as usize),
        }
    }

    /// The transport header and what follows it in the IP packet. UDP may end earlier, by its own length.
    #[inline]
    pub const fn transport_range(&self) -> Option<Range<usize>> {
        match self.transport_header_len {
            0 => None,
            _ => self.ip_payload_range(),
        }
    }

    /// What follows the transport header.
    #[inline]
    pub const fn payload_range(&self) -> Option<Range<usize>> {
        match self.transport_header_len {
            0 => None,
            len => {
                let start = self.ip_payload as usize;
                Some(start + len as usize..start + self.ip_payload_len as usize)
            }
        }
    }

    /// Whether it is a fragment, and which.
    #[inline]
    pub const fn fragment(&self) -> Fragment {
        self.fragment
    }

    /// The identification that fragments of one packet share: 16 bits in IPv4, 32 in IPv6. Nothing unless it is a
    /// fragment.
    #[inline]
    pub const fn fragment_id(&self) -> Option<u32> {
        match self.fragment {
            Fragment::None => None,
            Fragment::First | Fragment::Later => Some(self.fragment_id),
        }
    }

    /// The hash of the packet's flow: source, destination, protocol and ports. Zero if it is not an IP packet.
    ///
    /// Of a fragment, first or later, it is that of source, destination, protocol and identification (in IPv6 without
    /// the protocol, which fragments need not agree on: RFC 8200, section 4.5): all fragments of a packet have the
    /// same. The hash of the flow that a first fragment belongs to is that of its [`flow_key`](super::super::flow_key).
    #[inline]
    pub const fn hash(&self) -> u64 {
        self.hash
    }
}

const _: () = assert!(size_of::<Parsed>() == 24 && size_of::<Result<Parsed, super::ParseError>>() == 24);
