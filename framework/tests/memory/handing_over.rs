//! Packets that go from worker to worker.

use afx::worker::Build;
use afx::{Batch, MemoryPeer, MemoryPort, Pipeline, Running, Runtime, Stage, Stats, WorkerId};

use crate::support::*;

/// Two workers, each with a queue of one port.
fn two_workers<P: Pipeline + 'static>(
    frames: usize,
    ring: u32,
    build: impl Fn(&mut Build<'_>) -> P + Send + Sync + 'static,
) -> (Running, Vec<MemoryPeer>) {
    let (port, peers) = MemoryPort::with_queues("cable", 2, ring);
    let running =
        Runtime::builder().port(port).workers(2).frames_per_queue(frames).pipeline(build).start().unwrap();
    (running, peers)
}

/// Hands over what came to the first worker, and has the second one send it.
struct ToSecond(WorkerId);

impl Stage for ToSecond {
    fn process(&mut self, batch: &mut Batch) {
        for slot in batch.live() {
            let origin = batch.origin(slot);
            let mut packet = batch.packet(slot);
            if self.0.index() == 0 {
                assert_eq!((origin.queue, origin.hops), (0, 0));
                let number = u64::from(packet.bytes()[0]);
                packet.set_user(number);
                packet.hand_over(WorkerId::new(1));
            } else {
                if origin.hops == 1 {
                    assert_eq!(origin.queue, 0, "the queue that the network gave it to");
                    assert_eq!(packet.user::<u64>(), Some(u64::from(packet.bytes()[0])));
                }
                packet.transmit(packet.ingress());
            }
        }
    }
}

/// What must hold whatever has happened.
fn assert_adds_up(stats: &Stats) {
    assert!(stats.balanced(), "{stats:?}");
    let handed_over: u64 = stats.workers.iter().map(|worker| worker.handed_over).sum();
    let taken_over: u64 = stats.workers.iter().map(|worker| worker.taken_over).sum();
    assert_eq!(handed_over, taken_over + stats.dropped("no_frame"), "{stats:?}");
    assert_eq!(stats.received(), stats.sent() + stats.dropped_total(), "{stats:?}");
}

#[test]
fn a_packet_arrives_once_in_order_and_with_its_metadata() {
    let (running, mut peers) = two_workers(8192, 2048, |build| ToSecond(build.worker()));
    let mut first = peers.remove(0);
    let (stats, sent) = while_collecting(peers, || {
        for number in 0..20_000u32 {
            let packet = [&[number as u8][..], &number.to_be_bytes(), &[7; 60]].concat();
            send(&mut first, &packet);
            if number % 32 == 0 {
                // Not faster than workers that share a core can be.
                eventually("the first worker", || {
                    running.stats().dropped_total() > 0 || running.stats().received() + 64 > u64::from(number)
                });
            }
        }
        running.stop().unwrap()
    });
    assert_adds_up(&stats);
    assert_eq!(stats.workers[0].handed_over + stats.dropped("hand_over_full"), 20_000);
    // On a busy machine the collector, too, may be behind.
    let second = &stats.workers[1];
    assert_eq!((second.taken_over, second.handed_over), (stats.sent() + stats.dropped("tx_full"), 0));
    let numbers: Vec<_> =
        sent[0].iter().map(|packet| u32::from_be_bytes(packet[1..5].try_into().unwrap())).collect();
    assert_eq!(numbers.len() as u64, stats.sent());
    assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "in order, none twice");
    assert!(sent[0].iter().all(|packet| packet.len() == 65 && packet[5..] == [7; 60]));
}

#[test]
fn an_inbox_that_is_full_drops_and_counts() {
    let gate = Gate::default();
    let closed = gate.clone();
    let (running, mut peers) = two_workers(8192, 2048, move |build| {
        let (gate, worker) = (closed.clone(), build.worker());
        let stand_still = Each(move |_: &mut Batch| {
            if worker.index() == 1 {
                gate.pass();
            }
        });
        (stand_still, ToSecond(worker))
    });
    send(&mut peers[1], &numbered(200));
    gate.wait_for_someone();
    for number in 0..200 {
        send(&mut peers[0], &numbered(number));
    }
    eventually("the first worker", || running.stats().workers[0].queues[0].received == 200);
    assert_eq!(running.stats().dropped("hand_over_full"), 200 - 64);
    gate.open();
    let (stats, sent) = while_collecting(peers, || running.stop().unwrap());
    assert_adds_up(&stats);
    assert_eq!((stats.workers[0].handed_over, stats.sent()), (64, 65));
    let numbers: Vec<_> = sent[1].iter().map(|packet| packet[0]).filter(|number| *number != 200).collect();
    assert_eq!(numbers, (0..64).collect::<Vec<u8>>());
}

#[test]
fn long_packets_are_handed_over_up_to_a_frames_size() {
    let (running, mut peers) = two_workers(8192, 2048, |build| ToSecond(build.worker()));
    for len in [1792, 1793, 2048, 2049, 9000] {
        send(&mut peers[0], &vec![len as u8; len]);
    }
    eventually("the first worker", || running.stats().received() == 5);
    let (stats, sent) = while_collecting(peers, || running.stop().unwrap());
    assert_adds_up(&stats);
    assert_eq!(stats.drops(), [("hand_over_size", 2)]);
    assert_eq!(sent[1], [1792, 1793, 2048].map(|len: usize| vec![len as u8; len]));
}

#[test]
fn without_a_free_frame_a_packet_is_not_taken_over() {
    let (running, mut peers) = two_workers(64, 64, |build| ToSecond(build.worker()));
    // Once the second worker has this one, it has lent all its other frames for receiving.
    send(&mut peers[1], &numbered(200));
    eventually("the second worker", || running.stats().sent() == 1);
    for number in 0..10 {
        send(&mut peers[0], &numbered(number));
    }
    eventually("the drops", || running.stats().dropped_total() == 10);
    let (stats, sent) = while_collecting(peers, || running.stop().unwrap());
    assert_adds_up(&stats);
    assert_eq!((stats.drops(), stats.workers[1].not_created), (vec![("no_frame", 10)], 0));
    assert_eq!(sent, [vec![], vec![numbered(200)]]);
}

#[test]
fn a_packet_may_be_handed_over_again_and_again() {
    /// Hands over to the other worker until the packet has been so often on its way.
    struct PingPong(WorkerId);
    impl Stage for PingPong {
        fn process(&mut self, batch: &mut Batch) {
            for slot in batch.live() {
                let hops = batch.origin(slot).hops;
                let mut packet = batch.packet(slot);
                let count = packet.user::<u32>().unwrap_or(0);
                assert_eq!(u32::from(hops), count.min(255), "it stays at its largest");
                packet.set_user(count + 1);
                if count == 300 {
                    packet.transmit(packet.ingress());
                } else {
                    packet.hand_over(WorkerId::new(1 - self.0.index()));
                }
            }
        }
    }
    let (running, mut peers) = two_workers(8192, 2048, |build| PingPong(build.worker()));
    send(&mut peers[0], &numbered(1));
    eventually("its way", || running.stats().sent() == 1);
    let (stats, sent) = while_collecting(peers, || running.stop().unwrap());
    assert_adds_up(&stats);
    assert_eq!(sent, [vec![numbered(1)], vec![]], "an even number of hops ends where it began");
    assert_eq!(stats.workers.iter().map(|worker| worker.handed_over).sum::<u64>(), 300);
}

#[test]
fn what_is_on_its_way_when_the_runtime_stops_still_arrives() {
    for round in 0..30 {
        let (running, mut peers) = two_workers(8192, 2048, |build| ToSecond(build.worker()));
        for number in 0..50 {
            send(&mut peers[0], &numbered(number));
        }
        let (stats, sent) = while_collecting(peers, || running.stop().unwrap());
        assert_adds_up(&stats);
        assert_eq!(sent[1].len(), 50, "round {round}: {:?}", stats.drops());
    }
}

#[test]
fn a_worker_sends_only_where_it_has_a_queue() {
    let (wide, mut wide_peers) = MemoryPort::with_queues("wide", 2, 64);
    let (narrow, narrow_peer) = MemoryPort::new("narrow");
    let running = Runtime::builder()
        .port(wide)
        .port(narrow)
        .workers(2)
        .pipeline(|build| {
            let narrow = build.port("narrow").unwrap();
            Each(move |batch: &mut Batch| {
                for slot in batch.live() {
                    batch.packet(slot).transmit(narrow);
                }
            })
        })
        .start()
        .unwrap();
    send(&mut wide_peers[0], &numbered(1));
    send(&mut wide_peers[1], &numbered(2));
    eventually("both", || running.stats().received() == 2);
    let (stats, sent) = while_collecting(vec![narrow_peer], || running.stop().unwrap());
    assert_eq!(sent[0], [numbered(1)]);
    assert_eq!(stats.drops(), [("no_queue", 1)]);
    assert_adds_up(&stats);
}
