//! `afx-lb run`: balances until told to stop.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use afx::control::privileges::Capabilities;
use anyhow::{Context as _, Result};
use crossbeam::channel::{Receiver, Select, TryRecvError, bounded, never};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::config::Coexist;
use crate::control::Control;
use crate::notify::Notifier;
use crate::operation::{Operation, Refused};
use crate::privileges;
use crate::text::complain;
use crate::{BAD_INPUT, check};

/// How long the main loop waits at most, where nothing happens.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What starting takes: interfaces, sockets, BPF programs that compute with pointers, and locked memory.
const CAPABILITIES: &str = "CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF, CAP_PERFMON and CAP_IPC_LOCK";

/// Runs by the configuration in `file` until SIGTERM or SIGINT; then goes on for up to `drain` while there are
/// connections.
pub(crate) fn run(file: &Path, drain: Duration) -> ExitCode {
    let Some(config) = check::load(file) else { return ExitCode::from(BAD_INPUT) };
    privileges::limit(&config);
    // Before anything is changed on the machine: a signal that comes early is not lost.
    let signals = match signals() {
        Ok(signals) => signals,
        Err(error) => {
            complain(format_args!("afx-lb: cannot receive signals: {error}"));
            return ExitCode::FAILURE;
        }
    };
    // Before the balancer starts: a path or an address that is taken changes nothing.
    let control = Control::start(config.control.socket.as_deref(), config.control.metrics);
    let started = control.and_then(|control| Ok((control, Operation::start(file, config.clone())?)));
    let (control, mut operation) = match started {
        Ok(started) => started,
        Err(error) => {
            complain(format_args!("afx-lb: {error:#}"));
            if lacks_rights(&error) {
                let also = match config.ports.iter().any(|port| port.coexist != Coexist::Refuse) {
                    true => ", and CAP_SYS_ADMIN for another's program",
                    false => "",
                };
                complain(format_args!("    run it as root, or with {CAPABILITIES}{also}"));
            }
            return ExitCode::from(BAD_INPUT);
        }
    };
    privileges::settle(&config);
    for status in operation.service().running().status() {
        for (name, value) in status.facts {
            tracing::info!(port = status.port, "{name}: {value}");
        }
        for change in status.changes {
            let afx::port::Change { setting, before, value, .. } = change;
            tracing::info!(port = status.port, "{setting}: {value}, was {before}; put back at the end");
        }
    }
    if let Some(address) = control.metrics_address() {
        operation.set_metrics(address);
        tracing::info!("metrics at http://{address}/metrics");
    }
    tracing::info!(pid = std::process::id(), vips = operation.service().config().vips.len(), "balancing");
    match serve(operation, control, &signals, drain) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(format_args!("afx-lb: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Signals come on a channel, so that the main loop can wait for them beside all else.
fn signals() -> std::io::Result<Receiver<i32>> {
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM])?;
    let (tell, told) = bounded(16);
    std::thread::Builder::new().name("afx-signals".to_owned()).spawn(move || {
        privileges::keep(Capabilities::NONE);
        for signal in signals.forever() {
            match signal {
                // Full means that one of the same is waiting.
                SIGHUP => drop(tell.try_send(signal)),
                _ => drop(tell.send(signal)),
            }
        }
    })?;
    Ok(told)
}

fn lacks_rights(error: &anyhow::Error) -> bool {
    let denied = |error: &std::io::Error| error.kind() == std::io::ErrorKind::PermissionDenied;
    error.chain().any(|cause| cause.downcast_ref().is_some_and(denied))
}

/// The main loop.
fn serve(
    mut operation: Operation,
    mut control: Control,
    signals: &Receiver<i32>,
    drain: Duration,
) -> Result<()> {
    let mut notifier = Notifier::new();
    notifier.ready(&operation);
    let mut end = End::default();
    let mut changes = operation.service().resolver_changes().clone();
    let mut events = operation.service().health_events().clone();
    loop {
        let mut others = Select::new();
        others.recv(signals);
        others.recv(&changes);
        others.recv(&events);
        control.wait(others, operation.patience(LOOK_EVERY));

        for signal in signals.try_iter() {
            match signal {
                SIGHUP => {
                    notifier.reloading();
                    reload(&mut operation);
                    notifier.reloaded(&operation);
                }
                _ => {
                    if end.begin(drain) {
                        notifier.stopping();
                        let connections = open_connections(&operation);
                        tracing::info!(connections, "stopping, within {} s", drain.as_secs());
                    }
                }
            }
        }
        each(&mut changes, |()| operation.service_mut().rerouted());
        each(&mut events, |event| operation.service_mut().checked(&event));
        control.turn(&mut operation);
        if operation.service().ended() || end.is_due(&operation) {
            break;
        }
        if let Err(error) = operation.turn() {
            tracing::error!("{error:#}");
        }
        notifier.turn(&operation);
    }
    // Nobody is let in any more who would ask a balancer that is gone.
    drop(control);
    let stats = operation.into_service().stop().context("the balancer has failed")?;
    tracing::info!(
        received = stats.received(),
        sent = stats.sent(),
        dropped = stats.dropped_total(),
        balanced = stats.balanced(),
        "stopped"
    );
    Ok(())
}

/// Takes every message that is there. Where there will be none any more, because a thread has ended, which it has said,
/// the channel is not waited for again.
fn each<T>(messages: &mut Receiver<T>, mut take: impl FnMut(T)) {
    loop {
        match messages.try_recv() {
            Ok(message) => take(message),
            Err(TryRecvError::Empty) => return,
            Err(TryRecvError::Disconnected) => {
                *messages = never();
                return;
            }
        }
    }
}

/// The end, once it was asked for.
#[derive(Default)]
struct End {
    until: Option<Instant>,
    /// Since when there has been no connection to wait for.
    idle_since: Option<Instant>,
}

impl End {
    /// It is asked for; asked for twice, it is now. Whether this was the first time.
    fn begin(&mut self, drain: Duration) -> bool {
        let first = self.until.is_none();
        self.until = Some(if first { Instant::now() + drain } else { Instant::now() });
        first
    }

    fn is_due(&mut self, operation: &Operation) -> bool {
        let Some(until) = self.until else { return false };
        // A client that said its last word is not waited for. Seen for a while, since a worker may just be counting.
        let now = Instant::now();
        self.idle_since = (open_connections(operation) == 0).then(|| self.idle_since.unwrap_or(now));
        now >= until || self.idle_since.is_some_and(|since| now - since >= LOOK_EVERY)
    }
}

fn open_connections(operation: &Operation) -> u64 {
    let table = operation.service().monitor().table();
    table.connections.saturating_sub(table.closing)
}

fn reload(operation: &mut Operation) {
    match operation.load() {
        Ok(changes) => {
            changes.iter().for_each(|change| tracing::info!("{change}"));
            tracing::info!("reloaded {}", operation.file().display());
        }
        Err(Refused::Invalid(diagnostics)) => {
            diagnostics.iter().for_each(|diagnostic| complain(format_args!("{diagnostic}\n")));
            let file = operation.file().display();
            tracing::error!("not reloaded: {file} is not valid; the running configuration stays");
        }
        Err(Refused::Failed(error)) => tracing::error!("not reloaded: {error:#}"),
    }
}
