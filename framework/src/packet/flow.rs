//! Flows: who talks to whom.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::hash::HashSeed;
use super::names::{IpVersion, Protocol};
use super::parse::{Fragment, Parsed, skip_extensions};

/// Tells the hash of fragments from that of flows.
const FRAGMENT_MARK: u64 = 1 << 40;

/// An IPv4 flow in 16 bytes: addresses, protocol, ports.
///
/// It is kept as two words that compare and hash at once; [`words`](Self::words) is for tables that store them.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct FlowKey4([u64; 2]);

/// An IPv6 flow in 40 bytes: addresses, protocol, ports.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct FlowKey6([u64; 5]);

/// A flow of either IP version.
///
/// The ports are those of TCP, UDP and SCTP. An ICMP echo has its identifier for both, so that request and reply are
/// each other's reverse; any other protocol has zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum FlowKey {
    /// An IPv4 flow.
    V4(FlowKey4),
    /// An IPv6 flow.
    V6(FlowKey6),
}

impl FlowKey4 {
    /// The flow of these addresses and ports.
    pub fn new(
        source: Ipv4Addr,
        destination: Ipv4Addr,
        protocol: Protocol,
        source_port: u16,
        destination_port: u16,
    ) -> Self {
        let [a, b, c, d] = source.octets();
        let [e, f, g, h] = destination.octets();
        Self::from_wire([a, b, c, d, e, f, g, h], wire_ports(source_port, destination_port), protocol)
    }

    /// From source and destination address, and source and destination port, as they follow each other in headers.
    #[inline]
    pub(super) const fn from_wire(addresses: [u8; 8], ports: [u8; 4], protocol: Protocol) -> Self {
        Self([u64::from_le_bytes(addresses), rest_word(ports, protocol)])
    }

    #[inline]
    pub(super) const fn hash_fragment(
        addresses: [u8; 8],
        protocol: Protocol,
        id: u16,
        seed: HashSeed,
    ) -> u64 {
        seed.hash_v4([u64::from_le_bytes(addresses), FRAGMENT_MARK | (protocol.0 as u64) << 32 | id as u64])
    }

    /// The key as two words that no other flow has.
    #[inline]
    pub const fn words(&self) -> [u64; 2] {
        self.0
    }

    /// The key of which [`words`](Self::words) returned these.
    #[inline]
    pub const fn from_words(words: [u64; 2]) -> Self {
        Self(words)
    }

    /// The sender's address.
    #[inline]
    pub const fn source(&self) -> Ipv4Addr {
        let [a, b, c, d, ..] = self.0[0].to_le_bytes();
        Ipv4Addr::new(a, b, c, d)
    }

    /// The receiver's address.
    #[inline]
    pub const fn destination(&self) -> Ipv4Addr {
        let [.., a, b, c, d] = self.0[0].to_le_bytes();
        Ipv4Addr::new(a, b, c, d)
    }

    /// The sender's port, or zero.
    #[inline]
    pub const fn source_port(&self) -> u16 {
        (self.0[1] as u16).swap_bytes()
    }

    /// The receiver's port, or zero.
    #[inline]
    pub const fn destination_port(&self) -> u16 {
        ((self.0[1] >> 16) as u16).swap_bytes()
    }

    /// The transport protocol.
    #[inline]
    pub const fn protocol(&self) -> Protocol {
        Protocol((self.0[1] >> 32) as u8)
    }

    /// The flow in the other direction.
    #[inline]
    pub const fn reversed(&self) -> Self {
        Self([self.0[0].rotate_left(32), reversed_rest(self.0[1])])
    }

    /// The hash that [`Parsed::hash`] has for a whole packet of this flow.
    #[inline]
    pub const fn hash(&self, seed: HashSeed) -> u64 {
        seed.hash_v4(self.0)
    }
}

impl FlowKey6 {
    /// The flow of these addresses and ports.
    pub fn new(
        source: Ipv6Addr,
        destination: Ipv6Addr,
        protocol: Protocol,
        source_port: u16,
        destination_port: u16,
    ) -> Self {
        let mut addresses = [0; 32];
        addresses[..16].copy_from_slice(&source.octets());
        addresses[16..].copy_from_slice(&destination.octets());
        Self::from_wire(&addresses, wire_ports(source_port, destination_port), protocol)
    }

    /// From source and destination address, and source and destination port, as they follow each other in headers.
    #[inline]
    pub(super) fn from_wire(addresses: &[u8; 32], ports: [u8; 4], protocol: Protocol) -> Self {
        let [a, b, c, d] = address_words(addresses);
        Self([a, b, c, d, rest_word(ports, protocol)])
    }

    #[inline]
    pub(super) fn hash_fragment(addresses: &[u8; 32], id: u32, seed: HashSeed) -> u64 {
        let [a, b, c, d] = address_words(addresses);
        seed.hash_v6([a, b, c, d, FRAGMENT_MARK | (Protocol::FRAGMENT.0 as u64) << 32 | u64::from(id)])
    }

    /// The key as five words that no other flow has.
    #[inline]
    pub const fn words(&self) -> [u64; 5] {
        self.0
    }

    /// The key of which [`words`](Self::words) returned these.
    #[inline]
    pub const fn from_words(words: [u64; 5]) -> Self {
        Self(words)
    }

    /// The sender's address.
    #[inline]
    pub fn source(&self) -> Ipv6Addr {
        address(self.0[0], self.0[1])
    }

    /// The receiver's address.
    #[inline]
    pub fn destination(&self) -> Ipv6Addr {
        address(self.0[2], self.0[3])
    }

    /// The sender's port, or zero.
    #[inline]
    pub const fn source_port(&self) -> u16 {
        (self.0[4] as u16).swap_bytes()
    }

    /// The receiver's port, or zero.
    #[inline]
    pub const fn destination_port(&self) -> u16 {
        ((self.0[4] >> 16) as u16).swap_bytes()
    }

    /// The transport protocol.
    #[inline]
    pub const fn protocol(&self) -> Protocol {
        Protocol((self.0[4] >> 32) as u8)
    }

    /// The flow in the other direction.
    #[inline]
    pub const fn reversed(&self) -> Self {
        let [a, b, c, d, rest] = self.0;
        Self([c, d, a, b, reversed_rest(rest)])
    }

    /// The hash that [`Parsed::hash`] has for a whole packet of this flow.
    #[inline]
    pub const fn hash(&self, seed: HashSeed) -> u64 {
        seed.hash_v6(self.0)
    }
}

impl FlowKey {
    /// The flow of these addresses and ports; nothing if the addresses differ in version.
    pub fn new(
        source: IpAddr,
        destination: IpAddr,
        protocol: Protocol,
        source_port: u16,
        destination_port: u16,
    ) -> Option<Self> {
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                Some(Self::V4(FlowKey4::new(source, destination, protocol, source_port, destination_port)))
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                Some(Self::V6(FlowKey6::new(source, destination, protocol, source_port, destination_port)))
            }
            _ => None,
        }
    }

    /// The sender's address.
    pub fn source(&self) -> IpAddr {
        match self {
            Self::V4(key) => key.source().into(),
            Self::V6(key) => key.source().into(),
        }
    }

    /// The receiver's address.
    pub fn destination(&self) -> IpAddr {
        match self {
            Self::V4(key) => key.destination().into(),
            Self::V6(key) => key.destination().into(),
        }
    }

    /// The sender's port, or zero.
    pub const fn source_port(&self) -> u16 {
        match self {
            Self::V4(key) => key.source_port(),
            Self::V6(key) => key.source_port(),
        }
    }

    /// The receiver's port, or zero.
    pub const fn destination_port(&self) -> u16 {
        match self {
            Self::V4(key) => key.destination_port(),
            Self::V6(key) => key.destination_port(),
        }
    }

    /// The transport protocol.
    pub const fn protocol(&self) -> Protocol {
        match self {
            Self::V4(key) => key.protocol(),
            Self::V6(key) => key.protocol(),
        }
    }

    /// The flow in the other direction.
    #[inline]
    pub const fn reversed(&self) -> Self {
        match self {
            Self::V4(key) => Self::V4(key.reversed()),
            Self::V6(key) => Self::V6(key.reversed()),
        }
    }

    /// The hash that [`Parsed::hash`] has for a whole packet of this flow.
    #[inline]
    pub const fn hash(&self, seed: HashSeed) -> u64 {
        match self {
            Self::V4(key) => key.hash(seed),
            Self::V6(key) => key.hash(seed),
        }
    }
}

impl From<FlowKey4> for FlowKey {
    fn from(key: FlowKey4) -> Self {
        Self::V4(key)
    }
}

impl From<FlowKey6> for FlowKey {
    fn from(key: FlowKey6) -> Self {
        Self::V6(key)
    }
}

/// As in "tcp 192.0.2.1:4000 > 198.51.100.7:80".
impl fmt::Display for FlowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use std::net::SocketAddr;
        let source = SocketAddr::new(self.source(), self.source_port());
        let destination = SocketAddr::new(self.destination(), self.destination_port());
        write!(f, "{} {source} > {destination}", self.protocol())
    }
}

impl fmt::Debug for FlowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for FlowKey4 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&FlowKey::V4(*self), f)
    }
}

impl fmt::Debug for FlowKey6 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&FlowKey::V6(*self), f)
    }
}

/// The flow of a packet that was parsed as `parsed`.
///
/// Nothing if it is not an IP packet, or a later fragment, which does not say its ports.
#[inline]
pub fn flow_key(bytes: &[u8], parsed: &Parsed) -> Option<FlowKey> {
    if parsed.fragment() == Fragment::Later {
        return None;
    }
    let protocol = parsed.protocol()?;
    let ports = match parsed.transport() {
        Some(start) => ports(bytes.get(start..)?.first_chunk()?, protocol),
        None => [0; 4],
    };
    let ip = bytes.get(parsed.l3()..)?;
    Some(match parsed.ip()? {
        IpVersion::V4 => {
            let header = ip.first_chunk::<20>()?;
            FlowKey4::from_wire(*header.last_chunk()?, ports, protocol).into()
        }
        IpVersion::V6 => {
            let header = ip.first_chunk::<40>()?;
            FlowKey6::from_wire(header.last_chunk()?, ports, protocol).into()
        }
    })
}

/// The same of a [plain](Parsed::is_plain) packet over IPv4: its addresses end the IP header, and its ports begin the
/// next one.
#[inline(always)]
pub(crate) fn plain_flow_v4(bytes: &[u8], parsed: &Parsed) -> Option<FlowKey4> {
    let both: &[u8; 12] = bytes.get(parsed.transport()?.checked_sub(8)?..)?.first_chunk()?;
    let (addresses, ports) = both.split_first_chunk()?;
    Some(FlowKey4::from_wire(*addresses, *ports.first_chunk()?, parsed.protocol()?))
}

/// The same of a [plain](Parsed::is_plain) packet over IPv6.
#[inline(always)]
pub(crate) fn plain_flow_v6(bytes: &[u8], parsed: &Parsed) -> Option<FlowKey6> {
    let both: &[u8; 36] = bytes.get(parsed.transport()?.checked_sub(32)?..)?.first_chunk()?;
    let (addresses, ports) = both.split_first_chunk()?;
    Some(FlowKey6::from_wire(addresses, *ports.first_chunk()?, parsed.protocol()?))
}

/// The flow of the packet that an ICMP or ICMPv6 error quotes, as its sender sent it: an error about a packet from a
/// VIP to a client has the VIP as source. [`reversed`](FlowKey::reversed) is the flow of the packets it answered.
///
/// Nothing if the packet is not such an error, quotes too little or no first fragment, or was not sent to the quoted
/// packet's sender: then it is forged or astray.
pub fn embedded_flow(bytes: &[u8], parsed: &Parsed) -> Option<FlowKey> {
    let range = parsed.transport_range()?;
    // Of several segments the first will do: what is quoted of the headers lies in it.
    let message = bytes.get(range.start..range.end.min(bytes.len()))?;
    let outer = flow_key(bytes, parsed)?;
    let quoted = message.get(8..)?;
    let flow = match (parsed.protocol()?, message.first()?) {
        // Destination unreachable, source quench, redirect, time exceeded, parameter problem (RFC 792).
        (Protocol::ICMP, 3 | 4 | 5 | 11 | 12) if parsed.is_ipv4() => quoted_ipv4(quoted)?,
        // The types that are errors have the high bit clear (RFC 4443, section 2.1).
        (Protocol::ICMPV6, 1..=127) if parsed.is_ipv6() => quoted_ipv6(quoted)?,
        _ => return None,
    };
    (flow.source() == outer.destination()).then_some(flow)
}

fn quoted_ipv4(quoted: &[u8]) -> Option<FlowKey> {
    let header = quoted.first_chunk::<20>()?;
    let header_len = usize::from(header[0] & 0xf) * 4;
    let offset = u16::from_be_bytes([header[6], header[7]]) & 0x1fff;
    if header[0] >> 4 != 4 || header_len < 20 || offset != 0 {
        return None;
    }
    let protocol = Protocol(header[9]);
    let ports = ports(quoted.get(header_len..)?.first_chunk()?, protocol);
    Some(FlowKey4::from_wire(*header.last_chunk()?, ports, protocol).into())
}

fn quoted_ipv6(quoted: &[u8]) -> Option<FlowKey> {
    let header = quoted.first_chunk::<40>()?;
    if header[0] >> 4 != 6 {
        return None;
    }
    let after_header = &quoted[40..];
    let chain = skip_extensions(after_header, Protocol(header[6])).ok()?;
    if chain.fragment.is_some_and(|fragment| fragment.offset != 0) {
        return None;
    }
    let ports = ports(after_header.get(chain.len..)?.first_chunk()?, chain.protocol);
    Some(FlowKey6::from_wire(header.last_chunk()?, ports, chain.protocol).into())
}

/// The ports of a transport header that begins with `first`, as they lie on the wire.
#[inline]
pub(super) const fn ports(first: &[u8; 8], protocol: Protocol) -> [u8; 4] {
    match protocol {
        Protocol::TCP | Protocol::UDP | Protocol::SCTP => [first[0], first[1], first[2], first[3]],
        // Echo and echo reply: the identifier.
        Protocol::ICMP if matches!(first[0], 0 | 8) => [first[4], first[5], first[4], first[5]],
        Protocol::ICMPV6 if matches!(first[0], 128 | 129) => [first[4], first[5], first[4], first[5]],
        _ => [0; 4],
    }
}

const fn wire_ports(source: u16, destination: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (source.to_be_bytes(), destination.to_be_bytes());
    [a, b, c, d]
}

#[inline]
const fn rest_word(ports: [u8; 4], protocol: Protocol) -> u64 {
    u32::from_le_bytes(ports) as u64 | (protocol.0 as u64) << 32
}

#[inline]
const fn reversed_rest(rest: u64) -> u64 {
    rest & !0xffff_ffff | (rest as u32).rotate_left(16) as u64
}

#[inline]
fn address_words(addresses: &[u8; 32]) -> [u64; 4] {
    let word = |at: usize| {
        let [a, b, c, d, e, f, g, h, ..] = *addresses.split_at(at).1 else { return 0 };
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    };
    [word(0), word(8), word(16), word(24)]
}

fn address(high: u64, low: u64) -> Ipv6Addr {
    let mut octets = [0; 16];
    octets[..8].copy_from_slice(&high.to_le_bytes());
    octets[8..].copy_from_slice(&low.to_le_bytes());
    octets.into()
}
