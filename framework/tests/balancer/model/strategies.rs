//! Random configurations and packets, such that both often have to do with each other.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use afx::packet::{Builder, Protocol, TcpFlags, VlanTag};
use afx::stage::balancer::{Forwarding, HashOn, RealState, ServerIdIn, TooBig, Vip, VipOptions};
use ipnet::IpNet;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::view::{IPV4, IPV6, UDP, fill_ipv4_checksum, ip_of, link_len};
use crate::lab::{Real, Served, Setup};
use crate::packets::{too_big, with_tcp_option, written};

/// The balancer's own addresses, to which tunnels may lead.
const TUNNEL_ENDS: [&str; 2] = ["198.51.100.200", "2001:db8::200"];

const GUE_PORTS: [u16; 2] = [6080, 9886];

/// Server ids, each the number of a real and of as many bits as its place says.
const SERVER_IDS: [u32; 4] = [1001, 0x1_0001, 0x100_0001, 1002];

/// Addresses, some of them, all of them, and many more; ports and protocols such that one alone says little.
fn any_vip() -> impl Strategy<Value = Vip> {
    let networks =
        ["198.51.100.10/32", "198.51.100.8/30", "198.51.100.0/24", "2001:db8::10/128", "2001:db8::/64"];
    let network = select(networks.map(|text| text.parse::<IpNet>().unwrap()).to_vec());
    let service = select(vec![
        (Some(80), Protocol::TCP),
        (Some(80), Protocol::UDP),
        (Some(443), Protocol::TCP),
        (None, Protocol::TCP),
        (None, Protocol::UDP),
    ]);
    (network, service).prop_map(|(network, (port, protocol))| Vip { network, port, protocol })
}

/// Mostly such that packets of the VIP can have the server id.
fn any_options(vip: Vip) -> impl Strategy<Value = VipOptions> {
    let hash = select(vec![HashOn::FiveTuple, HashOn::FiveTuple, HashOn::Source, HashOn::DestinationPort]);
    let places = match vip.protocol {
        Protocol::TCP => vec![ServerIdIn::TcpOption, ServerIdIn::TcpOption, ServerIdIn::Quic],
        _ => vec![ServerIdIn::Quic, ServerIdIn::Quic, ServerIdIn::UdpHeader],
    };
    let server_id = prop::option::weighted(0.7, select(places));
    (hash, server_id, any::<bool>(), any::<bool>()).prop_map(
        |(hash, server_id, answer_echo, udp_leaves_down)| VipOptions {
            hash,
            server_id,
            answer_echo,
            udp_leaves_down,
            ..VipOptions::default()
        },
    )
}

fn any_state() -> impl Strategy<Value = RealState> {
    prop_oneof![
        6 => Just(RealState::Up),
        1 => Just(RealState::Draining),
        2 => Just(RealState::Down),
        1 => Just(RealState::Out),
    ]
}

/// What becomes of a real: its new state and weight; none if it is taken out.
pub(super) type Fortune = Option<(RealState, u32)>;

pub(super) fn any_fortune() -> impl Strategy<Value = Fortune> {
    prop::option::weighted(0.9, (any_state(), 0..4_u32))
}

/// The same setup with other fortunes, given to all reals in turn.
pub(super) fn changed(mut setup: Setup, fortunes: &[Fortune]) -> Setup {
    let mut next = fortunes.iter().cycle();
    for served in &mut setup.vips {
        served.reals.retain_mut(|real| match next.next().copied().flatten() {
            Some((state, weight)) => {
                (real.state, real.weight) = (state, weight);
                true
            }
            None => false,
        });
    }
    setup
}

/// Reals of which no two have a server id or a source in common.
fn any_reals(vip: Vip, l2: bool) -> impl Strategy<Value = Vec<Real>> {
    let mtu = prop_oneof![8 => Just(Some(1500)), 1 => Just(None), 2 => Just(Some(300))];
    let real = (1..6_u8, any::<bool>(), 0..4_u32, mtu, any_state());
    let sources = if vip.is_ipv4() {
        ["192.0.2.0/24", "192.0.2.76/31", "192.0.2.77/32"]
    } else {
        ["2001:db8:c::/48", "2001:db8:c::76/127", "2001:db8:c::77/128"]
    };
    let sources = subsequence(sources.map(|text| text.parse::<IpNet>().unwrap()).to_vec(), 0..3);
    let ids = subsequence(SERVER_IDS.to_vec(), 0..=4);
    (prop::collection::vec(real, 0..8), sources, ids, any::<usize>()).prop_map(
        move |(reals, sources, ids, whose)| {
            let mut all: Vec<Real> = Vec::new();
            for (number, v6, weight, mtu, state) in reals {
                let v6 = !vip.is_ipv4() || v6 && !l2;
                let address = if v6 { format!("fd00::1{number}") } else { format!("10.0.0.1{number}") };
                let address = address.parse().unwrap();
                if all.iter().all(|real| real.address != address) {
                    all.push(Real { mtu, state, ..Real::at(address).weight(weight) });
                }
            }
            let count = all.len();
            if count > 0 {
                for (at, source) in (whose % count..).zip(sources) {
                    all[at % count].sources.push(source);
                }
                for (at, id) in (whose % count..).zip(ids) {
                    all[at % count].server_ids.push(id);
                }
            }
            all
        },
    )
}

pub(super) fn any_setup() -> impl Strategy<Value = Setup> {
    let source_v4 = || prop::option::of(Just("10.200.0.0/20".parse().unwrap()));
    let source_v6 = || prop::option::of(Just("fd00:afb::/100".parse().unwrap()));
    let forwarding = prop_oneof![
        (source_v4(), source_v6())
            .prop_map(|(source_v4, source_v6)| Forwarding::Ipip { source_v4, source_v6 }),
        (source_v4(), source_v6(), select(GUE_PORTS.to_vec()))
            .prop_map(|(source_v4, source_v6, port)| Forwarding::Gue { source_v4, source_v6, port }),
        Just(Forwarding::L2Dsr),
    ];
    let too_big = (any::<bool>(), select(vec![0, 1_000_000]))
        .prop_map(|(answer, per_second)| TooBig { answer, per_second });
    let ends = TUNNEL_ENDS.map(|text| text.parse::<IpAddr>().unwrap()).to_vec();
    let rest = (0..3_u64, too_big, prop::option::weighted(0.3, 100..500_u32), subsequence(ends, 0..=2));
    (forwarding, prop::collection::btree_set(any_vip(), 0..12), rest).prop_flat_map(
        |(forwarding, vips, (seed, too_big, client_mtu, decapsulate))| {
            let l2 = forwarding == Forwarding::L2Dsr;
            let served = |vip| {
                (any_options(vip), any_reals(vip, l2)).prop_map(move |(options, reals)| Served {
                    vip,
                    options,
                    reals,
                })
            };
            let vips: Vec<_> = vips.into_iter().map(served).collect();
            vips.prop_map(move |vips| Setup {
                vips,
                forwarding,
                table_size: 251,
                seed,
                too_big,
                client_mtu,
                decapsulate: decapsulate.clone(),
            })
        },
    )
}

/// Who a packet is from and for, and what is in it.
#[derive(Debug, Clone)]
struct Plan {
    client: SocketAddr,
    server: SocketAddr,
    tcp: bool,
    kind: Kind,
    tos: u8,
    ttl: u8,
    payload: Vec<u8>,
    tag: Option<u16>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Flow(TcpFlags, Option<u32>),
    /// About a packet from the server to the client.
    Error,
    Echo,
    Fragment,
    Options,
    OtherProtocol,
    Arp,
}

fn any_plan() -> impl Strategy<Value = Plan> {
    let addresses = prop_oneof![
        (select(vec![76, 77, 78]), select(vec![10, 10, 10, 10, 8, 9, 200, 99]))
            .prop_map(|(client, server)| ([192, 0, 2, client].into(), [198, 51, 100, server].into())),
        (select(vec![0x76, 0x77]), select(vec![0x10, 0x10, 0x10, 0x11, 0x200])).prop_map(
            |(client, server)| (
                IpAddr::from([0x2001, 0xdb8, 0xc, 0, 0, 0, 0, client]),
                IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, server])
            )
        ),
    ];
    let ports = (40_000..40_003_u16, select(vec![80, 80, 80, 80, 80, 443, 443, 81, 6080, 9886]));
    let flags = select(vec![TcpFlags::SYN, TcpFlags::ACK, TcpFlags::ACK, TcpFlags::FIN, TcpFlags::RST]);
    let id = prop::option::weighted(0.4, any_id());
    let kind = prop_oneof![
        20 => (flags, id).prop_map(|(flags, id)| Kind::Flow(flags, id)),
        4 => Just(Kind::Error),
        2 => Just(Kind::Echo),
        1 => select(vec![Kind::Fragment, Kind::Options, Kind::OtherProtocol, Kind::Arp]),
    ];
    let shape = (any::<u8>(), select(vec![64, 64, 2, 1, 0]), prop::option::weighted(0.2, 0..4096_u16));
    (addresses, ports, any::<bool>(), kind, shape, any_payload()).prop_map(
        |((client, server), (from, to), tcp, kind, (tos, ttl, tag), payload)| {
            // What QUIC begins with would be half an IP header there.
            let payload = if GUE_PORTS.contains(&to) { vec![0; payload.len()] } else { payload };
            let (client, server) = (SocketAddr::new(client, from), SocketAddr::new(server, to));
            Plan { client, server, tcp, kind, tos, ttl, payload, tag }
        },
    )
}

/// One that a real may have, one that none has, or none at all.
fn any_id() -> impl Strategy<Value = u32> {
    prop_oneof![6 => select(SERVER_IDS.to_vec()), 1 => Just(77), 1 => Just(0)]
}

/// Anything, or something that names a server as QUIC or a header does.
fn any_payload() -> impl Strategy<Value = Vec<u8>> {
    let plain = (0..500_usize).prop_map(|len| (0..len).map(|at| (at * 7) as u8).collect());
    let cid = (any_id(), 1..4_u8).prop_map(|(id, version)| {
        let [a, b, c, d] = id.to_be_bytes();
        match version {
            1 => {
                let id = id as u16;
                vec![0x40 | (id >> 10) as u8, (id >> 2) as u8, (id << 6) as u8, 4, 5, 6, 7, 8]
            }
            2 => vec![0x80, b, c, d, 5, 6, 7, 8],
            _ => vec![0xc0, a, b, c, d, 6, 7, 8],
        }
    });
    let quic = (cid, select(vec![0x40, 0xc0, 0xd0, 0xe0, 0xf0])).prop_map(|(cid, first): (Vec<u8>, u8)| {
        let head = if first & 0x80 == 0 { vec![first] } else { vec![first, 0, 0, 0, 1, cid.len() as u8] };
        [head, cid, vec![0; 20]].concat()
    });
    let header = any_id().prop_map(|id| {
        let [_, a, b, c] = id.to_be_bytes();
        vec![0x52, a, b, c, 0, 0, 0, 0, 1, 2, 3]
    });
    prop_oneof![5 => plain, 3 => quic, 1 => header]
}

impl Plan {
    fn built(&self, builder: Builder, payload: &[u8]) -> Vec<u8> {
        let builder = builder.tos(self.tos).ttl(self.ttl);
        let builder = match self.tag {
            Some(tag) => builder.vlan(VlanTag(tag)),
            None => builder,
        };
        written(&builder, payload)
    }

    fn bytes(&self) -> Vec<u8> {
        let Self { client, server, .. } = *self;
        let protocol = if self.tcp { Protocol::TCP } else { Protocol::UDP };
        match self.kind {
            Kind::Flow(flags, id) if self.tcp => {
                let segment = self.built(Builder::tcp(client, server).flags(flags), &self.payload);
                match id {
                    // The helper knows packets of IPv4 without a tag.
                    Some(id) if self.tag.is_none() && server.is_ipv4() => with_tcp_option(&segment, id),
                    _ => segment,
                }
            }
            Kind::Flow(..) => self.built(Builder::udp(client, server), &self.payload),
            Kind::Error => {
                let router = Builder::ip(
                    client.ip(),
                    server.ip(),
                    if server.is_ipv4() { Protocol::ICMP } else { Protocol::ICMPV6 },
                );
                let plain = too_big(client.ip(), server, client, protocol);
                let message = &plain[if server.is_ipv4() { 34 } else { 54 }..];
                self.built(router, message)
            }
            Kind::Echo => self.built(Builder::echo(client.ip(), server.ip(), 1, 2), &self.payload),
            Kind::Fragment => {
                let fragment = Builder::ip(client.ip(), server.ip(), protocol).fragment(9, 80, false);
                self.built(fragment, &self.payload)
            }
            Kind::Options if server.is_ipv4() => {
                let mut bytes = self.built(Builder::udp(client, server), &self.payload);
                let link = link_len(&bytes);
                // Four times nothing.
                bytes.splice(link + 20..link + 20, [1; 4]);
                let len = (bytes.len() - link) as u16;
                bytes[link] = 0x46;
                bytes[link + 2..link + 4].copy_from_slice(&len.to_be_bytes());
                bytes
            }
            Kind::Options | Kind::OtherProtocol => {
                self.built(Builder::ip(client.ip(), server.ip(), Protocol(253)), &self.payload)
            }
            Kind::Arp => {
                let mut bytes = vec![0xff; 60];
                bytes[12..14].copy_from_slice(&[0x08, 0x06]);
                bytes
            }
        }
    }
}

/// A packet, which is written as short as can be where a history is.
#[derive(Clone)]
pub(super) struct Sample(pub(super) Vec<u8>);

impl AsRef<[u8]> for Sample {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A packet, perhaps in a tunnel to the balancer or to somebody else, perhaps padded.
pub(super) fn any_packet() -> impl Strategy<Value = Sample> {
    let to = select([TUNNEL_ENDS.to_vec(), vec!["198.51.100.10", "2001:db8::10"]].concat());
    let tunnel = (to, prop::option::of(select(GUE_PORTS.to_vec())));
    let tunnels = prop_oneof![6 => Just(Vec::new()), 2 => prop::collection::vec(tunnel, 1..3)];
    (any_plan(), tunnels, 0..20_usize).prop_map(|(plan, tunnels, padding)| {
        let mut bytes = plan.bytes();
        if plan.kind != Kind::Arp {
            for (to, gue_port) in tunnels {
                bytes = in_tunnel(&bytes, to.parse().unwrap(), gue_port);
            }
            bytes.resize(bytes.len() + padding, 0xaa);
        }
        Sample(bytes)
    })
}

/// A packet in IPIP, or with a port in GUE, to that address.
fn in_tunnel(packet: &[u8], to: IpAddr, gue_port: Option<u16>) -> Vec<u8> {
    let inner = ip_of(packet).unwrap();
    let mut payload = Vec::new();
    let protocol = match gue_port {
        Some(port) => {
            payload.extend([0xc0, 0x01]);
            payload.extend(port.to_be_bytes());
            payload.extend((inner.len() as u16 + 8).to_be_bytes());
            payload.extend([0, 0]);
            UDP
        }
        None if inner[0] >> 4 == 4 => IPV4,
        None => IPV6,
    };
    payload.extend(inner);
    let from =
        if to.is_ipv4() { IpAddr::from([10, 9, 9, 9]) } else { IpAddr::from([0xfd00, 9, 0, 0, 0, 0, 0, 9]) };
    let outer = written(&Builder::ip(from, to, Protocol(protocol)), &payload);
    // The inner packet's link header, tag included, with the outer one's type.
    let mut bytes = packet[..link_len(packet) - 2].to_vec();
    bytes.extend(&outer[12..]);
    if to.is_ipv4() {
        let link = link_len(&bytes);
        fill_ipv4_checksum(&mut bytes[link..]);
    }
    bytes
}
