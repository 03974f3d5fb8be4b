//! Why a packet is malformed.

/// What is wrong with a packet. The discriminant is a small number, stable enough to index counters with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("{}", self.sentence())]
#[repr(u8)]
#[non_exhaustive]
pub enum ParseError {
    /// The bytes end within the Ethernet header.
    EthernetTruncated,
    /// The bytes end within a VLAN tag.
    VlanTruncated,
    /// The bytes end within the IPv4 header.
    Ipv4Truncated,
    /// The EtherType says IPv4, the header another version.
    Ipv4Version,
    /// IHL is less than five words.
    Ipv4HeaderLength,
    /// Total length is less than the header or more than the packet.
    Ipv4TotalLength,
    /// The bytes end within the IPv6 header.
    Ipv6Truncated,
    /// The EtherType says IPv6, the header another version.
    Ipv6Version,
    /// The payload length is more than the packet holds.
    Ipv6PayloadLength,
    /// An extension header ends beyond the IPv6 payload.
    Ipv6ExtensionTruncated,
    /// More extension headers than any honest sender uses (eight), or in an order that RFC 8200 rules out.
    Ipv6ExtensionChain,
    /// A fragment that is not the last, of a length that is no multiple of eight; or one that ends beyond 65,535 bytes.
    FragmentLength,
    /// The first fragment lacks part of the transport header, or a later one would overwrite it (RFC 1858, RFC 7112).
    FragmentTiny,
    /// The IP payload ends within the TCP header.
    TcpTruncated,
    /// The data offset is less than five words or beyond the IP payload.
    TcpDataOffset,
    /// The IP payload ends within the UDP header.
    UdpTruncated,
    /// The UDP length is less than eight (zero included) or more than the IP payload.
    UdpLength,
    /// The IP payload ends within the ICMP or ICMPv6 header.
    IcmpTruncated,
    /// The IP payload ends within the SCTP common header.
    SctpTruncated,
}

impl ParseError {
    /// Every kind, in the order of their numbers.
    pub const ALL: [Self; 19] = [
        Self::EthernetTruncated,
        Self::VlanTruncated,
        Self::Ipv4Truncated,
        Self::Ipv4Version,
        Self::Ipv4HeaderLength,
        Self::Ipv4TotalLength,
        Self::Ipv6Truncated,
        Self::Ipv6Version,
        Self::Ipv6PayloadLength,
        Self::Ipv6ExtensionTruncated,
        Self::Ipv6ExtensionChain,
        Self::FragmentLength,
        Self::FragmentTiny,
        Self::TcpTruncated,
        Self::TcpDataOffset,
        Self::UdpTruncated,
        Self::UdpLength,
        Self::IcmpTruncated,
        Self::SctpTruncated,
    ];

    /// The number of the kind: its index in [`ALL`](Self::ALL).
    #[inline]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The name of the kind, as counters are named.
    pub const fn name(self) -> &'static str {
        self.words().0
    }

    /// What is wrong, as a sentence: what `Display` writes, for registries that keep a `&'static str`.
    pub const fn sentence(self) -> &'static str {
        self.words().1
    }

    const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::EthernetTruncated => {
                ("ethernet_truncated", "the packet is shorter than an Ethernet header")
            }
            Self::VlanTruncated => ("vlan_truncated", "the packet ends within a VLAN tag"),
            Self::Ipv4Truncated => ("ipv4_truncated", "the packet ends within the IPv4 header"),
            Self::Ipv4Version => {
                ("ipv4_version", "the EtherType is that of IPv4 but the header's version is not 4")
            }
            Self::Ipv4HeaderLength => ("ipv4_header_length", "the IPv4 header length is less than 20 bytes"),
            Self::Ipv4TotalLength => {
                ("ipv4_total_length", "the IPv4 total length is less than the header's or exceeds the packet")
            }
            Self::Ipv6Truncated => ("ipv6_truncated", "the packet ends within the IPv6 header"),
            Self::Ipv6Version => {
                ("ipv6_version", "the EtherType is that of IPv6 but the header's version is not 6")
            }
            Self::Ipv6PayloadLength => ("ipv6_payload_length", "the IPv6 payload length exceeds the packet"),
            Self::Ipv6ExtensionTruncated => {
                ("ipv6_extension_truncated", "an IPv6 extension header exceeds the packet")
            }
            Self::Ipv6ExtensionChain => (
                "ipv6_extension_chain",
                "the IPv6 packet has more than 8 extension headers, or hop-by-hop options that do not come first",
            ),
            Self::FragmentLength => (
                "fragment_length",
                "the IP fragment's length is impossible: not a multiple of 8, or its end lies beyond 65535 bytes",
            ),
            Self::FragmentTiny => ("fragment_tiny", "the IP fragments split the transport header"),
            Self::TcpTruncated => ("tcp_truncated", "the IP payload ends within the TCP header"),
            Self::TcpDataOffset => {
                ("tcp_data_offset", "the TCP data offset is less than 20 bytes or exceeds the IP payload")
            }
            Self::UdpTruncated => ("udp_truncated", "the IP payload ends within the UDP header"),
            Self::UdpLength => {
                ("udp_length", "the UDP length is less than 8 bytes or exceeds the IP payload")
            }
            Self::IcmpTruncated => ("icmp_truncated", "the IP payload ends within the ICMP header"),
            Self::SctpTruncated => ("sctp_truncated", "the IP payload ends within the SCTP header"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_index_all_and_names_differ() {
        let mut names = std::collections::HashSet::new();
        for (index, error) in ParseError::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(error.number()), index);
            assert!(names.insert(error.name()), "{} twice", error.name());
        }
    }
}
