//! The peer: DPDK's testpmd.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::core::{APPLICATION_CORE, KERNEL_CORE, time_of};
use crate::huge;
use crate::veth::Arrived;

pub(crate) const PROGRAM: &str = "dpdk-testpmd";
pub(crate) const NAME: &str = "dpdk-testpmd";

/// Its version; None where it is not installed.
pub(crate) fn version() -> Option<String> {
    let output = Command::new("dpkg-query").args(["-W", "-f=${Version}", "dpdk-dev"]).output().ok();
    let packaged = output.filter(|output| output.status.success() && !output.stdout.is_empty());
    let found = Command::new(PROGRAM).arg("--help").output().is_ok();
    let version = packaged.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    found.then(|| version.unwrap_or_else(|| "of unknown version".to_owned()))
}

/// Its cores: the main thread sleeps on the kernel's, the forwarding thread has the application's.
fn cores() -> [String; 4] {
    let list = format!("{KERNEL_CORE},{APPLICATION_CORE}");
    ["-l".into(), list, "--main-lcore".into(), KERNEL_CORE.to_string()]
}

/// Memory settings: huge pages where there are some, which is what it is made for.
pub(crate) fn memory() -> Vec<&'static str> {
    if huge::free() >= 64 {
        vec!["--in-memory", "-m", "128"]
    } else {
        vec!["--no-huge", "--no-shconf", "-m", "256"]
    }
}

/// The arguments for forwarding between interfaces by net_af_xdp.
pub(crate) fn af_xdp(interfaces: &[&str], mode: &str, burst: u32) -> Vec<String> {
    let mut arguments: Vec<String> = cores().into();
    arguments.extend(memory().into_iter().map(String::from));
    arguments.extend(["--no-pci".into(), "--no-telemetry".into()]);
    for (number, interface) in interfaces.iter().enumerate() {
        arguments.push(format!("--vdev=net_af_xdp{number},iface={interface}"));
    }
    arguments.push("--".into());
    // Without a period it would wait for input, and end at once without any.
    arguments.extend(
        ["--auto-start", "--stats-period=3600", "--nb-cores=1", "--total-num-mbufs=16384"].map(String::from),
    );
    arguments.extend([format!("--forward-mode={mode}"), format!("--burst={burst}")]);
    arguments
}

/// testpmd over net_null, paused unless told.
pub(crate) struct Null {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
    pub(crate) settings: String,
}

impl Null {
    pub(crate) fn start() -> Result<Self> {
        let mut arguments: Vec<String> = cores().into();
        arguments.extend(memory().into_iter().map(String::from));
        let fixed = "--no-pci --no-telemetry --vdev=net_null0,copy=0,size=64 -- -i --forward-mode=macswap \
                     --total-num-mbufs=8192 --nb-cores=1 --burst=64";
        arguments.extend(fixed.split_whitespace().map(String::from));
        // Line by line: into a pipe it would write by the block, and never answer.
        let mut child = Command::new("stdbuf")
            .args(["-oL", PROGRAM])
            .args(&arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("starting testpmd")?;
        let input = child.stdin.take().context("its input is piped")?;
        let output = child.stdout.take().context("its output is piped")?;
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let mut null = Self { child, input, lines, settings: arguments.join(" ") };
        null.received()?;
        Ok(null)
    }

    fn tell(&mut self, command: &str) -> Result<()> {
        writeln!(self.input, "{command}")?;
        self.input.flush()?;
        Ok(())
    }

    /// Packets received since its start.
    fn received(&mut self) -> Result<u64> {
        self.tell("show port stats 0")?;
        // Forwarding statistics, which `stop` prints, look alike.
        let mut asked = false;
        loop {
            let line = self.lines.recv_timeout(Duration::from_secs(30)).context("testpmd does not answer")?;
            asked |= line.contains("NIC statistics for port 0");
            let mut words = line.split_whitespace();
            if asked
                && words.by_ref().any(|word| word == "RX-packets:")
                && let Some(count) = words.next()
            {
                return count.parse().with_context(|| format!("in {line:?}"));
            }
        }
    }

    /// Processor time per packet in ns, over a while.
    pub(crate) fn nanos_per_packet(&mut self, during: Duration) -> Result<f64> {
        let thread = format!("rte-worker-{APPLICATION_CORE}");
        let alternative = format!("lcore-worker-{APPLICATION_CORE}");
        let time = |pid| time_of(pid, &thread).or_else(|_| time_of(pid, &alternative));
        self.tell("start")?;
        std::thread::sleep(Duration::from_millis(200));
        let before = time(self.child.id())?;
        let moved = Arrived::within(during, || self.received())?;
        let spent = time(self.child.id())? - before;
        self.tell("stop")?;
        std::thread::sleep(Duration::from_millis(50));
        Ok(spent.as_nanos() as f64 / moved.packets as f64)
    }
}

impl Drop for Null {
    fn drop(&mut self) {
        let _ = self.tell("quit");
        for _ in 0..100 {
            if let Ok(Some(_)) = self.child.try_wait() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
