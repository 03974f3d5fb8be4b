//! One seam between two ways to a socket's rings: mapped by us, or through xsk-rs.

use super::library::{Give, LibraryConsumer, LibraryProducer, Take};
use super::ring::{Consumer, Producer};

/// A ring that we write: TX, or FILL. The methods are those of [`Producer`].
pub(crate) enum Writer<T, Q> {
    Native(Producer<T>),
    Library(LibraryProducer<Q>),
}

impl<T: Copy, Q: Give<Entry = T>> Writer<T, Q> {
    /// Entries of the whole ring.
    pub(crate) fn size(&self) -> u32 {
        match self {
            Self::Native(ring) => ring.size(),
            Self::Library(ring) => ring.size(),
        }
    }

    /// Entries that can be written now: exact if fewer than `want`, otherwise at
    /// least `want`. Never an overestimate.
    #[inline]
    pub(crate) fn free(&mut self, want: u32) -> u32 {
        match self {
            Self::Native(ring) => ring.free(want),
            Self::Library(ring) => ring.free(),
        }
    }

    /// Writes one entry; `false`, with nothing written, if the ring is full.
    #[inline]
    pub(crate) fn push(&mut self, value: T) -> bool {
        match self {
            Self::Native(ring) => ring.push(value),
            Self::Library(ring) => ring.extend([value]) == 1,
        }
    }

    /// Writes entries until `values` ends or the ring is full; returns how many.
    /// No value is taken from the iterator that is not written.
    #[inline]
    pub(crate) fn extend(&mut self, values: impl IntoIterator<Item = T>) -> u32 {
        match self {
            Self::Native(ring) => ring.extend(values),
            Self::Library(ring) => ring.extend(values),
        }
    }

    /// Makes everything written visible to the kernel; returns how many entries.
    #[inline]
    pub(crate) fn submit(&mut self) -> u32 {
        match self {
            Self::Native(ring) => ring.submit(),
            Self::Library(ring) => ring.submit(),
        }
    }

    /// Entries written that the kernel has not taken yet, submitted or not.
    #[inline]
    pub(crate) fn pending(&mut self) -> u32 {
        match self {
            Self::Native(ring) => ring.pending(),
            Self::Library(ring) => ring.pending(),
        }
    }

    /// Whether the kernel asks to be woken for this ring, as of now.
    #[inline]
    pub(crate) fn needs_wakeup(&self) -> bool {
        match self {
            Self::Native(ring) => ring.needs_wakeup(),
            Self::Library(ring) => ring.needs_wakeup(),
        }
    }
}

/// A ring that we read: RX, or COMPLETION. The methods are those of [`Consumer`].
pub(crate) enum Reader<T, Q> {
    Native(Consumer<T>),
    Library(LibraryConsumer<Q>),
}

impl<T: Copy, Q: Take<Entry = T>> Reader<T, Q> {
    /// Entries that can be read now: exact if fewer than `want`, otherwise at
    /// least `want`. Never an overestimate.
    #[inline]
    pub(crate) fn available(&mut self, want: u32) -> u32 {
        match self {
            Self::Native(ring) => ring.available(want),
            Self::Library(ring) => ring.available(),
        }
    }

    /// Hands at most `max` entries to `each`, oldest first, and gives their slots
    /// back to the kernel; returns how many.
    #[inline]
    pub(crate) fn consume(&mut self, max: u32, each: impl FnMut(T)) -> u32 {
        match self {
            Self::Native(ring) => ring.consume(max, each),
            Self::Library(ring) => ring.consume(max, each),
        }
    }
}
