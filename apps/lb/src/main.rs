//! `afx-lb`: an L4 load balancer on AF_XDP.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command speaks to its user")]

mod check;
mod config;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// An L4 load balancer on AF_XDP.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Reads a configuration file and says what it means, or what is wrong with it. Changes nothing.
    Check {
        /// The configuration file.
        file: PathBuf,
    },
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Check { file } => check::run(&file),
    }
}
