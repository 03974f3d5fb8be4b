//! `afx-lb doctor` on interfaces of emulated networks: what it finds, that what it says will not work does not, that its
//! commands mend it, and that it changes nothing that it was not told to.
//!
//! What a veth does not have is provoked in the guest (framework/tests/zero_copy): LRO, hardware GRO, a host's offloads
//! (doctor.rs there), a kernel that is too old (too_old.rs). AF_XDP and BPF that are kept from a process, and a program
//! that cannot be taken off again: policies.rs.

mod changes;
#[path = "../common/mod.rs"]
mod common;
mod document;
mod lab;
mod rights;

use std::net::UdpSocket;
use std::process::Command;

use afx_redirect::{Decap, DecapOptions};
use afx_testbed::wait_for;
use common::{PATIENCE, VIP4, echo, head, vip};
use lab::{Net, Report};
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_afx-lb");
const DOCUMENT: &str = include_str!("../../../../docs/doctor.md");
#[test]
fn a_veth_made_for_it_is_good() {
    let net = Net::new("doctor-good", 2);
    let report = net.report(&[], 0);
    assert_eq!(report.named("will_not_work"), [] as [&str; 0]);
    for name in [
        "AF_XDP",
        "BPF",
        "capabilities",
        "locked memory",
        "state",
        "MTU",
        "XDP program",
        "native XDP",
        "LRO",
        "hardware GRO",
        "GRO",
        "rings",
        "interrupts",
        "other end's checksums",
        "other end's segmentation",
        "other end's MTU",
        "other end's queues",
    ] {
        assert_eq!(report.verdict(name), "good", "{name}");
    }
    for name in ["zero-copy", "busy polling"] {
        assert_eq!(report.verdict(name), "could_be_better", "{name}");
    }
    assert_eq!(report.0["interface"], "eth0");
    let interfaces = report.0["interfaces"].as_array().unwrap();
    let eth0 = interfaces.iter().find(|interface| interface["name"] == "eth0").unwrap();
    assert_eq!((&eth0["driver"], &eth0["rx_queues"]), (&"veth".into(), &2.into()));
    assert_eq!((&eth0["xdp"], &eth0["program"]), (&"native, copy".into(), &Value::Null));
    let counts = ["good", "could_be_better", "will_not_work"].map(|verdict| report.named(verdict).len());
    for (name, count) in [("good", counts[0]), ("could_be_better", counts[1]), ("will_not_work", counts[2])] {
        assert_eq!(report.0[name], count, "{name}");
    }
}

#[test]
fn a_veth_as_it_comes_is_mended_by_what_is_said() {
    let net = Net::as_it_comes("doctor-raw");
    let report = net.report(&[], 1);
    assert_eq!(report.named("will_not_work"), ["other end's checksums"]);
    let command = report.remedy("other end's checksums");
    assert_eq!(command, format!("ip netns exec {} ethtool -K eth0 tx off", net.other.namespace()));
    net.host.command("sh").args(["-c", command]).check().unwrap();
    assert_eq!(net.report(&[], 0).verdict("other end's checksums"), "good");
}

#[test]
fn both_ends_in_one_namespace() {
    let net = Net::unlinked("doctor-both");
    net.host.ip("link add eth0 type veth peer name back").unwrap();
    for interface in ["eth0", "back"] {
        net.host.ip(&format!("link set {interface} up")).unwrap();
    }
    let report = net.report(&[], 1);
    assert_eq!(report.named("will_not_work"), ["other end's checksums"]);
    assert_eq!(report.remedy("other end's checksums"), "ethtool -K back tx off");
}

/// As in a container, whose namespace has no name.
#[test]
fn an_other_end_where_a_process_is() {
    let net = Net::unlinked("doctor-process");
    let process = net.host.command("unshare").args(["--net", "sleep", "600"]).spawn().unwrap();
    let namespace = format!("/proc/{}/ns/net", process.pid());
    let own = net.host.run(|| std::fs::read_link("/proc/thread-self/ns/net").unwrap()).unwrap();
    let has_its_own = || std::fs::read_link(&namespace).is_ok_and(|its| its != own);
    wait_for("the process to have a namespace of its own", PATIENCE, has_its_own).unwrap();
    net.host.ip(&format!("link add eth0 type veth peer name inside netns {}", process.pid())).unwrap();
    net.host.ip("link set eth0 up").unwrap();
    let report = net.report(&[], 1);
    let command = report.remedy("other end's checksums");
    assert_eq!(command, format!("nsenter --net={namespace} ethtool -K inside tx off"));
    net.host.command("sh").args(["-c", command]).check().unwrap();
    assert_eq!(net.report(&[], 0).verdict("other end's checksums"), "good");
    process.kill();
}

/// That what is said of checksums is so: servers drop what the balancer sends them.
#[test]
fn unfinished_checksums_do_not_arrive() {
    let net = common::Net::new("doctor-sums", 1, 1);
    net.decapsulate();
    net.client.command("ethtool").args(["-K", "eth0", "tx", "on"]).check().unwrap();
    let switch = net.switch.as_host();
    for port in switch.interfaces().unwrap() {
        // The bridge itself, among them, has nothing to turn on.
        let _ = switch.command("ethtool").args(["-K", &port, "tx", "on"]).output().unwrap();
    }
    let doctor = |status| {
        let output = net.lb.command(PROGRAM).args(["doctor", "eth0", "--json"]).output().unwrap();
        Report::of(&output, status)
    };
    let report = doctor(1);
    assert_eq!(report.named("will_not_work"), ["other end's checksums"]);

    let _server = echo::Server::start(&net.reals[0], 1, VIP4, 53);
    let config = head(1, "method = \"ipip\"") + &vip(VIP4, 53, "udp", &[("10.0.0.11", 1)]);
    let balancer = net.start(&config, &[]);
    let ask = net.client.run(|| UdpSocket::bind("0.0.0.0:0")).unwrap().unwrap();
    let wrong = || {
        let table =
            net.reals[0].run(|| std::fs::read_to_string("/proc/thread-self/net/snmp")).unwrap().unwrap();
        let mut lines = table.lines().filter_map(|line| line.strip_prefix("Udp: "));
        let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
        let place = names.split(' ').position(|name| name == "InCsumErrors").unwrap();
        values.split(' ').nth(place).unwrap().parse::<u64>().unwrap()
    };
    wait_for("a packet to be dropped for its checksum", PATIENCE, || {
        ask.send_to(b"?", (VIP4, 53)).unwrap();
        wrong() > 0
    })
    .unwrap();

    net.lb.command("sh").args(["-c", report.remedy("other end's checksums")]).check().unwrap();
    doctor(0);
    assert_eq!(echo::Client::connect(&net.client, VIP4, 53).ask(), 1);
    balancer.stop();
}

#[test]
fn an_interface_that_is_down() {
    let net = Net::new("doctor-down", 1);
    net.host.ip("link set eth0 down").unwrap();
    let report = net.report(&[], 1);
    assert_eq!(report.named("will_not_work"), ["state"]);
    net.host.command("sh").args(["-c", report.remedy("state")]).check().unwrap();
    assert_eq!(net.report(&[], 0).verdict("state"), "good");
}

#[test]
fn an_interface_that_another_program_holds() {
    let net = Net::new("doctor-held", 1);
    let index = net.host.interface_index("eth0").unwrap();
    let other = net.host.run(|| Decap::attach(index, &DecapOptions::default())).unwrap().unwrap();
    let report = net.report(&[], 1);
    assert_eq!(report.named("will_not_work"), ["XDP program"]);
    let what = report.find("XDP program")["what"].as_str().unwrap();
    assert!(what.contains("`afx_decap` in native mode"), "{what}");
    // Nothing is tried on it.
    let program = net.host.xdp_program("eth0").unwrap();
    assert_eq!(net.report(&["--try"], 1).verdict("trying"), "could_be_better");
    assert_eq!(net.host.xdp_program("eth0").unwrap(), program);
    drop(other);
    assert_eq!(net.report(&[], 0).verdict("XDP program"), "good");
}

#[test]
fn an_other_end_with_packets_too_long_for_native_xdp() {
    let net = Net::new("doctor-mtu", 1);
    net.other.ip("link set eth0 mtu 3507").unwrap();
    let report = net.report(&["--try"], 1);
    assert_eq!(report.named("will_not_work"), ["other end's MTU"]);
    // What was said is so.
    assert_eq!(report.verdict("native XDP, tried"), "could_be_better", "{:#}", report.0);
    assert_eq!(report.verdict("generic XDP, tried"), "good");
    net.other.ip("link set eth0 mtu 3506").unwrap();
    assert_eq!(net.report(&["--try"], 0).verdict("native XDP, tried"), "good");
}

#[test]
fn an_other_end_with_more_queues() {
    let net = Net::new("doctor-queues", 4);
    net.host.command("ethtool").args(["-L", "eth0", "rx", "1"]).check().unwrap();
    let report = net.report(&["--try"], 1);
    assert_eq!(report.named("will_not_work"), ["other end's queues"]);
    assert_eq!(report.verdict("native XDP, tried"), "could_be_better", "{:#}", report.0);
    assert_eq!(report.remedy("other end's queues"), "ethtool -L eth0 rx 4");
    net.host.command("sh").args(["-c", report.remedy("other end's queues")]).check().unwrap();
    let report = net.report(&["--try"], 0);
    assert_eq!(report.verdict("native XDP, tried"), "good");
}

#[test]
fn input_that_cannot_work() {
    let net = Net::new("doctor-input", 1);
    let output = net.doctor(&["eth7"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        output.stderr,
        "afx-lb: there is no interface eth7 in this network namespace: it has lo, eth0\n"
    );
    assert_eq!(output.stdout, "");
    for option in ["--try", "--fix"] {
        let output = net.doctor(&[option]);
        assert_eq!(output.status.code(), Some(2), "{option}");
        assert!(output.stderr.contains("INTERFACE"), "{}", output.stderr);
    }
}

#[test]
fn the_machine_alone() {
    let net = Net::new("doctor-machine", 1);
    let report = Report::of(&net.doctor(&["--json"]), 0);
    assert_eq!(report.0["interface"], Value::Null);
    assert!(report.findings().all(|finding| finding["topic"] != "interface"));
    let names: Vec<_> = report.0["interfaces"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
    assert_eq!(names, ["lo", "eth0"]);
    let text = net.doctor(&[]).stdout;
    assert!(text.ends_with("`afx-lb doctor INTERFACE` looks at one of them.\n"), "{text}");
}

#[test]
fn interfaces_that_sys_does_not_show() {
    let net = Net::new("doctor-sys", 1);
    let path = format!("--net={}", net.host.netns_path().display());
    let output = Command::new("nsenter").args([&path, PROGRAM, "doctor", "eth0", "--json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let report = Report(serde_json::from_slice(&output.stdout).unwrap());
    assert_eq!(report.find("busy polling")["what"], "not known");
    assert_eq!(report.find("busy polling")["remedy"], Value::Null);
}
