//! IPv6 extension headers (RFC 8200, section 4).

use super::super::names::Protocol;
use super::ParseError;

/// Honest packets have two or three; a bound keeps a packet from being a loop of thousands of steps.
const MAX_EXTENSIONS: usize = 8;

/// What the extension headers say that matters beyond them.
pub(crate) struct Chain {
    /// Bytes of extension headers.
    pub(crate) len: usize,
    /// What follows them.
    pub(crate) protocol: Protocol,
    pub(crate) fragment: Option<FragmentHeader>,
}

/// The fragment header's fields.
#[derive(Clone, Copy)]
pub(crate) struct FragmentHeader {
    /// Where the fragment's data begin in the original, in bytes.
    pub(crate) offset: usize,
    pub(crate) more: bool,
    pub(crate) id: u32,
    /// Where the fragment header ends, counted from the end of the IPv6 header.
    pub(crate) end: usize,
}

/// Walks over the extension headers at the start of `bytes`, which follow the IPv6 header; ends after the fragment
/// header of a fragment that is not the first, for what follows it there is no header.
pub(crate) fn skip_extensions(bytes: &[u8], first: Protocol) -> Result<Chain, ParseError> {
    let mut chain = Chain { len: 0, protocol: first, fragment: None };
    for _ in 0..=MAX_EXTENSIONS {
        let unit = match chain.protocol {
            Protocol::HOP_BY_HOP if chain.len != 0 => return Err(ParseError::Ipv6ExtensionChain),
            Protocol::HOP_BY_HOP | Protocol::ROUTING | Protocol::DESTINATION_OPTIONS => 8,
            // Mobility, host identity, shim6: of the same form (RFC 6564).
            Protocol(135 | 139 | 140) => 8,
            // Its length counts in words of four bytes, less two, and is never less than three words (RFC 4302).
            Protocol::AUTHENTICATION => 4,
            // Its second byte is reserved: eight bytes whatever it says.
            Protocol::FRAGMENT => 0,
            _ => return Ok(chain),
        };
        let Some(header) = bytes.get(chain.len..).and_then(<[u8]>::first_chunk::<8>) else {
            return Err(ParseError::Ipv6ExtensionTruncated);
        };
        if chain.protocol == Protocol::AUTHENTICATION && header[1] == 0 {
            return Err(ParseError::Ipv6ExtensionTruncated);
        }
        let next = Protocol(header[0]);
        chain.len += 8 + usize::from(header[1]) * unit;
        if chain.len > bytes.len() {
            return Err(ParseError::Ipv6ExtensionTruncated);
        }
        if chain.protocol == Protocol::FRAGMENT {
            if chain.fragment.is_some() {
                return Err(ParseError::Ipv6ExtensionChain);
            }
            let offset_more = u16::from_be_bytes([header[2], header[3]]);
            let fragment = FragmentHeader {
                offset: usize::from(offset_more & 0xfff8),
                more: offset_more & 1 != 0,
                id: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
                end: chain.len,
            };
            chain.fragment = Some(fragment);
            if fragment.offset != 0 {
                chain.protocol = next;
                return Ok(chain);
            }
        }
        chain.protocol = next;
    }
    Err(ParseError::Ipv6ExtensionChain)
}
