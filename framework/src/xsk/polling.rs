//! Waiting for packets: by asking the card ourselves, or asleep.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use super::sockopt;

/// Preferred busy polling: the worker itself runs the card's receive work,
/// instead of interrupts and softirqs (`SO_PREFER_BUSY_POLL`, Linux 5.11).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BusyPoll {
    /// How long one call may go on asking, in microseconds.
    pub microseconds: u32,
    /// How many packets one call may take.
    pub budget: u32,
}

impl Default for BusyPoll {
    fn default() -> Self {
        Self { microseconds: 20, budget: 64 }
    }
}

impl BusyPoll {
    /// Sets it, and returns what the kernel says it now is.
    pub(super) fn apply(self, fd: RawFd) -> io::Result<Self> {
        sockopt::write(fd, libc::SOL_SOCKET, libc::SO_PREFER_BUSY_POLL, 1)?;
        sockopt::write(fd, libc::SOL_SOCKET, libc::SO_BUSY_POLL, self.microseconds)?;
        sockopt::write(fd, libc::SOL_SOCKET, libc::SO_BUSY_POLL_BUDGET, self.budget)?;
        Ok(Self {
            microseconds: sockopt::read::<u32>(fd, libc::SOL_SOCKET, libc::SO_BUSY_POLL)?.0,
            // It can be set but not read.
            budget: self.budget,
        })
    }
}

/// Sleeps until one of several sockets has received something.
pub(crate) struct Sleeper {
    sockets: Vec<libc::pollfd>,
}

impl Sleeper {
    /// The sockets must live as long as this is used.
    pub(crate) fn new<'a, S: AsRawFd + 'a>(sockets: impl IntoIterator<Item = &'a S>) -> Self {
        let entry = |socket: &S| libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        Self { sockets: sockets.into_iter().map(entry).collect() }
    }

    /// Waits for `timeout` at most (in whole milliseconds, rounded up); whether
    /// any socket has something. A signal ends the wait early.
    ///
    /// # Errors
    ///
    /// The kernel's, which a valid set of sockets does not meet.
    pub(crate) fn wait(&mut self, timeout: Duration) -> io::Result<bool> {
        let milliseconds = timeout.as_nanos().div_ceil(1_000_000).try_into().unwrap_or(i32::MAX);
        let count = self.sockets.len() as libc::nfds_t;
        // SAFETY: the kernel writes `revents` of `count` entries, all ours, during the call.
        let ready = unsafe { libc::poll(self.sockets.as_mut_ptr(), count, milliseconds) };
        if ready < 0 {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::Interrupted { Ok(false) } else { Err(error) };
        }
        Ok(ready > 0)
    }
}
