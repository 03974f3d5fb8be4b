//! The stage that sends the frames of a trial and counts those that come back, and how it is told what to do.
//!
//! Orders come as configurations, between two batches; what is counted goes back through atomics of a single writer,
//! and, once a trial is over, as a copy of the collector's tally.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use afx::stage::Malformed;
use afx::worker::Build;
use afx::{BATCH, Batch, PortId, Reason, Snapshot, Stage, Time, WorkerId};

use super::packets::Packets;
use super::trial::Amount;
use crate::receive::collector::{Collector, Limits, Summary, Tally};
use crate::receive::stage::payload_end;
use crate::signature::Signature;

/// Bits of a signature's flow that say the flow; those above say the trial, so that no straggler of an earlier one counts.
const FLOW_BITS: u32 = 16;

/// What the workers are to do.
#[derive(Clone, Debug)]
pub(super) enum Order {
    /// A trial of this number begins: whoever receives starts at zero.
    Begin(u16),
    /// Whoever sends does so.
    Send(Arc<Sending>),
    /// Nothing more is sent.
    Cease,
    /// The trial is over: whoever receives shows what has come.
    Collect,
}

/// What is to be sent in a trial, by all workers together.
#[derive(Debug)]
pub(super) struct Sending {
    pub(super) trial: u16,
    pub(super) packets: Packets,
    /// Packets per second.
    pub(super) rate: f64,
    pub(super) amount: Amount,
    pub(super) flows: u32,
}

/// What a stage does, of both.
#[derive(Clone, Copy, Debug)]
pub(super) struct Role<'a> {
    /// The port to send on.
    pub(super) sends: Option<&'a str>,
    pub(super) receives: bool,
}

/// Where all workers say how far they are.
#[derive(Clone, Debug, Default)]
pub(super) struct Desk(Arc<Mutex<Vec<Arc<Progress>>>>);

/// One worker's progress.
#[derive(Debug)]
struct Progress {
    sends: bool,
    sent: AtomicU64,
    /// When the sending began, and when the last packet left or the time was over, in ns.
    first: AtomicU64,
    last: AtomicU64,
    done: AtomicBool,
    received: AtomicU64,
    tally: Mutex<Option<Tally>>,
}

/// What all workers have sent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sent {
    pub(super) packets: u64,
    /// Packets per second.
    pub(super) rate: f64,
    pub(super) done: bool,
}

impl Desk {
    fn workers(&self) -> Vec<Arc<Progress>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Forgets the last trial: while no worker sends.
    pub(super) fn clear(&self) {
        for worker in self.workers() {
            for counter in [&worker.sent, &worker.first, &worker.last] {
                counter.store(0, Relaxed);
            }
            worker.done.store(false, Relaxed);
        }
    }

    pub(super) fn sent(&self) -> Sent {
        let mut sum = Sent { done: true, ..Sent::default() };
        for worker in self.workers().iter().filter(|worker| worker.sends) {
            // `done` is stored last.
            sum.done &= worker.done.load(std::sync::atomic::Ordering::Acquire);
            let packets = worker.sent.load(Relaxed);
            let time = worker.last.load(Relaxed).saturating_sub(worker.first.load(Relaxed));
            sum.packets += packets;
            if time > 0 {
                sum.rate += packets as f64 * 1e9 / time as f64;
            }
        }
        sum
    }

    /// Packets of this trial that have come, copies included.
    pub(super) fn received(&self) -> u64 {
        self.workers().iter().map(|worker| worker.received.load(Relaxed)).sum()
    }

    /// What was shown at the last [`Order::Collect`].
    pub(super) fn summary(&self) -> Summary {
        let workers = self.workers();
        let tallies: Vec<_> = workers
            .iter()
            .map(|worker| worker.tally.lock().unwrap_or_else(PoisonError::into_inner))
            .collect();
        Summary::of(tallies.iter().filter_map(|tally| tally.as_ref()))
    }
}

/// Sends and counts.
pub(super) struct Tester {
    progress: Arc<Progress>,
    out: Option<Out>,
    receives: Option<In>,
    counted: Reason,
    other: Reason,
    late: Reason,
    malformed: Malformed,
}

struct Out {
    port: PortId,
    /// This worker's place among those that send, and how many these are.
    worker: usize,
    workers: usize,
    flight: Option<Flight>,
}

struct In {
    collector: Collector,
    trial: u16,
    received: u64,
}

impl Tester {
    pub(super) fn new(build: &mut Build<'_>, role: Role<'_>, flows: u32, desk: &Desk) -> Self {
        // Each worker that sends has a flow of its own, at least.
        let limits = Limits { flows: (flows as usize).max(WorkerId::MAX), ..Limits::default() };
        let port = role.sends.and_then(|name| build.port(name));
        let progress = Arc::new(Progress {
            sends: port.is_some(),
            sent: AtomicU64::new(0),
            first: AtomicU64::new(0),
            last: AtomicU64::new(0),
            done: AtomicBool::new(false),
            received: AtomicU64::new(0),
            tally: Mutex::new(role.receives.then(|| Tally::new(limits.flows))),
        });
        desk.0.lock().unwrap_or_else(PoisonError::into_inner).push(progress.clone());
        let (worker, workers) = (build.worker().index(), build.workers());
        Self {
            progress,
            out: port.map(|port| Out { port, worker, workers, flight: None }),
            receives: role.receives.then(|| In { collector: Collector::new(limits), trial: 0, received: 0 }),
            counted: build
                .drop_reason("rfc2544.counted", "The packet is one of the test's, and was counted."),
            other: build.drop_reason("rfc2544.other", "The packet is none of the test's."),
            late: build.drop_reason("rfc2544.late", "The packet is one of a trial that was over."),
            malformed: Malformed::new(build),
        }
    }
}

impl Stage for Tester {
    fn process(&mut self, batch: &mut Batch) {
        let Some(receives) = &mut self.receives else {
            for slot in batch.live() {
                batch.packet(slot).drop(self.other);
            }
            return;
        };
        // Later than all of the batch have arrived: `batch.now()` was read before they were taken from the ring.
        let now = Time::monotonic().as_nanos();
        for slot in batch.live() {
            let mut packet = batch.packet(slot);
            let reason = match packet.parsed() {
                Err(error) => self.malformed.reason(error),
                Ok(parsed) => match Signature::from_end(payload_end(&packet, &parsed)) {
                    None => self.other,
                    Some(signature) if signature.flow >> FLOW_BITS != u32::from(receives.trial) => self.late,
                    Some(signature) => {
                        let flow = signature.flow & ((1 << FLOW_BITS) - 1);
                        receives.collector.record(Signature { flow, ..signature }, now, packet.len());
                        receives.received += 1;
                        self.counted
                    }
                },
            };
            packet.drop(reason);
        }
        self.progress.received.store(receives.received, Relaxed);
    }

    fn tick(&mut self, batch: &mut Batch) {
        let Some(out) = &mut self.out else { return };
        let Some(flight) = &mut out.flight else {
            // A worker that only sends never sleeps by itself: there is nothing to come. Between two trials it need not
            // take its core from others.
            if self.receives.is_none() {
                std::thread::sleep(Duration::from_micros(100));
            }
            return;
        };
        if !flight.advance(batch, out.port, &self.progress) {
            out.flight = None;
        }
    }

    fn configure(&mut self, snapshot: &Snapshot) {
        let Some(order) = snapshot.of::<Order>() else { return };
        match &*order {
            Order::Begin(trial) => {
                if let Some(receives) = &mut self.receives {
                    receives.collector.clear();
                    (receives.trial, receives.received) = (*trial, 0);
                    self.progress.received.store(0, Relaxed);
                }
            }
            Order::Send(sending) => {
                if let Some(out) = &mut self.out {
                    out.flight = Some(Flight::new(sending.clone(), out.worker, out.workers));
                }
            }
            Order::Cease => {
                if let Some(out) = &mut self.out {
                    out.flight = None;
                }
            }
            Order::Collect => {
                let mut tally = self.progress.tally.lock().unwrap_or_else(PoisonError::into_inner);
                if let (Some(receives), Some(tally)) = (&self.receives, &mut *tally) {
                    tally.copy_step(receives.collector.tally(), 0, usize::MAX);
                }
            }
        }
    }
}

/// The sending of one trial by one worker.
struct Flight {
    sending: Arc<Sending>,
    /// Packets per second of this worker, and how many it sends where that is given.
    rate: f64,
    count: u64,
    time: Option<Duration>,
    begun: Option<Time>,
    sent: u64,
    /// Packets that were due and never sent, since the sender was late.
    skipped: u64,
    /// This worker's flows: the number of the first, the distance of the others, and the next sequence of each.
    first: u32,
    step: u32,
    sequences: Vec<u32>,
}

impl Flight {
    fn new(sending: Arc<Sending>, worker: usize, workers: usize) -> Self {
        let (worker, workers) = (worker as u32, workers as u32);
        let (count, time) = match sending.amount {
            Amount::Time(time) => (u64::MAX, Some(time)),
            Amount::Frames(frames) => {
                let (each, more) = (frames / u64::from(workers), frames % u64::from(workers));
                (each + u64::from(u64::from(worker) < more), None)
            }
        };
        // At least one flow for each worker: two that wrote the sequence of one would count it twice.
        let flows = sending.flows.max(workers);
        let own = (flows - worker).div_ceil(workers);
        Self {
            rate: sending.rate / f64::from(workers),
            count,
            time,
            begun: None,
            sent: 0,
            skipped: 0,
            first: worker,
            step: workers,
            sequences: vec![0; own as usize],
            sending,
        }
    }

    /// Sends what is due. False once all is sent.
    fn advance(&mut self, batch: &mut Batch, port: PortId, progress: &Progress) -> bool {
        let now = Time::monotonic();
        let begun = *self.begun.get_or_insert_with(|| {
            progress.first.store(now.as_nanos(), Relaxed);
            now
        });
        let passed = now - begun;
        let is_over = self.time.is_some_and(|time| passed >= time) || self.sent >= self.count;
        if is_over {
            if self.time.is_some() || self.count == 0 {
                progress.last.store(now.as_nanos(), Relaxed);
            }
            progress.done.store(true, std::sync::atomic::Ordering::Release);
            return false;
        }
        let due = (passed.as_secs_f64() * self.rate) as u64 + 1;
        let behind = due.saturating_sub(self.sent + self.skipped);
        // A sender that was held up does not make up for it by a burst, which the device would have to bear: what it
        // has missed lowers the rate that it has reached.
        let most = BATCH as u64;
        self.skipped += behind.saturating_sub(most);
        let wanted = behind.min(most).min(self.count - self.sent) as usize;
        let sent = self.create(wanted.min(batch.room_to_send(port)), batch, port, now);
        if sent > 0 {
            self.sent += sent;
            progress.sent.store(self.sent, Relaxed);
            // As if the last packet took its time, too: n packets at a rate take n intervals.
            let interval = (1e9 / self.rate) as u64;
            progress.last.store(now.as_nanos() + interval, Relaxed);
        }
        true
    }

    fn create(&mut self, count: usize, batch: &mut Batch, port: PortId, now: Time) -> u64 {
        let packets = &self.sending.packets;
        let trial = u32::from(self.sending.trial) << FLOW_BITS;
        for index in 0..count {
            let number = self.sent as usize + index;
            let own = number % self.sequences.len();
            let flow = self.first + own as u32 * self.step;
            let sequence = self.sequences[own];
            let signature = Signature { flow: trial | flow, sequence, time: now.as_nanos() };
            let write = |bytes: &mut [u8]| packets.write(number, flow, signature, bytes);
            let Some(slot) = batch.create_with(packets.length(number), write) else {
                return index as u64;
            };
            batch.packet(slot).transmit(port);
            self.sequences[own] = sequence.wrapping_add(1);
        }
        count as u64
    }
}

#[cfg(test)]
#[path = "stage_tests.rs"]
mod tests;
