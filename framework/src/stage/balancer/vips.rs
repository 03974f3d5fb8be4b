//! Which VIP a packet is for: exact match of address, port and protocol.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::packet::{FlowKey, Protocol};

/// What clients connect to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vip {
    /// The address.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
}

impl fmt::Display for Vip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", SocketAddr::new(self.address, self.port), self.protocol)
    }
}

/// A map of VIPs that is looked into for each packet and never changed.
#[derive(Debug)]
pub(super) struct Vips {
    v4: Map<u64>,
    v6: Map<(u128, u32)>,
}

impl Vips {
    /// The map from each VIP to its place in `vips`.
    pub(super) fn new(vips: &[Vip]) -> Self {
        let entry = |(index, vip): (usize, &Vip)| (*vip, index as u32);
        let (v4, v6): (Vec<_>, Vec<_>) =
            vips.iter().enumerate().map(entry).partition(|(vip, _)| vip.address.is_ipv4());
        let key4 = |(vip, index): (Vip, u32)| match vip.address {
            IpAddr::V4(address) => Some((key_v4(address.to_bits(), vip.port, vip.protocol), index)),
            IpAddr::V6(_) => None,
        };
        let key6 = |(vip, index): (Vip, u32)| match vip.address {
            IpAddr::V6(address) => Some((key_v6(address.to_bits(), vip.port, vip.protocol), index)),
            IpAddr::V4(_) => None,
        };
        Self {
            v4: Map::new(v4.into_iter().filter_map(key4).collect()),
            v6: Map::new(v6.into_iter().filter_map(key6).collect()),
        }
    }

    /// The place of the VIP that a flow goes to.
    #[inline]
    pub(super) fn of(&self, flow: &FlowKey) -> Option<u32> {
        match flow {
            FlowKey::V4(flow) => {
                self.v4.lookup(key_v4(flow.destination().to_bits(), flow.destination_port(), flow.protocol()))
            }
            FlowKey::V6(flow) => {
                self.v6.lookup(key_v6(flow.destination().to_bits(), flow.destination_port(), flow.protocol()))
            }
        }
    }
}

fn key_v4(address: u32, port: u16, protocol: Protocol) -> u64 {
    u64::from(address) << 32 | u64::from(port) << 16 | u64::from(protocol.0)
}

fn key_v6(address: u128, port: u16, protocol: Protocol) -> (u128, u32) {
    (address, u32::from(port) << 16 | u32::from(protocol.0))
}

/// Open addressing, at most a quarter full: keys that are there take one probe mostly, and keys that are not,
/// which anyone may send, end at an empty place soon.
#[derive(Debug)]
struct Map<K> {
    places: Box<[Option<(K, u32)>]>,
    shift: u32,
}

trait Key: Copy + Eq {
    fn mix(self) -> u64;
}

/// An odd number with its bits well mixed: 2^64 over the golden ratio.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

impl Key for u64 {
    #[inline(always)]
    fn mix(self) -> u64 {
        (self ^ self >> 32).wrapping_mul(SPREAD)
    }
}

impl Key for (u128, u32) {
    #[inline(always)]
    fn mix(self) -> u64 {
        let (address, rest) = self;
        let folded = (address >> 64) as u64 ^ (address as u64).rotate_left(23) ^ u64::from(rest) << 17;
        (folded ^ folded >> 32).wrapping_mul(SPREAD)
    }
}

impl<K: Key> Map<K> {
    fn new(entries: Vec<(K, u32)>) -> Self {
        let size = (entries.len() * 4).next_power_of_two().max(4);
        let mut map = Self { places: vec![None; size].into(), shift: 64 - size.trailing_zeros() };
        for (key, value) in entries {
            let mut place = map.first(key);
            while map.places[place].is_some() {
                place = (place + 1) & (size - 1);
            }
            map.places[place] = Some((key, value));
        }
        map
    }

    #[inline(always)]
    fn first(&self, key: K) -> usize {
        (key.mix() >> self.shift) as usize
    }

    #[inline]
    fn lookup(&self, key: K) -> Option<u32> {
        let mut place = self.first(key);
        while let Some((there, value)) = self.places[place] {
            if there == key {
                return Some(value);
            }
            place = (place + 1) & (self.places.len() - 1);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn vip() -> impl Strategy<Value = Vip> {
        let address = prop_oneof![
            (0u8..8).prop_map(|last| IpAddr::from([198, 51, 100, last])),
            (0u16..8).prop_map(|last| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, last])),
        ];
        let protocol = prop_oneof![Just(Protocol::TCP), Just(Protocol::UDP)];
        (address, 0u16..8, protocol).prop_map(|(address, port, protocol)| Vip { address, port, protocol })
    }

    proptest! {
        #[test]
        fn finds_what_a_hash_map_finds(there in prop::collection::hash_set(vip(), 0..60), asked in prop::collection::vec(vip(), 60)) {
            let there: Vec<_> = there.into_iter().collect();
            let model: HashMap<_, _> = there.iter().enumerate().map(|(index, vip)| (*vip, index as u32)).collect();
            let vips = Vips::new(&there);
            for vip in asked.iter().chain(&there) {
                let client = if vip.address.is_ipv4() { IpAddr::from([10, 0, 0, 1]) } else { IpAddr::from([1; 16]) };
                let flow = FlowKey::new(client, vip.address, vip.protocol, 40_000, vip.port).unwrap();
                prop_assert_eq!(vips.of(&flow), model.get(vip).copied());
            }
        }
    }
}
