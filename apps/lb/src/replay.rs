//! `afx-lb replay`: the balancer over a capture, without a network, always with the same result.

mod files;
mod network;
mod stage;
mod summary;
mod verdicts;

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use afx::port::{CaptureContents, CaptureReader, PcapPort, Steering};
use afx::stage::balancer::flow::FlowHasher;
use afx::stage::balancer::real::RealId;
use afx::stage::balancer::{Balancer, Directory, Monitor, Options as BalancerOptions, Services};
use afx::{Inline, Runtime};
use anyhow::{Context as _, Result, anyhow, bail};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::config::{self, Change, Config};
use crate::service::plan;
use crate::text::{complain, number};
use crate::{BAD_INPUT, check};
use files::Target;
use network::Network;
use stage::Replayed;
use summary::Summary;
use verdicts::Verdicts;

/// What flows are hashed with, where a balancer that runs has a secret.
const HASH_SEED: u64 = 0;
const TABLE_KEY: [u64; 2] = [0, 0];

/// How often a terminal is told how far it is.
const SHOW_EVERY: Duration = Duration::from_millis(200);

/// What can be said of a replay.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The capture to read, pcap or pcapng: what comes in.
    #[arg(long = "in", value_name = "FILE")]
    input: PathBuf,
    /// The capture to write: what is sent. In pcapng where it is called so, else in pcap.
    #[arg(long = "out", value_name = "FILE")]
    output: Option<PathBuf>,
    /// The file to write what became of each packet to, one JSON object a line. - is the standard output.
    #[arg(long, value_name = "FILE")]
    verdicts: Option<PathBuf>,
    /// Reload with CONFIG right before the packet of that number, the first being 0. Connections are kept. May be given
    /// several times, in the order of the numbers.
    #[arg(long = "then", value_name = "CONFIG@INDEX")]
    then: Vec<Then>,
    /// The longest IP packet that comes in, and that the way to the reals takes.
    #[arg(long, value_name = "BYTES", default_value_t = 1500, value_parser = clap::value_parser!(u32).range(576..=65_535))]
    mtu: u32,
}

/// A reload.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Then {
    file: PathBuf,
    /// The packet before which it comes.
    index: u64,
}

impl FromStr for Then {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (file, index) = text.rsplit_once('@').ok_or("the packet is missing: write it as lb.toml@1000")?;
        let number = index.bytes().all(|digit| digit.is_ascii_digit()).then(|| index.parse().ok()).flatten();
        let index =
            number.ok_or_else(|| format!("\"{index}\" is no packet's number: write it as lb.toml@1000"))?;
        if file.is_empty() {
            return Err("the configuration file is missing: write it as lb.toml@1000".into());
        }
        Ok(Self { file: file.into(), index })
    }
}

/// Why there is no result. Nothing was written, then.
enum Failure {
    /// Options, configurations or files are not such that this can work.
    Input(anyhow::Error),
    /// The same, and it was said already.
    Said,
    Running(anyhow::Error),
    Interrupted,
}

/// Replays a capture, and says on the standard error what came of it.
pub(crate) fn run(options: &Options) -> ExitCode {
    match replay(options) {
        Ok(summary) => {
            eprint!("{summary}");
            ExitCode::SUCCESS
        }
        Err(Failure::Said) => ExitCode::from(BAD_INPUT),
        Err(Failure::Input(error)) => {
            complain(format_args!("afx-lb: {error:#}"));
            ExitCode::from(BAD_INPUT)
        }
        Err(Failure::Running(error)) => {
            complain(format_args!("afx-lb: {error:#}"));
            ExitCode::FAILURE
        }
        Err(Failure::Interrupted) => {
            complain(format_args!("afx-lb: interrupted: no file was written"));
            ExitCode::FAILURE
        }
    }
}

fn replay(options: &Options) -> Result<Summary, Failure> {
    let (first, reloads) = configurations(options)?;
    let contents = look_through(&options.input).map_err(Failure::Input)?;
    check_indices(&options.then, contents.packets).map_err(Failure::Input)?;
    // Before files are there that are not to be left behind.
    let interrupted = watch_signals().map_err(Failure::Running)?;
    let [sent, verdicts] = targets(options).map_err(Failure::Input)?;

    let network = Network::new(options.mtu);
    let all = std::iter::once(&first).chain(reloads.iter().map(|(_, config)| config));
    complain(format_args!("{}", network.stand_ins(all)));
    if contents.cut_short > 0 {
        let cut_short = contents.cut_short;
        complain(format_args!(
            "The capture lacks the ends of {cut_short} packets (its snap length): these are malformed here."
        ));
    }
    let mut replay = Replay::start(&options.input, first, network).map_err(Failure::Running)?;
    let mut verdicts = Verdicts::new(sent, verdicts).map_err(Failure::Input)?;
    let mut reloads = reloads.into_iter().peekable();
    let mut progress = Progress::new(contents.packets);
    let mut came = 0;
    while !replay.worker.finished() {
        if let Some((_, config)) = reloads.next_if(|(index, _)| *index == came) {
            replay.reload(config).map_err(Failure::Running)?;
        }
        came += replay.worker.turn() as u64;
        verdicts.take(replay.worker.pipeline(), &replay.names).map_err(Failure::Running)?;
        progress.show(came);
        if interrupted.load(Ordering::Relaxed) {
            return Err(Failure::Interrupted);
        }
    }
    replay.worker.drain();
    verdicts.take(replay.worker.pipeline(), &replay.names).map_err(Failure::Running)?;
    drop(progress);
    let sentences = replay.worker.stats().reasons;
    verdicts.finish(contents.packets, &sentences).map_err(Failure::Running)
}

/// The first configuration, and the others with the packets before which they come in force. All of them are read
/// before anything else is done: a mistake in the last one is not found after hours.
fn configurations(options: &Options) -> Result<(Config, Vec<(u64, Config)>), Failure> {
    let first = check::load(&options.config);
    let others: Vec<_> = options.then.iter().map(|then| (then, check::load(&then.file))).collect();
    let first = first.ok_or(Failure::Said)?;
    let mut reloads: Vec<(u64, Config)> = Vec::new();
    for (then, config) in others {
        let config = config.ok_or(Failure::Said)?;
        let before = reloads.last().map_or(&first, |(_, config)| config);
        if let Some(section) = config::diff(before, &config).iter().find_map(Change::needs_restart) {
            let file = then.file.display();
            return Err(Failure::Input(anyhow!(
                "{file}: a change of {section} takes a restart, not a reload"
            )));
        }
        reloads.push((then.index, config));
    }
    Ok((first, reloads))
}

/// Reads the whole capture, so that one that is damaged is found before anything is written.
fn look_through(input: &Path) -> Result<CaptureContents> {
    let reading = || format!("reading the capture {}", input.display());
    let metadata = std::fs::metadata(input).with_context(reading)?;
    if !metadata.is_file() {
        return Err(anyhow!("it is read twice, which only works with a file").context(reading()));
    }
    CaptureReader::check(input).with_context(reading)
}

fn check_indices(reloads: &[Then], packets: u64) -> Result<()> {
    if let Some([before, after]) = reloads.array_windows().find(|[before, after]| before.index >= after.index)
    {
        let (earlier, later) = (before.index, after.index);
        bail!(
            "--then {}@{later}: it has to come after the one before, at packet {earlier}",
            after.file.display()
        );
    }
    if let Some(then) = reloads.iter().find(|then| then.index >= packets) {
        let (file, index) = (then.file.display(), then.index);
        match packets.checked_sub(1) {
            Some(last) => bail!("--then {file}@{index}: the capture's last packet is number {last}"),
            None => bail!("--then {file}@{index}: the capture has no packets"),
        }
    }
    Ok(())
}

/// Makes ready what is to be written.
fn targets(options: &Options) -> Result<[Option<Target>; 2]> {
    let mut read = vec![("--in", &options.input), ("--config", &options.config)];
    read.extend(options.then.iter().map(|then| ("--then", &then.file)));
    let written = [("--out", options.output.as_ref()), ("--verdicts", options.verdicts.as_ref())];
    let written = written.map(|(option, path)| Some((option, path?)));
    files::check_distinct(&read, &written.iter().flatten().copied().collect::<Vec<_>>())?;
    let [sent, verdicts] = written.map(|place| place.map(|(_, path)| Target::create(path)).transpose());
    Ok([sent?, verdicts?])
}

fn watch_signals() -> Result<Arc<AtomicBool>> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, interrupted.clone()).context("cannot receive signals")?;
    }
    Ok(interrupted)
}

/// A balancer whose port is a capture.
struct Replay {
    worker: Inline<Replayed>,
    directory: Directory,
    network: Network,
    names: Names,
}

/// What numbers stand for.
struct Names {
    reals: BTreeMap<RealId, IpAddr>,
    /// By the number of the drop reason.
    reasons: Vec<String>,
}

impl Replay {
    fn start(input: &Path, config: Config, network: Network) -> Result<Self> {
        let mut directory = Directory::new();
        let services = services(&mut directory, &config, &network)?;
        let steering = plan::steering(&config)?;
        let monitor = Monitor::new();
        let options = BalancerOptions { hasher: Some(FlowHasher::new(TABLE_KEY)), ..plan::options(&config) };
        // One packet a turn: the same however they would fall into batches.
        let port = PcapPort::new(&config.ports[0].interface).read(input).one_a_turn();
        let longest = plan::multi_buffer(&config.ports[0]).longest(network.mtu(), plan::FRAME_SIZE);
        let build = move |build: &mut afx::worker::Build<'_>| {
            let balancer = Balancer::new(build, &options, services.clone(), &monitor);
            Replayed::new(balancer, steering.clone(), longest)
        };
        let mut worker = Runtime::builder().port(port).hash_seed(HASH_SEED).pipeline(build).inline()?;
        let reasons = worker.stats().reasons.into_iter().map(|reason| reason.name).collect();
        let mut replay =
            Self { worker, directory, network, names: Names { reals: BTreeMap::new(), reasons } };
        replay.name_reals();
        Ok(replay)
    }

    /// As a balancer that runs reloads: without losing flows.
    fn reload(&mut self, config: Config) -> Result<()> {
        let services = services(&mut self.directory, &config, &self.network)?;
        self.worker.configure::<Steering>(Arc::new(plan::steering(&config)?));
        self.worker.configure(services);
        self.name_reals();
        Ok(())
    }

    fn name_reals(&mut self) {
        // Those that were taken out keep their names: nobody else gets their numbers, since none is let go here.
        self.names.reals.extend(self.directory.reals().map(|(_, address, id)| (id, address)));
    }
}

fn services(directory: &mut Directory, config: &Config, network: &Network) -> Result<Arc<Services>> {
    let definitions: Vec<_> = config
        .vips
        .iter()
        .map(|vip| plan::definition(vip, |real| (network::state(real), real.weight)))
        .collect();
    let ways = network.ways(config);
    Ok(Arc::new(directory.services(&definitions, &plan::settings(config), ways)?))
}

/// How far it is, on a terminal.
struct Progress {
    packets: u64,
    /// None where nobody is looking.
    shown: Option<Instant>,
}

impl Progress {
    fn new(packets: u64) -> Self {
        Self { packets, shown: std::io::stderr().is_terminal().then(Instant::now) }
    }

    fn show(&mut self, came: u64) {
        if let Some(shown) = &mut self.shown
            && shown.elapsed() >= SHOW_EVERY
        {
            eprint!("\r{} of {} packets", number(came), number(self.packets));
            *shown = Instant::now();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown.is_some() {
            eprint!("\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reload_is_a_file_and_a_packet() {
        let then = |text: &str| text.parse::<Then>();
        assert_eq!(then("b.toml@0"), Ok(Then { file: "b.toml".into(), index: 0 }));
        assert_eq!(then("b@home/c.toml@17"), Ok(Then { file: "b@home/c.toml".into(), index: 17 }));
        for wrong in
            ["b.toml", "b.toml@", "b.toml@x", "b.toml@-1", "b.toml@+1", "@5", "b.toml@99999999999999999999"]
        {
            assert!(then(wrong).is_err_and(|why| why.contains("lb.toml@1000")), "{wrong}");
        }
    }

    #[test]
    fn reloads_come_in_order_and_before_the_end() {
        let check = |indices: &[u64], packets| {
            let reloads: Vec<_> =
                indices.iter().map(|index| Then { file: "b.toml".into(), index: *index }).collect();
            check_indices(&reloads, packets).map_err(|error| error.to_string())
        };
        assert_eq!(check(&[], 0), Ok(()));
        assert_eq!(check(&[0, 3, 4], 5), Ok(()));
        assert!(check(&[5], 5).unwrap_err().contains("last packet is number 4"));
        assert!(check(&[0], 0).unwrap_err().contains("no packets"));
        assert!(check(&[3, 3], 5).unwrap_err().contains("at packet 3"));
        assert!(check(&[3, 2], 5).unwrap_err().contains("b.toml@2"));
    }
}
