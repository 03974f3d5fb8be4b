//! What the tests of `receive` and `echo` share: networks, and senders of signed packets that have nothing to do with
//! the generator's own.

#![allow(dead_code, reason = "each test file needs some of it")]

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

use afx_testbed::{Host, Link, Process, Testbed, wait_for};
use nix::sys::socket::{setsockopt, sockopt};
use serde_json::Value;

/// How long to wait for what happens at once on a quiet machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Where signed packets go, and are received.
pub(crate) const TO: &str = "10.0.1.2:9";

/// A sender, a router and a receiver in a row.
pub(crate) struct Net {
    pub(crate) sender: Host,
    pub(crate) router: Host,
    pub(crate) receiver: Host,
    _bed: Testbed,
}

impl Net {
    pub(crate) fn new(name: &str, queues: u32) -> Self {
        let bed = Testbed::new(name).unwrap();
        let [sender, router, receiver] = ["sender", "router", "receiver"].map(|host| bed.host(host).unwrap());
        let link = |one: (&Host, &str, &str), other: (&Host, &str, &str)| {
            let end = |(host, interface, address): (&Host, &str, &str)| host.end(interface).address(address);
            bed.link(Link::between(end(one), end(other)).queues(queues)).unwrap();
        };
        link((&sender, "eth0", "10.0.0.1/24"), (&router, "eth0", "10.0.0.2/24"));
        link((&router, "eth1", "10.0.1.1/24"), (&receiver, "eth0", "10.0.1.2/24"));
        router.forward().unwrap();
        sender.route("10.0.1.0/24", "10.0.0.2").unwrap();
        // The receiver takes all that comes, and answers nobody.
        router.neighbour("eth1", "10.0.1.2".parse().unwrap(), receiver.mac("eth0").unwrap()).unwrap();
        Self { sender, router, receiver, _bed: bed }
    }

    /// `afx-pktgen receive eth0` with more arguments, once it is ready.
    pub(crate) fn receive(&self, arguments: &[&str]) -> Process {
        start(&self.receiver, &[&["receive", "eth0"], arguments].concat())
    }

    /// Packets that the receiver's interface has been given and are the sender's: all but IPv6's own noise, which the
    /// counters cannot tell apart; so this is no less than what was sent.
    pub(crate) fn arrived(&self) -> u64 {
        self.receiver.packet_counters("eth0").unwrap().rx_packets
    }

    /// A socket of the sender that sends to an address.
    pub(crate) fn socket(&self, to: &str) -> UdpSocket {
        connected(&self.sender, to)
    }
}

/// Starts `afx-pktgen` and waits until it takes packets. It goes before whatever else the machine does: where other
/// programs have the cores, it would be too slow for its ring. (Nice values count within an autogroup only.)
pub(crate) fn start(host: &Host, arguments: &[&str]) -> Process {
    let program = env!("CARGO_BIN_EXE_afx-pktgen");
    let process = host.command("chrt").args(["--fifo", "1", program]).args(arguments).spawn().unwrap();
    let ready = format!("ing on {}", arguments[1]);
    process.wait_for_output(&ready, PATIENCE).unwrap();
    process
}

pub(crate) fn pktgen(host: &Host, arguments: &[&str]) -> afx_testbed::Command {
    host.command(env!("CARGO_BIN_EXE_afx-pktgen")).args(arguments)
}

/// Waits for the end, demands that nothing is left on the interface, and returns exit status and standard output.
pub(crate) fn ended(host: &Host, interface: &str, process: &Process) -> (i32, String) {
    let status = process.wait_within(PATIENCE).unwrap();
    assert_eq!(host.xdp_program(interface).unwrap(), None);
    (status.code().expect("it was not killed"), process.stdout())
}

/// As [`ended`], of a process with `--json` that has to exit with `status`.
pub(crate) fn result(host: &Host, process: &Process, status: i32) -> Value {
    let (code, stdout) = ended(host, "eth0", process);
    let result: Value = serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}"));
    assert_eq!(code, status, "{}{result:#}", process.stderr());
    assert_eq!(result["ledger_balanced"], true, "{result:#}");
    result
}

/// A number of the JSON object.
pub(crate) fn number(result: &Value, name: &str) -> u64 {
    result[name].as_u64().unwrap_or_else(|| panic!("no number {name} in {result:#}"))
}

pub(crate) fn connected(host: &Host, to: &str) -> UdpSocket {
    let any = if to.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
    host.run(|| {
        let socket = UdpSocket::bind(any).unwrap();
        socket.connect(to).unwrap();
        socket
    })
    .unwrap()
}

/// The end of a generated packet's payload, written from its description and not by the program's own code.
pub(crate) fn signature(flow: u32, sequence: u32) -> [u8; 18] {
    signature_at(afx::Time::monotonic().as_nanos(), flow, sequence)
}

fn signature_at(time: u64, flow: u32, sequence: u32) -> [u8; 18] {
    let mut bytes = [0; 18];
    bytes[..2].copy_from_slice(&[0xaf, 0x58]);
    bytes[2..6].copy_from_slice(&flow.to_be_bytes());
    bytes[6..10].copy_from_slice(&sequence.to_be_bytes());
    bytes[10..].copy_from_slice(&time.to_be_bytes());
    bytes
}

/// Sends packets of a flow with these sequences, slowly: rings on the way have 256 places.
pub(crate) fn send(socket: &UdpSocket, flow: u32, sequences: impl IntoIterator<Item = u32>) {
    for (count, sequence) in (1u32..).zip(sequences) {
        socket.send(&signature(flow, sequence)).unwrap();
        if count.is_multiple_of(32) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// As [`send`], with the time of the first in all: late ones and copies were not sent later than the others.
pub(crate) fn send_at_once(socket: &UdpSocket, flow: u32, sequences: impl IntoIterator<Item = u32>) {
    let time = afx::Time::monotonic().as_nanos();
    for (count, sequence) in (1u32..).zip(sequences) {
        socket.send(&signature_at(time, flow, sequence)).unwrap();
        if count.is_multiple_of(32) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Sends packets of a flow as fast as they come to the receiver's interface, so that none is lost before it; between
/// bursts there is a pause.
pub(crate) fn send_in_step(net: &Net, socket: &UdpSocket, count: u32, pause: Duration) {
    const BURST: u32 = 128;
    let counter = "/sys/class/net/eth0/statistics/rx_packets";
    let counter = net.receiver.run(|| std::fs::File::open(counter)).unwrap().unwrap();
    let arrived = || {
        let mut digits = [0; 32];
        let len = counter.read_at(&mut digits, 0).unwrap();
        std::str::from_utf8(&digits[..len]).unwrap().trim().parse::<u64>().unwrap()
    };
    let mut expected = arrived();
    for sequence in 0..count {
        socket.send(&signature(0, sequence)).unwrap();
        expected += 1;
        if (sequence + 1) % BURST == 0 {
            let patience = Instant::now() + Duration::from_secs(1);
            while arrived() < expected && Instant::now() < patience {
                std::thread::sleep(Duration::from_micros(20));
            }
            // Should one be lost after all, it is not waited for again: the receiver tells.
            expected = arrived();
            std::thread::sleep(pause);
        }
    }
}

/// What the relay does to packets on their way.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// Sends the second of two first.
    SwapPairs,
    /// Sends every so manieth packet twice.
    Double(u64),
    /// Keeps each back for so long.
    Delay(Duration),
}

/// Takes `count` packets sent to the router's port 9 and sends them on to the receiver, with a fault. `send` sends them,
/// at the same time.
pub(crate) fn relay(net: &Net, fault: Fault, count: u64, send: impl FnOnce() + Send) {
    let inbound = net.router.run(|| UdpSocket::bind("10.0.0.2:9").unwrap()).unwrap();
    // For all that is sent, should the relay have to wait for its core.
    setsockopt(&inbound, sockopt::RcvBufForce, &(64 << 20)).unwrap();
    let outbound = connected(&net.router, TO);
    std::thread::scope(|scope| {
        scope.spawn(send);
        let mut taken = 0;
        let mut kept = std::collections::VecDeque::new();
        let mut next = |patience: Duration| {
            if taken == count {
                return None;
            }
            let mut packet = [0; 18];
            inbound.set_read_timeout(Some(patience)).unwrap();
            match inbound.recv(&mut packet) {
                Ok(len) => assert_eq!(len, packet.len()),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return None;
                }
                Err(error) => panic!("{error}"),
            }
            taken += 1;
            Some((taken, packet))
        };
        match fault {
            Fault::SwapPairs => {
                while let (Some((_, first)), Some((_, second))) = (next(PATIENCE), next(PATIENCE)) {
                    outbound.send(&second).unwrap();
                    outbound.send(&first).unwrap();
                }
            }
            Fault::Double(every) => {
                while let Some((number, packet)) = next(PATIENCE) {
                    outbound.send(&packet).unwrap();
                    if number % every == 0 {
                        outbound.send(&packet).unwrap();
                    }
                }
            }
            Fault::Delay(time) => {
                let began = Instant::now();
                let mut sent = 0;
                while sent < count {
                    assert!(began.elapsed() < PATIENCE, "{sent} of {count} packets came to the relay");
                    if let Some((_, packet)) = next(Duration::from_millis(1)) {
                        kept.push_back((Instant::now() + time, packet));
                    }
                    while kept.front().is_some_and(|(due, _)| *due <= Instant::now()) {
                        let (_, packet) = kept.pop_front().unwrap();
                        outbound.send(&packet).unwrap();
                        sent += 1;
                    }
                }
            }
        }
        assert_eq!(taken, count, "packets that came to the relay");
    });
}

/// Waits until an interface has no XDP program.
pub(crate) fn wait_until_untouched(host: &Host, interface: &str) {
    wait_for("the interface as before", PATIENCE, || host.xdp_program(interface).unwrap().is_none()).unwrap();
}
