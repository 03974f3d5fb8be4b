//! A worker's packet memory: one region that all its queues share, so that a packet crosses from port
//! to port without being copied.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::mem::{Pages, Pool, Region};
use crate::xsk::umem::Umem;

/// The packet memory of one worker, which ports open their queues on.
#[doc(hidden)]
pub struct Memory {
    region: Arc<dyn Region>,
    umem: Option<Umem>,
    frame_size: usize,
}

impl Memory {
    /// `frames` frames of `frame_size` bytes: a UMEM where a port needs one, else anonymous memory.
    pub(super) fn new(frames: usize, frame_size: usize, umem: bool) -> Result<Self> {
        if umem {
            let umem = Umem::new(frames, frame_size).map_err(|source| Error::Memory {
                what: format!("{frames} frames of {frame_size} bytes"),
                source: source.into(),
            })?;
            let region = umem.region();
            return Ok(Self { region, umem: Some(umem), frame_size });
        }
        Ok(Self { region: Arc::new(Pages::new(frames * frame_size)), umem: None, frame_size })
    }

    pub(crate) fn region(&self) -> &Arc<dyn Region> {
        &self.region
    }

    pub(crate) fn umem(&self) -> Option<&Umem> {
        self.umem.as_ref()
    }

    pub(crate) fn frame_size(&self) -> usize {
        self.frame_size
    }

    /// The frames of this memory, all free, with `headroom` bytes before packets that are created.
    pub(super) fn pool(&self, headroom: usize) -> Pool {
        Pool::new(self.region.clone(), self.frame_size, headroom)
    }
}
