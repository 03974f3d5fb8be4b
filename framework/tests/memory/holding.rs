//! Packets that stages keep over the end of a batch.

use std::collections::VecDeque;

use afx::{Batch, Held, Stage, Verdict};

use crate::support::*;

/// Holds what comes, and releases it when told: by the application's own reasoning, by its timer, or at the end.
#[derive(Default)]
struct Hold {
    held: VecDeque<Held>,
    /// Live packets to be released by the next `process` and `tick`.
    release: usize,
    /// Whether `drain` releases.
    at_end: bool,
    refused: usize,
}

impl Hold {
    fn release(&mut self, batch: &mut Batch, count: usize) {
        for _ in 0..count {
            let Some(held) = self.held.pop_front() else { return };
            match batch.release(held) {
                Ok(slot) => assert_eq!(batch.verdict(slot), Verdict::Live),
                Err(held) => {
                    self.refused += 1;
                    return self.held.push_front(held);
                }
            }
        }
    }
}

impl Stage for Hold {
    fn process(&mut self, batch: &mut Batch) {
        for slot in batch.live() {
            let mut packet = batch.packet(slot);
            if packet.bytes()[0] < 100 {
                let number = u64::from(packet.bytes()[0]);
                packet.set_user(number);
                self.held.push_back(packet.hold());
            }
        }
        self.release(batch, self.release);
    }

    fn tick(&mut self, batch: &mut Batch) {
        self.release(batch, self.release);
    }

    fn drain(&mut self, batch: &mut Batch) -> bool {
        if self.at_end {
            self.release(batch, usize::MAX);
        }
        !self.at_end || self.held.is_empty()
    }
}

/// Checks that a released packet has kept what it was held with.
fn checked(batch: &mut Batch) {
    for slot in batch.live() {
        let packet = batch.packet(slot);
        let number = packet.bytes()[0];
        assert_eq!(packet.user::<u64>(), (number < 100).then_some(u64::from(number)));
        assert_eq!((packet.ingress().index(), packet.origin().queue), (0, 0));
    }
}

#[test]
fn held_packets_are_on_the_ledger_and_come_back_in_a_later_batch() {
    let (mut worker, mut peer) = one_port(|_| (Hold::default(), Each(checked), Reflect));
    for number in 0..5 {
        assert!(peer.send(&numbered(number)));
    }
    worker.turn();
    let stats = worker.stats();
    let held = stats.workers[0].ledger.held;
    assert_eq!((held.issued, held.returned, stats.sent(), stats.dropped_total()), (5, 0, 0, 0));
    assert!(stats.balanced());
    assert_eq!(worker.pipeline().0.held[3].bytes(), numbered(3));
    assert_eq!(worker.pipeline().0.held[3].origin().queue, 0);
    worker.pipeline().0.held[3].bytes_mut()[59] = 33;

    worker.pipeline().0.release = 4;
    assert!(peer.send(&numbered(100)));
    worker.turn();
    let sent = received(&mut peer);
    // A timer may have run before.
    assert!(sent.iter().any(|packet| packet[0] == 100));
    eventually("the others", || {
        worker.turn();
        worker.stats().sent() == 6
    });
    let all: Vec<_> = sent.into_iter().chain(received(&mut peer)).collect();
    assert!(all.iter().all(|packet| packet[59] == if packet[0] == 3 { 33 } else { packet[0] }));
    worker.drain();
    let held = worker.stats().workers[0].ledger.held;
    assert_eq!((held.issued, held.returned), (5, 5));
    assert_balanced(&mut worker);
}

#[test]
fn packets_that_a_timer_releases_go_through_the_later_stages_only() {
    let before = |batch: &mut Batch| {
        for slot in batch.live() {
            batch.packet(slot).bytes_mut()[1] += 1;
        }
    };
    let (mut worker, mut peer) = one_port(move |_| (Each(before), Hold::default(), Each(checked), Reflect));
    for number in 0..8 {
        assert!(peer.send(&numbered(number)));
    }
    worker.turn();
    worker.pipeline().1.release = 3;
    let mut sent = Vec::new();
    eventually("all eight, three a tick", || {
        worker.turn();
        sent.extend(received(&mut peer));
        sent.len() == 8
    });
    for (number, packet) in (0..).zip(&sent) {
        assert_eq!(
            (packet[0], packet[1]),
            (number, number + 1),
            "in order, and once through the first stage"
        );
    }
    let seen: Vec<_> = worker.stats().workers[0].stages.iter().map(|(_, seen)| seen.packets).collect();
    assert_eq!(seen, [8, 8, 8, 8]);
    worker.drain();
    assert_balanced(&mut worker);
}

#[test]
fn a_full_batch_gives_a_held_packet_back() {
    let (mut worker, mut peer) = one_port(|_| (Hold::default(), Reflect));
    assert!(peer.send(&numbered(1)));
    worker.turn();
    worker.pipeline().0.release = 1;
    for _ in 0..64 {
        assert!(peer.send(&numbered(200)));
    }
    // The batch is full of packets that are not held: the one that is waits for the next.
    worker.turn();
    assert_eq!((worker.pipeline().0.refused, worker.stats().workers[0].not_created), (1, 0));
    eventually("its release", || {
        worker.turn();
        worker.stats().sent() == 65
    });
    assert_eq!(numbers(&mut peer).iter().filter(|number| **number == 1).count(), 1);
    worker.drain();
    assert_balanced(&mut worker);
}

#[test]
fn a_held_packet_that_is_let_go_is_a_drop_with_a_reason() {
    let (mut worker, mut peer) = one_port(|_| (Hold::default(), Reflect));
    peer.segment_at(100);
    assert!(peer.send(&numbered(1)) && peer.send(&[2; 250]) && peer.send(&numbered(3)));
    worker.turn();
    assert_eq!(worker.stats().workers[0].ledger.held.outside(), 5, "one packet has three segments");
    worker.pipeline().0.held.truncate(1);
    // Counted at the end of a turn that has a batch.
    assert!(peer.send(&numbered(200)));
    worker.turn();
    let stats = worker.stats();
    assert_eq!(stats.drops(), [("held_discarded", 2)]);
    assert_eq!(stats.workers[0].ledger.held.outside(), 1);
    worker.pipeline().0.held.clear();
    worker.drain();
    let stats = worker.stats();
    assert_eq!((stats.dropped("held_discarded"), stats.workers[0].ledger.held.outside()), (3, 0));
    assert_balanced(&mut worker);
}

#[test]
fn the_end_releases_what_is_held() {
    let (mut worker, mut peer) = one_port(|_| (Hold::default(), Each(checked), Reflect));
    worker.pipeline().0.at_end = true;
    for round in 0..4 {
        for number in 0..50 {
            assert!(peer.send(&numbered(number)), "{round}");
        }
        worker.turn();
    }
    assert_eq!(worker.pipeline().0.held.len(), 200, "more than a batch");
    // A peer takes off what is sent, else the port is never done.
    let mut sent = Vec::new();
    while sent.len() < 200 {
        worker.drain();
        sent.extend(numbers(&mut peer));
    }
    worker.drain();
    let stats = worker.stats();
    assert_eq!((stats.sent(), stats.dropped_total()), (200, 0));
    assert_eq!(stats.workers[0].ledger.held.outside(), 0);
    assert_balanced(&mut worker);
}

#[test]
fn packets_held_until_the_worker_is_gone_do_no_harm() {
    let (mut worker, mut peer) = one_port(|_| (Hold::default(), Reflect));
    assert!(peer.send(&numbered(1)));
    worker.turn();
    let held = worker.pipeline().0.held.pop_front().unwrap();
    assert!(worker.stats().balanced());
    drop(worker);
    assert_eq!(held.bytes(), numbered(1), "its memory is still there");
}

#[test]
#[should_panic(expected = "only a live packet can be held")]
fn a_settled_packet_cannot_be_held() {
    let (mut worker, mut peer) = one_port(|_| {
        Each(|batch: &mut Batch| {
            for slot in batch.live() {
                batch.packet(slot).pass();
                drop(batch.hold(slot));
            }
        })
    });
    assert!(peer.send(&numbered(1)));
    worker.turn();
}

#[test]
#[should_panic(expected = "released by the worker that held it")]
fn a_packet_cannot_be_released_into_another_workers_batch() {
    let (mut one, mut one_peer) = one_port(|_| (Hold::default(), Reflect));
    let (mut other, mut other_peer) = one_port(|_| (Hold::default(), Reflect));
    assert!(one_peer.send(&numbered(1)));
    one.turn();
    let held = one.pipeline().0.held.pop_front().unwrap();
    other.pipeline().0.held.push_back(held);
    other.pipeline().0.release = 1;
    assert!(other_peer.send(&numbered(200)));
    other.turn();
}
