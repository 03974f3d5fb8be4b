//! Sends IP packets back to their sender, drops all others, and captures every packet with what became of it, in
//! pcapng: Wireshark shows the verdict as the packet's comment.
//!
//! ```sh
//! cargo run --release --example capture -- eth1 verdicts.pcapng
//! ```

use std::fs::File;
use std::io::BufWriter;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, SystemTime};

use afx::port::{Steering, XdpPort};
use afx::stats::Counter;
use afx::{Batch, Reason, Runtime, Stage, Stats, Verdict};
use pcap_file::DataLink;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::{PcapNgBlock, PcapNgWriter};

type Seen = (Duration, Verdict, Vec<u8>);

/// Copies packets for the capture. A writer that is behind costs it packets, never the worker time.
struct Capture {
    seen: SyncSender<Seen>,
    missed: Counter,
    misses: u64,
}

impl Stage for Capture {
    fn process(&mut self, batch: &mut Batch) {
        batch.count(self.missed, std::mem::take(&mut self.misses));
    }

    fn observe(&mut self, batch: &Batch) {
        for slot in batch.all() {
            let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
            let bytes = batch.segments(slot).collect::<Vec<_>>().concat();
            self.misses += u64::from(self.seen.try_send((now, batch.verdict(slot), bytes)).is_err());
        }
    }
}

struct MirrorIp(Reason);

impl Stage for MirrorIp {
    fn process(&mut self, batch: &mut Batch) {
        for slot in batch.live() {
            let mut packet = batch.packet(slot);
            if packet.parsed().is_ok_and(|parsed| parsed.ip().is_some()) {
                packet.swap_mac_addresses();
                packet.transmit(packet.ingress());
            } else {
                packet.drop(self.0);
            }
        }
    }
}

fn write(
    file: &mut PcapNgWriter<BufWriter<File>>,
    seen: &Receiver<Seen>,
    stats: &Stats,
) -> pcap_file::PcapResult<()> {
    for (timestamp, verdict, bytes) in seen.try_iter() {
        let comment = match verdict {
            Verdict::Drop(reason) => format!("dropped: {}", stats.reasons[reason.index()].name),
            Verdict::Transmit(port) => format!("sent to port {}", port.index()),
            other => format!("{other:?}"),
        };
        let packet = EnhancedPacketBlock {
            interface_id: 0,
            timestamp,
            original_len: bytes.len() as u32,
            data: bytes.into(),
            options: vec![EnhancedPacketOption::Comment(comment.into())],
        };
        file.write_block(&packet.into_block())?;
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [interface, path] = arguments.as_slice() else { return Err("usage: capture INTERFACE FILE".into()) };
    let mut file = PcapNgWriter::new(BufWriter::new(File::create(path)?))?;
    let mut description = InterfaceDescriptionBlock::new(DataLink::ETHERNET, 0);
    description.options =
        vec![InterfaceDescriptionOption::IfName(interface.into()), InterfaceDescriptionOption::IfTsResol(9)];
    file.write_block(&description.into_block())?;

    let stop = Arc::new(AtomicBool::new(false));
    for signal in signal_hook::consts::TERM_SIGNALS {
        signal_hook::flag::register(*signal, stop.clone())?;
    }
    let (send, seen) = sync_channel(4096);
    let running = Runtime::builder()
        .port(XdpPort::new(interface, Steering::All))
        .pipeline(move |build| {
            let capture = Capture { seen: send.clone(), missed: build.counter("not captured"), misses: 0 };
            (capture, MirrorIp(build.drop_reason("capture.no_ip", "The packet is not IP.")))
        })
        .start()?;
    println!("capturing from {interface}");
    let mut written = Ok(());
    let stats = running.run_until(|running| {
        written = write(&mut file, &seen, &running.stats());
        written.is_err() || stop.load(Ordering::Relaxed)
    })?;
    written?;
    write(&mut file, &seen, &stats)?;
    println!("{} packets, {} of them not captured", stats.received(), stats.counter("not captured"));
    Ok(())
}
