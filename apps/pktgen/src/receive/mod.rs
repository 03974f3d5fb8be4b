//! `afx-pktgen receive`: counts what arrives, and says what was lost, reordered, doubled, and how long it took.

pub(crate) mod collector;
mod flow;
pub(crate) mod latency;
mod live;
mod report;
pub(crate) mod source;
pub(crate) mod stage;

use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use serde::Serialize;

use crate::display::{Style, complain, print};
use collector::{Limits, Summary};
use live::View;
use report::{Context, Loss, MaxLoss, Report};
use source::{End, Source, Until};
use stage::{COUNTED, Desk, Receive};

/// The options of `receive`.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    until: Until,
    /// How many packets are sent in all: what is lost at the end is then seen too. Ends once nothing has come for the
    /// time of --idle-end.
    #[arg(long, value_name = "PACKETS")]
    expect: Option<u64>,
    /// Ends when no packet has come for so long after the first had: 2s with --expect, else never unless said.
    #[arg(long, value_parser = humantime::parse_duration, value_name = "TIME")]
    idle_end: Option<Duration>,
    /// What the times in the packets are taken for. Both ends must be on this machine: its clock is compared.
    #[arg(long, value_enum, default_value_t, value_name = "WHICH")]
    latency: LatencyOption,
    /// Follows so many flows: of those numbered from here on only the number of packets is known.
    #[arg(long, default_value_t = Limits::default().flows as u64, value_name = "FLOWS",
        value_parser = clap::value_parser!(u64).range(1..=1 << 24))]
    flows_max: u64,
    /// By how many packets of its flow one may be late and still be told from a copy: a power of two from 64 on.
    #[arg(long, default_value_t = Limits::default().window, value_name = "PACKETS", value_parser = window)]
    window: usize,
    /// Shows so many flows at the end, those with the greatest loss first.
    #[arg(long, value_name = "FLOWS", default_value_t = 0)]
    per_flow: usize,
    /// Exits with status 1 if a packet was lost, or none came.
    #[arg(long)]
    fail_on_loss: bool,
    /// Exits with status 1 if more than this part of the packets was lost, such as `0.01%`, or none came.
    #[arg(long, value_name = "PERCENT")]
    max_loss: Option<MaxLoss>,
    /// Shows nothing while it runs.
    #[arg(long, short)]
    quiet: bool,
    /// Prints the result as one JSON object.
    #[arg(long)]
    json: bool,
}

/// What the time between a signature's and the packet's arrival is.
#[derive(ValueEnum, Serialize, Clone, Copy, Debug, Default, PartialEq)]
#[serde(rename_all = "kebab-case")]
enum LatencyOption {
    /// The packets come from another interface of this machine.
    #[default]
    OneWay,
    /// The packets were sent on this way and came back, by `echo` say.
    RoundTrip,
    /// Not measured.
    Off,
}

impl LatencyOption {
    fn name(self) -> &'static str {
        match self {
            Self::OneWay => "one-way",
            Self::RoundTrip => "round-trip",
            Self::Off => "off",
        }
    }
}

fn window(text: &str) -> Result<usize, String> {
    const MOST: usize = 1 << 20;
    let window = text.parse().ok().filter(|window: &usize| window.is_power_of_two());
    window
        .filter(|window| (64..=MOST).contains(window))
        .ok_or_else(|| format!("a power of two from 64 to {MOST} is right, such as 4096"))
}

/// Bytes that a worker keeps in mind of flows, at most.
const MEMORY: usize = 8 << 30;

/// How long packets may stay away where it is known how many are sent.
const IDLE_END: Duration = Duration::from_secs(2);

/// Receives until the end that the options ask for. True where nothing asked for has failed.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let idle_end = options.idle_end.or(options.expect.map(|_| IDLE_END));
    let mut end = End::new(&options.until, idle_end).context("cannot receive signals")?;
    let limits = Limits { flows: options.flows_max as usize, window: options.window };
    let bytes = limits.flows.saturating_mul(limits.window / 8);
    if bytes > MEMORY {
        let (flows, window, taken) = (limits.flows, limits.window, bytes >> 30);
        let what = format!(
            "--flows-max {flows} with --window {window} takes {taken} GiB for each worker: at most {} GiB",
            MEMORY >> 30
        );
        return Err(afx::Error::Config { what }.into());
    }
    let measured = options.latency != LatencyOption::Off;
    let desk = Desk::default();
    let workers_desk = desk.clone();
    let running = options
        .source
        .runtime()
        .pipeline(move |build| Receive::new(build, limits, measured, &workers_desk))
        .start()?;
    let (line, mode) = Source::describe(&running);
    let interface = &options.source.interface;
    if !options.quiet {
        complain(format_args!("receiving on {interface} ({line})"));
    }
    end.begin();

    let mut view = View::new(options);
    let mut redirect = None;
    let stats = running.run_until(|running| {
        view.update(running, &desk);
        let stats = running.stats();
        let is_over = end.is_due(stats.dropped(COUNTED));
        if is_over {
            redirect = running.redirect_counters(interface);
        }
        is_over
    });
    view.clear();
    let stats = stats.context("receiving has failed")?;

    let context = Context { interface, mode: &mode, options, redirect: redirect.unwrap_or_default() };
    let report = Report::new(&context, &desk.result(), &stats);
    let text = if options.json { report.json()? } else { report.text(Style::on_stdout()) };
    print(&text).context("cannot write the result")?;
    if !report.ledger_balanced {
        complain("afx-pktgen: frames are missing: this is a bug of afx, and the counts may be wrong");
    }
    let loss = Loss { fail: options.fail_on_loss, max: options.max_loss };
    let failure = report.failure(loss);
    if let Some(sentence) = &failure {
        complain(format_args!("afx-pktgen: {sentence}"));
    }
    Ok(failure.is_none() && report.ledger_balanced)
}

impl Options {
    /// Packets lost of what was sent, as far as it is known.
    fn lost(&self, summary: &Summary) -> u64 {
        summary.lost_of(self.expect)
    }
}
