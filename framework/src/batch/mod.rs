//! The batch: up to 64 packets that go through the pipeline together.
//!
//! A structure of arrays, one entry per [`Slot`], with a `u64` mask of the packets that are still
//! live and one for each verdict: a stage skips what an earlier one settled in one instruction.
//! What costs something to find out (the parse, the flow's hash) is found out once and kept.
//!
//! ```
//! use afx::{Batch, Reason};
//!
//! fn drop_short(batch: &mut Batch, too_short: Reason) {
//!     for slot in batch.live() {
//!         let mut packet = batch.packet(slot);
//!         if packet.len() < 60 {
//!             packet.drop(too_short);
//!         }
//!     }
//! }
//! ```

mod filler;
mod held;
mod meta;
mod packet;
mod reason;
mod segments;
mod slots;

/// The card's hash of a flow.
pub use afx_redirect::RxHash;
pub use held::Held;
pub use meta::Origin;
pub use packet::Packet;
pub use reason::{DropReason, Reason};
pub use slots::{Slot, Slots};

pub(crate) use filler::{Filler, Heads, Progress};
pub(crate) use held::Discarded;
pub(crate) use meta::Meta;
pub(crate) use reason::{Reasons, builtin};

use std::rc::Rc;

use crate::mem::{Frame, Pool};
use crate::packet::{HashSeed, Outcome, ParseError};
use crate::port::PortId;
use crate::time::Time;
use crate::worker::WorkerId;
use segments::Segments;

/// Packets in a batch at most.
pub const BATCH: usize = 64;

/// Ports of one runtime at most.
pub const MAX_PORTS: usize = 32;

/// What has become of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// Nothing yet.
    Live,
    /// To be sent out of a port.
    Transmit(PortId),
    /// Dropped; the packet stays readable until the turn ends.
    Drop(Reason),
    /// To be copied to another worker.
    HandOver(WorkerId),
    /// To be given to the kernel's network stack.
    Pass,
}

/// Up to 64 packets on their way through the pipeline. See the [module](self).
pub struct Batch {
    now: Time,
    /// Slots that hold a packet.
    occupied: u64,
    live: u64,
    dropped: u64,
    handed_over: u64,
    passed: u64,
    /// Of the packets in none of the masks above: which port each is to be sent out of.
    transmit_to: [u64; MAX_PORTS],
    /// By port: packets that it has room for, in a batch of timers.
    pub(crate) room: [u32; MAX_PORTS],
    /// Slots whose parse is known.
    parsed_known: u64,
    /// Slots with a `meta` of their own; the others have the batch's origin.
    own_meta: u64,
    /// Slots whose user value is set.
    user_set: u64,
    /// Slots of packets with more than one segment.
    segmented: u64,
    origin: Origin,
    /// Per slot: the drop's reason, or the worker to hand over to.
    detail: [u8; BATCH],
    frames: [Frame; BATCH],
    parsed: [Outcome; BATCH],
    meta: [Meta; BATCH],
    user: [[u64; 2]; BATCH],
    tails: [u32; BATCH],
    segments: Segments,
    pool: Pool,
    discarded: Rc<Discarded>,
    /// What flows are hashed with: one for the whole runtime, so that all workers agree.
    pub(crate) hash_seed: HashSeed,
    /// Creations and clones that failed for want of a frame or of a slot.
    pub(crate) not_created: u64,
    /// The application's own counters, by [`Counter`](crate::stats::Counter).
    pub(crate) counters: Vec<u64>,
}

impl Batch {
    pub(crate) fn new(pool: Pool, counters: usize, hash_seed: HashSeed) -> Box<Self> {
        let frames = pool.frames();
        Box::new(Self {
            now: Time::ZERO,
            occupied: 0,
            live: 0,
            dropped: 0,
            handed_over: 0,
            passed: 0,
            transmit_to: [0; MAX_PORTS],
            room: [0; MAX_PORTS],
            parsed_known: 0,
            own_meta: 0,
            user_set: 0,
            segmented: 0,
            origin: Origin::default(),
            detail: [0; BATCH],
            frames: [Frame::EMPTY; BATCH],
            parsed: [Outcome::new(Err(ParseError::EthernetTruncated)); BATCH],
            meta: [Meta::default(); BATCH],
            user: [[0; 2]; BATCH],
            tails: [segments::NONE; BATCH],
            segments: Segments::new(frames),
            pool,
            discarded: Rc::new(Discarded::new(frames)),
            hash_seed,
            not_created: 0,
            counters: vec![0; counters],
        })
    }

    /// The time, read once for the whole batch.
    #[inline(always)]
    pub fn now(&self) -> Time {
        self.now
    }

    /// The packets that no stage has settled yet. The iterator is a copy of the mask: packets may be
    /// settled, created and released while it runs; those that come in meanwhile are not in it.
    #[inline(always)]
    pub fn live(&self) -> Slots {
        Slots::new(self.live)
    }

    /// Every packet of the batch, settled or not.
    #[inline(always)]
    pub fn all(&self) -> Slots {
        Slots::new(self.occupied)
    }

    /// Whether there is no packet at all.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.occupied == 0
    }

    /// One packet, to be read, changed and settled.
    #[inline(always)]
    pub fn packet(&mut self, slot: Slot) -> Packet<'_> {
        Packet::new(self, slot)
    }

    /// What has become of a packet.
    pub fn verdict(&self, slot: Slot) -> Verdict {
        let (index, bit) = (slot.index(), slot.bit());
        if self.transmit_mask() & bit != 0 {
            let port = self.transmit_to.iter().position(|mask| mask & bit != 0).unwrap_or(0);
            Verdict::Transmit(PortId(port as u8))
        } else if self.dropped & bit != 0 {
            Verdict::Drop(Reason(self.detail[index]))
        } else if self.handed_over & bit != 0 {
            Verdict::HandOver(WorkerId(self.detail[index]))
        } else if self.passed & bit != 0 {
            Verdict::Pass
        } else {
            Verdict::Live
        }
    }

    /// A packet's bytes, read only: of its first segment, which holds all headers.
    #[inline(always)]
    pub fn bytes(&self, slot: Slot) -> &[u8] {
        self.frames[slot.index()].bytes()
    }

    /// A packet's segments in order; most have one.
    pub fn segments(&self, slot: Slot) -> impl Iterator<Item = &[u8]> {
        std::iter::once(self.bytes(slot)).chain(self.segments.iter(self.tails[slot.index()]))
    }

    /// Where a packet came from.
    #[inline(always)]
    pub fn origin(&self, slot: Slot) -> Origin {
        if self.own_meta & slot.bit() != 0 { self.meta[slot.index()].origin } else { self.origin }
    }

    /// Makes a packet of `len` zero bytes with headroom before it: live, so that the stages after
    /// this one see it. None, counted, where no frame or slot is free, or `len` is above a frame's
    /// room. A stage that makes packets announces it by [`Stage::creates`](crate::Stage::creates).
    pub fn create(&mut self, len: usize) -> Option<Slot> {
        self.create_with(len, |bytes| bytes.fill(0))
    }

    /// As [`create`](Self::create), written by `write` instead of cleared: it is given bytes that hold what was there
    /// before, and writes all of them.
    #[inline(always)]
    pub fn create_with(&mut self, len: usize, write: impl FnOnce(&mut [u8])) -> Option<Slot> {
        let slot = self.free_slot()?;
        let Some(mut frame) = self.pool.take() else {
            self.not_created += 1;
            return None;
        };
        if !frame.set_len(len) {
            self.pool.give(frame);
            self.not_created += 1;
            return None;
        }
        write(frame.bytes_mut());
        self.put(slot, frame);
        Some(slot)
    }

    /// How many packets a port is sure to take in this batch, where the batch is one of [`Stage::tick`]: for stages that
    /// make packets as fast as a port sends them, and lose none. 0 elsewhere, and for a port that the worker has no
    /// queue of. What stages give the port meanwhile is not taken off: where several do, they have it together.
    ///
    /// [`Stage::tick`]: crate::Stage::tick
    #[inline(always)]
    pub fn room_to_send(&self, port: PortId) -> usize {
        self.room[port.index()] as usize
    }

    /// Makes a copy of a packet, all its segments and metadata: live. None, counted, as in
    /// [`create`](Self::create).
    pub fn duplicate(&mut self, slot: Slot) -> Option<Slot> {
        let copy = self.free_slot()?;
        let count = 1 + self.segments.iter(self.tails[slot.index()]).count();
        if self.pool.free() < count {
            self.not_created += 1;
            return None;
        }
        let mut tail = segments::NONE;
        let mut source = self.tails[slot.index()];
        while let Some((frame, next)) = self.segments.get(source) {
            let mut segment = self.pool.take().expect("free frames, as counted above");
            copy_bytes(frame.bytes(), &mut segment);
            tail = self.segments.append(tail, segment);
            source = next;
        }
        let mut head = self.pool.take().expect("free frames, as counted above");
        copy_bytes(self.bytes(slot), &mut head);
        let (origin, user) = (self.meta_of(slot), self.user_of(slot));
        self.put(copy, head);
        self.set_tail(copy, tail);
        self.set_meta(copy, origin, user);
        Some(copy)
    }

    /// Takes a packet out of the batch, to be released into a later one: reassembly, pacing. The
    /// packet's slot is free again.
    ///
    /// # Panics
    /// If the packet was settled before.
    pub fn hold(&mut self, slot: Slot) -> Held {
        assert!(self.live & slot.bit() != 0, "only a live packet can be held");
        let (meta, user) = (self.meta_of(slot), self.user_of(slot));
        let (head, tail) = self.remove(slot);
        self.pool.held.issued += 1 + self.segments.iter(tail).count() as u64;
        Held::new(head, tail, meta, user, self.discarded.clone())
    }

    /// Puts a held packet back: live, so that the stages after this one see it. Gives it back where
    /// no slot is free; try again with the next batch.
    ///
    /// # Errors
    /// The packet itself, unchanged, where the batch is full.
    ///
    /// # Panics
    /// If the packet was held from another worker's batch.
    pub fn release(&mut self, held: Held) -> Result<Slot, Held> {
        if self.occupied == u64::MAX {
            return Err(held);
        }
        assert!(held.of(&self.discarded), "a packet is released by the worker that held it");
        let slot = Slot::new((!self.occupied).trailing_zeros());
        let (head, tail, meta, user) = held.into_parts();
        self.pool.held.returned += 1 + self.segments.iter(tail).count() as u64;
        self.put(slot, head);
        self.set_tail(slot, tail);
        self.set_meta(slot, Some(meta), user);
        Ok(slot)
    }

    /// Adds to one of the application's own counters.
    #[inline(always)]
    pub fn count(&mut self, counter: crate::stats::Counter, amount: u64) {
        self.counters[counter.0 as usize] += amount;
    }

    /// How many frames of the worker are free.
    pub fn free_frames(&self) -> usize {
        self.pool.free()
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.salvage();
        } else {
            self.drop_contents();
        }
    }
}

fn copy_bytes(from: &[u8], to: &mut Frame) {
    let headroom_short = !to.set_len(from.len());
    if headroom_short {
        // A packet that came with less headroom than fresh frames have: take from it.
        let missing = from.len() - to.tailroom();
        assert!(to.push_front(missing) && to.set_len(from.len()), "frames of one pool are of one size");
    }
    to.bytes_mut().copy_from_slice(from);
}

/// What the worker and the ports do with a batch.
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
    fn drop_contents(&mut self) {
        self.end(0, &mut [0; Reasons::MAX]);
        self.collect_discarded();
    }

    /// As [`drop_contents`](Self::drop_contents), where a panic may have come at any moment: of the masks none is to be
    /// believed, but a frame that lies in its slot is in no other place. Were one left out, the memory would stay, and
    /// with it the socket that it is registered with: its queue could not be opened again in this process.
    fn salvage(&mut self) {
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

    fn free_slot(&mut self) -> Option<Slot> {
        if self.occupied == u64::MAX {
            self.not_created += 1;
            return None;
        }
        Some(Slot::new((!self.occupied).trailing_zeros()))
    }

    #[inline(always)]
    fn put(&mut self, slot: Slot, head: Frame) {
        debug_assert!(self.frames[slot.index()].is_empty_slot());
        self.frames[slot.index()] = head;
        let other = !slot.bit();
        self.parsed_known &= other;
        self.own_meta &= other;
        self.user_set &= other;
        self.occupied |= slot.bit();
        self.live |= slot.bit();
    }

    fn set_tail(&mut self, slot: Slot, tail: u32) {
        self.tails[slot.index()] = tail;
        if tail != segments::NONE {
            self.segmented |= slot.bit();
        }
    }

    /// Takes a live packet out of the batch.
    fn remove(&mut self, slot: Slot) -> (Frame, u32) {
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
