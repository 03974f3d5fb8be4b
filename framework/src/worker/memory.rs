//! A worker's packet memory: one region that all its queues share, so that a packet crosses from port
//! to port without being copied.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::mem::{PageKind, Pages, Pool, Region};
use crate::port::LongPackets;
use crate::xsk::{self, Umem, UmemConfig};

/// The packet memory of one worker, which ports open their queues on.
#[doc(hidden)]
pub struct Memory {
    region: Arc<dyn Region>,
    huge: bool,
    umem: Option<Umem>,
    wanted: Wanted,
}

/// What a worker's memory is to be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub(super) frames: usize,
    pub(super) frame_size: usize,
    /// Some port needs a UMEM.
    pub(super) umem: bool,
    /// The worker spins, and so may poll the card itself.
    pub(super) busy: bool,
    /// Some port of the worker cannot do zero-copy, and all sockets on a UMEM have the same mode.
    pub(super) copy_only: bool,
    /// Packets longer than a frame that some port of the worker takes.
    pub(super) long: Option<LongPackets>,
}

/// Entries of each socket's fill and completion ring: more than are lent for receiving, or being sent, at
/// any time.
const RING_ENTRIES: u32 = 4096;

impl Memory {
    /// A UMEM where a port needs one, else anonymous memory.
    pub(super) fn new(wanted: Wanted) -> Result<Self> {
        let Wanted { frames, frame_size, umem, .. } = wanted;
        if !umem {
            let pages = Pages::new(frames * frame_size);
            let huge = pages.kind() == PageKind::Huge;
            return Ok(Self { region: Arc::new(pages), huge, umem: None, wanted });
        }
        let config = UmemConfig {
            frames: frames as u32,
            frame_size: frame_size as u32,
            fill_entries: RING_ENTRIES,
            completion_entries: RING_ENTRIES,
            ..UmemConfig::default()
        };
        let umem = Umem::new(config).map_err(|source| Error::Memory {
            what: format!("{frames} frames of {frame_size} bytes"),
            source: source.into(),
        })?;
        let huge = matches!(umem.pages(), xsk::Pages::Huge { .. });
        Ok(Self { region: Arc::new(umem.clone()), huge, umem: Some(umem), wanted })
    }

    pub(super) fn is_on_huge_pages(&self) -> bool {
        self.huge
    }

    pub(crate) fn busy(&self) -> bool {
        self.wanted.busy
    }

    pub(crate) fn copy_only(&self) -> bool {
        self.wanted.copy_only
    }

    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn region(&self) -> &Arc<dyn Region> {
        &self.region
    }

    pub(crate) fn umem(&self) -> Option<&Umem> {
        self.umem.as_ref()
    }

    pub(crate) fn long_packets(&self) -> Option<LongPackets> {
        self.wanted.long
    }

    pub(crate) fn frame_size(&self) -> usize {
        self.wanted.frame_size
    }

    /// Bytes of a packet that a frame takes.
    #[cfg(feature = "pcap")]
    pub(crate) fn room(&self) -> usize {
        self.wanted.frame_size - super::making::HEADROOM
    }

    /// The frames of this memory, all free, with `headroom` bytes before packets that are created.
    pub(super) fn pool(&self, headroom: usize) -> Pool {
        Pool::new(self.region.clone(), self.wanted.frame_size, headroom)
    }
}
