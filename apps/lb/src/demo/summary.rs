//! What the demo came to.

use std::io::{self, Write as _};
use std::iter;

use crossterm::style::Color;
use serde::Serialize;

use super::client::Load;
use super::network::{PORT, REALS, REALS_COUNT, VIP, body};
use super::phases::{Outcome, PhaseOutcome};
use super::screen::{Screen, number, percent};
use super::work::{Cost, Work};

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
    /// Null where there was no packet.
    cost_per_packet: Option<Cost>,
}

#[derive(Serialize)]
struct Worker {
    core: Option<usize>,
    queues: Vec<String>,
    packets: u64,
    cost_per_packet: Option<Cost>,
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
                "the drained real got {opened} new connections and gave {} answers meanwhile",
                load.strayed()
            ));
        }
        if !stats.balanced() {
            problems.push("frames are not accounted for: see the ledger".to_owned());
        }
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
                cost_per_packet: Work::of_all(stats).cost(),
            },
            workers,
            ledger_balanced: stats.balanced(),
        }
    }

    /// Prints it for people.
    pub(super) fn print(&self, screen: &mut Screen) -> io::Result<()> {
        let verdict = if self.ok {
            let good = "All went well: no request failed, the drained real stayed idle, no frame is missing.";
            screen.paint(good, Color::Green)
        } else {
            screen.paint(format!("Not all went well: {}.", self.problems.join("; ")), Color::Red)
        };
        writeln!(screen, "\n{verdict}\n")?;
        let (requests, failures) = (number(self.requests.into()), number(self.failures.into()));
        let bytes = number(self.body_bytes as u64);
        writeln!(
            screen,
            "requests  {requests} in {:.1} s, {failures} failed; {bytes} bytes of each answer compared",
            self.seconds
        )?;
        for failure in &self.failures_told {
            writeln!(screen, "          {failure}")?;
        }
        self.print_packets(screen)?;
        self.print_shares(screen)?;
        self.print_ledger(screen)
    }

    fn print_packets(&self, screen: &mut Screen) -> io::Result<()> {
        let Packets { received, sent, dropped, dropped_by_reason, kernel_dropped, cost_per_packet } =
            &self.packets;
        writeln!(
            screen,
            "packets   {} in, {} out, {} dropped; {} lost in the kernel before they came in",
            number(*received),
            number(*sent),
            number(*dropped),
            number(*kernel_dropped)
        )?;
        for (reason, count) in dropped_by_reason {
            writeln!(screen, "          {reason} {count}")?;
        }
        if let Some(Cost { balancing_ns, total_ns }) = cost_per_packet {
            let debug = if cfg!(debug_assertions) { ", in a debug build" } else { "" };
            writeln!(
                screen,
                "cost      {} ns to balance a packet{debug}: they come one by one here, to cold caches\n          \
                 {} ns in all: sending on a veth includes the switch and the real's kernel",
                number(*balancing_ns),
                number(*total_ns)
            )?;
        }
        Ok(())
    }

    fn print_shares(&self, screen: &mut Screen) -> io::Result<()> {
        let heading =
            screen.bold("phase              real    weight  connections      share   expected   answers");
        writeln!(screen, "\n{heading}")?;
        for (place, phase) in (1..).zip(&self.phases) {
            let labels = [format!("{place} {}", phase.name), format!("  {:.1} s", phase.seconds)];
            let labels = labels.into_iter().chain(iter::repeat(String::new()));
            for (real, label) in phase.reals.iter().zip(labels) {
                let (weight, counted) = (real.weight, row(real.connections, real.share, real.expected_share));
                writeln!(screen, "{label:<18} {:<7} {weight:>6} {counted}", real.name)?;
            }
        }
        let labels = iter::once("whole run").chain(iter::repeat(""));
        for (real, label) in self.reals.iter().zip(labels) {
            let (counted, answers) =
                (row(real.connections, real.share, real.expected_share), number(real.answers.into()));
            writeln!(screen, "{label:<18} {:<14} {counted} {answers:>9}", real.name)?;
        }
        writeln!(
            screen,
            "\nThe balancer counts connections; the client counts answers, each signed by its real.\n\
             Shares come from hashing flows, hence near what is expected, not equal to it."
        )
    }

    fn print_ledger(&self, screen: &mut Screen) -> io::Result<()> {
        let heading =
            screen.bold("worker  core  queues                packets   balancing     frames   missing");
        writeln!(screen, "\n{heading}")?;
        for (index, worker) in self.workers.iter().enumerate() {
            let core = worker.core.map_or_else(|| "-".to_owned(), |core| core.to_string());
            let cost = worker.cost_per_packet.as_ref();
            let cost =
                cost.map_or_else(|| "-".to_owned(), |cost| format!("{} ns", number(cost.balancing_ns)));
            writeln!(
                screen,
                "{index:<7} {core:<5} {:<16} {:>12} {cost:>11} {:>10} {:>9}",
                worker.queues.join(" "),
                number(worker.packets),
                number(worker.frames),
                worker.frames_missing
            )?;
        }
        Ok(())
    }
}

/// The columns that phases and the whole run have in common.
fn row(connections: u64, share: f64, expected: f64) -> String {
    format!("{:>12} {:>10} {:>10}", number(connections), percent(share), percent(expected))
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
            cost_per_packet: Work::of(worker).cost(),
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::phases::PHASES;
    use super::*;

    fn outcome(opened: [[u64; REALS_COUNT]; 3]) -> Outcome {
        let phases = PHASES.iter().zip(opened);
        let phases =
            phases.map(|(phase, opened)| PhaseOutcome { phase, time: Duration::from_secs(1), opened });
        Outcome { phases: phases.collect(), status: Vec::new(), stats: afx::Stats::default() }
    }

    #[test]
    fn expected_shares_follow_the_weights_of_each_phase() {
        let outcome = outcome([[10, 20, 10], [20, 0, 20], [5, 10, 5]]);
        let expected: Vec<_> =
            totals(&outcome.phases, [0; 3]).iter().map(|real| real.expected_share).collect();
        assert_eq!(expected, [0.35, 0.3, 0.35]);
    }

    #[test]
    fn requests_that_were_not_answered_are_failures() {
        let summary = Summary::new(&outcome([[1, 2, 1], [1, 0, 1], [1, 2, 1]]), &Load::new(60));
        assert_eq!((summary.ok, summary.failures), (false, 60));
        assert_eq!(summary.problems, ["60 of 60 requests failed"]);
    }

    #[test]
    fn a_drained_real_with_new_connections_is_a_problem() {
        let summary = Summary::new(&outcome([[1, 2, 1], [1, 3, 1], [1, 2, 1]]), &Load::new(0));
        assert!(!summary.ok);
        assert!(summary.problems[0].contains("got 3 new connections"), "{:?}", summary.problems);
    }
}
