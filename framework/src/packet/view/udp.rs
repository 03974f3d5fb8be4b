//! UDP (RFC 768).

use super::super::parse::ParseError;
use super::{put, u16_at};

mod field {
    pub(super) const SOURCE_PORT: usize = 0;
    pub(super) const DESTINATION_PORT: usize = 2;
    pub(super) const LENGTH: usize = 4;
    pub(super) const CHECKSUM: usize = 6;
    pub(super) const LEN: usize = 8;
}

/// A UDP header.
#[derive(Clone, Copy, Debug)]
pub struct Udp<B>(B);

impl<B: AsRef<[u8]>> Udp<B> {
    /// The length of the header, in bytes.
    pub const LEN: usize = field::LEN;

    /// A view of the header at the start of `bytes`. What the header says its datagram's length is may be more than
    /// `bytes` has, as it is in a first fragment.
    ///
    /// # Errors
    ///
    /// [`ParseError::UdpTruncated`], or [`ParseError::UdpLength`] if it says less than eight.
    #[inline]
    pub fn new_checked(bytes: B) -> Result<Self, ParseError> {
        if bytes.as_ref().len() < field::LEN {
            return Err(ParseError::UdpTruncated);
        }
        let view = Self(bytes);
        if usize::from(view.length()) < field::LEN { Err(ParseError::UdpLength) } else { Ok(view) }
    }

    /// The sender's port.
    #[inline]
    pub fn source_port(&self) -> u16 {
        u16_at(self.0.as_ref(), field::SOURCE_PORT)
    }

    /// The receiver's port.
    #[inline]
    pub fn destination_port(&self) -> u16 {
        u16_at(self.0.as_ref(), field::DESTINATION_PORT)
    }

    /// The length of header and data, in bytes.
    #[inline]
    pub fn length(&self) -> u16 {
        u16_at(self.0.as_ref(), field::LENGTH)
    }

    /// The checksum; zero is none.
    #[inline]
    pub fn checksum(&self) -> u16 {
        u16_at(self.0.as_ref(), field::CHECKSUM)
    }
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Udp<B> {
    /// Sets the sender's port.
    #[inline]
    pub fn set_source_port(&mut self, port: u16) {
        put(self.0.as_mut(), field::SOURCE_PORT, port.to_be_bytes());
    }

    /// Sets the receiver's port.
    #[inline]
    pub fn set_destination_port(&mut self, port: u16) {
        put(self.0.as_mut(), field::DESTINATION_PORT, port.to_be_bytes());
    }

    /// Sets the length of header and data, in bytes.
    #[inline]
    pub fn set_length(&mut self, len: u16) {
        put(self.0.as_mut(), field::LENGTH, len.to_be_bytes());
    }

    /// Sets the checksum; zero is none.
    #[inline]
    pub fn set_checksum(&mut self, checksum: u16) {
        put(self.0.as_mut(), field::CHECKSUM, checksum.to_be_bytes());
    }
}
