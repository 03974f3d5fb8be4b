//! Copy mode on the same cards: what every kernel of the guest has.

use afx::Idle;
use afx::port::Mode;

use crate::bytes;
use crate::cable::Cable;
use crate::pump::Plan;
use crate::support::*;

#[test]
fn of_many_packets_echoed_none_is_lost() {
    echo("cmillion", Cable::First, Mode::Copy, Idle::ADAPTIVE, many());
}

#[test]
fn of_many_packets_forwarded_none_is_lost() {
    forward("cforward", Mode::Copy, many());
}

#[test]
fn a_worker_that_polls_the_card_loses_nothing() {
    echo("cbusy", Cable::First, Mode::Copy, Idle::Busy, Plan::whole(50_000));
}

#[test]
fn two_workers_share_a_card_of_two_queues() {
    two_queues("cqueues", Mode::Copy);
}

#[test]
fn every_byte_comes_back() {
    bytes::every_length("cbytes", Mode::Copy);
}
