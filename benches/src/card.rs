//! The same on cards: forwarding between two interfaces of this machine, by afx and by testpmd, in turns.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use afx::port::carries_default_route;
use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::huge::HugePages;
use crate::paired::{Better, rounds};
use crate::row::{Peer, Row};
use crate::run::{Progress, Run};
use crate::{table, testpmd};

/// Programs need that long to set up cards' queues.
const STARTING: Duration = Duration::from_secs(5);

/// Packets must come from outside: from another machine's generator, into either interface, faster than they can be
/// forwarded. What is counted is what left the interfaces by their own counters.
#[derive(Debug, Args)]
pub(crate) struct Card {
    /// All packets that come to one leave by the other. Neither may be the one that this machine is reached by.
    #[arg(num_args = 2, required = true, value_names = ["INTERFACE", "OTHER"])]
    interfaces: Vec<String>,
    /// Rounds of ours, peer, peer, ours.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(2..))]
    rounds: u16,
    /// Seconds of each single figure.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
}

impl Card {
    pub(crate) fn run(&self) -> Result<()> {
        ensure!(
            testpmd::version().is_some(),
            "dpdk-testpmd is not installed: scripts/setup bench installs it"
        );
        for interface in &self.interfaces {
            ensure!(
                !carries_default_route(interface)?,
                "{interface} has the default route: this machine would not be reached any more"
            );
            sent(interface)?;
        }
        let _pages = HugePages::reserve();
        let names: Vec<&str> = self.interfaces.iter().map(String::as_str).collect();
        let arguments = testpmd::af_xdp(&names, "mac", 64);
        let during = Duration::from_secs(self.seconds);
        let each = during + STARTING;
        let count = usize::from(self.rounds);
        let progress = Progress::new(vec![4.0 * f64::from(self.rounds) * each.as_secs_f64()], count);
        let run = Run {
            name: "forward-card-vs-testpmd",
            rounds: count,
            during,
            folder: "".as_ref(),
            progress: &progress,
        };
        progress.begin(0, run.name);
        let app = std::env::current_exe().context("asking for this program's path")?;
        let ours = || self.rate(Command::new(&app).args(["app", "forward"]).args(&self.interfaces), during);
        let theirs = || self.rate(Command::new(testpmd::PROGRAM).args(&arguments), during);
        let result = rounds(&run, Better::More, ours, theirs)?;
        let row = Row::new(run.name, "Mpps", Better::More, "afx-bench app forward")
            .beside(Peer {
                name: testpmd::NAME,
                version: testpmd::version(),
                settings: Some(arguments.join(" ")),
            })
            .paired(&result);
        print!("{}", table::results(&[row]));
        Ok(())
    }

    /// Packets per second that left the interfaces, in millions.
    fn rate(&self, command: &mut Command, during: Duration) -> Result<f64> {
        let program = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let mut program = Running(program);
        std::thread::sleep(STARTING);
        if let Some(status) = program.0.try_wait()? {
            anyhow::bail!("{command:?} has ended ({status}): run it by itself to see why");
        }
        let all = || self.interfaces.iter().map(|interface| sent(interface)).sum::<Result<u64>>();
        let (start, before) = (Instant::now(), all()?);
        std::thread::sleep(during);
        let (spent, after) = (start.elapsed(), all()?);
        ensure!(after > before, "no packet was forwarded: is the generator running?");
        Ok((after - before) as f64 / spent.as_secs_f64() / 1e6)
    }
}

/// A program that ends with this.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // testpmd and the application leave by the same signal, and the kernel takes their programs off.
        if let Ok(pid) = i32::try_from(self.0.id()) {
            let _ =
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM);
        }
        let deadline = Instant::now() + Duration::from_secs(20);
        while matches!(self.0.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                let _ = self.0.kill();
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Packets that have left an interface.
fn sent(interface: &str) -> Result<u64> {
    let path = format!("/sys/class/net/{interface}/statistics/tx_packets");
    let text = fs::read_to_string(&path).with_context(|| format!("{interface}: reading {path}"))?;
    text.trim().parse().with_context(|| format!("{path}: {text:?}"))
}
