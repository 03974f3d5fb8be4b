//! What becomes of packets whose worker does not beat.

use std::thread;
use std::time::Duration;

use super::harness::{Bench, XskSocket, eventually};
use super::namespace::in_namespace;
use super::packets::*;
use crate::{Error, OnStall, Options, Rule, Steering};

const LIMIT: Duration = Duration::from_millis(200);

fn packet() -> Vec<u8> {
    frame(&ip("198.51.100.7", "192.0.2.1", UDP, &ports(1, 2)))
}

fn match_it() -> Steering {
    let to = "192.0.2.1".parse::<std::net::IpAddr>().expect("an address");
    Steering::Match(vec![Rule::new(to, None, None).expect("a valid rule")])
}

fn bench(steering: &Steering, on_stall: Option<OnStall>) -> Bench {
    Bench::new(steering, &Options { stall_limit: Some(LIMIT), on_stall, ..Options::default() })
}

#[test]
fn a_stalled_workers_packets_pass_or_drop_as_suits_the_steering_or_as_configured() {
    in_namespace(|| {
        for (steering, on_stall, outcome) in [
            (Steering::All, None, "passed_stalled"),
            (match_it(), None, "dropped_stalled"),
            (Steering::All, Some(OnStall::Drop), "dropped_stalled"),
            (match_it(), Some(OnStall::Pass), "passed_stalled"),
        ] {
            let bench = bench(&steering, on_stall);
            assert_eq!(bench.sees(&packet()), "redirected", "the limit counts from the first packet on");
            eventually("the worker counts as stalled", || bench.sees(&packet()) == outcome);
        }
    });
}

#[test]
fn one_beat_revives_a_stalled_worker() {
    in_namespace(|| {
        let bench = bench(&Steering::All, None);
        let beat = bench.loaded.beat(Bench::QUEUE).expect("the first beat of the queue");
        beat.beat();
        assert_eq!(bench.sees(&packet()), "redirected");
        eventually("the worker counts as stalled", || bench.sees(&packet()) == "passed_stalled");
        beat.beat();
        assert_eq!(bench.sees(&packet()), "redirected");
    });
}

#[test]
fn a_worker_that_sleeps_without_packets_need_not_beat() {
    in_namespace(|| {
        let bench = bench(&Steering::All, None);
        let beat = bench.loaded.beat(Bench::QUEUE).expect("the first beat of the queue");
        assert_eq!(bench.sees(&packet()), "redirected");
        beat.beat();
        thread::sleep(LIMIT * 3);
        assert_eq!(bench.sees(&packet()), "redirected");
    });
}

#[test]
fn a_socket_registered_anew_has_the_whole_limit_again() {
    in_namespace(|| {
        let bench = bench(&Steering::All, None);
        assert_eq!(bench.sees(&packet()), "redirected");
        eventually("the worker counts as stalled", || bench.sees(&packet()) == "passed_stalled");
        bench.loaded.register(Bench::QUEUE, bench.socket.fd()).expect("the socket registers");
        assert_eq!(bench.sees(&packet()), "redirected");
    });
}

#[test]
fn a_queue_that_was_given_up_is_treated_as_a_stalled_one_until_it_is_taken_again() {
    in_namespace(|| {
        for (steering, on_stall, limit, outcome) in [
            (Steering::All, None, Some(LIMIT), "passed_stalled"),
            (match_it(), None, Some(LIMIT), "dropped_stalled"),
            (match_it(), None, None, "dropped_stalled"),
            (Steering::All, Some(OnStall::Drop), Some(LIMIT), "dropped_stalled"),
            (match_it(), Some(OnStall::Pass), None, "passed_stalled"),
        ] {
            let bench =
                Bench::new(&steering, &Options { stall_limit: limit, on_stall, ..Options::default() });
            assert_eq!(bench.sees(&packet()), "redirected");
            bench.loaded.give_up(Bench::QUEUE).expect("the queue is given up");
            assert_eq!(bench.sees(&packet()), outcome);
            // One that was never taken is the kernel's, as ever.
            assert_eq!(bench.sees_on(2, &packet()), "passed_no_socket");
            bench.loaded.register(Bench::QUEUE, bench.socket.fd()).expect("the socket registers");
            assert_eq!(bench.sees(&packet()), "redirected");
            bench.loaded.unregister(Bench::QUEUE).expect("the socket is taken off");
            assert_eq!(bench.sees(&packet()), "passed_no_socket");
        }
    });
}

#[test]
fn a_queue_that_was_given_up_follows_the_steering() {
    in_namespace(|| {
        let mut bench = bench(&Steering::All, None);
        bench.loaded.give_up(Bench::QUEUE).expect("the queue is given up");
        assert_eq!(bench.sees(&packet()), "passed_stalled");
        bench.steer(&match_it());
        assert_eq!(bench.sees(&packet()), "dropped_stalled");
        assert!(matches!(bench.loaded.give_up(64), Err(Error::QueueOutOfRange { queue: 64, queues: 64 })));
    });
}

#[test]
fn the_next_worker_of_a_queue_goes_on_where_the_last_one_stopped() {
    in_namespace(|| {
        let bench = bench(&Steering::All, None);
        for _worker in 0..3 {
            let beat = bench.loaded.beat(Bench::QUEUE).expect("the only beat of the queue");
            beat.beat();
            assert_eq!(bench.sees(&packet()), "redirected", "its first beat is news");
            drop(beat);
            eventually("the worker counts as stalled", || bench.sees(&packet()) == "passed_stalled");
        }
    });
}

#[test]
fn each_queue_has_a_heart_of_its_own() {
    in_namespace(|| {
        let bench = bench(&Steering::All, None);
        let second = XskSocket::bind("veth1", 2);
        bench.loaded.register(2, second.fd()).expect("the socket registers");
        let beat = bench.loaded.beat(2).expect("the first beat of the queue");
        bench.sees(&packet());
        eventually("the silent worker counts as stalled", || {
            beat.beat();
            assert_eq!(bench.sees_on(2, &packet()), "redirected");
            bench.sees(&packet()) == "passed_stalled"
        });
    });
}

#[test]
fn without_a_limit_no_worker_stalls() {
    in_namespace(|| {
        let bench = Bench::new(&Steering::All, &Options { stall_limit: None, ..Options::default() });
        bench.sees(&packet());
        thread::sleep(LIMIT * 4);
        assert_eq!(bench.sees(&packet()), "redirected");
    });
}

#[test]
fn a_queue_has_one_beat_at_a_time_which_outlives_the_program() {
    in_namespace(|| {
        let bench = bench(&Steering::All, None);
        let beat = bench.loaded.beat(0).expect("the first beat of the queue");
        assert_eq!(beat.queue(), 0);
        assert!(matches!(bench.loaded.beat(0), Err(Error::BeatTaken { queue: 0 })));
        assert!(matches!(bench.loaded.beat(64), Err(Error::QueueOutOfRange { queue: 64, queues: 64 })));
        drop(beat);
        let beat = bench.loaded.beat(0).expect("the first was dropped");
        drop(bench);
        // On another thread, as a worker would; the memory is still mapped.
        thread::spawn(move || beat.beat()).join().expect("the mapping lives as long as the beat");
    });
}
