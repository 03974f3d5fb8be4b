//! Health checks: whether servers answer, asked again and again.
//!
//! A [`Checker`] is given a list of [`Target`]s. It checks each by TCP, HTTP, HTTPS, ICMP, or with a program,
//! and says which are up: in [`Event`]s when that changes, and in [`Checker::states`] at any time. What a
//! target is, and what follows when it is down, is the caller's affair.
//!
//! ```
//! use std::net::TcpListener;
//! use std::time::Duration;
//!
//! use afx::control::health::{Check, Checker, Kind, State, Target};
//!
//! let server = TcpListener::bind("127.0.0.1:0")?;
//! let server = server.local_addr()?;
//!
//! let checker = Checker::start()?;
//! let check = Check { interval: Duration::from_millis(500), ..Check::new(Kind::Tcp { port: server.port() }) };
//! checker.set(vec![Target { key: "first", address: server.ip(), check, initially: State::Unknown }])?;
//!
//! let event = checker.events().recv()?;
//! assert_eq!((event.key, event.to), ("first", State::Up));
//! assert_eq!(checker.states()[0].failed, 0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # States
//!
//! From [`State::Unknown`] the first result decides. After that it takes [`Check::rise`] good results in a
//! row to come up, and [`Check::fall`] bad ones to go down. With [`Flaps`], a target that goes down so often
//! within some time is held down: its checks go on, and the first good one after that time brings it up if
//! those before were good.
//!
//! A check that could not be made says nothing of its target: no descriptor or port is left, or the program
//! does not exist. The state stays what it is, and such checks are counted ([`Status::unable`]) and warned of
//! in the log.
//!
//! # Schedule
//!
//! First checks of targets that come together are 5 ms apart, or spread evenly over the interval where that
//! is less. Each interval varies by [`Check::jitter_percent`].
//!
//! One thread does all that can be done without waiting: connections, HTTP, TLS, ICMP, and watching programs.
//! A server that hangs costs a socket until its time is up, not a thread; so hung checks delay no others,
//! however many they are. What bounds the number of targets is the work of that thread. With 1,000 targets
//! every 2 s, half of them hung for 1 s, it takes 2 % of a core for ICMP, 4 % for TCP and HTTP, and 9 % for
//! HTTPS without verification: on a busy virtual machine with two cores, no check began more than 34 ms after
//! it was due.
//!
//! Programs are started by four threads besides, which are there as soon as a target needs them: one that is
//! kept waiting by a file system leaves three. They cost what processes cost: 500 a second kept that
//! machine's cores busy, and up to 3 % of these checks began late.
//!
//! Checks that begin late, by more than a tenth of their interval, are counted ([`Status::late`]), and the
//! longest delay is kept.
//!
//! On the average, as many descriptors are open as targets are hung, times timeout by interval; three for
//! each program. Whoever checks thousands sees to `RLIMIT_NOFILE`.
//!
//! # Where
//!
//! Checks run in the network namespace of the thread that called [`Checker::start`]. ICMP takes CAP_NET_RAW,
//! or a group of the process in the namespace's `net.ipv4.ping_group_range`. The latter is used where there
//! are both: the kernel then picks out the checker's own replies, and a flood of others does not reach it.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, bounded};
use nix::sys::eventfd::{EfdFlags, EventFd};

mod check;
mod engine;
mod error;
mod machine;
mod poller;
mod ramp;
mod schedule;
mod target;

pub use error::{Error, Result};
pub use machine::{Flaps, State};
pub use ramp::{next_step, ramp};
pub use target::{Check, Command, Http, Kind, Target, Tls};

use check::tls::TlsSettings;
use engine::{Engine, Request};

/// So many events wait for their reader; see [`Checker::events`].
const MOST_EVENTS: usize = 1024;

/// How a check went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The target answered as it should.
    Good,
    /// It did not; in a sentence, such as "connect to 10.0.0.11:80: connection refused".
    Bad(String),
    /// The check could not be made, which says nothing of the target; why.
    Unable(String),
}

/// A target's state has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event<K> {
    /// Whose.
    pub key: K,
    /// What it was.
    pub from: State,
    /// What it is.
    pub to: State,
    /// Why it went down: the last failure.
    pub why: Option<String>,
    /// When.
    pub at: Instant,
}

/// What is known of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status<K> {
    /// Whose.
    pub key: K,
    /// Its state.
    pub state: State,
    /// Since when.
    pub since: Instant,
    /// Until when it is held down because it kept going down; none when it is not.
    pub held_until: Option<Instant>,
    /// How the last check went; none before the first was over.
    pub last: Option<Outcome>,
    /// When it was over.
    pub last_at: Option<Instant>,
    /// The sentence of the last check that was not good, however long ago.
    pub last_error: Option<String>,
    /// How long the last check took.
    pub duration: Option<Duration>,
    /// Good results in a row.
    pub good: u32,
    /// Bad results in a row.
    pub bad: u32,
    /// Checks that gave a result.
    pub checks: u64,
    /// Those of them that gave a bad one.
    pub failed: u64,
    /// Checks that could not be made.
    pub unable: u64,
    /// Checks that began late by more than a tenth of their interval: the one before had taken longer than
    /// that, or this machine has too much to do.
    pub late: u64,
    /// The longest that a check began after it was due.
    pub longest_delay: Duration,
}

/// Checks targets; see the [module](self). Stops when dropped: running checks are given up, programs killed,
/// threads ended.
#[derive(Debug)]
pub struct Checker<K> {
    /// Closing it ends the thread.
    requests: Option<Sender<Request<K>>>,
    wake: Arc<EventFd>,
    events: Receiver<Event<K>>,
    thread: Option<JoinHandle<()>>,
}

impl<K: Clone + Ord + Send + 'static> Checker<K> {
    /// Starts without targets, in the network namespace of the calling thread.
    ///
    /// # Errors
    /// [`Error::Start`] when the system refuses a descriptor or a thread.
    pub fn start() -> Result<Self> {
        let (requests, asked) = bounded(16);
        let (tell, events) = bounded(MOST_EVENTS);
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let wake = EventFd::from_value_and_flags(0, flags).map_err(|error| Error::Start(error.into()))?;
        let wake = Arc::new(wake);
        let engine = Engine::new(asked, tell, wake.clone()).map_err(Error::Start)?;
        let thread = std::thread::Builder::new().name("afx-health".to_owned());
        let thread = thread.spawn(move || engine.run()).map_err(Error::Start)?;
        Ok(Self { requests: Some(requests), wake, events, thread: Some(thread) })
    }

    /// Says which targets to check, instead of those said before. A target with the key, address and check of
    /// one that is there keeps its state and its schedule; others begin in the state that they say. Of
    /// several with one key, the last counts.
    ///
    /// # Errors
    /// [`Error::Check`] for a check that makes no sense, [`Error::Icmp`], [`Error::NoRoots`] or
    /// [`Error::Tls`] when this machine cannot do what it takes, [`Error::Start`] when threads for programs
    /// are refused. The list before stays in force.
    pub fn set(&self, targets: Vec<Target<K>>) -> Result<()> {
        for Target { address, check, .. } in &targets {
            if let Some(reason) = check.problem(*address) {
                return Err(Error::Check { target: *address, reason });
            }
        }
        // Here and not in the thread: files are read.
        let tls = TlsSettings::of(targets.iter().map(|target| &target.check.kind))?;
        self.ask(|answer| Request::Set(targets, tls, answer)).ok_or(Error::Ended)?
    }

    /// What is known of each target, in the order of their keys. Empty when the checker's thread has
    /// panicked.
    #[must_use]
    pub fn states(&self) -> Vec<Status<K>> {
        self.ask(Request::States).unwrap_or_default()
    }

    fn ask<A>(&self, request: impl FnOnce(Sender<A>) -> Request<K>) -> Option<A> {
        let (answer, answered) = bounded(1);
        self.requests.as_ref()?.send(request(answer)).ok()?;
        wake(&self.wake);
        answered.recv().ok()
    }
}

impl<K> Checker<K> {
    /// Receives an event whenever a target's state has changed. Up to 1024 wait to be received. A reader who
    /// is further behind misses no change for good: he is told later, once for each target, from which state
    /// it came to which.
    ///
    /// An event may name a target that has just been taken off the list. Disconnected when the checker's
    /// thread has ended.
    #[must_use]
    pub fn events(&self) -> &Receiver<Event<K>> {
        &self.events
    }

    /// Stops; the same as dropping it.
    pub fn stop(self) {}
}

impl<K> Drop for Checker<K> {
    fn drop(&mut self) {
        drop(self.requests.take());
        wake(&self.wake);
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that makes health checks had panicked");
        }
    }
}

fn wake(event: &EventFd) {
    // It fails only when it is full of wakings already.
    let _ = event.write(1);
}
