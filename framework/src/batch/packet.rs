//! One packet of the batch: what a stage reads, changes and settles.

use std::ops::Range;

use afx_redirect::RxHash;
use bytemuck::Pod;

use super::{Batch, Held, Origin, Reason, Slot};
use crate::packet::{self, EtherType, Outcome, ParseError, Parsed, VlanTag};
use crate::port::PortId;
use crate::time::Time;
use crate::worker::WorkerId;

/// A packet in a batch.
pub struct Packet<'b> {
    batch: &'b mut Batch,
    slot: Slot,
}

impl<'b> Packet<'b> {
    #[inline(always)]
    pub(super) fn new(batch: &'b mut Batch, slot: Slot) -> Self {
        Self { batch, slot }
    }

    /// The packet's place in the batch.
    #[inline(always)]
    pub fn slot(&self) -> Slot {
        self.slot
    }

    /// Length in bytes, all segments together.
    #[inline(always)]
    pub fn len(&self) -> usize {
        let head = self.batch.frames[self.slot.index()].len();
        if self.batch.segmented & self.slot.bit() == 0 {
            return head;
        }
        self.batch.segments(self.slot).map(<[u8]>::len).sum()
    }

    /// Whether the packet has no byte.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes of the first segment, which holds all headers.
    #[inline(always)]
    pub fn bytes(&self) -> &[u8] {
        self.batch.bytes(self.slot)
    }

    /// The packet's segments in order; most have one.
    #[inline]
    pub fn segments(&self) -> impl Iterator<Item = &[u8]> {
        self.batch.segments(self.slot)
    }

    /// The bytes of the first segment, to be changed. What was parsed is forgotten; a change that
    /// leaves offsets, protocol and flow as they are may use
    /// [`bytes_mut_same_flow`](Self::bytes_mut_same_flow) and keep it.
    #[inline(always)]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.batch.parsed_known &= !self.slot.bit();
        self.batch.frames[self.slot.index()].bytes_mut()
    }

    /// The bytes of the first segment, to be changed without touching what the parse has found:
    /// addresses, ports, protocol, lengths. MAC addresses and the TTL are such changes.
    #[inline(always)]
    pub fn bytes_mut_same_flow(&mut self) -> &mut [u8] {
        self.batch.frames[self.slot.index()].bytes_mut()
    }

    /// Exchanges source and destination MAC address. Nothing happens to a packet of under 12 bytes.
    #[inline(always)]
    pub fn swap_mac_addresses(&mut self) {
        if let Some(addresses) = self.bytes_mut_same_flow().first_chunk_mut::<12>() {
            let [a, b, c, d, e, f, g, h, i, j, k, l] = *addresses;
            *addresses = [g, h, i, j, k, l, a, b, c, d, e, f];
        }
    }

    /// Offsets, protocol and the flow's hash: worked out at the first call, then kept until the
    /// bytes change.
    ///
    /// # Errors
    /// What is wrong with the packet, where its headers are malformed.
    #[inline(always)]
    pub fn parsed(&mut self) -> Result<Parsed, ParseError> {
        let index = self.slot.index();
        if self.batch.parsed_known & self.slot.bit() == 0 {
            let head = self.batch.frames[index].bytes();
            let Some(parsed) = packet::parse_common(head, self.len(), self.batch.hash_seed) else {
                return parse_uncommon(self.batch, self.slot);
            };
            self.batch.parsed[index] = Outcome::new(Ok(parsed));
            self.batch.parsed_known |= self.slot.bit();
            return Ok(parsed);
        }
        self.batch.parsed[index].result()
    }

    /// Bytes free before the packet.
    #[inline(always)]
    pub fn headroom(&self) -> usize {
        self.batch.frames[self.slot.index()].headroom()
    }

    /// Bytes free after the packet's first segment.
    #[inline(always)]
    pub fn tailroom(&self) -> usize {
        self.batch.frames[self.slot.index()].tailroom()
    }

    /// Puts `count` bytes before the packet and returns them: to be written whole, since they hold
    /// what was there. None, with nothing changed, where the headroom is too small.
    #[inline(always)]
    pub fn push_front(&mut self, count: usize) -> Option<&mut [u8]> {
        let frame = &mut self.batch.frames[self.slot.index()];
        if !frame.push_front(count) {
            return None;
        }
        self.batch.parsed_known &= !self.slot.bit();
        frame.bytes_mut().get_mut(..count)
    }

    /// Takes `count` bytes off the packet's front. False, with nothing changed, where its first
    /// segment is shorter.
    #[inline(always)]
    pub fn pull_front(&mut self, count: usize) -> bool {
        self.batch.parsed_known &= !self.slot.bit();
        self.batch.frames[self.slot.index()].pull_front(count)
    }

    /// Keeps the bytes of `keep`, which lie in the first segment, and puts `front` bytes before them: what it takes to
    /// put a packet into another header, in one step. Returns the packet's first segment, whose first `front` bytes
    /// are to be written, since they hold what was there. None, with nothing changed, where the segment is shorter, or
    /// there is no room before it.
    #[inline(always)]
    pub fn reframe(&mut self, keep: Range<usize>, front: usize) -> Option<&mut [u8]> {
        let frame = &mut self.batch.frames[self.slot.index()];
        if !frame.reframe(keep, front) {
            return None;
        }
        self.batch.parsed_known &= !self.slot.bit();
        Some(frame.bytes_mut())
    }

    /// Sets the length of the first segment; bytes won hold what was there. False, with nothing
    /// changed, where the frame has no room.
    pub fn set_len(&mut self, len: usize) -> bool {
        self.batch.parsed_known &= !self.slot.bit();
        self.batch.frames[self.slot.index()].set_len(len)
    }

    /// The port that received the packet.
    #[inline(always)]
    pub fn ingress(&self) -> PortId {
        // Mostly no packet of a batch has an origin of its own.
        if self.batch.own_meta == 0 { self.batch.origin.port } else { self.origin().port }
    }

    /// Where the packet came from.
    #[inline(always)]
    pub fn origin(&self) -> Origin {
        self.batch.origin(self.slot)
    }

    /// The card's own hash of the flow, where the port [asks for it](crate::port::XdpPort::rx_metadata) and the card
    /// knows it. It costs nothing to work out, and differs from card to card and with the card's key. The hash that any
    /// packet of a flow has is the parse's: [`Parsed::hash`].
    pub fn rx_hash(&self) -> Option<RxHash> {
        self.batch.meta_of(self.slot).and_then(|meta| meta.rx_hash)
    }

    /// When the packet was received: by a capture's timestamps; or by the card's own clock (the PHC, which `phc2sys` may
    /// keep in step with the system's), where the port [asks for it](crate::port::XdpPort::rx_metadata) and the card
    /// tells. It is not comparable with [`Batch::now`], which is read of `CLOCK_MONOTONIC` once for the batch, and is
    /// what there is for packets without.
    pub fn timestamp(&self) -> Option<Time> {
        self.batch.meta_of(self.slot).and_then(|meta| meta.timestamp)
    }

    /// The VLAN tag that the card took off, and its EtherType, where the port
    /// [asks for it](crate::port::XdpPort::rx_metadata): the tag is not in the packet's bytes then. Tags that the card
    /// left are: [`Ethernet::vlan`](crate::packet::Ethernet::vlan).
    ///
    /// ```
    /// use afx::Packet;
    /// use afx::packet::rewrite;
    ///
    /// /// Puts the tag back, for a packet that is to be sent as it came.
    /// fn tag_again(packet: &mut Packet<'_>) -> bool {
    ///     let Some((ethertype, tag)) = packet.vlan() else { return true };
    ///     packet.push_front(4).is_some() && rewrite::push_vlan(packet.bytes_mut(), ethertype, tag)
    /// }
    /// ```
    pub fn vlan(&self) -> Option<(EtherType, VlanTag)> {
        self.batch.meta_of(self.slot).and_then(|meta| meta.vlan)
    }

    /// What an earlier stage has left for later ones by [`set_user`](Self::set_user); None where
    /// nothing was.
    ///
    /// `T` is a plain type of up to 16 bytes, the same for all stages of a pipeline; a larger one does
    /// not compile.
    pub fn user<T: Pod>(&self) -> Option<T> {
        const { assert!(size_of::<T>() <= 16, "a packet's user value has at most 16 bytes") };
        let value = self.batch.user_of(self.slot)?;
        Some(bytemuck::pod_read_unaligned(&bytemuck::bytes_of(&value)[..size_of::<T>()]))
    }

    /// Leaves a value of up to 16 bytes for later stages.
    pub fn set_user<T: Pod>(&mut self, value: T) {
        const { assert!(size_of::<T>() <= 16, "a packet's user value has at most 16 bytes") };
        let mut words = [0u64; 2];
        bytemuck::bytes_of_mut(&mut words)[..size_of::<T>()].copy_from_slice(bytemuck::bytes_of(&value));
        self.batch.set_meta(self.slot, None, Some(words));
    }

    /// To be sent out of `port`.
    #[inline(always)]
    pub fn transmit(&mut self, port: PortId) {
        self.settle();
        self.batch.transmit_to[port.index()] |= self.slot.bit();
    }

    /// To be dropped, for a reason; it stays readable until the turn ends.
    #[inline(always)]
    pub fn drop(&mut self, reason: Reason) {
        self.settle();
        self.batch.dropped |= self.slot.bit();
        self.batch.detail[self.slot.index()] = reason.0;
    }

    /// To be copied to another worker, whose pipeline then sees it from the start. Where that worker's
    /// inbox is full it is dropped as `hand_over_full`.
    #[inline(always)]
    pub fn hand_over(&mut self, worker: WorkerId) {
        self.settle();
        self.batch.handed_over |= self.slot.bit();
        self.batch.detail[self.slot.index()] = worker.0;
    }

    /// To be given to the kernel's network stack. What the kernel is to have is better left to it by
    /// the redirect program; until ports have an exception path, the packet is dropped as
    /// `no_exception_path`.
    #[inline(always)]
    pub fn pass(&mut self) {
        self.settle();
        self.batch.passed |= self.slot.bit();
    }

    /// Takes the packet out of the batch; see [`Batch::hold`].
    pub fn hold(self) -> Held {
        self.batch.hold(self.slot)
    }

    /// A verdict may be changed by a later stage: the last one counts.
    #[inline(always)]
    fn settle(&mut self) {
        let bit = self.slot.bit();
        if self.batch.live & bit != 0 {
            self.batch.live &= !bit;
        } else {
            unsettle(self.batch, self.slot);
        }
    }
}

// What is rare, in functions of their own. They take batch and slot, not the packet: by reference, every packet would have
// to be in memory.

#[inline(never)]
fn parse_uncommon(batch: &mut Batch, slot: Slot) -> Result<Parsed, ParseError> {
    let index = slot.index();
    let len = batch.packet(slot).len();
    let result = packet::parse_any(batch.frames[index].bytes(), len, batch.hash_seed);
    batch.parsed[index] = Outcome::new(result);
    batch.parsed_known |= slot.bit();
    result
}

#[cold]
fn unsettle(batch: &mut Batch, slot: Slot) {
    assert!(batch.occupied & slot.bit() != 0, "there is no packet in this slot: it was held");
    let keep = !slot.bit();
    batch.dropped &= keep;
    batch.handed_over &= keep;
    batch.passed &= keep;
    for mask in &mut batch.transmit_to {
        *mask &= keep;
    }
}
