//! Maglev consistent hashing (Eisenbud et al., NSDI 2016, section 3.4), weighted.
//!
//! Every real has an order of preference over all slots of a table of prime size: `(offset + j * skip) mod
//! size`. The reals take turns, each claiming the first slot of its order that is still free. A lookup is one
//! read. When a real goes, its slots are shared out and few others move, so that even a balancer that has
//! not seen a flow before nearly always sends it where the others do.
//!
//! Weights follow the cumulative scheme: in each round a real gains its weight, and claims a slot whenever
//! it has gained as much as the heaviest real gains in a round. So the turns of a real are spread evenly,
//! its `j`-th falls due in round `ceil(j * heaviest / weight)`, and a queue ordered by that round fills the
//! table in `O(slots log reals)` however uneven the weights. No real gets more than its exact share rounded up.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::IpAddr;

use super::flow::FlowHash;
use super::siphash;

/// The number of slots in a [`Table`]: a prime, so that every `skip` visits every slot.
///
/// A hundred slots for each real keep shares within one per cent of each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableSize(u32);

impl TableSize {
    /// 65537: the paper's own choice, right for up to some 600 reals.
    pub const DEFAULT: Self = Self(65_537);

    /// The largest size: 8388593, 16 MiB of table.
    pub const MAX: Self = Self(8_388_593);

    /// A table of that many slots.
    ///
    /// # Errors
    /// [`TableSizeError`] when `slots` is no prime from 2 to [`TableSize::MAX`].
    pub fn new(slots: u32) -> Result<Self, TableSizeError> {
        if slots > Self::MAX.0 {
            return Err(TableSizeError::TooLarge { slots });
        }
        if is_prime(slots) {
            return Ok(Self(slots));
        }
        let below = (2..slots).rev().find(|&n| is_prime(n));
        let above = (slots..=Self::MAX.0).find(|&n| is_prime(n)).expect("the maximum itself is prime");
        Err(TableSizeError::NotPrime { slots, below, above })
    }

    /// The number of slots.
    #[must_use]
    pub const fn slots(self) -> u32 {
        self.0
    }
}

impl Default for TableSize {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Why a number is no table size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TableSizeError {
    /// The size has divisors.
    #[error("a table of {slots} slots is not possible, since {slots} is not prime: the nearest {}", nearest(*.below, *.above))]
    NotPrime {
        /// The size asked for.
        slots: u32,
        /// The largest prime below it, if there is one.
        below: Option<u32>,
        /// The smallest prime above it.
        above: u32,
    },
    /// The size is above [`TableSize::MAX`].
    #[error("a table of {slots} slots is too large: the largest has {}", TableSize::MAX.0)]
    TooLarge {
        /// The size asked for.
        slots: u32,
    },
}

fn nearest(below: Option<u32>, above: u32) -> String {
    match below {
        Some(below) => format!("primes are {below} and {above}"),
        None => format!("prime is {above}"),
    }
}

fn is_prime(n: u32) -> bool {
    n >= 2 && (2..).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d))
}

/// What decides a real's place in the table: two hashes of its identity, and its weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preference {
    /// Its first slot is `offset mod slots`.
    pub offset: u64,
    /// The distance from each slot to its next is `skip mod (slots - 1) + 1`.
    pub skip: u64,
    /// Its share relative to the others; 0 for no slots: the real drains.
    pub weight: u32,
}

impl Preference {
    /// The preference of a real known by its address. Balancers with the same `seed` agree on it.
    #[must_use]
    pub fn of_address(seed: [u64; 2], address: IpAddr, weight: u32) -> Self {
        let hash = |purpose: u8| {
            let mut message = [0; 17];
            message[0] = purpose;
            let length = match address {
                IpAddr::V4(v4) => {
                    message[1..5].copy_from_slice(&v4.octets());
                    5
                }
                IpAddr::V6(v6) => {
                    message[1..].copy_from_slice(&v6.octets());
                    17
                }
            };
            siphash::hash64::<2, 4>(seed, &message[..length])
        };
        Self { offset: hash(0), skip: hash(1), weight }
    }
}

/// More reals than a table can tell apart.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reals} reals in a table of {slots} slots: at most {} can have a place", (*.slots).min(MAX_REALS as u32))]
pub struct TooManyReals {
    /// How many there are, those of weight 0 included.
    pub reals: usize,
    /// The table's size.
    pub slots: u32,
}

/// Reals are stored as `u16`: the default table is then 128 KiB and stays in the second-level cache.
const MAX_REALS: usize = 1 << 16;

/// A filled lookup table: flow hash to the index of a real.
///
/// ```
/// use afx::packet::{FlowKey, Protocol};
/// use afx::stage::balancer::{flow::FlowHasher, maglev::{Table, TableSize}};
///
/// let reals = [("10.0.0.1".parse()?, 100), ("10.0.0.2".parse()?, 100), ("10.0.0.3".parse()?, 0)];
/// let table = Table::of_addresses(TableSize::DEFAULT, [1, 2], &reals)?;
/// let key = FlowKey::new([192, 0, 2, 1].into(), [198, 51, 100, 1].into(), Protocol::TCP, 40_000, 443);
/// let flow = FlowHasher::new([3, 4]).hash(&key.expect("both are IPv4"));
/// assert!(table.lookup(flow).is_some_and(|real| real < 2));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Empty when no real has a weight.
    slots: Box<[u16]>,
}

impl Table {
    /// The table of reals known by address and weight. Its entries are indices into `reals`.
    ///
    /// The order of `reals` does not matter: they take their turns in the order of their addresses, so that
    /// balancers which learnt of them in different order still agree.
    ///
    /// # Errors
    /// [`TooManyReals`] when there are more than slots, or than 65536.
    pub fn of_addresses(
        size: TableSize,
        seed: [u64; 2],
        reals: &[(IpAddr, u32)],
    ) -> Result<Self, TooManyReals> {
        let mut order: Vec<usize> = (0..reals.len()).collect();
        order.sort_by_key(|&real| reals[real].0);
        let preferences: Vec<Preference> =
            order.iter().map(|&real| Preference::of_address(seed, reals[real].0, reals[real].1)).collect();
        let mut table = Self::fill(size, &preferences)?;
        for slot in &mut table.slots {
            *slot = order[usize::from(*slot)] as u16;
        }
        Ok(table)
    }

    /// The table that results when reals with these preferences take turns in this order. Its entries are
    /// indices into `preferences`.
    ///
    /// # Errors
    /// [`TooManyReals`] when there are more than slots, or than 65536.
    pub fn fill(size: TableSize, preferences: &[Preference]) -> Result<Self, TooManyReals> {
        if preferences.len() > MAX_REALS.min(size.0 as usize) {
            return Err(TooManyReals { reals: preferences.len(), slots: size.0 });
        }
        let slots = u64::from(size.0);
        let total: u64 = preferences.iter().map(|p| u64::from(p.weight)).sum();
        let heaviest = preferences.iter().map(|p| u64::from(p.weight)).max().unwrap_or(0);
        if total == 0 {
            return Ok(Self { slots: Box::default() });
        }

        let mut claimants: Vec<Claimant> =
            preferences.iter().map(|p| Claimant::new(size, p, total)).collect();
        let mut turns: BinaryHeap<Reverse<(u64, u16)>> = (0..)
            .zip(preferences)
            .filter(|(_, p)| p.weight > 0)
            .map(|(real, p)| Reverse((heaviest.div_ceil(u64::from(p.weight)), real)))
            .collect();

        let mut table: Vec<Option<u16>> = vec![None; size.0 as usize];
        let mut free = slots;
        while free > 0 {
            let mut turn =
                turns.peek_mut().expect("the limits, each rounded up, sum to the table's size or more");
            let Reverse((_, real)) = *turn;
            let claimant = &mut claimants[usize::from(real)];
            if claimant.claimed == claimant.limit {
                std::collections::binary_heap::PeekMut::pop(turn);
                continue;
            }
            while table[claimant.slot as usize].is_some() {
                claimant.advance(slots);
            }
            table[claimant.slot as usize] = Some(real);
            free -= 1;
            claimant.claimed += 1;
            let weight = u64::from(preferences[usize::from(real)].weight);
            *turn = Reverse((((claimant.claimed + 1) * heaviest).div_ceil(weight), real));
        }
        Ok(Self { slots: table.into_iter().map(|real| real.expect("no slot is free any more")).collect() })
    }

    /// The index of the real that serves new flows with this hash. `None` when no real has a weight.
    #[inline]
    #[must_use]
    pub fn lookup(&self, flow: FlowHash) -> Option<usize> {
        // Maps the hash evenly onto the slots without a division.
        let slot = (u128::from(flow.index) * self.slots.len() as u128) >> 64;
        self.slots.get(slot as usize).map(|&real| usize::from(real))
    }

    /// All slots in order: which real each belongs to. Empty when no real has a weight.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = usize> + '_ {
        self.slots.iter().map(|&real| usize::from(real))
    }
}

/// A real on its way through its order of preference.
struct Claimant {
    slot: u64,
    skip: u64,
    claimed: u64,
    /// Its exact share, rounded up.
    limit: u64,
}

impl Claimant {
    fn new(size: TableSize, preference: &Preference, total_weight: u64) -> Self {
        let slots = u64::from(size.0);
        Self {
            slot: preference.offset % slots,
            skip: preference.skip % (slots - 1) + 1,
            claimed: 0,
            limit: (slots * u64::from(preference.weight)).div_ceil(total_weight),
        }
    }

    fn advance(&mut self, slots: u64) {
        self.slot += self.skip;
        if self.slot >= slots {
            self.slot -= slots;
        }
    }
}

#[cfg(test)]
mod tests;
