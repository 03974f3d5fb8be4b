//! The balancer with a notebook around it.

use afx::port::Steering;
use afx::stage::balancer::{Balancer, Decision};
use afx::{BATCH, Batch, Reason, Slot, Snapshot, Stage, Time, Verdict};

/// The balancer, and what it makes of each packet: by number, in the order in which they come in.
pub(super) struct Replayed {
    balancer: Balancer,
    steering: Steering,
    /// Bytes of the longest packet that the port takes. The redirect program leaves longer ones to the kernel.
    longest: usize,
    /// The number of the next packet.
    next: u64,
    /// Which packet is in each slot, or which one brought it forth.
    packets: [Option<u64>; BATCH],
    /// Packets of this batch that are left to the kernel.
    passed: Vec<(u64, Passed)>,
    /// Whether the balancer knows its decisions about the packets in the batch.
    decided: bool,
    events: Vec<Event>,
}

/// Why a packet is left to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Passed {
    NotSteered,
    Oversize,
}

/// Something that happened to a packet.
pub(super) enum Event {
    /// It came in: each has the next number.
    Came(Time),
    /// It is settled; there will be nothing more about it.
    Settled(Settled),
}

/// What became of a packet.
pub(super) struct Settled {
    pub(super) index: u64,
    pub(super) outcome: Outcome,
    /// What the balancer thought of it, if it looked at all.
    pub(super) decision: Option<Decision>,
    /// What was sent, and when.
    pub(super) sent: Vec<(Time, Vec<u8>)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Sent,
    Dropped(Reason),
    Passed(Passed),
}

impl Replayed {
    pub(super) fn new(balancer: Balancer, steering: Steering, longest: usize) -> Self {
        Self {
            balancer,
            steering,
            longest,
            next: 0,
            packets: [None; BATCH],
            passed: Vec::new(),
            decided: false,
            events: Vec::new(),
        }
    }

    /// What has happened since the last call.
    pub(super) fn events(&mut self) -> std::vec::Drain<'_, Event> {
        self.events.drain(..)
    }

    /// Gives a packet that came in its number, and leaves it to the kernel where the redirect program would.
    fn receive(&mut self, batch: &mut Batch, slot: Slot) {
        let mut packet = batch.packet(slot);
        let index = self.next;
        self.next += 1;
        packet.set_user(index);
        self.events.push(Event::Came(packet.timestamp().unwrap_or_default()));
        let passed = if !self.steering.matches(packet.bytes()) {
            Passed::NotSteered
        } else if packet.len() > self.longest {
            Passed::Oversize
        } else {
            return;
        };
        packet.pass();
        self.passed.push((index, passed));
    }

    /// Takes note of which packets are in the batch. Those without a number were made for the one that came last.
    fn note(&mut self, batch: &mut Batch, decided: bool) {
        self.decided = decided;
        self.packets = [None; BATCH];
        for slot in batch.all() {
            self.packets[slot.index()] = batch.packet(slot).user().or(self.next.checked_sub(1));
        }
    }

    /// What became of a packet that is in one slot or more: itself, and what was made for it.
    fn settle(&self, batch: &Batch, index: u64) -> Settled {
        let slots = || batch.all().filter(|slot| self.packets[slot.index()] == Some(index));
        let dropped = |slot: Slot| match batch.verdict(slot) {
            Verdict::Drop(reason) => Some(reason),
            _ => None,
        };
        let passed = self.passed.iter().find(|(packet, _)| *packet == index);
        // Where it was answered, the answer is another packet.
        let outcome = match (passed, slots().find_map(dropped)) {
            (Some((_, passed)), _) => Outcome::Passed(*passed),
            (None, Some(reason)) => Outcome::Dropped(reason),
            (None, None) => Outcome::Sent,
        };
        let looked_at = self.decided && passed.is_none();
        let decision = slots().find_map(|slot| self.balancer.decision(slot)).filter(|_| looked_at);
        let is_sent = |slot: &Slot| matches!(batch.verdict(*slot), Verdict::Transmit(_));
        let bytes = |slot| (batch.now(), batch.segments(slot).collect::<Vec<_>>().concat());
        Settled { index, outcome, decision, sent: slots().filter(is_sent).map(bytes).collect() }
    }
}

impl Stage for Replayed {
    fn process(&mut self, batch: &mut Batch) {
        for slot in batch.live() {
            if batch.packet(slot).user::<u64>().is_none() {
                self.receive(batch, slot);
            }
        }
        self.balancer.process(batch);
        self.note(batch, true);
    }

    fn tick(&mut self, batch: &mut Batch) {
        self.balancer.tick(batch);
        self.note(batch, false);
    }

    fn configure(&mut self, snapshot: &Snapshot) {
        if let Some(steering) = snapshot.of::<Steering>() {
            self.steering = (*steering).clone();
        }
        self.balancer.configure(snapshot);
    }

    fn drain(&mut self, batch: &mut Batch) -> bool {
        let done = self.balancer.drain(batch);
        self.note(batch, false);
        done
    }

    fn observe(&mut self, batch: &Batch) {
        self.balancer.observe(batch);
        let mut indices: Vec<u64> = batch.all().filter_map(|slot| self.packets[slot.index()]).collect();
        indices.sort_unstable();
        indices.dedup();
        for index in indices {
            let settled = self.settle(batch, index);
            self.events.push(Event::Settled(settled));
        }
        self.passed.clear();
        self.packets = [None; BATCH];
    }

    fn creates(&self) -> usize {
        self.balancer.creates()
    }

    fn holds(&self) -> usize {
        self.balancer.holds()
    }
}
