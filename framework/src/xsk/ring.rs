//! The two ends of a single-producer, single-consumer ring in shared memory.
//!
//! ```text
//!   FILL, TX:        Producer (we)     ──► Consumer (the kernel)
//!   RX, COMPLETION:  Producer (kernel) ──► Consumer (we)
//! ```
//!
//! Each end owns one cursor and reads the other's. It keeps a copy of the
//! other's and looks again only when the copy does not suffice, so that a batch
//! costs at most one read of a cache line that the other core writes.
//!
//! Ordering, as in `net/xdp/xsk_queue.h`: the producer writes entries, then its
//! cursor with release; the consumer reads that cursor with acquire, then the
//! entries, then sets its own cursor with release; the producer reads that one
//! with acquire before it overwrites an entry.

use std::any::Any;
use std::num::Wrapping;
use std::ptr::NonNull;
use std::slice;
use std::sync::Arc;

use super::cursor::Cursors;
use super::sync::{AtomicU32, Ordering, Slot};

/// `XDP_RING_NEED_WAKEUP` of `linux/if_xdp.h`.
const NEED_WAKEUP: u32 = 1;

/// Where a ring lies: memory mapped from a socket, or anonymous (see
/// [`anonymous`](super::anonymous)).
pub(crate) struct Memory<T> {
    pub(crate) producer: NonNull<AtomicU32>,
    pub(crate) consumer: NonNull<AtomicU32>,
    pub(crate) flags: NonNull<AtomicU32>,
    /// The first of `size` slots.
    pub(crate) slots: NonNull<Slot<T>>,
    /// Entries; a power of two.
    pub(crate) size: u32,
    /// Keeps the memory where it is, for as long as this end lives.
    pub(crate) owner: Arc<dyn Any + Send + Sync>,
}

impl<T: Copy> Memory<T> {
    fn cursors(&self) -> Cursors {
        let producer = self.load(self.producer, Ordering::Acquire);
        let consumer = self.load(self.consumer, Ordering::Acquire);
        Cursors::new(producer, consumer, self.size)
    }

    #[inline(always)]
    fn load(&self, atomic: NonNull<AtomicU32>, ordering: Ordering) -> u32 {
        // SAFETY: one of our three atomics, valid while `owner` lives (contract of `Producer::new`
        // and `Consumer::new`). The other side may write it at the same time: it is atomic.
        unsafe { atomic.as_ref() }.load(ordering)
    }

    #[inline(always)]
    fn store(&self, atomic: NonNull<AtomicU32>, value: Wrapping<u32>) {
        // SAFETY: as in `load`.
        unsafe { atomic.as_ref() }.store(value.0, Ordering::Release);
    }

    #[inline(always)]
    fn slot(&self, index: usize) -> &Slot<T> {
        debug_assert!(index < self.size as usize);
        // SAFETY: `index` comes from `Cursors::slot`, which masks it below the size; there are `size`
        // slots, valid while `owner` lives. A shared reference to a cell says nothing of its content.
        unsafe { self.slots.add(index).as_ref() }
    }

    /// The `count` slots from `first` on: up to the ring's end, and on from its beginning. A loop over
    /// these need not wrap an index for each entry.
    #[inline(always)]
    fn slots(&self, first: usize, count: u32) -> [&[Slot<T>]; 2] {
        debug_assert!(first < self.size as usize);
        let (size, count) = (self.size as usize, count.min(self.size) as usize);
        let before_end = count.min(size - first);
        // SAFETY: `first` is below the size as in `slot`, so both parts lie within the `size` slots, which
        // are valid while `owner` lives. Shared references to cells say nothing of their content.
        unsafe {
            [
                slice::from_raw_parts(self.slots.add(first).as_ptr(), before_end),
                slice::from_raw_parts(self.slots.as_ptr(), count - before_end),
            ]
        }
    }
}

/// The end that writes entries.
///
/// Entries are written by [`push`](Self::push) and [`extend`](Self::extend) and
/// become visible to the other side, all at once, by [`submit`](Self::submit).
pub(crate) struct Producer<T> {
    memory: Memory<T>,
    /// `producer` is ours and runs ahead of the published cursor until `submit`;
    /// `consumer` is the copy of the other side's.
    cursors: Cursors,
    published: Wrapping<u32>,
}

// SAFETY: the pointers in `memory` are to shared memory meant for two parties; this end is one of
// them, and moving it to another thread moves all its accesses there. `T` crosses with it.
unsafe impl<T: Send> Send for Producer<T> {}

impl<T: Copy> Producer<T> {
    /// # Safety
    ///
    /// - The pointers in `memory` are aligned and valid while `memory.owner`
    ///   lives: three atomics, and `size` slots holding valid values of `T`.
    /// - No other producer works on this ring at the same time, and whoever
    ///   consumes it touches no slot outside `consumer..producer`.
    ///
    /// # Panics
    ///
    /// If `memory.size` is no power of two.
    pub(crate) unsafe fn new(memory: Memory<T>) -> Self {
        let cursors = memory.cursors();
        Self { published: cursors.producer, cursors, memory }
    }

    /// Entries of the whole ring.
    pub(crate) fn size(&self) -> u32 {
        self.cursors.size()
    }

    /// Entries that can be written now: exact if fewer than `want`, otherwise at
    /// least `want` and possibly out of date. Never an overestimate.
    #[inline]
    pub(crate) fn free(&mut self, want: u32) -> u32 {
        let free = self.cursors.free();
        if free >= want {
            return free;
        }
        self.cursors.consumer = Wrapping(self.memory.load(self.memory.consumer, Ordering::Acquire));
        self.cursors.free()
    }

    /// Writes one entry; `false`, with nothing written, if the ring is full.
    #[inline]
    pub(crate) fn push(&mut self, value: T) -> bool {
        if self.free(1) == 0 {
            return false;
        }
        self.write(0, value);
        self.cursors.producer += 1;
        true
    }

    /// Writes entries until `values` ends or the ring is full; returns how many.
    /// No value is taken from the iterator that is not written.
    #[inline(always)]
    pub(crate) fn extend(&mut self, values: impl IntoIterator<Item = T>) -> u32 {
        let values = values.into_iter();
        let most = at_most(&values, self.size());
        // SAFETY: as said of `room`; nobody else writes there, by `&mut self`.
        let written = unsafe { write_all(self.room(most), values) };
        self.wrote(written);
        written
    }

    /// Up to `most` free slots from the producer's cursor on: they lie outside `consumer..producer`, where
    /// the other side reads nothing until `submit`. Those written, from the first on, are counted by
    /// [`wrote`](Self::wrote).
    #[inline(always)]
    pub(super) fn room(&mut self, most: u32) -> [&[Slot<T>]; 2] {
        let room = self.free(most).min(most);
        self.memory.slots(self.cursors.slot(self.cursors.producer, 0), room)
    }

    #[inline(always)]
    pub(super) fn wrote(&mut self, count: u32) {
        self.cursors.producer += count.min(self.cursors.free());
    }

    /// Makes everything written since the last call visible to the other side;
    /// returns how many entries that are.
    #[inline]
    pub(crate) fn submit(&mut self) -> u32 {
        let count = (self.cursors.producer - self.published).0;
        if count > 0 {
            self.memory.store(self.memory.producer, self.cursors.producer);
            self.published = self.cursors.producer;
        }
        count
    }

    /// Entries written that the other side has not taken yet, submitted or not;
    /// reads its cursor afresh.
    pub(crate) fn pending(&mut self) -> u32 {
        self.cursors.consumer = Wrapping(self.memory.load(self.memory.consumer, Ordering::Acquire));
        self.cursors.filled()
    }

    /// Whether the kernel asks to be woken for this ring.
    ///
    /// The answer is of the moment: the kernel may set the flag right after, having
    /// missed what was just submitted. So ask again every turn while entries are
    /// [`pending`](Self::pending), not only after a submission.
    #[inline]
    pub(crate) fn needs_wakeup(&self) -> bool {
        self.memory.load(self.memory.flags, Ordering::Relaxed) & NEED_WAKEUP != 0
    }

    #[inline(always)]
    fn write(&mut self, offset: u32, value: T) {
        let slot = self.memory.slot(self.cursors.slot(self.cursors.producer, offset));
        // SAFETY: callers keep `offset` below `free`, so the slot lies outside `consumer..producer`,
        // where the other side reads nothing until `submit`; `&mut self` is the only producer.
        unsafe { slot.write(value) }
    }
}

/// How many values an iterator may bring that are of use to a ring of `size` entries.
#[inline(always)]
pub(super) fn at_most<T>(values: &impl Iterator<Item = T>, size: u32) -> u32 {
    values.size_hint().1.map_or(size, |most| most.min(size as usize) as u32)
}

/// Writes values until they or the slots end; returns how many. Takes none that is not written.
///
/// # Safety
/// Nobody else reads or writes the slots meanwhile.
#[inline(always)]
pub(super) unsafe fn write_all<T: Copy>(parts: [&[Slot<T>]; 2], mut values: impl Iterator<Item = T>) -> u32 {
    let mut written = 0;
    for part in parts {
        for slot in part {
            let Some(value) = values.next() else { return written };
            // SAFETY: the caller excludes everybody else.
            unsafe { slot.write(value) };
            written += 1;
        }
    }
    written
}

/// The end that reads entries.
pub(crate) struct Consumer<T> {
    memory: Memory<T>,
    /// `consumer` is ours; `producer` is the copy of the other side's.
    cursors: Cursors,
}

// SAFETY: as for `Producer`.
unsafe impl<T: Send> Send for Consumer<T> {}

impl<T: Copy> Consumer<T> {
    /// # Safety
    ///
    /// - The pointers in `memory` are aligned and valid while `memory.owner`
    ///   lives: three atomics, and `size` slots holding valid values of `T`,
    ///   whatever the other side writes into them.
    /// - No other consumer works on this ring at the same time, and whoever
    ///   produces it touches no slot inside `consumer..producer`.
    ///
    /// # Panics
    ///
    /// If `memory.size` is no power of two.
    pub(crate) unsafe fn new(memory: Memory<T>) -> Self {
        Self { cursors: memory.cursors(), memory }
    }

    /// Entries of the whole ring.
    pub(crate) fn size(&self) -> u32 {
        self.cursors.size()
    }

    /// Entries that can be read now: exact if fewer than `want`, otherwise at
    /// least `want` and possibly out of date. Never an overestimate, and never
    /// more than the ring has, whatever the other side's cursor says.
    #[inline]
    pub(crate) fn available(&mut self, want: u32) -> u32 {
        let filled = self.cursors.filled();
        if filled >= want {
            return filled;
        }
        self.cursors.producer = Wrapping(self.memory.load(self.memory.producer, Ordering::Acquire));
        self.cursors.filled()
    }

    /// The next entries, oldest first and at most `max`. They stay in the ring
    /// until [`release`](Self::release).
    #[inline]
    pub(crate) fn peek(&mut self, max: u32) -> Entries<'_, T> {
        let count = self.available(max).min(max);
        Entries::new(self.filled(count))
    }

    /// Gives the `count` oldest entries' slots back to the other side; no more
    /// than the last look at its cursor has shown. Returns how many.
    #[inline]
    pub(crate) fn release(&mut self, count: u32) -> u32 {
        let count = count.min(self.cursors.filled());
        if count > 0 {
            self.cursors.consumer += count;
            self.memory.store(self.memory.consumer, self.cursors.consumer);
        }
        count
    }

    /// Hands at most `max` entries to `each`, oldest first, and releases them;
    /// returns how many. See [`drain`](Self::drain).
    #[inline(always)]
    pub(crate) fn consume(&mut self, max: u32, each: impl FnMut(T)) -> u32 {
        let entries = self.drain(max);
        let count = entries.len() as u32;
        entries.for_each(each);
        count
    }

    /// The next entries, oldest first and at most `max`. All of them are released when the iterator is
    /// dropped, also by a panic, and also those that it was not asked for: an entry may be lost then, but
    /// none is ever seen twice.
    #[inline(always)]
    pub(crate) fn drain(&mut self, max: u32) -> Drain<'_, T> {
        let count = self.available(max).min(max);
        let Self { memory, cursors } = self;
        // As said of `filled`.
        let parts = memory.slots(cursors.slot(cursors.consumer, 0), count);
        Drain { entries: Entries::new(parts), release: Some((memory, cursors, count)) }
    }

    /// The slots of the `count` oldest entries, of which there must be so many: they lie inside
    /// `consumer..producer`, which the other side does not write until `release`, and that needs
    /// `&mut self`. So they may be read while borrowed.
    #[inline(always)]
    fn filled(&self, count: u32) -> [&[Slot<T>]; 2] {
        debug_assert!(count <= self.cursors.filled());
        self.memory.slots(self.cursors.slot(self.cursors.consumer, 0), count)
    }
}

/// Entries still in a ring; see [`Consumer::peek`].
pub(crate) struct Entries<'ring, T> {
    /// Up to the ring's end.
    first: slice::Iter<'ring, Slot<T>>,
    /// From its beginning.
    rest: slice::Iter<'ring, Slot<T>>,
}

impl<'ring, T: Copy> Entries<'ring, T> {
    /// Of these slots, which nobody writes while they are borrowed.
    #[inline(always)]
    pub(super) fn new([first, rest]: [&'ring [Slot<T>]; 2]) -> Self {
        Self { first: first.iter(), rest: rest.iter() }
    }

    /// The same entries as two iterators that are simpler each: for where the loop is all there is.
    #[inline(always)]
    pub(super) fn parts(self) -> [impl ExactSizeIterator<Item = T>; 2] {
        // SAFETY: as said of `new`.
        [self.first, self.rest].map(|part| part.map(|slot| unsafe { slot.read() }))
    }
}

impl<T: Copy> Iterator for Entries<'_, T> {
    type Item = T;

    #[inline(always)]
    fn next(&mut self) -> Option<T> {
        let slot = match self.first.next() {
            Some(slot) => slot,
            None => {
                std::mem::swap(&mut self.first, &mut self.rest);
                self.first.next()?
            }
        };
        // SAFETY: as said of `new`.
        Some(unsafe { slot.read() })
    }

    #[inline(always)]
    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.first.len() + self.rest.len();
        (left, Some(left))
    }

    #[inline(always)]
    fn fold<B, F: FnMut(B, T) -> B>(self, init: B, mut each: F) -> B {
        let mut folded = init;
        for part in [self.first, self.rest] {
            for slot in part {
                // SAFETY: as said of `new`.
                folded = each(folded, unsafe { slot.read() });
            }
        }
        folded
    }
}

impl<T: Copy> ExactSizeIterator for Entries<'_, T> {}

/// Entries that leave the ring; see [`Consumer::drain`].
pub(crate) struct Drain<'ring, T: Copy> {
    entries: Entries<'ring, T>,
    /// The ring to release them on, where they are still in one.
    release: Option<(&'ring Memory<T>, &'ring mut Cursors, u32)>,
}

impl<'ring, T: Copy> Drain<'ring, T> {
    /// Of entries that are in no ring any more.
    pub(super) fn released(entries: &'ring [Slot<T>]) -> Self {
        Self { entries: Entries::new([entries, &[]]), release: None }
    }
}

impl<T: Copy> Iterator for Drain<'_, T> {
    type Item = T;

    #[inline(always)]
    fn next(&mut self) -> Option<T> {
        self.entries.next()
    }

    #[inline(always)]
    fn size_hint(&self) -> (usize, Option<usize>) {
        self.entries.size_hint()
    }

    #[inline(always)]
    fn fold<B, F: FnMut(B, T) -> B>(mut self, init: B, each: F) -> B {
        let entries = std::mem::replace(&mut self.entries, Entries::new([&[], &[]]));
        entries.fold(init, each)
    }
}

impl<T: Copy> ExactSizeIterator for Drain<'_, T> {}

impl<T: Copy> Drop for Drain<'_, T> {
    #[inline(always)]
    fn drop(&mut self) {
        if let Some((memory, cursors, count)) = self.release.take()
            && count > 0
        {
            cursors.consumer += count;
            memory.store(memory.consumer, cursors.consumer);
        }
    }
}

#[cfg(test)]
#[path = "ring_tests.rs"]
mod tests;
