//! `afx-pktgen rfc2544`: how fast a device is, by the tests of RFC 2544 (as RFC 9004 has changed them).

mod announce;
mod campaign;
mod counters;
mod device;
mod measure;
mod packets;
mod plot;
mod report;
mod search;
#[cfg(test)]
mod simulated;
mod stage;
mod text;
mod trial;

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use afx::control::interface::Interface;
use afx::packet::MacAddress;
use afx::port::{Mode, ModeWanted};
use anyhow::{Context as _, Result};
use clap::ValueEnum;

use crate::display::{Style, complain, print};
use crate::units::{Rate, Sizes, duration};
use campaign::{Plan, Test, View};
use device::{Device, NextHop, Wiring, usage};
use report::Report;
use search::{Limit, Settings};
use trial::{Frames, Stop};

/// The options of `rfc2544`.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    /// The interface that frames leave on, towards the device.
    #[arg(long, value_name = "INTERFACE")]
    send: String,
    /// The interface that they come back on. The same for a device that sends them back.
    #[arg(long, value_name = "INTERFACE")]
    receive: String,

    /// Which tests: all, unless said.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "TESTS", help_heading = "What is measured",
        default_values_t = [Test::Throughput, Test::Latency, Test::Loss, Test::BackToBack])]
    tests: Vec<Test>,
    /// Frame sizes in bytes, the frame check sequence's 4 counted, such as `64,1518,imix`: those of RFC 2544 unless said,
    /// with 84 in place of 64 for IPv6.
    #[arg(long, value_delimiter = ',', value_name = "SIZES", help_heading = "What is measured")]
    sizes: Vec<Sizes>,
    /// How long each trial sends. RFC 2544 has 60s, for results that are published.
    #[arg(long, value_parser = duration, default_value = "10s", value_name = "TIME",
        help_heading = "What is measured")]
    trial: Duration,
    /// The part of the frames that may be lost, such as `0.1%`: none, unless said.
    #[arg(long, value_parser = loss, default_value = "0%", value_name = "PERCENT",
        help_heading = "What is measured")]
    loss: f64,
    /// How exactly the throughput and the longest burst are found.
    #[arg(long, value_parser = resolution, default_value = "1%", value_name = "PERCENT",
        help_heading = "What is measured")]
    resolution: f64,
    /// Trials that judge a rate, which passes if more than half of them do; for devices or machines that lose a few frames
    /// now and then. Latency and loss are measured over so many trials, and as many longest bursts are averaged.
    #[arg(long, default_value_t = 1, value_name = "TRIALS", value_parser = clap::value_parser!(u32).range(1..=1000),
        help_heading = "What is measured")]
    repeats: u32,
    /// Loads at which the latency is measured, in per cent of the throughput.
    #[arg(long, value_delimiter = ',', value_parser = load, default_value = "10,50,90", value_name = "PERCENT",
        help_heading = "What is measured")]
    loads: Vec<f64>,
    /// The highest rate that is tried, such as `1Mpps`, `10Gbit/s` or `50%`: what the sending interface's line takes,
    /// unless said.
    #[arg(long, value_name = "RATE", help_heading = "What is measured")]
    max_rate: Option<Rate>,
    /// The longest burst that is tried, as the time that it takes at the highest rate.
    #[arg(long, value_parser = duration, default_value = "2s", value_name = "TIME",
        help_heading = "What is measured")]
    max_burst: Duration,
    /// How long frames may be under way after the last was sent.
    #[arg(long, value_parser = humantime::parse_duration, default_value = "2s", value_name = "TIME",
        help_heading = "What is measured")]
    settle: Duration,
    /// How long the device is left alone between two trials. RFC 2544 has 5s.
    #[arg(long, value_parser = humantime::parse_duration, default_value = "1s", value_name = "TIME",
        help_heading = "What is measured")]
    pause: Duration,

    /// The source address: of the network that RFC 2544 has for this, or 2001:2::2.
    #[arg(long, value_name = "ADDRESS", help_heading = "Packets")]
    source: Option<IpAddr>,
    /// The destination address, which the device forwards to the receiving interface. Packets are UDP, to port 7.
    #[arg(long, value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::new(198, 19, 0, 2)),
        help_heading = "Packets")]
    destination: IpAddr,
    /// The destination MAC address: the device's, where it routes. The receiving interface's unless said.
    #[arg(long, value_name = "MAC", conflicts_with = "via", help_heading = "Packets")]
    to_mac: Option<MacAddress>,
    /// The device's address on the sending interface's link: its MAC address is asked for.
    #[arg(long, value_name = "ADDRESS", help_heading = "Packets")]
    via: Option<IpAddr>,
    /// Flows that differ in their source port, for a device that spreads them over cores.
    #[arg(long, default_value_t = 1, value_name = "FLOWS", help_heading = "Packets",
        value_parser = clap::value_parser!(u32).range(1..=i64::from(packets::FLOWS_MAX)))]
    flows: u32,

    /// How packets come to and from the card: zero-copy where it works, unless said.
    #[arg(long, value_enum, default_value_t, value_name = "MODE")]
    mode: ModeOption,
    /// The cores of the sender and the receiver, such as `2,3`: the last two unless said. A worker each, for all queues.
    #[arg(long, value_parser = cores, value_name = "CORES")]
    cores: Option<(usize, usize)>,

    /// Writes the report as JSON to a file; `-` is the standard output, in place of the tables.
    #[arg(long, value_name = "FILE", help_heading = "Report")]
    json: Option<PathBuf>,
    /// Writes the report as comma-separated values to a file.
    #[arg(long, value_name = "FILE", help_heading = "Report")]
    csv: Option<PathBuf>,
    /// Draws throughput over frame size and latency over load to a file: SVG.
    #[arg(long, value_name = "FILE.svg", value_parser = svg_file, help_heading = "Report")]
    plot: Option<PathBuf>,
    /// Exits with status 1 where the throughput is lower than this at any size.
    #[arg(long, value_name = "RATE", help_heading = "Report")]
    fail_below: Option<Rate>,
    /// Shows nothing while it runs.
    #[arg(long, short)]
    quiet: bool,
}

#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq)]
enum ModeOption {
    #[default]
    Auto,
    ZeroCopy,
    Copy,
}

/// A percentage as a part of one.
fn part(text: &str) -> Option<f64> {
    let number = text.trim().strip_suffix('%')?.trim_end();
    let is_plain = number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    is_plain.then(|| number.parse::<f64>().ok()).flatten().map(|percent| percent / 100.0)
}

fn loss(text: &str) -> Result<f64, String> {
    let part = part(text).filter(|part| *part < 1.0);
    part.ok_or_else(|| "say a part of the frames, such as `0%` or `0.1%`: below 100%".into())
}

fn resolution(text: &str) -> Result<f64, String> {
    let part = part(text).filter(|part| (0.0001..=0.5).contains(part));
    part.ok_or_else(|| "say a part of the result, such as `1%`: from 0.01% to 50%".into())
}

fn load(text: &str) -> Result<f64, String> {
    let load = text.trim().trim_end_matches('%').parse::<f64>().ok();
    let load = load.filter(|load| *load >= 0.1 && *load <= 100.0);
    load.ok_or_else(|| "say loads in per cent of the throughput, such as `10,50,90`: from 0.1 to 100".into())
}

fn cores(text: &str) -> Result<(usize, usize), String> {
    let pair = text.split_once(',').and_then(|(one, other)| Some((one.parse().ok()?, other.parse().ok()?)));
    pair.ok_or_else(|| "say two cores, the sender's and the receiver's, such as `2,3`".into())
}

fn svg_file(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("svg") => Ok(path),
        _ => {
            Err("plots are SVG: name the file `….svg`; `rsvg-convert -o x.png x.svg` makes a PNG of it"
                .into())
        }
    }
}

impl Options {
    fn source(&self) -> IpAddr {
        self.source.unwrap_or(match self.destination {
            // RFC 2544, appendix C.2.2, and RFC 5180, section 8.
            IpAddr::V4(_) => Ipv4Addr::new(198, 18, 0, 2).into(),
            IpAddr::V6(_) => std::net::Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, 2).into(),
        })
    }

    fn frames(&self) -> Result<Vec<Frames>> {
        let source = self.source();
        if source.is_ipv4() != self.destination.is_ipv4() {
            return Err(usage(format!(
                "--source {source} and --destination {}: both are of one IP version",
                self.destination
            )));
        }
        let shortest = Device::shortest((source, self.destination));
        let sizes = if self.sizes.is_empty() {
            let first = shortest.max(64) as u16;
            [first, 128, 256, 512, 1024, 1280, 1518].map(Sizes::Fixed).to_vec()
        } else {
            self.sizes.clone()
        };
        let frames = sizes.iter().map(|size| {
            if usize::from(size.shortest()) < shortest {
                return Err(usage(format!(
                    "--sizes {size}: too short for the headers and the 18 bytes that tell the packets apart; from {shortest} on"
                )));
            }
            // Two segments are not sent: what a frame of 4096 bytes has room for.
            const LONGEST: u16 = 3840 + crate::units::FCS as u16;
            if size.longest() > LONGEST {
                return Err(usage(format!("--sizes {size}: at most {LONGEST} bytes")));
            }
            Frames::of(size).ok_or_else(|| {
                usage(format!("--sizes {size}: sizes at random make no two trials alike; say single ones, or a mix as `imix`"))
            })
        });
        frames.collect()
    }

    fn plan(&self) -> Result<Plan> {
        let frames = self.frames()?;
        let interface = Interface::find(&self.send).map_err(|error| usage(error.to_string()))?;
        let highest = frames.iter().map(|frames| {
            let line = interface.speed.map(|line| frames.line_rate(line));
            let asked = match self.max_rate {
                None => None,
                Some(rate) => rate
                    .packets_per_second(frames.mean(), interface.speed)
                    .map_err(|error| usage(format!("--max-rate {error}")))?,
            };
            match (asked, line) {
                (Some(asked), Some(line)) if asked >= line => Ok((line, Limit::Line)),
                (Some(asked), _) => Ok((asked, Limit::Asked)),
                (None, Some(line)) => Ok((line, Limit::Line)),
                (None, None) => Err(usage(format!(
                    "{} says no speed: say the highest rate to try, such as `--max-rate 10Gbit/s`",
                    self.send
                ))),
            }
        });
        Ok(Plan {
            highest: highest.collect::<Result<_>>()?,
            frames,
            tests: self.tests.clone(),
            settings: Settings {
                trial: self.trial,
                resolution: self.resolution,
                loss: self.loss,
                repeats: self.repeats,
                loads: self.loads.clone(),
                burst: self.max_burst,
            },
            line: interface.speed,
            between: self.settle + self.pause,
        })
    }

    fn wiring(&self, plan: &Plan) -> Wiring {
        let next = match (self.to_mac, self.via) {
            (Some(mac), _) => NextHop::Mac(mac),
            (None, Some(address)) => NextHop::Via(address),
            (None, None) => NextHop::Receiver,
        };
        Wiring {
            send: self.send.clone(),
            receive: self.receive.clone(),
            source: self.source(),
            destination: self.destination,
            next,
            mode: match self.mode {
                ModeOption::Auto => ModeWanted::Auto,
                ModeOption::ZeroCopy => ModeWanted::Demand(Mode::ZeroCopy),
                ModeOption::Copy => ModeWanted::Demand(Mode::Copy),
            },
            flows: self.flows,
            cores: self.cores,
            settle: self.settle,
            pause: self.pause,
            longest: plan.frames.iter().map(Frames::longest).max().unwrap_or(0),
        }
    }

    fn report(&self, device: &Device, plan: &Plan) -> Report {
        let (send_mode, receive_mode) = device.modes();
        let name = |test: &Test| test.to_possible_value().map(|value| value.get_name().to_owned());
        Report {
            send: self.send.clone(),
            receive: self.receive.clone(),
            send_mode,
            receive_mode,
            source: self.source().to_string(),
            destination: self.destination.to_string(),
            line_bits_per_second: plan.line,
            trial_seconds: self.trial.as_secs_f64(),
            settle_seconds: self.settle.as_secs_f64(),
            resolution_percent: 100.0 * self.resolution,
            loss_allowed_percent: 100.0 * self.loss,
            repeats: self.repeats,
            tests: self.tests.iter().filter_map(name).collect(),
            ..Report::default()
        }
    }
}

/// Measures what the options ask for. True where all was, and nothing asked for has failed.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let plan = options.plan()?;
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in signal_hook::consts::TERM_SIGNALS {
        signal_hook::flag::register(*signal, interrupted.clone()).context("cannot receive signals")?;
    }
    // Files that cannot be written are better known before hours of measuring.
    for file in [&options.json, &options.csv, &options.plot].into_iter().flatten() {
        if file != Path::new("-") {
            // What is in it stays until there is something to write.
            std::fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .open(file)
                .map_err(|error| usage(format!("cannot write {}: {error}", file.display())))?;
        }
    }
    let mut device = Device::open(options.wiring(&plan), interrupted)?;
    let mut report = options.report(&device, &plan);
    if !options.quiet {
        complain(format_args!("testing from {} to {}", options.send, options.receive));
    }
    let mut view = View::new(&plan, options.quiet);
    let frames = plan.frames.first().context("no frame sizes")?;
    let measured =
        device.learn(frames).and_then(|()| campaign::run(&plan, &mut device, &mut view, &mut report));
    view.clear();
    report.totals = view.totals;
    report.ledger_balanced = device.close()?;
    let stopped = match measured {
        Ok(()) => None,
        Err(Stop::Failed(error)) if report.sizes.is_empty() => return Err(error),
        Err(stop) => Some(stop),
    };
    write(options, &report)?;
    if !report.ledger_balanced {
        complain("afx-pktgen: frames are missing: this is a bug of afx, and the counts may be wrong");
    }
    match stopped {
        Some(Stop::Failed(error)) => return Err(error.context("ended early; the report is incomplete")),
        Some(Stop::Interrupted) => complain("afx-pktgen: interrupted; the report is incomplete"),
        None => {}
    }
    let failures =
        options.fail_below.map_or_else(|| Ok(Vec::new()), |rate| below(&report, rate, plan.line))?;
    failures.iter().for_each(|failure| complain(format_args!("afx-pktgen: {failure}")));
    Ok(report.complete && report.ledger_balanced && failures.is_empty())
}

/// Writes the report to wherever it was asked for.
fn write(options: &Options, report: &Report) -> Result<()> {
    let is_json = options.json.as_deref() == Some(Path::new("-"));
    let text = if is_json { report.json()? } else { text::text(report, Style::on_stdout()) };
    let save = |file: &Path, text: &str| {
        std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
    };
    if let Some(file) = options.json.as_deref().filter(|_| !is_json) {
        save(file, &report.json()?)?;
    }
    if let Some(file) = &options.csv {
        save(file, &text::csv(report))?;
    }
    if let Some(file) = &options.plot {
        let drawn = plot::svg(report).map_err(|error| anyhow::anyhow!("cannot draw the plot: {error}"))?;
        match drawn {
            Some(svg) => save(file, &svg)?,
            None => {
                // It was made to see whether it can be.
                let _ = std::fs::remove_file(file);
                complain(format_args!("nothing was measured that could be drawn: no {}", file.display()));
            }
        }
    }
    // Last: a standard output that is full keeps no file from being written.
    print(&text).context("cannot write the report to the standard output")
}

/// A sentence for each size whose throughput is below a rate.
fn below(report: &Report, rate: Rate, line: Option<u64>) -> Result<Vec<String>> {
    let mut failures = Vec::new();
    for size in &report.sizes {
        let Some(found) = &size.throughput else { continue };
        let wanted = rate.packets_per_second(size.mean_bytes, line);
        let wanted = wanted.map_err(|error| usage(format!("--fail-below {error}")))?;
        // `max` asks for the line's rate.
        let Some(wanted) = wanted.or(size.line_pps) else { continue };
        let pps = found.pps.unwrap_or(0.0);
        if pps < wanted {
            failures.push(format!(
                "frames of {}: {:.4} Mpps, below the {:.4} Mpps of --fail-below {rate}",
                size.frame,
                pps / 1e6,
                wanted / 1e6
            ));
        }
    }
    Ok(failures)
}

#[cfg(test)]
#[path = "mod_tests.rs"]
mod tests;
