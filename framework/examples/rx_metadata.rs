//! Shows what the card knows of each packet of an interface: its hash, its timestamp, the VLAN tag that it took off.
//!
//! ```sh
//! cargo run --release --example rx_metadata -- eth1
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use afx::port::{RxMetadata, Steering, XdpPort};
use afx::stats::Counter;
use afx::worker::Build;
use afx::{Batch, Reason, Runtime, Stage};

struct Show {
    hash: Counter,
    timestamp: Counter,
    vlan: Counter,
    shown: Reason,
}

impl Show {
    fn new(build: &mut Build<'_>) -> Self {
        Self {
            hash: build.counter("hash"),
            timestamp: build.counter("timestamp"),
            vlan: build.counter("vlan"),
            shown: build.drop_reason("show.shown", "The packet was shown, which is all that is done here."),
        }
    }
}

impl Stage for Show {
    fn process(&mut self, batch: &mut Batch) {
        for slot in batch.live() {
            let mut packet = batch.packet(slot);
            packet.drop(self.shown);
            let mut line = format!("{} bytes", packet.len());
            let (hash, timestamp, vlan) = (packet.rx_hash(), packet.timestamp(), packet.vlan());
            if let Some(hash) = hash {
                let of = if hash.with_ports { "addresses and ports" } else { "addresses" };
                line += &format!(", hash {:#010x} of {of}", hash.value);
            }
            if let Some(timestamp) = timestamp {
                line += &format!(", at {timestamp} of the card's clock");
            }
            if let Some((_, tag)) = vlan {
                line += &format!(", VLAN {}", tag.id());
            }
            // A terminal is slow: this is for looking at a few packets.
            println!("{line}");
            batch.count(self.hash, hash.is_some().into());
            batch.count(self.timestamp, timestamp.is_some().into());
            batch.count(self.vlan, vlan.is_some().into());
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let interface = std::env::args().nth(1).ok_or("usage: rx_metadata INTERFACE")?;
    let stop = Arc::new(AtomicBool::new(false));
    for signal in signal_hook::consts::TERM_SIGNALS {
        signal_hook::flag::register(*signal, stop.clone())?;
    }
    let running = Runtime::builder()
        .port(XdpPort::new(&interface, Steering::All).rx_metadata(RxMetadata::Auto))
        .pipeline(Show::new)
        .start()?;
    for (name, what) in running.status().iter().flat_map(|port| &port.facts) {
        println!("{name}: {what}");
    }
    let stats = running.run_until(|_| stop.load(Ordering::Relaxed))?;
    let count = |name: &str| stats.counter(name);
    println!(
        "{} packets: {} with a hash, {} with a timestamp, {} with a VLAN tag",
        stats.received(),
        count("hash"),
        count("timestamp"),
        count("vlan")
    );
    Ok(())
}
