//! What a worker counts, how it lies on the board, and what readers see of it.

use std::time::Duration;

use crate::batch::Reasons;
use crate::mem::{Border, Ledger, cycles_per_ns};
use crate::stage::StageCounters;

/// Batch sizes in powers of two: 1, 2, 3–4, 5–8, … 33–64.
const SIZES: usize = 7;

/// What a worker counts of one of its queues.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct QueueCounters {
    pub(crate) received: u64,
    pub(crate) received_bytes: u64,
    pub(crate) sent: u64,
    pub(crate) sent_bytes: u64,
    /// What the kernel dropped before it came to us, where the port can tell.
    pub(crate) kernel_dropped: u64,
    pub(crate) wakeups: u64,
}

const QUEUE_WORDS: usize = 6;

/// Everything that a worker counts, in its own memory.
pub(crate) struct WorkerCounters {
    pub(crate) turns: u64,
    pub(crate) empty_turns: u64,
    pub(crate) sleeps: u64,
    pub(crate) busy_cycles: u64,
    pub(crate) handed_over: u64,
    pub(crate) taken_over: u64,
    pub(crate) not_created: u64,
    pub(crate) generation: u64,
    pub(crate) sizes: [u64; SIZES],
    pub(crate) ledger: Ledger,
    pub(crate) drops: [u64; Reasons::MAX],
    pub(crate) queues: Vec<QueueCounters>,
    pub(crate) stages: Vec<StageCounters>,
}

const HEAD_WORDS: usize = 8 + SIZES + 8 + Reasons::MAX;

impl WorkerCounters {
    pub(crate) fn new(queues: usize, stages: usize) -> Box<Self> {
        Box::new(Self {
            turns: 0,
            empty_turns: 0,
            sleeps: 0,
            busy_cycles: 0,
            handed_over: 0,
            taken_over: 0,
            not_created: 0,
            generation: 0,
            sizes: [0; SIZES],
            ledger: Ledger::default(),
            drops: [0; Reasons::MAX],
            queues: vec![QueueCounters::default(); queues],
            stages: vec![StageCounters::default(); stages],
        })
    }

    #[inline(always)]
    pub(crate) fn batch_of(&mut self, packets: usize) {
        let size = (usize::BITS - packets.saturating_sub(1).leading_zeros()) as usize;
        self.sizes[size.min(SIZES - 1)] += 1;
    }

    /// Everything in the order in which [`Layout::read`] takes it apart.
    pub(crate) fn words<'a>(&'a self, application: &'a [u64]) -> impl Iterator<Item = u64> + 'a {
        let ledger = self.ledger;
        let head = [
            self.turns,
            self.empty_turns,
            self.sleeps,
            self.busy_cycles,
            self.handed_over,
            self.taken_over,
            self.not_created,
            self.generation,
        ];
        let ledger = [
            ledger.frames,
            ledger.free,
            ledger.receive.issued,
            ledger.receive.returned,
            ledger.transmit.issued,
            ledger.transmit.returned,
            ledger.held.issued,
            ledger.held.returned,
        ];
        let queues = self.queues.iter().flat_map(|queue| {
            [
                queue.received,
                queue.received_bytes,
                queue.sent,
                queue.sent_bytes,
                queue.kernel_dropped,
                queue.wakeups,
            ]
        });
        let stages = self.stages.iter().flat_map(|stage| [stage.batches, stage.packets, stage.cycles]);
        head.into_iter()
            .chain(self.sizes)
            .chain(ledger)
            .chain(self.drops)
            .chain(queues)
            .chain(stages)
            .chain(application.iter().copied())
    }
}

/// How a worker's words lie on its board.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    /// Per queue: the port's name and the queue's number.
    pub(crate) queues: Vec<(String, u32)>,
    pub(crate) stages: Vec<&'static str>,
    pub(crate) counters: Vec<String>,
    pub(crate) core: Option<usize>,
}

impl Layout {
    pub(crate) fn words(&self) -> usize {
        HEAD_WORDS + QUEUE_WORDS * self.queues.len() + 3 * self.stages.len() + self.counters.len()
    }

    /// Takes apart what [`WorkerCounters::words`] has put together.
    pub(crate) fn read(&self, words: Vec<u64>) -> WorkerStats {
        let mut words = words.into_iter();
        let mut next = || words.next().unwrap_or_default();
        let [turns, empty_turns, sleeps, busy, handed_over, taken_over, not_created, generation] =
            std::array::from_fn(|_| next());
        let batch_sizes = std::array::from_fn(|_| next());
        let mut ledger = Ledger { frames: next(), free: next(), ..Ledger::default() };
        for border in [&mut ledger.receive, &mut ledger.transmit, &mut ledger.held] {
            *border = Border { issued: next(), returned: next() };
        }
        let drops = (0..Reasons::MAX).map(|_| next()).collect();
        let queues = self.queues.iter().map(|(port, queue)| QueueStats {
            port: port.clone(),
            queue: *queue,
            received: next(),
            received_bytes: next(),
            sent: next(),
            sent_bytes: next(),
            kernel_dropped: next(),
            wakeups: next(),
        });
        let queues = queues.collect();
        let stage =
            |name: &&'static str| (*name, StageCounters { batches: next(), packets: next(), cycles: next() });
        let stages = self.stages.iter().map(stage).collect();
        let counters = self.counters.iter().map(|name| (name.clone(), next())).collect();
        WorkerStats {
            core: self.core,
            ended: false,
            turns,
            empty_turns,
            sleeps,
            busy: Duration::from_nanos((busy as f64 / cycles_per_ns()) as u64),
            handed_over,
            taken_over,
            not_created,
            generation,
            batch_sizes,
            ledger,
            drops,
            queues,
            stages,
            counters,
        }
    }
}

/// What a runtime has counted since its start.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Worker by worker.
    pub workers: Vec<WorkerStats>,
    /// Names and sentences of the drop reasons, by number.
    pub reasons: Vec<crate::batch::DropReason>,
}

/// What one worker has counted: all of one moment, at the end of a turn.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct WorkerStats {
    /// The core that the worker is pinned to.
    pub core: Option<usize>,
    /// Whether the worker has ended, as by [`Running::stop_worker`](crate::Running::stop_worker): these are its last
    /// numbers.
    pub ended: bool,
    /// Turns of the loop.
    pub turns: u64,
    /// Turns in which no packet came.
    pub empty_turns: u64,
    /// Times that the worker went to sleep in poll(2).
    pub sleeps: u64,
    /// Time spent on turns in which packets came.
    pub busy: Duration,
    /// Packets handed over to other workers.
    pub handed_over: u64,
    /// Packets taken over from other workers.
    pub taken_over: u64,
    /// Packets that a stage could not create, for want of a frame or a slot.
    pub not_created: u64,
    /// How many published configurations the worker has taken.
    pub generation: u64,
    /// Batches by size: 1, 2, 3–4, 5–8, 9–16, 17–32, 33–64 packets.
    pub batch_sizes: [u64; SIZES],
    /// Where the frames are.
    pub ledger: Ledger,
    /// Dropped packets by reason: [`Reason::index`](crate::Reason::index).
    pub drops: Vec<u64>,
    /// Queue by queue.
    pub queues: Vec<QueueStats>,
    /// Stage by stage, in order: name and counters.
    pub stages: Vec<(&'static str, StageCounters)>,
    /// The application's own counters.
    pub counters: Vec<(String, u64)>,
}

/// What a worker has counted of one queue.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueStats {
    /// The port's name.
    pub port: String,
    /// The queue's number on that port.
    pub queue: u32,
    /// Packets taken from the RX ring.
    pub received: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// Packets put on the TX ring.
    pub sent: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Packets that the kernel had for us and dropped: RX ring full, no frame, invalid.
    pub kernel_dropped: u64,
    /// System calls made to wake the kernel.
    pub wakeups: u64,
}

impl Stats {
    /// Packets received, on all queues.
    pub fn received(&self) -> u64 {
        self.queues().map(|queue| queue.received).sum()
    }

    /// Packets sent, on all queues.
    pub fn sent(&self) -> u64 {
        self.queues().map(|queue| queue.sent).sum()
    }

    /// Every queue of every worker.
    pub fn queues(&self) -> impl Iterator<Item = &QueueStats> {
        self.workers.iter().flat_map(|worker| &worker.queues)
    }

    /// Packets dropped, by the reason's name; reasons that have not occurred are left out.
    pub fn drops(&self) -> Vec<(&str, u64)> {
        let total = |index: usize| self.workers.iter().filter_map(|worker| worker.drops.get(index)).sum();
        let named =
            self.reasons.iter().enumerate().map(|(index, reason)| (reason.name.as_str(), total(index)));
        named.filter(|(_, count)| *count > 0).collect()
    }

    /// Packets dropped for one reason, by its name.
    pub fn dropped(&self, reason: &str) -> u64 {
        self.drops().into_iter().find(|(name, _)| *name == reason).map_or(0, |(_, count)| count)
    }

    /// Packets dropped, for whatever reason.
    pub fn dropped_total(&self) -> u64 {
        self.drops().into_iter().map(|(_, count)| count).sum()
    }

    /// One of the application's own counters, over all workers.
    pub fn counter(&self, name: &str) -> u64 {
        let counters = self.workers.iter().flat_map(|worker| &worker.counters);
        counters.filter(|(counter, _)| counter == name).map(|(_, count)| count).sum()
    }

    /// Whether every frame of every worker is accounted for.
    pub fn balanced(&self) -> bool {
        self.workers.iter().all(|worker| worker.ledger.balanced())
    }
}
