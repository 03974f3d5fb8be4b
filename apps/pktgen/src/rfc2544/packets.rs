//! The frames of a trial as bytes: templates, of which each packet is a copy with its own flow, signature and checksum.

use std::net::SocketAddr;

use afx::packet::checksum::Change;
use afx::packet::{Builder, MacAddress};

use super::trial::Frames;
use crate::signature::{LENGTH, Signature};
use crate::units::FCS;

/// Where test packets go: the port of UDP's echo service (RFC 2544, appendix C.2.6.4).
pub(super) const PORT: u16 = 7;
/// The source port of the first flow; the others follow.
const FIRST_PORT: u16 = 49_152;
/// So many flows there are at most.
pub(super) const FLOWS_MAX: u32 = (u16::MAX - FIRST_PORT) as u32 + 1;

/// Bytes of an Ethernet header and a UDP header.
const ETHERNET: usize = 14;
const UDP: usize = 8;

/// Both ends of the test's packets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    pub(super) macs: (MacAddress, MacAddress),
    /// IP addresses; of the ports only the destination's counts.
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
}

impl Ends {
    fn ip_header(&self) -> usize {
        if self.destination.is_ipv4() { 20 } else { 40 }
    }

    /// The shortest frame that has room for all headers and a signature, frame check sequence included.
    pub(super) fn shortest(&self) -> usize {
        ETHERNET + self.ip_header() + UDP + LENGTH + FCS
    }
}

/// Packets of a test, ready to be copied.
#[derive(Debug)]
pub(super) struct Packets {
    /// In the order in which they are sent.
    templates: Vec<Vec<u8>>,
    udp: usize,
}

impl Packets {
    /// # Panics
    /// If the ends are of two IP versions, or a frame is below [`Ends::shortest`].
    pub(super) fn new(ends: &Ends, frames: &Frames) -> Self {
        let udp = ETHERNET + ends.ip_header();
        let mut source = ends.source;
        source.set_port(FIRST_PORT);
        let template = |size: &u16| {
            let length = usize::from(*size) - FCS;
            let mut bytes = vec![0; length];
            let payload = vec![0; length - udp - UDP];
            let written = Builder::udp(source, ends.destination)
                .macs(ends.macs.0, ends.macs.1)
                .write(&mut bytes, &payload)
                .expect("a packet of one IP version fits into its frame");
            assert_eq!(written, length, "all of the frame is headers and payload");
            bytes
        };
        Self { templates: frames.sizes.iter().map(template).collect(), udp }
    }

    /// Bytes of the `index`th packet; after the last comes the first again.
    #[inline(always)]
    pub(super) fn length(&self, index: usize) -> usize {
        self.templates[index % self.templates.len()].len()
    }

    /// Writes the `index`th packet, of as many bytes as its length, of a flow whose number in the signature may be
    /// another.
    #[inline(always)]
    pub(super) fn write(&self, index: usize, flow: u32, signature: Signature, out: &mut [u8]) {
        let template = &self.templates[index % self.templates.len()];
        out.copy_from_slice(template);
        let port = FIRST_PORT + flow as u16;
        out[self.udp..self.udp + 2].copy_from_slice(&port.to_be_bytes());
        let mut change = Change::new().replace_u16(FIRST_PORT, port);
        let at = out.len() - LENGTH;
        out[at..].copy_from_slice(&signature.to_bytes());
        // As the words that the checksum sees, which are aligned to the UDP header: the template has zeros there.
        let mut words = [0; LENGTH + 2];
        let odd = (at - self.udp) % 2;
        words[odd..odd + LENGTH].copy_from_slice(&signature.to_bytes());
        for word in words.as_chunks::<2>().0 {
            change = change.replace_u16(0, u16::from_be_bytes(*word));
        }
        let checksum = &mut out[self.udp + 6..self.udp + 8];
        let old = u16::from_be_bytes([checksum[0], checksum[1]]);
        checksum.copy_from_slice(&change.apply_udp(old).to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};
    use proptest::prelude::*;

    use super::*;

    fn ends(v4: bool) -> Ends {
        let end = |text: &str| text.parse().unwrap();
        let (source, destination) = if v4 {
            (end("198.18.0.2:0"), end("198.19.0.2:7"))
        } else {
            (end("[2001:2::2]:0"), end("[2001:2:0:1::2]:7"))
        };
        Ends { macs: (MacAddress([2; 6]), MacAddress([4; 6])), source, destination }
    }

    proptest! {
        #[test]
        fn every_packet_is_whole_and_its_sums_are_right(
            v4: bool, size in 84u16..1600, flow in 0..FLOWS_MAX, number: u32, sequence: u32, time: u64
        ) {
            let ends = ends(v4);
            let frames = Frames { label: String::new(), sizes: vec![size] };
            let packets = Packets::new(&ends, &frames);
            let signature = Signature { flow: number, sequence, time };
            // As a frame is before it is written: full of something else.
            let mut bytes = vec![0xa5; packets.length(3)];
            packets.write(3, flow, signature, &mut bytes);
            prop_assert_eq!(bytes.len(), usize::from(size) - FCS);
            let parsed = SlicedPacket::from_ethernet(&bytes).unwrap();
            let Some(TransportSlice::Udp(udp)) = parsed.transport else { panic!("no UDP") };
            prop_assert_eq!(u32::from(udp.source_port()), u32::from(FIRST_PORT) + flow);
            prop_assert_eq!(udp.destination_port(), PORT);
            prop_assert_eq!(Signature::from_end(udp.payload()), Some(signature));
            let header = udp.to_header();
            let right = match parsed.net.unwrap() {
                NetSlice::Ipv4(ip) => header.calc_checksum_ipv4(&ip.header().to_header(), udp.payload()),
                NetSlice::Ipv6(ip) => header.calc_checksum_ipv6(&ip.header().to_header(), udp.payload()),
                NetSlice::Arp(_) => panic!("no IP"),
            };
            prop_assert_eq!(udp.checksum(), right.unwrap());
        }
    }

    #[test]
    fn the_shortest_is_what_fits() {
        assert_eq!((ends(true).shortest(), ends(false).shortest()), (64, 84));
        let frames = Frames { label: String::new(), sizes: vec![64, 70] };
        let packets = Packets::new(&ends(true), &frames);
        assert_eq!([0, 1, 2].map(|index| packets.length(index)), [60, 66, 60]);
    }
}
