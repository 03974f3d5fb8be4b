//! What `afx-lb doctor` says of the guest's cards, where they are: in no namespace of a test.

use std::process::{Command, Output};

use afx_testbed::wait_for;
use serde_json::Value;

use crate::cable::{Cable, End};
use crate::support::*;

/// The near card of a cable, up while this lives; so is the one at the far end, for there to be a link.
pub(crate) struct Card {
    pub(crate) ends: [String; 2],
}

impl Card {
    pub(crate) fn new(cable: Cable) -> Self {
        let card = Self { ends: [End::Near, End::Far].map(|end| cable.card(end)) };
        card.set("up");
        card.wait_for_link();
        card
    }

    pub(crate) fn wait_for_link(&self) {
        let carrier = format!("/sys/class/net/{}/carrier", self.ends[0]);
        let has_link = || std::fs::read_to_string(&carrier).is_ok_and(|text| text == "1\n");
        wait_for("the link", PATIENCE, has_link).unwrap();
    }

    fn set(&self, state: &str) {
        for name in &self.ends {
            let status = Command::new("ip").args(["link", "set", "dev", name, state]).status().unwrap();
            assert!(status.success(), "{name} {state}");
        }
    }

    /// Prints what a reader sees.
    pub(crate) fn show(&self, options: &[&str]) {
        let text = self.ask(options).stdout;
        println!("$ afx-lb doctor {}\n{}", self.ends[0], String::from_utf8_lossy(&text));
    }

    fn ask(&self, options: &[&str]) -> Output {
        Command::new(program("afx-lb")).args(["doctor", &self.ends[0]]).args(options).output().unwrap()
    }

    /// Its report, which has to come with status 0.
    fn report(&self, options: &[&str]) -> Report {
        Report::of(&self.ask(&[&["--json"], options].concat()), 0)
    }

    /// Its report, in which just these will not work.
    pub(crate) fn bad_report(&self, options: &[&str], bad: &[&str]) -> Report {
        let report = Report::of(&self.ask(&[&["--json"], options].concat()), 1);
        assert_eq!(report.named("will_not_work"), bad, "{:#}", report.0);
        report
    }

    /// What `ethtool` says of its offloads.
    fn offloads(&self) -> String {
        said("ethtool", &["-k", &self.ends[0]])
    }

    /// Its offloads, channels and rings, and what `ip` says of it: that no XDP program is there, for one.
    pub(crate) fn settings(&self) -> String {
        let name = self.ends[0].as_str();
        let ethtool = ["-k", "-l", "-g"].map(|option| said("ethtool", &[option, name]));
        let link = said("ip", &["-details", "link", "show", "dev", name]);
        assert!(!link.contains("xdp"), "{link}");
        ethtool.concat() + &link
    }
}

impl Drop for Card {
    fn drop(&mut self) {
        self.set("down");
    }
}

fn said(program: &str, arguments: &[&str]) -> String {
    String::from_utf8(Command::new(program).args(arguments).output().unwrap().stdout).unwrap()
}

pub(crate) struct Report(Value);

impl Report {
    fn of(output: &Output, status: i32) -> Self {
        let text = String::from_utf8_lossy(&output.stdout);
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{text}{complaint}");
        Self(serde_json::from_str(&text).unwrap())
    }

    /// The names of what has that verdict.
    fn named(&self, verdict: &str) -> Vec<&str> {
        let findings = self.0["findings"].as_array().expect("a list").iter();
        let named = findings.filter(|finding| finding["verdict"] == verdict);
        named.map(|finding| finding["name"].as_str().expect("a text")).collect()
    }

    /// A finding's verdict, and what was found.
    pub(crate) fn find(&self, name: &str) -> (&str, &str) {
        let mut findings = self.0["findings"].as_array().expect("a list").iter();
        let found = findings.find(|finding| finding["name"] == name);
        let found = found.unwrap_or_else(|| panic!("{name}: {:#}", self.0));
        let text = |field: &str| found[field].as_str().expect("a text");
        (text("verdict"), text("what"))
    }
}

/// Asks about a card that does zero copy: its driver, and its queues as they are and may be. Prints what a reader sees.
fn is_good(cable: Cable, driver: &str, queues: &str) {
    let card = Card::new(cable);
    card.show(&[]);
    let report = card.report(&[]);
    for name in ["state", "native XDP", "zero-copy", "LRO", "XDP program"] {
        assert_eq!(report.find(name).0, "good", "{name}: {:#}", report.0);
    }
    assert_eq!((report.find("driver").1, report.find("queues").1), (driver, queues));
    let mut interfaces = report.0["interfaces"].as_array().expect("a list").iter();
    let listed =
        interfaces.find(|interface| interface["name"] == card.ends[0].as_str()).expect("it is there");
    assert_eq!(listed["xdp"], "native, zero-copy");
    let tried = card.report(&["--try"]);
    for name in ["native XDP, tried", "zero-copy, tried", "copy, tried"] {
        assert_eq!(tried.find(name).0, "good", "{name}: {:#}", tried.0);
    }
}

#[test]
fn virtio_net_of_one_queue() {
    is_good(Cable::First, "virtio_net", "1 of up to 1");
}

#[test]
fn virtio_net_of_two_queues() {
    is_good(Cable::TwoQueues, "virtio_net", "2 of up to 2");
}

#[test]
fn igb() {
    is_good(Cable::Igb, "igb", "2 of up to 8");
}

#[test]
fn a_card_that_refuses_zero_copy_is_found_out_by_trying() {
    // Its driver does zero copy, but not on memory that the kernel may not map.
    let report = Card::new(Cable::Unmappable).report(&["--try"]);
    assert_eq!(report.find("zero-copy").0, "good", "{:#}", report.0);
    assert_eq!(report.find("zero-copy, tried").0, "could_be_better", "{:#}", report.0);
    assert_eq!(report.find("copy, tried").0, "good", "{:#}", report.0);
}

#[test]
fn a_card_that_joins_packets_is_told_not_to() {
    let card = Card::new(Cable::Joining);
    let before = card.offloads();
    assert!(before.contains("large-receive-offload: on"), "{before}");
    let report = card.bad_report(&[], &["LRO"]);
    assert_eq!(report.find("driver").1, "vmxnet3");
    // What it has to do for a program it undoes.
    card.bad_report(&["--try"], &["LRO"]);
    assert_eq!(card.offloads(), before);
    let mended = card.report(&["--fix"]);
    assert_eq!(mended.find("LRO"), ("good", "off"));
    assert!(card.offloads().contains("large-receive-offload: off"));
    let status = Command::new("ethtool").args(["-K", &card.ends[0], "lro", "on", "gro", "on"]).status();
    assert!(status.unwrap().success());
}

#[test]
fn a_host_that_joins_packets_and_cannot_be_told_not_to() {
    let card = Card::new(Cable::Unyielding);
    let before = card.offloads();
    let report = card.bad_report(&["--try"], &["host's offloads"]);
    // It is so: the driver refuses native XDP.
    let (verdict, why) = report.find("native XDP, tried");
    assert_eq!(verdict, "could_be_better", "{why}");
    assert_eq!(report.find("generic XDP, tried"), ("could_be_better", "not done"));
    assert_eq!(card.offloads(), before);
    println!("native XDP: {why}");
}

#[test]
fn a_host_that_joins_packets_where_sys_does_not_show_it() {
    let hosts = Hosts::new("dsys");
    hosts.join(Cable::Unyielding, "eth0");
    // Unlike `ip netns exec`, this shows no /sys of the namespace.
    let namespace = format!("--net={}", hosts.near.netns_path().display());
    let command =
        [&namespace, program("afx-lb").to_str().unwrap(), "doctor", "eth0", "--json"].map(str::to_owned);
    let output = Command::new("nsenter").args(command).output().unwrap();
    let report = Report::of(&output, 1);
    assert_eq!(report.named("will_not_work"), ["hardware GRO"], "{:#}", report.0);
    assert_eq!(report.find("hardware GRO").1, "on, and the driver cannot turn it off");
}
