//! Zero copy: nothing is lost, and no frame is missing.

use afx::Idle;
use afx::port::Mode;

use crate::bytes;
use crate::cable::Cable;
use crate::pump::Plan;
use crate::support::*;

#[test]
fn of_a_million_packets_echoed_none_is_lost() {
    echo("zmillion", Cable::First, Mode::ZeroCopy, Idle::ADAPTIVE, Plan::whole(1_000_000));
}

#[test]
fn of_a_million_packets_forwarded_none_is_lost() {
    forward("zforward", Mode::ZeroCopy, Plan::whole(1_000_000));
}

#[test]
fn a_worker_that_polls_the_card_loses_nothing() {
    echo("zbusy", Cable::First, Mode::ZeroCopy, Idle::Busy, Plan::whole(100_000));
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
