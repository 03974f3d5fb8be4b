//! All tests at all sizes, one after another.

use std::time::{Duration, Instant};

use clap::ValueEnum;

use super::measure::{bursts, latency, loss};
use super::report::{LatencyRow, LossRow, Report, Size, Totals};
use super::search::{Doing, Limit, Observer, Runner, Settings, ceiling, throughput};
use super::trial::{Amount, Frames, Moment, Outcome, Stop, Trial};
use crate::display::{Live, Style, number, percent};

/// The tests of RFC 2544, section 26, that are there.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Test {
    /// The highest rate without loss (26.1).
    Throughput,
    /// Percentiles of the latency, at parts of the throughput (26.2).
    Latency,
    /// The loss from the highest rate downwards (26.3).
    Loss,
    /// The longest burst without loss (26.4, RFC 9004).
    BackToBack,
}

/// What is to be measured.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) frames: Vec<Frames>,
    pub(super) tests: Vec<Test>,
    pub(super) settings: Settings,
    /// The highest rate of each of `frames`, and what makes it that.
    pub(super) highest: Vec<(f64, Limit)>,
    /// The line's speed in bit/s.
    pub(super) line: Option<u64>,
    /// Time between two trials, for the display: waiting for stragglers, and leaving the device alone.
    pub(super) between: Duration,
}

/// Measures all of a plan. The report has what was measured, also where it ends early.
///
/// # Errors
/// [`Stop`].
pub(super) fn run(
    plan: &Plan,
    trial: &mut dyn Trial,
    view: &mut View<'_>,
    report: &mut Report,
) -> Result<(), Stop> {
    let wants = |test| plan.tests.contains(&test);
    for (index, (frames, (rate, limit))) in plan.frames.iter().zip(&plan.highest).enumerate() {
        view.index = index;
        let settings = &plan.settings;
        let mut runner = Runner { trial, observer: view, frames, settings, test: "", number: 0 };
        let ceiling = ceiling(&mut runner, *rate, *limit)?;
        report.sizes.push(Size::new(frames, plan.line, &ceiling));
        let Some(size) = report.sizes.last_mut() else { continue };
        // The base of the latency's loads; nothing at all where nothing comes through.
        let mut base = Some(ceiling.rate);
        if wants(Test::Throughput) {
            let found = throughput(&mut runner, &ceiling)?;
            base = found.rate;
            size.set_throughput(found, frames);
        }
        if let Some(base) = base.filter(|_| wants(Test::Latency)) {
            latency(&mut runner, base, |row| size.latency.push(LatencyRow::from(&row)))?;
        }
        if wants(Test::Loss) {
            loss(&mut runner, ceiling.rate, |row| size.loss.push(LossRow::from(&row)))?;
        }
        if wants(Test::BackToBack) {
            bursts(&mut runner, ceiling.rate, |found| size.set_bursts(&found))?;
        }
    }
    report.complete = true;
    Ok(())
}

/// Shows what is being done, and adds up what was.
pub(super) struct View<'p> {
    plan: &'p Plan,
    live: Live,
    style: Style,
    /// Of the frames that are sent now.
    index: usize,
    begun: Instant,
    /// When the trial began, by its number and test.
    trial: (&'static str, u32, Instant),
    pub(super) totals: Totals,
}

impl<'p> View<'p> {
    pub(super) fn new(plan: &'p Plan, quiet: bool) -> Self {
        let now = Instant::now();
        Self {
            plan,
            live: Live::new(quiet),
            style: Style::on_stderr(),
            index: 0,
            begun: now,
            trial: ("", 0, now),
            totals: Totals::default(),
        }
    }

    /// Takes the display away.
    pub(super) fn clear(&mut self) {
        self.live.clear();
    }

    /// How long the rest takes, by what is usual.
    fn left(&self, doing: &Doing<'_>) -> Duration {
        let Plan { settings, between, .. } = self.plan;
        let each = |time: Duration| time + *between / 2;
        let searches = (1.0 / settings.resolution).log2().ceil() as u32 + 1;
        let usual = |test: Test| match test {
            Test::Throughput => each(settings.trial) * searches * (settings.repeats / 2 + 1),
            Test::Latency => each(settings.trial) * settings.loads.len() as u32 * settings.repeats,
            Test::Loss => each(settings.trial) * 5 * settings.repeats,
            Test::BackToBack => each(Duration::ZERO) * 2 * searches * settings.repeats,
        };
        let order = [Test::Throughput, Test::Latency, Test::Loss, Test::BackToBack];
        let wanted = |test: &&Test| self.plan.tests.contains(test);
        let now = order.iter().position(|test| name(*test) == doing.test);
        let first = now.map_or(0, |now| now + 1);
        let here: Duration = order.iter().skip(first).filter(wanted).map(|test| usual(*test)).sum();
        let size: Duration = order.iter().filter(wanted).map(|test| usual(*test)).sum();
        let sizes = (self.plan.frames.len() - self.index - 1) as u32;
        each(doing.request.time()) * doing.left + here + (size + each(settings.trial)) * sizes
    }
}

/// As a runner calls it.
fn name(test: Test) -> &'static str {
    match test {
        Test::Throughput => "throughput",
        Test::Latency => "latency",
        Test::Loss => "loss",
        Test::BackToBack => "back-to-back",
    }
}

impl Observer for View<'_> {
    fn moment(&mut self, doing: &Doing<'_>, moment: Moment) {
        if (self.trial.0, self.trial.1) != (doing.test, doing.trial) {
            self.trial = (doing.test, doing.trial, Instant::now());
        }
        if !self.live.is_due() {
            return;
        }
        let elapsed = self.trial.2.elapsed();
        let left = self.left(doing).saturating_sub(elapsed);
        let what = format!(
            "{}, frames of {} ({} of {}), trial {}",
            doing.test,
            doing.frames.label,
            self.index + 1,
            self.plan.frames.len(),
            doing.trial
        );
        let amount = match doing.request.amount {
            Amount::Time(time) => format!("for {}", humantime::format_duration(time)),
            Amount::Frames(frames) => format!("{} frames", number(frames)),
        };
        let rate = format!("{:.4} Mpps {amount}", doing.request.rate / 1e6);
        let under_way = if moment.settling { "waiting for stragglers" } else { "sending" };
        let missing = moment.sent.saturating_sub(moment.received);
        let counts = format!(
            "{} sent, {} received, {} not here yet ({})",
            number(moment.sent),
            number(moment.received),
            number(missing),
            percent(missing, moment.sent)
        );
        let bounds = match (doing.bounds, doing.request.amount) {
            (None, _) => String::new(),
            (Some((low, high)), Amount::Time(_)) => {
                format!("between {:.4} and {:.4} Mpps", low / 1e6, high / 1e6)
            }
            (Some((low, high)), Amount::Frames(_)) => {
                format!("between {} and {} frames", number(low as u64), number(high as u64))
            }
        };
        let whole =
            |time: Duration| humantime::format_duration(Duration::from_secs(time.as_secs())).to_string();
        let time = format!("{} passed, about {} left", whole(self.begun.elapsed()), whole(left));
        let mut lines = vec![self.style.bold(&what), format!("  {rate}, {under_way}"), format!("  {counts}")];
        if !bounds.is_empty() {
            lines.push(format!("  {bounds}"));
        }
        lines.push(format!("  {time}"));
        let joined: Vec<_> =
            [what, rate, counts, bounds, time].into_iter().filter(|part| !part.is_empty()).collect();
        self.live.show(&lines, &joined.join("; "));
    }

    fn done(&mut self, _: &Doing<'_>, outcome: &Outcome) {
        self.totals.add(outcome);
    }
}
