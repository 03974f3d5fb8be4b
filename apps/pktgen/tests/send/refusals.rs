//! What cannot be is said whole, with status 2, and leaves nothing behind.

use afx_testbed::wait_for;

use crate::pair::{PATIENCE, Pair, number};

#[test]
fn what_would_be_right_is_said() {
    let pair = Pair::new("pg-refusals");
    let to = "--source 192.0.2.1 --destination 198.51.100.7";
    let cases = [
        (
            format!("{to} --size 64 --vlan 7"),
            "error: frames of 64 bytes are too short: headers and a signature take 68; say `--size 68` at least, or \
             leave the signature out with `--no-signature`\n",
        ),
        (
            format!("{to} --size 9000"),
            "error: frames of 9000 bytes do not fit eth0, whose MTU is 1500: at most 1518, or a larger MTU\n",
        ),
        (
            format!("{to} --mode zero-copy"),
            "error: port eth0: opening queue 0: eth0 queue 0: its driver does not do zero-copy; use copy mode for all \
             ports of the worker: Operation not supported (os error 95)\n",
        ),
        (format!("{to} --mode copy --queues 2"), "error: port eth0: no queue 1: it has queues 0 to 0\n"),
        (
            format!("{to} --mode live --queues 2"),
            "error: --queues 2: eth0 has 1; say `ethtool -L eth0 rx N tx N`, and the same for its peer, for more\n",
        ),
        (
            "--destination 198.51.100.7".into(),
            "error: eth0 has no IPv4 address to send from: say one with `--source`\n",
        ),
        (
            "--source 192.0.2.1 --destination 2001:db8::1".into(),
            "error: source and destination are of different IP versions\n",
        ),
        (format!("{to} --tcp-flags syn"), "error: --tcp-flags are TCP's: say `--protocol tcp` too\n"),
        (
            format!("{to} --source-port 1-100 --flows 101"),
            "error: 101 flows: the ranges of addresses and ports have 100\n",
        ),
    ];
    for (arguments, message) in cases {
        let output = pair.send(&arguments);
        assert_eq!((output.status.code(), &*output.stderr), (Some(2), message), "{arguments}");
        assert_eq!(output.stdout, "");
        assert!(!pair.has_program(), "{arguments}");
    }
    let words = [
        (format!("{to} --rate 1000"), "not a rate: say packets as `1Mpps`, bits as `10Gbit/s`"),
        (format!("{to} --size 60"), "frames of 60 bytes: 64 to 9600, the frame check sequence's 4 counted"),
        (format!("{to} --time 10"), "not a time: say `10s`, `1m 30s` or `500ms`"),
        ("--source 192.0.2.1".into(), "--destination <ADDRESSES>"),
        (format!("{to} --order zipf"), "not an order: say `walk`, `random`, or `zipf:1.0`"),
    ];
    for (arguments, part) in words {
        let output = pair.send(&arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments}");
        assert!(output.stderr.contains(part), "{arguments}: {}", output.stderr);
    }
}

#[test]
fn unknown_ways_and_interfaces_are_said() {
    let pair = Pair::new("pg-unknown");
    let refused = |arguments: &str| {
        let output = pair.command(arguments).output().expect("it runs");
        assert_eq!(output.status.code(), Some(2), "{}", output.stderr);
        output.stderr
    };
    assert_eq!(
        refused("--source 192.0.2.1 --destination 198.51.100.7"),
        "error: no destination MAC address for 198.51.100.7: no route to it; say it with `--to-mac`\n"
    );
    assert_eq!(
        refused("--replay /nowhere.pcap"),
        "error: /nowhere.pcap: No such file or directory (os error 2)\n"
    );
    let other = pair.near.command(env!("CARGO_BIN_EXE_afx-pktgen"));
    let output = other.args(["send", "eth7", "--destination", "198.51.100.7"]).output().expect("it runs");
    assert_eq!(
        (output.status.code(), &*output.stderr),
        (Some(2), "error: there is no interface eth7 in this network namespace\n")
    );
}

#[test]
fn a_peer_that_takes_no_frames_gets_copies() {
    let pair = Pair::new("pg-nogro");
    pair.far.command("ethtool").args(["-K", "eth0", "gro", "off"]).check().expect("it is turned off");
    let to = "--source 192.0.2.1 --destination 198.51.100.7 --count 100";
    let output = pair.send(&format!("{to} --mode live"));
    assert_eq!(
        (output.status.code(), &*output.stderr),
        (
            Some(2),
            "error: eth0 takes no XDP frames: its peer is down, or has neither an XDP program nor GRO; say `ethtool -K \
             PEER gro on` where the peer is, or `--mode copy`\n"
        )
    );
    let before = pair.received();
    let report = pair.sent(to);
    assert_eq!((&report["mode"], number(&report, "sent_packets")), (&"copy".into(), 100));
    // Without NAPI it is the sender that counts, Ethernet headers too.
    wait_for("all packets to arrive", PATIENCE, || pair.received().0 - before.0 >= 100).expect("they arrive");
    assert_eq!(pair.received(), (before.0 + 100, before.1 + 100 * 60));
}
