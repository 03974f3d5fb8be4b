//! Writing packets, one after the other.

use std::sync::Arc;

use afx::Time;
use afx::mem::prefetch_read;
use afx::packet::Protocol;
use afx_redirect::traffic::checksum_at;

use crate::signature::{self, Signature};

use super::Traffic;

/// Writes the packets of some traffic in their order.
#[derive(Debug)]
pub(crate) struct Writer {
    traffic: Arc<Traffic>,
    /// What the first flow is called in signatures.
    first: u32,
    /// By flow: the sequence number of its next packet.
    sequences: Vec<u32>,
    place: usize,
}

/// Packets ahead of which headers are asked for: their flows are anywhere in memory.
const AHEAD: usize = 8;

impl Writer {
    /// The writer number `index`, of several that each send all flows: signatures call each one's flows by other numbers.
    pub(crate) fn new(traffic: Arc<Traffic>, index: usize) -> Self {
        let flows = traffic.flows.len();
        Self { first: (index * flows) as u32, sequences: vec![0; flows], traffic, place: 0 }
    }

    /// Bytes of the next packet.
    #[inline(always)]
    pub(crate) fn length(&self) -> usize {
        self.traffic.order[self.place].length.into()
    }

    /// Writes the next packet: all of `out`, which is as long as it.
    #[inline(always)]
    pub(crate) fn write(&mut self, out: &mut [u8], time: Time) {
        let traffic = &*self.traffic;
        let (plan, packet) = (&traffic.plan, traffic.order[self.place]);
        if let Some(ahead) = traffic.order.get(self.place + AHEAD) {
            prefetch_read(&traffic.flows[ahead.flow as usize]);
        }
        self.place += 1;
        if self.place == traffic.order.len() {
            self.place = 0;
        }
        let flow = &traffic.flows[packet.flow as usize];
        let (headers, payload) = out.split_at_mut(plan.headers.into());
        headers.copy_from_slice(&flow.headers[..headers.len()]);
        payload.fill(0);
        if plan.verbatim {
            return;
        }
        let mut signed = 0;
        if plan.signature {
            let sequence = &mut self.sequences[packet.flow as usize];
            let signature = Signature {
                flow: self.first.wrapping_add(flow.number),
                sequence: *sequence,
                time: time.as_nanos(),
            };
            *sequence = sequence.wrapping_add(1);
            let bytes = signature.to_bytes();
            let at = payload.len() - signature::LENGTH;
            payload[at..].copy_from_slice(&bytes);
            signed = words(&bytes);
            if !at.is_multiple_of(2) {
                // Behind an odd number of bytes all of them stand in the other half of their word.
                signed = fold(signed).swap_bytes().into();
            }
        }
        let (l3, l4) = (usize::from(plan.l3), usize::from(plan.l4));
        let (ip_length, length) = (packet.length - plan.l3, packet.length - plan.l4);
        if plan.ipv4 {
            put(headers, l3 + 2, ip_length);
            put(headers, l3 + 10, !fold(u32::from(flow.ip_sum) + u32::from(ip_length)));
        } else {
            put(headers, l3 + 4, ip_length - 40);
        }
        let mut sum = u32::from(flow.transport_sum) + u32::from(fold(signed));
        // ICMP alone has no pseudo-header.
        if plan.protocol != Protocol::ICMP.0 {
            sum += u32::from(length);
        }
        if plan.protocol == Protocol::UDP.0 {
            put(headers, l4 + 4, length);
            sum += u32::from(length);
        }
        let checksum = match !fold(sum) {
            // In UDP zero stands for no checksum (RFC 768).
            0 if plan.protocol == Protocol::UDP.0 => 0xffff,
            checksum => checksum,
        };
        put(headers, l4 + checksum_at(plan.protocol), checksum);
    }
}

#[inline(always)]
fn put(bytes: &mut [u8], at: usize, number: u16) {
    bytes[at..at + 2].copy_from_slice(&number.to_be_bytes());
}

/// The sum of the 16-bit words of a signature.
#[inline(always)]
fn words(bytes: &[u8; signature::LENGTH]) -> u32 {
    bytes.as_chunks::<2>().0.iter().map(|word| u32::from(u16::from_be_bytes(*word))).sum()
}

#[inline(always)]
fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    (sum + (sum >> 16)) as u16
}
