//! Joins two interfaces like a cable, and drops packets to closed ports.
//!
//! ```sh
//! cargo run --release --features testing --example drop_port -- eth1 eth2
//! ```
//!
//! Each line on its standard input is a new list of closed ports, such as `23 445`; at the end of the input it
//! stops. On cards, both interfaces must take packets that are not for them: `ip link set eth1 promisc on`.

use std::collections::BTreeSet;
use std::sync::Arc;

use afx::packet::flow_key;
use afx::port::{Steering, XdpPort};
use afx::stage::Malformed;
use afx::stats::Counter;
use afx::worker::Build;
use afx::{Batch, Pipeline, PortId, Reason, Runtime, Snapshot, Stage};

/// The destination ports that are closed: what the control side publishes, whole.
#[derive(Default)]
struct Closed(BTreeSet<u16>);

/// Drops packets to closed ports, and malformed ones.
struct DropPort {
    closed: Arc<Closed>,
    closed_port: Reason,
    malformed: Malformed,
    checked: Counter,
}

impl DropPort {
    fn new(build: &mut Build<'_>) -> Self {
        Self {
            closed: Arc::default(),
            closed_port: build.drop_reason("drop_port.closed", "The packet's destination port is closed."),
            malformed: Malformed::new(build),
            checked: build.counter("drop_port.checked"),
        }
    }
}

impl Stage for DropPort {
    fn process(&mut self, batch: &mut Batch) {
        let mut checked = 0;
        for slot in batch.live() {
            let mut packet = batch.packet(slot);
            let parsed = match packet.parsed() {
                Ok(parsed) => parsed,
                Err(error) => {
                    packet.drop(self.malformed.reason(error));
                    continue;
                }
            };
            // None for ARP and other packets without a flow: they are not this stage's business.
            let Some(flow) = flow_key(packet.bytes(), &parsed) else { continue };
            checked += 1;
            if self.closed.0.contains(&flow.destination_port()) {
                packet.drop(self.closed_port);
            }
        }
        batch.count(self.checked, checked);
    }

    fn configure(&mut self, snapshot: &Snapshot) {
        if let Some(closed) = snapshot.of() {
            self.closed = closed;
        }
    }
}

/// Sends what came in on one of two ports out of the other.
struct Cable {
    ends: [PortId; 2],
}

impl Cable {
    fn new(build: &Build<'_>) -> Self {
        let ports: Vec<PortId> = build.ports().map(|(port, _)| port).collect();
        Self { ends: ports.try_into().expect("the runtime is given two ports") }
    }
}

impl Stage for Cable {
    fn process(&mut self, batch: &mut Batch) {
        let [one, other] = self.ends;
        for slot in batch.live() {
            let mut packet = batch.packet(slot);
            packet.transmit(if packet.ingress() == one { other } else { one });
        }
    }
}

fn pipeline(build: &mut Build<'_>) -> impl Pipeline + use<> {
    (DropPort::new(build), Cable::new(build))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [one, other] = arguments.as_slice() else {
        return Err("usage: drop_port INTERFACE INTERFACE".into());
    };
    let running = Runtime::builder()
        .port(XdpPort::new(one, Steering::All))
        .port(XdpPort::new(other, Steering::All))
        .pipeline(pipeline)
        .start()?;
    for line in std::io::stdin().lines() {
        let ports: Result<_, _> = line?.split_whitespace().map(str::parse).collect();
        match ports {
            Ok(ports) => drop(running.publish(Arc::new(Closed(ports)))?),
            Err(error) => eprintln!("not a list of ports: {error}"),
        }
    }
    let stats = running.stop()?;
    println!("{} packets checked", stats.counter("drop_port.checked"));
    for (reason, packets) in stats.drops() {
        println!("{packets} dropped: {reason}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use afx::MemoryPort;
    use afx::packet::Builder;

    fn udp_to(port: u16) -> Vec<u8> {
        let mut bytes = [0; 128];
        let destination = ([198, 51, 100, 7], port).into();
        let len = Builder::udp(([192, 0, 2, 1], 4000).into(), destination).write(&mut bytes, b"hello");
        bytes[..len.expect("it fits")].to_vec()
    }

    #[test]
    fn packets_to_closed_ports_are_dropped_and_all_others_cross() {
        let (left, mut left_peer) = MemoryPort::new("left");
        let (right, mut right_peer) = MemoryPort::new("right");
        let mut worker =
            Runtime::builder().port(left).port(right).pipeline(pipeline).inline().expect("memory ports open");
        worker.configure(Arc::new(Closed([23].into())));
        worker.turn(); // lends frames to the ports

        assert!(left_peer.send(&udp_to(23)));
        assert!(left_peer.send(&udp_to(53)));
        assert!(left_peer.send(&[0; 5]));
        assert!(right_peer.send(&udp_to(80)));
        worker.turn();

        assert_eq!(right_peer.receive(), Some(udp_to(53)));
        assert_eq!(right_peer.receive(), None);
        assert_eq!(left_peer.receive(), Some(udp_to(80)));
        let stats = worker.stats();
        assert_eq!(stats.drops(), [("drop_port.closed", 1), ("parse.ethernet_truncated", 1)]);
        assert_eq!(stats.counter("drop_port.checked"), 3);
        assert!(stats.balanced());
    }

    #[test]
    fn a_new_list_replaces_the_old_one() {
        let (left, mut left_peer) = MemoryPort::new("left");
        let (right, mut right_peer) = MemoryPort::new("right");
        let mut worker =
            Runtime::builder().port(left).port(right).pipeline(pipeline).inline().expect("memory ports open");
        worker.turn();
        for (closed, crosses) in [(vec![], true), (vec![53], false), (vec![23], true)] {
            worker.configure(Arc::new(Closed(closed.into_iter().collect())));
            assert!(left_peer.send(&udp_to(53)));
            worker.turn();
            assert_eq!(right_peer.receive().is_some(), crosses);
        }
    }
}
