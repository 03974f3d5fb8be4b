//! What the balancer is to do, from its specification: plain maps, one packet at a time.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use afx::packet::{FlowKey, Protocol};
use afx::stage::balancer::flow::FlowHasher;
use afx::stage::balancer::maglev::{Table, TableSize};
use afx::stage::balancer::{Forwarding, HashOn, How, RealState, ServerIdIn, Vip};

use super::view::{
    Flow, ICMP, ICMPV6, IPV4, IPV6, TCP, UDP, fill_ipv4_checksum, ip_of, link_len, view, word,
};
use crate::lab::{Real, Served, Setup};

/// What becomes of a packet.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) fate: Fate,
    /// The VIP that it was for, and the real that was chosen.
    pub(super) decision: Option<(Vip, Option<Chosen>)>,
}

/// A real, with the VIP whose real it is, and why it was chosen.
pub(super) type Chosen = (Vip, IpAddr, How);

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It goes to a real, as it is after it was taken out of a tunnel, if it came in one.
    Sent { real: IpAddr, packet: Vec<u8>, flow: Flow },
    /// It is answered.
    Replied { ping: Vec<u8> },
    /// It is dropped, and its sender perhaps told the longest packet that would not have been.
    Dropped { reason: &'static str, told: Option<(u32, Vec<u8>)> },
}

/// What the balancer has noted of a flow.
#[derive(Debug, Clone, Copy)]
struct Known {
    vip: Vip,
    real: IpAddr,
    /// The how manyeth of that address and VIP.
    life: u32,
    /// Whether the client said goodbye.
    closing: bool,
}

#[derive(Debug)]
pub(super) struct Model {
    pub(super) setup: Setup,
    flows: HashMap<Flow, Known>,
    /// How many times a VIP has had a real with that address, taken out and put in again.
    lives: BTreeMap<(Vip, IpAddr), u32>,
}

/// What a packet says about its flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Says {
    Syn,
    Goodbye,
    Else,
}

impl Model {
    pub(super) fn new(setup: &Setup) -> Self {
        let nothing = Setup { vips: Vec::new(), ..setup.clone() };
        let mut model = Self { setup: nothing, flows: HashMap::new(), lives: BTreeMap::new() };
        model.reload(setup);
        model
    }

    pub(super) fn reload(&mut self, setup: &Setup) {
        let reals = |setup: &Setup| -> BTreeSet<(Vip, IpAddr)> {
            setup.vips.iter().flat_map(|of| of.reals.iter().map(|real| (of.vip, real.address))).collect()
        };
        for new in reals(setup).difference(&reals(&self.setup)) {
            *self.lives.entry(*new).or_default() += 1;
        }
        self.setup = setup.clone();
    }

    pub(super) fn judge(&mut self, packet: &[u8]) -> Outcome {
        self.judge_within(packet, false)
    }

    fn judge_within(&mut self, packet: &[u8], tunnelled: bool) -> Outcome {
        let Some(ip) = ip_of(packet) else { return dropped("balancer.not_ip") };
        let seen = view(ip);
        let Flow { source: _, destination, protocol, ports } = seen.flow;
        if seen.has_options {
            return dropped("balancer.ip_options");
        }
        if seen.is_fragment {
            return dropped("balancer.fragment");
        }
        let message = &ip[seen.transport..];
        if protocol == ICMP || protocol == ICMPV6 {
            return match quoted(destination, protocol, message) {
                Some(flow) => self.error(packet, ip, flow.reversed()),
                None => self.ping(packet, destination, protocol, message),
            };
        }
        let gue_port = match self.setup.forwarding {
            Forwarding::Gue { port, .. } => port,
            _ => 6080,
        };
        let inner = match protocol {
            IPV4 | IPV6 => Some(message),
            UDP if ports.1 == gue_port => Some(&message[8..]),
            _ => None,
        };
        // What does not begin as an IP header is not in a tunnel.
        if let Some(inner) = inner.filter(|inner| matches!(inner.first(), Some(0x40..=0x4f | 0x60..=0x6f)))
            && !tunnelled
            && self.setup.decapsulate.contains(&destination)
        {
            return match taken_out(packet, inner) {
                Some(packet) => self.judge_within(&packet, true),
                None => dropped("balancer.ttl_exceeded"),
            };
        }
        self.packet(packet, ip, seen.flow, message)
    }

    /// A packet of a flow.
    fn packet(&mut self, packet: &[u8], ip: &[u8], flow: Flow, message: &[u8]) -> Outcome {
        let Some(served) = self.served(flow) else { return dropped("balancer.no_vip") };
        let vip = served.vip;
        if let Some(outcome) = self.too_long(packet, ip, vip) {
            return outcome;
        }
        let says = match (flow.protocol, message.get(13)) {
            (TCP, Some(flags)) if flags & 0b101 != 0 => Says::Goodbye,
            (TCP, Some(flags)) if flags & 0b1_0010 == 0b10 => Says::Syn,
            _ => Says::Else,
        };
        let named = server_id(&served, flow.protocol, message).and_then(|id| {
            let has_it = |real: &&Real| real.server_ids.contains(&id) && takes_named(real);
            served.reals.iter().find(has_it).map(|real| real.address)
        });
        let by_header = served.options.server_id == Some(ServerIdIn::UdpHeader);
        let known = self.flows.get(&flow).copied();
        let goodbye = says == Says::Goodbye;
        if let Some(real) = named {
            if !by_header {
                let stays = known.filter(|known| self.is(known, vip, real));
                let closing = stays.is_some_and(|known| known.closing) || goodbye;
                self.note(flow, vip, real, closing);
            }
            return self.send(packet, ip, flow, vip, (vip, real, How::ServerId));
        }
        let begins_anew = known.is_some_and(|known| known.closing) && says == Says::Syn;
        if let Some(known) = known.filter(|known| !begins_anew && self.keeps(known, flow.protocol, says)) {
            self.flows.insert(flow, Known { closing: known.closing || goodbye, ..known });
            return self.send(packet, ip, flow, vip, (known.vip, known.real, How::Connection));
        }
        match self.choose(&served, flow) {
            Some((real, how)) => {
                self.note(flow, vip, real, goodbye);
                self.send(packet, ip, flow, vip, (vip, real, how))
            }
            None => {
                // What it had is no use; what it says is heard.
                if begins_anew {
                    self.flows.remove(&flow);
                } else if let Some(known) = self.flows.get_mut(&flow) {
                    known.closing |= goodbye;
                }
                Outcome { decision: Some((vip, None)), ..dropped("balancer.no_real") }
            }
        }
    }

    /// An ICMP error about a packet of a flow.
    fn error(&self, packet: &[u8], ip: &[u8], flow: Flow) -> Outcome {
        let Some(served) = self.served(flow) else { return dropped("balancer.no_vip") };
        let vip = served.vip;
        if let Some(outcome) = self.too_long(packet, ip, vip) {
            return outcome;
        }
        let known = self.flows.get(&flow).filter(|known| self.keeps(known, flow.protocol, Says::Else));
        let chosen = match known {
            Some(known) => Some((known.vip, known.real, How::Connection)),
            None => self.choose(&served, flow).map(|(real, how)| (vip, real, how)),
        };
        match chosen {
            Some(chosen) => self.send(packet, ip, flow, vip, chosen),
            None => Outcome { decision: Some((vip, None)), ..dropped("balancer.no_real") },
        }
    }

    fn ping(&self, packet: &[u8], to: IpAddr, protocol: u8, message: &[u8]) -> Outcome {
        let is_request = matches!((protocol, message[0]), (ICMP, 8) | (ICMPV6, 128)) && message[1] == 0;
        let answers = |of: &&Served| of.options.answer_echo && of.vip.network.contains(&to);
        // Of several the one with the longest prefix that was defined first.
        let of = self.setup.vips.iter().filter(answers).rev().max_by_key(|of| of.vip.network.prefix_len());
        match of {
            Some(of) if is_request => {
                Outcome { fate: Fate::Replied { ping: packet.to_vec() }, decision: Some((of.vip, None)) }
            }
            _ => dropped("balancer.no_vip"),
        }
    }

    fn too_long(&self, packet: &[u8], ip: &[u8], vip: Vip) -> Option<Outcome> {
        let most = self.setup.client_mtu.filter(|mtu| ip.len() > *mtu as usize)?;
        Some(Outcome { decision: Some((vip, None)), ..self.too_big(packet, most) })
    }

    fn too_big(&self, packet: &[u8], most: u32) -> Outcome {
        let about = ip_of(packet).map(view);
        // Nobody is told of an error.
        let may_tell = about.is_some_and(|about| !matches!(about.flow.protocol, ICMP | ICMPV6));
        let tells = self.setup.too_big.answer && self.setup.too_big.per_second > 0 && may_tell;
        let told = tells.then(|| (most, packet.to_vec()));
        Outcome { fate: Fate::Dropped { reason: "balancer.too_big", told }, decision: None }
    }

    fn send(&self, packet: &[u8], ip: &[u8], flow: Flow, vip: Vip, (of, real, how): Chosen) -> Outcome {
        let decision = Some((vip, Some((of, real, how))));
        let reals = &self.setup.vips.iter().find(|other| other.vip == of).unwrap().reals;
        let Some(mtu) = reals.iter().find(|other| other.address == real).and_then(|real| real.mtu) else {
            return Outcome { decision, ..dropped("balancer.no_next_hop") };
        };
        let outer = match (self.setup.forwarding, real) {
            (Forwarding::Ipip { .. }, IpAddr::V4(_)) => 20,
            (Forwarding::Ipip { .. }, IpAddr::V6(_)) => 40,
            (Forwarding::Gue { .. }, IpAddr::V4(_)) => 28,
            (Forwarding::Gue { .. }, IpAddr::V6(_)) => 48,
            _ => 0,
        };
        if ip.len() + outer > mtu as usize {
            return Outcome { decision, ..self.too_big(packet, mtu - outer as u32) };
        }
        Outcome { fate: Fate::Sent { real, packet: packet.to_vec(), flow }, decision }
    }

    /// The VIP that a flow goes to: a look at all of them.
    fn served(&self, flow: Flow) -> Option<Served> {
        let fits = |of: &&Served| {
            of.vip.network.contains(&flow.destination)
                && of.vip.protocol.0 == flow.protocol
                && of.vip.port.is_none_or(|port| port == flow.ports.1)
        };
        let rank = |of: &&Served| (of.vip.network.prefix_len(), of.vip.port.is_some());
        self.setup.vips.iter().filter(fits).max_by_key(rank).cloned()
    }

    fn note(&mut self, flow: Flow, vip: Vip, real: IpAddr, closing: bool) {
        let life = self.lives[&(vip, real)];
        self.flows.insert(flow, Known { vip, real, life, closing });
    }

    fn is(&self, known: &Known, vip: Vip, real: IpAddr) -> bool {
        (known.vip, known.real, known.life) == (vip, real, self.lives[&(vip, real)])
    }

    /// Whether a flow stays with the real that it had.
    fn keeps(&self, known: &Known, protocol: u8, says: Says) -> bool {
        let Some(of) = self.setup.vips.iter().find(|of| of.vip == known.vip) else { return false };
        let Some(real) = of.reals.iter().find(|real| real.address == known.real) else { return false };
        let alive = self.lives[&(known.vip, known.real)] == known.life;
        alive
            && match real.state {
                RealState::Up | RealState::Draining => true,
                RealState::Down if protocol == TCP => says != Says::Syn,
                RealState::Down => !of.options.udp_leaves_down,
                RealState::Out => false,
            }
    }

    /// The real of a new flow.
    fn choose(&self, served: &Served, flow: Flow) -> Option<(IpAddr, How)> {
        let up = || served.reals.iter().filter(|real| real.state == RealState::Up);
        let by_source = up()
            .flat_map(|real| real.sources.iter().map(move |network| (network, real.address)))
            .filter(|(network, _)| network.contains(&flow.source))
            .max_by_key(|(network, _)| network.prefix_len());
        if let Some((_, real)) = by_source {
            return Some((real, How::Source));
        }
        // Maglev, as balancers that share a VIP have to agree on it.
        let seed = [self.setup.seed, self.setup.seed.rotate_left(32) ^ 0x6166_782d_6c62];
        let weights: Vec<_> = up().map(|real| (real.address, real.weight)).collect();
        let size = TableSize::new(self.setup.table_size).unwrap();
        let table = Table::of_addresses(size, seed, &weights).unwrap();
        let nobody = |v4: bool| if v4 { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
        let key = match served.options.hash {
            HashOn::FiveTuple => {
                let Flow { source, destination, protocol, ports } = flow;
                FlowKey::new(source, destination, Protocol(protocol), ports.0, ports.1)
            }
            HashOn::Source => FlowKey::new(flow.source, nobody(flow.source.is_ipv4()), Protocol(0), 0, 0),
            HashOn::DestinationPort => FlowKey::new(nobody(true), nobody(true), Protocol(0), 0, flow.ports.1),
        };
        let real = table.lookup(FlowHasher::new(seed).hash(&key.unwrap()))?;
        Some((weights[real].0, How::Maglev))
    }
}

fn dropped(reason: &'static str) -> Outcome {
    Outcome { fate: Fate::Dropped { reason, told: None }, decision: None }
}

fn takes_named(real: &Real) -> bool {
    matches!(real.state, RealState::Up | RealState::Draining)
}

/// The flow of the packet that an ICMP error quotes, if it was sent to that packet's sender.
fn quoted(to: IpAddr, protocol: u8, message: &[u8]) -> Option<Flow> {
    let is_error = match protocol {
        ICMP => matches!(message[0], 3 | 4 | 5 | 11 | 12),
        _ => (1..128).contains(&message[0]),
    };
    is_error.then(|| view(&message[8..]).flow).filter(|flow| flow.source == to)
}

/// The inner packet behind the outer one's link header, one hop further. None if that was its last.
fn taken_out(packet: &[u8], inner: &[u8]) -> Option<Vec<u8>> {
    let mut link = packet[..link_len(packet)].to_vec();
    let is_v4 = inner[0] >> 4 == 4;
    let ethertype: [u8; 2] = if is_v4 { [0x08, 0x00] } else { [0x86, 0xdd] };
    *link.last_chunk_mut().unwrap() = ethertype;
    let mut inner = inner.to_vec();
    let ttl = if is_v4 { 8 } else { 7 };
    if inner[ttl] <= 1 {
        return None;
    }
    inner[ttl] -= 1;
    if is_v4 {
        fill_ipv4_checksum(&mut inner);
    }
    Some([link, inner].concat())
}

/// The number of the server that a packet names.
fn server_id(served: &Served, protocol: u8, message: &[u8]) -> Option<u32> {
    let number = |bytes: &[u8]| bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte));
    let id = match (served.options.server_id?, protocol) {
        (ServerIdIn::Quic, UDP) => {
            let payload = &message[8..usize::from(word(message, 4))];
            let long = payload.first()? & 0x80 != 0;
            if long && payload[0] & 0x20 == 0 {
                return None;
            }
            let cid = if long { payload.get(6..6 + usize::from(*payload.get(5)?))? } else { &payload[1..] };
            match cid.first()? >> 6 {
                1 => number(cid.get(..3)?) >> 6 & 0xffff,
                2 => number(cid.get(1..4)?),
                3 => number(cid.get(1..5)?),
                _ => 0,
            }
        }
        (ServerIdIn::UdpHeader, UDP) => {
            let payload = &message[8..];
            if payload.len() >= 8 && payload[0] == 0x52 { number(&payload[1..4]) } else { 0 }
        }
        (ServerIdIn::TcpOption, TCP) if message[13] & 0b10 == 0 => {
            let options = &message[20..usize::from(message[12] >> 4) * 4];
            let at = options.windows(6).position(|option| option[..2] == [0xb7, 6])?;
            u32::from_le_bytes(options[at + 2..at + 6].try_into().unwrap())
        }
        _ => 0,
    };
    (id != 0).then_some(id)
}
