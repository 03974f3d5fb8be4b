//! AF_XDP: sockets, their rings, and the memory of their frames.
//!
//! This module speaks of descriptors and addresses alone. Whose turn it is to
//! touch a frame, and what the bytes in it mean, is for the layers above.
#![allow(unsafe_code, reason = "rings are memory shared with the kernel; each block says why it holds")]

pub(crate) mod anonymous;
pub(crate) mod far;
pub(crate) mod frames;
mod cursor;
pub(crate) mod ring;
mod sync;

use bytemuck::{Pod, Zeroable};

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
