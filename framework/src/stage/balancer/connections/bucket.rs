//! What lies in one cache line of the table.

use super::Meta;
use crate::mem::equal_lanes;

/// Entries of a bucket.
pub(super) const LANES: usize = 4;

/// The highest number of entries that a bucket can count. A bucket that has ever had as many is always looked for in
/// full.
pub(super) const MOST_AWAY: usize = (1 << (LANES as u32 * Meta::COUNT_BITS)) - 1;

/// Four entries in one cache line. A lane is empty when its tag is 0.
#[derive(Clone, Copy, bytemuck::Zeroable)]
#[repr(C, align(64))]
pub(super) struct Bucket {
    pub(super) tags: [u64; LANES],
    pub(super) reals: [u32; LANES],
    pub(super) metas: [Meta; LANES],
}

const _: () = assert!(size_of::<Bucket>() == 64);

impl Bucket {
    #[inline(always)]
    pub(super) fn find(&self, tag: u64) -> Option<usize> {
        // All four compared without a branch: it is open which one matches, and whether any does.
        let matches = equal_lanes(&self.tags, tag);
        (matches != 0).then(|| matches.trailing_zeros() as usize % LANES)
    }

    /// Whether any entry of this bucket's stands in its second one.
    #[inline(always)]
    pub(super) fn has_away(&self) -> bool {
        self.metas.iter().any(|meta| meta.has(Meta::COUNT))
    }

    /// How many of them do: a number of which each lane holds some bits.
    pub(super) fn away(&self) -> usize {
        self.metas.iter().rev().fold(0, |number, meta| number << Meta::COUNT_BITS | meta.count_bits())
    }

    /// Counts one that leaves for its second bucket, or one that is there no longer. A count of `MOST_AWAY` stays: it
    /// is not known how many more there are.
    pub(super) fn count_away(&mut self, leaves: bool) {
        let away = match self.away() {
            MOST_AWAY => MOST_AWAY,
            away if leaves => away + 1,
            away => away - 1,
        };
        for (lane, meta) in (0..).zip(&mut self.metas) {
            meta.set_count_bits(away >> (lane * Meta::COUNT_BITS));
        }
    }
}
