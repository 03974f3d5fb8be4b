//! A runtime and its workers' threads: start, configuration, failure and end.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::ThreadId;

use afx::port::Queue;
use afx::worker::Memory;
use afx::{
    Batch, Error, Held, HugePages, Idle, MemoryPeer, MemoryPort, Port, Runtime, Snapshot, Stage, WorkerId,
};

use crate::support::*;

/// A memory port that notes what it is asked, and fails where it is told to.
struct Watched {
    port: MemoryPort,
    fails_at: &'static str,
    log: Log,
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn note(&self, what: impl Into<String>) {
        self.0.lock().unwrap().push(what.into());
    }
    fn notes(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
    fn last_of(&self, port: &str) -> String {
        let notes = self.notes();
        notes.into_iter().rfind(|note| note.starts_with(port)).unwrap_or_default()
    }
}

impl Watched {
    fn new(name: &str, queues: usize, fails_at: &'static str, log: &Log) -> (Self, Vec<MemoryPeer>) {
        let (port, peers) = MemoryPort::with_queues(name, queues, 2048);
        (Self { port, fails_at, log: log.clone() }, peers)
    }

    fn asked(&self, what: &str) -> afx::Result<()> {
        self.log.note(format!("{} {what}", self.port.name()));
        if what == self.fails_at {
            let port = self.port.name().to_owned();
            return Err(Error::Port { port, what: what.into(), source: "told to fail".into() });
        }
        Ok(())
    }
}

impl Port for Watched {
    fn name(&self) -> &str {
        self.port.name()
    }
    fn prepare(&self, frame_size: usize) -> afx::Result<Vec<u32>> {
        self.asked("prepare").and_then(|()| self.port.prepare(frame_size))
    }
    fn open(&self, queue: u32, memory: &Memory) -> afx::Result<Box<dyn Queue>> {
        self.asked("open").and_then(|()| self.port.open(queue, memory))
    }
    fn attach(&self) -> afx::Result<()> {
        self.asked("attach")
    }
    fn detach(&self) {
        self.log.note(format!("{} detach", self.port.name()));
    }
    fn close(&self, queue: u32) {
        self.log.note(format!("{} close {queue}", self.port.name()));
    }
}

/// Counts how many of it there are.
struct Alive(Arc<AtomicUsize>);

impl Alive {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count.clone())
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Stage for Alive {
    fn process(&mut self, _: &mut Batch) {}
}

#[test]
fn each_worker_has_its_own_pipeline_queue_and_thread() {
    let threads = Log::default();
    let (seen, ready) = (threads.clone(), threads.clone());
    let name = || std::thread::current().name().unwrap_or_default().to_owned();
    let (port, mut peers) = MemoryPort::with_queues("cable", 2, 2048);
    let running = Runtime::builder()
        .port(port)
        .workers(2)
        .on_ready(move |worker| ready.note(format!("{}: {} is ready", name(), worker.index())))
        .pipeline(move |build| {
            seen.note(format!("{}: {} of {}", name(), build.worker().index(), build.workers()));
            assert_eq!(build.ports().map(|(_, name)| name.to_owned()).collect::<Vec<_>>(), ["cable"]);
            Reflect
        })
        .start()
        .unwrap();
    assert_eq!(threads.notes().len(), 4, "each was ready before traffic is let in");
    for number in 0..10 {
        send(&mut peers[0], &numbered(number));
    }
    for number in 100..103 {
        send(&mut peers[1], &numbered(number));
    }
    eventually("all", || running.stats().sent() == 13);
    assert_eq!(running.status()[0].port, "cable");
    let (stats, sent) = while_collecting(peers, || running.stop().unwrap());
    assert_eq!(sent[0], (0..10).map(numbered).collect::<Vec<_>>());
    assert_eq!(sent[1], (100..103).map(numbered).collect::<Vec<_>>());
    let counts: Vec<_> = stats.queues().map(|q| (q.port.as_str(), q.queue, q.received, q.sent)).collect();
    assert_eq!(counts, [("cable", 0, 10, 10), ("cable", 1, 3, 3)]);
    assert!(stats.balanced());
    let mut threads = threads.notes();
    threads.sort();
    assert_eq!(
        threads,
        [
            "afx-worker-0: 0 is ready",
            "afx-worker-0: 0 of 2",
            "afx-worker-1: 1 is ready",
            "afx-worker-1: 1 of 2"
        ]
    );
}

/// A configuration that tells when, and on which thread, it is freed.
struct Config<const KIND: usize> {
    number: u8,
    freed: Arc<Mutex<Vec<(usize, u8, ThreadId)>>>,
}

impl<const KIND: usize> Drop for Config<KIND> {
    fn drop(&mut self) {
        self.freed.lock().unwrap().push((KIND, self.number, std::thread::current().id()));
    }
}

/// Writes the number of the configuration in force into packets.
#[derive(Default)]
struct Stamp {
    first: Option<Arc<Config<1>>>,
    second: Option<Arc<Config<2>>>,
}

impl Stage for Stamp {
    fn process(&mut self, batch: &mut Batch) {
        for slot in batch.live() {
            let mut packet = batch.packet(slot);
            packet.bytes_mut()[1] = self.first.as_ref().map_or(0, |config| config.number);
            packet.bytes_mut()[2] = self.second.as_ref().map_or(0, |config| config.number);
            packet.transmit(packet.ingress());
        }
    }
    fn configure(&mut self, snapshot: &Snapshot) {
        self.first = snapshot.of().or(self.first.take());
        self.second = snapshot.of().or(self.second.take());
    }
}

#[test]
fn a_configuration_is_taken_by_all_workers_and_freed_by_the_control_side() {
    let (port, mut peers) = MemoryPort::with_queues("cable", 2, 2048);
    let running = Runtime::builder().port(port).workers(2).pipeline(|_| Stamp::default()).start().unwrap();
    let freed = Arc::new(Mutex::new(Vec::new()));
    let numbers =
        || freed.lock().unwrap().iter().map(|(kind, number, _)| (*kind, *number)).collect::<Vec<_>>();
    let first = |number| Arc::new(Config::<1> { number, freed: freed.clone() });
    let second = |number| Arc::new(Config::<2> { number, freed: freed.clone() });
    let in_force = |generation| eventually("the configuration", || running.configured(generation));
    let mut stamps = || {
        std::array::from_fn(|queue| {
            send(&mut peers[queue], &numbered(9));
            let mut packet = None;
            eventually("the packet", || {
                packet = peers[queue].receive();
                packet.is_some()
            });
            let packet: Vec<u8> = packet.unwrap();
            (packet[1], packet[2])
        })
    };

    assert_eq!(stamps(), [(0, 0); 2]);
    in_force(running.publish(first(1)).unwrap());
    assert_eq!(stamps(), [(1, 0); 2]);
    // Others of another type do not replace it: it is in use until a later one of its own is.
    for number in 1..=3 {
        in_force(running.publish(second(number)).unwrap());
        assert_eq!(stamps(), [(1, number); 2]);
    }
    assert_eq!(numbers(), [(2, 1), (2, 2)]);
    in_force(running.publish(first(2)).unwrap());
    assert_eq!(stamps(), [(2, 3); 2]);
    assert_eq!(numbers(), [(2, 1), (2, 2), (1, 1)]);
    // Without waiting between.
    for number in 3..10 {
        running.publish(first(number)).unwrap();
    }
    let last = running.publish(second(4)).unwrap();
    in_force(last);
    assert_eq!(stamps(), [(9, 4); 2]);
    assert!(!running.configured(last + 1));

    let stats = running.stop().unwrap();
    assert!(stats.workers.iter().all(|worker| worker.generation == last));
    assert!(stats.balanced());
    let freed = freed.lock().unwrap();
    assert_eq!(freed.len(), 13, "all of them");
    assert!(freed.iter().all(|(_, _, thread)| *thread == std::thread::current().id()), "{freed:?}");
}

#[test]
fn a_worker_that_stands_still_makes_publishing_fail_for_all() {
    let gate = Gate::default();
    let closed = gate.clone();
    let (port, mut peers) = MemoryPort::with_queues("cable", 2, 2048);
    let running = Runtime::builder()
        .port(port)
        .workers(2)
        .pipeline(move |_| {
            let gate = closed.clone();
            (Each(move |_: &mut Batch| gate.pass()), Reflect)
        })
        .start()
        .unwrap();
    send(&mut peers[1], &numbered(1));
    gate.wait_for_someone();
    let published = 15;
    for number in 1..=published {
        assert_eq!(running.publish(Arc::new(5u32)).unwrap(), number);
        eventually("the other worker", || running.stats().workers[0].generation == number);
    }
    let error = running.publish(Arc::new(5u32)).unwrap_err();
    assert!(matches!(error, Error::Busy { worker: 1, waiting: 15 }), "{error}");
    assert!(!running.configured(1));
    gate.open();
    eventually("the configurations", || running.configured(published));
    assert_eq!(running.publish(Arc::new(6u32)).unwrap(), published + 1, "what failed took no number");
    let (stats, _) = while_collecting(peers, || running.stop().unwrap());
    assert!(stats.workers.iter().all(|worker| worker.generation == published + 1));
}

#[test]
fn stopping_finishes_what_has_arrived_and_releases_what_is_held() {
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
    let (port, mut peers) = MemoryPort::with_queues("cable", 1, 2048);
    let running = Runtime::builder().port(port).pipeline(|_| (HoldAll(Vec::new()), Reflect)).start().unwrap();
    for _ in 0..1000 {
        send(&mut peers[0], &numbered(1));
    }
    let (stats, sent) = while_collecting(peers, || running.stop().unwrap());
    assert_eq!(sent[0].len(), 1000);
    assert_eq!((stats.received(), stats.sent(), stats.dropped_total()), (1000, 1000, 0));
    let ledger = stats.workers[0].ledger;
    assert_eq!((ledger.held.issued, ledger.held.returned, ledger.transmit.outside()), (1000, 1000, 0));
    assert!(stats.balanced());
}

#[test]
fn a_panic_in_a_stage_stops_everything_and_is_reported() {
    let (log, alive) = (Log::default(), Arc::new(AtomicUsize::new(0)));
    let (port, mut peers) = Watched::new("cable", 2, "", &log);
    let counted = alive.clone();
    let running = Runtime::builder()
        .port(port)
        .workers(2)
        .pipeline(move |_| {
            let fuse = Each(|batch: &mut Batch| {
                for slot in batch.live() {
                    assert!(batch.bytes(slot)[0] != 66, "packet {} is what I was afraid of", 66);
                }
            });
            (Alive::new(&counted), fuse, Reflect)
        })
        .start()
        .unwrap();
    send(&mut peers[0], &numbered(1));
    send(&mut peers[1], &numbered(66));
    let (error, _) = while_collecting(peers, || running.join().unwrap_err());
    assert!(
        matches!(&error, Error::Panicked { worker: 1, message } if message == "packet 66 is what I was afraid of"),
        "{error}"
    );
    assert!(running.ended());
    assert_eq!(log.last_of("cable"), "cable detach");
    assert_eq!(alive.load(Ordering::SeqCst), 0);
    assert!(matches!(running.publish(Arc::new(1u8)), Err(Error::Stopped)));
    assert!(running.stop().is_ok(), "told once");
}

#[test]
fn run_until_ends_when_asked_and_when_a_worker_fails() {
    let (port, _peers) = MemoryPort::with_queues("cable", 1, 64);
    let running = Runtime::builder().port(port).pipeline(|_| Reflect).start().unwrap();
    let mut asked = 0;
    let stats = running.run_until(|running| {
        assert!(!running.ended());
        asked += 1;
        asked == 3
    });
    assert!(stats.unwrap().balanced());

    let (port, mut peers) = MemoryPort::with_queues("cable", 1, 64);
    let boom = |_: &mut afx::worker::Build<'_>| Each(|_: &mut Batch| panic!("boom"));
    let running = Runtime::builder().port(port).pipeline(boom).start().unwrap();
    send(&mut peers[0], &numbered(1));
    let error = running.run_until(|_| false).unwrap_err();
    assert_eq!(error.to_string(), "worker 0 panicked: boom");
}

#[test]
fn letting_go_of_the_handle_stops_the_runtime() {
    let (log, alive) = (Log::default(), Arc::new(AtomicUsize::new(0)));
    let counted = alive.clone();
    let (port, mut peers) = Watched::new("cable", 2, "", &log);
    let running =
        Runtime::builder().port(port).workers(2).pipeline(move |_| Alive::new(&counted)).start().unwrap();
    assert_eq!(alive.load(Ordering::SeqCst), 2);
    assert_eq!(log.last_of("cable"), "cable attach");
    send(&mut peers[0], &numbered(1));
    drop(running);
    assert_eq!(alive.load(Ordering::SeqCst), 0);
    assert_eq!(log.last_of("cable"), "cable detach");
}

#[test]
fn a_stopped_workers_queues_are_closed_first_and_ports_detached_with_the_last() {
    let (log, alive) = (Log::default(), Arc::new(AtomicUsize::new(0)));
    let counted = alive.clone();
    let (one, _one_peers) = Watched::new("one", 2, "", &log);
    let (other, _other_peers) = Watched::new("other", 2, "", &log);
    let runtime = Runtime::builder().port(one).port(other).workers(2);
    let running = runtime.pipeline(move |_| Alive::new(&counted)).start().unwrap();
    let noted = log.notes().len();
    let since = || log.notes().split_off(noted);
    running.stop_worker(WorkerId::new(1)).unwrap();
    assert_eq!(since(), ["one close 1", "other close 1"]);
    assert_eq!(alive.load(Ordering::SeqCst), 1);
    running.stop_worker(WorkerId::new(0)).unwrap();
    assert_eq!(since()[2..], ["one close 0", "other close 0", "one detach", "other detach"]);
    assert_eq!(alive.load(Ordering::SeqCst), 0);
}

#[test]
fn what_cannot_start_is_put_back() {
    for fails_at in ["prepare", "open", "attach"] {
        for inline in [false, true] {
            if inline && fails_at == "attach" {
                continue;
            }
            let (log, alive) = (Log::default(), Arc::new(AtomicUsize::new(0)));
            let counted = alive.clone();
            let (good, _good_peers) = Watched::new("good", 2, "", &log);
            let (bad, _bad_peers) = Watched::new("bad", 2, fails_at, &log);
            let workers = if inline { 1 } else { 2 };
            let pipelined = Runtime::builder()
                .port(good)
                .port(bad)
                .workers(workers)
                .pipeline(move |_| Alive::new(&counted));
            let error = if inline { pipelined.inline().err() } else { pipelined.start().err() }
                .expect("told to fail");
            assert_eq!(error.to_string(), format!("port bad: {fails_at}"));
            // A worker that is late may still have opened its queue after that, and closed it at once.
            assert!(log.notes().contains(&"good detach".to_owned()), "{fails_at}, inline {inline}");
            assert_eq!(alive.load(Ordering::SeqCst), 0);
        }
    }
}

#[test]
fn a_panic_while_a_pipeline_is_built_is_reported_by_the_start() {
    let log = Log::default();
    let (port, _peers) = Watched::new("cable", 2, "", &log);
    let error = Runtime::builder()
        .port(port)
        .workers(2)
        .pipeline(|build| {
            assert!(build.worker().index() == 0, "the second is not wanted");
            Reflect
        })
        .start()
        .err()
        .unwrap();
    assert_eq!(error.to_string(), "worker 1 panicked: the second is not wanted");
    assert!(log.notes().contains(&"cable detach".to_owned()));
}

#[test]
fn a_configuration_that_cannot_work_is_refused_with_what_would_be_right() {
    let port = |name: &str| MemoryPort::with_queues(name, 2, 64).0;
    let builder = Runtime::builder;
    let told = |builder: afx::RuntimeBuilder, expected: &str| {
        let error = builder.pipeline(|_| Reflect).start().err().unwrap();
        assert!(matches!(error, Error::Config { .. }), "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    };
    told(builder(), "at least one port");
    told(builder().port(MemoryPort::with_queues("none", 0, 64).0), "at least one port");
    told(builder().port(port("twin")).port(port("twin")), "port twin is given twice");
    told(builder().port(port("a")).workers(0), "at least one is needed");
    told(builder().port(port("a")).workers(3), "at most 2 can work");
    told(builder().port(port("a")).cores([100_000, 100_001]), "core 100000 is not among");
    told(builder().port(port("a")).workers(2).cores([0]), "one core for each worker");
    told(builder().port(port("a")).frame_size(1500), "2048 or 4096");
    told(builder().port(port("a")).frames_per_queue(0), "at least one frame");
    told(
        builder().port(port("a")).huge_pages(HugePages::Demand).frames_per_queue(1),
        "packet memory lies on",
    );
    let many = (0..33).fold(builder(), |builder, number| builder.port(port(&number.to_string())));
    told(many, "33 ports: at most 32");
}

#[test]
fn an_idle_worker_sleeps_and_a_busy_one_does_not() {
    for (idle, sleeps) in [(Idle::Adaptive { turns: 10 }, true), (Idle::Busy, false)] {
        let (port, mut peers) = MemoryPort::with_queues("cable", 1, 64);
        let running = Runtime::builder().port(port).idle(idle).pipeline(|_| Reflect).start().unwrap();
        eventually("empty turns", || running.stats().workers[0].empty_turns > 100);
        if sleeps {
            eventually("sleep", || running.stats().workers[0].sleeps > 10);
        }
        // Asleep or not, it takes what comes.
        send(&mut peers[0], &numbered(5));
        eventually("the packet", || peers[0].receive().is_some());
        let stats = running.stop().unwrap();
        assert_eq!(stats.workers[0].sleeps > 0, sleeps);
    }
}
