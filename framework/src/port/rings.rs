//! Moving packets between a batch and a queue's rings: the same for AF_XDP sockets and memory ports.

use super::{Received, Sent};
use crate::batch::{BATCH, Batch, Slots};
use crate::mem::Pool;
use crate::xsk::frames::FrameRings;

/// The shortest packet that is sent: an Ethernet header. The kernel would swallow the frame of an empty
/// one without completing it.
const SHORTEST: usize = 14;

/// Moves up to `max` received packets into the empty batch. `multi_buffer` says whether packets may have
/// more than one segment.
#[inline(always)]
pub(super) fn receive(rings: &mut FrameRings, batch: &mut Batch, max: usize, multi_buffer: bool) -> Received {
    if multi_buffer {
        return receive_segments(rings, batch, max);
    }
    let mut received = Received::default();
    batch.fill(|pool, mut places| {
        rings.receive(pool, max as u32, |frame, _| match frame {
            Some(frame) => {
                received.packets += 1;
                received.bytes += frame.len() as u64;
                places.push(frame);
            }
            None => received.bad += 1,
        });
    });
    received
}

/// As [`receive`], for packets of several segments. The kernel shows a packet's segments all at once, so
/// what has begun is there to its end.
fn receive_segments(rings: &mut FrameRings, batch: &mut Batch, max: usize) -> Received {
    let mut received = Received::default();
    let mut packet = None;
    while received.packets < max || packet.is_some() {
        let mut next = None;
        if rings.receive(batch.pool(), 1, |frame, continued| next = Some((frame, continued))) == 0 {
            break;
        }
        let Some((Some(frame), continued)) = next else {
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
    let mask = mask & !sent.refused;
    if mask & batch.segmented() != 0 {
        transmit_segments(rings, batch, mask, multi_buffer, &mut sent);
    } else {
        let mut slots = Slots::new(mask);
        let free = rings.tx.free(mask.count_ones());
        let (mut bytes, mut taken) = (0, 0);
        batch.drain_heads(|pool, heads| {
            rings.send(
                pool,
                slots.by_ref().take(free as usize).map(|slot| {
                    let frame = heads.take(slot);
                    bytes += frame.len() as u64;
                    taken |= slot.bit();
                    (frame, false)
                }),
            );
        });
        sent.bytes = bytes;
        sent.mask = taken;
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
    sent: &mut Sent,
) {
    for slot in Slots::new(mask) {
        let segments = batch.segment_count(slot);
        if segments > 0 && !multi_buffer {
            sent.refused |= slot.bit();
            continue;
        }
        let wanted = segments as u32 + 1;
        if rings.tx.free(wanted) < wanted {
            break;
        }
        let mut frame = batch.take_head(slot);
        for left in (0..=segments).rev() {
            sent.bytes += frame.len() as u64;
            let next = if left > 0 { batch.take_segment(slot) } else { None };
            rings.send(batch.pool(), std::iter::once((frame, next.is_some())));
            let Some(next) = next else { break };
            frame = next;
        }
        sent.mask |= slot.bit();
    }
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
