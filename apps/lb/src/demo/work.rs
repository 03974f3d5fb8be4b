//! What packets cost.

use std::ops::Sub;

use afx::Stats;
use afx::mem::cycles_per_ns;
use afx::stats::WorkerStats;
use serde::Serialize;

/// Work that was done: packets, and the time spent on them.
#[derive(Clone, Copy, Default)]
pub(super) struct Work {
    packets: u64,
    /// In the balancer's stage.
    stage_ns: u64,
    /// In all: the stage, and the kernel's part in receiving and sending.
    turn_ns: u64,
}

/// The cost of a packet in nanoseconds.
#[derive(Serialize)]
pub(super) struct Cost {
    /// To find its real and give it its outer header.
    pub(super) balancing_ns: u64,
    /// In all. On a veth that is mostly the kernel: sending runs all that comes after, up to the real's own stack.
    pub(super) total_ns: u64,
}

impl Work {
    pub(super) fn of(worker: &WorkerStats) -> Self {
        let cycles: u64 = worker.stages.iter().map(|(_, stage)| stage.cycles).sum();
        Self {
            packets: worker.queues.iter().map(|queue| queue.received).sum(),
            stage_ns: (cycles as f64 / cycles_per_ns()) as u64,
            turn_ns: worker.busy.as_nanos() as u64,
        }
    }

    /// What all workers have done.
    pub(super) fn of_all(stats: &Stats) -> Self {
        stats.workers.iter().map(Self::of).fold(Self::default(), |sum, work| Self {
            packets: sum.packets + work.packets,
            stage_ns: sum.stage_ns + work.stage_ns,
            turn_ns: sum.turn_ns + work.turn_ns,
        })
    }

    /// None where there was no packet.
    pub(super) fn cost(self) -> Option<Cost> {
        Some(Cost {
            balancing_ns: self.stage_ns.checked_div(self.packets)?,
            total_ns: self.turn_ns.checked_div(self.packets)?,
        })
    }
}

impl Sub for Work {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            packets: self.packets.saturating_sub(earlier.packets),
            stage_ns: self.stage_ns.saturating_sub(earlier.stage_ns),
            turn_ns: self.turn_ns.saturating_sub(earlier.turn_ns),
        }
    }
}
