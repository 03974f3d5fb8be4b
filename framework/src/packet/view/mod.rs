//! Header views: fields of a header that lies in borrowed bytes.
//!
//! `new_checked` looks once whether the header is whole; the accessors then read without failing. Setters are there
//! where the bytes are mutable, and write only their field: checksums are the caller's affair, see
//! [`checksum`](super::checksum) and [`rewrite`](super::rewrite).

mod ethernet;
mod icmp;
mod ipv4;
mod ipv6;
mod tcp;
mod udp;

pub use ethernet::{Ethernet, VlanTag};
pub use icmp::Icmp;
pub use ipv4::Ipv4;
pub use ipv6::Ipv6;
pub use tcp::{Tcp, TcpFlags};
pub use udp::Udp;

/// The two bytes at `at`. Views call it with offsets within the length they have checked.
#[inline]
fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// The four bytes at `at`.
#[inline]
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(array_at(bytes, at))
}

/// The `N` bytes at `at`.
#[inline]
fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

/// Writes `array` at `at`.
#[inline]
fn put<const N: usize>(bytes: &mut [u8], at: usize, array: [u8; N]) {
    bytes[at..at + N].copy_from_slice(&array);
}

#[cfg(test)]
mod tests {
    use etherparse::{
        Ethernet2HeaderSlice, Ipv4HeaderSlice, Ipv6HeaderSlice, TcpHeaderSlice, UdpHeaderSlice,
    };

    use super::super::{EtherType, MacAddress, ParseError, Protocol};
    use super::*;

    /// All ones, so that a setter that clears too little or too much is seen.
    const ONES: [u8; 60] = [0xff; 60];

    #[test]
    fn ethernet_fields() {
        let mut bytes = ONES;
        bytes[12..14].copy_from_slice(&EtherType::VLAN.0.to_be_bytes());
        let mut view = Ethernet::new_checked(&mut bytes).unwrap();
        view.set_destination(MacAddress([1, 2, 3, 4, 5, 6]));
        view.set_source(MacAddress([7, 8, 9, 10, 11, 12]));
        assert!(view.set_vlan(VlanTag(0x6123)));
        let tag = view.vlan().unwrap();
        assert_eq!((tag.id(), tag.priority()), (0x123, 3));
        assert_eq!(
            (view.destination(), view.source()),
            (MacAddress([1, 2, 3, 4, 5, 6]), MacAddress([7, 8, 9, 10, 11, 12]))
        );
        let theirs = Ethernet2HeaderSlice::from_slice(&bytes).unwrap();
        assert_eq!((theirs.destination(), theirs.source()), ([1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12]));
        assert_eq!(bytes[14..18], [0x61, 0x23, 0xff, 0xff]);

        let mut untagged = [0; 14];
        let mut view = Ethernet::new_checked(&mut untagged).unwrap();
        assert!(!view.set_vlan(VlanTag(1)) && view.vlan().is_none());
        assert_eq!(Ethernet::new_checked(&bytes[..13]).unwrap_err(), ParseError::EthernetTruncated);
        assert_eq!(Ethernet::new_checked(&bytes[..17]).unwrap_err(), ParseError::VlanTruncated);
    }

    #[test]
    fn ipv4_fields() {
        let mut bytes = ONES;
        // The reserved flag is none that etherparse keeps.
        (bytes[0], bytes[6]) = (0x46, 0x7f);
        let mut view = Ipv4::new_checked(&mut bytes).unwrap();
        view.set_tos(0xb9);
        view.set_total_len(0x1234);
        view.set_identification(0x5678);
        view.set_dont_fragment(false);
        view.set_ttl(9);
        view.set_protocol(Protocol::UDP);
        view.set_source([1, 2, 3, 4].into());
        view.set_destination([5, 6, 7, 8].into());
        view.fill_checksum();
        assert!(view.verify_checksum() && view.more_fragments() && !view.dont_fragment());
        assert_eq!((view.header_len(), view.fragment_offset(), view.tos()), (24, 0xfff8, 0xb9));
        view.set_dont_fragment(true);
        assert!(view.dont_fragment() && !view.verify_checksum());
        view.fill_checksum();
        let theirs = Ipv4HeaderSlice::from_slice(&bytes).unwrap().to_header();
        assert_eq!((theirs.dscp.value(), theirs.ecn.value()), (0xb9 >> 2, 0xb9 & 3));
        assert_eq!((theirs.total_len, theirs.identification), (0x1234, 0x5678));
        assert_eq!(
            (theirs.dont_fragment, theirs.more_fragments, theirs.fragment_offset.value()),
            (true, true, 0x1fff)
        );
        assert_eq!((theirs.time_to_live, theirs.protocol.0), (9, 17));
        assert_eq!((theirs.source, theirs.destination), ([1, 2, 3, 4], [5, 6, 7, 8]));
        assert_eq!(theirs.header_checksum, theirs.calc_header_checksum());
        assert_eq!(bytes[20..], ONES[20..], "options and payload are left alone");
        assert_eq!(Ipv4::new_checked(&bytes[..23]).unwrap_err(), ParseError::Ipv4Truncated);
    }

    #[test]
    fn ipv6_fields() {
        let mut bytes = ONES;
        bytes[0] = 0x6f;
        let mut view = Ipv6::new_checked(&mut bytes).unwrap();
        view.set_traffic_class(0x12);
        assert_eq!((view.traffic_class(), view.flow_label()), (0x12, 0xf_ffff));
        view.set_flow_label(0xab_cdef);
        view.set_payload_len(0x1234);
        view.set_next_header(Protocol::TCP);
        view.set_hop_limit(7);
        view.set_source(std::net::Ipv6Addr::from_bits(1));
        view.set_destination(std::net::Ipv6Addr::from_bits(2));
        let theirs = Ipv6HeaderSlice::from_slice(&bytes).unwrap().to_header();
        assert_eq!((theirs.traffic_class, theirs.flow_label.value()), (0x12, 0xb_cdef));
        assert_eq!((theirs.payload_length, theirs.next_header.0, theirs.hop_limit), (0x1234, 6, 7));
        assert_eq!((theirs.source, theirs.destination), (1u128.to_be_bytes(), 2u128.to_be_bytes()));
        assert_eq!(Ipv6::new_checked(&bytes[..39]).unwrap_err(), ParseError::Ipv6Truncated);
    }

    #[test]
    fn tcp_fields() {
        let mut bytes = ONES;
        bytes[12] = 0x60;
        let mut view = Tcp::new_checked(&mut bytes).unwrap();
        view.set_source_port(1);
        view.set_destination_port(2);
        view.set_sequence(3);
        view.set_acknowledgment(4);
        view.set_flags(TcpFlags::SYN | TcpFlags::ECE);
        view.set_window(5);
        view.set_checksum(6);
        assert_eq!((view.header_len(), view.options(), view.checksum()), (24, &ONES[..4], 6));
        assert!(
            view.flags().contains(TcpFlags::SYN) && !view.flags().contains(TcpFlags::SYN | TcpFlags::ACK)
        );
        assert_eq!(format!("{:?}", view.flags()), "syn|ece");
        let theirs = TcpHeaderSlice::from_slice(&bytes).unwrap();
        assert_eq!((theirs.source_port(), theirs.destination_port()), (1, 2));
        assert_eq!((theirs.sequence_number(), theirs.acknowledgment_number()), (3, 4));
        assert_eq!((theirs.syn(), theirs.ece(), theirs.ack(), theirs.fin()), (true, true, false, false));
        assert_eq!((theirs.window_size(), theirs.checksum()), (5, 6));
        assert_eq!(Tcp::new_checked(&bytes[..19]).unwrap_err(), ParseError::TcpTruncated);
        assert_eq!(Tcp::new_checked(&bytes[..23]).unwrap_err(), ParseError::TcpDataOffset);
    }

    #[test]
    fn udp_and_icmp_fields() {
        let mut bytes = ONES;
        let mut view = Udp::new_checked(&mut bytes).unwrap();
        view.set_source_port(1);
        view.set_destination_port(2);
        view.set_length(30);
        view.set_checksum(4);
        let theirs = UdpHeaderSlice::from_slice(&bytes).unwrap();
        assert_eq!((theirs.source_port(), theirs.destination_port()), (1, 2));
        assert_eq!((theirs.length(), theirs.checksum()), (30, 4));
        assert_eq!(Udp::new_checked(&bytes[..7]).unwrap_err(), ParseError::UdpTruncated);
        assert_eq!(Udp::new_checked([0; 8]).unwrap_err(), ParseError::UdpLength);

        let mut bytes = [0xff; 8];
        let mut view = Icmp::new_checked(&mut bytes).unwrap();
        view.set_kind(8, 1);
        view.set_checksum(0x203);
        view.set_identifier(0x405);
        view.set_sequence(0x607);
        assert_eq!((view.kind(), view.code(), view.checksum(), view.word()), (8, 1, 0x203, 0x0405_0607));
        assert_eq!((view.identifier(), view.sequence()), (0x405, 0x607));
        assert_eq!(bytes, [8, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(Icmp::new_checked([0; 7]).unwrap_err(), ParseError::IcmpTruncated);
    }
}
