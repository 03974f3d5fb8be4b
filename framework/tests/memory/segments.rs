//! Packets longer than a frame.

use afx::packet::{Builder, ParseError};
use afx::{Batch, Held, Stage};
use proptest::prelude::*;

use crate::support::*;

/// A packet of `len` bytes that shows when a byte is out of place.
fn long(len: usize) -> Vec<u8> {
    (0..len).map(|index| (index % 251) as u8).collect()
}

#[test]
fn a_packet_of_many_segments_goes_through_whole() {
    let (mut worker, mut peer) = one_port(|_| {
        let check = Each(|batch: &mut Batch| {
            for slot in batch.live() {
                let whole: Vec<u8> = batch.segments(slot).flatten().copied().collect();
                assert_eq!(whole, long(whole.len()));
                assert_eq!(batch.packet(slot).len(), whole.len());
                assert!(batch.bytes(slot).len() <= 1792);
            }
        });
        (check, Reflect)
    });
    let lengths = [1792, 1793, 9000, 60, 3584, 3585];
    for len in lengths {
        assert!(peer.send(&long(len)));
    }
    assert_eq!(worker.turn(), lengths.len());
    let sent = received(&mut peer);
    assert_eq!(sent.iter().map(Vec::len).collect::<Vec<_>>(), lengths);
    assert!(sent.iter().all(|packet| *packet == long(packet.len())));
    let queue = worker.stats().queues().next().cloned().unwrap();
    let total = lengths.iter().sum::<usize>() as u64;
    assert_eq!((queue.received, queue.received_bytes), (6, total));
    assert_eq!((queue.sent, queue.sent_bytes), (6, total));
    worker.drain();
    assert_balanced(&mut worker);
}

#[test]
fn a_full_batch_of_long_packets_is_taken_whole() {
    let (mut worker, mut peer) = one_port(|_| Reflect);
    peer.segment_at(100);
    for _ in 0..70 {
        assert!(peer.send(&long(1000)));
    }
    // A batch takes up to 64 frames, and what has begun to its end.
    let packets: Vec<usize> = (0..10).map(|_| worker.turn()).collect();
    assert_eq!(packets, [7; 10]);
    assert_eq!(received(&mut peer), vec![long(1000); 70]);
    worker.drain();
    assert_balanced(&mut worker);
}

#[test]
fn a_long_packet_is_sent_whole_or_not_at_all() {
    // 16 places in the TX ring: three packets of five segments, and one place more.
    let (mut worker, mut peer) = with_frames(256, 16, |_| Reflect);
    peer.segment_at(100);
    for number in 0..6 {
        assert!(peer.send(&[number; 500]));
        worker.turn();
    }
    let stats = worker.stats();
    assert_eq!((stats.sent(), stats.drops()), (3, vec![("tx_full", 3)]));
    assert_eq!(received(&mut peer), [[0; 500], [1; 500], [2; 500]]);
    worker.drain();
    assert_balanced(&mut worker);
}

#[test]
fn dropped_duplicated_and_discarded_segments_all_come_back() {
    let (mut worker, mut peer) = one_port(|build| {
        let reason = build.drop_reason("told", "The test says so.");
        let work = Each(move |batch: &mut Batch| {
            for slot in batch.live() {
                let copy = batch.duplicate(slot).unwrap();
                let [original, duplicate] =
                    [slot, copy].map(|slot| batch.segments(slot).map(<[u8]>::to_vec).collect::<Vec<_>>());
                assert_eq!(original, duplicate);
                match batch.bytes(slot)[0] {
                    0 => batch.packet(slot).drop(reason),
                    1 => drop(batch.hold(slot)),
                    _ => {}
                }
            }
        });
        (work, Reflect)
    });
    peer.segment_at(64);
    for number in 0..3 {
        assert!(peer.send(&[number; 1000]));
    }
    worker.turn();
    let mut sent = numbers(&mut peer);
    sent.sort_unstable();
    assert_eq!(sent, [0, 1, 2, 2]);
    assert_eq!(worker.stats().drops(), [("held_discarded", 1), ("told", 1)]);
    worker.drain();
    let ledger = worker.stats().workers[0].ledger;
    assert_eq!((ledger.held.outside(), ledger.transmit.outside()), (0, 0));
    assert_balanced(&mut worker);
}

#[test]
fn without_frames_for_all_segments_a_duplicate_is_not_begun() {
    // 64 frames, eight of them lent: 56 are free when the first packet takes none of them.
    let (mut worker, mut peer) = with_frames(64, 64, |_| {
        let double = Each(|batch: &mut Batch| {
            let slot = batch.live().next().unwrap();
            let free = batch.free_frames();
            let copy = batch.duplicate(slot);
            assert_eq!((copy, batch.free_frames()), (None, free));
        });
        (double, Reflect)
    });
    peer.segment_at(64);
    assert!(peer.send(&long(640)));
    worker.turn();
    assert_eq!(peer.receive(), Some(long(640)));
    assert_eq!(worker.stats().workers[0].not_created, 1);
    worker.drain();
    assert_balanced(&mut worker);
}

#[test]
fn held_segments_are_released_in_order() {
    #[derive(Default)]
    struct OneLater(Option<Held>);
    impl Stage for OneLater {
        fn process(&mut self, batch: &mut Batch) {
            for slot in batch.live() {
                let earlier = self.0.replace(batch.hold(slot));
                if let Some(held) = earlier {
                    batch.release(held).unwrap();
                }
            }
        }
    }
    let (mut worker, mut peer) = one_port(|_| (OneLater::default(), Reflect));
    peer.segment_at(100);
    for len in [950, 60, 730] {
        assert!(peer.send(&long(len)));
    }
    worker.turn();
    assert_eq!(received(&mut peer), [long(950), long(60)]);
    assert_eq!(worker.stats().workers[0].ledger.held.outside(), 8);
    worker.pipeline().0.0 = None;
    worker.drain();
    assert_eq!(worker.stats().drops(), [("held_discarded", 1)]);
    assert_balanced(&mut worker);
}

#[test]
fn headers_that_lie_in_the_first_segment_are_parsed_with_the_whole_length() {
    let (mut worker, mut peer) = one_port(|_| {
        let check = Each(|batch: &mut Batch| {
            for slot in batch.live() {
                let mut packet = batch.packet(slot);
                let whole = packet.len() == 1242;
                match packet.parsed() {
                    Ok(_) => assert!(whole),
                    Err(error) => assert_eq!((whole, error), (false, ParseError::Ipv4TotalLength)),
                }
            }
        });
        (check, Reflect)
    });
    peer.segment_at(200);
    let mut bytes = [0; 2000];
    let len = Builder::udp("10.0.0.1:1".parse().unwrap(), "10.0.0.2:2".parse().unwrap())
        .write(&mut bytes, &[7; 1200])
        .unwrap();
    assert!(peer.send(&bytes[..len]) && peer.send(&bytes[..len - 1]));
    assert_eq!(worker.turn(), 2);
    assert_eq!(received(&mut peer).len(), 2);
}

#[test]
fn a_packet_whose_end_comes_later_waits_for_it() {
    let (mut worker, mut peer) = one_port(|_| Reflect);
    peer.segment_at(100);
    let packet = long(1000);
    assert!(peer.send(&[1; 60]) && peer.send_beginning(&packet[..250]));
    assert_eq!(worker.turn(), 1);
    assert_eq!(received(&mut peer), [[1; 60]]);
    // Part by part, and for a while nothing at all.
    assert_eq!(worker.turn(), 0);
    assert!(peer.send_beginning(&packet[250..550]));
    assert_eq!(worker.turn(), 0);
    assert_eq!(worker.stats().workers[0].ledger.held.outside(), 6);
    assert!(worker.stats().workers[0].ledger.balanced());
    assert!(peer.send(&packet[550..]) && peer.send(&[2; 60]));
    assert_eq!(worker.turn(), 2);
    assert_eq!(received(&mut peer), [packet, vec![2; 60]]);
    worker.drain();
    let stats = worker.stats();
    assert_eq!((stats.received(), stats.sent(), stats.dropped_total()), (3, 3, 0));
    assert_eq!(stats.workers[0].ledger.held.outside(), 0);
    assert_balanced(&mut worker);
}

#[test]
fn a_full_ring_of_beginnings_and_ends_mixes_nothing_up() {
    let (mut worker, mut peer) = one_port(|_| Reflect);
    peer.segment_at(50);
    // Of each packet the end comes with the beginning of the next: every turn begins and ends within one.
    let packets: Vec<Vec<u8>> = (0..200usize).map(|number| long(100 + number * 13 % 700)).collect();
    let mut arrived = Vec::new();
    for (number, packet) in packets.iter().enumerate() {
        let cut = 14 + number * 31 % (packet.len() - 14);
        assert!(peer.send_beginning(&packet[..cut]));
        worker.turn();
        arrived.extend(received(&mut peer));
        assert!(peer.send(&packet[cut..]));
    }
    worker.turn();
    arrived.extend(received(&mut peer));
    assert_eq!(arrived, packets);
    worker.drain();
    assert_balanced(&mut worker);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// Packets of all lengths, in segments of all lengths, some of them in parts, with turns in between: what is sent are
    /// the packets that came, whole and in order, but for those that the TX ring had no room for.
    #[test]
    fn what_comes_in_segments_goes_whole_or_is_dropped_whole(
        segment in 14usize..1792,
        packets in prop::collection::vec((14usize..9100, any::<Option<prop::sample::Index>>(), any::<bool>()), 1..40),
    ) {
        let (mut worker, mut peer) = with_frames(4096, 64, |_| Reflect);
        peer.segment_at(segment);
        let (mut came, mut left) = (Vec::new(), Vec::new());
        for (number, (len, cut, turn)) in packets.into_iter().enumerate() {
            // What has begun must end: the ring takes 64 frames, and up to seven may not be lent again at once.
            if len.div_ceil(segment) > 50 {
                continue;
            }
            let mut packet = long(len);
            packet[0] = number as u8;
            let cut = cut.map(|cut| 14 + cut.index(len - 13)).filter(|cut| *cut < len);
            let delivered = match cut {
                None => peer.send(&packet),
                Some(cut) if peer.send_beginning(&packet[..cut]) => {
                    worker.turn();
                    left.extend(received(&mut peer));
                    let ended = peer.send(&packet[cut..]);
                    prop_assert!(ended, "the ring was emptied just now");
                    true
                }
                Some(_) => false,
            };
            if delivered {
                came.push(packet);
            }
            if turn || !delivered {
                worker.turn();
                left.extend(received(&mut peer));
            }
        }
        for _ in 0..70 {
            worker.turn();
            left.extend(received(&mut peer));
        }
        let mut rest = came.iter();
        for packet in &left {
            prop_assert!(rest.any(|came| came == packet), "a packet of {} bytes that never came", packet.len());
        }
        worker.drain();
        let stats = worker.stats();
        prop_assert_eq!(stats.received(), came.len() as u64);
        prop_assert_eq!(stats.sent(), left.len() as u64);
        prop_assert_eq!(stats.received(), stats.sent() + stats.dropped_total());
        let ledger = stats.workers[0].ledger;
        prop_assert!(ledger.balanced() && ledger.held.outside() == 0, "{:?}", ledger);
    }
}
