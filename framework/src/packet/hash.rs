//! The hash by which packets are spread: over table buckets, workers and reals.

/// The secret from which flow hashes are derived.
///
/// Who knows it can make flows that collide, so it should be random. Machines that must choose alike (balancers that
/// share a VIP) use the same seed: for one seed, the hash of a flow is the same on every machine and in every run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HashSeed(pub u64);

// Odd numbers with about as many ones as zeros, and no pattern: the fractional parts of the square roots of 2, 3, 5, 7.
const K0: u64 = 0x6a09_e667_f3bc_c909;
const K1: u64 = 0xbb67_ae85_84ca_a73b;
const K2: u64 = 0x3c6e_f372_fe94_f82b;
const K3: u64 = 0xa54f_f53a_5f1d_36f1;

impl HashSeed {
    /// The hash of an IPv4 flow: addresses in one word, ports and protocol in the other.
    #[inline]
    pub(super) const fn hash_v4(self, words: [u64; 2]) -> u64 {
        let [addresses, rest] = words;
        mix(mix(addresses ^ self.0 ^ K0, rest ^ self.0.rotate_left(32) ^ K1) ^ self.0 ^ K2, K3)
    }

    /// The hash of an IPv6 flow: four words of addresses, one of ports and protocol.
    #[inline]
    pub(super) const fn hash_v6(self, words: [u64; 5]) -> u64 {
        let [source_high, source_low, destination_high, destination_low, rest] = words;
        let source = mix(source_high ^ self.0 ^ K0, source_low ^ self.0.rotate_left(32) ^ K1);
        let destination = mix(destination_high ^ self.0 ^ K2, destination_low ^ self.0.rotate_left(16) ^ K3);
        // The rotation tells source from destination.
        mix(
            mix(source ^ destination.rotate_left(24) ^ K0, rest ^ self.0.rotate_left(32) ^ K1) ^ self.0 ^ K2,
            K3,
        )
    }
}

/// A 64 by 64 bit product, its halves folded together: each bit of the result depends on all bits of both.
#[inline]
const fn mix(a: u64, b: u64) -> u64 {
    let product = a as u128 * b as u128;
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Chi-squared over 1024 buckets, from the low and from the high bits: within six standard deviations of even.
    fn assert_even(hashes: impl Iterator<Item = u64> + Clone, what: &str) {
        const BUCKETS: usize = 1024;
        for shift in [0, 20, 54] {
            let mut counts = [0u32; BUCKETS];
            let mut total = 0.0;
            for hash in hashes.clone() {
                counts[(hash >> shift) as usize % BUCKETS] += 1;
                total += 1.0;
            }
            let expected = total / BUCKETS as f64;
            let chi: f64 = counts.iter().map(|&count| (f64::from(count) - expected).powi(2) / expected).sum();
            let freedom = (BUCKETS - 1) as f64;
            assert!(
                chi < freedom + 6.0 * (2.0 * freedom).sqrt(),
                "{what}, bits from {shift}: {chi} of {freedom}"
            );
        }
    }

    #[test]
    fn patterns_of_real_traffic_spread_evenly() {
        let seed = HashSeed(0x0123_4567_89ab_cdef);
        let protocol = 6u64 << 32;
        for seed in [HashSeed::default(), seed] {
            assert_even(
                (0..65536).map(|port: u64| seed.hash_v4([0x0a00_0001, protocol | port])),
                "ports, low half",
            );
            assert_even(
                (0..65536).map(|port: u64| seed.hash_v4([0x0a00_0001, protocol | port << 16])),
                "ports, high half",
            );
            assert_even((0..65536).map(|host: u64| seed.hash_v4([host << 16, protocol])), "sources");
            assert_even((0..65536).map(|host: u64| seed.hash_v4([host << 48, protocol])), "destinations");
            let both = |n: u64| seed.hash_v4([(n % 256) << 24, protocol | (n / 256)]);
            assert_even((0..65536).map(both), "sources and ports");
            for word in 0..5 {
                let one = move |n: u64| {
                    let mut words = [1, 2, 3, 4, protocol];
                    words[word] ^= n << 16;
                    seed.hash_v6(words)
                };
                assert_even((0..65536).map(one), "one IPv6 word");
            }
        }
    }

    #[test]
    fn one_changed_bit_changes_half_of_the_hash() {
        let seed = HashSeed(99);
        let base = [0x0123_4567_89ab_cdef, 0x0000_0006_1f90_c350];
        let mut flipped = 0;
        for bit in 0..128 {
            let mut words = base;
            words[bit / 64] ^= 1 << (bit % 64);
            flipped += (seed.hash_v4(words) ^ seed.hash_v4(base)).count_ones();
        }
        let mean = f64::from(flipped) / 128.0;
        assert!((28.0..36.0).contains(&mean), "{mean} of 64 bits on average");
    }

    #[test]
    fn seed_and_direction_count() {
        let words = [1, 2, 3, 4, 5];
        assert_ne!(HashSeed(1).hash_v6(words), HashSeed(2).hash_v6(words));
        assert_ne!(HashSeed(1).hash_v6(words), HashSeed(1).hash_v6([3, 4, 1, 2, 5]));
        assert_ne!(HashSeed(1).hash_v4([1, 2]), HashSeed(2).hash_v4([1, 2]));
    }
}
