//! Moving packets between a batch and a queue's rings: the same for AF_XDP sockets and memory ports.

use super::{Received, Sent};
use crate::batch::{BATCH, Batch, Filler, Held, Progress, Slot, Slots};
use crate::mem::{Frame, Pool};
use crate::xsk::frames::FrameRings;

/// The shortest packet that is sent: an Ethernet header. The kernel would swallow the frame of an empty
/// one without completing it.
const SHORTEST: usize = 14;

/// What has come of a packet whose end is still to come.
#[derive(Debug, Default)]
pub(super) enum Begun {
    /// There is no such packet.
    #[default]
    Nothing,
    Packet(Held),
    /// A part of it named no frame: the rest is not kept either.
    Spoiled,
}

/// Moves up to `max` received packets into the empty batch. A packet of which a descriptor names no frame is dropped
/// whole.
#[inline(always)]
pub(super) fn receive(rings: &mut FrameRings, batch: &mut Batch, max: usize, begun: &mut Begun) -> Received {
    let mut received = Received::default();
    let mut is_spoiled = false;
    if !matches!(begun, Begun::Nothing) {
        is_spoiled = go_on(batch, begun);
    }
    let mut open = false;
    let (spoiled, bytes) = batch.fill(|pool, filler| {
        let mut progress = filler.progress();
        if is_spoiled {
            progress = filler.spoil(progress, true).0;
        }
        let state = State { progress, bytes: 0, bad: 0 };
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
    if open || spoiled != 0 {
        keep(batch, begun, &mut received, open, spoiled);
        received.bytes = received.bytes.saturating_sub(bytes);
    }
    received
}

/// Puts what has come of a packet into the empty batch. True where nothing of it is to be kept.
#[cold]
fn go_on(batch: &mut Batch, begun: &mut Begun) -> bool {
    match std::mem::take(begun) {
        Begun::Nothing => false,
        Begun::Spoiled => true,
        Begun::Packet(held) => {
            if let Err(held) = batch.release(held) {
                // Not in an empty batch.
                *begun = Begun::Packet(held);
            }
            false
        }
    }
}

/// Leaves those packets out of the count that are not there: those that were spoiled, and the last, where it is open.
#[cold]
fn keep(batch: &mut Batch, begun: &mut Begun, received: &mut Received, open: bool, spoiled: u64) {
    let last = received.packets.saturating_sub(1);
    received.packets -= spoiled.count_ones() as usize;
    if open && spoiled >> last & 1 == 1 {
        *begun = Begun::Spoiled;
    } else if open {
        received.packets -= 1;
        *begun = Begun::Packet(batch.hold(Slot::new(last as u32)));
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
        None => {
            let (progress, is_first) = filler.spoil(progress, continued);
            State { progress, bytes, bad: bad + u32::from(is_first) }
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::{Pages, Region};
    use crate::packet::HashSeed;
    use crate::port::PortId;
    use crate::time::Time;
    use crate::xsk::far::{self, Far};
    use std::sync::Arc;

    /// A queue of 64 places with as many frames, and its other end.
    struct Bench {
        batch: Box<Batch>,
        rings: FrameRings,
        far: Far,
        begun: Begun,
    }

    impl Bench {
        fn new() -> Self {
            let (near, far) = far::queue(64);
            let region: Arc<dyn Region> = Arc::new(Pages::new(64 * 2048));
            let mut rings = near.open(&region, 2048);
            let mut pool = Pool::new(region, 2048, 256);
            service(&mut rings, &mut pool, 64);
            Self { batch: Batch::new(pool, 0, HashSeed(0)), rings, far, begun: Begun::Nothing }
        }

        /// What one look brings: the segments of each packet by their first bytes, and what was counted.
        fn look(&mut self) -> (Vec<Vec<u8>>, Received) {
            self.batch.begin(Time::ZERO, crate::Origin { port: PortId::new(0), queue: 0, hops: 0 });
            let received = receive(&mut self.rings, &mut self.batch, BATCH, &mut self.begun);
            let packets: Vec<Vec<u8>> = self
                .batch
                .all()
                .map(|slot| self.batch.segments(slot).map(|bytes| bytes[0]).collect())
                .collect();
            assert_eq!(packets.len(), received.packets);
            let ledger = self.batch.pool().ledger();
            assert!(matches!(self.begun, Begun::Packet(_)) || ledger.held.outside() == 0);
            self.batch.end(0, &mut [0; 256]);
            self.batch.collect_discarded();
            (packets, received)
        }

        fn send(&mut self, number: u8, goes_on: bool) {
            assert!(self.far.deliver(usize::MAX, &[number; 60], goes_on));
        }
    }

    impl Drop for Bench {
        fn drop(&mut self) {
            self.begun = Begun::Nothing;
            self.batch.collect_discarded();
            let ledger = self.batch.pool().ledger();
            assert!(ledger.balanced() && ledger.held.outside() == 0, "{ledger:?}");
        }
    }

    #[test]
    fn a_packet_of_which_a_descriptor_names_no_frame_is_dropped_whole() {
        // Which of three parts is bad: each set of them once.
        for bad in 0..8u32 {
            let mut bench = Bench::new();
            bench.send(1, false);
            for part in 0..3 {
                let goes_on = part < 2;
                match bad >> part & 1 {
                    1 => bench.far.deliver_nothing(goes_on),
                    _ => bench.send(10 + part as u8, goes_on),
                }
            }
            bench.send(2, false);
            let (packets, received) = bench.look();
            let whole = vec![vec![1], vec![10, 11, 12], vec![2]];
            let left = vec![vec![1], vec![2]];
            assert_eq!(packets, if bad == 0 { whole } else { left }, "{bad:03b}");
            assert_eq!(received.bad, u64::from(bad != 0), "{bad:03b}: one packet, however much of it is bad");
            assert_eq!(received.bytes, if bad == 0 { 300 } else { 120 }, "{bad:03b}");
        }
    }

    #[test]
    fn what_comes_later_of_such_a_packet_is_not_kept_either() {
        let mut bench = Bench::new();
        bench.send(1, true);
        assert_eq!(bench.look().0, Vec::<Vec<u8>>::new());
        bench.far.deliver_nothing(true);
        let (packets, received) = bench.look();
        assert_eq!((packets.len(), received.bad), (0, 1));
        let (packets, received) = bench.look();
        assert_eq!((packets.len(), received.bad), (0, 0));
        bench.send(2, true);
        assert_eq!(bench.look().0.len(), 0);
        bench.send(3, false);
        bench.send(4, false);
        let (packets, received) = bench.look();
        assert_eq!((packets, received.bad), (vec![vec![4]], 0));
    }

    #[test]
    fn a_batch_may_be_full_of_them() {
        let mut bench = Bench::new();
        for _ in 0..32 {
            bench.far.deliver_nothing(true);
            bench.send(1, false);
        }
        let (packets, received) = bench.look();
        assert_eq!((packets.len(), received.bad, received.bytes), (0, 32, 0));
    }
}
