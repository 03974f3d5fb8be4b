//! The health checks of a configuration's reals.

use std::path::PathBuf;

use afx::control::health::{Check, Command, Flaps, Http, Kind, State, Target, Tls};

use super::standing::RealKey;
use crate::config::{self, Config, Probe};

/// What is to be checked: each real of each VIP that has a check.
pub(super) fn targets(config: &Config) -> Vec<Target<RealKey>> {
    let mut targets = Vec::new();
    for vip in &config.vips {
        let Some(check) = &vip.check else { continue };
        for real in &vip.reals {
            targets.push(Target {
                key: (vip.key(), real.address),
                address: real.address,
                check: self::check(vip, real, check),
                initially: State::Unknown,
            });
        }
    }
    targets
}

fn check(vip: &config::Vip, real: &config::Real, check: &config::Check) -> Check {
    let kind = match &check.probe {
        Probe::Tcp { port } => Kind::Tcp { port: *port },
        Probe::Http { port, path, host, status, tls } => Kind::Http(Http {
            port: *port,
            tls: match tls {
                config::Tls::Off => Tls::Off,
                config::Tls::On { verify: true } => Tls::Verified,
                config::Tls::On { verify: false } => Tls::Unverified,
            },
            host: host.clone(),
            path: path.clone(),
            statuses: status.clone(),
        }),
        Probe::Icmp => Kind::Icmp,
        Probe::Command { command, port } => {
            let variable = |name: &str, value: String| (name.to_owned(), value);
            let mut environment = vec![
                variable("AFX_VIP", vip.key().to_string()),
                variable("AFX_REAL", real.address.to_string()),
            ];
            if let Some(port) = port {
                environment.push(variable("AFX_PORT", port.to_string()));
            }
            let (program, arguments) = command
                .split_first()
                .map_or((PathBuf::new(), Vec::new()), |(program, rest)| (program.into(), rest.to_vec()));
            Kind::Command(Command { program, arguments, environment })
        }
    };
    let config::Flap { limit, window, hold } = check.flap;
    Check {
        kind,
        interval: check.interval,
        timeout: check.timeout,
        rise: check.rise,
        fall: check.fall,
        jitter_percent: check.jitter,
        flaps: (limit > 0).then_some(Flaps { limit, window, hold }),
    }
}
