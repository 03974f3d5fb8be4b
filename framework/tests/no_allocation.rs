//! A running data path allocates nothing: a test binary of its own, since it counts what its allocator is asked.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use afx::mem::CountingAllocator;
use afx::{Batch, Held, MemoryPort, Runtime, Stage, WorkerId};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

const PACKETS: u64 = 1_000_000;

/// Does with packets all that a stage can: in turn.
struct Everything {
    worker: WorkerId,
    step: u32,
    held: VecDeque<Held>,
    /// Calls of the allocator on this worker's thread when its first packet came, and now.
    first: Option<u64>,
    allocations: Arc<AtomicU64>,
}

impl Stage for Everything {
    fn process(&mut self, batch: &mut Batch) {
        let calls = CountingAllocator::calls();
        let first = *self.first.get_or_insert(calls);
        self.allocations.store(calls - first, Ordering::Relaxed);
        for slot in batch.live() {
            self.step = self.step.wrapping_add(1);
            let foreign = batch.origin(slot).hops > 0;
            let mut packet = batch.packet(slot);
            let _ = packet.parsed();
            match self.step % 8 {
                0 if !foreign => packet.hand_over(WorkerId::new(1 - self.worker.index())),
                1 if self.held.len() < 100 => self.held.push_back(packet.hold()),
                2 => drop(packet.hold()),
                3 => {
                    batch.create(60);
                    let mut packet = batch.packet(slot);
                    packet.transmit(packet.ingress());
                }
                4 => {
                    batch.duplicate(slot);
                }
                5 => {}
                _ => packet.transmit(packet.ingress()),
            }
        }
        if self.held.len() > 50
            && let Some(held) = self.held.pop_front()
            && let Err(held) = batch.release(held)
        {
            self.held.push_front(held);
        }
    }

    fn tick(&mut self, batch: &mut Batch) {
        if let Some(held) = self.held.pop_front() {
            // The batch of a timer is empty.
            let _ = batch.release(held);
        }
    }

    fn drain(&mut self, _: &mut Batch) -> bool {
        self.held.clear();
        true
    }

    fn creates(&self) -> usize {
        16
    }
}

#[test]
fn nothing_is_allocated_while_a_million_packets_are_created_held_and_handed_over() {
    let counts = [Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0))];
    let (port, mut peers) = MemoryPort::with_queues("cable", 2, 2048);
    let told = counts.clone();
    let running = Runtime::builder()
        .port(port)
        .workers(2)
        .pipeline(move |build| Everything {
            worker: build.worker(),
            step: 0,
            held: VecDeque::with_capacity(256),
            first: None,
            allocations: told[build.worker().index()].clone(),
        })
        .start()
        .unwrap();
    let mut sent = 0;
    while sent < PACKETS {
        let before = sent;
        for peer in &mut peers {
            sent += u64::from(peer.null(64, 60));
        }
        if sent == before {
            std::thread::yield_now();
        }
    }
    let stop = std::sync::atomic::AtomicBool::new(false);
    let stats = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for peer in &mut peers {
                    peer.inspect(u32::MAX, |_| ());
                }
                std::thread::yield_now();
            }
        });
        let stats = running.stop().unwrap();
        stop.store(true, Ordering::Relaxed);
        stats
    });
    assert_eq!(stats.received(), sent);
    assert!(stats.balanced(), "{stats:?}");
    for worker in &stats.workers {
        assert!(worker.handed_over > 0 && worker.taken_over > 0, "{worker:?}");
        assert!(worker.ledger.held.issued > 0 && worker.ledger.held.outside() == 0, "{worker:?}");
    }
    let allocations = counts.map(|count| count.load(Ordering::Relaxed));
    assert_eq!(
        allocations,
        [0, 0],
        "calls of the allocator by each worker, from its first packet to its last"
    );
}
