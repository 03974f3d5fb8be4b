//! Places in a batch, and sets of them.

/// The place of one packet in the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u8);

impl Slot {
    #[inline(always)]
    pub(crate) fn new(index: u32) -> Self {
        Self(index as u8)
    }

    /// The place's number, 0 to 63: for tables that a stage keeps beside the batch.
    #[inline(always)]
    pub fn index(self) -> usize {
        // The mask tells the compiler what it cannot see: no bounds check in arrays of 64.
        usize::from(self.0 & 63)
    }

    #[inline(always)]
    pub(crate) fn bit(self) -> u64 {
        1 << (self.0 & 63)
    }
}

/// A set of places, walked in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slots(u64);

impl Slots {
    #[inline(always)]
    pub(crate) fn new(mask: u64) -> Self {
        Self(mask)
    }

    /// The set as a mask: bit `i` is the packet in slot `i`.
    #[inline(always)]
    pub fn mask(self) -> u64 {
        self.0
    }
}

impl Iterator for Slots {
    type Item = Slot;

    #[inline(always)]
    fn next(&mut self) -> Option<Slot> {
        if self.0 == 0 {
            return None;
        }
        let slot = Slot::new(self.0.trailing_zeros());
        self.0 &= self.0 - 1;
        Some(slot)
    }

    #[inline(always)]
    fn size_hint(&self) -> (usize, Option<usize>) {
        let count = self.0.count_ones() as usize;
        (count, Some(count))
    }
}

impl ExactSizeIterator for Slots {}
