//! IPv6 (RFC 8200), without its extension headers.

use std::net::Ipv6Addr;

use super::super::names::Protocol;
use super::super::parse::ParseError;
use super::{array_at, put, u16_at, u32_at};

mod field {
    pub(super) const VERSION_CLASS_FLOW: usize = 0;
    pub(super) const PAYLOAD_LEN: usize = 4;
    pub(super) const NEXT_HEADER: usize = 6;
    pub(super) const HOP_LIMIT: usize = 7;
    pub(super) const SOURCE: usize = 8;
    pub(super) const DESTINATION: usize = 24;
    pub(super) const LEN: usize = 40;

    pub(super) const CLASS_SHIFT: u32 = 20;
    pub(super) const FLOW_LABEL: u32 = 0xf_ffff;
}

/// An IPv6 header.
#[derive(Clone, Copy, Debug)]
pub struct Ipv6<B>(B);

impl<B: AsRef<[u8]>> Ipv6<B> {
    /// The length of the header, in bytes.
    pub const LEN: usize = field::LEN;

    /// A view of the header at the start of `bytes`.
    ///
    /// # Errors
    ///
    /// [`ParseError::Ipv6Truncated`] or [`ParseError::Ipv6Version`].
    #[inline]
    pub fn new_checked(bytes: B) -> Result<Self, ParseError> {
        let header = bytes.as_ref();
        if header.len() < field::LEN {
            return Err(ParseError::Ipv6Truncated);
        }
        if header[field::VERSION_CLASS_FLOW] >> 4 != 6 {
            Err(ParseError::Ipv6Version)
        } else {
            Ok(Self(bytes))
        }
    }

    /// The traffic class: DSCP in the upper six bits, ECN in the lower two (RFC 2474, RFC 3168).
    #[inline]
    pub fn traffic_class(&self) -> u8 {
        (u32_at(self.0.as_ref(), field::VERSION_CLASS_FLOW) >> field::CLASS_SHIFT) as u8
    }

    /// The flow label, 20 bits.
    #[inline]
    pub fn flow_label(&self) -> u32 {
        u32_at(self.0.as_ref(), field::VERSION_CLASS_FLOW) & field::FLOW_LABEL
    }

    /// The length of what follows the header, in bytes.
    #[inline]
    pub fn payload_len(&self) -> u16 {
        u16_at(self.0.as_ref(), field::PAYLOAD_LEN)
    }

    /// What follows the header: an extension header or the transport protocol.
    #[inline]
    pub fn next_header(&self) -> Protocol {
        Protocol(self.0.as_ref()[field::NEXT_HEADER])
    }

    /// The hops it may yet take.
    #[inline]
    pub fn hop_limit(&self) -> u8 {
        self.0.as_ref()[field::HOP_LIMIT]
    }

    /// The sender's address.
    #[inline]
    pub fn source(&self) -> Ipv6Addr {
        array_at(self.0.as_ref(), field::SOURCE).into()
    }

    /// The receiver's address.
    #[inline]
    pub fn destination(&self) -> Ipv6Addr {
        array_at(self.0.as_ref(), field::DESTINATION).into()
    }
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Ipv6<B> {
    /// Sets the traffic class.
    #[inline]
    pub fn set_traffic_class(&mut self, class: u8) {
        let rest = u32_at(self.0.as_ref(), field::VERSION_CLASS_FLOW) & !(0xff << field::CLASS_SHIFT);
        let word = rest | u32::from(class) << field::CLASS_SHIFT;
        put(self.0.as_mut(), field::VERSION_CLASS_FLOW, word.to_be_bytes());
    }

    /// Sets the flow label to the low 20 bits of `label`.
    #[inline]
    pub fn set_flow_label(&mut self, label: u32) {
        let rest = u32_at(self.0.as_ref(), field::VERSION_CLASS_FLOW) & !field::FLOW_LABEL;
        put(self.0.as_mut(), field::VERSION_CLASS_FLOW, (rest | label & field::FLOW_LABEL).to_be_bytes());
    }

    /// Sets the length of what follows the header, in bytes.
    #[inline]
    pub fn set_payload_len(&mut self, len: u16) {
        put(self.0.as_mut(), field::PAYLOAD_LEN, len.to_be_bytes());
    }

    /// Sets what follows the header.
    #[inline]
    pub fn set_next_header(&mut self, protocol: Protocol) {
        self.0.as_mut()[field::NEXT_HEADER] = protocol.0;
    }

    /// Sets the hops it may yet take.
    #[inline]
    pub fn set_hop_limit(&mut self, limit: u8) {
        self.0.as_mut()[field::HOP_LIMIT] = limit;
    }

    /// Sets the sender's address.
    #[inline]
    pub fn set_source(&mut self, address: Ipv6Addr) {
        put(self.0.as_mut(), field::SOURCE, address.octets());
    }

    /// Sets the receiver's address.
    #[inline]
    pub fn set_destination(&mut self, address: Ipv6Addr) {
        put(self.0.as_mut(), field::DESTINATION, address.octets());
    }
}
