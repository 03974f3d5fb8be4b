//! Tables of VIPs, reals, connections and counters.

use std::fmt::Write as _;

use super::super::protocol::{
    Connection, ConnectionsEnd, Counter, HealthState, RealState, RealStatus, Traffic, VipStatus,
};
use crate::text::{Color, Style, Table, number, numbers, percent, plain, time, words};

/// All VIPs.
pub(super) fn vips(vips: &[VipStatus], style: Style) -> String {
    let columns = [
        words("vip"),
        numbers("reals up"),
        numbers("connections"),
        numbers("opened"),
        numbers("packets"),
        numbers("pps"),
        numbers("bit/s"),
        words("hash"),
        words("check"),
        words("options"),
    ];
    let mut table = Table::new(style, "There is no VIP.", &columns);
    for vip in vips {
        let [packets, pps, bits] = rates(&vip.traffic);
        table.row([
            plain(vip.vip.to_string()),
            of_reals(vip.reals_up, vip.reals),
            plain(number(vip.connections)),
            plain(number(vip.opened)),
            plain(packets),
            plain(pps),
            plain(bits),
            plain(vip.hash.word()),
            plain(vip.check.as_deref().unwrap_or("-")),
            plain(options(vip)),
        ]);
    }
    table.finish()
}

/// What a VIP has other than by default.
fn options(vip: &VipStatus) -> String {
    use super::super::protocol::{Fragments, ServerIdIn};
    let mut options = Vec::new();
    if vip.server_id != ServerIdIn::None {
        options.push(format!("server id in {}", vip.server_id));
    }
    if vip.fragments == Fragments::Together {
        options.push("fragments".to_owned());
    }
    if vip.ping {
        options.push("ping".to_owned());
    }
    if options.is_empty() { "-".to_owned() } else { options.join(", ") }
}

/// How many reals are up: green for all, red for none.
pub(super) fn of_reals(up: u64, all: u64) -> (String, Option<Color>) {
    let colour = if up == all && all > 0 {
        Color::Green
    } else if up == 0 {
        Color::Red
    } else {
        Color::Yellow
    };
    (format!("{} of {}", number(up), number(all)), Some(colour))
}

/// Packets, packets per second and bits per second.
fn rates(traffic: &Traffic) -> [String; 3] {
    [number(traffic.packets), rate(traffic.packets_per_second), rate(traffic.bits_per_second)]
}

/// A rate; a dash where it is not known yet.
pub(super) fn rate(rate: Option<f64>) -> String {
    rate.map_or_else(|| "-".to_owned(), |rate| number(rate.max(0.0).round() as u64))
}

/// Reals, VIP by VIP, and below them what is wrong.
pub(super) fn reals(reals: &[RealStatus], style: Style) -> String {
    let columns = [
        words("vip"),
        words("real"),
        words("state"),
        words("health"),
        numbers("weight"),
        numbers("share"),
        numbers("connections"),
        numbers("opened"),
        numbers("packets"),
        numbers("pps"),
        numbers("bit/s"),
        words("next hop"),
    ];
    let mut table = Table::new(style, "There is no real.", &columns);
    let mut last = None;
    for real in reals {
        // Said once for all of its reals.
        let vip = if last == Some(real.vip) { String::new() } else { real.vip.to_string() };
        last = Some(real.vip);
        let [packets, pps, bits] = rates(&real.traffic);
        let hop = match &real.next_hop {
            Some(hop) => plain(format!("{} on {}", hop.mac, hop.port)),
            None => ("unreachable".to_owned(), Some(Color::Red)),
        };
        table.row([
            plain(vip),
            plain(real.address.to_string()),
            state(real),
            health(real),
            plain(weight(real)),
            plain(percent(real.share)),
            plain(number(real.connections)),
            plain(number(real.opened)),
            plain(packets),
            plain(pps),
            plain(bits),
            hop,
        ]);
    }
    table.finish() + &troubles(reals, style)
}

fn state(real: &RealStatus) -> (String, Option<Color>) {
    let text = match (real.state, real.down_by, real.drain.and_then(|drain| drain.remaining_seconds)) {
        (RealState::Down, Some(by), _) => format!("down ({by})"),
        (RealState::Drain, _, Some(seconds)) => format!("drain, {} left", time(seconds)),
        (state, ..) => state.to_string(),
    };
    (text, Some(colour(real.state)))
}

/// A state's colour.
pub(super) fn colour(state: RealState) -> Color {
    match state {
        RealState::Up => Color::Green,
        RealState::Drain => Color::Yellow,
        RealState::Down | RealState::Out => Color::Red,
    }
}

fn health(real: &RealStatus) -> (String, Option<Color>) {
    let Some(health) = &real.health else { return plain("-") };
    let colour = match health.state {
        HealthState::Up => Color::Green,
        HealthState::Unknown => Color::Yellow,
        HealthState::Down | HealthState::Held => Color::Red,
    };
    (format!("{} {}", health.state, time(health.since_seconds)), Some(colour))
}

/// The weight; where another one counts now, that one of it.
fn weight(real: &RealStatus) -> String {
    if real.weight_now == real.weight {
        number(real.weight.into())
    } else {
        format!("{} of {}", number(real.weight_now.into()), number(real.weight.into()))
    }
}

/// What is wrong with reals, a line each.
fn troubles(reals: &[RealStatus], style: Style) -> String {
    let mut text = String::new();
    for real in reals {
        let mut trouble = |what: &str| {
            let begin = if text.is_empty() { "\n" } else { "" };
            let line = format!("{} in {}: {what}", real.address, real.vip);
            text += &format!("{begin}{}\n", style.paint(&line, Color::Yellow));
        };
        if let Some(error) = real.health.as_ref().and_then(|health| health.error.as_ref()) {
            trouble(&format!("the newest check failed: {error}"));
        }
        if let Some(why) = &real.unreachable {
            trouble(&format!("cannot be reached: {why}"));
        }
    }
    text
}

/// Connections, and whether there are more.
pub(super) fn connections(connections: &[Connection], end: &ConnectionsEnd, style: Style) -> String {
    let columns =
        [words("worker"), words("vip"), words("real"), words("state"), numbers("idle"), words("tag")];
    let mut table = Table::new(style, "There is no such connection.", &columns);
    for connection in connections {
        let gone = || "gone".to_owned();
        table.row([
            plain(connection.worker.to_string()),
            plain(connection.vip.map_or_else(gone, |vip| vip.to_string())),
            plain(connection.real.map_or_else(gone, |real| real.to_string())),
            plain(connection.state.word()),
            plain(time(connection.idle_seconds)),
            plain(&connection.tag),
        ]);
    }
    let mut text = table.finish();
    if !end.complete {
        let _ = writeln!(
            text,
            "\nThere are more: these are {}. --limit 0 lists all, --count counts them.",
            number(end.matched)
        );
    }
    text
}

/// Counters, group by group.
pub(super) fn counters(counters: &[Counter], style: Style) -> String {
    let mut table = Table::new(
        style,
        "Nothing was counted.",
        &[words("group"), words("counter"), numbers("value"), words("meaning")],
    );
    let mut last = None;
    for counter in counters {
        let group = if last == Some(&counter.group) { "" } else { &counter.group };
        last = Some(&counter.group);
        table.row([
            plain(group),
            plain(&counter.name),
            plain(number(counter.value)),
            plain(&counter.meaning),
        ]);
    }
    table.finish()
}
