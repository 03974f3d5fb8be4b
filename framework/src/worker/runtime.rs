//! Building a runtime, starting its workers, and the handle to them while they run.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use super::hand_over::HandOver;
use super::inline::Inline;
use super::mailbox::{Command, Mailbox, Waker};
use super::memory::{Memory, Wanted};
use super::plan::{Share, plan};
use super::run::Run;
use super::turn::{Lane, Turn};
use super::{Idle, WorkerId};
use crate::batch::{Batch, MAX_PORTS, Reason, Reasons};
use crate::error::{Error, Result};
use crate::mem::cycles_per_ns;
use crate::packet::HashSeed;
use crate::port::{Port, PortId, RedirectCounters, Steering};
use crate::stage::{Pipeline, Snapshot};
use crate::stats::{Board, Counter, Layout, Stats};
use crate::time::Time;

/// How long a worker may take to finish what is queued when it is told to stop.
const STOP_WITHIN: Duration = Duration::from_secs(2);

/// The way into the framework: [`Runtime::builder`].
pub struct Runtime;

impl Runtime {
    /// Begins a runtime: ports first, the pipeline last.
    pub fn builder() -> RuntimeBuilder {
        RuntimeBuilder {
            ports: Vec::new(),
            workers: None,
            cores: Vec::new(),
            idle: Idle::default(),
            frames_per_queue: 8192,
            frame_size: 2048,
            tick: Duration::from_millis(1),
            hash_seed: HashSeed::default(),
        }
    }
}

/// What a runtime is to be; see [`Runtime::builder`].
#[must_use = "nothing runs before `pipeline` and `start`"]
pub struct RuntimeBuilder {
    ports: Vec<Box<dyn Port>>,
    workers: Option<usize>,
    cores: Vec<usize>,
    idle: Idle,
    frames_per_queue: usize,
    frame_size: usize,
    tick: Duration,
    hash_seed: HashSeed,
}

impl RuntimeBuilder {
    /// Adds a port. Ports are numbered in the order in which they are added.
    pub fn port(mut self, port: impl Port + 'static) -> Self {
        self.ports.push(Box::new(port));
        self
    }

    /// How many workers: as many as the port with the most queues has, but not more than cores, unless said.
    pub fn workers(mut self, count: usize) -> Self {
        self.workers = Some(count);
        self
    }

    /// The core of each worker; as many workers as cores.
    pub fn cores(mut self, cores: impl IntoIterator<Item = usize>) -> Self {
        self.cores = cores.into_iter().collect();
        self
    }

    /// What workers do when no packet comes: [`Idle::ADAPTIVE`] unless said.
    pub fn idle(mut self, idle: Idle) -> Self {
        self.idle = idle;
        self
    }

    /// Frames of packet memory per queue: 8192 unless said. They must fill the RX and TX rings of a queue
    /// and its card, with some to spare for packets in the pipeline.
    pub fn frames_per_queue(mut self, frames: usize) -> Self {
        self.frames_per_queue = frames;
        self
    }

    /// Size of a frame in bytes: 2048 (the default) or 4096. A packet has 256 bytes less than that.
    pub fn frame_size(mut self, bytes: usize) -> Self {
        self.frame_size = bytes;
        self
    }

    /// How often the stages' timers run: every millisecond unless said.
    pub fn tick(mut self, every: Duration) -> Self {
        self.tick = every;
        self
    }

    /// The secret that flows are hashed with. Several machines that shall hash alike are given the same.
    pub fn hash_seed(mut self, seed: u64) -> Self {
        self.hash_seed = HashSeed(seed);
        self
    }

    /// The pipeline: `build` is called once for each worker, on the worker's own pinned thread, and its
    /// result never leaves that thread.
    pub fn pipeline<P, F>(self, build: F) -> Pipelined<F>
    where
        P: Pipeline,
        F: Fn(&mut Build<'_>) -> P + Send + Sync + 'static,
    {
        Pipelined { settings: self, build }
    }
}

/// A runtime that is ready to start; made by [`RuntimeBuilder::pipeline`].
#[must_use = "nothing runs before `start`"]
pub struct Pipelined<F> {
    settings: RuntimeBuilder,
    build: F,
}

/// What a pipeline's stages can learn, and register, when they are built.
pub struct Build<'a> {
    worker: WorkerId,
    workers: usize,
    ports: Vec<&'a str>,
    reasons: &'a Reasons,
    counters: Vec<String>,
}

impl Build<'_> {
    /// The worker that the pipeline is for.
    pub fn worker(&self) -> WorkerId {
        self.worker
    }

    /// How many workers there are.
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// A port by its name.
    pub fn port(&self, name: &str) -> Option<PortId> {
        self.ports.iter().position(|port| *port == name).map(|index| PortId(index as u8))
    }

    /// All ports.
    pub fn ports(&self) -> impl Iterator<Item = (PortId, &str)> {
        self.ports.iter().enumerate().map(|(index, name)| (PortId(index as u8), *name))
    }

    /// A drop reason of the application's own: a name in the form `stage.reason`, and one sentence for
    /// whoever wonders where packets went. The same name gives the same reason.
    ///
    /// # Panics
    /// If there are 256 already.
    pub fn drop_reason(&mut self, name: &str, sentence: &str) -> Reason {
        self.reasons.register(name, sentence)
    }

    /// A counter of the application's own, shown in the statistics under this name.
    pub fn counter(&mut self, name: &str) -> Counter {
        let index = self.counters.iter().position(|counter| counter == name).unwrap_or_else(|| {
            self.counters.push(name.into());
            self.counters.len() - 1
        });
        Counter(u16::try_from(index).expect("at most 65,536 counters"))
    }
}

/// A worker whose queues are open and whose pipeline is built.
pub(super) struct Opened<P> {
    pub(super) turn: Turn<P>,
    pub(super) layout: Layout,
}

/// What a worker is made of, on whichever thread.
struct Making<'a, F> {
    settings: &'a Settings,
    ports: &'a [Box<dyn Port>],
    reasons: &'a Reasons,
    build: &'a F,
    worker: usize,
    workers: usize,
    share: &'a Share,
}

/// What all workers have in common.
#[derive(Clone)]
struct Settings {
    idle: Idle,
    frames_per_queue: usize,
    frame_size: usize,
    tick: Duration,
    hash_seed: HashSeed,
}

/// Bytes before packets that are created: what XDP leaves before received ones.
const HEADROOM: usize = 256;

impl<F> Making<'_, F> {
    fn open_queues(&self, wanted: Wanted) -> Result<(Memory, Vec<Lane>)> {
        let memory = Memory::new(wanted)?;
        let lane = |(port, queue): &(PortId, u32)| {
            let io = self.ports[port.index()].open(*queue, &memory)?;
            Ok(Lane { port: *port, queue: *queue, io })
        };
        let lanes = self.share.queues.iter().map(lane).collect::<Result<_>>()?;
        Ok((memory, lanes))
    }

    fn open<P>(&self, hand_over: HandOver) -> Result<Opened<P>>
    where
        P: Pipeline,
        F: Fn(&mut Build<'_>) -> P,
    {
        let settings = self.settings;
        let umem = self.share.queues.iter().any(|(port, _)| self.ports[port.index()].needs_umem());
        let wanted = Wanted {
            frames: settings.frames_per_queue * self.share.queues.len(),
            frame_size: settings.frame_size,
            umem,
            busy: settings.idle == Idle::Busy,
            copy_only: false,
        };
        let (memory, lanes) = match self.open_queues(wanted) {
            // All sockets on a UMEM have the mode of the first: where one port cannot do zero-copy, none does.
            Err(error) if lacks_zero_copy(&error) => {
                tracing::info!(worker = self.worker, %error, "copy mode on all ports of the worker");
                self.open_queues(Wanted { copy_only: true, ..wanted })?
            }
            result => result?,
        };
        let mut build = Build {
            worker: WorkerId::new(self.worker),
            workers: self.workers,
            ports: self.ports.iter().map(|port| port.name()).collect(),
            reasons: self.reasons,
            counters: Vec::new(),
        };
        let pipeline = (self.build)(&mut build);
        let queue_name = |lane: &Lane| (self.ports[lane.port.index()].name().to_owned(), lane.queue);
        let layout = Layout {
            queues: lanes.iter().map(queue_name).collect(),
            stages: pipeline.names(),
            counters: build.counters,
            core: self.share.core,
        };
        let batch = Batch::new(memory.pool(HEADROOM), layout.counters.len(), settings.hash_seed);
        Ok(Opened { turn: Turn::new(batch, pipeline, lanes, hand_over, settings.tick), layout })
    }
}

/// Whether a port failed for want of zero-copy mode, after another port of the worker had it.
fn lacks_zero_copy(error: &Error) -> bool {
    let Error::Port { source, .. } = error else { return false };
    matches!(source.downcast_ref::<crate::xsk::Error>(), Some(crate::xsk::Error::ZeroCopyUnavailable { .. }))
}

impl<F> Pipelined<F> {
    /// Opens the ports, starts the workers, and lets traffic in once all of them are ready. Where any of
    /// that fails, all is put back.
    ///
    /// # Errors
    /// [`Error`] says which port or worker, and what would be right.
    pub fn start<P>(self) -> Result<Running>
    where
        P: Pipeline,
        F: Fn(&mut Build<'_>) -> P + Send + Sync + 'static,
    {
        cycles_per_ns();
        let (settings, ports, shares) = self.settings.prepare()?;
        let wakers = shares.iter().map(|_| Waker::new().map(Arc::new)).collect::<Result<Vec<_>, _>>();
        let wakers = wakers.map_err(|errno| Error::Worker {
            worker: 0,
            what: "creating an eventfd".into(),
            source: errno.into(),
        })?;
        let shared = Arc::new(Shared {
            ports,
            reasons: Reasons::new(),
            mailboxes: wakers.iter().map(|waker| Arc::new(Mailbox::new(waker.clone()))).collect(),
            seen: shares.iter().map(|_| OnceLock::new()).collect(),
            published: Mutex::new((0, Vec::new())),
            failed: Mutex::new(None),
            ended: AtomicU64::new(0),
        });
        let build = Arc::new(self.build);
        let (ready, started) = mpsc::channel();
        let parts = HandOver::mesh(&wakers, settings.frame_size);
        let mut threads = Vec::new();
        let workers = shares.len();
        for ((worker, share), hand_over) in shares.into_iter().enumerate().zip(parts) {
            let (settings, build, ready) = (settings.clone(), build.clone(), ready.clone());
            let thread_shared = shared.clone();
            let body = move || {
                let making = Making {
                    settings: &settings,
                    ports: &thread_shared.ports,
                    reasons: &thread_shared.reasons,
                    build: &*build,
                    worker,
                    workers,
                    share: &share,
                };
                thread_shared.clone().work(&making, hand_over, &ready);
            };
            match Builder::new().name(format!("afx-worker-{worker}")).spawn(body) {
                Ok(thread) => threads.push(thread),
                Err(source) => {
                    shared.stop_all(Duration::ZERO);
                    threads.into_iter().for_each(|thread| drop(thread.join()));
                    return Err(Error::Worker { worker, what: "starting its thread".into(), source });
                }
            }
        }
        drop(ready);
        let running = Running { shared, threads: Mutex::new(threads) };
        let mut results = started.iter().take(workers);
        let opened = results.by_ref().find(Result::is_err).unwrap_or(Ok(()));
        if let Err(error) = opened.and_then(|()| running.shared.attach()) {
            running.shared.stop_all(Duration::ZERO);
            let _ = running.join();
            return Err(error);
        }
        Ok(running)
    }

    /// A single worker on this thread, which runs when it is told to.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn inline<P>(self) -> Result<Inline<P>>
    where
        P: Pipeline,
        F: Fn(&mut Build<'_>) -> P,
    {
        cycles_per_ns();
        let (settings, ports, shares) = RuntimeBuilder { workers: Some(1), ..self.settings }.prepare()?;
        let reasons = Reasons::new();
        let making = Making {
            settings: &settings,
            ports: &ports,
            reasons: &reasons,
            build: &self.build,
            worker: 0,
            workers: 1,
            share: &shares[0],
        };
        let opened = making.open(HandOver::default())?;
        Ok(Inline::new(opened, reasons, ports))
    }
}

impl RuntimeBuilder {
    fn prepare(self) -> Result<(Settings, Arc<[Box<dyn Port>]>, Vec<Share>)> {
        if self.ports.len() > MAX_PORTS {
            return Err(Error::config(format!("{} ports: at most {MAX_PORTS}", self.ports.len())));
        }
        if !matches!(self.frame_size, 2048 | 4096) {
            return Err(Error::config(format!("frames of {} bytes: 2048 or 4096", self.frame_size)));
        }
        let mut names: Vec<_> = self.ports.iter().map(|port| port.name()).collect();
        names.sort_unstable();
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Error::config(format!("port {} is given twice", pair[0])));
        }
        let queues = self.ports.iter().map(|port| port.prepare(self.frame_size)).collect::<Result<Vec<_>>>();
        let available: Vec<usize> =
            core_affinity::get_core_ids().unwrap_or_default().iter().map(|core| core.id).collect();
        let shares = queues.and_then(|queues| plan(&queues, self.workers, &self.cores, &available));
        let shares = shares.inspect_err(|_| self.ports.iter().for_each(|port| port.detach()))?;
        let settings = Settings {
            idle: self.idle,
            frames_per_queue: self.frames_per_queue,
            frame_size: self.frame_size,
            tick: self.tick,
            hash_seed: self.hash_seed,
        };
        Ok((settings, self.ports.into(), shares))
    }
}

/// What a worker shows of itself.
struct Seen {
    layout: Layout,
    board: Arc<Board>,
}

/// What the handle and the workers share.
struct Shared {
    ports: Arc<[Box<dyn Port>]>,
    reasons: Reasons,
    mailboxes: Vec<Arc<Mailbox>>,
    seen: Vec<OnceLock<Seen>>,
    /// Published configurations that a worker may still hold, with their numbers. Kept here so that the
    /// last reference, and with it the freeing, is never a worker's.
    published: Mutex<(u64, Vec<(u64, Snapshot)>)>,
    /// Why the first worker failed.
    failed: Mutex<Option<Error>>,
    ended: AtomicU64,
}

impl Shared {
    /// The life of a worker's thread.
    fn work<P, F>(
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
            if let Some(core) = making.share.core
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
            let board = Arc::new(Board::new(opened.layout.words()));
            let seen = Seen { layout: opened.layout, board: board.clone() };
            let mut run = Run {
                turn: opened.turn,
                board,
                mailbox: self.mailboxes[worker].clone(),
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
        self.ended.fetch_add(1, Ordering::Release);
    }

    fn port(&self, name: &str) -> Option<&dyn Port> {
        self.ports.iter().find(|port| port.name() == name).map(|port| &**port)
    }

    fn attach(&self) -> Result<()> {
        self.ports.iter().try_for_each(|port| port.attach())
    }

    /// Keeps traffic out and has all workers finish within that time.
    fn stop_all(&self, within: Duration) {
        self.ports.iter().for_each(|port| port.detach());
        let deadline = Time::monotonic() + within;
        for mailbox in &self.mailboxes {
            // A full mailbox has a worker that does not look: it is told again by `join`.
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
}

impl Running {
    /// What was counted so far: for each worker as of one moment, at most a few milliseconds ago.
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// How the ports came up: mode bound, queues, what was missing.
    pub fn status(&self) -> Vec<Status> {
        let status = |port: &Box<dyn Port>| Status { port: port.name().into(), facts: port.status() };
        self.shared.ports.iter().map(status).collect()
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
    /// [`Error::Busy`] where a worker has not taken the last sixteen yet; then no worker gets this one.
    pub fn publish<T: Any + Send + Sync>(&self, configuration: Arc<T>) -> Result<u64> {
        let mut published = self.shared.published.lock().unwrap_or_else(PoisonError::into_inner);
        for (worker, mailbox) in self.shared.mailboxes.iter().enumerate() {
            // One place is left for the command to stop.
            if mailbox.waiting() >= 15 {
                return Err(Error::Busy { worker, waiting: mailbox.waiting() });
            }
        }
        let taken = self.shared.taken();
        // Of one type the newest stays in use, so the last one published of all is kept, and what is not
        // yet taken everywhere.
        let (generation, kept) = &mut *published;
        *generation += 1;
        let snapshot = Snapshot::new(configuration);
        let kind = snapshot.kind();
        kept.retain(|(number, old)| *number >= taken || old.kind() != kind);
        kept.push((*generation, snapshot.clone()));
        for mailbox in &self.shared.mailboxes {
            mailbox.post(Command::Configure(snapshot.clone())).map_err(|_| Error::Stopped)?;
        }
        Ok(*generation)
    }

    /// Whether all workers have taken the configuration of that number.
    pub fn configured(&self, number: u64) -> bool {
        self.shared.taken() >= number
    }

    /// Whether all workers have ended, by themselves or because one panicked.
    pub fn ended(&self) -> bool {
        self.shared.ended.load(Ordering::Acquire) as usize == self.shared.mailboxes.len()
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
