//! The table of prefixes.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound::{Excluded, Included};

use super::address::Address;
use super::cells::{Cell, Cells, FIRST_BITS, GROUP_BITS, MAX_GROUPS, depth};
use crate::mem::PageKind;

/// Prefixes with a value each, of which a lookup finds the longest that an address is in: DIR-24-8 (Gupta, Lin and
/// McKeown, *Routing lookups in hardware at memory access speeds*, INFOCOM 1998), its first level compressed, for IPv4
/// (`PrefixTable<u32>`) and, with more levels, IPv6 (`PrefixTable<u128>`).
///
/// The first 24 bits of an address are an index into 2^24 cells of 4 bytes; a cell has a value, or leads to one of
/// the groups of 256 cells that the next 8 bits are an index into, and so on. Of the first level's cells, equal
/// neighbours are kept once. So an IPv4 address costs two accesses of memory that a cache holds, or one more where a
/// prefix is longer than 24 bits; an IPv6 address of a network of 48 bits costs five.
///
/// # Memory
///
/// 4 MiB for the first level, 4 bytes for each run of equal cells in it, and 1 KiB for each group, on huge pages where
/// there are enough. The groups are as many as the table was made with; what the runs have grows with them, by
/// doubling. A clone has no room to spare. The list of prefixes, which only changing the table needs, is beside that on
/// the heap.
///
/// # Changing it while workers read
///
/// A table that workers read does not change: keep one on the control side, change that, and publish a clone, which
/// the stages take up by [`Stage::configure`](crate::Stage::configure).
///
/// ```
/// use std::net::Ipv4Addr;
/// use afx::lookup::PrefixTable;
///
/// let mut table = PrefixTable::<u32>::new(16);
/// table.insert("192.0.2.0/24".parse()?, 1)?;
/// table.insert("192.0.2.64/26".parse()?, 2)?;
/// assert_eq!(table.lookup(Ipv4Addr::new(192, 0, 2, 1)), Some(1));
/// assert_eq!(table.lookup(Ipv4Addr::new(192, 0, 2, 65)), Some(2));
/// assert_eq!(table.lookup(Ipv4Addr::new(198, 51, 100, 1)), None);
///
/// let addresses = [Ipv4Addr::new(192, 0, 2, 65), Ipv4Addr::new(198, 51, 100, 1)].map(u32::from);
/// let mut values = [0; 2];
/// table.lookup_bulk(&addresses, &mut values);
/// assert_eq!(values, [2, PrefixTable::<u32>::NONE]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct PrefixTable<A: Address> {
    cells: Cells,
    /// By first address, then length: what is within a prefix follows it.
    prefixes: BTreeMap<(A, u8), u32>,
}

/// Why a prefix has no place in a table. The table is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PrefixError {
    /// The value is above [`PrefixTable::MAX_VALUE`].
    #[error("the value {value} is too large: the largest is {}", PrefixTable::<u32>::MAX_VALUE)]
    ValueTooLarge {
        /// The value given.
        value: u32,
    },
    /// The prefix needs more groups than are free.
    #[error("the table is full: {free} of its {groups} groups are free, and this prefix needs {needed}")]
    Full {
        /// How many groups the prefix needs beside those in use.
        needed: usize,
        /// How many are free.
        free: usize,
        /// How many the table has.
        groups: usize,
    },
}

impl<A: Address> PrefixTable<A> {
    /// The largest value that a prefix can have: a cell has one bit to lead on with, and one value for none.
    pub const MAX_VALUE: u32 = (1 << 31) - 2;

    /// What [`lookup_bulk`](Self::lookup_bulk) writes for an address that is in no prefix.
    pub const NONE: u32 = u32::MAX;

    /// An empty table with so many groups, rounded up to a power of two.
    ///
    /// For IPv4, each network of 24 bits takes a group in which there is a longer prefix. For IPv6, so does each
    /// network of 24, 32, 40, … bits. [`from_prefixes`](Self::from_prefixes) counts them.
    ///
    /// # Panics
    /// If there are to be more than 2^24 groups, which are 16 GiB.
    pub fn new(groups: usize) -> Self {
        assert!(groups <= MAX_GROUPS, "{groups} groups: at most {MAX_GROUPS} are possible");
        Self { cells: Cells::new(groups), prefixes: BTreeMap::new() }
    }

    /// A table of these prefixes, with as many groups as they need. Of a prefix that comes twice the last value
    /// counts.
    ///
    /// # Errors
    /// [`PrefixError::ValueTooLarge`]. [`PrefixError::Full`] if they need more than 2^24 groups.
    pub fn from_prefixes(prefixes: impl IntoIterator<Item = (A::Prefix, u32)>) -> Result<Self, PrefixError> {
        let prefixes: BTreeMap<(A, u8), u32> =
            prefixes.into_iter().map(|(prefix, value)| (A::of_prefix(prefix), value)).collect();
        let needed = groups_needed(prefixes.keys().copied());
        let mut table = Self::new(needed.min(MAX_GROUPS));
        // In this order each comes before those within it, and is painted in one go.
        for ((address, len), value) in prefixes {
            table.insert(address.prefix(len), value)?;
        }
        table.cells.compact();
        Ok(table)
    }

    /// Adds a prefix, or gives it another value, and returns the value that it had. Bits of the address that are not
    /// the prefix's do not matter.
    ///
    /// Takes time in proportion to the cells that the prefix covers, and the prefixes within it: microseconds for a
    /// /24, tens of milliseconds for a /0. Now and then the runs move to make room, which takes milliseconds.
    ///
    /// # Errors
    /// [`PrefixError::ValueTooLarge`], [`PrefixError::Full`]; the table is as it was.
    pub fn insert(&mut self, prefix: A::Prefix, value: u32) -> Result<Option<u32>, PrefixError> {
        if value > Self::MAX_VALUE {
            return Err(PrefixError::ValueTooLarge { value });
        }
        let (address, len) = A::of_prefix(prefix);
        let groups = self.cells.groups();
        let free = groups - self.cells.groups_used();
        self.cells.make_groups(address, len).map_err(|needed| PrefixError::Full { needed, free, groups })?;
        let before = self.prefixes.insert((address, len), value);
        self.paint(address, len, Some(value));
        Ok(before)
    }

    /// Removes a prefix and returns its value, or none if it is not in the table. Its addresses are then those of the
    /// longest prefix left that they are in. Takes as long as [`insert`](Self::insert).
    pub fn remove(&mut self, prefix: A::Prefix) -> Option<u32> {
        let (address, len) = A::of_prefix(prefix);
        let value = self.prefixes.remove(&(address, len))?;
        let around = (0..len).rev().find_map(|len| self.prefixes.get(&(address.first_of(len), len)).copied());
        self.paint(address, len, around);
        let prefixes = &self.prefixes;
        self.cells.free_groups(address, len, |bits| within(prefixes, address, bits).next().is_none());
        Some(value)
    }

    /// Gives a value to the addresses of a prefix that are in no longer one.
    fn paint(&mut self, address: A, len: u8, value: Option<u32>) {
        let (cell, last) = (Cell::value(value), address.last_of(len));
        let mut at = address.first_of(len);
        for &(inner, inner_len) in within(&self.prefixes, address, len) {
            if inner < at {
                // Within one that was passed over already.
                continue;
            }
            if let Some(before) = inner.previous().filter(|before| *before >= at) {
                self.cells.paint(at, before, cell);
            }
            match inner.last_of(inner_len).next() {
                Some(next) if next <= last => at = next,
                _ => return,
            }
        }
        self.cells.paint(at, last, cell);
    }

    /// The value of the longest prefix that an address is in.
    #[inline]
    pub fn lookup(&self, address: impl Into<A>) -> Option<u32> {
        let address = address.into();
        let mut cell = self.cells.first(address);
        let mut depth = 0;
        while cell.goes_on() {
            cell = self.cells.in_group(cell, address.byte(depth));
            depth += 1;
        }
        (cell != Cell::NONE).then(|| cell.0 - 1)
    }

    /// Looks up many addresses, and writes for each what [`lookup`](Self::lookup) returns, or
    /// [`NONE`](Self::NONE). It waits for memory for many at a time: give it a batch at once.
    ///
    /// # Panics
    /// If the slices differ in length.
    #[inline]
    pub fn lookup_bulk(&self, addresses: &[A], out: &mut [u32]) {
        assert_eq!(addresses.len(), out.len(), "as many values as addresses");
        super::bulk::lookup(&self.cells, addresses, out);
    }

    /// The value of exactly this prefix.
    pub fn get(&self, prefix: A::Prefix) -> Option<u32> {
        self.prefixes.get(&A::of_prefix(prefix)).copied()
    }

    /// The prefixes and their values: by address, and shorter before longer ones.
    pub fn iter(&self) -> impl Iterator<Item = (A::Prefix, u32)> + '_ {
        self.prefixes.iter().map(|(&(address, len), &value)| (address.prefix(len), value))
    }

    /// How many prefixes there are.
    pub fn len(&self) -> usize {
        self.prefixes.len()
    }

    /// Whether there is no prefix.
    pub fn is_empty(&self) -> bool {
        self.prefixes.is_empty()
    }

    /// How many groups the table has.
    pub fn groups(&self) -> usize {
        self.cells.groups()
    }

    /// How many groups are in use.
    pub fn groups_used(&self) -> usize {
        self.cells.groups_used()
    }

    /// The memory that lookups read, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.cells.memory_bytes()
    }

    /// On what kind of pages the table lies: [`PageKind::Huge`] if all of it does.
    pub fn page_kind(&self) -> PageKind {
        let huge = self.cells.page_kinds().iter().all(|kind| *kind == PageKind::Huge);
        if huge { PageKind::Huge } else { PageKind::Normal }
    }
}

/// The prefixes within another one, itself left out.
fn within<A: Address>(
    prefixes: &BTreeMap<(A, u8), u32>,
    address: A,
    len: u8,
) -> impl Iterator<Item = &(A, u8)> {
    // Shorter ones that begin where it does come before it. What begins behind its first address is longer.
    let range = (Excluded((address.first_of(len), len)), Included((address.last_of(len), A::BITS)));
    prefixes.range(range).map(|(key, _)| key)
}

/// How many groups prefixes need that come in order.
fn groups_needed<A: Address>(prefixes: impl Iterator<Item = (A, u8)>) -> usize {
    let mut last: Option<(A, u8)> = None;
    let mut needed = 0;
    for (address, len) in prefixes {
        needed += (0..depth(len))
            .filter(|above| {
                // The group for what follows the first `bits`. Does the last prefix need it too?
                let bits = FIRST_BITS + GROUP_BITS * *above as u8;
                !last.is_some_and(|(other, other_len)| {
                    other_len > bits && other.first_of(bits) == address.first_of(bits)
                })
            })
            .count();
        last = Some((address, len));
    }
    needed
}

impl<A: Address> fmt::Debug for PrefixTable<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrefixTable")
            .field("prefixes", &self.len())
            .field("groups", &self.groups())
            .field("groups_used", &self.groups_used())
            .field("page_kind", &self.page_kind())
            .finish()
    }
}
