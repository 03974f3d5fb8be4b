//! What the card knows of packets: noted before them by the redirect program, read when they are taken off the RX ring.

use std::error::Error as _;

use afx_redirect::{Note, Noting, Redirect, RxMetadata};

use super::XdpPort;
use crate::batch::{Batch, Meta};
use crate::packet::{EtherType, VlanTag};
use crate::time::Time;

impl XdpPort {
    /// Whether the driver is asked what the card knows of each packet, for [`Packet::rx_hash`], [`Packet::timestamp`] and
    /// [`Packet::vlan`]: not, unless said, since it costs some time for each packet.
    ///
    /// It takes Linux 6.3 (with packets longer than a frame 6.7, VLAN tags 6.8), native mode, and no other program that is chained. With
    /// [`RxMetadata::Auto`], the port's status says what there is, or why not; with [`RxMetadata::On`] the start fails
    /// where there is nothing.
    ///
    /// ```no_run
    /// use afx::port::{RxMetadata, Steering, XdpPort};
    ///
    /// let port = XdpPort::new("eth1", Steering::All).rx_metadata(RxMetadata::Auto);
    /// ```
    ///
    /// [`Packet::rx_hash`]: crate::Packet::rx_hash
    /// [`Packet::timestamp`]: crate::Packet::timestamp
    /// [`Packet::vlan`]: crate::Packet::vlan
    pub fn rx_metadata(mut self, rx_metadata: RxMetadata) -> Self {
        self.rx_metadata = rx_metadata;
        self
    }
}

/// The notes before the packets of a queue.
#[derive(Debug, Clone, Copy)]
pub(super) struct Notes {
    mark: u32,
}

impl Notes {
    pub(super) fn new(noting: &Noting) -> Self {
        Self { mark: noting.mark() }
    }

    /// Takes the notes of the packets that were just received. Apart from what receives them, which most ports run
    /// without.
    #[inline(never)]
    pub(super) fn read(self, batch: &mut Batch) {
        batch.read_notes::<{ Note::SIZE }>(|before| Note::take(before, self.mark).map(meta));
    }
}

fn meta(note: Note) -> Meta {
    Meta {
        rx_hash: note.hash,
        timestamp: note.timestamp_ns.map(Time::from_nanos),
        vlan: note.vlan.map(|taken_off| (EtherType(taken_off.ethertype), VlanTag(taken_off.tag))),
        ..Meta::default()
    }
}

/// What the port's status says of it.
pub(super) fn describe(redirect: &Redirect) -> Option<(String, String)> {
    let what = match (redirect.noting(), redirect.no_metadata()) {
        (Some(noting), _) => match noting.kinds() {
            Some(kinds) => kinds.to_string(),
            None => "what the driver has; the kernel (before 6.7) does not say what that is".into(),
        },
        (None, Some(why)) => {
            // The first line: what libbpf has to say may follow.
            let source = why.source().map(ToString::to_string).unwrap_or_default();
            let source = source.lines().next().map_or_else(String::new, |line| format!(": {line}"));
            format!("not available: {why}{source}")
        }
        (None, None) => return None,
    };
    Some(("RX metadata".into(), what))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::batch::{Origin, Reasons, Slot};
    use crate::mem::{Pages, Pool};
    use crate::packet::HashSeed;
    use crate::port::PortId;

    const NOTES: Notes = Notes { mark: 0x1234_5678 };

    /// A batch over so few frames that each is used again and again.
    fn batch() -> Box<Batch> {
        let pool = Pool::new(Arc::new(Pages::new(4 * 2048)), 2048, 256);
        let mut batch = Batch::new(pool, 0, HashSeed(7));
        batch.begin(Time::ZERO, origin());
        batch
    }

    fn origin() -> Origin {
        Origin { port: PortId::new(3), queue: 5, hops: 0 }
    }

    /// Bytes as the redirect program writes them: a hash that says `hash`, and a VLAN tag.
    fn note(hash: u32, mark: u32) -> [u8; Note::SIZE] {
        let mut bytes = [0; Note::SIZE];
        bytes[8..12].copy_from_slice(&hash.to_ne_bytes());
        bytes[14..16].copy_from_slice(&0x2005u16.to_ne_bytes());
        bytes[16..18].copy_from_slice(&0x8100u16.to_be_bytes());
        bytes[18..20].copy_from_slice(&6u16.to_ne_bytes());
        bytes[20..].copy_from_slice(&mark.to_ne_bytes());
        bytes
    }

    /// A packet that has `before` in the bytes before it.
    fn receive(batch: &mut Batch, before: Option<[u8; Note::SIZE]>) -> Slot {
        let slot = batch.create(60).unwrap();
        let mut packet = batch.packet(slot);
        if let Some(before) = before {
            packet.push_front(Note::SIZE).unwrap().copy_from_slice(&before);
            assert!(packet.pull_front(Note::SIZE));
        }
        slot
    }

    fn hashes(batch: &mut Batch) -> Vec<Option<u32>> {
        batch.all().map(|slot| batch.packet(slot).rx_hash().map(|hash| hash.value)).collect()
    }

    #[test]
    fn each_packet_has_its_own_note_and_keeps_where_it_came_from() {
        let mut batch = batch();
        let noted = receive(&mut batch, Some(note(11, NOTES.mark)));
        let bare = receive(&mut batch, None);
        receive(&mut batch, Some(note(22, NOTES.mark)));
        NOTES.read(&mut batch);
        assert_eq!(hashes(&mut batch), [Some(11), None, Some(22)]);
        let packet = batch.packet(noted);
        assert_eq!(packet.vlan(), Some((EtherType::VLAN, VlanTag(0x2005))));
        assert_eq!((packet.timestamp(), packet.origin()), (None, origin()));
        assert_eq!(batch.packet(bare).origin(), origin());
    }

    #[test]
    fn a_packet_without_headroom_has_no_note() {
        let mut batch = batch();
        let slot = receive(&mut batch, Some(note(11, NOTES.mark)));
        let mut packet = batch.packet(slot);
        let headroom = packet.headroom();
        packet.push_front(headroom - Note::SIZE + 1).unwrap().fill(0);
        NOTES.read(&mut batch);
        assert_eq!(hashes(&mut batch), [None]);
    }

    proptest! {
        /// Frames go round with notes, with what another port's program, or whoever else, has left, and with nothing.
        #[test]
        fn what_a_frame_had_before_is_not_told_of_its_next_packet(
            turns in proptest::collection::vec(
                proptest::collection::vec((0u8..3, any::<u32>(), any::<u32>()), 1..=4), 1..40,
            ),
        ) {
            let mut batch = batch();
            for turn in turns {
                let mut expected = Vec::new();
                for (kind, hash, other) in turn {
                    let (before, told) = match kind {
                        0 => (Some(note(hash, NOTES.mark)), Some(hash)),
                        1 => (Some(note(hash, other)), (other == NOTES.mark).then_some(hash)),
                        _ => (None, None),
                    };
                    receive(&mut batch, before);
                    expected.push(told);
                }
                NOTES.read(&mut batch);
                prop_assert_eq!(hashes(&mut batch), expected);
                batch.end(0, &mut [0; Reasons::MAX]);
            }
        }
    }
}
