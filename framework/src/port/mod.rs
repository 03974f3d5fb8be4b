//! Ports: network interfaces, and stand-ins for them.
//!
//! A port has queues; each queue is one RX/TX pair and belongs to one worker. Every kind of port gives
//! the worker the same [`Queue`], so that a pipeline runs unchanged on a card, in memory or over a
//! capture file.

mod demand;
#[cfg(any(test, feature = "testing"))]
mod memory;
#[cfg(feature = "pcap")]
mod pcap;
mod rings;
mod route;
mod xdp;

pub use demand::Demand;
pub(crate) use demand::{Grouped, RING_SIZE};
#[cfg(any(test, feature = "testing"))]
pub use memory::{MemoryPeer, MemoryPort};
#[cfg(feature = "pcap")]
pub use pcap::{
    CaptureError, CaptureFormat, CaptureReader, CaptureWriter, Captured, Contents as CaptureContents,
    PcapPort,
};
pub use route::carries_default_route;
pub use xdp::{LongPackets, MultiBuffer, XdpPort};
#[cfg(feature = "doctor")]
pub(crate) use xdp::{frame_size_of, longest_mtu};

pub use crate::xsk::{BusyPoll, Mode, ModeWanted};
pub use afx_redirect::{
    AttachMode, Coexist, Counters as RedirectCounters, OnStall, Protocol, Rule, RxMetadata, Steering,
};

use std::os::fd::BorrowedFd;

use crate::batch::{Batch, MAX_PORTS};
use crate::error::{Error, Result};
use crate::mem::Pool;
use crate::time::Time;
use crate::worker::Memory;

/// Bytes of a frame, unless said, or a card needs more.
pub(crate) const FRAME_SIZE: usize = 2048;

/// A port of a runtime: the order in which ports were given to its builder.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortId(pub(crate) u8);

impl PortId {
    /// The port number `index`: ports are numbered in the order in which a builder is given them.
    ///
    /// # Panics
    /// If `index` is not below [`MAX_PORTS`].
    pub fn new(index: usize) -> Self {
        assert!(index < MAX_PORTS, "at most {MAX_PORTS} ports");
        Self(index as u8)
    }

    /// The port's number, from 0.
    #[inline(always)]
    pub fn index(self) -> usize {
        // The mask tells the compiler that tables of `MAX_PORTS` need no bounds check.
        usize::from(self.0) & (MAX_PORTS - 1)
    }
}

/// A kind of port. The methods are the framework's own affair: a user makes a port and gives it to
/// [`RuntimeBuilder::port`](crate::RuntimeBuilder::port).
pub trait Port: Send + Sync {
    /// What errors and statistics call the port.
    #[doc(hidden)]
    fn name(&self) -> &str;
    /// Looks at what is there and says which queues the port will have. On the control side, before
    /// any worker starts. Packets will have `frame_size` bytes, less what is kept free before them.
    #[doc(hidden)]
    fn prepare(&self, frame_size: usize) -> Result<Vec<u32>>;
    /// Packets longer than a frame of that size, in bytes, which the port takes.
    #[doc(hidden)]
    fn long_packets(&self, _frame_size: usize) -> Option<LongPackets> {
        None
    }
    /// Bytes that a frame has to have for it, where nothing else is said.
    #[doc(hidden)]
    fn frame_size(&self) -> usize {
        FRAME_SIZE
    }
    /// The queues that it would have, where nothing is changed to find out.
    #[doc(hidden)]
    fn queues(&self) -> Result<Vec<u32>> {
        Ok(vec![0])
    }
    /// The frames that each of its queues can have in use. `copying` is whether all ports of a worker are in copy mode
    /// because one of them knows no other.
    #[doc(hidden)]
    fn demand(&self, _copying: bool) -> Demand {
        Demand::of_rings(RING_SIZE)
    }
    /// The NUMA node that its card is at.
    #[doc(hidden)]
    fn node(&self) -> Option<u32> {
        None
    }
    /// Whether the port's frames must lie in a UMEM.
    #[doc(hidden)]
    fn needs_umem(&self) -> bool {
        false
    }
    /// Opens one queue. On the worker's thread.
    #[doc(hidden)]
    fn open(&self, queue: u32, memory: &Memory) -> Result<Box<dyn Queue>>;
    /// Lets traffic in: all queues are open.
    #[doc(hidden)]
    fn attach(&self) -> Result<()> {
        Ok(())
    }
    /// Keeps further traffic out; what has arrived is still received. May be called twice.
    #[doc(hidden)]
    fn detach(&self) {}
    /// Keeps further traffic off one queue, whose worker is about to end; what has arrived is still received. What
    /// comes on it later meets with what a stalled worker's packets do.
    #[doc(hidden)]
    fn close(&self, _queue: u32) {}
    /// Takes other traffic from now on, where the port has a choice.
    #[doc(hidden)]
    fn steer(&self, _steering: &Steering) -> Result<()> {
        Err(Error::config(format!("port {} takes all that comes: it cannot be steered", self.name())))
    }
    /// The network interface that the port is, if it is one.
    #[doc(hidden)]
    fn interface(&self) -> Option<&str> {
        None
    }
    /// Each queue has its worker: queues and the cores that their workers are pinned to.
    #[doc(hidden)]
    fn placed(&self, _cores: &[(u32, usize)]) -> Result<()> {
        Ok(())
    }
    /// What the redirect program has counted, where the port has one.
    #[doc(hidden)]
    fn redirect_counters(&self) -> Option<RedirectCounters> {
        None
    }
    /// How the port came up, for whoever asks: mode, what was missing.
    #[doc(hidden)]
    fn status(&self) -> Vec<(String, String)> {
        Vec::new()
    }
    /// Settings of the interface that the port has changed, and will put back.
    #[doc(hidden)]
    fn changes(&self) -> Vec<Change> {
        Vec::new()
    }
}

/// A setting that a port has changed, and puts back when the runtime has stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change {
    /// What it is called: `channels`.
    pub setting: String,
    /// What it was.
    pub before: String,
    /// What it is.
    pub value: String,
}

/// One RX/TX pair of a port, as its worker drives it.
#[doc(hidden)]
pub trait Queue {
    /// Moves up to `max` received packets into the empty batch.
    fn receive(&mut self, batch: &mut Batch, max: usize) -> Received;
    /// How many packets of one segment [`transmit`](Self::transmit) is sure to take now; [`BATCH`](crate::BATCH) stands for more.
    fn room_to_send(&mut self) -> u32;
    /// Takes the packets of `mask` to be sent, and says which it took.
    fn transmit(&mut self, batch: &mut Batch, mask: u64) -> Sent;
    /// Once a turn: takes back what was sent, lends frames for receiving, wakes the kernel where it
    /// asks for that. Returns how many system calls that took.
    fn service(&mut self, pool: &mut Pool) -> u64;
    /// Tells the redirect program that the worker lives.
    fn beat(&mut self) {}
    /// What to sleep on: readable when packets are there.
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
    /// Packets that the kernel dropped before they came here.
    fn kernel_dropped(&self) -> u64 {
        0
    }
    /// The clock that the port brings: a capture's.
    fn clock(&self) -> Option<Time> {
        None
    }
    /// Whether no packet will ever come again: the end of a capture.
    fn finished(&self) -> bool {
        false
    }
}

/// What one call of [`Queue::receive`] has moved.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, Default)]
pub struct Received {
    pub(crate) packets: usize,
    /// Descriptors that they took; as many as were asked for where there may be more.
    pub(crate) taken: usize,
    pub(crate) bytes: u64,
    /// Packets of which a descriptor named no frame: nothing of them is kept.
    pub(crate) bad: u64,
    /// Packets for which no frame was free, where the port itself copies them into frames.
    pub(crate) no_frame: u64,
}

/// What one call of [`Queue::transmit`] has taken.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, Default)]
pub struct Sent {
    /// Which packets.
    pub(crate) mask: u64,
    /// Which the port can never send: too short, too many segments.
    pub(crate) refused: u64,
    pub(crate) bytes: u64,
    /// System calls made.
    pub(crate) wakeups: u64,
}
