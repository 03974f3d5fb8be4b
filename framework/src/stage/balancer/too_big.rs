//! Clients are told of packets that are too big, so that they send smaller ones.

use super::definition::TooBig;
use super::rate::TokenBucket;
use super::stage::Balancer;
use crate::Time;
use crate::batch::{Batch, Slot};
use crate::packet::flow_key;
use crate::packet::reply::{ErrorForm, IcmpError};

/// Room for any answer: Ethernet with two VLAN tags, IPv6, ICMPv6, and what is quoted.
const LONGEST: usize = 14 + 8 + 40 + 8 + ErrorForm::BRIEF.quote_v6;

/// How often a worker may still answer.
pub(super) struct Teller {
    settings: TooBig,
    bucket: TokenBucket,
}

impl Teller {
    pub(super) fn new(settings: TooBig) -> Self {
        Self { settings, bucket: TokenBucket::new(settings.per_second, Time::ZERO) }
    }

    /// Takes other settings. A change of something else is no reason to answer more often.
    pub(super) fn configure(&mut self, settings: TooBig) {
        if self.settings != settings {
            *self = Self::new(settings);
        }
    }
}

impl Balancer {
    /// Tells the sender of a packet that it may have `mtu` bytes at most; back over the port that it came from. Nobody
    /// is told of what the RFCs forbid, errors and later fragments for two.
    #[cold]
    pub(super) fn tell_too_big(&mut self, batch: &mut Batch, slot: Slot, mtu: u32) {
        if !self.teller.settings.answer {
            return;
        }
        let Ok(parsed) = batch.packet(slot).parsed() else { return };
        let bytes = batch.bytes(slot);
        // In the name of the VIP: the client believes nobody else, and the balancer's own address is its own affair.
        let Some(flow) = flow_key(bytes, &parsed) else { return };
        let (mut answer, error) = ([0; LONGEST], IcmpError::TooBig { mtu });
        let written = ErrorForm::BRIEF.write(bytes, &parsed, error, flow.destination(), &mut answer);
        let Some(answer) = written.and_then(|len| answer.get(..len)) else { return };
        // Where there is no room for it, it is not counted as said.
        let is_full = batch.all().mask() == u64::MAX;
        let may = !is_full && self.teller.bucket.take(batch.now());
        let Some(created) = may.then(|| batch.create(answer.len())).flatten() else {
            self.counts.too_big_suppressed += 1;
            return;
        };
        let port = batch.origin(slot).port;
        let mut packet = batch.packet(created);
        packet.bytes_mut().copy_from_slice(answer);
        packet.transmit(port);
        self.counts.too_big_answers += 1;
    }
}
