//! Copy mode on the same cards: what every kernel of the guest has.

use afx::Idle;
use afx::port::Mode;

use crate::cable::Cable;
use crate::pump::Plan;
use crate::support::*;
use crate::{balance, bytes, generator, stall};

#[test]
fn of_many_packets_echoed_none_is_lost() {
    echo("cmillion", Cable::First, Mode::Copy, Idle::ADAPTIVE, many());
}

#[test]
fn of_many_packets_forwarded_none_is_lost() {
    forward("cforward", Mode::Copy, many());
}

#[test]
fn of_many_packets_balanced_none_is_lost() {
    balance::stage("cbalance", Mode::Copy, many());
}

#[test]
fn the_balancer_balances_to_kernels() {
    balance::program_between_kernels("clb", Mode::Copy);
}

#[test]
fn the_generator_counts_what_it_sends() {
    generator::counts_agree("cpktgen", Mode::Copy);
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
    bytes::every_length("cbytes", Cable::First, Mode::Copy);
}

#[test]
fn every_byte_comes_back_on_another_card() {
    bytes::every_length("cbytesigb", Cable::Igb, Mode::Copy);
}

#[test]
fn packets_of_a_worker_that_stands_still_pass_to_the_kernel() {
    stall::one_of_two("cpass", Mode::Copy, true);
}

#[test]
fn packets_of_a_worker_that_was_stopped_pass_to_the_kernel() {
    stall::one_of_two_stopped("cstoppass", Mode::Copy, true);
}

#[test]
fn matched_packets_of_a_worker_that_was_stopped_are_dropped() {
    stall::one_of_two_stopped("cstopdrop", Mode::Copy, false);
}
