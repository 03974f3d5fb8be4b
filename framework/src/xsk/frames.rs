//! The near side of a queue's four rings, in frames instead of addresses: the one place where the
//! other side's word for an address becomes a frame token again.

use std::ptr::NonNull;

use xsk_rs::{CompQueue, FillQueue, RxQueue, TxQueue};

use super::Descriptor;
use super::access::{Reader, Writer};
use crate::mem::{Frame, Pool};

/// `XDP_PKT_CONTD` of `linux/if_xdp.h`: the packet goes on in the next descriptor.
pub(crate) const CONTINUED: u32 = 1;

/// The four rings of a queue, as the side that owns the frames sees them.
///
/// ```text
///   fill ──► other side ──► rx        tx ──► other side ──► completion
/// ```
pub(crate) struct FrameRings {
    pub(super) fill: Writer<u64, FillQueue>,
    pub(super) rx: Reader<Descriptor, RxQueue>,
    pub(super) tx: Writer<Descriptor, TxQueue>,
    pub(super) completion: Reader<u64, CompQueue>,
    /// The address of the frames that the other side works on; 0 before that is said.
    region: usize,
    /// Frames lent for receiving that have not come back.
    lent: u32,
}

impl FrameRings {
    /// # Safety
    /// The other side of the rings is the kernel, or behaves as it does: on `rx` it puts only addresses
    /// in frames that it took from `fill`, on `completion` only addresses that it took from `tx`, each
    /// once.
    pub(crate) unsafe fn new(
        fill: Writer<u64, FillQueue>,
        rx: Reader<Descriptor, RxQueue>,
        tx: Writer<Descriptor, TxQueue>,
        completion: Reader<u64, CompQueue>,
    ) -> Self {
        Self { fill, rx, tx, completion, region: 0, lent: 0 }
    }

    /// Says where the frames lie: those of the one pool that the rings are used with.
    ///
    /// # Safety
    /// The other side works on this region.
    pub(super) unsafe fn work_on(&mut self, region: NonNull<u8>) {
        self.region = region.as_ptr().addr();
    }

    /// Addresses mean nothing in another pool: claimed there, they would be tokens for frames in use.
    #[inline(always)]
    fn check(&self, pool: &Pool) {
        assert!(self.region == pool.address(), "the queue's frames are another worker's");
    }

    /// Claims up to `max` received frames (64 at most) and hands each to `each`, with whether its packet
    /// goes on in the next; `None` is a descriptor that names no frame. Returns how many descriptors that
    /// were, and what `each` has made of `state`.
    #[inline(always)]
    pub(crate) fn receive<S>(
        &mut self,
        pool: &mut Pool,
        max: u32,
        state: S,
        mut each: impl FnMut(S, Option<Frame>, bool) -> S,
    ) -> (u32, S) {
        self.check(pool);
        let descriptors = self.rx.drain(max);
        let count = descriptors.len() as u32;
        let mut claims = pool.claims(u64::from(count));
        let state = descriptors.fold(state, |state, descriptor| {
            // SAFETY: by the contract of `new` the address is in a frame that was lent for receiving, and
            // comes back once.
            let frame = unsafe { claims.claim(descriptor.addr, descriptor.len) };
            each(state, frame, descriptor.options & CONTINUED != 0)
        });
        self.lent = self.lent.saturating_sub(count);
        (count, state)
    }

    /// Places in the TX ring: exact where fewer than `want`.
    #[inline(always)]
    pub(crate) fn room_to_send(&mut self, want: u32) -> u32 {
        self.tx.free(want)
    }

    /// Shows what was written to the TX ring to the other side.
    #[inline(always)]
    pub(crate) fn submit(&mut self) {
        self.tx.submit();
    }

    /// Frames lent for receiving that have not come back: in the fill ring, with the other side, or in
    /// the RX ring.
    pub(crate) fn lent(&self) -> u32 {
        self.lent
    }

    /// Writes frames to the TX ring until `frames` ends or the ring is full, and shows them to the other
    /// side at the next [`submit`](Self::submit). Of each frame is said whether its packet goes on in the next.
    #[inline(always)]
    pub(crate) fn send(&mut self, pool: &mut Pool, frames: impl Iterator<Item = (Frame, bool)>) -> u32 {
        self.check(pool);
        let mut lends = pool.lends();
        self.tx.extend(frames.map(|(frame, continued)| {
            let len = frame.len() as u32;
            let addr = lends.lend(frame);
            Descriptor { addr, len, options: u32::from(continued) * CONTINUED }
        }))
    }

    /// Takes back all frames that were sent.
    #[inline(always)]
    pub(crate) fn reclaim(&mut self, pool: &mut Pool) {
        self.check(pool);
        loop {
            let mut reclaims = pool.reclaims();
            let addresses = self.completion.drain(u32::MAX);
            let count = addresses.len();
            addresses.for_each(|address| {
                // SAFETY: by the contract of `new` the address was lent for sending, and comes back once.
                unsafe { reclaims.reclaim(address) };
            });
            // xsk-rs takes 64 at a time.
            if count < 64 {
                break;
            }
        }
    }

    /// Lends up to `count` free frames for receiving; returns how many.
    #[inline(always)]
    pub(crate) fn refill(&mut self, pool: &mut Pool, count: u32) -> u32 {
        self.check(pool);
        let room = self.fill.free(count).min(count);
        // From the end, which is where they are taken off.
        let lent = self.fill.extend(pool.free_addresses(room).iter().rev().copied());
        pool.lend_for_receive(lent);
        self.fill.submit();
        self.lent += lent;
        lent
    }
}
