//! One of two workers is stopped: what becomes of its packets, and of the other's.

use std::io::ErrorKind;
use std::net::{IpAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use afx::port::{Protocol, Rule, Steering, XdpPort};
use afx::{Running, Runtime, WorkerId};
use afx_testbed::{Host, wait_for};

use crate::support::*;

/// Sends `count` packets that arrive on one queue.
fn send(a: &Host, client: &UdpSocket, queue: u32, count: u64) {
    a.send_by_queue("eth0", queue).unwrap();
    for _ in 0..count {
        client.send_to(b"packet", "10.0.0.2:9").unwrap();
    }
}

fn received(running: &Running, worker: usize) -> u64 {
    running.stats().workers[worker].queues[0].received
}

/// Counters of the redirect program: passed and dropped for want of a worker.
fn unattended(running: &Running) -> [u64; 2] {
    let counters = running.redirect_counters("eth0").unwrap();
    [counters.passed_stalled, counters.dropped_stalled]
}

fn udp_port_9() -> Steering {
    let address: IpAddr = "10.0.0.2".parse().unwrap();
    let rule = Rule::new(address, Some(9), Some(Protocol::UDP));
    Steering::Match(vec![rule.unwrap()])
}

/// Stops the second of two workers while both have packets.
fn one_of_two(name: &str, steering: &Steering) {
    let (_net, a, b) = pair(name, 2);
    a.neighbour("eth0", "10.0.0.2".parse().unwrap(), b.mac("eth0").unwrap()).unwrap();
    let kernel = b.run(|| UdpSocket::bind("10.0.0.2:9")).unwrap().unwrap();
    kernel.set_nonblocking(true).unwrap();
    let kernels = || {
        let mut buffer = [0; 16];
        let is_one = |_: &u64| match kernel.recv(&mut buffer) {
            Ok(_) => true,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                false
            }
        };
        (0..).take_while(is_one).count() as u64
    };
    let client = a.run(|| UdpSocket::bind("10.0.0.1:0")).unwrap().unwrap();
    let start = || {
        // However busy the machine is: none of them counts as stalled.
        let port = XdpPort::new("eth0", steering.clone()).stall_limit(None);
        start_on(&b, || Runtime::builder().port(port).workers(2), |_| Mirror).unwrap()
    };
    let all = *steering == Steering::All;
    let running = start();
    // What the hosts said of themselves before the queues were taken.
    let early = running.redirect_counters("eth0").unwrap().passed_no_socket;
    for queue in [0, 1] {
        let before = received(&running, queue as usize);
        send(&a, &client, queue, 50);
        wait_for("its packets", PATIENCE, || received(&running, queue as usize) >= before + 50).unwrap();
    }

    // The first one's packets keep coming meanwhile, and not one is missing.
    let done = AtomicBool::new(false);
    a.send_by_queue("eth0", 0).unwrap();
    let last = std::thread::scope(|scope| {
        let traffic = scope.spawn(|| {
            let mut rounds = 0;
            while !done.load(Ordering::Relaxed) || rounds < 10 {
                let before = received(&running, 0);
                (0..16).for_each(|_| assert!(client.send_to(b"packet", "10.0.0.2:9").is_ok()));
                wait_for("the first worker's", PATIENCE, || received(&running, 0) >= before + 16).unwrap();
                rounds += 1;
            }
        });
        std::thread::sleep(Duration::from_millis(20));
        let last = running.stop_worker(WorkerId::new(1)).unwrap();
        done.store(true, Ordering::Relaxed);
        traffic.join().unwrap();
        last
    });
    assert!(last.ended && last.ledger.balanced() && last.ledger.transmit.outside() == 0, "{last:?}");
    assert_eq!(kernels(), 0);
    assert!(b.xdp_program("eth0").unwrap().is_some(), "the first one has its packets still");

    // What comes on its queue now: not to the first one, nor lost without a word.
    let (before, first) = (unattended(&running), received(&running, 0));
    send(&a, &client, 1, 30);
    let which = usize::from(!all);
    wait_for("its counter", PATIENCE, || unattended(&running)[which] >= before[which] + 30).unwrap();
    assert_eq!(unattended(&running)[1 - which], 0);
    let mut to_kernel = 0;
    if all {
        wait_for("the kernel's packets", PATIENCE, || {
            to_kernel += kernels();
            to_kernel >= 30
        })
        .unwrap();
    }
    assert_eq!(to_kernel + kernels(), if all { 30 } else { 0 });
    send(&a, &client, 0, 30);
    wait_for("the first worker's", PATIENCE, || received(&running, 0) >= first + 30).unwrap();
    let facts = running.status().remove(0).facts;
    let closed = |queue: &str| {
        let fact = facts.iter().find(|(name, _)| name == queue).expect("each queue has a line");
        fact.1.ends_with("; closed, since its worker was stopped")
    };
    assert!(!closed("queue 0") && closed("queue 1"), "{facts:?}");

    running.stop_worker(WorkerId::new(0)).unwrap();
    assert!(running.ended());
    assert_untouched(&b, "eth0");
    let counters = running.redirect_counters("eth0").unwrap();
    assert_eq!(counters.passed_no_socket, early, "{counters:?}");
    let stats = running.stop().unwrap();
    assert_eq!(stats.workers[1].queues, last.queues);
    assert_eq!(stats.received(), counters.redirected, "none was lost: {counters:?}");
    assert_settled(&stats);

    // Both queues are free, and open anew.
    let running = start();
    send(&a, &client, 1, 10);
    wait_for("its packets", PATIENCE, || received(&running, 1) >= 10).unwrap();
    assert_eq!(unattended(&running), [0, 0]);
    assert_settled(&running.stop().unwrap());
    assert_untouched(&b, "eth0");
}

#[test]
fn all_packets_of_a_stopped_worker_go_to_the_kernel() {
    one_of_two("afxstopall", &Steering::All);
}

#[test]
fn matched_packets_of_a_stopped_worker_are_dropped() {
    one_of_two("afxstopmatch", &udp_port_9());
}
