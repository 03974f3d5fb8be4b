//! The applications under measurement: each runs in a process of its own, as the peer's does.

use std::time::Duration;

use afx::port::{BusyPoll, Steering, XdpPort};
use afx::worker::Build;
use afx::{Batch, Idle, PortId, Reason, Runtime, Stage};
use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

use crate::core::APPLICATION_CORE;
use crate::memory::Mirror;

/// What an application does with packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Drops them.
    Drop,
    /// Sends them back.
    Echo,
    /// Sends them out of the other of two ports.
    Forward,
}

/// What an application does when nothing comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Waiting {
    /// Asks on.
    Busy,
    /// Sleeps.
    Adaptive,
}

/// Runs an application until killed.
#[derive(Debug, Args)]
pub(crate) struct App {
    kind: Kind,
    interfaces: Vec<String>,
    #[arg(long, default_value = "busy")]
    idle: Waiting,
    /// Descriptors in the RX and the TX ring.
    #[arg(long)]
    ring: Option<u32>,
    /// Frames lent to the kernel.
    #[arg(long)]
    fill: Option<u32>,
    /// Packets that a busy poll takes at most.
    #[arg(long)]
    budget: Option<u32>,
    /// Microseconds that a busy poll takes at most.
    #[arg(long)]
    microseconds: Option<u32>,
}

/// Drops everything.
struct Discard(Reason);

impl Stage for Discard {
    fn process(&mut self, batch: &mut Batch) {
        for slot in batch.live() {
            batch.packet(slot).drop(self.0);
        }
    }
}

/// Sends everything out of the other port, with new MAC addresses: what testpmd does in its mode `mac`.
struct Forward {
    ports: [PortId; 2],
}

impl Stage for Forward {
    fn process(&mut self, batch: &mut Batch) {
        const ADDRESSES: [u8; 12] = [2, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 1];
        for slot in batch.live() {
            let mut packet = batch.packet(slot);
            let to = if packet.ingress() == self.ports[0] { self.ports[1] } else { self.ports[0] };
            if let Some(addresses) = packet.bytes_mut_same_flow().first_chunk_mut::<12>() {
                *addresses = ADDRESSES;
            }
            packet.transmit(to);
        }
    }
}

impl App {
    pub(crate) fn run(&self) -> Result<()> {
        let idle = match self.idle {
            Waiting::Busy => Idle::Busy,
            Waiting::Adaptive => Idle::ADAPTIVE,
        };
        let mut builder = Runtime::builder().idle(idle).cores([APPLICATION_CORE]);
        for interface in &self.interfaces {
            let mut port = XdpPort::new(interface, Steering::All).queues([0]);
            if let Some(ring) = self.ring {
                port = port.ring_size(ring);
            }
            if let Some(fill) = self.fill {
                port = port.fill_level(fill);
            }
            if self.budget.is_some() || self.microseconds.is_some() {
                let default = BusyPoll::default();
                port = port.busy_poll(BusyPoll {
                    budget: self.budget.unwrap_or(default.budget),
                    microseconds: self.microseconds.unwrap_or(default.microseconds),
                });
            }
            builder = builder.port(port);
        }
        let kind = self.kind;
        let running = builder
            .pipeline(move |build: &mut Build<'_>| -> Vec<Box<dyn Stage>> {
                vec![match kind {
                    Kind::Drop => {
                        let reason =
                            build.drop_reason("bench.discarded", "The measurement wants them dropped.");
                        Box::new(Discard(reason))
                    }
                    Kind::Echo => Box::new(Mirror),
                    Kind::Forward => {
                        let mut ports = build.ports().map(|(port, _)| port);
                        let mut next = || ports.next().expect("two ports, as checked before");
                        Box::new(Forward { ports: [next(), next()] })
                    }
                }]
            })
            .start()
            .context("starting the runtime")?;
        for status in running.status() {
            eprintln!("{}: {:?}", status.port, status.facts);
        }
        loop {
            std::thread::sleep(Duration::from_secs(1));
            let stats = running.stats();
            eprintln!(
                "{} in, {} out, {} dropped, {:?}",
                stats.received(),
                stats.sent(),
                stats.dropped_total(),
                stats.drops()
            );
        }
    }

    pub(crate) fn check(&self) -> Result<()> {
        let wanted = if self.kind == Kind::Forward { 2 } else { 1 };
        anyhow::ensure!(
            self.interfaces.len() == wanted,
            "expected {wanted} interfaces, not {}",
            self.interfaces.len()
        );
        Ok(())
    }
}
