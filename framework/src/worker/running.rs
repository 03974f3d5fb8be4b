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
use crate::stats::{Board, Layout, Stats, WorkerStats};
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
struct Published {
    last: u64,
    kept: Vec<(u64, Snapshot)>,
    /// By worker: whether it was told to stop alone, and gets none any more.
    left_out: Vec<bool>,
}

impl Published {
    fn new(workers: usize) -> Self {
        Self { last: 0, kept: Vec::new(), left_out: vec![false; workers] }
    }

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
            published: Mutex::new(Published::new(wakers.len())),
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
                worker,
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
        self.others.ended(worker);
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

    /// Keeps traffic off one worker's queues and has it finish within that time, while the others go on.
    fn stop_alone(&self, worker: usize, within: Duration) {
        let mut published = self.published.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::replace(&mut published.left_out[worker], true) {
            return;
        }
        drop(published);
        if let Some(seen) = self.seen[worker].get() {
            for (port, queue) in &seen.layout.queues {
                self.port(port).into_iter().for_each(|port| port.close(*queue));
            }
        }
        // As in `stop_all`.
        let _ = self.mailboxes[worker].post(Command::StopAlone(Time::monotonic() + within));
    }

    fn stats(&self) -> Stats {
        let workers = (0..self.seen.len()).map(|worker| self.stats_of(worker)).collect();
        Stats { workers, reasons: self.reasons.list() }
    }

    fn stats_of(&self, worker: usize) -> WorkerStats {
        // Asked first: what it publishes last is there before it ends.
        let ended = self.others.has_ended(worker);
        let seen = self.seen[worker].get();
        let read = seen.map(|seen| seen.layout.read(seen.board.read())).unwrap_or_default();
        WorkerStats { ended, ..read }
    }

    /// The newest configuration that all workers have taken, of those that have not ended. Where all have, the newest that
    /// any has.
    fn taken(&self) -> u64 {
        let workers: Vec<_> = (0..self.seen.len()).map(|worker| self.stats_of(worker)).collect();
        let all_ended = workers.iter().all(|worker| worker.ended);
        if all_ended {
            // None waits for anything any more: those that were stopped first do not count.
            return workers.iter().map(|worker| worker.generation).max().unwrap_or(0);
        }
        workers.iter().filter(|worker| !worker.ended).map(|worker| worker.generation).min().unwrap_or(0)
    }
}

fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}

/// A runtime at work. Dropping the handle stops it, as [`stop`](Self::stop) does.
pub struct Running {
    shared: Arc<Shared>,
    /// By worker; none that was waited for.
    threads: Vec<Mutex<Option<JoinHandle<()>>>>,
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
        Self { shared, threads: threads.into_iter().map(|thread| Mutex::new(Some(thread))).collect() }
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
        let status = |(worker, seen): (usize, &OnceLock<Seen>)| {
            let memory = seen.get()?.memory.clone();
            Some(MemoryStatus { given_back: self.shared.others.has_ended(worker), ..memory })
        };
        self.shared.seen.iter().enumerate().filter_map(status).collect()
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
    /// [`configured`](Self::configured) tells when it is in force everywhere. A worker that was
    /// [stopped](Self::stop_worker) gets none any more.
    ///
    /// # Errors
    /// [`Error::Busy`] where a worker has not taken the last fifteen yet; then no worker gets this one.
    /// [`Error::Stopped`] where all have ended, or are about to.
    pub fn publish<T: Any + Send + Sync>(&self, configuration: Arc<T>) -> Result<u64> {
        let mut published = self.shared.published.lock().unwrap_or_else(PoisonError::into_inner);
        let mailboxes = self.shared.mailboxes.iter().enumerate().zip(&published.left_out);
        let mailboxes: Vec<_> =
            mailboxes.filter(|(_, left_out)| !**left_out).map(|(mailbox, _)| mailbox).collect();
        if self.ended() || mailboxes.is_empty() {
            return Err(Error::Stopped);
        }
        for (worker, mailbox) in &mailboxes {
            let worker = *worker;
            // One place is left for the command to stop.
            if mailbox.waiting() >= 15 {
                return Err(Error::Busy { worker, waiting: mailbox.waiting() });
            }
        }
        published.free(self.shared.taken());
        let snapshot = Snapshot::new(configuration);
        let number = published.keep(snapshot.clone());
        for (_, mailbox) in mailboxes {
            mailbox.post(Command::Configure(snapshot.clone())).map_err(|_| Error::Stopped)?;
        }
        Ok(number)
    }

    /// Whether all workers that have not ended have taken the configuration of that number. Frees, on the caller's thread, the
    /// configurations that none of them uses any more; [`publish`](Self::publish) does the same.
    pub fn configured(&self, number: u64) -> bool {
        let taken = self.shared.taken();
        self.shared.published.lock().unwrap_or_else(PoisonError::into_inner).free(taken);
        taken >= number
    }

    /// Whether all workers have ended: because one panicked, or each was stopped.
    pub fn ended(&self) -> bool {
        self.shared.others.all_ended()
    }

    /// Stops one worker while the others go on: keeps further traffic off its queues, lets it finish what is queued
    /// (for two seconds at most), closes its queues, and waits for its thread. Returns what it has counted, which the
    /// statistics go on to show. One that has ended already is left as it is.
    ///
    /// Its queues are not given to other workers. What comes on them later meets with what a stalled worker's packets
    /// do ([`XdpPort::on_stall`](crate::port::XdpPort::on_stall)): with `All` they go to the kernel, with `Match` they
    /// are dropped, and both are counted. What other workers' stages hand over to it is dropped as
    /// `hand_over_stopped`. Programs stay attached and settings of interfaces as they are. Once the last worker has
    /// ended, traffic is kept out as by [`stop`](Self::stop); settings go back with that, or with this handle.
    ///
    /// ```no_run
    /// use afx::port::{Steering, XdpPort};
    /// use afx::{Batch, Runtime, Stage, WorkerId};
    ///
    /// struct Count;
    /// impl Stage for Count {
    ///     fn process(&mut self, _: &mut Batch) {}
    /// }
    ///
    /// let port = XdpPort::new("eth1", Steering::All).queues([0, 1]);
    /// let running = Runtime::builder().port(port).workers(2).pipeline(|_| Count).start()?;
    /// let last = running.stop_worker(WorkerId::new(1))?;
    /// println!("{} packets had come on queue {}", last.queues[0].received, last.queues[0].queue);
    /// # Ok::<(), afx::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Config`] where there is no such worker, [`Error::Panicked`] where a worker has failed: then all stop. It
    /// is told once, here or by [`stop`](Self::stop) and [`join`](Self::join).
    pub fn stop_worker(&self, worker: WorkerId) -> Result<WorkerStats> {
        let index = worker.index();
        if index >= self.threads.len() {
            let last = self.threads.len() - 1;
            return Err(Error::config(format!("there is no worker {index}: they are numbered 0 to {last}")));
        }
        self.shared.stop_alone(index, STOP_WITHIN);
        self.wait_for(index);
        self.shared.mailboxes[index].clear();
        if self.ended() {
            self.shared.ports.iter().for_each(|port| port.detach());
        }
        self.failure().map_or_else(|| Ok(self.shared.stats_of(index)), Err)
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
        (0..self.threads.len()).for_each(|worker| self.wait_for(worker));
        self.failure().map_or_else(|| Ok(self.shared.stats()), Err)
    }

    /// Waits for a worker's thread, or for whoever waits for it already.
    fn wait_for(&self, worker: usize) {
        let mut thread = self.threads[worker].lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = thread.take() {
            // Panics are caught inside.
            let _ = thread.join();
        }
    }

    /// Why the first worker failed, if one has: told once.
    fn failure(&self) -> Option<Error> {
        self.shared.failed.lock().unwrap_or_else(PoisonError::into_inner).take()
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
        if !self.ended() {
            self.shared.stop_all(STOP_WITHIN);
        }
        (0..self.threads.len()).for_each(|worker| self.wait_for(worker));
    }
}
