//! Drops packets from the networks of a list; all others go back to their senders or, with a second interface, across.
//!
//! ```sh
//! cargo run --release --example block_list -- networks.txt eth1 eth2
//! ```
//!
//! The list has one IPv4 or IPv6 prefix a line, such as `198.51.100.0/24`; `#` begins a comment. SIGHUP has it read
//! again. Between two cards, both must take packets that are not for them: `ip link set eth1 promisc on`.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use afx::lookup::{Address, PrefixError, PrefixTable};
use afx::packet::{Ipv4, Ipv6};
use afx::port::{Steering, XdpPort};
use afx::stage::Malformed;
use afx::worker::Build;
use afx::{BATCH, Batch, Pipeline, PortId, Reason, Runtime, Slot, Snapshot, Stage};
use ipnet::IpNet;

/// The networks whose packets are dropped: what the control side publishes, whole.
struct Blocked {
    v4: PrefixTable<u32>,
    v6: PrefixTable<u128>,
}

impl Blocked {
    fn new(networks: &[IpNet]) -> Result<Self, PrefixError> {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for network in networks {
            // The value does not matter here: an address is in a network of the list, or it is not.
            match network {
                IpNet::V4(network) => v4.push((*network, 0)),
                IpNet::V6(network) => v6.push((*network, 0)),
            }
        }
        Ok(Self { v4: PrefixTable::from_prefixes(v4)?, v6: PrefixTable::from_prefixes(v6)? })
    }

    fn read(file: &Path) -> Result<Self, Box<dyn std::error::Error>> {
        let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
        let mut networks = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if !line.is_empty() {
                // An address alone is a network of one.
                let network = line.parse().or_else(|_| line.parse::<IpAddr>().map(IpNet::from));
                let wrong = |_| format!("{}:{}: '{line}' is no prefix", file.display(), index + 1);
                networks.push(network.map_err(wrong)?);
            }
        }
        Ok(Self::new(&networks)?)
    }
}

impl fmt::Display for Blocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "blocking {} IPv4 and {} IPv6 networks", self.v4.len(), self.v6.len())
    }
}

/// Addresses of one batch, which are looked up together.
struct Sources<A> {
    slots: Vec<Slot>,
    addresses: Vec<A>,
    values: Vec<u32>,
}

impl<A: Address> Sources<A> {
    /// With room for a batch: later nothing is allocated.
    fn new() -> Self {
        let [slots, addresses, values] = [BATCH; 3];
        Self {
            slots: Vec::with_capacity(slots),
            addresses: Vec::with_capacity(addresses),
            values: Vec::with_capacity(values),
        }
    }

    fn add(&mut self, slot: Slot, address: impl Into<A>) {
        self.slots.push(slot);
        self.addresses.push(address.into());
    }

    /// Drops the packets whose addresses are in the table, and forgets them all.
    fn block(&mut self, table: &PrefixTable<A>, batch: &mut Batch, reason: Reason) {
        self.values.resize(self.addresses.len(), 0);
        table.lookup_bulk(&self.addresses, &mut self.values);
        for (slot, value) in self.slots.drain(..).zip(&self.values) {
            if *value != PrefixTable::<A>::NONE {
                batch.packet(slot).drop(reason);
            }
        }
        self.addresses.clear();
    }
}

/// Drops packets from networks of the list, and malformed ones.
struct BlockList {
    blocked: Arc<Blocked>,
    v4: Sources<u32>,
    v6: Sources<u128>,
    reason: Reason,
    malformed: Malformed,
}

impl BlockList {
    fn new(build: &mut Build<'_>, blocked: Arc<Blocked>) -> Self {
        let reason =
            build.drop_reason("block_list.blocked", "The packet's source is in a network of the list.");
        Self { blocked, v4: Sources::new(), v6: Sources::new(), reason, malformed: Malformed::new(build) }
    }
}

impl Stage for BlockList {
    fn process(&mut self, batch: &mut Batch) {
        for slot in batch.live() {
            let mut packet = batch.packet(slot);
            let parsed = match packet.parsed() {
                Ok(parsed) => parsed,
                Err(error) => {
                    packet.drop(self.malformed.reason(error));
                    continue;
                }
            };
            // Neither for ARP, which is not this stage's business.
            let header = &packet.bytes()[parsed.l3()..];
            if let (true, Ok(ip)) = (parsed.is_ipv4(), Ipv4::new_checked(header)) {
                self.v4.add(slot, ip.source());
            } else if let (true, Ok(ip)) = (parsed.is_ipv6(), Ipv6::new_checked(header)) {
                self.v6.add(slot, ip.source());
            }
        }
        self.v4.block(&self.blocked.v4, batch, self.reason);
        self.v6.block(&self.blocked.v6, batch, self.reason);
    }

    fn configure(&mut self, snapshot: &Snapshot) {
        if let Some(blocked) = snapshot.of() {
            self.blocked = blocked;
        }
    }
}

/// Sends what came in on one of two ports out of the other, or back where there is one port.
struct Onward {
    ports: Vec<PortId>,
}

impl Stage for Onward {
    fn process(&mut self, batch: &mut Batch) {
        for slot in batch.live() {
            let mut packet = batch.packet(slot);
            match self.ports.iter().find(|port| **port != packet.ingress()) {
                Some(other) => packet.transmit(*other),
                None => {
                    packet.swap_mac_addresses();
                    packet.transmit(packet.ingress());
                }
            }
        }
    }
}

fn pipeline(build: &mut Build<'_>, blocked: Arc<Blocked>) -> impl Pipeline + use<> {
    let ports = build.ports().map(|(port, _)| port).collect();
    (BlockList::new(build, blocked), Onward { ports })
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, interfaces @ ..] = arguments.as_slice() else {
        return Err("usage: block_list FILE INTERFACE [INTERFACE]".into());
    };
    if !(1..=2).contains(&interfaces.len()) {
        return Err("usage: block_list FILE INTERFACE [INTERFACE]".into());
    }
    let file = Path::new(file);
    let blocked = Arc::new(Blocked::read(file)?);
    println!("{blocked}");
    let (stop, again) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    for signal in signal_hook::consts::TERM_SIGNALS {
        signal_hook::flag::register(*signal, stop.clone())?;
    }
    signal_hook::flag::register(signal_hook::consts::SIGHUP, again.clone())?;
    let mut builder = Runtime::builder();
    for interface in interfaces {
        builder = builder.port(XdpPort::new(interface, Steering::All));
    }
    let running = builder.pipeline(move |build| pipeline(build, blocked.clone())).start()?;
    let stats = running.run_until(|running| {
        if again.swap(false, Ordering::Relaxed) {
            match Blocked::read(file).map(|list| (list.to_string(), running.publish(Arc::new(list)))) {
                Ok((list, Ok(_))) => println!("{list}"),
                Ok((_, Err(error))) => eprintln!("{error}"),
                // The list in force stays.
                Err(error) => eprintln!("{error}"),
            }
        }
        stop.load(Ordering::Relaxed)
    })?;
    println!("{} packets received, {} sent", stats.received(), stats.sent());
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
    use std::net::SocketAddr;

    fn from(source: &str) -> Vec<u8> {
        let source: SocketAddr = source.parse().unwrap();
        let destination = if source.is_ipv4() { "198.51.100.7:53" } else { "[2001:db8:7::7]:53" };
        let mut bytes = [0; 128];
        let len = Builder::udp(source, destination.parse().unwrap()).write(&mut bytes, b"hello");
        bytes[..len.expect("it fits")].to_vec()
    }

    fn blocked(networks: &[&str]) -> Arc<Blocked> {
        let networks: Vec<IpNet> = networks.iter().map(|network| network.parse().unwrap()).collect();
        Arc::new(Blocked::new(&networks).unwrap())
    }

    #[test]
    fn packets_from_blocked_networks_are_dropped_and_all_others_cross() {
        let (left, mut left_peer) = MemoryPort::new("left");
        let (right, mut right_peer) = MemoryPort::new("right");
        let list = blocked(&["192.0.2.0/24", "2001:db8:bad::/48"]);
        let mut worker = Runtime::builder()
            .port(left)
            .port(right)
            .pipeline(move |build| pipeline(build, list.clone()))
            .inline()
            .expect("memory ports open");
        worker.turn(); // lends frames to the ports

        let others = ["192.0.3.0:1", "[2001:db8:bae::]:1", "192.0.1.255:1"].map(from);
        for source in ["192.0.2.0:1", "192.0.2.255:1", "[2001:db8:bad:ffff::1]:1"] {
            assert!(left_peer.send(&from(source)));
        }
        others.iter().for_each(|packet| assert!(left_peer.send(packet)));
        assert!(left_peer.send(&[0; 5]));
        worker.turn();
        for packet in &others {
            assert_eq!(right_peer.receive().as_ref(), Some(packet));
        }
        assert_eq!(right_peer.receive(), None);
        assert_eq!(worker.stats().drops(), [("block_list.blocked", 3), ("parse.ethernet_truncated", 1)]);

        worker.configure(blocked(&["192.0.3.0/24"]));
        for (source, crosses) in [("192.0.2.1:1", true), ("192.0.3.0:1", false)] {
            assert!(right_peer.send(&from(source)));
            worker.turn();
            assert_eq!(left_peer.receive().is_some(), crosses);
        }
        assert!(worker.stats().balanced());
    }

    #[test]
    fn a_list_is_read_with_comments_and_a_wrong_line_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "# ours\n10.0.0.0/8\n\n  192.0.2.1 # one host\n2001:db8::/32\n").unwrap();
        let list = Blocked::read(file.path()).unwrap();
        assert_eq!((list.v4.len(), list.v6.len()), (2, 1));
        assert_eq!(list.v4.get("192.0.2.1/32".parse().unwrap()), Some(0));
        std::fs::write(&file, "10.0.0.0/8\n10.0.0.0/33\n").unwrap();
        let error = Blocked::read(file.path()).err().unwrap().to_string();
        assert!(error.ends_with(":2: '10.0.0.0/33' is no prefix"), "{error}");
    }
}
