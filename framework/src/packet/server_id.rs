//! Server ids: what a server has clients send back, so that a balancer finds it without having seen the flow before.
//!
//! A server writes its number into something that each of the client's packets carries: the connection id of QUIC, an
//! option of TCP, or a header of its own in UDP. The layouts are those that Katran, a balancer of the same kind,
//! reads, so that servers prepared for it need no change. A number of zero means none.
//!
//! Nothing here is authenticated: a client can name any server. It gets no further by that than by any other flow.

/// The server id in the destination connection id of a QUIC packet; `payload` is that of the UDP packet.
///
/// The two upper bits of the connection id's first byte say how many bits of number follow: 16 (`01`), or, from the
/// next byte on, 24 (`10`) or 32 (`11`), in network order. With `00` there is none.
///
/// A short header has the connection id behind its first byte. A long header says how long it is: in one byte behind
/// the version (RFC 9000, section 17.2, and every version to come: RFC 8999), but in the versions of the drafts 17 to
/// 21, `0xff000011` to `0xff000015`, in the upper half of that byte, three less than it is. The version tells the two
/// apart, never the length: a byte that is right in one way may be right in the other.
///
/// Initial and 0-RTT packets have a connection id that the client made up, so there is none in them. QUIC version 2
/// numbers these types otherwise (RFC 9369, section 3.2); any other version is taken to number them as version 1 does.
///
/// ```
/// use afx::packet::quic_server_id;
///
/// assert_eq!(quic_server_id(&[0x40, 0x41, 0x00, 0x83, 4, 5, 6, 7, 8]), Some(1026));
/// assert_eq!(quic_server_id(&[0x40, 0x80, 0x03, 0x04, 0x02, 5, 6, 7, 8]), Some(197_634));
/// ```
#[inline]
pub fn quic_server_id(payload: &[u8]) -> Option<u32> {
    const LONG_HEADER: u8 = 0x80;
    let (&first, rest) = payload.split_first()?;
    let connection_id = if first & LONG_HEADER == 0 { rest } else { long_header_connection_id(first, rest)? };
    let id = match *connection_id {
        [a, b, c, ..] if a >> 6 == 1 => u32::from(a & 0x3f) << 10 | u32::from(b) << 2 | u32::from(c) >> 6,
        [a, b, c, d, ..] if a >> 6 == 2 => u32::from_be_bytes([0, b, c, d]),
        [a, b, c, d, e, ..] if a >> 6 == 3 => u32::from_be_bytes([b, c, d, e]),
        _ => 0,
    };
    (id != 0).then_some(id)
}

/// The destination connection id that a server chose; `rest` follows the first byte.
fn long_header_connection_id(first: u8, rest: &[u8]) -> Option<&[u8]> {
    const VERSION_2: u32 = 0x6b33_43cf;
    const DRAFT_17: u32 = 0xff00_0011;
    const DRAFT_21: u32 = 0xff00_0015;
    let (version, rest) = rest.split_first_chunk()?;
    let version = u32::from_be_bytes(*version);
    let (initial, zero_rtt) = if version == VERSION_2 { (1, 2) } else { (0, 1) };
    let kind = first >> 4 & 3;
    if kind == initial || kind == zero_rtt {
        return None;
    }
    let (&lengths, rest) = rest.split_first()?;
    let len = match (version, lengths >> 4) {
        (DRAFT_17..=DRAFT_21, 0) => 0,
        (DRAFT_17..=DRAFT_21, half) => usize::from(half) + 3,
        _ => usize::from(lengths),
    };
    rest.get(..len)
}

/// The server id in an option of a TCP header: kind `0xb7`, length 6, the number in little-endian order.
///
/// `tcp_header` begins with the TCP header, and may go on behind it. Options end where the data offset says; at most
/// 15 are looked at, each no-operation counting as one. An option whose length cannot be ends the search.
#[inline]
pub fn tcp_option_server_id(tcp_header: &[u8]) -> Option<u32> {
    const FIXED_LEN: usize = 20;
    const MOST_OPTIONS: usize = 15;
    const END: u8 = 0;
    const NO_OPERATION: u8 = 1;
    const SERVER_ID: u8 = 0xb7;
    let header_len = usize::from(tcp_header.get(12)? >> 4) * 4;
    let mut options = tcp_header.get(FIXED_LEN..header_len)?;
    for _ in 0..MOST_OPTIONS {
        options = match *options {
            [] | [END, ..] => return None,
            [NO_OPERATION, ref rest @ ..] => rest,
            [SERVER_ID, 6, a, b, c, d, ..] => {
                let id = u32::from_le_bytes([a, b, c, d]);
                return (id != 0).then_some(id);
            }
            [_, len, ..] if len >= 2 => options.get(usize::from(len)..)?,
            _ => return None,
        };
    }
    None
}

/// The server id in the header that servers and their clients put before what they say in UDP: eight bytes, the first
/// `0x52`, then the number in 24 bits in network order. `payload` is that of the UDP packet.
#[inline]
pub fn udp_header_server_id(payload: &[u8]) -> Option<u32> {
    const MAGIC: u8 = 0x52;
    match *payload.first_chunk::<8>()? {
        [MAGIC, 0, 0, 0, ..] => None,
        [MAGIC, a, b, c, ..] => Some(u32::from_be_bytes([0, a, b, c])),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    const V1: u32 = 1;
    const V2: u32 = 0x6b33_43cf;
    const DRAFT_20: u32 = 0xff00_0014;
    /// One that nobody but its maker knows.
    const PRIVATE: u32 = 0xface_b001;

    const HANDSHAKE: u8 = 0xe0;
    const RETRY: u8 = 0xf0;

    /// A connection id of `form` with this number, `more` behind it.
    fn connection_id(form: u8, id: u32, more: &[u8]) -> Vec<u8> {
        let [a, b, c, d] = id.to_be_bytes();
        let mut bytes = match form {
            1 => vec![0x40 | (id >> 10) as u8, (id >> 2) as u8, (id << 6) as u8 | 0x15],
            2 => vec![0xa5, b, c, d],
            _ => vec![0xda, a, b, c, d],
        };
        bytes.extend(more);
        bytes
    }

    fn long(first: u8, version: u32, lengths: u8, connection_id: &[u8]) -> Vec<u8> {
        let mut bytes = vec![first];
        bytes.extend(version.to_be_bytes());
        bytes.push(lengths);
        bytes.extend(connection_id);
        // No source connection id, and some payload.
        bytes.extend([0, 0x11, 0x22, 0x33]);
        bytes
    }

    fn short(connection_id: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x47];
        bytes.extend(connection_id);
        bytes
    }

    fn tcp(options: &[u8]) -> Vec<u8> {
        let mut header = vec![0; 20];
        header.extend(options);
        header.resize(header.len().next_multiple_of(4), 0);
        header[12] = (header.len() as u8 / 4) << 4;
        header
    }

    fn most(form: u8) -> u32 {
        match form {
            1 => 0xffff,
            2 => 0xff_ffff,
            _ => u32::MAX,
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_borne(bytes in prop::collection::vec(any::<u8>(), 0..80), first in select(&[0u8, 0xe0, 0xf0][..])) {
            let mut bytes = bytes;
            for _ in 0..2 {
                let _ = quic_server_id(&bytes);
                let _ = tcp_option_server_id(&bytes);
                let _ = udp_header_server_id(&bytes);
                // Once more, with a beginning that leads further.
                if let Some(byte) = bytes.first_mut() {
                    *byte = first;
                }
                if let Some(byte) = bytes.get_mut(12) {
                    *byte = 0xf0;
                }
            }
        }

        #[test]
        fn a_connection_id_is_found_in_both_headers(
            form in 1..=3u8, id: u32, more in prop::collection::vec(any::<u8>(), 0..15), retry: bool,
            version in select(&[V1, DRAFT_20, PRIVATE, 0xff00_0016][..]),
        ) {
            let id = id & most(form);
            let expected = (id != 0).then_some(id);
            let connection_id = connection_id(form, id, &more);
            prop_assert_eq!(quic_server_id(&short(&connection_id)), expected);

            let kind = if retry { RETRY } else { HANDSHAKE };
            let len = connection_id.len() as u8;
            // In the draft's form the nibble below it, of the source's length, does not count; no id has three bytes.
            let (lengths, expected) = match version {
                DRAFT_20 if len < 4 => (0x0f, None),
                DRAFT_20 => ((len - 3).min(15) << 4 | 5, expected),
                _ => (len, expected),
            };
            prop_assert_eq!(quic_server_id(&long(kind, version, lengths, &connection_id)), expected);
        }

        #[test]
        fn what_a_client_made_up_is_none(form in 1..=3u8, id in 1..u32::MAX) {
            let connection_id = connection_id(form, id & most(form) | 1, &[0; 8]);
            let len = connection_id.len() as u8;
            for version in [V1, DRAFT_20, PRIVATE] {
                let len = if version == DRAFT_20 { (len - 3) << 4 } else { len };
                let has = |kind| quic_server_id(&long(kind, version, len, &connection_id)).is_some();
                prop_assert_eq!([0xc0, 0xd0, 0xe0, 0xf0].map(has), [false, false, true, true]);
            }
            let has = |kind| quic_server_id(&long(kind, V2, len, &connection_id)).is_some();
            prop_assert_eq!([0xc0, 0xd0, 0xe0, 0xf0].map(has), [true, false, false, true], "version 2");
        }

        #[test]
        fn an_option_is_found_among_others(id: u32, before in prop::collection::vec(0..12u8, 0..6), behind in 0..6usize) {
            let mut options = Vec::new();
            // Lengths of other options; one that no option can have stands for a no-operation.
            for len in before {
                let option = if len < 2 { vec![1] } else { [vec![254, len], vec![0xb7; usize::from(len) - 2]].concat() };
                if options.len() + option.len() <= 40 - 6 {
                    options.extend(option);
                }
            }
            options.extend([0xb7, 6]);
            options.extend(id.to_le_bytes());
            options.resize((options.len() + behind).min(40), 1);
            let expected = (id != 0).then_some(id);
            let mut header = tcp(&options);
            prop_assert_eq!(tcp_option_server_id(&header), expected);
            // What follows the header is not an option.
            header.extend([0xb7; 20]);
            prop_assert_eq!(tcp_option_server_id(&header), expected);
            header[12] = 0x50;
            prop_assert_eq!(tcp_option_server_id(&header), None);
        }
    }

    #[test]
    fn a_connection_id_ends_where_its_length_says() {
        let id = connection_id(2, 7, &[]);
        for (version, lengths) in [(V1, [4, 3, 0]), (DRAFT_20, [0x10, 0x0f, 0x00])] {
            let found = lengths.map(|lengths| quic_server_id(&long(RETRY, version, lengths, &id)));
            assert_eq!(found, [Some(7), None, None], "{version:#x}");
        }
        let mut cut = long(RETRY, V1, 4, &id);
        cut.truncate(6 + 3);
        assert_eq!(quic_server_id(&cut), None, "the packet is shorter than its connection id");
        // Four bytes in one way, one in the other: it is the version that decides.
        assert_eq!(quic_server_id(&long(RETRY, DRAFT_20, 0x14, &id)), Some(7));
        assert_eq!(quic_server_id(&long(RETRY, V1, 0x14, &[&id[..], &[0; 16]].concat())), Some(7));
        assert_eq!(quic_server_id(&long(RETRY, V1, 0x14, &id)), None);
    }

    #[test]
    fn options_that_cannot_be_end_the_search() {
        let found = |options: &[u8]| tcp_option_server_id(&tcp(options));
        let ours = [0xb7, 6, 0xfe, 0x03, 0, 0];
        let behind = |before: &[u8]| found(&[before, &ours[..]].concat());
        assert_eq!(behind(&[]), Some(1022));
        assert_eq!(behind(&[1, 1, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0]), Some(1022), "behind timestamps");
        assert_eq!(behind(&[0]), None, "behind the end of options");
        assert_eq!(behind(&[8, 0]), None, "a length of zero");
        assert_eq!(behind(&[8, 1]), None, "a length of one");
        assert_eq!(behind(&[8, 60]), None, "longer than the header");
        assert_eq!(behind(&[0xb7, 5, 1, 1, 1]), Some(1022), "of our kind, and of another length");
        assert_eq!(behind(&[1; 14]), Some(1022));
        assert_eq!(behind(&[1; 15]), None, "fifteen are looked at");
        assert_eq!(found(&ours[..4]), None, "the header ends within it");
        assert_eq!(found(&[0xb7, 6, 0, 0, 0, 0]), None, "zero is none");

        let mut header = tcp(&ours);
        assert_eq!(tcp_option_server_id(&header[..27]), None, "not all of the header is there");
        header[12] = 0x40;
        assert_eq!(tcp_option_server_id(&header), None, "a header shorter than a header is");
    }

    #[test]
    fn a_udp_header_says_its_server() {
        assert_eq!(udp_header_server_id(&[0x52, 3, 4, 2, 9, 9, 9, 9, 1]), Some(197_634));
        assert_eq!(udp_header_server_id(&[0x52, 3, 4, 2, 9, 9, 9]), None, "eight bytes");
        assert_eq!(udp_header_server_id(&[0x53, 3, 4, 2, 9, 9, 9, 9]), None);
        assert_eq!(udp_header_server_id(&[0x52, 0, 0, 0, 9, 9, 9, 9]), None, "zero is none");
    }

    /// The QUIC packets that Katran's published tests send, and the servers they expect, in a file that is not part of
    /// the project.
    #[test]
    #[allow(clippy::print_stderr, reason = "says when there is nothing to compare with")]
    fn published_quic_packets_name_their_servers() {
        let folder = std::env::var("AFX_VECTORS")
            .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/vectors").to_owned());
        let Ok(text) = std::fs::read_to_string(format!("{folder}/katran.json")) else {
            eprintln!("skipped: no katran.json in {folder} (set AFX_VECTORS)");
            return;
        };
        let vectors: serde_json::Value = serde_json::from_str(&text).unwrap();
        let (mut found, mut none) = (0, 0);
        for suite in vectors["suites"].as_array().unwrap() {
            let servers = suite["config"]["server_id_map"].as_array();
            let of_id = |id: u32| {
                servers.and_then(|servers| servers.iter().find(|server| server["id"] == id))?["real"].as_str()
            };
            for vector in suite["vectors"].as_array().unwrap() {
                let id = &vector["id"];
                if !vector["description"].as_str().unwrap().starts_with("QUIC") {
                    continue;
                }
                let text = vector["input_hex"].as_str().unwrap();
                let bytes: Vec<u8> = (0..text.len())
                    .step_by(2)
                    .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
                    .collect();
                let payload = super::super::parse(&bytes).unwrap().payload_range().unwrap();
                let named = quic_server_id(&bytes[payload]).and_then(of_id);
                let selection = &vector["real_selection"];
                if selection["mode"] == "fixed" {
                    assert_eq!(named, selection["real"].as_str(), "{id}");
                    found += 1;
                } else {
                    assert_eq!(named, None, "{id}");
                    none += 1;
                }
            }
        }
        assert!(found > 0 && none > 0, "the file has packets of both kinds");
    }
}
