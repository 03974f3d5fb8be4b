//! What is shown while packets come.

use std::fmt::Write as _;
use std::time::Instant;

use afx::{Running, Stats};

use super::Options;
use super::collector::Summary;
use super::report::{by_worker, kernel_dropped, malformed};
use super::stage::{Desk, UNSIGNED};
use crate::display::{Live, Rate, Style, count, micros, number, percent, table};

/// The display while packets come.
pub(super) struct View<'o> {
    options: &'o Options,
    live: Live,
    style: Style,
    started: Instant,
    asked: bool,
    /// As of the display before: when, and per worker packets and bytes.
    last: (Instant, Vec<(u64, u64)>),
}

impl<'o> View<'o> {
    pub(super) fn new(options: &'o Options) -> Self {
        let now = Instant::now();
        let live = Live::new(options.quiet);
        Self { options, live, style: Style::on_stderr(), started: now, asked: false, last: (now, Vec::new()) }
    }

    /// Shows how it stands once a second, when the workers have said what they have.
    pub(super) fn update(&mut self, running: &Running, desk: &Desk) {
        if !self.live.is_due() {
            return;
        }
        if !std::mem::replace(&mut self.asked, true) {
            desk.ask();
        }
        let Some(summary) = desk.answer() else { return };
        self.asked = false;
        let (now, stats) = (Instant::now(), running.stats());
        let counts = by_worker(&stats);
        let before = self.last.1.iter().copied().chain(std::iter::repeat((0, 0)));
        let since = counts.iter().zip(before).map(|(now, before)| (now.0 - before.0, now.1 - before.1));
        let moment = Moment {
            elapsed: (now - self.started).as_secs_f64(),
            seconds: (now - self.last.0).as_secs_f64(),
            since: since.collect(),
            counts: &counts,
            summary: &summary,
            stats: &stats,
        };
        self.live.show(&moment.lines(self.style, self.options), &moment.line(self.options));
        self.last = (now, counts);
    }

    /// Takes the display away: the result comes in its place.
    pub(super) fn clear(&mut self) {
        self.live.clear();
    }
}

/// How it stands while packets come.
struct Moment<'a> {
    /// Since the start, in s, and since the last display.
    elapsed: f64,
    seconds: f64,
    /// Per worker: packets and bytes since the last display, and in all.
    since: Vec<(u64, u64)>,
    counts: &'a [(u64, u64)],
    summary: &'a Summary,
    stats: &'a Stats,
}

impl Moment<'_> {
    fn lines(&self, style: Style, options: &Options) -> Vec<String> {
        let summary = self.summary;
        let heading = format!("{}, {:.0} s", options.source.interface, self.elapsed);
        let row = |name: String, (packets, bytes): (u64, u64), all: u64| {
            let rate = Rate::of(packets, bytes, self.seconds);
            vec![name, rate.mpps(), rate.gbits(), number(all)]
        };
        let sum = |counts: &[(u64, u64)]| {
            counts.iter().fold((0, 0), |sum, count| (sum.0 + count.0, sum.1 + count.1))
        };
        let workers = self.since.iter().zip(self.counts).enumerate();
        let mut rows: Vec<_> =
            workers.map(|(worker, (rate, all))| row(format!("worker {worker}"), *rate, all.0)).collect();
        if rows.len() > 1 {
            rows.push(row("all".into(), sum(&self.since), sum(self.counts).0));
        }
        let mut lines = vec![style.bold(&heading)];
        lines.extend(table(style, &["received", "Mpps", "Gbit/s", "packets"], rows));
        let lost = summary.lost;
        let loss = format!("lost {} ({})", number(lost), percent(lost, lost + summary.distinct));
        lines.push(if lost > 0 { style.red(&loss) } else { loss });
        lines.push(format!(
            "reordered {}, overtaken by {} at most; duplicates {}",
            number(summary.reordered),
            number(summary.extent),
            number(summary.duplicates)
        ));
        lines.push(format!(
            "unsigned {}, malformed {}, kernel dropped {}",
            number(self.stats.dropped(UNSIGNED)),
            number(malformed(self.stats)),
            number(kernel_dropped(self.stats))
        ));
        if let Some(found) = summary.latency.percentiles() {
            lines.push(format!(
                "{} latency in µs: p50 {}, p99 {}, p99.9 {}, max {}",
                options.latency.name(),
                micros(found.p50 as f64),
                micros(found.p99 as f64),
                micros(found.p99_9 as f64),
                micros(found.max as f64)
            ));
        }
        lines
    }

    /// The same in one line.
    fn line(&self, options: &Options) -> String {
        let summary = self.summary;
        let (packets, bytes) =
            self.since.iter().fold((0, 0), |sum, count| (sum.0 + count.0, sum.1 + count.1));
        let rate = Rate::of(packets, bytes, self.seconds);
        let mut line = format!(
            "{:>6.1} s  {} Mpps  {} Gbit/s  {}  lost {} ({})  reordered {}  duplicates {}",
            self.elapsed,
            rate.mpps(),
            rate.gbits(),
            count(summary.packets, "packet"),
            number(summary.lost),
            percent(summary.lost, summary.lost + summary.distinct),
            number(summary.reordered),
            number(summary.duplicates)
        );
        if let Some(found) = summary.latency.percentiles() {
            let (p50, p99) = (micros(found.p50 as f64), micros(found.p99 as f64));
            let _ = write!(line, "  {} p50 {p50} µs, p99 {p99} µs", options.latency.name());
        }
        line
    }
}
