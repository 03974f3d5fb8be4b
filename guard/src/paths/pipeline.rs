//! The framework alone: a turn of a worker whose stages do next to nothing.

use afx::{Batch, Inline, MemoryPeer, MemoryPort, Pipeline, Runtime, Stage};

use super::BATCH;
use std::time::Duration;

const RING: u32 = 256;
const LENGTH: u32 = 60;

/// Longer than anything runs: timers are not part of what is counted.
pub(super) const NEVER: Duration = Duration::from_secs(1 << 30);

/// Sends every packet back with its MAC addresses exchanged.
struct Mirror;

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

/// How the stages are put together: four of them, the last of which sends the packets back.
pub enum Composition {
    /// As a tuple, known to the compiler.
    Static,
    /// From boxes.
    Dyn,
}

/// A worker that mirrors packets between rings in memory.
pub struct Mirroring {
    worker: Box<dyn Turns>,
    peer: MemoryPeer,
}

/// A worker whose pipeline does not matter.
trait Turns {
    fn turn(&mut self) -> usize;
}

impl<P: Pipeline> Turns for Inline<P> {
    fn turn(&mut self) -> usize {
        Self::turn(self)
    }
}

impl Mirroring {
    /// A worker with the stages put together like that, its first packets waiting.
    pub fn new(composition: Composition) -> Self {
        let (port, mut peers) = MemoryPort::with_queues("null", 1, RING);
        let builder = Runtime::builder().port(port).tick(NEVER);
        let mut worker: Box<dyn Turns> = match composition {
            Composition::Static => Box::new(
                builder
                    .pipeline(|_| (Glance(0), Glance(0), Glance(0), Mirror))
                    .inline()
                    .expect("memory ports open"),
            ),
            Composition::Dyn => Box::new(
                builder
                    .pipeline(|_| -> Vec<Box<dyn Stage>> {
                        vec![Box::new(Glance(0)), Box::new(Glance(0)), Box::new(Glance(0)), Box::new(Mirror)]
                    })
                    .inline()
                    .expect("memory ports open"),
            ),
        };
        worker.turn();
        let mut mirroring = Self { worker, peer: peers.remove(0) };
        // Past the first turns, in which rings and free list are not yet as they are later.
        for _ in 0..16 {
            mirroring.deliver();
            mirroring.run();
        }
        mirroring.deliver();
        mirroring
    }

    /// Has a batch of packets wait, and takes off those sent.
    pub fn deliver(&mut self) {
        let delivered = self.peer.null(BATCH as u32, LENGTH);
        assert_eq!(delivered, BATCH as u32, "the port takes a batch");
    }

    /// One turn: receives, mirrors and sends the packets that wait.
    pub fn run(&mut self) {
        assert_eq!(self.worker.turn(), BATCH);
    }
}
