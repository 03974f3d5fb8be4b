//! `afx-lb check`: what a configuration file means, or what is wrong with it.

use std::path::Path;
use std::process::ExitCode;

use crate::BAD_INPUT;
use crate::config::{Config, Forwarding, Outcome, Port, Queues, Real, Vip, Workers};

/// Prints the problems of a file to the standard error, and the meaning of a valid one to the standard output.
pub(crate) fn run(file: &Path) -> ExitCode {
    let Some(config) = load(file) else { return ExitCode::from(BAD_INPUT) };
    println!("{} is valid.\n\n{}", file.display(), Summary(&config));
    ExitCode::SUCCESS
}

/// Reads a file, with its problems told on the standard error.
pub(crate) fn load(file: &Path) -> Option<Config> {
    let Outcome { config, diagnostics } = Config::load(file);
    for diagnostic in &diagnostics {
        eprintln!("{diagnostic}\n");
    }
    if config.is_none() {
        let errors = diagnostics.iter().filter(|diagnostic| diagnostic.is_error()).count();
        eprintln!("{}: {errors} {}", file.display(), if errors == 1 { "error" } else { "errors" });
    }
    config
}

/// All that a configuration says, defaults included.
struct Summary<'a>(&'a Config);

impl std::fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Config { ports, workers, idle, forwarding, maglev, connections, vips } = self.0;
        for Port { interface, queues, mode, attach } in ports {
            let queues = match queues {
                Queues::All => "all queues".to_owned(),
                Queues::First(count) => format!("the first {count} queues"),
            };
            writeln!(f, "port {interface}: {queues}, mode {mode}, attach {attach}")?;
        }
        match workers {
            Workers::Auto => writeln!(f, "workers: as many as queues and cores allow, idle {idle}")?,
            Workers::Count(count) => writeln!(f, "workers: {count}, idle {idle}")?,
            Workers::Cores(cores) => writeln!(f, "workers: one on each of the cores {cores:?}, idle {idle}")?,
        }
        match forwarding {
            Forwarding::Ipip { source_v4, source_v6 } => {
                let own = "the interface's own address".to_owned();
                let v4 = source_v4.map_or_else(|| own.clone(), |prefix| prefix.to_string());
                let v6 = source_v6.map_or_else(|| own.clone(), |prefix| prefix.to_string());
                writeln!(f, "forwarding: IP in IP, from {v4} (IPv4) and {v6} (IPv6)")?;
            }
            Forwarding::L2Dsr => writeln!(f, "forwarding: layer 2, direct server return")?,
        }
        writeln!(f, "maglev: {} slots per VIP, seed {}", maglev.table_size.slots(), maglev.seed)?;
        let timeouts = connections.timeouts;
        writeln!(
            f,
            "connections: {} per worker; forgotten after {:?} opening, {:?} established, {:?} closing, {:?} UDP",
            connections.capacity, timeouts.opening, timeouts.established, timeouts.closing, timeouts.datagram
        )?;
        for Vip { address, port, protocol, reals } in vips {
            let address = std::net::SocketAddr::new(*address, *port);
            let plural = if reals.len() == 1 { "" } else { "s" };
            writeln!(f, "vip {address} {protocol}: {} real{plural}", reals.len())?;
            for Real { address, weight, next_hop } in reals {
                write!(f, "  real {address} weight {weight}{}", if *weight == 0 { " (drains)" } else { "" })?;
                match next_hop {
                    Some(mac) => writeln!(f, ", next hop {mac}")?,
                    None => writeln!(f)?,
                }
            }
        }
        Ok(())
    }
}
