//! Frames crossing a border of the pool in a row.
//!
//! Each border has its type, made by the pool. It counts the frames one by one as they pass, in a register, and writes
//! the sum to the ledger when it is dropped: once per batch instead of once per packet.

use super::Frame;
use super::pool::{FreeList, Geometry, Identities, Place};

/// Received packets that become tokens; made by [`Pool::claims`](super::Pool::claims).
///
/// It is told how many packets there are and counts those refused, of which there are none: the fewer words the loop
/// keeps, the fewer of them go through memory.
pub(crate) struct Claims<'p> {
    pub(super) geometry: Geometry,
    pub(super) identities: &'p mut Identities,
    pub(super) packets: u64,
    pub(super) refused: u64,
    pub(super) returned: &'p mut u64,
}

impl Claims<'_> {
    /// The token of a received packet: `len` bytes at `address`. None, where that is not inside one
    /// frame: a descriptor that no correct kernel writes.
    ///
    /// # Safety
    /// `address` lies in a frame that was lent for receiving and is claimed once. The method is called for as many
    /// packets as were announced.
    #[inline(always)]
    pub(crate) unsafe fn claim(&mut self, address: u64, len: u32) -> Option<Frame> {
        let Self { geometry, .. } = self;
        if !geometry.contains(address) || geometry.offset(address) + u64::from(len) > geometry.frame_size() {
            self.refused += 1;
            return None;
        }
        self.identities.moves(geometry.index(address), Place::Receive, Place::Token);
        // SAFETY: within its frame as just checked; the caller vouches that no other token is for this frame.
        Some(unsafe { geometry.token(address, len as u16) })
    }
}

impl Drop for Claims<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        *self.returned += self.packets - self.refused;
    }
}

/// Tokens that are lent for sending; made by [`Pool::lends`](super::Pool::lends).
pub(crate) struct Lends<'p> {
    pub(super) geometry: Geometry,
    pub(super) identities: &'p mut Identities,
    pub(super) count: u64,
    pub(super) issued: &'p mut u64,
}

impl Lends<'_> {
    /// Lends a packet for sending: its address in the region.
    ///
    /// # Panics
    /// If the frame is another pool's.
    #[inline(always)]
    pub(crate) fn lend(&mut self, frame: Frame) -> u64 {
        let (start, address) = self.geometry.place_of(&frame);
        self.count += 1;
        self.identities.moves(self.geometry.index(start), Place::Token, Place::Transmit);
        address
    }
}

impl Drop for Lends<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        *self.issued += self.count;
    }
}

/// Sent frames that come back to the free list; made by [`Pool::reclaims`](super::Pool::reclaims).
pub(crate) struct Reclaims<'p> {
    pub(super) geometry: Geometry,
    pub(super) identities: &'p mut Identities,
    pub(super) count: usize,
    pub(super) free: &'p mut FreeList,
    pub(super) returned: &'p mut u64,
}

impl Reclaims<'_> {
    /// Takes back a sent frame. False, with nothing changed, where the address is in no frame.
    ///
    /// # Safety
    /// `address` lies in a frame that was lent for sending and is reclaimed once.
    #[inline(always)]
    pub(crate) unsafe fn reclaim(&mut self, address: u64) -> bool {
        let start = address - self.geometry.offset(address);
        // More frames than there are do not come back: none is ever written outside the list.
        if !self.geometry.contains(address) || !self.free.put(self.count, start) {
            return false;
        }
        self.identities.moves(self.geometry.index(address), Place::Transmit, Place::Free);
        self.count += 1;
        true
    }
}

impl Drop for Reclaims<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.free.grow(self.count);
        *self.returned += self.count as u64;
    }
}
