//! Zero copy: nothing is lost, and no frame is missing.

use afx::port::{Mode, ModeWanted, Steering, XdpPort};
use afx::{Idle, Runtime};

use crate::cable::Cable;
use crate::pump::Plan;
use crate::support::*;
use crate::{balance, bytes, generator, stall};

#[test]
fn of_many_packets_echoed_none_is_lost() {
    echo("zmillion", Cable::First, Mode::ZeroCopy, Idle::ADAPTIVE, many());
}

#[test]
fn of_many_packets_forwarded_none_is_lost() {
    forward("zforward", Mode::ZeroCopy, many());
}

#[test]
fn of_many_packets_balanced_none_is_lost() {
    balance::stage("zbalance", Mode::ZeroCopy, many());
}

#[test]
fn the_balancer_balances_to_kernels() {
    balance::program_between_kernels("zlb", Mode::ZeroCopy);
}

#[test]
fn the_generator_counts_what_it_sends() {
    generator::counts_agree("zpktgen", Mode::ZeroCopy);
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
    bytes::every_length("zbytes", Cable::First, Mode::ZeroCopy);
}

#[test]
fn every_byte_comes_back_on_another_card() {
    bytes::every_length("zbytesigb", Cable::Igb, Mode::ZeroCopy);
}

#[test]
fn packets_of_a_worker_that_stands_still_pass_to_the_kernel() {
    stall::one_of_two("zpass", Mode::ZeroCopy, true);
}

#[test]
fn matched_packets_of_a_worker_that_stands_still_are_dropped() {
    stall::one_of_two("zdrop", Mode::ZeroCopy, false);
}

#[test]
fn a_worker_that_panics_gives_the_card_back() {
    stall::a_panic("zpanic", Mode::ZeroCopy);
}

#[test]
fn packets_of_a_worker_that_was_stopped_pass_to_the_kernel() {
    stall::one_of_two_stopped("zstoppass", Mode::ZeroCopy, true);
}

#[test]
fn matched_packets_of_a_worker_that_was_stopped_are_dropped() {
    stall::one_of_two_stopped("zstopdrop", Mode::ZeroCopy, false);
}

#[test]
fn frames_too_small_for_a_card_s_buffers_are_refused_or_copied() {
    // igb.
    let hosts = Hosts::new("zcut");
    hosts.join(Cable::Igb, "eth0");
    let start = |mode| {
        let port = XdpPort::new("eth0", Steering::All).mode(mode);
        hosts.start(|| Runtime::builder().port(port).workers(1).frame_size(2048), || Mirror)
    };
    let error = start(ModeWanted::Demand(Mode::ZeroCopy)).err().expect("packets would come cut");
    assert!(error.to_string().contains("has buffers of 1024 bytes in frames of 2048"), "{error}");
    assert_eq!(hosts.near.xdp_program("eth0").unwrap(), None);
    let mirror = start(ModeWanted::Auto).unwrap();
    assert_mode(&mirror, Mode::Copy);
    let facts = mirror.status().remove(0).facts;
    assert!(facts.iter().any(|(_, value)| value.contains("zero-copy takes 1024 bytes a frame")), "{facts:?}");
    assert_settled(&mirror.stop().unwrap(), &hosts.near, &["eth0"]);
}
