//! A source and a sink of packets on veth, in the kernel: no tool, and no copy.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use afx_testbed::{Host, Mac};
use anyhow::{Context, Result};
use libbpf_rs::{Link, MapCore, MapFlags, MapHandle, Object, ObjectBuilder, ProgramInput};

use crate::core::{KERNEL_CORE, pin};

const OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/traffic.bpf.o"));

/// Bytes of a packet, the checksum that a wire would carry left out.
pub(crate) const LENGTH: usize = 60;

/// `BPF_F_TEST_XDP_LIVE_FRAMES` of `linux/bpf.h`: what the program sends is sent.
const LIVE_FRAMES: u32 = 2;

/// Packets of one call into the kernel. Long calls are twice as fast as short ones: each ends in a wait.
const PER_CALL: u32 = 1_000_000;

/// Loads both programs.
fn load() -> Result<Object> {
    Ok(ObjectBuilder::default().open_memory(OBJECT)?.load()?)
}

fn map(object: &Object, name: &str) -> Result<MapHandle> {
    let map = object.maps().find(|map| map.name() == name).with_context(|| format!("no map {name}"))?;
    Ok(MapHandle::try_from(&map)?)
}

/// Counts, and drops, all that arrives on an interface.
pub(crate) struct Sink {
    arrived: MapHandle,
    _link: Link,
}

impl Sink {
    /// Attaches it, in the driver.
    pub(crate) fn attach(host: &Host, interface: &str) -> Result<Self> {
        let index = i32::try_from(host.interface_index(interface)?)?;
        let attach = || -> Result<Self> {
            let object = load()?;
            let arrived = map(&object, "arrived")?;
            let program = object.progs_mut().find(|program| program.name() == "sink");
            let link = program.context("no program sink")?.attach_xdp(index)?;
            Ok(Self { arrived, _link: link })
        };
        host.run(attach)?
    }

    /// Packets that have arrived so far.
    pub(crate) fn arrived(&self) -> Result<u64> {
        let values =
            self.arrived.lookup_percpu(&[0; 4], MapFlags::ANY)?.context("an array has its entries")?;
        let number = |bytes: &Vec<u8>| bytes.first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes));
        Ok(values.iter().map(number).sum())
    }
}

/// Sends out of an interface, as fast as the kernel's core can, until dropped. The interface must have an XDP program, or
/// its queue is not known to XDP.
pub(crate) struct Source {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Source {
    pub(crate) fn start(host: &Host, interface: &str, to: Mac) -> Result<Self> {
        let index = host.interface_index(interface)?;
        let packet = packet(host.mac(interface)?, to);
        let stop = Arc::new(AtomicBool::new(false));
        let (host, stopped) = (host.clone(), stop.clone());
        let thread = std::thread::spawn(move || host.run(|| send(index, &packet, &stopped))?);
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

fn send(interface: u32, packet: &[u8; LENGTH], stop: &AtomicBool) -> Result<()> {
    pin(KERNEL_CORE)?;
    let object = load()?;
    let mut value = packet.to_vec();
    value.resize(64, 0);
    map(&object, "template")?.update(&[0; 4], &value, MapFlags::ANY)?;
    let source =
        object.progs_mut().find(|program| program.name() == "source").context("no program source")?;
    // `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
    let context = [0, LENGTH as u32, 0, interface, 0, 0].map(u32::to_ne_bytes).concat();
    while !stop.load(Ordering::Relaxed) {
        let mut context = context.clone();
        let input = ProgramInput {
            context_in: Some(&mut context),
            data_in: Some(packet),
            flags: LIVE_FRAMES,
            repeat: PER_CALL,
            ..ProgramInput::default()
        };
        source.test_run(input).context("BPF_PROG_TEST_RUN with live frames (Linux 5.18)")?;
    }
    Ok(())
}

/// A UDP packet between documentation addresses.
fn packet(from: Mac, to: Mac) -> [u8; LENGTH] {
    let mut packet = [0; LENGTH];
    packet[..6].copy_from_slice(&to.0);
    packet[6..12].copy_from_slice(&from.0);
    packet[12..14].copy_from_slice(&[8, 0]);
    let ip: [u8; 20] =
        [0x45, 0, 0, (LENGTH - 14) as u8, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 198, 51, 100, 1];
    packet[14..34].copy_from_slice(&ip);
    let sum: u32 = ip.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    packet[24..26].copy_from_slice(&sum.to_be_bytes());
    // Ports 1024 and 9 (discard); without a checksum.
    packet[34..40].copy_from_slice(&[4, 0, 0, 9, 0, (LENGTH - 34) as u8]);
    packet
}
