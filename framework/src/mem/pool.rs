//! The pool: a worker's packet memory, the frames that are free, and the ledger of all others.

use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::sync::Arc;

use super::crossing::{Claims, Lends, Reclaims};
use super::{Frame, Pages};

/// A block of packet memory.
///
/// # Safety
/// `base()..base() + len()` is initialised, readable and writable memory that stays where it is until
/// the value is dropped, and that nothing but its [`Pool`], and those to whom the pool lends frames
/// (the kernel, a memory port's far end), touches.
pub(crate) unsafe trait Region: Send + Sync {
    /// The first byte. Aligned to the frame size.
    fn base(&self) -> NonNull<u8>;
    /// Size in bytes.
    fn len(&self) -> usize;
}

// SAFETY: a `Pages` block is zeroed when made, owned, and does not move.
unsafe impl Region for Pages {
    fn base(&self) -> NonNull<u8> {
        self.base()
    }

    fn len(&self) -> usize {
        self.len()
    }
}

/// What has crossed a border of the pool, in frames, since the start: both directions are counted
/// where they happen, neither is computed from the other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Border {
    /// Frames given out.
    pub issued: u64,
    /// Frames that came back.
    pub returned: u64,
}

impl Border {
    /// Frames that are on the other side now.
    pub fn outside(&self) -> i64 {
        self.issued.wrapping_sub(self.returned) as i64
    }
}

/// Where the frames of a pool are. Taken at a turn's end, when no packet is in the batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ledger {
    /// All frames there are.
    pub frames: u64,
    /// On the free list: counted there, not computed.
    pub free: u64,
    /// Lent for receiving: fill ring, kernel, card, RX ring.
    pub receive: Border,
    /// Lent for sending: TX ring, kernel, card, completion ring.
    pub transmit: Border,
    /// Held by stages.
    pub held: Border,
}

impl Ledger {
    /// Frames that no one accounts for: 0 when all is well; positive: lost; negative: there twice.
    pub fn missing(&self) -> i64 {
        let elsewhere = self.receive.outside() + self.transmit.outside() + self.held.outside();
        self.frames as i64 - self.free as i64 - elsewhere
    }

    /// Whether every frame is accounted for.
    pub fn balanced(&self) -> bool {
        self.missing() == 0
            && [self.receive, self.transmit, self.held].iter().all(|border| border.outside() >= 0)
    }
}

/// Where one frame is. In release builds only a word in the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Free,
    Token,
    Receive,
    Transmit,
}

/// The place of each frame: kept in debug builds, so that tests catch a frame used twice at the border at
/// which it happens.
pub(super) struct Identities {
    #[cfg(debug_assertions)]
    places: Vec<Place>,
}

impl Identities {
    fn new(_frames: usize) -> Self {
        Self {
            #[cfg(debug_assertions)]
            places: vec![Place::Free; _frames],
        }
    }

    #[inline(always)]
    pub(super) fn moves(&mut self, _index: usize, _from: Place, _to: Place) {
        #[cfg(debug_assertions)]
        {
            let place = &mut self.places[_index];
            assert_eq!(*place, _from, "frame {_index} is not where it should be");
            *place = _to;
        }
    }
}

/// How the region is cut into frames.
#[derive(Clone, Copy)]
pub(super) struct Geometry {
    base: NonNull<u8>,
    frame_shift: u32,
    /// Bytes of all frames together.
    bytes: u64,
}

impl Geometry {
    #[inline(always)]
    pub(super) fn frame_size(self) -> u64 {
        1 << self.frame_shift
    }

    /// Whether an address in the region is in a frame.
    #[inline(always)]
    pub(super) fn contains(self, address: u64) -> bool {
        address < self.bytes
    }

    /// The frame that an address is in.
    #[inline(always)]
    pub(super) fn index(self, address: u64) -> usize {
        (address >> self.frame_shift) as usize
    }

    /// How far an address is from its frame's start.
    #[inline(always)]
    pub(super) fn offset(self, address: u64) -> u64 {
        address & (self.frame_size() - 1)
    }

    /// The addresses of a token's frame and of its packet.
    ///
    /// # Panics
    /// If the frame is another pool's.
    #[inline(always)]
    pub(super) fn place_of(self, frame: &Frame) -> (u64, u64) {
        let address = (frame.data().as_ptr().addr()).wrapping_sub(self.base.as_ptr().addr()) as u64;
        // The packet itself may be empty, and at its frame's very end.
        let start = address.wrapping_sub(frame.headroom() as u64);
        assert!(self.contains(start), "the frame is another pool's");
        (start, address)
    }

    /// The token of the packet of `len` bytes at `address`.
    ///
    /// # Safety
    /// `address` is in a frame that has no token, `offset(address) + len <= frame_size`, and the region
    /// outlives the token (see the pool's `drop`).
    #[inline(always)]
    pub(super) unsafe fn token(self, address: u64, len: u16) -> Frame {
        // SAFETY: the address is in the region, which outlives the token; the rest is the caller's word.
        unsafe {
            let data = self.base.add(address as usize);
            Frame::new(data, self.frame_size() as u16, self.offset(address) as u16, len)
        }
    }
}

/// The frames that are free, by the addresses of their starts: what came last goes first, since it is in the
/// cache.
pub(super) struct FreeList {
    /// As many places as there are frames; the free frames come first.
    places: Box<[u64]>,
    len: usize,
}

impl FreeList {
    fn full(frames: u64, frame_size: u64) -> Self {
        // The lowest frames on top: what is used is what was used last.
        Self { places: (0..frames).rev().map(|index| index * frame_size).collect(), len: frames as usize }
    }

    #[inline(always)]
    fn pop(&mut self) -> Option<u64> {
        let last = self.len.checked_sub(1)?;
        self.len = last;
        self.places.get(last).copied()
    }

    /// Up to `count` of those that came last.
    #[inline(always)]
    fn last(&self, count: usize) -> &[u64] {
        let free = self.places.get(..self.len).unwrap_or_default();
        &free[free.len() - count.min(free.len())..]
    }

    /// Writes a frame `ahead` places after the last; it counts once the list grows that far. False where
    /// the list ends before.
    #[inline(always)]
    pub(super) fn put(&mut self, ahead: usize, start: u64) -> bool {
        match self.places.get_mut(self.len + ahead) {
            Some(place) => {
                *place = start;
                true
            }
            None => false,
        }
    }

    /// Takes in so many frames that were [`put`](Self::put).
    #[inline(always)]
    pub(super) fn grow(&mut self, count: usize) {
        self.len += count;
    }

    #[inline(always)]
    fn shrink(&mut self, count: usize) {
        self.len -= count;
    }
}

/// A worker's packet memory: fixed-size frames, each in exactly one place.
///
/// A frame is on the free list, lent for receiving, lent for sending, or stands for itself as a
/// [`Frame`] token (in the batch, or held by a stage). One thread owns the pool; there is no lock.
pub struct Pool {
    region: ManuallyDrop<Arc<dyn Region>>,
    geometry: Geometry,
    headroom: u16,
    free: FreeList,
    receive: Border,
    transmit: Border,
    /// Tokens handed out from the free list, and given back to it.
    taken: u64,
    given: u64,
    pub(crate) held: Border,
    identities: Identities,
}

impl Pool {
    /// A pool over `region`, in frames of `frame_size` bytes (a power of two up to 32,768), with
    /// `headroom` bytes kept free at the front of frames that are taken to be written.
    pub(crate) fn new(region: Arc<dyn Region>, frame_size: usize, headroom: usize) -> Self {
        assert!(
            frame_size.is_power_of_two() && (256..=32_768).contains(&frame_size),
            "frame size {frame_size}"
        );
        assert!(headroom < frame_size, "headroom {headroom} in frames of {frame_size} bytes");
        let base = region.base();
        let frames = region.len() / frame_size;
        let bytes = (frames * frame_size) as u64;
        Self {
            region: ManuallyDrop::new(region),
            geometry: Geometry { base, frame_shift: frame_size.trailing_zeros(), bytes },
            headroom: headroom as u16,
            free: FreeList::full(frames as u64, frame_size as u64),
            receive: Border::default(),
            transmit: Border::default(),
            taken: 0,
            given: 0,
            held: Border::default(),
            identities: Identities::new(frames),
        }
    }

    /// Where the memory begins: what tells one pool from another.
    #[inline(always)]
    pub(crate) fn address(&self) -> usize {
        self.geometry.base.as_ptr().addr()
    }

    /// How many frames there are.
    pub fn frames(&self) -> usize {
        self.geometry.index(self.geometry.bytes)
    }

    /// Size of a frame in bytes.
    pub fn frame_size(&self) -> usize {
        self.geometry.frame_size() as usize
    }

    /// Bytes of a packet that a frame takes behind its headroom.
    pub(crate) fn room(&self) -> usize {
        self.frame_size() - usize::from(self.headroom)
    }

    /// How many frames are free.
    #[inline(always)]
    pub fn free(&self) -> usize {
        self.free.len
    }

    /// Takes a free frame: empty, with the pool's headroom. None where none is free.
    #[inline(always)]
    pub fn take(&mut self) -> Option<Frame> {
        let start = self.free.pop()?;
        self.taken += 1;
        self.identities.moves(self.geometry.index(start), Place::Free, Place::Token);
        // SAFETY: a frame on the free list has no token, and the headroom is below the frame's size.
        Some(unsafe { self.geometry.token(start + u64::from(self.headroom), 0) })
    }

    /// Puts a frame back on the free list.
    ///
    /// # Panics
    /// If the frame is another pool's.
    #[inline(always)]
    pub fn give(&mut self, frame: Frame) {
        let (start, _) = self.geometry.place_of(&frame);
        self.identities.moves(self.geometry.index(start), Place::Token, Place::Free);
        self.given += 1;
        assert!(self.free.put(0, start), "no more frames are free than there are");
        self.free.grow(1);
    }

    /// Up to `count` free frames' addresses. Those that are used, from the last one back, are lent by
    /// [`lend_for_receive`](Self::lend_for_receive).
    #[inline(always)]
    pub(crate) fn free_addresses(&self, count: u32) -> &[u64] {
        self.free.last(count as usize)
    }

    /// Lends the last `count` of the [`free_addresses`](Self::free_addresses) for receiving.
    #[inline(always)]
    pub(crate) fn lend_for_receive(&mut self, count: u32) {
        let lent = self.free.last(count as usize);
        let lent_count = lent.len();
        for start in lent {
            self.identities.moves(self.geometry.index(*start), Place::Free, Place::Receive);
        }
        self.free.shrink(lent_count);
        self.receive.issued += lent_count as u64;
    }

    /// To claim so many received packets.
    #[inline(always)]
    pub(crate) fn claims(&mut self, packets: u64) -> Claims<'_> {
        let Self { geometry, identities, receive, .. } = self;
        Claims { geometry: *geometry, identities, packets, refused: 0, returned: &mut receive.returned }
    }

    /// To lend packets for sending.
    #[inline(always)]
    pub(crate) fn lends(&mut self) -> Lends<'_> {
        let Self { geometry, identities, transmit, .. } = self;
        Lends { geometry: *geometry, identities, count: 0, issued: &mut transmit.issued }
    }

    /// To take back what was sent.
    #[inline(always)]
    pub(crate) fn reclaims(&mut self) -> Reclaims<'_> {
        let Self { geometry, identities, free, transmit, .. } = self;
        Reclaims { geometry: *geometry, identities, count: 0, free, returned: &mut transmit.returned }
    }

    /// Where all frames are.
    pub fn ledger(&self) -> Ledger {
        Ledger {
            frames: self.frames() as u64,
            free: self.free.len as u64,
            receive: self.receive,
            transmit: self.transmit,
            held: self.held,
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let back = self.given + self.transmit.issued;
        let out = self.taken + self.receive.returned;
        // A token that is still out there (in a leaked stage, say) must not dangle: then the memory stays.
        if out == back {
            // SAFETY: dropped once, here, and not used after.
            unsafe { ManuallyDrop::drop(&mut self.region) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(frames: usize) -> Pool {
        Pool::new(Arc::new(Pages::new(frames * 2048)), 2048, 256)
    }

    /// Lends one frame for receiving.
    fn lend(pool: &mut Pool) -> u64 {
        let address = pool.free_addresses(1)[0];
        pool.lend_for_receive(1);
        address
    }

    #[test]
    fn a_frame_is_written_pushed_and_pulled_within_its_bounds() {
        let mut pool = pool(4);
        let mut frame = pool.take().unwrap();
        assert!(frame.set_len(1792) && !frame.set_len(1793));
        assert!(frame.push_front(256) && !frame.push_front(1));
        assert_eq!((frame.len(), frame.headroom(), frame.tailroom()), (2048, 0, 0));
        frame.bytes_mut().fill(7);
        assert!(frame.pull_front(2048) && !frame.pull_front(1));
        assert_eq!((frame.len(), frame.headroom()), (0, 2048));
        pool.give(frame);
        assert_eq!(pool.free(), 4);
        assert!(pool.ledger().balanced());
    }

    #[test]
    fn every_border_is_counted_in_both_directions() {
        let mut pool = pool(4);
        let lent = lend(&mut pool);
        assert_eq!(pool.ledger().receive, Border { issued: 1, returned: 0 });
        // SAFETY: lent above, claimed once.
        let mut frame = unsafe { pool.claims(1).claim(lent + 256, 60) }.unwrap();
        assert!(frame.push_front(20));
        let address = pool.lends().lend(frame);
        assert_eq!(address, lent + 236);
        assert!(pool.ledger().balanced());
        // SAFETY: lent above, reclaimed once.
        assert!(unsafe { pool.reclaims().reclaim(address) });
        let ledger = pool.ledger();
        assert_eq!((ledger.transmit, ledger.free), (Border { issued: 1, returned: 1 }, 4));
        assert!(ledger.balanced());
    }

    #[test]
    fn a_descriptor_outside_any_frame_is_refused() {
        let mut pool = pool(2);
        lend(&mut pool);
        for (address, len) in [(4096, 1), (u64::MAX, 1), (256, 1793), (2047, 2), (0, u32::MAX)] {
            // SAFETY: none of these is inside a frame, which is what is tested.
            assert!(unsafe { pool.claims(1).claim(address, len) }.is_none(), "{address} {len}");
        }
    }

    #[test]
    fn a_lost_frame_shows_in_the_ledger_and_keeps_its_memory() {
        let mut pool = pool(2);
        let frame = pool.take().unwrap();
        assert_eq!(pool.ledger().missing(), 1);
        drop(pool);
        assert_eq!(frame.headroom(), 256, "the memory is still there");
        assert!(frame.bytes().is_empty());
    }

    #[test]
    #[should_panic(expected = "another pool's")]
    fn a_frame_of_another_pool_is_refused() {
        let (mut one, mut other) = (pool(2), pool(2));
        let frame = one.take().unwrap();
        other.give(frame);
    }

    #[cfg(debug_assertions)]
    #[test]
    #[should_panic(expected = "not where it should be")]
    fn a_frame_that_the_kernel_returns_twice_is_caught_in_debug_builds() {
        let mut pool = pool(2);
        let lent = lend(&mut pool);
        let mut claims = pool.claims(2);
        // SAFETY: broken on purpose: the second claim is what the identity check is for; it panics first.
        let _frames = unsafe { (claims.claim(lent, 60), claims.claim(lent, 60)) };
    }
}
