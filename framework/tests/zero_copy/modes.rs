//! Which mode a port gets: what drivers refuse, and ports of unlike mode on one worker.

use afx::port::{Mode, ModeWanted, Steering, XdpPort};
use afx::{Idle, Runtime, RuntimeBuilder};
use afx_testbed::Link;

use crate::cable::Cable;
use crate::pump::Plan;
use crate::support::*;

/// A port that takes the best mode there is.
fn any(name: &str) -> XdpPort {
    XdpPort::new(name, Steering::All).stall_limit(None)
}

/// Two hosts joined by the first cable, which does zero copy, as `left`, and as `right` by what does not.
fn unlike(name: &str, right: Option<Cable>) -> Hosts {
    let hosts = Hosts::new(name);
    hosts.join(Cable::First, "left");
    match right {
        Some(cable) => hosts.join(cable, "right"),
        None => hosts.net.link(Link::between(hosts.near.end("right"), hosts.far.end("right"))).unwrap(),
    }
    hosts
}

/// Forwards between two ports of unlike mode, given in either order: both copy.
fn forwards_in_copy_mode(hosts: &Hosts) {
    for order in [["left", "right"], ["right", "left"]] {
        let builder = || {
            let builder = order.into_iter().map(any).fold(Runtime::builder(), RuntimeBuilder::port);
            builder.workers(1).cores([0])
        };
        let across = hosts.start(builder, || Across).unwrap();
        assert_mode(&across, Mode::Copy);
        hosts.pump(&order, ModeWanted::Auto, Cable::First, Plan::whole(10_000)).finish();
        let stats = across.stop().unwrap();
        assert_settled(&stats, &hosts.near, &order);
    }
}

/// Demanded, zero copy is refused with an error that says so, and everything is put back; else it is done without.
fn falls_back(hosts: &Hosts, cable: Option<Cable>) {
    let demanded = || Runtime::builder().port(port("right", Mode::ZeroCopy));
    let error = hosts.start(demanded, || Mirror).err().expect("it is refused");
    let text = format!("{error}: {}", std::error::Error::source(&error).expect("why"));
    assert!(text.contains("port right") && text.contains("does not do zero-copy"), "{text}");
    assert_eq!(hosts.near.xdp_program("right").unwrap(), None);

    // Nor does a port that does it do so beside one that does not, if that is demanded.
    let beside = || Runtime::builder().port(port("left", Mode::ZeroCopy)).port(any("right")).workers(1);
    let error = hosts.start(beside, || Mirror).err().expect("it is refused");
    let text = format!("{error}: {}", std::error::Error::source(&error).expect("why"));
    assert!(text.contains("port right") && text.contains("does not do zero-copy"), "{text}");
    assert_eq!(hosts.near.xdp_program("left").unwrap(), None);
    assert_eq!(hosts.near.xdp_program("right").unwrap(), None);

    let builder = || Runtime::builder().port(any("right")).workers(1).cores([0]).idle(Idle::ADAPTIVE);
    let mirror = hosts.start(builder, || Mirror).unwrap();
    assert_mode(&mirror, Mode::Copy);
    hosts.pump(&["right"], ModeWanted::Auto, cable.unwrap_or(Cable::First), Plan::whole(10_000)).finish();
    assert_settled(&mirror.stop().unwrap(), &hosts.near, &["right"]);
}

#[test]
fn beside_a_veth_all_ports_of_a_worker_copy() {
    forwards_in_copy_mode(&unlike("munlikeveth", None));
}

#[test]
fn beside_a_card_that_refuses_all_ports_of_a_worker_copy() {
    forwards_in_copy_mode(&unlike("munlikecard", Some(Cable::Unmappable)));
}

#[test]
fn a_driver_without_zero_copy_is_told_apart() {
    // EOPNOTSUPP
    falls_back(&unlike("mrefuseveth", None), None);
}

#[test]
fn a_driver_that_refuses_zero_copy_on_this_card_is_told_apart() {
    // EINVAL
    falls_back(&unlike("mrefusecard", Some(Cable::Unmappable)), Some(Cable::Unmappable));
}

#[test]
fn where_the_driver_can_zero_copy_is_what_comes_unasked() {
    let hosts = unlike("munasked", None);
    let mirror = hosts.start(|| Runtime::builder().port(any("left")), || Mirror).unwrap();
    assert_mode(&mirror, Mode::ZeroCopy);
    hosts.pump(&["left"], ModeWanted::Auto, Cable::First, Plan::whole(10_000)).finish();
    assert_settled(&mirror.stop().unwrap(), &hosts.near, &["left"]);
}
