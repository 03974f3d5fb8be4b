//! What the balancer keeps of a flow: a keyed 128-bit hash of its addresses, ports and protocol.

use super::siphash::hash128;
use crate::mem::Aes128;
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

/// Hashes flows under a key: their 13 (IPv4) or 37 (IPv6) bytes to 128 bits.
///
/// With a secret, random key nobody outside can choose flows that meet in one bucket, or take one for another,
/// even if they learn which flows did. Balancers that share a VIP (by ECMP, say) and are to choose the same real
/// for a flow need the same key: hence two hashers in a balancer, a secret one for its connection table and a
/// common one for [`maglev`](super::maglev).
///
/// One with a [given key](Self::new) is SipHash-1-3, the same on every machine. One with a
/// [random key](Self::random), whose results are good for nobody else, is [the fastest](Self::fastest): AES-128
/// where the processor has instructions for it, at a tenth of the cost. That is the block cipher itself of an IPv4
/// flow, so that no two of them have the same 128 bits, and its CBC-MAC (FIPS 113) of an IPv6 flow, under another
/// key.
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
pub struct FlowHasher(Function);

#[derive(Clone, Copy)]
#[expect(clippy::large_enum_variant, reason = "one for each worker, in the cache lines that it always reads")]
enum Function {
    SipHash([u64; 2]),
    Aes { v4: Aes128, v6: Aes128 },
}

impl FlowHasher {
    /// A hasher with this key.
    #[must_use]
    pub const fn new(key: [u64; 2]) -> Self {
        Self(Function::SipHash(key))
    }

    /// A hasher with a key that the kernel's random number generator chose.
    ///
    /// # Errors
    /// Whatever the system answers when `/dev/urandom` cannot be read.
    pub fn random() -> std::io::Result<Self> {
        use std::io::Read as _;
        let mut key = [0; 32];
        std::fs::File::open("/dev/urandom")?.read_exact(&mut key)?;
        Ok(Self::fastest(bytemuck::cast(key)))
    }

    /// A hasher as [`random`](Self::random) makes one, with a given key: the same only on machines that both have, or
    /// both lack, instructions for AES.
    #[must_use]
    pub fn fastest(key: [u64; 4]) -> Self {
        let keys: [[u8; 16]; 2] = bytemuck::cast(key);
        match keys.map(Aes128::new) {
            [Some(v4), Some(v6)] => Self(Function::Aes { v4, v6 }),
            _ => Self::new([key[0], key[1]]),
        }
    }

    /// The hash of a flow.
    #[inline(always)]
    #[must_use]
    pub fn hash(&self, flow: &FlowKey) -> FlowHash {
        match flow {
            FlowKey::V4(flow) => self.hash_v4(flow),
            FlowKey::V6(flow) => self.hash_v6(flow),
        }
    }

    /// The hash of an IPv4 flow.
    #[inline(always)]
    #[must_use]
    pub fn hash_v4(&self, flow: &FlowKey4) -> FlowHash {
        let [addresses, rest] = flow.words();
        match &self.0 {
            Function::Aes { v4, .. } => FlowHash::of(v4.encrypt([addresses, rest])),
            Function::SipHash(key) => siphash(*key, &[addresses, last_block::<13>(rest)]),
        }
    }

    /// The hash of an IPv6 flow.
    #[inline]
    #[must_use]
    pub fn hash_v6(&self, flow: &FlowKey6) -> FlowHash {
        let [a, b, c, d, rest] = flow.words();
        match &self.0 {
            Function::Aes { v6, .. } => {
                let [source, other] = v6.encrypt([a, b]);
                let [both, more] = v6.encrypt([source ^ c, other ^ d]);
                FlowHash::of(v6.encrypt([both ^ rest, more]))
            }
            Function::SipHash(key) => siphash(*key, &[a, b, c, d, last_block::<37>(rest)]),
        }
    }
}

impl FlowHash {
    #[inline(always)]
    const fn of([index, tag]: [u64; 2]) -> Self {
        Self { index, tag }
    }
}

/// A function of its own, so that the other one's callers stay small.
#[inline(never)]
fn siphash(key: [u64; 2], blocks: &[u64]) -> FlowHash {
    FlowHash::of(hash128::<1, 3>(key, blocks))
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
        for hasher in [FlowHasher::new([7, 9]), FlowHasher::fastest([7, 9, 11, 13])] {
            let hashes: HashSet<FlowHash> = flows.iter().map(|flow| hasher.hash(flow)).collect();
            assert_eq!(hashes.len(), flows.len());
            let other = FlowHasher::new([7, 10]);
            assert!(flows.iter().all(|flow| hasher.hash(flow) != other.hash(flow)));
        }
    }

    #[test]
    fn random_keys_differ() {
        let flow = FlowKey::new([1, 1, 1, 1].into(), [2, 2, 2, 2].into(), Protocol::TCP, 1, 2).unwrap();
        assert_ne!(FlowHasher::random().unwrap().hash(&flow), FlowHasher::random().unwrap().hash(&flow));
    }
}
