//! Ring arithmetic alone: two free-running counters over a power-of-two size.
//!
//! Both cursors wrap at 2³², not at the ring's size, so that a full ring and an
//! empty one differ (`net/xdp/xsk_queue.h` in the kernel). Pure values: nothing
//! here reads memory, so nothing here can go out of bounds; a cursor that the
//! other side has set to nonsense makes a ring look full or empty, no more.

use std::num::Wrapping;

/// What one side of a ring believes of both cursors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cursors {
    /// Entries ever produced.
    pub(crate) producer: Wrapping<u32>,
    /// Entries ever consumed.
    pub(crate) consumer: Wrapping<u32>,
    size: u32,
}

impl Cursors {
    /// # Panics
    ///
    /// If `size` is no power of two.
    pub(crate) fn new(producer: u32, consumer: u32, size: u32) -> Self {
        assert!(size.is_power_of_two(), "a ring has a power of two of entries, not {size}");
        Self { producer: Wrapping(producer), consumer: Wrapping(consumer), size }
    }

    #[inline(always)]
    pub(crate) fn size(&self) -> u32 {
        self.size
    }

    /// Entries produced and not yet consumed; never more than the ring has.
    #[inline(always)]
    pub(crate) fn filled(&self) -> u32 {
        (self.producer - self.consumer).0.min(self.size)
    }

    /// Entries that can be produced before the ring is full.
    #[inline(always)]
    pub(crate) fn free(&self) -> u32 {
        self.size - self.filled()
    }

    /// The slot of the entry `offset` after `cursor`; always below the size.
    #[inline(always)]
    pub(crate) fn slot(&self, cursor: Wrapping<u32>, offset: u32) -> usize {
        ((cursor + Wrapping(offset)).0 & (self.size - 1)) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_and_empty_differ_across_the_wrap_at_u32_max() {
        let empty = Cursors::new(u32::MAX, u32::MAX, 8);
        assert_eq!((empty.filled(), empty.free()), (0, 8));
        let full = Cursors::new(7, u32::MAX, 8);
        assert_eq!((full.filled(), full.free()), (8, 0));
    }

    #[test]
    fn slots_go_on_without_a_jump_across_the_wrap() {
        let cursors = Cursors::new(0, 0, 4);
        let slots: Vec<_> = (0..6).map(|n| cursors.slot(Wrapping(u32::MAX - 2), n)).collect();
        assert_eq!(slots, [1, 2, 3, 0, 1, 2]);
    }

    #[test]
    fn nonsense_in_a_cursor_never_counts_more_than_the_ring_holds() {
        for producer in [9, 1 << 31, u32::MAX] {
            let cursors = Cursors::new(producer, 0, 8);
            assert_eq!((cursors.filled(), cursors.free()), (8, 0));
        }
    }

    #[test]
    #[should_panic(expected = "power of two")]
    fn a_size_that_is_no_power_of_two_is_refused() {
        Cursors::new(0, 0, 6);
    }
}
