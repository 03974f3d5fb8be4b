//! The configuration file, version 1: TOML in, a [`Config`] that can be acted on out.
//!
//! What a [`Config`] holds is right: whoever has one need not check anything again. What a file has wrong comes
//! back as [`Diagnostic`]s, all at once, each with its place. `lb.example.toml` explains every key.
//!
//! A [`Config`] changes by [`edit`], under the rules of the file, is written as a file again by [`form`], and is
//! compared with another one by [`mod@diff`].

mod checks;
mod control;
mod diagnostic;
mod diff;
mod edit;
mod form;
mod forwarding;
mod key;
mod machine;
mod networks;
mod reader;
mod reals;
mod rss_key;
#[cfg(test)]
mod tests;
mod times;
mod values;
mod vips;

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::time::Duration;

use afx::stage::balancer::connections::Timeouts;
use afx::stage::balancer::maglev::TableSize;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

pub(crate) use checks::{Check, Flap, Probe, Tls};
pub(crate) use diagnostic::Diagnostic;
use diagnostic::{Problem, Severity, Text};
pub(crate) use diff::{Change, diff};
pub(crate) use edit::few;
pub(crate) use form::FileForm;
pub(crate) use key::VipKey;
pub(crate) use networks::MacAddress;
use reader::{Section, Source};
pub(crate) use rss_key::RssKey;
pub(crate) use times::Time;

use crate::words::words;

/// All that a configuration file says, defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    /// At least one; no interface twice.
    pub(crate) ports: Vec<Port>,
    pub(crate) workers: Workers,
    pub(crate) idle: Idle,
    pub(crate) huge_pages: HugePages,
    pub(crate) control: Control,
    pub(crate) forwarding: Forwarding,
    /// Where to send the packets of reals that have no next hop of their own, if not where the kernel's routes say.
    pub(crate) next_hop: Option<MacAddress>,
    /// The longest IP packet of a client that is balanced, in bytes. None for what the way to the real takes, less
    /// the outer header.
    pub(crate) client_mtu: Option<u32>,
    pub(crate) icmp: Icmp,
    /// Packets in IP in IP or GUE to these addresses are taken out and balanced. None of them twice.
    pub(crate) decapsulate: Vec<IpAddr>,
    pub(crate) maglev: Maglev,
    pub(crate) connections: Connections,
    /// No (network, port, protocol) twice.
    pub(crate) vips: Vec<Vip>,
}

/// What reading a file came to. There is a configuration exactly if no diagnostic is an error.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) config: Option<Config>,
    pub(crate) diagnostics: Vec<Diagnostic>,
}

/// An interface whose VIP traffic is balanced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Port {
    pub(crate) interface: String,
    pub(crate) queues: Queues,
    pub(crate) mode: Mode,
    pub(crate) attach: Attach,
    pub(crate) multi_buffer: MultiBuffer,
    pub(crate) coexist: Coexist,
    pub(crate) settings: Settings,
}

/// Settings of the interface that are changed while the balancer runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// How many queues receive. None for as many as there are.
    pub(crate) channels: Option<NonZeroU16>,
    /// The card spreads packets over the queues that are served, and no others.
    pub(crate) spread: Want,
    /// What the card hashes packets with. None for the key that it has.
    pub(crate) rss_key: Option<RssKey>,
    /// Interrupts come on the cores of the workers.
    pub(crate) interrupts: Want,
    /// Interrupts are put off while workers poll.
    pub(crate) defer: Want,
}

impl Settings {
    /// Where the file says nothing. What is changed by it costs the interface's other traffic 0.2 ms at most, and no
    /// worker that is busy polls well without.
    pub(crate) const DEFAULT: Self =
        Self { channels: None, spread: Want::Off, rss_key: None, interrupts: Want::Off, defer: Want::Auto };
}

/// Which queues of an interface are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Queues {
    All,
    First(NonZeroU16),
}

/// How many workers there are, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Workers {
    Auto,
    Count(NonZeroU16),
    /// One on each of these cores, none named twice.
    Cores(Vec<u16>),
}

/// How the balancer can be asked and told while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Control {
    /// An absolute path that a Unix socket can have. None for no command socket.
    pub(crate) socket: Option<PathBuf>,
    /// Where counters are served over HTTP. None for nowhere.
    pub(crate) metrics: Option<SocketAddr>,
    pub(crate) privileges: Privileges,
}

words! {
    /// How packets get from the card to this process.
    Mode { Auto = "auto", ZeroCopy = "zero-copy", Copy = "copy" }
}
words! {
    /// Where the XDP program is attached.
    Attach { Auto = "auto", Native = "native", Generic = "generic" }
}
words! {
    /// Whether packets longer than a frame are taken.
    MultiBuffer { Auto = "auto", On = "on", Off = "off" }
}
words! {
    /// Which of its privileges the process keeps once it balances.
    Privileges {
        /// Those that any reload may take.
        Reload = "reload",
        /// Those that the file takes as it is.
        Least = "least",
        /// All that it was started with.
        All = "all"
    }
}
words! {
    /// What is done with an XDP program that is on the interface already.
    Coexist {
        /// It stays, and the balancer does not start.
        Refuse = "refuse",
        /// It is put aside while the balancer runs.
        Replace = "replace",
        /// It gets what the balancer passes.
        Chain = "chain"
    }
}
words! {
    /// Whether a setting of an interface is changed: never; where that can be done; or else it is an error.
    Want { Off = "off", Auto = "auto", Required = "required" }
}
words! {
    /// What a worker does without packets.
    Idle { Busy = "busy", Adaptive = "adaptive" }
}
words! {
    /// Whether packets and connections have to lie on huge pages.
    HugePages { Auto = "auto", Required = "required" }
}
words! {
    /// The protocol of a VIP.
    Protocol { Tcp = "tcp", Udp = "udp" }
}
words! {
    /// What of a new flow chooses its real.
    HashOn { FiveTuple = "5-tuple", Source = "source", DestinationPort = "destination-port" }
}
words! {
    /// Where packets may carry the server id of their real.
    ServerIdIn { None = "none", Quic = "quic", TcpOption = "tcp-option", UdpHeader = "udp-header" }
}
words! {
    /// What becomes of fragments.
    Fragments { Drop = "drop", Together = "together" }
}
words! {
    /// What an operator wants of a real, whatever its check says.
    RealState {
        /// It serves, if its check is good.
        Up = "up",
        /// It keeps its connections, and gets no new ones.
        Drain = "drain",
        /// As if its check were bad.
        Down = "down"
    }
}

/// How packets get to the reals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Forwarding {
    /// In another IP header, from an address of these prefixes or else the interface's own.
    Ipip { source_v4: Option<Ipv4Net>, source_v6: Option<Ipv6Net> },
    /// In UDP to this port and another IP header, from addresses as those of IP in IP.
    Gue { source_v4: Option<Ipv4Net>, source_v6: Option<Ipv6Net>, port: u16 },
    /// Unchanged but for the MAC addresses.
    L2Dsr,
}

/// What clients are told by ICMP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Icmp {
    /// Whether they are told of packets that do not fit.
    pub(crate) too_big: bool,
    /// The most such answers of a worker in a second.
    pub(crate) per_second: u32,
}

/// Who serves new flows. Balancers with the same VIPs need the same values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Maglev {
    pub(crate) table_size: TableSize,
    pub(crate) seed: u64,
}

/// The memory of flows seen before, per worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Connections {
    pub(crate) capacity: usize,
    pub(crate) timeouts: Timeouts,
}

/// An address, or all of a prefix, that clients connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Vip {
    /// Without host bits.
    pub(crate) network: IpNet,
    /// None for any.
    pub(crate) port: Option<u16>,
    pub(crate) protocol: Protocol,
    pub(crate) hash: HashOn,
    /// One that the protocol can have.
    pub(crate) server_id: ServerIdIn,
    /// Whether the balancer answers echo requests to the VIP.
    pub(crate) ping: bool,
    pub(crate) fragments: Fragments,
    /// Whether flows leave a real that is down: UDP only.
    pub(crate) udp_leaves_down: bool,
    /// The time in which a real that came up reaches its weight.
    pub(crate) slow_start: Duration,
    /// None where all reals count as healthy.
    pub(crate) check: Option<Check>,
    /// No address twice; of families that the forwarding can carry. If there are any, one of them can get flows.
    pub(crate) reals: Vec<Real>,
}

/// A server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Real {
    pub(crate) address: IpAddr,
    /// Up to 65535. 0: only its sources and server ids lead to it.
    pub(crate) weight: u32,
    pub(crate) state: RealState,
    /// Where to send its packets, if not where `[forwarding]` or the kernel's routes say.
    pub(crate) next_hop: Option<MacAddress>,
    /// Not 0, each of one real of the VIP only; none unless the VIP has `server_id`.
    pub(crate) server_ids: Vec<u32>,
    /// Clients that it serves, of the VIP's family, without host bits; each prefix of one real of the VIP only.
    pub(crate) sources: Vec<IpNet>,
}

impl Config {
    /// Reads a file.
    pub(crate) fn load(file: &Path) -> Outcome {
        let name = file.display().to_string();
        let refuse = |diagnostic| Outcome { config: None, diagnostics: vec![diagnostic] };
        let bytes = match std::fs::read(file) {
            Ok(bytes) => bytes,
            Err(error) => return refuse(Diagnostic::of_file(&name, unreadable(&error))),
        };
        match String::from_utf8(bytes) {
            Ok(text) => Self::parse(&name, &text),
            Err(error) => {
                let valid = error.utf8_error().valid_up_to();
                let text = String::from_utf8_lossy(error.as_bytes());
                let problem = Problem::new(format!("the byte 0x{:02x} is no UTF-8", error.as_bytes()[valid]))
                    .help("a configuration is UTF-8 text: was it saved with another encoding?");
                // Up to there both texts are the same.
                refuse(Diagnostic::new(Severity::Error, &Text::new(&name, &text), valid..valid + 1, problem))
            }
        }
    }

    /// Reads a file's text; `file` is its name in diagnostics.
    pub(crate) fn parse(file: &str, text: &str) -> Outcome {
        let source = Source::new(file, text);
        let config = source.document().and_then(|document| {
            let root = Section::root(&source, &document);
            // In a file of another version every key may mean something else.
            read_version(&root)?;
            let config = read(&root);
            root.finish();
            config
        });
        let diagnostics = source.into_diagnostics();
        let config = config.filter(|_| !diagnostics.iter().any(Diagnostic::is_error));
        Outcome { config, diagnostics }
    }

    /// The VIP of that key.
    pub(crate) fn vip(&self, key: &VipKey) -> Option<&Vip> {
        self.vips.iter().find(|vip| vip.key() == *key)
    }
}

impl Vip {
    /// A VIP without reals, with the file's defaults.
    pub(crate) fn new(key: VipKey) -> Self {
        Self {
            network: key.network,
            port: key.port,
            protocol: key.protocol,
            hash: HashOn::FiveTuple,
            server_id: ServerIdIn::None,
            ping: false,
            fragments: Fragments::Drop,
            udp_leaves_down: false,
            slow_start: Duration::ZERO,
            check: None,
            reals: Vec::new(),
        }
    }

    /// What tells it from all others.
    pub(crate) fn key(&self) -> VipKey {
        VipKey { network: self.network, port: self.port, protocol: self.protocol }
    }
}

impl Real {
    /// A real with the file's defaults.
    pub(crate) fn new(address: IpAddr) -> Self {
        Self {
            address,
            weight: 100,
            state: RealState::Up,
            next_hop: None,
            server_ids: Vec::new(),
            sources: Vec::new(),
        }
    }
}

/// Why a file could not be read, in an operator's words.
fn unreadable(error: &std::io::Error) -> Problem {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::NotFound => Problem::new("there is no such file").help("give the path of a configuration"),
        ErrorKind::IsADirectory => Problem::new("it is a folder").help("give the path of a file in it"),
        ErrorKind::PermissionDenied => Problem::new("this user may not read it")
            .help("run it as root, or change the file's mode or owner"),
        ErrorKind::NotADirectory => Problem::new("a part of its path is a file, not a folder")
            .help("give the path of a configuration"),
        _ => Problem::new(format!("cannot read the file: {error}")),
    }
}

const VERSION: u64 = 1;

fn read_version(root: &Section<'_>) -> Option<()> {
    let Some(version) = root.optional("version", |value| values::integer(value, 0..=u64::MAX)) else {
        if !root.has("version") {
            root.error(
                Problem::new("the version of the file's format is missing")
                    .help(format!("begin the file with `version = {VERSION}`")),
            );
        }
        return None;
    };
    if *version.get_ref() == VERSION {
        return Some(());
    }
    root.error_at(
        version.span(),
        Problem::new(format!("version {} of the format is not known here", version.get_ref()))
            .help(format!("this program reads version {VERSION}")),
    );
    None
}

fn read(root: &Section<'_>) -> Option<Config> {
    let ports = machine::ports(root);
    let (workers, idle, huge_pages) = machine::workers(root);
    let control = control::read(root);
    let way = forwarding::read(root);
    let icmp = forwarding::icmp(root);
    let decapsulate = forwarding::decapsulation(root);
    let maglev = machine::maglev(root);
    let connections = machine::connections(root);
    // Without it nothing can be said of the reals' families, but all the rest can.
    let method = way.as_ref().map(|way| &way.method);
    let vips =
        vips::read(root, &vips::Around { forwarding: method, decapsulate: &decapsulate }, maglev.table_size);
    let way = way?;
    Some(Config {
        ports,
        workers,
        idle,
        huge_pages,
        control,
        forwarding: way.method,
        next_hop: way.next_hop,
        client_mtu: way.client_mtu,
        icmp,
        decapsulate,
        maglev,
        connections,
        vips,
    })
}
