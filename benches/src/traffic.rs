//! A source and a sink of packets on veth, in the kernel: no tool, and no copy.

use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread::JoinHandle;

use afx::packet::{Builder, MacAddress};
use afx_redirect::AttachMode;
use afx_redirect::traffic::{self, Flow, Handle, Pace, Packet, Plan};
use afx_testbed::{Host, Mac};
use anyhow::{Context, Result};

use crate::core::{KERNEL_CORE, pin};
use crate::flows::{Flows, LENGTH};
use crate::random::Random;

/// Counts, and drops, all that arrives on an interface.
pub(crate) struct Sink(traffic::Sink);

impl Sink {
    /// Attaches it, in the driver.
    pub(crate) fn attach(host: &Host, interface: &str) -> Result<Self> {
        let index = host.interface_index(interface)?;
        Ok(Self(host.run(|| traffic::Sink::attach(index, AttachMode::Native))??))
    }

    /// Packets that have arrived so far.
    pub(crate) fn arrived(&self) -> Result<u64> {
        Ok(self.0.arrived()?.packets)
    }
}

/// Sends out of an interface, as fast as the kernel's core can, until dropped.
pub(crate) struct Source {
    handle: Handle,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Source {
    /// Packets of one flow.
    pub(crate) fn start(host: &Host, interface: &str, to: Mac) -> Result<Self> {
        Self::of(host, interface, vec![flow(host.mac(interface)?, to)?])
    }

    /// Packets of `count` flows to one service, in a random order that is the same each time.
    pub(crate) fn of_flows(host: &Host, interface: &str, to: Mac, count: u32) -> Result<Self> {
        let mut packets = Flows::new(host.mac(interface)?.0, to.0);
        let flows = (0..count).map(|flow| Flow::of(packets.packet(flow), &PLAN, flow)).collect();
        Self::of(host, interface, flows)
    }

    fn of(host: &Host, interface: &str, flows: Vec<Flow>) -> Result<Self> {
        let index = host.interface_index(interface)?;
        let host = host.clone();
        let (handle, started) = mpsc::channel();
        let thread = std::thread::spawn(move || host.run(|| send(index, &flows, &handle))?);
        match started.recv() {
            Ok(handle) => Ok(Self { handle, thread: Some(thread) }),
            // It has ended before it began: its result says why.
            Err(_) => match thread.join().expect("the sending thread does not panic") {
                Err(error) => Err(error),
                Ok(()) => anyhow::bail!("the source has ended at once"),
            },
        }
    }

    /// Ends it, and says whether something went wrong meanwhile.
    pub(crate) fn end(mut self) -> Result<()> {
        self.handle.end()?;
        let thread = self.thread.take().context("ended once")?;
        thread.join().expect("the sending thread does not panic")
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = self.handle.end();
            let _ = thread.join();
        }
    }
}

/// What is sent: a UDP packet between documentation addresses, without a UDP checksum, as it stands.
const PLAN: Plan =
    Plan { l3: 14, l4: 34, headers: 42, protocol: 17, ipv4: true, verbatim: true, signature: false };

fn send(interface: u32, flows: &[Flow], started: &mpsc::Sender<Handle>) -> Result<()> {
    pin(KERNEL_CORE)?;
    let mut random = Random::new(1);
    // Each flow comes four times or so before the order repeats.
    let next = |_| Packet { flow: random.below(flows.len()) as u32, length: LENGTH as u16, padding: 0 };
    let order: Vec<Packet> = (0..4 * flows.len()).map(next).collect();
    let pace = Pace { rate: None, burst: 1 };
    let source = traffic::Source::load(interface, &PLAN, pace, flows, &order)?;
    let _ = started.send(source.handle()?);
    Ok(source.run(u64::MAX)?)
}

fn flow(from: Mac, to: Mac) -> Result<Flow> {
    let (source, discard) =
        (SocketAddr::from(([192, 0, 2, 1], 1024)), SocketAddr::from(([198, 51, 100, 1], 9)));
    let packet = Builder::udp(source, discard).macs(MacAddress(from.0), MacAddress(to.0)).without_checksum();
    let mut bytes = [0; LENGTH];
    let payload = [0; LENGTH - 42];
    packet.write(&mut bytes, &payload).context("it is as long as that")?;
    Ok(Flow::of(&bytes, &PLAN, 0))
}
