//! Lookups of many addresses at once.

use super::address::Address;
use super::cells::{Cell, Cells};
use crate::mem::prefetch_read;

/// Addresses that are looked up together: more cache misses than a core can have under way.
const CHUNK: usize = 64;

/// As [`PrefixTable::lookup_bulk`](super::PrefixTable::lookup_bulk); both slices have the same length.
pub(super) fn lookup<A: Address>(cells: &Cells, addresses: &[A], out: &mut [u32]) {
    let (chunks, rest) = addresses.as_chunks::<CHUNK>();
    let (outs, rest_out) = out.as_chunks_mut::<CHUNK>();
    // While one chunk waits for its groups, the first level's cells of the next are on their way.
    ask(cells, chunks.first().map_or(rest, |chunk| chunk));
    for (index, (chunk, out)) in chunks.iter().zip(outs).enumerate() {
        ask(cells, chunks.get(index + 1).map_or(rest, |chunk| chunk));
        *out = one_chunk(cells, chunk, CHUNK);
    }
    if let [some, ..] = rest {
        let mut chunk = [*some; CHUNK];
        chunk[..rest.len()].copy_from_slice(rest);
        let values = one_chunk(cells, &chunk, rest.len());
        rest_out.copy_from_slice(&values[..rest.len()]);
    }
}

#[inline(always)]
fn ask<A: Address>(cells: &Cells, addresses: &[A]) {
    let first = cells.first();
    for address in addresses {
        prefetch_read(&first[address.upper()]);
    }
}

/// The values of the first `len` addresses.
#[inline(always)]
fn one_chunk<A: Address>(cells: &Cells, addresses: &[A; CHUNK], len: usize) -> [u32; CHUNK] {
    let first = cells.first();
    let mut found = [0; CHUNK];
    // Those that go on, by their place in the chunk: written whether or not it is one, so that nothing branches.
    let mut pending = [0u8; CHUNK];
    let mut count = 0;
    for (index, (address, found)) in addresses.iter().zip(&mut found).enumerate().take(len) {
        let cell = Cell(first[address.upper()]);
        *found = cell.0;
        pending[count % CHUNK] = index as u8;
        count += usize::from(cell.goes_on());
    }
    let mut depth = 0;
    while count > 0 {
        let mut left = 0;
        for place in 0..count {
            // No more are pending than a chunk has; the compiler does not know that.
            let index = usize::from(pending[place % CHUNK]) % CHUNK;
            let cell = Cell(*cells.in_group(Cell(found[index]).cell_in_group(addresses[index].byte(depth))));
            found[index] = cell.0;
            pending[left % CHUNK] = index as u8;
            left += usize::from(cell.goes_on());
        }
        (count, depth) = (left, depth + 1);
    }
    // No value, 0, becomes `PrefixTable::NONE`; a value what it was.
    found.map(|cell| cell.wrapping_sub(1))
}
