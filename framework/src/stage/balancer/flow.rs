//! What the balancer knows of a flow: a keyed 128-bit hash of its addresses, ports and protocol.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::siphash;

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

/// A flow: who speaks to whom. Addresses and ports in the direction client to VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// The client's address and port.
    pub source: (IpAddr, u16),
    /// The VIP's address and port.
    pub destination: (IpAddr, u16),
    /// The IP protocol number: 6 for TCP, 17 for UDP.
    pub protocol: u8,
}

/// Hashes flows under a key: SipHash-1-3 with 128 bits of output, over the flow's 13 (IPv4) or 37 (IPv6) bytes.
///
/// With a secret, random key nobody outside can choose flows that meet in one bucket. Balancers that share
/// a VIP (by ECMP, say) and are to choose the same real for a flow need the same key: hence two hashers in a
/// balancer, a secret one for its connection table and a common one for [`maglev`](super::maglev).
///
/// ```
/// use afx::stage::balancer::flow::FlowHasher;
///
/// let hasher = FlowHasher::new([1, 2]);
/// let flow = hasher.v4("192.0.2.1".parse()?, 40_000, "198.51.100.1".parse()?, 443, 6);
/// assert_ne!(flow, hasher.v4("192.0.2.1".parse()?, 40_001, "198.51.100.1".parse()?, 443, 6));
/// # Ok::<(), std::net::AddrParseError>(())
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
    /// Whatever `/dev/urandom` answers when it cannot be read.
    pub fn random() -> std::io::Result<Self> {
        use std::io::Read as _;
        let mut bytes = [0; 16];
        std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        Ok(Self::new(bytemuck::cast(bytes)))
    }

    /// The hash of an IPv4 flow.
    #[inline]
    #[must_use]
    pub fn v4(
        &self,
        source: Ipv4Addr,
        sport: u16,
        destination: Ipv4Addr,
        dport: u16,
        protocol: u8,
    ) -> FlowHash {
        let addresses = u64::from(source.to_bits()) << 32 | u64::from(destination.to_bits());
        self.finish(&[addresses, last_block::<13>(sport, dport, protocol)])
    }

    /// The hash of an IPv6 flow.
    #[inline]
    #[must_use]
    pub fn v6(
        &self,
        source: Ipv6Addr,
        sport: u16,
        destination: Ipv6Addr,
        dport: u16,
        protocol: u8,
    ) -> FlowHash {
        let (source, destination) = (source.to_bits(), destination.to_bits());
        self.finish(&[
            (source >> 64) as u64,
            source as u64,
            (destination >> 64) as u64,
            destination as u64,
            last_block::<37>(sport, dport, protocol),
        ])
    }

    /// The hash of a flow of either family. `None` when its two addresses are of different families.
    #[must_use]
    pub fn of(&self, flow: &FlowKey) -> Option<FlowHash> {
        let ((source, sport), (destination, dport)) = (flow.source, flow.destination);
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                Some(self.v4(source, sport, destination, dport, flow.protocol))
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                Some(self.v6(source, sport, destination, dport, flow.protocol))
            }
            _ => None,
        }
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

/// SipHash's last block: five bytes of message, and the whole message's length in the top byte, so that no
/// IPv4 flow hashes as an IPv6 one.
#[inline(always)]
fn last_block<const LENGTH: u64>(sport: u16, dport: u16, protocol: u8) -> u64 {
    LENGTH << 56 | u64::from(protocol) << 32 | u64::from(sport) << 16 | u64::from(dport)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_field_matters() {
        let hasher = FlowHasher::new([7, 9]);
        let flow = |a: &str, ap, b: &str, bp, protocol| FlowKey {
            source: (a.parse().unwrap(), ap),
            destination: (b.parse().unwrap(), bp),
            protocol,
        };
        let flows = [
            flow("192.0.2.1", 1, "192.0.2.2", 2, 6),
            flow("192.0.2.2", 1, "192.0.2.1", 2, 6),
            flow("192.0.2.1", 2, "192.0.2.2", 1, 6),
            flow("192.0.2.1", 1, "192.0.2.2", 2, 17),
            flow("2001:db8::1", 1, "2001:db8::2", 2, 6),
            flow("2001:db8::2", 1, "2001:db8::1", 2, 6),
            flow("2001:db8::1", 2, "2001:db8::2", 1, 6),
            flow("2001:db8::1", 1, "2001:db8::2", 2, 17),
            flow("2001:db8:1::1", 1, "2001:db8::2", 2, 6),
        ];
        let hashes: HashSet<FlowHash> = flows.iter().map(|flow| hasher.of(flow).unwrap()).collect();
        assert_eq!(hashes.len(), flows.len());
        let other = FlowHasher::new([7, 10]);
        assert!(flows.iter().all(|flow| hasher.of(flow) != other.of(flow)));
    }

    #[test]
    fn a_flow_between_families_has_no_hash() {
        let flow = FlowKey {
            source: ("192.0.2.1".parse().unwrap(), 1),
            destination: ("2001:db8::1".parse().unwrap(), 2),
            protocol: 6,
        };
        assert_eq!(FlowHasher::new([0, 0]).of(&flow), None);
    }

    #[test]
    fn random_keys_differ() {
        let flow = |hasher: FlowHasher| hasher.v4(Ipv4Addr::LOCALHOST, 1, Ipv4Addr::LOCALHOST, 2, 6);
        assert_ne!(flow(FlowHasher::random().unwrap()), flow(FlowHasher::random().unwrap()));
    }
}
