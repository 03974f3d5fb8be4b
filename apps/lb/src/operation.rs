//! The balancer as an operator has it in hand: a [`Service`], the file that it is configured by, and what commands
//! have changed since that was read.

mod answers;
mod commands;
mod questions;
mod rates;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use afx::packet::Protocol;
use afx::stage::balancer::{Inspection, Vip};
use anyhow::Result;

use crate::config::{self, Change, Config, Diagnostic, Outcome, VipKey};
use crate::notify;
use crate::service::Service;
use rates::Rates;

/// A balancer in an operator's hands.
pub(crate) struct Operation {
    service: Service,
    file: PathBuf,
    /// What the file said when it was last put in force.
    from_file: Config,
    started: Instant,
    /// When the file was last put in force.
    loaded: Instant,
    reloads: u64,
    /// Why the newest reload failed, if it did.
    failed_reload: Option<String>,
    /// Where metrics are served, in fact.
    metrics: Option<SocketAddr>,
    rates: Rates,
    /// Held by whoever is being shown the connections.
    walk: Weak<()>,
    /// Questions that workers may still have.
    asked: Vec<Arc<Inspection>>,
}

/// Why a file was not put in force.
#[derive(Debug)]
pub(crate) enum Refused {
    /// It is not valid.
    Invalid(Vec<Diagnostic>),
    /// It cannot be put in force here.
    Failed(anyhow::Error),
}

impl Operation {
    /// Starts balancing by a file, which says `config`.
    pub(crate) fn start(file: &Path, config: Config) -> Result<Self> {
        let service = Service::start(config.clone())?;
        let now = Instant::now();
        Ok(Self {
            service,
            // A command to reload may come when the working folder means something else to whoever gives it.
            file: std::path::absolute(file).unwrap_or_else(|_| file.to_owned()),
            from_file: config,
            started: now,
            loaded: now,
            reloads: 0,
            failed_reload: None,
            metrics: None,
            rates: Rates::default(),
            walk: Weak::new(),
            asked: Vec::new(),
        })
    }

    /// The configuration file.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// Why the newest reload failed, if it did.
    pub(crate) fn failed_reload(&self) -> Option<&str> {
        self.failed_reload.as_deref()
    }

    /// Says where metrics are served.
    pub(crate) fn set_metrics(&mut self, address: SocketAddr) {
        self.metrics = Some(address);
    }

    /// The balancer itself.
    pub(crate) fn service(&self) -> &Service {
        &self.service
    }

    /// The balancer itself, to be driven.
    pub(crate) fn service_mut(&mut self) -> &mut Service {
        &mut self.service
    }

    /// What the operator is done with: to be stopped.
    pub(crate) fn into_service(self) -> Service {
        self.service
    }

    /// Reads the file again and puts it in force. What commands have changed is then as the file says. Where that
    /// cannot be, nothing changes.
    pub(crate) fn load(&mut self) -> Result<Vec<Change>, Refused> {
        let Outcome { config, diagnostics } = Config::load(&self.file);
        let Some(config) = config else {
            self.failed_reload = Some(format!("{} is not valid", self.file.display()));
            return Err(Refused::Invalid(diagnostics));
        };
        for warning in &diagnostics {
            tracing::warn!("{warning}");
        }
        notify::long_work();
        let changes = self.service.reload(config.clone()).map_err(|error| {
            self.failed_reload = Some(format!("{error:#}"));
            Refused::Failed(error)
        })?;
        self.from_file = config;
        self.loaded = Instant::now();
        self.reloads += 1;
        self.failed_reload = None;
        Ok(changes)
    }

    /// Does what has become due.
    pub(crate) fn turn(&mut self) -> Result<()> {
        self.rates.turn(&self.service);
        self.service.turn()
    }

    /// How long [`turn`](Self::turn) may be put off, but not longer than `most`.
    pub(crate) fn patience(&self, most: Duration) -> Duration {
        self.service.patience(most)
    }
}

/// A VIP as files and answers name it.
fn key(vip: Vip) -> VipKey {
    let protocol = if vip.protocol == Protocol::UDP { config::Protocol::Udp } else { config::Protocol::Tcp };
    VipKey { network: vip.network, port: vip.port, protocol }
}
