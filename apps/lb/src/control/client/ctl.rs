//! The command line of what asks a running balancer.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use clap::{Args, Subcommand};

use super::super::protocol::{
    Ask, ConnectionState, ConnectionsWanted, CountersWanted, Flow, Fragments, HashOn, MAX_WEIGHT, Mac,
    Protocol, RealAdd, RealDrain, RealNamed, RealWeight, RealsWanted, ServerIdIn, VipAdd, VipKey, VipNamed,
};

/// How many connections are listed, unless told otherwise.
const CONNECTIONS: u64 = 1000;

/// How VIPs are named, for those who ask for help.
pub(crate) const NAMES: &str = "A VIP is named as in 198.51.100.10:443/tcp, [2001:db8::10]:443/udp or, for any port, \
                                198.51.100.0/24:*/tcp.";

/// What `afx-lb ctl` can do.
#[derive(Subcommand, Clone, Debug)]
pub(crate) enum Ctl {
    /// Lists the VIPs.
    Vips,
    /// Lists the reals: state, health, share of new flows, connections, traffic, next hop.
    Reals {
        /// Those of this VIP alone.
        #[arg(long, value_name = "VIP")]
        vip: Option<VipKey>,
    },
    /// Lists connections. The tables keep a hash of each flow, not its addresses: `afx-lb explain` finds a given flow.
    Connections {
        /// Those of this VIP alone.
        #[arg(long, value_name = "VIP")]
        vip: Option<VipKey>,
        /// Those of this real alone.
        #[arg(long, value_name = "ADDRESS")]
        real: Option<IpAddr>,
        /// Those in this state alone.
        #[arg(long, value_name = "STATE")]
        state: Option<ConnectionState>,
        /// Those that were silent for longer than this alone: 30s, 5m, 2h.
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
        idle_over: Option<Duration>,
        /// At most so many; 0: all.
        #[arg(long, value_name = "NUMBER", default_value_t = CONNECTIONS)]
        limit: u64,
        /// Only says how many there are.
        #[arg(long)]
        count: bool,
    },
    /// Lists what is counted.
    Counters {
        /// What has counted something alone, as without an option.
        #[arg(long, conflicts_with = "all")]
        nonzero: bool,
        /// Everything.
        #[arg(long)]
        all: bool,
    },
    /// Prints the configuration in force, as a configuration file.
    Config,
    /// Has the configuration file read again. What commands have changed since is as in the file then.
    Reload,
    /// Adds, drains, changes and removes reals, until the next reload.
    #[command(subcommand)]
    Real(Real),
    /// Adds and removes VIPs, until the next reload.
    #[command(subcommand)]
    Vip(Vip),
}

/// What can be done with a real.
#[derive(Subcommand, Clone, Debug)]
pub(crate) enum Real {
    /// Adds a real to a VIP.
    Add {
        vip: VipKey,
        address: IpAddr,
        /// Its share of new flows, relative to the others'.
        #[arg(long, value_name = "NUMBER", default_value_t = 100, value_parser = weight())]
        weight: u32,
        /// The MAC address to send to, if not where the kernel's routes lead.
        #[arg(long, value_name = "MAC")]
        next_hop: Option<Mac>,
    },
    /// Takes a real out at once; its connections go to others.
    Remove { vip: VipKey, address: IpAddr },
    /// Gives a real another weight.
    Weight {
        vip: VipKey,
        address: IpAddr,
        #[arg(value_parser = weight())]
        weight: u32,
    },
    /// Gives a real no new flows any more; its connections stay.
    Drain {
        vip: VipKey,
        address: IpAddr,
        /// After so long its connections go to others: 30s, 5m, 2h.
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
        deadline: Option<Duration>,
        /// Wait until it has no connection left, or the deadline is over.
        #[arg(long)]
        wait: bool,
    },
    /// Gives a real new flows again.
    Undrain { vip: VipKey, address: IpAddr },
}

/// What can be done with a VIP.
#[derive(Subcommand, Clone, Debug)]
pub(crate) enum Vip {
    /// Adds a VIP, without reals at first.
    Add {
        vip: VipKey,
        /// What of a flow decides which real it gets; by default all of it.
        #[arg(long, value_name = "FIELDS")]
        hash: Option<HashOn>,
        /// Where its packets may carry a server's id.
        #[arg(long, value_name = "PLACE")]
        server_id: Option<ServerIdIn>,
        /// What becomes of fragments.
        #[arg(long, value_name = "WHAT")]
        fragments: Option<Fragments>,
        /// Answer pings to the address.
        #[arg(long)]
        ping: bool,
    },
    /// Takes a VIP and its reals out. Its packets go to the kernel then.
    Remove { vip: VipKey },
}

fn weight() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(..=i64::from(MAX_WEIGHT))
}

/// The flow to explain, as its client sends it.
#[derive(Args, Clone, Debug)]
pub(crate) struct ExplainArguments {
    #[arg(help = "The client: ADDRESS:PORT, [ADDRESS]:PORT for IPv6")]
    source: SocketAddr,
    /// What it connects to: ADDRESS:PORT.
    destination: SocketAddr,
    protocol: Protocol,
}

impl From<ExplainArguments> for Ask {
    fn from(arguments: ExplainArguments) -> Self {
        let ExplainArguments { source, destination, protocol } = arguments;
        Self::Explain(Flow { source, destination, protocol })
    }
}

impl From<Ctl> for Ask {
    fn from(ctl: Ctl) -> Self {
        let seconds = |time: Duration| time.as_secs_f64();
        match ctl {
            Ctl::Vips => Self::Vips {},
            Ctl::Reals { vip } => Self::Reals(RealsWanted { vip }),
            Ctl::Connections { vip, real, state, idle_over, limit, count } => {
                let idle_over_seconds = idle_over.map(seconds);
                // Counting looks at all: a number that ends somewhere says nothing.
                let limit = (limit > 0 && !count).then_some(limit);
                Self::Connections(ConnectionsWanted { vip, real, state, idle_over_seconds, limit, count })
            }
            Ctl::Counters { all, nonzero: _ } => Self::Counters(CountersWanted { all }),
            Ctl::Config => Self::Config {},
            Ctl::Reload => Self::Reload {},
            Ctl::Real(Real::Add { vip, address: real, weight, next_hop }) => {
                Self::RealAdd(RealAdd { vip, real, weight: Some(weight), next_hop })
            }
            Ctl::Real(Real::Remove { vip, address: real }) => Self::RealRemove(RealNamed { vip, real }),
            Ctl::Real(Real::Weight { vip, address: real, weight }) => {
                Self::RealWeight(RealWeight { vip, real, weight })
            }
            Ctl::Real(Real::Drain { vip, address: real, deadline, wait }) => {
                let deadline_seconds = deadline.map(seconds);
                Self::RealDrain(RealDrain { vip, real, deadline_seconds, wait })
            }
            Ctl::Real(Real::Undrain { vip, address: real }) => Self::RealUndrain(RealNamed { vip, real }),
            Ctl::Vip(Vip::Add { vip, hash, server_id, fragments, ping }) => {
                Self::VipAdd(VipAdd { vip, hash, server_id, fragments, ping: ping.then_some(true) })
            }
            Ctl::Vip(Vip::Remove { vip }) => Self::VipRemove(VipNamed { vip }),
        }
    }
}
