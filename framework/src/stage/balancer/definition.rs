//! What is to be balanced, as the control side puts it.

use std::net::IpAddr;

use ipnet::IpNet;

use super::forward::Forwarding;
use super::maglev::TableSize;
use super::vip::Vip;

/// A VIP and the reals behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    /// What clients connect to.
    pub vip: Vip,
    /// How its packets are treated.
    pub options: VipOptions,
    /// Who serves them; no address twice.
    pub reals: Vec<RealDefinition>,
}

impl Definition {
    /// A VIP with the options that it has unless told otherwise.
    #[must_use]
    pub fn new(vip: Vip, reals: Vec<RealDefinition>) -> Self {
        Self { vip, options: VipOptions::default(), reals }
    }
}

/// A real of a VIP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RealDefinition {
    /// Its address.
    pub address: IpAddr,
    /// Its share of new flows, relative to the others'; 0 for none but those that `sources` and `server_ids` bring.
    pub weight: u32,
    /// Whether it takes flows.
    pub state: RealState,
    /// Clients whose new flows go to this real, whatever the table says. The longest prefix of all reals of the VIP
    /// counts; no prefix twice.
    pub sources: Vec<IpNet>,
    /// What it calls itself in packets ([`VipOptions::server_id`]): above 0, and no number twice within the VIP.
    pub server_ids: Vec<u32>,
}

impl RealDefinition {
    /// A real that is up, known by its address alone.
    #[must_use]
    pub const fn new(address: IpAddr, weight: u32) -> Self {
        Self { address, weight, state: RealState::Up, sources: Vec::new(), server_ids: Vec::new() }
    }
}

/// Whether a real takes flows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RealState {
    /// All of them.
    #[default]
    Up,
    /// No new ones. Known flows stay, and so do packets that carry its server id.
    Draining,
    /// No new ones. Known TCP flows stay, but a SYN chooses anew, and UDP flows do where the VIP says so
    /// ([`VipOptions::udp_leaves_down`]). Server ids and sources of it do not count.
    Down,
    /// As if it were not there, but for its identity: every flow of it chooses anew.
    Out,
}

/// How the packets of a VIP are treated. By default the whole flow is hashed, and nothing else is looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct VipOptions {
    /// What decides which real serves a new flow.
    pub hash: HashOn,
    /// Where packets say which real they are for, if they do.
    pub server_id: Option<ServerIdIn>,
    /// Whether pings to the VIP's addresses are answered.
    pub answer_echo: bool,
    /// What becomes of fragments.
    pub fragments: Fragments,
    /// Whether flows of UDP, and of all that is not TCP, leave a real that is [down](RealState::Down).
    pub udp_leaves_down: bool,
}

/// What decides which real serves a new flow. That a flow keeps its real is another matter: the connection table
/// always knows the whole flow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum HashOn {
    /// Addresses, ports and protocol.
    #[default]
    FiveTuple,
    /// The client's address alone: all flows of a client go to one real.
    Source,
    /// The destination port alone.
    DestinationPort,
}

/// Where packets say which real they are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ServerIdIn {
    /// In QUIC's destination connection id.
    Quic,
    /// In an option of the TCP header, of kind 0xb7.
    TcpOption,
    /// In a header of eight bytes before the UDP payload.
    UdpHeader,
}

/// What becomes of fragments.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Fragments {
    /// They are dropped.
    #[default]
    Drop,
    /// All fragments of a packet go to the same real, as they are.
    Together,
}

/// What is true of all VIPs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// How packets get to the reals.
    pub forwarding: Forwarding,
    /// The size of each VIP's table.
    pub table_size: TableSize,
    /// The key of what new flows are hashed with for the tables: the same in balancers that are to agree.
    pub seed: u64,
    /// Whether clients are told of packets that are too big.
    pub too_big: TooBig,
    /// The longest IP packet from a client that is balanced, in bytes; as long as the way takes if none.
    pub client_mtu: Option<u32>,
    /// Addresses of the balancer's own: packets that come to them in IPIP or GUE are taken out and balanced.
    pub decapsulate: Vec<IpAddr>,
}

impl Settings {
    /// The default but for the forwarding: a table of [`TableSize::DEFAULT`], the seed 0, nothing else.
    #[must_use]
    pub fn new(forwarding: Forwarding) -> Self {
        Self {
            forwarding,
            table_size: TableSize::DEFAULT,
            seed: 0,
            too_big: TooBig::default(),
            client_mtu: None,
            decapsulate: Vec::new(),
        }
    }
}

/// Whether clients are told of packets that are too big, by ICMP "fragmentation needed" or "packet too big".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooBig {
    /// Whether they are told.
    pub answer: bool,
    /// How many answers each worker sends per second at most.
    pub per_second: u32,
}

impl Default for TooBig {
    /// Nobody is told.
    fn default() -> Self {
        Self { answer: false, per_second: 1000 }
    }
}
