//! Started and stopped, and killed, many times under load: nothing is left of any of it.

#[path = "../xdp/support.rs"]
mod support;

use std::net::UdpSocket;
use std::sync::{Mutex, PoisonError};

use afx_testbed::census::{Census, Objects, assert_gone, assert_nothing_left, objects_of};
use afx_testbed::{Host, Load, Signal, wait_for};
use support::*;

const STARTS: usize = 200;
const KILLS: usize = 50;

/// Each counts what its process has.
static ALONE: Mutex<()> = Mutex::new(());

/// Packets from `a` to `b`.
fn load(a: &Host, b: &Host) -> Load {
    a.neighbour("eth0", "10.0.0.2".parse().unwrap(), b.mac("eth0").unwrap()).unwrap();
    let socket = a.run(|| UdpSocket::bind("10.0.0.1:0")).unwrap().unwrap();
    socket.connect("10.0.0.2:9").unwrap();
    Load::start(socket)
}

/// Starts a runtime, has it echo, and stops it. The BPF objects that it had.
fn start_and_stop(b: &Host) -> Objects {
    let running = start_on(b, all_of_eth0, |_| Mirror).unwrap();
    wait_for("packets", PATIENCE, || running.stats().received() > 0).unwrap();
    let objects = objects_of("self");
    assert_settled(&running.stop().unwrap());
    assert_untouched(b, "eth0");
    objects
}

/// Starts the example, has it echo, and kills it. The BPF objects that it had.
fn start_and_kill(a: &Host, b: &Host) -> Objects {
    let process = b.command(example("echo")).arg("eth0").spawn().unwrap();
    wait_for("its program", PATIENCE, || b.xdp_program("eth0").unwrap().is_some()).unwrap();
    let received = || a.packet_counters("eth0").unwrap().rx_packets;
    let before = received();
    wait_for("packets that come back", PATIENCE, || received() > before + 100).unwrap();
    let objects = objects_of(&process.pid().to_string());
    process.signal(Signal::SIGKILL).unwrap();
    process.wait().unwrap();
    wait_for("the interface as before", PATIENCE, || b.xdp_program("eth0").unwrap().is_none()).unwrap();
    objects
}

#[test]
fn nothing_is_left_of_two_hundred_starts() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (_net, a, b) = pair("afxstarts", 1);
    let _load = load(&a, &b);
    // What is made once, and kept.
    (0..5).for_each(|_| drop(start_and_stop(&b)));
    let before = Census::take(Some(&b), "eth0");
    let objects: Objects = (0..STARTS).flat_map(|_| start_and_stop(&b)).collect();
    assert_gone(&objects);
    println!("{}", assert_nothing_left(&before, || Census::take(Some(&b), "eth0")));
}

#[test]
fn nothing_is_left_of_fifty_kills() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (_net, a, b) = pair("afxkills", 1);
    let _load = load(&a, &b);
    start_and_kill(&a, &b);
    let before = Census::take(Some(&b), "eth0");
    let objects: Objects = (0..KILLS).flat_map(|_| start_and_kill(&a, &b)).collect();
    assert_gone(&objects);
    println!("{}", assert_nothing_left(&before, || Census::take(Some(&b), "eth0")));
    // And it is as good as new.
    start_and_stop(&b);
}
