//! The workers of a runtime at work: what they share with the control side, and the handle to them.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use super::WorkerId;
use super::hand_over::HandOver;
use super::mailbox::{Command, Mailbox, Waker};
use super::making::{Build, Making};
use super::memory::MemoryStatus;
use super::run::{Others, Run};
use crate::batch::Reasons;
use crate::error::{Error, Result};
use crate::port::{Change, Port, RedirectCounters, Steering};
use crate::stage::{Pipeline, Snapshot};
use crate::stats::{Board, Layout, Stats};
use crate::time::Time;

/// How long a worker may take to finish what is queued when it is told to stop.
const STOP_WITHIN: Duration = Duration::from_secs(2);

/// What a worker shows of itself.
struct Seen {
    layout: Layout,
    memory: MemoryStatus,
    board: Arc<Board>,
}

/// What the handle and the workers share.
pub(super) struct Shared {
    pub(super) ports: Arc<[Box<dyn Port>]>,
    pub(super) reasons: Reasons,
    mailboxes: Vec<Arc<Mailbox>>,
    seen: Vec<OnceLock<Seen>>,
    published: Mutex<Published>,
    /// Why the first worker failed.
    failed: Mutex<Option<Error>>,
    others: Arc<Others>,
}

/// Published configurations that a worker may still hold, with their numbers. Kept here so that the last
/// reference, and with it the freeing, is never a worker's.
#[derive(Default)]
struct Published {
    last: u64,
    kept: Vec<(u64, Snapshot)>,
}

impl Published {
    /// Keeps a new one, and gives it its number.
    fn keep(&mut self, snapshot: Snapshot) -> u64 {
        self.last += 1;
        self.kept.push((self.last, snapshot));
        self.last
    }

    /// Frees what no worker holds any more, where all have taken the one numbered `taken`: a stage keeps the
    /// newest of each type, so a configuration is in use until a later one of its type is taken everywhere.
    fn free(&mut self, taken: u64) {
        let numbers = self.kept.iter().filter(|(number, _)| *number <= taken);
        let in_force: Vec<_> = numbers.map(|(number, snapshot)| (snapshot.kind(), *number)).collect();
        self.kept.retain(|(number, old)| {
            !in_force.iter().any(|(kind, newer)| *kind == old.kind() && newer > number)
        });
    }
}

impl Shared {
    pub(super) fn new(ports: Arc<[Box<dyn Port>]>, wakers: &[Arc<Waker>]) -> Self {
        Self {
            ports,
            reasons: Reasons::new(),
            mailboxes: wakers.iter().map(|waker| Arc::new(Mailbox::new(waker.clone()))).collect(),
            seen: wakers.iter().map(|_| OnceLock::new()).collect(),
            published: Mutex::default(),
            failed: Mutex::new(None),
            others: Arc::new(Others::new(wakers.len())),
        }
    }

    /// The life of a worker's thread.
    pub(super) fn work<P, F>(
        self: Arc<Self>,
        making: &Making<'_, F>,
        hand_over: HandOver,
        ready: &mpsc::Sender<Result<()>>,
    ) where
        P: Pipeline,
        F: Fn(&mut Build<'_>) -> P,
    {
        let worker = making.worker;
        // Whatever a stage leaves behind when it panics, nobody looks at it again.
        let result = catch_unwind(AssertUnwindSafe(|| {
            if let Some(core) = making.shares[worker].core
                && !core_affinity::set_for_current(core_affinity::CoreId { id: core })
            {
                tracing::warn!(worker, core, "could not be pinned to its core");
            }
            let opened = match making.open(hand_over) {
                Ok(opened) => opened,
                Err(error) => {
                    let _ = ready.send(Err(error));
                    return;
                }
            };
            if let Some(on_ready) = &making.settings.on_ready {
                on_ready(WorkerId::new(worker));
            }
            let board = Arc::new(Board::new(opened.layout.words()));
            let seen = Seen { layout: opened.layout, memory: opened.memory, board: board.clone() };
            let mut run = Run {
                turn: opened.turn,
                board,
                mailbox: self.mailboxes[worker].clone(),
                others: self.others.clone(),
                idle: making.settings.idle,
            };
            // Before traffic is let in: the first packets would find no frame.
            run.turn.service();
            run.publish();
            let _ = self.seen[worker].set(seen);
            let _ = ready.send(Ok(()));
            run.run();
        }));
        if let Err(panic) = result {
            self.ports.iter().for_each(|port| port.detach());
            let message = message_of(&*panic);
            tracing::error!(worker, message, "a stage panicked: ports are detached");
            let error = Error::Panicked { worker, message };
            let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
            failed.get_or_insert(error);
            drop(failed);
            let _ = ready.send(Err(Error::Stopped));
            self.stop_all(STOP_WITHIN);
        }
        self.others.ended();
    }

    fn port(&self, name: &str) -> Option<&dyn Port> {
        self.ports.iter().find(|port| port.name() == name).map(|port| &**port)
    }

    /// Keeps traffic out and has all workers finish within that time.
    pub(super) fn stop_all(&self, within: Duration) {
        self.ports.iter().for_each(|port| port.detach());
        let deadline = Time::monotonic() + within;
        for mailbox in &self.mailboxes {
            // `publish` leaves a place: it is full only when the worker has been told before.
            let _ = mailbox.post(Command::Stop(deadline));
        }
    }

    fn stats(&self) -> Stats {
        let read = |seen: &OnceLock<Seen>| {
            seen.get().map(|seen| seen.layout.read(seen.board.read())).unwrap_or_default()
        };
        Stats { workers: self.seen.iter().map(read).collect(), reasons: self.reasons.list() }
    }

    /// The newest configuration that all workers have taken.
    fn taken(&self) -> u64 {
        let generation = |seen: &OnceLock<Seen>| {
            seen.get().map_or(0, |seen| seen.layout.read(seen.board.read()).generation)
        };
        self.seen.iter().map(generation).min().unwrap_or(0)
    }
}

fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}

/// A runtime at work. Dropping the handle stops it, as [`stop`](Self::stop) does.
pub struct Running {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// How a port came up: its name, and what there is to say of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// The port's name.
    pub port: String,
    /// Name and value, in the order in which they are best read.
    pub facts: Vec<(String, String)>,
    /// Settings of its interface that it has changed, and puts back once all is stopped.
    pub changes: Vec<Change>,
}

impl Running {
    pub(super) fn new(shared: Arc<Shared>, threads: Vec<JoinHandle<()>>) -> Self {
        Self { shared, threads: Mutex::new(threads) }
    }

    /// Lets traffic in.
    pub(super) fn attach(&self) -> Result<()> {
        self.shared.ports.iter().try_for_each(|port| port.attach())
    }

    /// Stops at once, because a part of the start has failed. Returns why: a worker's panic says more than
    /// what came of it.
    pub(super) fn abandon(self, error: Error) -> Error {
        self.shared.stop_all(Duration::ZERO);
        self.join().err().unwrap_or(error)
    }

    /// What was counted so far: for each worker as of one moment, at most a few milliseconds ago.
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// How the ports came up: mode bound, queues, what was missing.
    pub fn status(&self) -> Vec<Status> {
        let ports = self.shared.ports.iter();
        let status = ports.map(|port| Status {
            port: port.name().into(),
            facts: port.status(),
            changes: port.changes(),
        });
        status.collect()
    }

    /// The packet memory of each worker.
    pub fn memory(&self) -> Vec<MemoryStatus> {
        self.shared.seen.iter().filter_map(OnceLock::get).map(|seen| seen.memory.clone()).collect()
    }

    /// What the redirect program of a port has counted; None for a port that has none.
    pub fn redirect_counters(&self, port: &str) -> Option<RedirectCounters> {
        self.shared.port(port)?.redirect_counters()
    }

    /// Has a port take other traffic from now on; entries that are in the old and the new steering are in
    /// force throughout.
    ///
    /// # Errors
    /// Where there is no such port, it cannot be steered, or the rules do not fit.
    pub fn steer(&self, port: &str, steering: &Steering) -> Result<()> {
        let Some(port) = self.shared.port(port) else {
            return Err(Error::config(format!("there is no port {port}")));
        };
        port.steer(steering)
    }

    /// Gives all workers a new configuration, which their stages take between two batches
    /// ([`Stage::configure`](crate::Stage::configure)). Returns its number;
    /// [`configured`](Self::configured) tells when it is in force everywhere.
    ///
    /// # Errors
    /// [`Error::Busy`] where a worker has not taken the last fifteen yet; then no worker gets this one.
    /// [`Error::Stopped`] where all have ended, or are about to.
    pub fn publish<T: Any + Send + Sync>(&self, configuration: Arc<T>) -> Result<u64> {
        if self.ended() {
            return Err(Error::Stopped);
        }
        let mut published = self.shared.published.lock().unwrap_or_else(PoisonError::into_inner);
        for (worker, mailbox) in self.shared.mailboxes.iter().enumerate() {
            // One place is left for the command to stop.
            if mailbox.waiting() >= 15 {
                return Err(Error::Busy { worker, waiting: mailbox.waiting() });
            }
        }
        published.free(self.shared.taken());
        let snapshot = Snapshot::new(configuration);
        let number = published.keep(snapshot.clone());
        for mailbox in &self.shared.mailboxes {
            mailbox.post(Command::Configure(snapshot.clone())).map_err(|_| Error::Stopped)?;
        }
        Ok(number)
    }

    /// Whether all workers have taken the configuration of that number. Frees, on the caller's thread, the
    /// configurations that none of them uses any more; [`publish`](Self::publish) does the same.
    pub fn configured(&self, number: u64) -> bool {
        let taken = self.shared.taken();
        self.shared.published.lock().unwrap_or_else(PoisonError::into_inner).free(taken);
        taken >= number
    }

    /// Whether all workers have ended, by themselves or because one panicked.
    pub fn ended(&self) -> bool {
        self.shared.others.all_ended()
    }

    /// Keeps further traffic out, lets the workers finish what is queued, and waits for them.
    ///
    /// # Errors
    /// [`Error::Panicked`] where a worker had failed.
    pub fn stop(self) -> Result<Stats> {
        self.shared.stop_all(STOP_WITHIN);
        self.join()
    }

    /// Waits until all workers have ended: because of a panic, or of [`stop`](Self::stop) on another
    /// thread. Returns what was counted in all.
    ///
    /// # Errors
    /// [`Error::Panicked`] where a worker had failed.
    pub fn join(&self) -> Result<Stats> {
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            // Panics are caught inside.
            let _ = thread.join();
        }
        let failed = self.shared.failed.lock().unwrap_or_else(PoisonError::into_inner).take();
        match failed {
            Some(error) => Err(error),
            None => Ok(self.shared.stats()),
        }
    }

    /// Runs until `stop` says so, asked every ten milliseconds, or a worker fails; then stops.
    ///
    /// # Errors
    /// As [`stop`](Self::stop).
    pub fn run_until(self, mut stop: impl FnMut(&Self) -> bool) -> Result<Stats> {
        while !self.ended() && !stop(&self) {
            std::thread::sleep(Duration::from_millis(10));
        }
        self.stop()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        if !threads.is_empty() {
            self.shared.stop_all(STOP_WITHIN);
            threads.into_iter().for_each(|thread| drop(thread.join()));
        }
    }
}
