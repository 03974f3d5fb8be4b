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

/// Bytes of a packet, the checksum that a wire would carry left out.
pub(crate) const LENGTH: usize = 60;

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
    pub(crate) fn start(host: &Host, interface: &str, to: Mac) -> Result<Self> {
        let index = host.interface_index(interface)?;
        let flow = flow(host.mac(interface)?, to)?;
        let host = host.clone();
        let (handle, started) = mpsc::channel();
        let thread = std::thread::spawn(move || host.run(|| send(index, &flow, &handle))?);
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

fn send(interface: u32, flow: &Flow, started: &mpsc::Sender<Handle>) -> Result<()> {
    pin(KERNEL_CORE)?;
    let order = [Packet { flow: 0, length: LENGTH as u16, padding: 0 }];
    let pace = Pace { rate: None, burst: 1 };
    let source = traffic::Source::load(interface, &PLAN, pace, &[*flow], &order)?;
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
