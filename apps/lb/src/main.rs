//! `afx-lb`: an L4 load balancer on AF_XDP.

mod check;
mod config;
mod control;
mod demo;
mod doctor;
mod log;
mod manual;
mod notify;
mod operation;
mod privileges;
mod replay;
mod run;
mod service;
mod text;
mod words;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use control::client;
use control::protocol::Ask;

/// The exit status for a file, an option or a machine that this cannot work with: nothing was changed.
const BAD_INPUT: u8 = 2;

/// An L4 load balancer on AF_XDP.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// How the log is written.
    #[arg(long, global = true, value_enum, value_name = "FORMAT", env = "AFX_LOG_FORMAT", default_value_t)]
    log_format: log::Format,
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
        #[arg(long, value_name = "SECONDS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=8_640_000))]
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
    /// Runs the balancer over a capture instead of a network: writes the packets that it sends, and what became of each
    /// packet and why. The same files give the same result. Needs no rights.
    Replay(replay::Options),
    /// Shows the balancer at work: builds a client, the balancer and three web servers out of network namespaces,
    /// sends requests through it while one server is drained and brought back, and says what became of them.
    ///
    /// Needs root and nginx. Takes about 15 seconds; touches nothing of this machine's network, leaves nothing behind.
    Demo(demo::Options),
    /// Looks at this machine and at an interface: says what is good, what could be better and what will not work, and the
    /// command that mends it. Changes nothing unless told to.
    ///
    /// The status is 0 where nothing stands in the way, 1 where something will not work, 2 where that cannot be found out.
    /// With --restore: 0 where nothing is left to put back, 1 where something is, 2 where that cannot be found out.
    Doctor(doctor::Options),
    /// Says how a running balancer goes: traffic, drops, workers, VIPs, health, and what is wrong.
    Status {
        #[command(flatten)]
        options: client::Options,
    },
    /// Looks into a running balancer, and changes it until the next reload.
    #[command(after_help = client::NAMES)]
    Ctl {
        #[command(flatten)]
        options: client::Options,
        #[command(subcommand)]
        command: client::Ctl,
    },
    /// Says what becomes of a flow in a running balancer: its VIP, its real and why that one, the outer headers.
    Explain {
        #[command(flatten)]
        options: client::Options,
        #[command(flatten)]
        flow: client::ExplainArguments,
    },
    /// Prints a script that completes commands and options: for bash, zsh, fish, elvish or powershell.
    Completions {
        #[arg(value_name = "SHELL")]
        shell: clap_complete::Shell,
    },
    /// Writes the manual's pages, one for each command, into a folder.
    #[command(hide = true)]
    Man {
        /// The folder; it is made where there is none.
        #[arg(value_name = "FOLDER")]
        folder: PathBuf,
    },
}

fn main() -> ExitCode {
    let Arguments { log_format, command } = Arguments::parse();
    // The demo and the doctor say themselves what happens; a line in between would break their tables.
    let level = match command {
        Command::Demo(_) | Command::Doctor(_) => "error",
        Command::Replay(_) => "warn",
        _ => "info",
    };
    log::start(log_format, level);
    match command {
        Command::Run { config, drain } => run::run(&config, Duration::from_secs(drain)),
        Command::Check { config, json } => check::run(&config, json),
        Command::Replay(options) => replay::run(&options),
        Command::Demo(options) => demo::run(&options),
        Command::Doctor(options) => doctor::run(&options),
        Command::Status { options } => client::run(&options, &Ask::Status {}),
        Command::Ctl { options, command } => client::run(&options, &command.into()),
        Command::Explain { options, flow } => client::run(&options, &flow.into()),
        Command::Completions { shell } => manual::completions(shell),
        Command::Man { folder } => manual::pages(&folder),
    }
}
