//! Making a worker: its memory, its queues, its pipeline.

use std::sync::Arc;
use std::time::Duration;

use super::hand_over::HandOver;
use super::huge_pages::shortage;
use super::memory::{Memory, Wanted};
use super::plan::Share;
use super::turn::{Lane, Turn};
use super::{HugePages, Idle, WorkerId};
use crate::batch::{Batch, Reason, Reasons};
use crate::error::{Error, Result};
use crate::packet::HashSeed;
use crate::port::{LongPackets, Port, PortId};
use crate::stage::Pipeline;
use crate::stats::{Counter, Layout};
use crate::xsk;

/// What a pipeline's stages can learn, and register, when they are built.
pub struct Build<'a> {
    worker: WorkerId,
    workers: usize,
    ports: Vec<&'a str>,
    reasons: &'a Reasons,
    counters: Vec<String>,
    huge_pages: HugePages,
    refused: Option<String>,
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

    /// Whether large tables have to lie on huge pages.
    pub fn huge_pages(&self) -> HugePages {
        self.huge_pages
    }

    /// Takes note that a table of so many bytes does not lie on huge pages: an error of the start where they are
    /// demanded, else a line in the log.
    pub fn on_ordinary_pages(&mut self, what: &str, bytes: usize) {
        let why =
            format!("{what} lies on ordinary pages, where looking into it takes longer: {}", shortage(bytes));
        match self.huge_pages {
            HugePages::Auto => tracing::info!(worker = self.worker.index(), "{why}"),
            HugePages::Demand => {
                self.refused.get_or_insert(why);
            }
        }
    }
}

/// A worker whose queues are open and whose pipeline is built.
pub(super) struct Opened<P> {
    pub(super) turn: Turn<P>,
    pub(super) layout: Layout,
}

/// What a worker is made of, on whichever thread.
pub(super) struct Making<'a, F> {
    pub(super) settings: &'a Settings,
    pub(super) ports: &'a [Box<dyn Port>],
    pub(super) reasons: &'a Reasons,
    pub(super) build: &'a F,
    pub(super) worker: usize,
    pub(super) workers: usize,
    pub(super) share: &'a Share,
}

/// What all workers have in common.
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) idle: Idle,
    pub(super) frames_per_queue: usize,
    pub(super) frame_size: usize,
    pub(super) huge_pages: HugePages,
    pub(super) tick: Duration,
    pub(super) hash_seed: HashSeed,
    pub(super) on_ready: Option<OnReady>,
}

/// What is called when a worker is ready.
pub(super) type OnReady = Arc<dyn Fn(WorkerId) + Send + Sync>;

/// Bytes before packets that are created: what XDP leaves before received ones.
pub(super) const HEADROOM: usize = 256;

/// Huge pages are demanded, and not to be had.
fn demanded(why: &str) -> Error {
    Error::config(format!("too few huge pages, which are demanded: {why}"))
}

impl<F> Making<'_, F> {
    fn open_queues(&self, wanted: Wanted) -> Result<(Memory, Vec<Lane>)> {
        let memory = Memory::new(wanted)?;
        if self.settings.huge_pages == HugePages::Demand && !memory.is_on_huge_pages() {
            let bytes = wanted.frames * wanted.frame_size;
            return Err(demanded(&format!("packet memory lies on ordinary pages: {}", shortage(bytes))));
        }
        let lane = |(port, queue): &(PortId, u32)| {
            let io = self.ports[port.index()].open(*queue, &memory)?;
            Ok(Lane { port: *port, queue: *queue, io })
        };
        let lanes = self.share.queues.iter().map(lane).collect::<Result<_>>()?;
        Ok((memory, lanes))
    }

    /// Opens the worker's queues and builds its pipeline. On the worker's own thread.
    pub(super) fn open<P>(&self, hand_over: HandOver) -> Result<Opened<P>>
    where
        P: Pipeline,
        F: Fn(&mut Build<'_>) -> P,
    {
        let settings = self.settings;
        let umem = self.share.queues.iter().any(|(port, _)| self.ports[port.index()].needs_umem());
        let mut build = Build {
            worker: WorkerId::new(self.worker),
            workers: self.workers,
            ports: self.ports.iter().map(|port| port.name()).collect(),
            reasons: self.reasons,
            counters: Vec::new(),
            huge_pages: settings.huge_pages,
            refused: None,
        };
        let pipeline = (self.build)(&mut build);
        if let Some(why) = build.refused {
            return Err(demanded(&why));
        }
        let wanted = Wanted {
            frames: settings.frames_per_queue * self.share.queues.len(),
            frame_size: settings.frame_size,
            umem,
            busy: settings.idle == Idle::Busy,
            copy_only: false,
            long: longest_of(self.share.queues.iter().map(|(port, _)| &*self.ports[port.index()])),
        };
        let (memory, lanes) = match self.open_queues(wanted) {
            // All sockets on a UMEM have the mode of the first: where one port cannot do zero-copy, none does.
            Err(error) if lacks_zero_copy(&error) => {
                tracing::info!(worker = self.worker, %error, "copy mode on all ports of the worker");
                let copying = self.open_queues(Wanted { copy_only: true, ..wanted });
                // Where another port demands zero-copy: what stands in its way is what the first error says.
                copying.map_err(|second| if mode_is_fixed(&second) { error } else { second })?
            }
            result => result?,
        };
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

/// What ports take of packets longer than a frame, all together.
pub(super) fn longest_of<'p>(ports: impl Iterator<Item = &'p dyn Port>) -> Option<LongPackets> {
    ports.filter_map(Port::long_packets).reduce(|one, other| LongPackets {
        longest: one.longest.max(other.longest),
        demanded: one.demanded || other.demanded,
    })
}

/// Whether a port failed for want of zero-copy mode, after another port of the worker had it.
fn lacks_zero_copy(error: &Error) -> bool {
    matches!(socket_error(error), Some(xsk::Error::ZeroCopyUnavailable { .. }))
}

/// Whether a port failed because another port of the worker has the other mode.
fn mode_is_fixed(error: &Error) -> bool {
    matches!(socket_error(error), Some(xsk::Error::ModeFixed { .. }))
}

fn socket_error(error: &Error) -> Option<&xsk::Error> {
    let Error::Port { source, .. } = error else { return None };
    source.downcast_ref()
}
