//! The balancer against a slow second one: maps, one packet at a time, written from the specification.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};

use afx::packet::{Builder, FlowKey, Protocol, TcpFlags, VlanTag};
use afx::stage::balancer::flow::FlowHasher;
use afx::stage::balancer::maglev::{Table, TableSize};
use afx::stage::balancer::{Forwarding, Vip};
use proptest::prelude::*;

use crate::lab::{Lab, OWN_MAC, OWN_V4, OWN_V6, Real, Served, Setup, mac_of};
use crate::outer::Outer;
use crate::packets::{too_big, written};

/// What becomes of a packet.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    To(IpAddr),
    Dropped(&'static str),
}

/// A flow as the client sees it.
type Flow = (SocketAddr, SocketAddr, Protocol);

#[derive(Debug)]
struct Model {
    setup: Setup,
    /// Which real a flow has, the how manyeth of that address, and whether the client said goodbye.
    flows: HashMap<Flow, (IpAddr, u32, bool)>,
    /// How many times a VIP has had a real with that address, taken out and put in again.
    lives: BTreeMap<(Vip, IpAddr), u32>,
    /// The outer source and flow label of each flow to each real.
    sources: HashMap<(Flow, IpAddr), (IpAddr, u32)>,
}

impl Model {
    fn new(setup: &Setup) -> Self {
        let nothing = Setup { vips: Vec::new(), ..setup.clone() };
        let (flows, lives, sources) = Default::default();
        let mut model = Self { setup: nothing, flows, lives, sources };
        model.reload(setup);
        model
    }

    fn reload(&mut self, setup: &Setup) {
        let reals = |setup: &Setup| -> BTreeSet<(Vip, IpAddr)> {
            setup.vips.iter().flat_map(|of| of.reals.iter().map(|real| (of.vip, real.address))).collect()
        };
        for new in reals(setup).difference(&reals(&self.setup)) {
            *self.lives.entry(*new).or_default() += 1;
        }
        self.sources.clear();
        self.setup = setup.clone();
    }

    fn verdict(&mut self, packet: &Packet) -> Verdict {
        let flow = match packet.kind {
            Kind::Arp => return Verdict::Dropped("balancer.not_ip"),
            Kind::Fragment => return Verdict::Dropped("balancer.fragment"),
            Kind::Echo | Kind::OtherProtocol => return Verdict::Dropped("balancer.no_vip"),
            Kind::Tcp(_) | Kind::Udp | Kind::Error => packet.flow(),
        };
        let Some(Served { vip, reals, .. }) = self.setup.vips.iter().find(|of| of.vip == packet.vip).cloned()
        else {
            return Verdict::Dropped("balancer.no_vip");
        };
        let kept = self.flows.get(&flow).copied().filter(|(real, life, closing)| {
            let begins_anew = *closing && matches!(packet.kind, Kind::Tcp(TcpFlags::SYN));
            !begins_anew
                && self.lives[&(vip, *real)] == *life
                && reals.iter().any(|other| other.address == *real)
        });
        let real = kept.map(|(real, ..)| real).or_else(|| self.choose(&vip, &reals, flow));
        if !matches!(packet.kind, Kind::Error) {
            let said_goodbye = matches!(packet.kind, Kind::Tcp(TcpFlags::FIN | TcpFlags::RST));
            match real {
                Some(real) => {
                    let closing = kept.is_some_and(|(.., closing)| closing) || said_goodbye;
                    self.flows.insert(flow, (real, self.lives[&(vip, real)], closing));
                }
                // What it had is no use; what it says is heard.
                None => match self.flows.get_mut(&flow) {
                    Some((.., true)) if matches!(packet.kind, Kind::Tcp(TcpFlags::SYN)) => {
                        self.flows.remove(&flow);
                    }
                    Some((.., closing)) => *closing |= said_goodbye,
                    None => {}
                },
            }
        }
        let Some(real) = real else { return Verdict::Dropped("balancer.no_real") };
        let Some(mtu) = reals.iter().find(|other| other.address == real).and_then(|real| real.mtu) else {
            return Verdict::Dropped("balancer.no_next_hop");
        };
        let outer = match (self.setup.forwarding, real) {
            (Forwarding::Ipip { .. }, IpAddr::V4(_)) => 20,
            (Forwarding::Ipip { .. }, IpAddr::V6(_)) => 40,
            _ => 0,
        };
        if packet.ip().len() + outer > mtu as usize {
            return Verdict::Dropped("balancer.too_big");
        }
        Verdict::To(real)
    }

    /// Maglev, as balancers that share a VIP have to agree on it.
    fn choose(&self, vip: &Vip, reals: &[Real], (client, _, protocol): Flow) -> Option<IpAddr> {
        let seed = [self.setup.seed, self.setup.seed.rotate_left(32) ^ 0x6166_782d_6c62];
        let weights: Vec<_> = reals.iter().map(|real| (real.address, real.weight)).collect();
        let table =
            Table::of_addresses(TableSize::new(self.setup.table_size).unwrap(), seed, &weights).unwrap();
        let key = FlowKey::new(client.ip(), vip.network.addr(), protocol, client.port(), vip.port.unwrap())
            .unwrap();
        table.lookup(FlowHasher::new(seed).hash(&key)).map(|real| reals[real].address)
    }

    /// That a packet which came out is the one that went in, on its way to that real.
    fn check(&mut self, packet: &Packet, real: IpAddr, out: &[u8]) {
        let Forwarding::Ipip { source_v4, source_v6 } = self.setup.forwarding else {
            let mut expected = packet.bytes();
            expected[..6].copy_from_slice(&mac_of(&real).0);
            expected[6..12].copy_from_slice(&OWN_MAC.0);
            assert_eq!(out, expected);
            return;
        };
        let outer = Outer::decode(out);
        assert_eq!(outer.inner, packet.ip());
        assert_eq!((outer.destination_mac, outer.source_mac), (mac_of(&real).0, OWN_MAC.0));
        assert_eq!((outer.destination, outer.ttl, outer.tos), (real, 64, packet.tos));
        assert_eq!(outer.protocol, if packet.vip.is_ipv4() { 4 } else { 41 });
        match (outer.source, source_v4, source_v6) {
            (IpAddr::V4(source), Some(prefix), _) => assert!(prefix.contains(&source), "{source}"),
            (IpAddr::V6(source), _, Some(prefix)) => assert!(prefix.contains(&source), "{source}"),
            (source, ..) => assert_eq!(source.to_string(), if real.is_ipv4() { OWN_V4 } else { OWN_V6 }),
        }
        // The same for all packets of a flow: routers and cards keep them in order.
        let seen = (outer.source, outer.flow_label);
        assert_eq!(*self.sources.entry((packet.flow(), real)).or_insert(seen), seen);
    }
}

/// A packet to a VIP, or so it seems.
#[derive(Debug, Clone)]
struct Packet {
    vip: Vip,
    client: u8,
    kind: Kind,
    tos: u8,
    payload: usize,
    tag: Option<u16>,
    padding: usize,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Tcp(TcpFlags),
    Udp,
    /// About a packet from the VIP to the client.
    Error,
    Echo,
    Fragment,
    OtherProtocol,
    Arp,
}

impl Packet {
    fn client(&self) -> SocketAddr {
        let address = if self.vip.is_ipv4() { "192.0.2.77" } else { "2001:db8:c::77" };
        SocketAddr::new(address.parse().unwrap(), 40_000 + u16::from(self.client))
    }

    fn flow(&self) -> Flow {
        (self.client(), SocketAddr::new(self.vip.network.addr(), self.vip.port.unwrap()), self.vip.protocol)
    }

    /// From the IP header on, without padding.
    fn ip(&self) -> Vec<u8> {
        let bytes = self.bytes();
        let start = if self.tag.is_some() { 18 } else { 14 };
        bytes[start..bytes.len() - self.padding].to_vec()
    }

    fn bytes(&self) -> Vec<u8> {
        let (client, vip, _) = self.flow();
        let payload: Vec<u8> = (0..self.payload).map(|at| (at * 7) as u8).collect();
        let built = |builder: Builder| {
            let builder = builder.tos(self.tos);
            let builder = match self.tag {
                Some(tag) => builder.vlan(VlanTag(tag)),
                None => builder,
            };
            written(&builder, &payload)
        };
        let mut bytes = match self.kind {
            Kind::Tcp(flags) => built(Builder::tcp(client, vip).flags(flags)),
            Kind::Udp => built(Builder::udp(client, vip)),
            Kind::Error => {
                let mut bytes = too_big(client.ip(), vip, client, self.vip.protocol);
                if vip.is_ipv4() {
                    let sum =
                        u32::from(u16::from_be_bytes([bytes[24], bytes[25]])) + 0xffff - u32::from(self.tos);
                    let folded = (sum & 0xffff) + (sum >> 16);
                    bytes[24..26].copy_from_slice(&(folded as u16).to_be_bytes());
                    bytes[15] = self.tos;
                } else {
                    bytes[14] |= self.tos >> 4;
                    bytes[15] |= self.tos << 4;
                }
                if let Some(tag) = self.tag {
                    let [high, low] = tag.to_be_bytes();
                    bytes.splice(12..12, [0x81, 0x00, high, low]);
                }
                bytes
            }
            Kind::Echo => built(Builder::echo(client.ip(), vip.ip(), 1, 2)),
            Kind::Fragment => {
                built(Builder::ip(client.ip(), vip.ip(), self.vip.protocol).fragment(9, 80, false))
            }
            Kind::OtherProtocol => built(Builder::ip(client.ip(), vip.ip(), Protocol(253))),
            Kind::Arp => {
                let mut bytes = vec![0xff; 60];
                bytes[12..14].copy_from_slice(&[0x08, 0x06]);
                bytes
            }
        };
        bytes.resize(bytes.len() + self.padding, 0xaa);
        bytes
    }
}

/// Three VIPs of each family; ports and protocols such that one alone does not tell them apart.
fn any_vip() -> impl Strategy<Value = Vip> {
    let addresses = ["198.51.100.10", "2001:db8::10"];
    let services = [(80, Protocol::TCP), (80, Protocol::UDP), (443, Protocol::TCP)];
    (0..2_usize, 0..3_usize).prop_map(move |(address, service)| {
        let (port, protocol) = services[service];
        Vip::host(addresses[address].parse().unwrap(), port, protocol)
    })
}

fn any_reals(vip: Vip, l2: bool) -> impl Strategy<Value = Vec<Real>> {
    let real = (
        1..6_u8,
        any::<bool>(),
        0..4_u32,
        prop_oneof![8 => Just(Some(1500)), 1 => Just(None), 2 => Just(Some(300))],
    );
    prop::collection::vec(real, 0..6).prop_map(move |reals| {
        let mut all: Vec<Real> = Vec::new();
        for (number, v6, weight, mtu) in reals {
            let v6 = !vip.is_ipv4() || v6 && !l2;
            let address = if v6 { format!("fd00::1{number}") } else { format!("10.0.0.1{number}") };
            let address = address.parse().unwrap();
            if all.iter().all(|real| real.address != address) {
                all.push(Real { mtu, ..Real::at(address).weight(weight) });
            }
        }
        all
    })
}

fn any_setup() -> impl Strategy<Value = Setup> {
    let forwarding = prop_oneof![
        (any::<bool>(), any::<bool>()).prop_map(|(v4, v6)| Forwarding::Ipip {
            source_v4: v4.then(|| "10.200.0.0/20".parse().unwrap()),
            source_v6: v6.then(|| "fd00:afb::/100".parse().unwrap()),
        }),
        Just(Forwarding::L2Dsr),
    ];
    (forwarding, prop::collection::btree_set(any_vip(), 0..5), 0..3_u64).prop_flat_map(
        |(forwarding, vips, seed)| {
            let l2 = forwarding == Forwarding::L2Dsr;
            let vips: Vec<_> =
                vips.into_iter().map(|vip| any_reals(vip, l2).prop_map(move |reals| (vip, reals))).collect();
            vips.prop_map(move |vips| Setup { forwarding, seed, ..Setup::new(vips) })
        },
    )
}

fn any_packet() -> impl Strategy<Value = Packet> {
    let tcp = [TcpFlags::SYN, TcpFlags::ACK, TcpFlags::FIN, TcpFlags::RST];
    let kind = prop_oneof![20 => Just(0), 4 => Just(1), 1 => 2..6];
    let shape = (any::<u8>(), 0..500_usize, prop::option::weighted(0.2, 0..4096_u16), 0..20_usize);
    (any_vip(), 0..12_u8, kind, 0..4_usize, shape).prop_map(move |(vip, client, kind, flags, shape)| {
        let (tos, payload, tag, padding) = shape;
        let kind = match kind {
            0 if vip.protocol == Protocol::TCP => Kind::Tcp(tcp[flags]),
            0 => Kind::Udp,
            1 => Kind::Error,
            2 => Kind::Echo,
            3 => Kind::Fragment,
            4 => Kind::OtherProtocol,
            _ => Kind::Arp,
        };
        // A fragment that ends the packet, or ARP, is as long as it is.
        let padding = if matches!(kind, Kind::Arp) { 0 } else { padding };
        Packet { vip, client, kind, tos, payload, tag, padding }
    })
}

#[derive(Debug, Clone)]
enum Step {
    Packets(Vec<Packet>),
    Reload(Setup),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => prop::collection::vec(any_packet(), 1..100).prop_map(Step::Packets),
        1 => any_setup().prop_map(Step::Reload),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_history_is_as_in_the_model(
        first in any_setup(),
        steps in prop::collection::vec(any_step(), 1..12),
    ) {
        let mut lab = Lab::new(&first);
        let mut model = Model::new(&first);
        let mut drops: BTreeMap<&str, u64> = BTreeMap::new();
        for step in &steps {
            match step {
                Step::Reload(setup) => {
                    lab.reload(setup);
                    model.reload(setup);
                }
                Step::Packets(packets) => {
                    let mut out = lab.exchange(packets.iter().map(Packet::bytes)).into_iter();
                    for packet in packets {
                        match model.verdict(packet) {
                            Verdict::To(real) => {
                                let sent = out.next().expect("as many packets come out as the model sends");
                                model.check(packet, real, &sent);
                            }
                            Verdict::Dropped(reason) => *drops.entry(reason).or_default() += 1,
                        }
                    }
                    prop_assert_eq!(out.next(), None);
                }
            }
        }
        let stats = lab.finish();
        let counted: BTreeMap<&str, u64> = stats.drops().into_iter().collect();
        prop_assert_eq!(counted, drops);
    }
}
