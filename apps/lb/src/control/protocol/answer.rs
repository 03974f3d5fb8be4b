//! What a running balancer answers.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::{
    ConnectionState, DownBy, Flow, Fragments, HashOn, HealthState, How, Mac, Method, RealState, ServerIdIn,
    VipKey,
};

/// How it goes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Status {
    /// Of the program.
    pub(crate) version: String,
    pub(crate) pid: u32,
    pub(crate) uptime_seconds: f64,
    pub(crate) configuration: ConfigurationStatus,
    /// The command socket's path.
    pub(crate) socket: Option<String>,
    /// Where the metrics are served: `ADDRESS:PORT`.
    pub(crate) metrics: Option<SocketAddr>,
    pub(crate) privileges: PrivilegesStatus,
    pub(crate) ports: Vec<PortStatus>,
    pub(crate) workers: Vec<WorkerStatus>,
    pub(crate) totals: Totals,
    pub(crate) connections: TableStatus,
    pub(crate) vips: Vec<VipSummary>,
    pub(crate) checks: ChecksStatus,
    /// What an operator should know of, a sentence each: a real that cannot be reached, and why.
    pub(crate) warnings: Vec<String>,
}

/// What the process may do, as the kernel tells.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PrivilegesStatus {
    /// The capabilities that any of its threads has, by name.
    pub(crate) capabilities: Vec<String>,
    /// Whether programs that it starts can gain no others.
    pub(crate) no_new: bool,
}

/// The configuration in force.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct ConfigurationStatus {
    /// The file.
    pub(crate) file: String,
    /// How long ago it was put in force.
    pub(crate) loaded_seconds_ago: f64,
    /// How many times it was put in force again.
    pub(crate) reloads: u64,
    /// Whether commands have changed it since: a reload would undo that.
    pub(crate) changed: bool,
    /// Why the newest reload failed, if it did; the configuration before it stayed.
    pub(crate) failed_reload: Option<String>,
}

/// A port.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct PortStatus {
    pub(crate) name: String,
    /// As configured: `auto`, `zero-copy`, `copy`.
    pub(crate) mode: String,
    /// As configured: `all`, or how many.
    pub(crate) queues: String,
    /// As configured: `auto`, `native`, `generic`.
    pub(crate) attach: String,
    /// How it came up, in the order in which it is best read.
    pub(crate) facts: Vec<Fact>,
    /// Settings of the interface that were changed, in the order in which they were; they are put back at the end.
    #[serde(default)]
    pub(crate) changes: Vec<SettingStatus>,
}

/// A setting that was changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SettingStatus {
    pub(crate) setting: String,
    /// What it was.
    pub(crate) before: String,
    /// What it is.
    pub(crate) value: String,
}

/// Something to know, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fact {
    pub(crate) name: String,
    pub(crate) value: String,
}

/// A worker.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct WorkerStatus {
    pub(crate) worker: usize,
    /// The core that it is pinned to.
    pub(crate) core: Option<usize>,
    /// `PORT:QUEUE` each.
    pub(crate) queues: Vec<String>,
    /// Packets.
    pub(crate) received: u64,
    /// Packets.
    pub(crate) sent: u64,
    /// Packets.
    pub(crate) dropped: u64,
    /// The part of the last second or so that went into turns in which packets came.
    pub(crate) busy: Option<f64>,
    pub(crate) frames: u64,
    /// The memory of the frames: how large, on which pages, and what their number comes of.
    #[serde(default)]
    pub(crate) memory: String,
    /// Frames that no one accounts for: 0 unless there is a bug.
    pub(crate) frames_missing: i64,
    /// Whether every frame is accounted for.
    pub(crate) balanced: bool,
}

/// Packets and bytes, since the start and now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Traffic {
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
    /// In the last second or so; null before there was one.
    pub(crate) packets_per_second: Option<f64>,
    pub(crate) bits_per_second: Option<f64>,
}

/// All workers together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Totals {
    pub(crate) received: Traffic,
    pub(crate) sent: Traffic,
    /// Packets.
    pub(crate) dropped: u64,
    pub(crate) dropped_per_second: Option<f64>,
    /// Packets that the kernel had for the balancer and dropped before.
    pub(crate) kernel_dropped: u64,
    /// Reasons that have occurred.
    pub(crate) drops: Vec<Drops>,
}

/// Packets dropped for one reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Drops {
    pub(crate) reason: String,
    /// A sentence that explains the reason.
    pub(crate) meaning: String,
    pub(crate) packets: u64,
}

/// The connection tables of all workers together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TableStatus {
    pub(crate) connections: u64,
    /// Those of them whose client has said FIN or RST.
    pub(crate) closing: u64,
    /// How many there is room for.
    pub(crate) capacity: u64,
    /// Made since the start.
    pub(crate) inserted: u64,
    /// Silent for too long.
    pub(crate) expired: u64,
    /// In use, and gone for want of room.
    pub(crate) evicted_live: u64,
    /// About to end, and gone for want of room.
    pub(crate) evicted_closing: u64,
}

/// A VIP in the status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VipSummary {
    pub(crate) vip: VipKey,
    pub(crate) reals: u64,
    pub(crate) reals_up: u64,
    pub(crate) connections: u64,
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
}

/// How many reals the health checks find how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ChecksStatus {
    pub(crate) up: u64,
    pub(crate) down: u64,
    /// No verdict yet.
    pub(crate) unknown: u64,
    /// Kept down after too many changes.
    pub(crate) held: u64,
    /// Without a check: they count as up.
    pub(crate) unchecked: u64,
}

/// A VIP.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct VipStatus {
    pub(crate) vip: VipKey,
    pub(crate) hash: HashOn,
    pub(crate) server_id: ServerIdIn,
    pub(crate) fragments: Fragments,
    pub(crate) ping: bool,
    /// The kind of its reals' health check: `tcp`, `http`, `https`, `icmp`, `command`.
    pub(crate) check: Option<String>,
    pub(crate) reals: u64,
    pub(crate) reals_up: u64,
    /// Connections that it has now.
    pub(crate) connections: u64,
    /// Connections opened since it was added.
    pub(crate) opened: u64,
    pub(crate) traffic: Traffic,
}

/// A real of a VIP.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct RealStatus {
    pub(crate) vip: VipKey,
    pub(crate) address: IpAddr,
    pub(crate) state: RealState,
    /// Of one that is down.
    pub(crate) down_by: Option<DownBy>,
    /// What its health check says; null where there is none.
    pub(crate) health: Option<Health>,
    /// As configured.
    pub(crate) weight: u32,
    /// What counts now: less in a slow start, 0 where it gets no new flows.
    pub(crate) weight_now: u32,
    /// The part of its VIP's new flows that it gets now.
    pub(crate) share: f64,
    /// Connections that it has now.
    pub(crate) connections: u64,
    /// Connections that it was chosen for.
    pub(crate) opened: u64,
    pub(crate) traffic: Traffic,
    /// Where its packets go; null where that is not known: see `unreachable`.
    pub(crate) next_hop: Option<NextHop>,
    /// Why its packets cannot be sent.
    pub(crate) unreachable: Option<String>,
    /// Of one that drains.
    pub(crate) drain: Option<Drain>,
}

/// What a health check says of a real.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Health {
    pub(crate) state: HealthState,
    /// How long it has been so.
    pub(crate) since_seconds: f64,
    /// Why the newest check failed, if it did.
    pub(crate) error: Option<String>,
}

/// Where packets go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NextHop {
    /// The port to send on.
    pub(crate) port: String,
    /// The next hop's MAC address.
    pub(crate) mac: Mac,
    /// The longest IP packet on the way, in bytes.
    pub(crate) mtu: u32,
}

/// A drain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Drain {
    /// For how long it has gone on.
    pub(crate) since_seconds: f64,
    /// How long it may take in all; null: as long as it takes.
    pub(crate) deadline_seconds: Option<f64>,
    /// How much of that is left.
    pub(crate) remaining_seconds: Option<f64>,
}

/// An entry of a connection table. The table keeps a hash of the flow, not its addresses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Connection {
    /// Whose table it is in.
    pub(crate) worker: usize,
    /// Null for a real that is gone.
    pub(crate) vip: Option<VipKey>,
    /// Null for a real that is gone.
    pub(crate) real: Option<IpAddr>,
    pub(crate) state: ConnectionState,
    pub(crate) idle_seconds: f64,
    /// The part of the flow's hash that the entry keeps, in hexadecimal.
    pub(crate) tag: String,
}

/// The end of a list of connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ConnectionsEnd {
    /// How many matched. Where a limit ended the list, there may be more than those that were looked at.
    pub(crate) matched: u64,
    /// Whether all connections were looked at.
    pub(crate) complete: bool,
}

/// Something that is counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counter {
    /// What it belongs to: `port eth0 queue 1`, `worker 0`, `drops`, `balancer`, `connections`, `redirect eth0`.
    pub(crate) group: String,
    pub(crate) name: String,
    pub(crate) value: u64,
    /// What it counts: a sentence, or empty where the name says it.
    pub(crate) meaning: String,
}

/// What becomes of a flow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Explanation {
    pub(crate) flow: Flow,
    /// The VIP that the flow goes to; null: none, and its packets are not taken.
    pub(crate) vip: Option<VipKey>,
    /// The real; null: none, and its packets are dropped.
    pub(crate) real: Option<IpAddr>,
    pub(crate) real_state: Option<RealState>,
    /// How the real is chosen.
    pub(crate) how: Option<How>,
    /// Where there is no VIP, no real or no way to it: why not.
    pub(crate) why_not: Option<String>,
    /// Workers that have the flow in their tables. One that has not would choose as `how` says.
    pub(crate) known: Vec<Known>,
    /// How a packet of the flow goes out.
    pub(crate) outer: Option<Outer>,
}

/// A flow in a worker's connection table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Known {
    pub(crate) worker: usize,
    /// Null for a real that is gone.
    pub(crate) real: Option<IpAddr>,
    pub(crate) state: ConnectionState,
    pub(crate) idle_seconds: f64,
}

/// What is put around or into a packet on its way to a real.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Outer {
    pub(crate) method: Method,
    /// The port that it is sent on.
    pub(crate) port: String,
    pub(crate) source_mac: Mac,
    pub(crate) destination_mac: Mac,
    /// The outer IP header; null with l2dsr.
    pub(crate) ip: Option<OuterIp>,
    /// The outer UDP header; with gue alone.
    pub(crate) udp: Option<OuterUdp>,
    /// The longest IP packet on the way, the outer headers included, in bytes.
    pub(crate) mtu: u32,
    /// The longest IP packet of the client that fits, in bytes.
    pub(crate) client_mtu: u32,
}

/// An outer IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OuterIp {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    /// The number of what is inside: 4, 17 or 41.
    pub(crate) protocol: u8,
    /// TTL, or hop limit.
    pub(crate) ttl: u8,
}

/// An outer UDP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OuterUdp {
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
}

/// The configuration in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ConfigText {
    /// As a configuration file.
    pub(crate) toml: String,
}

/// What a command has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Changed {
    /// A line each; empty: all was so already.
    pub(crate) changes: Vec<String>,
    /// What an operator should know of, a sentence each.
    pub(crate) warnings: Vec<String>,
}

/// How far a drain is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct DrainProgress {
    /// Connections that the real still has.
    pub(crate) connections: u64,
    pub(crate) drain: Drain,
}

/// How a drain ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct DrainEnd {
    /// What the command changed at its beginning.
    pub(crate) changes: Vec<String>,
    /// What an operator should know of, a sentence each.
    pub(crate) warnings: Vec<String>,
    /// Connections that the real had when it was over: 0, unless its deadline was.
    pub(crate) connections: u64,
    /// Whether its deadline ended it.
    pub(crate) deadline_over: bool,
    pub(crate) took_seconds: f64,
}
