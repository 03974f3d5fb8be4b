//! What becomes of packets.

use std::sync::{Arc, Mutex};

use afx::{Batch, MemoryPort, Packet, PortId, Reason, Runtime, Slot, Stage, Verdict, WorkerId};

use crate::support::*;

#[test]
fn a_packet_is_sent_out_of_the_port_that_the_stage_names() {
    let (left, mut left_peer) = MemoryPort::new("left");
    let (right, mut right_peer) = MemoryPort::new("right");
    let mut worker = Runtime::builder()
        .port(left)
        .port(right)
        .pipeline(|build| {
            assert_eq!(build.port("middle"), None);
            let (left, right) = (build.port("left").unwrap(), build.port("right").unwrap());
            assert_eq!((left.index(), right.index()), (0, 1));
            Each(move |batch: &mut Batch| {
                for slot in batch.live() {
                    let mut packet = batch.packet(slot);
                    let other = if packet.ingress() == left { right } else { left };
                    packet.transmit(other);
                }
            })
        })
        .inline()
        .unwrap();
    worker.turn();
    for number in 0..5 {
        assert!(left_peer.send(&numbered(number)));
        assert!(right_peer.send(&numbered(100 + number)));
    }
    worker.turn();
    assert_eq!(numbers(&mut right_peer), [0, 1, 2, 3, 4]);
    assert_eq!(numbers(&mut left_peer), [100, 101, 102, 103, 104]);
    worker.drain();
    let stats = worker.stats();
    let queues: Vec<_> =
        stats.queues().map(|q| (q.port.as_str(), q.received, q.sent, q.sent_bytes)).collect();
    assert_eq!(queues, [("left", 5, 5, 300), ("right", 5, 5, 300)]);
    assert_eq!((stats.received(), stats.sent(), stats.dropped_total()), (10, 10, 0));
    assert_balanced(&mut worker);
}

#[test]
fn a_drop_is_counted_under_its_registered_name() {
    let (mut worker, mut peer) = one_port(|build| {
        let odd = build.drop_reason("parity.odd", "The first byte is odd.");
        let again = build.drop_reason("parity.odd", "The same name is the same reason.");
        assert_eq!(odd, again);
        let even = build.drop_reason("parity.even", "The first byte is even.");
        assert_ne!(odd, even);
        Each(move |batch: &mut Batch| {
            for slot in batch.live() {
                let odd_byte = batch.bytes(slot)[0] % 2 == 1;
                batch.packet(slot).drop(if odd_byte { odd } else { even });
            }
        })
    });
    for number in 0..7 {
        assert!(peer.send(&numbered(number)));
    }
    worker.turn();
    let stats = worker.stats();
    assert_eq!(stats.drops(), [("parity.odd", 3), ("parity.even", 4)]);
    assert_eq!((stats.dropped("parity.odd"), stats.dropped("no_verdict")), (3, 0));
    let reason = stats.reasons.iter().find(|reason| reason.name == "parity.odd").unwrap();
    assert_eq!(reason.sentence, "The first byte is odd.");
    assert_eq!(peer.receive(), None);
    assert_balanced(&mut worker);
}

#[test]
fn what_the_framework_drops_has_reasons_too() {
    type Verdict = fn(Packet<'_>);
    let verdicts: [(&str, Verdict); 4] = [
        ("no_verdict", |_| {}),
        ("no_exception_path", |mut packet| packet.pass()),
        ("hand_over_self", |mut packet| packet.hand_over(WorkerId::new(0))),
        ("hand_over_self", |mut packet| packet.hand_over(WorkerId::new(200))),
    ];
    for (name, verdict) in verdicts {
        let (mut worker, mut peer) = one_port(move |_| {
            Each(move |batch: &mut Batch| batch.live().for_each(|slot| verdict(batch.packet(slot))))
        });
        assert!(peer.send(&numbered(1)) && peer.send(&numbered(2)));
        worker.turn();
        assert_eq!(worker.stats().drops(), [(name, 2)]);
        assert_eq!(worker.stats().sent(), 0);
        assert_balanced(&mut worker);
    }
}

#[test]
fn what_the_port_cannot_take_is_dropped_and_its_frames_come_back() {
    let (mut worker, mut peer) = with_frames(64, 8, |_| Reflect);
    // Three batches, and nobody takes off what is sent: eight packets fill the TX ring.
    let mut sent = 0;
    for number in 0..20 {
        if peer.send(&numbered(number)) {
            sent += 1;
        }
        worker.turn();
    }
    assert_eq!(sent, 20);
    let stats = worker.stats();
    assert_eq!((stats.received(), stats.sent()), (20, 8));
    assert_eq!(stats.drops(), [("tx_full", 12)]);
    assert_eq!(numbers(&mut peer), [0, 1, 2, 3, 4, 5, 6, 7]);
    worker.drain();
    assert_eq!(worker.stats().workers[0].ledger.transmit.outside(), 0);
    assert_balanced(&mut worker);
}

#[test]
fn what_is_no_ethernet_packet_is_not_sent() {
    let (mut worker, mut peer) = one_port(|_| Reflect);
    for len in [0, 1, 13, 14] {
        assert!(peer.send(&vec![len as u8; len]));
    }
    worker.turn();
    assert_eq!(worker.stats().drops(), [("tx_refused", 3)]);
    assert_eq!(numbers(&mut peer), [14]);
    worker.drain();
    assert_balanced(&mut worker);
}

/// Settles all packets, settled or not, in one way.
struct Settle(usize, Reason);

const WAYS: usize = 4;

impl Stage for Settle {
    fn process(&mut self, batch: &mut Batch) {
        for slot in batch.all() {
            let mut packet = batch.packet(slot);
            match self.0 {
                0 => packet.transmit(packet.ingress()),
                1 => packet.drop(self.1),
                2 => packet.pass(),
                _ => packet.hand_over(WorkerId::new(7)),
            }
        }
    }
}

/// Notes what has become of each packet, and of which bytes.
struct Observe(Arc<Mutex<Vec<Verdict>>>);

impl Stage for Observe {
    fn process(&mut self, _: &mut Batch) {}
    fn observe(&mut self, batch: &Batch) {
        let settled = |slot: Slot| {
            assert_eq!(batch.bytes(slot).len(), 60, "dropped packets are still readable");
            batch.verdict(slot)
        };
        self.0.lock().unwrap().extend(batch.all().map(settled));
    }
}

#[test]
fn the_last_verdict_counts_and_is_the_one_observed() {
    for first in 0..WAYS {
        for second in 0..WAYS {
            let seen = Arc::new(Mutex::new(Vec::new()));
            let observer = seen.clone();
            let (mut worker, mut peer) = one_port(move |build| {
                let reason = build.drop_reason("test.told", "The test says so.");
                let settle_first = Each(move |batch: &mut Batch| {
                    Settle(first, reason).process(batch);
                    assert_eq!(batch.live().count(), 0);
                    // A stage is not called where nothing is live: this keeps the next one in business.
                    assert!(batch.create(60).is_some());
                });
                (settle_first, Settle(second, reason), Observe(observer.clone()))
            });
            assert!(peer.send(&numbered(9)));
            worker.turn();
            let (name, sent) = match second {
                0 => (None, 2),
                1 => (Some("test.told"), 0),
                2 => (Some("no_exception_path"), 0),
                _ => (Some("hand_over_self"), 0),
            };
            let stats = worker.stats();
            assert_eq!(stats.sent(), sent, "{first} then {second}");
            assert_eq!(stats.drops(), name.map(|name| (name, 2)).into_iter().collect::<Vec<_>>());
            let verdicts = seen.lock().unwrap().clone();
            let expected = match name {
                None => Verdict::Transmit(PortId::default()),
                Some(name) => {
                    let number = stats.reasons.iter().position(|reason| reason.name == name).unwrap();
                    let Verdict::Drop(reason) = verdicts[0] else { panic!("{verdicts:?}") };
                    assert_eq!(reason.index(), number);
                    Verdict::Drop(reason)
                }
            };
            assert_eq!(verdicts, [expected, expected]);
            assert_eq!(received(&mut peer).len() as u64, sent);
            worker.drain();
            assert_balanced(&mut worker);
        }
    }
}
