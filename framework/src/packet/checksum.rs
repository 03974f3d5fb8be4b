//! The internet checksum (RFC 1071), its incremental update (RFC 1624), and those of the transport protocols.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::names::{IpVersion, Protocol};
use super::parse::{Fragment, Parsed};
use super::view::Ipv4;

/// A running ones' complement sum.
///
/// ```
/// use afx::packet::checksum::Sum;
///
/// // The example of RFC 1071, section 3.
/// let data = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
/// assert_eq!(Sum::new().add_bytes(&data).checksum(), !0xddf2);
/// // In parts, of which one is odd.
/// assert_eq!(Sum::new().add_bytes(&data[..3]).add_bytes(&data[3..]).checksum(), !0xddf2);
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[must_use]
pub struct Sum {
    /// Little-endian words summed; the ones' complement sum does not mind which, as long as all are alike.
    words: u64,
    /// Whether an odd number of bytes was added.
    odd: bool,
}

impl Sum {
    /// The sum of nothing.
    #[inline]
    pub const fn new() -> Self {
        Self { words: 0, odd: false }
    }

    /// Adds `bytes` as if they followed all that was added before: packets of several segments can be summed.
    #[inline]
    pub fn add_bytes(self, bytes: &[u8]) -> Self {
        let sum = sum_words(bytes);
        // Behind an odd number of bytes, all bytes stand in the other half of their word (RFC 1071, section 2, B).
        let sum = if self.odd { u64::from(fold(sum).swap_bytes()) } else { sum };
        Self { words: add(self.words, sum), odd: self.odd ^ !bytes.len().is_multiple_of(2) }
    }

    /// Adds the bytes of a packet that lies in several segments, in their order.
    #[inline]
    pub fn add_segments<'a>(self, segments: impl IntoIterator<Item = &'a [u8]>) -> Self {
        segments.into_iter().fold(self, Self::add_bytes)
    }

    /// Adds another sum, as if what it sums followed all that was added before.
    #[inline]
    pub const fn add_sum(self, other: Self) -> Self {
        let words = if self.odd { fold(other.words).swap_bytes() as u64 } else { other.words };
        Self { words: add(self.words, words), odd: self.odd ^ other.odd }
    }

    /// Adds a 16-bit number. An even number of bytes must have been added before.
    #[inline]
    pub const fn add_u16(self, number: u16) -> Self {
        Self { words: add(self.words, number.swap_bytes() as u64), odd: self.odd }
    }

    /// Adds a 32-bit number. An even number of bytes must have been added before.
    #[inline]
    pub const fn add_u32(self, number: u32) -> Self {
        Self { words: add(self.words, number.swap_bytes() as u64), odd: self.odd }
    }

    /// Adds the pseudo-header of TCP or UDP over IPv4 (RFC 9293, section 3.1); `len` counts from the transport header.
    #[inline]
    pub const fn add_pseudo_v4(
        self,
        source: Ipv4Addr,
        destination: Ipv4Addr,
        protocol: Protocol,
        len: u16,
    ) -> Self {
        self.add_u32(source.to_bits()).add_u32(destination.to_bits()).add_u16(protocol.0 as u16).add_u16(len)
    }

    /// Adds the pseudo-header of what goes over IPv6 (RFC 8200, section 8.1); `len` counts from the transport header.
    #[inline]
    pub fn add_pseudo_v6(
        self,
        source: Ipv6Addr,
        destination: Ipv6Addr,
        protocol: Protocol,
        len: u32,
    ) -> Self {
        self.add_bytes(&source.octets())
            .add_bytes(&destination.octets())
            .add_u32(len)
            .add_u16(protocol.0.into())
    }

    /// The checksum: the complement of the sum. It is zero if what was added contained a right checksum.
    #[inline]
    pub const fn checksum(self) -> u16 {
        !fold(self.words).swap_bytes()
    }

    /// The checksum as UDP writes it: zero means none, so 0xffff stands for it (RFC 768).
    #[inline]
    pub const fn udp_checksum(self) -> u16 {
        match self.checksum() {
            0 => 0xffff,
            checksum => checksum,
        }
    }
}

/// The checksum of `bytes`.
#[inline]
pub fn checksum(bytes: &[u8]) -> u16 {
    Sum::new().add_bytes(bytes).checksum()
}

/// What replaced fields change in the checksums that cover them. Worked out once, applied to several checksums, or
/// to those of every packet of a flow.
///
/// ```
/// use afx::packet::checksum::{Change, checksum};
///
/// let mut header = [0x45, 0, 0, 0x54, 0, 0, 0x40, 0, 64, 1, 10, 0, 0, 1, 10, 0, 0, 2];
/// let before = checksum(&header);
/// header[8] = 63;
/// let change = Change::new().replace_u16(0x4001, 0x3f01);
/// assert_eq!(change.apply(before), checksum(&header));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Change(u64);

impl Change {
    /// No change.
    #[inline]
    pub const fn new() -> Self {
        Self(0)
    }

    /// A 16-bit field changes from `old` to `new`.
    #[inline]
    pub const fn replace_u16(self, old: u16, new: u16) -> Self {
        Self(add(self.0, !old as u64 + new as u64))
    }

    /// A 32-bit field changes from `old` to `new`.
    #[inline]
    pub const fn replace_u32(self, old: u32, new: u32) -> Self {
        Self(add(self.0, !old as u64 + new as u64))
    }

    /// An IPv4 address changes from `old` to `new`.
    #[inline]
    pub const fn replace_v4(self, old: Ipv4Addr, new: Ipv4Addr) -> Self {
        self.replace_u32(old.to_bits(), new.to_bits())
    }

    /// An IPv6 address changes from `old` to `new`.
    #[inline]
    pub const fn replace_v6(self, old: Ipv6Addr, new: Ipv6Addr) -> Self {
        let (old, new) = (!old.to_bits(), new.to_bits());
        let halves = add(add(old as u64, (old >> 64) as u64), add(new as u64, (new >> 64) as u64));
        Self(add(self.0, halves))
    }

    /// The checksum `old` after the change: equation 3 of RFC 1624, which keeps 0 and 0xffff apart where they differ.
    #[inline]
    pub const fn apply(self, old: u16) -> u16 {
        !fold(add(self.0, !old as u64))
    }

    /// The UDP checksum `old` after the change: zero, which is none, stays, and what becomes zero is written 0xffff.
    #[inline]
    pub const fn apply_udp(self, old: u16) -> u16 {
        match (old, self.apply(old)) {
            (0, _) => 0,
            (_, 0) => 0xffff,
            (_, new) => new,
        }
    }
}

/// Whether the checksum of the IPv4 header is right. Not so if it is no IPv4 packet.
#[inline]
pub fn verify_ipv4(bytes: &[u8], parsed: &Parsed) -> bool {
    parsed.is_ipv4() && bytes.get(ipv4_header(parsed)).is_some_and(|header| checksum(header) == 0)
}

/// Writes the checksum of the IPv4 header; false if it is no IPv4 packet.
#[inline]
pub fn fill_ipv4(bytes: &mut [u8], parsed: &Parsed) -> bool {
    if !parsed.is_ipv4() {
        return false;
    }
    let Some(header) = bytes.get_mut(ipv4_header(parsed)) else { return false };
    let Ok(mut header) = Ipv4::new_checked(header) else { return false };
    header.fill_checksum();
    true
}

/// Whether the checksum of the TCP, UDP, ICMP or ICMPv6 packet is right; a UDP packet over IPv4 may have none.
/// Nothing where that cannot be said: of fragments, other protocols (SCTP has a CRC), and where `bytes` is not all of
/// the packet.
///
/// An IPv6 packet with a routing header that is not yet used up is summed over the final destination, which is not
/// looked for: its checksum appears wrong on the way.
pub fn verify_transport(bytes: &[u8], parsed: &Parsed) -> Option<bool> {
    let protocol = parsed.protocol()?;
    let segment = segment(bytes, parsed)?;
    if protocol == Protocol::UDP && segment.get(6..8)? == [0, 0] {
        // Over IPv6 there must be one (RFC 8200, section 8.1).
        return Some(parsed.is_ipv4());
    }
    Some(transport_sum(bytes, parsed, segment)?.checksum() == 0)
}

/// Writes the checksum of the TCP, UDP, ICMP or ICMPv6 packet; false, with nothing written, where
/// [`verify_transport`] says nothing.
pub fn fill_transport(bytes: &mut [u8], parsed: &Parsed) -> bool {
    let Some(sum) = segment(bytes, parsed).and_then(|segment| transport_sum(bytes, parsed, segment)) else {
        return false;
    };
    let (Some(start), Some(protocol)) = (parsed.transport(), parsed.protocol()) else { return false };
    let at = start + checksum_offset(protocol);
    // What the field holds was summed too: it is taken out again.
    let Some(field) = bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<2>) else { return false };
    let sum = sum.add_u16(!u16::from_be_bytes(*field));
    // Sums that are zero are written 0xffff in UDP; a checksum of zero from nothing but zeros does not occur, for the
    // pseudo-header has a protocol.
    let checksum = if protocol == Protocol::UDP { sum.udp_checksum() } else { sum.checksum() };
    *field = checksum.to_be_bytes();
    true
}

/// Where the checksum lies in a transport header.
#[inline]
pub(super) const fn checksum_offset(protocol: Protocol) -> usize {
    match protocol {
        Protocol::TCP => 16,
        Protocol::UDP => 6,
        _ => 2,
    }
}

fn ipv4_header(parsed: &Parsed) -> std::ops::Range<usize> {
    parsed.l3()..parsed.ip_payload_range().map_or(0, |payload| payload.start)
}

/// What the transport checksum covers, beside the pseudo-header.
fn segment<'a>(bytes: &'a [u8], parsed: &Parsed) -> Option<&'a [u8]> {
    if parsed.fragment() != Fragment::None {
        return None;
    }
    let segment = bytes.get(parsed.transport_range()?)?;
    match parsed.protocol()? {
        Protocol::UDP => segment.get(..usize::from(u16::from_be_bytes([*segment.get(4)?, *segment.get(5)?]))),
        Protocol::TCP => Some(segment),
        Protocol::ICMP if parsed.is_ipv4() => Some(segment),
        Protocol::ICMPV6 if parsed.is_ipv6() => Some(segment),
        _ => None,
    }
}

fn transport_sum(bytes: &[u8], parsed: &Parsed, segment: &[u8]) -> Option<Sum> {
    let protocol = parsed.protocol()?;
    let sum = Sum::new().add_u16(protocol.0.into()).add_u32(segment.len() as u32);
    let addresses = match parsed.ip()? {
        IpVersion::V4 if protocol == Protocol::ICMP => return Some(Sum::new().add_bytes(segment)),
        IpVersion::V4 => parsed.l3() + 12..parsed.l3() + 20,
        IpVersion::V6 => parsed.l3() + 8..parsed.l3() + 40,
    };
    Some(sum.add_bytes(bytes.get(addresses)?).add_bytes(segment))
}

/// The sum of the little-endian 16-bit words of `bytes`, an odd last byte filled up with zero; not folded.
#[inline]
fn sum_words(bytes: &[u8]) -> u64 {
    // Sums of 32-bit words in 64 bits cannot overflow for less than 16 GiB: no carry to look after, and the
    // compiler makes vectors of it.
    let (chunks, rest) = bytes.as_chunks::<4>();
    let mut sum: u64 = chunks.iter().map(|chunk| u64::from(u32::from_le_bytes(*chunk))).sum();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    sum += u64::from(u32::from_le_bytes(last));
    sum
}

/// Adds with the carry brought round.
#[inline]
const fn add(a: u64, b: u64) -> u64 {
    let (sum, carry) = a.overflowing_add(b);
    sum + carry as u64
}

/// Folds to 16 bits, the carries brought round.
#[inline]
const fn fold(sum: u64) -> u16 {
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    sum as u16
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 1071 as it is written, word by word.
    fn naive(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
            if sum > 0xffff {
                sum -= 0xffff;
            }
        }
        !(sum as u16)
    }

    proptest! {
        #[test]
        fn agrees_with_the_naive_sum(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
            prop_assert_eq!(checksum(&bytes), naive(&bytes));
        }

        #[test]
        fn parts_sum_to_the_whole(bytes in prop::collection::vec(any::<u8>(), 0..200), cuts in prop::collection::vec(0usize..200, 0..4)) {
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let sum = cuts.windows(2).fold(Sum::new(), |sum, ends| sum.add_bytes(&bytes[ends[0]..ends[1]]));
            prop_assert_eq!(sum.checksum(), naive(&bytes));
            let segments = || cuts.windows(2).map(|ends| &bytes[ends[0]..ends[1]]);
            prop_assert_eq!(Sum::new().add_segments(segments()).checksum(), naive(&bytes));
            let sums = segments().map(|segment| Sum::new().add_bytes(segment));
            prop_assert_eq!(sums.fold(Sum::new(), Sum::add_sum).checksum(), naive(&bytes));
        }

        #[test]
        fn changes_agree_with_summing_again(
            mut bytes in prop::collection::vec(any::<u8>(), 24..64),
            word in any::<u16>(), long in any::<u32>(), address in any::<u128>(),
        ) {
            // The sum is never of nothing but zeros, as a packet's is not.
            bytes[23] |= 1;
            let before = naive(&bytes);
            let mut change = Change::new();
            let old = u16::from_be_bytes([bytes[0], bytes[1]]);
            change = change.replace_u16(old, word);
            bytes[..2].copy_from_slice(&word.to_be_bytes());
            let old = u32::from_be_bytes(bytes[2..6].try_into().unwrap());
            change = change.replace_u32(old, long);
            bytes[2..6].copy_from_slice(&long.to_be_bytes());
            let old = u128::from_be_bytes(bytes[6..22].try_into().unwrap());
            change = change.replace_v6(Ipv6Addr::from_bits(old), Ipv6Addr::from_bits(address));
            bytes[6..22].copy_from_slice(&address.to_be_bytes());
            prop_assert_eq!(change.apply(before), naive(&bytes));
        }
    }

    #[test]
    fn rfc_1624_example() {
        // Section 4: equation 2 of RFC 1141 yields 0xffff here.
        assert_eq!(Change::new().replace_u16(0x5555, 0x3285).apply(0xdd2f), 0x0000);
    }

    #[test]
    fn udp_zero_means_none_and_is_never_computed() {
        let change = Change::new().replace_u16(0x5555, 0x3285);
        assert_eq!(change.apply_udp(0xdd2f), 0xffff);
        assert_eq!(change.apply_udp(0), 0);
        assert_eq!(Sum::new().add_u16(0xffff).udp_checksum(), 0xffff);
    }

    #[test]
    fn large_sums_do_not_lose_carries() {
        for len in [65_535, 65_536, 1 << 20] {
            let bytes = vec![0xff; len];
            assert_eq!(checksum(&bytes), naive(&bytes));
        }
    }
}
