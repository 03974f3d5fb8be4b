//! That what came out is what should have.

use std::collections::HashMap;
use std::net::IpAddr;

use afx::stage::balancer::Forwarding;

use super::rules::Fate;
use super::view::{Flow, ICMP, ICMPV6, fill_ipv4_checksum, ip_of, link_len, sum, sums_up, view};
use crate::lab::{OWN_MAC, OWN_V4, OWN_V6, mac_of};
use crate::outer::Outer;

/// What the outer headers of a flow to a real have been so far: source, flow label and UDP source port.
type Seen = HashMap<(Flow, IpAddr), (IpAddr, u32, Option<u16>)>;

/// Looks at packets that came out, one kind after the other.
#[derive(Debug, Default)]
pub(super) struct Checker {
    seen: Seen,
}

impl Checker {
    /// Outer headers may be others from now on.
    pub(super) fn reload(&mut self) {
        self.seen.clear();
    }

    /// Takes what came out apart and compares it with what should have, in order within each kind, but for those
    /// who are told.
    pub(super) fn check(&mut self, forwarding: Forwarding, fates: &[Fate], out: &[Vec<u8>]) {
        let (sent, answers): (Vec<_>, Vec<_>) = out.iter().partition(|packet| packet[6..12] == OWN_MAC.0);
        let (replies, told): (Vec<_>, Vec<_>) = answers.into_iter().partition(|packet| is_echo_reply(packet));
        let (mut sent, mut replies) = (sent.into_iter(), replies.into_iter());
        let mut to_be_told = Vec::new();
        for fate in fates {
            match fate {
                Fate::Sent { real, packet, flow } => {
                    let out = sent.next().expect("as many packets come out as should");
                    self.sent(forwarding, *real, packet, *flow, out);
                }
                Fate::Replied { ping } => reply(ping, replies.next().expect("as many replies as pings")),
                Fate::Dropped { told: Some((most, about)), .. } => to_be_told.push(too_big(*most, about)),
                Fate::Dropped { told: None, .. } => {}
            }
        }
        assert_eq!((sent.next(), replies.next()), (None, None));
        // Those come first that are too long whatever their way.
        let mut told: Vec<_> = told.into_iter().cloned().collect();
        told.sort_unstable();
        to_be_told.sort_unstable();
        assert_eq!(told, to_be_told);
    }

    fn sent(&mut self, forwarding: Forwarding, real: IpAddr, packet: &[u8], flow: Flow, out: &[u8]) {
        let (source_v4, source_v6, port) = match forwarding {
            Forwarding::Ipip { source_v4, source_v6 } => (source_v4, source_v6, None),
            Forwarding::Gue { source_v4, source_v6, port } => (source_v4, source_v6, Some(port)),
            _ => {
                let mut expected = packet.to_vec();
                expected[..6].copy_from_slice(&mac_of(&real).0);
                expected[6..12].copy_from_slice(&OWN_MAC.0);
                assert_eq!(out, expected);
                return;
            }
        };
        let outer = Outer::decode(out);
        let ip = ip_of(packet).unwrap();
        assert_eq!(outer.inner, ip);
        assert_eq!((outer.destination_mac, outer.source_mac), (mac_of(&real).0, OWN_MAC.0));
        assert_eq!((outer.destination, outer.ttl, outer.tos), (real, 64, view(ip).tos));
        let in_ip = if ip[0] >> 4 == 4 { 4 } else { 41 };
        assert_eq!(outer.protocol, if port.is_some() { 17 } else { in_ip });
        assert_eq!(outer.ports.map(|ports| ports.1), port);
        assert!(outer.ports.is_none_or(|(source, _)| source >= 0xc000));
        match (outer.source, source_v4, source_v6) {
            (IpAddr::V4(source), Some(prefix), _) => assert!(prefix.contains(&source), "{source}"),
            (IpAddr::V6(source), _, Some(prefix)) => assert!(prefix.contains(&source), "{source}"),
            (source, ..) => assert_eq!(source.to_string(), if real.is_ipv4() { OWN_V4 } else { OWN_V6 }),
        }
        // The same for all packets of a flow: routers and cards keep them in order.
        let seen = (outer.source, outer.flow_label, outer.ports.map(|ports| ports.0));
        assert_eq!(*self.seen.entry((flow, real)).or_insert(seen), seen);
    }
}

/// Of ICMP, or of ICMPv6.
fn is_echo_reply(packet: &[u8]) -> bool {
    let ip = ip_of(packet).unwrap();
    matches!((ip[0] >> 4, ip[view(ip).transport]), (4, 0) | (6, 129))
}

/// The link header of the answer to a packet.
fn back(packet: &[u8]) -> Vec<u8> {
    let link = &packet[..link_len(packet)];
    [&link[6..12], &link[..6], &link[12..]].concat()
}

/// That this is the reply to a ping: the same but for what must differ.
fn reply(ping: &[u8], out: &[u8]) {
    let link = link_len(ping);
    let mut expected = [back(ping), ping[link..].to_vec()].concat();
    let ip = &mut expected[link..];
    let transport = view(ip).transport;
    if ip[0] >> 4 == 4 {
        ip[8] = 64;
        ip[12..20].rotate_left(4);
        fill_ipv4_checksum(ip);
        ip[transport] = 0;
    } else {
        ip[7] = 64;
        ip[8..40].rotate_left(16);
        ip[transport] = 129;
    }
    let checksum = transport + 2..transport + 4;
    ip[checksum.clone()].copy_from_slice(&out[link..][checksum]);
    assert_eq!(out, expected);
    assert!(sums_up(ip_of(out).unwrap()));
}

/// What tells the sender of a packet the longest that it may send.
fn too_big(most: u32, about: &[u8]) -> Vec<u8> {
    let ip = ip_of(about).unwrap();
    let asked = view(ip);
    let is_v4 = ip[0] >> 4 == 4;
    let quoted = &ip[..ip.len().min(if is_v4 { 84 } else { 248 })];
    let len = 8 + quoted.len() as u16;
    let mut message = if is_v4 { vec![3, 4, 0, 0] } else { vec![2, 0, 0, 0] };
    message.extend(most.to_be_bytes());
    message.extend(quoted);
    let mut header = match (asked.flow.destination, asked.flow.source) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut header = vec![0x45, 0];
            header.extend((20 + len).to_be_bytes());
            header.extend([0, 0, 0, 0, 64, ICMP, 0, 0]);
            header.extend([from.octets(), to.octets()].concat());
            fill_ipv4_checksum(&mut header);
            header
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let mut header = vec![0x60, 0, 0, 0];
            header.extend(len.to_be_bytes());
            header.extend([ICMPV6, 64]);
            header.extend([from.octets(), to.octets()].concat());
            header
        }
        _ => unreachable!("source and destination are of one version"),
    };
    let pseudo = if is_v4 { Vec::new() } else { [&header[8..], &len.to_be_bytes(), &[0, ICMPV6]].concat() };
    let checksum = !sum(&[&pseudo, &message]);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    header.extend(message);
    [back(about), header].concat()
}
