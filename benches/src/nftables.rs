//! afx-lb on veth, beside what a Linux machine has for it: nftables.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use afx_testbed::{Host, Link, Process, Testbed, wait_for};
use anyhow::{Context, Result};

use crate::core::{APPLICATION_CORE, Busy, KERNEL_CORE};
use crate::flows::{PORT, VIP};
use crate::paired::{Better, alone, median, rounds};
use crate::programs;
use crate::row::{Peer, Row};
use crate::run::Run;
use crate::traffic::{Sink, Source};
use crate::veth::{self, Arrived, NAPI, PATIENCE};

/// Half of the connections that Linux tracks by default where memory is short (1 GiB).
const FLOWS: u32 = 32_768;

const REALS: [&str; 4] = ["192.0.2.11", "192.0.2.12", "192.0.2.13", "192.0.2.14"];

/// The interfaces of the balancer: clients' side and reals' side.
const INTERFACES: [&str; 2] = ["in0", "out0"];

/// Packets of many flows through afx-lb, and through destination NAT by a hash.
pub(crate) fn balance(run: &Run<'_>) -> Result<Row> {
    let program = programs::beside("afx-lb")?;
    let rig = Rig::new(run)?;
    let version = version();
    let kernel = NAPI.map(|(setting, value)| format!("{setting}={value}")).join(" ");
    let settings = format!(
        "afx-lb run, IPIP to {} reals, {FLOWS} flows, core {APPLICATION_CORE}; {kernel}; CPU is all of core \
         {APPLICATION_CORE} and the interrupts of core {KERNEL_CORE}, where packets are made",
        REALS.len()
    );
    let peer = Peer {
        name: "nftables",
        settings: version.is_some().then(|| {
            let rule = rule();
            format!("{rule}; {FLOWS} flows, tracked; rps_cpus puts receiving onto core {APPLICATION_CORE}")
        }),
        version: version.clone(),
    };
    let row = Row::new(run.name, "Mpps", Better::More, settings).beside(peer);
    let (mut our_cpu, mut their_cpu) = (Vec::new(), Vec::new());
    let note = |cpu: &mut Vec<f64>, figure: Figure| {
        cpu.push(figure.cpu);
        figure.rate
    };
    let mut ours = || rig.with_afx_lb(&program, run.during).map(|figure| note(&mut our_cpu, figure));
    let mut row = if version.is_some() {
        let theirs = || rig.with_nftables(run.during).map(|figure| note(&mut their_cpu, figure));
        row.paired(&rounds(run, Better::More, ours, theirs)?)
    } else {
        row.alone(&alone(run, &mut ours)?)
    };
    row.flows = Some(FLOWS.into());
    row.our_cpu = Some(median(our_cpu.into_iter()));
    row.peer_cpu = (!their_cpu.is_empty()).then(|| median(their_cpu.into_iter()));
    Ok(row)
}

/// The version of nft; None where it is not installed.
fn version() -> Option<String> {
    let output = Command::new("nft").arg("--version").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.split_whitespace().nth(1)?.trim_start_matches('v').to_owned())
}

fn rule() -> String {
    let reals: Vec<String> = (0..).zip(REALS).map(|(number, real)| format!("{number} : {real}")).collect();
    let hash = format!("jhash ip saddr . udp sport mod {}", REALS.len());
    format!("ip daddr {VIP} udp dport {PORT} dnat to {hash} map {{ {} }}", reals.join(", "))
}

/// What was measured at a time.
struct Figure {
    /// Millions of packets a second.
    rate: f64,
    /// Processor seconds per million packets.
    cpu: f64,
}

/// A network: `near` makes packets, `middle` balances, and what it sends arrives at `far`.
struct Rig {
    near: Host,
    middle: Host,
    sink: Sink,
    folder: PathBuf,
    _net: Testbed,
}

impl Rig {
    fn new(run: &Run<'_>) -> Result<Self> {
        let net = Testbed::new("bench-balance")?;
        let (near, middle, far) = (net.host("near")?, net.host("middle")?, net.host("far")?);
        for host in [&near, &middle, &far] {
            host.sysctl("net.ipv6.conf.default.disable_ipv6", "1")?;
        }
        net.link(Link::between(near.end("eth0"), middle.end("in0").address("203.0.113.1/24")))?;
        net.link(Link::between(middle.end("out0").address("192.0.2.1/24"), far.end("eth0")))?;
        // Nobody answers ARP where all packets are counted and dropped.
        for real in REALS {
            middle.neighbour("out0", real.parse::<IpAddr>()?, far.mac("eth0")?)?;
        }
        middle.neighbour("in0", "203.0.113.2".parse::<IpAddr>()?, near.mac("eth0")?)?;
        middle.route("10.0.0.0/8", "203.0.113.2")?;
        middle.forward()?;
        for interface in ["all", "default", "in0", "out0"] {
            middle.sysctl(&format!("net.ipv4.conf.{interface}.rp_filter"), "0")?;
        }
        let sink = Sink::attach(&far, "eth0")?;
        Ok(Self { near, middle, sink, folder: run.folder.to_owned(), _net: net })
    }

    fn with_afx_lb(&self, program: &PathBuf, during: Duration) -> Result<Figure> {
        for interface in INTERFACES {
            for (setting, value) in NAPI {
                veth::set(&self.middle, interface, setting, value)?;
            }
        }
        let process = self.afx_lb(program)?;
        let figure = process
            .wait_for_output("balancing", PATIENCE)
            .map_err(anyhow::Error::from)
            .and_then(|()| self.figure(during));
        let said = process.stderr() + &process.stdout();
        veth::end(&self.middle, &process, &INTERFACES)?;
        for interface in INTERFACES {
            for (setting, _) in NAPI {
                veth::set(&self.middle, interface, setting, "0")?;
            }
        }
        figure.with_context(|| format!("{process} said: {said}"))
    }

    fn afx_lb(&self, program: &PathBuf) -> Result<Process> {
        let file = self.folder.join("lb.toml");
        let ports: String =
            INTERFACES.map(|interface| format!("[[port]]\ninterface = \"{interface}\"\n")).concat();
        let reals: String = REALS.map(|real| format!("[[vip.real]]\naddress = \"{real}\"\n")).concat();
        let text = format!(
            "version = 1\n{ports}[workers]\ncores = [{APPLICATION_CORE}]\n[control]\nsocket = \"none\"\n\
             [forwarding]\nmethod = \"ipip\"\n[connections]\ncapacity = {}\n\
             [[vip]]\naddress = \"{VIP}\"\nport = {PORT}\nprotocol = \"udp\"\n{reals}",
            2 * FLOWS
        );
        fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
        Ok(self.middle.command(program).args(["run", "--config"]).arg(&file).spawn()?)
    }

    fn with_nftables(&self, during: Duration) -> Result<Figure> {
        let table = format!(
            "table ip balance {{\nchain prerouting {{\ntype nat hook prerouting priority dstnat;\n{}\n}}\n}}\n",
            rule()
        );
        // Without an XDP program of its own, a veth takes what is sent as XDP frames with GRO only.
        self.middle.command("ethtool").args(["-K", "in0", "gro", "on"]).check()?;
        let receiving = "queues/rx-0/rps_cpus";
        veth::set(&self.middle, "in0", receiving, &format!("{:x}", 1 << APPLICATION_CORE))?;
        self.middle.command("nft").arg(&table).check()?;
        let figure = self.figure(during);
        let rules = self.middle.command("nft").args(["list", "ruleset"]).check()?;
        self.middle.command("nft").args(["delete", "table", "ip", "balance"]).check()?;
        veth::set(&self.middle, "in0", receiving, "0")?;
        self.middle.command("ethtool").args(["-K", "in0", "gro", "off"]).check()?;
        figure.with_context(|| format!("nftables had {rules}"))
    }

    /// What arrives while packets are made.
    fn figure(&self, during: Duration) -> Result<Figure> {
        let before = self.sink.arrived()?;
        let source = Source::of_flows(&self.near, "eth0", self.middle.mac("in0")?, FLOWS)?;
        let come = || self.sink.arrived().is_ok_and(|now| now > before + u64::from(FLOWS));
        if let Err(error) = wait_for("the first packets to arrive", PATIENCE, come) {
            // That it could not send says more.
            source.end()?;
            return Err(error.into());
        }
        // Until all flows are known.
        std::thread::sleep(Duration::from_millis(300));
        let busy = Busy::now()?;
        let arrived = Arrived::within(during, || self.sink.arrived())?;
        let busy = Busy::now()?.since(busy);
        source.end()?;
        let millions = arrived.millions();
        Ok(Figure { rate: millions / arrived.spent.as_secs_f64(), cpu: busy.as_secs_f64() / millions })
    }
}
