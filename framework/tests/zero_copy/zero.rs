//! Zero copy: nothing is lost, and no frame is missing.

use afx::Idle;
use afx::port::{Mode, ModeWanted};

use crate::bytes;
use crate::cable::Cable;
use crate::pump::Plan;
use crate::support::*;

#[test]
fn of_many_packets_echoed_none_is_lost() {
    echo("zmillion", Cable::First, Mode::ZeroCopy, Idle::ADAPTIVE, many());
}

#[test]
fn of_many_packets_forwarded_none_is_lost() {
    forward("zforward", Mode::ZeroCopy, many());
}

#[test]
fn a_worker_that_polls_the_card_sends_though_its_driver_does_not_send_when_polled() {
    // virtio-net: what is received and what is to be sent are polled for apart.
    let hosts = Hosts::new("zbusy");
    hosts.join(Cable::First, "eth0");
    let mirror = hosts.start(|| one_port(Mode::ZeroCopy, Idle::Busy), || Mirror).unwrap();
    assert_mode(&mirror, Mode::ZeroCopy);
    hosts.pump(&["eth0"], ModeWanted::Auto, Cable::First, Plan::whole(100_000)).finish();
    let facts = mirror.status().remove(0).facts;
    assert!(facts.iter().any(|(_, value)| value.contains("busy polling given up")), "{facts:?}");
    assert_settled(&mirror.stop().unwrap(), &hosts.near, &["eth0"]);
}

#[test]
fn a_worker_that_polls_another_card_sends_too() {
    // igb. Its link comes up some seconds after the socket.
    let hosts = Hosts::new("zbusyigb");
    hosts.join(Cable::Igb, "eth0");
    let mirror = hosts.start(|| one_port(Mode::ZeroCopy, Idle::Busy), || Mirror).unwrap();
    assert_mode(&mirror, Mode::ZeroCopy);
    let traffic = hosts.pump(&["eth0"], ModeWanted::Auto, Cable::Igb, Plan::endless().flows(64));
    traffic.wait_for_more(20_000);
    traffic.end_on_bad_link();
    let stats = mirror.stop().unwrap();
    assert!(stats.balanced(), "{stats:?}");
}

#[test]
fn a_worker_that_sleeps_loses_nothing() {
    // One turn without packets, and it sleeps: woken by the card each time.
    echo("zsleep", Cable::First, Mode::ZeroCopy, Idle::Adaptive { turns: 1 }, Plan::whole(20_000));
}

#[test]
fn two_workers_share_a_card_of_two_queues() {
    two_queues("zqueues", Mode::ZeroCopy);
}

#[test]
fn every_byte_comes_back() {
    bytes::every_length("zbytes", Mode::ZeroCopy);
}
