//! How ports put frames into a batch, and take them out.

use super::segments::Segments;
use super::{BATCH, Slot};
use crate::mem::Frame;

/// The places of a batch, filled in order; see [`Batch::fill`](super::Batch::fill).
pub(crate) struct Filler<'b> {
    places: &'b mut [Frame; BATCH],
    segments: &'b mut Segments,
    tails: &'b mut [u32; BATCH],
    segmented: &'b mut u64,
    /// The first place has the beginning of a packet.
    begun: bool,
    /// Places of packets of which a part is missing.
    spoiled: u64,
}

/// How far a [`Filler`] has come: kept apart from it, so that it stays in registers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Progress {
    packets: usize,
    /// The last packet goes on in the next frame.
    open: bool,
}

impl Progress {
    /// Packets so far.
    #[inline(always)]
    pub(crate) fn packets(self) -> usize {
        self.packets
    }

    /// Whether the last packet is not complete.
    #[inline(always)]
    pub(crate) fn is_open(self) -> bool {
        self.open
    }
}

impl<'b> Filler<'b> {
    #[inline(always)]
    pub(super) fn new(
        places: &'b mut [Frame; BATCH],
        segments: &'b mut Segments,
        tails: &'b mut [u32; BATCH],
        segmented: &'b mut u64,
        begun: bool,
    ) -> Self {
        Self { places, segments, tails, segmented, begun, spoiled: 0 }
    }

    /// The places of packets of which a part is missing.
    #[inline(always)]
    pub(super) fn spoiled(&self) -> u64 {
        self.spoiled
    }

    /// Where it begins: no packet yet, or the beginning of one.
    #[inline(always)]
    pub(crate) fn progress(&self) -> Progress {
        Progress { packets: self.begun.into(), open: self.begun }
    }

    /// Adds a frame: a packet's first or, where the one before it was to be continued, its next.
    ///
    /// # Panics
    /// If the batch is full.
    #[inline(always)]
    pub(crate) fn push(&mut self, progress: Progress, frame: Frame, continued: bool) -> Progress {
        let mut packets = progress.packets;
        if progress.open {
            self.append(packets - 1, frame);
        } else {
            frame.prefetch();
            self.places[packets] = frame;
            packets += 1;
        }
        Progress { packets, open: continued }
    }

    /// Takes note of a part of a packet that is missing: what else comes of the packet is not to be kept. False where it
    /// is not the first such part.
    #[cold]
    pub(crate) fn spoil(&mut self, progress: Progress, continued: bool) -> (Progress, bool) {
        let mut packets = progress.packets;
        if !progress.open {
            if !continued {
                return (progress, true);
            }
            // Its place stays empty, and what follows is appended.
            packets += 1;
        }
        let bit = 1 << (packets - 1);
        let is_first = self.spoiled & bit == 0;
        self.spoiled |= bit;
        (Progress { packets, open: continued }, is_first)
    }

    #[cold]
    fn append(&mut self, last: usize, frame: Frame) {
        self.tails[last] = self.segments.append(self.tails[last], frame);
        *self.segmented |= 1 << last;
    }
}

/// The first frames of a batch's packets; see [`Batch::drain_heads`](super::Batch::drain_heads).
pub(crate) struct Heads<'b>(&'b mut [Frame; BATCH]);

impl<'b> Heads<'b> {
    #[inline(always)]
    pub(super) fn new(frames: &'b mut [Frame; BATCH]) -> Self {
        Self(frames)
    }

    #[inline(always)]
    pub(crate) fn len(&self, slot: Slot) -> usize {
        self.0[slot.index()].len()
    }

    /// The frames of the first `count` slots.
    #[inline(always)]
    pub(crate) fn first(&mut self, count: u32) -> std::slice::IterMut<'_, Frame> {
        let count = BATCH.min(count as usize);
        self.0[..count].iter_mut()
    }

    #[inline(always)]
    pub(crate) fn take(&mut self, slot: Slot) -> Frame {
        std::mem::replace(&mut self.0[slot.index()], Frame::EMPTY)
    }
}
