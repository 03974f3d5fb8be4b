//! What is said to be sent, what the far end's counters say, and what tcpdump saw there: all the same.

use std::collections::{HashMap, HashSet};

use afx_redirect::AttachMode;
use afx_redirect::traffic::Sink;
use afx_testbed::{Link, wait_for};
use etherparse::{LaxSlicedPacket, SlicedPacket, TransportSlice};

use crate::pair::{PATIENCE, Pair, number};

/// Flow, sequence number and time at a packet's end.
fn signature(bytes: &[u8]) -> (u32, u32, u64) {
    let signature = bytes.last_chunk::<18>().expect("longer than that");
    assert_eq!(signature[..2], [0xaf, 0x58]);
    let word = |at: usize| u32::from_be_bytes(signature[at..at + 4].try_into().expect("four bytes"));
    (word(2), word(6), u64::from(word(10)) << 32 | u64::from(word(14)))
}

/// Whether the checksums of a UDP, TCP or ICMP packet are right.
fn check(bytes: &[u8]) {
    let packet = SlicedPacket::from_ethernet(bytes).expect("it parses");
    let net = packet.net.expect("an IP packet");
    let v4 = net.ipv4_ref().map(|ip| ip.header().to_header());
    let v6 = net.ipv6_ref().map(|ip| ip.header().to_header());
    if let Some(ip) = &v4 {
        assert_eq!(ip.header_checksum, ip.calc_header_checksum());
    }
    let (found, right) = match (packet.transport.expect("a transport header"), &v4, &v6) {
        (TransportSlice::Udp(udp), Some(ip), _) => {
            (udp.checksum(), udp.to_header().calc_checksum_ipv4(ip, udp.payload()))
        }
        (TransportSlice::Udp(udp), _, Some(ip)) => {
            (udp.checksum(), udp.to_header().calc_checksum_ipv6(ip, udp.payload()))
        }
        (TransportSlice::Tcp(tcp), Some(ip), _) => {
            (tcp.checksum(), tcp.to_header().calc_checksum_ipv4(ip, tcp.payload()))
        }
        (TransportSlice::Tcp(tcp), _, Some(ip)) => {
            (tcp.checksum(), tcp.to_header().calc_checksum_ipv6(ip, tcp.payload()))
        }
        (TransportSlice::Icmpv4(icmp), ..) => {
            (icmp.checksum(), Ok(icmp.header().icmp_type.calc_checksum(icmp.payload())))
        }
        (TransportSlice::Icmpv6(icmp), _, Some(ip)) => {
            let right = icmp.header().icmp_type.calc_checksum(ip.source, ip.destination, icmp.payload());
            (icmp.checksum(), right)
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(found, right.expect("no longer than an IP packet"));
}

/// Sends 1,200 packets in a mode, slowly, and has every one looked at.
fn all_arrive(name: &str, mode: &str, v6: bool) {
    let pair = Pair::new(name);
    let ends = match v6 {
        false => "--source 192.0.2.0/30 --destination 198.51.100.7",
        true => "--source 2001:db8::/126 --destination 2001:db8:1::7",
    };
    let kinds = [
        "--protocol udp --source-port 1000-1002 --size 120:7,570:4,1518:1",
        "--protocol tcp --tcp-flags syn,ece --vlan 7",
        "--protocol icmp --vlan 100 --vlan 7 --source-port 1-5",
    ];
    for kind in kinds {
        let before = pair.received();
        let arguments = format!("--mode {mode} {ends} {kind} --count 1200 --rate 3kpps");
        let (report, packets) = pair.captured(1200, || pair.sent(&arguments));
        assert_eq!((number(&report, "sent_packets"), number(&report, "made_packets")), (1200, 1200));
        assert_eq!(report["mode"], mode);
        pair.expect(before, &report);
        assert_eq!(packets.len(), 1200, "tcpdump saw all");
        let bytes: usize = packets.iter().map(|packet| packet.len() + 4).sum();
        assert_eq!(number(&report, "sent_bytes"), bytes as u64);
        let mut next = HashMap::new();
        let mut sources = HashSet::new();
        let mut last = 0;
        for bytes in &packets {
            check(bytes);
            let (flow, sequence, time) = signature(bytes);
            let expected = next.entry(flow).or_insert(0);
            assert_eq!(sequence, *expected, "flow {flow} has no hole");
            *expected += 1;
            assert!(time >= last, "time goes on");
            last = time;
            let parsed = SlicedPacket::from_ethernet(bytes).expect("it parses");
            let tags: Vec<u16> = parsed.vlan_ids().iter().map(|id| id.value()).collect();
            match kind.matches("--vlan").count() {
                0 => assert_eq!(tags, [0u16; 0]),
                1 => assert_eq!(tags, [7]),
                _ => assert_eq!(tags, [100, 7]),
            }
            let net = parsed.net.expect("an IP packet");
            let source = match (net.ipv4_ref(), net.ipv6_ref()) {
                (Some(ip), _) => ip.header().source_addr().to_string(),
                (_, Some(ip)) => ip.header().source_addr().to_string(),
                _ => panic!("IP is one or the other"),
            };
            sources.insert(source);
            if let Some(TransportSlice::Tcp(tcp)) = parsed.transport {
                assert!(tcp.syn() && tcp.ece() && !tcp.ack() && tcp.destination_port() == 80);
            }
        }
        assert_eq!(sources.len(), 4, "{sources:?}");
        if kind.contains("--size") {
            let of = |length: usize| packets.iter().filter(|packet| packet.len() + 4 == length).count();
            assert_eq!((of(120), of(570), of(1518)), (700, 400, 100));
        }
    }
}

#[test]
fn copy_v4() {
    all_arrive("pg-copy-v4", "copy", false);
}

#[test]
fn copy_v6() {
    all_arrive("pg-copy-v6", "copy", true);
}

#[test]
fn live_v4() {
    all_arrive("pg-live-v4", "live", false);
}

#[test]
fn live_v6() {
    all_arrive("pg-live-v6", "live", true);
}

/// Where packets are lost on the way, what is said to be sent is what arrived all the same.
#[test]
fn as_fast_as_it_goes_every_packet_is_accounted_for() {
    let pair = Pair::new("pg-fast");
    for mode in ["copy", "live"] {
        let before = pair.received();
        let output = pair.send(&format!(
            "--mode {mode} --source 192.0.2.1 --destination 198.51.100.7 --time 500ms --json"
        ));
        let report = serde_json::from_str(&output.stdout).expect("one JSON object");
        pair.expect(before, &report);
        let lost: u64 =
            report["not_sent"].as_object().expect("reasons").values().filter_map(|n| n.as_u64()).sum();
        assert_eq!(number(&report, "made_packets"), number(&report, "sent_packets") + lost, "{report}");
        assert_eq!(output.status.code(), Some(i32::from(lost > 0)), "{report}");
        assert!(number(&report, "sent_packets") > 1000, "{report}");
    }
}

#[test]
fn a_sink_counts_what_live_frames_are_said_to_be() {
    let pair = Pair::new("pg-sink");
    let index = pair.far.interface_index("eth0").expect("an index");
    let sink =
        pair.far.run(|| Sink::attach(index, AttachMode::Native)).expect("a host").expect("it attaches");
    let report = pair
        .sent("--mode live --source 192.0.2.0/24 --destination 198.51.100.7 --count 200000 --order zipf:1");
    let sent = number(&report, "sent_packets");
    wait_for("all packets to arrive", PATIENCE, || sink.arrived().expect("counters").packets >= sent)
        .expect("they arrive");
    let arrived = sink.arrived().expect("counters");
    assert_eq!((arrived.packets, arrived.bytes), (200_000, 200_000 * 60));
}

#[test]
fn several_queues_send_flows_of_their_own() {
    let pair = Pair::linked("pg-queues", true, |near, far| {
        Link::between(near.end("eth0"), far.end("eth0")).queues(2)
    });
    for mode in ["copy", "live"] {
        let before = pair.received();
        let arguments = format!(
            "--mode {mode} --queues 2 --source 192.0.2.0/31 --destination 198.51.100.7 --count 1001 --rate 3kpps"
        );
        let (report, packets) = pair.captured(1001, || pair.sent(&arguments));
        pair.expect(before, &report);
        let mut seen: Vec<_> = packets.iter().map(|bytes| (signature(bytes).0, signature(bytes).1)).collect();
        seen.sort_unstable();
        let of = |flow: u32, count: u32| (0..count).map(move |sequence| (flow, sequence));
        // The first worker sends the odd one; each has the two flows in turn, under numbers of its own.
        let expected: Vec<_> = of(0, 251).chain(of(1, 250)).chain(of(2, 250)).chain(of(3, 250)).collect();
        assert_eq!(seen, expected);
    }
}

#[test]
fn a_rate_is_never_exceeded() {
    let pair = Pair::new("pg-rate");
    for mode in ["copy", "live"] {
        let before = pair.received();
        let output = pair.send(&format!(
            "--mode {mode} --source 192.0.2.1 --destination 198.51.100.7 --time 1s --rate 5kpps --burst 10 --json"
        ));
        let report = serde_json::from_str(&output.stdout).expect("one JSON object");
        pair.expect(before, &report);
        assert!((1..=5010).contains(&number(&report, "sent_packets")), "{report}");
        assert_eq!(report["wanted_packets_per_second"], 5000.0);
    }
}

#[test]
fn the_neighbour_is_found() {
    let pair = Pair::linked("pg-neighbour", false, |near, far| {
        let near = near.end("eth0").address("10.9.0.1/24").address("fd00:9::1/64");
        Link::between(near, far.end("eth0").address("10.9.0.2/24").address("fd00:9::2/64"))
    });
    let (mac, own) = (pair.far.mac("eth0").expect("a MAC address"), pair.near.mac("eth0").expect("one too"));
    for (destination, ours) in [("10.9.0.2", "10.9.0.1"), ("fd00:9::2", "fd00:9::1")] {
        let capture = pair.far.capture("eth0", "udp port 9").expect("tcpdump runs");
        let output =
            pair.command(&format!("--destination {destination} --count 10")).output().expect("it runs");
        assert_eq!(output.status.code(), Some(0), "{}", output.stderr);
        capture.wait_for_packets(10, PATIENCE).expect("all packets are seen");
        let packets = crate::pair::packets_of(&capture.stop().expect("tcpdump ends"));
        for bytes in packets {
            assert_eq!(bytes[..12], [mac.0, own.0].concat());
            let parsed = SlicedPacket::from_ethernet(&bytes).expect("it parses").net.expect("an IP packet");
            let source = match (parsed.ipv4_ref(), parsed.ipv6_ref()) {
                (Some(ip), _) => ip.header().source_addr().to_string(),
                (_, Some(ip)) => ip.header().source_addr().to_string(),
                _ => panic!("IP is one or the other"),
            };
            assert_eq!(source, ours);
        }
    }
}

#[test]
fn attacks_come_from_everywhere() {
    let pair = Pair::new("pg-attack");
    for (mode, destination) in [("copy", "198.51.100.7"), ("live", "198.51.100.7"), ("live", "2001:db8::7")] {
        let run = |shape: &str| {
            let before = pair.received();
            let arguments =
                format!("--mode {mode} --shape {shape} --destination {destination} --count 900 --rate 3kpps");
            let (report, packets) = pair.captured(900, || pair.sent(&arguments));
            pair.expect(before, &report);
            assert_eq!(packets.len(), 900);
            packets
        };
        let mut sources = HashSet::new();
        for bytes in run("syn-flood") {
            check(&bytes);
            let packet = SlicedPacket::from_ethernet(&bytes).expect("it parses");
            let Some(TransportSlice::Tcp(tcp)) = packet.transport else { panic!("no TCP") };
            assert!(tcp.syn() && !tcp.ack());
            sources.insert((bytes[26..38].to_vec(), tcp.source_port(), tcp.sequence_number()));
        }
        assert!(sources.len() > 890, "{} sources", sources.len());
        run("udp-spoofed").iter().for_each(|bytes| check(bytes));
        for (index, bytes) in run("fragments").iter().enumerate() {
            let packet = LaxSlicedPacket::from_ethernet(bytes).expect("it parses");
            let net = packet.net.expect("an IP packet");
            assert!(net.ip_payload_ref().expect("a payload").fragmented);
            let parsed = afx::packet::parse(bytes).expect("afx parses it");
            let first = matches!(parsed.fragment(), afx::packet::Fragment::First);
            assert_eq!(first, index % 3 == 0, "{parsed:?}");
        }
    }
}
