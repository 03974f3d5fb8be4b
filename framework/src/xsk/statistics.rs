//! What the kernel counts for each socket.

use std::io;
use std::os::fd::RawFd;

use bytemuck::{Pod, Zeroable};

use super::sockopt;

/// The kernel's counters of one socket: `struct xdp_statistics` of `linux/if_xdp.h`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Pod, Zeroable)]
#[non_exhaustive]
pub(crate) struct Statistics {
    /// Packets dropped on their way in for other reasons than those below.
    pub rx_dropped: u64,
    /// Descriptors in the fill ring that the kernel refused.
    pub rx_invalid_descs: u64,
    /// Descriptors in the TX ring that the kernel refused.
    pub tx_invalid_descs: u64,
    /// Packets dropped because the RX ring was full (0 before Linux 5.9).
    pub rx_ring_full: u64,
    /// Times that the fill ring had no frame for a packet (0 before Linux 5.9).
    pub rx_fill_ring_empty_descs: u64,
    /// Times that the TX ring was found empty (0 before Linux 5.9).
    pub tx_ring_empty_descs: u64,
}

impl Statistics {
    pub(super) fn read(fd: RawFd) -> io::Result<Self> {
        Ok(sockopt::read::<Self>(fd, libc::SOL_XDP, libc::XDP_STATISTICS)?.0)
    }
}
