//! Moving packets between a batch and a queue's rings: the same for AF_XDP sockets and memory ports.

use super::{Received, Sent};
use crate::batch::{BATCH, Batch, Slots};
use crate::mem::{Frame, Pool};
use crate::xsk::frames::FrameRings;

/// The shortest packet that is sent: an Ethernet header. The kernel would swallow the frame of an empty
/// one without completing it.
const SHORTEST: usize = 14;

/// Moves received packets into the empty batch. `multi_buffer` says whether packets may have more than
/// one segment.
#[inline(always)]
pub(super) fn receive(rings: &mut FrameRings, batch: &mut Batch, max: usize, multi_buffer: bool) -> Received {
    if multi_buffer {
        return receive_segments(rings, batch, max);
    }
    let mut received = Received::default();
    let mut seen = 0;
    let mut arrived = rings.arrived(max as u32);
    received.packets = batch.fill(|pool| {
        loop {
            let next = arrived.next(pool)?;
            seen += 1;
            match next {
                Some((frame, _)) => {
                    received.bytes += frame.len() as u64;
                    return Some(frame);
                }
                None => received.bad += 1,
            }
        }
    });
    rings.release(seen);
    received
}

/// As [`receive`], for packets of several segments: only packets that are there to their last segment are
/// taken.
fn receive_segments(rings: &mut FrameRings, batch: &mut Batch, max: usize) -> Received {
    let mut received = Received::default();
    let whole = {
        let (mut whole, mut packets) = (0, 0);
        for (index, descriptor) in rings.rx.peek(4 * BATCH as u32).enumerate() {
            if descriptor.options & crate::xsk::frames::CONTINUED == 0 {
                whole = index + 1;
                packets += 1;
                if packets == max {
                    break;
                }
            }
        }
        whole as u32
    };
    let mut arrived = rings.arrived(whole);
    let mut packet = None;
    while let Some(next) = arrived.next(batch.pool()) {
        let Some((frame, continued)) = next else {
            received.bad += 1;
            continue;
        };
        received.bytes += frame.len() as u64;
        let slot = match packet {
            None => {
                received.packets += 1;
                batch.push(frame)
            }
            Some(slot) => {
                batch.push_segment(slot, frame);
                slot
            }
        };
        packet = continued.then_some(slot);
    }
    rings.release(whole);
    received
}

/// Writes the packets of `mask` to the TX ring, as many as have room, and shows them to the other side.
#[inline(always)]
pub(super) fn transmit(rings: &mut FrameRings, batch: &mut Batch, mask: u64, multi_buffer: bool) -> Sent {
    let mut sent = Sent::default();
    for slot in Slots::new(mask) {
        if batch.bytes(slot).len() < SHORTEST {
            sent.refused |= slot.bit();
        }
    }
    if mask & batch.segmented() != 0 {
        return transmit_segments(rings, batch, mask, multi_buffer, sent);
    }
    let mask = mask & !sent.refused;
    let room = rings.tx.free(mask.count_ones());
    for slot in Slots::new(mask).take(room as usize) {
        let frame = batch.take_head(slot);
        sent.bytes += frame.len() as u64;
        sent.mask |= slot.bit();
        rings.send(batch.pool(), frame, false);
    }
    rings.tx.submit();
    sent
}

/// As [`transmit`], where some packets have several segments: a packet is sent whole or not at all.
fn transmit_segments(
    rings: &mut FrameRings,
    batch: &mut Batch,
    mask: u64,
    multi_buffer: bool,
    mut sent: Sent,
) -> Sent {
    for slot in Slots::new(mask & !sent.refused) {
        let segments = batch.segment_count(slot);
        if segments > 0 && !multi_buffer {
            sent.refused |= slot.bit();
            continue;
        }
        let wanted = segments as u32 + 1;
        if rings.tx.free(wanted) < wanted {
            break;
        }
        let mut frame: Frame = batch.take_head(slot);
        for _ in 0..segments {
            let next = batch.take_segment(slot).expect("as many segments as were counted");
            sent.bytes += frame.len() as u64;
            rings.send(batch.pool(), frame, true);
            frame = next;
        }
        sent.bytes += frame.len() as u64;
        rings.send(batch.pool(), frame, false);
        sent.mask |= slot.bit();
    }
    rings.tx.submit();
    sent
}

/// Takes back what was sent, and keeps up to `level` frames lent for receiving.
#[inline(always)]
pub(super) fn service(rings: &mut FrameRings, pool: &mut Pool, level: u32) {
    rings.reclaim(pool);
    let missing = level.saturating_sub(rings.lent());
    // Not for every single frame: the store that shows them to the other side costs it a cache miss.
    if missing >= (level / 8).min(BATCH as u32).max(1) {
        rings.refill(pool, missing);
    }
}
