//! IPv4 (RFC 791).

use std::net::Ipv4Addr;

use super::super::checksum;
use super::super::names::Protocol;
use super::super::parse::ParseError;
use super::{array_at, put, u16_at};

mod field {
    pub(super) const VERSION_IHL: usize = 0;
    pub(super) const TOS: usize = 1;
    pub(super) const TOTAL_LEN: usize = 2;
    pub(super) const IDENTIFICATION: usize = 4;
    pub(super) const FLAGS_OFFSET: usize = 6;
    pub(super) const TTL: usize = 8;
    pub(super) const PROTOCOL: usize = 9;
    pub(super) const CHECKSUM: usize = 10;
    pub(super) const SOURCE: usize = 12;
    pub(super) const DESTINATION: usize = 16;
    pub(super) const LEN: usize = 20;

    pub(super) const DONT_FRAGMENT: u16 = 0x4000;
    pub(super) const MORE_FRAGMENTS: u16 = 0x2000;
    pub(super) const OFFSET: u16 = 0x1fff;
}

/// An IPv4 header.
#[derive(Clone, Copy, Debug)]
pub struct Ipv4<B>(B);

impl<B: AsRef<[u8]>> Ipv4<B> {
    /// The length of the header without options, in bytes.
    pub const LEN: usize = field::LEN;

    /// A view of the header at the start of `bytes`.
    ///
    /// # Errors
    ///
    /// [`ParseError::Ipv4Truncated`], [`ParseError::Ipv4Version`] or [`ParseError::Ipv4HeaderLength`].
    #[inline]
    pub fn new_checked(bytes: B) -> Result<Self, ParseError> {
        let header = bytes.as_ref();
        if header.len() < field::LEN {
            return Err(ParseError::Ipv4Truncated);
        }
        let (version, len) =
            (header[field::VERSION_IHL] >> 4, usize::from(header[field::VERSION_IHL] & 0xf) * 4);
        match () {
            () if version != 4 => Err(ParseError::Ipv4Version),
            () if len < field::LEN => Err(ParseError::Ipv4HeaderLength),
            () if len > header.len() => Err(ParseError::Ipv4Truncated),
            () => Ok(Self(bytes)),
        }
    }

    /// The length of the header with options, in bytes.
    #[inline]
    pub fn header_len(&self) -> usize {
        usize::from(self.0.as_ref()[field::VERSION_IHL] & 0xf) * 4
    }

    /// The type of service: DSCP in the upper six bits, ECN in the lower two (RFC 2474, RFC 3168).
    #[inline]
    pub fn tos(&self) -> u8 {
        self.0.as_ref()[field::TOS]
    }

    /// The length of the packet with its header, in bytes.
    #[inline]
    pub fn total_len(&self) -> u16 {
        u16_at(self.0.as_ref(), field::TOTAL_LEN)
    }

    /// The identification that a packet's fragments share.
    #[inline]
    pub fn identification(&self) -> u16 {
        u16_at(self.0.as_ref(), field::IDENTIFICATION)
    }

    /// Whether routers must not fragment it.
    #[inline]
    pub fn dont_fragment(&self) -> bool {
        u16_at(self.0.as_ref(), field::FLAGS_OFFSET) & field::DONT_FRAGMENT != 0
    }

    /// Whether fragments follow this one.
    #[inline]
    pub fn more_fragments(&self) -> bool {
        u16_at(self.0.as_ref(), field::FLAGS_OFFSET) & field::MORE_FRAGMENTS != 0
    }

    /// Where the payload begins in that of the unfragmented packet, in bytes.
    #[inline]
    pub fn fragment_offset(&self) -> u16 {
        (u16_at(self.0.as_ref(), field::FLAGS_OFFSET) & field::OFFSET) * 8
    }

    /// The time to live, in hops.
    #[inline]
    pub fn ttl(&self) -> u8 {
        self.0.as_ref()[field::TTL]
    }

    /// The protocol of the payload.
    #[inline]
    pub fn protocol(&self) -> Protocol {
        Protocol(self.0.as_ref()[field::PROTOCOL])
    }

    /// The header's checksum.
    #[inline]
    pub fn checksum(&self) -> u16 {
        u16_at(self.0.as_ref(), field::CHECKSUM)
    }

    /// Whether the header's checksum is right.
    #[inline]
    pub fn verify_checksum(&self) -> bool {
        checksum::checksum(&self.0.as_ref()[..self.header_len()]) == 0
    }

    /// The sender's address.
    #[inline]
    pub fn source(&self) -> Ipv4Addr {
        array_at(self.0.as_ref(), field::SOURCE).into()
    }

    /// The receiver's address.
    #[inline]
    pub fn destination(&self) -> Ipv4Addr {
        array_at(self.0.as_ref(), field::DESTINATION).into()
    }
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Ipv4<B> {
    /// Sets the type of service.
    #[inline]
    pub fn set_tos(&mut self, tos: u8) {
        self.0.as_mut()[field::TOS] = tos;
    }

    /// Sets the length of the packet with its header, in bytes.
    #[inline]
    pub fn set_total_len(&mut self, len: u16) {
        put(self.0.as_mut(), field::TOTAL_LEN, len.to_be_bytes());
    }

    /// Sets the identification.
    #[inline]
    pub fn set_identification(&mut self, id: u16) {
        put(self.0.as_mut(), field::IDENTIFICATION, id.to_be_bytes());
    }

    /// Says whether routers must not fragment it.
    #[inline]
    pub fn set_dont_fragment(&mut self, dont: bool) {
        let rest = u16_at(self.0.as_ref(), field::FLAGS_OFFSET) & !field::DONT_FRAGMENT;
        let flags = if dont { rest | field::DONT_FRAGMENT } else { rest };
        put(self.0.as_mut(), field::FLAGS_OFFSET, flags.to_be_bytes());
    }

    /// Sets the time to live, in hops.
    #[inline]
    pub fn set_ttl(&mut self, ttl: u8) {
        self.0.as_mut()[field::TTL] = ttl;
    }

    /// Sets the protocol of the payload.
    #[inline]
    pub fn set_protocol(&mut self, protocol: Protocol) {
        self.0.as_mut()[field::PROTOCOL] = protocol.0;
    }

    /// Sets the header's checksum.
    #[inline]
    pub fn set_checksum(&mut self, checksum: u16) {
        put(self.0.as_mut(), field::CHECKSUM, checksum.to_be_bytes());
    }

    /// Works out the header's checksum and sets it.
    #[inline]
    pub fn fill_checksum(&mut self) {
        self.set_checksum(0);
        let checksum = checksum::checksum(&self.0.as_ref()[..self.header_len()]);
        self.set_checksum(checksum);
    }

    /// Sets the sender's address.
    #[inline]
    pub fn set_source(&mut self, address: Ipv4Addr) {
        put(self.0.as_mut(), field::SOURCE, address.octets());
    }

    /// Sets the receiver's address.
    #[inline]
    pub fn set_destination(&mut self, address: Ipv4Addr) {
        put(self.0.as_mut(), field::DESTINATION, address.octets());
    }
}
