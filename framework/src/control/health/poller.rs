//! What a thread waits for: descriptors, each with a number to know it by, and the time.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

/// The longest wait at a time: what the kernel counts milliseconds in has room for it.
const LONGEST: Duration = Duration::from_secs(60);
/// So much can be ready at a time; what there is besides is told the next time.
pub(super) const MOST_EVENTS: usize = 256;

/// Level-triggered: what is ready and was left for later is told again. A descriptor is forgotten when it is
/// closed.
pub(super) struct Poller {
    epoll: Epoll,
    events: Vec<EpollEvent>,
}

impl Poller {
    pub(super) fn new() -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        Ok(Self { epoll, events: vec![EpollEvent::empty(); MOST_EVENTS] })
    }

    pub(super) fn add(&self, descriptor: impl AsFd, number: u64, interest: EpollFlags) -> io::Result<()> {
        Ok(self.epoll.add(descriptor, EpollEvent::new(interest, number))?)
    }

    pub(super) fn change(&self, descriptor: impl AsFd, number: u64, interest: EpollFlags) -> io::Result<()> {
        Ok(self.epoll.modify(descriptor, &mut EpollEvent::new(interest, number))?)
    }

    /// Waits until something is ready, or the time has come. Returns the numbers of what is ready.
    pub(super) fn wait(&mut self, until: Option<Instant>) -> io::Result<Vec<u64>> {
        let wait =
            until.map_or(LONGEST, |until| until.saturating_duration_since(Instant::now()).min(LONGEST));
        // Rounded up: woken before its time, it would only wait again.
        let timeout = u16::try_from(wait.as_micros().div_ceil(1000)).unwrap_or(u16::MAX);
        match self.epoll.wait(&mut self.events, EpollTimeout::from(timeout)) {
            Ok(count) => Ok(self.events[..count].iter().map(EpollEvent::data).collect()),
            Err(Errno::EINTR) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }
}
