//! Where the table lies, and how to have a part of it in the cache in time.

use bytemuck::Zeroable;

pub(super) type HugeTable<T> = Vec<T>;

pub(super) fn table<T: Zeroable>(len: usize) -> HugeTable<T> {
    std::iter::repeat_with(T::zeroed).take(len).collect()
}

/// Reads a value that nobody waits for: the processor goes on while memory answers.
#[inline(always)]
pub(super) fn prefetch_write<T: Copy>(value: &T) {
    std::hint::black_box(*value);
}
