//! The framework alone: pipelines over a memory port, whose far end is a null device.

use std::sync::Barrier;
use std::time::Duration;

use afx::{Batch, Inline, MemoryPeer, MemoryPort, Pipeline, Runtime, Stage};
use anyhow::{Context, Result, ensure};

use crate::core::{APPLICATION_CORE, KERNEL_CORE, pin, thread_time};
use crate::paired::{Better, alone, rounds};
use crate::row::{Peer, Row};
use crate::run::Run;
use crate::testpmd::{self, Null};

/// Descriptors in the port's rings, and so frames lent to it: as many circulate. testpmd's mempool hands out again what
/// came back last, so that about as many of its buffers stay in the caches (a cache of 250, filled up to half as much
/// again, and what is under way).
pub(crate) const FRAMES: u32 = 512;
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
pub(crate) fn forward_memory(run: &Run<'_>) -> Result<Row> {
    let our_settings = format!(
        "memory port, {FRAMES} frames circulate, batches of {BATCH}, packets of {LENGTH} bytes, core {APPLICATION_CORE}, \
         null device included"
    );
    apart(|| {
        verify()?;
        let version = testpmd::version();
        // Before this thread is pinned: what it starts inherits that.
        let peer = version.is_some().then(Null::start).transpose()?;
        pin(APPLICATION_CORE)?;
        let mut rig = Rig::new(|| Mirror)?;
        rig.nanos_per_packet(run.during / 4)?;
        let settings = peer.as_ref().map(|peer| peer.settings.clone());
        let row = Row::new(run.name, "ns/packet", Better::Less, our_settings).beside(Peer {
            name: testpmd::NAME,
            version,
            settings,
        });
        let ours = || rig.nanos_per_packet(run.during);
        Ok(match peer {
            Some(mut peer) => {
                row.paired(&rounds(run, Better::Less, ours, || peer.nanos_per_packet(run.during))?)
            }
            None => row.alone(&alone(run, ours)?),
        })
    })
}

/// The same stages composed statically and from boxes.
pub(crate) fn static_vs_dyn(run: &Run<'_>) -> Result<Row> {
    apart(|| {
        pin(APPLICATION_CORE)?;
        let mut fixed = Rig::new(|| (Glance(0), Glance(0), Glance(0), Mirror))?;
        let mut boxed = Rig::new(|| -> Vec<Box<dyn Stage>> {
            vec![Box::new(Glance(0)), Box::new(Glance(0)), Box::new(Glance(0)), Box::new(Mirror)]
        })?;
        let result = rounds(
            run,
            Better::Less,
            || fixed.nanos_per_packet(run.during),
            || boxed.nanos_per_packet(run.during),
        )?;
        let settings = format!("four stages as a tuple, over a memory port, core {APPLICATION_CORE}");
        Ok(Row::new(run.name, "ns/packet", Better::Less, settings)
            .beside(Peer {
                name: "afx, Vec<Box<dyn Stage>>",
                version: Some(env!("CARGO_PKG_VERSION").into()),
                settings: Some("the same four stages, boxed".into()),
            })
            .paired(&result))
    })
}

/// Two workers at once, a core each: what each does in a second of processor time, over what it does alone on that
/// core, added up. 2 if neither is in the other's way.
pub(crate) fn two_workers(run: &Run<'_>) -> Result<Row> {
    let figures = alone(run, || {
        let first = on_core(KERNEL_CORE, run.during, None)?;
        let second = on_core(APPLICATION_CORE, run.during, None)?;
        let both = Barrier::new(2);
        let (first_too, second_too) = std::thread::scope(|scope| {
            let other = scope.spawn(|| on_core(KERNEL_CORE, run.during, Some(&both)));
            let this = on_core(APPLICATION_CORE, run.during, Some(&both));
            (other.join().expect("the measuring thread does not panic"), this)
        });
        // Costs: half as fast costs twice as much.
        Ok(first / first_too? + second / second_too?)
    })?;
    let settings = format!(
        "a memory port and a mirror for each of two workers, cores {KERNEL_CORE} and {APPLICATION_CORE}; packets per CPU \
         second of each over those of one alone on its core, added"
    );
    Ok(Row::new(run.name, "workers", Better::More, settings).alone(&figures))
}

/// What a packet costs a worker on this core, in ns. With a barrier it starts when the other one is ready, too.
fn on_core(core: usize, during: Duration, both: Option<&Barrier>) -> Result<f64> {
    apart(|| {
        let ready = || {
            pin(core)?;
            Rig::new(|| Mirror)
        };
        let rig = ready();
        // Whatever became of it, or the other one would wait for ever.
        if let Some(both) = both {
            both.wait();
        }
        rig?.nanos_per_packet(during)
    })
}

/// Does it on a thread of its own, which may be pinned.
pub(crate) fn apart<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| scope.spawn(work).join().expect("the measuring thread does not panic"))
}
