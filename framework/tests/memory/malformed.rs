//! Packets that no correct sender makes: each is a drop with a reason, none is a panic.

use afx::packet::{Builder, ParseError, Protocol};
use afx::{Batch, Reason, Stage};

use crate::support::*;

/// Drops what cannot be parsed, each kind for a reason of its own.
struct Sane {
    reasons: Vec<Reason>,
}

impl Sane {
    fn new(build: &mut afx::worker::Build<'_>) -> Self {
        let reason =
            |error: &ParseError| build.drop_reason(&format!("malformed.{}", error.name()), error.sentence());
        Self { reasons: ParseError::ALL.iter().map(reason).collect() }
    }
}

impl Stage for Sane {
    fn process(&mut self, batch: &mut Batch) {
        for slot in batch.live() {
            let mut packet = batch.packet(slot);
            if let Err(error) = packet.parsed() {
                packet.drop(self.reasons[usize::from(error.number())]);
            }
        }
    }
}

fn written(builder: Builder, payload: usize) -> Vec<u8> {
    let mut bytes = vec![0; 200];
    let len = builder.write(&mut bytes, &vec![7; payload]).unwrap();
    bytes.truncate(len);
    bytes
}

/// A packet with some bytes changed.
fn with(mut bytes: Vec<u8>, changes: &[(usize, u8)]) -> Vec<u8> {
    for (at, value) in changes {
        bytes[*at] = *value;
    }
    bytes
}

#[test]
fn each_kind_of_malformed_packet_is_counted_by_its_reason() {
    let (a4, b4) = ("10.0.0.1:1".parse().unwrap(), "10.0.0.2:2".parse().unwrap());
    let (a6, b6) = ("[fd00::1]:1".parse().unwrap(), "[fd00::2]:2".parse().unwrap());
    let udp4 = || written(Builder::udp(a4, b4), 18);
    let tcp4 = || written(Builder::tcp(a4, b4), 6);
    let udp6 = || written(Builder::udp(a6, b6), 18);
    let echo = written(Builder::echo("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap(), 1, 1), 0);
    let tagged = with(vec![0; 60], &[(12, 0x81), (13, 0)]);
    let bad: Vec<(&str, Vec<u8>)> = vec![
        ("ethernet_truncated", vec![]),
        ("ethernet_truncated", vec![0; 13]),
        ("vlan_truncated", tagged[..17].to_vec()),
        ("ipv4_truncated", udp4()[..33].to_vec()),
        ("ipv4_version", with(udp4(), &[(14, 0x65)])),
        ("ipv4_header_length", with(udp4(), &[(14, 0x44)])),
        // The header is said to be longer than the packet; the total length to be less than the header; and more
        // than has come.
        ("ipv4_total_length", with(udp4(), &[(16, 0), (17, 19)])),
        ("ipv4_total_length", with(udp4(), &[(16, 1)])),
        ("ipv6_truncated", udp6()[..53].to_vec()),
        ("ipv6_version", with(udp6(), &[(14, 0x40)])),
        ("ipv6_payload_length", with(udp6(), &[(18, 1)])),
        ("ipv6_extension_truncated", with(udp6(), &[(20, 0), (54, 17), (55, 200)])),
        ("tcp_truncated", with(tcp4(), &[(17, 39)])),
        ("tcp_data_offset", with(tcp4(), &[(46, 0x40)])),
        ("tcp_data_offset", with(tcp4(), &[(46, 0xf0)])),
        ("udp_truncated", with(udp4(), &[(17, 27)])),
        ("udp_length", with(udp4(), &[(38, 0), (39, 7)])),
        ("udp_length", with(udp4(), &[(38, 0), (39, 0)])),
        ("udp_length", with(udp4(), &[(38, 0), (39, 27)])),
        ("icmp_truncated", with(echo.clone(), &[(17, 27)])),
        ("fragment_tiny", with(tcp4(), &[(17, 36), (20, 0x20)])),
    ];
    let good: Vec<Vec<u8>> = vec![
        udp4(),
        tcp4(),
        udp6(),
        echo,
        tagged,
        // An EtherType and a protocol that nobody knows; IPv4 options (24 bytes of header, then UDP).
        with(vec![0; 60], &[(12, 0x88), (13, 0xb5)]),
        with(udp4(), &[(23, 253)]),
        with(
            udp4(),
            &[
                (14, 0x46),
                (34, 1),
                (35, 1),
                (36, 1),
                (37, 0),
                (38, 0),
                (39, 1),
                (40, 0),
                (41, 2),
                (42, 0),
                (43, 22),
            ],
        ),
        // Padding behind the IP packet, and none of a length field's business.
        [udp4(), vec![0xee; 40]].concat(),
        vec![0; 14],
    ];

    let (mut worker, mut peer) = one_port(|build| (Sane::new(build), Reflect));
    let mut expected = std::collections::BTreeMap::new();
    for (name, bytes) in &bad {
        *expected.entry(format!("malformed.{name}")).or_insert(0) += 1;
        assert!(peer.send(bytes));
        let before = worker.stats().dropped(&format!("malformed.{name}"));
        worker.turn();
        let stats = worker.stats();
        assert_eq!(stats.dropped(&format!("malformed.{name}")), before + 1, "{name}: {:?}", stats.drops());
    }
    for bytes in &good {
        assert!(peer.send(bytes));
    }
    worker.turn();
    assert_eq!(received(&mut peer), good);
    let stats = worker.stats();
    let counted = stats.drops().into_iter().map(|(name, count)| (name.to_owned(), count)).collect();
    assert_eq!(expected, counted);
    let sentence = |name: &str| {
        stats.reasons.iter().find(|reason| reason.name == name).map(|reason| reason.sentence.as_str())
    };
    assert_eq!(sentence("malformed.ipv4_version"), Some(ParseError::Ipv4Version.sentence()));
    assert_eq!(stats.received(), stats.sent() + stats.dropped_total());
    worker.drain();
    assert_balanced(&mut worker);
}

#[test]
fn a_packet_cut_anywhere_is_forwarded_or_dropped() {
    let (mut worker, mut peer) = one_port(|build| (Sane::new(build), Reflect));
    let tcp = written(Builder::tcp("[fd00::1]:1".parse().unwrap(), "[fd00::2]:2".parse().unwrap()), 20);
    let other =
        written(Builder::ip("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap(), Protocol::SCTP), 40);
    let mut count = 0;
    for whole in [tcp, other] {
        for len in 0..=whole.len() {
            assert!(peer.send(&whole[..len]));
            worker.turn();
            count += 1;
        }
    }
    // What is not cut goes on.
    assert_eq!(received(&mut peer).len(), 2);
    let stats = worker.stats();
    assert_eq!((stats.received(), stats.sent(), stats.dropped_total()), (count, 2, count - 2));
    worker.drain();
    assert_balanced(&mut worker);
}
