//! A worker's packet memory: one region that all its queues share, so that a packet crosses from port
//! to port without being copied.

use std::fmt;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::mem::{PageKind, Pages, Pool, Region};
use crate::port::{Grouped, LongPackets};
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
    /// Entries of each socket's fill and completion ring.
    pub(super) fill_entries: u32,
    pub(super) completion_entries: u32,
    /// The NUMA node that the cards are at, where they are at one.
    pub(super) node: Option<u32>,
    /// Some port needs a UMEM.
    pub(super) umem: bool,
    /// The worker spins, and so may poll the card itself.
    pub(super) busy: bool,
    /// Some port of the worker cannot do zero-copy, and all sockets on a UMEM have the same mode.
    pub(super) copy_only: bool,
    /// Packets longer than a frame that some port of the worker takes.
    pub(super) long: Option<LongPackets>,
}

impl Memory {
    /// A UMEM where a port needs one, else anonymous memory.
    pub(super) fn new(wanted: Wanted) -> Result<Self> {
        let Wanted { frames, frame_size, fill_entries, completion_entries, node, umem, .. } = wanted;
        if !umem {
            let pages = Pages::new(frames * frame_size);
            let huge = pages.kind() == PageKind::Huge;
            return Ok(Self { region: Arc::new(pages), huge, umem: None, wanted });
        }
        let config = UmemConfig {
            frames: frames as u32,
            frame_size: frame_size as u32,
            fill_entries,
            completion_entries,
            numa_node: node,
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

    /// What it is, for whoever asks. `reckoning` is what its size comes of.
    pub(super) fn status(&self, reckoning: String) -> MemoryStatus {
        MemoryStatus {
            frames: self.region.len() / self.wanted.frame_size,
            frame_size: self.wanted.frame_size,
            huge_pages: self.huge,
            node: xsk::node_of(self.region.base()),
            worker_node: xsk::current_node(),
            reckoning,
            given_back: false,
        }
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

/// The packet memory of a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryStatus {
    /// How many frames there are.
    pub frames: usize,
    /// Bytes of a frame.
    pub frame_size: usize,
    /// Whether they lie on huge pages.
    pub huge_pages: bool,
    /// The NUMA node that they lie at; None where the kernel does not say.
    pub node: Option<u32>,
    /// The NUMA node of the worker's core.
    pub worker_node: Option<u32>,
    /// What the number of frames comes of: the rings that can be full at once, and what is under way beside.
    pub reckoning: String,
    /// Whether it is not there any more, since its worker has ended.
    pub given_back: bool,
}

impl fmt::Display for MemoryStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { frames, frame_size, huge_pages, node, worker_node, reckoning, given_back } = self;
        let mib = (frames * frame_size) as f64 / f64::from(1 << 20);
        let pages = if *huge_pages { "huge pages" } else { "ordinary pages" };
        write!(f, "{} frames, {mib:.1} MiB on {pages}", Grouped(*frames))?;
        match (node, worker_node) {
            (Some(node), Some(core)) if node != core => {
                write!(f, " of NUMA node {node}, and the worker's core is at node {core}")?;
            }
            (Some(node), _) => write!(f, " of NUMA node {node}")?,
            (None, _) => {}
        }
        write!(f, ": {reckoning}")?;
        if *given_back { f.write_str("; given back, since its worker has ended") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_told_with_where_it_lies_and_what_it_comes_of() {
        let far = MemoryStatus {
            frames: 13_312,
            frame_size: 2048,
            huge_pages: true,
            node: Some(1),
            worker_node: Some(0),
            reckoning: "12,544 or more = …".into(),
            given_back: false,
        };
        assert_eq!(
            far.to_string(),
            "13,312 frames, 26.0 MiB on huge pages of NUMA node 1, and the worker's core is at node 0: 12,544 or more = …"
        );
        let near = MemoryStatus { node: Some(0), huge_pages: false, ..far };
        let words = "13,312 frames, 26.0 MiB on ordinary pages of NUMA node 0: 12,544 or more = …";
        assert_eq!(near.to_string(), words);
        let gone = MemoryStatus { given_back: true, ..near };
        assert_eq!(gone.to_string(), format!("{words}; given back, since its worker has ended"));
    }
}
