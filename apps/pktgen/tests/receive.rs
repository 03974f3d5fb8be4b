//! `afx-pktgen receive` on real interfaces: what a network did to packets on purpose comes out right. Needs root.

mod signed;

use std::collections::BTreeMap;
use std::time::Duration;

use afx_testbed::{Signal, wait_for};
use serde_json::Value;

use signed::*;

/// Fewer than a ring has places: whatever else the machine does, none is lost that is not lost on purpose.
const PACKETS: u32 = 1900;

fn latency(result: &Value) -> BTreeMap<&str, f64> {
    let times = result["latency_ns"].as_object().unwrap();
    times.iter().map(|(name, time)| (name.as_str(), time.as_f64().unwrap())).collect()
}

#[test]
fn what_arrives_whole_has_lost_nothing() {
    let net = Net::new("pgwhole", 1);
    let process = net.receive(&["--json", "--expect", "3800", "--fail-on-loss"]);
    let sockets = [net.socket(TO), net.socket(TO)];
    for (flow, socket) in (0..).zip(&sockets) {
        send(socket, flow, 0..PACKETS);
    }
    let result = result(&net.receiver, &process, 0);
    for (name, value) in [
        ("packets", 3800),
        // 14 of Ethernet, 20 of IP, 8 of UDP, 18 of signature, 4 of the frame check sequence.
        ("bytes", 3800 * 64),
        ("distinct", 3800),
        ("expected", 3800),
        ("flows", 2),
        ("lost", 0),
        ("lost_at_end", 0),
        ("reordered", 0),
        ("reordering_extent", 0),
        ("duplicates", 0),
        ("too_late", 0),
        ("restarts", 0),
        ("malformed", 0),
        ("kernel_dropped", 0),
        ("latency_out_of_range", 0),
    ] {
        assert_eq!(number(&result, name), value, "{name} in {result:#}");
    }
    assert_eq!((&result["mode"], &result["latency"]), (&"copy".into(), &"one-way".into()));
    let latency = latency(&result);
    let order = ["min", "p50", "p90", "p99", "p99_9", "max"].map(|name| latency[name]);
    assert!(order.is_sorted() && order[0] > 0.0, "{latency:?}");
    assert_eq!(latency["count"], 3800.0);
    let seconds = result["seconds"].as_f64().unwrap();
    let rate = result["packets_per_second"].as_f64().unwrap();
    assert!((rate * seconds - 3799.0).abs() < 0.01, "{rate} pps in {seconds} s");
}

#[test]
fn every_tenth_dropped_by_nftables_is_lost() {
    let net = Net::new("pgnth", 1);
    let rules = "
        add table inet test
        add chain inet test forward { type filter hook forward priority 0; }
        add rule inet test forward udp dport 9 numgen inc mod 10 == 0 counter drop
    ";
    net.router.command("nft").args(["-f", "-"]).input(rules).check().unwrap();
    let dropped = || {
        let listed = net.router.command("nft").args(["list", "table", "inet", "test"]).check().unwrap();
        let counter = listed.split("counter packets ").nth(1).unwrap();
        counter.split(' ').next().unwrap().parse::<u64>().unwrap()
    };
    let count = PACKETS.to_string();
    let mut before = 0;
    // What the receiver is told to make of it, and what it says.
    for (arguments, status, said) in [
        (vec!["--fail-on-loss"], 1, "190 of 1,900 packets lost (10.00 %), and no loss was asked for"),
        (
            vec!["--max-loss", "9.99%"],
            1,
            "190 of 1,900 packets lost (10.00 %), and at most 9.99 % was asked for",
        ),
        (vec!["--max-loss", "10%"], 0, ""),
        (vec![], 0, ""),
    ] {
        let process =
            net.receive(&[&["--json", "--per-flow", "3", "--expect", &count][..], &arguments].concat());
        send(&net.socket(TO), 7, 0..PACKETS);
        let result = result(&net.receiver, &process, status);
        let now = dropped();
        assert_eq!(number(&result, "lost"), now - before, "{result:#}");
        assert_eq!(now - before, u64::from(PACKETS / 10));
        before = now;
        assert_eq!(result["loss_ratio"], 0.1);
        assert_eq!((number(&result, "reordered"), number(&result, "duplicates")), (0, 0));
        let flow = &result["per_flow"][0];
        assert_eq!((number(flow, "flow"), number(flow, "lost"), number(flow, "received")), (7, 190, 1710));
        assert!(process.stderr().contains(said), "{}", process.stderr());
    }
}

#[test]
fn a_loss_at_the_end_shows_only_by_what_is_expected() {
    let net = Net::new("pgend", 1);
    for (arguments, lost, at_end, status) in [
        (vec!["--expect", "1000", "--fail-on-loss"], 100, 100, 1),
        (vec!["--idle-end", "1s", "--fail-on-loss"], 0, 0, 0),
    ] {
        let process = net.receive(&[&["--json"][..], &arguments].concat());
        send(&net.socket(TO), 0, 0..900);
        let result = result(&net.receiver, &process, status);
        assert_eq!((number(&result, "lost"), number(&result, "lost_at_end")), (lost, at_end));
    }
}

#[test]
fn swapped_pairs_are_reordered_by_one() {
    let net = Net::new("pgswap", 1);
    let process = net.receive(&["--json", "--expect", &PACKETS.to_string(), "--fail-on-loss"]);
    let socket = net.socket("10.0.0.2:9");
    relay(&net, Fault::SwapPairs, PACKETS.into(), || send(&socket, 0, 0..PACKETS));
    let result = result(&net.receiver, &process, 0);
    let found = ["distinct", "lost", "reordered", "reordering_extent", "duplicates"]
        .map(|name| number(&result, name));
    assert_eq!(found, [PACKETS.into(), 0, u64::from(PACKETS) / 2, 1, 0]);
}

#[test]
fn copies_are_counted_and_nothing_else() {
    let net = Net::new("pgtwice", 1);
    let process = net.receive(&["--json", "--expect", "1700", "--fail-on-loss"]);
    let socket = net.socket("10.0.0.2:9");
    relay(&net, Fault::Double(10), 1700, || send(&socket, 0, 0..1700));
    let result = result(&net.receiver, &process, 0);
    let found = ["packets", "distinct", "lost", "reordered", "duplicates"].map(|name| number(&result, name));
    assert_eq!(found, [1870, 1700, 0, 0, 170]);
}

#[test]
fn a_delay_shows_in_every_percentile() {
    let net = Net::new("pgdelay", 1);
    let delay = Duration::from_millis(20);
    let socket = net.socket("10.0.0.2:9");
    for delay in [Duration::ZERO, delay] {
        let process = net.receive(&["--json", "--expect", "1000"]);
        relay(&net, Fault::Delay(delay), 1000, || send(&socket, 0, 0..1000));
        let result = result(&net.receiver, &process, 0);
        let latency = latency(&result);
        assert_eq!(latency["count"], 1000.0);
        for name in ["min", "p50", "p90", "p99", "p99_9", "max", "mean"] {
            let nanos = latency[name];
            assert!(nanos >= delay.as_nanos() as f64, "{name} of {delay:?}: {latency:?}");
            // However busy the machine is.
            assert!(nanos < (delay + Duration::from_secs(10)).as_nanos() as f64, "{name}: {latency:?}");
        }
    }
}

#[test]
fn without_latency_there_is_none() {
    let net = Net::new("pgoff", 1);
    let process = net.receive(&["--json", "--latency", "off", "--expect", "10"]);
    send(&net.socket(TO), 0, 0..10);
    let result = result(&net.receiver, &process, 0);
    assert_eq!((&result["latency"], &result["latency_ns"]), (&"off".into(), &Value::Null));
}

#[test]
fn of_a_million_packets_every_one_is_accounted_for() {
    const MILLION: u32 = 1_000_000;
    let net = Net::new("pgmillion", 1);
    // Slower each time, until the receiver gets all the time it needs beside whatever else the machine does.
    for pause in [0, 1, 2, 5].map(Duration::from_millis) {
        let before = net.arrived();
        let process = net.receive(&["--json", "--expect", &MILLION.to_string()]);
        send_in_step(&net, &net.socket(TO), MILLION, pause);
        let result = result(&net.receiver, &process, 0);
        let (packets, full) = (number(&result, "packets"), number(&result, "kernel_dropped"));
        // What the interface was given was counted, was no packet of ours, or found the ring full.
        let seen = packets + number(&result, "unsigned") + full;
        let redirected = number(&result["redirect"], "redirected");
        assert_eq!(redirected, seen, "{result:#}");
        assert!(seen <= net.arrived() - before);
        assert_eq!(number(&result, "lost"), u64::from(MILLION) - packets);
        assert_eq!((number(&result, "reordered"), number(&result, "duplicates")), (0, 0));
        if packets == u64::from(MILLION) {
            assert_eq!((number(&result, "lost"), full), (0, 0));
            return;
        }
    }
    panic!("packets were lost at every rate");
}

#[test]
fn the_workers_of_several_queues_make_one_result() {
    let net = Net::new("pgqueues", 2);
    let process = net.receive(&[
        "--json",
        "--expect",
        "1600",
        "--count",
        "1600",
        "--idle-end",
        "60s",
        "--queues",
        "0,1",
        "--fail-on-loss",
    ]);
    for queue in [0, 1] {
        net.router.send_by_queue("eth1", queue).unwrap();
        for flow in 16 * queue..16 * (queue + 1) {
            send(&net.socket(TO), flow, 0..50);
        }
        // Before the next ones take the other. IPv6's own packets are counted too, so a few may still be under way.
        let sent = 800 * u64::from(queue + 1);
        wait_for("the packets to arrive", PATIENCE, || net.arrived() >= sent).unwrap();
    }
    let result = result(&net.receiver, &process, 0);
    assert_eq!(
        (number(&result, "packets"), number(&result, "flows"), number(&result, "flows_split")),
        (1600, 32, 0)
    );
    let workers = result["workers"].as_array().unwrap();
    let queues: Vec<_> = workers.iter().flat_map(|worker| worker["queues"].as_array().unwrap()).collect();
    assert_eq!(queues, [0, 1]);
    let each = workers.iter().map(|worker| number(worker, "packets"));
    assert!(workers.len() == 1 || each.min().unwrap() > 750, "{result:#}");
}

#[test]
fn only_what_is_asked_for_is_taken() {
    let net = Net::new("pgmatch", 1);
    let process = net.receive(&["--json", "--match", "udp:10.0.1.2:9", "--expect", "100", "--fail-on-loss"]);
    // Everything else is the kernel's.
    net.router.command("ping").args(["-c", "2", "-i", "0.2", "-W", "30", "10.0.1.2"]).check().unwrap();
    send(&net.socket("10.0.1.2:10"), 0, 0..50);
    send(&net.socket(TO), 0, 0..100);
    let result = result(&net.receiver, &process, 0);
    assert_eq!((number(&result, "packets"), number(&result, "unsigned")), (100, 0));
    assert!(number(&result["redirect"], "passed_unmatched") >= 52, "{result:#}");
}

#[test]
fn the_table_says_what_the_json_object_says() {
    let net = Net::new("pgtable", 1);
    // Lost, late, doubled, of a flow that is not followed, and none of ours.
    let faulty = || {
        let socket = net.socket(TO);
        send_at_once(&socket, 0, (0..1000).filter(|sequence| sequence % 50 != 3).chain([3, 10, 11]));
        send(&socket, 1, [0, 1, 2, 5]);
        send(&socket, 9, [0, 1]);
        for _ in 0..5 {
            socket.send(b"this is no packet of the generator").unwrap();
        }
    };
    let arguments = ["--idle-end", "1s", "--flows-max", "2", "--per-flow", "5"];
    let process = net.receive(&[&["--json"][..], &arguments].concat());
    faulty();
    let result = result(&net.receiver, &process, 0);
    let expected = [
        ("received", "packets", 989),
        ("lost", "lost", 21),
        ("reordered", "reordered", 1),
        ("duplicates", "duplicates", 2),
        ("flows", "flows", 2),
        ("malformed", "malformed", 0),
        ("kernel dropped", "kernel_dropped", 0),
    ];

    let process = net.receive(&arguments);
    faulty();
    let (code, table) = ended(&net.receiver, "eth0", &process);
    assert_eq!(code, 0);
    assert!(table.starts_with("eth0 (copy mode)\n"), "{table}");
    let value = |name: &str| -> u64 {
        let line = table
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap_or_else(|| panic!("{name}: {table}"));
        line.split_whitespace().next().unwrap().replace(',', "").parse().unwrap()
    };
    for (line, name, count) in expected {
        assert_eq!((value(line), number(&result, name)), (count, count), "{name} in {table}{result:#}");
    }
    // The neighbours' own noise is unsigned, too.
    assert!(value("unsigned") >= 5 && number(&result, "unsigned") >= 5, "{table}");
    assert_eq!(value("bytes"), 989 * 64);
    assert_eq!(number(&result, "packets_beyond_flows_max"), 2);
    assert!(table.contains("note: 2 packets of flows numbered 2 or more"), "{table}");
    // Flow by flow, the worst first.
    let rows: Vec<Vec<_>> = table
        .lines()
        .skip_while(|line| !line.starts_with("flow "))
        .skip(1)
        .take(2)
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(rows[0][..3], ["0", "983", "19"], "{table}");
    assert_eq!(rows[1][..3], ["1", "4", "2"], "{table}");
    for (row, flow) in rows.iter().zip(result["per_flow"].as_array().unwrap()) {
        assert_eq!(row[0], number(flow, "flow").to_string());
        assert_eq!(row[1], number(flow, "received").to_string());
        assert_eq!(row[2], number(flow, "lost").to_string());
    }
    // A time is there for each.
    let micros: Vec<f64> = table
        .lines()
        .find_map(|line| line.strip_prefix("µs "))
        .unwrap()
        .split_whitespace()
        .map(|time| time.parse().unwrap())
        .collect();
    assert_eq!(micros.len(), 8, "{table}");
    assert!(micros[..6].is_sorted(), "{table}");
}

#[test]
fn it_ends_by_signals_counts_and_times_and_leaves_nothing() {
    let net = Net::new("pgsignal", 1);
    let socket = net.socket(TO);
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        // While it runs there is a line a second; waiting for it makes sure that packets have been counted.
        let process = net.receive(&[]);
        send(&socket, 0, 0..100);
        process.wait_for_output("100 packets  lost 0 (0 %)", PATIENCE).unwrap();
        process.signal(signal).unwrap();
        let (code, table) = ended(&net.receiver, "eth0", &process);
        assert_eq!(code, 0, "{signal}: {}", process.stderr());
        assert!(table.lines().any(|line| line.starts_with("received ") && line.contains(" 100 ")), "{table}");
    }
    let process = net.receive(&["--count", "50", "--json"]);
    send(&socket, 0, 0..100);
    assert!(number(&result(&net.receiver, &process, 0), "packets") >= 50);
    // Nothing comes, and that is said.
    let process = net.receive(&["--time", "300ms"]);
    let (code, table) = ended(&net.receiver, "eth0", &process);
    assert_eq!(code, 0);
    assert!(table.contains("note: no packet of the generator came"), "{table}");
    let process = net.receive(&["--time", "300ms", "--fail-on-loss", "--json"]);
    let nothing = result(&net.receiver, &process, 1);
    assert_eq!(nothing["loss_ratio"], Value::Null);
    assert!(process.stderr().contains("no packet of the generator came on eth0: loss cannot be told"));
    // Quiet is quiet.
    let process = pktgen(&net.receiver, &["receive", "eth0", "--quiet", "--time", "1200ms"]).spawn().unwrap();
    ended(&net.receiver, "eth0", &process);
    assert_eq!(process.stderr(), "");

    let process = net.receive(&[]);
    assert!(net.receiver.xdp_program("eth0").unwrap().is_some());
    process.signal(Signal::SIGKILL).unwrap();
    assert!(!process.wait_within(PATIENCE).unwrap().success());
    wait_until_untouched(&net.receiver, "eth0");
}

#[test]
fn what_is_wrong_is_said_and_changes_nothing() {
    let net = Net::new("pgwrong", 1);
    for (arguments, said) in [
        (&["eth7"][..], "port eth7: there is no interface of that name in this network namespace"),
        (&["eth0", "--queues", "3"], "no queue 3: it has queues 0 to 0"),
        (&["eth0", "--match", "udp:10.0.1.2:0"], "leave the port out"),
        (&["eth0", "--match", "10.0.1.2"], "right would be udp:10.0.0.2:9"),
        (&["eth0", "--window", "100"], "a power of two from 64 to 1048576 is right, such as 4096"),
        (&["eth0", "--max-loss", "0.1"], "a percentage from 0% to 100% is right, such as 0.01%"),
        (&["eth0", "--flows-max", "0"], "0 is not in 1..=16777216"),
        (&["eth0", "--latency", "two-way"], "possible values: one-way, round-trip, off"),
        (&[], "<INTERFACE>"),
    ] {
        let output = pktgen(&net.receiver, &[&["receive"], arguments].concat()).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", output.stderr);
        assert!(output.stderr.contains(said), "{arguments:?}: {}", output.stderr);
        assert_eq!(output.stdout, "");
    }
    // A result that cannot be written is not passed over; a reader that has gone is.
    for (to, status, said) in [("/dev/full", 1, "cannot write the result"), ("| true", 0, "")] {
        let program = env!("CARGO_BIN_EXE_afx-pktgen");
        let redirected = if to.starts_with('|') { to.to_owned() } else { format!("> {to}") };
        let line = format!("set -o pipefail; {program} receive eth0 --json --time 1ms {redirected}");
        let output = net.receiver.command("bash").args(["-c", &line]).output().unwrap();
        assert_eq!(output.status.code(), Some(status), "{to}: {}", output.stderr);
        assert!(output.stderr.contains(said), "{to}: {}", output.stderr);
    }
    // A mode demanded by name, which a veth has not.
    let output = pktgen(&net.receiver, &["receive", "eth0", "--mode", "zero-copy"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", output.stderr);
    assert!(output.stderr.contains("zero-copy"), "{}", output.stderr);
    // All of what the default route carries would be everything.
    net.receiver.route("default", "10.0.1.1").unwrap();
    let output = pktgen(&net.receiver, &["receive", "eth0", "--time", "1ms"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stderr.contains("the default route leaves by this interface"), "{}", output.stderr);
    let forced = pktgen(&net.receiver, &["receive", "eth0", "--time", "1ms", "--force"]).output().unwrap();
    assert_eq!(forced.status.code(), Some(0), "{}", forced.stderr);
    assert_eq!(net.receiver.xdp_program("eth0").unwrap(), None);
}
