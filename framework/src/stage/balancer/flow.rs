//! What the balancer keeps of a flow: a keyed 128-bit hash of its addresses, ports and protocol.

use super::siphash;
use crate::packet::{FlowKey, FlowKey4, FlowKey6};

/// A 128-bit hash of a flow, made by a [`FlowHasher`].
///
/// The two halves are independent of each other: a table takes its index from one and compares the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowHash {
    /// Says where to look. Evenly distributed over all 64 bits.
    pub index: u64,
    /// Says whether what is there is this flow.
    pub tag: u64,
}

/// Hashes flows under a key: SipHash-1-3 with 128 bits of output, over the flow's 13 (IPv4) or 37 (IPv6) bytes.
///
/// With a secret, random key nobody outside can choose flows that meet in one bucket, or take one for another,
/// even if they learn which flows did. Balancers that share a VIP (by ECMP, say) and are to choose the same real
/// for a flow need the same key: hence two hashers in a balancer, a secret one for its connection table and a
/// common one for [`maglev`](super::maglev).
///
/// ```
/// use afx::packet::{FlowKey, Protocol};
/// use afx::stage::balancer::flow::FlowHasher;
///
/// let hasher = FlowHasher::new([1, 2]);
/// let flow = |port| FlowKey::new([192, 0, 2, 1].into(), [198, 51, 100, 1].into(), Protocol::TCP, port, 443);
/// let (one, other) = (flow(40_000).expect("both are IPv4"), flow(40_001).expect("both are IPv4"));
/// assert_ne!(hasher.hash(&one), hasher.hash(&other));
/// ```
#[derive(Clone, Copy)]
pub struct FlowHasher {
    key: [u64; 2],
}

impl FlowHasher {
    /// A hasher with this key.
    #[must_use]
    pub const fn new(key: [u64; 2]) -> Self {
        Self { key }
    }

    /// A hasher with a key that the kernel's random number generator chose.
    ///
    /// # Errors
    /// Whatever the system answers when `/dev/urandom` cannot be read.
    pub fn random() -> std::io::Result<Self> {
        use std::io::Read as _;
        let mut bytes = [0; 16];
        std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        Ok(Self::new(bytemuck::cast(bytes)))
    }

    /// The hash of a flow.
    #[inline]
    #[must_use]
    pub fn hash(&self, flow: &FlowKey) -> FlowHash {
        match flow {
            FlowKey::V4(flow) => self.hash_v4(flow),
            FlowKey::V6(flow) => self.hash_v6(flow),
        }
    }

    /// The hash of an IPv4 flow.
    #[inline]
    #[must_use]
    pub fn hash_v4(&self, flow: &FlowKey4) -> FlowHash {
        let [addresses, rest] = flow.words();
        self.finish(&[addresses, last_block::<13>(rest)])
    }

    /// The hash of an IPv6 flow.
    #[inline]
    #[must_use]
    pub fn hash_v6(&self, flow: &FlowKey6) -> FlowHash {
        let [a, b, c, d, rest] = flow.words();
        self.finish(&[a, b, c, d, last_block::<37>(rest)])
    }

    #[inline(always)]
    fn finish(&self, blocks: &[u64]) -> FlowHash {
        let [index, tag] = siphash::hash128::<1, 3>(self.key, blocks);
        FlowHash { index, tag }
    }
}

impl std::fmt::Debug for FlowHasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The key stays secret, in logs too.
        f.debug_struct("FlowHasher").finish_non_exhaustive()
    }
}

/// SipHash's last block: the ports and the protocol, 40 bits, and in the top byte the length in bytes of the
/// whole message, so that no IPv4 flow hashes as an IPv6 one.
#[inline(always)]
fn last_block<const LENGTH: u64>(ports_and_protocol: u64) -> u64 {
    LENGTH << 56 | ports_and_protocol
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::packet::Protocol;

    #[test]
    fn every_field_matters() {
        let hasher = FlowHasher::new([7, 9]);
        let flow = |a: &str, ap, b: &str, bp, protocol| {
            FlowKey::new(a.parse().unwrap(), b.parse().unwrap(), protocol, ap, bp).unwrap()
        };
        let flows = [
            flow("192.0.2.1", 1, "192.0.2.2", 2, Protocol::TCP),
            flow("192.0.2.2", 1, "192.0.2.1", 2, Protocol::TCP),
            flow("192.0.2.1", 2, "192.0.2.2", 1, Protocol::TCP),
            flow("192.0.2.1", 1, "192.0.2.2", 2, Protocol::UDP),
            flow("2001:db8::1", 1, "2001:db8::2", 2, Protocol::TCP),
            flow("2001:db8::2", 1, "2001:db8::1", 2, Protocol::TCP),
            flow("2001:db8::1", 2, "2001:db8::2", 1, Protocol::TCP),
            flow("2001:db8::1", 1, "2001:db8::2", 2, Protocol::UDP),
            flow("2001:db8:1::1", 1, "2001:db8::2", 2, Protocol::TCP),
        ];
        let hashes: HashSet<FlowHash> = flows.iter().map(|flow| hasher.hash(flow)).collect();
        assert_eq!(hashes.len(), flows.len());
        let other = FlowHasher::new([7, 10]);
        assert!(flows.iter().all(|flow| hasher.hash(flow) != other.hash(flow)));
    }

    #[test]
    fn random_keys_differ() {
        let flow = FlowKey::new([1, 1, 1, 1].into(), [2, 2, 2, 2].into(), Protocol::TCP, 1, 2).unwrap();
        assert_ne!(FlowHasher::random().unwrap().hash(&flow), FlowHasher::random().unwrap().hash(&flow));
    }
}
