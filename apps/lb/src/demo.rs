//! `afx-lb demo`: a client, the balancer and three web servers in network namespaces, and what happens between them
//! while one of the servers is drained and brought back.

mod client;
mod live;
mod network;
mod phases;
mod screen;
mod summary;
mod work;

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;

use anyhow::{Context as _, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::BAD_INPUT;
use client::Load;
use network::Network;
use screen::{Screen, number};
use summary::Summary;

/// The exit status after Ctrl-C, as shells have it.
const INTERRUPTED: u8 = 130;

/// What can be said of a demo.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// How many requests, each on a connection of its own.
    #[arg(long, value_name = "N", default_value_t = 4000, value_parser = clap::value_parser!(u32).range(60..=1_000_000))]
    requests: u32,
    /// Print the result as one JSON object on the standard output; all else goes to the standard error.
    #[arg(long)]
    json: bool,
    /// Show the configuration that the balancer runs by.
    #[arg(long)]
    show_config: bool,
}

/// Runs the demo. The exit status is 0 if no request failed, the drained server stayed without new connections, and
/// every frame is accounted for.
pub(crate) fn run(options: &Options) -> ExitCode {
    let mut screen = if options.json { Screen::on_stderr() } else { Screen::on_stdout() };
    let interrupted = Arc::new(AtomicBool::new(false));
    let outcome = watch_signals(&interrupted)
        .context("cannot receive signals")
        .and_then(|()| show(options, &mut screen, &interrupted));
    if interrupted.load(Ordering::Relaxed) {
        eprintln!("\nafx-lb: interrupted; everything is taken down");
        return ExitCode::from(INTERRUPTED);
    }
    match outcome {
        Ok(Some(summary)) if summary.ok => ExitCode::SUCCESS,
        Ok(Some(_)) => ExitCode::FAILURE,
        Ok(None) => ExitCode::from(BAD_INPUT),
        Err(error) => {
            eprintln!("afx-lb: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The first signal ends the demo in good order; a second one at once, and the network's watchdog cleans up.
fn watch_signals(interrupted: &Arc<AtomicBool>) -> std::io::Result<()> {
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(
            signal,
            i32::from(INTERRUPTED),
            interrupted.clone(),
        )?;
        signal_hook::flag::register(signal, interrupted.clone())?;
    }
    Ok(())
}

/// The whole demo. None if this machine cannot have it, which has been said then.
fn show(options: &Options, screen: &mut Screen, interrupted: &AtomicBool) -> Result<Option<Summary>> {
    let prepared = network::check().and_then(|()| introduce(options, screen)).and_then(|()| Network::build());
    let network = match prepared {
        Ok(network) => network,
        Err(error) => {
            // A signal may also have ended a program that the network is built with.
            if !interrupted.load(Ordering::Relaxed) {
                eprintln!("afx-lb: the demo cannot run here: {error:#}");
            }
            return Ok(None);
        }
    };
    let load = &Load::new(options.requests);
    let (go, gone) = mpsc::channel();
    let outcome = thread::scope(|scope| {
        // Not from within the balancer's host: threads started there would be on that host.
        let clients = scope.spawn(|| {
            let _over = load.over_when_dropped();
            // Without a word from the balancer there is nothing to send to.
            network.client.run(move || gone.recv().map_or((), |()| load.run()))
        });
        let outcome = network.balancer.run(|| phases::run(load, go, screen, interrupted));
        // Where the balancer has failed, nobody shall go on asking.
        load.stop();
        match clients.join() {
            Ok(sent) => sent?,
            Err(panic) => std::panic::resume_unwind(panic),
        }
        outcome
    })??;
    network.close().context("taking the network down")?;
    if interrupted.load(Ordering::Relaxed) {
        return Ok(None);
    }
    let summary = Summary::new(&outcome, load);
    if options.json {
        println!("{}", serde_json::to_string_pretty(&summary)?);
    } else {
        summary.print(screen)?;
    }
    Ok(Some(summary))
}

fn introduce(options: &Options, screen: &mut Screen) -> Result<()> {
    writeln!(
        screen,
        "\
Five hosts made of network namespaces on this machine; its own network is not touched.
{requests} HTTP requests go to the VIP, each on a connection of its own, from {threads} threads.

                                                 +-> real1  10.0.0.11  weight 100
  client 10.0.0.1 --> afx-lb 10.0.0.2 --(IPIP)---+-> real2  10.0.0.12  weight 200
     ^      VIP 198.51.100.10:80                 +-> real3  10.0.0.13  weight 100
     |                                                |
     +-------------- nginx answers directly ----------+

Phase 1: all serve.  Phase 2: real2 is drained (weight 0), it gets no new connections.
Phase 3: real2 is back.  The client compares every byte; a lost connection is a failure.
",
        requests = number(options.requests.into()),
        threads = client::THREADS,
    )?;
    if options.show_config {
        let text = network::config_text(&network::WEIGHTS);
        writeln!(screen, "The balancer's configuration:\n")?;
        for line in text.lines() {
            writeln!(screen, "{}", format!("  {line}").trim_end())?;
        }
        writeln!(screen)?;
    }
    Ok(())
}
