use std::net::SocketAddr;

use afx::packet::MacAddress;
use afx::{Inline, MemoryPeer, MemoryPort, Runtime};

use super::super::packets::Ends;
use super::super::simulated::frames;
use super::*;

const OUT: &str = "out";

/// A worker with a port to send on and one to receive on, and what lies behind both.
struct Rig {
    worker: Inline<Tester>,
    out: MemoryPeer,
    back: MemoryPeer,
    desk: Desk,
}

impl Rig {
    fn new(flows: u32) -> Self {
        let ((out_port, out), (back_port, back)) = (MemoryPort::new(OUT), MemoryPort::new("back"));
        let desk = Desk::default();
        let role = Role { sends: Some(OUT), receives: true };
        let workers = desk.clone();
        let mut worker = Runtime::builder()
            .port(out_port)
            .port(back_port)
            .tick(Duration::ZERO)
            .pipeline(move |build| Tester::new(build, role, flows, &workers))
            .inline()
            .unwrap();
        worker.turn();
        Self { worker, out, back, desk }
    }

    /// Sends frames of 64 bytes, and has `device` make of each what comes back. Returns the packets.
    fn trial(
        &mut self,
        trial: u16,
        (rate, amount): (f64, Amount),
        flows: u32,
        mut device: impl FnMut(&[u8]) -> Vec<Vec<u8>>,
    ) -> Vec<Vec<u8>> {
        let end = |text: &str| text.parse::<SocketAddr>().unwrap();
        let macs = (MacAddress([2; 6]), MacAddress([4; 6]));
        let ends = Ends { macs, source: end("198.18.0.2:0"), destination: end("198.19.0.2:7") };
        let packets = Packets::new(&ends, &frames(64));
        self.desk.clear();
        self.worker.configure(Arc::new(Order::Begin(trial)));
        let sending = Sending { trial, packets, rate, amount, flows };
        self.worker.configure(Arc::new(Order::Send(Arc::new(sending))));
        let mut seen = Vec::new();
        while !self.desk.sent().done {
            self.worker.turn();
            while let Some(packet) = self.out.receive() {
                for answer in device(&packet) {
                    while !self.back.send(&answer) {
                        self.worker.turn();
                    }
                }
                seen.push(packet);
            }
        }
        for _ in 0..10 {
            self.worker.turn();
        }
        self.worker.configure(Arc::new(Order::Collect));
        self.worker.turn();
        seen
    }
}

fn copy(packet: &[u8]) -> Vec<Vec<u8>> {
    vec![packet.to_vec()]
}

#[test]
fn a_burst_is_as_long_as_it_was_wanted_and_what_comes_is_counted() {
    let mut rig = Rig::new(3);
    let seen = rig.trial(7, (1e7, Amount::Frames(1000)), 3, copy);
    assert_eq!((seen.len(), rig.desk.sent().packets, rig.desk.received()), (1000, 1000, 1000));
    let summary = rig.desk.summary();
    assert_eq!((summary.distinct, summary.lost, summary.reordered, summary.duplicates), (1000, 0, 0, 0));
    assert_eq!(summary.latency.percentiles().unwrap().count, 1000);
    // Three flows take turns, each with its own port and sequence.
    assert_eq!(summary.flows.len(), 3);
    for (index, packet) in seen.iter().enumerate() {
        let signature = Signature::from_end(packet).unwrap();
        assert_eq!((signature.flow, signature.sequence), ((7 << 16) | (index as u32 % 3), index as u32 / 3));
    }
    assert!(rig.worker.stats().balanced());
}

#[test]
fn what_a_device_does_to_packets_is_seen() {
    let mut rig = Rig::new(1);
    let mut number = 0;
    let faulty = |packet: &[u8]| {
        number += 1;
        match number {
            n if n % 100 == 0 => Vec::new(),
            n if n % 100 == 50 => vec![packet.to_vec(), packet.to_vec()],
            _ => copy(packet),
        }
    };
    rig.trial(1, (1e7, Amount::Frames(1000)), 1, faulty);
    let summary = rig.desk.summary();
    assert_eq!((summary.distinct, summary.duplicates, rig.desk.received()), (990, 10, 1000));
}

#[test]
fn stragglers_of_an_earlier_trial_do_not_count() {
    let mut rig = Rig::new(1);
    let first = rig.trial(1, (1e7, Amount::Frames(10)), 1, |_| Vec::new());
    let mut late = first.into_iter();
    rig.trial(2, (1e7, Amount::Frames(10)), 1, |packet| {
        late.next().into_iter().chain([packet.to_vec()]).collect()
    });
    assert_eq!((rig.desk.summary().distinct, rig.desk.received()), (10, 10));
    assert_eq!(rig.worker.stats().dropped("rfc2544.late"), 10);
}

#[test]
fn other_packets_do_not_count() {
    let mut rig = Rig::new(1);
    rig.trial(1, (1e7, Amount::Frames(10)), 1, |packet| {
        let mut other = packet.to_vec();
        other[42] = 0;
        let mut broken = packet.to_vec();
        broken.truncate(20);
        vec![other, broken, packet.to_vec()]
    });
    assert_eq!(rig.desk.summary().distinct, 10);
    let stats = rig.worker.stats();
    assert_eq!((stats.dropped("rfc2544.other"), stats.dropped("rfc2544.counted")), (10, 10));
    assert_eq!(stats.dropped_total(), 30);
}

#[test]
fn a_sender_never_sends_more_than_its_rate_and_says_what_it_reached() {
    let mut rig = Rig::new(1);
    let (rate, time) = (20_000.0, Duration::from_millis(200));
    let seen = rig.trial(1, (rate, Amount::Time(time)), 1, copy).len();
    let sent = rig.desk.sent();
    assert_eq!(sent.packets, seen as u64);
    // The time may have been longer: what was sent is what went in that time, never more than the rate allows.
    assert!(sent.rate <= rate * 1.001 + 10.0, "{} packets/s", sent.rate);
    assert!(seen > 0);
}

#[test]
fn a_full_port_is_no_loss_of_packets() {
    // Nobody takes packets from the port for a while: what has no room is not made.
    let mut rig = Rig::new(1);
    let mut turns = 0;
    let end = |text: &str| text.parse::<SocketAddr>().unwrap();
    let macs = (MacAddress([2; 6]), MacAddress([4; 6]));
    let ends = Ends { macs, source: end("198.18.0.2:0"), destination: end("198.19.0.2:7") };
    let sending = Sending {
        trial: 1,
        packets: Packets::new(&ends, &frames(64)),
        rate: 1e9,
        amount: Amount::Frames(20_000),
        flows: 1,
    };
    rig.worker.configure(Arc::new(Order::Send(Arc::new(sending))));
    let mut seen = 0;
    while !rig.desk.sent().done {
        rig.worker.turn();
        turns += 1;
        if turns > 1000 {
            seen += std::iter::from_fn(|| rig.out.receive()).count();
        }
    }
    rig.worker.turn();
    seen += std::iter::from_fn(|| rig.out.receive()).count();
    assert_eq!(seen, 20_000);
    let stats = rig.worker.stats();
    assert_eq!((stats.dropped("tx_full"), stats.sent(), stats.balanced()), (0, 20_000, true));
}
