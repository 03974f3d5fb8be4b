//! AF_XDP: sockets, their rings, and the memory of their frames.
//!
//! This module speaks of descriptors and addresses alone. Whose turn it is to
//! touch a frame, and what the bytes in it mean, is for the layers above: they
//! give a frame's address to a ring only while they hold the frame.
//!
//! ```text
//!                     ┌── FILL ◄── frames to receive into
//!   kernel  ◄─ rings ─┼── RX ────► packets received
//!                     ├── TX ◄──── packets to send
//!                     └── COMPLETION ► frames sent
//! ```
//!
//! Needs Linux 5.4; what later kernels add is used where it is there.
#![allow(unsafe_code, reason = "rings are memory shared with the kernel; each block says why it holds")]

pub(crate) mod access;
pub(crate) mod anonymous;
#[cfg(all(feature = "testing", not(loom)))]
pub(crate) mod compare;
mod cursor;
mod error;
#[cfg(feature = "settings")]
pub(crate) mod ethtool;
pub(crate) mod far;
pub(crate) mod frames;
mod grace;
pub(crate) mod interface;
pub(crate) mod library;
pub(crate) mod mapped;
mod numa;
mod polling;
pub(crate) mod ring;
mod socket;
mod sockopt;
mod statistics;
pub(crate) mod sync;
#[cfg(all(test, not(loom)))]
mod test_net;
mod umem;

use std::fmt;

use bytemuck::{Pod, Zeroable};

pub(crate) use error::Error;
pub(crate) use grace::polls_have_ended;
pub(crate) use numa::{current_node, node_of};
pub use polling::BusyPoll;
pub use socket::ModeWanted;
pub(crate) use socket::{Granted, RingAccess, Socket, SocketConfig, Wake};
pub(crate) use statistics::Statistics;
pub(crate) use umem::{Pages, Umem, UmemConfig};

/// How packets come from the driver to the UMEM and back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The card reads and writes the frames itself.
    ZeroCopy,
    /// The kernel copies each packet. Works with every driver.
    Copy,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ZeroCopy => "zero-copy",
            Self::Copy => "copy",
        })
    }
}

/// One entry of an RX or TX ring: `struct xdp_desc` of `linux/if_xdp.h`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Pod, Zeroable)]
pub(crate) struct Descriptor {
    /// Where the bytes begin, from the start of the UMEM.
    pub(crate) addr: u64,
    /// How many bytes.
    pub(crate) len: u32,
    /// `XDP_PKT_CONTD` (1) if the packet goes on in the next descriptor.
    pub(crate) options: u32,
}
