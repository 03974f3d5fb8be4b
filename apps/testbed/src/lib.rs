//! Emulated networks for tests, benches and demos, made of Linux network namespaces and veth alone.
//!
//! A [`Testbed`] is a network of [`Host`]s, joined by [`Link`]s, some of them perhaps through a [`Switch`]; on its hosts
//! run programs ([`Host::command`]) and parts of this process ([`Host::run`]). Everything has a unique name, so that tests
//! run side by side, and everything goes when the network is dropped or its owner killed.
//!
//! Links are made as AF_XDP and XDP need them: checksum and segmentation offload off, GRO on (see [`End::gro`] and
//! [`End::offloads`]). Hosts begin the same on every machine, whatever its own settings.
//!
//! Needs root (CAP_SYS_ADMIN and CAP_NET_ADMIN), `ip`, `ethtool`, and `tcpdump` for captures.

#![warn(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a library leaves speaking to its user to the program"
)]

mod capture;
#[cfg(feature = "census")]
pub mod census;
mod error;
mod host;
mod huge_pages;
mod interface;
mod link;
mod load;
mod name;
mod namespace;
mod network;
mod process;
mod testbed;
mod tool;
mod topology;
mod wait;

pub use capture::Capture;
pub use error::{Error, Result};
pub use host::{Host, Transport};
pub use huge_pages::HugePages;
pub use interface::{PacketCounters, XdpMode, XdpProgram};
pub use link::{End, Link, Mac};
pub use load::Load;
pub use name::{NetworkId, Owner};
pub use network::{down, sweep};
/// A signal, for [`Process::signal`].
pub use nix::sys::signal::Signal;
pub use process::{Command, Output, Process};
pub use testbed::{HostSummary, Summary, Switch, Testbed, list};
pub use topology::Topology;
pub use wait::{wait_for, wait_for_some};
