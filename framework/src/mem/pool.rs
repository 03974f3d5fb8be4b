//! The pool: a worker's packet memory, the frames that are free, and the ledger of all others.

use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::sync::Arc;

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

/// Where one frame is: kept per frame in debug builds, so that tests catch a frame used twice at the
/// border at which it happens.
#[cfg(debug_assertions)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Free,
    Token,
    Receive,
    Transmit,
}

/// A worker's packet memory: fixed-size frames, each in exactly one place.
///
/// A frame is on the free list, lent for receiving, lent for sending, or stands for itself as a
/// [`Frame`] token (in the batch, or held by a stage). One thread owns the pool; there is no lock.
pub struct Pool {
    region: ManuallyDrop<Arc<dyn Region>>,
    base: NonNull<u8>,
    frame_size: u32,
    frame_shift: u32,
    frames: u32,
    headroom: u16,
    free: Vec<u32>,
    receive: Border,
    transmit: Border,
    /// Tokens handed out from the free list, and given back to it.
    taken: u64,
    given: u64,
    pub(crate) held: Border,
    #[cfg(debug_assertions)]
    places: Vec<Place>,
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
        let frames = u32::try_from(region.len() / frame_size).expect("at most 4 Gi frames");
        Self {
            region: ManuallyDrop::new(region),
            base,
            frame_size: frame_size as u32,
            frame_shift: frame_size.trailing_zeros(),
            frames,
            headroom: headroom as u16,
            // The lowest frames on top: what is used is what was used last.
            free: (0..frames).rev().collect(),
            receive: Border::default(),
            transmit: Border::default(),
            taken: 0,
            given: 0,
            held: Border::default(),
            #[cfg(debug_assertions)]
            places: vec![Place::Free; frames as usize],
        }
    }

    /// How many frames there are.
    pub fn frames(&self) -> usize {
        self.frames as usize
    }

    /// Size of a frame in bytes.
    pub fn frame_size(&self) -> usize {
        self.frame_size as usize
    }

    /// How many frames are free.
    #[inline(always)]
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// Takes a free frame: empty, with the pool's headroom. None where none is free.
    #[inline(always)]
    pub fn take(&mut self) -> Option<Frame> {
        let index = self.free.pop()?;
        self.taken += 1;
        self.moves(index, Place::Free, Place::Token);
        // SAFETY: a frame on the free list has no token, and `index < frames`.
        Some(unsafe { self.token(index, self.headroom, 0) })
    }

    /// Puts a frame back on the free list.
    ///
    /// # Panics
    /// If the frame is another pool's.
    #[inline(always)]
    pub fn give(&mut self, frame: Frame) {
        let (index, _) = self.locate(&frame);
        self.given += 1;
        self.moves(index, Place::Token, Place::Free);
        self.free.push(index);
    }

    /// Lends a free frame for receiving: its address in the region. None where none is free.
    #[inline(always)]
    pub(crate) fn lend_for_receive(&mut self) -> Option<u64> {
        let index = self.free.pop()?;
        self.receive.issued += 1;
        self.moves(index, Place::Free, Place::Receive);
        Some(u64::from(index) << self.frame_shift)
    }

    /// The token of a received packet: `len` bytes at `address`. None, where that is not inside one
    /// frame: a descriptor that no correct kernel writes.
    ///
    /// # Safety
    /// `address` lies in a frame that was lent for receiving and is claimed once.
    #[inline(always)]
    pub(crate) unsafe fn claim_received(&mut self, address: u64, len: u32) -> Option<Frame> {
        let index = (address >> self.frame_shift) as usize;
        let offset = address as u32 & (self.frame_size - 1);
        if index >= self.frames as usize || u64::from(offset) + u64::from(len) > u64::from(self.frame_size) {
            return None;
        }
        self.receive.returned += 1;
        self.moves(index as u32, Place::Receive, Place::Token);
        // SAFETY: in range as just checked; the caller vouches that no other token is for this frame.
        Some(unsafe { self.token(index as u32, offset as u16, len as u16) })
    }

    /// Lends a packet for sending: its address in the region.
    ///
    /// # Panics
    /// If the frame is another pool's.
    #[inline(always)]
    pub(crate) fn lend_for_transmit(&mut self, frame: Frame) -> u64 {
        let (index, address) = self.locate(&frame);
        self.transmit.issued += 1;
        self.moves(index, Place::Token, Place::Transmit);
        address
    }

    /// Takes back a sent frame. False, where the address is in no frame.
    ///
    /// # Safety
    /// `address` lies in a frame that was lent for sending and is reclaimed once.
    #[inline(always)]
    pub(crate) unsafe fn reclaim_sent(&mut self, address: u64) -> bool {
        let index = address >> self.frame_shift;
        if index >= u64::from(self.frames) {
            return false;
        }
        self.transmit.returned += 1;
        self.moves(index as u32, Place::Transmit, Place::Free);
        self.free.push(index as u32);
        true
    }

    /// Where all frames are.
    pub fn ledger(&self) -> Ledger {
        Ledger {
            frames: u64::from(self.frames),
            free: self.free.len() as u64,
            receive: self.receive,
            transmit: self.transmit,
            held: self.held,
        }
    }

    /// # Safety
    /// `index < frames`, no token is for it, and `headroom + len <= frame_size`.
    #[inline(always)]
    unsafe fn token(&self, index: u32, headroom: u16, len: u16) -> Frame {
        // SAFETY: `index < frames`, so the chunk is in the region, which outlives all tokens (see `drop`).
        unsafe {
            let chunk = self.base.add((index as usize) << self.frame_shift);
            Frame::new(chunk, self.frame_size as u16, headroom, len)
        }
    }

    /// A frame's number and the address of its packet.
    #[inline(always)]
    fn locate(&self, frame: &Frame) -> (u32, u64) {
        let address = (frame.data().as_ptr().addr()).wrapping_sub(self.base.as_ptr().addr()) as u64;
        // An empty packet at its frame's very end must still count for its own frame.
        let index = (address.wrapping_sub(frame.headroom() as u64)) >> self.frame_shift;
        assert!(index < u64::from(self.frames), "the frame is another pool's");
        (index as u32, address)
    }

    #[cfg(debug_assertions)]
    fn moves(&mut self, index: u32, from: Place, to: Place) {
        let place = &mut self.places[index as usize];
        assert_eq!(*place, from, "frame {index} is not where it should be");
        *place = to;
    }

    #[cfg(not(debug_assertions))]
    #[inline(always)]
    fn moves(&mut self, _index: u32, _from: Place, _to: Place) {}
}

/// In release builds a place is only a word in the call.
#[cfg(not(debug_assertions))]
enum Place {
    Free,
    Token,
    Receive,
    Transmit,
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
        let lent = pool.lend_for_receive().unwrap();
        assert_eq!(pool.ledger().receive, Border { issued: 1, returned: 0 });
        // SAFETY: lent above, claimed once.
        let mut frame = unsafe { pool.claim_received(lent + 256, 60) }.unwrap();
        assert!(frame.push_front(20));
        let address = pool.lend_for_transmit(frame);
        assert_eq!(address, lent + 236);
        assert!(pool.ledger().balanced());
        // SAFETY: lent above, reclaimed once.
        assert!(unsafe { pool.reclaim_sent(address) });
        let ledger = pool.ledger();
        assert_eq!((ledger.transmit, ledger.free), (Border { issued: 1, returned: 1 }, 4));
        assert!(ledger.balanced());
    }

    #[test]
    fn a_descriptor_outside_any_frame_is_refused() {
        let mut pool = pool(2);
        pool.lend_for_receive().unwrap();
        for (address, len) in [(4096, 1), (u64::MAX, 1), (256, 1793), (2047, 2), (0, u32::MAX)] {
            // SAFETY: none of these is inside a frame, which is what is tested.
            assert!(unsafe { pool.claim_received(address, len) }.is_none(), "{address} {len}");
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
        let lent = pool.lend_for_receive().unwrap();
        // SAFETY: broken on purpose: the second claim is what the identity check is for; it panics first.
        let _frames = unsafe { (pool.claim_received(lent, 60), pool.claim_received(lent, 60)) };
    }
}
