//! The control side's book of VIPs and reals: who has which identity, and what workers are to know.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::definition::{Definition, RealDefinition, RealState, Settings};
use super::forward::{Destination, Hop};
use super::maglev::{Table, TableSize, TooManyReals};
use super::real::{RealId, RealIds};
use super::services::{Place, Service, Services};
use super::vip::Vip;
use super::vips::Vips;

/// Knows every real that there is, or was and still has connections, by VIP and address.
///
/// A real keeps its identity over changes for as long as it is defined. One that is taken out keeps its
/// identity from being given to another until no worker can hold it any more.
#[derive(Debug, Clone, Default)]
pub struct Directory {
    ids: RealIds,
    known: BTreeMap<(Vip, IpAddr), RealId>,
    /// Taken out, but perhaps still held by a worker.
    leaving: BTreeMap<RealId, Vip>,
    /// The tables in use, with what they were made of: most changes leave most of them as they are.
    tables: Vec<Made>,
}

#[derive(Debug, Clone)]
struct Made {
    size: TableSize,
    seed: [u64; 2],
    reals: Vec<(IpAddr, u32)>,
    table: Arc<Table>,
}

/// Why a configuration cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DirectoryError {
    /// A VIP has more reals than its table can tell apart.
    #[error("{vip}: {source}")]
    TooManyReals {
        /// The VIP.
        vip: Vip,
        /// How many, and how many it can have.
        source: TooManyReals,
    },
    /// All identities are in use.
    #[error(
        "more than {} reals in use, those included that were taken out and still have connections",
        RealId::LIMIT
    )]
    NoIdentity,
}

impl Directory {
    /// No real known.
    pub fn new() -> Self {
        Self::default()
    }

    /// The identity of a VIP's real.
    pub fn id(&self, vip: &Vip, real: &IpAddr) -> Option<RealId> {
        self.known.get(&(*vip, *real)).copied()
    }

    /// All reals that are defined: VIP, address, identity.
    pub fn reals(&self) -> impl Iterator<Item = (Vip, IpAddr, RealId)> {
        self.known.iter().map(|((vip, address), id)| (*vip, *address, *id))
    }

    /// What workers are to know of these VIPs. `way` says how to reach a VIP's real at present.
    ///
    /// # Errors
    /// [`DirectoryError`]; then nothing has changed.
    pub fn services(
        &mut self,
        definitions: &[Definition],
        settings: &Settings,
        mut way: impl FnMut(&Vip, &IpAddr) -> Option<Hop>,
    ) -> Result<Services, DirectoryError> {
        // The one number of the configuration, made two for a keyed hash.
        let seed = [settings.seed, settings.seed.rotate_left(32) ^ 0x6166_782d_6c62];
        let tables = self.tables(definitions, settings.table_size, seed)?;
        self.identify(definitions)?;
        let mut reals = Vec::new();
        let mut list = Vec::new();
        for (definition, table) in definitions.iter().zip(&tables) {
            let vip = definition.vip;
            let mut members = Vec::new();
            for real in &definition.reals {
                let id = self.known[&(vip, real.address)];
                let hop = way(&vip, &real.address);
                let way = hop.and_then(|hop| {
                    Destination::new(id, real.address, vip.is_ipv4(), &settings.forwarding, &hop)
                });
                let index = usize::from(id.index());
                if reals.len() <= index {
                    reals.resize_with(index + 1, || None);
                }
                reals[index] = Some(Place { id, way });
                members.push(id);
            }
            list.push(Service { vip, table: table.table.clone(), reals: members });
        }
        self.tables = tables;
        let vips = Vips::new(list.iter().map(|service| service.vip).zip(0..));
        Ok(Services { vips, list, reals, seed })
    }

    /// Lets the identities of reals go that were taken out and that `in_use` says no worker holds: each has
    /// taken a configuration without them, and has no connection to them left. Returns those let go, and whose
    /// they were: what was counted of them from now on may be another's.
    pub fn release(&mut self, mut in_use: impl FnMut(RealId) -> bool) -> Vec<(Vip, RealId)> {
        let gone: Vec<_> =
            self.leaving.extract_if(.., |id, _| !in_use(*id)).map(|(id, vip)| (vip, id)).collect();
        gone.iter().for_each(|(_, id)| self.ids.release(*id));
        gone
    }

    fn tables(
        &self,
        definitions: &[Definition],
        size: TableSize,
        seed: [u64; 2],
    ) -> Result<Vec<Made>, DirectoryError> {
        let table = |definition: &Definition| {
            let reals: Vec<_> =
                definition.reals.iter().map(|real| (real.address, weight_in_table(real))).collect();
            let same = |made: &&Made| (made.size, made.seed) == (size, seed) && made.reals == reals;
            let table = match self.tables.iter().find(same) {
                Some(made) => made.table.clone(),
                None => Arc::new(
                    Table::of_addresses(size, seed, &reals)
                        .map_err(|source| DirectoryError::TooManyReals { vip: definition.vip, source })?,
                ),
            };
            Ok(Made { size, seed, reals, table })
        };
        definitions.iter().map(table).collect()
    }

    /// Gives every defined real an identity and takes note of those that are defined no more.
    fn identify(&mut self, definitions: &[Definition]) -> Result<(), DirectoryError> {
        let defined: BTreeSet<(Vip, IpAddr)> = definitions
            .iter()
            .flat_map(|definition| definition.reals.iter().map(|real| (definition.vip, real.address)))
            .collect();
        let new: Vec<_> = defined.iter().filter(|real| !self.known.contains_key(real)).copied().collect();
        let mut ids = Vec::new();
        for _ in &new {
            match self.ids.allocate() {
                Some(id) => ids.push(id),
                None => {
                    ids.into_iter().for_each(|id| self.ids.release(id));
                    return Err(DirectoryError::NoIdentity);
                }
            }
        }
        self.known.extend(new.into_iter().zip(ids));
        let leaving = self.known.extract_if(.., |real, _| !defined.contains(real));
        self.leaving.extend(leaving.map(|((vip, _), id)| (id, vip)));
        Ok(())
    }
}

/// Only reals that are up get new flows.
fn weight_in_table(real: &RealDefinition) -> u32 {
    if real.state == RealState::Up { real.weight } else { 0 }
}
