//! One of two workers stands still, is stopped, or fails: what becomes of its packets, and of the other's.

use std::io::ErrorKind;
use std::net::{IpAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use afx::port::{Mode, ModeWanted, Protocol, Rule, Steering, XdpPort};
use afx::{Batch, Running, Runtime, Stage, Stats, WorkerId};
use afx_testbed::wait_for;

use crate::cable::Cable;
use crate::pump::Plan;
use crate::support::*;

/// Sends every packet back; stands still, with a batch in its hands, as long as it is told to.
struct Halting {
    still: Option<Arc<AtomicBool>>,
}

impl Stage for Halting {
    fn process(&mut self, batch: &mut Batch) {
        while self.still.as_ref().is_some_and(|still| still.load(Ordering::Relaxed)) {
            std::thread::sleep(Duration::from_millis(1));
        }
        Mirror.process(batch);
    }
}

fn received(stats: &Stats, worker: usize) -> u64 {
    stats.workers[worker].queues[0].received
}

/// Waits until a worker has received so many more of what is pumped.
fn goes_on(traffic: &Traffic, mirror: &Running, worker: usize, more: u64) {
    let wanted = received(&mirror.stats(), worker) + more;
    let there = wait_for("packets of a queue", PATIENCE, || received(&mirror.stats(), worker) >= wanted);
    assert!(
        there.is_ok(),
        "worker {worker}: {:?}, {:?}; the pump: {}",
        mirror.stats().workers,
        mirror.redirect_counters("eth0"),
        traffic.describe()
    );
}

/// Whether the near host's kernel was given any of the packets since it was last asked.
fn kernels_packets(hosts: &Hosts) -> impl FnMut() -> bool {
    hosts.near.ip("address add 10.0.0.2/24 dev eth0").unwrap();
    let kernel = hosts.near.run(|| UdpSocket::bind("10.0.0.2:9")).unwrap().unwrap();
    kernel.set_nonblocking(true).unwrap();
    let mut buffer = [0; 64];
    move || match kernel.recv(&mut buffer) {
        Ok(len) => len > 0,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::WouldBlock);
            false
        }
    }
}

/// Steering that takes the pumped packets: with all others, or alone.
fn steering(all: bool) -> Steering {
    if all {
        return Steering::All;
    }
    let address: IpAddr = "10.0.0.2".parse().unwrap();
    let rule = Rule::new(address, Some(9), Some(Protocol::UDP));
    Steering::Match(vec![rule.unwrap()])
}

/// Has the second of two workers stand still under load, and go on. Its packets meet with what the steering says: they
/// pass to the kernel or are dropped, after its ring was full.
pub(crate) fn one_of_two(name: &str, mode: Mode, all: bool) {
    let hosts = Hosts::new(name);
    hosts.join(Cable::TwoQueues, "eth0");
    let mut kernel_has_some = kernels_packets(&hosts);
    let still = Arc::new(AtomicBool::new(false));
    let told = still.clone();
    let start = || {
        let port = XdpPort::new("eth0", steering(all)).mode(ModeWanted::Demand(mode));
        // Longer than a guest on a busy machine stands still by itself, and than it takes to fill a ring.
        let builder = Runtime::builder().port(port.stall_limit(Some(Duration::from_secs(3)))).workers(2);
        let halting = move |worker: usize| Halting { still: (worker == 1).then(|| told.clone()) };
        builder.pipeline(move |build| halting(build.worker().index())).start()
    };
    let mirror = hosts.near.run(start).unwrap().unwrap();
    assert_mode(&mirror, mode);
    let plan = Plan::endless().flows(64).pressing(512);
    let traffic = hosts.pump(&["eth0"], ModeWanted::Auto, Cable::TwoQueues, plan);
    let goes_on = |worker: usize| goes_on(&traffic, &mirror, worker, 5_000);
    goes_on(0);
    goes_on(1);
    assert!(!kernel_has_some());

    still.store(true, Ordering::Relaxed);
    let stalled = || {
        let counters = mirror.redirect_counters("eth0").unwrap();
        if all { counters.passed_stalled } else { counters.dropped_stalled }
    };
    wait_for("the stall to be seen", PATIENCE, || stalled() > 1_000).unwrap();
    let before = received(&mirror.stats(), 1);
    goes_on(0);
    assert_eq!(received(&mirror.stats(), 1), before, "it stands still");
    if all {
        wait_for("the kernel's packets", PATIENCE, &mut kernel_has_some).unwrap();
    } else {
        assert!(!kernel_has_some());
    }

    still.store(false, Ordering::Relaxed);
    goes_on(1);
    goes_on(0);
    // So many are under way that a slow guest may not get all of its own out in time.
    traffic.end_on_bad_link();
    // What was redirected was received, or is counted as lost at a ring; and what was to be sent has left.
    let redirected = mirror.redirect_counters("eth0").unwrap().redirected;
    let settled = || {
        let stats = mirror.stats();
        let counted: u64 = stats.queues().map(|queue| queue.received + queue.kernel_dropped).sum();
        counted == redirected && stats.workers.iter().all(|worker| worker.ledger.transmit.outside() == 0)
    };
    let all_counted = wait_for("all that was redirected", PATIENCE, settled);
    assert!(
        all_counted.is_ok(),
        "{redirected} redirected: {:?}",
        mirror.stats().queues().collect::<Vec<_>>()
    );
    let counters = mirror.redirect_counters("eth0").unwrap();
    assert_eq!(if all { counters.dropped_stalled } else { counters.passed_stalled }, 0, "{counters:?}");
    let stats = mirror.stop().unwrap();
    let lost = stats.workers[1].queues[0].kernel_dropped;
    println!("{mode} mode: {lost} packets found the ring full, {counters:?}");
    assert!(
        lost > 0,
        "the ring was full before the buffers ran out: {:?}",
        stats.queues().collect::<Vec<_>>()
    );
    // What had piled up comes all at once, and may be more than there is room for to send.
    assert!(stats.drops().iter().all(|(reason, _)| *reason == "tx_full"), "{:?}", stats.drops());
    assert_settled(&stats, &hosts.near, &["eth0"]);
}

/// Stops the second of two workers under load. Its packets meet with what a stalled worker's do, and the first one's
/// are received as before.
pub(crate) fn one_of_two_stopped(name: &str, mode: Mode, all: bool) {
    let hosts = Hosts::new(name);
    hosts.join(Cable::TwoQueues, "eth0");
    let mut kernel_has_some = kernels_packets(&hosts);
    let builder = || {
        let port = XdpPort::new("eth0", steering(all)).mode(ModeWanted::Demand(mode));
        Runtime::builder().port(port.stall_limit(None)).workers(2)
    };
    let mirror = hosts.start(builder, || Mirror).unwrap();
    assert_mode(&mirror, mode);
    let plan = Plan::endless().flows(64).pressing(128);
    let traffic = hosts.pump(&["eth0"], ModeWanted::Auto, Cable::TwoQueues, plan);
    let unattended = || {
        let counters = mirror.redirect_counters("eth0").unwrap();
        if all { counters.passed_stalled } else { counters.dropped_stalled }
    };
    let goes_on = |worker: usize| goes_on(&traffic, &mirror, worker, 2_000);
    goes_on(0);
    goes_on(1);
    assert_eq!(unattended(), 0);
    assert!(!kernel_has_some());

    let last = mirror.stop_worker(WorkerId::new(1)).unwrap();
    assert!(last.ended && last.ledger.balanced(), "{last:?}");
    wait_for("what comes on its queue", PATIENCE, || unattended() > 1_000).unwrap();
    goes_on(0);
    assert_eq!(received(&mirror.stats(), 1), last.queues[0].received);
    if all {
        wait_for("the kernel's packets", PATIENCE, &mut kernel_has_some).unwrap();
    } else {
        assert!(!kernel_has_some());
    }
    traffic.end_on_bad_link();
    // What was redirected was received, by the one that was stopped as well.
    let redirected = || mirror.redirect_counters("eth0").unwrap().redirected;
    let counted = || mirror.stats().queues().map(|queue| queue.received + queue.kernel_dropped).sum::<u64>();
    let all_counted = wait_for("all that was redirected", PATIENCE, || counted() == redirected());
    assert!(all_counted.is_ok(), "{} redirected, {} counted", redirected(), counted());
    let counters = mirror.redirect_counters("eth0").unwrap();
    assert_eq!(if all { counters.dropped_stalled } else { counters.passed_stalled }, 0, "{counters:?}");
    let stats = mirror.stop().unwrap();
    assert_eq!(stats.workers[0].queues[0].kernel_dropped, 0, "{:?}", stats.queues().collect::<Vec<_>>());
    println!(
        "{mode} mode: {} and {} packets received, {counters:?}",
        received(&stats, 0),
        received(&stats, 1)
    );
    assert_settled(&stats, &hosts.near, &["eth0"]);
}

/// Has one of two workers panic under load: all stop, and the card is as it was, and echoes anew.
pub(crate) fn a_panic(name: &str, mode: Mode) {
    struct Fuse {
        blown: Option<Arc<AtomicBool>>,
    }
    impl Stage for Fuse {
        fn process(&mut self, batch: &mut Batch) {
            assert!(!self.blown.as_ref().is_some_and(|blown| blown.load(Ordering::Relaxed)), "blown");
            Mirror.process(batch);
        }
    }
    let hosts = Hosts::new(name);
    hosts.join(Cable::TwoQueues, "eth0");
    let blown = Arc::new(AtomicBool::new(false));
    let traffic =
        hosts.pump(&["eth0"], ModeWanted::Auto, Cable::TwoQueues, Plan::endless().flows(64).pressing(128));
    let start = |fuse: Option<Arc<AtomicBool>>| {
        let builder = Runtime::builder().port(port("eth0", mode)).workers(2);
        let made = move |worker: usize| Fuse { blown: fuse.clone().filter(|_| worker == 1) };
        hosts
            .near
            .run(|| builder.pipeline(move |build| made(build.worker().index())).start())
            .unwrap()
            .unwrap()
    };
    let running = start(Some(blown.clone()));
    assert_mode(&running, mode);
    traffic.wait_for_more(5_000);
    blown.store(true, Ordering::Relaxed);
    wait_for("the end", PATIENCE, || running.ended()).unwrap();
    assert_eq!(running.join().unwrap_err().to_string(), "worker 1 panicked: blown");
    assert_eq!(hosts.near.xdp_program("eth0").unwrap(), None);
    drop(running);

    let running = start(None);
    assert_mode(&running, mode);
    traffic.wait_for_more(5_000);
    traffic.end();
    assert_settled(&running.stop().unwrap(), &hosts.near, &["eth0"]);
}
