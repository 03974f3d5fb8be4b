//! The memory port: rings in anonymous memory, for tests without a NIC and without root, and for
//! measuring the framework alone.

use std::sync::{Mutex, PoisonError};

use super::{Demand, Port, Queue, Received, Sent, rings};
use crate::batch::{BATCH, Batch};
use crate::error::{Error, Result};
use crate::mem::Pool;
use crate::time::Time;
use crate::worker::Memory;
use crate::xsk::far::{self, Far, Near};
use crate::xsk::frames::FrameRings;

/// A port whose other end is a [`MemoryPeer`] in the same process.
///
/// ```
/// use afx::{Batch, MemoryPort, Runtime, Stage};
///
/// struct Mirror;
/// impl Stage for Mirror {
///     fn process(&mut self, batch: &mut Batch) {
///         for slot in batch.live() {
///             let mut packet = batch.packet(slot);
///             packet.swap_mac_addresses();
///             packet.transmit(packet.ingress());
///         }
///     }
/// }
///
/// # fn main() -> afx::Result<()> {
/// let (port, mut peer) = MemoryPort::new("cable");
/// let mut worker = Runtime::builder().port(port).pipeline(|_| Mirror).inline()?;
/// worker.turn(); // lends frames to the port
/// assert!(peer.send(&[[1; 6], [2; 6], [3; 6]].concat()));
/// worker.turn();
/// assert_eq!(peer.receive(), Some([[2; 6], [1; 6], [3; 6]].concat()));
/// # Ok(())
/// # }
/// ```
pub struct MemoryPort {
    name: String,
    fill_level: u32,
    clock: Option<Time>,
    /// The near sides, until a worker takes them.
    queues: Mutex<Vec<Option<Near>>>,
}

impl MemoryPort {
    /// A port of one queue with rings of 2,048 descriptors, and its peer.
    pub fn new(name: &str) -> (Self, MemoryPeer) {
        let (port, mut peers) = Self::with_queues(name, 1, 2048);
        (port, peers.remove(0))
    }

    /// A port of several queues with rings of `ring_size` descriptors (a power of two), and the queues'
    /// peers.
    pub fn with_queues(name: &str, queues: usize, ring_size: u32) -> (Self, Vec<MemoryPeer>) {
        let (mut near, mut peers) = (Vec::new(), Vec::new());
        for _ in 0..queues {
            let (queue, far) = far::queue(ring_size);
            near.push(Some(queue));
            peers.push(MemoryPeer { far, segment: usize::MAX });
        }
        (Self { name: name.into(), fill_level: ring_size, clock: None, queues: Mutex::new(near) }, peers)
    }

    /// Has the port bring a clock of its own, which stands still at `time`: for runs that are to be the same each
    /// time.
    #[must_use]
    pub fn at(self, time: Time) -> Self {
        Self { clock: Some(time), ..self }
    }
}

impl Port for MemoryPort {
    fn name(&self) -> &str {
        &self.name
    }

    fn prepare(&self, _frame_size: usize) -> Result<Vec<u32>> {
        self.queues()
    }

    fn queues(&self) -> Result<Vec<u32>> {
        Ok((0..self.queues.lock().unwrap_or_else(PoisonError::into_inner).len() as u32).collect())
    }

    fn demand(&self, _copying: bool) -> Demand {
        Demand::of_rings(self.fill_level)
    }

    fn open(&self, queue: u32, memory: &Memory) -> Result<Box<dyn Queue>> {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(near) = queues.get_mut(queue as usize).and_then(Option::take) else {
            return Err(Error::config(format!("memory port {}: queue {queue} is open already", self.name)));
        };
        let rings = near.open(memory.region(), memory.frame_size());
        Ok(Box::new(MemoryQueue {
            rings,
            begun: rings::Begun::Nothing,
            level: self.fill_level,
            clock: self.clock,
        }))
    }
}

struct MemoryQueue {
    rings: FrameRings,
    begun: rings::Begun,
    level: u32,
    clock: Option<Time>,
}

impl Queue for MemoryQueue {
    fn receive(&mut self, batch: &mut Batch, max: usize) -> Received {
        rings::receive(&mut self.rings, batch, max, &mut self.begun)
    }

    fn room_to_send(&mut self) -> u32 {
        self.rings.room_to_send(BATCH as u32).min(BATCH as u32)
    }

    fn transmit(&mut self, batch: &mut Batch, mask: u64) -> Sent {
        rings::transmit(&mut self.rings, batch, mask, u32::MAX)
    }

    fn service(&mut self, pool: &mut Pool) -> u64 {
        rings::service(&mut self.rings, pool, self.level);
        0
    }

    fn clock(&self) -> Option<Time> {
        self.clock
    }
}

/// The other end of a queue of a [`MemoryPort`]: what the network is to a card.
pub struct MemoryPeer {
    far: Far,
    segment: usize,
}

impl MemoryPeer {
    /// Delivers packets longer than `bytes` in several segments, as a card does with jumbo frames.
    pub fn segment_at(&mut self, bytes: usize) {
        self.segment = bytes.max(1);
    }

    /// Sends a packet to the port. False where the port cannot take it now: no worker has opened it
    /// yet, has lent it no frame, or is behind.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        self.far.deliver(self.segment, bytes, false)
    }

    /// Sends the beginning of a packet, which goes on with what is sent next; else as [`send`](Self::send).
    pub fn send_beginning(&mut self, bytes: &[u8]) -> bool {
        self.far.deliver(self.segment, bytes, true)
    }

    /// The next packet that the port has sent.
    pub fn receive(&mut self) -> Option<Vec<u8>> {
        let mut packet = Vec::new();
        let mut more = true;
        let mut any = false;
        while more {
            let taken = self.far.collect(1, |bytes, continued| {
                packet.extend_from_slice(bytes);
                more = continued;
            });
            if taken == 0 {
                break;
            }
            any = true;
        }
        any.then_some(packet)
    }

    /// Shows up to `max` segments that the port has sent, without copying them; returns how many.
    pub fn inspect(&mut self, max: u32, mut each: impl FnMut(&[u8])) -> u32 {
        self.far.collect(max, |bytes, _| each(bytes))
    }

    /// Plays a null device: delivers up to `count` packets of `len` bytes, with whatever their frames
    /// hold, and takes back what was sent, unseen. Returns how many were delivered.
    ///
    /// # Panics
    /// If a frame has no room for `len` bytes.
    pub fn null(&mut self, count: u32, len: u32) -> u32 {
        self.far.collect_unread(u32::MAX);
        self.far.deliver_unwritten(count, len)
    }
}
