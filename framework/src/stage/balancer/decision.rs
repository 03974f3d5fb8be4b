//! Who a packet went to, and why.

use super::real::RealId;
use super::vip::Vip;

/// How a real was chosen; for an ICMP error: how that of the flow was that the error is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum How {
    /// The flow had it: it was in the connection table.
    Connection,
    /// The VIP's table said so.
    Maglev,
    /// By the client's address.
    Source,
    /// The packet said so itself.
    ServerId,
}

impl How {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Connection, Self::Maglev, Self::Source, Self::ServerId];

    /// One word for reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Maglev => "maglev",
            Self::Source => "source",
            Self::ServerId => "server_id",
        }
    }
}

/// What the balancer made of a packet for a VIP; see [`Balancer::decision`](super::Balancer::decision).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// The VIP that it was for.
    pub vip: Vip,
    /// The real that was chosen; none if there was none, or none was needed.
    pub real: Option<RealId>,
    /// How it was chosen.
    pub how: Option<How>,
}
