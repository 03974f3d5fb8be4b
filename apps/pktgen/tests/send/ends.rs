//! Whatever way it ends, the interface is as before, and what was sent is said.

use afx_testbed::{Signal, wait_for};

use crate::pair::{PATIENCE, Pair, number};

#[test]
fn a_signal_ends_it_in_good_order() {
    let pair = Pair::new("pg-signal");
    let to = pair.far.mac("eth0").expect("a MAC address").to_string();
    for (mode, signal) in [("copy", Signal::SIGINT), ("live", Signal::SIGTERM)] {
        for (count, status) in [("", 0), ("--count 1000000000", 1)] {
            let before = pair.received();
            let arguments = format!(
                "--mode {mode} --source 192.0.2.1 --destination 198.51.100.7 --rate 1kpps --json {count} --to-mac {to}"
            );
            let process = pair.command(&arguments).spawn().expect("it starts");
            wait_for("packets to arrive", PATIENCE, || pair.received().0 > before.0).expect("they arrive");
            process.signal(signal).expect("it is there");
            let ended = process.wait_within(PATIENCE).expect("it ends");
            assert_eq!(ended.code(), Some(status), "{}", process.stderr());
            let report = serde_json::from_str(&process.stdout()).expect("one JSON object");
            pair.expect(before, &report);
            assert_eq!(report["interrupted"], true);
            assert!(number(&report, "sent_packets") > 0);
            assert!(!pair.has_program());
        }
    }
}

#[test]
fn a_kill_leaves_no_program() {
    let pair = Pair::new("pg-kill");
    let to = pair.far.mac("eth0").expect("a MAC address").to_string();
    for mode in ["copy", "live"] {
        let before = pair.received();
        let arguments =
            format!("--mode {mode} --source 192.0.2.1 --destination 198.51.100.7 --rate 1kpps --to-mac {to}");
        let process = pair.command(&arguments).spawn().expect("it starts");
        wait_for("packets to arrive", PATIENCE, || pair.received().0 > before.0).expect("they arrive");
        // Live frames take none; over AF_XDP a card may need one.
        assert_eq!(pair.has_program(), mode == "copy");
        process.signal(Signal::SIGKILL).expect("it is there");
        process.wait_within(PATIENCE).expect("it ends");
        wait_for("the program to be gone", PATIENCE, || !pair.has_program()).expect("it goes");
    }
}
