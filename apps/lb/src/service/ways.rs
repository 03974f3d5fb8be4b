//! The ways to the reals: what the configuration says of next hops, and what the kernel's routes and neighbours do.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use afx::control::interface::Interface;
use afx::control::resolver::{Resolution, Resolutions, Resolver};
use afx::packet::MacAddress;
use afx::port::PortId;
use afx::stage::balancer::Hop;
use anyhow::{Context as _, Result};

use crate::config::{self, Config};

/// How long the ways to the reals may take to be found before traffic is let in without them.
const RESOLVE_WITHIN: Duration = Duration::from_secs(2);

/// The interfaces of a configuration's ports, in their order.
pub(super) fn interfaces(config: &Config) -> Result<Vec<Interface>> {
    let find = |port: &config::Port| {
        Interface::find(&port.interface).with_context(|| format!("port {}", port.interface))
    };
    config.ports.iter().map(find).collect()
}

/// The same, as they are now. One that is gone counts as it was.
pub(super) fn refreshed(config: &Config, old: &[Interface]) -> Vec<Interface> {
    let find = |(port, old): (&config::Port, &Interface)| {
        Interface::find(&port.interface).unwrap_or_else(|_| old.clone())
    };
    config.ports.iter().zip(old).map(find).collect()
}

/// Looks for the ways to a configuration's reals, and those to the reals so far. Only those that were not followed
/// before are waited for.
pub(super) fn resolve(resolver: &Resolver, config: &Config) -> Arc<Resolutions> {
    let known = resolver.snapshot();
    let needed: Vec<_> =
        unrouted(config).into_iter().filter(|address| !known.contains_key(address)).collect();
    resolver.watch(known.keys().copied().chain(addresses(config)));
    let deadline = Instant::now() + RESOLVE_WITHIN;
    loop {
        let resolutions = resolver.snapshot();
        let found = |address: &IpAddr| resolutions.get(address).is_some_and(|way| way.next_hop().is_some());
        if needed.iter().all(found) || Instant::now() > deadline {
            return resolutions;
        }
        let _ = resolver.changes().recv_timeout(Duration::from_millis(20));
    }
}

/// All reals' addresses.
pub(super) fn addresses(config: &Config) -> BTreeSet<IpAddr> {
    config.vips.iter().flat_map(|vip| &vip.reals).map(|real| real.address).collect()
}

/// The reals whose next hop is not given: the kernel must know it.
fn unrouted(config: &Config) -> BTreeSet<IpAddr> {
    if config.next_hop.is_some() {
        return BTreeSet::new();
    }
    let reals = config.vips.iter().flat_map(|vip| &vip.reals);
    reals.filter(|real| real.next_hop.is_none()).map(|real| real.address).collect()
}

/// The next hop to a real: the one given, or what the kernel says.
pub(super) fn hop(
    config: &Config,
    real: &config::Real,
    interfaces: &[Interface],
    resolutions: &Resolutions,
) -> Option<Hop> {
    let kernel = resolutions.get(&real.address).and_then(Resolution::next_hop);
    let index = kernel.and_then(|hop| position(interfaces, hop.interface));
    match real.next_hop.or(config.next_hop) {
        Some(given) => {
            // Where the kernel knows no way, the first port is as good as any: mostly there is one.
            let index = index.unwrap_or(0);
            let own = interfaces.get(index)?;
            let same_family = |address: &&IpAddr| address.is_ipv4() == real.address.is_ipv4();
            Some(Hop {
                port: PortId::new(index),
                source_mac: own.mac,
                destination_mac: MacAddress(given.0),
                source: own.addresses.iter().find(same_family).copied(),
                mtu: own.mtu,
            })
        }
        None => {
            let hop = kernel?;
            Some(Hop {
                port: PortId::new(index?),
                source_mac: MacAddress(hop.source_mac),
                destination_mac: MacAddress(hop.destination_mac),
                source: hop.source,
                mtu: hop.mtu,
            })
        }
    }
}

/// Why packets cannot be sent to a real, where they cannot.
pub(super) fn obstacle(
    config: &Config,
    real: &config::Real,
    interfaces: &[Interface],
    resolutions: &Resolutions,
) -> Option<String> {
    if real.next_hop.or(config.next_hop).is_some() {
        return None;
    }
    match resolutions.get(&real.address) {
        None => Some("its next hop is being looked for".to_owned()),
        Some(Resolution::Unresolved(why)) => Some(why.to_string()),
        Some(Resolution::Resolved(hop)) if position(interfaces, hop.interface).is_none() => {
            Some("its route leads to an interface that has no [[port]]".to_owned())
        }
        Some(Resolution::Resolved(_)) => None,
    }
}

/// The port that has the interface of this index.
fn position(interfaces: &[Interface], index: u32) -> Option<usize> {
    interfaces.iter().position(|own| own.index == index)
}
