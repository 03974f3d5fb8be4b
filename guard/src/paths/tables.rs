//! Tables: connections, Maglev, prefixes.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use afx::Time;
use afx::lookup::{Address, PrefixTable};
use afx::packet::{FlowKey, Protocol};
use afx::stage::balancer::connections::{Connections, Signal, Tick, Timeouts};
use afx::stage::balancer::flow::{FlowHash, FlowHasher};
use afx::stage::balancer::maglev::{Table, TableSize};
use afx::stage::balancer::real::RealId;
use ipnet::{Ipv4Net, Ipv6Net};

use super::{BATCH, Family, Numbers, client};

const KEY: [u64; 2] = [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210];
const REAL: RealId = RealId::new(3, 0);

/// Timeouts that nothing outlasts.
pub(super) const TIMEOUTS: Timeouts = {
    let hour = Duration::from_secs(60 * 60);
    Timeouts { opening: hour, established: hour, closing: hour, datagram: hour }
};

/// A connection table, filled to its capacity, and what it is asked for.
pub struct Lookups {
    connections: Connections,
    hasher: FlowHasher,
    capacity: u32,
    now: Tick,
    numbers: Numbers,
    /// The flow hashes of the next run.
    flows: [FlowHash; BATCH],
}

impl Lookups {
    /// A table of that many connections.
    pub fn new(capacity: u32) -> Self {
        let (hasher, now) = (FlowHasher::new(KEY), Tick::at(Time::ZERO));
        let mut connections = Connections::new(capacity as usize, TIMEOUTS);
        for number in 0..capacity {
            connections.insert(flow(&hasher, number), REAL, Signal::Data, now);
        }
        let flows = [flow(&hasher, 0); BATCH];
        Self { connections, hasher, capacity, now, numbers: Numbers::new(1), flows }
    }

    /// Chooses flows, at random, that are in the table.
    pub fn choose_known(&mut self) {
        for flow_hash in &mut self.flows {
            let number = self.numbers.next().unwrap_or_default() as u32 % self.capacity;
            *flow_hash = flow(&self.hasher, number);
        }
    }

    /// Chooses flows that are not in the table.
    pub fn choose_unknown(&mut self) {
        for flow_hash in &mut self.flows {
            // Numbers above the capacity, so that none is of a connection.
            let number = self.numbers.next().unwrap_or_default() as u32 | 1 << 31;
            *flow_hash = flow(&self.hasher, number);
        }
    }

    /// Looks the flows up, as the balancer does: asks for all, then reads.
    pub fn look_up(&mut self) -> usize {
        let flows = black_box(&self.flows);
        flows.iter().for_each(|flow| self.connections.prefetch(*flow));
        let mut rest = [FlowHash { index: 0, tag: 0 }; BATCH];
        let mut left = 0;
        for flow in flows {
            if self.connections.lookup_first(*flow, Signal::Data, self.now).is_none() {
                rest[left] = *flow;
                left += 1;
            }
        }
        let rest = &rest[..left];
        BATCH - left
            + rest.iter().filter_map(|flow| self.connections.lookup(*flow, Signal::Data, self.now)).count()
    }

    /// Makes connections of the flows.
    pub fn insert(&mut self) {
        let flows = black_box(&self.flows);
        flows.iter().for_each(|flow| self.connections.prefetch(*flow));
        for flow in flows {
            self.connections.insert(*flow, REAL, Signal::Open, self.now);
        }
    }

    /// Removes them again.
    pub fn remove(&mut self) {
        for flow in &self.flows {
            self.connections.remove(*flow);
        }
    }
}

/// The hash of the flow with that number.
fn flow(hasher: &FlowHasher, number: u32) -> FlowHash {
    let client: SocketAddr = client(Family::V4, number);
    // The upper bits that the address has no room for are in the other address.
    let server = Ipv4Addr::from(198 << 24 | number >> 24);
    let key = FlowKey::new(client.ip(), server.into(), Protocol::TCP, client.port(), 443);
    hasher.hash(&key.expect("both are IPv4"))
}

/// The making of a Maglev table with 65,537 slots.
pub struct MaglevBuild(Vec<(IpAddr, u32)>);

impl MaglevBuild {
    /// Of that many reals with different weights.
    pub fn new(reals: u16) -> Self {
        Self((0..reals).map(|real| (Family::V4.client(real.into()), 1 + u32::from(real % 7))).collect())
    }

    /// Makes it.
    pub fn run(&self) -> Table {
        Table::of_addresses(TableSize::DEFAULT, KEY, black_box(&self.0))
            .expect("there are fewer reals than slots")
    }
}

/// Lookups in a Maglev table.
pub struct MaglevLookup {
    table: Table,
    flows: Vec<FlowHash>,
}

impl MaglevLookup {
    /// In a table of 100 reals.
    pub fn new() -> Self {
        let hasher = FlowHasher::new(KEY);
        let flows = (0..BATCH as u32).map(|number| flow(&hasher, number)).collect();
        Self { table: MaglevBuild::new(100).run(), flows }
    }

    /// Looks up a batch.
    pub fn run(&self) -> usize {
        black_box(&self.flows).iter().filter_map(|flow| self.table.lookup(*flow)).sum()
    }
}

impl Default for MaglevLookup {
    fn default() -> Self {
        Self::new()
    }
}

/// Addresses in a form that prefixes can be made of at random.
pub trait Prefixes: Address {
    /// An address and a prefix that it is in, as long as prefixes in the Internet's tables are.
    fn random(numbers: &mut Numbers) -> (Self, Self::Prefix);
}

impl Prefixes for u32 {
    fn random(numbers: &mut Numbers) -> (Self, Ipv4Net) {
        let [address, length] = [(); 2].map(|()| numbers.next().unwrap_or_default());
        // Some 60 per cent of the prefixes in the Internet's tables are /24; a tenth here is longer, as customers' are.
        let length = match length % 100 {
            0..60 => 24,
            60..90 => 16 + (length >> 32) % 8,
            _ => 25 + (length >> 32) % 8,
        };
        let address = (address >> 32) as u32;
        (address, Ipv4Net::new_assert(address.into(), length as u8))
    }
}

impl Prefixes for u128 {
    fn random(numbers: &mut Numbers) -> (Self, Ipv6Net) {
        let [upper, lower, length] = [(); 3].map(|()| numbers.next().unwrap_or_default());
        let length = match length % 100 {
            0..50 => 48,
            50..75 => 32,
            75..95 => 33 + (length >> 32) % 15,
            _ => 64,
        };
        // Of 2000::/6, which is where the addresses in use are; few enough /32 that prefixes lie in each other.
        let address = 0x20 << 120 | u128::from(upper >> 48) << 96 | u128::from(upper << 32 | lower >> 32);
        let address = address & !(0xffff << 80) | u128::from(upper >> 32 & 0xf) << 80;
        (address, Ipv6Net::new_assert(address.into(), length as u8))
    }
}

/// A table of prefixes, and the addresses it is asked for.
pub struct PrefixLookups<A: Prefixes> {
    table: PrefixTable<A>,
    addresses: Vec<A>,
    values: Vec<u32>,
    next: usize,
}

impl<A: Prefixes> PrefixLookups<A> {
    /// A table of that many prefixes, half of the addresses being in one of them for sure.
    pub fn new(prefixes: u32, addresses: usize) -> Self {
        let mut numbers = Numbers::new(2);
        let mut inside = Vec::new();
        let prefixes = (0..prefixes).map(|value| {
            let (address, prefix) = A::random(&mut numbers);
            inside.push(address);
            (prefix, value)
        });
        let table = PrefixTable::from_prefixes(prefixes).expect("there is room, and the values are small");
        let mut numbers = Numbers::new(3);
        let addresses = (0..addresses.next_multiple_of(BATCH))
            .map(|index| match index % 2 {
                0 => inside[numbers.next().unwrap_or_default() as usize % inside.len()],
                _ => A::random(&mut numbers).0,
            })
            .collect();
        Self { table, addresses, values: vec![0; BATCH], next: 0 }
    }

    /// Looks up the next batch at once.
    pub fn bulk(&mut self) -> u32 {
        let batch = self.next_batch();
        self.table.lookup_bulk(black_box(&self.addresses[batch]), &mut self.values);
        self.values[BATCH - 1]
    }

    /// Looks up the next batch one by one.
    pub fn one_by_one(&mut self) -> usize {
        let batch = self.next_batch();
        black_box(&self.addresses[batch]).iter().filter_map(|address| self.table.lookup(*address)).count()
    }

    fn next_batch(&mut self) -> std::ops::Range<usize> {
        let start = self.next;
        self.next = (start + BATCH) % self.addresses.len();
        start..start + BATCH
    }
}

impl PrefixLookups<u32> {
    /// So many addresses are spread over all there are.
    pub fn uniform(mut self) -> Self {
        let mut numbers = Numbers::new(4);
        self.addresses.fill_with(|| (numbers.next().unwrap_or_default() >> 32) as u32);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_flows_are_found_and_unknown_ones_are_not() {
        let mut lookups = Lookups::new(1 << 12);
        for _ in 0..10 {
            lookups.choose_known();
            assert_eq!(lookups.look_up(), BATCH);
            lookups.choose_unknown();
            assert_eq!(lookups.look_up(), 0);
            lookups.insert();
            assert_eq!(lookups.look_up(), BATCH);
            lookups.remove();
            assert_eq!(lookups.look_up(), 0);
        }
    }

    #[test]
    fn addresses_are_looked_up_the_same_at_once_and_one_by_one() {
        fn check<A: Prefixes>() {
            let mut lookups = PrefixLookups::<A>::new(2000, BATCH);
            let found = lookups.one_by_one();
            lookups.bulk();
            assert_eq!(
                lookups.values.iter().filter(|value| **value != PrefixTable::<A>::NONE).count(),
                found
            );
            // Every other one is in a prefix for sure.
            assert!(found >= BATCH / 2, "{found}");
        }
        check::<u32>();
        check::<u128>();
    }
}
