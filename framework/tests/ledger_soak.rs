//! Many packets with random verdicts on two workers: in the end the counters add up, and every frame is there, once.
//!
//! 10^6 packets in debug builds, 10^8 in release builds, or as many as `AFX_SOAK_PACKETS` says.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use afx::stats::Counter;
use afx::{Batch, Held, MemoryPeer, MemoryPort, Reason, Runtime, Snapshot, Stage, WorkerId};

const FRAMES: usize = 4096;

fn packets() -> u64 {
    let said = std::env::var("AFX_SOAK_PACKETS").ok();
    let default = if cfg!(debug_assertions) { 1_000_000 } else { 100_000_000 };
    said.map_or(default, |number| number.parse().expect("AFX_SOAK_PACKETS is a number"))
}

/// From now on every frame is to be held.
struct Collect;

/// Settles packets at random, then collects all frames.
struct Chaos {
    worker: WorkerId,
    random: u64,
    held: Vec<Held>,
    made: Counter,
    reason: Reason,
    collecting: bool,
    collected: Arc<Mutex<Vec<HashSet<usize>>>>,
    /// Frames that were collected: each is in here once, or there are two tokens for it.
    addresses: HashSet<usize>,
}

impl Chaos {
    fn random(&mut self) -> u64 {
        // xorshift64* (Vigna, 2016).
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 40
    }

    fn scatter(&mut self, batch: &mut Batch) {
        for slot in batch.live() {
            let random = self.random();
            let mut packet = batch.packet(slot);
            match random % 32 {
                0 => self.held.push(packet.hold()),
                1 => drop(packet.hold()),
                2 | 3 => {
                    let made = batch.duplicate(slot).is_some();
                    batch.count(self.made, made.into());
                }
                4 => {
                    let made = batch.create(random as usize % 1800).is_some();
                    batch.count(self.made, made.into());
                }
                5 => packet.pass(),
                6 | 7 => packet.hand_over(WorkerId::new(1 - self.worker.index())),
                8 => packet.drop(self.reason),
                9 => {}
                10 => {
                    packet.pull_front(random as usize % 200);
                    packet.transmit(packet.ingress());
                }
                11 => {
                    packet.push_front(random as usize % 400);
                    packet.transmit(packet.ingress());
                }
                _ => packet.transmit(packet.ingress()),
            }
        }
        while self.held.len() > 256 {
            let index = self.random() as usize % self.held.len();
            match batch.release(self.held.swap_remove(index)) {
                Ok(slot) => {
                    let mut packet = batch.packet(slot);
                    packet.transmit(packet.ingress());
                }
                Err(held) => return self.held.push(held),
            }
        }
    }

    /// Holds what is in the batch and all that is free.
    fn collect(&mut self, batch: &mut Batch) {
        loop {
            for slot in batch.live() {
                self.take(batch, slot);
            }
            match batch.create(0) {
                Some(slot) => {
                    batch.count(self.made, 1);
                    self.take(batch, slot);
                }
                None => break,
            }
        }
        self.collected.lock().unwrap()[self.worker.index()].clone_from(&self.addresses);
    }

    fn take(&mut self, batch: &mut Batch, slot: afx::Slot) {
        let held = batch.hold(slot);
        let frame = held.bytes().as_ptr().addr() / 2048;
        assert!(self.addresses.insert(frame), "frame {frame:#x} is there twice");
        self.held.push(held);
    }
}

impl Stage for Chaos {
    fn process(&mut self, batch: &mut Batch) {
        if self.collecting { self.collect(batch) } else { self.scatter(batch) }
    }

    fn tick(&mut self, batch: &mut Batch) {
        if self.collecting {
            self.collect(batch);
        }
    }

    fn configure(&mut self, snapshot: &Snapshot) {
        if snapshot.of::<Collect>().is_some() {
            self.collecting = true;
            self.addresses.extend(self.held.iter().map(|held| held.bytes().as_ptr().addr() / 2048));
            assert_eq!(self.addresses.len(), self.held.len(), "a held frame is there twice");
        }
    }

    fn drain(&mut self, _: &mut Batch) -> bool {
        // What was collected goes back to the pool, and is not to be collected again.
        self.collecting = false;
        self.held.clear();
        true
    }

    fn creates(&self) -> usize {
        8
    }
}

/// Delivers packets and takes back what was sent; returns how many were delivered.
fn feed(peers: &mut [MemoryPeer], count: u64) -> u64 {
    let mut sent = 0;
    let mut lengths = [60, 64, 590, 1514, 13, 0].into_iter().cycle();
    while sent < count {
        let before = sent;
        for peer in &mut *peers {
            sent += u64::from(peer.null(32, lengths.next().expect("it cycles")));
        }
        if sent == before {
            std::thread::yield_now();
        }
    }
    sent
}

#[test]
fn every_frame_is_there_in_the_end_and_every_packet_accounted_for() {
    let collected = Arc::new(Mutex::new(vec![HashSet::new(); 2]));
    let (port, mut peers) = MemoryPort::with_queues("cable", 2, 512);
    let told = collected.clone();
    let running = Runtime::builder()
        .port(port)
        .workers(2)
        .frames_per_queue(FRAMES)
        .pipeline(move |build| Chaos {
            worker: build.worker(),
            random: 0x9e37_79b9_7f4a_7c15 + build.worker().index() as u64,
            held: Vec::with_capacity(FRAMES),
            made: build.counter("made"),
            reason: build.drop_reason("chaos.drop", "Chance said so."),
            collecting: false,
            collected: told.clone(),
            addresses: HashSet::new(),
        })
        .start()
        .unwrap();
    let mut given = feed(&mut peers, packets());
    assert!(running.stats().balanced());

    // Now every frame is taken in: the free ones by the stages, those being sent when they come back, and those lent
    // for receiving by delivering packets in them.
    let generation = running.publish(Arc::new(Collect)).unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    let full = |sets: &[HashSet<usize>]| sets.iter().all(|frames| frames.len() == FRAMES);
    while !(running.configured(generation) && full(&collected.lock().unwrap())) {
        let counts: Vec<_> = collected.lock().unwrap().iter().map(HashSet::len).collect();
        assert!(std::time::Instant::now() < deadline, "{counts:?} of {FRAMES} frames: {:?}", running.stats());
        given += peers.iter_mut().map(|peer| u64::from(peer.null(64, 60))).sum::<u64>();
        std::thread::yield_now();
    }
    let stats = running.stop().unwrap();
    for worker in &stats.workers {
        let ledger = worker.ledger;
        assert!(ledger.balanced(), "{ledger:?}");
        assert_eq!((ledger.held.outside(), ledger.transmit.outside()), (0, 0), "{ledger:?}");
        assert!(worker.handed_over > 0 && worker.not_created > 0);
    }
    let sum = |count: fn(&afx::stats::WorkerStats) -> u64| stats.workers.iter().map(count).sum::<u64>();
    assert_eq!(stats.received(), given);
    assert_eq!(sum(|worker| worker.handed_over), sum(|worker| worker.taken_over) + stats.dropped("no_frame"));
    assert_eq!(given + stats.counter("made"), stats.sent() + stats.dropped_total(), "{stats:?}");
}
