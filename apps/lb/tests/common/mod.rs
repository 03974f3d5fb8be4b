//! A network with a client, a balancer and reals, for tests of `afx-lb` as its users meet it.

#![allow(dead_code, reason = "every test file needs some of it")]

pub(crate) mod download;
pub(crate) mod echo;
pub(crate) mod settings;
pub(crate) mod upload;

use std::fs;
use std::num::NonZero;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use afx_redirect::{Decap, DecapOptions};
use afx_testbed::{Host, Link, Process, Signal, Switch, Testbed, wait_for};

/// How long to wait for what happens at once on a quiet machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) const VIP4: &str = "198.51.100.10";
pub(crate) const VIP6: &str = "2001:db8::10";
/// The balancer's own address.
pub(crate) const OWN: &str = "10.0.0.2";

/// A client, a balancer and its reals on one switch. The client's way to the VIPs leads over the balancer; the reals
/// have the VIPs on their loopback interface and answer the client directly.
pub(crate) struct Net {
    pub(crate) client: Host,
    pub(crate) lb: Host,
    pub(crate) reals: Vec<Host>,
    pub(crate) switch: Switch,
    decaps: Mutex<Vec<Decap>>,
    folder: tempfile::TempDir,
    // Last: what runs on it goes first.
    pub(crate) bed: Testbed,
}

impl Net {
    /// With so many reals, and queues on every link.
    pub(crate) fn new(name: &str, reals: u8, queues: u32) -> Self {
        Self::with_mtu(name, reals, queues, 1500)
    }

    /// As [`new`](Self::new), with this MTU on every link.
    pub(crate) fn with_mtu(name: &str, reals: u8, queues: u32, mtu: u32) -> Self {
        let bed = Testbed::new(name).unwrap();
        let switch = bed.switch("switch").unwrap();
        let host = |name: &str, number: u8| {
            let host = bed.host(name).unwrap();
            let end =
                host.end("eth0").address(format!("10.0.0.{number}/24")).address(format!("fd00::{number}/64"));
            bed.link(Link::between(end, switch.port()).queues(queues).mtu(mtu)).unwrap();
            host
        };
        let (client, lb) = (host("client", 1), host("lb", 2));
        // Smaller by the longest outer header, as one sets it on a real network's routers.
        let inner = mtu - 40;
        client.ip(&format!("route add {VIP4}/32 via {OWN} mtu {inner}")).unwrap();
        client.ip(&format!("route add {VIP6}/128 via fd00::2 mtu {inner}")).unwrap();
        let real = |number: u8| {
            let real = host(&format!("real{number}"), 10 + number);
            real.sysctl("net.ipv4.conf.all.arp_ignore", "1").unwrap();
            real.ip(&format!("address add {VIP4}/32 dev lo")).unwrap();
            real.ip(&format!("address add {VIP6}/128 dev lo nodad")).unwrap();
            real
        };
        let reals = (1..=reals).map(real).collect();
        let folder = tempfile::tempdir().unwrap();
        Self { client, lb, reals, switch, decaps: Mutex::default(), folder, bed }
    }

    /// Has all reals take outer headers off: those of IP in IP, and of IP in UDP to the usual port.
    pub(crate) fn decapsulate(&self) {
        let options = DecapOptions { gue_port: NonZero::new(6080), ..DecapOptions::default() };
        for real in &self.reals {
            let index = real.interface_index("eth0").unwrap();
            let decap = real.run(|| Decap::attach(index, &options)).unwrap();
            self.decaps.lock().unwrap().push(decap.unwrap());
        }
    }

    /// The command socket of a balancer whose configuration names no other.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("lb.sock")
    }

    /// Asks the balancer, as an operator does: `afx-lb` with these arguments. It has to say yes; what it prints.
    pub(crate) fn ask(&self, arguments: &[&str]) -> String {
        let command = self.lb.command(env!("CARGO_BIN_EXE_afx-lb")).args(arguments);
        command.args(["--socket"]).arg(self.socket()).check().unwrap()
    }

    /// The configuration file, which is written anew by each call.
    pub(crate) fn configure(&self, text: &str) -> PathBuf {
        let file = self.folder.path().join("lb.toml");
        // Every test has a socket of its own: the default one is one for all of them.
        let socket = format!("[control]\nsocket = \"{}\"\n", self.socket().display());
        let text = if text.contains("[control]") { text.to_owned() } else { format!("{text}\n{socket}") };
        // Whole or not at all, as an operator's tools do it.
        let new = self.folder.path().join("lb.toml.new");
        fs::write(&new, text).unwrap();
        fs::rename(&new, &file).unwrap();
        file
    }

    /// Starts `afx-lb run` with more arguments, perhaps, and waits until it balances.
    pub(crate) fn start(&self, config: &str, arguments: &[&str]) -> Balancer<'_> {
        let process = self.spawn(config, arguments);
        process.wait_for_output("balancing", PATIENCE).unwrap();
        Balancer { net: self, process }
    }

    /// Starts `afx-lb run`.
    pub(crate) fn spawn(&self, config: &str, arguments: &[&str]) -> Process {
        let command = self.lb.command(env!("CARGO_BIN_EXE_afx-lb")).args(["run", "--config"]);
        command.arg(self.configure(config)).args(arguments).spawn().unwrap()
    }

    pub(crate) fn has_xdp_program(&self) -> bool {
        let interfaces = self.lb.interfaces().unwrap();
        interfaces.iter().any(|interface| self.lb.xdp_program(interface).unwrap().is_some())
    }

    /// That the balancer's own address answers: its kernel has all that is not for a VIP.
    pub(crate) fn own_address_answers(&self) {
        self.client.command("ping").args(["-c", "1", "-W", "10", OWN]).check().unwrap();
        let listener = self.lb.run(|| std::net::TcpListener::bind((OWN, 0))).unwrap().unwrap();
        let address = listener.local_addr().unwrap();
        let connected = self.client.run(|| std::net::TcpStream::connect_timeout(&address, PATIENCE)).unwrap();
        connected.unwrap();
    }
}

/// A running `afx-lb`.
pub(crate) struct Balancer<'n> {
    net: &'n Net,
    pub(crate) process: Process,
}

impl Balancer<'_> {
    pub(crate) fn log(&self) -> String {
        self.process.stderr()
    }

    /// Changes the configuration file, asks for it to be read, and returns what is said of that.
    pub(crate) fn reload(&self, config: &str) -> String {
        self.net.configure(config);
        let before = self.log().len();
        self.process.signal(Signal::SIGHUP).unwrap();
        wait_for("the configuration to be read", PATIENCE, || self.log()[before..].contains("reloaded"))
            .unwrap();
        self.log()[before..].to_owned()
    }

    /// Ends it by SIGTERM, and demands that it leaves everything as it was.
    pub(crate) fn stop(self) -> Counts {
        self.process.signal(Signal::SIGTERM).unwrap();
        self.stopped()
    }

    /// Waits for its end, told already, and demands that it leaves everything as it was, and has sent or dropped what it
    /// received.
    pub(crate) fn stopped(self) -> Counts {
        let counts = self.ended();
        assert_eq!(counts.received, counts.sent + counts.dropped);
        counts
    }

    /// As [`stop`](Self::stop), where it has told senders of packets that it dropped: what it sent, such answers
    /// included.
    pub(crate) fn stop_having_answered(self) -> Counts {
        self.process.signal(Signal::SIGTERM).unwrap();
        self.ended()
    }

    fn ended(self) -> Counts {
        let status = self.process.wait_within(PATIENCE).unwrap();
        assert_eq!(status.code(), Some(0), "{}", self.log());
        assert!(!self.net.has_xdp_program());
        let log = self.log();
        let line = log.lines().find(|line| line.contains(" stopped ")).unwrap_or_else(|| panic!("{log}"));
        assert!(line.ends_with("balanced=true"), "the frame ledger: {line}");
        let count = |name: &str| {
            let field = line.split_whitespace().find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
            field.unwrap_or_else(|| panic!("{name} in {line}")).parse().unwrap()
        };
        let counts = Counts { received: count("received"), sent: count("sent"), dropped: count("dropped") };
        assert!(!self.net.socket().exists());
        self.net.own_address_answers();
        counts
    }
}

/// What a balancer has counted in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) received: u64,
    pub(crate) sent: u64,
    pub(crate) dropped: u64,
}

/// The head of a configuration file: port, workers, forwarding.
pub(crate) fn head(workers: u32, forwarding: &str) -> String {
    format!(
        "version = 1\n[[port]]\ninterface = \"eth0\"\n[workers]\ncount = {workers}\nidle = \"adaptive\"\n\
         [forwarding]\n{forwarding}\n[connections]\ncapacity = 4096\n"
    )
}

/// A VIP with reals, each with its weight.
pub(crate) fn vip(address: &str, port: u16, protocol: &str, reals: &[(&str, u32)]) -> String {
    let reals: String = reals
        .iter()
        .map(|(real, weight)| format!("[[vip.real]]\naddress = \"{real}\"\nweight = {weight}\n"))
        .collect();
    format!("[[vip]]\naddress = \"{address}\"\nport = {port}\nprotocol = \"{protocol}\"\n{reals}")
}

/// The configuration that most tests begin with: TCP to port 80, IP in IP.
pub(crate) fn web(reals: &[(&str, u32)]) -> String {
    head(1, "method = \"ipip\"") + &vip(VIP4, 80, "tcp", reals)
}
