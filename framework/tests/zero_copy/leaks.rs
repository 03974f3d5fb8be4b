//! Started and stopped, and killed, many times under load, on a card that does zero copy: nothing is left of any of it.

use afx::Idle;
use afx::port::{Mode, ModeWanted};
use afx_testbed::census::{Census, Objects, assert_gone, assert_nothing_left, objects_of};
use afx_testbed::{HugePages, Signal, wait_for};

use crate::cable::Cable;
use crate::pump::Plan;
use crate::support::*;

const STARTS: usize = 40;
const KILLS: usize = 10;

#[test]
fn nothing_is_left_of_many_starts_and_kills() {
    // For the packet memory of both ends.
    let _pages = HugePages::reserve(32).unwrap();
    let hosts = Hosts::new("lleaks");
    hosts.join(Cable::First, "eth0");
    let plan = Plan::endless().pressing(128);
    let traffic = hosts.pump(&["eth0"], ModeWanted::Demand(Mode::ZeroCopy), Cable::First, plan);
    let others = objects_of("self");

    let start_and_stop = || {
        let mirror = hosts.start(|| one_port(Mode::ZeroCopy, Idle::ADAPTIVE), || Mirror).unwrap();
        let facts = mirror.status().remove(0).facts;
        assert!(facts.iter().any(|(_, value)| value.contains("huge pages of 2 MiB")), "{facts:?}");
        traffic.wait_for_more(200);
        let objects = &objects_of("self") - &others;
        assert_settled(&mirror.stop().unwrap(), &hosts.near, &["eth0"]);
        objects
    };
    let start_and_kill = || {
        let process = hosts.near.command(example("echo")).arg("eth0").spawn().unwrap();
        traffic.wait_for_more(200);
        let objects = objects_of(&process.pid().to_string());
        process.signal(Signal::SIGKILL).unwrap();
        process.wait().unwrap();
        wait_for("the interface as before", PATIENCE, || hosts.near.xdp_program("eth0").unwrap().is_none())
            .unwrap();
        objects
    };
    // What is made once, and kept.
    start_and_stop();
    start_and_kill();
    let take = || Census::take_of_machine(Some(&hosts.near), "eth0");
    let before = take();
    let mut objects: Objects = (0..STARTS).flat_map(|_| start_and_stop()).collect();
    objects.extend((0..KILLS).flat_map(|_| start_and_kill()));
    assert_gone(&objects);
    println!("{STARTS} starts and {KILLS} kills: {}", assert_nothing_left(&before, take));
    traffic.end();
}
