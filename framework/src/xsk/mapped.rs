//! A socket's rings, mapped a second time beside libxdp's own mapping of them.
//!
//! xsk-rs owns the socket, but calls into C for every descriptor and ring. The
//! memory of the rings can be mapped again from the socket's descriptor, and
//! driven by [`Producer`] and [`Consumer`]; xsk-rs's queues are then kept but
//! never called. Kernels before 6.4 answer EBUSY to that once a socket is bound.

use std::io;
use std::os::fd::RawFd;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use bytemuck::{Pod, Zeroable};

use super::Descriptor;
use super::ring::{Consumer, Memory, Producer};
use super::sockopt;

/// Entries of the four rings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) rx: u32,
    pub(crate) tx: u32,
    pub(crate) fill: u32,
    pub(crate) completion: u32,
}

/// Our ends of the four rings.
pub(super) struct MappedRings {
    pub(super) rx: Consumer<Descriptor>,
    pub(super) tx: Producer<Descriptor>,
    pub(super) fill: Producer<u64>,
    pub(super) completion: Consumer<u64>,
}

impl MappedRings {
    /// Maps the rings of the bound socket `fd`, which nobody has used yet.
    ///
    /// # Safety
    ///
    /// `fd` is an AF_XDP socket with rings of these sizes, and nobody else in
    /// this process touches its rings as long as the result lives.
    ///
    /// # Errors
    ///
    /// The kernel's: EBUSY before 6.4.
    pub(super) unsafe fn new(fd: RawFd, sizes: Sizes) -> io::Result<Self> {
        let MappedMemory { rx, tx, fill, completion } = MappedMemory::new(fd, sizes)?;
        // SAFETY: the pointers lead into mappings that their owners keep, laid out as the kernel says; any
        // bits make a valid entry. The other side is the kernel, which keeps to its side of the cursors;
        // this side is ours alone by the contract of this function.
        unsafe {
            Ok(Self {
                rx: Consumer::new(rx),
                tx: Producer::new(tx),
                fill: Producer::new(fill),
                completion: Consumer::new(completion),
            })
        }
    }
}

/// The memory of the four rings, no side of them taken yet.
pub(crate) struct MappedMemory {
    pub(crate) rx: Memory<Descriptor>,
    pub(crate) tx: Memory<Descriptor>,
    pub(crate) fill: Memory<u64>,
    pub(crate) completion: Memory<u64>,
}

impl MappedMemory {
    pub(crate) fn new(fd: RawFd, sizes: Sizes) -> io::Result<Self> {
        let (offsets, length) = sockopt::read::<Offsets>(fd, libc::SOL_XDP, libc::XDP_MMAP_OFFSETS)?;
        if length != size_of::<Offsets>() {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "the kernel's rings have no flags (before 5.4)",
            ));
        }
        let (fill_at, completion_at) =
            (libc::XDP_UMEM_PGOFF_FILL_RING as i64, libc::XDP_UMEM_PGOFF_COMPLETION_RING as i64);
        Ok(Self {
            rx: map(fd, libc::XDP_PGOFF_RX_RING, &offsets.rx, sizes.rx)?,
            tx: map(fd, libc::XDP_PGOFF_TX_RING, &offsets.tx, sizes.tx)?,
            fill: map(fd, fill_at, &offsets.fill, sizes.fill)?,
            completion: map(fd, completion_at, &offsets.completion, sizes.completion)?,
        })
    }
}

/// `struct xdp_mmap_offsets`: where in each mapping things lie, in bytes.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Offsets {
    rx: RingOffsets,
    tx: RingOffsets,
    fill: RingOffsets,
    completion: RingOffsets,
}

/// `struct xdp_ring_offset`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct RingOffsets {
    producer: u64,
    consumer: u64,
    slots: u64,
    flags: u64,
}

/// Memory mapped from a socket. It keeps the socket bound, closed or not, until unmapped.
struct Mapping {
    base: NonNull<u8>,
    length: usize,
}

// SAFETY: only the address is kept here, for unmapping; whoever follows it answers for that itself.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this is the whole of a mapping made by `map`; the rings that point into it hold this
        // owner, so they are gone.
        let result = unsafe { libc::munmap(self.base.as_ptr().cast(), self.length) };
        debug_assert_eq!(result, 0, "munmap of a ring: {}", io::Error::last_os_error());
    }
}

fn map<T>(fd: RawFd, at: i64, offsets: &RingOffsets, size: u32) -> io::Result<Memory<T>> {
    let length = offsets.slots as usize + size as usize * size_of::<T>();
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping, at an address of the kernel's choice: it replaces nothing.
    let base = unsafe {
        libc::mmap(ptr::null_mut(), length, protection, libc::MAP_SHARED | libc::MAP_POPULATE, fd, at)
    };
    if base == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let base = NonNull::new(base.cast::<u8>()).expect("mmap does not answer with the null page");
    let field = |offset: u64| {
        assert!((offset as usize) < length, "the kernel's offset {offset} lies outside of its ring");
        // SAFETY: inside of the mapping, checked just now.
        unsafe { base.add(offset as usize) }
    };
    Ok(Memory {
        producer: field(offsets.producer).cast(),
        consumer: field(offsets.consumer).cast(),
        flags: field(offsets.flags).cast(),
        slots: field(offsets.slots).cast(),
        size,
        owner: Arc::new(Mapping { base, length }),
    })
}
