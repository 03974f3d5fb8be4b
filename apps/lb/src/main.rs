//! `afx-lb`: an L4 load balancer on AF_XDP.

mod check;
mod config;
mod demo;
mod notify;
mod run;
mod service;

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

/// The exit status for a file, an option or a machine that this cannot work with: nothing was changed.
const BAD_INPUT: u8 = 2;

/// An L4 load balancer on AF_XDP.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Balances until SIGTERM or SIGINT. SIGHUP has the configuration file read again.
    Run {
        /// The configuration file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// When told to stop, go on for up to so many seconds while there are connections.
        #[arg(long, value_name = "SECONDS", default_value_t = 0)]
        drain: u64,
    },
    /// Reads a configuration file and says what it means, or what is wrong with it. Changes nothing.
    Check {
        /// The configuration file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Print it as JSON: what a valid file means, or a list of what is wrong.
        #[arg(long)]
        json: bool,
    },
    /// Shows the balancer at work: builds a client, the balancer and three web servers out of network namespaces,
    /// sends requests through it while one server is drained and brought back, and says what became of them.
    ///
    /// Needs root and nginx. Takes about 15 seconds; touches nothing of this machine's network, leaves nothing behind.
    Demo(demo::Options),
}

fn main() -> ExitCode {
    let command = Arguments::parse().command;
    // The demo says itself what happens; a line in between would break its table.
    let default = if matches!(command, Command::Demo(_)) { "error" } else { "info" };
    let filter = tracing_subscriber::EnvFilter::try_from_env("AFX_LOG").unwrap_or_else(|_| default.into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
    match command {
        Command::Run { config, drain } => run::run(&config, Duration::from_secs(drain)),
        Command::Check { config, json } => check::run(&config, json),
        Command::Demo(options) => demo::run(&options),
    }
}
