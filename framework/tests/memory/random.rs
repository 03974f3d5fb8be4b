//! Random packets through random stages: nothing panics, every packet and every frame is accounted for.

use afx::packet::reply::{IcmpError, echo_reply, icmp_error};
use afx::packet::{Builder, Ethernet, Icmp, Ipv4, Ipv6, Tcp, TcpFlags, Udp, checksum, rewrite};
use afx::packet::{embedded_flow, flow_key};
use afx::stats::Counter;
use afx::worker::Build;
use afx::{Batch, Held, MemoryPort, Reason, Runtime, Slot, Stage, WorkerId};
use proptest::prelude::*;

use crate::support::*;

/// Reads everything that can be read of a packet.
struct ReadAll;

fn read(bytes: &[u8]) -> u64 {
    let mut sum = 0u64;
    if let Ok(ethernet) = Ethernet::new_checked(bytes) {
        sum += u64::from(ethernet.ethertype().0) + u64::from(ethernet.source().0[0]);
        sum += ethernet.vlan().map_or(0, |tag| u64::from(tag.0));
    }
    for start in [0, 14, 18, 34, 54] {
        let Some(bytes) = bytes.get(start..) else { continue };
        if let Ok(ip) = Ipv4::new_checked(bytes) {
            sum += u64::from(ip.total_len()) + ip.header_len() as u64 + u64::from(ip.verify_checksum());
        }
        if let Ok(ip) = Ipv6::new_checked(bytes) {
            sum += u64::from(ip.payload_len()) + u64::from(ip.flow_label());
        }
        if let Ok(tcp) = Tcp::new_checked(bytes) {
            sum += tcp.options().len() as u64 + u64::from(tcp.sequence()) + u64::from(tcp.flags().0);
        }
        if let Ok(udp) = Udp::new_checked(bytes) {
            sum += u64::from(udp.length());
        }
        if let Ok(icmp) = Icmp::new_checked(bytes) {
            sum += u64::from(icmp.word());
        }
    }
    sum
}

impl Stage for ReadAll {
    fn process(&mut self, batch: &mut Batch) {
        for slot in batch.live() {
            let mut packet = batch.packet(slot);
            std::hint::black_box(read(packet.bytes()));
            let Ok(parsed) = packet.parsed() else { continue };
            let bytes = packet.bytes();
            let key = flow_key(bytes, &parsed);
            if parsed.fragment() == afx::packet::Fragment::None && parsed.ip().is_some() {
                assert!(key.is_some());
            }
            std::hint::black_box((
                embedded_flow(bytes, &parsed),
                parsed.hash(),
                parsed.fragment_id(),
                checksum::verify_ipv4(bytes, &parsed),
                checksum::verify_transport(bytes, &parsed),
            ));
            for range in [parsed.ip_range(), parsed.transport_range(), parsed.payload_range()] {
                assert!(range.is_none_or(|range| range.start <= range.end && range.end <= packet.len()));
            }
        }
    }
}

/// What the random stage does with a packet: by its last byte.
#[derive(Debug, Clone, Copy)]
enum Action {
    Leave,
    Transmit,
    TransmitElsewhere,
    Drop,
    Pass,
    HandOver,
    Hold,
    Discard,
    Duplicate,
    Create(usize),
    Push(usize),
    Pull(usize),
    SetLen(usize),
    Rewrite,
    Reply,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        Just(Action::Leave),
        Just(Action::Transmit),
        Just(Action::TransmitElsewhere),
        Just(Action::Drop),
        Just(Action::Pass),
        Just(Action::HandOver),
        Just(Action::Hold),
        Just(Action::Discard),
        Just(Action::Duplicate),
        (0usize..3000).prop_map(Action::Create),
        (0usize..300).prop_map(Action::Push),
        (0usize..300).prop_map(Action::Pull),
        (0usize..3000).prop_map(Action::SetLen),
        Just(Action::Rewrite),
        Just(Action::Reply),
    ]
}

/// Does to each packet what its program says.
struct Programmed {
    program: Vec<Action>,
    step: usize,
    reason: Reason,
    made: Counter,
    held: Vec<Held>,
    out: Vec<u8>,
}

impl Programmed {
    fn new(build: &mut Build<'_>, program: Vec<Action>) -> Self {
        let reason = build.drop_reason("random.drop", "The program says so.");
        let made = build.counter("made");
        Self { program, step: 0, reason, made, held: Vec::new(), out: vec![0; 2000] }
    }

    fn act(&mut self, batch: &mut Batch, slot: Slot) {
        let Some(action) = self.program.get(self.step % self.program.len().max(1)).copied() else { return };
        self.step += 1;
        let mut packet = batch.packet(slot);
        match action {
            Action::Leave => {}
            Action::Transmit => packet.transmit(packet.ingress()),
            Action::TransmitElsewhere => packet.transmit(afx::PortId::default()),
            Action::Drop => packet.drop(self.reason),
            Action::Pass => packet.pass(),
            Action::HandOver => packet.hand_over(WorkerId::new(1)),
            Action::Hold => self.held.push(packet.hold()),
            Action::Discard => drop(packet.hold()),
            Action::Duplicate => {
                let made = batch.duplicate(slot).is_some();
                batch.count(self.made, made.into());
            }
            Action::Create(len) => {
                let made = batch.create(len).is_some();
                batch.count(self.made, made.into());
            }
            Action::Push(count) => {
                let room = packet.headroom();
                assert_eq!(packet.push_front(count).is_some(), count <= room);
            }
            Action::Pull(count) => drop(packet.pull_front(count)),
            Action::SetLen(len) => drop(packet.set_len(len)),
            Action::Rewrite => rewrite_all(&mut packet),
            Action::Reply => {
                if let Ok(parsed) = packet.parsed() {
                    let from = "10.9.9.9".parse().unwrap();
                    let report = IcmpError::TooBig { mtu: 1300 };
                    icmp_error(packet.bytes(), &parsed, report, from, &mut self.out);
                    echo_reply(packet.bytes_mut(), &parsed);
                }
            }
        }
    }
}

fn rewrite_all(packet: &mut afx::Packet<'_>) {
    packet.swap_mac_addresses();
    let Ok(parsed) = packet.parsed() else { return };
    let bytes = packet.bytes_mut();
    rewrite::decrement_ttl(bytes, &parsed);
    rewrite::set_source(bytes, &parsed, "10.1.2.3".parse().unwrap());
    rewrite::set_destination(bytes, &parsed, "fd00::7".parse().unwrap());
    rewrite::set_source_port(bytes, &parsed, 7);
    rewrite::swap_ip_addresses(bytes, &parsed);
    rewrite::swap_ports(bytes, &parsed);
    checksum::fill_ipv4(bytes, &parsed);
    checksum::fill_transport(bytes, &parsed);
}

impl Stage for Programmed {
    fn process(&mut self, batch: &mut Batch) {
        for slot in batch.live() {
            self.act(batch, slot);
        }
        // Half of what is held goes on, the rest when the worker stops.
        if self.held.len() > 20 {
            for _ in 0..10 {
                let held = self.held.swap_remove(0);
                if let Err(held) = batch.release(held) {
                    self.held.push(held);
                    break;
                }
            }
        }
    }

    fn drain(&mut self, batch: &mut Batch) -> bool {
        while let Some(held) = self.held.pop() {
            if let Err(held) = batch.release(held) {
                self.held.push(held);
                return false;
            }
        }
        true
    }

    fn creates(&self) -> usize {
        16
    }
}

/// A valid packet with some of its bytes changed, perhaps cut or lengthened.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let builder = (0..6).prop_map(|kind| {
        let (a4, b4) = ("10.0.0.1:1".parse().unwrap(), "10.0.0.2:2".parse().unwrap());
        let (a6, b6) = ("[fd00::1]:1".parse().unwrap(), "[fd00::2]:2".parse().unwrap());
        match kind {
            0 => Builder::udp(a4, b4),
            1 => Builder::tcp(a4, b4).flags(TcpFlags::SYN),
            2 => Builder::udp(a6, b6).fragment(7, 0, true),
            3 => Builder::tcp(a6, b6),
            4 => Builder::echo("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap(), 1, 1),
            _ => Builder::udp(a4, b4).fragment(7, 64, false),
        }
    });
    let changes = prop::collection::vec((0usize..120, any::<u8>()), 0..6);
    (builder, 0usize..800, changes, prop::option::of(0usize..200)).prop_map(
        |(builder, payload, changes, cut)| {
            let mut bytes = vec![0; 1000];
            let len = builder.write(&mut bytes, &vec![0xa5; payload]).unwrap();
            bytes.truncate(cut.unwrap_or(len).min(len));
            for (at, value) in changes {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = value;
                }
            }
            bytes
        },
    )
}

fn packets() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let one = prop_oneof![
        mutated(),
        prop::collection::vec(any::<u8>(), 0..200),
        (0usize..9000).prop_map(|len| vec![0x45; len]),
    ];
    prop::collection::vec(one, 0..150)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn every_packet_is_sent_or_dropped_with_a_reason(
        packets in packets(),
        programs in prop::collection::vec(prop::collection::vec(action(), 1..20), 2),
        segment in prop_oneof![Just(usize::MAX), 60usize..1792],
        frames in 130usize..600,
        per_turn in 1usize..90,
    ) {
        let (near, mut near_peers) = MemoryPort::with_queues("near", 1, 64);
        let (far, mut far_peers) = MemoryPort::with_queues("far", 1, 64);
        let mut worker = Runtime::builder()
            .port(near)
            .port(far)
            .frames_per_queue(frames)
            .pipeline(move |build| {
                let [first, second] = [0, 1].map(|stage| Programmed::new(build, programs[stage].clone()));
                (ReadAll, first, ReadAll, second)
            })
            .inline()
            .unwrap();
        worker.turn();
        let (mut near, mut far) = (near_peers.remove(0), far_peers.remove(0));
        near.segment_at(segment);
        let (mut given, mut got) = (0, 0);
        for chunk in packets.chunks(per_turn) {
            for packet in chunk {
                given += u64::from(near.send(packet));
                given += u64::from(far.send(packet));
            }
            worker.turn();
            prop_assert!(worker.stats().balanced());
            got += (received(&mut near).len() + received(&mut far).len()) as u64;
        }
        for _ in 0..20 {
            worker.drain();
            got += (received(&mut near).len() + received(&mut far).len()) as u64;
        }
        let stats = worker.stats();
        let ledger = stats.workers[0].ledger;
        prop_assert!(stats.balanced());
        prop_assert_eq!((ledger.held.outside(), ledger.transmit.outside()), (0, 0));
        prop_assert_eq!((stats.received(), stats.sent()), (given, got));
        // What stages held and then released is neither here nor there: it was settled in the end.
        prop_assert_eq!(given + stats.counter("made"), got + stats.dropped_total());
        prop_assert_eq!(ledger.frames, ledger.free + ledger.receive.outside() as u64);
    }
}
