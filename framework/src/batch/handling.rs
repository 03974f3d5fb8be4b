//! What the worker and the ports do with a batch.

use super::{
    BATCH, Batch, Filler, Heads, Meta, Origin, Progress, Reason, Reasons, Slot, Slots, copy_bytes, segments,
};
use crate::mem::{Frame, Pool};
use crate::time::Time;

impl Batch {
    /// Starts a batch of packets from `origin`.
    #[inline(always)]
    pub(crate) fn begin(&mut self, now: Time, origin: Origin) {
        debug_assert!(self.occupied == 0);
        self.now = now;
        self.origin = origin;
    }

    /// Adds a copy of a packet from elsewhere: `first` in one frame, and in further ones the `rest`, of which most have
    /// none; the caller keeps below [`BATCH`] packets. None where too few frames are free.
    pub(crate) fn push_copy(&mut self, first: &[u8], rest: &[u8]) -> Option<Slot> {
        let room = self.pool.room();
        if self.pool.free() < 1 + rest.len().div_ceil(room) {
            return None;
        }
        let mut frame = self.pool.take()?;
        copy_bytes(first, &mut frame);
        let slot = Slot::new((!self.occupied).trailing_zeros());
        self.put(slot, frame);
        let mut tail = segments::NONE;
        for segment in rest.chunks(room) {
            let mut frame = self.pool.take().expect("free frames, as counted above");
            copy_bytes(segment, &mut frame);
            tail = self.segments.append(tail, frame);
        }
        self.set_tail(slot, tail);
        Some(slot)
    }

    /// Adds received packets to the batch, slot after slot: `receive` is given the pool and what takes the frames, of
    /// [`BATCH`] packets at most. The batch is empty, or has the beginning of the first packet. Returns the slots, empty
    /// again, of packets that were [spoiled](Filler::spoil), and the bytes that they had.
    #[inline(always)]
    pub(crate) fn fill(
        &mut self,
        receive: impl FnOnce(&mut Pool, &mut Filler<'_>) -> Progress,
    ) -> (u64, u64) {
        debug_assert!(self.occupied <= 1);
        let begun = self.occupied != 0;
        let Self { pool, frames, segments, tails, segmented, .. } = self;
        let mut filler = Filler::new(frames, segments, tails, segmented, begun);
        let count = receive(pool, &mut filler).packets();
        let spoiled = filler.spoiled();
        self.occupied = if count == BATCH { u64::MAX } else { (1 << count) - 1 };
        self.live = self.occupied;
        (spoiled, if spoiled == 0 { 0 } else { self.remove_spoiled(spoiled) })
    }

    /// Gives back what there is of packets, and returns how many bytes that were.
    #[cold]
    fn remove_spoiled(&mut self, spoiled: u64) -> u64 {
        let mut bytes = 0;
        for slot in Slots::new(spoiled) {
            let (head, mut tail) = self.remove(slot);
            let mut give = |frame: Frame| {
                bytes += frame.len() as u64;
                self.pool.give(frame);
            };
            if !head.is_empty_slot() {
                give(head);
            }
            while let Some((frame, next)) = self.segments.remove(tail) {
                give(frame);
                tail = next;
            }
        }
        bytes
    }

    /// Gives `send` the pool and the packets' first frames, to be taken by slot.
    #[inline(always)]
    pub(crate) fn drain_heads<R>(&mut self, send: impl FnOnce(&mut Pool, &mut Heads<'_>) -> R) -> R {
        send(&mut self.pool, &mut Heads::new(&mut self.frames))
    }

    pub(crate) fn set_meta(&mut self, slot: Slot, meta: Option<Meta>, user: Option<[u64; 2]>) {
        if let Some(meta) = meta {
            self.meta[slot.index()] = meta;
            self.own_meta |= slot.bit();
        }
        if let Some(user) = user {
            self.user[slot.index()] = user;
            self.user_set |= slot.bit();
        }
    }

    /// A packet's metadata, to be carried elsewhere.
    pub(crate) fn meta_of(&self, slot: Slot) -> Option<Meta> {
        let own = self.own_meta & slot.bit() != 0;
        Some(if own { self.meta[slot.index()] } else { Meta { origin: self.origin, ..Meta::default() } })
    }

    pub(crate) fn user_of(&self, slot: Slot) -> Option<[u64; 2]> {
        (self.user_set & slot.bit() != 0).then(|| self.user[slot.index()])
    }

    pub(crate) fn pool(&mut self) -> &mut Pool {
        &mut self.pool
    }

    /// The packets that are to be sent: those that are neither live nor settled in another way.
    #[inline(always)]
    pub(crate) fn transmit_mask(&self) -> u64 {
        self.occupied & !(self.live | self.dropped | self.handed_over | self.passed)
    }

    /// The packets that are to be sent out of one port.
    #[inline(always)]
    pub(crate) fn transmit_to(&self, port: usize) -> u64 {
        self.transmit_to[port]
    }

    /// Has a port's packets seen to: sent, or settled otherwise.
    #[inline(always)]
    pub(crate) fn clear_transmit_to(&mut self, port: usize) {
        self.transmit_to[port] = 0;
    }

    pub(crate) fn handed_over(&self) -> Slots {
        Slots::new(self.handed_over)
    }

    pub(crate) fn passed(&self) -> u64 {
        self.passed
    }

    pub(crate) fn live_mask(&self) -> u64 {
        self.live
    }

    pub(crate) fn segmented(&self) -> u64 {
        self.segmented
    }

    pub(crate) fn detail(&self, slot: Slot) -> u8 {
        self.detail[slot.index()]
    }

    /// Settles every packet of `mask` as dropped.
    pub(crate) fn drop_all(&mut self, mask: u64, reason: Reason) {
        for slot in Slots::new(mask) {
            self.packet(slot).drop(reason);
        }
    }

    /// Takes a packet's first frame and the chain of its further ones for sending.
    #[inline(always)]
    pub(crate) fn take_head(&mut self, slot: Slot) -> Frame {
        std::mem::replace(&mut self.frames[slot.index()], Frame::EMPTY)
    }

    /// Takes the next further segment of a packet.
    pub(crate) fn take_segment(&mut self, slot: Slot) -> Option<Frame> {
        let (frame, next) = self.segments.remove(self.tails[slot.index()])?;
        self.tails[slot.index()] = next;
        Some(frame)
    }

    /// Segments beyond the first of all packets of `mask`.
    #[inline(always)]
    pub(crate) fn further_segments(&self, mask: u64) -> u32 {
        let segmented = mask & self.segmented;
        if segmented == 0 { 0 } else { self.count_segments(segmented) }
    }

    #[cold]
    fn count_segments(&self, mask: u64) -> u32 {
        Slots::new(mask).map(|slot| self.segment_count(slot) as u32).sum()
    }

    pub(crate) fn segment_count(&self, slot: Slot) -> usize {
        self.segments.iter(self.tails[slot.index()]).count()
    }

    /// Empties the batch: what was not taken to be sent goes back to the pool. Counts the drops.
    #[inline(always)]
    pub(crate) fn end(&mut self, sent: u64, drops: &mut [u64; Reasons::MAX]) {
        for slot in Slots::new(self.dropped) {
            drops[usize::from(self.detail[slot.index()])] += 1;
        }
        for slot in Slots::new(self.occupied & !sent) {
            let frame = self.take_head(slot);
            self.pool.give(frame);
        }
        for slot in Slots::new(self.segmented) {
            while let Some(frame) = self.take_segment(slot) {
                self.pool.give(frame);
            }
        }
        debug_assert!(self.transmit_to.iter().all(|mask| *mask == 0));
        self.occupied = 0;
        self.live = 0;
        self.dropped = 0;
        self.handed_over = 0;
        self.passed = 0;
        self.parsed_known = 0;
        self.own_meta = 0;
        self.user_set = 0;
        self.segmented = 0;
    }

    /// Takes back what stages held and then dropped on the floor; returns how many packets.
    pub(crate) fn collect_discarded(&mut self) -> u64 {
        if self.discarded.is_empty() {
            return 0;
        }
        let mut packets = 0;
        while let Some((head, mut tail)) = self.discarded.pop() {
            packets += 1;
            self.pool.held.returned += 1;
            self.pool.give(head);
            while let Some((frame, next)) = self.segments.remove(tail) {
                self.pool.held.returned += 1;
                self.pool.give(frame);
                tail = next;
            }
        }
        packets
    }

    /// Gives every frame back: those in the batch, and those that stages let go.
    pub(super) fn drop_contents(&mut self) {
        self.end(0, &mut [0; Reasons::MAX]);
        self.collect_discarded();
    }

    /// As [`drop_contents`](Self::drop_contents), where a panic may have come at any moment: of the masks none is to be
    /// believed, but a frame that lies in its slot is in no other place. Were one left out, the memory would stay, and
    /// with it the socket that it is registered with: its queue could not be opened again in this process.
    pub(super) fn salvage(&mut self) {
        for frame in &mut self.frames {
            let frame = std::mem::replace(frame, Frame::EMPTY);
            if !frame.is_empty_slot() {
                self.pool.give(frame);
            }
        }
        for slot in Slots::new(self.segmented) {
            while let Some(frame) = self.take_segment(slot) {
                self.pool.give(frame);
            }
        }
        self.collect_discarded();
    }

    pub(super) fn free_slot(&mut self) -> Option<Slot> {
        if self.occupied == u64::MAX {
            self.not_created += 1;
            return None;
        }
        Some(Slot::new((!self.occupied).trailing_zeros()))
    }

    #[inline(always)]
    pub(super) fn put(&mut self, slot: Slot, head: Frame) {
        debug_assert!(self.frames[slot.index()].is_empty_slot());
        self.frames[slot.index()] = head;
        let other = !slot.bit();
        self.parsed_known &= other;
        self.own_meta &= other;
        self.user_set &= other;
        self.occupied |= slot.bit();
        self.live |= slot.bit();
    }

    pub(super) fn set_tail(&mut self, slot: Slot, tail: u32) {
        self.tails[slot.index()] = tail;
        if tail != segments::NONE {
            self.segmented |= slot.bit();
        }
    }

    /// Takes a live packet out of the batch.
    pub(super) fn remove(&mut self, slot: Slot) -> (Frame, u32) {
        let keep = !slot.bit();
        self.occupied &= keep;
        self.live &= keep;
        self.parsed_known &= keep;
        self.own_meta &= keep;
        self.user_set &= keep;
        self.segmented &= keep;
        let tail = std::mem::replace(&mut self.tails[slot.index()], segments::NONE);
        (self.take_head(slot), tail)
    }
}
