//! What is shown while requests are under way.

use crossterm::style::Color;

use super::client::Load;
use super::network::{REALS, REALS_COUNT};
use super::phases::{PHASES, Phase, Sample};
use super::screen::{Screen, number, percent};
use super::work::{Cost, Work};

/// The demo as it stands.
pub(super) struct View<'a> {
    /// The phase, counted from 1.
    pub(super) number: u64,
    pub(super) phase: &'a Phase,
    pub(super) load: &'a Load,
    /// How the port came up.
    pub(super) status: &'a [(String, String)],
    /// When the phases so far started.
    pub(super) starts: &'a [Sample],
    /// When the screen was drawn last, or else the start.
    pub(super) last: &'a Sample,
    pub(super) now: &'a Sample,
}

impl View<'_> {
    /// Columns that the table takes.
    pub(super) const WIDTH: usize = 78;

    /// The table, line by line.
    pub(super) fn table(&self, screen: &Screen) -> Vec<String> {
        let Self { phase, load, now, .. } = self;
        let title = format!("Phase {} of {}: {}", self.number, PHASES.len(), phase.name);
        let time = format!("{:.1} s", self.seconds());
        let failed = match load.failed() {
            0 => screen.paint("0 failed", Color::Green),
            failed => screen.paint(format!("{} failed", number(failed.into())), Color::Red),
        };
        let (ended, requests) = (number(load.ended().into()), number(load.requests.into()));
        let mut lines = vec![
            screen.bold(format!("{title:<66} {time:>9}")),
            format!("{ended} of {requests} requests have ended, {failed}"),
            String::new(),
            screen.bold("packets   per second       total"),
        ];
        lines.extend(self.packets());
        lines.extend([
            String::new(),
            screen.bold("real    address      weight  connections  opened in      share   expected"),
            screen.bold("                             remembered  this phase  of opened"),
        ]);
        let (shares, opened) = self.shares();
        for (index, real) in REALS.iter().enumerate() {
            let line = format!(
                "{:<7} {:<11} {:>7} {:>12} {:>11} {:>10} {:>10}",
                real.name,
                real.address,
                phase.weights[index],
                number(now.reals[index].connections),
                number(opened[index]),
                percent(shares[index]),
                percent(phase.expected()[index])
            );
            let drained = phase.drained == Some(index);
            lines.push(if drained { screen.paint(line, Color::Yellow) } else { line });
        }
        lines
    }

    /// The table's lines about packets.
    fn packets(&self) -> Vec<String> {
        let stats = &self.now.stats;
        let [received, sent, dropped] = self.rates();
        let cost = self.cost();
        let ns = |ns: Option<u64>| ns.map_or_else(|| "-".to_owned(), number);
        let balancing = format!("{} ns each to balance", ns(cost.as_ref().map(|cost| cost.balancing_ns)));
        let total =
            format!("{} ns each in all, {} mode", ns(cost.map(|cost| cost.total_ns)), mode(self.status));
        let mut lines = vec![
            row("in", received, stats.received(), &balancing),
            row("out", sent, stats.sent(), &total),
            row("dropped", dropped, stats.dropped_total(), ""),
        ];
        for (reason, count) in stats.drops() {
            lines.push(format!("  {reason:<30} {}", number(count)));
        }
        lines
    }

    /// The same in one line.
    pub(super) fn line(&self) -> String {
        let [received, sent, _] = self.rates();
        let (shares, _) = self.shares();
        let shares: Vec<_> = REALS
            .iter()
            .zip(shares)
            .map(|(real, share)| format!("{} {:>7}", real.name, percent(share)))
            .collect();
        format!(
            "{:>5.1} s  {:<13}  {:>7} requests, {} failed  {:>6} pps in, {:>6} out, {} dropped, {:>5} ns  {}",
            self.seconds(),
            self.phase.name,
            number(self.load.ended().into()),
            self.load.failed(),
            number(received),
            number(sent),
            number(self.now.stats.dropped_total()),
            self.cost().map_or_else(|| "-".to_owned(), |cost| number(cost.balancing_ns)),
            shares.join("  "),
        )
    }

    fn seconds(&self) -> f64 {
        self.starts.first().map_or(0.0, |start| (self.now.at - start.at).as_secs_f64())
    }

    /// Packets per second in, out and dropped, since the screen was drawn last.
    fn rates(&self) -> [u64; 3] {
        let seconds = (self.now.at - self.last.at).as_secs_f64();
        let counts = |sample: &Sample| {
            let stats = &sample.stats;
            [stats.received(), stats.sent(), stats.dropped_total()]
        };
        let (now, last) = (counts(self.now), counts(self.last));
        std::array::from_fn(|index| ((now[index] - last[index]) as f64 / seconds) as u64)
    }

    /// What a packet costs now.
    fn cost(&self) -> Option<Cost> {
        (Work::of_all(&self.now.stats) - Work::of_all(&self.last.stats)).cost()
    }

    /// Of the connections opened in this phase, each real's share and number.
    fn shares(&self) -> ([f64; REALS_COUNT], [u64; REALS_COUNT]) {
        let begin = self.starts.last().unwrap_or(self.now);
        let opened = self.now.opened_since(begin);
        let sum: u64 = opened.iter().sum();
        (opened.map(|count| count as f64 / sum as f64), opened)
    }
}

/// A line about packets.
fn row(name: &str, rate: u64, total: u64, note: &str) -> String {
    format!("{name:<8} {:>11} {:>11}   {note}", number(rate), number(total)).trim_end().to_owned()
}

/// The mode of the sockets, which all have the same.
fn mode(status: &[(String, String)]) -> &str {
    let queue = status.iter().find(|(name, _)| name.starts_with("queue "));
    queue.and_then(|(_, value)| value.split(',').next()).unwrap_or("unknown")
}
