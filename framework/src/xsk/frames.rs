//! The near side of a queue's four rings, in frames instead of addresses: the one place where the
//! other side's word for an address becomes a frame token again.

use super::Descriptor;
use super::ring::{Consumer, Entries, Producer};
use crate::mem::{Frame, Pool};

/// `XDP_PKT_CONTD` of `linux/if_xdp.h`: the packet goes on in the next descriptor.
pub(crate) const CONTINUED: u32 = 1;

/// The four rings of a queue, as the side that owns the frames sees them.
///
/// ```text
///   fill ──► other side ──► rx        tx ──► other side ──► completion
/// ```
pub(crate) struct FrameRings {
    pub(crate) fill: Producer<u64>,
    pub(crate) rx: Consumer<Descriptor>,
    pub(crate) tx: Producer<Descriptor>,
    pub(crate) completion: Consumer<u64>,
    /// Frames lent for receiving that have not come back.
    lent: u32,
}

impl FrameRings {
    /// # Safety
    /// The other side of the rings is the kernel, or behaves as it does: on `rx` it puts only addresses
    /// in frames that it took from `fill`, on `completion` only addresses that it took from `tx`, each
    /// once. All methods are called with one and the same pool, whose region the other side works on.
    pub(crate) unsafe fn new(
        fill: Producer<u64>,
        rx: Consumer<Descriptor>,
        tx: Producer<Descriptor>,
        completion: Consumer<u64>,
    ) -> Self {
        Self { fill, rx, tx, completion, lent: 0 }
    }

    /// Up to `max` received descriptors; [`Arrived::next`] makes frames of them, and
    /// [`release`](Self::release) is to be called with their number after.
    #[inline(always)]
    pub(crate) fn arrived(&mut self, max: u32) -> Arrived<'_> {
        Arrived { entries: self.rx.peek(max) }
    }

    /// Gives the RX ring's `count` oldest places back: their frames are claimed.
    #[inline(always)]
    pub(crate) fn release(&mut self, count: u32) {
        self.rx.release(count);
        self.lent = self.lent.saturating_sub(count);
    }

    /// Frames lent for receiving that have not come back: in the fill ring, with the other side, or in
    /// the RX ring.
    pub(crate) fn lent(&self) -> u32 {
        self.lent
    }

    /// Writes one frame to the TX ring, to be shown to the other side by `tx.submit`. The caller has
    /// made sure of room.
    #[inline(always)]
    pub(crate) fn send(&mut self, pool: &mut Pool, frame: Frame, continued: bool) {
        let len = frame.len() as u32;
        let addr = pool.lend_for_transmit(frame);
        let written = self.tx.push(Descriptor { addr, len, options: u32::from(continued) * CONTINUED });
        debug_assert!(written, "the caller has looked for room");
    }

    /// Takes back all frames that were sent.
    #[inline(always)]
    pub(crate) fn reclaim(&mut self, pool: &mut Pool) -> u32 {
        self.completion.consume(u32::MAX, |addr| {
            // SAFETY: by the contract of `new` the address was lent for sending, and comes back once.
            unsafe { pool.reclaim_sent(addr) };
        })
    }

    /// Lends up to `count` free frames for receiving; returns how many.
    #[inline(always)]
    pub(crate) fn refill(&mut self, pool: &mut Pool, count: u32) -> u32 {
        let room = self.fill.free(count).min(count).min(pool.free() as u32);
        let lent = self.fill.extend((0..room).map_while(|_| pool.lend_for_receive()));
        self.fill.submit();
        self.lent += lent;
        lent
    }
}

/// Received descriptors that wait to become frames.
pub(crate) struct Arrived<'r> {
    entries: Entries<'r, Descriptor>,
}

impl Arrived<'_> {
    /// The next descriptor's frame, and whether its packet goes on in the one after. The inner `None`
    /// is a descriptor that names no frame.
    #[inline(always)]
    pub(crate) fn next(&mut self, pool: &mut Pool) -> Option<Option<(Frame, bool)>> {
        let descriptor = self.entries.next()?;
        // SAFETY: by the contract of `FrameRings::new` the address is in a frame that was lent for
        // receiving, and comes back once.
        let frame = unsafe { pool.claim_received(descriptor.addr, descriptor.len) };
        Some(frame.map(|frame| (frame, descriptor.options & CONTINUED != 0)))
    }
}
