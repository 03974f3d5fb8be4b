//! `afx-pktgen`: makes packets, counts them, and measures what is in between, on AF_XDP.

mod display;
mod echo;
mod receive;
mod rfc2544;
mod send;
mod signature;
mod traffic;
mod units;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The exit status for options, or an interface, that this cannot work with: nothing was changed.
const BAD_INPUT: u8 = 2;

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
    /// Counts the generator's packets that arrive: rate, loss, reordering, latency.
    ///
    /// Start it before the sender: what is missing before the first packet then counts as lost, too.
    Receive(receive::Options),
    /// Sends packets back to where they came from, for measuring round trips.
    Echo(echo::Options),
    /// Measures a device by RFC 2544: throughput, latency, frame loss rate, back-to-back frames.
    ///
    /// Frames are sent on one interface, go through the device, and are received on another of this machine. In a network
    /// where nothing else is: the tests take all of it.
    Rfc2544(Box<rfc2544::Options>),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Send(arguments) => return send::run(&arguments),
        Command::Receive(options) => receive::run(&options),
        Command::Echo(options) => echo::run(&options),
        Command::Rfc2544(options) => rfc2544::run(&options),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            display::complain(format_args!("afx-pktgen: {error:#}"));
            if lacks_rights(&error) {
                display::complain(format_args!("    run it as root, or with {CAPABILITIES}"));
            }
            let is_input = matches!(error.downcast_ref(), Some(afx::Error::Config { .. }));
            if is_input { ExitCode::from(BAD_INPUT) } else { ExitCode::FAILURE }
        }
    }
}

/// What AF_XDP takes: sockets, BPF programs that compute with pointers, and locked memory.
const CAPABILITIES: &str = "CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF, CAP_PERFMON and CAP_IPC_LOCK";

fn lacks_rights(error: &anyhow::Error) -> bool {
    let denied = |error: &std::io::Error| error.kind() == std::io::ErrorKind::PermissionDenied;
    error.chain().any(|cause| cause.downcast_ref().is_some_and(denied))
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
