//! A huge-page table that is indexed without a branch.

use std::ops::{Deref, DerefMut};

use bytemuck::Zeroable;

use super::pages::{HugeTable, PageKind};

/// A table whose length is a power of two, and in which an index beyond the end wraps around: reading needs no
/// bounds check, whatever the index.
pub(crate) struct MaskedTable<T> {
    table: HugeTable<T>,
    /// The table's length less one, all ones in binary.
    mask: usize,
}

impl<T: Zeroable + Copy> MaskedTable<T> {
    /// A table of `len` zeroed entries, rounded up to a power of two; one at least.
    pub(crate) fn new(len: usize) -> Self {
        let len = len.max(1).next_power_of_two();
        Self { table: HugeTable::new(len), mask: len - 1 }
    }

    pub(crate) fn page_kind(&self) -> PageKind {
        self.table.page_kind()
    }

    /// The entry at `index`, modulo the table's length.
    #[inline(always)]
    pub(crate) fn at(&self, index: usize) -> &T {
        // SAFETY: `mask` is the table's length less one and never changes; what is masked with it is below the length.
        unsafe { self.table.get_unchecked(index & self.mask) }
    }
}

impl<T> MaskedTable<T> {
    /// The entry at `index`, modulo the table's length.
    #[inline(always)]
    pub(crate) fn at_mut(&mut self, index: usize) -> &mut T {
        let index = index & self.mask;
        // SAFETY: as in `at`.
        unsafe { self.table.get_unchecked_mut(index) }
    }
}

impl<T> Deref for MaskedTable<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.table
    }
}

impl<T> DerefMut for MaskedTable<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_beyond_the_end_wraps_around() {
        for (asked, len) in [(0, 1), (1, 1), (2, 2), (3, 4), (256, 256), (257, 512)] {
            let mut table = MaskedTable::<u32>::new(asked);
            assert_eq!(table.len(), len);
            for (index, entry) in table.iter_mut().enumerate() {
                *entry = index as u32;
            }
            for index in [0, 1, len - 1, len, len + 1, usize::MAX] {
                assert_eq!(*table.at(index) as usize, index % len);
            }
        }
    }
}
