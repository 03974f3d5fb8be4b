//! Userspace packet processing on AF_XDP: the speed of a kernel-bypass data plane, in safe Rust, on
//! a network card that stays a Linux network card.

#![warn(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a library leaves speaking to its user to the program"
)]

pub mod batch;
#[cfg(feature = "control")]
pub mod control;
#[cfg(feature = "doctor")]
pub mod doctor;
mod error;
pub mod lookup;
mod machine;
pub mod mem;
pub mod packet;
pub mod port;
#[cfg(feature = "settings")]
pub mod settings;
pub mod stage;
pub mod stats;
mod time;
pub mod worker;
#[allow(dead_code, reason = "both ways to reach a ring have the same methods, used or not")]
mod xsk;

pub use batch::{BATCH, Batch, DropReason, Held, Origin, Packet, Reason, Slot, Verdict};
pub use error::{Error, Result};
#[cfg(any(test, feature = "testing"))]
pub use port::{MemoryPeer, MemoryPort};
pub use port::{Port, PortId};
pub use stage::{Pipeline, Snapshot, Stage};
pub use stats::Stats;
pub use time::Time;
pub use worker::{HugePages, Idle, Inline, Running, Runtime, RuntimeBuilder, WorkerId};
#[cfg(all(feature = "testing", not(loom)))]
#[doc(hidden)]
pub use xsk::compare::{LibraryRings, MemoryRings, NativeRings};
