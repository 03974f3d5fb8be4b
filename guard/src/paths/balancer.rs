//! The balancer at work: a turn of a worker with a batch of packets to a VIP.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use afx::packet::{Builder, MacAddress, Protocol, TcpFlags};
use afx::stage::balancer::flow::FlowHasher;
use afx::stage::balancer::maglev::TableSize;
use afx::stage::balancer::{
    Balancer, Definition, Directory, Forwarding, Hop, Monitor, Options, RealDefinition, RealState, Services,
    Settings, TooBig, Vip, VipOptions,
};
use afx::{Inline, MemoryPeer, MemoryPort, PortId, Runtime, Time};

use super::pipeline::NEVER;
use super::tables::TIMEOUTS;
use super::{BATCH, client, packet};

const REALS: u8 = 16;
const RING: u32 = 256;

/// The IP version of flows, VIP and reals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// What packets come to the balancer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// TCP packets of flows that are in the connection table.
    Known,
    /// The first packets of flows.
    New,
    /// ICMP errors about packets of flows that are in the connection table.
    Errors,
}

/// A worker with a balancer, and batches of packets for it.
pub struct Balancing {
    worker: Inline<Balancer>,
    peer: MemoryPeer,
    family: Family,
    traffic: Traffic,
    /// The flows of the next batch begin here, and are repeated after so many.
    next: u32,
    flows: u32,
}

impl Balancing {
    /// Packets in each run: a full batch, in which the balancer has a slot kept free for an answer of its own.
    pub const PACKETS: usize = BATCH - 1;

    /// A balancer that forwards in IP (or in UDP, if `gue`), with that many flows in its connection table where they
    /// are to be known; the first packets wait.
    pub fn new(family: Family, traffic: Traffic, gue: bool, flows: u32) -> Self {
        let (port, mut peers) = MemoryPort::with_queues("port", 1, RING);
        let services = Arc::new(services(family, gue));
        let options = Options {
            capacity: 2 * flows as usize,
            timeouts: TIMEOUTS,
            hasher: Some(FlowHasher::fastest([1, 2, 3, 4])),
        };
        let monitor = Monitor::new();
        let worker = Runtime::builder()
            // Entries are as old each time.
            .port(port.at(Time::ZERO))
            .frames_per_queue(2 * RING as usize)
            .hash_seed(5)
            .tick(NEVER)
            .pipeline(move |build| Balancer::new(build, &options, services.clone(), &monitor))
            .inline()
            .expect("memory ports open");
        let mut balancing =
            Self { worker, peer: peers.remove(0), family, traffic: Traffic::New, next: 0, flows };
        balancing.worker.turn();
        if traffic != Traffic::New {
            for _ in (0..flows).step_by(Self::PACKETS) {
                balancing.deliver();
                balancing.run();
            }
        }
        balancing.traffic = traffic;
        // Past the first turns, in which rings and free list are not yet as they are later.
        for _ in 0..16 {
            balancing.deliver();
            balancing.run();
        }
        balancing.deliver();
        balancing
    }

    /// Has a batch of packets wait, and takes off those sent.
    pub fn deliver(&mut self) {
        self.peer.inspect(u32::MAX, |_| ());
        for _ in 0..Self::PACKETS {
            // New flows are new for ever.
            let number = if self.traffic == Traffic::New { self.next } else { self.next % self.flows };
            self.next = number + 1;
            assert!(self.peer.send(&self.packet(number)), "the port takes a batch");
        }
    }

    /// One turn: receives, balances and sends the packets that wait.
    pub fn run(&mut self) {
        assert_eq!(self.worker.turn(), Self::PACKETS);
    }

    /// How many packets were sent so far, and how many were dropped.
    pub fn sent_and_dropped(&mut self) -> (u64, u64) {
        let stats = self.worker.stats();
        (stats.sent(), stats.dropped_total())
    }

    fn packet(&self, flow: u32) -> Vec<u8> {
        let (client, vip) = (client(self.family, flow), SocketAddr::new(self.family.address(1), 443));
        match self.traffic {
            Traffic::Known => packet(&Builder::tcp(client, vip).flags(TcpFlags::ACK)),
            Traffic::New => packet(&Builder::tcp(client, vip).flags(TcpFlags::SYN)),
            Traffic::Errors => too_big(self.family.address(254), client, vip),
        }
    }
}

/// A router says that a packet of the flow, on its way to the client, was too big.
fn too_big(router: IpAddr, client: SocketAddr, vip: SocketAddr) -> Vec<u8> {
    let answer = packet(&Builder::tcp(vip, client).flags(TcpFlags::ACK));
    let (protocol, kind, code, quoted) = match router {
        // What IPv4 routers are obliged to quote: the IP header and eight bytes more.
        IpAddr::V4(_) => (Protocol::ICMP, 3, 4, 28),
        IpAddr::V6(_) => (Protocol::ICMPV6, 2, 0, 48),
    };
    let mut message = vec![kind, code, 0, 0, 0, 0, 0x05, 0x00];
    message.extend_from_slice(&answer[14..14 + quoted]);
    let mut bytes = vec![0; 256];
    let len = Builder::ip(router, vip.ip(), protocol).write(&mut bytes, &message);
    bytes.truncate(len.expect("it fits, and both addresses are of one family"));
    bytes
}

/// One VIP with its reals, each with a way there.
fn services(family: Family, gue: bool) -> Services {
    let (source_v4, source_v6) = (None, None);
    let forwarding = match gue {
        true => Forwarding::Gue { source_v4, source_v6, port: Forwarding::GUE_PORT },
        false => Forwarding::Ipip { source_v4, source_v6 },
    };
    let real = |host| RealDefinition {
        address: family.address(host),
        weight: 1,
        state: RealState::default(),
        sources: Vec::new(),
        server_ids: Vec::new(),
    };
    let definition = Definition {
        vip: Vip::host(family.address(1), 443, Protocol::TCP),
        options: VipOptions::default(),
        reals: (0..REALS).map(|index| real(100 + index)).collect(),
    };
    let settings = Settings {
        forwarding,
        table_size: TableSize::DEFAULT,
        seed: 7,
        too_big: TooBig::default(),
        client_mtu: None,
        decapsulate: Vec::new(),
    };
    let way = |_: &Vip, _: &IpAddr| {
        Some(Hop {
            port: PortId::new(0),
            source_mac: MacAddress([2, 0, 0, 0, 0, 1]),
            destination_mac: MacAddress([2, 0, 0, 0, 0, 2]),
            source: Some(family.address(2)),
            mtu: 1500,
        })
    };
    let services = Directory::new().services(&[definition], &settings, way);
    services.expect("the definition is right")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A multiple of a batch, so that all are known once as many have come.
    const FLOWS: u32 = 16 * Balancing::PACKETS as u32;

    #[test]
    fn every_packet_is_sent_on() {
        for family in [Family::V4, Family::V6] {
            for traffic in [Traffic::Known, Traffic::New, Traffic::Errors] {
                for gue in [false, true] {
                    let mut balancing = Balancing::new(family, traffic, gue, FLOWS);
                    balancing.run();
                    balancing.deliver();
                    balancing.run();
                    let (sent, dropped) = balancing.sent_and_dropped();
                    let filling = if traffic == Traffic::New { 0 } else { u64::from(FLOWS) };
                    let packets = filling + 18 * Balancing::PACKETS as u64;
                    assert_eq!((sent, dropped), (packets, 0), "{family:?} {traffic:?}");
                    let connections = balancing.worker.pipeline().connections().len() as u64;
                    assert_eq!(connections, if traffic == Traffic::New { sent } else { FLOWS.into() });
                }
            }
        }
    }
}
