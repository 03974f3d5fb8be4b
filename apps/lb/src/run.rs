//! `afx-lb run`: balances until told to stop.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::notify::Notifier;
use crate::service::Service;
use crate::{BAD_INPUT, check};

/// How often signals are looked for.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What starting takes: interfaces, sockets, BPF programs that compute with pointers, and locked memory.
const CAPABILITIES: &str = "CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF, CAP_PERFMON and CAP_IPC_LOCK";

/// Runs by the configuration in `file` until SIGTERM or SIGINT; then goes on for up to `drain` while there are
/// connections.
pub(crate) fn run(file: &Path, drain: Duration) -> ExitCode {
    let Some(config) = check::load(file) else { return ExitCode::from(BAD_INPUT) };
    // Before anything is changed on the machine: a signal that comes early is not lost.
    let mut signals = match Signals::new([SIGHUP, SIGINT, SIGTERM]) {
        Ok(signals) => signals,
        Err(error) => {
            eprintln!("afx-lb: cannot receive signals: {error}");
            return ExitCode::FAILURE;
        }
    };
    let service = match Service::start(config) {
        Ok(service) => service,
        Err(error) => {
            eprintln!("afx-lb: {error:#}");
            if lacks_rights(&error) {
                eprintln!("    run it as root, or with {CAPABILITIES}");
            }
            return ExitCode::from(BAD_INPUT);
        }
    };
    for status in service.running().status() {
        for (name, value) in status.facts {
            tracing::info!(port = status.port, "{name}: {value}");
        }
    }
    tracing::info!(pid = std::process::id(), vips = service.config().vips.len(), "balancing");
    match serve(service, file, &mut signals, drain) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("afx-lb: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn lacks_rights(error: &anyhow::Error) -> bool {
    let denied = |error: &std::io::Error| error.kind() == std::io::ErrorKind::PermissionDenied;
    error.chain().any(|cause| cause.downcast_ref().is_some_and(denied))
}

fn serve(mut service: Service, file: &Path, signals: &mut Signals, drain: Duration) -> Result<()> {
    let mut until: Option<Instant> = None;
    let mut drained = 0u32;
    let mut notifier = Notifier::new();
    notifier.ready(&service);
    loop {
        for signal in signals.pending() {
            match signal {
                SIGHUP => {
                    notifier.reloading();
                    let done = reload(&mut service, file);
                    notifier.reloaded(&service, done);
                }
                _ if until.is_some() => until = Some(Instant::now()),
                _ => {
                    until = Some(Instant::now() + drain);
                    notifier.stopping();
                    let table = service.monitor().table();
                    let connections = table.connections.saturating_sub(table.closing);
                    tracing::info!(connections, "stopping, within {} s", drain.as_secs());
                }
            }
        }
        // A client that said its last word is not waited for. Seen twice, since a worker may just be counting.
        let table = service.monitor().table();
        drained = if table.connections <= table.closing { drained.saturating_add(1) } else { 0 };
        if service.ended() || until.is_some_and(|until| Instant::now() >= until || drained >= 2) {
            break;
        }
        if let Err(error) = service.follow(LOOK_EVERY) {
            tracing::error!("{error:#}");
        }
        notifier.turn(&service);
    }
    let stats = service.stop().context("the balancer has failed")?;
    tracing::info!(
        received = stats.received(),
        sent = stats.sent(),
        dropped = stats.dropped_total(),
        balanced = stats.balanced(),
        "stopped"
    );
    Ok(())
}

/// Whether what the file says is in force now.
fn reload(service: &mut Service, file: &Path) -> bool {
    let Some(config) = check::load(file) else {
        tracing::error!("not reloaded: {} is not valid; the running configuration stays", file.display());
        return false;
    };
    let reloaded = service.reload(config);
    match &reloaded {
        Ok(()) => tracing::info!("reloaded {}", file.display()),
        Err(error) => tracing::error!("not reloaded: {error:#}"),
    }
    reloaded.is_ok()
}
