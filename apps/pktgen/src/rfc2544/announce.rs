//! Learning frames: what tells the device where the test's addresses are (RFC 2544, section 23 and appendix C.2.4.4).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd as _;

use afx::packet::checksum::Sum;
use afx::packet::{Builder, MacAddress, Protocol};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, bind, send, socket};

/// Says on an interface's link that an address is there, unasked: by ARP, or neighbour discovery (RFC 4861, section
/// 7.2.6). Switches learn the port by it, and routers that know the address its MAC address.
///
/// # Errors
/// The kernel's.
pub(super) fn announce(interface: &str, mac: MacAddress, address: IpAddr) -> io::Result<()> {
    let packet = match address {
        IpAddr::V4(address) => arp(mac, address),
        IpAddr::V6(address) => neighbour_advertisement(mac, address),
    };
    let link = nix::ifaddrs::getifaddrs()?
        .filter(|found| found.interface_name == interface)
        .find_map(|found| found.address?.as_link_addr().copied())
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("{interface} has no link address")))?;
    // No protocol: it receives nothing.
    let fd = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?;
    bind(fd.as_raw_fd(), &link)?;
    send(fd.as_raw_fd(), &packet, MsgFlags::empty())?;
    Ok(())
}

/// An ARP announcement (RFC 5227, section 3).
fn arp(mac: MacAddress, address: Ipv4Addr) -> Vec<u8> {
    let mut packet = [&[0xff; 6], &mac.0[..], &[0x08, 0x06]].concat();
    // Ethernet, IPv4, their lengths, and a request.
    packet.extend([0, 1, 8, 0, 6, 4, 0, 1]);
    packet.extend([&mac.0[..], &address.octets(), &[0; 6], &address.octets()].concat());
    packet.resize(60, 0);
    packet
}

fn neighbour_advertisement(mac: MacAddress, address: Ipv6Addr) -> Vec<u8> {
    const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    const ALL_NODES_MAC: MacAddress = MacAddress([0x33, 0x33, 0, 0, 0, 1]);
    // Type, code, checksum; the flag to override what was known; the address; and an option with the MAC address.
    let mut message = vec![136, 0, 0, 0, 0x20, 0, 0, 0];
    message.extend(address.octets());
    message.extend([2, 1]);
    message.extend(mac.0);
    let sum = Sum::new().add_pseudo_v6(address, ALL_NODES, Protocol::ICMPV6, message.len() as u32);
    let checksum = sum.add_bytes(&message).checksum();
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    let mut packet = vec![0; 14 + 40 + message.len()];
    let length = Builder::ip(address.into(), ALL_NODES.into(), Protocol::ICMPV6)
        .macs(mac, ALL_NODES_MAC)
        .ttl(255)
        .write(&mut packet, &message)
        .expect("two IPv6 addresses, and room");
    packet.truncate(length);
    packet
}

#[cfg(test)]
mod tests {
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};

    use super::*;

    const MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 7]);

    #[test]
    fn arp_says_where_the_address_is() {
        let packet = arp(MAC, Ipv4Addr::new(198, 18, 0, 2));
        let parsed = SlicedPacket::from_ethernet(&packet).unwrap();
        let Some(NetSlice::Arp(arp)) = parsed.net else { panic!("no ARP") };
        assert_eq!((arp.sender_hw_addr(), arp.sender_protocol_addr()), (&MAC.0[..], &[198, 18, 0, 2][..]));
        assert_eq!(arp.target_protocol_addr(), [198, 18, 0, 2]);
    }

    #[test]
    fn an_advertisement_is_whole_and_its_sum_is_right() {
        let address: Ipv6Addr = "2001:2::2".parse().unwrap();
        let packet = neighbour_advertisement(MAC, address);
        let parsed = SlicedPacket::from_ethernet(&packet).unwrap();
        let Some(NetSlice::Ipv6(ip)) = parsed.net else { panic!("no IPv6") };
        let Some(TransportSlice::Icmpv6(icmp)) = parsed.transport else { panic!("no ICMPv6") };
        assert_eq!((ip.header().hop_limit(), icmp.type_u8()), (255, 136));
        assert!(icmp.is_checksum_valid(ip.header().source(), ip.header().destination()));
        assert_eq!(packet[packet.len() - 6..], MAC.0);
    }
}
