//! Throughput: the highest rate at which no more than so much is lost (RFC 2544, section 26.1).
//!
//! Every decision is made of what was measured: a trial whose sender was slower than wanted says something of the rate
//! that it reached, and nothing of the one that was wanted. Where a device is noisy, a rate is judged by several trials
//! and passes if more than half of them do (the exceed ratio of MLRsearch, RFC 9971, at its usual 50 %).

use super::trial::{Amount, Frames, Moment, Outcome, Request, Stop, Trial};

use std::time::Duration;

use serde::Serialize;

/// How the tests are done.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    /// How long each trial sends.
    pub(super) trial: Duration,
    /// The search ends when the bounds are as near as this part of the upper one.
    pub(super) resolution: f64,
    /// The part of the frames that may be lost.
    pub(super) loss: f64,
    /// Trials that judge a rate.
    pub(super) repeats: u32,
    /// Loads at which the latency is measured, in per cent of the throughput.
    pub(super) loads: Vec<f64>,
    /// The longest burst that is tried, as the time it takes.
    pub(super) burst: Duration,
}

/// What is being done: for the display.
#[derive(Clone, Debug)]
pub(super) struct Doing<'a> {
    pub(super) test: &'static str,
    pub(super) frames: &'a Frames,
    /// Counted from 1, over all trials of the test at this size.
    pub(super) trial: u32,
    pub(super) request: Request<'a>,
    /// What is known of the result: in frames per second, or frames.
    pub(super) bounds: Option<(f64, f64)>,
    /// Trials of this test still to come, this one included, as far as can be said.
    pub(super) left: u32,
}

/// Sees all that a [`Runner`] does.
pub(super) trait Observer {
    /// A trial is on its way.
    fn moment(&mut self, doing: &Doing<'_>, moment: Moment);
    /// A trial has ended.
    fn done(&mut self, doing: &Doing<'_>, outcome: &Outcome);
}

/// Runs trials with frames of one size.
pub(super) struct Runner<'a> {
    pub(super) trial: &'a mut dyn Trial,
    pub(super) observer: &'a mut dyn Observer,
    pub(super) frames: &'a Frames,
    pub(super) settings: &'a Settings,
    /// Of the test that is running.
    pub(super) test: &'static str,
    pub(super) number: u32,
}

impl Runner<'_> {
    /// The trials that follow are of this test.
    pub(super) fn begin(&mut self, test: &'static str) {
        (self.test, self.number) = (test, 0);
    }

    pub(super) fn run(
        &mut self,
        rate: f64,
        amount: Amount,
        bounds: Option<(f64, f64)>,
        left: u32,
    ) -> Result<Outcome, Stop> {
        self.number += 1;
        let request = Request { frames: self.frames, rate, amount };
        let doing = Doing { test: self.test, frames: self.frames, trial: self.number, request, bounds, left };
        let observer = &mut *self.observer;
        let outcome = self.trial.run(&request, &mut |moment| observer.moment(&doing, moment))?;
        self.observer.done(&doing, &outcome);
        Ok(outcome)
    }
}

/// What keeps a result from being higher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Limit {
    /// The line takes no more.
    Line,
    /// No more was asked for.
    Asked,
    /// The sender was no faster: the device may be.
    Sender,
}

impl Limit {
    /// As it is called in files.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Line => "line",
            Self::Asked => "asked",
            Self::Sender => "sender",
        }
    }
}

/// The highest rate that is tried.
#[derive(Clone, Debug)]
pub(super) struct Ceiling {
    /// Frames per second.
    pub(super) rate: f64,
    pub(super) limit: Limit,
    /// Of a trial at this rate.
    pub(super) outcome: Outcome,
}

/// Finds out what the sender reaches of the rate that is wanted at most.
///
/// # Errors
/// [`Stop`].
pub(super) fn ceiling(runner: &mut Runner<'_>, rate: f64, limit: Limit) -> Result<Ceiling, Stop> {
    runner.begin("maximum");
    let outcome = runner.run(rate, Amount::Time(runner.settings.trial), None, 1)?;
    let is_reached = outcome.reached(rate);
    let (rate, limit) =
        if is_reached || outcome.offered == 0 { (rate, limit) } else { (outcome.sent_rate, Limit::Sender) };
    Ok(Ceiling { rate, limit, outcome })
}

/// One trial of a search.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Tried {
    /// Frames per second that were wanted, and that were sent.
    pub(super) wanted_pps: f64,
    pub(super) sent_pps: f64,
    pub(super) offered: u64,
    pub(super) received: u64,
    pub(super) lost: u64,
    /// No more was lost than may be.
    pub(super) passed: bool,
}

/// The result of a search.
#[derive(Clone, Debug)]
pub(super) struct Throughput {
    /// Frames per second: the highest rate that was sent and came through; None where not even the lowest did.
    pub(super) rate: Option<f64>,
    /// Of a trial at that rate.
    pub(super) outcome: Option<Outcome>,
    /// The lowest rate at which too much was lost.
    pub(super) failed_at: Option<f64>,
    /// What stood in the way of more, where the device did not.
    pub(super) limit: Option<Limit>,
    /// All trials, in their order.
    pub(super) tried: Vec<Tried>,
}

/// Trials of a search at most, whatever happens.
const TRIALS_MAX: usize = 200;
/// How often a rate is tried again that the sender has missed though nothing was lost.
const MISSES_MAX: u32 = 3;
/// The lowest rate that is tried, as a part of the highest.
const FLOOR: f64 = 1e-4;

/// Searches the throughput below a ceiling.
///
/// # Errors
/// [`Stop`].
pub(super) fn throughput(runner: &mut Runner<'_>, ceiling: &Ceiling) -> Result<Throughput, Stop> {
    runner.begin("throughput");
    let settings = runner.settings;
    // A trial has to send some frames for its loss to say anything.
    let floor = (ceiling.rate * FLOOR).max(10.0 / settings.trial.as_secs_f64()).min(ceiling.rate);
    let mut found = Throughput { rate: None, outcome: None, failed_at: None, limit: None, tried: Vec::new() };
    let mut first = Some(ceiling.outcome.clone());
    let (mut candidate, mut misses) = (ceiling.rate, 0);
    while found.tried.len() < TRIALS_MAX {
        let low = found.rate.unwrap_or(0.0);
        let judged = judge(runner, &mut found, candidate, ceiling.rate, first.take())?;
        let sent = judged.outcome.sent_rate;
        if judged.passed {
            let is_better = sent.min(candidate) > low;
            if is_better {
                found.rate = Some(sent.min(candidate));
                found.outcome = Some(judged.outcome.clone());
            }
            if !judged.outcome.reached(candidate) {
                misses += 1;
                if misses < MISSES_MAX {
                    continue;
                }
                found.limit = Some(Limit::Sender);
                break;
            }
            if candidate >= ceiling.rate {
                found.limit = Some(ceiling.limit);
                break;
            }
        } else if sent <= low && judged.outcome.offered > 0 {
            // Slower than what has come through before, and too much lost: it says nothing of the candidate. As bad
            // moments of the machine go by, so does the search.
            misses += 1;
            if misses < MISSES_MAX {
                continue;
            }
            found.failed_at = Some(candidate);
        } else {
            let failed = if judged.outcome.offered > 0 { sent.min(candidate) } else { candidate };
            found.failed_at = Some(failed);
        }
        misses = 0;
        let high = found.failed_at.unwrap_or(ceiling.rate);
        let low = found.rate.unwrap_or(0.0);
        let is_near = high - low <= settings.resolution * high;
        if is_near || (found.rate.is_none() && high <= floor) {
            break;
        }
        candidate = next(low, high, floor, settings.resolution, &judged);
    }
    Ok(found)
}

/// The next rate to try. What came through of a rate that was too high is often near what does without loss: it is
/// tried first, as long as nothing has come through whole.
fn next(low: f64, high: f64, floor: f64, resolution: f64, last: &Judged) -> f64 {
    let through = last.outcome.forwarding_rate() * (1.0 - resolution / 2.0);
    let is_inside = through > floor && through < high * (1.0 - resolution);
    if low == 0.0 && is_inside && !last.passed {
        return through.max(high / 8.0);
    }
    ((low + high) / 2.0).max(floor)
}

/// What several trials have said of a rate.
struct Judged {
    passed: bool,
    /// Of the trial that was the slowest of those that decided.
    outcome: Outcome,
}

fn judge(
    runner: &mut Runner<'_>,
    found: &mut Throughput,
    rate: f64,
    ceiling: f64,
    mut first: Option<Outcome>,
) -> Result<Judged, Stop> {
    let settings = runner.settings;
    let majority = settings.repeats / 2 + 1;
    let mut outcomes = [Vec::new(), Vec::new()];
    loop {
        let bounds = (found.rate.unwrap_or(0.0), found.failed_at.unwrap_or(ceiling));
        let left = trials_left(bounds, settings.resolution) * majority;
        let outcome = match first.take() {
            Some(outcome) => outcome,
            None => runner.run(rate, Amount::Time(settings.trial), Some(bounds), left)?,
        };
        let passed = outcome.offered > 0 && outcome.loss() <= settings.loss;
        found.tried.push(Tried {
            wanted_pps: rate,
            sent_pps: outcome.sent_rate,
            offered: outcome.offered,
            received: outcome.received,
            lost: outcome.lost(),
            passed,
        });
        let side = &mut outcomes[usize::from(passed)];
        side.push(outcome);
        // A tie is no majority: with an even number of trials, half of them failing is enough to fail.
        let needed = if passed { majority } else { settings.repeats.div_ceil(2).max(1) };
        if side.len() as u32 >= needed {
            let slowest = side.drain(..).min_by(|a, b| a.sent_rate.total_cmp(&b.sent_rate));
            let Some(outcome) = slowest else { continue };
            return Ok(Judged { passed, outcome });
        }
    }
}

/// How often bounds are halved until they are near enough, the trial under way included.
pub(super) fn trials_left((low, high): (f64, f64), resolution: f64) -> u32 {
    let apart = (high - low) / (resolution * high).max(f64::MIN_POSITIVE);
    if apart <= 1.0 { 1 } else { apart.log2().ceil().clamp(1.0, 64.0) as u32 }
}

#[cfg(test)]
#[path = "search_tests.rs"]
mod tests;
