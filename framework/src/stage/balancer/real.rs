//! Identities of reals, as they stand in tables and configuration snapshots.

use std::collections::VecDeque;

/// A real's identity: an index below [`RealId::LIMIT`], for arrays with an element per real, and a generation.
///
/// An identity that is over differs from the next one of the same index, so that a reference left behind
/// is recognised rather than followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RealId(u32);

impl RealId {
    /// One more than the largest index: how many reals there can be at a time.
    pub const LIMIT: usize = 1 << 16;

    /// The identity of that index and generation. [`RealIds`] hands them out without repetition.
    #[must_use]
    pub const fn new(index: u16, generation: u16) -> Self {
        Self((generation as u32) << 16 | index as u32)
    }

    /// The place of this real in arrays, below [`RealId::LIMIT`].
    #[inline]
    #[must_use]
    pub const fn index(self) -> u16 {
        self.0 as u16
    }

    /// How many identities of this index were over before this one, modulo 65536.
    #[must_use]
    pub const fn generation(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// The identity as one number.
    #[must_use]
    pub const fn to_bits(self) -> u32 {
        self.0
    }

    /// The inverse of [`RealId::to_bits`].
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }
}

/// Hands out identities of reals; for the control side.
///
/// An index comes back into use only once it was released, and then last of all that are free.
///
/// ```
/// use afx::stage::balancer::real::RealIds;
///
/// let mut ids = RealIds::new();
/// let first = ids.allocate().expect("none is taken yet");
/// ids.release(first);
/// assert!(ids.allocate() != Some(first));
/// ```
#[derive(Debug, Clone, Default)]
pub struct RealIds {
    /// Of each index ever used: the generation of its present or next identity.
    generations: Vec<u16>,
    free: VecDeque<u16>,
}

impl RealIds {
    /// No identity taken.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An identity that no other real has. `None` when [`RealId::LIMIT`] are taken.
    pub fn allocate(&mut self) -> Option<RealId> {
        // A fresh index while there are any: it delays the reuse of released ones.
        if self.generations.len() < RealId::LIMIT {
            self.generations.push(0);
            return Some(RealId::new((self.generations.len() - 1) as u16, 0));
        }
        let index = self.free.pop_front()?;
        Some(RealId::new(index, self.generations[usize::from(index)]))
    }

    /// Gives an identity back. To be called once no worker holds it any more: when each has picked up a
    /// configuration without this real, and has no connection to it left.
    ///
    /// # Panics
    /// If the identity is not one in use: it would be handed out twice.
    pub fn release(&mut self, id: RealId) {
        let generation = self.generations.get_mut(usize::from(id.index()));
        let generation = generation.filter(|generation| **generation == id.generation());
        let generation = generation.expect("an identity that was allocated and not released yet");
        *generation = generation.wrapping_add(1);
        self.free.push_back(id.index());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn identities_are_unique_and_run_out_at_the_limit() {
        let mut ids = RealIds::new();
        let all: HashSet<RealId> = std::iter::from_fn(|| ids.allocate()).collect();
        assert_eq!(all.len(), RealId::LIMIT);
        assert!(all.iter().all(|&id| RealId::from_bits(id.to_bits()) == id));

        let (a, b) = (RealId::new(77, 0), RealId::new(5, 0));
        ids.release(a);
        ids.release(b);
        assert_eq!(ids.allocate(), Some(RealId::new(77, 1)));
        assert_eq!(ids.allocate(), Some(RealId::new(5, 1)));
        assert_eq!(ids.allocate(), None);
    }

    #[test]
    #[should_panic(expected = "not released yet")]
    fn an_identity_cannot_be_released_twice() {
        let mut ids = RealIds::new();
        let id = ids.allocate().unwrap();
        ids.release(id);
        ids.release(id);
    }
}
