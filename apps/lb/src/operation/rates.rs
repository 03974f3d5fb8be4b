//! Rates: what was counted in the last second or so.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use afx::stage::balancer::real::RealId;
use afx::stage::balancer::{Directory, Monitor, RealStats};
use afx::{Running, Stats};

use crate::service::Service;

/// How far apart the samples are that rates are made of.
const EVERY: Duration = Duration::from_secs(1);

/// Samples of the counters, the newest at least a second after the one before.
#[derive(Default)]
pub(super) struct Rates {
    older: Option<Sample>,
    newer: Option<Sample>,
}

/// The counters at one moment.
pub(super) struct Sample {
    at: Instant,
    pub(super) stats: Stats,
    reals: BTreeMap<RealId, RealStats>,
}

impl Sample {
    fn take(running: &Running, directory: &Directory, monitor: &Monitor, at: Instant) -> Self {
        let reals = directory.reals().map(|(.., id)| (id, monitor.real(id))).collect();
        Self { at, stats: running.stats(), reals }
    }
}

/// Packets and bits of a second.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Rate {
    pub(super) packets: f64,
    pub(super) bits: f64,
}

impl Rates {
    /// Takes a sample where it is time for one.
    pub(super) fn turn(&mut self, service: &Service) {
        let now = Instant::now();
        if self.newer.as_ref().is_none_or(|newer| now - newer.at >= EVERY) {
            let sample = Sample::take(service.running(), service.directory(), service.monitor(), now);
            self.older = self.newer.replace(sample);
        }
    }

    /// The two newest samples, and how many seconds are between them. None before there are two.
    fn samples(&self) -> Option<(&Sample, &Sample, f64)> {
        let (older, newer) = self.older.as_ref().zip(self.newer.as_ref())?;
        Some((older, newer, (newer.at - older.at).as_secs_f64()))
    }

    /// What some of the statistics have grown by in a second.
    pub(super) fn of(&self, count: impl Fn(&Stats) -> u64) -> Option<f64> {
        let (older, newer, seconds) = self.samples()?;
        Some(count(&newer.stats).saturating_sub(count(&older.stats)) as f64 / seconds)
    }

    /// The part of the time that a worker was busy.
    pub(super) fn busy(&self, worker: usize) -> Option<f64> {
        let (older, newer, seconds) = self.samples()?;
        let busy = |sample: &Sample| sample.stats.workers.get(worker).map(|worker| worker.busy);
        Some((busy(newer)?.saturating_sub(busy(older)?).as_secs_f64() / seconds).min(1.0))
    }

    /// What a real gets. None before there are two samples of it.
    pub(super) fn real(&self, id: RealId) -> Option<Rate> {
        let (older, newer, seconds) = self.samples()?;
        let (older, newer) = older.reals.get(&id).zip(newer.reals.get(&id))?;
        Some(Rate {
            packets: newer.packets.saturating_sub(older.packets) as f64 / seconds,
            bits: newer.bytes.saturating_sub(older.bytes) as f64 * 8.0 / seconds,
        })
    }
}
