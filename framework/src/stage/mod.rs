//! Stages: the steps of a pipeline.
//!
//! A stage sees whole batches, settles the packets that are its business and leaves the others
//! live for the stages after it. It knows batches and packets, never sockets, and no other stage.

pub mod balancer;
mod malformed;
mod pipeline;

pub use malformed::Malformed;
pub(crate) use pipeline::Probe;
pub use pipeline::{Pipeline, StageCounters};

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use crate::batch::Batch;

/// A step of the pipeline. Only [`process`](Self::process) must be written.
///
/// ```
/// use afx::{Batch, Stage};
///
/// /// Sends every packet back to where it came from.
/// struct Mirror;
///
/// impl Stage for Mirror {
///     fn process(&mut self, batch: &mut Batch) {
///         for slot in batch.live() {
///             let mut packet = batch.packet(slot);
///             packet.swap_mac_addresses();
///             packet.transmit(packet.ingress());
///         }
///     }
/// }
/// ```
pub trait Stage {
    /// Looks at the live packets of a batch; called when there is at least one. May settle, change,
    /// create, duplicate and hold packets, and release held ones.
    fn process(&mut self, batch: &mut Batch);

    /// Called about every millisecond ([`RuntimeBuilder::tick`](crate::RuntimeBuilder::tick)): for timers. A
    /// worker that sleeps because nothing comes, and whose stages hold no packet, calls it every ten. Packets that it creates or releases go through
    /// the stages after this one.
    fn tick(&mut self, _batch: &mut Batch) {}

    /// A new configuration has been published, between two batches. A stage takes the types it knows
    /// ([`Snapshot::of`]) and keeps only the newest of each.
    fn configure(&mut self, _snapshot: &Snapshot) {}

    /// The worker is stopping: release what is held. Called once a turn until all stages say `true` (nothing
    /// left) or the time for it is over.
    fn drain(&mut self, _batch: &mut Batch) -> bool {
        true
    }

    /// All stages are through with the batch, and its packets are still readable: for capture and drop
    /// sampling. That a port does not take a packet (`tx_full`, `tx_refused`, `no_queue`) shows only
    /// after this, in the counters.
    fn observe(&mut self, _batch: &Batch) {}

    /// How many packets the stage may want to create, duplicate or release per batch: so many slots
    /// are kept free. 0 unless said.
    fn creates(&self) -> usize {
        0
    }

    /// How many packets the stage may hold at most: frames are kept for so many of the longest. 0 unless said.
    fn holds(&self) -> usize {
        0
    }

    /// What the statistics call the stage: its type's name unless said.
    fn name(&self) -> &'static str {
        let name = std::any::type_name::<Self>();
        name.split('<').next().and_then(|path| path.rsplit("::").next()).unwrap_or(name)
    }
}

impl<S: Stage + ?Sized> Stage for Box<S> {
    fn process(&mut self, batch: &mut Batch) {
        (**self).process(batch);
    }
    fn tick(&mut self, batch: &mut Batch) {
        (**self).tick(batch);
    }
    fn configure(&mut self, snapshot: &Snapshot) {
        (**self).configure(snapshot);
    }
    fn drain(&mut self, batch: &mut Batch) -> bool {
        (**self).drain(batch)
    }
    fn observe(&mut self, batch: &Batch) {
        (**self).observe(batch);
    }
    fn creates(&self) -> usize {
        (**self).creates()
    }
    fn holds(&self) -> usize {
        (**self).holds()
    }
    fn name(&self) -> &'static str {
        (**self).name()
    }
}

/// A configuration as the control side has published it: immutable, of any type.
#[derive(Clone)]
pub struct Snapshot(Arc<dyn Any + Send + Sync>);

impl Snapshot {
    pub(crate) fn new(value: Arc<dyn Any + Send + Sync>) -> Self {
        Self(value)
    }

    /// The type of the configuration.
    pub(crate) fn kind(&self) -> std::any::TypeId {
        (*self.0).type_id()
    }

    /// The configuration, if it is of type `T`.
    pub fn of<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        self.0.clone().downcast().ok()
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Snapshot")
    }
}
