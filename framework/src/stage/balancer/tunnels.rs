//! Packets that come to the balancer itself in IPIP or GUE, and are taken out and balanced.

use super::services::ANY;
use super::stage::{Balancer, Refused};
use crate::batch::{Packet, Slot};
use crate::packet::decap::{self, Inner};
use crate::packet::{Parsed, rewrite};

impl Balancer {
    /// Takes a packet out of its tunnel, if it is in one that ends here, and looks at it as if it had come so; but one
    /// that is in another tunnel is not taken out again, however many there are one in the other.
    #[cold]
    pub(super) fn look_inside(&mut self, slot: Slot, packet: &mut Packet<'_>) -> Option<Result<(), Refused>> {
        let tunnels = self.services.tunnels.as_ref()?;
        let parsed = packet.parsed().ok()?;
        let inner = decap::inner(packet.bytes(), &parsed, Some(tunnels.gue_port))?;
        tunnels.ends.find(inner.outer_destination(), 0, ANY)?;
        Some(self.look_at_inner(slot, packet, &parsed, &inner))
    }

    fn look_at_inner(
        &mut self,
        slot: Slot,
        packet: &mut Packet<'_>,
        parsed: &Parsed,
        inner: &Inner,
    ) -> Result<(), Refused> {
        let no_vip = self.reasons.no_vip;
        let end = parsed.ip_range().ok_or(no_vip)?.end;
        if packet.len() > end {
            // What lies behind the outer packet does not belong to the inner one.
            if packet.bytes().len() != packet.len() {
                return Err(self.reasons.trailing.into());
            }
            packet.set_len(end);
        }
        let taken = decap::strip(packet.bytes_mut(), parsed, inner).ok_or(no_vip)?;
        packet.pull_front(taken);
        self.counts.decapsulated += 1;
        let parsed = packet.parsed().map_err(|error| self.reasons.malformed.reason(error))?;
        if rewrite::decrement_ttl(packet.bytes_mut_same_flow(), &parsed).is_none() {
            return Err(self.reasons.ttl_exceeded.into());
        }
        self.look::<true>(slot, packet)
    }
}
