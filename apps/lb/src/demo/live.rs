//! What is shown while requests are under way.

use crossterm::style::Color;

use super::client::Load;
use super::network::{REALS, REALS_COUNT};
use super::phases::{PHASES, Phase, Sample};
use super::screen::{Screen, number, percent};

/// The demo as it stands.
pub(super) struct View<'a> {
    /// The phase, counted from 1.
    pub(super) number: u64,
    pub(super) phase: &'a Phase,
    pub(super) load: &'a Load,
    /// When the balancer had started, when the phase began, when the screen was drawn last, and now.
    pub(super) start: &'a Sample,
    pub(super) begin: &'a Sample,
    pub(super) last: &'a Sample,
    pub(super) now: &'a Sample,
    /// How the port came up.
    pub(super) status: &'a [(String, String)],
}

impl View<'_> {
    /// Columns that the table takes.
    pub(super) const WIDTH: usize = 78;

    /// The table, line by line.
    pub(super) fn table(&self, screen: &Screen) -> Vec<String> {
        let Self { phase, load, now, .. } = self;
        let title = format!("Phase {} of {}: {}", self.number, PHASES.len(), phase.name);
        let time = format!("{:.1} s", self.seconds());
        let failed = load.failed();
        let failed = screen.paint(
            format!("{} failed", number(failed.into())),
            if failed > 0 { Color::Red } else { Color::Green },
        );
        let ended = number(load.ended().into());
        let requests = number(load.requests.into());
        let stats = &now.stats;
        let [received, sent, dropped] = self.rates();
        let drops = match stats.drops() {
            drops if drops.is_empty() => "for no reason so far".to_owned(),
            drops => drops
                .iter()
                .map(|(reason, count)| format!("{reason} {}", number(*count)))
                .collect::<Vec<_>>()
                .join(", "),
        };
        let row = |name: &str, rate: u64, total: u64, note: &str| {
            format!("{name:<8} {:>11} {:>11}   {note}", number(rate), number(total)).trim_end().to_owned()
        };
        let mut lines = vec![
            screen.bold(format!("{title:<68} {time:>9}")),
            format!("{ended} of {requests} requests have ended, {failed}"),
            String::new(),
            screen.bold("packets   per second       total"),
            row(
                "in",
                received,
                stats.received(),
                &format!("{} (bound in mode {})", self.cost(), mode(self.status)),
            ),
            row("out", sent, stats.sent(), "to reals, in an outer IP header"),
            row("dropped", dropped, stats.dropped_total(), &drops),
            String::new(),
            screen.bold("real   address     weight  connections   opened in     share    expected"),
            screen.bold("                                   now  this phase  of opened"),
        ];
        let (shares, opened) = self.shares();
        for (index, real) in REALS.iter().enumerate() {
            let line = format!(
                "{:<6} {:<10} {:>7} {:>12} {:>11} {:>10} {:>11}",
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

    /// The same in one line.
    pub(super) fn line(&self) -> String {
        let [received, sent, _] = self.rates();
        let (shares, _) = self.shares();
        let shares: Vec<_> = REALS
            .iter()
            .zip(shares)
            .map(|(real, share)| format!("{} {}", real.name, percent(share)))
            .collect();
        format!(
            "{:>5.1} s  {:<13}  {:>9} requests, {} failed  {:>7} pps in {:>7} out  {} dropped  {}  {}",
            self.seconds(),
            self.phase.name,
            number(self.load.ended().into()),
            self.load.failed(),
            number(received),
            number(sent),
            number(self.now.stats.dropped_total()),
            self.cost(),
            shares.join("  "),
        )
    }

    fn seconds(&self) -> f64 {
        (self.now.at - self.start.at).as_secs_f64()
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
    fn cost(&self) -> String {
        let packets = self.now.stats.received() - self.last.stats.received();
        match busy(self.now).saturating_sub(busy(self.last)).checked_div(packets.into()) {
            Some(ns) => format!("{} ns per packet", number(ns as u64)),
            None => "- ns per packet".to_owned(),
        }
    }

    /// Of the connections opened in this phase, each real's share and number.
    fn shares(&self) -> ([f64; REALS_COUNT], [u64; REALS_COUNT]) {
        let opened = self.now.opened_since(self.begin);
        let sum: u64 = opened.iter().sum();
        (opened.map(|count| count as f64 / sum as f64), opened)
    }
}

/// Nanoseconds that all workers together spent on packets.
fn busy(sample: &Sample) -> u128 {
    sample.stats.workers.iter().map(|worker| worker.busy.as_nanos()).sum()
}

/// The mode of the sockets, which all have the same.
fn mode(status: &[(String, String)]) -> &str {
    let queue = status.iter().find(|(name, _)| name.starts_with("queue "));
    queue.and_then(|(_, value)| value.split(',').next()).unwrap_or("unknown")
}
