//! Moving packets between a batch and a queue's rings: the same for AF_XDP sockets and memory ports.

use super::{Received, Sent};
use crate::batch::{BATCH, Batch, Filler, Held, Progress, Slot, Slots};
use crate::mem::{Frame, Pool};
use crate::xsk::frames::FrameRings;

/// The shortest packet that is sent: an Ethernet header. The kernel would swallow the frame of an empty
/// one without completing it.
const SHORTEST: usize = 14;

/// Moves up to `max` received packets into the empty batch. What has come of a packet whose end is still to come is in
/// `begun` until then.
#[inline(always)]
pub(super) fn receive(
    rings: &mut FrameRings,
    batch: &mut Batch,
    max: usize,
    begun: &mut Option<Held>,
) -> Received {
    let mut received = Received::default();
    if begun.is_some() {
        go_on(batch, begun);
    }
    let mut open = false;
    batch.fill(|pool, filler| {
        let state = State { progress: filler.progress(), bytes: 0, bad: 0 };
        let take = |state, frame, more| take(filler, state, frame, more);
        let (taken, mut state) = rings.receive(pool, max as u32, state, take);
        received.taken = taken as usize;
        if state.progress.is_open() {
            state = receive_rest(rings, pool, filler, state);
            open = state.progress.is_open();
        }
        received.packets = state.progress.packets();
        (received.bytes, received.bad) = (state.bytes, state.bad.into());
        state.progress
    });
    if open {
        received.packets -= 1;
        *begun = Some(batch.hold(Slot::new(received.packets as u32)));
    }
    received
}

/// Puts what has come of a packet into the empty batch.
#[cold]
fn go_on(batch: &mut Batch, begun: &mut Option<Held>) {
    if let Some(Err(held)) = begun.take().map(|held| batch.release(held)) {
        // Not in an empty batch.
        *begun = Some(held);
    }
}

/// How far receiving has come: few words, so that they stay in registers.
#[derive(Clone, Copy)]
struct State {
    progress: Progress,
    bytes: u64,
    bad: u32,
}

/// Adds one received frame, if it is one, to the batch.
#[inline(always)]
fn take(filler: &mut Filler<'_>, state: State, frame: Option<Frame>, continued: bool) -> State {
    let State { progress, bytes, bad } = state;
    match frame {
        Some(frame) => {
            let bytes = bytes + frame.len() as u64;
            State { progress: filler.push(progress, frame, continued), bytes, bad }
        }
        None => State { progress, bytes, bad: bad + 1 },
    }
}

/// Receives the rest of a packet of several segments. The kernel shows a packet's segments all at once
/// (`Documentation/networking/af_xdp.rst`), so what has begun is there to its end; of another side, it may come later.
#[cold]
fn receive_rest(rings: &mut FrameRings, pool: &mut Pool, filler: &mut Filler<'_>, mut state: State) -> State {
    while state.progress.is_open() {
        let (taken, after) =
            rings.receive(pool, 1, state, |state, frame, more| take(filler, state, frame, more));
        state = after;
        if taken == 0 {
            break;
        }
    }
    state
}

/// Writes the packets of `mask`, of up to `segments` each, to the TX ring, as many as have room, and shows them to the
/// other side.
#[inline(always)]
pub(super) fn transmit(rings: &mut FrameRings, batch: &mut Batch, mask: u64, segments: u32) -> Sent {
    let mut sent = Sent::default();
    if mask & batch.segmented() != 0 {
        transmit_segments(rings, batch, mask, segments, &mut sent);
    } else {
        send_run(rings, batch, mask, &mut sent);
        let left = mask & !sent.mask;
        if left != 0 {
            send_each(rings, batch, left, &mut sent);
        }
    }
    rings.submit();
    sent
}

/// Sends the packets of the mask's lowest run, if it begins with slot 0, up to one that cannot be sent: the usual batch
/// goes one way as a whole.
#[inline(always)]
fn send_run(rings: &mut FrameRings, batch: &mut Batch, mask: u64, sent: &mut Sent) {
    let mut bytes = 0;
    let count = batch.drain_heads(|pool, heads| {
        let frames = heads.first(mask.trailing_ones()).map_while(|head| {
            if head.len() < SHORTEST {
                return None;
            }
            bytes += head.len() as u64;
            Some((std::mem::replace(head, Frame::EMPTY), false))
        });
        rings.send(pool, frames)
    });
    sent.bytes += bytes;
    sent.mask |= if count == u64::BITS { u64::MAX } else { (1 << count) - 1 };
}

/// Sends packets one by one.
fn send_each(rings: &mut FrameRings, batch: &mut Batch, mask: u64, sent: &mut Sent) {
    batch.drain_heads(|pool, heads| {
        let frames = Slots::new(mask).filter_map(|slot| {
            if heads.len(slot) < SHORTEST {
                sent.refused |= slot.bit();
                return None;
            }
            let frame = heads.take(slot);
            sent.bytes += frame.len() as u64;
            sent.mask |= slot.bit();
            Some((frame, false))
        });
        rings.send(pool, frames);
    });
}

/// As [`transmit`], where some packets have several segments: a packet is sent whole or not at all.
fn transmit_segments(rings: &mut FrameRings, batch: &mut Batch, mask: u64, most: u32, sent: &mut Sent) {
    for slot in Slots::new(mask) {
        let segments = batch.segment_count(slot);
        let wanted = segments as u32 + 1;
        if batch.bytes(slot).len() < SHORTEST || wanted > most {
            sent.refused |= slot.bit();
            continue;
        }
        if rings.room_to_send(wanted) < wanted {
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
