//! Building a runtime and starting its workers.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, mpsc};
use std::thread::Builder;
use std::time::Duration;

use super::frames::{Frames, Taking};
use super::hand_over::HandOver;
use super::huge_pages::Supply;
use super::inline::Inline;
use super::mailbox::Waker;
use super::making::{Build, Making, OnReady, Settings, longest_of};
use super::plan::{Cores, PlannedWorker, Share, plan};
use super::running::{Running, Shared};
use super::{HugePages, Idle, WorkerId};
use crate::batch::{MAX_PORTS, Reasons};
use crate::error::{Error, Result};
use crate::mem::cycles_per_ns;
use crate::packet::HashSeed;
use crate::port::{FRAME_SIZE, Port};
use crate::stage::Pipeline;

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
            frames_per_queue: None,
            frame_size: None,
            huge_pages: HugePages::default(),
            tick: Duration::from_millis(1),
            hash_seed: HashSeed(RandomState::new().hash_one(())),
            on_ready: None,
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
    frames_per_queue: Option<usize>,
    frame_size: Option<usize>,
    huge_pages: HugePages,
    tick: Duration,
    hash_seed: HashSeed,
    on_ready: Option<OnReady>,
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

    /// Frames of packet memory per queue. Unless said there are as many as all rings of a worker can hold at once,
    /// those of the cards too, and what is under way between them beside; [`memory`](Self::memory) shows the
    /// calculation. Fewer than that are an error of the start, except without an interface.
    pub fn frames_per_queue(mut self, frames: usize) -> Self {
        self.frames_per_queue = Some(frames);
        self
    }

    /// Size of a frame in bytes: 2048 or 4096. It takes 256 bytes less of a packet. Unless said it is 2048, and 4096 where
    /// a port may be in zero-copy mode and its card has buffers of whole KiB (the drivers igb, igc and ixgbe): of a frame
    /// of 2048 bytes they take 1024 of a packet, too few for an MTU of 1500.
    pub fn frame_size(mut self, bytes: usize) -> Self {
        self.frame_size = Some(bytes);
        self
    }

    /// The size of a frame that is said, or that the ports need.
    fn size(&self) -> usize {
        let needed = || self.ports.iter().map(|port| port.frame_size()).max();
        self.frame_size.or_else(needed).unwrap_or(FRAME_SIZE)
    }

    /// Whether packet memory and tables have to lie on huge pages: where there are enough, unless said.
    pub fn huge_pages(mut self, huge_pages: HugePages) -> Self {
        self.huge_pages = huge_pages;
        self
    }

    /// How often the stages' timers run: every millisecond unless said.
    pub fn tick(mut self, every: Duration) -> Self {
        self.tick = every;
        self
    }

    /// The secret that flows are hashed with: a random one unless said. Several machines that shall hash
    /// alike are given the same.
    pub fn hash_seed(mut self, seed: u64) -> Self {
        self.hash_seed = HashSeed(seed);
        self
    }

    /// Called on each worker's thread once its queues are open and its pipeline is built, before traffic is let in: where
    /// a worker gives up what only the opening took. An inline worker has no thread of its own, and does not call it.
    pub fn on_ready(mut self, on_ready: impl Fn(WorkerId) + Send + Sync + 'static) -> Self {
        self.on_ready = Some(Arc::new(on_ready));
        self
    }

    /// The packet memory that each worker would have, whose stages may [hold](crate::Stage::holds) so many packets.
    /// Changes nothing.
    ///
    /// ```no_run
    /// use afx::port::{Steering, XdpPort};
    /// use afx::{HugePages, Runtime};
    ///
    /// let planned = Runtime::builder().port(XdpPort::new("eth1", Steering::All)).memory(0)?;
    /// println!("{}: {}", planned[0].frames, planned[0].reckoning);
    /// println!("{}", HugePages::provision(planned.iter().map(|worker| worker.bytes)));
    /// # Ok::<(), afx::Error>(())
    /// ```
    ///
    /// # Errors
    /// As the start's, for what is asked of the ports.
    pub fn memory(&self, held: usize) -> Result<Vec<PlannedMemory>> {
        let shares = self.shares()?;
        let frame_size = self.size();
        let planned = |share: &Share| {
            let frames = Frames::new(
                self.frames_per_queue,
                share,
                &self.ports,
                held,
                Taking { copying: false, frame_size },
            )?;
            let (bytes, reckoning) = (frames.count * frame_size, frames.to_string());
            Ok(PlannedMemory { frames: frames.count, bytes, reckoning })
        };
        shares.iter().map(planned).collect()
    }

    /// The queues and the core that each worker would have, and why that core. Changes nothing.
    ///
    /// ```no_run
    /// use afx::Runtime;
    /// use afx::port::{Steering, XdpPort};
    ///
    /// for worker in Runtime::builder().port(XdpPort::new("eth1", Steering::All)).plan()? {
    ///     println!("{worker}: {}", worker.why);
    /// }
    /// # Ok::<(), afx::Error>(())
    /// ```
    ///
    /// # Errors
    /// As the start's, for what is asked of ports, workers and cores.
    pub fn plan(&self) -> Result<Vec<PlannedWorker>> {
        Ok(self.shares()?.iter().map(|share| share.planned(&self.ports)).collect())
    }

    fn shares(&self) -> Result<Vec<Share>> {
        let queues = self.ports.iter().map(|port| port.queues()).collect::<Result<Vec<_>>>()?;
        let there = Cores::of(&self.ports, self.idle != Idle::Busy);
        plan(&queues, self.workers, &self.cores, &there)
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

/// The packet memory that a worker would have; see [`RuntimeBuilder::memory`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PlannedMemory {
    /// How many frames: a few more where that fills the last huge page.
    pub frames: usize,
    /// Their size in bytes, together.
    pub bytes: usize,
    /// What their number comes of.
    pub reckoning: String,
}

/// A runtime that is ready to start; made by [`RuntimeBuilder::pipeline`].
#[must_use = "nothing runs before `start`"]
pub struct Pipelined<F> {
    settings: RuntimeBuilder,
    build: F,
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
        let Prepared { settings, ports, shares } = self.settings.prepare()?;
        let wakers = shares.iter().map(|_| Waker::new().map(Arc::new)).collect::<Result<Vec<_>, _>>();
        let wakers = wakers.map_err(|errno| Error::Worker {
            worker: 0,
            what: "creating an eventfd".into(),
            source: errno.into(),
        })?;
        let shared = Arc::new(Shared::new(ports, &wakers));
        let build = Arc::new(self.build);
        let (ready, started) = mpsc::channel();
        let long = longest_of(shared.ports.iter().map(|port| &**port), settings.frame_size)
            .map_or(0, |long| long.longest);
        let parts = HandOver::mesh(&wakers, settings.frame_size.max(long));
        let mut threads = Vec::new();
        let workers = shares.len();
        for (worker, share) in shares.iter().enumerate() {
            tracing::info!("worker {worker}: {}", share.planned(&shared.ports));
        }
        let shares: Arc<[Share]> = shares.into();
        for (worker, hand_over) in parts.into_iter().enumerate() {
            let (settings, build, ready) = (settings.clone(), build.clone(), ready.clone());
            let shares = shares.clone();
            let thread_shared = shared.clone();
            let body = move || {
                let making = Making {
                    settings: &settings,
                    ports: &thread_shared.ports,
                    reasons: &thread_shared.reasons,
                    build: &*build,
                    worker,
                    shares: &shares,
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
        let running = Running::new(shared, threads);
        let mut results = started.iter().take(workers);
        let opened = results.by_ref().find(Result::is_err).unwrap_or(Ok(()));
        if let Err(error) = opened.and_then(|()| running.attach()) {
            return Err(running.abandon(error));
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
        let one = RuntimeBuilder { workers: Some(1), ..self.settings };
        let Prepared { settings, ports, shares } = one.prepare()?;
        let reasons = Reasons::new();
        let making = Making {
            settings: &settings,
            ports: &ports,
            reasons: &reasons,
            build: &self.build,
            worker: 0,
            shares: &shares,
        };
        let opened = making.open(HandOver::default());
        let opened = opened.inspect_err(|_| ports.iter().for_each(|port| port.detach()))?;
        Ok(Inline::new(opened, reasons, ports))
    }
}

/// A runtime whose ports have been looked at.
struct Prepared {
    settings: Settings,
    ports: Arc<[Box<dyn Port>]>,
    shares: Vec<Share>,
}

impl RuntimeBuilder {
    fn prepare(self) -> Result<Prepared> {
        if self.ports.len() > MAX_PORTS {
            return Err(Error::config(format!("{} ports: at most {MAX_PORTS}", self.ports.len())));
        }
        let frame_size = self.size();
        if !matches!(frame_size, 2048 | 4096) {
            return Err(Error::config(format!("frames of {frame_size} bytes: 2048 or 4096")));
        }
        if self.frames_per_queue == Some(0) {
            return Err(Error::config(
                "0 frames per queue: at least one frame is needed, thousands are usual",
            ));
        }
        let mut names: Vec<_> = self.ports.iter().map(|port| port.name()).collect();
        names.sort_unstable();
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Error::config(format!("port {} is given twice", pair[0])));
        }
        let queues = self.ports.iter().map(|port| port.prepare(frame_size)).collect::<Result<Vec<_>>>();
        let there = Cores::of(&self.ports, self.idle != Idle::Busy);
        let shares = queues.and_then(|queues| plan(&queues, self.workers, &self.cores, &there));
        let shares = shares.and_then(|shares| self.place(&shares).map(|()| shares));
        let shares = shares.inspect_err(|_| self.ports.iter().for_each(|port| port.detach()))?;
        let settings = Settings {
            idle: self.idle,
            frames_per_queue: self.frames_per_queue,
            frame_size,
            huge_pages: self.huge_pages,
            tick: self.tick,
            hash_seed: self.hash_seed,
            on_ready: self.on_ready,
            supply: Supply::now(),
            told: Arc::default(),
        };
        Ok(Prepared { settings, ports: self.ports.into(), shares })
    }

    /// Tells ports which cores their queues' workers are on.
    fn place(&self, shares: &[Share]) -> Result<()> {
        self.ports.iter().enumerate().try_for_each(|(number, port)| {
            let cores: Vec<_> = shares.iter().flat_map(|share| share.cores_of(number)).collect();
            port.placed(&cores)
        })
    }
}
