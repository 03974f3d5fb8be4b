//! One worker is stopped, and the others go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use afx::{Batch, Error, Held, MemoryPeer, MemoryPort, Pipeline, Running, Runtime, Stage, Stats, WorkerId};

use crate::support::*;

/// As many workers as queues, each with one of them.
fn workers<P: Pipeline>(
    count: usize,
    pipeline: impl Fn(WorkerId) -> P + Send + Sync + 'static,
) -> (Running, Vec<MemoryPeer>) {
    let (port, peers) = MemoryPort::with_queues("cable", count, 2048);
    let runtime = Runtime::builder().port(port).workers(count);
    (runtime.pipeline(move |build| pipeline(build.worker())).start().unwrap(), peers)
}

/// Sends packets on a queue and waits until they are back.
fn echo(running: &Running, peer: &mut MemoryPeer, worker: usize, count: u64) {
    let before = running.stats().workers[worker].queues[0].sent;
    for number in 0..count {
        send(peer, &numbered(number as u8));
    }
    let mut back = 0;
    eventually("the packets", || {
        back += received(peer).len() as u64;
        back == count
    });
    eventually("the counters", || running.stats().workers[worker].queues[0].sent == before + count);
}

/// What must hold whatever has happened.
fn assert_adds_up(stats: &Stats) {
    assert!(stats.balanced(), "{stats:?}");
    for worker in &stats.workers {
        assert_eq!((worker.ledger.transmit.outside(), worker.ledger.held.outside()), (0, 0), "{worker:?}");
    }
    let handed_over: u64 = stats.workers.iter().map(|worker| worker.handed_over).sum();
    let taken_over: u64 = stats.workers.iter().map(|worker| worker.taken_over).sum();
    assert_eq!(handed_over, taken_over + stats.dropped("no_frame"), "{stats:?}");
    assert_eq!(stats.received(), stats.sent() + stats.dropped_total(), "{stats:?}");
}

#[test]
fn the_others_go_on_and_its_numbers_stay() {
    let (running, mut peers) = workers(3, |_| Reflect);
    for (worker, peer) in peers.iter_mut().enumerate() {
        echo(&running, peer, worker, 100);
    }
    let first = running.publish(Arc::new(1u32)).unwrap();
    eventually("the configuration", || running.configured(first));

    let last = running.stop_worker(WorkerId::new(1)).unwrap();
    assert!(last.ended && last.ledger.balanced() && last.ledger.transmit.outside() == 0, "{last:?}");
    assert_eq!((last.queues[0].received, last.queues[0].sent), (100, 100));
    for (worker, peer) in peers.iter_mut().enumerate().filter(|(worker, _)| *worker != 1) {
        echo(&running, peer, worker, 500);
    }
    // Not waited for any more.
    for _ in 0..40 {
        let number = running.publish(Arc::new(2u32)).unwrap();
        eventually("the configuration", || running.configured(number));
    }
    let stats = running.stats();
    assert_eq!(stats.workers.iter().map(|worker| worker.ended).collect::<Vec<_>>(), [false, true, false]);
    assert_eq!(stats.queues().map(|queue| queue.received).collect::<Vec<_>>(), [600, 100, 600]);
    assert_eq!(stats.workers[1].generation, first);
    let given_back: Vec<_> = running.memory().iter().map(|memory| memory.given_back).collect();
    assert_eq!(given_back, [false, true, false]);

    // Once is enough, and more does no harm.
    assert_eq!(running.stop_worker(WorkerId::new(1)).unwrap().queues, last.queues);
    let error = running.stop_worker(WorkerId::new(3)).unwrap_err();
    assert_eq!(error.to_string(), "there is no worker 3: they are numbered 0 to 2");
    assert!(!running.ended());
    let stats = running.stop().unwrap();
    assert_eq!(stats.queues().map(|queue| queue.sent).collect::<Vec<_>>(), [600, 100, 600]);
    assert_adds_up(&stats);
}

#[test]
fn the_last_one_ends_the_runtime() {
    let (running, mut peers) = workers(2, |_| Reflect);
    echo(&running, &mut peers[0], 0, 10);
    running.stop_worker(WorkerId::new(0)).unwrap();
    assert!(!running.ended());
    running.stop_worker(WorkerId::new(1)).unwrap();
    assert!(running.ended());
    assert!(matches!(running.publish(Arc::new(1u32)), Err(Error::Stopped)));
    assert_eq!(running.stop_worker(WorkerId::new(0)).unwrap().queues[0].received, 10);
    let stats = running.run_until(|_| panic!("it has ended")).unwrap();
    assert_adds_up(&stats);
}

#[test]
fn it_finishes_what_has_arrived_and_releases_what_is_held() {
    /// Holds everything until the end.
    struct HoldAll(Vec<Held>);
    impl Stage for HoldAll {
        fn process(&mut self, batch: &mut Batch) {
            for slot in batch.live() {
                self.0.push(batch.hold(slot));
            }
        }
        fn drain(&mut self, batch: &mut Batch) -> bool {
            while let Some(held) = self.0.pop() {
                if let Err(held) = batch.release(held) {
                    self.0.push(held);
                    return false;
                }
            }
            true
        }
    }
    let (running, mut peers) = workers(2, |_| (HoldAll(Vec::new()), Reflect));
    for _ in 0..1000 {
        send(&mut peers[1], &numbered(1));
    }
    let (last, sent) = while_collecting(peers, || running.stop_worker(WorkerId::new(1)).unwrap());
    assert_eq!((sent[0].len(), sent[1].len()), (0, 1000));
    assert_eq!((last.ledger.held.issued, last.ledger.held.returned), (1000, 1000));
    assert_adds_up(&running.stop().unwrap());
}

/// Hands over what came to other workers; the worker 0 sends it.
struct ToFirst(WorkerId);

impl Stage for ToFirst {
    fn process(&mut self, batch: &mut Batch) {
        for slot in batch.live() {
            let mut packet = batch.packet(slot);
            match self.0.index() {
                0 => packet.transmit(packet.ingress()),
                _ => packet.hand_over(WorkerId::new(0)),
            }
        }
    }
}

#[test]
fn what_is_handed_over_to_it_is_taken_before_and_dropped_after() {
    for round in 0..20 {
        let (running, peers) = workers(3, ToFirst);
        let stopped = AtomicBool::new(false);
        let mut peers = peers.into_iter();
        let first = peers.next().unwrap();
        let others: Vec<_> = peers.collect();
        let (sent, back) = std::thread::scope(|scope| {
            let (running, stopped) = (&running, &stopped);
            let feed = |mut peer: MemoryPeer, worker: usize| {
                move || {
                    let mut sent = 0u64;
                    // Under way while the first is stopped, and some after that.
                    while !stopped.load(Ordering::Relaxed) || sent < 200 {
                        send(&mut peer, &numbered(1));
                        sent += 1;
                    }
                    (0..20).for_each(|_| send(&mut peer, &numbered(2)));
                    eventually("all", || running.stats().workers[worker].queues[0].received == sent + 20);
                    sent + 20
                }
            };
            let feeds: Vec<_> =
                others.into_iter().zip(1..).map(|(peer, worker)| scope.spawn(feed(peer, worker))).collect();
            eventually("a hand-over", || running.stats().workers[0].taken_over > 0);
            let (_, back) = while_collecting(vec![first], || running.stop_worker(WorkerId::new(0)).unwrap());
            stopped.store(true, Ordering::Relaxed);
            (feeds.into_iter().map(|feed| feed.join().unwrap()).sum::<u64>(), back[0].len() as u64)
        });
        let stats = running.stop().unwrap();
        assert_adds_up(&stats);
        assert_eq!((stats.received(), stats.sent()), (sent, back), "round {round}");
        assert!(stats.dropped("hand_over_stopped") >= 40, "{:?}", stats.drops());
    }
}

#[test]
fn what_waits_for_one_whose_time_is_over_is_counted() {
    /// Hands over to the worker 1, whose first packet takes until it is let go.
    struct Blocking(WorkerId, Arc<[AtomicBool; 2]>);
    impl Stage for Blocking {
        fn process(&mut self, batch: &mut Batch) {
            let [is_blocked, let_go] = &*self.1;
            for slot in batch.live() {
                match self.0.index() {
                    0 => batch.packet(slot).hand_over(WorkerId::new(1)),
                    _ => is_blocked.store(true, Ordering::Release),
                }
            }
            while self.0.index() == 1 && is_blocked.load(Ordering::Acquire) && !let_go.load(Ordering::Acquire)
            {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
    let flags = Arc::new([AtomicBool::new(false), AtomicBool::new(false)]);
    let of_stage = flags.clone();
    let (running, mut peers) = workers(2, move |worker| Blocking(worker, of_stage.clone()));
    send(&mut peers[0], &numbered(0));
    eventually("the first", || flags[0].load(Ordering::Acquire));
    (1..=40).for_each(|number| send(&mut peers[0], &numbered(number)));
    eventually("the others", || running.stats().workers[0].handed_over == 41);
    let stats = std::thread::scope(|scope| {
        // A worker has two seconds for its end.
        scope.spawn(|| {
            std::thread::sleep(Duration::from_secs(4));
            flags[1].store(true, Ordering::Release);
        });
        running.stop().unwrap()
    });
    assert!(stats.balanced(), "{stats:?}");
    assert_eq!((stats.workers[1].taken_over, stats.dropped("no_verdict")), (1, 1));
    assert_eq!(stats.dropped("hand_over_stopped"), 40);
    assert_eq!(stats.received(), stats.dropped_total());
}

/// Panics at a packet that says so, and at the end where told to.
struct Fuse {
    at_the_end: bool,
}

impl Stage for Fuse {
    fn process(&mut self, batch: &mut Batch) {
        for slot in batch.live() {
            assert!(batch.bytes(slot)[0] != 66, "blown");
        }
        Reflect.process(batch);
    }
    fn drain(&mut self, _: &mut Batch) -> bool {
        assert!(!self.at_the_end, "blown at the end");
        true
    }
}

#[test]
fn a_panic_stops_what_is_left() {
    let (running, mut peers) = workers(3, |_| Fuse { at_the_end: false });
    running.stop_worker(WorkerId::new(1)).unwrap();
    send(&mut peers[2], &numbered(66));
    eventually("the end", || running.ended());
    let error = running.stop_worker(WorkerId::new(0)).unwrap_err();
    assert!(matches!(&error, Error::Panicked { worker: 2, message } if message == "blown"), "{error}");
    assert!(running.stop().is_ok(), "told once");
}

#[test]
fn a_panic_of_the_stopped_one_stops_all() {
    let (running, _peers) = workers(2, |worker| Fuse { at_the_end: worker.index() == 1 });
    let error = running.stop_worker(WorkerId::new(1)).unwrap_err();
    assert!(
        matches!(&error, Error::Panicked { worker: 1, message } if message == "blown at the end"),
        "{error}"
    );
    eventually("the end", || running.ended());
    assert!(running.join().is_ok(), "told once");
}
