//! What the balancer would do with a flow, for people who ask.

use super::connections::Signal;
use super::decision::How;
use super::real::RealId;
use super::services::Services;
use super::vip::Vip;
use crate::packet::{FlowKey, HashSeed, MacAddress, Protocol};
use crate::port::PortId;

/// What becomes of a flow's packets: see [`Services::explain`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Explanation {
    /// The VIP that the flow goes to, if it goes to one.
    pub vip: Option<Vip>,
    /// The real that it goes to. None: the VIP has no real that takes new flows.
    pub real: Option<RealId>,
    /// Why to that one.
    pub how: Option<How>,
    /// How its packets leave. None: no way to the real is known.
    pub leaving: Option<Leaving>,
}

/// How a flow's packets leave for their real.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Leaving {
    /// The port that they are sent on.
    pub port: PortId,
    /// That port's MAC address.
    pub source_mac: MacAddress,
    /// The next hop's MAC address.
    pub destination_mac: MacAddress,
    /// The longest IP packet that the way takes, outer headers included, in bytes.
    pub mtu: u32,
    /// The longest IP packet of the client's that is sent, in bytes.
    pub longest: u32,
    /// The outer headers as a flow of their own: source and destination, the protocol (4 or 41 for IP in IP, 17 for
    /// GUE) and GUE's ports. None: there are no outer headers.
    pub outer: Option<FlowKey>,
}

impl Services {
    /// What becomes of a flow's packets. `seed` is what the runtime's flows are hashed with
    /// ([`RuntimeBuilder::hash_seed`](crate::RuntimeBuilder::hash_seed)), and `known` the real that a worker's
    /// connection table has for the flow ([`Inspection::flow`](super::Inspection::flow)).
    ///
    /// The packets' contents are left out: a server id in them may name another real, and a SYN may begin the flow
    /// anew.
    #[must_use]
    pub fn explain(&self, flow: &FlowKey, seed: HashSeed, known: Option<RealId>) -> Explanation {
        let nothing = Explanation { vip: None, real: None, how: None, leaving: None };
        let Some(found) = self.service_of(flow) else { return nothing };
        let vip = self.list.get(found.index() as usize).map(|service| service.vip);
        let signal = signal_within(flow.protocol());
        let kept = known.filter(|id| self.real(*id).is_some_and(|place| place.keeps(signal)));
        let chosen = kept.map(|id| (id, How::Connection)).or_else(|| self.choose(found.index(), flow));
        let Some((real, how)) = chosen else { return Explanation { vip, ..nothing } };
        let way = self.real(real).and_then(|place| place.way.as_ref());
        let leaving = way.map(|way| way.leaving(flow.hash(seed)));
        Explanation { vip, real: Some(real), how: Some(how), leaving }
    }
}

/// What a packet of this protocol says that neither begins a flow nor ends it.
pub(super) const fn signal_within(protocol: Protocol) -> Signal {
    match protocol {
        Protocol::TCP => Signal::Data,
        _ => Signal::Datagram,
    }
}
