//! Stages in a row: every form of pipeline, what stages see of each other, and what is counted of them.

use std::sync::{Arc, Mutex};

use afx::mem::cycles;
use afx::packet::{Builder, ParseError, Protocol};
use afx::stage::StageCounters;
use afx::{Batch, MemoryPort, Runtime, Stage, Time};

use crate::support::*;

/// Drops every `n`th packet by its first byte.
struct DropMultiples(u8, afx::Reason);

impl Stage for DropMultiples {
    fn process(&mut self, batch: &mut Batch) {
        for slot in batch.live() {
            if batch.bytes(slot)[0].is_multiple_of(self.0) {
                batch.packet(slot).drop(self.1);
            }
        }
    }
    fn name(&self) -> &'static str {
        if self.0 == 2 { "twos" } else { "threes" }
    }
}

const SENT: [u8; 4] = [1, 5, 7, 11];

fn check(stats: &afx::Stats, names: &[(&str, u64)]) {
    let stages: Vec<_> = stats.workers[0].stages.iter().map(|(name, seen)| (*name, seen.packets)).collect();
    assert_eq!(stages, names);
    assert!(stats.workers[0].stages.iter().all(|(_, seen)| seen.batches == 1 && seen.cycles > 0));
    assert_eq!(stats.drops(), [("multiple", 8)]);
}

#[test]
fn a_tuple_and_a_vector_of_boxes_do_the_same() {
    let (mut tuple, mut tuple_peer) = one_port(|build| {
        let reason = build.drop_reason("multiple", "A multiple of two or three.");
        (DropMultiples(2, reason), DropMultiples(3, reason), Reflect)
    });
    let (mut boxes, mut boxes_peer) = one_port(|build| {
        let reason = build.drop_reason("multiple", "A multiple of two or three.");
        let stages: Vec<Box<dyn Stage>> =
            vec![Box::new(DropMultiples(2, reason)), Box::new(DropMultiples(3, reason)), Box::new(Reflect)];
        stages
    });
    for number in 0..12 {
        assert!(tuple_peer.send(&numbered(number)) && boxes_peer.send(&numbered(number)));
    }
    tuple.turn();
    boxes.turn();
    assert_eq!(numbers(&mut tuple_peer), SENT);
    assert_eq!(numbers(&mut boxes_peer), SENT);
    for stats in [tuple.stats(), boxes.stats()] {
        check(&stats, &[("twos", 12), ("threes", 6), ("Reflect", 4)]);
        assert_eq!(stats.workers[0].batch_sizes, [0, 0, 0, 0, 1, 0, 0], "one batch of 9 to 16");
    }
    tuple.drain();
    boxes.drain();
    assert_balanced(&mut tuple);
    assert_balanced(&mut boxes);
}

#[test]
fn a_single_stage_is_a_pipeline_boxed_or_not() {
    let (mut plain, mut plain_peer) = one_port(|_| Reflect);
    let (mut boxed, mut boxed_peer) = one_port(|_| Box::new(Reflect) as Box<dyn Stage>);
    assert!(plain_peer.send(&numbered(3)) && boxed_peer.send(&numbered(4)));
    assert_eq!((plain.turn(), boxed.turn()), (1, 1));
    assert_eq!((numbers(&mut plain_peer), numbers(&mut boxed_peer)), (vec![3], vec![4]));
    assert_eq!(plain.stats().workers[0].stages[0].0, "Reflect");
    assert_eq!(boxed.stats().workers[0].stages[0].0, "Reflect");
}

#[test]
fn a_stage_with_nothing_to_do_is_not_called() {
    let (mut worker, mut peer) = one_port(|build| {
        let reason = build.drop_reason("multiple", "All are multiples of one.");
        let never = Each(|_: &mut Batch| panic!("nothing is live"));
        (DropMultiples(1, reason), never)
    });
    assert!(peer.send(&numbered(1)));
    worker.turn();
    let seen = &worker.stats().workers[0].stages;
    assert_eq!((seen[0].1.batches, seen[1].1), (1, StageCounters::default()));
}

#[test]
fn eight_stages_each_see_what_the_earlier_ones_did() {
    fn append(number: usize) -> impl Stage {
        Each(move |batch: &mut Batch| {
            for slot in batch.live() {
                let mut packet = batch.packet(slot);
                let bytes = packet.bytes_mut();
                assert_eq!(usize::from(bytes[0]), number);
                bytes[0] += 1;
            }
        })
    }
    let (mut worker, mut peer) =
        one_port(|_| (append(0), append(1), append(2), append(3), append(4), append(5), append(6), Reflect));
    assert!(peer.send(&numbered(0)));
    worker.turn();
    assert_eq!(numbers(&mut peer), [7]);
    assert_eq!(worker.stats().workers[0].stages.len(), 8);
}

#[test]
fn a_packet_is_parsed_again_when_its_bytes_may_have_changed_and_only_then() {
    let (mut worker, mut peer) = one_port(|_| {
        let first = Each(|batch: &mut Batch| {
            for slot in batch.live() {
                let mut packet = batch.packet(slot);
                assert_eq!(packet.parsed().unwrap().protocol(), Some(Protocol::UDP));
                // The TTL and the MAC addresses are none of the parse's business.
                packet.swap_mac_addresses();
                packet.bytes_mut_same_flow()[22] = 5;
                assert_eq!(packet.parsed().unwrap().protocol(), Some(Protocol::UDP));
                let before = packet.parsed().unwrap();
                packet.push_front(20).unwrap().fill(0);
                assert_ne!(packet.parsed(), Ok(before), "another packet by its first bytes");
                assert!(packet.pull_front(20));
                assert_eq!(packet.parsed(), Ok(before));
                assert!(packet.set_len(20));
                assert_eq!(packet.parsed(), Err(ParseError::Ipv4Truncated));
                assert!(packet.set_len(60));
                packet.bytes_mut()[14] = 0x65;
            }
        });
        let second = Each(|batch: &mut Batch| {
            for slot in batch.live() {
                assert_eq!(batch.packet(slot).parsed(), Err(ParseError::Ipv4Version));
            }
        });
        (first, second, Reflect)
    });
    let mut bytes = [0; 60];
    Builder::udp("10.0.0.1:1".parse().unwrap(), "10.0.0.2:2".parse().unwrap())
        .write(&mut bytes, &[0; 18])
        .unwrap();
    assert!(peer.send(&bytes));
    worker.turn();
    assert_eq!(peer.receive().unwrap()[14], 0x65);
    // The next packet in the same slot has its own parse.
    assert!(peer.send(&bytes));
    worker.turn();
    assert_eq!(worker.stats().sent(), 2);
}

#[test]
fn what_a_stage_leaves_with_a_packet_is_there_for_later_ones_and_for_no_other_packet() {
    let (mut worker, mut peer) = one_port(|_| {
        let mark = Each(|batch: &mut Batch| {
            for slot in batch.live() {
                let mut packet = batch.packet(slot);
                assert_eq!(packet.user::<u32>(), None, "a slot does not remember its last packet");
                if packet.bytes()[0].is_multiple_of(2) {
                    let number = u32::from(packet.bytes()[0]);
                    packet.set_user([number, number + 1, number + 2, number + 3]);
                }
            }
        });
        let read = Each(|batch: &mut Batch| {
            for slot in batch.live() {
                let packet = batch.packet(slot);
                let number = u32::from(packet.bytes()[0]);
                let expected = (number % 2 == 0).then_some([number, number + 1, number + 2, number + 3]);
                assert_eq!(packet.user::<[u32; 4]>(), expected);
            }
        });
        (mark, read, Reflect)
    });
    for _ in 0..3 {
        for number in 0..64 {
            assert!(peer.send(&numbered(number)));
        }
        worker.turn();
    }
    assert_eq!(worker.stats().sent(), 192);
}

#[test]
fn application_counters_are_summed_by_name() {
    let (mut worker, mut peer) = one_port(|build| {
        let (bytes, calls) = (build.counter("bytes"), build.counter("calls"));
        assert_eq!(build.counter("bytes"), bytes);
        let count = Each(move |batch: &mut Batch| {
            batch.count(calls, 1);
            for slot in batch.live() {
                let len = batch.bytes(slot).len() as u64;
                batch.count(bytes, len);
            }
        });
        (count, Reflect)
    });
    for number in 0..10 {
        assert!(peer.send(&numbered(number)));
    }
    worker.turn();
    let stats = worker.stats();
    assert_eq!((stats.counter("bytes"), stats.counter("calls"), stats.counter("none")), (600, 1, 0));
}

#[test]
fn all_packets_of_a_batch_have_one_time() {
    let before = Time::monotonic();
    let (mut worker, mut peer) = one_port(move |_| {
        let check = Each(move |batch: &mut Batch| {
            assert!(batch.now() >= before && batch.now() <= Time::monotonic());
            let (first, start) = (batch.now(), cycles());
            while cycles() < start + 10_000 {}
            assert_eq!(batch.now(), first);
        });
        (check, Reflect)
    });
    assert!(peer.send(&numbered(1)));
    worker.turn();
    assert_eq!(numbers(&mut peer), [1]);
}

#[test]
fn a_port_with_a_clock_that_stands_still_says_what_time_it_is() {
    let noon = Time::from_nanos(12 * 60 * 60 * 1_000_000_000);
    let (port, mut peer) = MemoryPort::new("still");
    let seen = Arc::new(Mutex::new(Vec::new()));
    let times = seen.clone();
    let mut worker = Runtime::builder()
        .port(port.at(noon))
        .pipeline(move |_| {
            let times = times.clone();
            Each(move |batch: &mut Batch| times.lock().unwrap().push(batch.now()))
        })
        .inline()
        .unwrap();
    worker.turn();
    for number in 0..3 {
        assert!(peer.send(&numbered(number)));
        worker.turn();
    }
    assert_eq!(*seen.lock().unwrap(), [noon; 3]);
}
