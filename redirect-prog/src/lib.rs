//! The XDP programs of afx and their typed loader.
//!
//! [`Redirect`] attaches the redirect program to a port, says which packets are steered to AF_XDP sockets, and
//! takes the sockets; [`Decap`] attaches the program that a load balancer's server uses to take the outer
//! headers off IP-in-IP and IP-in-UDP packets. Both are attached through a bpf_link: whatever way the process ends, the
//! program goes with it, and nothing is pinned. A program that was on the interface before is left alone unless
//! [`Coexist`] says otherwise.
//!
//! This crate knows BPF, and nothing above it does: no type of libbpf is part of its interface.
//!
//! Needs Linux 6.1, CAP_NET_ADMIN, CAP_BPF and CAP_PERFMON (or root). Interfaces are named by their index in
//! the network namespace of the calling thread.
//!
//! ```no_run
//! use std::os::fd::BorrowedFd;
//! use afx_redirect::{Options, Protocol, Redirect, Rule, Steering};
//!
//! # fn example(ifindex: u32, socket: BorrowedFd<'_>) -> Result<(), afx_redirect::Error> {
//! let https = Rule::new("192.0.2.1".parse::<std::net::IpAddr>().unwrap(), Some(443), Some(Protocol::TCP))?;
//! let redirect = Redirect::attach(ifindex, &Steering::Match(vec![https]), &Options::default())?;
//! let beat = redirect.beat(0)?;
//! redirect.register(0, socket)?;
//! loop {
//!     // Take packets off the socket, then say that this worker is alive:
//!     beat.beat();
//! #   break;
//! }
//! # Ok(())
//! # }
//! ```

#![warn(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a library leaves speaking to its user to the program"
)]

mod beat;
mod counters;
mod decap;
mod earlier;
mod error;
mod kernel;
mod link;
mod load;
mod matching;
mod metadata;
mod netdev;
mod program;
mod redirect;
mod steering;
mod tables;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(feature = "traffic")]
pub mod traffic;

#[cfg(test)]
mod tests;

pub use beat::Beat;
pub use counters::{Counters, DecapCounters};
pub use decap::{Decap, DecapOptions, OnFragment, TunnelEnds};
pub use earlier::{Coexist, Obstacle};
pub use error::{Error, RuleError};
pub use kernel::{LOWEST_KERNEL, kernel_version};
pub use link::{AttachMode, Attached, Occupant, bpf_answers, interface_index, occupant, zero_copy_segments};
pub use metadata::{Kinds, NoMetadata, Note, Noting, RxHash, RxMetadata, TakenOff};
pub use redirect::{OnStall, Options, Redirect};
pub use steering::{Protocol, Rule, Steering};
