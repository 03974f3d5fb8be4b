//! What was received, from the packets' signatures: loss, order, copies, latency. No I/O, and no allocation per packet.

use std::cmp::Reverse;

use afx::mem::prefetch_write;

use super::flow::{self, Flow};
use super::latency::Latency;
use crate::signature::Signature;

/// What a collector has room for, made when it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Flows whose packets are followed: those numbered below this.
    pub(crate) flows: usize,
    /// Packets of a flow by which one may be late and still be told from a copy: a power of two, at least 64. Each flow
    /// takes a bit for each.
    pub(crate) window: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { flows: 65_536, window: 4096 }
    }
}

/// Counts packets, for one thread. What it counts is in its [`Tally`].
#[derive(Debug)]
pub(crate) struct Collector {
    tally: Tally,
    /// The windows of all flows. Untouched pages take no memory.
    seen: Vec<u64>,
    /// Words of a window.
    words: usize,
}

impl Collector {
    /// # Panics
    /// If the window is no power of two, or below 64.
    pub(crate) fn new(limits: Limits) -> Self {
        assert!(limits.window.is_power_of_two() && limits.window >= 64, "a window is whole words");
        let words = limits.window / 64;
        Self { tally: Tally::new(limits.flows), seen: vec![0; words * limits.flows], words }
    }

    /// Asks for the memory that a packet's flow is kept in: of every packet of a batch, before the first is recorded.
    #[inline(always)]
    pub(crate) fn prefetch(&self, signature: Signature) {
        let number = signature.flow as usize;
        if let Some(flow) = self.tally.flows.get(number) {
            prefetch_write(flow);
            prefetch_write(&self.seen[number * self.words + flow::word(signature.sequence, self.words)]);
        }
    }

    /// Counts a packet of so many bytes that arrived at `now`, in ns of the clock that the signature's time is of.
    #[inline]
    pub(crate) fn record(&mut self, signature: Signature, now: u64, bytes: usize) {
        self.tally.latency.record(signature.time, now);
        self.record_order(signature, now, bytes);
    }

    /// As [`record`](Self::record), without the latency.
    #[inline]
    pub(crate) fn record_order(&mut self, signature: Signature, now: u64, bytes: usize) {
        let totals = &mut self.tally.totals;
        if totals.packets == 0 {
            totals.first = now;
        }
        totals.packets += 1;
        totals.bytes += bytes as u64;
        totals.last = now;
        let number = signature.flow as usize;
        let Some(flow) = self.tally.flows.get_mut(number) else {
            totals.beyond += 1;
            return;
        };
        self.tally.used = self.tally.used.max(number + 1);
        let window = &mut self.seen[number * self.words..][..self.words];
        flow.record(signature.sequence, signature.time, window);
    }

    /// What was counted so far.
    pub(crate) fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Begins anew, for the next measurement.
    pub(crate) fn clear(&mut self) {
        self.seen[..self.tally.used * self.words].fill(0);
        self.tally.clear();
    }
}

/// What a collector has counted: plain numbers, of which another thread may have a copy.
#[derive(Debug)]
pub(crate) struct Tally {
    totals: Totals,
    latency: Latency,
    flows: Vec<Flow>,
    /// Flows from here on have no packet.
    used: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    packets: u64,
    bytes: u64,
    /// Packets of flows that are not followed.
    beyond: u64,
    /// When the first and the last packet arrived, in ns.
    first: u64,
    last: u64,
}

impl Tally {
    pub(crate) fn new(flows: usize) -> Self {
        Self {
            totals: Totals::default(),
            latency: Latency::new(),
            flows: vec![Flow::default(); flows],
            used: 0,
        }
    }

    /// Becomes a copy of another with as many flows, step by step, each of up to `flows` flows: a flow is copied as it is
    /// at its step. `at` is where to go on, 0 at first. Returns where to go on; None once all is copied.
    pub(crate) fn copy_step(&mut self, from: &Self, at: usize, flows: usize) -> Option<usize> {
        let end = from.used.min(at + flows);
        if at < end {
            self.flows[at..end].copy_from_slice(&from.flows[at..end]);
        }
        if end < from.used {
            return Some(end);
        }
        self.used = end;
        self.totals = from.totals;
        self.latency.copy_from(&from.latency);
        None
    }

    fn clear(&mut self) {
        self.flows[..self.used].fill(Flow::default());
        self.used = 0;
        self.totals = Totals::default();
        self.latency.clear();
    }
}

/// What collectors have counted together.
#[derive(Clone, Debug)]
pub(crate) struct Summary {
    /// Packets with a signature, and their bytes.
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
    /// Different packets: the first copies of all.
    pub(crate) distinct: u64,
    /// Packets that have not come though later ones of their flow have.
    pub(crate) lost: u64,
    /// As in [`Flow`].
    pub(crate) reordered: u64,
    pub(crate) extent: u64,
    pub(crate) duplicates: u64,
    pub(crate) too_late: u64,
    pub(crate) restarts: u64,
    /// Flows that joined midway.
    pub(crate) joined: u64,
    /// Flows of which more than one collector has seen packets: what came out of order or twice between them is not
    /// known.
    pub(crate) split: u64,
    /// Packets of flows that are not followed: of these only the number and the latency are known. They count as
    /// different ones.
    pub(crate) beyond: u64,
    /// When the first and the last packet arrived, in ns.
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) latency: Latency,
    /// Flows with packets, by number.
    pub(crate) flows: Vec<(u32, Flow)>,
}

impl Summary {
    /// Puts together what several have counted.
    pub(crate) fn of<'a>(tallies: impl IntoIterator<Item = &'a Tally>) -> Self {
        let tallies: Vec<_> = tallies.into_iter().collect();
        let totals = || tallies.iter().map(|tally| &tally.totals);
        let with_packets = || totals().filter(|totals| totals.packets > 0);
        let beyond = totals().map(|totals| totals.beyond).sum();
        let mut latency = Latency::new();
        tallies.iter().for_each(|tally| latency.merge(&tally.latency));
        let mut summary = Self {
            packets: totals().map(|totals| totals.packets).sum(),
            bytes: totals().map(|totals| totals.bytes).sum(),
            distinct: beyond,
            lost: 0,
            reordered: 0,
            extent: 0,
            duplicates: 0,
            too_late: 0,
            restarts: 0,
            joined: 0,
            split: 0,
            beyond,
            first: with_packets().map(|totals| totals.first).min().unwrap_or(0),
            last: with_packets().map(|totals| totals.last).max().unwrap_or(0),
            latency,
            flows: Vec::new(),
        };
        for number in 0..tallies.iter().map(|tally| tally.used).max().unwrap_or(0) {
            let parts = tallies.iter().filter_map(|tally| tally.flows.get(number));
            let mut parts = parts.filter(|flow| flow.received > 0);
            let Some(mut flow) = parts.next().copied() else { continue };
            let mut is_split = false;
            for part in parts {
                flow.merge(part);
                is_split = true;
            }
            summary.split += u64::from(is_split);
            summary.add(number as u32, flow);
        }
        summary
    }

    fn add(&mut self, number: u32, flow: Flow) {
        self.distinct += flow.distinct();
        self.lost += flow.lost();
        self.reordered += flow.reordered;
        self.extent = self.extent.max(flow.extent);
        self.duplicates += flow.duplicates;
        self.too_late += flow.too_late;
        self.restarts += flow.restarts;
        self.joined += u64::from(flow.joined);
        self.flows.push((number, flow));
    }

    /// Packets lost of `sent` in all: those of which no later packet tells as well. Where more came than were sent, or
    /// that number is not known, what the sequences tell.
    pub(crate) fn lost_of(&self, sent: Option<u64>) -> u64 {
        self.lost.max(sent.map_or(0, |sent| sent.saturating_sub(self.distinct)))
    }

    /// The time from the first to the last packet, in s.
    pub(crate) fn seconds(&self) -> f64 {
        (self.last - self.first) as f64 / 1e9
    }

    /// Up to `count` flows, those with the most packets lost first.
    pub(crate) fn worst(&self, count: usize) -> Vec<(u32, Flow)> {
        let mut flows = self.flows.clone();
        flows.sort_by_key(|(number, flow)| (Reverse((flow.lost(), flow.reordered)), *number));
        flows.truncate(count);
        flows
    }
}

#[cfg(test)]
#[path = "collector_tests.rs"]
mod tests;
