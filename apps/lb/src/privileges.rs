//! What the process may still do once it balances: `[control] privileges`.
//!
//! Capabilities are given up thread by thread, each at the moment at which the thread needs them no more. Of the library,
//! the resolver's thread keeps CAP_NET_ADMIN, for neighbour entries, and those behind the sockets keep nothing.

use afx::control::privileges::{self, Capabilities};
use afx::settings::Settings;

use crate::config::{Coexist, Config, Privileges, Probe};
use crate::control::protocol::PrivilegesStatus;
use crate::service::plan::settings_of;

/// What putting another steering in force may take: another redirect program.
const LOADING: [Capabilities; 3] = [Capabilities::BPF, Capabilities::PERFMON, Capabilities::NET_ADMIN];

/// What each kind of thread keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    /// The main loop: reloads, and what is put back at the end.
    pub(crate) main: Capabilities,
    /// Workers: nothing, unless another's program is to be put back when a stage panics.
    pub(crate) worker: Capabilities,
    /// Health checks: echo requests.
    pub(crate) checker: Capabilities,
}

impl Kept {
    /// None where nothing is to be given up.
    pub(crate) fn of(config: &Config) -> Option<Self> {
        let coexists = config.ports.iter().any(|port| port.coexist != Coexist::Refuse);
        let sets = config.ports.iter().any(|port| settings_of(port, config.idle) != Settings::new());
        let keep = |needed| if needed { Capabilities::NET_ADMIN } else { Capabilities::NONE };
        // Settings go back on the main thread, with the ports.
        let (back, worker) = (keep(coexists || sets), keep(coexists));
        match config.control.privileges {
            Privileges::All => None,
            Privileges::Reload => Some(Self {
                main: LOADING.into_iter().fold(Capabilities::NONE, |all, one| all | one),
                worker,
                checker: Capabilities::NET_RAW,
            }),
            Privileges::Least => {
                let pings = probes(config).any(|probe| matches!(probe, Probe::Icmp));
                let checker = if pings { Capabilities::NET_RAW } else { Capabilities::NONE };
                Some(Self { main: back, worker, checker })
            }
        }
    }
}

fn probes(config: &Config) -> impl Iterator<Item = &Probe> {
    config.vips.iter().filter_map(|vip| Some(&vip.check.as_ref()?.probe))
}

/// Before any thread is started: what programs that the process starts can be given at most. Those of checks may need
/// what root has, or their files say: where there are any, they are not limited.
pub(crate) fn limit(config: &Config) {
    let has_programs = probes(config).any(|probe| matches!(probe, Probe::Command { .. }));
    let Some(kept) = Kept::of(config).filter(|_| !has_programs) else { return };
    let most = kept.main | kept.worker | kept.checker | Capabilities::NET_ADMIN;
    report(privileges::limit_programs(most));
}

/// On the main loop's thread, once all is started: gives up what only the start has taken.
pub(crate) fn settle(config: &Config) {
    if let Some(kept) = Kept::of(config) {
        report(privileges::keep(kept.main));
    }
    let PrivilegesStatus { capabilities, no_new } = status();
    let gains = if no_new { "can gain no others" } else { "its programs may be given others" };
    tracing::info!(capabilities = capabilities.join(" "), "privileges kept: {gains}");
}

/// On a thread that needs no more than these.
pub(crate) fn keep(kept: Capabilities) {
    report(privileges::keep(kept));
}

/// Says that capabilities could not be given up: it works all the same.
pub(crate) fn report(given_up: std::io::Result<()>) {
    if let Err(error) = given_up {
        tracing::warn!(
            "privileges cannot be given up: {error}; does a filter of system calls (SystemCallFilter=) forbid capset?"
        );
    }
}

/// What the process has, as the kernel tells.
pub(crate) fn status() -> PrivilegesStatus {
    PrivilegesStatus {
        capabilities: privileges::held()
            .map_or_else(|error| vec![format!("not known: {error}")], Capabilities::names),
        no_new: privileges::programs_are_limited().unwrap_or(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the main loop and workers keep by a file with these lines for the port, workers and privileges.
    fn kept(port: &str, idle: &str, privileges: &str) -> [Capabilities; 2] {
        let text = format!(
            "version = 1\n[[port]]\ninterface = \"eth1\"\n{port}\n[workers]\nidle = \"{idle}\"\n\
             [control]\nprivileges = \"{privileges}\"\n[forwarding]\nmethod = \"ipip\"\n[[vip]]\n\
             address = \"198.51.100.10\"\nport = 443\nprotocol = \"tcp\"\n[[vip.real]]\naddress = \"10.0.0.11\"\n"
        );
        let config = Config::parse("lb.toml", &text).config.expect("it is right");
        let Kept { main, worker, .. } = Kept::of(&config).expect("something is given up");
        [main, worker]
    }

    #[test]
    fn the_main_loop_puts_settings_back_and_workers_anothers_program() {
        const NONE: Capabilities = Capabilities::NONE;
        const ADMIN: Capabilities = Capabilities::NET_ADMIN;
        // By default busy workers have interrupts put off, and those that sleep do not.
        assert_eq!(kept("", "busy", "least"), [ADMIN, NONE]);
        assert_eq!(kept("", "adaptive", "least"), [NONE, NONE]);
        assert_eq!(kept("defer = \"off\"", "busy", "least"), [NONE, NONE]);
        assert_eq!(kept("channels = 2", "adaptive", "least"), [ADMIN, NONE]);
        assert_eq!(kept("coexist = \"chain\"", "adaptive", "least"), [ADMIN, ADMIN]);
        let loading = LOADING.into_iter().fold(NONE, |all, one| all | one);
        assert_eq!(kept("", "busy", "reload"), [loading, NONE]);
    }
}
