//! A routing table like the global one, made by a fixed rule.

use std::collections::HashSet;
use std::net::Ipv4Addr;

use afx::lookup::PrefixTable;
use anyhow::{Context, Result};
use ipnet::Ipv4Net;

use crate::random::Random;

/// A prefix and what it leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) address: u32,
    pub(crate) length: u8,
    pub(crate) value: u32,
}

/// How many of 10,000 prefixes have each length: about as in the global table of IPv4, with half a percent of longer
/// ones, which a network has of its own.
const LENGTHS: [(u8, u32); 25] = [
    (8, 1),
    (9, 1),
    (10, 1),
    (11, 1),
    (12, 3),
    (13, 6),
    (14, 12),
    (15, 20),
    (16, 140),
    (17, 85),
    (18, 140),
    (19, 260),
    (20, 440),
    (21, 510),
    (22, 1130),
    (23, 1010),
    (24, 6190),
    (25, 5),
    (26, 5),
    (27, 5),
    (28, 5),
    (29, 8),
    (30, 10),
    (31, 2),
    (32, 10),
];

/// So many different prefixes, the default route first. The value of each is its place.
pub(crate) fn global(count: usize) -> Vec<Route> {
    let mut random = Random::new(2);
    let mut seen = HashSet::from([(0, 0)]);
    let mut routes = vec![Route { address: 0, length: 0, value: 0 }];
    while routes.len() < count {
        let length = length(random.below(10_000) as u32);
        // Unicast: 1.0.0.0 to 223.255.255.255.
        let address = (1 << 24) + random.below(223 << 24) as u32;
        let address = address & u32::MAX << (32 - u32::from(length));
        if address >> 24 != 0 && seen.insert((address, length)) {
            routes.push(Route { address, length, value: routes.len() as u32 });
        }
    }
    routes
}

/// The length that this number of 10,000 stands for.
fn length(mut at: u32) -> u8 {
    for (length, share) in LENGTHS {
        if at < share {
            return length;
        }
        at -= share;
    }
    unreachable!("the shares add up to 10,000")
}

/// They as afx's table.
pub(crate) fn table(routes: &[Route]) -> Result<PrefixTable<u32>> {
    let prefix = |route: &Route| Ipv4Net::new(Ipv4Addr::from(route.address), route.length);
    let prefixes: Vec<_> =
        routes.iter().map(|route| Ok((prefix(route)?, route.value))).collect::<Result<_>>()?;
    PrefixTable::from_prefixes(prefixes).context("making the table")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_as_the_shares_say() {
        assert_eq!(LENGTHS.iter().map(|(_, share)| share).sum::<u32>(), 10_000);
        let routes = global(20_000);
        let of = |length| routes.iter().filter(|route| route.length == length).count();
        assert!((11_800..13_000).contains(&of(24)), "{}", of(24));
        assert!((1..60).contains(&of(32)), "{}", of(32));
        assert_eq!(of(0), 1);
    }

    #[test]
    fn prefixes_are_unicast_distinct_and_without_host_bits() {
        let routes = global(20_000);
        let distinct: HashSet<_> = routes.iter().map(|route| (route.address, route.length)).collect();
        assert_eq!(distinct.len(), routes.len());
        for route in &routes[1..] {
            let network = Ipv4Net::new(Ipv4Addr::from(route.address), route.length).unwrap();
            assert_eq!(network.addr(), network.network());
            assert!((1..224).contains(&network.addr().octets()[0]), "{network}");
        }
        assert!(routes.iter().zip(0..).all(|(route, place)| route.value == place));
    }
}
