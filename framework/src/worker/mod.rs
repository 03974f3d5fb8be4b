//! Workers: pinned threads that run packets to completion.

mod clock;
mod door;
mod frames;
mod hand_over;
mod huge_pages;
mod idle;
mod inline;
mod mailbox;
mod making;
mod memory;
mod plan;
mod run;
mod running;
mod runtime;
mod turn;

pub use huge_pages::HugePages;
pub use idle::Idle;
pub use inline::Inline;
pub use making::Build;
pub use memory::{Memory, MemoryStatus};
pub use plan::PlannedWorker;
pub use running::{Running, Status};
pub use runtime::{Pipelined, PlannedMemory, Runtime, RuntimeBuilder};
#[cfg(feature = "doctor")]
pub(crate) use {
    frames::memory_of,
    huge_pages::Supply,
    plan::{Cores, Share, plan},
};

/// A worker of a runtime, by its number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(pub(crate) u8);

impl WorkerId {
    /// Workers of one runtime at most.
    pub const MAX: usize = 256;

    /// The worker number `index`, from 0.
    ///
    /// # Panics
    /// If `index` is not below [`WorkerId::MAX`].
    pub fn new(index: usize) -> Self {
        Self(u8::try_from(index).expect("at most 256 workers"))
    }

    /// The worker's number, from 0.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}
