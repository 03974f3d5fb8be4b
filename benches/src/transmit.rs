//! Generators on veth: packets counted where they arrive.

use std::path::PathBuf;
use std::time::Duration;

use afx_testbed::{Host, Link, Mac, Process, Testbed, wait_for};
use anyhow::{Context, Result};

use crate::core::APPLICATION_CORE;
use crate::paired::{Better, alone, rounds};
use crate::programs;
use crate::row::{Peer, Row};
use crate::run::Run;
use crate::testpmd;
use crate::traffic::Sink;
use crate::veth::{self, Arrived, PATIENCE};

/// Where packets leave.
const INTERFACE: &str = "out0";

/// afx-pktgen beside testpmd's txonly.
pub(crate) fn send(run: &Run<'_>) -> Result<Row> {
    let rig = Rig::new()?;
    let program = programs::beside("afx-pktgen")?;
    let to = rig.far.mac("eth0")?;
    let version = testpmd::version();
    // 60 bytes for both: testpmd counts without the wire's checksum, afx-pktgen with it.
    let mut theirs = testpmd::af_xdp(&[INTERFACE], "txonly", 64);
    theirs.push("--txpkts=60".into());
    let settings = version.is_some().then(|| theirs.join(" "));
    let installed = version.is_some();
    let row = Row::new(run.name, "Mpps", Better::More, format!("afx-pktgen {}", arguments(to).join(" ")))
        .beside(Peer { name: testpmd::NAME, version, settings });
    let ours = || rig.rate(|host| pktgen(host, &program, to), run.during);
    Ok(if installed {
        let theirs =
            || rig.rate(|host| Ok(host.command(testpmd::PROGRAM).args(&theirs).spawn()?), run.during);
        row.paired(&rounds(run, Better::More, ours, theirs)?)
    } else {
        row.alone(&alone(run, ours)?)
    })
}

/// How afx-pktgen is told to send as testpmd does: until it is ended, as fast as it can, one flow.
fn arguments(to: Mac) -> Vec<String> {
    // testpmd's own addresses (RFC 2544's), and like its packets without a signature.
    let fixed = "--mode copy --size 64 --rate max --no-signature --source 198.18.0.1 --destination 198.18.0.2 --to-mac";
    let words = ["send", INTERFACE].into_iter().chain(fixed.split_whitespace());
    words.map(String::from).chain([to.to_string()]).collect()
}

fn pktgen(host: &Host, program: &PathBuf, to: Mac) -> Result<Process> {
    let core = APPLICATION_CORE.to_string();
    Ok(host.command("taskset").args(["-c", &core]).arg(program).args(arguments(to)).spawn()?)
}

/// A host that sends, and one that counts and drops what arrives.
struct Rig {
    near: Host,
    far: Host,
    sink: Sink,
    _net: Testbed,
}

impl Rig {
    fn new() -> Result<Self> {
        let net = Testbed::new("bench-send")?;
        let (near, far) = (net.host("near")?, net.host("far")?);
        for host in [&near, &far] {
            host.sysctl("net.ipv6.conf.default.disable_ipv6", "1")?;
        }
        net.link(Link::between(near.end(INTERFACE), far.end("eth0")))?;
        let sink = Sink::attach(&far, "eth0")?;
        Ok(Self { near, far, sink, _net: net })
    }

    /// Packets per second, in millions, with the generator that `start` starts.
    fn rate(&self, start: impl FnOnce(&Host) -> Result<Process>, during: Duration) -> Result<f64> {
        let before = self.sink.arrived()?;
        let generator = start(&self.near)?;
        let measured = || -> Result<f64> {
            let come = || self.sink.arrived().is_ok_and(|now| now > before + 10_000);
            wait_for("the first packets to arrive", PATIENCE, come)?;
            std::thread::sleep(Duration::from_millis(300));
            let arrived = Arrived::within(during, || self.sink.arrived())?;
            Ok(arrived.millions() / arrived.spent.as_secs_f64())
        };
        let measured = measured();
        let said = generator.stderr() + &generator.stdout();
        veth::end(&self.near, &generator, &[INTERFACE])?;
        measured.with_context(|| format!("{generator} said: {said}"))
    }
}
