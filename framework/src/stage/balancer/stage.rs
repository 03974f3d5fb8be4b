//! The stage: every packet of a batch to its real.

use std::sync::Arc;

use super::connections::{Connections, Signal, Tick, Timeouts};
use super::flow::{FlowHash, FlowHasher};
use super::forward::Refusal;
use super::monitor::{Cells, Monitor};
use super::services::Services;
use crate::batch::{BATCH, Batch, Packet, Reason, Slot, Slots};
use crate::mem::PageKind;
use crate::packet::{FlowKey, Fragment, Parsed, Protocol, embedded_flow, flow_key};
use crate::stage::{Malformed, Snapshot, Stage};
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

/// Bytes of a huge page, on most machines.
const HUGE_PAGE: usize = 2 << 20;

/// The load balancer of one worker. See the [module](super).
pub struct Balancer {
    services: Arc<Services>,
    connections: Connections,
    /// Secret: for the connection table.
    hasher: FlowHasher,
    /// Agreed between balancers: for the tables of the VIPs.
    common: FlowHasher,
    cells: Arc<Cells>,
    worker: WorkerId,
    workers: usize,
    work: [Work; BATCH],
    /// One more than the highest index that a real has had: connections to those taken out count, too.
    indices: usize,
    /// The next of them to be shown.
    shown: usize,
    reasons: Reasons,
}

/// What is known of a packet after the first look.
#[derive(Clone, Copy)]
struct Work {
    flow: FlowHash,
    key: FlowKey,
    parsed: Parsed,
    service: u32,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    /// A packet of the flow itself.
    Flow(Signal),
    /// An ICMP error about a packet of the flow.
    Error,
}

struct Reasons {
    malformed: Malformed,
    not_ip: Reason,
    no_vip: Reason,
    fragment: Reason,
    no_real: Reason,
    no_next_hop: Reason,
    too_big: Reason,
    no_headroom: Reason,
    trailing: Reason,
}

impl Reasons {
    fn new(build: &mut Build<'_>) -> Self {
        let mut reason = |name, sentence| build.drop_reason(name, sentence);
        Self {
            not_ip: reason("balancer.not_ip", "The packet is no IP packet, so it is for no VIP."),
            no_vip: reason("balancer.no_vip", "No VIP has this address, port and protocol."),
            fragment: reason("balancer.fragment", "The packet is a fragment: its flow cannot be told."),
            no_real: reason("balancer.no_real", "The VIP has no real that takes new flows."),
            no_next_hop: reason(
                "balancer.no_next_hop",
                "The way to the real is not known: no route, no answer from its next hop, or it leads to an \
                 interface that is no port.",
            ),
            too_big: reason("balancer.too_big", "The packet and its outer header exceed the MTU of the way."),
            no_headroom: reason("balancer.no_headroom", "The frame has no room for the outer header."),
            trailing: reason(
                "balancer.trailing",
                "The packet came in several segments and is longer than its IP header says.",
            ),
            malformed: Malformed::new(build),
        }
    }
}

impl Balancer {
    /// A balancer for the worker that is being built.
    ///
    /// # Panics
    /// If the system has no random numbers, without which the connection table is open to attack.
    pub fn new(build: &mut Build<'_>, options: &Options, services: Arc<Services>, monitor: &Monitor) -> Self {
        let nobody = FlowKey::new([0; 4].into(), [0; 4].into(), Protocol::TCP, 0, 0).expect("both are IPv4");
        let idle = Work {
            flow: FlowHash { index: 0, tag: 0 },
            key: nobody,
            parsed: crate::packet::parse(&[0; 14]).expect("an Ethernet header alone is well-formed"),
            service: 0,
            kind: Kind::Error,
        };
        let connections = Connections::new(options.capacity, options.timeouts);
        let bytes = connections.memory_bytes();
        if connections.page_kind() == PageKind::Normal && bytes >= HUGE_PAGE {
            tracing::info!(
                worker = build.worker().index(),
                "the connection table lies on ordinary pages, where looking into it takes longer: {} huge \
                 pages of 2 MiB more would hold it (vm.nr_hugepages)",
                bytes.div_ceil(HUGE_PAGE)
            );
        }
        Self {
            connections,
            hasher: options.hasher.unwrap_or_else(|| FlowHasher::random().expect("/dev/urandom can be read")),
            common: FlowHasher::new(services.seed),
            cells: monitor.register(),
            worker: build.worker(),
            workers: build.workers(),
            work: [idle; BATCH],
            indices: services.reals.len(),
            shown: 0,
            reasons: Reasons::new(build),
            services,
        }
    }

    /// The connection table.
    pub fn connections(&self) -> &Connections {
        &self.connections
    }

    /// The first look: settles what is for no real, and gets the connection's memory on its way.
    #[inline(always)]
    fn look(&mut self, slot: Slot, packet: &mut Packet<'_>) -> Result<(), Reason> {
        let parsed = packet.parsed().map_err(|error| self.reasons.malformed.reason(error))?;
        let Some(protocol) = parsed.protocol() else { return Err(self.reasons.not_ip) };
        if parsed.fragment() != Fragment::None {
            return self.fragment(packet, &parsed);
        }
        let (key, kind) = match protocol {
            Protocol::TCP => {
                let flags = parsed.transport().and_then(|tcp| packet.bytes().get(tcp + 13)).copied();
                let key = flow_key(packet.bytes(), &parsed);
                (key, Kind::Flow(Signal::of_tcp_flags(flags.unwrap_or(0))))
            }
            Protocol::ICMP | Protocol::ICMPV6 => {
                let quoted = embedded_flow(packet.bytes(), &parsed);
                (quoted.map(|flow| flow.reversed()), Kind::Error)
            }
            _ => (flow_key(packet.bytes(), &parsed), Kind::Flow(Signal::Datagram)),
        };
        let key = key.ok_or(self.reasons.no_vip)?;
        let service = self.services.service_of(&key).ok_or(self.reasons.no_vip)?;
        let flow = self.hasher.hash(&key);
        self.connections.prefetch(flow);
        self.work[slot.index()] = Work { flow, key, parsed, service, kind };
        Ok(())
    }

    /// Fragments of one packet meet on one worker, whatever queues they came by.
    #[cold]
    fn fragment(&self, packet: &mut Packet<'_>, parsed: &Parsed) -> Result<(), Reason> {
        let owner = WorkerId::new((parsed.hash() % self.workers as u64) as usize);
        if owner != self.worker && packet.origin().hops == 0 {
            packet.hand_over(owner);
            return Ok(());
        }
        Err(self.reasons.fragment)
    }

    /// The second look: finds the real and sends the packet there.
    #[inline(always)]
    fn forward(&mut self, work: &Work, packet: &mut Packet<'_>, now: Tick) -> Result<(), Reason> {
        let known = match work.kind {
            Kind::Flow(signal) => self.connections.lookup(work.flow, signal, now),
            Kind::Error => self.connections.peek(work.flow, now).map(|connection| connection.real),
        };
        let place = match known.and_then(|real| self.services.real(real)) {
            Some(place) => place,
            // Another worker may have the flow: each is asked in turn, the last one decides.
            None if matches!(work.kind, Kind::Error) && known.is_none() && self.asks_on(packet) => {
                return Ok(());
            }
            None => {
                let flow = self.common.hash(&work.key);
                let real = self.services.choose(work.service, flow).ok_or(self.reasons.no_real)?;
                if let Kind::Flow(signal) = work.kind {
                    self.connections.insert(work.flow, real, signal, now);
                    self.cells.opened(real);
                }
                self.services.real(real).ok_or(self.reasons.no_real)?
            }
        };
        let way = place.way.as_ref().ok_or(self.reasons.no_next_hop)?;
        way.send(packet, &work.parsed, work.flow.tag).map_err(|refusal| match refusal {
            Refusal::TooBig => self.reasons.too_big,
            Refusal::NoHeadroom => self.reasons.no_headroom,
            Refusal::Trailing => self.reasons.trailing,
        })?;
        self.cells.sent(way.id, work.parsed.ip_range().map_or(0, |ip| ip.len()) as u64);
        Ok(())
    }

    /// Hands a packet to the next worker, unless all others have had it.
    #[cold]
    fn asks_on(&self, packet: &mut Packet<'_>) -> bool {
        let is_last = usize::from(packet.origin().hops) + 1 >= self.workers;
        if !is_last {
            packet.hand_over(WorkerId::new((self.worker.index() + 1) % self.workers));
        }
        !is_last
    }
}

impl Stage for Balancer {
    fn process(&mut self, batch: &mut Batch) {
        let now = Tick::at(batch.now());
        for slot in batch.live() {
            let mut packet = batch.packet(slot);
            if let Err(reason) = self.look(slot, &mut packet) {
                packet.drop(reason);
            }
        }
        let ready: Slots = batch.live();
        for slot in ready {
            let work = self.work[slot.index()];
            let mut packet = batch.packet(slot);
            if let Err(reason) = self.forward(&work, &mut packet, now) {
                packet.drop(reason);
            }
        }
    }

    fn tick(&mut self, batch: &mut Batch) {
        self.connections.tick(Tick::at(batch.now()));
        // A slice each time: with very many reals a look at all of them would hold packets up.
        let end = (self.shown + self.indices.div_ceil(PUBLISH_OVER)).min(self.indices);
        self.cells.publish_reals(self.shown..end, &self.connections);
        self.shown = if end == self.indices { 0 } else { end };
        self.cells.publish_table(&self.connections);
    }

    fn configure(&mut self, snapshot: &Snapshot) {
        if let Some(services) = snapshot.of::<Services>() {
            self.common = FlowHasher::new(services.seed);
            self.indices = self.indices.max(services.reals.len());
            self.services = services;
            // All of them: from now on a real that was taken out gets no connection, so that what is shown of it
            // is never too low, and its identity is not given away too early.
            self.cells.publish_reals(0..self.indices, &self.connections);
            self.cells.publish_table(&self.connections);
        }
    }

    fn name(&self) -> &'static str {
        "balancer"
    }
}
