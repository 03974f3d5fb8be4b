//! ICMP (RFC 792) and ICMPv6 (RFC 4443), whose headers have the same form.

use super::super::parse::ParseError;
use super::{put, u16_at, u32_at};

mod field {
    pub(super) const TYPE: usize = 0;
    pub(super) const CODE: usize = 1;
    pub(super) const CHECKSUM: usize = 2;
    pub(super) const IDENTIFIER: usize = 4;
    pub(super) const SEQUENCE: usize = 6;
    pub(super) const LEN: usize = 8;
}

/// An ICMP or ICMPv6 header.
#[derive(Clone, Copy, Debug)]
pub struct Icmp<B>(B);

impl<B: AsRef<[u8]>> Icmp<B> {
    /// The length of the header, in bytes.
    pub const LEN: usize = field::LEN;

    /// A view of the header at the start of `bytes`.
    ///
    /// # Errors
    ///
    /// [`ParseError::IcmpTruncated`].
    #[inline]
    pub fn new_checked(bytes: B) -> Result<Self, ParseError> {
        if bytes.as_ref().len() < field::LEN { Err(ParseError::IcmpTruncated) } else { Ok(Self(bytes)) }
    }

    /// The type, as its version of ICMP numbers it.
    #[inline]
    pub fn kind(&self) -> u8 {
        self.0.as_ref()[field::TYPE]
    }

    /// The code within the type.
    #[inline]
    pub fn code(&self) -> u8 {
        self.0.as_ref()[field::CODE]
    }

    /// The checksum.
    #[inline]
    pub fn checksum(&self) -> u16 {
        u16_at(self.0.as_ref(), field::CHECKSUM)
    }

    /// The identifier of an echo or echo reply.
    #[inline]
    pub fn identifier(&self) -> u16 {
        u16_at(self.0.as_ref(), field::IDENTIFIER)
    }

    /// The sequence number of an echo or echo reply; in IPv4's "fragmentation needed", the next hop's MTU (RFC 1191).
    #[inline]
    pub fn sequence(&self) -> u16 {
        u16_at(self.0.as_ref(), field::SEQUENCE)
    }

    /// The four bytes whose meaning depends on the type; in ICMPv6's "packet too big", the next hop's MTU.
    #[inline]
    pub fn word(&self) -> u32 {
        u32_at(self.0.as_ref(), field::IDENTIFIER)
    }
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Icmp<B> {
    /// Sets type and code.
    #[inline]
    pub fn set_kind(&mut self, kind: u8, code: u8) {
        put(self.0.as_mut(), field::TYPE, [kind, code]);
    }

    /// Sets the checksum.
    #[inline]
    pub fn set_checksum(&mut self, checksum: u16) {
        put(self.0.as_mut(), field::CHECKSUM, checksum.to_be_bytes());
    }

    /// Sets the identifier of an echo or echo reply.
    #[inline]
    pub fn set_identifier(&mut self, identifier: u16) {
        put(self.0.as_mut(), field::IDENTIFIER, identifier.to_be_bytes());
    }

    /// Sets the sequence number of an echo or echo reply.
    #[inline]
    pub fn set_sequence(&mut self, number: u16) {
        put(self.0.as_mut(), field::SEQUENCE, number.to_be_bytes());
    }
}
