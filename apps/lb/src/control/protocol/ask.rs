//! What may be asked of a running balancer.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::{Connection, ConnectionState, Fragments, HashOn, Mac, Protocol, ServerIdIn, VipKey};

/// A request; `do` says which.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Ask {
    /// How it goes: [`Status`](super::Status).
    Status {},
    /// The VIPs: a list of [`VipStatus`](super::VipStatus).
    Vips {},
    /// The reals: a list of [`RealStatus`](super::RealStatus).
    Reals(RealsWanted),
    /// The connections: lists of [`Connection`], then
    /// [`ConnectionsEnd`](super::ConnectionsEnd).
    Connections(ConnectionsWanted),
    /// What is counted: a list of [`Counter`](super::Counter).
    Counters(CountersWanted),
    /// What becomes of a flow: [`Explanation`](super::Explanation).
    Explain(Flow),
    /// The configuration in force: [`ConfigText`](super::ConfigText).
    Config {},
    /// Reads the configuration file again and puts it in force: [`Changed`](super::Changed).
    Reload {},
    /// A further real for a VIP: [`Changed`](super::Changed).
    RealAdd(RealAdd),
    /// A real less: [`Changed`](super::Changed).
    RealRemove(RealNamed),
    /// Another weight: [`Changed`](super::Changed).
    RealWeight(RealWeight),
    /// No new flows for a real: [`Changed`](super::Changed); with `wait`, lines of
    /// [`DrainProgress`](super::DrainProgress) and [`DrainEnd`](super::DrainEnd).
    RealDrain(RealDrain),
    /// New flows for it again: [`Changed`](super::Changed).
    RealUndrain(RealNamed),
    /// A further VIP, without reals at first: [`Changed`](super::Changed).
    VipAdd(VipAdd),
    /// A VIP less: [`Changed`](super::Changed).
    VipRemove(VipNamed),
}

impl Ask {
    /// What is wrong with it, beyond its shape.
    pub(crate) fn check(&self) -> Result<(), String> {
        let time = |what: &str, seconds: Option<f64>| match seconds {
            Some(seconds) if !(0.0..=MAX_SECONDS).contains(&seconds) => {
                Err(format!("{what} is no time from 0 to {MAX_SECONDS} seconds"))
            }
            _ => Ok(()),
        };
        let weight = |weight: Option<u32>| match weight {
            Some(weight) if weight > MAX_WEIGHT => {
                Err(format!("the weight {weight} is out of range: it can be 0 to {MAX_WEIGHT}"))
            }
            _ => Ok(()),
        };
        match self {
            Self::Connections(wanted) => time("idle_over_seconds", wanted.idle_over_seconds),
            Self::RealDrain(drain) => time("deadline_seconds", drain.deadline_seconds),
            Self::RealAdd(add) => weight(add.weight),
            Self::RealWeight(change) => weight(Some(change.weight)),
            Self::Explain(flow) if flow.source.is_ipv4() != flow.destination.is_ipv4() => Err(format!(
                "{} and {} are of different families: no packet has both",
                flow.source, flow.destination
            )),
            _ => Ok(()),
        }
    }
}

/// The highest weight of a real.
pub(crate) const MAX_WEIGHT: u32 = 65_535;

/// The longest time in a request: a hundred days.
pub(crate) const MAX_SECONDS: f64 = 100.0 * 24.0 * 60.0 * 60.0;

/// Which reals.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RealsWanted {
    /// Those of this VIP alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) vip: Option<VipKey>,
}

/// Which counters.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CountersWanted {
    /// Those as well that have counted nothing.
    #[serde(default)]
    pub(crate) all: bool,
}

/// Which connections, and what of them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConnectionsWanted {
    /// Those of this VIP alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) vip: Option<VipKey>,
    /// Those of reals with this address alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) real: Option<IpAddr>,
    /// Those in this state alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) state: Option<ConnectionState>,
    /// Those that were silent for longer alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) idle_over_seconds: Option<f64>,
    /// So many at most; all without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) limit: Option<u64>,
    /// Only how many there are.
    #[serde(default)]
    pub(crate) count: bool,
}

impl ConnectionsWanted {
    /// Whether it is one of them, limit aside.
    pub(crate) fn matches(&self, connection: &Connection) -> bool {
        self.vip.is_none_or(|vip| connection.vip == Some(vip))
            && self.real.is_none_or(|real| connection.real == Some(real))
            && self.state.is_none_or(|state| connection.state == state)
            && self.idle_over_seconds.is_none_or(|seconds| connection.idle_seconds > seconds)
    }
}

/// A flow, as a client sends it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Flow {
    /// The client.
    pub(crate) source: SocketAddr,
    /// What it connects to; of the same family.
    pub(crate) destination: SocketAddr,
    pub(crate) protocol: Protocol,
}

/// A VIP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct VipNamed {
    pub(crate) vip: VipKey,
}

/// A real of a VIP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RealNamed {
    pub(crate) vip: VipKey,
    pub(crate) real: IpAddr,
}

/// A real to add.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RealAdd {
    pub(crate) vip: VipKey,
    pub(crate) real: IpAddr,
    /// Its share of new flows; 100 without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) weight: Option<u32>,
    /// Where to send its packets, if not where the kernel's routes say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) next_hop: Option<Mac>,
}

/// A real's weight to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RealWeight {
    pub(crate) vip: VipKey,
    pub(crate) real: IpAddr,
    /// From 0 to 65535.
    pub(crate) weight: u32,
}

/// A real to drain.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RealDrain {
    pub(crate) vip: VipKey,
    pub(crate) real: IpAddr,
    /// After so long, connections that are left are cut: they go to other reals. Never, without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) deadline_seconds: Option<f64>,
    /// Answer when the drain is over, and say every second how far it is.
    #[serde(default)]
    pub(crate) wait: bool,
}

/// A VIP to add. What is left out is as in a configuration file that leaves it out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct VipAdd {
    pub(crate) vip: VipKey,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) hash: Option<HashOn>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) server_id: Option<ServerIdIn>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) fragments: Option<Fragments>,
    /// Whether to answer pings to the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ping: Option<bool>,
}
