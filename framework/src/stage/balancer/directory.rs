//! The control side's book of VIPs and reals: who has which identity, and what workers are to know.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::definition::{Definition, Fragments, RealDefinition, RealState, Settings};
use super::flow::FlowHasher;
use super::forward::{Destination, Hop};
use super::maglev::{Table, TableSize, TooManyReals};
use super::map::Map;
use super::real::{RealId, RealIds};
use super::services::{ANY, Found, Place, Service, Services, Tunnels};
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
    /// A VIP is defined twice.
    #[error("{0} is defined twice")]
    Twice(Vip),
    /// Two reals of a VIP, or one twice, are to serve the same clients.
    #[error("{vip}: the clients of {network} are given to a real twice")]
    SourceTwice {
        /// The VIP.
        vip: Vip,
        /// The clients.
        network: IpNet,
    },
    /// Two reals of a VIP, or one twice, have the same server id.
    #[error("{vip}: the server id {id} is given to a real twice")]
    ServerIdTwice {
        /// The VIP.
        vip: Vip,
        /// The server id.
        id: u32,
    },
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
        check(definitions)?;
        let tables = self.tables(definitions, settings.table_size, seed)?;
        self.identify(definitions)?;
        let mut reals = Vec::new();
        let mut list = Vec::new();
        for (definition, table) in definitions.iter().zip(&tables) {
            let Definition { vip, options, .. } = *definition;
            let service = list.len() as u32;
            for real in &definition.reals {
                let id = self.known[&(vip, real.address)];
                let index = usize::from(id.index());
                if reals.len() <= index {
                    reals.resize_with(index + 1, || None);
                }
                let hop = way(&vip, &real.address);
                let way = hop.and_then(|hop| {
                    Destination::new(id, real.address, vip.is_ipv4(), &settings.forwarding, &hop)
                });
                reals[index] = Place::new(id, real.state, &options, service, way);
            }
            list.push(self.service(definition, table.table.clone()));
        }
        self.tables = tables;
        let networks = |wanted: fn(&Definition) -> bool| {
            definitions.iter().zip(0..).filter(move |(definition, _)| wanted(definition))
        };
        let echo = networks(|definition| definition.options.answer_echo);
        let together = networks(|definition| definition.options.fragments == Fragments::Together);
        Ok(Services {
            vips: Vips::new(
                definitions
                    .iter()
                    .zip(0..)
                    .map(|(of, index)| (of.vip, Found::new(index, &of.options).to_bits())),
            ),
            list,
            reals,
            common: FlowHasher::new(seed),
            client_mtu: settings.client_mtu.map_or(usize::MAX, |mtu| mtu as usize),
            too_big: settings.too_big,
            echo: Vips::any_port(echo.map(|(of, index)| (of.vip.network, ANY, index))),
            together: Vips::any_port(together.map(|(of, index)| (of.vip.network, of.vip.protocol, index))),
            tunnels: tunnels(settings),
        })
    }

    /// A VIP, of whose reals those count that are not out.
    fn service(&self, definition: &Definition, table: Arc<Table>) -> Service {
        let Definition { vip, options, .. } = *definition;
        let id = |real: &RealDefinition| self.known[&(vip, real.address)];
        let up = || definition.reals.iter().filter(|real| real.state == RealState::Up);
        let named =
            definition.reals.iter().filter(|real| matches!(real.state, RealState::Up | RealState::Draining));
        let sources =
            up().flat_map(|real| real.sources.iter().map(move |network| (*network, ANY, id(real).to_bits())));
        let has_sources = up().any(|real| !real.sources.is_empty());
        let server_ids = named.flat_map(|real| {
            real.server_ids.iter().map(move |number| (u64::from(*number), id(real).to_bits()))
        });
        Service {
            vip,
            options,
            table,
            reals: definition.reals.iter().map(id).collect(),
            sources: has_sources.then(|| Vips::any_port(sources)),
            server_ids: Map::new(server_ids),
        }
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

/// That each VIP, source and server id means one thing.
fn check(definitions: &[Definition]) -> Result<(), DirectoryError> {
    let mut vips = BTreeSet::new();
    for Definition { vip, reals, .. } in definitions {
        if !vips.insert(*vip) {
            return Err(DirectoryError::Twice(*vip));
        }
        let mut sources = BTreeSet::new();
        if let Some(network) =
            reals.iter().flat_map(|real| &real.sources).find(|net| !sources.insert(net.trunc()))
        {
            return Err(DirectoryError::SourceTwice { vip: *vip, network: *network });
        }
        let mut ids = BTreeSet::new();
        if let Some(id) = reals.iter().flat_map(|real| &real.server_ids).find(|id| !ids.insert(**id)) {
            return Err(DirectoryError::ServerIdTwice { vip: *vip, id: *id });
        }
    }
    Ok(())
}

fn tunnels(settings: &Settings) -> Option<Tunnels> {
    let gue_port = settings.forwarding.gue_port();
    let ends = settings.decapsulate.iter().map(|address| (IpNet::from(*address), ANY, 0));
    (!settings.decapsulate.is_empty()).then(|| Tunnels { ends: Vips::any_port(ends), gue_port })
}

/// Only reals that are up get new flows.
fn weight_in_table(real: &RealDefinition) -> u32 {
    if real.state == RealState::Up { real.weight } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::super::forward::Forwarding;
    use super::*;
    use crate::port::PortId;

    fn vip(text: &str) -> Vip {
        text.parse().unwrap()
    }

    fn real(last: u8) -> RealDefinition {
        RealDefinition::new([10, 0, 0, last].into(), 1)
    }

    fn services(directory: &mut Directory, definitions: &[Definition]) -> Result<Services, DirectoryError> {
        let hop = Hop {
            port: PortId::new(0),
            source_mac: crate::packet::MacAddress([2; 6]),
            destination_mac: crate::packet::MacAddress([4; 6]),
            source: Some([10, 0, 0, 1].into()),
            mtu: 1500,
        };
        let forwarding = Forwarding::Ipip { source_v4: None, source_v6: None };
        directory.services(definitions, &Settings::new(forwarding), |_, _| Some(hop))
    }

    #[test]
    fn what_means_two_things_is_refused_and_nothing_changes() {
        let service = vip("198.51.100.10:443/tcp");
        let sources = |networks: [&str; 2]| {
            let of = |network: &str| vec![network.parse().unwrap()];
            let [a, b] = networks.map(of);
            vec![RealDefinition { sources: a, ..real(1) }, RealDefinition { sources: b, ..real(2) }]
        };
        let ids = RealDefinition { server_ids: vec![7, 8, 7], ..real(1) };
        let cases = [
            (
                vec![Definition::new(service, vec![real(1)]), Definition::new(service, vec![real(2)])],
                "198.51.100.10:443/tcp is defined twice",
            ),
            (
                vec![Definition::new(service, sources(["192.0.2.0/24", "192.0.2.7/24"]))],
                "198.51.100.10:443/tcp: the clients of 192.0.2.7/24 are given to a real twice",
            ),
            (
                vec![Definition::new(service, vec![ids])],
                "198.51.100.10:443/tcp: the server id 7 is given to a real twice",
            ),
        ];
        let mut directory = Directory::new();
        for (definitions, message) in cases {
            assert_eq!(services(&mut directory, &definitions).unwrap_err().to_string(), message);
            assert_eq!(directory.reals().count(), 0);
        }
        let different = sources(["192.0.2.0/24", "192.0.2.0/25"]);
        assert!(services(&mut directory, &[Definition::new(service, different)]).is_ok());
    }

    #[test]
    fn vips_that_differ_in_anything_have_reals_of_their_own() {
        let vips = [
            "198.51.100.10:443/tcp",
            "198.51.100.10:443/udp",
            "198.51.100.10:*/tcp",
            "198.51.100.0/24:443/tcp",
        ];
        let mut directory = Directory::new();
        let definitions: Vec<_> = vips.iter().map(|text| Definition::new(vip(text), vec![real(1)])).collect();
        let services = services(&mut directory, &definitions).unwrap();
        let ids: BTreeSet<_> =
            vips.iter().map(|text| directory.id(&vip(text), &real(1).address).unwrap()).collect();
        assert_eq!(ids.len(), vips.len());
        assert_eq!(services.vips().collect::<Vec<_>>(), vips.map(vip));
    }

    #[test]
    fn only_reals_that_are_up_have_slots() {
        let service = vip("198.51.100.10:443/tcp");
        let states = [RealState::Up, RealState::Draining, RealState::Down, RealState::Out];
        let reals: Vec<_> =
            (1..).zip(states).map(|(last, state)| RealDefinition { state, ..real(last) }).collect();
        let mut directory = Directory::new();
        let all = services(&mut directory, &[Definition::new(service, reals.clone())]).unwrap();
        let slots: Vec<_> = all.slots(&service).into_iter().map(|(_, slots)| slots).collect();
        assert_eq!(slots, [TableSize::DEFAULT.slots() as usize, 0, 0, 0]);
        // Which of them gets new flows is all that the table knows: states that do not are one to it.
        let mut others = reals;
        others[1].state = RealState::Down;
        let same = services(&mut directory, &[Definition::new(service, others)]).unwrap();
        assert!(Arc::ptr_eq(&all.list[0].table, &same.list[0].table));
    }
}
