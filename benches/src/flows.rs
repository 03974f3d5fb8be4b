//! Packets of many flows to one service, from a template: only the client's address and port change.

use std::net::Ipv4Addr;

/// The service. Documentation addresses (RFC 5737).
pub(crate) const VIP: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);

/// The UDP port: discard.
pub(crate) const PORT: u16 = 9;

/// Bytes of a packet, the checksum that a wire would carry left out: 64 with it.
pub(crate) const LENGTH: usize = 60;

/// A template, and the packet that was last made of it.
#[derive(Debug, Clone)]
pub(crate) struct Flows {
    packet: [u8; LENGTH],
    /// Sum of the IPv4 header's words, without the client's address.
    sum: u32,
}

impl Flows {
    /// Flows whose packets go from this MAC address to that one.
    pub(crate) fn new(from: [u8; 6], to: [u8; 6]) -> Self {
        let mut packet = [0; LENGTH];
        packet[..6].copy_from_slice(&to);
        packet[6..12].copy_from_slice(&from);
        packet[12..14].copy_from_slice(&[8, 0]);
        packet[14..26].copy_from_slice(&[0x45, 0, 0, (LENGTH - 14) as u8, 0, 0, 0, 0, 64, 17, 0, 0]);
        packet[30..34].copy_from_slice(&VIP.octets());
        packet[36..38].copy_from_slice(&PORT.to_be_bytes());
        // Without a checksum, as UDP over IPv4 may be (RFC 768).
        packet[38..40].copy_from_slice(&((LENGTH - 34) as u16).to_be_bytes());
        let words = packet[14..34].chunks(2);
        let sum = words.map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum();
        Self { packet, sum }
    }

    /// A packet of flow `flow`, below 2^24: no two are alike.
    #[inline(always)]
    pub(crate) fn packet(&mut self, flow: u32) -> &[u8; LENGTH] {
        let (client, port) = client(flow);
        let sum = self.sum + (client >> 16) + (client & 0xffff);
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = (sum & 0xffff) + (sum >> 16);
        self.packet[24..26].copy_from_slice(&(!sum as u16).to_be_bytes());
        self.packet[26..30].copy_from_slice(&client.to_be_bytes());
        self.packet[34..36].copy_from_slice(&port.to_be_bytes());
        &self.packet
    }
}

/// The client's address, in 10.0.0.0/8, and port of a flow: neither follows from the one before.
#[inline(always)]
fn client(flow: u32) -> (u32, u16) {
    let address = 10 << 24 | flow.wrapping_mul(0x0037_79b1) & 0xff_ffff;
    let port = 1024 + (flow.wrapping_mul(0x85eb_ca6b) >> 17) as u16;
    (address, port)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use afx::packet::{HashSeed, Protocol, checksum::checksum, flow_key, parse_head};

    use super::*;

    #[test]
    fn packets_are_well_formed_and_their_checksums_right() {
        let mut flows = Flows::new([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        for flow in [0, 1, 2, 77, 65_535, 65_536, 7_999_999] {
            let packet = *flows.packet(flow);
            assert_eq!(checksum(&packet[14..34]), 0, "{packet:?}");
            let parsed = parse_head(&packet, LENGTH, HashSeed(1)).unwrap();
            let key = flow_key(&packet, &parsed).unwrap();
            assert_eq!((key.destination(), key.destination_port()), (VIP.into(), PORT));
            assert_eq!(key.protocol(), Protocol::UDP);
            assert_eq!(parsed.ip_range().map(|ip| ip.len()), Some(LENGTH - 14));
        }
    }

    #[test]
    fn every_flow_is_another() {
        let clients: HashSet<u32> = (0..1 << 20).map(|flow| client(flow).0).collect();
        assert_eq!(clients.len(), 1 << 20);
        let ports: HashSet<u16> = (0..1 << 20).map(|flow| client(flow).1).collect();
        assert!(ports.len() > 30_000 && ports.iter().all(|port| *port >= 1024), "{}", ports.len());
    }
}
