//! Balancing: the stage, none of whose packets may be lost, and `afx-lb` as its users have it, whose reals take the outer
//! header off by the kernel's own device.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use afx::packet::{MacAddress, Protocol};
use afx::port::{Mode, ModeWanted, PortId};
use afx::stage::balancer::connections::Timeouts;
use afx::stage::balancer::{
    Balancer, Definition, Directory, Forwarding, Hop, Monitor, Options, RealDefinition, Settings, Vip,
};
use afx::{Idle, Runtime};
use afx_testbed::{Host, Link, Process, Signal, Testbed, wait_for};

use crate::cable::{Cable, End, wait_for_link};
use crate::probe::Probes;
use crate::pump::Plan;
use crate::support::*;

/// Balances packets of a plan between two reals, from one port to another of one memory, both in one mode.
pub(crate) fn stage(name: &str, mode: Mode, plan: Plan) {
    let hosts = Hosts::new(name);
    hosts.join(Cable::First, "left");
    hosts.join(Cable::Second, "right");
    // Where the pump sends its packets to.
    let vip = Vip::host([10, 0, 0, 2].into(), 9, Protocol::UDP);
    let reals = [11, 12].map(|last| RealDefinition::new([10, 0, 1, last].into(), 1));
    let hop = Hop {
        port: PortId::new(1),
        source_mac: MacAddress(Cable::Second.mac(End::Near)),
        destination_mac: MacAddress(Cable::Second.mac(End::Far)),
        source: Some([10, 0, 1, 1].into()),
        mtu: 1500,
    };
    let settings = Settings::new(Forwarding::Ipip { source_v4: None, source_v6: None });
    let mut directory = Directory::new();
    let definitions = [Definition::new(vip, reals.to_vec())];
    let services = Arc::new(directory.services(&definitions, &settings, |_, _| Some(hop)).unwrap());
    let monitor = Monitor::new();
    let counted = monitor.clone();
    let options = Options { capacity: 4096, timeouts: Timeouts::default(), hasher: None };
    let start = || {
        let builder = Runtime::builder().port(port("left", mode)).port(port("right", mode));
        let builder = builder.workers(1).cores([0]).idle(Idle::ADAPTIVE);
        builder.pipeline(move |build| Balancer::new(build, &options, services.clone(), &counted)).start()
    };
    let balancer = hosts.near.run(start).unwrap().unwrap();
    assert_mode(&balancer, mode);
    let plan = plan.flows(64).wrapped();
    hosts.pump(&["left", "right"], ModeWanted::Auto, Cable::First, plan).finish();
    let stats = balancer.stop().unwrap();
    println!("{} packets balanced in {mode} mode", plan.packets);
    assert_eq!(stats.dropped_total(), 0, "{:?}", stats.drops());
    let shares = directory.reals().map(|(_, _, id)| monitor.real(id).packets);
    let shares: Vec<_> = shares.collect();
    assert_eq!(shares.iter().sum::<u64>(), plan.packets, "{shares:?}");
    // 64 flows are dealt out by a hash: neither has almost none.
    assert!(shares.iter().all(|share| *share > plan.packets / 20), "{shares:?}");
    assert_settled(&stats, &hosts.near, &["left", "right"]);
}

const VIP: &str = "198.51.100.10";
const UDP_PORT: u16 = 53;
const TCP_PORT: u16 = 80;
/// Questions by UDP, and transfers by TCP.
const FLOWS: usize = 32;
const QUESTIONS: usize = 40;
const TRANSFERS: usize = 6;

/// A client, `afx-lb`, a router, and reals behind that, which answer the client past the balancer:
///
///     client eth0 ══ front lb back ══ eth0 router ─┬─ real1
///        eth1 └───────────────────────────┘        └─ real2
struct Net {
    client: Host,
    lb: Host,
    reals: Vec<Host>,
    // Last: what runs on it goes first.
    bed: Testbed,
}

impl Net {
    fn new(name: &str) -> Self {
        let bed = Testbed::new(name).unwrap();
        let [client, lb, router] = ["client", "lb", "router"].map(|name| bed.host(name).unwrap());
        let cables = [(Cable::First, &client, "eth0", "front"), (Cable::Second, &router, "eth0", "back")];
        for (cable, far, far_name, near_name) in cables {
            cable.plug(End::Near, &lb, near_name);
            cable.plug(End::Far, far, far_name);
            wait_for_link(&lb, near_name);
            wait_for_link(far, far_name);
        }
        client.ip("address add 10.0.0.1/24 dev eth0").unwrap();
        lb.ip("address add 10.0.0.2/24 dev front").unwrap();
        lb.ip("address add 10.0.1.2/24 dev back").unwrap();
        router.ip("address add 10.0.1.1/24 dev eth0").unwrap();
        router.command("ethtool").args(["-K", "eth0", "gro", "off"]).check().unwrap();
        router.forward().unwrap();
        let ends = [router.end("direct").address("10.0.2.1/24"), client.end("eth1").address("10.0.2.2/24")];
        let [here, there] = ends;
        bed.link(Link::between(here, there)).unwrap();
        router.route("10.0.0.0/24", "10.0.2.2").unwrap();
        // Smaller by the outer header, as one sets it on a real network's routers.
        client.ip(&format!("route add {VIP}/32 via 10.0.0.2 mtu 1480")).unwrap();
        let real = |number: u8| {
            let real = bed.host(&format!("real{number}")).unwrap();
            let end = router.end(&format!("real{number}")).address(format!("10.0.{}.1/24", 10 + number));
            let address = real_address(number);
            // A joined packet would count as one.
            let real_end = real.end("eth0").address(format!("{address}/24")).gro(false);
            bed.link(Link::between(end, real_end)).unwrap();
            real.route("default", &format!("10.0.{}.1", 10 + number)).unwrap();
            real.ip(&format!("address add {VIP}/32 dev lo")).unwrap();
            real.ip(&format!("link add decap type ipip local {address}")).unwrap();
            real.ip("link set decap up").unwrap();
            lb.route(&format!("10.0.{}.0/24", 10 + number), "10.0.1.1").unwrap();
            real
        };
        let reals = [1, 2].map(real).into();
        Self { client, lb, reals, bed }
    }

    fn socket(&self) -> PathBuf {
        self.bed.directory().join("lb.sock")
    }

    fn configuration(&self, mode: Mode) -> String {
        let port = |name: &str| {
            format!("[[port]]\ninterface = \"{name}\"\nmode = \"{mode}\"\nattach = \"native\"\n")
        };
        let reals: String =
            [1, 2].map(|number| format!("[[vip.real]]\naddress = \"{}\"\n", real_address(number))).concat();
        let vip = |port: u16, protocol: &str| {
            format!("[[vip]]\naddress = \"{VIP}\"\nport = {port}\nprotocol = \"{protocol}\"\n{reals}")
        };
        format!(
            "version = 1\n{}{}[workers]\ncount = 1\nidle = \"adaptive\"\n[control]\nsocket = \"{}\"\n\
             [forwarding]\nmethod = \"ipip\"\n[connections]\ncapacity = 4096\n{}{}",
            port("front"),
            port("back"),
            self.socket().display(),
            vip(UDP_PORT, "udp"),
            vip(TCP_PORT, "tcp")
        )
    }

    /// Starts the balancer, and waits until it balances.
    fn start(&self, mode: Mode) -> Process {
        let file = self.bed.directory().join("lb.toml");
        std::fs::write(&file, self.configuration(mode)).unwrap();
        let command = self.lb.command(program("afx-lb")).args(["run", "--config"]).arg(file);
        let balancer = command.spawn().unwrap();
        balancer.wait_for_output("balancing", PATIENCE).unwrap();
        balancer
    }

    /// What `afx-lb status` says.
    fn status(&self) -> serde_json::Value {
        let command = self.lb.command(program("afx-lb")).args(["status", "--json", "--socket"]);
        serde_json::from_str(&command.arg(self.socket()).check().unwrap()).unwrap()
    }

    /// Packets that the kernels of the reals have taken outer headers off.
    fn decapsulated(&self) -> Vec<u64> {
        self.reals.iter().map(|real| real.packet_counters("decap").unwrap().rx_packets).collect()
    }

    fn assert_untouched(&self) {
        for name in ["front", "back"] {
            wait_for("the interface as before", PATIENCE, || self.lb.xdp_program(name).unwrap().is_none())
                .unwrap();
        }
    }
}

fn real_address(number: u8) -> Ipv4Addr {
    [10, 0, 10 + number, 11].into()
}

/// A server on a real, which says its number before what it was told.
struct Server {
    stop: Arc<AtomicBool>,
    answers: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    fn start(real: &Host, number: u8) -> Self {
        let vip: IpAddr = VIP.parse().unwrap();
        let bind =
            || (UdpSocket::bind((vip, UDP_PORT)).unwrap(), TcpListener::bind((vip, TCP_PORT)).unwrap());
        let (udp, tcp) = real.run(bind).unwrap();
        udp.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        tcp.set_nonblocking(true).unwrap();
        let (stop, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopping, answered) = (stop.clone(), answers.clone());
        let answer = move || {
            let mut buffer = [0; 2048];
            while !stopping.load(Ordering::Relaxed) {
                if let Ok((len, client)) = udp.recv_from(&mut buffer[1..]) {
                    buffer[0] = number;
                    udp.send_to(&buffer[..=len], client).unwrap();
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            }
        };
        let stopping = stop.clone();
        let accept = move || {
            while !stopping.load(Ordering::Relaxed) {
                let Ok((mut stream, _)) = tcp.accept() else {
                    std::thread::sleep(Duration::from_millis(10));
                    continue;
                };
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                stream.write_all(&[number]).unwrap();
                let mut told = Vec::new();
                stream.read_to_end(&mut told).unwrap();
                stream.write_all(&told).unwrap();
            }
        };
        Self { stop, answers, threads: vec![std::thread::spawn(answer), std::thread::spawn(accept)] }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

/// A flow of questions by UDP, each asked until it is answered.
struct Client {
    socket: UdpSocket,
    asked: u64,
    answered: u64,
}

impl Client {
    fn connect(host: &Host) -> Self {
        let connect = || {
            let socket = UdpSocket::bind("10.0.0.1:0").unwrap();
            socket.connect((VIP, UDP_PORT)).unwrap();
            socket
        };
        let socket = host.run(connect).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        Self { socket, asked: 0, answered: 0 }
    }

    /// The number of the real that repeats the question.
    fn ask(&mut self, question: &[u8]) -> u8 {
        let deadline = Instant::now() + PATIENCE;
        let mut answer = [0; 2048];
        loop {
            self.socket.send(question).unwrap();
            self.asked += 1;
            while let Ok(len) = self.socket.recv(&mut answer) {
                self.answered += 1;
                // Late answers to what was asked before come as well.
                if &answer[1..len] == question {
                    return answer[0];
                }
            }
            assert!(Instant::now() < deadline, "no answer");
        }
    }
}

/// Sends bytes by TCP, which have to come back; the number of the real.
fn transfer(client: &Host, bytes: &[u8]) -> u8 {
    let address = SocketAddr::new(VIP.parse().unwrap(), TCP_PORT);
    let mut stream = client.run(|| TcpStream::connect_timeout(&address, PATIENCE)).unwrap().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(bytes).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer.len() == bytes.len() + 1 && answer[1..] == *bytes, "{} bytes came back", answer.len());
    answer[0]
}

/// `afx-lb` between kernels: a client's, and those of the reals, in a mode that its configuration demands. It is killed
/// and started anew on the way.
pub(crate) fn program_between_kernels(name: &str, mode: Mode) {
    let net = Net::new(name);
    let servers: Vec<_> = (1..).zip(&net.reals).map(|(number, real)| Server::start(real, number)).collect();
    let probes = Probes::new();

    net.start(mode).kill();
    net.assert_untouched();
    let balancer = net.start(mode);

    let status = net.status();
    let ports = status["ports"].as_array().expect("a list");
    assert_eq!(ports.len(), 2);
    let wanted = format!("{mode}, ");
    for port in ports {
        let facts = port["facts"].as_array().expect("a list").iter();
        let queue =
            facts.filter(|fact| fact["name"] == "queue 0").map(|fact| fact["value"].as_str().unwrap());
        assert!(
            queue.clone().count() == 1 && queue.clone().all(|value| value.starts_with(&wanted)),
            "{port}"
        );
    }

    let mut clients: Vec<_> = (0..FLOWS).map(|_| Client::connect(&net.client)).collect();
    let mut served = [0; 2];
    for (flow, client) in clients.iter_mut().enumerate() {
        let reals: Vec<u8> = (0..QUESTIONS)
            .map(|number| client.ask(format!("question {number} of flow {flow}").as_bytes()))
            .collect();
        assert!(reals.iter().all(|real| *real == reals[0]), "a flow stays with its real: {reals:?}");
        served[usize::from(reals[0]) - 1] += 1;
    }
    assert!(served.iter().all(|flows| *flows > 0), "flows by real: {served:?}");
    let bytes: Vec<u8> = (0..100_000_u32).map(|number| (number % 251) as u8).collect();
    for _ in 0..TRANSFERS {
        let real = transfer(&net.client, &bytes);
        assert!([1, 2].contains(&real), "{real}");
    }

    // Nothing comes any more: all counts agree.
    let (asked, answered): (u64, u64) =
        (clients.iter().map(|client| client.asked).sum(), clients.iter().map(|client| client.answered).sum());
    let answers: u64 = servers.iter().map(|server| server.answers.load(Ordering::Relaxed)).sum();
    println!("{asked} asked, {answered} answered in {mode} mode; decapsulated {:?}", net.decapsulated());
    assert_eq!(answered, answers);
    assert!(((FLOWS * QUESTIONS) as u64..=asked).contains(&answered));
    balancer.signal(Signal::SIGTERM).unwrap();
    assert_eq!(balancer.wait_within(PATIENCE).unwrap().code(), Some(0), "{}", balancer.stderr());
    let log = balancer.stderr();
    let line = log.lines().find(|line| line.contains(" stopped ")).unwrap_or_else(|| panic!("{log}"));
    let field = |name: &str| {
        let mut fields = line.split_whitespace().filter_map(|field| field.split_once('='));
        fields.find(|field| field.0 == name).unwrap_or_else(|| panic!("{name} in {line}")).1
    };
    assert_eq!((field("dropped"), field("balanced")), ("0", "true"), "{line}");
    let [received, sent] = ["received", "sent"].map(|name| field(name).parse::<u64>().unwrap());
    assert_eq!(received, sent, "{line}");
    assert_eq!(net.decapsulated().iter().sum::<u64>(), sent, "{line}");
    net.assert_untouched();
    let [copied_in, copied_out] = probes.hits();
    match mode {
        Mode::ZeroCopy => assert_eq!([copied_in, copied_out], [0, 0]),
        Mode::Copy => {
            assert!(copied_in >= received && copied_out >= sent, "{copied_in}, {copied_out}: {line}")
        }
    }
}
