//! How much packet memory there is, and that it is enough.

use afx::{Batch, MemoryPort, PortId, Runtime, Stage};

use crate::support::*;

/// Holds a hundred packets at most.
struct Holder;

impl Stage for Holder {
    fn process(&mut self, _: &mut Batch) {}
    fn holds(&self) -> usize {
        100
    }
}

#[test]
fn there_are_as_many_frames_as_the_rings_hold_and_stages_may() {
    let ports = || {
        let builder = Runtime::builder().port(MemoryPort::with_queues("a", 2, 512).0).workers(2);
        builder.port(MemoryPort::with_queues("b", 2, 64).0)
    };
    let rings = 3 * 512 + 3 * 64 + 4 * 64;
    let planned = ports().memory(0).unwrap();
    let size = (planned.len(), planned[0].frames, planned[1].bytes);
    assert_eq!(size, (2, rings, rings * 2048));

    let running = ports().pipeline(|_| (Holder, Reflect, Holder)).start().unwrap();
    let memory = running.memory();
    assert_eq!(memory.len(), 2);
    assert_eq!((memory[0].frames, memory[1].frame_size), (rings + 200, 2048));
    let text = memory[1].to_string();
    assert!(text.contains("the rings take 2,184 = RX ring 512 + "), "{text}");
    assert!(text.ends_with(" + 4 batches of 64 + held by stages 200"), "{text}");
    for worker in &running.stop().unwrap().workers {
        assert_eq!(worker.ledger.frames, rings as u64 + 200);
        assert!(worker.ledger.balanced());
    }

    let asked = ports().frames_per_queue(64).pipeline(|_| Reflect).start().unwrap();
    assert_eq!(asked.memory()[0].frames, 128);
    asked.stop().unwrap();
}

/// Sends everything to the other port.
struct Across;

impl Stage for Across {
    fn process(&mut self, batch: &mut Batch) {
        for slot in batch.live() {
            let mut packet = batch.packet(slot);
            packet.transmit(PortId::new(1 - packet.ingress().index()));
        }
    }
}

#[test]
fn a_port_that_sends_nothing_takes_no_frame_that_another_receives_into() {
    let (left, mut left_peers) = MemoryPort::with_queues("left", 1, 256);
    let (right, mut right_peers) = MemoryPort::with_queues("right", 1, 256);
    let mut worker = Runtime::builder().port(left).port(right).pipeline(|_| Across).inline().unwrap();
    worker.turn();
    // Nobody takes what the right port sends; what the left one sends arrives.
    for round in 0..100 {
        for number in 0..64 {
            assert!(left_peers[0].send(&numbered(number)), "round {round}: there is a frame to receive into");
        }
        assert!(right_peers[0].send(&numbered(99)));
        worker.turn();
        assert_eq!(numbers(&mut left_peers[0]), [99], "round {round}");
    }
    let stats = worker.stats();
    let ledger = stats.workers[0].ledger;
    // The TX ring of the one that stands still is full, and both have theirs to receive into, but for what is not lent
    // one by one.
    assert!(ledger.transmit.outside() >= 256 && ledger.receive.outside() > 512 - 2 * 32, "{ledger:?}");
    assert_eq!(stats.drops(), [("tx_full", 6400 - 256)]);
    assert!(ledger.balanced());
}

#[test]
fn memory_that_a_worker_uses_is_near_its_core() {
    let (port, _peers) = MemoryPort::with_queues("cable", 1, 64);
    let running = Runtime::builder().port(port).pipeline(|_| Reflect).start().unwrap();
    let memory = running.memory().remove(0);
    // Without NUMA in the kernel there is no answer, and no other memory.
    assert_eq!(memory.node, memory.node.and(memory.worker_node));
    running.stop().unwrap();
}
