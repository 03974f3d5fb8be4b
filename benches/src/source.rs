//! A source of packets of many flows on veth, in the kernel. Its BPF program is compiled when it is needed.
//!
//! What [`traffic`](crate::traffic) is for one flow; the program is another.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use afx_testbed::{Host, Mac};
use anyhow::{Context, Result, ensure};
use libbpf_rs::{Link, MapCore, MapFlags, Object, ObjectBuilder, ProgramInput};

use crate::core::{KERNEL_CORE, pin};
use crate::flows::{Flows, LENGTH};

const PROGRAM: &str = include_str!("flows.bpf.c");

/// `BPF_F_TEST_XDP_LIVE_FRAMES` of `linux/bpf.h`: what the program sends is sent.
const LIVE_FRAMES: u32 = 2;

/// Packets of one call into the kernel. Long calls are twice as fast as short ones: each ends in a wait.
const PER_CALL: u32 = 1_000_000;

/// The compiled program.
#[derive(Debug, Clone)]
pub(crate) struct Compiled(Arc<Vec<u8>>);

impl Compiled {
    /// Compiles it with clang, which building afx takes anyhow.
    pub(crate) fn new(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        let (source, object) = (folder.join("flows.bpf.c"), folder.join("flows.bpf.o"));
        fs::write(&source, PROGRAM).with_context(|| format!("writing {}", source.display()))?;
        // Debian keeps asm/ in a folder of the architecture's, which clang does not search when it compiles for BPF.
        let multiarch = format!("/usr/include/{}-linux-gnu", std::env::consts::ARCH);
        let output = Command::new("clang")
            .args([
                "-O2",
                "-g",
                "-target",
                "bpf",
                "-mcpu=v3",
                "-Wall",
                "-Werror",
                "-idirafter",
                &multiarch,
                "-c",
            ])
            .arg(&source)
            .arg("-o")
            .arg(&object)
            .output()
            .context("starting clang")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{} does not compile: {said}", source.display());
        Ok(Self(Arc::new(fs::read(&object).with_context(|| format!("reading {}", object.display()))?)))
    }

    fn load(&self) -> Result<Object> {
        Ok(ObjectBuilder::default().open_memory(&self.0)?.load()?)
    }

    /// Attaches a program that passes everything: a veth without one leaves what its peer sends by `XDP_TX`.
    pub(crate) fn pass(&self, host: &Host, interface: &str) -> Result<Link> {
        let index = i32::try_from(host.interface_index(interface)?)?;
        let attach = || -> Result<Link> {
            let object = self.load()?;
            let program = object.progs_mut().find(|program| program.name() == "pass");
            Ok(program.context("no program pass")?.attach_xdp(index)?)
        };
        host.run(attach)?
    }
}

/// Sends packets of random flows out of an interface, as fast as the kernel's core can, until dropped. The interface must
/// have an XDP program, or its queue is not known to XDP.
pub(crate) struct Source {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Source {
    pub(crate) fn start(
        compiled: &Compiled,
        host: &Host,
        interface: &str,
        to: Mac,
        flows: u32,
    ) -> Result<Self> {
        let index = host.interface_index(interface)?;
        let packets = Flows::new(host.mac(interface)?.0, to.0);
        let stop = Arc::new(AtomicBool::new(false));
        let (host, stopped, compiled) = (host.clone(), stop.clone(), compiled.clone());
        let thread =
            std::thread::spawn(move || host.run(|| send(&compiled, index, &packets, flows, &stopped))?);
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Ends it, and says whether something went wrong meanwhile.
    pub(crate) fn end(mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("ended once")?;
        thread.join().expect("the sending thread does not panic")
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn send(compiled: &Compiled, interface: u32, packets: &Flows, flows: u32, stop: &AtomicBool) -> Result<()> {
    pin(KERNEL_CORE)?;
    let mut object = compiled.load()?;
    let (template, sum) = packets.template();
    let value = [&template[..], &sum.to_ne_bytes(), &flows.to_ne_bytes()].concat();
    let map = object.maps_mut().find(|map| map.name() == "template").context("no map template")?;
    map.update(&[0; 4], &value, MapFlags::ANY)?;
    let source =
        object.progs_mut().find(|program| program.name() == "source").context("no program source")?;
    // `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
    let context = [0, LENGTH as u32, 0, interface, 0, 0].map(u32::to_ne_bytes).concat();
    while !stop.load(Ordering::Relaxed) {
        let mut context = context.clone();
        let input = ProgramInput {
            context_in: Some(&mut context),
            data_in: Some(template),
            flags: LIVE_FRAMES,
            repeat: PER_CALL,
            ..ProgramInput::default()
        };
        source.test_run(input).context("BPF_PROG_TEST_RUN with live frames (Linux 5.18)")?;
    }
    Ok(())
}
