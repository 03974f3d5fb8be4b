use afx::mem::CountingAllocator;
use afx::packet::Builder;
use afx::{Inline, MemoryPeer, MemoryPort, Runtime};

use super::*;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

const LIMITS: Limits = Limits { flows: 3000, window: 64 };

fn receiver(latency: bool) -> (Inline<Receive>, MemoryPeer, Desk) {
    let (port, peer) = MemoryPort::new("cable");
    let desk = Desk::default();
    let workers = desk.clone();
    let mut worker = Runtime::builder()
        .port(port)
        .tick(std::time::Duration::ZERO)
        .pipeline(move |build| Receive::new(build, LIMITS, latency, &workers))
        .inline()
        .unwrap();
    worker.turn();
    (worker, peer, desk)
}

fn packet(flow: u32, sequence: u32) -> Vec<u8> {
    // All at the same time: later copies would be a sender that has started anew.
    static TIME: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
    let time = *TIME.get_or_init(|| Time::monotonic().as_nanos());
    let udp = Builder::udp("192.0.2.1:4000".parse().unwrap(), "198.51.100.7:9".parse().unwrap());
    let mut bytes = vec![0; 100];
    let payload = Signature { flow, sequence, time }.to_bytes();
    let len = udp.write(&mut bytes, &payload).unwrap();
    bytes.truncate(len);
    bytes
}

#[test]
fn packets_are_counted_by_what_they_are() {
    let (mut worker, mut peer, desk) = receiver(true);
    let padded = [packet(1, 1), vec![0; 40]].concat();
    let mut unsigned = packet(1, 2);
    let mark = unsigned.len() - crate::signature::LENGTH;
    unsigned[mark] = 0;
    let mut malformed = packet(1, 2);
    malformed[14] = 0x43;
    for bytes in [packet(1, 0), padded.clone(), packet(1, 3), packet(1, 3), unsigned, malformed] {
        assert!(peer.send(&bytes));
    }
    worker.turn();
    let stats = worker.stats();
    assert_eq!((stats.dropped(COUNTED), stats.dropped(UNSIGNED)), (4, 1));
    assert_eq!(stats.dropped_total(), 6);
    assert!(stats.drops().iter().any(|(name, count)| name.starts_with("parse.") && *count == 1));
    assert!(stats.balanced());
    drop(worker);
    let summary = desk.result();
    assert_eq!((summary.packets, summary.lost, summary.duplicates), (4, 1, 1));
    assert_eq!(summary.bytes, 3 * packet(1, 0).len() as u64 + padded.len() as u64);
    let latency = summary.latency.percentiles().unwrap();
    assert_eq!((latency.count, summary.latency.out_of_range()), (4, 0));
}

#[test]
fn a_signature_is_found_at_the_end_of_several_segments() {
    let (mut worker, mut peer, desk) = receiver(true);
    peer.segment_at(42);
    assert!(peer.send(&packet(0, 0)));
    worker.turn();
    drop(worker);
    assert_eq!(desk.result().packets, 1);
}

#[test]
fn without_latency_none_is_recorded() {
    let (mut worker, mut peer, desk) = receiver(false);
    assert!(peer.send(&packet(0, 0)));
    worker.turn();
    drop(worker);
    let summary = desk.result();
    assert_eq!((summary.packets, summary.latency.percentiles()), (1, None));
}

#[test]
fn who_asks_while_packets_come_gets_a_copy() {
    let (mut worker, mut peer, desk) = receiver(true);
    for flow in [0, 1500, 2999] {
        assert!(peer.send(&packet(flow, 2)));
    }
    worker.turn();
    desk.ask();
    assert!(desk.answer().is_none(), "the worker has not had its turn");
    let mut turns = 0;
    let summary = loop {
        worker.turn();
        turns += 1;
        if let Some(summary) = desk.answer() {
            break summary;
        }
    };
    assert_eq!(turns, 3, "some flows at a time");
    assert_eq!((summary.packets, summary.lost, summary.flows.len()), (3, 6, 3));
    // Asked again, it has what came since.
    assert!(peer.send(&packet(0, 0)));
    worker.turn();
    desk.ask();
    (0..3).for_each(|_| {
        worker.turn();
    });
    assert_eq!(desk.answer().unwrap().lost, 5);
}

#[test]
fn nothing_is_allocated_while_packets_come() {
    let (mut worker, mut peer, desk) = receiver(true);
    let mut calls = 0;
    for round in 0..1000u32 {
        for flow in 0..60 {
            // In order and not, with gaps and copies, and beyond the limit.
            let sequence = if flow % 2 == 0 { round * 5 } else { round ^ flow };
            assert!(peer.send(&packet(flow * 60, sequence)));
        }
        if round % 10 == 0 {
            desk.ask();
        }
        let before = CountingAllocator::calls();
        worker.turn();
        calls += CountingAllocator::calls() - before;
    }
    assert_eq!(calls, 0);
    drop(worker);
    let summary = desk.result();
    assert_eq!(summary.packets, 60_000);
    assert!(summary.reordered > 0 && summary.lost > 0 && summary.beyond > 0, "{summary:?}");
}
