//! What is known of a packet beside its bytes.

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
    pub(crate) rx_hash: Option<u32>,
    /// When the card, or the capture, saw it.
    pub(crate) timestamp: Option<Time>,
    /// The VLAN tag that the card took off.
    pub(crate) vlan: Option<u16>,
}
