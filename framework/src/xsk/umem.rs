//! The memory of the frames: one region, registered with the kernel, shared by
//! all sockets of a worker. xsk-rs maps, populates and registers it.

use std::io;
use std::num::NonZeroU32;
use std::ptr::{self, NonNull};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, OnceLock};

use xsk_rs::FrameDesc;
use xsk_rs::config::{FrameSize, QueueSize, UmemConfig as LibraryConfig};

use crate::mem::Region;

use super::numa::Preferred;
use super::{Error, Mode, sockopt};

/// What a UMEM shall be.
#[derive(Debug, Clone)]
pub(crate) struct UmemConfig {
    /// Frames wanted; more are made where that fills the last huge page.
    pub(crate) frames: u32,
    /// Bytes of a frame: 2048 or 4096.
    pub(crate) frame_size: u32,
    /// Bytes kept free before each received packet, beside the 256 that XDP keeps.
    pub(crate) headroom: u32,
    /// Entries of each socket's fill ring; a power of two.
    pub(crate) fill_entries: u32,
    /// Entries of each socket's completion ring; a power of two.
    pub(crate) completion_entries: u32,
    /// Whether to try huge pages first.
    pub(crate) huge_pages: bool,
    /// The NUMA node to take memory from, if it matters and has any.
    pub(crate) numa_node: Option<u32>,
}

impl Default for UmemConfig {
    fn default() -> Self {
        Self {
            frames: 8192,
            frame_size: 2048,
            headroom: 0,
            fill_entries: 2048,
            completion_entries: 2048,
            huge_pages: true,
            numa_node: None,
        }
    }
}

/// The pages that a UMEM is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub(crate) enum Pages {
    /// Huge pages, each of so many bytes.
    Huge {
        /// Bytes of a page.
        size: usize,
    },
    /// The processor's smallest.
    Normal,
}

/// A registered UMEM. Clones are handles to the same one; it goes, and the
/// queues of its first socket with it, when the last handle and socket do.
#[derive(Debug, Clone)]
pub(crate) struct Umem {
    pub(super) library: xsk_rs::Umem,
    /// Two frames' descriptors as xsk-rs made them: see [`super::library::Mint`].
    pub(super) samples: [FrameDesc; 2],
    /// Said by the first socket bound, for all.
    pub(super) mode: Arc<OnceLock<Mode>>,
    /// Whether packets may have several frames; said by the first socket as well.
    pub(super) multi_buffer: Arc<OnceLock<bool>>,
    /// How many sockets live.
    pub(super) sockets: Arc<AtomicUsize>,
    base: NonNull<u8>,
    pages: Pages,
    config: UmemConfig,
}

const _: fn() = || {
    fn shared_between_threads<T: Send + Sync>() {}
    shared_between_threads::<xsk_rs::Umem>();
};

// SAFETY: the pointer is only handed out, never followed here; xsk-rs's handle is Send and Sync.
unsafe impl Send for Umem {}
// SAFETY: as above.
unsafe impl Sync for Umem {}

// SAFETY: the memory is mapped zeroed, does not move, and goes with the last handle; beside the pool only
// the kernel touches it, in frames lent to it.
unsafe impl Region for Umem {
    fn base(&self) -> NonNull<u8> {
        self.base
    }

    fn len(&self) -> usize {
        self.config.frames as usize * self.config.frame_size as usize
    }
}

impl Umem {
    /// Maps and registers the memory. Every page is present when this returns.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] on a size that cannot work, [`Error::Umem`] when the
    /// kernel refuses. Too few huge pages, or a node without memory, are no
    /// error: see [`pages`](Self::pages) and [`node_of`](super::node_of).
    pub(crate) fn new(config: UmemConfig) -> Result<Self, Error> {
        let library_config = config.check()?;
        let prefer = |node| {
            let said = |error: &io::Error| tracing::info!(node, %error, "no memory of this NUMA node");
            Preferred::new(node).inspect_err(said).ok()
        };
        let _preferred = config.numa_node.and_then(prefer);

        // A size that is no multiple of the page cannot be unmapped.
        let huge = config.huge_pages.then(huge_page_size).flatten().and_then(|size| {
            let per_page = u32::try_from(size).ok()? / config.frame_size;
            let frames = config.frames.checked_next_multiple_of(per_page)?;
            let made = create(library_config, frames, true)
                .inspect_err(|error| tracing::debug!(%error, frames, "no huge pages for the UMEM"))
                .ok()?;
            Some((made, frames, Pages::Huge { size }))
        });
        let ((library, samples), frames, pages) = match huge {
            Some(made) => made,
            None => {
                let made = create(library_config, config.frames, false)
                    .map_err(|source| Error::Umem { step: registering(&source), source })?;
                (made, config.frames, Pages::Normal)
            }
        };
        sockopt::close_all_xdp_sockets_on_exec();
        let base = base(&library, &samples[0]);
        let config = UmemConfig { frames, ..config };
        Ok(Self {
            library,
            samples,
            mode: Arc::default(),
            multi_buffer: Arc::default(),
            sockets: Arc::default(),
            base,
            pages,
            config,
        })
    }

    /// Whether a socket was bound on it: all others do as that one.
    pub(crate) fn is_bound(&self) -> bool {
        self.mode.get().is_some()
    }

    /// Bytes of a frame.
    pub(crate) fn frame_size(&self) -> u32 {
        self.config.frame_size
    }

    /// Frames there are: at least as many as configured.
    pub(crate) fn frames(&self) -> u32 {
        self.config.frames
    }

    /// Bytes before each received packet that neither the kernel nor a driver writes.
    pub(crate) fn headroom(&self) -> u32 {
        self.config.headroom
    }

    /// The pages that it was given.
    pub(crate) fn pages(&self) -> Pages {
        self.pages
    }

    pub(super) fn fill_entries(&self) -> u32 {
        self.config.fill_entries
    }

    pub(super) fn completion_entries(&self) -> u32 {
        self.config.completion_entries
    }
}

/// What is said of a UMEM that the kernel does not take. Two refusals have their known reasons (`xsk_create` in
/// `net/xdp/xsk.c`, `xdp_umem_account_pages` in `xdp_umem.c`).
fn registering(answer: &io::Error) -> &'static str {
    match answer.raw_os_error() {
        Some(libc::EPERM) => "an AF_XDP socket takes CAP_NET_RAW, which this process lacks",
        Some(libc::ENOBUFS) => {
            "they are more than this process may lock in memory: raise RLIMIT_MEMLOCK, or give it CAP_IPC_LOCK"
        }
        _ => "mapping and registering them",
    }
}

impl UmemConfig {
    fn check(&self) -> Result<LibraryConfig, Error> {
        if ![2048, 4096].contains(&self.frame_size) {
            let (value, expected) = (self.frame_size.into(), "the kernel takes 2048 or 4096 bytes");
            return Err(Error::Config { what: "frame size", value, expected });
        }
        if self.frames < 2 {
            let (value, expected) = (self.frames.into(), "there must be two at least");
            return Err(Error::Config { what: "number of frames", value, expected });
        }
        let fill = ring_entries("fill ring entries", self.fill_entries)?;
        let completion = ring_entries("completion ring entries", self.completion_entries)?;
        let mut builder = LibraryConfig::builder();
        builder.fill_queue_size(fill).comp_queue_size(completion).frame_headroom(self.headroom);
        builder.frame_size(FrameSize::new(self.frame_size).expect("2048 or 4096, checked above"));
        builder.build().map_err(|_| Error::Config {
            what: "headroom",
            value: self.headroom.into(),
            expected: "with XDP's 256 bytes it must leave room for a packet in the frame",
        })
    }
}

pub(super) fn ring_entries(what: &'static str, entries: u32) -> Result<QueueSize, Error> {
    let expected = "a ring has a power of two of entries, 2³⁰ at most";
    QueueSize::new(entries).ok().filter(|size| size.get() <= 1 << 30).ok_or(Error::Config {
        what,
        value: entries.into(),
        expected,
    })
}

fn create(config: LibraryConfig, frames: u32, huge: bool) -> io::Result<(xsk_rs::Umem, [FrameDesc; 2])> {
    let frames = NonZeroU32::new(frames).expect("two frames at least, checked before");
    let (umem, all) = xsk_rs::Umem::new(config, frames, huge).map_err(|error| errno(&error))?;
    Ok((umem, [all[0], all[1]]))
}

/// The kernel's answer inside of an error of xsk-rs.
pub(super) fn errno(error: &dyn std::error::Error) -> io::Error {
    let errno = error.source().and_then(|source| source.downcast_ref::<io::Error>()?.raw_os_error());
    errno.map_or_else(|| io::Error::other(error.to_string()), io::Error::from_raw_os_error)
}

/// xsk-rs does not tell where the region begins, but where a frame's data lies.
fn base(umem: &xsk_rs::Umem, sample: &FrameDesc) -> NonNull<u8> {
    // SAFETY: `sample` is a descriptor of this UMEM, and its data is 0 bytes long as yet.
    let data = unsafe { umem.data(sample) }.contents().as_ptr();
    // The slice's pointer may be followed for its own 0 bytes only. The mapping as a whole was exposed
    // when xsk-rs handed its address to libxdp, which gave it to the kernel as an integer.
    let base = ptr::with_exposed_provenance_mut(data.addr() - sample.addr());
    NonNull::new(base).expect("mmap does not answer with the null page")
}

/// Bytes of a huge page of the default size; none if the kernel has none.
fn huge_page_size() -> Option<usize> {
    let info = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = info.lines().find_map(|line| line.strip_prefix("Hugepagesize:"))?;
    let kibibytes: usize = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
#[path = "umem_tests.rs"]
mod tests;
