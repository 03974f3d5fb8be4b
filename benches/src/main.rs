//! Measures afx beside its peers, interleaved on one machine in one run, and says what came out as ratios.
//!
//! ```sh
//! cargo run --release -p afx-benches -- [NAME…] [--rounds 5] [--json FILE]
//! ```
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command: results on one, progress on the other"
)]

mod app;
mod balance;
mod card;
mod core;
mod dpdk;
mod flows;
mod huge;
mod idle;
mod lookups;
mod machine;
mod measurements;
mod memory;
mod nftables;
mod paired;
mod plot;
mod programs;
mod random;
mod report;
mod rings;
mod routes;
mod row;
mod run;
mod table;
mod testpmd;
mod traffic;
mod transmit;
mod veth;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};

use machine::Machine;
use measurements::Measurement;
use report::{MACHINE, Results, SUMMARY};
use row::Row;
use run::{Progress, Run};

/// Rounds, and seconds of each single figure.
const DEFAULT: (u16, f64) = (5, 1.0);
/// The same where it is only to be seen that everything runs.
const QUICK: (u16, f64) = (2, 0.05);

/// Side-by-side measurements of afx and its peers. Needs root, and two cores that do nothing else.
#[derive(Debug, Parser)]
#[command(name = "afx-bench", version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Which measurements; all unless said.
    names: Vec<String>,
    /// Rounds of ours, peer, peer, ours: fixed in advance, and none is discarded. 5 unless said.
    #[arg(long, value_parser = clap::value_parser!(u16).range(2..))]
    rounds: Option<u16>,
    /// How long each single figure is measured, in milliseconds. 1000 unless said.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    milliseconds: Option<u64>,
    /// Two rounds of 50 milliseconds: shows that everything runs, and nothing else.
    #[arg(long, conflicts_with_all = ["rounds", "milliseconds"])]
    quick: bool,
    /// Where the results go, or are; facts about the machine lie beside them.
    #[arg(long, default_value = "target/afx-bench/summary.json")]
    json: PathBuf,
    /// Measures nothing, and lists the names of all measurements.
    #[arg(long)]
    list: bool,
    /// Measures nothing, and prints the table of the results that are there.
    #[arg(long, conflicts_with = "list")]
    table: bool,
    /// Measures nothing, and puts the results that are there into a page of the documentation: between its marks, and
    /// into the folder of its name.
    #[arg(long, value_name = "PAGE", conflicts_with_all = ["list", "table"])]
    report: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Forwarding by afx and by testpmd between two interfaces of this machine, beside each other.
    Card(card::Card),
    /// One of the applications that are measured.
    #[command(hide = true)]
    App(app::App),
}

fn main() -> ExitCode {
    match execute(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("afx-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn execute(arguments: &Arguments) -> Result<()> {
    match &arguments.command {
        Some(Command::App(app)) => {
            app.check()?;
            return app.run();
        }
        Some(Command::Card(card)) => return card.run(),
        None => {}
    }
    if arguments.list {
        measurements::ALL.iter().for_each(|known| println!("{}", known.name));
        return Ok(());
    }
    if arguments.table {
        print!("{}", table::results(&Results::read(&arguments.json)?.rows));
        return Ok(());
    }
    if let Some(page) = &arguments.report {
        return Results::read(&arguments.json)?.write(page);
    }
    let (rounds, seconds) = if arguments.quick { QUICK } else { DEFAULT };
    let during = arguments.milliseconds.map_or(Duration::from_secs_f64(seconds), Duration::from_millis);
    let rounds = arguments.rounds.unwrap_or(rounds);
    measure(&measurements::named(&arguments.names)?, rounds.into(), during, &arguments.json)
}

/// Measures, and writes what it has after each measurement, so that an interrupted run leaves that.
fn measure(wanted: &[&Measurement], rounds: usize, during: Duration, json: &Path) -> Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "this makes network namespaces and loads BPF programs: run it as root"
    );
    let folder = json.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let _pages = huge::HugePages::reserve();
    let machine = serde_json::to_string_pretty(&Machine::this())? + "\n";
    report::write(&json.with_file_name(MACHINE), &machine)?;
    let expected = |known: &&Measurement| known.expected(rounds, during.as_secs_f64());
    let progress = Progress::new(wanted.iter().map(expected).collect(), rounds);
    let (mut rows, mut failed): (Vec<Row>, Vec<&str>) = (Vec::new(), Vec::new());
    for (index, known) in wanted.iter().enumerate() {
        progress.begin(index, known.name);
        let run = Run { name: known.name, rounds, during, folder, progress: &progress };
        match (known.measure)(&run) {
            Ok(row) => rows.push(row.aimed(known.target)),
            // The others' figures are none the worse.
            Err(error) => {
                eprintln!("{}: {error:#}", known.name);
                failed.push(known.name);
            }
        }
        if let Some(Row { peer: None, peer_name: Some(peer), name, .. }) = rows.last()
            && name == known.name
        {
            eprintln!("{name}: {peer} is not installed, and is left out (scripts/setup bench installs it)");
        }
        report::write(json, &(serde_json::to_string_pretty(&rows)? + "\n"))?;
    }
    print!("{}", table::results(&rows));
    ensure!(failed.is_empty(), "not measured: {}", failed.join(", "));
    eprintln!("{} and {MACHINE} are in {}", SUMMARY, folder.display());
    Ok(())
}
