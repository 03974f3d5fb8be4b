//! Fragments of a packet, kept together: all go to the real that the first one goes to.

use std::collections::VecDeque;
use std::time::Duration;

use super::connections::Signal;
use super::decision::How;
use super::definition::Fragments;
use super::flow::FlowHash;
use super::fragments::{FragmentTable, fragment_key};
use super::real::RealId;
use super::stage::{Balancer, Kind, Refused, Work, signal_of_tcp};
use crate::Time;
use crate::batch::{Batch, Held, Packet, Slot, Slots};
use crate::packet::{Fragment, Parsed, Protocol, flow_key};
use crate::worker::WorkerId;

/// Packets whose fragments are under way at a time: as many as 100,000 a second leave in 40 ms.
const PACKETS: usize = 4096;

/// Fragments that wait for their packet's first one, at most.
pub(super) const WAITING: usize = 64;

/// For how long they wait: fragments that overtake the first do so by little.
const WAIT: Duration = Duration::from_secs(1);

/// What a worker knows of fragments.
pub(super) struct Together {
    /// Where the first fragments went, and what the outer headers of their flow are made of.
    table: FragmentTable<(RealId, u64)>,
    waiting: VecDeque<Waiting>,
    /// Of the batch: slots of fragments that have no ports.
    later: u64,
    /// A first fragment has come since it was looked who waits for one.
    arrived: bool,
}

struct Waiting {
    packet: FlowHash,
    since: Time,
    held: Held,
}

impl Together {
    pub(super) fn new() -> Self {
        Self {
            table: FragmentTable::new(PACKETS),
            waiting: VecDeque::with_capacity(WAITING),
            later: 0,
            arrived: false,
        }
    }

    /// Whether there is something left to do after the third look at a batch.
    #[inline(always)]
    pub(super) fn is_busy(&self) -> bool {
        self.later != 0 || self.arrived
    }

    pub(super) fn waits(&self) -> bool {
        !self.waiting.is_empty()
    }
}

impl Balancer {
    /// The first look at a fragment: those of one packet meet on one worker, whatever queues they came by.
    pub(super) fn look_at_fragment(
        &mut self,
        slot: Slot,
        packet: &mut Packet<'_>,
        parsed: &Parsed,
    ) -> Result<(), Refused> {
        let fragment = self.reasons.fragment;
        let destination = fragment_key(packet.bytes(), parsed).ok_or(fragment)?.destination();
        let protocol = parsed.protocol().ok_or(fragment)?;
        let service = self.services.together.find(destination, 0, protocol).ok_or(fragment)?;
        let owner = WorkerId::new((parsed.hash() % self.workers as u64) as usize);
        if owner != self.worker && packet.origin().hops == 0 {
            packet.hand_over(owner);
            return Ok(());
        }
        if parsed.fragment() == Fragment::Later {
            // The first one may be in the same batch, behind it.
            let work = &mut self.work[slot.index()];
            *work = Work { service, how: None, kind: Kind::Fragment, ..*work };
            return Ok(());
        }
        let signal = match protocol {
            Protocol::TCP => signal_of_tcp(packet, parsed),
            _ => Signal::Datagram,
        };
        let key = flow_key(packet.bytes(), parsed).ok_or(fragment)?;
        let found = self.services.service_of(&key).ok_or(self.reasons.no_vip)?;
        let service = self.services.list.get(found.index() as usize).ok_or(fragment)?;
        if service.options.fragments == Fragments::Drop {
            return Err(fragment.into());
        }
        self.admit_unusual(slot, packet, &key, signal, Kind::Fragment)
    }

    /// Leaves a fragment without ports for later.
    pub(super) fn put_off(&mut self, slot: Slot) {
        self.together.later |= slot.bit();
    }

    /// Takes note of where a packet's first fragment went.
    pub(super) fn remember(&mut self, packet: &Packet<'_>, parsed: &Parsed, real: RealId, entropy: u64) {
        if let Some(key) = fragment_key(packet.bytes(), parsed) {
            let key = self.hash_of(&key);
            self.together.table.insert(key, (real, entropy), self.now);
            self.together.arrived = true;
        }
    }

    /// After the third look: fragments without ports follow their first one, or wait for it.
    #[cold]
    pub(super) fn bring_together(&mut self, batch: &mut Batch) {
        for slot in Slots::new(std::mem::take(&mut self.together.later)) {
            self.follow_or_wait(batch, slot);
        }
        if std::mem::take(&mut self.together.arrived) {
            self.release_known(batch);
        }
    }

    fn follow_or_wait(&mut self, batch: &mut Batch, slot: Slot) {
        let now = batch.now();
        let mut packet = batch.packet(slot);
        let Ok(parsed) = packet.parsed() else { return };
        let Some(key) = fragment_key(packet.bytes(), &parsed) else { return };
        let key = self.hash_of(&key);
        if let Some(known) = self.together.table.get(key, now) {
            return self.follow(batch, slot, known);
        }
        self.decided &= !slot.bit();
        if self.together.waiting.len() == WAITING {
            return batch.packet(slot).drop(self.reasons.fragment);
        }
        self.counts.fragments_held += 1;
        self.together.waiting.push_back(Waiting { packet: key, since: now, held: batch.hold(slot) });
    }

    fn follow(&mut self, batch: &mut Batch, slot: Slot, (real, entropy): (RealId, u64)) {
        let mut packet = batch.packet(slot);
        let sent = match packet.parsed() {
            Ok(parsed) => {
                let work = &mut self.work[slot.index()];
                let service = self.services.real(real).map_or(work.service, |place| place.service);
                *work = Work { service, how: None, ..*work };
                self.decided |= slot.bit();
                self.deliver_to(real, How::Connection, slot, &mut packet, &parsed, entropy)
            }
            Err(error) => Err(self.reasons.malformed.reason(error).into()),
        };
        if let Err(refused) = sent {
            self.refuse(batch, slot, refused);
        }
    }

    /// Releases those that wait no more, because their first fragment is known.
    fn release_known(&mut self, batch: &mut Batch) {
        let now = batch.now();
        for _ in 0..self.together.waiting.len() {
            let Some(waiting) = self.together.waiting.pop_front() else { return };
            let Some(known) = self.together.table.get(waiting.packet, now) else {
                self.together.waiting.push_back(waiting);
                continue;
            };
            match batch.release(waiting.held) {
                Ok(slot) => self.follow(batch, slot, known),
                // The batch is full: the timer's is not.
                Err(held) => self.together.waiting.push_back(Waiting { held, ..waiting }),
            }
        }
    }

    /// Sends those whose first fragment has come, and gives up those that have waited for `WAIT`; all of them if
    /// `all`.
    pub(super) fn release_waiting(&mut self, batch: &mut Batch, all: bool) {
        self.decided = 0;
        self.release_known(batch);
        let now = batch.now();
        for _ in 0..self.together.waiting.len() {
            let Some(waiting) = self.together.waiting.pop_front() else { return };
            if !all && now - waiting.since < WAIT {
                self.together.waiting.push_back(waiting);
                continue;
            }
            match batch.release(waiting.held) {
                Ok(slot) => batch.packet(slot).drop(self.reasons.fragment),
                Err(held) => self.together.waiting.push_back(Waiting { held, ..waiting }),
            }
        }
    }
}
