//! Answers to packets: ICMP and ICMPv6 echo replies and errors.

mod error;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use super::checksum::Change;
use super::names::{IpVersion, Protocol};
use super::parse::{Fragment, Parsed};
use super::rewrite::{swap_ip_addresses, swap_mac_addresses};
use super::view::{Ethernet, Icmp, Ipv4, Ipv6};

pub use error::{ErrorForm, IcmpError, icmp_error};

/// The time to live of answers.
const TTL: u8 = 64;

/// Makes an ICMP or ICMPv6 echo request its own reply: addresses exchanged, time to live 64, checksums updated.
///
/// Returns false and leaves the packet as it was if it is no whole echo request, has IPv4 options (a source route
/// would have to be reversed) or IPv6 extension headers, went to a group of stations on its link, or to or from an IP
/// address that is not a single host's.
pub fn echo_reply(bytes: &mut [u8], parsed: &Parsed) -> bool {
    let (request, reply) = match parsed.protocol() {
        Some(Protocol::ICMP) if parsed.is_ipv4() => (8, 0),
        Some(Protocol::ICMPV6) if parsed.is_ipv6() => (128, 129),
        _ => return false,
    };
    if parsed.fragment() != Fragment::None || parsed.has_ip_options() || !is_between_hosts(bytes, parsed) {
        return false;
    }
    let Some(range) = parsed.transport_range() else { return false };
    // Of several segments the first will do: the header lies in it.
    let end = range.end.min(bytes.len());
    let Some(message) = bytes.get_mut(range.start..end) else { return false };
    let Ok(mut icmp) = Icmp::new_checked(&mut *message) else { return false };
    if (icmp.kind(), icmp.code()) != (request, 0) {
        return false;
    }
    icmp.set_kind(reply, 0);
    let change = Change::new().replace_u16(u16::from(request) << 8, u16::from(reply) << 8);
    let checksum = change.apply(icmp.checksum());
    icmp.set_checksum(checksum);
    // Where all else is zero, as in a ping with number zero and no data, zero is what the checksum must not be.
    if message.iter().all(|&byte| byte == 0) {
        message[2..4].fill(0xff);
    }
    set_ttl(bytes, parsed);
    swap_ip_addresses(bytes, parsed) && swap_mac_addresses(bytes)
}

/// Whether the packet is from one host to one host. On the link the destination alone counts: of what goes to a group
/// there are many receivers, and all would answer. A source that is a group harms nobody but itself.
fn is_between_hosts(bytes: &[u8], parsed: &Parsed) -> bool {
    let to_group = Ethernet::new_checked(bytes).is_ok_and(|ethernet| ethernet.destination().is_multicast());
    !to_group && source(bytes, parsed).is_some_and(is_host) && destination(bytes, parsed).is_some_and(is_host)
}

/// Whether an address can be that of one host on a network.
fn is_host(address: IpAddr) -> bool {
    match address {
        // Class E, of which broadcast is the last, begins at 240.
        IpAddr::V4(address) => {
            address.octets()[0] != 0 && !address.is_loopback() && address.octets()[0] < 224
        }
        IpAddr::V6(address) => !address.is_unspecified() && !address.is_loopback() && !address.is_multicast(),
    }
}

fn source(bytes: &[u8], parsed: &Parsed) -> Option<IpAddr> {
    let header = bytes.get(parsed.l3()..)?;
    Some(match parsed.ip()? {
        IpVersion::V4 => Ipv4::new_checked(header).ok()?.source().into(),
        IpVersion::V6 => Ipv6::new_checked(header).ok()?.source().into(),
    })
}

fn destination(bytes: &[u8], parsed: &Parsed) -> Option<IpAddr> {
    let header = bytes.get(parsed.l3()..)?;
    Some(match parsed.ip()? {
        IpVersion::V4 => Ipv4::new_checked(header).ok()?.destination().into(),
        IpVersion::V6 => Ipv6::new_checked(header).ok()?.destination().into(),
    })
}

fn set_ttl(bytes: &mut [u8], parsed: &Parsed) {
    let Some(header) = bytes.get_mut(parsed.l3()..) else { return };
    if parsed.is_ipv4() {
        if let Ok(mut header) = Ipv4::new_checked(header) {
            let change = Change::new().replace_u16(u16::from(header.ttl()) << 8, u16::from(TTL) << 8);
            header.set_checksum(change.apply(header.checksum()));
            header.set_ttl(TTL);
        }
    } else if let Ok(mut header) = Ipv6::new_checked(header) {
        header.set_hop_limit(TTL);
    }
}
