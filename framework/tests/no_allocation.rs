//! A running data path allocates nothing: a test binary of its own, since it counts what its allocator is asked.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use afx::mem::CountingAllocator;
use afx::packet::{Builder, MacAddress, Protocol, TcpFlags};
use afx::stage::balancer::connections::Timeouts;
use afx::stage::balancer::{
    Balancer, Definition, Directory, Forwarding, Fragments, Hop, Inspection, Monitor, Options,
    RealDefinition, ServerIdIn, Settings, TooBig, Vip, VipOptions,
};
use afx::{Batch, Held, MemoryPort, PortId, Runtime, Stage, WorkerId};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

const PACKETS: u64 = 1_000_000;

/// Does with packets all that a stage can: in turn.
struct Everything {
    worker: WorkerId,
    step: u32,
    held: VecDeque<Held>,
    /// Calls of the allocator on this worker's thread when its first packet came, and now.
    first: Option<u64>,
    allocations: Arc<AtomicU64>,
}

impl Stage for Everything {
    fn process(&mut self, batch: &mut Batch) {
        let calls = CountingAllocator::calls();
        let first = *self.first.get_or_insert(calls);
        self.allocations.store(calls - first, Ordering::Relaxed);
        for slot in batch.live() {
            self.step = self.step.wrapping_add(1);
            let foreign = batch.origin(slot).hops > 0;
            let mut packet = batch.packet(slot);
            let _ = packet.parsed();
            match self.step % 8 {
                0 if !foreign => packet.hand_over(WorkerId::new(1 - self.worker.index())),
                1 if self.held.len() < 100 => self.held.push_back(packet.hold()),
                2 => drop(packet.hold()),
                3 => {
                    batch.create(60);
                    let mut packet = batch.packet(slot);
                    packet.transmit(packet.ingress());
                }
                4 => {
                    batch.duplicate(slot);
                }
                5 => {}
                _ => packet.transmit(packet.ingress()),
            }
        }
        if self.held.len() > 50
            && let Some(held) = self.held.pop_front()
            && let Err(held) = batch.release(held)
        {
            self.held.push_front(held);
        }
    }

    fn tick(&mut self, batch: &mut Batch) {
        if let Some(held) = self.held.pop_front() {
            // The batch of a timer is empty.
            let _ = batch.release(held);
        }
    }

    fn drain(&mut self, _: &mut Batch) -> bool {
        self.held.clear();
        true
    }

    fn creates(&self) -> usize {
        16
    }
}

#[test]
fn nothing_is_allocated_while_a_million_packets_are_created_held_and_handed_over() {
    let counts = [Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0))];
    let (port, mut peers) = MemoryPort::with_queues("cable", 2, 2048);
    let told = counts.clone();
    let running = Runtime::builder()
        .port(port)
        .workers(2)
        .pipeline(move |build| Everything {
            worker: build.worker(),
            step: 0,
            held: VecDeque::with_capacity(256),
            first: None,
            allocations: told[build.worker().index()].clone(),
        })
        .start()
        .unwrap();
    let mut sent = 0;
    while sent < PACKETS {
        let before = sent;
        for peer in &mut peers {
            sent += u64::from(peer.null(64, 60));
        }
        if sent == before {
            std::thread::yield_now();
        }
    }
    let stop = std::sync::atomic::AtomicBool::new(false);
    let stats = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for peer in &mut peers {
                    peer.inspect(u32::MAX, |_| ());
                }
                std::thread::yield_now();
            }
        });
        let stats = running.stop().unwrap();
        stop.store(true, Ordering::Relaxed);
        stats
    });
    assert_eq!(stats.received(), sent);
    assert!(stats.balanced(), "{stats:?}");
    for worker in &stats.workers {
        assert!(worker.handed_over > 0 && worker.taken_over > 0, "{worker:?}");
        assert!(worker.ledger.held.issued > 0 && worker.ledger.held.outside() == 0, "{worker:?}");
    }
    let allocations = counts.map(|count| count.load(Ordering::Relaxed));
    assert_eq!(
        allocations,
        [0, 0],
        "calls of the allocator by each worker, from its first packet to its last"
    );
}

/// A balancer with all that a VIP may ask for: fragments wait, clients are told, tunnels end, questions are answered.
#[test]
fn a_balancer_allocates_nothing_whatever_comes() {
    let options = VipOptions {
        server_id: Some(ServerIdIn::UdpHeader),
        answer_echo: true,
        fragments: Fragments::Together,
        ..VipOptions::default()
    };
    let real = |last| RealDefinition {
        sources: vec!["192.0.2.0/25".parse().unwrap()],
        server_ids: vec![5],
        ..RealDefinition::new([10, 0, 0, last].into(), 1)
    };
    let vip: Vip = "198.51.100.0/24:*/udp".parse().unwrap();
    let definition = Definition {
        options,
        ..Definition::new(vip, vec![real(11), RealDefinition::new([10, 0, 0, 12].into(), 1)])
    };
    let settings = Settings {
        too_big: TooBig { answer: true, per_second: 1_000_000 },
        client_mtu: Some(1000),
        decapsulate: vec![[10, 9, 9, 9].into()],
        ..Settings::new(Forwarding::Gue { source_v4: None, source_v6: None, port: 6080 })
    };
    let hop = Hop {
        port: PortId::new(0),
        source_mac: MacAddress([2; 6]),
        destination_mac: MacAddress([4; 6]),
        source: Some([10, 0, 0, 1].into()),
        mtu: 1500,
    };
    let services = Directory::new().services(&[definition], &settings, |_, _| Some(hop)).unwrap();
    let services = Arc::new(services);
    let (port, mut peer) = MemoryPort::new("cable");
    let monitor = Monitor::new();
    let counted = monitor.clone();
    let mut worker = Runtime::builder()
        .port(port)
        .pipeline(move |build| {
            let options = Options { capacity: 1 << 10, timeouts: Timeouts::default(), hasher: None };
            Balancer::new(build, &options, services.clone(), &counted)
        })
        .inline()
        .unwrap();
    worker.turn();
    let question = Arc::new(Inspection::connections(usize::MAX));
    let packets = packets_of_all_kinds();
    // Once to warm up what is made at the first use, and then in earnest.
    let mut before = 0;
    for round in 0..2_000 {
        if round == 1 {
            worker.configure(question.clone());
            before = CountingAllocator::calls();
        }
        for packet in &packets {
            assert!(peer.send(packet));
        }
        worker.turn();
        peer.inspect(u32::MAX, |_| ());
    }
    assert_eq!(CountingAllocator::calls() - before, 0);
    worker.drain();
    let (work, table) = (monitor.work(), monitor.table());
    assert!(work.echo_replies > 0 && work.too_big_answers > 0 && work.decapsulated > 0, "{work:?}");
    assert!(work.by_server_id > 0 && work.by_source > 0 && work.fragments_held > 0, "{work:?}");
    assert!(table.inserted > 0 && question.answer().is_some(), "{table:?}");
    assert!(worker.stats().balanced());
}

fn packets_of_all_kinds() -> Vec<Vec<u8>> {
    let written = |builder: Builder, payload: &[u8]| {
        let mut bytes = vec![0; 2000];
        let len = builder.write(&mut bytes, payload).unwrap();
        bytes.truncate(len);
        bytes
    };
    let to = "198.51.100.10:443".parse().unwrap();
    let client = |last: u8| std::net::SocketAddr::from(([192, 0, 2, last], 4000));
    let mut packets = Vec::new();
    for last in [1, 201] {
        let client = client(last);
        let whole = written(Builder::udp(client, to), b"whole");
        let fragment = |id, offset, more| Builder::udp(client, to).fragment(id, offset, more);
        packets.extend([
            written(Builder::ip([10, 1, 1, 1].into(), [10, 9, 9, 9].into(), Protocol::IPV4), &whole[14..]),
            written(Builder::udp(client, to), &[0x52, 0, 0, 5, 0, 0, 0, 0]),
            written(Builder::udp(client, to), &[0; 1200]),
            written(Builder::echo(client.ip(), to.ip(), 1, 1), b"ping"),
            written(Builder::tcp(client, to).flags(TcpFlags::SYN), b""),
            // Held until the batch's end, and one that waits in vain.
            written(fragment(9, 16, false), b"the rest"),
            written(fragment(9, 0, true), &[0; 8]),
            written(fragment(10, 16, false), b"the rest"),
            whole,
        ]);
    }
    packets
}
