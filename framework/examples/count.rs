//! Counts the packets of an interface by protocol, and those to some ports, and shows the counts every second.
//!
//! ```sh
//! cargo run --release --example count -- eth1 53 443
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use afx::packet::{Protocol, flow_key};
use afx::port::{Steering, XdpPort};
use afx::stats::Counter;
use afx::worker::Build;
use afx::{Batch, Reason, Runtime, Stage};

struct Count {
    protocols: [(Protocol, Counter); 4],
    ports: Vec<(u16, Counter)>,
    other: Counter,
    counted: Reason,
}

impl Count {
    fn new(build: &mut Build<'_>, ports: &[u16]) -> Self {
        let named = [
            ("tcp", Protocol::TCP),
            ("udp", Protocol::UDP),
            ("icmp", Protocol::ICMP),
            ("icmpv6", Protocol::ICMPV6),
        ];
        Self {
            protocols: named.map(|(name, protocol)| (protocol, build.counter(name))),
            ports: ports.iter().map(|port| (*port, build.counter(&format!("to port {port}")))).collect(),
            other: build.counter("other"),
            counted: build
                .drop_reason("count.counted", "The packet was counted, which is all that is done here."),
        }
    }
}

impl Stage for Count {
    fn process(&mut self, batch: &mut Batch) {
        for slot in batch.live() {
            let mut packet = batch.packet(slot);
            let parsed = packet.parsed().ok();
            let flow = parsed.and_then(|parsed| flow_key(packet.bytes(), &parsed));
            packet.drop(self.counted);
            let protocol = parsed.and_then(|parsed| parsed.protocol());
            let known = self.protocols.iter().find(|(known, _)| Some(*known) == protocol);
            batch.count(known.map_or(self.other, |(_, counter)| *counter), 1);
            let port = flow.map(|flow| flow.destination_port());
            if let Some((_, counter)) = self.ports.iter().find(|(known, _)| Some(*known) == port) {
                batch.count(*counter, 1);
            }
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let interface = arguments.next().ok_or("usage: count INTERFACE [PORT]...")?;
    let ports = arguments.map(|port| port.parse()).collect::<Result<Vec<u16>, _>>()?;
    let stop = Arc::new(AtomicBool::new(false));
    for signal in signal_hook::consts::TERM_SIGNALS {
        signal_hook::flag::register(*signal, stop.clone())?;
    }
    let running = Runtime::builder()
        .port(XdpPort::new(&interface, Steering::All))
        .pipeline(move |build| Count::new(build, &ports))
        .start()?;
    let mut next = Instant::now();
    running.run_until(|running| {
        if Instant::now() >= next {
            next += Duration::from_secs(1);
            let stats = running.stats();
            let names = stats.workers.first().into_iter().flat_map(|worker| &worker.counters);
            let counts: Vec<_> = names.map(|(name, _)| format!("{name} {}", stats.counter(name))).collect();
            println!("{} packets: {}", stats.received(), counts.join(", "));
        }
        stop.load(Ordering::Relaxed)
    })?;
    Ok(())
}
