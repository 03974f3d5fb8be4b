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
mod core;
mod huge;
mod memory;
mod paired;
mod rings;
mod row;
mod testpmd;
mod traffic;
mod veth;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};

use row::{Row, table};

/// Side-by-side measurements of afx and its peers. Needs root.
#[derive(Debug, Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Which measurements; all unless said.
    names: Vec<String>,
    /// Rounds of ours, peer, peer, ours: fixed in advance, and none is discarded.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(2..))]
    rounds: u16,
    /// How long each single measurement takes, in milliseconds.
    #[arg(long, default_value_t = 1000)]
    milliseconds: u64,
    /// Where the results go.
    #[arg(long, default_value = "target/afx-bench/summary.json")]
    json: PathBuf,
    /// Measures nothing, and prints the table of the results that are there.
    #[arg(long)]
    table: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// One of the applications that are measured.
    #[command(hide = true)]
    App(app::App),
}

type Measurement = fn(usize, Duration) -> Result<Row>;

const ALL: [(&str, Measurement); 6] = [
    ("forward-memory-vs-testpmd-null", memory::forward_memory),
    ("pipeline-static-vs-dyn", memory::static_vs_dyn),
    ("ring-native-vs-xsk-rs", rings::native_vs_xsk_rs),
    ("rx-drop-veth-vs-testpmd", veth::rx_drop),
    ("echo-veth-vs-testpmd", veth::echo),
    ("forward-veth-vs-testpmd", veth::forward),
];

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(Command::App(app)) = arguments.command {
        app.check()?;
        return app.run();
    }
    if arguments.table {
        let text = std::fs::read_to_string(&arguments.json)
            .with_context(|| format!("reading {}", arguments.json.display()))?;
        print!("{}", table(&serde_json::from_str::<Vec<Row>>(&text)?));
        return Ok(());
    }
    for name in &arguments.names {
        if !ALL.iter().any(|(known, _)| known == name) {
            let known: Vec<_> = ALL.iter().map(|(known, _)| *known).collect();
            bail!("no measurement {name}: there are {}", known.join(", "));
        }
    }
    let _pages = huge::HugePages::reserve();
    let mut rows = Vec::new();
    for (name, measure) in ALL {
        if !arguments.names.is_empty() && !arguments.names.iter().any(|wanted| wanted == name) {
            continue;
        }
        eprintln!("{name}");
        let row = measure(usize::from(arguments.rounds), Duration::from_millis(arguments.milliseconds))
            .with_context(|| format!("measuring {name}"))?;
        if row.peer.is_none() {
            eprintln!("{name}: {} is not installed", row.peer_name.as_deref().unwrap_or("the peer"));
        }
        rows.push(row);
        // After each, so that an interrupted run leaves what it has.
        write(&arguments.json, &rows)?;
    }
    print!("{}", table(&rows));
    Ok(())
}

fn write(path: &PathBuf, rows: &[Row]) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    std::fs::write(path, serde_json::to_string_pretty(rows)? + "\n")
        .with_context(|| format!("writing {}", path.display()))
}
