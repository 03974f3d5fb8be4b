//! Two hosts and a link on which nobody speaks but the generator.

use std::path::Path;
use std::time::Duration;

use afx::port::CaptureReader;
use afx_testbed::{Command, Host, Link, Output, Signal, Testbed, wait_for};
use serde_json::Value;

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Pair {
    pub(crate) near: Host,
    pub(crate) far: Host,
    _net: Testbed,
}

impl Pair {
    /// Hosts without addresses: no ARP, no neighbour discovery, no replies. The far end has GRO, as live frames need it.
    pub(crate) fn new(name: &str) -> Self {
        Self::linked(name, true, |near, far| Link::between(near.end("eth0"), far.end("eth0")))
    }

    pub(crate) fn linked(name: &str, quiet: bool, link: impl FnOnce(&Host, &Host) -> Link) -> Self {
        let net = Testbed::new(name).expect("a network");
        let (near, far) = (net.host("near").expect("a host"), net.host("far").expect("a host"));
        for host in [&near, &far].into_iter().filter(|_| quiet) {
            host.sysctl("net.ipv6.conf.default.disable_ipv6", "1").expect("a setting");
        }
        net.link(link(&near, &far)).expect("a link");
        Self { near, far, _net: net }
    }

    /// `afx-pktgen send eth0` with these arguments, split at spaces.
    pub(crate) fn command(&self, arguments: &str) -> Command {
        let command = self.near.command(env!("CARGO_BIN_EXE_afx-pktgen")).args(["send", "eth0"]);
        command.args(arguments.split_whitespace()).within(PATIENCE)
    }

    /// As above, to the far end's MAC address; its output when it has ended.
    pub(crate) fn send(&self, arguments: &str) -> Output {
        let to = self.far.mac("eth0").expect("a MAC address");
        self.command(arguments).args(["--to-mac", &to.to_string()]).output().expect("it runs")
    }

    /// What it says it sent, where it sent all.
    pub(crate) fn sent(&self, arguments: &str) -> Value {
        let output = self.send(&format!("{arguments} --json"));
        assert_eq!(output.status.code(), Some(0), "{arguments}: {}{}", output.stdout, output.stderr);
        serde_json::from_str(&output.stdout).expect("one JSON object")
    }

    /// Packets and bytes that the far end has received, by its own counters.
    pub(crate) fn received(&self) -> (u64, u64) {
        let counters = self.far.packet_counters("eth0").expect("counters");
        (counters.rx_packets, counters.rx_bytes)
    }

    /// Waits until the far end's counters have grown by just what was said to be sent.
    pub(crate) fn expect(&self, before: (u64, u64), report: &Value) {
        let packets = number(report, "sent_packets");
        // The frame check sequence is in what is said, and never on a veth; of packets that are no XDP frames a veth does not
        // count the Ethernet header either.
        let uncounted = if report["mode"] == "live" { 4 } else { 4 + 14 };
        let bytes = number(report, "sent_bytes") - uncounted * packets;
        let grown = || {
            let now = self.received();
            (now.0 - before.0, now.1 - before.1)
        };
        let arrived = wait_for("all packets to arrive", PATIENCE, || grown().0 >= packets);
        assert!(arrived.is_ok(), "{report}: {:?} arrived", grown());
        assert_eq!(grown(), (packets, bytes), "{report}");
    }

    /// What tcpdump sees at the far end while `send` sends so many packets.
    pub(crate) fn captured<T>(&self, count: usize, send: impl FnOnce() -> T) -> (T, Vec<Vec<u8>>) {
        let file = std::env::temp_dir().join(format!("{}-{count}.pcap", self.far.namespace()));
        let tcpdump =
            self.far.command("tcpdump").args(["-n", "-U", "--immediate-mode", "-Z", "root", "-i", "eth0"]);
        // Of a length that has tcpdump make room for thousands of packets, however late it is.
        let tcpdump =
            tcpdump.args(["-s", "2000", "-B", "32768", "-w"]).arg(&file).spawn().expect("tcpdump starts");
        tcpdump.wait_for_output("listening on", PATIENCE).expect("it is ready");
        let result = send();
        let seen = || {
            CaptureReader::open(&file).map_or(0, |mut reader| {
                std::iter::from_fn(|| reader.next_packet()).take_while(Result::is_ok).count()
            })
        };
        let all = wait_for("all packets to be seen", PATIENCE, || seen() >= count);
        tcpdump.signal(Signal::SIGINT).expect("it is there");
        tcpdump.wait_within(PATIENCE).expect("it ends");
        let says = tcpdump.stderr();
        assert!(
            all.is_ok() && says.contains("\n0 packets dropped by kernel"),
            "{} of {count}: {says}",
            seen()
        );
        let packets = packets_of(&file);
        std::fs::remove_file(&file).expect("it was there");
        (result, packets)
    }

    pub(crate) fn has_program(&self) -> bool {
        self.near.xdp_program("eth0").expect("ip tells").is_some()
    }
}

pub(crate) fn number(report: &Value, name: &str) -> u64 {
    report[name].as_u64().unwrap_or_else(|| panic!("{name} in {report}"))
}

pub(crate) fn packets_of(file: &Path) -> Vec<Vec<u8>> {
    let mut reader = CaptureReader::open(file).expect("a capture");
    let packets = std::iter::from_fn(|| reader.next_packet());
    packets.map(|packet| packet.expect("a whole capture").bytes).collect()
}
