//! `afx-pktgen rfc2544` on devices of its own: afx's forwarder, the kernel's, and an echo. Needs root.
//!
//! No figure is asserted: machines that run tests are slow and noisy. Counts are.

use std::fs;
use std::time::Duration;

use afx::port::{Steering, XdpPort};
use afx::{Batch, PortId, Running, Runtime, Stage};
use afx_testbed::{Host, Link, PacketCounters, Process, Signal, Testbed, wait_for};
use serde_json::Value;

/// How long to wait for what takes some seconds on a quiet machine.
const PATIENCE: Duration = Duration::from_secs(240);

/// A tester with two interfaces, and a device between them.
struct Net {
    tester: Host,
    device: Host,
    bed: Testbed,
}

impl Net {
    fn new(name: &str) -> Self {
        let bed = Testbed::new(name).unwrap();
        let (tester, device) = (bed.host("tester").unwrap(), bed.host("device").unwrap());
        for (interface, net) in [("eth0", 18), ("eth1", 19)] {
            let end = |host: &Host, number| {
                let v6 = format!("2001:2:0:{}::{number}/64", net - 18);
                host.end(interface).address(format!("198.{net}.0.{number}/24")).address(v6)
            };
            bed.link(Link::between(end(&tester, 2), end(&device, 1))).unwrap();
        }
        Self { tester, device, bed }
    }

    /// The arguments after which a test takes some seconds.
    fn command(&self, more: &[&str]) -> afx_testbed::Command {
        let short = [
            ["--send", "eth0"],
            ["--receive", "eth1"],
            ["--max-rate", "20kpps"],
            ["--trial", "200ms"],
            ["--settle", "300ms"],
            ["--pause", "0s"],
            ["--resolution", "20%"],
            ["--max-burst", "50ms"],
        ];
        let unsaid = short.iter().filter(|pair| !more.contains(&pair[0]));
        self.tester
            .command(env!("CARGO_BIN_EXE_afx-pktgen"))
            .arg("rfc2544")
            .args(unsaid.flatten())
            .args(more)
            .within(PATIENCE)
    }

    fn file(&self, name: &str) -> String {
        self.bed.directory().join(name).to_str().unwrap().to_owned()
    }

    /// Runs it with all kinds of reports, and demands of each that it is right.
    fn measure(&self, sizes: &[&str], more: &[&str]) -> Value {
        let [json, csv, svg] = ["report.json", "report.csv", "report.svg"].map(|name| self.file(name));
        let list = sizes.join(",");
        let files = ["--sizes", &list, "--json", &json, "--csv", &csv, "--plot", &svg];
        let before = self.counters();
        let output = self.command(&files).args(more).output().unwrap();
        let after = self.counters();
        assert_eq!(output.status.code(), Some(0), "{}{}", output.stdout, output.stderr);
        self.assert_untouched();

        let text = &output.stdout;
        for title in ["Throughput", "Latency", "Frame loss rate", "Back-to-back"] {
            let table = text.split("\n\n").find(|part| part.starts_with(title));
            let table = table.unwrap_or_else(|| panic!("no {title} in {text}"));
            for size in sizes {
                let has_row = table.lines().any(|line| line.starts_with(&format!("{size} ")));
                // Where nothing came through, there is no latency at any part of it.
                let nothing = text.contains("nothing comes through") && title == "Latency";
                assert!(has_row || nothing, "no {size} in {text}");
            }
        }
        let report: Value = serde_json::from_str(&fs::read_to_string(json).unwrap()).unwrap();
        assert_eq!((&report["complete"], &report["ledger_balanced"]), (&true.into(), &true.into()));
        let found: Vec<_> = report["sizes"].as_array().unwrap().iter().map(|size| &size["frame"]).collect();
        assert_eq!(found, sizes.iter().collect::<Vec<_>>());
        let table = fs::read_to_string(csv).unwrap();
        let columns = table.lines().next().unwrap().split(',').count();
        assert!(table.lines().all(|line| line.split(',').count() == columns), "{table}");
        for size in sizes {
            assert!(table.lines().any(|line| line.starts_with(&format!("throughput,{size},"))), "{table}");
        }
        let picture = fs::read_to_string(svg).unwrap();
        let picture = roxmltree::Document::parse(&picture).unwrap();
        assert!(
            picture
                .descendants()
                .any(|node| node.text().is_some_and(|text| text.trim() == "Throughput in frames"))
        );
        consistent(&report, before, after);
        report
    }

    /// Of both interfaces of the tester.
    fn counters(&self) -> [PacketCounters; 2] {
        ["eth0", "eth1"].map(|interface| self.tester.packet_counters(interface).unwrap())
    }

    fn assert_untouched(&self) {
        for interface in ["eth0", "eth1"] {
            assert_eq!(self.tester.xdp_program(interface).unwrap(), None);
        }
    }
}

fn number(value: &Value, name: &str) -> u64 {
    value[name].as_u64().unwrap_or_else(|| panic!("no number {name} in {value:#}"))
}

/// What is said to have been sent and received is what the kernel has counted, but for learning frames and the little
/// that kernels say to each other.
fn consistent(report: &Value, before: [PacketCounters; 2], after: [PacketCounters; 2]) {
    let totals = &report["totals"];
    let (offered, received, trials) =
        (number(totals, "offered"), number(totals, "received"), number(totals, "trials"));
    let other = 2 * trials + 500;
    let sent = after[0].tx_packets - before[0].tx_packets + after[0].tx_dropped - before[0].tx_dropped;
    // Before the tests, some packets find out whether any come through.
    assert!((offered..=offered + other).contains(&sent), "{offered} offered, {sent} sent by eth0");
    let arrived = after[1].rx_packets - before[1].rx_packets;
    let all = received + number(totals, "duplicates");
    assert!(all <= arrived && arrived <= offered + other, "{all} received, {arrived} by eth1; {totals:#}");
    assert!(received > 0 && received <= offered);
    // The report's own reading of the kernel's counters: of the trials alone.
    let own = &totals["interfaces"];
    let own_sent = number(own, "sender_sent") + number(own, "sender_dropped");
    assert!((offered..=sent).contains(&own_sent), "{own:#}");
    for size in report["sizes"].as_array().unwrap() {
        let rows = ["latency", "loss"].iter().flat_map(|test| size[test].as_array().unwrap());
        for row in rows.chain([&size["throughput"]]).filter(|row| row["offered"] != 0) {
            assert_eq!(number(row, "offered") - number(row, "received"), number(row, "lost"), "{row:#}");
            let taken =
                number(&row["interfaces"], "sender_sent") + number(&row["interfaces"], "sender_dropped");
            assert!(taken >= number(row, "offered"), "{row:#}");
        }
        for row in size["latency"].as_array().unwrap() {
            let times = ["min", "p50", "p90", "p99", "p99_9", "max"].map(|name| &row["latency_ns"][name]);
            assert!(times.is_sorted_by_key(|time| time.as_u64()), "{row:#}");
        }
    }
}

/// As the framework's example `forward`.
struct Cable(PortId, PortId);

impl Stage for Cable {
    fn process(&mut self, batch: &mut Batch) {
        for slot in batch.live() {
            let mut packet = batch.packet(slot);
            packet.transmit(if packet.ingress() == self.0 { self.1 } else { self.0 });
        }
    }
}

fn forward(device: &Host) -> Running {
    let start = || {
        Runtime::builder()
            .port(XdpPort::new("eth0", Steering::All))
            .port(XdpPort::new("eth1", Steering::All))
            .pipeline(|build| {
                let mut ports = build.ports().map(|(port, _)| port);
                Cable(ports.next().unwrap(), ports.next().unwrap())
            })
            .start()
    };
    device.run(start).unwrap().unwrap()
}

#[test]
fn afx_forwards() {
    let net = Net::new("rfcafx");
    let running = forward(&net.device);
    net.measure(&["64", "512", "1518", "imix"], &["--flows", "4"]);
    let stats = running.stop().unwrap();
    assert!(stats.balanced() && stats.sent() > 0);
}

#[test]
fn the_kernel_forwards_both_versions_of_ip() {
    let net = Net::new("rfckernel");
    net.device.forward().unwrap();
    let mac = net.tester.mac("eth1").unwrap();
    for address in ["198.19.0.2", "2001:2:0:1::2"] {
        net.device.neighbour("eth1", address.parse().unwrap(), mac).unwrap();
    }
    // The kernel asks for the device's MAC address, as for any neighbour.
    net.measure(&["64", "1518"], &["--via", "198.18.0.1"]);
    let mac = net.device.mac("eth0").unwrap().to_string();
    net.measure(&["84", "512"], &["--destination", "2001:2:0:1::2", "--to-mac", &mac, "--repeats", "2"]);
}

#[test]
fn a_device_without_neighbours_asks_for_the_receiver() {
    let net = Net::new("rfcasks");
    net.device.forward().unwrap();
    // The steering leaves ARP to the kernel, which answers.
    let output =
        net.command(&["--via", "198.18.0.1", "--tests", "throughput", "--sizes", "64"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", output.stderr);
}

#[test]
fn one_interface_does_for_a_device_that_sends_back() {
    let net = Net::new("rfcecho");
    for swap in ["mac", "l3"] {
        let echo = net
            .device
            .command(env!("CARGO_BIN_EXE_afx-pktgen"))
            .args(["echo", "eth0", "--swap", swap])
            .spawn()
            .unwrap();
        echo.wait_for_output("echoing on eth0", PATIENCE).unwrap();
        let output = net
            .command(&["--send", "eth0", "--receive", "eth0", "--sizes", "128", "--json", "-"])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", output.stderr);
        let report: Value = serde_json::from_str(&output.stdout).unwrap();
        assert!(number(&report["totals"], "received") > 0, "{report:#}");
        assert_eq!(report["ledger_balanced"], true);
        net.assert_untouched();
        echo.signal(Signal::SIGINT).unwrap();
        echo.wait_within(PATIENCE).unwrap();
    }
}

#[test]
fn a_device_that_forwards_nothing_is_an_error_that_says_what_to_look_at() {
    let net = Net::new("rfcnothing");
    let output = net.command(&["--to-mac", "02:00:00:00:00:09", "--settle", "10ms"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        output.stderr.contains("none of 100 packets that were sent on eth0 came back on eth1"),
        "{}",
        output.stderr
    );
    assert!(output.stderr.contains("02:00:00:00:00:09"), "{}", output.stderr);
    assert_eq!(output.stdout, "");
    net.assert_untouched();
}

/// Starts a test that takes an hour, and waits until it measures.
fn long(net: &Net, more: &[&str]) -> Process {
    let process = net.command(&[&["--trial", "1h"], more].concat()).spawn().unwrap();
    process.wait_for_output("maximum, frames of 64", PATIENCE).unwrap();
    process
}

#[test]
fn an_interrupted_test_reports_what_it_has() {
    let net = Net::new("rfcsignal");
    let running = forward(&net.device);
    let json = net.file("partial.json");
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let process = long(&net, &["--json", &json]);
        process.signal(signal).unwrap();
        let status = process.wait_within(PATIENCE).unwrap();
        assert_eq!(status.code(), Some(1), "{}", process.stderr());
        assert!(process.stderr().contains("interrupted; the report is incomplete"), "{}", process.stderr());
        assert!(process.stdout().contains("INCOMPLETE"), "{}", process.stdout());
        let report: Value = serde_json::from_str(&fs::read_to_string(&json).unwrap()).unwrap();
        assert_eq!((&report["complete"], &report["ledger_balanced"]), (&false.into(), &true.into()));
        net.assert_untouched();
    }
    let process = long(&net, &[]);
    process.signal(Signal::SIGKILL).unwrap();
    process.wait_within(PATIENCE).unwrap();
    for interface in ["eth0", "eth1"] {
        let gone = || net.tester.xdp_program(interface).unwrap().is_none();
        wait_for("the interface as before", PATIENCE, gone).unwrap();
    }
    running.stop().unwrap();
}

#[test]
fn too_little_throughput_is_status_1() {
    let net = Net::new("rfcbelow");
    let running = forward(&net.device);
    let quick = ["--sizes", "64", "--tests", "throughput", "--loss", "99%", "--fail-below"];
    let status = |rate: &str| {
        let output = net.command(&quick).args([rate]).output().unwrap();
        (output.status.code(), output.stderr)
    };
    let (code, said) = status("1Mpps");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("below the 1.0000 Mpps of --fail-below 1Mpps"), "{said}");
    let (code, said) = status("1pps");
    assert_eq!(code, Some(0), "{said}");
    running.stop().unwrap();
}

#[test]
fn wrong_options_are_status_2_and_touch_nothing() {
    let net = Net::new("rfcwrong");
    for (more, right) in [
        (&["--send", "eth9"][..], "there is no interface eth9"),
        (&["--sizes", "1519"], "too long for eth0, whose MTU is 1500: at most 1518 bytes"),
        (&["--sizes", "64-128"], "say single ones"),
        (&["--via", "198.19.0.1"], "the kernel reaches it by another interface than eth0"),
        (&["--csv", "/no/such/directory/x.csv"], "cannot write /no/such/directory/x.csv"),
        (&["--plot", "x.png"], "name the file `….svg`"),
        (&["--cores", "0,9999"], "core 9999"),
    ] {
        let output = net.command(more).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{more:?}: {}", output.stderr);
        assert!(output.stderr.contains(right), "{more:?}: {}", output.stderr);
        assert_eq!(output.stdout, "");
        net.assert_untouched();
    }
}
