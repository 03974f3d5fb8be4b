//! How many frames a worker has: enough that all its rings can be full at once.

use std::fmt;

use super::making::{HEADROOM, longest_of};
use super::plan::Share;
use crate::batch::BATCH;
use crate::error::{Error, Result};
use crate::port::{Demand, Grouped, Port};

/// The frames of a worker's memory.
pub(super) struct Frames {
    /// How many there are to be.
    pub(super) count: usize,
    pub(super) reckoning: Reckoning,
    /// So many for each queue were asked for.
    asked: Option<usize>,
}

impl Frames {
    /// As many as were asked for per queue, else as many as it takes, for the worker with that share, whose stages may
    /// hold so many packets.
    ///
    /// # Errors
    /// Where too few were asked for.
    pub(super) fn new(
        asked: Option<usize>,
        share: &Share,
        ports: &[Box<dyn Port>],
        held: usize,
        taking: Taking,
    ) -> Result<Self> {
        let reckoning = Reckoning::new(share, ports, held, taking);
        let (least, queues) = (reckoning.frames(), share.queues.len());
        let count = asked.map_or(least, |per_queue| per_queue * queues);
        match asked {
            // What memory of the process's own has too little of, nobody else waits for.
            Some(per_queue) if reckoning.is_shared && count < least => Err(Error::config(format!(
                "{} frames per queue are too few, {} the least: all rings of a worker can be full at once, of {} frames \
                 = {reckoning}, and a port that sends nothing must leave the others some to receive into. Smaller rings \
                 (XdpPort::ring_size) take fewer",
                Grouped(per_queue),
                Grouped(least.div_ceil(queues)),
                Grouped(least)
            ))),
            _ => Ok(Self { count, reckoning, asked }),
        }
    }
}

impl fmt::Display for Frames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count: _, reckoning, asked } = self;
        if let Some(per_queue) = asked {
            write!(f, "{} per queue were asked for, and ", Grouped(*per_queue))?;
        }
        write!(f, "the rings take {} = {reckoning}", Grouped(reckoning.frames()))
    }
}

/// How packets are taken.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taking {
    /// As for [`Port::demand`].
    pub(super) copying: bool,
    /// In bytes.
    pub(super) frame_size: usize,
}

/// Bytes of the packet memory of a worker with one queue.
#[cfg(feature = "doctor")]
pub(crate) fn memory_of(demand: Demand, frame_size: usize) -> usize {
    Reckoning { queues: vec![(1, demand)], held: 0, segments: 1, is_shared: true }.frames() * frame_size
}

/// What the number of a worker's frames is worked out from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reckoning {
    /// Queues with the same rings, and how many of them there are.
    queues: Vec<(usize, Demand)>,
    /// Packets that stages may hold.
    held: usize,
    /// Frames of the longest packet.
    segments: usize,
    /// The kernel uses the frames too.
    is_shared: bool,
}

/// Batches beside those of the queues: what timers make, and what other workers hand over.
const OTHER_BATCHES: usize = 2;

impl Reckoning {
    fn new(share: &Share, ports: &[Box<dyn Port>], held: usize, taking: Taking) -> Self {
        let Taking { copying, frame_size } = taking;
        let ports = || share.queues.iter().map(|(port, _)| &ports[port.index()]);
        let mut queues: Vec<(usize, Demand)> = Vec::new();
        for demand in ports().map(|port| port.demand(copying)) {
            match queues.iter_mut().find(|(_, of)| *of == demand) {
                Some((count, _)) => *count += 1,
                None => queues.push((1, demand)),
            }
        }
        let long = longest_of(ports().map(|port| &**port), frame_size);
        let segments = long.map_or(1, |long| long.longest.div_ceil(frame_size - HEADROOM));
        Self { queues, held, segments, is_shared: ports().any(|port| port.needs_umem()) }
    }

    /// Whether the kernel uses the frames too.
    pub(super) fn is_shared(&self) -> bool {
        self.is_shared
    }

    /// The fewest frames with which no queue can take another's.
    ///
    /// What a turn has received is lent for sending before the kernel gives back what it has sent: a batch of each queue
    /// can be under way beside full rings.
    pub(super) fn frames(&self) -> usize {
        let rings: usize = self.queues.iter().map(|(count, demand)| count * demand.frames()).sum();
        rings + self.batches() * BATCH + self.held + self.further()
    }

    /// Frames of long packets beyond the first of each: a received batch is one of frames, and the rest of its last packet;
    /// of all others packets are counted.
    fn further(&self) -> usize {
        let packets = self.batches() - OTHER_BATCHES + OTHER_BATCHES * BATCH + self.held;
        packets * (self.segments - 1)
    }

    /// Entries of each socket's fill ring.
    pub(super) fn fill_entries(&self) -> u32 {
        self.most(Demand::receiving)
    }

    /// Entries of each socket's completion ring.
    pub(super) fn completion_entries(&self) -> u32 {
        self.most(Demand::completing)
    }

    /// A ring that has room for the most that any queue has there.
    fn most(&self, of: fn(&Demand) -> u32) -> u32 {
        let most = self.queues.iter().map(|(_, demand)| of(demand)).max().unwrap_or(0);
        most.max(BATCH as u32).next_power_of_two()
    }

    fn batches(&self) -> usize {
        self.queues.iter().map(|(count, _)| count).sum::<usize>() + OTHER_BATCHES
    }
}

impl fmt::Display for Reckoning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (count, demand) in &self.queues {
            match count {
                1 => write!(f, "{demand} + ")?,
                _ => write!(f, "{count} queues × ({demand}) + ")?,
            }
        }
        write!(f, "{} batches of {BATCH}", self.batches())?;
        if self.held > 0 {
            write!(f, " + held by stages {}", Grouped(self.held))?;
        }
        match self.further() {
            0 => Ok(()),
            further => write!(f, " + further segments {}", Grouped(further)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::{PortId, Queue};
    use crate::worker::Memory;

    /// A port that is only asked what it takes.
    struct Asked(Demand, bool);

    impl Port for Asked {
        fn name(&self) -> &str {
            "asked"
        }
        fn prepare(&self, _: usize) -> Result<Vec<u32>> {
            self.queues()
        }
        fn demand(&self, _: bool) -> Demand {
            self.0
        }
        fn needs_umem(&self) -> bool {
            self.1
        }
        fn open(&self, _: u32, _: &Memory) -> Result<Box<dyn Queue>> {
            Err(Error::Stopped)
        }
    }

    /// A worker with one queue of each port.
    fn frames(asked: Option<usize>, held: usize, ports: &[(Demand, bool)]) -> Result<Frames> {
        let queues = (0..ports.len()).map(|port| (PortId::new(port), 0)).collect();
        let ports: Vec<Box<dyn Port>> =
            ports.iter().map(|(demand, umem)| Box::new(Asked(*demand, *umem)) as _).collect();
        Frames::new(
            asked,
            &Share { queues, ..Share::default() },
            &ports,
            held,
            Taking { copying: false, frame_size: 2048 },
        )
    }

    const RINGS: Demand = Demand::of_rings(2048);

    #[test]
    fn all_rings_can_be_full_with_a_batch_of_each_queue_under_way() {
        let two = frames(None, 0, &[(RINGS, true), (RINGS, true)]).unwrap();
        assert_eq!(two.count, 2 * 3 * 2048 + 4 * 64);
        assert_eq!((two.reckoning.fill_entries(), two.reckoning.completion_entries()), (2048, 2048));
        assert_eq!(
            two.to_string(),
            "the rings take 12,544 = 2 queues × (RX ring 2,048 + TX ring 2,048 + leaving 2,048) + 4 batches of 64"
        );
        let mixed = frames(None, 1000, &[(Demand::of_rings(512), true), (RINGS, true)]).unwrap();
        assert_eq!(mixed.count, 3 * 512 + 3 * 2048 + 4 * 64 + 1000);
        assert_eq!(
            mixed.to_string(),
            "the rings take 8,936 = RX ring 512 + TX ring 512 + leaving 512 + RX ring 2,048 + TX ring 2,048 + \
             leaving 2,048 + 4 batches of 64 + held by stages 1,000"
        );
    }

    #[test]
    fn as_many_are_made_as_were_asked_for_unless_they_are_too_few() {
        let plenty = frames(Some(8192), 0, &[(RINGS, true), (RINGS, true)]).unwrap();
        assert_eq!(plenty.count, 16384);
        assert!(
            plenty.to_string().starts_with("8,192 per queue were asked for, and the rings take 12,544 = ")
        );
        let error = frames(Some(4096), 0, &[(RINGS, true), (RINGS, true)]).err().unwrap().to_string();
        assert!(error.starts_with("4,096 frames per queue are too few, 6,272 the least: "), "{error}");
        assert!(error.contains("of 12,544 frames = 2 queues × (RX ring 2,048 + "), "{error}");
        assert_eq!(frames(Some(6272), 0, &[(RINGS, true), (RINGS, true)]).unwrap().count, 12_544);
        // Without a kernel, as few as one likes.
        assert_eq!(frames(Some(1), 0, &[(RINGS, false)]).unwrap().count, 1);
    }

    #[test]
    fn rings_have_a_power_of_two_of_places_and_never_none() {
        let entries = |demand: Demand| {
            let Frames { reckoning, .. } = frames(None, 0, &[(demand, true)]).unwrap();
            (reckoning.fill_entries(), reckoning.completion_entries())
        };
        assert_eq!(entries(RINGS.with_level(2049)), (4096, 2048));
        assert_eq!(entries(Demand::of_rings(8).sending()), (64, 64));
    }
}
