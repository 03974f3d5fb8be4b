//! Ethernet II (IEEE 802.3) with VLAN tags (IEEE 802.1Q).

use super::super::names::{EtherType, MacAddress};
use super::super::parse::ParseError;
use super::{array_at, put, u16_at};

mod field {
    pub(super) const DESTINATION: usize = 0;
    pub(super) const SOURCE: usize = 6;
    pub(super) const ETHERTYPE: usize = 12;
    pub(super) const TAG_CONTROL: usize = 14;
    pub(super) const LEN: usize = 14;
    pub(super) const TAGGED_LEN: usize = 18;
}

/// An Ethernet header.
#[derive(Clone, Copy, Debug)]
pub struct Ethernet<B>(B);

/// The control information of a VLAN tag: priority, drop eligibility and VLAN number, as on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VlanTag(pub u16);

impl VlanTag {
    /// The tag of VLAN `id` (its low twelve bits) with priority zero.
    pub const fn from_id(id: u16) -> Self {
        Self(id & 0xfff)
    }

    /// The VLAN's number, 0 to 4095.
    #[inline]
    pub const fn id(self) -> u16 {
        self.0 & 0xfff
    }

    /// The priority, 0 to 7.
    #[inline]
    pub const fn priority(self) -> u8 {
        (self.0 >> 13) as u8
    }
}

impl<B: AsRef<[u8]>> Ethernet<B> {
    /// The length of the header without tags, in bytes.
    pub const LEN: usize = field::LEN;

    /// A view of the header at the start of `bytes`.
    ///
    /// # Errors
    ///
    /// [`ParseError::EthernetTruncated`], or [`ParseError::VlanTruncated`] if it has a tag.
    #[inline]
    pub fn new_checked(bytes: B) -> Result<Self, ParseError> {
        let len = bytes.as_ref().len();
        if len < field::LEN {
            return Err(ParseError::EthernetTruncated);
        }
        let view = Self(bytes);
        if view.ethertype().is_vlan() && len < field::TAGGED_LEN {
            Err(ParseError::VlanTruncated)
        } else {
            Ok(view)
        }
    }

    /// The receiver's address.
    #[inline]
    pub fn destination(&self) -> MacAddress {
        MacAddress(array_at(self.0.as_ref(), field::DESTINATION))
    }

    /// The sender's address.
    #[inline]
    pub fn source(&self) -> MacAddress {
        MacAddress(array_at(self.0.as_ref(), field::SOURCE))
    }

    /// The type that follows the addresses: a tag's, if there is one.
    #[inline]
    pub fn ethertype(&self) -> EtherType {
        EtherType(u16_at(self.0.as_ref(), field::ETHERTYPE))
    }

    /// The outer VLAN tag, if there is one.
    #[inline]
    pub fn vlan(&self) -> Option<VlanTag> {
        self.ethertype().is_vlan().then(|| VlanTag(u16_at(self.0.as_ref(), field::TAG_CONTROL)))
    }
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Ethernet<B> {
    /// Sets the receiver's address.
    #[inline]
    pub fn set_destination(&mut self, address: MacAddress) {
        put(self.0.as_mut(), field::DESTINATION, address.0);
    }

    /// Sets the sender's address.
    #[inline]
    pub fn set_source(&mut self, address: MacAddress) {
        put(self.0.as_mut(), field::SOURCE, address.0);
    }

    /// Sets the outer VLAN tag; false if there is none to set.
    #[inline]
    pub fn set_vlan(&mut self, tag: VlanTag) -> bool {
        let tagged = self.ethertype().is_vlan();
        if tagged {
            put(self.0.as_mut(), field::TAG_CONTROL, tag.0.to_be_bytes());
        }
        tagged
    }
}
