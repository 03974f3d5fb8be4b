//! Lookups of many addresses at once.

use super::address::Address;
use super::cells::{Cell, Cells};
use crate::mem::{Work, with_popcnt};

/// Addresses that are looked up together: more cache misses than a core can have under way.
const CHUNK: usize = 64;

/// As [`PrefixTable::lookup_bulk`](super::PrefixTable::lookup_bulk); both slices have the same length.
pub(super) fn lookup<A: Address>(cells: &Cells, addresses: &[A], out: &mut [u32]) {
    with_popcnt(Chunks { cells, addresses, out });
}

struct Chunks<'a, A> {
    cells: &'a Cells,
    addresses: &'a [A],
    out: &'a mut [u32],
}

impl<A: Address> Work for Chunks<'_, A> {
    #[inline(always)]
    fn run(self) {
        for (addresses, out) in self.addresses.chunks(CHUNK).zip(self.out.chunks_mut(CHUNK)) {
            one_chunk(self.cells, addresses, out);
        }
    }
}

/// Level by level: no access of a level waits for another, so that memory answers them at the same time.
#[inline(always)]
fn one_chunk<A: Address>(cells: &Cells, addresses: &[A], out: &mut [u32]) {
    // The places in the chunk of those that go on, a bit each.
    let mut pending = 0u64;
    cells.first_of_many(addresses, out);
    for (index, out) in out.iter_mut().enumerate() {
        let cell = Cell(*out);
        pending |= u64::from(cell.goes_on()) << index;
        *out = cell.bulk();
    }
    let mut depth = 0;
    while pending != 0 {
        let mut left = pending;
        while left != 0 {
            let index = left.trailing_zeros() as usize;
            left &= left - 1;
            let (Some(address), Some(out)) = (addresses.get(index), out.get_mut(index)) else { return };
            let cell = cells.in_group(Cell::of_bulk(*out), address.byte(depth));
            pending &= !(u64::from(!cell.goes_on()) << index);
            *out = cell.bulk();
        }
        depth += 1;
    }
}
