//! A configuration in the form of its file: the same sections and keys, every default written out.

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::ops::RangeInclusive;

use serde::Serialize;

use super::key::Network;
use super::{
    Attach, Check, Coexist, Config, Connections, Forwarding, Fragments, HashOn, HugePages, Idle, MacAddress,
    Mode, MultiBuffer, Port, Privileges, Probe, Protocol, Queues, Real, RealState, RssKey, ServerIdIn,
    Settings, Time, Tls, VERSION, Vip, Want, Workers,
};

impl Config {
    /// A file that means this configuration: reading it gives an equal one.
    pub(crate) fn to_toml(&self) -> String {
        toml::to_string(&FileForm::of(self))
            .expect("it is made of tables, lists, strings, numbers and booleans")
    }
}

/// All of a file. What has no value of its own in the file, such as the kernel's next hop, is null.
#[derive(Serialize)]
pub(crate) struct FileForm {
    version: u64,
    port: Vec<PortForm>,
    workers: WorkersForm,
    control: ControlForm,
    forwarding: ForwardingForm,
    icmp: IcmpForm,
    decapsulation: DecapsulationForm,
    maglev: MaglevForm,
    connections: ConnectionsForm,
    vip: Vec<VipForm>,
}

#[derive(Serialize)]
pub(super) struct PortForm {
    interface: String,
    queues: Either<u16>,
    mode: Mode,
    attach: Attach,
    multi_buffer: MultiBuffer,
    coexist: Coexist,
    channels: Option<u16>,
    spread: Want,
    rss_key: Option<String>,
    interrupts: Want,
    defer: Want,
}

/// A number, or the word for all or any.
#[derive(Serialize)]
#[serde(untagged)]
enum Either<T> {
    Value(T),
    Word(&'static str),
}

#[derive(Serialize)]
struct WorkersForm {
    count: Option<u16>,
    cores: Option<Vec<u16>>,
    idle: Idle,
    huge_pages: HugePages,
}

#[derive(Serialize)]
struct ControlForm {
    socket: String,
    metrics: String,
    privileges: Privileges,
}

#[derive(Serialize)]
struct ForwardingForm {
    method: &'static str,
    gue_port: Option<u16>,
    source_v4: Option<String>,
    source_v6: Option<String>,
    next_hop: Option<MacAddress>,
    client_mtu: Option<u32>,
}

#[derive(Serialize)]
struct IcmpForm {
    too_big: bool,
    per_second: u32,
}

#[derive(Serialize)]
struct DecapsulationForm {
    addresses: Vec<IpAddr>,
}

#[derive(Serialize)]
struct MaglevForm {
    table_size: u32,
    seed: u64,
}

#[derive(Serialize)]
struct ConnectionsForm {
    capacity: usize,
    opening: Time,
    established: Time,
    closing: Time,
    udp: Time,
}

#[derive(Serialize)]
pub(super) struct VipForm {
    address: String,
    port: Either<u16>,
    protocol: Protocol,
    hash: HashOn,
    server_id: ServerIdIn,
    ping: bool,
    fragments: Fragments,
    udp_leaves_down: bool,
    slow_start: Time,
    check: Option<CheckForm>,
    pub(super) real: Vec<RealForm>,
}

/// Keys that do not belong to the type are left out.
#[derive(Serialize)]
struct CheckForm {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    interval: Time,
    timeout: Time,
    rise: u32,
    fall: u32,
    jitter: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verify: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<Vec<String>>,
    flap_limit: u32,
    flap_window: Time,
    flap_hold: Time,
}

#[derive(Serialize)]
pub(super) struct RealForm {
    address: IpAddr,
    weight: u32,
    state: RealState,
    next_hop: Option<MacAddress>,
    server_ids: Vec<u32>,
    sources: Vec<String>,
}

impl FileForm {
    pub(crate) fn of(config: &Config) -> Self {
        let Config { ports, vips, .. } = config;
        Self {
            port: ports.iter().map(PortForm::of).collect(),
            vip: vips.iter().map(VipForm::of).collect(),
            ..Self::settings(config)
        }
    }

    /// All but the lists.
    pub(super) fn settings(config: &Config) -> Self {
        let Config {
            ports: _,
            workers,
            idle,
            huge_pages,
            control,
            forwarding,
            next_hop,
            client_mtu,
            icmp,
            decapsulate,
            maglev,
            connections,
            vips: _,
        } = config;
        let none = || "none".to_owned();
        Self {
            version: VERSION,
            port: Vec::new(),
            workers: WorkersForm::of(workers, *idle, *huge_pages),
            control: ControlForm {
                // It came out of a file, which is UTF-8.
                socket: control.socket.as_ref().map_or_else(none, |path| path.display().to_string()),
                metrics: control.metrics.map_or_else(none, |address| address.to_string()),
                privileges: control.privileges,
            },
            forwarding: ForwardingForm {
                next_hop: *next_hop,
                client_mtu: *client_mtu,
                ..ForwardingForm::of(forwarding)
            },
            icmp: IcmpForm { too_big: icmp.too_big, per_second: icmp.per_second },
            decapsulation: DecapsulationForm { addresses: decapsulate.clone() },
            maglev: MaglevForm { table_size: maglev.table_size.slots(), seed: maglev.seed },
            connections: ConnectionsForm::of(connections),
            vip: Vec::new(),
        }
    }
}

impl PortForm {
    pub(super) fn of(port: &Port) -> Self {
        let Port { interface, queues, mode, attach, multi_buffer, coexist, settings } = port;
        let Settings { channels, spread, rss_key, interrupts, defer } = settings;
        let queues = match queues {
            Queues::All => Either::Word("all"),
            Queues::First(count) => Either::Value(count.get()),
        };
        Self {
            interface: interface.clone(),
            queues,
            mode: *mode,
            attach: *attach,
            multi_buffer: *multi_buffer,
            coexist: *coexist,
            channels: channels.map(NonZeroU16::get),
            spread: *spread,
            rss_key: rss_key.as_ref().map(RssKey::to_string),
            interrupts: *interrupts,
            defer: *defer,
        }
    }
}

impl WorkersForm {
    fn of(workers: &Workers, idle: Idle, huge_pages: HugePages) -> Self {
        let (count, cores) = match workers {
            Workers::Auto => (None, None),
            Workers::Count(count) => (Some(count.get()), None),
            Workers::Cores(cores) => (None, Some(cores.clone())),
        };
        Self { count, cores, idle, huge_pages }
    }
}

impl ForwardingForm {
    fn of(forwarding: &Forwarding) -> Self {
        let (method, gue_port, source_v4, source_v6) = match *forwarding {
            Forwarding::Ipip { source_v4, source_v6 } => ("ipip", None, source_v4, source_v6),
            Forwarding::Gue { source_v4, source_v6, port } => ("gue", Some(port), source_v4, source_v6),
            Forwarding::L2Dsr => ("l2dsr", None, None, None),
        };
        let written = |network: ipnet::IpNet| Network(&network).to_string();
        Self {
            method,
            gue_port,
            source_v4: source_v4.map(|network| written(network.into())),
            source_v6: source_v6.map(|network| written(network.into())),
            next_hop: None,
            client_mtu: None,
        }
    }
}

impl ConnectionsForm {
    fn of(connections: &Connections) -> Self {
        let Connections { capacity, timeouts } = connections;
        Self {
            capacity: *capacity,
            opening: Time(timeouts.opening),
            established: Time(timeouts.established),
            closing: Time(timeouts.closing),
            udp: Time(timeouts.datagram),
        }
    }
}

impl VipForm {
    pub(super) fn of(vip: &Vip) -> Self {
        let real = vip.reals.iter().map(RealForm::of).collect();
        Self { real, ..Self::settings(vip) }
    }

    /// All but the reals.
    pub(super) fn settings(vip: &Vip) -> Self {
        let Vip {
            network,
            port,
            protocol,
            hash,
            server_id,
            ping,
            fragments,
            udp_leaves_down,
            slow_start,
            check,
            reals: _,
        } = vip;
        Self {
            address: Network(network).to_string(),
            port: port.map_or(Either::Word("any"), Either::Value),
            protocol: *protocol,
            hash: *hash,
            server_id: *server_id,
            ping: *ping,
            fragments: *fragments,
            udp_leaves_down: *udp_leaves_down,
            slow_start: Time(*slow_start),
            check: check.as_ref().map(CheckForm::of),
            real: Vec::new(),
        }
    }
}

impl CheckForm {
    fn of(check: &Check) -> Self {
        let Check { probe, interval, timeout, rise, fall, jitter, flap } = check;
        let form = Self {
            kind: "icmp",
            port: None,
            interval: Time(*interval),
            timeout: Time(*timeout),
            rise: *rise,
            fall: *fall,
            jitter: *jitter,
            path: None,
            host: None,
            status: None,
            verify: None,
            command: None,
            flap_limit: flap.limit,
            flap_window: Time(flap.window),
            flap_hold: Time(flap.hold),
        };
        match probe {
            Probe::Icmp => form,
            Probe::Tcp { port } => Self { kind: "tcp", port: Some(*port), ..form },
            Probe::Http { port, path, host, status, tls } => {
                let (kind, verify) = match tls {
                    Tls::Off => ("http", None),
                    Tls::On { verify } => ("https", Some(*verify)),
                };
                Self {
                    kind,
                    verify,
                    port: Some(*port),
                    path: Some(path.clone()),
                    host: host.clone(),
                    status: Some(status.iter().map(status_range).collect()),
                    ..form
                }
            }
            Probe::Command { command, port } => {
                Self { kind: "command", port: *port, command: Some(command.clone()), ..form }
            }
        }
    }
}

/// Statuses as a file has them: "200" or "200-299".
fn status_range(range: &RangeInclusive<u16>) -> String {
    match (range.start(), range.end()) {
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first}-{last}"),
    }
}

impl RealForm {
    pub(super) fn of(real: &Real) -> Self {
        let Real { address, weight, state, next_hop, server_ids, sources } = real;
        Self {
            address: *address,
            weight: *weight,
            state: *state,
            next_hop: *next_hop,
            server_ids: server_ids.clone(),
            sources: sources.iter().map(|source| Network(source).to_string()).collect(),
        }
    }
}
