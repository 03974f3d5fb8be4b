//! Parsing: one walk over the headers, from Ethernet to transport.

mod error;
mod extensions;
#[cfg(test)]
mod oracle;
mod parsed;
#[cfg(test)]
mod tests;

pub use error::ParseError;
pub(super) use extensions::skip_extensions;
pub(crate) use parsed::Outcome;
pub use parsed::{Fragment, Parsed};

use super::flow::{FlowKey4, FlowKey6};
use super::hash::HashSeed;
use super::names::{EtherType, Protocol};
use parsed::{Found, Kind};

const ETHERNET_LEN: usize = 14;
const IPV4_LEN: usize = 20;
const IPV6_LEN: usize = 40;

/// Parses a packet that lies wholly in `bytes`, beginning with its Ethernet header, and hashes it with seed zero.
///
/// What is not IP is not malformed: only its Ethernet header is looked at. Checksums are not verified.
///
/// # Errors
///
/// The headers contradict each other or the number of bytes. Bytes behind the IP packet are padding, and no error.
///
/// ```
/// use afx::packet::{ParseError, parse};
///
/// assert_eq!(parse(&[0; 13]), Err(ParseError::EthernetTruncated));
/// let not_ip = parse(&[0; 60])?;
/// assert_eq!(not_ip.ip(), None);
/// # Ok::<(), ParseError>(())
/// ```
#[inline]
pub fn parse(bytes: &[u8]) -> Result<Parsed, ParseError> {
    parse_head(bytes, bytes.len(), HashSeed::default())
}

/// Parses a packet of `packet_len` bytes of which `head` has the first: all of its headers. Hashes with `seed`.
///
/// # Errors
///
/// As [`parse`]; a header that goes on beyond `head` is truncated.
#[inline]
pub fn parse_head(head: &[u8], packet_len: usize, seed: HashSeed) -> Result<Parsed, ParseError> {
    if let Some(parsed) = parse_common(head, packet_len, seed) {
        Ok(parsed)
    } else {
        parse_any(head, packet_len, seed)
    }
}

/// What nearly all packets are: whole, untagged TCP or UDP over IPv4 without options or IPv6 without extensions. The
/// rest, and all that is malformed, is left to [`parse_any`], which agrees with this wherever both have an answer.
///
/// Inlined for sure: what it finds stays in registers.
#[inline(always)]
pub(crate) fn parse_common(head: &[u8], packet_len: usize, seed: HashSeed) -> Option<Parsed> {
    let ethernet = head.first_chunk::<ETHERNET_LEN>()?;
    match EtherType(u16::from_be_bytes([ethernet[12], ethernet[13]])) {
        EtherType::IPV4 => parse_common4(head, packet_len, seed),
        EtherType::IPV6 => parse_common6(head, packet_len, seed),
        _ => None,
    }
}

#[inline(always)]
fn parse_common4(head: &[u8], packet_len: usize, seed: HashSeed) -> Option<Parsed> {
    const START: usize = ETHERNET_LEN + IPV4_LEN;
    // Up to the end of a UDP header: constant offsets into it need no check.
    let bytes = head.first_chunk::<{ START + 8 }>()?;
    let is_fragment = u16::from_be_bytes([bytes[20], bytes[21]]) & 0x3fff != 0;
    if bytes[14] != 0x45 || is_fragment {
        return None;
    }
    let total_len = u16::from_be_bytes([bytes[16], bytes[17]]);
    let ip_payload_len = total_len.checked_sub(IPV4_LEN as u16)?;
    if usize::from(total_len) + ETHERNET_LEN > packet_len {
        return None;
    }
    let protocol = Protocol(bytes[23]);
    let transport_header_len = common_transport::<START>(head, protocol, ip_payload_len)?;
    let addresses = [bytes[26], bytes[27], bytes[28], bytes[29], bytes[30], bytes[31], bytes[32], bytes[33]];
    let key = FlowKey4::from_wire(addresses, [bytes[34], bytes[35], bytes[36], bytes[37]], protocol);
    Some(
        Found {
            hash: key.hash(seed),
            fragment_id: 0,
            ethertype: EtherType::IPV4,
            ip_payload: START as u16,
            ip_payload_len,
            l3: ETHERNET_LEN as u8,
            protocol,
            transport_header_len,
            kind: Kind::V4,
            fragment: Fragment::None,
        }
        .pack(),
    )
}

#[inline(always)]
fn parse_common6(head: &[u8], packet_len: usize, seed: HashSeed) -> Option<Parsed> {
    const START: usize = ETHERNET_LEN + IPV6_LEN;
    let bytes = head.first_chunk::<{ START + 8 }>()?;
    let ip_payload_len = u16::from_be_bytes([bytes[18], bytes[19]]);
    if bytes[14] >> 4 != 6 || START + usize::from(ip_payload_len) > packet_len {
        return None;
    }
    let protocol = Protocol(bytes[20]);
    let transport_header_len = common_transport::<START>(head, protocol, ip_payload_len)?;
    let (_, addresses) = bytes.split_at(22);
    let key =
        FlowKey6::from_wire(addresses.first_chunk()?, [bytes[54], bytes[55], bytes[56], bytes[57]], protocol);
    Some(
        Found {
            hash: key.hash(seed),
            fragment_id: 0,
            ethertype: EtherType::IPV6,
            ip_payload: START as u16,
            ip_payload_len,
            l3: ETHERNET_LEN as u8,
            protocol,
            transport_header_len,
            kind: Kind::V6,
            fragment: Fragment::None,
        }
        .pack(),
    )
}

/// The length of the TCP or UDP header that begins at `START` in a packet which is no fragment.
#[inline]
fn common_transport<const START: usize>(head: &[u8], protocol: Protocol, len: u16) -> Option<u8> {
    match protocol {
        Protocol::TCP => {
            let header_len = head.get(START + 12)? >> 4 << 2;
            let lies_within = u16::from(header_len) <= len && START + usize::from(header_len) <= head.len();
            (header_len >= 20 && lies_within).then_some(header_len)
        }
        Protocol::UDP => {
            let udp_len = u16::from_be_bytes([*head.get(START + 4)?, *head.get(START + 5)?]);
            (8..=len).contains(&udp_len).then_some(8)
        }
        _ => None,
    }
}

#[inline(never)]
pub(crate) fn parse_any(head: &[u8], packet_len: usize, seed: HashSeed) -> Result<Parsed, ParseError> {
    let Some(ethernet) = head.first_chunk::<ETHERNET_LEN>() else {
        return Err(ParseError::EthernetTruncated);
    };
    let mut ethertype = EtherType(u16::from_be_bytes([ethernet[12], ethernet[13]]));
    let mut l3 = ETHERNET_LEN;
    while ethertype.is_vlan() && l3 < ETHERNET_LEN + 8 {
        let Some(tag) = head.get(l3..).and_then(<[u8]>::first_chunk::<4>) else {
            return Err(ParseError::VlanTruncated);
        };
        ethertype = EtherType(u16::from_be_bytes([tag[2], tag[3]]));
        l3 += 4;
    }
    let head = &head[l3..];
    let ip_len = packet_len.saturating_sub(l3);
    match ethertype {
        EtherType::IPV4 => parse_ipv4(head, ip_len, l3, seed),
        EtherType::IPV6 => parse_ipv6(head, ip_len, l3, seed),
        _ => Ok(Found {
            hash: 0,
            fragment_id: 0,
            ethertype,
            ip_payload: l3 as u16,
            ip_payload_len: 0,
            l3: l3 as u8,
            protocol: Protocol(0),
            transport_header_len: 0,
            kind: Kind::NotIp,
            fragment: Fragment::None,
        }
        .pack()),
    }
}

fn parse_ipv4(head: &[u8], available: usize, l3: usize, seed: HashSeed) -> Result<Parsed, ParseError> {
    let Some(header) = head.first_chunk::<IPV4_LEN>() else { return Err(ParseError::Ipv4Truncated) };
    if header[0] >> 4 != 4 {
        return Err(ParseError::Ipv4Version);
    }
    let header_len = usize::from(header[0] & 0xf) * 4;
    if header_len < IPV4_LEN {
        return Err(ParseError::Ipv4HeaderLength);
    }
    if head.len() < header_len {
        return Err(ParseError::Ipv4Truncated);
    }
    let total_len = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if total_len < header_len || total_len > available {
        return Err(ParseError::Ipv4TotalLength);
    }
    let payload_len = total_len - header_len;
    let protocol = Protocol(header[9]);
    let flags_offset = u16::from_be_bytes([header[6], header[7]]);
    let fragment = fragment_of(
        flags_offset & 0x2000 != 0,
        usize::from(flags_offset & 0x1fff) * 8,
        payload_len,
        protocol,
    )?;
    let payload = upto(&head[header_len..], payload_len);
    let transport = transport(payload, payload_len, protocol, fragment)?;

    let addresses = *header.last_chunk().expect("eight of twenty bytes");
    let fragment_id = u16::from_be_bytes([header[4], header[5]]);
    let hash = match fragment {
        Fragment::None => FlowKey4::from_wire(addresses, transport.ports, protocol).hash(seed),
        _ => FlowKey4::hash_fragment(addresses, protocol, fragment_id, seed),
    };
    Ok(Found {
        hash,
        fragment_id: if fragment == Fragment::None { 0 } else { fragment_id.into() },
        ethertype: EtherType::IPV4,
        ip_payload: (l3 + header_len) as u16,
        ip_payload_len: payload_len as u16,
        l3: l3 as u8,
        protocol,
        transport_header_len: transport.header_len,
        kind: if header_len == IPV4_LEN { Kind::V4 } else { Kind::V4Options },
        fragment,
    }
    .pack())
}

fn parse_ipv6(head: &[u8], available: usize, l3: usize, seed: HashSeed) -> Result<Parsed, ParseError> {
    let Some(header) = head.first_chunk::<IPV6_LEN>() else { return Err(ParseError::Ipv6Truncated) };
    if header[0] >> 4 != 6 {
        return Err(ParseError::Ipv6Version);
    }
    let after_header = usize::from(u16::from_be_bytes([header[4], header[5]]));
    if IPV6_LEN + after_header > available {
        return Err(ParseError::Ipv6PayloadLength);
    }
    let chain = skip_extensions(upto(&head[IPV6_LEN..], after_header), Protocol(header[6]))?;
    let payload_len = after_header - chain.len;
    let fragment = match chain.fragment {
        None => Fragment::None,
        Some(place) => fragment_of(place.more, place.offset, after_header - place.end, chain.protocol)?,
    };
    let payload = upto(&head[IPV6_LEN + chain.len..], payload_len);
    let transport = transport(payload, payload_len, chain.protocol, fragment)?;

    let addresses = header.last_chunk::<32>().expect("32 of forty bytes");
    let fragment_id = chain.fragment.map_or(0, |place| place.id);
    let hash = match fragment {
        Fragment::None => FlowKey6::from_wire(addresses, transport.ports, chain.protocol).hash(seed),
        _ => FlowKey6::hash_fragment(addresses, fragment_id, seed),
    };
    Ok(Found {
        hash,
        fragment_id: if fragment == Fragment::None { 0 } else { fragment_id },
        ethertype: EtherType::IPV6,
        ip_payload: (l3 + IPV6_LEN + chain.len) as u16,
        ip_payload_len: payload_len as u16,
        l3: l3 as u8,
        protocol: chain.protocol,
        transport_header_len: transport.header_len,
        kind: if chain.len == 0 { Kind::V6 } else { Kind::V6Extensions },
        fragment,
    }
    .pack())
}

/// Which fragment one with these properties is, if it can be one.
fn fragment_of(more: bool, offset: usize, len: usize, protocol: Protocol) -> Result<Fragment, ParseError> {
    if !more && offset == 0 {
        return Ok(Fragment::None);
    }
    if more && !len.is_multiple_of(8) || offset + len > 0xffff {
        return Err(ParseError::FragmentLength);
    }
    // RFC 1858, RFC 3128: it would be reassembled over the TCP header that a filter has seen.
    if protocol == Protocol::TCP && (1..20).contains(&offset) {
        return Err(ParseError::FragmentTiny);
    }
    Ok(if offset == 0 { Fragment::First } else { Fragment::Later })
}

/// What the transport header says: its length, and the ports as they lie on the wire.
struct Transport {
    header_len: u8,
    ports: [u8; 4],
}

fn transport(
    payload: &[u8],
    len: usize,
    protocol: Protocol,
    fragment: Fragment,
) -> Result<Transport, ParseError> {
    let none = Transport { header_len: 0, ports: [0; 4] };
    if fragment == Fragment::Later {
        return Ok(none);
    }
    let (minimum, truncated) = match protocol {
        Protocol::TCP => (20, ParseError::TcpTruncated),
        Protocol::UDP => (8, ParseError::UdpTruncated),
        Protocol::ICMP | Protocol::ICMPV6 => (8, ParseError::IcmpTruncated),
        Protocol::SCTP => (12, ParseError::SctpTruncated),
        _ => return Ok(none),
    };
    let whole = fragment == Fragment::None;
    let truncated = if whole { truncated } else { ParseError::FragmentTiny };
    let Some(first) = payload.first_chunk::<8>() else { return Err(truncated) };
    if payload.len() < minimum {
        return Err(truncated);
    }
    let mut header_len = minimum;
    match protocol {
        Protocol::TCP => {
            header_len = payload.get(12).map_or(0, |byte| usize::from(byte >> 4) * 4);
            if header_len < 20 || whole && header_len > payload.len() {
                return Err(ParseError::TcpDataOffset);
            }
            if header_len > payload.len() {
                return Err(ParseError::FragmentTiny);
            }
        }
        Protocol::UDP => {
            // The length is the whole datagram's: of a first fragment, more than its payload.
            let udp_len = usize::from(u16::from_be_bytes([first[4], first[5]]));
            if udp_len < 8 || whole && udp_len > len {
                return Err(ParseError::UdpLength);
            }
        }
        _ => {}
    }
    Ok(Transport { header_len: header_len as u8, ports: super::flow::ports(first, protocol) })
}

/// The first `len` bytes, or as many as there are: a head has not all of a packet.
fn upto(bytes: &[u8], len: usize) -> &[u8] {
    bytes.get(..len).unwrap_or(bytes)
}
