//! Lookups of many addresses at once.

use super::address::Address;
use super::cells::{Cell, Cells};

/// Addresses that are looked up together: more cache misses than a core can have under way.
const CHUNK: usize = 64;

/// As [`PrefixTable::lookup_bulk`](super::PrefixTable::lookup_bulk); both slices have the same length.
pub(super) fn lookup<A: Address>(cells: &Cells, addresses: &[A], out: &mut [u32]) {
    for (addresses, out) in addresses.chunks(CHUNK).zip(out.chunks_mut(CHUNK)) {
        one_chunk(cells, addresses, out);
    }
}

/// Level by level: no access of a level waits for another, so that memory answers them at the same time.
#[inline(always)]
fn one_chunk<A: Address>(cells: &Cells, addresses: &[A], out: &mut [u32]) {
    let first = cells.first();
    // The places in the chunk of those that go on, a bit each.
    let mut pending = 0u64;
    for (index, (address, out)) in addresses.iter().zip(&mut *out).enumerate() {
        let cell = Cell(first[address.upper()]);
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
            let cell = Cell(*cells.in_group(Cell::of_bulk(*out).cell_in_group(address.byte(depth))));
            pending &= !(u64::from(!cell.goes_on()) << index);
            *out = cell.bulk();
        }
        depth += 1;
    }
}
