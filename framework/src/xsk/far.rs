//! The far side of a queue's four rings: what the kernel is to a socket, for a memory port.

use std::sync::{Arc, OnceLock};

use super::Descriptor;
use super::access::{Reader, Writer};
use super::anonymous::pair;
use super::frames::{CONTINUED, FrameRings};
use super::ring::{Consumer, Producer};
use crate::mem::Region;

/// The other end of a [`FrameRings`] in anonymous memory. Plays the kernel: takes frames from the fill
/// ring, writes packets into them, puts them on the RX ring; takes packets from the TX ring, and
/// returns their frames by the completion ring.
pub(crate) struct Far {
    fill: Consumer<u64>,
    rx: Producer<Descriptor>,
    tx: Consumer<Descriptor>,
    completion: Producer<u64>,
    memory: SharedMemory,
}

/// The frames' memory and the size of one, known to the far side once a worker has opened the near one.
type SharedMemory = Arc<OnceLock<(Arc<dyn Region>, usize)>>;

/// The near side of a queue, until a worker opens it.
pub(crate) struct Near {
    rings: FrameRings,
    memory: SharedMemory,
}

impl Near {
    /// The rings, for frames of `frame_size` bytes in `region`.
    pub(crate) fn open(mut self, region: &Arc<dyn Region>, frame_size: usize) -> FrameRings {
        // Not set before: opening consumes the only near side.
        let _ = self.memory.set((region.clone(), frame_size));
        // SAFETY: the far side works on what was just set, and on nothing else.
        unsafe { self.rings.work_on(region.base()) };
        self.rings
    }
}

/// Bytes that a card leaves free before a packet: `XDP_PACKET_HEADROOM`.
const HEADROOM: u64 = 256;

/// Both sides of a queue with rings of `size` descriptors.
pub(crate) fn queue(size: u32) -> (Near, Far) {
    let (fill, far_fill) = pair(size);
    let (far_rx, rx) = pair(size);
    let (tx, far_tx) = pair(size);
    let (far_completion, completion) = pair(size);
    // SAFETY: `Far`, the only holder of the other ends, returns each address once, and to the ring it
    // belongs on; see its methods.
    let rings = unsafe {
        FrameRings::new(
            Writer::Native(fill),
            Reader::Native(rx),
            Writer::Native(tx),
            Reader::Native(completion),
        )
    };
    let memory = SharedMemory::default();
    let near = Near { rings, memory: memory.clone() };
    (near, Far { fill: far_fill, rx: far_rx, tx: far_tx, completion: far_completion, memory })
}

impl Far {
    /// Delivers a packet, or its beginning where it goes on, in frames of which each takes at most `segment` bytes. False,
    /// with nothing taken, where no worker has opened the queue, the fill ring has too few frames, or the RX ring is full.
    pub(crate) fn deliver(&mut self, segment: usize, bytes: &[u8], goes_on: bool) -> bool {
        let Some((region, frame_size)) = self.memory.get() else { return false };
        let segment = segment.min(*frame_size - HEADROOM as usize);
        let count = bytes.len().div_ceil(segment).max(1) as u32;
        if self.fill.available(count) < count || self.rx.free(count) < count {
            return false;
        }
        let mut chunks = bytes.chunks(segment);
        let mut left = count;
        let (rx, base, len) = (&mut self.rx, region.base(), region.len());
        self.fill.consume(count, |frame| {
            let chunk = chunks.next().unwrap_or_default();
            let start = frame + HEADROOM;
            assert!(start as usize + chunk.len() <= len, "the near side lends frames of its region");
            // SAFETY: in the region as just checked. The frame was lent to this side by the fill ring, whose
            // acquire makes the near side's accesses come before; it goes back by the submit below.
            unsafe {
                let target = base.add(start as usize);
                std::ptr::copy_nonoverlapping(chunk.as_ptr(), target.as_ptr(), chunk.len());
            }
            left -= 1;
            let options = if left > 0 || goes_on { CONTINUED } else { 0 };
            rx.push(Descriptor { addr: start, len: chunk.len() as u32, options });
        });
        self.rx.submit();
        true
    }

    /// Delivers a descriptor that names no frame, or one part of a packet that does where it goes on.
    #[cfg(test)]
    pub(crate) fn deliver_nothing(&mut self, goes_on: bool) {
        assert_eq!(self.fill.consume(1, |_| ()), 1, "a frame was lent");
        let options = if goes_on { CONTINUED } else { 0 };
        assert!(self.rx.push(Descriptor { addr: u64::MAX, len: 60, options }), "there is room");
        self.rx.submit();
    }

    /// Delivers up to `count` packets of `len` bytes, whatever the frames hold: a null device.
    ///
    /// # Panics
    /// If a frame has no room for `len` bytes.
    pub(crate) fn deliver_unwritten(&mut self, count: u32, len: u32) -> u32 {
        let Some((_, frame_size)) = self.memory.get() else { return 0 };
        assert!(
            u64::from(len) + HEADROOM <= *frame_size as u64,
            "packets of {len} bytes in frames of {frame_size}"
        );
        let count = self.rx.free(count).min(count);
        let mut taken = 0;
        for frames in self.fill.peek(count).parts() {
            let descriptor = |frame| Descriptor { addr: frame + HEADROOM, len, options: 0 };
            taken += self.rx.extend(frames.map(descriptor));
        }
        self.fill.release(taken);
        self.rx.submit();
        taken
    }

    /// Takes up to `max` segments that were sent and shows each, with whether its packet goes on.
    pub(crate) fn collect(&mut self, max: u32, mut each: impl FnMut(&[u8], bool)) -> u32 {
        let Some((region, _)) = self.memory.get() else { return 0 };
        let max = self.completion.free(max).min(max);
        let (completion, base, len) = (&mut self.completion, region.base(), region.len());
        let taken = self.tx.consume(max, |sent| {
            assert!(
                sent.addr as usize + sent.len as usize <= len,
                "the near side sends frames of its region"
            );
            // SAFETY: in the region as just checked; the frame is this side's from the TX ring's acquire
            // until the submit of the completion below, and nobody writes it meanwhile.
            let bytes = unsafe {
                std::slice::from_raw_parts(base.add(sent.addr as usize).as_ptr(), sent.len as usize)
            };
            each(bytes, sent.options & CONTINUED != 0);
            completion.push(sent.addr);
        });
        self.completion.submit();
        taken
    }

    /// Takes up to `max` segments that were sent, unseen: a null device.
    pub(crate) fn collect_unread(&mut self, max: u32) -> u32 {
        let max = self.completion.free(max).min(max);
        let mut taken = 0;
        for sent in self.tx.peek(max).parts() {
            taken += self.completion.extend(sent.map(|sent| sent.addr));
        }
        self.tx.release(taken);
        self.completion.submit();
        taken
    }
}
