//! Packets, made by another library than the framework.

use std::net::IpAddr;

use etherparse::PacketBuilder;

/// The TCP option with a server id.
pub(super) fn option(id: u32) -> Vec<u8> {
    [&[0xb7, 6][..], &id.to_le_bytes()].concat()
}

/// `syn` or not, and options; a client's port tells flows apart.
pub(super) fn tcp(client: &str, port: u16, vip: &str, syn: bool, options: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    let builder = match (addr(client), addr(vip)) {
        (IpAddr::V4(from), IpAddr::V4(to)) => PacketBuilder::ipv4(from.octets(), to.octets(), 64),
        (IpAddr::V6(from), IpAddr::V6(to)) => PacketBuilder::ipv6(from.octets(), to.octets(), 64),
        _ => panic!("one family"),
    };
    let builder = builder.tcp(port, 80, 7, 8192);
    let builder = if syn { builder.syn() } else { builder.ack(9) };
    let builder = builder.options_raw(options).expect("at most 40 bytes");
    builder.write(&mut packet, b"of our own").expect("a vector takes all");
    packet
}

pub(super) fn udp(client: &str, port: u16, vip: &str, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    let builder = match (addr(client), addr(vip)) {
        (IpAddr::V4(from), IpAddr::V4(to)) => PacketBuilder::ipv4(from.octets(), to.octets(), 64),
        (IpAddr::V6(from), IpAddr::V6(to)) => PacketBuilder::ipv6(from.octets(), to.octets(), 64),
        _ => panic!("one family"),
    };
    builder.udp(port, 80).write(&mut packet, payload).expect("a vector takes all");
    packet
}

/// The same packet with another TTL or hop limit.
pub(super) fn with_ttl(mut packet: Vec<u8>, ttl: u8) -> Vec<u8> {
    if packet[0] >> 4 == 6 {
        packet[7] = ttl;
        return packet;
    }
    packet[8] = ttl;
    let header = etherparse::Ipv4Header::from_slice(&packet).expect("an IPv4 packet").0;
    packet[10..12].copy_from_slice(&header.calc_header_checksum().to_be_bytes());
    packet
}

/// How a packet is carried.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Carried {
    Ipip,
    Gue(u16),
}

/// The packet in an outer header.
pub(super) fn carry(inner: &[u8], from: &str, to: &str, how: Carried) -> Vec<u8> {
    let mut packet = Vec::new();
    let tos = if inner[0] >> 4 == 4 { inner[1] } else { inner[0] << 4 | inner[1] >> 4 };
    let protocol = if inner[0] >> 4 == 4 { 4 } else { 41 };
    let protocol = if how == Carried::Ipip { protocol } else { 17 };
    let udp = match how {
        Carried::Ipip => Vec::new(),
        Carried::Gue(port) => {
            let length = 8 + inner.len() as u16;
            [50_000u16.to_be_bytes(), port.to_be_bytes(), length.to_be_bytes(), [0, 0]].concat()
        }
    };
    let length = udp.len() + inner.len();
    match (addr(from), addr(to)) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut header =
                etherparse::Ipv4Header::new(length as u16, 64, protocol.into(), from.octets(), to.octets())
                    .expect("a short packet");
            header.dscp = etherparse::IpDscp::try_new(tos >> 2).expect("six bits");
            header.ecn = etherparse::IpEcn::try_new(tos & 3).expect("two bits");
            header.dont_fragment = false;
            header.header_checksum = header.calc_header_checksum();
            packet.extend(header.to_bytes());
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let header = etherparse::Ipv6Header {
                traffic_class: tos,
                payload_length: length as u16,
                next_header: protocol.into(),
                hop_limit: 64,
                source: from.octets(),
                destination: to.octets(),
                ..Default::default()
            };
            packet.extend(header.to_bytes());
        }
        _ => panic!("one family"),
    }
    [packet, udp, inner.to_vec()].concat()
}

pub(super) fn addr(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

pub(super) fn ethernet(to: [u8; 6], from: [u8; 6], ip: &[u8]) -> Vec<u8> {
    let kind = if ip[0] >> 4 == 4 { [0x08, 0x00] } else { [0x86, 0xdd] };
    [&to[..], &from, &kind, ip].concat()
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A payload with a header that carries an id, or without one.
pub(super) fn stable(id: u32) -> Vec<u8> {
    let [_, a, b, c] = id.to_be_bytes();
    [&[0x52, a, b, c, 0, 0, 0, 0][..], b"of our own"].concat()
}
