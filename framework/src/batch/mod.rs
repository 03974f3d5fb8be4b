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
mod handling;
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
