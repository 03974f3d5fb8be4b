//! What the redirect program does with a packet's headers, said once more in Rust: for replaying captures without a
//! kernel, and for the program to be held against.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::steering::{Protocol, Rule, Steering};

/// `VLAN_TAGS_MAX` of parse.h, and so on.
const VLAN_TAGS_MAX: usize = 2;
const EXTENSION_HEADERS_MAX: usize = 8;
const WALK_MAX: usize = 0x7fff;

const ETHERNET_LEN: usize = 14;
const TAG_LEN: usize = 4;
const IPV4_LEN: usize = 20;
const IPV6_LEN: usize = 40;
const ICMP_LEN: usize = 8;
const EXTENSION_LEN: usize = 8;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPES_VLAN: [u16; 2] = [0x8100, 0x88a8];

const HOP_BY_HOP: Protocol = Protocol(0);
const ROUTING: Protocol = Protocol(43);
const FRAGMENT: Protocol = Protocol(44);
const DESTINATION_OPTIONS: Protocol = Protocol(60);

impl Steering {
    /// Whether the redirect program steers `packet`, which begins with its Ethernet header: if its queue has a socket
    /// and a live worker, it goes there, unless its source is on the blocklist or it is too long for a frame.
    ///
    /// This asks each rule in turn and is not made for the fast path: the program does the same by looking into
    /// tables. Packets that are cut short or malformed are not steered by rules, as there.
    ///
    /// ```
    /// use afx_redirect::{Protocol, Rule, Steering};
    ///
    /// let arp = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 8, 6];
    /// let vip = "192.0.2.1".parse::<std::net::IpAddr>().unwrap();
    /// let https = Rule::new(vip, Some(443), Some(Protocol::TCP))?;
    /// assert!(!Steering::Match(vec![https]).matches(&arp));
    /// assert!(Steering::All.matches(&arp));
    /// # Ok::<(), afx_redirect::Error>(())
    /// ```
    pub fn matches(&self, packet: &[u8]) -> bool {
        match self {
            Self::All => true,
            Self::Match(rules) => ends(packet).is_some_and(|(to, quoted)| {
                let is_steered = |end: &End| rules.iter().any(|rule| end.is_matched_by(rule));
                is_steered(&to) || quoted.as_ref().is_some_and(is_steered)
            }),
        }
    }
}

/// One end of a flow, as a packet tells of it: what a rule is held against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct End {
    address: IpAddr,
    protocol: Protocol,
    port: Port,
    /// It is a fragment's destination, or that of a packet with options.
    flowless: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Port {
    Is(u16),
    /// The protocol has none.
    None,
    /// Of a fragment, or of a packet of which too little is quoted: any port of the rule's will do.
    Unknown,
}

impl End {
    fn is_matched_by(&self, rule: &Rule) -> bool {
        let contains = match (rule.to(), self.address) {
            (IpNet::V4(net), IpAddr::V4(address)) => net.contains(&address),
            (IpNet::V6(net), IpAddr::V6(address)) => net.contains(&address),
            _ => false,
        };
        let has_port = |port| match self.port {
            Port::Is(own) => own == port,
            Port::None => false,
            Port::Unknown => self.protocol.has_ports(),
        };
        if rule.is_flowless() {
            return contains && self.flowless;
        }
        contains
            && rule.protocol().is_none_or(|protocol| protocol == self.protocol)
            && rule.port().is_none_or(has_port)
    }
}

/// Where the packet goes; and, if it is an ICMP error, where the packet that it quotes came from. None if it cannot be
/// read, or is no IP packet.
fn ends(packet: &[u8]) -> Option<(End, Option<End>)> {
    let (header, at) = network_header(packet)?;
    let ip = header.read(packet, at)?;
    let port = match ip {
        Ip { fragment: true, .. } => Port::Unknown,
        _ if ip.protocol.has_ports() => Port::Is(u16_at(packet, ip.payload + 2)?),
        _ => Port::None,
    };
    let flowless = ip.fragment || ip.options;
    let to = End { address: ip.destination, protocol: ip.protocol, port, flowless };
    Some((to, quoted(packet, header, &ip)))
}

/// The sender's end of the packet that an ICMP error quotes.
fn quoted(packet: &[u8], header: Header, error: &Ip) -> Option<End> {
    let message = packet.get(error.payload..)?;
    let is_error = match (header, error.protocol, message.first_chunk::<ICMP_LEN>()?[0]) {
        (Header::V4, Protocol::ICMP, kind) => matches!(kind, 3 | 11 | 12),
        (Header::V6, Protocol::ICMPV6, kind) => matches!(kind, 1..=4),
        _ => false,
    };
    if error.fragment || !is_error {
        return None;
    }
    let ip = header.read(packet, error.payload + ICMP_LEN)?;
    let port = match ip {
        Ip { fragment: true, .. } => Port::Unknown,
        // Both ports have to be there, though one is asked for.
        _ if ip.protocol.has_ports() => match packet.get(ip.payload..ip.payload + 4) {
            Some(_) => Port::Is(u16_at(packet, ip.payload)?),
            None => Port::Unknown,
        },
        _ => Port::None,
    };
    Some(End { address: ip.source, protocol: ip.protocol, port, flowless: false })
}

#[derive(Debug, Clone, Copy)]
enum Header {
    V4,
    V6,
}

/// What an IP header says, whichever its version.
#[derive(Debug, Clone, Copy)]
struct Ip {
    source: IpAddr,
    destination: IpAddr,
    protocol: Protocol,
    /// First fragments too, but not whole packets that have a fragment header (RFC 6946).
    fragment: bool,
    /// IPv4's: the extension headers of IPv6 are no options.
    options: bool,
    payload: usize,
}

/// The IP header behind the Ethernet header and up to two tags, and where it begins.
fn network_header(packet: &[u8]) -> Option<(Header, usize)> {
    let mut at = ETHERNET_LEN;
    let mut ethertype = u16_at(packet, at - 2)?;
    for _ in 0..VLAN_TAGS_MAX {
        if ETHERTYPES_VLAN.contains(&ethertype) {
            at += TAG_LEN;
            ethertype = u16_at(packet, at - 2)?;
        }
    }
    match ethertype {
        ETHERTYPE_IPV4 => Some((Header::V4, at)),
        ETHERTYPE_IPV6 => Some((Header::V6, at)),
        _ => None,
    }
}

impl Header {
    fn read(self, packet: &[u8], at: usize) -> Option<Ip> {
        let ip = match self {
            Self::V4 => read_ipv4(packet, at),
            Self::V6 => read_ipv6(packet, at),
        };
        ip.filter(|ip| ip.payload <= packet.len())
    }
}

fn read_ipv4(packet: &[u8], at: usize) -> Option<Ip> {
    let header = packet.get(at..)?.first_chunk::<IPV4_LEN>()?;
    let words = usize::from(header[0] & 0xf);
    if header[0] >> 4 != 4 || words < 5 {
        return None;
    }
    Some(Ip {
        source: address::<4>(header, 12)?,
        destination: address::<4>(header, 16)?,
        protocol: Protocol(header[9]),
        fragment: u16_at(header, 6)? & 0x3fff != 0,
        options: words > 5,
        payload: at + words * 4,
    })
}

fn read_ipv6(packet: &[u8], at: usize) -> Option<Ip> {
    let header = packet.get(at..)?.first_chunk::<IPV6_LEN>()?;
    if header[0] >> 4 != 6 {
        return None;
    }
    let mut ip = Ip {
        source: address::<16>(header, 8)?,
        destination: address::<16>(header, 24)?,
        protocol: Protocol(header[6]),
        fragment: false,
        options: false,
        payload: at + IPV6_LEN,
    };
    for _ in 0..=EXTENSION_HEADERS_MAX {
        if ip.fragment || !is_extension(ip.protocol) {
            return Some(ip);
        }
        let extension = packet.get(ip.payload..)?.first_chunk::<EXTENSION_LEN>()?;
        let more = if ip.protocol == FRAGMENT {
            ip.fragment = u16_at(extension, 2)? & 0xfff9 != 0;
            0
        } else {
            usize::from(extension[1]) * EXTENSION_LEN
        };
        ip.protocol = Protocol(extension[0]);
        ip.payload += EXTENSION_LEN + more;
        if ip.payload > WALK_MAX {
            return None;
        }
    }
    // The chain is too long; but a fragment's ends with its fragment header, where nothing is left to be looked at.
    ip.fragment.then_some(ip)
}

fn is_extension(protocol: Protocol) -> bool {
    matches!(protocol, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION_OPTIONS)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|field| u16::from_be_bytes(*field))
}

fn address<const N: usize>(header: &[u8], at: usize) -> Option<IpAddr>
where
    IpAddr: From<[u8; N]>,
{
    header.get(at..)?.first_chunk::<N>().map(|octets| IpAddr::from(*octets))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::packets::{self, *};

    const VIP: &str = "2001:db8::1";

    fn steering(port: u16) -> Steering {
        let to: IpAddr = VIP.parse().expect("an address");
        Steering::Match(vec![Rule::new(to, Some(port), Some(Protocol::UDP)).expect("it can match")])
    }

    /// Longer than a page: the kernel does not run the program over such a packet for tests.
    #[test]
    fn a_walk_ends_where_the_programs_does() {
        let steering = steering(443);
        let chain = |headers: usize, inner: Vec<u8>| {
            (1..headers).fold(extension(UDP, 255, &inner), |inner, _| {
                extension(packets::DESTINATION_OPTIONS, 255, &inner)
            })
        };
        let long = ip("2001:db8::9", VIP, packets::DESTINATION_OPTIONS, &chain(8, ports(9, 443)));
        assert!(steering.matches(&frame(&long)));
        let quoting = |headers| {
            let quoted = ip(VIP, "2001:db8::9", packets::DESTINATION_OPTIONS, &chain(headers, ports(443, 9)));
            let error = chain(8, icmp(1, &quoted));
            let mut error = ip("2001:db8::7", VIP, packets::DESTINATION_OPTIONS, &error);
            // The chain says UDP at its end.
            let last = 40 + 7 * 2048;
            error[last] = ICMPV6;
            frame(&error)
        };
        assert!(steering.matches(&quoting(7)));
        assert!(!steering.matches(&quoting(8)), "beyond what the verifier is told of");
    }
}
