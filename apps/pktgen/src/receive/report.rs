//! What is said of a measurement: while it runs, at its end, and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::str::FromStr;

use afx::Stats;
use afx::port::RedirectCounters;
use anyhow::Result;
use serde::Serialize;

use super::collector::Summary;
use super::flow::Flow;
use super::latency::{MAX, Percentiles};
use super::stage::{COUNTED, UNSIGNED};
use super::{LatencyOption, Options};
use crate::display::{FCS, Rate, Style, count, micros, number, percent, table};

/// What the report needs beside what was counted.
pub(super) struct Context<'a> {
    pub(super) interface: &'a str,
    pub(super) mode: &'a str,
    pub(super) options: &'a Options,
    pub(super) redirect: RedirectCounters,
}

/// The result. The names are those of the JSON object, which scripts rely on: docs/pktgen.md says what each means.
#[derive(Serialize, Debug)]
pub(super) struct Report {
    interface: String,
    mode: String,
    latency: LatencyOption,
    seconds: f64,
    packets: u64,
    bytes: u64,
    packets_per_second: f64,
    bits_per_second: f64,
    expected: Option<u64>,
    distinct: u64,
    lost: u64,
    lost_at_end: u64,
    loss_ratio: Option<f64>,
    reordered: u64,
    reordering_extent: u64,
    duplicates: u64,
    too_late: u64,
    window: usize,
    flows: usize,
    flows_joined: u64,
    flows_split: u64,
    restarts: u64,
    packets_beyond_flows_max: u64,
    flows_max: u64,
    latency_ns: Option<LatencyReport>,
    latency_out_of_range: u64,
    unsigned: u64,
    malformed: u64,
    malformed_by_reason: BTreeMap<String, u64>,
    otherwise_dropped: BTreeMap<String, u64>,
    kernel_dropped: u64,
    redirect: BTreeMap<&'static str, u64>,
    workers: Vec<WorkerReport>,
    per_flow: Vec<FlowReport>,
    pub(super) ledger_balanced: bool,
}

#[derive(Serialize, Debug)]
struct LatencyReport {
    count: u64,
    min: u64,
    p50: u64,
    p90: u64,
    p99: u64,
    p99_9: u64,
    max: u64,
    mean: f64,
    delay_variation: u64,
}

impl LatencyReport {
    fn of(found: &Percentiles) -> Self {
        let Percentiles { count, min, p50, p90, p99, p99_9, max, mean } = *found;
        let delay_variation = found.delay_variation();
        Self { count, min, p50, p90, p99, p99_9, max, mean, delay_variation }
    }
}

#[derive(Serialize, Debug)]
struct WorkerReport {
    core: Option<usize>,
    queues: Vec<u32>,
    packets: u64,
    bytes: u64,
}

#[derive(Serialize, Debug)]
struct FlowReport {
    flow: u32,
    received: u64,
    lost: u64,
    reordered: u64,
    reordering_extent: u64,
    duplicates: u64,
    too_late: u64,
}

impl FlowReport {
    fn of((number, flow): &(u32, Flow)) -> Self {
        Self {
            flow: *number,
            received: flow.received,
            lost: flow.lost(),
            reordered: flow.reordered,
            reordering_extent: flow.extent,
            duplicates: flow.duplicates,
            too_late: flow.too_late,
        }
    }
}

/// The part of packets that may be lost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct MaxLoss(f64);

impl FromStr for MaxLoss {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let percent = text.strip_suffix('%').map(str::trim_end).and_then(|number| number.parse::<f64>().ok());
        percent
            .filter(|percent| (0.0..=100.0).contains(percent))
            .map(|percent| Self(percent / 100.0))
            .ok_or_else(|| "a percentage from 0% to 100% is right, such as 0.01%".to_owned())
    }
}

/// What loss is a failure.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Loss {
    pub(super) fail: bool,
    pub(super) max: Option<MaxLoss>,
}

/// Packets and bytes of each worker.
pub(super) fn by_worker(stats: &Stats) -> Vec<(u64, u64)> {
    let of = |worker: &afx::stats::WorkerStats| {
        let queues = || worker.queues.iter();
        (queues().map(|queue| queue.received).sum(), queues().map(|queue| queue.received_bytes).sum())
    };
    stats.workers.iter().map(of).collect()
}

pub(super) fn kernel_dropped(stats: &Stats) -> u64 {
    stats.queues().map(|queue| queue.kernel_dropped).sum()
}

/// Packets dropped for other reasons than having been counted, or having no signature: those that are malformed, or all
/// others.
fn other_drops(stats: &Stats, malformed: bool) -> BTreeMap<String, u64> {
    let drops = stats.drops().into_iter().filter(|(name, _)| ![COUNTED, UNSIGNED].contains(name));
    let wanted = drops.filter(|(name, _)| name.starts_with("parse.") == malformed);
    wanted.map(|(name, count)| (name.to_owned(), count)).collect()
}

/// Malformed packets.
pub(super) fn malformed(stats: &Stats) -> u64 {
    other_drops(stats, true).values().sum()
}

impl Report {
    pub(super) fn new(context: &Context<'_>, summary: &Summary, stats: &Stats) -> Self {
        let Context { interface, mode, options, redirect } = context;
        let lost = options.lost(summary);
        let sent = lost + summary.distinct;
        let rate = mean_rate(summary);
        let workers = stats.workers.iter().zip(by_worker(stats)).map(|(worker, (packets, bytes))| {
            let queues = worker.queues.iter().map(|queue| queue.queue).collect();
            WorkerReport { core: worker.core, queues, packets, bytes: bytes + FCS * packets }
        });
        Self {
            interface: (*interface).to_owned(),
            mode: (*mode).to_owned(),
            latency: options.latency,
            seconds: summary.seconds(),
            packets: summary.packets,
            bytes: summary.bytes + FCS * summary.packets,
            packets_per_second: rate.packets_per_second,
            bits_per_second: rate.bits_per_second,
            expected: options.expect,
            distinct: summary.distinct,
            lost,
            lost_at_end: lost - summary.lost,
            loss_ratio: (sent > 0).then(|| lost as f64 / sent as f64),
            reordered: summary.reordered,
            reordering_extent: summary.extent,
            duplicates: summary.duplicates,
            too_late: summary.too_late,
            window: options.window,
            flows: summary.flows.len(),
            flows_joined: summary.joined,
            flows_split: summary.split,
            restarts: summary.restarts,
            packets_beyond_flows_max: summary.beyond,
            flows_max: options.flows_max,
            latency_ns: summary.latency.percentiles().as_ref().map(LatencyReport::of),
            latency_out_of_range: summary.latency.out_of_range(),
            unsigned: stats.dropped(UNSIGNED),
            malformed: malformed(stats),
            malformed_by_reason: other_drops(stats, true),
            otherwise_dropped: other_drops(stats, false),
            kernel_dropped: kernel_dropped(stats),
            redirect: redirect.each().map(|(name, _, count)| (name, count)).collect(),
            workers: workers.collect(),
            per_flow: summary.worst(options.per_flow).iter().map(FlowReport::of).collect(),
            // Every frame is accounted for, and every packet settled.
            ledger_balanced: stats.balanced() && stats.received() == stats.dropped_total(),
        }
    }

    pub(super) fn json(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    /// Why the measurement has failed, where loss is a failure.
    pub(super) fn failure(&self, loss: Loss) -> Option<String> {
        let asked = loss.fail || loss.max.is_some();
        let sent = self.lost + self.distinct;
        if asked && sent == 0 {
            return Some(format!(
                "no packet of the generator came on {}: loss cannot be told",
                self.interface
            ));
        }
        let ratio = self.loss_ratio.unwrap_or(0.0);
        let lost = || {
            format!("{} of {} lost ({})", number(self.lost), count(sent, "packet"), percent(self.lost, sent))
        };
        match loss.max {
            Some(MaxLoss(max)) if ratio > max => {
                Some(format!("{}, and at most {} % was asked for", lost(), max * 100.0))
            }
            _ if loss.fail && self.lost > 0 => Some(format!("{}, and no loss was asked for", lost())),
            _ => None,
        }
    }

    /// The result for people.
    pub(super) fn text(&self, style: Style) -> String {
        let mut text = String::new();
        let mut line = |line: &str| {
            let _ = writeln!(text, "{line}");
        };
        self.facts(style).iter().for_each(|fact| line(fact));
        if let Some(found) = &self.latency_ns {
            line("");
            self.latency_table(style, found).iter().for_each(|row| line(row));
        }
        if self.workers.len() > 1 {
            line("");
            self.worker_table(style).iter().for_each(|row| line(row));
        }
        if !self.per_flow.is_empty() {
            line("");
            self.flow_table(style).iter().for_each(|row| line(row));
        }
        let notes = self.notes();
        if !notes.is_empty() {
            line("");
            notes.iter().for_each(|note| line(note));
        }
        text
    }

    fn facts(&self, style: Style) -> Vec<String> {
        let sent = self.lost + self.distinct;
        let rate =
            Rate { packets_per_second: self.packets_per_second, bits_per_second: self.bits_per_second };
        let heading = format!("{} ({} mode)", self.interface, self.mode);
        let mut rows = vec![
            ("received", number(self.packets), "packets".to_owned()),
            ("bytes", number(self.bytes), "with frame check sequences".to_owned()),
            ("time", format!("{:.3}", self.seconds), "s from the first packet to the last".to_owned()),
            ("mean rate", number(rate.packets_per_second.round() as u64), "packets/s".to_owned()),
            ("", format!("{:.3}", rate.bits_per_second / 1e6), "Mbit/s".to_owned()),
        ];
        if let Some(expected) = self.expected {
            rows.push(("expected", number(expected), "packets".to_owned()));
        }
        rows.extend([
            ("lost", number(self.lost), percent(self.lost, sent)),
            ("reordered", number(self.reordered), percent(self.reordered, self.distinct)),
            ("overtaken by", number(self.reordering_extent), "packets at most".to_owned()),
            ("duplicates", number(self.duplicates), percent(self.duplicates, self.distinct)),
            ("flows", number(self.flows as u64), String::new()),
            ("unsigned", number(self.unsigned), "packets not of the generator".to_owned()),
            ("malformed", number(self.malformed), "packets".to_owned()),
            ("kernel dropped", number(self.kernel_dropped), "packets that this was too slow for".to_owned()),
        ]);
        let width = rows.iter().map(|(_, value, _)| value.len()).max().unwrap_or(0);
        let rows = rows
            .iter()
            .map(|(name, value, unit)| format!("{name:<14} {value:>width$}  {unit}").trim_end().to_owned());
        std::iter::once(style.bold(&heading)).chain(rows).collect()
    }

    fn latency_table(&self, style: Style, found: &LatencyReport) -> Vec<String> {
        let heading = format!("{} latency", self.latency.name());
        let headings = [heading.as_str(), "min", "p50", "p90", "p99", "p99.9", "max", "mean", "p99.9 - min"];
        let times = [found.min, found.p50, found.p90, found.p99, found.p99_9, found.max].map(|ns| ns as f64);
        let times = times.into_iter().chain([found.mean, found.delay_variation as f64]).map(micros);
        table(style, &headings, [std::iter::once("µs".to_owned()).chain(times).collect()])
    }

    fn worker_table(&self, style: Style) -> Vec<String> {
        let rows = self.workers.iter().enumerate().map(|(number_of, worker)| {
            let queues: Vec<_> = worker.queues.iter().map(u32::to_string).collect();
            let core = worker.core.map_or_else(|| "-".to_owned(), |core| core.to_string());
            vec![number_of.to_string(), core, queues.join(","), number(worker.packets), number(worker.bytes)]
        });
        table(style, &["worker", "core", "queues", "packets", "bytes"], rows)
    }

    fn flow_table(&self, style: Style) -> Vec<String> {
        let headings = ["flow", "received", "lost", "lost %", "reordered", "overtaken by", "duplicates"];
        let rows = self.per_flow.iter().map(|flow| {
            let distinct = flow.received - flow.duplicates - flow.too_late;
            let lost = percent(flow.lost, flow.lost + distinct);
            let counts = [flow.reordered, flow.reordering_extent, flow.duplicates].map(number);
            let first = [flow.flow.to_string(), number(flow.received), number(flow.lost), lost];
            first.into_iter().chain(counts).collect()
        });
        table(style, &headings, rows)
    }

    /// What one has to know to read the numbers right.
    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        let mut note = |is_so: bool, sentence: String| {
            if is_so {
                notes.push(format!("note: {sentence}"));
            }
        };
        note(
            self.packets == 0,
            format!("no packet of the generator came: is it sending to the address of {}?", self.interface),
        );
        note(
            self.kernel_dropped > 0,
            "packets that the kernel dropped count as lost, though the network has brought them: the RX ring was full".into(),
        );
        note(
            self.flows_joined > 0,
            format!(
                "{} under way when this began: what was lost before is not known",
                if self.flows_joined == 1 {
                    "1 flow was".to_owned()
                } else {
                    format!("{} flows were", number(self.flows_joined))
                }
            ),
        );
        note(
            self.too_late > 0,
            format!(
                "{} came {} packets late or later, and stay lost: a larger --window tells them from copies",
                count(self.too_late, "packet"),
                number(self.window as u64)
            ),
        );
        note(
            self.restarts > 0,
            format!(
                "the sender has started anew, {} seen: each time is counted for itself",
                count(self.restarts, "time")
            ),
        );
        note(
            self.flows_split > 0,
            format!(
                "{} came to several workers: reordering and copies between them are not seen",
                count(self.flows_split, "flow")
            ),
        );
        note(
            self.packets_beyond_flows_max > 0,
            format!(
                "{} of flows numbered {} or more: their loss and order are not known (--flows-max)",
                count(self.packets_beyond_flows_max, "packet"),
                number(self.flows_max)
            ),
        );
        note(
            self.latency_out_of_range > 0 && self.latency != LatencyOption::Off,
            format!(
                "{} with a time of another machine's clock, or over {} s old: not in the latency",
                count(self.latency_out_of_range, "packet"),
                MAX / 1_000_000_000
            ),
        );
        for (name, packets) in self.malformed_by_reason.iter().chain(&self.otherwise_dropped) {
            note(true, format!("{} dropped as {name}", count(*packets, "packet")));
        }
        let redirect = |name| self.redirect.get(name).copied().unwrap_or(0);
        for (name, why) in [
            ("oversize", "too long for a frame"),
            ("passed_stalled", "a worker stood still"),
            ("dropped_stalled", "a worker stood still"),
        ] {
            let packets = count(redirect(name), "packet");
            note(redirect(name) > 0, format!("{packets} did not come here: {why} ({name})"));
        }
        notes
    }
}

fn mean_rate(summary: &Summary) -> Rate {
    // Between the first and the last packet there is one packet less than came; its size is the mean.
    let packets = summary.packets.saturating_sub(1);
    let bytes = summary.bytes.checked_div(summary.packets).unwrap_or(0) * packets;
    Rate::of(packets, bytes, summary.seconds())
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
