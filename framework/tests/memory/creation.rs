//! Packets that stages make themselves.

use std::time::Duration;

use afx::packet::Builder;
use afx::{Batch, MemoryPort, PortId, Runtime, Stage};

use crate::support::*;

/// Makes as many packets as the port is sure to take, each written whole, and some more than that.
struct Fill {
    next: u8,
    beyond: usize,
}

impl Stage for Fill {
    fn process(&mut self, batch: &mut Batch) {
        assert_eq!(batch.room_to_send(PortId::new(0)), 0, "known between batches alone");
    }
    fn tick(&mut self, batch: &mut Batch) {
        assert_eq!(batch.room_to_send(PortId::new(1)), 0, "there is no such port");
        for _ in 0..batch.room_to_send(PortId::new(0)) + self.beyond {
            let next = self.next;
            let Some(slot) = batch.create_with(60, |bytes| bytes.fill(next)) else { return };
            self.next = next.wrapping_add(1);
            batch.packet(slot).transmit(PortId::new(0));
        }
    }
}

#[test]
fn a_stage_that_asks_for_room_loses_nothing() {
    let (port, mut peers) = MemoryPort::with_queues("cable", 1, 128);
    let runtime = Runtime::builder().port(port).frames_per_queue(1024).tick(Duration::ZERO);
    let mut worker = runtime.pipeline(|_| Fill { next: 0, beyond: 0 }).inline().unwrap();
    let mut seen = Vec::new();
    for turn in 0..200 {
        worker.turn();
        seen.extend((0..turn % 90).map_while(|_| peers[0].receive()));
    }
    worker.drain();
    seen.extend(received(&mut peers[0]));
    for (bytes, number) in seen.iter().zip((0..=u8::MAX).cycle()) {
        assert_eq!(*bytes, numbered(number));
    }
    let stats = worker.stats();
    assert_eq!((stats.sent(), stats.workers[0].not_created), (seen.len() as u64, 0));
    assert!(stats.sent() > 1000);
    assert_eq!(stats.dropped_total(), 0);
    assert_balanced(&mut worker);
}

#[test]
fn what_is_beyond_the_room_is_dropped_and_counted() {
    let (port, mut peers) = MemoryPort::with_queues("cable", 1, 32);
    let runtime = Runtime::builder().port(port).frames_per_queue(1024).tick(Duration::ZERO);
    let mut worker = runtime.pipeline(|_| Fill { next: 0, beyond: 5 }).inline().unwrap();
    worker.turn();
    assert_eq!(numbers(&mut peers[0]), (0..32).collect::<Vec<u8>>());
    assert_eq!(worker.stats().dropped("tx_full"), 5);
    // A batch that brings packets says of no room; nothing settles the packet.
    assert!(peers[0].send(&numbered(1)));
    worker.turn();
    assert_eq!(worker.stats().dropped("no_verdict"), 1);
}

/// Creates so many packets of so many bytes for each that comes.
struct Create {
    packets: usize,
    len: usize,
    reserve: usize,
}

impl Stage for Create {
    fn process(&mut self, batch: &mut Batch) {
        for slot in batch.live() {
            for _ in 0..self.packets {
                if let Some(created) = batch.create(self.len) {
                    assert_ne!(created, slot);
                    let mut packet = batch.packet(created);
                    assert_eq!((packet.len(), packet.headroom()), (self.len, 256));
                    assert!(packet.bytes().iter().all(|byte| *byte == 0));
                    if let Some(first) = packet.bytes_mut().first_mut() {
                        *first = 200;
                    }
                }
            }
        }
    }
    fn creates(&self) -> usize {
        self.reserve
    }
}

#[test]
fn a_created_packet_goes_through_the_later_stages_only() {
    let (mut worker, mut peer) = one_port(|_| (Create { packets: 2, len: 60, reserve: 2 }, Reflect));
    assert!(peer.send(&numbered(1)));
    worker.turn();
    assert_eq!(numbers(&mut peer), [1, 200, 200]);
    let stats = worker.stats();
    assert_eq!((stats.received(), stats.sent(), stats.workers[0].not_created), (1, 3, 0));
    let seen: Vec<_> = stats.workers[0].stages.iter().map(|(_, seen)| seen.packets).collect();
    assert_eq!(seen, [1, 3]);
    worker.drain();
    assert_balanced(&mut worker);
}

#[test]
fn a_full_batch_creates_nothing_and_counts_it() {
    let (mut worker, mut peer) = one_port(|_| (Create { packets: 1, len: 60, reserve: 0 }, Reflect));
    for number in 0..64 {
        assert!(peer.send(&numbered(number)));
    }
    assert_eq!(worker.turn(), 64);
    let stats = worker.stats();
    assert_eq!((stats.sent(), stats.workers[0].not_created), (64, 64));
    worker.drain();
    assert_balanced(&mut worker);
}

#[test]
fn a_stage_that_says_what_it_creates_finds_room() {
    let (mut worker, mut peer) = one_port(|_| (Create { packets: 1, len: 60, reserve: 32 }, Reflect));
    for number in 0..64 {
        assert!(peer.send(&numbered(number)));
    }
    assert_eq!((worker.turn(), worker.turn()), (32, 32));
    let stats = worker.stats();
    assert_eq!((stats.sent(), stats.workers[0].not_created), (128, 0));
    worker.drain();
    assert_balanced(&mut worker);
}

#[test]
fn without_a_free_frame_nothing_is_created_or_duplicated() {
    // All 64 frames are lent for receiving.
    let (mut worker, mut peer) = with_frames(64, 64, |_| {
        let make = Each(|batch: &mut Batch| {
            assert_eq!(batch.free_frames(), 0);
            let first = batch.live().next().unwrap();
            assert_eq!(batch.create(60), None);
            assert_eq!(batch.duplicate(first), None);
        });
        (make, Reflect)
    });
    assert!(peer.send(&numbered(1)) && peer.send(&numbered(2)));
    worker.turn();
    assert_eq!(numbers(&mut peer), [1, 2]);
    assert_eq!(worker.stats().workers[0].not_created, 2);
    worker.drain();
    assert_balanced(&mut worker);
}

#[test]
fn a_packet_longer_than_a_frame_is_not_created() {
    let lengths = [0, 1792, 1793, usize::MAX];
    let (mut worker, mut peer) = one_port(move |build| {
        let done = build.drop_reason("done", "Made, and of no further use.");
        Each(move |batch: &mut Batch| {
            let made = lengths.map(|len| batch.create(len));
            assert_eq!(made.map(|slot| slot.is_some()), [true, true, false, false]);
            for slot in batch.live() {
                batch.packet(slot).drop(done);
            }
        })
    });
    assert!(peer.send(&numbered(1)));
    worker.turn();
    let stats = worker.stats();
    assert_eq!((stats.dropped("done"), stats.workers[0].not_created), (3, 2));
    assert_balanced(&mut worker);
}

#[test]
fn a_duplicate_is_a_packet_of_its_own_with_the_same_bytes_and_metadata() {
    let (mut worker, mut peer) = one_port(|_| {
        let double = Each(|batch: &mut Batch| {
            for slot in batch.live() {
                batch.packet(slot).set_user(77u64);
                let before = batch.packet(slot).parsed();
                let copy = batch.duplicate(slot).unwrap();
                let mut packet = batch.packet(copy);
                assert_eq!((packet.user::<u64>(), packet.parsed()), (Some(77), before));
                assert_eq!(packet.headroom(), 256);
                packet.bytes_mut()[59] = 1;
                assert_eq!(batch.origin(copy), batch.origin(slot));
                assert_eq!(batch.bytes(slot)[59], 9, "the original has its own bytes");
            }
        });
        (double, Reflect)
    });
    let mut bytes = [9; 60];
    Builder::udp("10.0.0.1:1".parse().unwrap(), "10.0.0.2:2".parse().unwrap())
        .write(&mut bytes, &[9; 18])
        .unwrap();
    assert!(peer.send(&bytes));
    worker.turn();
    let sent = received(&mut peer);
    assert_eq!(sent.len(), 2);
    assert_eq!(sent[0], bytes);
    assert_eq!((&sent[1][..59], sent[1][59]), (&bytes[..59], 1));
    worker.drain();
    assert_balanced(&mut worker);
}

#[test]
fn a_timer_sends_packets_of_its_own() {
    struct Beacon(u8);
    impl Stage for Beacon {
        fn process(&mut self, _: &mut Batch) {}
        fn tick(&mut self, batch: &mut Batch) {
            if self.0 < 3 {
                let slot = batch.create(60).unwrap();
                batch.packet(slot).bytes_mut()[0] = self.0;
                self.0 += 1;
            }
        }
    }
    let (mut worker, mut peer) = one_port(|_| (Beacon(0), Reflect));
    let mut seen = Vec::new();
    eventually("three ticks", || {
        worker.turn();
        seen.extend(numbers(&mut peer));
        seen.len() == 3
    });
    assert_eq!(seen, [0, 1, 2]);
    assert_eq!((worker.stats().received(), worker.stats().sent()), (0, 3));
    worker.drain();
    assert_balanced(&mut worker);
}

#[test]
fn what_is_pushed_and_pulled_stays_within_the_frame() {
    let (mut worker, mut peer) = one_port(|_| {
        let push = Each(|batch: &mut Batch| {
            for slot in batch.live() {
                let mut packet = batch.packet(slot);
                assert_eq!((packet.headroom(), packet.tailroom()), (256, 2048 - 256 - 60));
                assert_eq!(packet.push_front(257), None);
                packet.push_front(256).unwrap().fill(8);
                assert_eq!((packet.len(), packet.headroom()), (316, 0));
                assert!(!packet.pull_front(317) && packet.pull_front(200));
                assert!(!packet.set_len(2048 - 200 + 1) && packet.set_len(116));
            }
        });
        (push, Reflect)
    });
    assert!(peer.send(&numbered(1)));
    worker.turn();
    assert_eq!(peer.receive().unwrap(), [vec![8; 56], vec![1; 60]].concat());
    worker.drain();
    assert_balanced(&mut worker);
}
