//! IP in IP.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::super::names::Protocol;

/// The outer IPv4 header of a tunnel: all that its packets share, summed beforehand.
///
/// ```
/// use std::net::Ipv4Addr;
/// use afx::packet::{Ipv4, Protocol, encap::OuterIpv4};
///
/// let tunnel = OuterIpv4::new(Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(198, 51, 100, 7), Protocol::IPV4, 64, true);
/// let mut header = [0; 20];
/// assert!(tunnel.write(&mut header, 1000, 0, 0));
/// let header = Ipv4::new_checked(header)?;
/// assert_eq!(header.total_len(), 1020);
/// assert!(header.verify_checksum());
/// # Ok::<(), afx::packet::ParseError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct OuterIpv4 {
    template: [u8; Self::LEN],
    /// The sum of the template's 16-bit words.
    sum: u32,
}

impl OuterIpv4 {
    /// The length of the header, in bytes.
    pub const LEN: usize = 20;

    /// The header of packets from `source` to `destination` that carry `protocol`: [`Protocol::IPV4`] or
    /// [`Protocol::IPV6`].
    ///
    /// With `dont_fragment`, routers between the tunnel's ends report a packet too large for them, and the
    /// identification means nothing (RFC 6864); without, it should differ between packets that are under way at once.
    pub fn new(
        source: Ipv4Addr,
        destination: Ipv4Addr,
        protocol: Protocol,
        ttl: u8,
        dont_fragment: bool,
    ) -> Self {
        let mut template = [0; Self::LEN];
        template[0] = 0x45;
        template[6] = if dont_fragment { 0x40 } else { 0 };
        template[8] = ttl;
        template[9] = protocol.0;
        template[12..16].copy_from_slice(&source.octets());
        template[16..].copy_from_slice(&destination.octets());
        let words = template.as_chunks::<2>().0;
        Self { template, sum: words.iter().map(|word| u32::from(u16::from_be_bytes(*word))).sum() }
    }

    /// Writes the header of a packet that carries `inner_len` bytes. `tos` is commonly the inner one's, with the
    /// congestion mark as RFC 6040 says.
    ///
    /// Returns false, with nothing written, if the packet would be longer than 65,535 bytes.
    #[inline]
    pub fn write(&self, out: &mut [u8; Self::LEN], inner_len: u16, tos: u8, identification: u16) -> bool {
        self.write_from(out, 0, inner_len, tos, identification)
    }

    /// As [`write`](Self::write), from an address of its own: the source's, with the bits of `host` set, which are
    /// not set in the source. A source for each flow lets receivers spread tunnelled flows over their queues.
    #[inline]
    pub fn write_from(
        &self,
        out: &mut [u8; Self::LEN],
        host: u32,
        inner_len: u16,
        tos: u8,
        identification: u16,
    ) -> bool {
        let Some(total_len) = inner_len.checked_add(Self::LEN as u16) else { return false };
        *out = self.template;
        out[1] = tos;
        out[2..4].copy_from_slice(&total_len.to_be_bytes());
        out[4..6].copy_from_slice(&identification.to_be_bytes());
        let [.., a, b, c, d, _, _, _, _] = self.template;
        let source = u32::from_be_bytes([a, b, c, d]) | host;
        out[12..16].copy_from_slice(&source.to_be_bytes());
        // Fifteen 16-bit words at most: the carries are added when all are summed (RFC 1071, section 2, C).
        let sum = self.sum
            + u32::from(total_len)
            + u32::from(identification)
            + u32::from(tos)
            + (host >> 16)
            + (host & 0xffff);
        let sum = (sum & 0xffff) + (sum >> 16);
        let checksum = !(sum + (sum >> 16)) as u16;
        out[10..12].copy_from_slice(&checksum.to_be_bytes());
        true
    }

    /// The tunnel's far end.
    pub fn destination(&self) -> Ipv4Addr {
        let [.., a, b, c, d] = self.template;
        Ipv4Addr::new(a, b, c, d)
    }
}

/// The outer IPv6 header of a tunnel: all that its packets share.
#[derive(Clone, Copy, Debug)]
pub struct OuterIpv6 {
    template: [u8; Self::LEN],
}

impl OuterIpv6 {
    /// The length of the header, in bytes.
    pub const LEN: usize = 40;

    /// The header of packets from `source` to `destination` that carry `protocol`: [`Protocol::IPV4`] or
    /// [`Protocol::IPV6`].
    pub fn new(source: Ipv6Addr, destination: Ipv6Addr, protocol: Protocol, hop_limit: u8) -> Self {
        let mut template = [0; Self::LEN];
        template[0] = 0x60;
        template[6] = protocol.0;
        template[7] = hop_limit;
        template[8..24].copy_from_slice(&source.octets());
        template[24..].copy_from_slice(&destination.octets());
        Self { template }
    }

    /// Writes the header of a packet that carries `inner_len` bytes. `flow_label` (its low 20 bits) should differ
    /// between flows, so that routers which spread by it do (RFC 6438): bits of the flow's hash will do.
    #[inline]
    pub fn write(&self, out: &mut [u8; Self::LEN], inner_len: u16, traffic_class: u8, flow_label: u32) {
        self.write_from(out, 0, inner_len, traffic_class, flow_label);
    }

    /// As [`write`](Self::write), from an address of its own: the source's, with the bits of `host` set.
    #[inline]
    pub fn write_from(
        &self,
        out: &mut [u8; Self::LEN],
        host: u128,
        inner_len: u16,
        traffic_class: u8,
        flow_label: u32,
    ) {
        *out = self.template;
        for (byte, bits) in out[8..24].iter_mut().zip(host.to_be_bytes()) {
            *byte |= bits;
        }
        let word = 0x6000_0000 | u32::from(traffic_class) << 20 | flow_label & 0xf_ffff;
        out[..4].copy_from_slice(&word.to_be_bytes());
        out[4..6].copy_from_slice(&inner_len.to_be_bytes());
    }

    /// The tunnel's far end.
    pub fn destination(&self) -> Ipv6Addr {
        let mut octets = [0; 16];
        octets.copy_from_slice(&self.template[24..]);
        octets.into()
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::view::{Ipv4, Ipv6};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ipv4_header_is_as_asked_and_sums_up(
            source: u32, destination: u32, protocol: u8, ttl: u8, df: bool, inner_len: u16, tos: u8, id: u16,
        ) {
            let (source, destination) = (Ipv4Addr::from_bits(source), Ipv4Addr::from_bits(destination));
            let mut out = [0xaa; 20];
            let tunnel = OuterIpv4::new(source, destination, Protocol(protocol), ttl, df);
            prop_assert_eq!(tunnel.destination(), destination);
            if !tunnel.write(&mut out, inner_len, tos, id) {
                prop_assert!(inner_len > 65_515);
                prop_assert_eq!(out, [0xaa; 20]);
                return Ok(());
            }
            let header = Ipv4::new_checked(out).unwrap();
            prop_assert!(header.verify_checksum());
            prop_assert_eq!((header.source(), header.destination()), (source, destination));
            prop_assert_eq!((header.protocol().0, header.ttl(), header.tos()), (protocol, ttl, tos));
            prop_assert_eq!((header.total_len(), header.identification()), (inner_len + 20, id));
            prop_assert_eq!((header.dont_fragment(), header.more_fragments(), header.fragment_offset()), (df, false, 0));
        }

        #[test]
        fn ipv6_header_is_as_asked(source: u128, destination: u128, protocol: u8, limit: u8, inner_len: u16, class: u8, label: u32) {
            let (source, destination) = (Ipv6Addr::from_bits(source), Ipv6Addr::from_bits(destination));
            let mut out = [0xaa; 40];
            let tunnel = OuterIpv6::new(source, destination, Protocol(protocol), limit);
            prop_assert_eq!(tunnel.destination(), destination);
            tunnel.write(&mut out, inner_len, class, label);
            let header = Ipv6::new_checked(out).unwrap();
            prop_assert_eq!((header.source(), header.destination()), (source, destination));
            prop_assert_eq!((header.next_header().0, header.hop_limit()), (protocol, limit));
            prop_assert_eq!((header.traffic_class(), header.flow_label()), (class, label & 0xf_ffff));
            prop_assert_eq!(header.payload_len(), inner_len);
        }
    }
}
