//! Memory: frames and the pool that owns them, huge-page tables, prefetch, the cycle counter.
//!
//! This folder is one of the two fenced places in which `unsafe` is allowed; what it exports is
//! safe. The central idea is [`Frame`]: a token that stands for exclusive access to one fixed-size
//! slot of a packet memory. It can be neither copied nor made outside the fence, so a packet can
//! not be used twice; and because the memory outlives every token (see [`Pool`]), a token can not
//! dangle either.

#![allow(unsafe_code, reason = "the fence: raw packet memory, huge pages, prefetch and the cycle counter")]

mod aes;
#[cfg(any(test, feature = "testing"))]
mod counting;
mod crossing;
mod cycles;
mod frame;
mod lanes;
mod masked;
mod pages;
mod pool;
mod popcnt;
mod prefetch;
pub(crate) mod spsc;

pub(crate) use aes::Aes128;
#[cfg(any(test, feature = "testing"))]
pub use counting::CountingAllocator;
pub(crate) use cycles::with_cycles;
pub use cycles::{cycles, cycles_per_ns};
pub use frame::Frame;
pub(crate) use lanes::equal_lanes;
pub(crate) use masked::MaskedTable;
pub use pages::{HugeTable, PageKind};
pub(crate) use pages::{LARGE, Pages};
pub(crate) use pool::Region;
pub use pool::{Border, Ledger, Pool};
pub(crate) use popcnt::{Work, with_popcnt};
pub use prefetch::{prefetch_read, prefetch_write};
