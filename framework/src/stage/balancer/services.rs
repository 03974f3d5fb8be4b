//! What workers balance by: VIPs, their tables, and the ways to their reals. Made whole, never changed.

use std::sync::Arc;

use super::flow::FlowHash;
use super::forward::Destination;
use super::maglev::Table;
use super::real::RealId;
use super::vip::Vip;
use super::vips::Vips;
use crate::packet::FlowKey;

/// A snapshot of what is balanced where; made by a [`Directory`](super::Directory), published to workers by
/// [`Running::publish`](crate::Running::publish).
#[derive(Debug)]
pub struct Services {
    pub(super) vips: Vips,
    pub(super) list: Vec<Service>,
    /// By the index of the real's identity.
    pub(super) reals: Vec<Option<Place>>,
    /// What new flows are hashed with for the tables.
    pub(super) seed: [u64; 2],
}

/// One VIP.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) vip: Vip,
    pub(super) table: Arc<Table>,
    /// What the table's entries mean.
    pub(super) reals: Vec<RealId>,
}

/// A real that is there, and the way to it, if there is one now.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) id: RealId,
    pub(super) way: Option<Destination>,
}

impl Services {
    /// The VIP that a flow goes to.
    #[inline]
    pub(super) fn service_of(&self, flow: &FlowKey) -> Option<u32> {
        self.vips.of(flow)
    }

    /// The real that serves new flows with this hash.
    #[inline]
    pub(super) fn choose(&self, service: u32, flow: FlowHash) -> Option<RealId> {
        let service = self.list.get(service as usize)?;
        service.reals.get(service.table.lookup(flow)?).copied()
    }

    /// The real of that identity, unless it is gone.
    #[inline]
    pub(super) fn real(&self, id: RealId) -> Option<&Place> {
        self.reals.get(usize::from(id.index()))?.as_ref().filter(|place| place.id == id)
    }

    /// The VIPs.
    pub fn vips(&self) -> impl Iterator<Item = Vip> {
        self.list.iter().map(|service| service.vip)
    }

    /// How many slots of its VIP's table each real has, in the order in which reals were defined.
    pub fn slots(&self, vip: &Vip) -> Vec<(RealId, usize)> {
        let Some(service) = self.list.iter().find(|service| service.vip == *vip) else { return Vec::new() };
        let mut slots: Vec<_> = service.reals.iter().map(|id| (*id, 0)).collect();
        for real in service.table.iter() {
            slots[real].1 += 1;
        }
        slots
    }

    /// Reals that have no way to them now.
    pub fn unreachable(&self) -> impl Iterator<Item = RealId> {
        self.reals.iter().flatten().filter(|place| place.way.is_none()).map(|place| place.id)
    }
}
