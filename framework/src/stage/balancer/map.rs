//! A hash map that is made whole, looked into for each packet and never changed.

/// Open addressing, at most a quarter full: keys that are there take one probe mostly, and keys that are not,
/// which anyone may send, end at an empty place soon.
#[derive(Debug)]
pub(super) struct Map<K> {
    places: Box<[Option<(K, u32)>]>,
    shift: u32,
}

/// What a map is looked into by.
pub(super) trait Key: Copy + Eq {
    /// The key's bits, mixed into the upper ones of one word.
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
    /// The map with these entries. Of several with one key the first counts.
    pub(super) fn new(entries: impl IntoIterator<Item = (K, u32)>) -> Self {
        let entries: Vec<_> = entries.into_iter().collect();
        let size = (entries.len() * 4).next_power_of_two().max(4);
        let mut map = Self { places: vec![None; size].into(), shift: 64 - size.trailing_zeros() };
        for (key, value) in entries {
            let mut place = map.first(key);
            while map.places[place].is_some_and(|(there, _)| there != key) {
                place = (place + 1) & (size - 1);
            }
            map.places[place].get_or_insert((key, value));
        }
        map
    }

    #[inline(always)]
    fn first(&self, key: K) -> usize {
        (key.mix() >> self.shift) as usize
    }

    #[inline(always)]
    pub(super) fn lookup(&self, key: K) -> Option<u32> {
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

    proptest! {
        #[test]
        fn finds_what_a_hash_map_finds(entries in prop::collection::vec((0..200_u64, any::<u32>()), 0..100)) {
            let mut model = HashMap::new();
            for (key, value) in &entries {
                model.entry(*key).or_insert(*value);
            }
            let small = Map::new(entries.iter().copied());
            let large = Map::new(entries.iter().map(|(key, value)| ((u128::from(*key) << 100, 7), *value)));
            for key in 0..200 {
                prop_assert_eq!(small.lookup(key), model.get(&key).copied());
                prop_assert_eq!(large.lookup((u128::from(key) << 100, 7)), model.get(&key).copied());
            }
        }
    }
}
