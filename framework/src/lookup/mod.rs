//! Tables that stages look packets up in.
//!
//! [`PrefixTable`] finds the longest prefix that an address is in: routes, block lists, networks and their owners.

mod address;
mod bulk;
mod cells;
mod prefix;
mod runs;
#[cfg(test)]
mod tests;

pub use address::Address;
pub use prefix::{PrefixError, PrefixTable};
