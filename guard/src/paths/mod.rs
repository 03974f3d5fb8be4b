//! The hot paths.

mod balancer;
mod pipeline;
mod tables;

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use afx::MemoryRings;
use afx::packet::{Builder, HashSeed, parse_head};

pub use balancer::{Balancing, Family, Traffic};
pub use pipeline::{Composition, Mirroring};
pub use tables::{Lookups, MaglevBuild, MaglevLookup, PrefixLookups, Prefixes};

/// Packets, flows or addresses in each run: what a full batch has.
pub const BATCH: usize = 64;

/// Numbers that look random and are the same each time: SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
#[derive(Clone, Debug)]
pub struct Numbers(u64);

impl Numbers {
    /// The sequence of that seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }
}

impl Iterator for Numbers {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        Some(z ^ z >> 31)
    }
}

/// A batch of packets to be parsed, of 60 bytes or a little more, each of another flow.
pub struct Parsing(Vec<Vec<u8>>);

impl Parsing {
    /// Packets as `builder` makes them, given the sender.
    pub fn new(family: Family, builder: fn(SocketAddr, SocketAddr) -> Builder) -> Self {
        let destination = SocketAddr::new(family.address(7), 443);
        Self((0..BATCH as u32).map(|flow| packet(&builder(client(family, flow), destination))).collect())
    }

    /// Parses each.
    pub fn run(&self) {
        for bytes in &self.0 {
            let _ = black_box(parse_head(black_box(bytes), bytes.len(), HashSeed(1)));
        }
    }
}

/// The four rings of a queue, in memory.
pub struct Rings(MemoryRings);

impl Rings {
    /// Rings that a batch has been through before.
    pub fn new() -> Self {
        let mut rings = Self(MemoryRings::new());
        rings.run();
        rings
    }

    /// A batch on its way through all four.
    pub fn run(&mut self) {
        assert_eq!(self.0.run(), BATCH as u32);
    }
}

impl Default for Rings {
    fn default() -> Self {
        Self::new()
    }
}

/// The client of the flow with that number.
fn client(family: Family, flow: u32) -> SocketAddr {
    SocketAddr::new(family.client(flow), 1024 + (flow % 50_000) as u16)
}

/// A packet of at least 60 bytes, which is what Ethernet carries.
fn packet(builder: &Builder) -> Vec<u8> {
    let mut bytes = vec![0; 256];
    let len = builder.write(&mut bytes, &[0; 18]).expect("it fits, and both addresses are of one family");
    bytes.truncate(len);
    bytes
}

impl Family {
    /// One of the addresses that servers have here.
    fn address(self, host: u8) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::new(198, 51, 100, host).into(),
            Self::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, host.into()).into(),
        }
    }

    /// The address of the client with that number.
    fn client(self, number: u32) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::from(10 << 24 | number & 0xff_ffff).into(),
            Self::V6 => Ipv6Addr::from(0x2001_0db8_0001_u128 << 80 | u128::from(number)).into(),
        }
    }
}
