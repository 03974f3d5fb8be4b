//! `afx-lb status`: all of it on a page or two.

use std::fmt::Write as _;

use super::super::protocol::{
    ChecksStatus, PortStatus, PrivilegesStatus, SettingStatus, Status, TableStatus, Totals, WorkerStatus,
};
use super::lists::{of_reals, rate};
use crate::text::{Color, Style, Table, count, number, numbers, percent, plain, time, words};

/// The page.
pub(super) fn show(status: &Status, style: Style) -> String {
    let mut sections = vec![program(status, style)];
    if !status.warnings.is_empty() {
        let lines =
            status.warnings.iter().map(|warning| format!("  {}\n", style.paint(warning, Color::Yellow)));
        sections.push(style.bold("warnings") + "\n" + &lines.collect::<String>());
    }
    sections.push(vips(status, style));
    sections.push(traffic(&status.totals, style));
    sections.extend(drops(&status.totals, style));
    sections.push(workers(&status.workers, style));
    sections.extend(memory(&status.workers, style));
    sections.extend(status.ports.iter().map(|port| ports(port, style)));
    sections.join("\n")
}

fn program(status: &Status, style: Style) -> String {
    let Status { version, pid, uptime_seconds, configuration, socket, metrics, privileges, .. } = status;
    let Status { connections, checks, .. } = status;
    let mut text = style.bold(&format!("afx-lb {version}, pid {pid}, up {}", time(*uptime_seconds))) + "\n";
    let mut fact = |name: &str, value: String| {
        let _ = writeln!(text, "  {name:<14} {value}");
    };
    let reloads = match configuration.reloads {
        0 => String::new(),
        reloads => format!(" after {}", count(reloads, "reload")),
    };
    let ago = time(configuration.loaded_seconds_ago);
    fact("configuration", format!("{}, in force for {ago}{reloads}", configuration.file));
    if configuration.changed {
        let what = "changed by commands since: a reload would undo that";
        fact("", style.paint(what, Color::Yellow));
    }
    if let Some(why) = &configuration.failed_reload {
        // The diagnostics have lines of their own.
        for (place, line) in format!("the newest reload failed: {why}").lines().enumerate() {
            fact("", style.paint(&format!("{}{line}", if place == 0 { "" } else { "  " }), Color::Red));
        }
    }
    fact("socket", socket.clone().unwrap_or_else(|| "none".to_owned()));
    fact("metrics", metrics.map_or_else(|| "none".to_owned(), |address| format!("http://{address}/metrics")));
    fact("privileges", rights(privileges));
    fact("connections", table(connections));
    fact("checks", health(checks));
    text
}

fn rights(privileges: &PrivilegesStatus) -> String {
    let PrivilegesStatus { capabilities, no_new } = privileges;
    let held = match capabilities.len() {
        0 => "none".to_owned(),
        // All of root's are too many for a line.
        more @ 10.. => format!("{more} capabilities"),
        _ => capabilities.join(" "),
    };
    let programs = if *no_new { "none can be gained" } else { "programs that it starts may be given others" };
    format!("{held}; {programs}")
}

fn table(table: &TableStatus) -> String {
    let TableStatus { connections, closing, capacity, inserted, expired, evicted_live, evicted_closing } =
        table;
    format!(
        "{} of {} ({}), {} closing; {} made, {} expired, {} evicted ({} in use)",
        number(*connections),
        number(*capacity),
        percent(*connections as f64 / *capacity as f64),
        number(*closing),
        number(*inserted),
        number(*expired),
        number(evicted_live + evicted_closing),
        number(*evicted_live)
    )
}

fn health(checks: &ChecksStatus) -> String {
    let ChecksStatus { up, down, unknown, held, unchecked } = *checks;
    let kinds = [(up, "up"), (down, "down"), (held, "held down"), (unknown, "not known yet")];
    let mut parts: Vec<_> = kinds
        .into_iter()
        .filter(|(of, _)| *of > 0)
        .map(|(of, kind)| format!("{} {kind}", number(of)))
        .collect();
    if unchecked > 0 || parts.is_empty() {
        parts.push(format!("{} without a check", count(unchecked, "real")));
    }
    parts.join(", ")
}

fn vips(status: &Status, style: Style) -> String {
    let columns =
        [words("vip"), numbers("reals up"), numbers("connections"), numbers("packets"), numbers("bytes")];
    let mut table = Table::new(style, "There is no VIP: no packet is taken.", &columns);
    for vip in &status.vips {
        table.row([
            plain(vip.vip.to_string()),
            of_reals(vip.reals_up, vip.reals),
            plain(number(vip.connections)),
            plain(number(vip.packets)),
            plain(number(vip.bytes)),
        ]);
    }
    table.finish()
}

fn traffic(totals: &Totals, style: Style) -> String {
    let columns = [words("traffic"), numbers("packets"), numbers("bytes"), numbers("pps"), numbers("bit/s")];
    let mut table = Table::new(style, "", &columns);
    for (name, traffic) in [("received", &totals.received), ("sent", &totals.sent)] {
        table.row([
            plain(name),
            plain(number(traffic.packets)),
            plain(number(traffic.bytes)),
            plain(rate(traffic.packets_per_second)),
            plain(rate(traffic.bits_per_second)),
        ]);
    }
    let dropped =
        [plain("dropped"), plain(number(totals.dropped)), plain(""), plain(rate(totals.dropped_per_second))];
    table.row(dropped.into_iter().chain([plain("")]));
    let kernel = [plain("lost in the kernel before"), plain(number(totals.kernel_dropped))];
    table.row(kernel.into_iter().chain([plain(""), plain(""), plain("")]));
    table.finish()
}

/// Nothing where nothing was dropped.
fn drops(totals: &Totals, style: Style) -> Option<String> {
    let columns = [words("dropped as"), numbers("packets"), words("meaning")];
    let mut table = Table::new(style, "", &columns);
    for drops in &totals.drops {
        table.row([plain(&drops.reason), plain(number(drops.packets)), plain(&drops.meaning)]);
    }
    (!totals.drops.is_empty()).then(|| table.finish())
}

fn workers(workers: &[WorkerStatus], style: Style) -> String {
    let columns = [
        words("worker"),
        words("core"),
        words("queues"),
        numbers("received"),
        numbers("sent"),
        numbers("dropped"),
        numbers("busy"),
        numbers("frames"),
        words("ledger"),
    ];
    let mut table = Table::new(style, "There is no worker.", &columns);
    for worker in workers {
        let ledger = if worker.balanced {
            ("balanced".to_owned(), Some(Color::Green))
        } else {
            (format!("{} missing", worker.frames_missing), Some(Color::Red))
        };
        table.row([
            plain(worker.worker.to_string()),
            plain(worker.core.map_or_else(|| "-".to_owned(), |core| core.to_string())),
            plain(worker.queues.join(" ")),
            plain(number(worker.received)),
            plain(number(worker.sent)),
            plain(number(worker.dropped)),
            plain(worker.busy.map_or_else(|| "-".to_owned(), percent)),
            plain(number(worker.frames)),
            ledger,
        ]);
    }
    table.finish()
}

/// A line for all workers whose memory is alike.
fn memory(workers: &[WorkerStatus], style: Style) -> Option<String> {
    let mut kinds: Vec<(&str, Vec<String>)> = Vec::new();
    for worker in workers.iter().filter(|worker| !worker.memory.is_empty()) {
        let number = worker.worker.to_string();
        match kinds.iter_mut().find(|(memory, _)| *memory == worker.memory) {
            Some((_, numbers)) => numbers.push(number),
            None => kinds.push((&worker.memory, vec![number])),
        }
    }
    let line =
        |(memory, numbers): &(&str, Vec<String>)| format!("  worker {}  {memory}\n", numbers.join(", "));
    (!kinds.is_empty()).then(|| style.bold("memory") + "\n" + &kinds.iter().map(line).collect::<String>())
}

fn ports(port: &PortStatus, style: Style) -> String {
    let PortStatus { name, mode, queues, attach, facts, changes } = port;
    let mut text =
        style.bold(&format!("port {name}")) + &format!("  queues {queues}, mode {mode}, attach {attach}\n");
    let width = facts.iter().map(|fact| fact.name.len()).max().unwrap_or(0);
    for fact in facts {
        let _ = writeln!(text, "  {:width$}  {}", fact.name, fact.value);
    }
    let width = changes.iter().map(|change| change.setting.len()).max().unwrap_or(0);
    for (place, change) in changes.iter().enumerate() {
        let SettingStatus { setting, before, value } = change;
        let heading = if place == 0 { "  changed, and put back at the end:\n" } else { "" };
        let _ = writeln!(text, "{heading}    {setting:width$}  {value}, was {before}");
    }
    text
}
