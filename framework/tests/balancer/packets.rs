//! Packets that several tests send.

use std::net::{IpAddr, SocketAddr};

use afx::packet::{Builder, Protocol, TcpFlags, checksum};

/// Room for any packet that tests make.
const ROOM: usize = 2048;

pub(crate) fn written(builder: &Builder, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; ROOM];
    let len = builder.write(&mut bytes, payload).expect("it fits, and both addresses are of one family");
    bytes.truncate(len);
    bytes
}

pub(crate) fn tcp(from: SocketAddr, to: SocketAddr, flags: TcpFlags) -> Vec<u8> {
    written(&Builder::tcp(from, to).flags(flags), b"")
}

pub(crate) fn udp(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    written(&Builder::udp(from, to), payload)
}

/// An error from `router`, as it meets a packet from `from` (a VIP) to `to` (a client) that is too big.
pub(crate) fn too_big(router: IpAddr, from: SocketAddr, to: SocketAddr, protocol: Protocol) -> Vec<u8> {
    let reply = match protocol {
        Protocol::TCP => tcp(from, to, TcpFlags::ACK),
        _ => udp(from, to, b"reply"),
    };
    let (protocol, kind, code) =
        if from.is_ipv4() { (Protocol::ICMP, 3, 4) } else { (Protocol::ICMPV6, 2, 0) };
    let mut message = vec![kind, code, 0, 0, 0, 0, 0x05, 0x00];
    // What IPv4 routers are obliged to quote: the IP header and eight bytes more.
    let quoted = if from.is_ipv4() { 28 } else { 48 };
    message.extend_from_slice(&reply[14..14 + quoted]);
    written(&Builder::ip(router, from.ip(), protocol), &message)
}

/// A TCP segment with the option that names a server put behind its header of 20 bytes.
pub(crate) fn with_tcp_option(packet: &[u8], id: u32) -> Vec<u8> {
    let mut bytes = packet.to_vec();
    let [a, b, c, d] = id.to_le_bytes();
    // Two bytes of nothing make it a whole word.
    bytes.splice(54..54, [1, 1, 0xb7, 6, a, b, c, d]);
    let total = u16::from_be_bytes([bytes[16], bytes[17]]) + 8;
    bytes[16..18].copy_from_slice(&total.to_be_bytes());
    bytes[46] = 7 << 4;
    let parsed = afx::packet::parse(&bytes).unwrap();
    assert!(checksum::fill_ipv4(&mut bytes, &parsed) && checksum::fill_transport(&mut bytes, &parsed));
    bytes
}
