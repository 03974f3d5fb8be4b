//! What stands in for the network that there is none of: the ways to the reals.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use afx::packet::MacAddress;
use afx::port::PortId;
use afx::stage::balancer::{Hop, RealState, Vip};

use crate::config::{self, Config, Forwarding};
use crate::service::plan;

/// The port's own MAC address, and the next hop's where the configuration gives none: both locally administered.
const OWN_MAC: MacAddress = MacAddress([0x02, 0, 0, 0, 0, 0]);
const NEXT_HOP: MacAddress = MacAddress([0x02, 0, 0, 0, 0, 1]);

/// The outer sources where the configuration gives none: of the prefixes for documentation (RFC 5737, RFC 3849).
const SOURCE_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const SOURCE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

/// The network behind the balancer: all reals are reached by the first port.
pub(super) struct Network {
    mtu: u32,
}

impl Network {
    pub(super) fn new(mtu: u32) -> Self {
        Self { mtu }
    }

    pub(super) fn mtu(&self) -> u32 {
        self.mtu
    }

    /// The way to each real of a configuration.
    pub(super) fn ways(&self, config: &Config) -> impl FnMut(&Vip, &IpAddr) -> Option<Hop> {
        let given: BTreeMap<(Vip, IpAddr), MacAddress> = config
            .vips
            .iter()
            .flat_map(|vip| vip.reals.iter().map(move |real| (plan::vip_of(vip), real)))
            .filter_map(|(vip, real)| {
                Some(((vip, real.address), MacAddress(real.next_hop.or(config.next_hop)?.0)))
            })
            .collect();
        let mtu = self.mtu;
        move |vip, real| {
            Some(Hop {
                port: PortId::new(0),
                source_mac: OWN_MAC,
                destination_mac: given.get(&(*vip, *real)).copied().unwrap_or(NEXT_HOP),
                source: Some(if real.is_ipv4() { SOURCE_V4.into() } else { SOURCE_V6.into() }),
                mtu,
            })
        }
    }

    /// Says what stands in for something that the configurations leave to the machine.
    pub(super) fn stand_ins<'c>(&self, configs: impl Iterator<Item = &'c Config>) -> String {
        let mut facts = BTreeSet::new();
        for config in configs {
            let (v4, v6) = match config.forwarding {
                Forwarding::Ipip { source_v4, source_v6 } | Forwarding::Gue { source_v4, source_v6, .. } => {
                    (source_v4.is_none(), source_v6.is_none())
                }
                Forwarding::L2Dsr => (false, false),
            };
            let reals = || config.vips.iter().flat_map(|vip| &vip.reals);
            if reals().any(|real| real.next_hop.or(config.next_hop).is_none()) {
                facts.insert((0, format!("next hop {NEXT_HOP}")));
            }
            if v4 && reals().any(|real| real.address.is_ipv4()) {
                facts.insert((1, format!("outer source {SOURCE_V4}")));
            }
            if v6 && reals().any(|real| real.address.is_ipv6()) {
                facts.insert((2, format!("outer source {SOURCE_V6}")));
            }
        }
        let rest: String = facts.into_iter().map(|(_, fact)| format!(", {fact}")).collect();
        format!("Stand-ins for the network: own MAC address {OWN_MAC}, MTU {}{rest}", self.mtu)
    }
}

/// The state that the configuration wants a real to have: there are no health checks here.
pub(super) fn state(real: &config::Real) -> RealState {
    match real.state {
        config::RealState::Up => RealState::Up,
        config::RealState::Drain => RealState::Draining,
        config::RealState::Down => RealState::Down,
    }
}
