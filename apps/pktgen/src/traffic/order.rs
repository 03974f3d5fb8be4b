//! In which order flows take turns, and sizes: worked out beforehand, then walked again and again.

use std::fmt;
use std::str::FromStr;

use afx_redirect::traffic::Packet;

use crate::units::{FCS, Sizes};

use super::SpecError;

/// In which order flows take turns.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Order {
    /// One after the other, from the first to the last.
    Walk,
    /// Each as often as another, at random.
    Random,
    /// At random, the flow of rank k in proportion to 1/k^s: with 1, a few have most packets, as in the Internet.
    Zipf(f64),
}

/// Places that a random order has at least, and at most: then it begins anew.
const RANDOM: std::ops::RangeInclusive<usize> = 1 << 16..=1 << 22;

/// Places that an order has at least where sizes differ.
const MIXED: usize = 1 << 14;

impl Order {
    /// An order of so many flows, with sizes in it.
    pub(super) fn packets(self, flows: u32, sizes: &Sizes, random: &mut fastrand::Rng) -> Vec<Packet> {
        let count = flows as usize;
        let mut lengths = Lengths::new(sizes);
        let places = match self {
            Self::Walk if matches!(sizes, Sizes::Fixed(_)) => count,
            // Whole rounds of flows and, where that is not too long, of shares.
            Self::Walk => {
                let round = lcm(count, lengths.deck.len().max(1));
                let round = if round <= *RANDOM.end() { round } else { count };
                round * MIXED.div_ceil(round)
            }
            Self::Random | Self::Zipf(_) => (4 * count).clamp(*RANDOM.start(), *RANDOM.end()),
        };
        let zipf = if let Self::Zipf(exponent) = self { cumulated(count, exponent) } else { Vec::new() };
        let flow = |place: usize, random: &mut fastrand::Rng| match self {
            Self::Walk => (place % count) as u32,
            Self::Random => random.u32(..flows),
            Self::Zipf(_) => {
                let at = random.f64() * zipf.last().copied().unwrap_or(0.0);
                (zipf.partition_point(|sum| *sum <= at) as u32).min(flows - 1)
            }
        };
        (0..places)
            .map(|place| Packet {
                flow: flow(place, random),
                length: lengths.next(random) - FCS as u16,
                padding: 0,
            })
            .collect()
    }
}

/// The sums of 1/k^s from the first flow up to each.
fn cumulated(flows: usize, exponent: f64) -> Vec<f64> {
    let mut sum = 0.0;
    let weight = |rank: usize| (rank as f64).powf(-exponent);
    (1..=flows)
        .map(|rank| {
            sum += weight(rank);
            sum
        })
        .collect()
}

fn lcm(a: usize, b: usize) -> usize {
    let (mut x, mut y) = (a, b);
    while y != 0 {
        (x, y) = (y, x % y);
    }
    a / x * b
}

/// Frame sizes one after the other.
struct Lengths<'s> {
    sizes: &'s Sizes,
    /// As many cards as all shares together: shuffled when all were taken, so that shares are exact.
    deck: Vec<u16>,
    taken: usize,
}

impl<'s> Lengths<'s> {
    fn new(sizes: &'s Sizes) -> Self {
        let deck = match sizes {
            Sizes::Shares(shares) => {
                shares.iter().flat_map(|(size, share)| std::iter::repeat_n(*size, *share as usize)).collect()
            }
            Sizes::Fixed(_) | Sizes::Between(..) => Vec::new(),
        };
        Self { sizes, taken: deck.len(), deck }
    }

    fn next(&mut self, random: &mut fastrand::Rng) -> u16 {
        match self.sizes {
            Sizes::Fixed(size) => *size,
            Sizes::Between(low, high) => random.u16(low..=high),
            Sizes::Shares(_) => {
                if self.taken == self.deck.len() {
                    random.shuffle(&mut self.deck);
                    self.taken = 0;
                }
                self.taken += 1;
                self.deck[self.taken - 1]
            }
        }
    }
}

impl FromStr for Order {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let wrong = || SpecError("not an order: say `walk`, `random`, or `zipf:1.0`".into());
        match text.trim() {
            "walk" => Ok(Self::Walk),
            "random" => Ok(Self::Random),
            text => {
                let exponent: f64 = text
                    .strip_prefix("zipf:")
                    .and_then(|exponent| exponent.parse().ok())
                    .ok_or_else(wrong)?;
                if !(0.0..=10.0).contains(&exponent) {
                    return Err(SpecError(format!("an exponent of {exponent}: 0 to 10, and 1 is usual")));
                }
                Ok(Self::Zipf(exponent))
            }
        }
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Walk => f.write_str("walk"),
            Self::Random => f.write_str("random"),
            Self::Zipf(exponent) => write!(f, "zipf:{exponent}"),
        }
    }
}
