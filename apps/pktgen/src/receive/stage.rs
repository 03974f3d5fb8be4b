//! The stage that counts, and how what it counts comes to the control side.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use afx::packet::Parsed;
use afx::stage::Malformed;
use afx::worker::Build;
use afx::{BATCH, Batch, Packet, Reason, Stage, Time};

use super::collector::{Collector, Limits, Summary, Tally};
use crate::signature::Signature;

/// The drop reason of packets that were counted.
pub(crate) const COUNTED: &str = "receive.counted";
/// The drop reason of packets that have no signature.
pub(crate) const UNSIGNED: &str = "receive.unsigned";

/// Flows that a worker copies at most between two batches, for the display: some tens of microseconds.
const COPIED_AT_ONCE: usize = 1024;

/// Counts packets by their signatures, and drops them.
pub(crate) struct Receive {
    collector: Option<Collector>,
    latency: bool,
    counted: Reason,
    unsigned: Reason,
    malformed: Malformed,
    shared: Arc<Shared>,
    /// Flows before this one are copied.
    copied: usize,
    /// The signatures of a batch, and the packets' bytes.
    signed: [(Signature, usize); BATCH],
}

impl Receive {
    pub(crate) fn new(build: &mut Build<'_>, limits: Limits, latency: bool, desk: &Desk) -> Self {
        let shared = Arc::new(Shared {
            wanted: AtomicBool::new(false),
            copy: Mutex::new(Tally::new(limits.flows)),
            last: Mutex::new(None),
        });
        desk.register(shared.clone());
        Self {
            collector: Some(Collector::new(limits)),
            latency,
            counted: build.drop_reason(COUNTED, "The packet was counted, which is all that is done with it."),
            unsigned: build.drop_reason(UNSIGNED, "The packet does not end with the generator's signature."),
            malformed: Malformed::new(build),
            shared,
            copied: 0,
            signed: [(Signature { flow: 0, sequence: 0, time: 0 }, 0); BATCH],
        }
    }
}

impl Stage for Receive {
    fn process(&mut self, batch: &mut Batch) {
        let Some(collector) = &mut self.collector else { return };
        // Not `batch.now()`, which was read before the packets were taken from the ring: one that came in between would
        // have arrived before it was sent.
        let now = Time::monotonic().as_nanos();
        // All signatures first: of many flows, what is known lies anywhere in memory, and all of it is on its way before
        // the first is looked at.
        let mut signed = 0;
        for slot in batch.live() {
            let mut packet = batch.packet(slot);
            let reason = match packet.parsed() {
                Err(error) => self.malformed.reason(error),
                Ok(parsed) => match Signature::from_end(payload_end(&packet, &parsed)) {
                    None => self.unsigned,
                    Some(signature) => {
                        collector.prefetch(signature);
                        self.signed[signed] = (signature, packet.len());
                        signed += 1;
                        self.counted
                    }
                },
            };
            packet.drop(reason);
        }
        for (signature, bytes) in &self.signed[..signed] {
            if self.latency {
                collector.record(*signature, now, *bytes);
            } else {
                collector.record_order(*signature, now, *bytes);
            }
        }
    }

    fn tick(&mut self, _: &mut Batch) {
        if !self.shared.wanted.load(Ordering::Acquire) {
            return;
        }
        // Whoever reads has the lock only while nothing is wanted: a worker never waits for it.
        if let (Some(collector), Ok(mut copy)) = (&self.collector, self.shared.copy.try_lock()) {
            let next = copy.copy_step(collector.tally(), self.copied, COPIED_AT_ONCE);
            self.copied = next.unwrap_or(0);
            if next.is_none() {
                self.shared.wanted.store(false, Ordering::Release);
            }
        }
    }
}

impl Drop for Receive {
    /// The worker has ended: its collector goes to whoever asks for the result.
    fn drop(&mut self) {
        *self.shared.last.lock().unwrap_or_else(PoisonError::into_inner) = self.collector.take();
    }
}

/// The end of a packet's payload, without what Ethernet has padded.
#[inline(always)]
pub(crate) fn payload_end<'p>(packet: &'p Packet<'_>, parsed: &Parsed) -> &'p [u8] {
    let bytes = packet.bytes();
    if bytes.len() < packet.len() {
        // A packet of several segments is too long to be padded.
        return packet.segments().last().unwrap_or(bytes);
    }
    parsed.ip_range().and_then(|ip| bytes.get(..ip.end)).unwrap_or(bytes)
}

/// Where a worker leaves what it has counted.
#[derive(Debug)]
struct Shared {
    /// A copy is to be made: the worker's turn at `copy`.
    wanted: AtomicBool,
    copy: Mutex<Tally>,
    last: Mutex<Option<Collector>>,
}

/// Where the control side gets what the workers count. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Desk(Arc<Mutex<Vec<Arc<Shared>>>>);

impl Desk {
    /// Asks all workers for a copy.
    pub(crate) fn ask(&self) {
        self.workers().iter().for_each(|shared| shared.wanted.store(true, Ordering::Release));
    }

    /// What was asked for, once all workers have made their copies.
    pub(crate) fn answer(&self) -> Option<Summary> {
        let workers = self.workers();
        if workers.iter().any(|shared| shared.wanted.load(Ordering::Acquire)) {
            return None;
        }
        let copies = workers.iter().map(|shared| shared.copy.lock().unwrap_or_else(PoisonError::into_inner));
        let copies: Vec<_> = copies.collect();
        Some(Summary::of(copies.iter().map(|copy| &**copy)))
    }

    /// What was counted in all, once all workers have ended.
    pub(crate) fn result(&self) -> Summary {
        let workers = self.workers();
        let last = workers.iter().map(|shared| shared.last.lock().unwrap_or_else(PoisonError::into_inner));
        let last: Vec<_> = last.collect();
        Summary::of(last.iter().filter_map(|collector| Some(collector.as_ref()?.tally())))
    }

    fn register(&self, shared: Arc<Shared>) {
        self.workers().push(shared);
    }

    fn workers(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Shared>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "stage_tests.rs"]
mod tests;
