//! The configuration file, version 1: TOML in, a [`Config`] that can be acted on out.
//!
//! What a [`Config`] holds is right: whoever has one need not check anything again. What a file has wrong comes
//! back as [`Diagnostic`]s, all at once, each with its place. `lb.example.toml` explains every key.

mod diagnostic;
mod reader;
#[cfg(test)]
mod tests;
mod values;
mod vips;

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::path::Path;

use afx::stage::balancer::connections::Timeouts;
use afx::stage::balancer::maglev::TableSize;
use ipnet::{Ipv4Net, Ipv6Net};

pub(crate) use diagnostic::Diagnostic;
use diagnostic::Problem;
use reader::{Section, Source};
pub(crate) use values::MacAddress;

/// All that a configuration file says, defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    /// At least one; no interface twice.
    pub(crate) ports: Vec<Port>,
    pub(crate) workers: Workers,
    pub(crate) idle: Idle,
    pub(crate) forwarding: Forwarding,
    pub(crate) maglev: Maglev,
    pub(crate) connections: Connections,
    /// No (address, port, protocol) twice.
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

/// Makes an enum of the words that a key can have.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $word:literal),+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum $name { $($variant),+ }

        impl $name {
            const WORDS: &[(&str, Self)] = &[$(($word, Self::$variant)),+];
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$variant => $word),+ })
            }
        }
    };
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
    /// What a worker does without packets.
    Idle { Busy = "busy", Adaptive = "adaptive" }
}
words! {
    /// The protocol of a VIP.
    Protocol { Tcp = "tcp", Udp = "udp" }
}

/// How packets get to the reals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Forwarding {
    /// In another IP header, from an address of these prefixes or else the interface's own.
    Ipip { source_v4: Option<Ipv4Net>, source_v6: Option<Ipv6Net> },
    /// Unchanged but for the MAC addresses.
    L2Dsr,
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

/// An address that clients connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Vip {
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
    pub(crate) protocol: Protocol,
    /// No address twice; of families that the forwarding can carry.
    pub(crate) reals: Vec<Real>,
}

/// A server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Real {
    pub(crate) address: IpAddr,
    /// 0 for no new flows: it drains.
    pub(crate) weight: u32,
    /// Where to send its packets, if not where the kernel's routes say.
    pub(crate) next_hop: Option<MacAddress>,
}

impl Config {
    /// Reads a file.
    pub(crate) fn load(file: &Path) -> Outcome {
        match std::fs::read_to_string(file) {
            Ok(text) => Self::parse(&file.display().to_string(), &text),
            Err(error) => {
                let problem = Problem::new(format!("cannot read the file: {error}"));
                let diagnostic = Diagnostic::of_file(&file.display().to_string(), problem);
                Outcome { config: None, diagnostics: vec![diagnostic] }
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
    let ports = read_ports(root);
    let (workers, idle) = read_workers(root);
    let forwarding = read_forwarding(root);
    let maglev = read_maglev(root);
    let connections = read_connections(root);
    // Without it nothing can be said of the reals' families, but all the rest can.
    let vips = vips::read(root, forwarding.as_ref(), maglev.table_size);
    Some(Config { ports, workers, idle, forwarding: forwarding?, maglev, connections, vips })
}

fn read_ports(root: &Section<'_>) -> Vec<Port> {
    let sections = root.sections("port");
    if sections.is_empty() && !root.has("port") {
        root.error(
            Problem::new("there is no port: nothing to take packets from")
                .help("add a section `[[port]]` with `interface = \"...\"`"),
        );
    }
    let mut seen = BTreeSet::new();
    let mut ports = Vec::new();
    for section in sections {
        let interface = section.required("interface", values::interface);
        let queues = section.optional("queues", values::queues);
        let mode = section.optional("mode", |value| values::word(value, Mode::WORDS));
        let attach = section.optional("attach", |value| values::word(value, Attach::WORDS));
        section.finish();
        let Some(interface) = interface else { continue };
        if !seen.insert(interface.get_ref().clone()) {
            let what = format!("the interface {} has a port already", interface.get_ref());
            section.error_at(interface.span(), Problem::new(what).help("give each interface one `[[port]]`"));
        }
        ports.push(Port {
            interface: interface.into_inner(),
            queues: queues.map_or(Queues::All, toml::Spanned::into_inner),
            mode: mode.map_or(Mode::Auto, toml::Spanned::into_inner),
            attach: attach.map_or(Attach::Auto, toml::Spanned::into_inner),
        });
    }
    ports
}

fn read_workers(root: &Section<'_>) -> (Workers, Idle) {
    let Some(section) = root.section("workers") else { return (Workers::Auto, Idle::Busy) };
    let count = section.optional("count", values::count);
    let cores = section.optional("cores", values::cores);
    let idle = section.optional("idle", |value| values::word(value, Idle::WORDS));
    section.finish();
    let workers = match (count, cores) {
        (Some(count), Some(cores)) => {
            section.error_at(
                count.span(),
                Problem::new("both the count of the workers and their cores are given").help(format!(
                    "leave `count` out: there will be {}, one per core",
                    cores.get_ref().len()
                )),
            );
            Workers::Auto
        }
        (Some(count), None) => Workers::Count(count.into_inner()),
        (None, Some(cores)) => Workers::Cores(cores.into_inner()),
        (None, None) => Workers::Auto,
    };
    (workers, idle.map_or(Idle::Busy, toml::Spanned::into_inner))
}

fn read_forwarding(root: &Section<'_>) -> Option<Forwarding> {
    let Some(section) = root.section("forwarding") else {
        if !root.has("forwarding") {
            root.error(
                Problem::new("it is not said how packets get to the reals")
                    .help("add a section `[forwarding]` with `method = \"ipip\"` or `method = \"l2dsr\"`"),
            );
        }
        return None;
    };
    #[derive(Clone, Copy)]
    enum Method {
        Ipip,
        L2Dsr,
    }
    let methods = [("ipip", Method::Ipip), ("l2dsr", Method::L2Dsr)];
    let method = section.required("method", |value| values::word(value, &methods));
    let source_v4 = section.optional("source_v4", values::prefix_v4);
    let source_v6 = section.optional("source_v6", values::prefix_v6);
    section.finish();
    match method?.into_inner() {
        Method::Ipip => Some(Forwarding::Ipip {
            source_v4: source_v4.map(toml::Spanned::into_inner),
            source_v6: source_v6.map(toml::Spanned::into_inner),
        }),
        Method::L2Dsr => {
            for span in [source_v4.map(|s| s.span()), source_v6.map(|s| s.span())].into_iter().flatten() {
                section.error_at(
                    span,
                    Problem::new("forwarding by layer 2 has no outer header, hence no source address for it")
                        .help("leave this key out, or say `method = \"ipip\"`"),
                );
            }
            Some(Forwarding::L2Dsr)
        }
    }
}

fn read_maglev(root: &Section<'_>) -> Maglev {
    let mut maglev = Maglev { table_size: TableSize::DEFAULT, seed: 0 };
    let Some(section) = root.section("maglev") else { return maglev };
    if let Some(size) = section.optional("table_size", values::table_size) {
        maglev.table_size = size.into_inner();
    }
    if let Some(seed) = section.optional("seed", |value| values::integer(value, 0..=i64::MAX as u64)) {
        maglev.seed = seed.into_inner();
    }
    section.finish();
    maglev
}

fn read_connections(root: &Section<'_>) -> Connections {
    let mut connections = Connections { capacity: 1 << 20, timeouts: Timeouts::default() };
    let Some(section) = root.section("connections") else { return connections };
    if let Some(capacity) = section.optional("capacity", |value| values::integer(value, 1024..=1 << 30)) {
        connections.capacity = capacity.into_inner() as usize;
    }
    let timeouts = &mut connections.timeouts;
    for (key, timeout) in [
        ("opening", &mut timeouts.opening),
        ("established", &mut timeouts.established),
        ("closing", &mut timeouts.closing),
        ("udp", &mut timeouts.datagram),
    ] {
        if let Some(duration) = section.optional(key, values::timeout) {
            *timeout = duration.into_inner();
        }
    }
    section.finish();
    connections
}
