//! What goes wrong under load: the process is killed, the interface goes down.

use std::time::Duration;

use afx::Idle;
use afx::port::{Mode, ModeWanted};
use afx_testbed::{Signal, wait_for};

use crate::cable::Cable;
use crate::probe::Probes;
use crate::pump::Plan;
use crate::support::*;

#[test]
fn a_process_that_is_killed_under_load_leaves_the_card_as_it_was() {
    let hosts = Hosts::new("tkill");
    hosts.join(Cable::First, "eth0");
    let probes = Probes::new();
    let traffic = hosts.pump(&["eth0"], ModeWanted::Demand(Mode::ZeroCopy), Cable::First, Plan::endless());
    for signal in [Signal::SIGKILL, Signal::SIGKILL, Signal::SIGTERM] {
        let process = hosts.near.command(example("echo")).arg("eth0").spawn().unwrap();
        traffic.wait_for_more(5_000);
        process.signal(signal).unwrap();
        let status = process.wait().unwrap();
        assert_eq!(status.success(), signal == Signal::SIGTERM, "{}", process.stderr());
        wait_for("the interface as before", PATIENCE, || hosts.near.xdp_program("eth0").unwrap().is_none())
            .unwrap();
    }
    traffic.end();
    // The example was given no mode: it had the best.
    assert_eq!(probes.hits(), [0, 0]);
}

#[test]
fn an_interface_that_goes_down_and_up_under_load_loses_no_frame() {
    let hosts = Hosts::new("tdown");
    hosts.join(Cable::First, "eth0");
    let mirror = hosts.start(|| one_port(Mode::ZeroCopy, Idle::ADAPTIVE), || Mirror).unwrap();
    let traffic = hosts.pump(&["eth0"], ModeWanted::Demand(Mode::ZeroCopy), Cable::First, Plan::endless());
    for _ in 0..3 {
        traffic.wait_for_more(5_000);
        hosts.near.ip("link set dev eth0 down").unwrap();
        wait_for("silence", PATIENCE, || {
            let before = traffic.returned();
            std::thread::sleep(Duration::from_millis(200));
            traffic.returned() == before
        })
        .unwrap();
        hosts.near.ip("link set dev eth0 up").unwrap();
    }
    traffic.wait_for_more(5_000);
    assert_mode(&mirror, Mode::ZeroCopy);
    traffic.end();
    assert_settled(&mirror.stop().unwrap(), &hosts.near, &["eth0"]);
}
