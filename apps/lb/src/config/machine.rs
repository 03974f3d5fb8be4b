//! The machine's part: ports, workers, tables.

use std::collections::BTreeMap;

use afx::stage::balancer::connections::Timeouts;
use afx::stage::balancer::maglev::TableSize;

use super::diagnostic::Problem;
use super::reader::Section;
use super::{
    Attach, Coexist, Connections, HugePages, Idle, Maglev, Mode, MultiBuffer, Port, Queues, Settings, Want,
    Workers, times, values,
};

pub(super) fn ports(root: &Section<'_>) -> Vec<Port> {
    let sections = root.sections("port");
    if sections.is_empty() && !root.has("port") {
        root.error(
            Problem::new("there is no port: nothing to take packets from")
                .help("add a section `[[port]]` with `interface = \"...\"`"),
        );
    }
    let mut seen = BTreeMap::new();
    let mut ports = Vec::new();
    for section in sections {
        let interface = section.required("interface", values::interface);
        let queues = section.value("queues", values::queues);
        let mode = section.value("mode", |value| values::word(value, Mode::WORDS));
        let attach = section.value("attach", |value| values::word(value, Attach::WORDS));
        let multi_buffer = section.value("multi_buffer", |value| values::word(value, MultiBuffer::WORDS));
        let coexist = section.value("coexist", |value| values::word(value, Coexist::WORDS));
        let settings = settings(&section);
        section.finish();
        let Some(interface) = interface else { continue };
        if let Some(first) = seen.insert(interface.get_ref().clone(), interface.span()) {
            let first = section.line(&first);
            let what = format!("the interface {} has a port already", interface.get_ref());
            let help = format!("it is in line {first}: give each interface one `[[port]]`");
            section.error_at(interface.span(), Problem::new(what).help(help));
        }
        ports.push(Port {
            interface: interface.into_inner(),
            queues: queues.unwrap_or(Queues::All),
            mode: mode.unwrap_or(Mode::Auto),
            attach: attach.unwrap_or(Attach::Auto),
            multi_buffer: multi_buffer.unwrap_or(MultiBuffer::Auto),
            coexist: coexist.unwrap_or(Coexist::Refuse),
            settings,
        });
    }
    ports
}

fn settings(port: &Section<'_>) -> Settings {
    let want = |key, default| port.value(key, |value| values::word(value, Want::WORDS)).unwrap_or(default);
    Settings {
        channels: port.value("channels", values::count),
        spread: want("spread", Settings::DEFAULT.spread),
        rss_key: port.value("rss_key", values::rss_key),
        interrupts: want("interrupts", Settings::DEFAULT.interrupts),
        defer: want("defer", Settings::DEFAULT.defer),
    }
}

pub(super) fn workers(root: &Section<'_>) -> (Workers, Idle, HugePages) {
    let Some(section) = root.section("workers") else { return (Workers::Auto, Idle::Busy, HugePages::Auto) };
    let count = section.optional("count", values::count);
    let cores = section.optional("cores", values::cores);
    let idle = section.value("idle", |value| values::word(value, Idle::WORDS));
    let huge_pages = section.value("huge_pages", |value| values::word(value, HugePages::WORDS));
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
    (workers, idle.unwrap_or(Idle::Busy), huge_pages.unwrap_or(HugePages::Auto))
}

pub(super) fn maglev(root: &Section<'_>) -> Maglev {
    let mut maglev = Maglev { table_size: TableSize::DEFAULT, seed: 0 };
    let Some(section) = root.section("maglev") else { return maglev };
    if let Some(size) = section.value("table_size", values::table_size) {
        maglev.table_size = size;
    }
    if let Some(seed) = section.value("seed", |value| values::integer(value, 0..=i64::MAX as u64)) {
        maglev.seed = seed;
    }
    section.finish();
    maglev
}

pub(super) fn connections(root: &Section<'_>) -> Connections {
    let mut connections = Connections { capacity: 1 << 20, timeouts: Timeouts::default() };
    let Some(section) = root.section("connections") else { return connections };
    if let Some(capacity) = section.value("capacity", |value| values::integer(value, 1024..=1 << 30)) {
        connections.capacity = capacity as usize;
    }
    let timeouts = &mut connections.timeouts;
    for (key, timeout) in [
        ("opening", &mut timeouts.opening),
        ("established", &mut timeouts.established),
        ("closing", &mut timeouts.closing),
        ("udp", &mut timeouts.datagram),
    ] {
        if let Some(duration) = section.value(key, |value| times::time(value, times::SILENCE)) {
            *timeout = duration;
        }
    }
    section.finish();
    connections
}
