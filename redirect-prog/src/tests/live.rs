//! Packets on the wire of a veth pair, past an attached program.

use std::net::{IpAddr, UdpSocket};
use std::thread;
use std::time::Duration;

use super::harness::{Wire, XskSocket, eventually, ifindex};
use super::namespace::{QUEUES, in_namespace, ip};
use super::packets::*;
use crate::{AttachMode, Options, Protocol, Redirect, Rule, Steering};

pub(super) const HOST: &str = "203.0.113.1";
pub(super) const CLIENT: &str = "203.0.113.9";

pub(super) fn rule(to: &str, port: Option<u16>) -> Rule {
    Rule::new(to.parse::<IpAddr>().expect("an address"), port, Some(Protocol::UDP)).expect("a valid rule")
}

fn options(mode: AttachMode) -> Options {
    Options { mode, stall_limit: None, ..Options::default() }
}

/// A socket on each queue: which one a packet arrives on is the sender's affair.
pub(super) fn sockets(redirect: &Redirect) -> Vec<XskSocket> {
    (0..QUEUES)
        .map(|queue| {
            let socket = XskSocket::bind("veth1", queue);
            redirect.register(queue, socket.fd()).expect("the socket registers");
            socket
        })
        .collect()
}

#[test]
fn matched_packets_reach_the_socket_and_the_others_the_host() {
    in_namespace(|| {
        ip("addr add 203.0.113.1/24 dev veth1");
        let host = UdpSocket::bind((HOST, 53)).expect("the host's own service");
        host.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        for mode in [AttachMode::Native, AttachMode::Generic] {
            let redirect = Redirect::attach(
                ifindex("veth1"),
                &Steering::Match(vec![rule(HOST, Some(443))]),
                &options(mode),
            )
            .expect("veth takes both modes");
            let mut sockets = sockets(&redirect);
            let wire = Wire::new("veth0");
            let ours = frame(&udp(CLIENT, HOST, 443, b"for the socket"));
            wire.send(&ours);
            wire.send(&frame(&udp(CLIENT, HOST, 53, b"for the host")));

            let mut received = Vec::new();
            eventually("the packet reaches a socket", || {
                received.extend(sockets.iter_mut().flat_map(XskSocket::receive));
                !received.is_empty()
            });
            assert_eq!(received, [ours]);
            let mut data = [0; 64];
            let length = host.recv(&mut data).expect("the packet reaches the host");
            assert_eq!(&data[..length], b"for the host");
            let counters = redirect.counters().expect("counters");
            assert_eq!((counters.redirected, counters.passed_unmatched), (1, 1));
            let by_queue: u64 = (0..QUEUES)
                .map(|queue| redirect.queue_counters(queue).expect("the queue is in range").redirected)
                .sum();
            assert_eq!(by_queue, 1);
        }
    });
}

#[test]
fn what_old_and_new_steering_share_is_steered_throughout() {
    in_namespace(|| {
        let shared = rule("192.0.2.1", Some(443));
        // Enough others that taking all out and putting all in would show.
        let with = |network: u8| {
            let others = (0..=255).map(move |last| rule(&format!("10.0.{network}.{last}"), Some(443)));
            Steering::Match(others.chain([shared]).collect())
        };
        let steerings = [
            with(0),
            with(1),
            with(2),
            Steering::Match(vec![shared, rule("192.0.2.2", None)]),
            Steering::All,
            Steering::Match(vec![rule("192.0.2.3", Some(1)), shared]),
        ];
        let mut redirect = Redirect::attach(ifindex("veth1"), &steerings[0], &options(AttachMode::Native))
            .expect("veth takes native mode");
        let _sockets = sockets(&redirect);

        const PACKETS: u64 = 20_000;
        let sender = thread::spawn(|| {
            let wire = Wire::new("veth0");
            let packet = frame(&udp(CLIENT, "192.0.2.1", 443, b"steered"));
            for _ in 0..PACKETS {
                wire.send(&packet);
            }
        });
        let mut changes = 0;
        for steering in steerings.iter().cycle() {
            redirect.update_steering(steering).expect("the steering changes");
            changes += 1;
            if sender.is_finished() && changes >= steerings.len() {
                break;
            }
        }
        sender.join().expect("all packets are sent");
        eventually("all packets are counted", || {
            let counters = redirect.counters().expect("counters");
            assert_eq!(counters.passed_unmatched, 0, "after {changes} changes: {counters:?}");
            counters.redirected == PACKETS
        });
    });
}

#[test]
fn a_closed_socket_gives_its_queue_back_to_the_host() {
    in_namespace(|| {
        ip("addr add 203.0.113.1/24 dev veth1");
        let host = UdpSocket::bind((HOST, 443)).expect("the host's own service");
        host.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
        let redirect = Redirect::attach(ifindex("veth1"), &Steering::All, &options(AttachMode::Native))
            .expect("veth takes native mode");
        drop(sockets(&redirect));
        let wire = Wire::new("veth0");
        let (mut data, mut length) = ([0; 64], 0);
        // A child that another test has just forked may hold the sockets open until it calls exec.
        eventually("a packet reaches the host", || {
            wire.send(&frame(&udp(CLIENT, HOST, 443, b"to the host again")));
            host.recv(&mut data).is_ok_and(|received| {
                length = received;
                true
            })
        });
        assert_eq!(&data[..length], b"to the host again");
        assert!(redirect.counters().expect("counters").passed_no_socket >= 1);
    });
}
