//! Sends every packet that comes in on an interface back to its sender.
//!
//! ```sh
//! cargo run --release --example echo -- eth1
//! ```

use afx::port::{Steering, XdpPort};
use afx::{Batch, Runtime, Stage};

struct Mirror;

impl Stage for Mirror {
    fn process(&mut self, batch: &mut Batch) {
        for slot in batch.live() {
            let mut packet = batch.packet(slot);
            packet.swap_mac_addresses();
            packet.transmit(packet.ingress());
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let interface = std::env::args().nth(1).ok_or("usage: echo INTERFACE")?;
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    for signal in signal_hook::consts::TERM_SIGNALS {
        signal_hook::flag::register(*signal, stop.clone())?;
    }
    let running = Runtime::builder()
        .port(XdpPort::new(&interface, Steering::All))
        .pipeline(|_worker| Mirror)
        .start()?;
    let stats = running.run_until(|_| stop.load(std::sync::atomic::Ordering::Relaxed))?;
    println!("{} packets in, {} out", stats.received(), stats.sent());
    Ok(())
}
