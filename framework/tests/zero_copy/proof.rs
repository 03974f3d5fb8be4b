//! That zero copy is what happens: the kernel's ways on which packets are copied are not taken.

use std::time::Instant;

use afx::port::{Mode, ModeWanted};
use afx::{Idle, Runtime};

use crate::cable::Cable;
use crate::probe::{COPY_IN, COPY_OUT, Probes};
use crate::pump::Plan;
use crate::support::*;

/// Packets echoed: how many, the calls that copied meanwhile at both ends, and how many packets a second.
fn count(name: &str, cable: Cable, mode: Mode, packets: u64) -> (u64, [u64; 2], u64) {
    let hosts = Hosts::new(name);
    hosts.join(cable, "eth0");
    let probes = Probes::new();
    let builder = || Runtime::builder().port(port("eth0", mode)).workers(1).cores([0]).idle(Idle::ADAPTIVE);
    let mirror = hosts.start(builder, || Mirror).unwrap();
    assert_mode(&mirror, mode);
    let traffic = hosts.pump(&["eth0"], ModeWanted::Demand(mode), cable, Plan::endless().flows(64));
    // A link that comes up once sockets are open is no part of the rate.
    traffic.wait_for_more(1);
    let (began, before) = (Instant::now(), traffic.returned());
    traffic.wait_for_more(packets);
    let rate = (traffic.returned() - before) as f64 / began.elapsed().as_secs_f64();
    let returned = traffic.returned();
    traffic.end_on_bad_link();
    let stats = mirror.stop().unwrap();
    let hits = probes.hits();
    match cable {
        // When its link goes down, the driver of igb drops what it was to send without a word.
        Cable::Igb => assert!(stats.balanced(), "{stats:?}"),
        _ => assert_settled(&stats, &hosts.near, &["eth0"]),
    }
    (returned, hits, rate as u64)
}

#[test]
fn in_zero_copy_mode_nothing_is_copied() {
    println!("{:<12}{:<12}{:>10}{COPY_IN:>12}{COPY_OUT:>18}{:>12}", "card", "mode", "echoed", "packets/s");
    let cards = [("virtio-net", Cable::First, "pvirtio"), ("igb", Cable::Igb, "pigb")];
    for (card, cable, network) in cards {
        for mode in [Mode::ZeroCopy, Mode::Copy] {
            let (packets, [copied_in, copied_out], rate) = count(network, cable, mode, 50_000);
            let name = mode.to_string();
            println!("{card:<12}{name:<12}{packets:>10}{copied_in:>12}{copied_out:>18}{rate:>12}");
            match mode {
                Mode::ZeroCopy => assert_eq!([copied_in, copied_out], [0, 0], "{card}"),
                // Each came in, and went out, at either end.
                Mode::Copy => {
                    assert!(
                        copied_in >= 2 * packets && copied_out >= 2 * packets,
                        "{copied_in}, {copied_out}"
                    );
                }
            }
        }
    }
}
