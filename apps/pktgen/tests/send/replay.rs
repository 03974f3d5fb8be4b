//! Captures sent again.

use std::fs::File;
use std::time::Duration;

use afx::Time;
use afx::port::{CaptureFormat, CaptureWriter};
use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};

use crate::pair::{Pair, number};

/// Packets of many kinds, a millisecond apart: UDP of both versions, what is no IP, and what is no protocol at all.
fn packets() -> Vec<Vec<u8>> {
    let ethernet = || PacketBuilder::ethernet2([2, 1, 1, 1, 1, 1], [2, 2, 2, 2, 2, 2]);
    let mut packets = Vec::new();
    for length in [0usize, 1, 22, 1000, 1472] {
        let mut bytes = Vec::new();
        let builder = ethernet().ipv4([192, 0, 2, 1], [198, 51, 100, 1], 64).udp(1000, 2000);
        builder.write(&mut bytes, &vec![7; length]).expect("a vector takes all");
        packets.push(bytes);
        let mut bytes = Vec::new();
        let builder = ethernet().ipv6([0x20; 16], [0x21; 16], 64).tcp(1000, 2000, length as u32, 100);
        builder.write(&mut bytes, &vec![7; length.min(1400)]).expect("a vector takes all");
        packets.push(bytes);
        packets.push([&[0xff; 12][..], &[0x88, 0xb5], &vec![length as u8; length.min(1500)]].concat());
    }
    packets
}

fn write(pair: &Pair, name: &str, packets: &[Vec<u8>]) -> String {
    let path = std::env::temp_dir().join(format!("{}-{name}", pair.near.namespace()));
    let file = File::create(&path).expect("a file");
    let mut writer = CaptureWriter::new(file, CaptureFormat::of(&path)).expect("a capture");
    for (index, bytes) in (0..).zip(packets) {
        writer
            .write(Time::from_nanos(1_000_000_000) + Duration::from_millis(index), bytes)
            .expect("it is written");
    }
    writer.finish().expect("it is complete");
    path.to_str().expect("a plain name").to_owned()
}

/// Sends a capture; what arrives.
fn replayed(pair: &Pair, arguments: &str, count: usize) -> Vec<Vec<u8>> {
    let before = pair.received();
    let (output, arrived) =
        pair.captured(count, || pair.command(&format!("{arguments} --json")).output().expect("it runs"));
    assert_eq!(output.status.code(), Some(0), "{}{}", output.stdout, output.stderr);
    let report = serde_json::from_str(&output.stdout).expect("one JSON object");
    assert_eq!(number(&report, "sent_packets"), count as u64);
    assert_eq!(report["mode"], "copy");
    pair.expect(before, &report);
    arrived
}

#[test]
fn a_capture_arrives_byte_for_byte_in_order_as_often_as_said() {
    let pair = Pair::new("pg-replay");
    let packets = packets();
    for name in ["a.pcap", "a.pcapng"] {
        let file = write(&pair, name, &packets);
        assert_eq!(replayed(&pair, &format!("--replay {file}"), packets.len()), packets);
        let arguments = format!("--replay {file} --loops 3 --rate 5kpps");
        assert_eq!(replayed(&pair, &arguments, 3 * packets.len()), [&packets[..]; 3].concat());
        let arguments = format!("--replay {file} --loops 0 --speed 2 --count 20");
        assert_eq!(replayed(&pair, &arguments, 20), [&packets[..], &packets[..5]].concat());
        std::fs::remove_file(file).expect("it was there");
    }
}

#[test]
fn a_capture_takes_its_time() {
    let pair = Pair::new("pg-pace");
    let packets = packets();
    let file = write(&pair, "b.pcap", &packets);
    // 15 packets, a millisecond apart, ten times as slow: no sooner than after 140 ms.
    let report =
        pair.command(&format!("--replay {file} --speed 0.1 --json")).output().expect("it runs").stdout;
    let report: serde_json::Value = serde_json::from_str(&report).expect("one JSON object");
    assert!(report["seconds"].as_f64().expect("a number") >= 0.14, "{report}");
    std::fs::remove_file(file).expect("it was there");
}

#[test]
fn what_is_rewritten_has_right_checksums() {
    let pair = Pair::new("pg-rewrite");
    let packets = packets();
    let file = write(&pair, "c.pcap", &packets);
    let arguments = format!(
        "--replay {file} --rewrite-source 10.1.2.3 --rewrite-destination 10.3.2.1 --rewrite-source-mac 02:00:00:00:00:aa \
         --rewrite-destination-mac 02:00:00:00:00:bb --rate 5kpps"
    );
    let arrived = replayed(&pair, &arguments, packets.len());
    for (bytes, original) in arrived.iter().zip(&packets) {
        assert_eq!(bytes[..12], [2, 0, 0, 0, 0, 0xbb, 2, 0, 0, 0, 0, 0xaa]);
        let packet = SlicedPacket::from_ethernet(bytes).expect("it parses");
        match (packet.net, packet.transport) {
            (Some(net), Some(TransportSlice::Udp(udp))) => {
                let ip = net.ipv4_ref().expect("IPv4").header().to_header();
                assert_eq!((ip.source, ip.destination), ([10, 1, 2, 3], [10, 3, 2, 1]));
                assert_eq!(ip.header_checksum, ip.calc_header_checksum());
                let right = udp.to_header().calc_checksum_ipv4(&ip, udp.payload()).expect("short enough");
                assert_eq!(udp.checksum(), right);
            }
            // Of the other IP version, or of none.
            _ => assert_eq!(bytes[12..], original[12..]),
        }
    }
    std::fs::remove_file(file).expect("it was there");
}

#[test]
fn one_moment_does_not_say_when_the_next_round_begins() {
    let pair = Pair::new("pg-moment");
    let file = write(&pair, "moment.pcap", &packets()[..1]);
    let output = pair.command(&format!("--replay {file} --loops 0 --mode copy")).output().expect("it runs");
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        output.stderr,
        format!(
            "error: {file}: its packets are all of one moment, which does not say when they are to come again: say a \
             `--rate`\n"
        )
    );
    std::fs::remove_file(file).expect("it is there");
}
