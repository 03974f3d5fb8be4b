//! What the demo came to.

use std::io::{self, Write as _};

use crossterm::style::Color;
use serde::Serialize;

use super::client::Load;
use super::network::{PORT, REALS, REALS_COUNT, VIP, body};
use super::phases::{Outcome, PhaseOutcome};
use super::screen::{Screen, number, percent};

/// The result, as `--json` prints it. Shares are parts of 1.
#[derive(Serialize)]
pub(super) struct Summary {
    /// Whether all was as it should be.
    pub(super) ok: bool,
    /// What was not.
    problems: Vec<String>,
    requests: u32,
    /// Requests without a right and complete answer.
    failures: u32,
    /// The first of them.
    failures_told: Vec<String>,
    seconds: f64,
    body_bytes: usize,
    vip: String,
    /// How the port came up: name and value.
    port: serde_json::Map<String, serde_json::Value>,
    /// Answers from the drained real to requests made while it was drained.
    answers_while_drained: u32,
    phases: Vec<Phase>,
    reals: Vec<Total>,
    packets: Packets,
    workers: Vec<Worker>,
    /// Whether every frame of every worker is accounted for.
    ledger_balanced: bool,
}

#[derive(Serialize)]
struct Phase {
    name: &'static str,
    seconds: f64,
    reals: Vec<Share>,
}

/// A real in a phase.
#[derive(Serialize)]
struct Share {
    name: &'static str,
    weight: u32,
    drained: bool,
    /// Connections that the balancer chose it for.
    connections: u64,
    share: f64,
    expected_share: f64,
}

/// A real in the whole run.
#[derive(Serialize)]
struct Total {
    name: &'static str,
    address: String,
    connections: u64,
    share: f64,
    /// From the weights of each phase and its connections.
    expected_share: f64,
    /// Answers that the client got from it.
    answers: u32,
}

#[derive(Serialize)]
struct Packets {
    received: u64,
    sent: u64,
    dropped: u64,
    dropped_by_reason: serde_json::Map<String, serde_json::Value>,
    /// What the kernel had for the balancer and dropped before.
    kernel_dropped: u64,
    ns_per_packet: Option<u64>,
}

#[derive(Serialize)]
struct Worker {
    core: Option<usize>,
    queues: Vec<String>,
    packets: u64,
    ns_per_packet: Option<u64>,
    frames: u64,
    /// Frames that no one accounts for: 0 when all is well.
    frames_missing: i64,
    ledger_balanced: bool,
}

impl Summary {
    pub(super) fn new(outcome: &Outcome, load: &Load) -> Self {
        let stats = &outcome.stats;
        let phases: Vec<_> = outcome.phases.iter().map(Phase::new).collect();
        let workers: Vec<_> = stats.workers.iter().map(Worker::new).collect();
        let answered = load.answered();
        // A request that was never made is no success either.
        let failures = load.requests - answered.iter().sum::<u32>();
        let mut problems = Vec::new();
        if failures > 0 {
            problems.push(format!(
                "{} of {} requests failed",
                number(failures.into()),
                number(load.requests.into())
            ));
        }
        let idle = phases.iter().flat_map(|phase| &phase.reals).filter(|real| real.drained);
        let opened: u64 = idle.map(|real| real.connections).sum();
        if opened > 0 || load.strayed() > 0 {
            problems.push(format!(
                "the drained real got {opened} new connections, and gave {} answers on such",
                load.strayed()
            ));
        }
        if !stats.balanced() {
            problems.push("frames are not accounted for: see the ledger".to_owned());
        }
        let busy: u128 = stats.workers.iter().map(|worker| worker.busy.as_nanos()).sum();
        Self {
            ok: problems.is_empty(),
            problems,
            requests: load.requests,
            failures,
            failures_told: load.failures(),
            seconds: phases.iter().map(|phase| phase.seconds).sum(),
            body_bytes: body().len(),
            vip: format!("{VIP}:{PORT} tcp"),
            port: outcome.status.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect(),
            answers_while_drained: load.strayed(),
            reals: totals(&outcome.phases, answered),
            phases,
            packets: Packets {
                received: stats.received(),
                sent: stats.sent(),
                dropped: stats.dropped_total(),
                dropped_by_reason: stats
                    .drops()
                    .into_iter()
                    .map(|(name, count)| (name.to_owned(), count.into()))
                    .collect(),
                kernel_dropped: stats.queues().map(|queue| queue.kernel_dropped).sum(),
                ns_per_packet: per_packet(busy, stats.received()),
            },
            workers,
            ledger_balanced: stats.balanced(),
        }
    }

    /// Prints it for people.
    pub(super) fn print(&self, screen: &mut Screen) -> io::Result<()> {
        let verdict = if self.ok {
            screen.paint(
                "All went well: no request failed, the drained real stayed idle, no frame is missing.",
                Color::Green,
            )
        } else {
            screen.paint(format!("Not all went well: {}.", self.problems.join("; ")), Color::Red)
        };
        writeln!(screen, "\n{verdict}\n")?;
        writeln!(
            screen,
            "requests  {} in {:.1} s, {} failed; each answer's {} bytes compared",
            number(self.requests.into()),
            self.seconds,
            number(self.failures.into()),
            number(self.body_bytes as u64)
        )?;
        for failure in &self.failures_told {
            writeln!(screen, "          {failure}")?;
        }
        let Packets { received, sent, dropped, dropped_by_reason, kernel_dropped, ns_per_packet } =
            &self.packets;
        let cost = ns_per_packet.map_or_else(|| "-".to_owned(), number);
        writeln!(screen, "packets   {} in, {} out, {cost} ns each", number(*received), number(*sent))?;
        writeln!(
            screen,
            "dropped   {}, and {} by the kernel before they came here",
            number(*dropped),
            number(*kernel_dropped)
        )?;
        for (reason, count) in dropped_by_reason {
            writeln!(screen, "          {reason} {count}")?;
        }
        self.print_shares(screen)?;
        self.print_ledger(screen)
    }

    fn print_shares(&self, screen: &mut Screen) -> io::Result<()> {
        let heading =
            screen.bold("phase               real   weight  connections     share  expected   answers");
        writeln!(screen, "\n{heading}")?;
        for (number_of, phase) in (1..).zip(&self.phases) {
            let mut name = format!("{number_of} {}", phase.name);
            for real in &phase.reals {
                writeln!(
                    screen,
                    "{name:<19} {:<6} {:>6} {:>12} {:>9} {:>9}",
                    real.name,
                    real.weight,
                    number(real.connections),
                    percent(real.share),
                    percent(real.expected_share)
                )?;
                name = if name.starts_with(' ') || !name.starts_with(char::is_numeric) {
                    String::new()
                } else {
                    format!("  {:.1} s", phase.seconds)
                };
            }
        }
        let mut name = "whole run";
        for real in &self.reals {
            writeln!(
                screen,
                "{name:<19} {:<6} {:>6} {:>12} {:>9} {:>9} {:>9}",
                real.name,
                "",
                number(real.connections),
                percent(real.share),
                percent(real.expected_share),
                number(real.answers.into())
            )?;
            name = "";
        }
        writeln!(
            screen,
            "Connections are the balancer's count, answers the client's, by the name that each server signs with."
        )
    }

    fn print_ledger(&self, screen: &mut Screen) -> io::Result<()> {
        let heading =
            screen.bold("worker  core  queues              packets  ns/packet    frames  unaccounted");
        writeln!(screen, "\n{heading}")?;
        for (index, worker) in self.workers.iter().enumerate() {
            writeln!(
                screen,
                "{index:<7} {:<5} {:<17} {:>9} {:>10} {:>9} {:>12}",
                worker.core.map_or_else(|| "-".to_owned(), |core| core.to_string()),
                worker.queues.join(" "),
                number(worker.packets),
                worker.ns_per_packet.map_or_else(|| "-".to_owned(), number),
                number(worker.frames),
                worker.frames_missing
            )?;
        }
        Ok(())
    }
}

impl Phase {
    fn new(outcome: &PhaseOutcome) -> Self {
        let PhaseOutcome { phase, time, opened } = outcome;
        let (sum, expected) = (opened.iter().sum::<u64>(), phase.expected());
        let reals = REALS.iter().enumerate().map(|(index, real)| Share {
            name: real.name,
            weight: phase.weights[index],
            drained: phase.drained == Some(index),
            connections: opened[index],
            share: part(opened[index] as f64, sum),
            expected_share: expected[index],
        });
        Self { name: phase.name, seconds: time.as_secs_f64(), reals: reals.collect() }
    }
}

impl Worker {
    fn new(worker: &afx::stats::WorkerStats) -> Self {
        let packets = worker.queues.iter().map(|queue| queue.received).sum();
        Self {
            core: worker.core,
            queues: worker.queues.iter().map(|queue| format!("{}:{}", queue.port, queue.queue)).collect(),
            packets,
            ns_per_packet: per_packet(worker.busy.as_nanos(), packets),
            frames: worker.ledger.frames,
            frames_missing: worker.ledger.missing(),
            ledger_balanced: worker.ledger.balanced(),
        }
    }
}

fn totals(phases: &[PhaseOutcome], answered: [u32; REALS_COUNT]) -> Vec<Total> {
    let sum: u64 = phases.iter().flat_map(|phase| &phase.opened).sum();
    let total = |index: usize| {
        let connections: u64 = phases.iter().map(|phase| phase.opened[index]).sum();
        let expected: f64 = phases
            .iter()
            .map(|outcome| outcome.opened.iter().sum::<u64>() as f64 * outcome.phase.expected()[index])
            .sum();
        Total {
            name: REALS[index].name,
            address: REALS[index].address.to_string(),
            connections,
            share: part(connections as f64, sum),
            expected_share: part(expected, sum),
            answers: answered[index],
        }
    };
    (0..REALS_COUNT).map(total).collect()
}

/// The part of a sum; 0 of nothing.
fn part(of: f64, sum: u64) -> f64 {
    if sum == 0 { 0.0 } else { of / sum as f64 }
}

fn per_packet(ns: u128, packets: u64) -> Option<u64> {
    ns.checked_div(packets.into()).map(|ns| ns as u64)
}
