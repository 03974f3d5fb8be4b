//! One turn of a worker: receive, process, send, recycle. Nothing here allocates, locks or waits.

use std::time::Duration;

use crate::batch::{BATCH, Batch, MAX_PORTS, Origin, builtin};
use crate::mem::cycles;
use crate::port::{PortId, Queue};
use crate::stage::{Pipeline, Probe, Snapshot};
use crate::stats::{QueueCounters, WorkerCounters};
use crate::time::Time;

use super::clock::Clock;
use super::hand_over::HandOver;

/// Slots that stages may keep free at most, so that a batch still receives something.
const CREATES_MAX: usize = BATCH / 2;

/// One queue of a worker.
pub(super) struct Lane {
    pub(super) port: PortId,
    pub(super) queue: u32,
    pub(super) io: Box<dyn Queue>,
}

/// A worker's data path: its queues, its batch, its pipeline.
pub(super) struct Turn<P> {
    // Dropped in this order: stages give back what they hold, sockets close, the memory goes.
    pub(super) pipeline: P,
    pub(super) lanes: Vec<Lane>,
    pub(super) batch: Box<Batch>,
    pub(super) counters: Box<WorkerCounters>,
    hand_over: HandOver,
    /// By port: the first of this worker's lanes on it.
    egress: [Option<u16>; MAX_PORTS],
    /// Packets that a batch receives at most.
    budget: usize,
    tick_every: Duration,
    next_tick: Time,
    clock: Clock,
    /// Whether a port has a clock of its own.
    clocked: bool,
}

impl<P: Pipeline> Turn<P> {
    pub(super) fn new(
        batch: Box<Batch>,
        pipeline: P,
        lanes: Vec<Lane>,
        hand_over: HandOver,
        tick_every: Duration,
    ) -> Self {
        let mut egress = [None; MAX_PORTS];
        for (index, lane) in lanes.iter().enumerate().rev() {
            egress[lane.port.index()] = Some(index as u16);
        }
        Self {
            counters: WorkerCounters::new(lanes.len(), pipeline.names().len()),
            budget: BATCH - pipeline.creates().min(CREATES_MAX),
            clocked: lanes.iter().any(|lane| lane.io.clock().is_some()),
            batch,
            pipeline,
            lanes,
            hand_over,
            egress,
            tick_every,
            next_tick: Time::ZERO,
            clock: Clock::new(),
        }
    }

    /// One turn. Returns how many packets came.
    #[inline(always)]
    pub(super) fn turn(&mut self) -> usize {
        let start = cycles();
        let now = self.time_at(start);
        let mut packets = 0;
        for lane in 0..self.lanes.len() {
            packets += self.receive(lane, now);
        }
        packets += self.take_over(now);
        if now >= self.next_tick {
            self.tick(now);
        }
        self.service();
        self.counters.turns += 1;
        if packets == 0 {
            self.counters.empty_turns += 1;
        } else {
            self.counters.busy_cycles += cycles().wrapping_sub(start);
        }
        packets
    }

    /// When the last turn began, by the system's clock: a capture's stands still at its end.
    pub(super) fn began(&self) -> Time {
        if self.clocked { Time::monotonic() } else { self.batch.now() }
    }

    /// A port's own clock, where one has it, else the system's, when the counter stood at `count`.
    #[inline(always)]
    fn time_at(&mut self, count: u64) -> Time {
        if self.clocked { self.port_clock() } else { self.clock.at(count) }
    }

    /// This thread has slept.
    pub(super) fn slept(&mut self) {
        self.clock.doubt();
    }

    /// Of several captures the one that is behind says what time it is, until it ends.
    #[cold]
    fn port_clock(&self) -> Time {
        let clocks = || self.lanes.iter().filter_map(|lane| Some((lane.io.finished(), lane.io.clock()?)));
        let running = clocks().filter(|(finished, _)| !finished).map(|(_, clock)| clock).min();
        running.or_else(|| clocks().map(|(_, clock)| clock).max()).unwrap_or_default()
    }

    #[inline(always)]
    fn receive(&mut self, index: usize, now: Time) -> usize {
        let lane = &mut self.lanes[index];
        self.batch.begin(now, Origin { port: lane.port, queue: lane.queue as u16, hops: 0 });
        let received = lane.io.receive(&mut self.batch, self.budget);
        if received.bad > 0 {
            self.counters.drops[builtin::BAD_DESCRIPTOR.index()] += received.bad;
        }
        if received.no_frame > 0 {
            self.counters.drops[builtin::NO_FRAME.index()] += received.no_frame;
        }
        if received.packets > 0 {
            let counters = &mut self.counters.queues[index];
            counters.received += received.packets as u64;
            counters.received_bytes += received.bytes;
            self.counters.batch_of(received.packets);
            self.process(false, Some(index));
        }
        received.packets
    }

    #[inline(always)]
    fn take_over(&mut self, now: Time) -> usize {
        self.batch.begin(now, Origin::default());
        let (packets, lost) = self.hand_over.receive(&mut self.batch, self.budget);
        self.counters.drops[builtin::NO_FRAME.index()] += lost;
        self.counters.taken_over += packets as u64;
        if packets > 0 {
            self.process(false, None);
        }
        packets
    }

    /// The stages' timers: in a batch of their own, which they may fill.
    fn tick(&mut self, now: Time) {
        self.next_tick = now + self.tick_every;
        self.batch.begin(now, Origin::default());
        for (port, lane) in self.egress.iter().enumerate() {
            if let Some(lane) = lane {
                self.batch.room[port] = self.lanes[usize::from(*lane)].io.room_to_send();
            }
        }
        self.process(true, None);
        self.batch.room = [0; MAX_PORTS];
        self.counters.not_created = self.batch.not_created;
    }

    /// Runs the batch through the pipeline and carries out the verdicts.
    #[inline(always)]
    fn process(&mut self, tick: bool, lane: Option<usize>) {
        let mut probe = Probe::start(&mut self.counters.stages, tick);
        self.pipeline.run(&mut self.batch, &mut probe);
        self.settle(lane);
    }

    #[inline(always)]
    fn settle(&mut self, lane: Option<usize>) {
        let batch = &mut *self.batch;
        if batch.live_mask() != 0 {
            batch.drop_all(batch.live_mask(), builtin::NO_VERDICT);
        }
        if batch.passed() != 0 {
            batch.drop_all(batch.passed(), builtin::NO_EXCEPTION_PATH);
        }
        if batch.handed_over().mask() != 0 {
            self.counters.handed_over += self.hand_over.send(batch);
        }
        self.pipeline.observe(batch);
        let sent = if batch.transmit_mask() != 0 { self.transmit(lane) } else { 0 };
        self.batch.end(sent, &mut self.counters.drops);
        self.counters.drops[builtin::HELD_DISCARDED.index()] += self.batch.collect_discarded();
    }

    /// Gives each port its packets; what a port does not take is settled as dropped.
    #[inline(always)]
    fn transmit(&mut self, from: Option<usize>) -> u64 {
        let mut all = 0;
        let mut left = self.batch.transmit_mask();
        // Ports are numbered from 0: the few there are come first.
        for port in 0..MAX_PORTS {
            if left == 0 {
                break;
            }
            let mask = self.batch.transmit_to(port);
            if mask == 0 {
                continue;
            }
            left &= !mask;
            self.batch.clear_transmit_to(port);
            // Back on the queue that the packets came from, where they go to the same port.
            let same = from.filter(|index| self.lanes[*index].port.index() == port);
            let Some(index) = same.or(self.egress[port].map(usize::from)) else {
                self.batch.drop_all(mask, builtin::NO_QUEUE);
                continue;
            };
            let sent = self.lanes[index].io.transmit(&mut self.batch, mask);
            count_sent(&mut self.counters.queues[index], sent);
            all |= sent.mask;
            if sent.mask != mask {
                self.batch.drop_all(sent.refused, builtin::TX_REFUSED);
                self.batch.drop_all(mask & !sent.mask & !sent.refused, builtin::TX_FULL);
            }
        }
        all
    }

    /// Lends frames to the ports, takes back those sent, and beats.
    #[inline(always)]
    pub(super) fn service(&mut self) {
        for (lane, counters) in self.lanes.iter_mut().zip(&mut self.counters.queues) {
            counters.wakeups += lane.io.service(self.batch.pool());
            lane.io.beat();
        }
    }

    /// Gives the stages a new configuration.
    pub(super) fn configure(&mut self, snapshot: &Snapshot) {
        self.pipeline.configure(snapshot);
        self.counters.generation += 1;
    }

    /// One turn on the way to the end. True when nothing is left: no packet came, no stage holds one, and
    /// all that was sent has left.
    pub(super) fn drain(&mut self) -> bool {
        let packets = self.turn();
        let now = self.time_at(cycles());
        self.batch.begin(now, Origin::default());
        let mut probe = Probe::start(&mut self.counters.stages, false);
        let done = self.pipeline.drain(&mut self.batch, &mut probe);
        self.settle(None);
        packets == 0 && done && self.batch.pool().ledger().transmit.outside() == 0
    }

    /// Has other workers hand nothing over to this one any more.
    pub(super) fn shut_inbox(&self) {
        self.hand_over.shut();
    }

    /// Whether all that was handed over before the inbox was shut is there to be taken.
    pub(super) fn inbox_is_clear(&self) -> bool {
        self.hand_over.is_clear()
    }

    /// Counts as dropped what was handed over and is not taken any more.
    pub(super) fn give_up_inbox(&mut self) {
        self.counters.drops[builtin::HAND_OVER_STOPPED.index()] += self.hand_over.discard();
    }

    /// Whether another worker has handed a packet over that waits to be taken.
    pub(super) fn has_inbox(&self) -> bool {
        self.hand_over.waiting()
    }

    /// Whether a stage holds packets.
    pub(super) fn holds(&mut self) -> bool {
        self.batch.pool().ledger().held.outside() > 0
    }

    /// Whether no port will ever bring a packet again.
    pub(super) fn finished(&self) -> bool {
        self.lanes.iter().all(|lane| lane.io.finished())
    }

    /// Brings the counters up to date that are not counted on the way.
    pub(super) fn take_stock(&mut self) {
        self.counters.not_created = self.batch.not_created;
        self.counters.ledger = self.batch.pool().ledger();
    }

    /// Asks the kernel what it has dropped: a system call per queue.
    pub(super) fn ask_kernel(&mut self) {
        for (lane, counters) in self.lanes.iter().zip(&mut self.counters.queues) {
            counters.kernel_dropped = lane.io.kernel_dropped();
        }
    }
}

#[inline(always)]
fn count_sent(counters: &mut QueueCounters, sent: crate::port::Sent) {
    counters.sent += u64::from(sent.mask.count_ones());
    counters.sent_bytes += sent.bytes;
    counters.wakeups += sent.wakeups;
}
