//! IP in UDP: variant 1 of Generic UDP Encapsulation.
//!
//! It has no header of its own: the IP packet follows the UDP header, and the first bits of its version say so. Routers
//! and cards spread UDP over links and queues by its ports, which not all of them do with IP in IP: hence a source
//! port for each flow.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::super::checksum::Sum;
use super::super::names::Protocol;
use super::{OuterIpv4, OuterIpv6};

const UDP_LEN: usize = 8;

/// The outer IPv4 and UDP header of a tunnel that carries IP in UDP: all that its packets share, summed beforehand.
///
/// The UDP checksum is left out (zero), as IPv4 allows: what is carried has its own.
///
/// ```
/// use std::net::Ipv4Addr;
/// use afx::packet::{Ipv4, Protocol, Udp, encap::GueIpv4};
///
/// let tunnel = GueIpv4::new(Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(198, 51, 100, 7), 6080, 64, false);
/// let mut headers = [0; GueIpv4::LEN];
/// assert!(tunnel.write(&mut headers, 0xc123, 1000, 0, 0));
/// let ip = Ipv4::new_checked(headers)?;
/// assert_eq!((ip.protocol(), ip.total_len()), (Protocol::UDP, 1028));
/// let udp = Udp::new_checked(&headers[20..])?;
/// assert_eq!((udp.source_port(), udp.destination_port(), udp.length()), (0xc123, 6080, 1008));
/// # Ok::<(), afx::packet::ParseError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct GueIpv4 {
    ip: OuterIpv4,
    port: u16,
}

impl GueIpv4 {
    /// The length of both headers, in bytes.
    pub const LEN: usize = OuterIpv4::LEN + UDP_LEN;

    /// The headers of packets from `source` to the UDP port `port` of `destination`; `dont_fragment` as in
    /// [`OuterIpv4::new`].
    pub fn new(source: Ipv4Addr, destination: Ipv4Addr, port: u16, ttl: u8, dont_fragment: bool) -> Self {
        Self { ip: OuterIpv4::new(source, destination, Protocol::UDP, ttl, dont_fragment), port }
    }

    /// Writes the headers of a packet that carries `inner_len` bytes. `source_port` should differ between flows, and
    /// be the same for all packets of one; `tos` and `identification` as in [`OuterIpv4::write`].
    ///
    /// Returns false, with nothing written, if the packet would be longer than 65,535 bytes.
    #[inline]
    pub fn write(
        &self,
        out: &mut [u8; Self::LEN],
        source_port: u16,
        inner_len: u16,
        tos: u8,
        identification: u16,
    ) -> bool {
        self.write_from(out, 0, source_port, inner_len, tos, identification)
    }

    /// As [`write`](Self::write), from an address of its own: the source's, with the bits of `host` set, which are
    /// not set in the source.
    #[inline]
    pub fn write_from(
        &self,
        out: &mut [u8; Self::LEN],
        host: u32,
        source_port: u16,
        inner_len: u16,
        tos: u8,
        identification: u16,
    ) -> bool {
        let (ip, udp) = out.split_at_mut(OuterIpv4::LEN);
        let (Some(ip), Some(udp)) = (ip.first_chunk_mut(), udp.first_chunk_mut()) else { return false };
        let Some(udp_len) = inner_len.checked_add(UDP_LEN as u16) else { return false };
        if !self.ip.write_from(ip, host, udp_len, tos, identification) {
            return false;
        }
        *udp = udp_header(source_port, self.port, udp_len, 0);
        true
    }

    /// The tunnel's far end.
    pub fn destination(&self) -> Ipv4Addr {
        self.ip.destination()
    }
}

/// The outer IPv6 and UDP header of a tunnel that carries IP in UDP: all that its packets share, summed beforehand.
///
/// There is a UDP checksum, as IPv6 demands, over the whole packet: receivers drop what comes without one unless told
/// otherwise (RFC 6935).
///
/// ```
/// use afx::packet::{Protocol, encap::GueIpv6, checksum, checksum::Sum, parse};
///
/// let tunnel = GueIpv6::new("2001:db8::1".parse()?, "2001:db8::7".parse()?, 6080, 64);
/// // An Ethernet header, room for the outer headers, and a packet that came in two segments.
/// let (first, second) = ([0x45; 33], [7; 10]);
/// let mut bytes = [0; 14 + GueIpv6::LEN + 43];
/// bytes[12..14].copy_from_slice(&[0x86, 0xdd]);
/// bytes[62..95].copy_from_slice(&first);
/// bytes[95..].copy_from_slice(&second);
///
/// let inner = Sum::new().add_segments([&first[..], &second[..]]);
/// let room = bytes[14..].first_chunk_mut().unwrap();
/// assert!(tunnel.write(room, 0xc123, 43, inner, 0, 0));
/// assert_eq!(checksum::verify_transport(&bytes, &parse(&bytes)?), Some(true));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct GueIpv6 {
    ip: OuterIpv6,
    port: u16,
    /// Of the destination, its port, and the protocol.
    sum: Sum,
}

impl GueIpv6 {
    /// The length of both headers, in bytes.
    pub const LEN: usize = OuterIpv6::LEN + UDP_LEN;

    /// The headers of packets from `source` to the UDP port `port` of `destination`.
    pub fn new(source: Ipv6Addr, destination: Ipv6Addr, port: u16, hop_limit: u8) -> Self {
        let sum = Sum::new().add_bytes(&destination.octets()).add_u16(port).add_u16(Protocol::UDP.0.into());
        Self { ip: OuterIpv6::new(source, destination, Protocol::UDP, hop_limit), port, sum }
    }

    /// Writes the headers of a packet that carries `inner_len` bytes, whose sum is `inner`. `source_port` should differ
    /// between flows, and be the same for all packets of one. With it `flow_label` (its low 20 bits) may be zero;
    /// otherwise it is as in [`OuterIpv6::write`].
    ///
    /// Returns false, with nothing written, if what follows the IPv6 header would be longer than 65,535 bytes.
    #[inline]
    pub fn write(
        &self,
        out: &mut [u8; Self::LEN],
        source_port: u16,
        inner_len: u16,
        inner: Sum,
        traffic_class: u8,
        flow_label: u32,
    ) -> bool {
        self.write_from(out, 0, source_port, inner_len, inner, traffic_class, flow_label)
    }

    /// As [`write`](Self::write), from an address of its own: the source's, with the bits of `host` set.
    #[inline]
    #[expect(clippy::too_many_arguments, reason = "each a field of the header, given where it is known")]
    pub fn write_from(
        &self,
        out: &mut [u8; Self::LEN],
        host: u128,
        source_port: u16,
        inner_len: u16,
        inner: Sum,
        traffic_class: u8,
        flow_label: u32,
    ) -> bool {
        let (ip, udp) = out.split_at_mut(OuterIpv6::LEN);
        let (Some(ip), Some(udp)) = (ip.first_chunk_mut(), udp.first_chunk_mut()) else { return false };
        let Some(udp_len) = inner_len.checked_add(UDP_LEN as u16) else { return false };
        self.ip.write_from(ip, host, udp_len, traffic_class, flow_label);
        // The length counts twice: in the pseudo-header and in the UDP header.
        let checksum = self
            .sum
            .add_bytes(&ip[8..24])
            .add_u16(udp_len)
            .add_u16(udp_len)
            .add_u16(source_port)
            .add_sum(inner)
            .udp_checksum();
        *udp = udp_header(source_port, self.port, udp_len, checksum);
        true
    }

    /// The tunnel's far end.
    pub fn destination(&self) -> Ipv6Addr {
        self.ip.destination()
    }
}

#[inline]
fn udp_header(source: u16, destination: u16, len: u16, checksum: u16) -> [u8; UDP_LEN] {
    let [a, b] = source.to_be_bytes();
    let [c, d] = destination.to_be_bytes();
    let [e, f] = len.to_be_bytes();
    let [g, h] = checksum.to_be_bytes();
    [a, b, c, d, e, f, g, h]
}

#[cfg(test)]
mod tests {
    use etherparse::{Ipv4HeaderSlice, Ipv6HeaderSlice, UdpHeaderSlice};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn over_ipv4_etherparse_reads_what_was_asked(
            source: u32, destination: u32, host: u32, ports: (u16, u16), ttl: u8, df: bool, len: u16, tos: u8, id: u16,
        ) {
            let host = host & !source;
            let (source, destination) = (Ipv4Addr::from_bits(source), Ipv4Addr::from_bits(destination));
            let tunnel = GueIpv4::new(source, destination, ports.1, ttl, df);
            prop_assert_eq!(tunnel.destination(), destination);
            let mut out = [0xaa; GueIpv4::LEN];
            if !tunnel.write_from(&mut out, host, ports.0, len, tos, id) {
                prop_assert!(len > 65_507);
                prop_assert_eq!(out, [0xaa; GueIpv4::LEN]);
                return Ok(());
            }
            let ip = Ipv4HeaderSlice::from_slice(&out).unwrap().to_header();
            prop_assert_eq!(ip.header_checksum, ip.calc_header_checksum());
            prop_assert_eq!(Ipv4Addr::from(ip.source), source | Ipv4Addr::from_bits(host));
            prop_assert_eq!(Ipv4Addr::from(ip.destination), destination);
            prop_assert_eq!((ip.protocol.0, ip.time_to_live, ip.dont_fragment), (17, ttl, df));
            prop_assert_eq!((ip.total_len, ip.identification), (len + 28, id));
            prop_assert_eq!(ip.dscp.value() << 2 | ip.ecn.value(), tos);
            let udp = UdpHeaderSlice::from_slice(&out[20..]).unwrap().to_header();
            prop_assert_eq!((udp.source_port, udp.destination_port), ports);
            prop_assert_eq!((udp.length, udp.checksum), (len + 8, 0));
        }

        #[test]
        fn over_ipv6_etherparse_reads_what_was_asked_and_the_checksum_is_right(
            source: u128, destination: u128, host: u128, ports: (u16, u16), limit: u8, class: u8, label: u32,
            inner in prop::collection::vec(any::<u8>(), 0..200), cut in 0..200usize,
        ) {
            let (source, destination) = (Ipv6Addr::from_bits(source), Ipv6Addr::from_bits(destination));
            let tunnel = GueIpv6::new(source, destination, ports.1, limit);
            prop_assert_eq!(tunnel.destination(), destination);
            let mut out = [0xaa; GueIpv6::LEN];
            let (first, second) = inner.split_at(cut.min(inner.len()));
            let sum = Sum::new().add_segments([first, second]);
            let len = inner.len() as u16;
            prop_assert!(tunnel.write_from(&mut out, host, ports.0, len, sum, class, label));
            let ip = Ipv6HeaderSlice::from_slice(&out).unwrap().to_header();
            prop_assert_eq!(Ipv6Addr::from(ip.source), source | Ipv6Addr::from_bits(host));
            prop_assert_eq!(Ipv6Addr::from(ip.destination), destination);
            prop_assert_eq!((ip.next_header.0, ip.hop_limit, ip.payload_length), (17, limit, len + 8));
            prop_assert_eq!((ip.traffic_class, ip.flow_label.value()), (class, label & 0xf_ffff));
            let udp = UdpHeaderSlice::from_slice(&out[40..]).unwrap().to_header();
            prop_assert_eq!((udp.source_port, udp.destination_port, udp.length), (ports.0, ports.1, len + 8));
            prop_assert_eq!(Ok(udp.checksum), udp.calc_checksum_ipv6(&ip, &inner));
        }
    }

    #[test]
    fn what_is_too_long_is_not_written() {
        let tunnel = GueIpv6::new(Ipv6Addr::LOCALHOST, Ipv6Addr::LOCALHOST, 6080, 64);
        let mut out = [0xaa; GueIpv6::LEN];
        assert!(!tunnel.write(&mut out, 1, 65_528, Sum::new(), 0, 0));
        assert_eq!(out, [0xaa; GueIpv6::LEN]);
        assert!(tunnel.write(&mut out, 1, 65_527, Sum::new(), 0, 0));
    }

    #[test]
    fn a_checksum_of_zero_is_written_as_all_ones() {
        let tunnel = GueIpv6::new(Ipv6Addr::LOCALHOST, Ipv6Addr::LOCALHOST, 6080, 64);
        let mut out = [0; GueIpv6::LEN];
        let checksum = |out: &[u8]| u16::from_be_bytes([out[46], out[47]]);
        assert!(tunnel.write(&mut out, 0, 2, Sum::new(), 0, 0));
        // What brings the sum to zero, as a packet of that one word would.
        let word = checksum(&out);
        assert!(tunnel.write(&mut out, 0, 2, Sum::new().add_u16(word), 0, 0));
        assert_eq!(checksum(&out), 0xffff);
    }
}
