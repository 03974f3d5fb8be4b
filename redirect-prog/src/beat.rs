//! The heartbeat's upper half: one word a queue, written by the worker, read by the redirect program.
#![allow(unsafe_code, reason = "maps the memory of a BPF array and shares it with the kernel")]

use std::cell::Cell;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::error::Error;

/// Bytes of a slot: `struct beat` of redirect.bpf.c, one cache line.
pub(crate) const SLOT_SIZE: usize = 64;

/// The sign of life of one queue's worker.
///
/// A worker calls [`beat`](Self::beat) at the end of each turn of its loop. When it has not done so for the stall
/// limit, counted from the first packet redirected after its last beat, the redirect program takes it for
/// stalled. A worker that sleeps because there are no packets need not wake to beat.
#[derive(Debug)]
pub struct Beat {
    beats: Arc<Beats>,
    queue: u32,
    count: Cell<u64>,
}

impl Beat {
    /// Says that the worker is alive: one store, nothing else.
    #[inline]
    pub fn beat(&self) {
        let count = self.count.get().wrapping_add(1);
        self.count.set(count);
        self.beats.slot(self.queue).store(count, Ordering::Relaxed);
    }

    /// The queue whose worker this is.
    pub fn queue(&self) -> u32 {
        self.queue
    }
}

impl Drop for Beat {
    fn drop(&mut self) {
        self.beats.taken[self.queue as usize].store(false, Ordering::Release);
    }
}

/// The mapped array. It outlives the program's loader as long as any [`Beat`] does.
#[derive(Debug)]
pub(crate) struct Beats {
    base: NonNull<u8>,
    length: usize,
    /// One a queue: whether there is a [`Beat`] of it.
    taken: Box<[AtomicBool]>,
}

// SAFETY: the mapping is reached through `slot` only, which hands out shared references to atomics.
unsafe impl Send for Beats {}
// SAFETY: as above.
unsafe impl Sync for Beats {}

impl Beats {
    /// Maps the array of `queues` slots that `map` is.
    pub(crate) fn map(map: BorrowedFd<'_>, queues: u32) -> io::Result<Arc<Self>> {
        let length = queues as usize * SLOT_SIZE;
        // SAFETY: a new mapping at an address of the kernel's choosing touches no memory of this process.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                map.as_raw_fd(),
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        let taken = (0..queues).map(|_| AtomicBool::new(false)).collect();
        Ok(Arc::new(Self { base, length, taken }))
    }

    /// The only [`Beat`] of `queue`, which must be in range.
    pub(crate) fn take(self: &Arc<Self>, queue: u32) -> Result<Beat, Error> {
        if self.taken[queue as usize].swap(true, Ordering::Acquire) {
            return Err(Error::BeatTaken { queue });
        }
        // Goes on where the queue's last worker stopped: the first beat differs from what the program remembers.
        let count = Cell::new(self.slot(queue).load(Ordering::Relaxed));
        Ok(Beat { beats: Arc::clone(self), queue, count })
    }

    #[inline]
    fn slot(&self, queue: u32) -> &AtomicU64 {
        let offset = queue as usize * SLOT_SIZE;
        assert!(offset < self.length, "a Beat is only made for a queue in range");
        // SAFETY: within the mapping, which lives as long as `self`, and 64-byte aligned. The kernel's side, the
        // redirect program, only reads this word, in one load; on this side all access is by atomics. Nobody
        // else has the map: it is neither pinned nor handed out.
        unsafe { AtomicU64::from_ptr(self.base.add(offset).as_ptr().cast()) }
    }
}

impl Drop for Beats {
    fn drop(&mut self) {
        // SAFETY: this is the mapping that `map` made. Every reference into it borrows `self`, so none is left.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.length) };
    }
}
