//! The first level: a cell for each network of 24 bits, kept as runs of equal ones.
//!
//! Neighbours are mostly alike, so a block of 32 cells is a bit for each cell that differs from the one before it, and
//! a place among the cells that are written out, of which a block has one for each run. What would be 64 MiB of
//! cells, of which every look-up reads a random one from memory, is 12 MiB with the global routing table, which a
//! processor's last cache holds. The bits with a base to count from are those of Degermark et al., *Small forwarding
//! tables for fast routing lookups*, SIGCOMM 1997, and of Asai and Ohara, *Poptrie*, SIGCOMM 2015.

use std::ops::RangeInclusive;

use bytemuck::Zeroable;

use super::cells::FIRST_BITS;
use crate::mem::{HugeTable, MaskedTable, PageKind, prefetch_read};

/// Cells of a block, and how many bits their number has.
const BLOCK: usize = 1 << BLOCK_BITS;
const BLOCK_BITS: u8 = 5;

/// Cells there is room for in an empty table.
const LEAST: usize = 1 << 14;

/// 2^24 cells, at first all zero.
///
/// A run that was written is never written again: blocks may share it. Each change of a block writes its runs anew,
/// at the end; when there is no more room, those still in use move to a table in which they take half of it at most.
pub(super) struct Runs {
    blocks: HugeTable<Block>,
    /// The cell of each run. The first is zero, and what empty blocks read.
    cells: MaskedTable<u32>,
    used: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Zeroable)]
#[repr(C)]
struct Block {
    /// Bit `i` is set if cell `i` differs from the one before it. Never bit 0.
    changes: u32,
    /// The place of the first run.
    first: u32,
}

impl Block {
    /// Where the cell of that index, of which the lower bits count, is written.
    #[inline(always)]
    fn place(self, index: usize) -> usize {
        let up_to = self.changes << (BLOCK - 1 - index % BLOCK);
        (self.first + up_to.count_ones()) as usize
    }

    fn cells(self, written: &MaskedTable<u32>) -> [u32; BLOCK] {
        std::array::from_fn(|index| *written.at(self.place(index)))
    }
}

impl Runs {
    pub(super) fn new() -> Self {
        Self::with_room(LEAST)
    }

    fn with_room(cells: usize) -> Self {
        Self {
            blocks: HugeTable::new(1 << (FIRST_BITS - BLOCK_BITS)),
            cells: MaskedTable::new(cells.max(LEAST)),
            used: 1,
        }
    }

    /// The cell of an index below 2^24.
    #[inline(always)]
    pub(super) fn get(&self, index: usize) -> u32 {
        let (blocks, cells) = self.levels();
        *cells.at(blocks[index >> BLOCK_BITS].place(index))
    }

    /// The cells of many indices, which it asks memory for at the same time: first all blocks, then all runs.
    #[inline(always)]
    pub(super) fn get_many(&self, indices: impl Iterator<Item = usize> + Clone, out: &mut [u32]) {
        let (blocks, cells) = self.levels();
        for index in indices.clone() {
            prefetch_read(&blocks[index >> BLOCK_BITS]);
        }
        for (index, out) in indices.zip(&mut *out) {
            let place = blocks[index >> BLOCK_BITS].place(index);
            prefetch_read(cells.at(place));
            *out = place as u32;
        }
        for out in out {
            *out = *cells.at(*out as usize);
        }
    }

    #[inline(always)]
    fn levels(&self) -> (&[Block; 1 << (FIRST_BITS - BLOCK_BITS)], &MaskedTable<u32>) {
        (self.blocks.first_chunk().expect("made with so many"), &self.cells)
    }

    pub(super) fn set(&mut self, index: usize, cell: u32) {
        self.change(index..=index, |_, _| cell);
    }

    /// Makes of each cell in a range what `change` says, which is given its index and what it is.
    pub(super) fn change(&mut self, range: RangeInclusive<usize>, mut change: impl FnMut(usize, u32) -> u32) {
        let (first, last) = range.into_inner();
        for block in first >> BLOCK_BITS..=last >> BLOCK_BITS {
            let start = block << BLOCK_BITS;
            let mut cells = self.blocks[block].cells(&self.cells);
            let mut changed = false;
            for (index, cell) in (start..).zip(&mut cells) {
                if (first..=last).contains(&index) {
                    let new = change(index, *cell);
                    changed |= new != *cell;
                    *cell = new;
                }
            }
            if changed {
                self.make_room();
                self.blocks[block] = self.write(&cells);
            }
        }
    }

    /// Writes the runs of a block's cells.
    fn write(&mut self, cells: &[u32; BLOCK]) -> Block {
        let mut changes = 0;
        for (index, pair) in (1..).zip(cells.windows(2)) {
            changes |= u32::from(pair[0] != pair[1]) << index;
        }
        if *cells == [0; BLOCK] {
            return Block::zeroed();
        }
        // A prefix of many blocks has one run for all of them.
        if changes == 0 && cells[0] == self.cells[self.used - 1] {
            return Block { changes, first: self.used as u32 - 1 };
        }
        let first = self.used as u32;
        let starts = (0..BLOCK).filter(|index| *index == 0 || changes >> index & 1 == 1);
        for index in starts {
            self.cells[self.used] = cells[index];
            self.used += 1;
        }
        Block { changes, first }
    }

    /// Has room for one more block.
    fn make_room(&mut self) {
        if self.used + BLOCK > self.cells.len() {
            self.renew(2 * (self.in_use() + BLOCK));
        }
    }

    /// Leaves nothing between the runs in use, and no room to spare.
    pub(super) fn compact(&mut self) {
        self.renew(self.in_use());
    }

    /// How many runs there are when all are written anew, at most.
    fn in_use(&self) -> usize {
        let runs = |block: &Block| 1 + block.changes.count_ones() as usize;
        1 + self.blocks.iter().filter(|block| **block != Block::zeroed()).map(runs).sum::<usize>()
    }

    /// Writes the runs in use anew, where there is room for so many.
    fn renew(&mut self, room: usize) {
        let before = std::mem::replace(&mut self.cells, MaskedTable::new(room.max(LEAST)));
        self.used = 1;
        for number in 0..self.blocks.len() {
            let block = self.blocks[number];
            if block != Block::zeroed() {
                self.blocks[number] = self.write(&block.cells(&before));
            }
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        size_of_val(&*self.blocks) + size_of_val(&*self.cells)
    }

    /// Of the blocks, and of their runs.
    pub(super) fn page_kinds(&self) -> [PageKind; 2] {
        [self.blocks.page_kind(), self.cells.page_kind()]
    }
}

/// A copy has no room to spare: it is made to be read.
impl Clone for Runs {
    fn clone(&self) -> Self {
        let mut copy = Self::with_room(self.in_use());
        // Blocks of nothing but zeros are not touched: on ordinary pages a table of few prefixes stays small.
        for (number, block) in self.blocks.iter().enumerate().filter(|(_, block)| **block != Block::zeroed())
        {
            copy.blocks[number] = copy.write(&block.cells(&self.cells));
        }
        copy
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// As a list of cells would have it: few blocks, changed so often that they move many times.
        #[test]
        fn as_a_list_of_cells(
            changes in prop::collection::vec((0_usize..1000, 0_usize..200, 0_u32..4), 1..1200),
            apart in prop::sample::select(vec![1, 32, 33, 4096]),
        ) {
            let mut runs = Runs::new();
            let mut model: BTreeMap<usize, u32> = BTreeMap::new();
            for (from, len, cell) in changes {
                let (from, last) = (from * apart, from * apart + len);
                runs.change(from..=last, |index, old| {
                    let new = if index % 7 == 0 { old } else { cell };
                    model.insert(index, new);
                    new
                });
            }
            for copy in [&runs, &runs.clone()] {
                for index in (0..1000 * apart + 200).step_by(if apart > 100 { 61 } else { 1 }) {
                    let expected = model.get(&index).copied().unwrap_or(0);
                    prop_assert_eq!(copy.get(index), expected, "cell {}", index);
                }
                prop_assert!(model.iter().all(|(index, cell)| copy.get(*index) == *cell));
            }
        }
    }

    #[test]
    fn the_last_cell_has_its_place_and_a_prefix_of_many_blocks_one_run() {
        let mut runs = Runs::new();
        let last = (1 << FIRST_BITS) - 1;
        runs.change(0..=last, |_, _| 7);
        assert_eq!((runs.get(0), runs.get(last), runs.used), (7, 7, 2));
        runs.set(last, 8);
        assert_eq!((runs.get(last - 1), runs.get(last), runs.used), (7, 8, 4));
        runs.set(last, 7);
        runs.change(0..=last, |_, _| 0);
        assert_eq!((runs.get(0), runs.get(last)), (0, 0));
        assert_eq!(runs.in_use(), 1);
    }

    #[test]
    fn what_is_no_longer_in_use_gives_its_place_back() {
        let mut runs = Runs::new();
        for cell in 1..1_000_000 {
            runs.set(5, cell);
        }
        assert_eq!(runs.get(5), 999_999);
        assert_eq!(runs.cells.len(), LEAST);
    }
}
