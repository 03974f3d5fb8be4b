//! What packets look like: from a description to headers of flows, and the order in which these take turns.
//!
//! All that can be known beforehand is worked out beforehand: the headers of every flow, and sums of what their checksums
//! cover. What is left per packet is a copy, its length, its signature, and two checksums ([`Writer`]; the traffic source in
//! the kernel does the same).

mod order;
mod write;

pub(crate) use order::Order;
pub(crate) use write::Writer;

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use afx::packet::{Builder, MacAddress, Protocol, TcpFlags, VlanTag};
use afx_redirect::traffic::{Flow, Packet, Plan};

use crate::signature;
use crate::units::{AddressRange, FCS, PortRange, Sizes};

/// Flows at most: 104 bytes of memory each, and more in the kernel for live frames.
pub(crate) const FLOWS_MAX: u32 = 1 << 22;

/// Flows that the ranges may have without being told how many are wanted.
const FLOWS_UNASKED: u32 = 1 << 20;

/// Flows of an attack, unless told.
const FLOWS_OF_ATTACK: u32 = 1 << 16;

/// Packets to be sent.
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    /// Source and destination.
    pub(crate) macs: (MacAddress, MacAddress),
    /// VLAN tags, the outer first: two at most.
    pub(crate) tags: Vec<VlanTag>,
    pub(crate) kind: Kind,
    pub(crate) source: AddressRange,
    pub(crate) destination: AddressRange,
    /// Of ICMP, the identifiers.
    pub(crate) source_ports: PortRange,
    pub(crate) destination_ports: PortRange,
    /// The shortest that will do unless said.
    pub(crate) sizes: Option<Sizes>,
    /// How many flows: all that the ranges have unless said.
    pub(crate) flows: Option<u32>,
    pub(crate) order: Order,
    /// Sources are drawn from their range at random.
    pub(crate) spoofed: bool,
    pub(crate) signature: bool,
    /// What is random is the same for the same seed.
    pub(crate) seed: u64,
}

/// What packets are above IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Udp,
    Tcp(TcpFlags),
    /// Echo requests.
    Icmp,
    /// UDP packets, each in three fragments.
    Fragments,
}

/// Fragments of one packet.
const PIECES: usize = 3;

/// Packets that cannot be: what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct SpecError(String);

/// Packets that are ready to be sent.
#[derive(Debug)]
pub(crate) struct Traffic {
    pub(crate) plan: Plan,
    pub(crate) flows: Vec<Flow>,
    pub(crate) order: Vec<Packet>,
    /// As said, or the shortest that will do.
    pub(crate) sizes: Sizes,
}

impl Spec {
    /// Works out all packets.
    ///
    /// # Errors
    /// What does not fit together, and what would.
    pub(crate) fn prepare(&self) -> Result<Traffic, SpecError> {
        if self.source.is_ipv4() != self.destination.is_ipv4() {
            return Err(SpecError("source and destination are of different IP versions".into()));
        }
        let (plan, sizes) = (self.plan(), self.sizes()?);
        let count = self.count()?;
        let mut random = fastrand::Rng::with_seed(self.seed);
        let fragments = self.kind == Kind::Fragments;
        let mut flows = Vec::with_capacity(count as usize * if fragments { PIECES } else { 1 });
        for number in 0..count {
            let (source, destination) = self.ends(number.into(), &mut random);
            if fragments {
                let length = usize::from(sizes.longest()) - FCS;
                flows.extend(self.fragments(&plan, source, destination, length, random.u32(..)));
            } else {
                flows.push(self.flow(&plan, source, destination, number, &mut random));
            }
        }
        let order = match self.kind {
            // Of each packet one fragment after the other.
            Kind::Fragments => Order::Walk,
            _ => self.order,
        };
        let order = order.packets(flows.len() as u32, &sizes, &mut random);
        Ok(Traffic { plan, flows, order, sizes })
    }

    /// The length of the shortest frame that has all headers and, where wanted, a signature.
    pub(crate) fn shortest_frame(&self) -> u16 {
        let plan = self.plan();
        let payload = match self.kind {
            Kind::Fragments => 0,
            _ if self.signature => signature::LENGTH as u16,
            _ => 0,
        };
        (plan.headers + payload + FCS as u16).max(64)
    }

    fn plan(&self) -> Plan {
        let ipv4 = self.source.is_ipv4();
        let l3 = 14 + 4 * self.tags.len() as u16;
        let extension = if self.kind == Kind::Fragments && !ipv4 { 8 } else { 0 };
        let l4 = l3 + if ipv4 { 20 } else { 40 } + extension;
        let (protocol, header) = match self.kind {
            Kind::Udp | Kind::Fragments => (Protocol::UDP, 8),
            Kind::Tcp(_) => (Protocol::TCP, 20),
            Kind::Icmp if ipv4 => (Protocol::ICMP, 8),
            Kind::Icmp => (Protocol::ICMPV6, 8),
        };
        let verbatim = self.kind == Kind::Fragments;
        let signature = self.signature && !verbatim;
        Plan { l3, l4, headers: l4 + header, protocol: protocol.0, ipv4, verbatim, signature }
    }

    fn sizes(&self) -> Result<Sizes, SpecError> {
        let shortest = self.shortest_frame();
        let Some(sizes) = self.sizes.clone() else { return Ok(Sizes::Fixed(shortest)) };
        if self.kind == Kind::Fragments && !matches!(sizes, Sizes::Fixed(_)) {
            return Err(SpecError(format!("fragments are all of one size: say `--size {shortest}`")));
        }
        if sizes.shortest() < shortest {
            let what = if self.plan().signature { "headers and a signature take" } else { "headers take" };
            let or =
                if self.plan().signature { ", or leave the signature out with `--no-signature`" } else { "" };
            return Err(SpecError(format!(
                "frames of {} bytes are too short: {what} {shortest}; say `--size {shortest}` at least{or}",
                sizes.shortest()
            )));
        }
        Ok(sizes)
    }

    /// How many flows there are to be.
    fn count(&self) -> Result<u32, SpecError> {
        if self.spoofed {
            let count = self.flows.unwrap_or(FLOWS_OF_ATTACK);
            return in_bounds(count.into());
        }
        let ports = match self.kind {
            Kind::Icmp => self.source_ports.count().into(),
            _ => u64::from(self.source_ports.count()) * u64::from(self.destination_ports.count()),
        };
        let there = [self.source.count(), self.destination.count(), ports.into()]
            .into_iter()
            .fold(1u128, u128::saturating_mul);
        match self.flows {
            Some(wanted) if u128::from(wanted) > there => {
                Err(SpecError(format!("{wanted} flows: the ranges of addresses and ports have {there}")))
            }
            Some(wanted) => in_bounds(wanted.into()),
            None if there > FLOWS_UNASKED.into() => Err(SpecError(format!(
                "the ranges of addresses and ports have {there} flows: say how many of them with `--flows`, at most \
                 {FLOWS_MAX}"
            ))),
            None => in_bounds(there),
        }
    }

    /// Where a flow's packets come from and go to. Source ports change fastest, then source addresses, destination ports
    /// and destination addresses.
    fn ends(&self, number: u128, random: &mut fastrand::Rng) -> (SocketAddr, SocketAddr) {
        if self.spoofed {
            let source = spoofed(self.source, random);
            let port = self.source_ports.nth(random.u64(..));
            let destination = self.destination.nth(number);
            let to = self.destination_ports.nth((number / self.destination.count()) as u64);
            return (SocketAddr::new(source, port), SocketAddr::new(destination, to));
        }
        let mut rest = number;
        let mut digit = |base: u128| {
            let digit = rest % base;
            rest /= base;
            digit
        };
        let source_port = self.source_ports.nth(digit(self.source_ports.count().into()) as u64);
        let source = self.source.nth(digit(self.source.count()));
        let ports = if self.kind == Kind::Icmp { 1 } else { self.destination_ports.count() };
        let destination_port = self.destination_ports.nth(digit(ports.into()) as u64);
        let destination = self.destination.nth(digit(self.destination.count()));
        (SocketAddr::new(source, source_port), SocketAddr::new(destination, destination_port))
    }

    fn builder(&self, builder: Builder) -> Builder {
        let builder = builder.macs(self.macs.0, self.macs.1);
        self.tags.iter().fold(builder, |builder, tag| builder.vlan(*tag))
    }

    fn flow(
        &self,
        plan: &Plan,
        source: SocketAddr,
        destination: SocketAddr,
        number: u32,
        random: &mut fastrand::Rng,
    ) -> Flow {
        let builder = match self.kind {
            Kind::Udp | Kind::Fragments => Builder::udp(source, destination),
            Kind::Tcp(flags) => Builder::tcp(source, destination).flags(flags).numbers(random.u32(..), 0),
            Kind::Icmp => Builder::echo(source.ip(), destination.ip(), source.port(), 0),
        };
        let mut bytes = [0; 128];
        let length = self.builder(builder).dont_fragment().write(&mut bytes, &[]);
        let length = length.expect("headers of one IP version, which fit");
        Flow::of(&bytes[..length], plan, number)
    }

    /// The fragments of a UDP packet, in frames of `length` bytes: as much as fits in multiples of eight bytes, and zeros
    /// behind it.
    fn fragments(
        &self,
        plan: &Plan,
        source: SocketAddr,
        destination: SocketAddr,
        length: usize,
        id: u32,
    ) -> impl Iterator<Item = Flow> {
        let piece = (length - usize::from(plan.l4)) & !7;
        let mut whole = vec![0; 128 + PIECES * piece];
        let payload = vec![0; PIECES * piece - 8];
        let written = Builder::udp(source, destination).write(&mut whole, &payload);
        let end = written.expect("three frames of payload are no longer than an IP packet");
        let datagram: Vec<u8> = whole[end - PIECES * piece..end].to_vec();
        let builder = self.builder(Builder::ip(source.ip(), destination.ip(), Protocol::UDP));
        let (headers, plan) = (usize::from(plan.headers), *plan);
        (0..PIECES).map(move |index| {
            let (offset, more) = (index * piece, index + 1 < PIECES);
            let mut bytes = vec![0; 128 + piece];
            let fragment = builder.fragment(id, offset as u16, more);
            let written = fragment.write(&mut bytes, &datagram[offset..offset + piece]);
            written.expect("the buffer is large enough");
            Flow::of(&bytes[..headers], &plan, 0)
        })
    }
}

fn in_bounds(count: u128) -> Result<u32, SpecError> {
    match u32::try_from(count) {
        Ok(count @ 1..=FLOWS_MAX) => Ok(count),
        _ => Err(SpecError(format!("{count} flows: 1 to {FLOWS_MAX}"))),
    }
}

/// An address of the range that a host could have: no router lets the others through, and the attack would end there.
fn spoofed(range: AddressRange, random: &mut fastrand::Rng) -> IpAddr {
    let mut draw = || range.nth(random.u128(..));
    let likely = |address: &IpAddr| match address {
        IpAddr::V4(address) => !matches!(address.octets()[0], 0 | 127 | 224..),
        IpAddr::V6(address) => !address.is_multicast() && !address.is_unspecified(),
    };
    let first = draw();
    if likely(&first) { first } else { (0..64).map(|_| draw()).find(likely).unwrap_or(first) }
}

/// TCP flags by name: `syn`, `syn,ack`. For clap's `value_parser`.
pub(crate) fn tcp_flags(text: &str) -> Result<TcpFlags, SpecError> {
    const NAMES: [(&str, TcpFlags); 8] = [
        ("fin", TcpFlags::FIN),
        ("syn", TcpFlags::SYN),
        ("rst", TcpFlags::RST),
        ("psh", TcpFlags::PSH),
        ("ack", TcpFlags::ACK),
        ("urg", TcpFlags::URG),
        ("ece", TcpFlags::ECE),
        ("cwr", TcpFlags::CWR),
    ];
    let flag = |name: &str| NAMES.iter().find(|(known, _)| name.trim().eq_ignore_ascii_case(known));
    text.split(',').try_fold(TcpFlags(0), |flags, name| match flag(name) {
        Some((_, flag)) => Ok(TcpFlags(flags.0 | flag.0)),
        None => Err(SpecError(format!(
            "no TCP flag `{}`: fin, syn, rst, psh, ack, urg, ece, cwr, with commas between",
            name.trim()
        ))),
    })
}

/// Attacks that are told by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Shape {
    /// TCP SYN from random sources, each with a sequence number of its own.
    SynFlood,
    /// UDP from random sources.
    UdpSpoofed,
    /// Fragments of UDP packets from random sources: the first, one in between and the last, all tiny.
    Fragments,
}

impl Shape {
    /// What sources are drawn from, unless said.
    pub(crate) fn sources(ipv4: bool) -> AddressRange {
        AddressRange::from_str(if ipv4 { "1.0.0.0-223.255.255.255" } else { "2000::/3" }).expect("as above")
    }

    pub(crate) fn kind(self) -> Kind {
        match self {
            Self::SynFlood => Kind::Tcp(TcpFlags::SYN),
            Self::UdpSpoofed => Kind::Udp,
            Self::Fragments => Kind::Fragments,
        }
    }
}

#[cfg(test)]
mod tests;
