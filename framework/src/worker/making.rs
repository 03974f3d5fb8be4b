//! Making a worker: its memory, its queues, its pipeline.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::frames::{Frames, Taking};
use super::hand_over::HandOver;
use super::huge_pages::{Supply, provision};
use super::memory::{Memory, MemoryStatus, Wanted};
use super::plan::Share;
use super::turn::{Lane, Turn};
use super::{HugePages, Idle, WorkerId};
use crate::batch::{Batch, Reason, Reasons};
use crate::error::{Error, Result};
use crate::mem::PageKind;
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
    tables: Tables,
}

/// The large tables of a worker's stages.
#[derive(Default)]
struct Tables {
    /// Bytes of each.
    bytes: Vec<usize>,
    /// What those are called that do not lie on huge pages.
    ordinary: Vec<String>,
}

/// Bytes of a table from which on it matters that it lies on huge pages: those of one, on most machines.
const TABLE: usize = 2 << 20;

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

    /// Takes note of a table of so many bytes, on such pages: how many huge pages a runtime takes is told with its
    /// tables. A large one that lies on ordinary pages is an error of the start where huge ones are demanded, else a
    /// line in the log.
    pub fn table(&mut self, what: &str, bytes: usize, pages: PageKind) {
        self.tables.bytes.push(bytes);
        if pages == PageKind::Normal && bytes >= TABLE {
            self.tables.ordinary.push(what.to_owned());
        }
    }
}

/// A worker whose queues are open and whose pipeline is built.
pub(super) struct Opened<P> {
    pub(super) turn: Turn<P>,
    pub(super) layout: Layout,
    pub(super) memory: MemoryStatus,
}

/// What a worker is made of, on whichever thread.
pub(super) struct Making<'a, F> {
    pub(super) settings: &'a Settings,
    pub(super) ports: &'a [Box<dyn Port>],
    pub(super) reasons: &'a Reasons,
    pub(super) build: &'a F,
    pub(super) worker: usize,
    /// Of all workers.
    pub(super) shares: &'a [Share],
}

/// What all workers have in common.
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) idle: Idle,
    /// As asked for; else it is worked out.
    pub(super) frames_per_queue: Option<usize>,
    pub(super) frame_size: usize,
    pub(super) huge_pages: HugePages,
    pub(super) tick: Duration,
    pub(super) hash_seed: HashSeed,
    pub(super) on_ready: Option<OnReady>,
    /// The huge pages there were before any was taken.
    pub(super) supply: Option<Supply>,
    /// The log says once that they are too few, not once a worker.
    pub(super) told: Arc<AtomicBool>,
}

/// What is called when a worker is ready.
pub(super) type OnReady = Arc<dyn Fn(WorkerId) + Send + Sync>;

/// Bytes before packets that are created: what XDP leaves before received ones.
pub(super) const HEADROOM: usize = 256;

impl<F> Making<'_, F> {
    fn share(&self) -> &Share {
        &self.shares[self.worker]
    }

    /// Opens the worker's queues and builds its pipeline. On the worker's own thread.
    pub(super) fn open<P>(&self, hand_over: HandOver) -> Result<Opened<P>>
    where
        P: Pipeline,
        F: Fn(&mut Build<'_>) -> P,
    {
        let settings = self.settings;
        let mut build = Build {
            worker: WorkerId::new(self.worker),
            workers: self.shares.len(),
            ports: self.ports.iter().map(|port| port.name()).collect(),
            reasons: self.reasons,
            counters: Vec::new(),
            huge_pages: settings.huge_pages,
            tables: Tables::default(),
        };
        let pipeline = (self.build)(&mut build);
        let Build { tables, counters, .. } = build;
        let held = pipeline.holds();
        if settings.huge_pages == HugePages::Demand {
            self.tell(&tables.ordinary, &tables, held)?;
        }
        let opened = match self.open_queues(&tables, held, false) {
            // All sockets on a UMEM have the mode of the first: where one port cannot do zero-copy, or is not to, none does.
            Err(error) if lacks_zero_copy(&error) || mode_is_fixed(&error) => {
                tracing::info!(worker = self.worker, %error, "copy mode on all ports of the worker");
                let copying = self.open_queues(&tables, held, true);
                // Where another port demands zero-copy: what stands in its way is what the first error says.
                copying.map_err(|second| if mode_is_fixed(&second) { error } else { second })?
            }
            result => result?,
        };
        let (memory, status, lanes) = opened;
        let queue_name = |lane: &Lane| (self.ports[lane.port.index()].name().to_owned(), lane.queue);
        let layout = Layout {
            queues: lanes.iter().map(queue_name).collect(),
            stages: pipeline.names(),
            counters,
            core: self.share().core,
        };
        let batch = Batch::new(memory.pool(HEADROOM), layout.counters.len(), settings.hash_seed);
        let turn = Turn::new(batch, pipeline, lanes, hand_over, settings.tick);
        Ok(Opened { turn, layout, memory: status })
    }

    fn open_queues(
        &self,
        tables: &Tables,
        held: usize,
        copy_only: bool,
    ) -> Result<(Memory, MemoryStatus, Vec<Lane>)> {
        let (settings, share) = (self.settings, self.share());
        let frames = self.frames(share, held, copy_only)?;
        let wanted = Wanted {
            frames: frames.count,
            frame_size: settings.frame_size,
            fill_entries: frames.reckoning.fill_entries(),
            completion_entries: frames.reckoning.completion_entries(),
            node: node(share, self.ports),
            umem: frames.reckoning.is_shared(),
            busy: settings.idle == Idle::Busy,
            copy_only,
            long: longest_of(
                share.queues.iter().map(|(port, _)| &*self.ports[port.index()]),
                settings.frame_size,
            ),
        };
        let memory = Memory::new(wanted)?;
        let mut ordinary = tables.ordinary.clone();
        if !memory.is_on_huge_pages() && (wanted.umem || settings.huge_pages == HugePages::Demand) {
            ordinary.insert(0, "packet memory".into());
        }
        self.tell(&ordinary, tables, held)?;
        let status = memory.status(frames.to_string());
        tracing::debug!(worker = self.worker, "{status}");
        let lane = |(port, queue): &(PortId, u32)| {
            let io = self.ports[port.index()].open(*queue, &memory)?;
            Ok(Lane { port: *port, queue: *queue, io })
        };
        let lanes = share.queues.iter().map(lane).collect::<Result<_>>()?;
        Ok((memory, status, lanes))
    }

    /// The frames of the worker with that share.
    fn frames(&self, share: &Share, held: usize, copying: bool) -> Result<Frames> {
        let Settings { frames_per_queue, frame_size, .. } = *self.settings;
        Frames::new(frames_per_queue, share, self.ports, held, Taking { copying, frame_size })
    }

    /// Says what lies on ordinary pages, and what would provide huge ones for all workers: as an error where they are
    /// demanded, else once in the log.
    fn tell(&self, ordinary: &[String], tables: &Tables, held: usize) -> Result<()> {
        let Settings { huge_pages, supply, told, frame_size, .. } = self.settings;
        if ordinary.is_empty() {
            return Ok(());
        }
        // Each worker has its own packet memory, and tables as this one has.
        let mut blocks = Vec::new();
        for share in self.shares {
            blocks.push(self.frames(share, held, false)?.count * frame_size);
            blocks.extend(&tables.bytes);
        }
        let lie = if ordinary.len() == 1 { "lies" } else { "lie" };
        let why = format!(
            "{} {lie} on ordinary pages, where each look takes longer: packets and tables of all workers take {}",
            ordinary.join(" and "),
            provision(*supply, blocks)
        );
        match huge_pages {
            HugePages::Demand => Err(Error::config(format!("too few huge pages, which are demanded: {why}"))),
            HugePages::Auto if told.swap(true, Ordering::Relaxed) => Ok(()),
            HugePages::Auto => {
                tracing::info!("{why}");
                Ok(())
            }
        }
    }
}

/// The NUMA node of the cards of a share's ports, where they are all at one. Packets come to memory there by the
/// shortest way; else that near the worker's core is as good.
fn node(share: &Share, ports: &[Box<dyn Port>]) -> Option<u32> {
    let mut nodes = share.queues.iter().filter_map(|(port, _)| ports[port.index()].node());
    let first = nodes.next()?;
    nodes.all(|node| node == first).then_some(first)
}

/// What ports take of packets longer than a frame, all together.
pub(super) fn longest_of<'p>(
    ports: impl Iterator<Item = &'p dyn Port>,
    frame_size: usize,
) -> Option<LongPackets> {
    ports.filter_map(|port| port.long_packets(frame_size)).reduce(|one, other| LongPackets {
        longest: one.longest.max(other.longest),
        demanded: one.demanded || other.demanded,
    })
}

/// Whether a port failed for want of zero-copy mode, after another port of the worker had it.
fn lacks_zero_copy(error: &Error) -> bool {
    socket_error(error).is_some_and(xsk::Error::is_of_zero_copy)
}

/// Whether a port failed because another port of the worker has the other mode.
fn mode_is_fixed(error: &Error) -> bool {
    matches!(socket_error(error), Some(xsk::Error::ModeFixed { .. }))
}

fn socket_error(error: &Error) -> Option<&xsk::Error> {
    let Error::Port { source, .. } = error else { return None };
    source.downcast_ref()
}
