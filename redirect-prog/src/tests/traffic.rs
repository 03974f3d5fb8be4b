//! The source on a veth pair: what arrives, by another parser's word.

use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};

use super::harness::{XskSocket, eventually, ifindex};
use super::namespace::{QUEUES, in_namespace, ip};
use crate::traffic::{Flow, Pace, Packet, Plan, Sink, Source};
use crate::{AttachMode, Options, Redirect, Steering};

const AS_FAST_AS_IT_GOES: Pace = Pace { rate: None, burst: 1 };

fn plan(l4: u16, protocol: u8, ipv4: bool, signature: bool) -> Plan {
    let headers = l4 + if protocol == 6 { 20 } else { 8 };
    Plan { l3: 14, l4, headers, protocol, ipv4, verbatim: false, signature }
}

/// Packets of these lengths, in turns of two flows, from a template of the first and one of the second.
fn arrive(plan: &Plan, templates: [Vec<u8>; 2], lengths: &[u16]) -> Vec<Vec<u8>> {
    let flows: Vec<_> = (0..).zip(&templates).map(|(number, bytes)| Flow::of(bytes, plan, number)).collect();
    let order: Vec<_> =
        (0..).zip(lengths).map(|(i, &length)| Packet { flow: i % 2, length, padding: 0 }).collect();
    in_namespace(|| {
        let options = Options { stall_limit: None, ..Options::default() };
        let redirect = Redirect::attach(ifindex("veth1"), &Steering::All, &options).expect("it attaches");
        let mut sockets: Vec<_> = (0..QUEUES)
            .map(|queue| {
                let socket = XskSocket::bind("veth1", queue);
                redirect.register(queue, socket.fd()).expect("the socket registers");
                socket
            })
            .collect();
        let source =
            Source::load(ifindex("veth0"), plan, AS_FAST_AS_IT_GOES, &flows, &order).expect("it loads");
        let progress = source.handle().expect("a handle");
        source.run(lengths.len() as u64).expect("it runs");
        let sent = progress.progress().expect("its progress");
        assert_eq!((sent.packets, sent.failed), (lengths.len() as u64, 0));
        assert!(sent.began.is_some());
        assert_eq!(sent.bytes, lengths.iter().map(|length| u64::from(*length)).sum::<u64>());
        let mut received = Vec::new();
        eventually("all packets arrive", || {
            received.extend(sockets.iter_mut().flat_map(XskSocket::receive));
            received.len() >= lengths.len()
        });
        received
    })
}

/// Lengths of both parities, the longer ones first: what was in a frame before must not show in the next packet.
const LENGTHS: [u16; 12] = [1514, 1001, 500, 499, 400, 333, 1200, 93, 92, 120, 121, 92];

fn is_right(packet: &[u8], length: u16, flow: u32, sequence: u32, plan: &Plan) {
    assert_eq!(packet.len(), usize::from(length));
    let sliced = SlicedPacket::from_ethernet(packet).expect("a whole packet");
    let net = sliced.net.expect("an IP packet");
    let payload = net.ip_payload_ref().expect("its payload").payload;
    assert_eq!(payload.len(), packet.len() - usize::from(plan.l4), "the length that the IP header says");
    if let Some(ip) = net.ipv4_ref() {
        assert_eq!(ip.header().header_checksum(), ip.header().to_header().calc_header_checksum());
    }
    let found = match sliced.transport.expect("a transport header") {
        TransportSlice::Udp(udp) => {
            assert_eq!(usize::from(udp.length()), payload.len());
            let right = match (net.ipv4_ref(), net.ipv6_ref()) {
                (Some(ip), _) => udp.to_header().calc_checksum_ipv4(&ip.header().to_header(), udp.payload()),
                (_, Some(ip)) => udp.to_header().calc_checksum_ipv6(&ip.header().to_header(), udp.payload()),
                _ => unreachable!("IP is one or the other"),
            };
            (udp.checksum(), right.expect("short enough"))
        }
        TransportSlice::Tcp(tcp) => {
            let ip = net.ipv6_ref().expect("TCP is tested over IPv6").header().to_header();
            (tcp.checksum(), tcp.to_header().calc_checksum_ipv6(&ip, tcp.payload()).expect("short enough"))
        }
        TransportSlice::Icmpv4(icmp) => {
            (icmp.checksum(), icmp.header().icmp_type.calc_checksum(icmp.payload()))
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(found.0, found.1, "the checksum of a packet of {length} bytes");
    let signature = packet.last_chunk::<18>().expect("longer than that");
    assert_eq!(signature[..2], [0xaf, 0x58]);
    assert_eq!(signature[2..6], flow.to_be_bytes());
    assert_eq!(signature[6..10], sequence.to_be_bytes());
    assert_ne!(signature[10..], [0; 8]);
    assert!(packet[usize::from(plan.headers)..packet.len() - 18].iter().all(|byte| *byte == 0));
}

fn all_right(plan: &Plan, template: impl Fn(u8) -> Vec<u8>) {
    let packets = arrive(plan, [template(1), template(2)], &LENGTHS);
    for ((packet, length), index) in packets.iter().zip(LENGTHS).zip(0..) {
        is_right(packet, length, index % 2, index / 2, plan);
    }
}

#[test]
fn udp_over_ipv4_arrives_as_planned() {
    all_right(&plan(34, 17, true, true), |last| {
        let mut bytes = Vec::new();
        let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([192, 0, 2, last], [198, 51, 100, 1], 64);
        builder.udp(1000, 9).write(&mut bytes, &[]).expect("a vector takes all");
        bytes
    });
}

#[test]
fn tcp_over_ipv6_arrives_as_planned() {
    let plan = plan(54, 6, false, true);
    let template = |last: u8| {
        let mut to = [0x20; 16];
        to[15] = last;
        let mut bytes = Vec::new();
        let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv6([0x20; 16], to, 64);
        builder.tcp(1000, 80, 7, 1024).syn().write(&mut bytes, &[]).expect("a vector takes all");
        bytes
    };
    all_right(&plan, template);
}

#[test]
fn icmp_over_ipv4_arrives_as_planned() {
    all_right(&plan(34, 1, true, true), |last| {
        let mut bytes = Vec::new();
        let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([192, 0, 2, last], [198, 51, 100, 1], 64);
        builder.icmpv4_echo_request(last.into(), 0).write(&mut bytes, &[]).expect("a vector takes all");
        bytes
    });
}

#[test]
fn the_sink_counts_what_the_source_sends_and_an_ended_source_sends_no_more() {
    let plan = plan(34, 17, true, false);
    let flow = Flow::of(&[0; 42], &Plan { verbatim: true, ..plan }, 0);
    let plan = Plan { verbatim: true, ..plan };
    in_namespace(|| {
        let sink = Sink::attach(ifindex("veth1"), AttachMode::Native).expect("it attaches");
        let order = [Packet { flow: 0, length: 60, padding: 0 }, Packet { flow: 0, length: 100, padding: 0 }];
        let source =
            Source::load(ifindex("veth0"), &plan, AS_FAST_AS_IT_GOES, &[flow], &order).expect("it loads");
        source.run(10_001).expect("it runs");
        eventually("all packets arrive", || sink.arrived().expect("counters").packets >= 10_001);
        let arrived = sink.arrived().expect("counters");
        assert_eq!((arrived.packets, arrived.bytes), (10_001, 5_001 * 60 + 5_000 * 100));

        let handle = source.handle().expect("a handle");
        std::thread::scope(|scope| {
            scope.spawn(|| source.run(u64::MAX / 2).expect("it runs"));
            eventually("it sends", || handle.progress().expect("its progress").packets > 10_001);
            handle.end().expect("it is told");
        });
        let sent = handle.progress().expect("its progress").packets;
        eventually("all packets arrive", || sink.arrived().expect("counters").packets == sent);
    });
}

#[test]
fn no_rate_is_exceeded() {
    let plan = Plan { verbatim: true, ..plan(34, 17, true, false) };
    let flow = Flow::of(&[0; 42], &plan, 0);
    in_namespace(|| {
        let _sink = Sink::attach(ifindex("veth1"), AttachMode::Native).expect("it attaches");
        let order = [Packet { flow: 0, length: 60, padding: 0 }];
        let pace = Pace { rate: Some(50_000.0), burst: 10 };
        let source = Source::load(ifindex("veth0"), &plan, pace, &[flow], &order).expect("it loads");
        let start = std::time::Instant::now();
        source.run(20_000).expect("it runs");
        let at_most = start.elapsed().as_secs_f64() * 50_000.0 + 10.0;
        assert!(at_most >= 20_000.0, "20,000 packets in the time of {at_most}");
    });
}

#[test]
fn a_peer_that_takes_no_frames_is_no_error_of_the_source() {
    let plan = Plan { verbatim: true, ..plan(34, 17, true, false) };
    let flow = Flow::of(&[0; 42], &plan, 0);
    in_namespace(|| {
        ip("link set veth1 down");
        let order = [Packet { flow: 0, length: 60, padding: 0 }];
        let source =
            Source::load(ifindex("veth0"), &plan, AS_FAST_AS_IT_GOES, &[flow], &order).expect("it loads");
        source.run(100).expect("it runs");
        assert_eq!(source.handle().expect("a handle").progress().expect("its progress").packets, 100);
    });
}
