//! What is known of a packet beside its bytes.

use afx_redirect::RxHash;

use super::{Batch, Slots};
use crate::mem::prefetch_write;
use crate::packet::{EtherType, VlanTag};
use crate::port::PortId;
use crate::time::Time;

/// Where a packet came from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Origin {
    /// The port that received it.
    pub port: PortId,
    /// The queue of that port.
    pub queue: u16,
    /// How many workers handed it over before it came here.
    pub hops: u8,
}

/// A packet's own metadata, where it differs from its batch's.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Meta {
    pub(crate) origin: Origin,
    /// The card's hash of the flow.
    pub(crate) rx_hash: Option<RxHash>,
    /// When the card, or the capture, saw it.
    pub(crate) timestamp: Option<Time>,
    /// The VLAN tag that the card took off.
    pub(crate) vlan: Option<(EtherType, VlanTag)>,
}

impl Batch {
    /// Has `read` take what is noted in the `N` bytes before each packet: its metadata, but for where it came from.
    ///
    /// In two passes: these bytes are in no cache line of the packet's, and asking for them all at first hides what
    /// waiting for each would take.
    pub(crate) fn read_notes<const N: usize>(&mut self, mut read: impl FnMut(&mut [u8; N]) -> Option<Meta>) {
        for slot in Slots::new(self.occupied) {
            if let Some(before) = self.frames[slot.index()].before_mut::<N>() {
                prefetch_write(before);
            }
        }
        for slot in Slots::new(self.occupied) {
            let before = self.frames[slot.index()].before_mut();
            if let Some(meta) = before.and_then(&mut read) {
                let origin = self.origin(slot);
                self.set_meta(slot, Some(Meta { origin, ..meta }), None);
            }
        }
    }
}
