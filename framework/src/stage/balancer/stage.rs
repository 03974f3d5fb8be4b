//! The stage: every packet of a batch to its real.

use std::sync::Arc;

use super::connections::{Connections, Signal, Tick, Timeouts};
use super::decision::{Decision, How};
use super::flow::{FlowHash, FlowHasher};
use super::forward::Refusal;
use super::inspection::{Inspection, Walk};
use super::monitor::{Cells, Counts, Monitor};
use super::real::RealId;
use super::reasons::Reasons;
use super::services::{Found, Place, Services};
use super::together::{Together, WAITING};
use super::too_big::Teller;
use crate::Time;
use crate::batch::{BATCH, Batch, Packet, Reason, Slot, Slots};
use crate::packet::{FlowKey, Parsed, Protocol, flow_key, plain_flow_v4, plain_flow_v6};
use crate::stage::{Snapshot, Stage};
use crate::worker::{Build, WorkerId};

/// What a balancer is made with.
#[derive(Debug, Clone)]
pub struct Options {
    /// For how many connections each worker has memory.
    pub capacity: usize,
    /// For how long a flow may be silent before it is forgotten.
    pub timeouts: Timeouts,
    /// What flows are hashed with for the connection table. None: a secret key of each worker's own, without which
    /// nobody outside can aim at the table; another for runs that are to be repeated exactly.
    pub hasher: Option<FlowHasher>,
}

/// Over how many ticks the look at all reals is spread, that shows how many connections each has.
const PUBLISH_OVER: usize = 64;

/// The load balancer of one worker. See the [module](super).
///
/// What is done to most packets is in this file: those of a flow that go to a VIP with the usual options. The rest
/// is in files of its own, in functions that are kept out of the way.
pub struct Balancer {
    pub(super) services: Arc<Services>,
    pub(super) connections: Connections,
    /// Secret: for the connection table.
    hasher: FlowHasher,
    pub(super) cells: Arc<Cells>,
    pub(super) counts: Counts,
    pub(super) worker: WorkerId,
    pub(super) workers: usize,
    pub(super) work: [Work; BATCH],
    /// Of those of them that are fragments or ICMP errors: the flow, which other packets say themselves.
    pub(super) keys: Box<[FlowKey; BATCH]>,
    /// The slots whose [`Work`] says what was decided.
    pub(super) decided: u64,
    /// One more than the highest index that a real has had: connections to those taken out count, too.
    indices: usize,
    /// The next of them to be shown.
    shown: usize,
    pub(super) reasons: Reasons,
    /// When the last batch or timer was.
    pub(super) now: Time,
    pub(super) teller: Teller,
    pub(super) together: Together,
    /// The look at all connections that somebody has asked for.
    pub(super) walk: Option<Walk>,
}

/// What is known of a packet after the first look, and after the later ones who it went to. Half a cache line: what is
/// rarely asked, the flow's addresses say, is read from the packet again.
#[derive(Clone, Copy)]
pub(super) struct Work {
    pub(super) flow: FlowHash,
    /// The VIP's place in the list.
    pub(super) service: u32,
    /// The real, if `how` says how it was chosen, or if the packet has named it itself.
    pub(super) real: RealId,
    pub(super) how: Option<How>,
    pub(super) signal: Signal,
    pub(super) kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A whole packet of the flow itself.
    Flow,
    /// A fragment of one.
    Fragment,
    /// An ICMP error about a packet of the flow.
    Error,
    /// A packet that has named its real; the connection table takes note of it.
    Named,
    /// A packet that has named its real; the connection table has nothing to do with it.
    Apart,
}

/// Why a packet goes to no real.
pub(super) enum Refused {
    Because(Reason),
    /// It is longer than this many bytes, without Ethernet's.
    TooBig(u32),
}

impl From<Reason> for Refused {
    fn from(reason: Reason) -> Self {
        Self::Because(reason)
    }
}

impl Balancer {
    /// The packets that one holds at most: fragments that wait for the first of their packet.
    pub const HOLDS: usize = WAITING;

    /// A balancer for the worker that is being built.
    ///
    /// # Panics
    /// If the system has no random numbers, without which the connection table is open to attack.
    pub fn new(build: &mut Build<'_>, options: &Options, services: Arc<Services>, monitor: &Monitor) -> Self {
        let nobody = FlowKey::new([0; 4].into(), [0; 4].into(), Protocol::TCP, 0, 0).expect("both are IPv4");
        let idle = Work {
            flow: FlowHash { index: 0, tag: 0 },
            service: 0,
            real: RealId::new(0, 0),
            how: None,
            signal: Signal::Data,
            kind: Kind::Flow,
        };
        let connections = Connections::new(options.capacity, options.timeouts);
        build.table("the connection table", connections.memory_bytes(), connections.page_kind());
        Self {
            connections,
            hasher: options.hasher.unwrap_or_else(|| FlowHasher::random().expect("/dev/urandom can be read")),
            cells: monitor.register(),
            counts: Counts::default(),
            worker: build.worker(),
            workers: build.workers(),
            work: [idle; BATCH],
            keys: Box::new([nobody; BATCH]),
            decided: 0,
            indices: services.reals.len(),
            shown: 0,
            reasons: Reasons::new(build),
            now: Time::ZERO,
            teller: Teller::new(services.too_big),
            together: Together::new(),
            walk: None,
            services,
        }
    }

    /// The connection table.
    pub fn connections(&self) -> &Connections {
        &self.connections
    }

    /// What was made of the packet in this slot, if it was one for a VIP: of the last batch that came here, until the
    /// next one or a new configuration. A packet that was handed over to another worker is decided on there.
    pub fn decision(&self, slot: Slot) -> Option<Decision> {
        if self.decided & slot.bit() == 0 {
            return None;
        }
        let work = &self.work[slot.index()];
        let vip = self.services.list.get(work.service as usize)?.vip;
        Some(Decision { vip, real: work.how.map(|_| work.real), how: work.how })
    }

    /// The hash by which the connection table knows a flow.
    pub(super) fn hash_of(&self, flow: &FlowKey) -> FlowHash {
        self.hasher.hash(flow)
    }

    /// The first look: settles what is for no real, and gets the connection's memory on its way. `TUNNELLED`: the
    /// packet has been taken out of a tunnel, and is not taken out of another.
    // What was parsed, and the flow, are passed to no function that is not inlined: by reference, they would have to be
    // in memory for all packets, and not in registers. They ask the packet for it once more, which is cheap.
    #[inline(always)]
    pub(super) fn look<const TUNNELLED: bool>(
        &mut self,
        slot: Slot,
        packet: &mut Packet<'_>,
    ) -> Result<(), Refused> {
        let parsed = packet.parsed().map_err(|error| self.reasons.malformed.reason(error))?;
        if !parsed.is_plain() {
            return self.look_at_unusual::<TUNNELLED>(slot, packet);
        }
        let signal = if parsed.protocol() == Some(Protocol::TCP) {
            signal_of_tcp(packet, &parsed)
        } else {
            if !TUNNELLED
                && self.services.tunnels.is_some()
                && let Some(outcome) = self.look_inside(slot, packet)
            {
                return outcome;
            }
            Signal::Datagram
        };
        let no_vip = self.reasons.no_vip;
        let (found, flow) = if parsed.is_ipv4() {
            let key = plain_flow_v4(packet.bytes(), &parsed).ok_or(no_vip)?;
            (self.services.service_of_v4(&key), self.hasher.hash_v4(&key))
        } else {
            let key = plain_flow_v6(packet.bytes(), &parsed).ok_or(no_vip)?;
            (self.services.service_of_v6(&key), self.hasher.hash_v6(&key))
        };
        self.admit(slot, packet, &parsed, found, flow, signal, Kind::Flow)
    }

    /// [`admit`](Self::admit) for those that are no plain packets of a flow.
    #[inline(never)]
    pub(super) fn admit_unusual(
        &mut self,
        slot: Slot,
        packet: &mut Packet<'_>,
        key: &FlowKey,
        signal: Signal,
        kind: Kind,
    ) -> Result<(), Refused> {
        let parsed = packet.parsed().map_err(|error| self.reasons.malformed.reason(error))?;
        let (found, flow) = (self.services.service_of(key), self.hasher.hash(key));
        self.keys[slot.index()] = *key;
        self.admit(slot, packet, &parsed, found, flow, signal, kind)
    }

    /// Takes note of what the later looks are to do.
    #[inline(always)]
    #[allow(clippy::too_many_arguments, reason = "in a structure they would be in memory")]
    fn admit(
        &mut self,
        slot: Slot,
        packet: &mut Packet<'_>,
        parsed: &Parsed,
        found: Option<Found>,
        flow: FlowHash,
        signal: Signal,
        kind: Kind,
    ) -> Result<(), Refused> {
        let found = found.ok_or(self.reasons.no_vip)?;
        self.connections.prefetch(flow);
        let (service, real) = (found.index(), RealId::new(0, 0));
        self.work[slot.index()] = Work { flow, service, real, how: None, signal, kind };
        if length(parsed) > self.services.client_mtu {
            return Err(self.too_long(slot));
        }
        if found.reads_packets() && kind != Kind::Error {
            self.read_server_id(slot, packet);
        }
        Ok(())
    }

    /// The second look: sends a packet to the real that its flow has, if that is in the first place to look. `None`:
    /// it is one for the third look.
    #[inline(always)]
    fn forward_known(
        &mut self,
        slot: Slot,
        packet: &mut Packet<'_>,
        batch: BatchFacts,
    ) -> Option<Result<(), Refused>> {
        let work = &mut self.work[slot.index()];
        if work.kind != Kind::Flow {
            return None;
        }
        let real = self.connections.lookup_first(work.flow, work.signal, batch.now)?;
        let place = self.services.real(real).filter(|real| real.keeps(work.signal))?;
        work.real = place.id;
        work.how = Some(How::Connection);
        self.counts.chosen[How::Connection as usize] += 1;
        Some(match packet.parsed() {
            Ok(parsed) => deliver(place, packet, &parsed, parsed.hash(), &self.cells, &self.reasons),
            Err(error) => Err(self.reasons.malformed.reason(error).into()),
        })
    }

    /// The third look: finds the real of any packet, and sends it there.
    #[inline(never)]
    fn forward(&mut self, slot: Slot, packet: &mut Packet<'_>, batch: BatchFacts) -> Result<(), Refused> {
        let Work { flow, signal, kind, .. } = self.work[slot.index()];
        if kind != Kind::Flow {
            return self.forward_unusual(slot, packet, batch);
        }
        let parsed = packet.parsed().map_err(|error| self.reasons.malformed.reason(error))?;
        let (real, how) = match self.connections.lookup(flow, signal, batch.now) {
            Some(real) if self.keeps(real, signal) => (real, How::Connection),
            _ => {
                let key = flow_key(packet.bytes(), &parsed).ok_or(self.reasons.no_vip)?;
                self.choose_anew(slot, &key, batch.now)?
            }
        };
        self.deliver_to(real, how, slot, packet, &parsed, parsed.hash())
    }

    /// Chooses a real for a flow that has none, and takes note of it.
    #[inline]
    pub(super) fn choose_anew(
        &mut self,
        slot: Slot,
        key: &FlowKey,
        now: Tick,
    ) -> Result<(RealId, How), Reason> {
        let Work { flow, service, signal, .. } = self.work[slot.index()];
        let (real, how) = self.services.choose(service, key).ok_or(self.reasons.no_real)?;
        self.connections.insert(flow, real, signal, now);
        self.cells.opened(real);
        Ok((real, how))
    }

    /// Takes note of the real, and sends the packet there.
    #[inline(always)]
    pub(super) fn deliver_to(
        &mut self,
        real: RealId,
        how: How,
        slot: Slot,
        packet: &mut Packet<'_>,
        parsed: &Parsed,
        entropy: u64,
    ) -> Result<(), Refused> {
        let work = &mut self.work[slot.index()];
        work.real = real;
        work.how = Some(how);
        self.counts.chosen[how as usize] += 1;
        let place = self.services.real(real).ok_or(self.reasons.no_real)?;
        deliver(place, packet, parsed, entropy, &self.cells, &self.reasons)
    }

    /// Settles a packet that goes to no real.
    #[inline(always)]
    pub(super) fn refuse(&mut self, batch: &mut Batch, slot: Slot, refused: Refused) {
        let reason = match refused {
            Refused::Because(reason) => reason,
            Refused::TooBig(mtu) => {
                self.tell_too_big(batch, slot, mtu);
                self.reasons.too_big
            }
        };
        batch.packet(slot).drop(reason);
    }
}

/// What is the same for all packets of a batch.
#[derive(Clone, Copy)]
pub(super) struct BatchFacts {
    pub(super) now: Tick,
    pub(super) seed: crate::packet::HashSeed,
}

/// The length of the packet from its IP header on, without padding.
#[inline(always)]
pub(super) fn length(parsed: &Parsed) -> usize {
    let (start, end) = parsed.ip_bounds();
    end - start
}

/// What a TCP packet says of its flow.
#[inline(always)]
pub(super) fn signal_of_tcp(packet: &Packet<'_>, parsed: &Parsed) -> Signal {
    let flags = parsed.transport().and_then(|tcp| packet.bytes().get(tcp + 13)).copied();
    Signal::of_tcp_flags(flags.unwrap_or(0))
}

/// Sends a packet to a real. `entropy` is the same for all packets of its flow, on whatever worker.
#[inline(always)]
fn deliver(
    place: &Place,
    packet: &mut Packet<'_>,
    parsed: &Parsed,
    entropy: u64,
    cells: &Cells,
    reasons: &Reasons,
) -> Result<(), Refused> {
    let way = place.way.as_ref().ok_or(reasons.no_next_hop)?;
    way.send(packet, parsed, entropy).map_err(|refusal| match refusal {
        Refusal::TooBig => Refused::TooBig(way.room()),
        Refusal::NoHeadroom => reasons.no_headroom.into(),
        Refusal::Trailing => reasons.trailing.into(),
    })?;
    cells.sent(way.id, length(parsed) as u64);
    Ok(())
}

impl Stage for Balancer {
    fn process(&mut self, batch: &mut Batch) {
        self.now = batch.now();
        let facts = BatchFacts { now: Tick::at(self.now), seed: batch.hash_seed };
        self.decided = 0;
        for slot in batch.live() {
            let mut packet = batch.packet(slot);
            if let Err(refused) = self.look::<false>(slot, &mut packet) {
                self.refuse(batch, slot, refused);
            }
        }
        let ready: Slots = batch.live();
        self.decided |= ready.mask();
        let (mut rest, mut shares_of_rest) = (0, 0);
        for slot in ready {
            let mut packet = batch.packet(slot);
            // The table is asked for a flow's packets in their order: behind one for the third look, all of its flow
            // wait for that, and a few others, for a bit stands for a 64th of all flows.
            let share = 1_u64 << (self.work[slot.index()].flow.index >> 58);
            let known =
                if shares_of_rest & share == 0 { self.forward_known(slot, &mut packet, facts) } else { None };
            match known {
                Some(Ok(())) => {}
                Some(Err(refused)) => self.refuse(batch, slot, refused),
                None => {
                    rest |= slot.bit();
                    shares_of_rest |= share;
                }
            }
        }
        for slot in Slots::new(rest) {
            let mut packet = batch.packet(slot);
            if let Err(refused) = self.forward(slot, &mut packet, facts) {
                self.refuse(batch, slot, refused);
            }
        }
        if self.together.is_busy() {
            self.bring_together(batch);
        }
    }

    fn tick(&mut self, batch: &mut Batch) {
        self.now = batch.now();
        self.connections.tick(Tick::at(self.now));
        // A slice each time: with very many reals a look at all of them would hold packets up.
        let end = (self.shown + self.indices.div_ceil(PUBLISH_OVER)).min(self.indices);
        self.cells.publish_reals(self.shown..end, &self.connections);
        self.shown = if end == self.indices { 0 } else { end };
        self.cells.publish(&self.connections, &self.counts);
        if self.walk.is_some() {
            self.go_on_walking(self.now);
        }
        if self.together.waits() {
            self.release_waiting(batch, false);
        }
    }

    fn configure(&mut self, snapshot: &Snapshot) {
        if let Some(services) = snapshot.of::<Services>() {
            self.indices = self.indices.max(services.reals.len());
            self.teller.configure(services.too_big);
            self.services = services;
            self.decided = 0;
            // All of them: from now on a real that was taken out gets no connection, so that what is shown of it
            // is never too low, and its identity is not given away too early.
            self.cells.publish_reals(0..self.indices, &self.connections);
            self.cells.publish(&self.connections, &self.counts);
        }
        if let Some(inspection) = snapshot.of::<Inspection>() {
            self.inspect(inspection);
        }
    }

    fn drain(&mut self, batch: &mut Batch) -> bool {
        self.cells.publish(&self.connections, &self.counts);
        if self.together.waits() {
            self.release_waiting(batch, true);
        }
        !self.together.waits()
    }

    /// An answer to a client. More are made where there is room; at the rate at which they are allowed one in each
    /// batch will do.
    fn creates(&self) -> usize {
        1
    }

    fn holds(&self) -> usize {
        Self::HOLDS
    }

    fn name(&self) -> &'static str {
        "balancer"
    }
}
