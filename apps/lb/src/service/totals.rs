//! What VIPs have had in all: the sum over their reals, those included that are no more, so that it never falls.

use std::collections::BTreeMap;

use afx::stage::balancer::real::RealId;
use afx::stage::balancer::{Directory, Monitor, RealStats, Vip};

/// The book of who was counted for whom.
#[derive(Debug, Default)]
pub(super) struct Totals {
    /// Reals that are counted at present, defined or taken out a while ago.
    present: BTreeMap<RealId, Vip>,
    /// What those had who are no more.
    past: BTreeMap<Vip, RealStats>,
}

impl Totals {
    /// Takes note of the reals there are.
    pub(super) fn follow(&mut self, directory: &Directory) {
        self.present.extend(directory.reals().map(|(vip, _, id)| (id, vip)));
    }

    /// Settles the accounts of reals whose identities were let go: what is counted from now on may be another's.
    pub(super) fn settle(&mut self, gone: Vec<(Vip, RealId)>, monitor: &Monitor) {
        for (vip, id) in gone {
            self.present.remove(&id);
            add(self.past.entry(vip).or_default(), monitor.real(id));
        }
    }

    /// What each VIP has had in all.
    pub(super) fn all(&self, monitor: &Monitor) -> BTreeMap<Vip, RealStats> {
        let mut totals = self.past.clone();
        for (id, vip) in &self.present {
            add(totals.entry(*vip).or_default(), monitor.real(*id));
        }
        totals
    }
}

fn add(total: &mut RealStats, more: RealStats) {
    total.packets += more.packets;
    total.bytes += more.bytes;
    total.opened += more.opened;
    total.connections += more.connections;
}
