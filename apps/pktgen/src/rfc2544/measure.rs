//! Latency, frame loss rate and back-to-back frames (RFC 2544, sections 26.2 to 26.4).

use super::search::{Runner, trials_left};
use super::trial::{Amount, Outcome, Stop};

/// A trial at a part of some rate.
#[derive(Clone, Debug)]
pub(super) struct Loaded {
    /// Per cent of the throughput, or of the highest rate.
    pub(super) percent: f64,
    /// Frames per second that were wanted.
    pub(super) rate: f64,
    /// Of all trials at this load together.
    pub(super) outcome: Outcome,
}

/// Measures the latency at loads in per cent of `rate`. Each row is handed to `keep` as soon as there is one.
///
/// # Errors
/// [`Stop`].
pub(super) fn latency(runner: &mut Runner<'_>, rate: f64, mut keep: impl FnMut(Loaded)) -> Result<(), Stop> {
    runner.begin("latency");
    let loads = runner.settings.loads.clone();
    for (done, percent) in loads.iter().copied().enumerate() {
        let left = (loads.len() - done) as u32;
        keep(loaded(runner, percent, rate, left)?);
    }
    Ok(())
}

/// By how much of the highest rate the next one is lower, in per cent.
const STEP: u32 = 10;

/// Measures the loss at 100 % of `rate`, 90 % and so on, until two trials in a row have lost nothing.
///
/// # Errors
/// [`Stop`].
pub(super) fn loss(runner: &mut Runner<'_>, rate: f64, mut keep: impl FnMut(Loaded)) -> Result<(), Stop> {
    runner.begin("loss");
    let mut without = 0;
    for percent in (1..=100 / STEP).rev().map(|step| step * STEP) {
        let row = loaded(runner, f64::from(percent), rate, percent / STEP)?;
        without = if row.outcome.lost() == 0 { without + 1 } else { 0 };
        keep(row);
        if without == 2 {
            break;
        }
    }
    Ok(())
}

fn loaded(runner: &mut Runner<'_>, percent: f64, rate: f64, left: u32) -> Result<Loaded, Stop> {
    let rate = rate * percent / 100.0;
    let (repeats, time) = (runner.settings.repeats, runner.settings.trial);
    let mut sum: Option<Outcome> = None;
    for done in 0..repeats {
        let outcome = runner.run(rate, Amount::Time(time), None, left * repeats - done)?;
        sum = Some(match sum {
            None => outcome,
            Some(sum) => together(sum, outcome, done),
        });
    }
    let outcome = sum.ok_or_else(|| anyhow::anyhow!("no trials were asked for"))?;
    Ok(Loaded { percent, rate, outcome })
}

/// Adds an outcome to the sum of `count` others.
fn together(mut sum: Outcome, other: Outcome, count: u32) -> Outcome {
    let before = f64::from(count);
    sum.sent_rate = (sum.sent_rate * before + other.sent_rate) / (before + 1.0);
    sum.offered += other.offered;
    sum.received += other.received;
    sum.reordered += other.reordered;
    sum.duplicates += other.duplicates;
    sum.latency.merge(&other.latency);
    if let (Some(sum), Some(other)) = (&mut sum.interfaces, other.interfaces) {
        sum.sender_sent += other.sender_sent;
        sum.sender_dropped += other.sender_dropped;
        sum.receiver_received += other.receiver_received;
        sum.receiver_dropped += other.receiver_dropped;
    }
    sum
}

/// The longest burst without loss.
#[derive(Clone, Debug)]
pub(super) struct Bursts {
    /// Frames, one for each search that has ended: 0 where not even a single one came through.
    pub(super) longest: Vec<u64>,
    /// The longest burst that was tried, in frames: the device may take more than one of these.
    pub(super) tried_at_most: u64,
    /// Frames per second that were wanted, and the slowest that was sent.
    pub(super) rate: f64,
    pub(super) sent_rate: f64,
}

impl Bursts {
    /// Frames.
    pub(super) fn mean(&self) -> f64 {
        self.longest.iter().sum::<u64>() as f64 / self.longest.len().max(1) as f64
    }

    /// Whether no burst was long enough to lose frames.
    pub(super) fn is_open(&self) -> bool {
        self.longest.iter().all(|frames| *frames >= self.tried_at_most)
    }

    /// Seconds for which the device's buffers last, once corrected for what it sends on meanwhile (RFC 9004).
    /// None where no limit was found, or the device is as fast as the sender.
    pub(super) fn buffer_seconds(&self, throughput: Option<f64>) -> Option<f64> {
        let spare = 1.0 - throughput? / self.rate;
        (!self.is_open() && spare > 0.0).then(|| self.mean() / self.rate * spare)
    }
}

/// Searches the longest burst at `rate` that loses nothing, as many times as trials are to be repeated: RFC 9004 averages
/// the results. What is known is handed to `keep` after each search.
///
/// # Errors
/// [`Stop`].
pub(super) fn bursts(runner: &mut Runner<'_>, rate: f64, mut keep: impl FnMut(Bursts)) -> Result<(), Stop> {
    runner.begin("back-to-back");
    let most = ((rate * runner.settings.burst.as_secs_f64()) as u64).max(1);
    let mut found = Bursts { longest: Vec::new(), tried_at_most: most, rate, sent_rate: f64::INFINITY };
    for done in 0..runner.settings.repeats {
        let searches = runner.settings.repeats - done - 1;
        let longest = longest(runner, rate, most, searches, &mut found.sent_rate)?;
        found.longest.push(longest);
        keep(found.clone());
    }
    Ok(())
}

fn longest(
    runner: &mut Runner<'_>,
    rate: f64,
    most: u64,
    searches: u32,
    slowest: &mut f64,
) -> Result<u64, Stop> {
    let resolution = runner.settings.resolution;
    // All bursts up to `low` frames come through; one of `high` does not, once one was seen that does not.
    let (mut low, mut high, mut candidate) = (0, most, most);
    loop {
        let bounds = (low as f64, high as f64);
        let left = trials_left(bounds, resolution);
        let outcome = runner.run(rate, Amount::Frames(candidate), Some(bounds), left * (searches + 1))?;
        *slowest = slowest.min(outcome.sent_rate);
        // A burst that was cut short says nothing of its length.
        let passed = outcome.offered == candidate && outcome.lost() == 0;
        if passed {
            low = candidate;
        } else {
            high = candidate;
        }
        if low == most || high - low <= 1 || (high - low) as f64 <= resolution * high as f64 {
            return Ok(low);
        }
        // Buffers are far shorter than the longest burst: down in great steps first.
        candidate = if low == 0 { (high / 8).max(1) } else { low.midpoint(high) };
    }
}

#[cfg(test)]
#[path = "measure_tests.rs"]
mod tests;
