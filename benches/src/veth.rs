//! Applications on veth: packets made and counted in the kernel on one core, the application on the other.

use std::time::{Duration, Instant};

use afx_testbed::{Host, Link, Process, Signal, Testbed, wait_for};
use anyhow::{Context, Result, ensure};

use crate::app::{Kind, Waiting};
use crate::core::APPLICATION_CORE;
use crate::paired::{Better, alone, rounds};
use crate::row::{Peer, Row};
use crate::run::Run;
use crate::testpmd;
use crate::traffic::{Sink, Source};

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// What the kernel is set to on the application's interfaces, for both sides alike: it leaves polling to the application.
pub(crate) const NAPI: [(&str, &str); 2] = [("napi_defer_hard_irqs", "2"), ("gro_flush_timeout", "200000")];

pub(crate) fn rx_drop(run: &Run<'_>) -> Result<Row> {
    measure(run, Kind::Drop)
}

pub(crate) fn echo(run: &Run<'_>) -> Result<Row> {
    measure(run, Kind::Echo)
}

pub(crate) fn forward(run: &Run<'_>) -> Result<Row> {
    measure(run, Kind::Forward)
}

fn measure(run: &Run<'_>, kind: Kind) -> Result<Row> {
    let rig = Rig::new(run.name, kind)?;
    let mode = match kind {
        Kind::Drop => "rxonly",
        Kind::Echo => "macswap",
        Kind::Forward => "mac",
    };
    let version = testpmd::version();
    let arguments = testpmd::af_xdp(rig.interfaces(), mode, 64);
    let kernel = NAPI.map(|(setting, value)| format!("{setting}={value}")).join(" ");
    let settings = version.is_some().then(|| format!("{}; {kernel}", arguments.join(" ")));
    let installed = version.is_some();
    let our_settings = format!(
        "afx-bench app: rings and fill level as by default, Idle::Busy, core {APPLICATION_CORE}; {kernel}"
    );
    let row = Row::new(run.name, "Mpps", Better::More, our_settings).beside(Peer {
        name: testpmd::NAME,
        version,
        settings,
    });
    let ours = || rig.rate(|host| app(host, kind, Waiting::Busy, rig.interfaces()), run.during);
    Ok(if installed {
        let theirs =
            || rig.rate(|host| Ok(host.command(testpmd::PROGRAM).args(&arguments).spawn()?), run.during);
        row.paired(&rounds(run, Better::More, ours, theirs)?)
    } else {
        row.alone(&alone(run, ours)?)
    })
}

/// Starts our application on a host.
pub(crate) fn app(host: &Host, kind: Kind, waiting: Waiting, interfaces: &[&str]) -> Result<Process> {
    let program = std::env::current_exe().context("asking for this program's path")?;
    let kind = match kind {
        Kind::Drop => "drop",
        Kind::Echo => "echo",
        Kind::Forward => "forward",
    };
    let waiting = match waiting {
        Waiting::Busy => "busy",
        Waiting::Adaptive => "adaptive",
    };
    Ok(host.command(program).args(["app", kind, "--idle", waiting]).args(interfaces).spawn()?)
}

/// Ends an application, and sees that it has left the interfaces.
pub(crate) fn end(host: &Host, application: &Process, interfaces: &[&str]) -> Result<()> {
    application.signal(Signal::SIGTERM)?;
    if application.wait_within(Duration::from_secs(20)).is_err() {
        application.kill();
    }
    for interface in interfaces {
        let gone = || matches!(host.xdp_program(interface), Ok(None));
        wait_for("the XDP program to go", PATIENCE, gone)?;
    }
    Ok(())
}

/// Sets what sysfs has of an interface.
pub(crate) fn set(host: &Host, interface: &str, setting: &str, value: &str) -> Result<()> {
    let path = format!("/sys/class/net/{interface}/{setting}");
    host.command("sh").args(["-c", &format!("echo {value} > {path}")]).check()?;
    Ok(())
}

/// Packets that came in a time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrived {
    pub(crate) packets: u64,
    pub(crate) spent: Duration,
}

impl Arrived {
    /// What comes in a while by a counter; in a longer one if that is so short, and the machine so busy, that nothing
    /// does.
    pub(crate) fn within(during: Duration, mut counter: impl FnMut() -> Result<u64>) -> Result<Self> {
        let (start, first) = (Instant::now(), counter()?);
        std::thread::sleep(during);
        loop {
            let (spent, packets) = (start.elapsed(), counter()? - first);
            if packets > 0 {
                return Ok(Self { packets, spent });
            }
            ensure!(spent < during + PATIENCE, "no packet came in {spent:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn millions(self) -> f64 {
        self.packets as f64 / 1e6
    }
}

/// A network: `near` makes packets, `middle` has the application, `far` is where forwarded packets arrive.
struct Rig {
    kind: Kind,
    near: Host,
    middle: Host,
    /// On the interface where packets are made, and come back in an echo.
    back: Sink,
    onward: Option<Sink>,
    _net: Testbed,
}

impl Rig {
    fn new(name: &str, kind: Kind) -> Result<Self> {
        let net = Testbed::new(&name[..name.find("-vs").unwrap_or(name.len())])?;
        let (near, middle) = (net.host("near")?, net.host("middle")?);
        for host in [&near, &middle] {
            // What hosts say of themselves is no part of the measurement.
            host.sysctl("net.ipv6.conf.default.disable_ipv6", "1")?;
        }
        net.link(Link::between(near.end("eth0"), middle.end("in0")))?;
        let back = Sink::attach(&near, "eth0")?;
        let onward = if kind == Kind::Forward {
            let far = net.host("far")?;
            far.sysctl("net.ipv6.conf.default.disable_ipv6", "1")?;
            net.link(Link::between(middle.end("out0"), far.end("eth0")))?;
            Some(Sink::attach(&far, "eth0")?)
        } else {
            None
        };
        let rig = Self { kind, near, middle, back, onward, _net: net };
        for interface in rig.interfaces() {
            for (setting, value) in NAPI {
                set(&rig.middle, interface, setting, value)?;
            }
        }
        Ok(rig)
    }

    fn interfaces(&self) -> &'static [&'static str] {
        if self.kind == Kind::Forward { &["in0", "out0"] } else { &["in0"] }
    }

    /// Packets that have arrived where they are to arrive: at the far end, or in the application's RX ring.
    fn arrived(&self) -> Result<u64> {
        match (self.kind, &self.onward) {
            (Kind::Drop, _) => self.redirected(),
            (_, Some(onward)) => onward.arrived(),
            (_, None) => self.back.arrived(),
        }
    }

    /// What the kernel has put into sockets' RX rings, by the interface's own counter: what found no room is not in it.
    fn redirected(&self) -> Result<u64> {
        let statistics = self.middle.command("ethtool").args(["-S", "in0"]).check()?;
        let line = statistics.lines().find_map(|line| line.trim().strip_prefix("rx_queue_0_xdp_redirect:"));
        Ok(line.context("ethtool shows no xdp_redirect")?.trim().parse()?)
    }

    /// Packets per second, in millions, with the application that `start` starts.
    fn rate(&self, start: impl FnOnce(&Host) -> Result<Process>, during: Duration) -> Result<f64> {
        let application = start(&self.middle)?;
        let to = self.middle.mac("in0")?;
        // Before there is a receiver, packets of a veth go nowhere.
        let attached = || matches!(self.middle.xdp_program("in0"), Ok(Some(_)));
        let source = wait_for("the application to attach", PATIENCE, attached)
            .map_err(anyhow::Error::from)
            .and_then(|()| Source::start(&self.near, "eth0", to));
        let measured = source.and_then(|source| {
            let before = self.arrived()?;
            let come = || self.arrived().is_ok_and(|now| now > before + 10_000);
            wait_for("the first packets to arrive", PATIENCE, come)?;
            std::thread::sleep(Duration::from_millis(300));
            let arrived = Arrived::within(during, || self.arrived())?;
            source.end()?;
            Ok(arrived.millions() / arrived.spent.as_secs_f64())
        });
        let said = application.stderr() + &application.stdout();
        end(&self.middle, &application, self.interfaces())?;
        measured.with_context(|| format!("{application} said: {said}"))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn where_nothing_comes_in_time_it_is_waited_for() {
        let asked = Cell::new(0);
        let counter = || {
            asked.set(asked.get() + 1);
            Ok(if asked.get() < 5 { 100 } else { 107 })
        };
        let arrived = Arrived::within(Duration::from_millis(1), counter).unwrap();
        assert_eq!(arrived.packets, 7);
        assert!(arrived.spent >= Duration::from_millis(31), "{arrived:?}");
    }
}
