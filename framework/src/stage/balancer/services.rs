//! What workers balance by: VIPs, their tables, and the ways to their reals. Made whole, never changed.

use std::sync::Arc;

use super::connections::Signal;
use super::decision::How;
use super::definition::{HashOn, RealState, TooBig, VipOptions};
use super::flow::FlowHasher;
use super::forward::Destination;
use super::maglev::Table;
use super::map::Map;
use super::real::RealId;
use super::vip::Vip;
use super::vips::Vips;
use crate::packet::{FlowKey, FlowKey4, FlowKey6, Protocol};

/// A snapshot of what is balanced where; made by a [`Directory`](super::Directory), published to workers by
/// [`Running::publish`](crate::Running::publish).
#[derive(Debug)]
pub struct Services {
    /// [`Found`] by VIP.
    pub(super) vips: Vips,
    pub(super) list: Vec<Service>,
    /// By the index of the real's identity.
    pub(super) reals: Vec<Option<Place>>,
    /// What new flows are hashed with for the tables: agreed between balancers.
    pub(super) common: FlowHasher,
    /// The longest IP packet from a client.
    pub(super) client_mtu: usize,
    pub(super) too_big: TooBig,
    /// Where pings are answered, and a VIP there, whatever its port and protocol.
    pub(super) echo: Vips,
    /// Where fragments are kept together, by protocol.
    pub(super) together: Vips,
    pub(super) tunnels: Option<Tunnels>,
}

/// What comes to the balancer's own addresses is taken out of its outer headers.
#[derive(Debug)]
pub(super) struct Tunnels {
    /// The addresses, whatever the port and protocol.
    pub(super) ends: Vips,
    pub(super) gue_port: u16,
}

/// The protocol of those sets of addresses that know none.
pub(super) const ANY: Protocol = Protocol(0);

/// One VIP.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) vip: Vip,
    pub(super) options: VipOptions,
    pub(super) table: Arc<Table>,
    /// What the table's entries mean.
    pub(super) reals: Vec<RealId>,
    /// The real that a client goes to, as bits of its identity, whatever port and protocol.
    pub(super) sources: Option<Vips>,
    /// The real that has a server id.
    pub(super) server_ids: Map<u64>,
}

/// A VIP as the first look finds it: its place in the list, and whether there is more to look at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found(u32);

impl Found {
    const READS_PACKETS: u32 = 1 << 31;

    pub(super) fn new(index: u32, options: &VipOptions) -> Self {
        Self(if options.server_id.is_some() { index | Self::READS_PACKETS } else { index })
    }

    pub(super) const fn to_bits(self) -> u32 {
        self.0
    }

    pub(super) const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    #[inline(always)]
    pub(super) const fn index(self) -> u32 {
        self.0 & !Self::READS_PACKETS
    }

    /// Whether packets for it may say which real they are for.
    #[inline(always)]
    pub(super) const fn reads_packets(self) -> bool {
        self.0 & Self::READS_PACKETS != 0
    }
}

/// A real that is there, and the way to it, if there is one now.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) id: RealId,
    /// For which signals a flow that it has stays with it.
    keeps: Signals,
    /// Its VIP's place in the list.
    pub(super) service: u32,
    pub(super) way: Option<Destination>,
}

impl Place {
    /// None for a real that is as if it were not there.
    pub(super) fn new(
        id: RealId,
        state: RealState,
        options: &VipOptions,
        service: u32,
        way: Option<Destination>,
    ) -> Option<Self> {
        let keeps = match state {
            RealState::Up | RealState::Draining => Signals::ALL,
            RealState::Down if options.udp_leaves_down => Signals::of(&[Signal::Data, Signal::Close]),
            RealState::Down => Signals::of(&[Signal::Data, Signal::Close, Signal::Datagram]),
            RealState::Out => return None,
        };
        Some(Self { id, keeps, service, way })
    }

    /// Whether a flow that it has stays with it, where this is what the flow's next packet says.
    #[inline(always)]
    pub(super) fn keeps(&self, signal: Signal) -> bool {
        self.keeps.0 & Signals::bit(signal) != 0
    }
}

/// A set of signals.
#[derive(Debug, Clone, Copy)]
struct Signals(u8);

impl Signals {
    const ALL: Self = Self(u8::MAX);

    fn of(signals: &[Signal]) -> Self {
        Self(signals.iter().fold(0, |bits, signal| bits | Self::bit(*signal)))
    }

    #[inline(always)]
    const fn bit(signal: Signal) -> u8 {
        1 << signal as u8
    }
}

impl HashOn {
    /// What is hashed of a flow: another flow, of which only that is not zero which counts.
    pub(super) fn part_of(self, flow: &FlowKey) -> FlowKey {
        match (self, flow) {
            (Self::FiveTuple, _) => *flow,
            (Self::Source, FlowKey::V4(flow)) => {
                FlowKey4::new(flow.source(), [0; 4].into(), ANY, 0, 0).into()
            }
            (Self::Source, FlowKey::V6(flow)) => {
                FlowKey6::new(flow.source(), [0; 16].into(), ANY, 0, 0).into()
            }
            (Self::DestinationPort, _) => {
                FlowKey4::new([0; 4].into(), [0; 4].into(), ANY, 0, flow.destination_port()).into()
            }
        }
    }
}

impl Services {
    /// The VIP that a flow goes to.
    #[inline(always)]
    pub(super) fn service_of(&self, flow: &FlowKey) -> Option<Found> {
        self.vips.of(flow).map(Found::from_bits)
    }

    /// The VIP that an IPv4 flow goes to.
    #[inline(always)]
    pub(super) fn service_of_v4(&self, flow: &FlowKey4) -> Option<Found> {
        self.vips.of_v4(flow).map(Found::from_bits)
    }

    /// The VIP that an IPv6 flow goes to.
    #[inline(always)]
    pub(super) fn service_of_v6(&self, flow: &FlowKey6) -> Option<Found> {
        self.vips.of_v6(flow).map(Found::from_bits)
    }

    /// The real that serves a new flow of a VIP, and why.
    #[inline]
    pub(super) fn choose(&self, service: u32, flow: &FlowKey) -> Option<(RealId, How)> {
        let service = self.list.get(service as usize)?;
        if let Some(sources) = &service.sources
            && let Some(real) = sources.find(flow.source(), 0, ANY)
        {
            return Some((RealId::from_bits(real), How::Source));
        }
        let hash = match service.options.hash {
            HashOn::FiveTuple => self.common.hash(flow),
            part => self.common.hash(&part.part_of(flow)),
        };
        let real = service.reals.get(service.table.lookup(hash)?)?;
        Some((*real, How::Maglev))
    }

    /// The real of that identity, unless it is gone.
    #[inline(always)]
    pub(super) fn real(&self, id: RealId) -> Option<&Place> {
        self.reals.get(usize::from(id.index()))?.as_ref().filter(|place| place.id == id)
    }

    /// The VIPs.
    pub fn vips(&self) -> impl Iterator<Item = Vip> {
        self.list.iter().map(|service| service.vip)
    }

    /// How many slots of its VIP's table each real has, in the order in which reals were defined.
    pub fn slots(&self, vip: &Vip) -> Vec<(RealId, usize)> {
        let Some(service) = self.list.iter().find(|service| service.vip == *vip) else { return Vec::new() };
        let mut slots: Vec<_> = service.reals.iter().map(|id| (*id, 0)).collect();
        for real in service.table.iter() {
            slots[real].1 += 1;
        }
        slots
    }

    /// Reals that have no way to them now; those that are [out](RealState::Out) need none.
    pub fn unreachable(&self) -> impl Iterator<Item = RealId> {
        self.reals.iter().flatten().filter(|place| place.way.is_none()).map(|place| place.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(client: &str, server: &str) -> FlowKey {
        let (client, server): (std::net::SocketAddr, std::net::SocketAddr) =
            (client.parse().unwrap(), server.parse().unwrap());
        FlowKey::new(client.ip(), server.ip(), Protocol::TCP, client.port(), server.port()).unwrap()
    }

    #[test]
    fn only_that_part_of_a_flow_is_hashed_that_counts() {
        let flows = [
            flow("192.0.2.1:1000", "198.51.100.1:80"),
            flow("192.0.2.1:1001", "198.51.100.2:80"),
            flow("192.0.2.2:1000", "198.51.100.1:81"),
        ];
        let same = |on: HashOn, a: usize, b: usize| on.part_of(&flows[a]) == on.part_of(&flows[b]);
        assert!(!same(HashOn::FiveTuple, 0, 1) && HashOn::FiveTuple.part_of(&flows[0]) == flows[0]);
        assert!(same(HashOn::Source, 0, 1) && !same(HashOn::Source, 0, 2));
        assert!(same(HashOn::DestinationPort, 0, 1) && !same(HashOn::DestinationPort, 0, 2));
        let (a, b) =
            (flow("[2001:db8::1]:1000", "[2001:db8::9]:80"), flow("[2001:db8::1]:1001", "[2001:db8::8]:81"));
        assert_eq!(HashOn::Source.part_of(&a), HashOn::Source.part_of(&b));
        assert_eq!(
            HashOn::DestinationPort.part_of(&a),
            HashOn::DestinationPort.part_of(&flows[0]),
            "of either IP version"
        );
    }

    #[test]
    fn a_real_keeps_flows_as_its_state_says() {
        let keeps = |state, udp_leaves_down| {
            let options = VipOptions { udp_leaves_down, ..VipOptions::default() };
            let place = Place::new(RealId::new(1, 0), state, &options, 0, None)?;
            Some(
                [Signal::Open, Signal::Data, Signal::Close, Signal::Datagram]
                    .map(|signal| place.keeps(signal)),
            )
        };
        for leaves in [false, true] {
            assert_eq!(keeps(RealState::Up, leaves), Some([true; 4]));
            assert_eq!(keeps(RealState::Draining, leaves), Some([true; 4]));
            assert_eq!(keeps(RealState::Down, leaves), Some([false, true, true, !leaves]));
            assert_eq!(keeps(RealState::Out, leaves), None);
        }
    }
}
