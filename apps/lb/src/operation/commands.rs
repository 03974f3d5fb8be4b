//! What an operator may have done: each command makes a new configuration, under the rules of the file, and puts it
//! in force as a reload does.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::{Operation, Refused};
use crate::config::{self, Config, MacAddress, Real, VipKey};
use crate::control::protocol::{
    Changed, ConfigText, ConnectionsWanted, Counter, Explanation, Flow, RealAdd, RealDrain, RealNamed,
    RealStatus, RealWeight, Status, VipAdd, VipNamed, VipStatus,
};
use crate::control::{Connections, Later, Operator};

/// A real's weight unless said.
const WEIGHT: u32 = 100;

impl Operation {
    /// Puts a changed configuration in force.
    fn put(&mut self, config: Config) -> Result<Changed, String> {
        let known = self.service.config().warnings();
        let changes = self.service.reload(config).map_err(|error| format!("{error:#}"))?;
        let mut changed = self.changed(changes.iter().map(ToString::to_string).collect());
        let new = self.service.config().warnings().into_iter().filter(|warning| !known.contains(warning));
        changed.warnings.extend(new);
        Ok(changed)
    }

    fn changed(&self, changes: Vec<String>) -> Changed {
        Changed { changes, warnings: self.service.warnings() }
    }
}

impl Operator for Operation {
    fn status(&mut self) -> Status {
        self.show_status()
    }

    fn vips(&mut self) -> Vec<VipStatus> {
        self.show_vips()
    }

    fn reals(&mut self) -> Vec<RealStatus> {
        self.show_reals()
    }

    fn real(&mut self, vip: &VipKey, real: &IpAddr) -> Option<RealStatus> {
        self.show_one(vip, *real)
    }

    fn connections(&mut self, _wanted: &ConnectionsWanted) -> Result<Box<dyn Connections>, String> {
        self.ask_connections()
    }

    fn counters(&mut self) -> Vec<Counter> {
        self.show_counters()
    }

    fn stats(&mut self) -> afx::Stats {
        self.service.running().stats()
    }

    fn explain(&mut self, flow: &Flow) -> Result<Later<Explanation>, String> {
        self.ask_flow(flow)
    }

    fn config(&mut self) -> Result<ConfigText, String> {
        Ok(ConfigText { toml: self.service.config().to_toml() })
    }

    fn reload(&mut self) -> Result<Changed, String> {
        match self.load() {
            Ok(changes) => Ok(self.changed(changes.iter().map(ToString::to_string).collect())),
            Err(Refused::Invalid(diagnostics)) => {
                let texts: Vec<String> = diagnostics.iter().map(ToString::to_string).collect();
                Err(format!("nothing was changed: the file is not valid\n\n{}", texts.join("\n\n")))
            }
            Err(Refused::Failed(error)) => Err(format!("{error:#}")),
        }
    }

    fn real_add(&mut self, add: &RealAdd) -> Result<Changed, String> {
        let real = Real {
            address: add.real,
            weight: add.weight.unwrap_or(WEIGHT),
            state: config::RealState::Up,
            next_hop: add.next_hop.map(MacAddress::from),
            server_ids: Vec::new(),
            sources: Vec::new(),
        };
        self.put(self.service.config().add_real(&add.vip, real)?)
    }

    fn real_remove(&mut self, real: &RealNamed) -> Result<Changed, String> {
        self.put(self.service.config().remove_real(&real.vip, real.real)?)
    }

    fn real_weight(&mut self, weight: &RealWeight) -> Result<Changed, String> {
        self.put(self.service.config().set_weight(&weight.vip, weight.real, weight.weight)?)
    }

    fn real_drain(&mut self, drain: &RealDrain) -> Result<Changed, String> {
        let vip = drain.vip;
        let drained = self.service.config().set_state(&vip, drain.real, config::RealState::Drain)?;
        let mut changed = self.put(drained)?;
        let deadline = drain.deadline_seconds.map(Duration::from_secs_f64);
        // A drain that goes on may be given another deadline, or none.
        let end = deadline.and_then(|deadline| Instant::now().checked_add(deadline));
        if self.service.set_deadline(&(vip, drain.real), end) {
            let change = match deadline {
                Some(deadline) => format!(
                    "vip {vip}: real {}: its drain ends in {}",
                    drain.real,
                    crate::text::time(deadline.as_secs_f64())
                ),
                None => format!("vip {vip}: real {}: its drain has no deadline any more", drain.real),
            };
            changed.changes.push(change);
        }
        Ok(changed)
    }

    fn real_undrain(&mut self, real: &RealNamed) -> Result<Changed, String> {
        self.put(self.service.config().set_state(&real.vip, real.real, config::RealState::Up)?)
    }

    fn vip_add(&mut self, add: &VipAdd) -> Result<Changed, String> {
        let mut vip = config::Vip::new(add.vip);
        vip.hash = add.hash.unwrap_or(vip.hash);
        vip.server_id = add.server_id.unwrap_or(vip.server_id);
        vip.fragments = add.fragments.unwrap_or(vip.fragments);
        vip.ping = add.ping.unwrap_or(false);
        self.put(self.service.config().add_vip(vip)?)
    }

    fn vip_remove(&mut self, vip: &VipNamed) -> Result<Changed, String> {
        self.put(self.service.config().remove_vip(&vip.vip)?)
    }
}
