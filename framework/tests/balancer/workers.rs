//! Two workers on two queues: what arrives on another queue than its flow.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use afx::packet::{Builder, FlowKey, Protocol, TcpFlags};
use afx::stage::balancer::connections::State;
use afx::stage::balancer::{Answer, Balancer, Directory, Fragments, Inspection, Monitor, VipOptions};
use afx::{Idle, MemoryPeer, MemoryPort, Running, Runtime, Stats};
use afx_testbed::{wait_for, wait_for_some};

use crate::lab::{Real, Setup, options, vip};
use crate::outer::Outer;
use crate::packets::{tcp, too_big, written};

const VIP: &str = "198.51.100.10:80";
const PATIENCE: Duration = Duration::from_secs(30);

struct Pair {
    running: Running,
    peers: Vec<MemoryPeer>,
    directory: Directory,
    monitor: Monitor,
}

impl Pair {
    fn new(setup: &Setup) -> Self {
        let (port, peers) = MemoryPort::with_queues("port", 2, 256);
        let mut directory = Directory::new();
        let services = Arc::new(setup.services(&mut directory));
        let monitor = Monitor::new();
        let (options, counted) = (options(4096), monitor.clone());
        let running = Runtime::builder()
            .port(port)
            .workers(2)
            .idle(Idle::ADAPTIVE)
            .frames_per_queue(1024)
            .pipeline(move |build| Balancer::new(build, &options, services.clone(), &counted))
            .start()
            .unwrap();
        Self { running, peers, directory, monitor }
    }

    fn reload(&mut self, setup: &Setup) {
        let services = setup.services(&mut self.directory);
        let number = self.running.publish(Arc::new(services)).unwrap();
        wait_for("both workers to take it", PATIENCE, || self.running.configured(number)).unwrap();
    }

    fn send(&mut self, queue: usize, packet: &[u8]) {
        wait_for("the port to take a packet", PATIENCE, || self.peers[queue].send(packet)).unwrap();
    }

    /// The real that the next packet out of this queue is for.
    fn receive(&mut self, queue: usize) -> IpAddr {
        let packet = wait_for_some("a packet to come out", PATIENCE, || self.peers[queue].receive()).unwrap();
        Outer::decode(&packet).destination
    }

    /// Waits until so many packets are received and settled, and ends. Nothing else has come out.
    fn finish(mut self, received: u64) -> Stats {
        let settled = |stats: Stats| stats.sent() + stats.dropped_total() == received;
        wait_for("all packets to be settled", PATIENCE, || settled(self.running.stats())).unwrap();
        let stats = self.running.stop().unwrap();
        assert!(stats.balanced());
        assert!(self.peers.iter_mut().all(|peer| peer.receive().is_none()));
        assert_eq!(stats.received(), received);
        assert_eq!(stats.received(), stats.sent() + stats.dropped_total());
        let sum = |count: fn(&afx::stats::WorkerStats) -> u64| stats.workers.iter().map(count).sum::<u64>();
        assert_eq!(sum(|worker| worker.handed_over), sum(|worker| worker.taken_over));
        stats
    }
}

fn setup(weights: [u32; 2]) -> Setup {
    let reals = ["10.0.0.11", "10.0.0.12"].iter().zip(weights);
    let reals = reals.map(|(real, weight)| Real::new(real).weight(weight)).collect();
    Setup::new([(vip(VIP, Protocol::TCP), reals)])
}

fn client(number: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 77], 40_000 + number))
}

fn error_to(client: SocketAddr) -> Vec<u8> {
    too_big([203, 0, 113, 1].into(), VIP.parse().unwrap(), client, Protocol::TCP)
}

#[test]
fn an_icmp_error_finds_the_worker_that_has_its_flow() {
    let mut pair = Pair::new(&setup([1, 0]));
    for queue in [0, 1] {
        pair.send(queue, &tcp(client(queue as u16), VIP.parse().unwrap(), TcpFlags::SYN));
        assert_eq!(pair.receive(queue).to_string(), "10.0.0.11");
    }
    // From now on the tables of the VIP say something else than the connections.
    pair.reload(&setup([0, 1]));
    for (arrives, flow) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        pair.send(arrives, &error_to(client(flow)));
        // It leaves from the worker that has the flow, once, to the real that the flow has.
        assert_eq!(pair.receive(usize::from(flow)).to_string(), "10.0.0.11", "{arrives} {flow}");
    }
    let stats = pair.finish(2 + 4);
    assert_eq!(stats.workers.iter().map(|worker| worker.handed_over).collect::<Vec<_>>(), [1, 1]);
    assert_eq!(stats.dropped_total(), 0);
}

#[test]
fn an_icmp_error_about_a_flow_that_nobody_has_goes_where_a_new_flow_would() {
    let mut pair = Pair::new(&setup([1, 1]));
    for number in 0..8 {
        pair.send(0, &error_to(client(number)));
        let by_error = pair.receive(1);
        pair.send(0, &tcp(client(number), VIP.parse().unwrap(), TcpFlags::SYN));
        assert_eq!(pair.receive(0), by_error);
    }
    let inserted = || pair.monitor.table().inserted;
    wait_for("the flows to be shown", PATIENCE, || inserted() == 8).unwrap();
    // No error has made a connection: eight flows, eight entries.
    let stats = pair.finish(16);
    assert_eq!(stats.workers[0].handed_over, 8);
}

#[test]
fn fragments_of_a_packet_meet_on_one_worker() {
    const PACKETS: u32 = 40;
    let options = VipOptions { fragments: Fragments::Together, ..VipOptions::default() };
    let mut pair = Pair::new(&setup([1, 1]).options(options));
    let destination: SocketAddr = VIP.parse().unwrap();
    let later = Builder::ip(client(0).ip(), destination.ip(), Protocol::TCP);
    let mut came_out = Vec::new();
    for id in 0..PACKETS {
        // The other worker's part comes first, in every second packet.
        let first = written(&Builder::tcp(client(0), destination).fragment(id, 0, true), &[0; 44]);
        let later = written(&later.fragment(id, 64, false), &[0; 64]);
        let parts = if id % 2 == 0 { [(0, first), (1, later)] } else { [(1, later), (0, first)] };
        parts.iter().for_each(|(queue, packet)| pair.send(*queue, packet));
        for _ in 0..2 {
            let any = || pair.peers.iter_mut().find_map(|peer| peer.receive());
            let packet = wait_for_some("a fragment to come out", PATIENCE, any).unwrap();
            came_out.push(Outer::decode(&packet));
        }
    }
    // All of one flow, so all for one real, and in the same outer header.
    let outer = |packet: &Outer| (packet.destination, packet.source, packet.flow_label);
    assert!(came_out.iter().all(|packet| outer(packet) == outer(&came_out[0])));
    let stats = pair.finish(2 * u64::from(PACKETS));
    assert_eq!(stats.dropped_total(), 0);
    // Of the two parts of each, one came by the right queue.
    assert_eq!(stats.workers.iter().map(|worker| worker.handed_over).sum::<u64>(), u64::from(PACKETS));
    // And no worker has them all.
    assert!(stats.workers.iter().all(|worker| worker.taken_over > 0));
}

#[test]
fn a_real_taken_out_is_kept_in_mind_while_it_has_connections() {
    let mut pair = Pair::new(&setup([1, 0]));
    let address = "10.0.0.11".parse().unwrap();
    let id = pair.directory.id(&vip(VIP, Protocol::TCP), &address).unwrap();
    pair.send(1, &tcp(client(0), VIP.parse().unwrap(), TcpFlags::SYN));
    pair.receive(1);

    let without = Setup::new([(vip(VIP, Protocol::TCP), vec![Real::new("10.0.0.12")])]);
    pair.reload(&without);
    // The moment workers have taken it, what they show is true: here lies one connection still.
    assert_eq!(pair.monitor.real(id).connections, 1);
    pair.directory.release(|id| pair.monitor.real(id).connections > 0);

    // Its flow's next packet is for another real, and with it the connection.
    pair.send(1, &tcp(client(0), VIP.parse().unwrap(), TcpFlags::ACK));
    assert_eq!(pair.receive(1).to_string(), "10.0.0.12");
    wait_for("the last connection to be gone", PATIENCE, || pair.monitor.real(id).connections == 0).unwrap();
    pair.finish(2);
}

#[test]
fn each_worker_says_what_it_knows_of_a_flow() {
    let mut pair = Pair::new(&setup([1, 0]));
    pair.send(1, &tcp(client(0), VIP.parse().unwrap(), TcpFlags::SYN));
    pair.receive(1);
    let to: SocketAddr = VIP.parse().unwrap();
    let flow = |number| {
        let client = client(number);
        FlowKey::new(client.ip(), to.ip(), Protocol::TCP, client.port(), to.port()).unwrap()
    };
    let asked = |pair: &Pair, number| {
        let question = Arc::new(Inspection::flow(flow(number)));
        let taken = pair.running.publish(question.clone()).unwrap();
        wait_for("both workers to answer", PATIENCE, || pair.running.configured(taken)).unwrap();
        let mut known = [None; 2];
        while let Some(answer) = question.answer() {
            let Answer::Flow { worker, known: connection } = answer else { panic!("{answer:?}") };
            known[worker.index()] = Some(connection);
        }
        known.map(|answer| answer.expect("an answer from each").map(|known| (known.real, known.state)))
    };
    let real = pair.directory.id(&vip(VIP, Protocol::TCP), &"10.0.0.11".parse().unwrap()).unwrap();
    assert_eq!(asked(&pair, 0), [None, Some((real, State::Opening))]);
    assert_eq!(asked(&pair, 1), [None, None]);
    pair.send(1, &tcp(client(0), to, TcpFlags::ACK));
    pair.receive(1);
    assert_eq!(asked(&pair, 0), [None, Some((real, State::Established))]);
    pair.finish(2);
}
