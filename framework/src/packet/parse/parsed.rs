//! What parsing finds out about a packet.

use std::fmt;
use std::num::NonZeroU64;
use std::ops::Range;

use super::super::names::{EtherType, IpVersion, Protocol};
use super::ParseError;

/// Which part of an IP packet this is. Exhaustive: a packet is whole, or a first or later fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Fragment {
    /// Not a fragment. An IPv6 fragment header that says "from 0, no more" makes none (RFC 6946).
    None = 0,
    /// The first of several: it has the transport header.
    First = 1,
    /// Any other: it begins somewhere within the transport payload.
    Later = 2,
}

/// Where the headers of a packet begin, and what they say that most stages ask. 24 bytes, cached per packet.
///
/// Offsets count from the packet's first byte. They hold until the packet is encapsulated, decapsulated or gets or
/// loses a VLAN tag; the hash until an address, port or protocol is rewritten.
// Three words, which travel in registers. As single fields they would be stored one by one and read back in wider
// words right after: no processor forwards that from its store buffer, and the wait costs more than the parsing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Parsed {
    hash: u64,
    /// From the lowest bit: the fragment's identification (32 bits), where the IP header and its extensions end (16;
    /// up to 22 + 40 + 8 × 2048, so it fits), the length of what follows (16).
    lengths: u64,
    /// From the lowest bit: EtherType (16 bits), offset of the IP header (8), protocol (8), length of the transport
    /// header (8; zero where there is none that parsing knows), [`Kind`] (8), [`Fragment`] (8), and a one, so that a
    /// result of this type needs no further word.
    shape: NonZeroU64,
}

/// What a [`Parsed`] is made of.
#[derive(Clone, Copy)]
pub(super) struct Found {
    pub(super) hash: u64,
    pub(super) fragment_id: u32,
    pub(super) ethertype: EtherType,
    pub(super) ip_payload: u16,
    pub(super) ip_payload_len: u16,
    pub(super) l3: u8,
    pub(super) protocol: Protocol,
    pub(super) transport_header_len: u8,
    pub(super) kind: Kind,
    pub(super) fragment: Fragment,
}

impl Found {
    #[inline(always)]
    pub(super) const fn pack(self) -> Parsed {
        let lengths =
            self.fragment_id as u64 | (self.ip_payload as u64) << 32 | (self.ip_payload_len as u64) << 48;
        let shape = self.ethertype.0 as u64
            | (self.l3 as u64) << 16
            | (self.protocol.0 as u64) << 24
            | (self.transport_header_len as u64) << 32
            | (self.kind as u64) << 40
            | (self.fragment as u64) << 48
            | 1 << 56;
        Parsed { hash: self.hash, lengths, shape: NonZeroU64::new(shape).expect("it has a one") }
    }
}

/// IP version and whether the header has options or extensions: a bit for each answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    NotIp = 0,
    V4 = IPV4,
    V4Options = IPV4 | OPTIONS,
    V6 = IPV6,
    V6Extensions = IPV6 | OPTIONS,
}

const IPV4: u8 = 1;
const IPV6: u8 = 2;
const OPTIONS: u8 = 4;

impl Parsed {
    #[inline(always)]
    const fn ip_payload(&self) -> usize {
        (self.lengths >> 32) as u16 as usize
    }

    #[inline(always)]
    const fn ip_payload_len(&self) -> usize {
        (self.lengths >> 48) as usize
    }

    #[inline(always)]
    const fn transport_header_len(&self) -> u8 {
        (self.shape.get() >> 32) as u8
    }

    #[inline(always)]
    const fn is(&self, kind: u8) -> bool {
        (self.shape.get() >> 40) as u8 & kind != 0
    }

    /// Whether it is a whole TCP or UDP packet over IP without options or extensions, as most are.
    #[inline(always)]
    pub(crate) const fn is_plain(&self) -> bool {
        let protocol = (self.shape.get() >> 24) as u8;
        let kind_and_fragment = (self.shape.get() >> 40) as u16;
        (kind_and_fragment == Kind::V4 as u16 || kind_and_fragment == Kind::V6 as u16)
            && self.transport_header_len() != 0
            && (protocol == Protocol::TCP.0 || protocol == Protocol::UDP.0)
    }

    /// The offset of what the EtherType describes: behind the Ethernet header and up to two VLAN tags.
    #[inline]
    pub const fn l3(&self) -> usize {
        (self.shape.get() >> 16) as u8 as usize
    }

    /// How many VLAN tags were skipped: none, one or two.
    #[inline]
    pub const fn vlan_tags(&self) -> usize {
        (self.l3() - 14) / 4
    }

    /// The EtherType behind the VLAN tags.
    #[inline]
    pub const fn ethertype(&self) -> EtherType {
        EtherType(self.shape.get() as u16)
    }

    /// The version of the IP header, if it is an IP packet.
    #[inline]
    pub const fn ip(&self) -> Option<IpVersion> {
        if self.is_ipv4() {
            Some(IpVersion::V4)
        } else if self.is_ipv6() {
            Some(IpVersion::V6)
        } else {
            None
        }
    }

    /// Whether it is an IPv4 packet.
    #[inline]
    pub const fn is_ipv4(&self) -> bool {
        self.is(IPV4)
    }

    /// Whether it is an IPv6 packet.
    #[inline]
    pub const fn is_ipv6(&self) -> bool {
        self.is(IPV6)
    }

    /// Whether the IPv4 header has options, or extension headers follow the IPv6 header.
    #[inline]
    pub const fn has_ip_options(&self) -> bool {
        self.is(OPTIONS)
    }

    /// The protocol of the IP payload, behind IPv6 extension headers. Of a later IPv6 fragment it is what its
    /// fragment header says, which can be an extension header.
    #[inline]
    pub const fn protocol(&self) -> Option<Protocol> {
        if self.is(IPV4 | IPV6) { Some(Protocol((self.shape.get() >> 24) as u8)) } else { None }
    }

    /// The whole IP packet, without the padding that Ethernet may have added; nothing if it is not one.
    #[inline]
    pub const fn ip_range(&self) -> Option<Range<usize>> {
        if self.is(IPV4 | IPV6) { Some(self.l3()..self.ip_payload() + self.ip_payload_len()) } else { None }
    }

    /// Where the IP packet starts and ends: both the same if it is none.
    #[inline(always)]
    pub(crate) const fn ip_bounds(&self) -> (usize, usize) {
        (self.l3(), self.ip_payload() + self.ip_payload_len())
    }

    /// What follows the IP header and its extensions: for a later fragment the middle of something.
    #[inline]
    pub const fn ip_payload_range(&self) -> Option<Range<usize>> {
        if self.is(IPV4 | IPV6) {
            Some(self.ip_payload()..self.ip_payload() + self.ip_payload_len())
        } else {
            None
        }
    }

    /// The offset of the transport header (TCP, UDP, ICMP, ICMPv6 or SCTP), if the packet has one: whole and valid
    /// at least in its lengths. A later fragment has none.
    #[inline]
    pub const fn transport(&self) -> Option<usize> {
        match self.transport_header_len() {
            0 => None,
            _ => Some(self.ip_payload()),
        }
    }

    /// The transport header and what follows it in the IP packet. UDP may end earlier, by its own length.
    #[inline]
    pub const fn transport_range(&self) -> Option<Range<usize>> {
        match self.transport_header_len() {
            0 => None,
            _ => self.ip_payload_range(),
        }
    }

    /// What follows the transport header.
    #[inline]
    pub const fn payload_range(&self) -> Option<Range<usize>> {
        match self.transport_header_len() {
            0 => None,
            len => {
                let start = self.ip_payload();
                Some(start + len as usize..start + self.ip_payload_len())
            }
        }
    }

    /// Whether it is a fragment, and which.
    #[inline]
    pub const fn fragment(&self) -> Fragment {
        match (self.shape.get() >> 48) as u8 {
            0 => Fragment::None,
            1 => Fragment::First,
            _ => Fragment::Later,
        }
    }

    /// The identification that fragments of one packet share: 16 bits in IPv4, 32 in IPv6. Nothing unless it is a
    /// fragment.
    #[inline]
    pub const fn fragment_id(&self) -> Option<u32> {
        match self.fragment() {
            Fragment::None => None,
            Fragment::First | Fragment::Later => Some(self.lengths as u32),
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

/// What parsing a packet has come to, as it is kept: in words, as [`Parsed`] is.
#[derive(Clone, Copy)]
pub(crate) struct Outcome {
    hash: u64,
    /// Of a malformed packet, the error's number.
    lengths: u64,
    /// Zero if the packet is malformed.
    shape: u64,
}

impl Outcome {
    /// How it is kept.
    #[inline(always)]
    pub(crate) const fn new(result: Result<Parsed, ParseError>) -> Self {
        match result {
            Ok(Parsed { hash, lengths, shape }) => Self { hash, lengths, shape: shape.get() },
            Err(error) => Self { hash: 0, lengths: error.number() as u64, shape: 0 },
        }
    }

    /// What was kept.
    #[inline(always)]
    pub(crate) const fn result(self) -> Result<Parsed, ParseError> {
        match NonZeroU64::new(self.shape) {
            Some(shape) => Ok(Parsed { hash: self.hash, lengths: self.lengths, shape }),
            None => Err(ParseError::ALL[self.lengths as usize % ParseError::ALL.len()]),
        }
    }
}

impl fmt::Debug for Parsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parsed")
            .field("ethertype", &self.ethertype())
            .field("ip", &self.ip())
            .field("ip_range", &self.ip_range())
            .field("has_ip_options", &self.has_ip_options())
            .field("protocol", &self.protocol())
            .field("payload_range", &self.payload_range())
            .field("fragment", &self.fragment())
            .field("fragment_id", &self.fragment_id())
            .field("hash", &format_args!("{:#018x}", self.hash))
            .finish()
    }
}

const _: () = assert!(size_of::<Parsed>() == 24 && size_of::<Result<Parsed, ParseError>>() == 24);
