//! `afx-lb`: an L4 load balancer on AF_XDP.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command speaks to its user")]

mod check;
mod config;
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
    },
}

fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_env("AFX_LOG").unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
    match Arguments::parse().command {
        Command::Run { config, drain } => run::run(&config, Duration::from_secs(drain)),
        Command::Check { config } => check::run(&config),
    }
}
