//! The result: what was measured so far, and how it is written.
//!
//! The names are those of the JSON object, which scripts rely on: docs/pktgen.md says what each means.

use serde::Serialize;

use super::measure::{Bursts, Loaded};
use super::search::{Ceiling, Limit, Throughput, Tried};
use super::trial::{Frames, Interfaces, Outcome};
use crate::receive::latency::Percentiles;

/// All that was measured.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Report {
    pub(super) send: String,
    pub(super) receive: String,
    pub(super) send_mode: String,
    pub(super) receive_mode: String,
    pub(super) source: String,
    pub(super) destination: String,
    pub(super) line_bits_per_second: Option<u64>,
    pub(super) trial_seconds: f64,
    pub(super) settle_seconds: f64,
    pub(super) resolution_percent: f64,
    pub(super) loss_allowed_percent: f64,
    pub(super) repeats: u32,
    pub(super) tests: Vec<String>,
    /// Everything that was asked for was measured.
    pub(super) complete: bool,
    /// Every frame of memory is accounted for, and no packet counted as sent was refused.
    pub(super) ledger_balanced: bool,
    pub(super) totals: Totals,
    pub(super) sizes: Vec<Size>,
}

/// Over all trials.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Totals {
    pub(super) trials: u64,
    pub(super) offered: u64,
    pub(super) received: u64,
    pub(super) duplicates: u64,
    pub(super) interfaces: Interfaces,
}

impl Totals {
    pub(super) fn add(&mut self, outcome: &Outcome) {
        self.trials += 1;
        self.offered += outcome.offered;
        self.received += outcome.received;
        self.duplicates += outcome.duplicates;
        if let Some(new) = outcome.interfaces {
            self.interfaces.sender_sent += new.sender_sent;
            self.interfaces.sender_dropped += new.sender_dropped;
            self.interfaces.receiver_received += new.receiver_received;
            self.interfaces.receiver_dropped += new.receiver_dropped;
        }
    }
}

/// Of frames of one size, or one mix.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Size {
    pub(super) frame: String,
    pub(super) mean_bytes: f64,
    /// What the line takes, where its speed is known.
    pub(super) line_pps: Option<f64>,
    pub(super) maximum_pps: f64,
    pub(super) maximum_set_by: Limit,
    pub(super) throughput: Option<ThroughputRow>,
    pub(super) latency: Vec<LatencyRow>,
    pub(super) loss: Vec<LossRow>,
    pub(super) back_to_back: Option<BurstRow>,
}

/// What was counted at one rate.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Counted {
    pub(super) offered: u64,
    pub(super) received: u64,
    pub(super) lost: u64,
    pub(super) loss_percent: f64,
    pub(super) reordered: u64,
    pub(super) duplicates: u64,
    pub(super) interfaces: Option<Interfaces>,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct ThroughputRow {
    /// Null where nothing came through at any rate.
    pub(super) pps: Option<f64>,
    pub(super) bits_per_second: Option<f64>,
    pub(super) line_percent: Option<f64>,
    /// The lowest rate that lost too much.
    pub(super) failed_pps: Option<f64>,
    /// What kept it from being higher, if not the device.
    pub(super) limit: Option<Limit>,
    #[serde(flatten)]
    pub(super) counted: Counted,
    pub(super) trials: Vec<Tried>,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct LatencyRow {
    pub(super) load_percent: f64,
    pub(super) wanted_pps: f64,
    pub(super) sent_pps: f64,
    /// In ns; null where no packet came.
    pub(super) latency_ns: Option<LatencyNs>,
    #[serde(flatten)]
    pub(super) counted: Counted,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct LatencyNs {
    pub(super) min: u64,
    pub(super) mean: f64,
    pub(super) p50: u64,
    pub(super) p90: u64,
    pub(super) p99: u64,
    pub(super) p99_9: u64,
    pub(super) max: u64,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct LossRow {
    pub(super) load_percent: f64,
    pub(super) wanted_pps: f64,
    pub(super) sent_pps: f64,
    #[serde(flatten)]
    pub(super) counted: Counted,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct BurstRow {
    pub(super) wanted_pps: f64,
    pub(super) sent_pps: f64,
    pub(super) searches: usize,
    pub(super) frames_mean: f64,
    pub(super) frames_min: u64,
    pub(super) frames_max: u64,
    /// The longest burst that was tried came through: more may.
    pub(super) at_least: bool,
    /// For how long the device's buffers last, corrected for what it sends on meanwhile (RFC 9004).
    pub(super) buffer_ns: Option<f64>,
}

impl Size {
    pub(super) fn new(frames: &Frames, line: Option<u64>, ceiling: &Ceiling) -> Self {
        Self {
            frame: frames.label.clone(),
            mean_bytes: frames.mean(),
            line_pps: line.map(|line| frames.line_rate(line)),
            maximum_pps: ceiling.rate,
            maximum_set_by: ceiling.limit,
            throughput: None,
            latency: Vec::new(),
            loss: Vec::new(),
            back_to_back: None,
        }
    }

    pub(super) fn set_throughput(&mut self, found: Throughput, frames: &Frames) {
        self.throughput = Some(ThroughputRow {
            pps: found.rate,
            bits_per_second: found.rate.map(|rate| frames.bits_per_second(rate)),
            line_percent: found.rate.zip(self.line_pps).map(|(rate, line)| 100.0 * rate / line),
            failed_pps: found.failed_at,
            limit: found.limit,
            counted: found.outcome.as_ref().map(Counted::of).unwrap_or_default(),
            trials: found.tried,
        });
    }

    pub(super) fn set_bursts(&mut self, found: &Bursts) {
        let throughput = self.throughput.as_ref().and_then(|found| found.pps);
        self.back_to_back = Some(BurstRow {
            wanted_pps: found.rate,
            sent_pps: found.sent_rate,
            searches: found.longest.len(),
            frames_mean: found.mean(),
            frames_min: found.longest.iter().copied().min().unwrap_or(0),
            frames_max: found.longest.iter().copied().max().unwrap_or(0),
            at_least: found.is_open(),
            buffer_ns: found.buffer_seconds(throughput).map(|seconds| seconds * 1e9),
        });
    }
}

impl Counted {
    fn of(outcome: &Outcome) -> Self {
        Self {
            offered: outcome.offered,
            received: outcome.received,
            lost: outcome.lost(),
            loss_percent: 100.0 * outcome.loss(),
            reordered: outcome.reordered,
            duplicates: outcome.duplicates,
            interfaces: outcome.interfaces,
        }
    }
}

impl From<Percentiles> for LatencyNs {
    fn from(found: Percentiles) -> Self {
        let Percentiles { min, p50, p90, p99, p99_9, max, mean, .. } = found;
        Self { min, mean, p50, p90, p99, p99_9, max }
    }
}

impl From<&Loaded> for LatencyRow {
    fn from(row: &Loaded) -> Self {
        Self {
            load_percent: row.percent,
            wanted_pps: row.rate,
            sent_pps: row.outcome.sent_rate,
            latency_ns: row.outcome.latency.percentiles().map(LatencyNs::from),
            counted: Counted::of(&row.outcome),
        }
    }
}

impl From<&Loaded> for LossRow {
    fn from(row: &Loaded) -> Self {
        Self {
            load_percent: row.percent,
            wanted_pps: row.rate,
            sent_pps: row.outcome.sent_rate,
            counted: Counted::of(&row.outcome),
        }
    }
}

impl Report {
    /// # Errors
    /// Never in practice: all of it can be said in JSON.
    pub(super) fn json(&self) -> serde_json::Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }
}
