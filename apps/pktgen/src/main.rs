//! `afx-pktgen`: makes packets, counts them, and measures what is in between, on AF_XDP.

mod send;
mod signature;
mod traffic;
mod units;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A packet generator, receiver and RFC 2544 tester on AF_XDP.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Send(Box<send::Arguments>),
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Send(arguments) => send::run(&arguments),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_makes_sense() {
        Arguments::command().debug_assert();
    }
}
