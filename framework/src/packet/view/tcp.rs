//! TCP (RFC 9293).

use std::fmt;
use std::ops::BitOr;

use super::super::parse::ParseError;
use super::{put, u16_at, u32_at};

mod field {
    pub(super) const SOURCE_PORT: usize = 0;
    pub(super) const DESTINATION_PORT: usize = 2;
    pub(super) const SEQUENCE: usize = 4;
    pub(super) const ACKNOWLEDGMENT: usize = 8;
    pub(super) const DATA_OFFSET: usize = 12;
    pub(super) const FLAGS: usize = 13;
    pub(super) const WINDOW: usize = 14;
    pub(super) const CHECKSUM: usize = 16;
    pub(super) const LEN: usize = 20;
}

/// A TCP header.
#[derive(Clone, Copy, Debug)]
pub struct Tcp<B>(B);

/// The control bits of a TCP header.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// No more data from the sender.
    pub const FIN: Self = Self(0x01);
    /// A connection begins: synchronise sequence numbers.
    pub const SYN: Self = Self(0x02);
    /// Reset the connection.
    pub const RST: Self = Self(0x04);
    /// Hand the data over at once.
    pub const PSH: Self = Self(0x08);
    /// The acknowledgment number counts.
    pub const ACK: Self = Self(0x10);
    /// The urgent pointer counts.
    pub const URG: Self = Self(0x20);
    /// Echo of a congestion mark.
    pub const ECE: Self = Self(0x40);
    /// The congestion window was reduced.
    pub const CWR: Self = Self(0x80);

    /// Whether all of `flags` are set.
    #[inline]
    pub const fn contains(self, flags: Self) -> bool {
        self.0 & flags.0 == flags.0
    }
}

impl BitOr for TcpFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// As in "syn|ack".
impl fmt::Debug for TcpFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut between = "";
        for (bit, name) in ["fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr"].into_iter().enumerate() {
            if self.0 & 1 << bit != 0 {
                write!(f, "{between}{name}")?;
                between = "|";
            }
        }
        if self.0 == 0 { f.write_str("none") } else { Ok(()) }
    }
}

impl<B: AsRef<[u8]>> Tcp<B> {
    /// The length of the header without options, in bytes.
    pub const LEN: usize = field::LEN;

    /// A view of the header at the start of `bytes`.
    ///
    /// # Errors
    ///
    /// [`ParseError::TcpTruncated`] or [`ParseError::TcpDataOffset`].
    #[inline]
    pub fn new_checked(bytes: B) -> Result<Self, ParseError> {
        let header = bytes.as_ref();
        if header.len() < field::LEN {
            return Err(ParseError::TcpTruncated);
        }
        let len = usize::from(header[field::DATA_OFFSET] >> 4) * 4;
        if (field::LEN..=header.len()).contains(&len) {
            Ok(Self(bytes))
        } else {
            Err(ParseError::TcpDataOffset)
        }
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

    /// The sequence number of the first byte of data, or of the SYN.
    #[inline]
    pub fn sequence(&self) -> u32 {
        u32_at(self.0.as_ref(), field::SEQUENCE)
    }

    /// The next sequence number that the sender expects.
    #[inline]
    pub fn acknowledgment(&self) -> u32 {
        u32_at(self.0.as_ref(), field::ACKNOWLEDGMENT)
    }

    /// The length of the header with options, in bytes.
    #[inline]
    pub fn header_len(&self) -> usize {
        usize::from(self.0.as_ref()[field::DATA_OFFSET] >> 4) * 4
    }

    /// The control bits.
    #[inline]
    pub fn flags(&self) -> TcpFlags {
        TcpFlags(self.0.as_ref()[field::FLAGS])
    }

    /// The receive window, not scaled.
    #[inline]
    pub fn window(&self) -> u16 {
        u16_at(self.0.as_ref(), field::WINDOW)
    }

    /// The checksum.
    #[inline]
    pub fn checksum(&self) -> u16 {
        u16_at(self.0.as_ref(), field::CHECKSUM)
    }

    /// The options, as they lie there.
    #[inline]
    pub fn options(&self) -> &[u8] {
        &self.0.as_ref()[field::LEN..self.header_len()]
    }
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Tcp<B> {
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

    /// Sets the sequence number.
    #[inline]
    pub fn set_sequence(&mut self, number: u32) {
        put(self.0.as_mut(), field::SEQUENCE, number.to_be_bytes());
    }

    /// Sets the acknowledgment number.
    #[inline]
    pub fn set_acknowledgment(&mut self, number: u32) {
        put(self.0.as_mut(), field::ACKNOWLEDGMENT, number.to_be_bytes());
    }

    /// Sets the control bits.
    #[inline]
    pub fn set_flags(&mut self, flags: TcpFlags) {
        self.0.as_mut()[field::FLAGS] = flags.0;
    }

    /// Sets the receive window.
    #[inline]
    pub fn set_window(&mut self, window: u16) {
        put(self.0.as_mut(), field::WINDOW, window.to_be_bytes());
    }

    /// Sets the checksum.
    #[inline]
    pub fn set_checksum(&mut self, checksum: u16) {
        put(self.0.as_mut(), field::CHECKSUM, checksum.to_be_bytes());
    }
}
