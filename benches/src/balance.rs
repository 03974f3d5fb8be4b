//! The load balancer alone: its stage over a memory port, and its table.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use afx::packet::{FlowKey, MacAddress, Protocol};
use afx::stage::balancer::connections::{Connections, Signal, Tick, Timeouts};
use afx::stage::balancer::flow::FlowHasher;
use afx::stage::balancer::real::RealId;
use afx::stage::balancer::{
    Balancer, Definition, Directory, Forwarding, Hop, Monitor, Options, RealDefinition, Services, Settings,
    Vip,
};
use afx::{Inline, MemoryPeer, MemoryPort, Pipeline, PortId, Runtime, Time};
use anyhow::{Context, Result, ensure};

use crate::core::{APPLICATION_CORE, pin, thread_time};
use crate::flows::{Flows, LENGTH, VIP};
use crate::memory::{FRAMES, Mirror, apart};
use crate::paired::{Better, alone};
use crate::random::Random;
use crate::row::Row;
use crate::run::Run;

/// One place of a batch is the balancer's own, for an answer to a client.
const BATCH: usize = afx::BATCH - 1;
const REALS: u8 = 100;

pub(crate) fn flows_1k(run: &Run<'_>) -> Result<Row> {
    balance(run, 1_000)
}

pub(crate) fn flows_100k(run: &Run<'_>) -> Result<Row> {
    balance(run, 100_000)
}

pub(crate) fn flows_1m(run: &Run<'_>) -> Result<Row> {
    balance(run, 1_000_000)
}

pub(crate) fn flows_8m(run: &Run<'_>) -> Result<Row> {
    balance(run, 8_000_000)
}

/// What a packet of one of `count` known flows costs the balancer.
fn balance(run: &Run<'_>, count: u32) -> Result<Row> {
    let settings = format!(
        "Balancer over a memory port, IPIP to {REALS} reals, UDP packets of {LENGTH} bytes (64 with FCS), {FRAMES} frames \
         circulate, core {APPLICATION_CORE}; rings and null device included; what writing the packets takes is measured \
         in each round by a mirror with and without it, and taken off"
    );
    let figures = apart(|| {
        pin(APPLICATION_CORE)?;
        let monitor = Monitor::new();
        let mut balancer = {
            let (options, services) = (options(count), Arc::new(services()?));
            let monitor = monitor.clone();
            Rig::new(count, move |build| Balancer::new(build, &options, services.clone(), &monitor))?
        };
        balancer.open_all()?;
        let mut mirror = Rig::new(count, |_| Mirror)?;
        let figures = alone(run, || {
            let all = balancer.written(run.during)?;
            let writing = mirror.written(run.during / 2)? - mirror.unwritten(run.during / 2)?;
            Ok(all - writing)
        })?;
        // One tick of the worker's clock is a millisecond: what was counted is published.
        balancer.worker.turn();
        let table = monitor.table();
        ensure!(
            table.inserted == u64::from(count),
            "{} connections were made of {count} flows: not all packets were of known ones",
            table.inserted
        );
        Ok(figures)
    })?;
    let mut row = Row::new(run.name, "ns/packet", Better::Less, settings).alone(&figures);
    row.flows = Some(count.into());
    Ok(row)
}

/// A table with room for them all, which forgets none meanwhile.
fn options(count: u32) -> Options {
    let hour = Duration::from_secs(60 * 60);
    let timeouts = Timeouts { opening: hour, established: hour, closing: hour, datagram: hour };
    Options { capacity: count as usize, timeouts, hasher: None }
}

/// One VIP, its reals behind the only port.
fn services() -> Result<Services> {
    let real = |number| RealDefinition::new(IpAddr::from([10, 0, 0, number]), 1);
    let vip = Vip::host(IpAddr::V4(VIP), 9, Protocol::UDP);
    let definition = Definition::new(vip, (1..=REALS).map(real).collect());
    let settings = Settings::new(Forwarding::Ipip { source_v4: None, source_v6: None });
    let hop = Hop {
        port: PortId::new(0),
        source_mac: MacAddress([2, 0, 0, 0, 0, 1]),
        destination_mac: MacAddress([2, 0, 0, 0, 0, 2]),
        source: Some(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1))),
        mtu: 1500,
    };
    Directory::new().services(&[definition], &settings, |_, _| Some(hop)).context("defining the VIP")
}

/// A worker on this thread, and the far end that writes packets of random flows.
struct Rig<P> {
    worker: Inline<P>,
    peer: MemoryPeer,
    flows: Flows,
    count: usize,
    random: Random,
}

impl<P: Pipeline> Rig<P> {
    fn new(
        count: u32,
        pipeline: impl Fn(&mut afx::worker::Build<'_>) -> P + Send + Sync + 'static,
    ) -> Result<Self> {
        let (port, mut peers) = MemoryPort::with_queues("port", 1, FRAMES);
        let peer = peers.pop().context("a port of one queue has one peer")?;
        let mut worker = Runtime::builder().port(port).pipeline(pipeline).inline()?;
        worker.turn();
        let (flows, random) = (Flows::new([2; 6], [2; 6]), Random::new(u64::from(count)));
        Ok(Self { worker, peer, flows, count: count as usize, random })
    }

    /// Sends a packet of each flow.
    fn open_all(&mut self) -> Result<()> {
        for first in (0..self.count).step_by(BATCH) {
            for flow in first..(first + BATCH).min(self.count) {
                ensure!(self.peer.send(self.flows.packet(flow as u32)), "packet {flow} was not taken");
            }
            self.turn();
        }
        Ok(())
    }

    /// Takes back what was sent before, unseen, and has the worker do a batch.
    #[inline(always)]
    fn turn(&mut self) {
        self.worker.turn();
        self.peer.null(0, LENGTH as u32);
    }

    /// Processor time per packet, packets of random flows written by this thread included.
    fn written(&mut self, during: Duration) -> Result<f64> {
        self.cost(during, |rig| {
            let mut taken = 0;
            for _ in 0..BATCH {
                let flow = rig.random.below(rig.count) as u32;
                taken += u64::from(rig.peer.send(rig.flows.packet(flow)));
            }
            taken
        })
    }

    /// The same, with whatever the frames hold.
    fn unwritten(&mut self, during: Duration) -> Result<f64> {
        self.cost(during, |rig| u64::from(rig.peer.null(BATCH as u32, LENGTH as u32)))
    }

    // A call of its own, so that the loop is compiled the same wherever it is called from.
    #[inline(never)]
    fn cost(&mut self, during: Duration, mut deliver: impl FnMut(&mut Self) -> u64) -> Result<f64> {
        let before = self.worker.stats().sent();
        let (start, mut packets) = (thread_time()?, 0);
        loop {
            for _ in 0..1024 {
                packets += deliver(self);
                self.turn();
            }
            let spent = thread_time()? - start;
            if spent >= during {
                let stats = self.worker.stats();
                ensure!(stats.balanced(), "frames are missing");
                let sent = stats.sent() - before;
                ensure!(sent == packets, "{sent} of {packets} packets were sent on: {:?}", stats.drops());
                return Ok(spent.as_nanos() as f64 / packets as f64);
            }
        }
    }
}

/// What a full table for 2^20 connections takes of memory, by the kernel's account of this process.
pub(crate) fn memory_per_connection(run: &Run<'_>) -> Result<Row> {
    const COUNT: u32 = 1 << 20;
    let hasher = FlowHasher::new([1, 2]);
    let mut pages = String::new();
    let figures = alone(run, || {
        let before = resident()?;
        let mut table = Connections::new(COUNT as usize, Timeouts::default());
        let now = Tick::at(Time::monotonic());
        for flow in 0..COUNT {
            let client = Ipv4Addr::from(flow.wrapping_mul(0x9e37_79b1));
            let key = FlowKey::new(client.into(), IpAddr::V4(VIP), Protocol::TCP, 40_000, 443)
                .context("both addresses are of IPv4")?;
            table.insert(hasher.hash(&key), RealId::new(1, 0), Signal::Open, now);
        }
        ensure!(table.len() == COUNT as usize, "{} of {COUNT} connections have found room", table.len());
        pages = format!("{:?}", table.page_kind()).to_lowercase();
        Ok(resident()?.saturating_sub(before) as f64 / f64::from(COUNT))
    })?;
    let settings = format!(
        "Connections of capacity {COUNT}, full, {pages} pages; VmRSS and HugetlbPages of the process"
    );
    Ok(Row::new(run.name, "bytes", Better::Less, settings).alone(&figures))
}

/// Bytes of memory that this process has, huge pages included.
fn resident() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status").context("reading /proc/self/status")?;
    let kib = |name: &str| -> Result<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        number.with_context(|| format!("/proc/self/status has no number for {name}"))
    };
    Ok((kib("VmRSS:")? + kib("HugetlbPages:")?) * 1024)
}
