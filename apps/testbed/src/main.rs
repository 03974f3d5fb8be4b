//! `afx-testbed`: emulated networks by hand.
use std::ffi::OsString;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use afx_testbed::{Error, Host, Owner, Summary, Testbed, Topology, down, list, sweep};
use clap::{Parser, Subcommand};

/// Emulated networks made of Linux network namespaces and veth.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Bring up the network described in a file; it stays until `down`
    Up {
        /// The network's description (apps/testbed/examples/routed.toml shows every key)
        file: PathBuf,
    },
    /// Take down a network brought up by `up`, with every process on it
    Down {
        /// Its name
        network: String,
    },
    /// Run a program on a host; ends with that program's exit status
    Exec {
        /// The network's name, or its full identity from `list`
        network: String,
        /// The host
        host: String,
        /// The program and its arguments
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        program: Vec<OsString>,
    },
    /// Show all networks, those of running tests included
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove what networks left behind whose owner was killed
    Sweep,
}

/// What env(1) and its kind answer when a program cannot be found, cannot be started, or they themselves failed.
const NOT_FOUND: u8 = 127;
const NOT_STARTED: u8 = 126;
const NOT_ENTERED: u8 = 125;

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err((error, status)) => {
            eprintln!("afx-testbed: {error}");
            ExitCode::from(status)
        }
    }
}

fn run(command: Command) -> Result<(), (Error, u8)> {
    let failure = |error| (error, 1);
    match command {
        Command::Up { file } => up(&file).map_err(failure),
        Command::Down { network } => down(&network).map_err(failure),
        Command::Exec { network, host, program } => Err(exec(&network, &host, &program)),
        Command::List { json } => {
            let networks = list().map_err(failure)?;
            let text = if json { as_json(&networks) } else { as_table(&networks) };
            match std::io::stdout().write_all(text.as_bytes()) {
                // Whoever reads has read enough: `list | head`.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
                other => other
                    .map_err(|source| failure(Error::Io { what: "printing the list".to_owned(), source })),
            }
        }
        Command::Sweep => {
            for id in sweep().map_err(failure)? {
                println!("removed {id}");
            }
            Ok(())
        }
    }
}

fn up(file: &Path) -> Result<(), Error> {
    let topology = Topology::load(file)?;
    let net = Testbed::to_keep(topology.name())?;
    topology.build(&net)?;
    net.keep();
    Ok(())
}

/// Returns only when the program could not be started.
fn exec(network: &str, host: &str, program: &[OsString]) -> (Error, u8) {
    let host = match Host::attach(network, host) {
        Ok(host) => host,
        Err(error) => return (error, NOT_ENTERED),
    };
    let (program, arguments) = program.split_first().expect("clap demands a program: `required = true`");
    let error = host.exec(program, arguments);
    let status = match &error {
        Error::Io { source, .. } if source.kind() == ErrorKind::NotFound => NOT_FOUND,
        _ => NOT_STARTED,
    };
    (error, status)
}

fn as_table(networks: &[Summary]) -> String {
    let heading = ["NETWORK", "OWNER", "HOST", "INTERFACES", "PROCESSES"].map(str::to_owned);
    let mut rows = vec![heading];
    for network in networks {
        let (name, owner) = match network.id.owner() {
            Owner::Process { pid, .. } => (network.id.to_string(), pid.to_string()),
            _ => (network.id.name().to_owned(), "-".to_owned()),
        };
        for host in &network.hosts {
            let interfaces = host.interfaces.iter().map(|(name, addresses)| {
                if addresses.is_empty() { name.clone() } else { format!("{name} {}", addresses.join(" ")) }
            });
            let interfaces = interfaces.collect::<Vec<_>>().join(", ");
            rows.push([
                name.clone(),
                owner.clone(),
                host.name.clone(),
                interfaces,
                host.processes.len().to_string(),
            ]);
        }
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..rows[0].len()).map(width).collect();
    let mut table = String::new();
    for row in &rows {
        let cells: Vec<_> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        table.push_str(cells.join("  ").trim_end());
        table.push('\n');
    }
    table
}

fn as_json(networks: &[Summary]) -> String {
    let networks: Vec<_> = networks
        .iter()
        .map(|network| {
            let owner = match network.id.owner() {
                Owner::Process { pid, .. } => Some(pid),
                _ => None,
            };
            let hosts: Vec<_> = network
                .hosts
                .iter()
                .map(|host| {
                    let interface = |(name, addresses): &(String, Vec<String>)| {
                        serde_json::json!({ "name": name, "addresses": addresses })
                    };
                    serde_json::json!({
                        "name": host.name,
                        "namespace": host.namespace,
                        "interfaces": host.interfaces.iter().map(interface).collect::<Vec<_>>(),
                        "processes": host.processes,
                    })
                })
                .collect();
            let (id, name) = (network.id.to_string(), network.id.name());
            serde_json::json!({ "id": id, "name": name, "owner": owner, "hosts": hosts })
        })
        .collect();
    format!("{:#}\n", serde_json::Value::from(networks))
}
