//! What can go wrong with a UMEM or a socket, with the names of what it went wrong on.

use std::io;
use std::time::Duration;

use super::Mode;

/// An AF_XDP socket, or the memory of its frames, could not be had or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Error {
    /// A size or number in the configuration cannot work.
    #[error("{what} cannot be {value}: {expected}")]
    Config {
        /// The setting.
        what: &'static str,
        /// Its value.
        value: u64,
        /// What would be right.
        expected: &'static str,
    },
    /// The UMEM could not be created.
    #[error("{step}")]
    Umem {
        /// What was being done.
        step: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// There is no interface of that name in this network namespace.
    #[error("no interface {interface} in this network namespace")]
    NoSuchInterface {
        /// The name.
        interface: String,
    },
    /// Another socket has the queue, and has kept it for as long as we waited.
    #[error("{interface} queue {queue}: another socket has it bound (waited {waited:.1?})")]
    Busy {
        /// The interface.
        interface: String,
        /// The queue.
        queue: u32,
        /// How long we tried.
        waited: Duration,
    },
    /// Zero-copy was demanded, or is what this UMEM does already, and the driver cannot do it.
    #[error(
        "{interface} queue {queue}: its driver does not do zero-copy; use copy mode for all ports of the worker"
    )]
    ZeroCopyUnavailable {
        /// The interface.
        interface: String,
        /// The queue.
        queue: u32,
        /// The kernel's answer.
        source: io::Error,
    },
    /// As above, of a driver that does zero-copy, and could not set it up.
    #[error(
        "{interface} queue {queue}: its driver could not set zero-copy up; use copy mode for all ports of the worker"
    )]
    ZeroCopyFailed {
        /// The interface.
        interface: String,
        /// The queue.
        queue: u32,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Packets of several frames were asked for in zero-copy mode, and the kernel or the driver does not do both.
    #[error(
        "{interface} queue {queue}: packets of several frames in zero-copy mode take Linux 6.6 or newer, and a driver \
         that has them; leave the mode open, or take packets of one frame"
    )]
    LongZeroCopyUnavailable {
        /// The interface.
        interface: String,
        /// The queue.
        queue: u32,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Packets of several frames were asked for, and the kernel does not know them.
    #[error("{interface} queue {queue}: packets of several frames take Linux 6.6 or newer")]
    MultiBufferUnavailable {
        /// The interface.
        interface: String,
        /// The queue.
        queue: u32,
        /// The kernel's answer.
        source: io::Error,
    },
    /// All sockets of a UMEM work in the mode of the first.
    #[error(
        "{interface} queue {queue}: {demanded} mode demanded, but the first socket on this UMEM is in {bound} mode"
    )]
    ModeFixed {
        /// The interface.
        interface: String,
        /// The queue.
        queue: u32,
        /// The mode asked for.
        demanded: Mode,
        /// The mode that the UMEM is in.
        bound: Mode,
    },
    /// Any other step on the way to a working socket, or a wakeup of one.
    #[error("{interface} queue {queue}: {step}")]
    Socket {
        /// The interface.
        interface: String,
        /// The queue.
        queue: u32,
        /// What was being done.
        step: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl Error {
    /// Whether another mode, or another kind of packets, might do: nothing is bound.
    pub(crate) fn is_of_the_way(&self) -> bool {
        self.is_of_zero_copy()
            || matches!(self, Self::LongZeroCopyUnavailable { .. } | Self::MultiBufferUnavailable { .. })
    }

    /// Whether copy mode might do, for all sockets of a UMEM.
    pub(crate) fn is_of_zero_copy(&self) -> bool {
        matches!(self, Self::ZeroCopyUnavailable { .. } | Self::ZeroCopyFailed { .. })
    }
}
