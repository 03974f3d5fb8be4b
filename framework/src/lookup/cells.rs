//! The table's memory: what lookups read. Knows values and groups, not prefixes.

use super::address::Address;
use super::runs::Runs;
use crate::mem::{MaskedTable, PageKind};

/// The bits that the first level is indexed with, and those of each group.
pub(super) const FIRST_BITS: u8 = 24;
pub(super) const GROUP_BITS: u8 = 8;
const GROUP: usize = 1 << GROUP_BITS;

/// So many groups can be told apart: [`Cell::cell_in_group`] has 24 bits for their number.
pub(super) const MAX_GROUPS: usize = 1 << 24;

/// One entry: what an address's first 24, 32, 40, … bits say. Zero, as which all memory begins, for no value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Cell(pub(super) u32);

impl Cell {
    pub(super) const NONE: Self = Self(0);
    const GO_ON: u32 = 1 << 31;

    pub(super) fn value(value: Option<u32>) -> Self {
        Self(value.map_or(0, |value| value + 1))
    }

    fn group(group: u32) -> Self {
        Self(Self::GO_ON | group)
    }

    #[inline(always)]
    pub(super) fn goes_on(self) -> bool {
        self.0 & Self::GO_ON != 0
    }

    /// The cell as a bulk lookup's result: a value as it is, and none as [`PrefixTable::NONE`](super::PrefixTable::NONE).
    #[inline(always)]
    pub(super) fn bulk(self) -> u32 {
        self.0.wrapping_sub(1)
    }

    /// The cell of which [`bulk`](Self::bulk) made that.
    #[inline(always)]
    pub(super) fn of_bulk(result: u32) -> Self {
        Self(result.wrapping_add(1))
    }

    /// The group that the cell points to.
    fn as_group(self) -> Option<u32> {
        self.goes_on().then_some(self.0 & !Self::GO_ON)
    }

    /// The index of one of the cells of the group that this one points to. The shift takes the mark off.
    #[inline(always)]
    pub(super) fn cell_in_group(self, byte: u8) -> usize {
        (self.0 << GROUP_BITS | u32::from(byte)) as usize
    }
}

/// The levels of cells.
pub(super) struct Cells {
    first: Runs,
    groups: MaskedTable<u32>,
    /// Groups that were used and are free again, and how many were ever used.
    free: Vec<u32>,
    fresh: u32,
}

/// A cell's place.
#[derive(Clone, Copy)]
enum Place {
    First(usize),
    InGroup(usize),
}

impl Cells {
    pub(super) fn new(groups: usize) -> Self {
        Self {
            first: Runs::new(),
            groups: MaskedTable::new(groups.max(1) * GROUP),
            free: Vec::new(),
            fresh: 0,
        }
    }

    #[inline(always)]
    pub(super) fn first<A: Address>(&self, address: A) -> Cell {
        Cell(self.first.get(address.upper()))
    }

    /// The first level's cells of many addresses.
    #[inline(always)]
    pub(super) fn first_of_many<A: Address>(&self, addresses: &[A], out: &mut [u32]) {
        self.first.get_many(addresses.iter().map(|address| address.upper()), out);
    }

    #[inline(always)]
    pub(super) fn in_group(&self, group: Cell, byte: u8) -> Cell {
        Cell(*self.groups.at(group.cell_in_group(byte)))
    }

    pub(super) fn groups(&self) -> usize {
        self.groups.len() / GROUP
    }

    pub(super) fn groups_used(&self) -> usize {
        self.fresh as usize - self.free.len()
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.first.memory_bytes() + size_of_val(&*self.groups)
    }

    pub(super) fn page_kinds(&self) -> [PageKind; 3] {
        let [blocks, runs] = self.first.page_kinds();
        [blocks, runs, self.groups.page_kind()]
    }

    /// Leaves nothing between what is in use, and no room to spare.
    pub(super) fn compact(&mut self) {
        self.first.compact();
    }

    /// Makes what groups are lacking on the way to a prefix's own cells.
    ///
    /// # Errors
    /// How many are lacking, if not so many are free. Nothing is changed.
    pub(super) fn make_groups<A: Address>(&mut self, address: A, len: u8) -> Result<(), usize> {
        let depth = depth(len);
        let there = (0..depth).take_while(|&above| self.cell(self.place(address, above)).goes_on()).count();
        let needed = depth as usize - there;
        if needed > self.groups() - self.groups_used() {
            return Err(needed);
        }
        for above in there as u32..depth {
            let place = self.place(address, above);
            let value = self.cell(place);
            let group = self.free.pop().unwrap_or_else(|| {
                self.fresh += 1;
                self.fresh - 1
            });
            let cells = group as usize * GROUP;
            self.groups[cells..cells + GROUP].fill(value.0);
            self.set(place, Cell::group(group));
        }
        Ok(())
    }

    /// Gives back the groups on the way to a prefix's own cells, from the lowest up, while `unneeded` says so of the
    /// group for what follows the first so many bits. All cells of such a group must be the same.
    pub(super) fn free_groups<A: Address>(&mut self, address: A, len: u8, unneeded: impl Fn(u8) -> bool) {
        for above in (0..depth(len)).rev() {
            if !unneeded(FIRST_BITS + GROUP_BITS * above as u8) {
                return;
            }
            let place = self.place(address, above);
            let group = self.cell(place).as_group().expect("it was made with the prefix");
            self.set(place, Cell(self.groups[group as usize * GROUP]));
            self.free.push(group);
        }
    }

    /// Gives the addresses from `low` to `high` another cell. Where either is within a cell, the cell has a group.
    pub(super) fn paint<A: Address>(&mut self, low: A, high: A, cell: Cell) {
        let (first, last) = (low.upper(), high.upper());
        let Self { first: cells, groups, .. } = self;
        cells.change(first..=last, |upper, old| {
            let edges = (Some(low).filter(|_| upper == first), Some(high).filter(|_| upper == last));
            painted(groups, Cell(old), 0, edges, cell).0
        });
    }

    /// Where the cell of an address is, behind `depth` others that go on.
    fn place<A: Address>(&self, address: A, depth: u32) -> Place {
        let mut place = Place::First(address.upper());
        for above in 0..depth {
            place = Place::InGroup(self.cell(place).cell_in_group(address.byte(above)));
        }
        place
    }

    fn cell(&self, place: Place) -> Cell {
        match place {
            Place::First(index) => Cell(self.first.get(index)),
            Place::InGroup(index) => Cell(self.groups[index]),
        }
    }

    fn set(&mut self, place: Place, cell: Cell) {
        match place {
            Place::First(index) => self.first.set(index, cell.0),
            Place::InGroup(index) => self.groups[index] = cell.0,
        }
    }
}

/// The new cell in the place of `old`, or `old` if that goes on: then the cells of its group are painted, from the
/// lower edge's to the upper one's where the edge is in it.
fn painted<A: Address>(
    groups: &mut [u32],
    old: Cell,
    depth: u32,
    (low, high): (Option<A>, Option<A>),
    new: Cell,
) -> Cell {
    if !old.goes_on() {
        return new;
    }
    let first = low.map_or(0, |low| low.byte(depth));
    let last = high.map_or(u8::MAX, |high| high.byte(depth));
    for byte in first..=last {
        let index = old.cell_in_group(byte);
        let edges = (low.filter(|_| byte == first), high.filter(|_| byte == last));
        groups[index] = painted(groups, Cell(groups[index]), depth + 1, edges, new).0;
    }
    old
}

/// So many groups are on the way to the cells of a prefix.
pub(super) fn depth(len: u8) -> u32 {
    len.saturating_sub(FIRST_BITS).div_ceil(GROUP_BITS).into()
}

impl Clone for Cells {
    fn clone(&self) -> Self {
        let mut groups = MaskedTable::new(self.groups.len());
        copy_used(&self.groups, &mut groups);
        Self { first: self.first.clone(), groups, free: self.free.clone(), fresh: self.fresh }
    }
}

/// Copies to zeroed memory. Pages of nothing but zeros are not touched, so that a table of few prefixes stays small.
fn copy_used(from: &[u32], to: &mut [u32]) {
    const PAGE: usize = 4096 / size_of::<u32>();
    for (from, to) in from.chunks(PAGE).zip(to.chunks_mut(PAGE)) {
        if from.iter().any(|cell| *cell != 0) {
            to.copy_from_slice(from);
        }
    }
}
