//! A cable: sends every packet that comes in on one of two interfaces out of the other.
//!
//! ```sh
//! cargo run --release --example forward -- eth1 eth2
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use afx::port::{Steering, XdpPort};
use afx::{Batch, PortId, Runtime, Stage};

struct Cable(PortId, PortId);

impl Stage for Cable {
    fn process(&mut self, batch: &mut Batch) {
        for slot in batch.live() {
            let mut packet = batch.packet(slot);
            packet.transmit(if packet.ingress() == self.0 { self.1 } else { self.0 });
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [left, right] = arguments.as_slice() else { return Err("usage: forward INTERFACE INTERFACE".into()) };
    let stop = Arc::new(AtomicBool::new(false));
    for signal in signal_hook::consts::TERM_SIGNALS {
        signal_hook::flag::register(*signal, stop.clone())?;
    }
    let running = Runtime::builder()
        .port(XdpPort::new(left, Steering::All))
        .port(XdpPort::new(right, Steering::All))
        .pipeline(|build| {
            let mut ports = build.ports().map(|(port, _)| port);
            Cable(ports.next().expect("two were given"), ports.next().expect("two were given"))
        })
        .start()?;
    println!("forwarding between {left} and {right}");
    let stats = running.run_until(|_| stop.load(Ordering::Relaxed))?;
    for queue in stats.queues() {
        println!("{}: {} packets in, {} out", queue.port, queue.received, queue.sent);
    }
    Ok(())
}
