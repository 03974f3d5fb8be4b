//! The framework alone: pipelines over a memory port, whose far end is a null device.

use std::time::Duration;

use afx::{Batch, Inline, MemoryPeer, MemoryPort, Pipeline, Runtime, Stage};
use anyhow::{Context, Result, ensure};

use crate::core::{APPLICATION_CORE, pin, thread_time};
use crate::paired::{Better, rounds};
use crate::row::Row;
use crate::testpmd::{self, Null};

/// Descriptors in the port's rings, and so frames lent to it: as many circulate.
const FRAMES: u32 = 4096;
const BATCH: u32 = 64;
const LENGTH: u32 = 60;

/// Sends every packet back with its MAC addresses exchanged.
pub(crate) struct Mirror;

impl Stage for Mirror {
    #[inline(always)]
    fn process(&mut self, batch: &mut Batch) {
        for slot in batch.live() {
            let mut packet = batch.packet(slot);
            packet.swap_mac_addresses();
            packet.transmit(packet.ingress());
        }
    }
}

/// Looks at every packet's length and leaves it live.
struct Glance(u64);

impl Stage for Glance {
    #[inline(always)]
    fn process(&mut self, batch: &mut Batch) {
        for slot in batch.live() {
            self.0 = self.0.wrapping_add(batch.bytes(slot).len() as u64);
        }
    }
}

/// A worker on this thread, and the null device that it works on.
struct Rig<P> {
    worker: Inline<P>,
    peer: MemoryPeer,
}

impl<P: Pipeline> Rig<P> {
    fn new(pipeline: impl Fn() -> P + Send + Sync + 'static) -> Result<Self> {
        let (port, mut peers) = MemoryPort::with_queues("null", 1, FRAMES);
        let peer = peers.pop().context("a port of one queue has one peer")?;
        let mut worker = Runtime::builder().port(port).pipeline(move |_| pipeline()).inline()?;
        worker.turn();
        let lent = worker.stats().workers[0].ledger.receive.outside();
        ensure!(lent >= i64::from(FRAMES), "only {lent} frames circulate");
        Ok(Self { worker, peer })
    }

    /// Processor time per packet in ns, over a while, the null device's part included.
    // A call of its own, so that the loop is compiled the same wherever it is called from.
    #[inline(never)]
    fn nanos_per_packet(&mut self, during: Duration) -> Result<f64> {
        let (start, mut packets) = (thread_time()?, 0u64);
        loop {
            for _ in 0..4096 {
                packets += u64::from(self.peer.null(BATCH, LENGTH));
                self.worker.turn();
            }
            let spent = thread_time()? - start;
            if spent >= during {
                ensure!(self.worker.stats().balanced(), "frames are missing");
                return Ok(spent.as_nanos() as f64 / packets as f64);
            }
        }
    }
}

/// Distinct packets through the mirror come out with their addresses exchanged and all else as it was.
fn verify() -> Result<()> {
    let Rig { mut worker, mut peer } = Rig::new(|| Mirror)?;
    let packet = |number: u32| -> Vec<u8> {
        (0..LENGTH).map(|at| (number.wrapping_mul(2_654_435_761) >> (at % 24)) as u8 ^ at as u8).collect()
    };
    for first in (0..3 * FRAMES).step_by(BATCH as usize) {
        for number in first..first + BATCH {
            ensure!(peer.send(&packet(number)), "packet {number} was not taken");
        }
        worker.turn();
        for number in first..first + BATCH {
            let sent = packet(number);
            let expected = [&sent[6..12], &sent[..6], &sent[12..]].concat();
            ensure!(peer.receive() == Some(expected), "packet {number} came out wrong");
        }
        worker.turn();
    }
    Ok(())
}

/// The mirror against testpmd's over net_null.
pub(crate) fn forward_memory(count: usize, during: Duration) -> Result<Row> {
    verify()?;
    let our_settings = format!(
        "memory port, rings of {FRAMES}, {FRAMES} frames circulating, batches of {BATCH}, packets of {LENGTH} \
         bytes; processor time, null device included"
    );
    std::thread::scope(|scope| {
        let work = || -> Result<Row> {
            let version = testpmd::version();
            // Before this thread is pinned: what it starts inherits that.
            let peer = version.is_some().then(Null::start).transpose()?;
            pin(APPLICATION_CORE)?;
            let mut rig = Rig::new(|| Mirror)?;
            rig.nanos_per_packet(during / 4)?;
            let mut row = Row {
                name: "forward-memory-vs-testpmd-null".into(),
                ours: 0.0,
                our_settings,
                peer: None,
                peer_name: Some(testpmd::NAME.into()),
                peer_version: version,
                peer_settings: None,
                unit: "ns/packet".into(),
                ratio: None,
                ratio_low: None,
                ratio_high: None,
                rounds: count,
            };
            match peer {
                Some(mut peer) => {
                    row.peer_settings = Some(peer.settings.clone());
                    let result = rounds(
                        &row.name,
                        count,
                        Better::Less,
                        || rig.nanos_per_packet(during),
                        || peer.nanos_per_packet(during),
                    )?;
                    row.fill(&result);
                }
                None => row.ours = rig.nanos_per_packet(during)?,
            }
            Ok(row)
        };
        scope.spawn(work).join().expect("the measuring thread does not panic")
    })
}

/// The same stages composed statically and from boxes.
pub(crate) fn static_vs_dyn(count: usize, during: Duration) -> Result<Row> {
    std::thread::scope(|scope| {
        let work = || -> Result<Row> {
            pin(APPLICATION_CORE)?;
            let mut fixed = Rig::new(|| (Glance(0), Glance(0), Glance(0), Mirror))?;
            let mut boxed = Rig::new(|| -> Vec<Box<dyn Stage>> {
                vec![Box::new(Glance(0)), Box::new(Glance(0)), Box::new(Glance(0)), Box::new(Mirror)]
            })?;
            let name = "pipeline-static-vs-dyn";
            let result = rounds(
                name,
                count,
                Better::Less,
                || fixed.nanos_per_packet(during),
                || boxed.nanos_per_packet(during),
            )?;
            let mut row = Row {
                name: name.into(),
                ours: 0.0,
                our_settings: "four stages as a tuple, over a memory port".into(),
                peer: None,
                peer_name: Some("afx, Vec<Box<dyn Stage>>".into()),
                peer_version: Some(env!("CARGO_PKG_VERSION").into()),
                peer_settings: Some("the same four stages, boxed".into()),
                unit: "ns/packet".into(),
                ratio: None,
                ratio_low: None,
                ratio_high: None,
                rounds: count,
            };
            row.fill(&result);
            Ok(row)
        };
        scope.spawn(work).join().expect("the measuring thread does not panic")
    })
}
