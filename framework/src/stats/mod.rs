//! Statistics: what workers count, and the snapshot that readers get.
//!
//! A worker counts in its own memory and now and then copies all of it to a board, under a
//! sequence lock: the reader sees groups that agree with each other (the ledger above all), and the
//! worker never waits.

mod board;
mod counters;
#[cfg(feature = "metrics")]
pub mod metrics;

pub(crate) use board::Board;
pub(crate) use counters::{Layout, QueueCounters, WorkerCounters};
pub use counters::{QueueStats, Stats, WorkerStats};

/// One of an application's own counters, registered when the pipeline is built
/// ([`Build::counter`](crate::worker::Build::counter)) and added to by
/// [`Batch::count`](crate::Batch::count).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counter(pub(crate) u16);
