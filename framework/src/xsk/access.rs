//! One seam between two ways to a socket's rings: mapped by us, or through xsk-rs.

use std::io;
use std::os::fd::AsRawFd;

use xsk_rs::{CompQueue, FillQueue, FrameDesc, RxQueue, TxQueue};

use super::Descriptor;
use super::library::{Give, LibraryConsumer, LibraryProducer, Mint, Take};
use super::mapped::{MappedRings, Sizes};
use super::ring::{Consumer, Drain, Producer, at_most, write_all};

/// xsk-rs's queues of one socket; the socket is closed with the last of them.
pub(super) struct LibraryQueues {
    pub(super) rx: RxQueue,
    pub(super) tx: TxQueue,
    pub(super) fill: FillQueue,
    pub(super) completion: CompQueue,
}

/// The four rings of one socket.
pub(super) struct Rings {
    pub(super) rx: Reader<Descriptor, RxQueue>,
    pub(super) tx: Writer<Descriptor, TxQueue>,
    pub(super) fill: Writer<u64, FillQueue>,
    pub(super) completion: Reader<u64, CompQueue>,
    /// The socket's owners, never called, where the rings above are mapped by us.
    pub(super) owners: Option<LibraryQueues>,
}

impl Rings {
    /// Mapped by us. Gives the queues back with the kernel's refusal.
    pub(super) fn native(
        queues: LibraryQueues,
        sizes: Sizes,
    ) -> Result<Self, Box<(LibraryQueues, io::Error)>> {
        // SAFETY: the descriptor is of a socket with rings of these sizes. Only `queues` reach the same
        // rings, and they go into `owners`, where nobody calls them, or back unused on an error.
        match unsafe { MappedRings::new(queues.tx.fd().as_raw_fd(), sizes) } {
            Ok(MappedRings { rx, tx, fill, completion }) => Ok(Self {
                rx: Reader::Native(rx),
                tx: Writer::Native(tx),
                fill: Writer::Native(fill),
                completion: Reader::Native(completion),
                owners: Some(queues),
            }),
            Err(error) => Err(Box::new((queues, error))),
        }
    }

    /// Through xsk-rs's calls.
    pub(super) fn library(queues: LibraryQueues, sizes: Sizes, samples: [FrameDesc; 2]) -> io::Result<Self> {
        let mint = Mint::new(samples).ok_or_else(|| {
            io::Error::other("the frame descriptor of xsk-rs is not that of its version 0.11")
        })?;
        Ok(Self {
            rx: Reader::Library(LibraryConsumer::new(queues.rx)),
            tx: Writer::Library(LibraryProducer::new(queues.tx, sizes.tx, mint)),
            fill: Writer::Library(LibraryProducer::new(queues.fill, sizes.fill, mint)),
            completion: Reader::Library(LibraryConsumer::new(queues.completion)),
            owners: None,
        })
    }
}

/// A ring that we write: TX, or FILL. The methods are those of [`Producer`].
pub(crate) enum Writer<T, Q: Give<Entry = T>> {
    Native(Producer<T>),
    Library(LibraryProducer<Q>),
}

impl<T: Copy + Default, Q: Give<Entry = T>> Writer<T, Q> {
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
            Self::Library(_) => self.extend([value]) == 1,
        }
    }

    /// Writes entries until `values` ends or the ring is full; returns how many.
    /// No value is taken from the iterator that is not written.
    #[inline(always)]
    pub(crate) fn extend(&mut self, values: impl IntoIterator<Item = T>) -> u32 {
        let values = values.into_iter();
        let most = at_most(&values, self.size());
        let room = match self {
            Self::Native(ring) => ring.room(most),
            Self::Library(ring) => ring.room(most),
        };
        // SAFETY: both say that nobody else uses these slots; ours is the only reference to the ring.
        let written = unsafe { write_all(room, values) };
        match self {
            Self::Native(ring) => ring.wrote(written),
            Self::Library(ring) => ring.wrote(written),
        }
        written
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
pub(crate) enum Reader<T, Q: Take<Entry = T>> {
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

    /// The next entries, oldest first and at most `max` (and, through xsk-rs, 64). They are the kernel's
    /// again when the iterator is dropped, all of them.
    #[inline(always)]
    pub(crate) fn drain(&mut self, max: u32) -> Drain<'_, T> {
        match self {
            Self::Native(ring) => ring.drain(max),
            Self::Library(ring) => ring.drain(max),
        }
    }

    /// Hands at most `max` entries to `each`; returns how many. See [`drain`](Self::drain).
    #[cfg(test)]
    pub(crate) fn consume(&mut self, max: u32, each: impl FnMut(T)) -> u32 {
        let entries = self.drain(max);
        let count = entries.len() as u32;
        entries.for_each(each);
        count
    }
}
