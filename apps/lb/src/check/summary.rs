//! What a configuration means, for people: each key of the file and its value, defaults included, in columns.

use std::fmt::{Display, Formatter, Result};
use std::ops::RangeInclusive;

use crate::config::{
    Check, Config, Connections, Control, Flap, Forwarding, Icmp, Maglev, Port, Probe, Queues, Real, RssKey,
    Settings, Time, Tls, Vip, Workers,
};

/// All that a configuration says, defaults included.
pub(super) struct Summary<'a>(pub(super) &'a Config);

impl Display for Summary<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let Config {
            ports,
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
            vips,
        } = self.0;
        for Port { interface, queues, mode, attach, multi_buffer, coexist, settings } in ports {
            writeln!(f, "port {interface}")?;
            row(
                f,
                "queues",
                &match queues {
                    Queues::All => "all".to_owned(),
                    Queues::First(count) => format!("the first {count}"),
                },
            )?;
            row(f, "mode", mode)?;
            row(f, "attach", attach)?;
            row(f, "multi_buffer", multi_buffer)?;
            row(f, "coexist", coexist)?;
            let Settings { channels, spread, rss_key, interrupts, defer } = settings;
            let stay = || "as many as there are".to_owned();
            row(f, "channels", &channels.map_or_else(stay, |count| count.to_string()))?;
            row(f, "spread", spread)?;
            let own = || "the card's own".to_owned();
            row(f, "rss_key", &rss_key.as_ref().map_or_else(own, RssKey::to_string))?;
            row(f, "interrupts", interrupts)?;
            row(f, "defer", defer)?;
        }
        writeln!(f, "workers")?;
        match workers {
            Workers::Auto => row(f, "count", &"as many as queues and cores allow")?,
            Workers::Count(count) => row(f, "count", count)?,
            Workers::Cores(cores) => row(f, "cores", &format!("one on each of {}", list(cores)))?,
        }
        row(f, "idle", idle)?;
        row(f, "huge_pages", huge_pages)?;
        let Control { socket, metrics, privileges } = control;
        writeln!(f, "control")?;
        row(f, "socket", &socket.as_ref().map_or_else(|| "none".into(), |path| path.display().to_string()))?;
        let metrics = metrics.map_or_else(|| "none".into(), |address| format!("http://{address}/metrics"));
        row(f, "metrics", &metrics)?;
        row(f, "privileges", privileges)?;
        write_forwarding(f, forwarding)?;
        let kernel = "what the kernel's routes and neighbours say";
        row(f, "next_hop", &next_hop.map_or_else(|| kernel.into(), |mac| mac.to_string()))?;
        let way = "what the way to the real takes, less the outer header";
        row(f, "client_mtu", &client_mtu.map_or_else(|| way.into(), |mtu| format!("{mtu} bytes")))?;
        let Icmp { too_big, per_second } = icmp;
        writeln!(f, "icmp")?;
        row(f, "too_big", too_big)?;
        row(f, "per_second", &format!("{per_second} per worker"))?;
        writeln!(f, "decapsulation")?;
        row(f, "addresses", &list(decapsulate))?;
        let Maglev { table_size, seed } = maglev;
        writeln!(f, "maglev")?;
        row(f, "table_size", &format!("{} slots per VIP", table_size.slots()))?;
        row(f, "seed", seed)?;
        let Connections { capacity, timeouts } = connections;
        writeln!(f, "connections")?;
        row(f, "capacity", &format!("{capacity} per worker"))?;
        row(f, "opening", &Time(timeouts.opening))?;
        row(f, "established", &Time(timeouts.established))?;
        row(f, "closing", &Time(timeouts.closing))?;
        row(f, "udp", &Time(timeouts.datagram))?;
        vips.iter().try_for_each(|vip| write_vip(f, vip))
    }
}

/// The width of the column of keys.
const KEYS: usize = 18;

pub(super) fn row(f: &mut Formatter<'_>, key: &str, value: &dyn Display) -> Result {
    writeln!(f, "  {key:<KEYS$} {value}")
}

/// What there is, or "none".
fn list<T: Display>(values: &[T]) -> String {
    match values {
        [] => "none".to_owned(),
        _ => values.iter().map(T::to_string).collect::<Vec<_>>().join(", "),
    }
}

fn write_forwarding(f: &mut Formatter<'_>, forwarding: &Forwarding) -> Result {
    writeln!(f, "forwarding")?;
    let (method, sources, port) = match forwarding {
        Forwarding::Ipip { source_v4, source_v6 } => {
            ("ipip: in another IP header", Some((source_v4, source_v6)), None)
        }
        Forwarding::Gue { source_v4, source_v6, port } => {
            ("gue: in UDP and another IP header", Some((source_v4, source_v6)), Some(port))
        }
        Forwarding::L2Dsr => ("l2dsr: unchanged but for the MAC addresses", None, None),
    };
    row(f, "method", &method)?;
    if let Some(port) = port {
        row(f, "gue_port", port)?;
    }
    if let Some((v4, v6)) = sources {
        let own = "the interface's own address";
        row(f, "source_v4", &v4.map_or_else(|| own.to_owned(), |prefix| prefix.to_string()))?;
        row(f, "source_v6", &v6.map_or_else(|| own.to_owned(), |prefix| prefix.to_string()))?;
    }
    Ok(())
}

fn write_vip(f: &mut Formatter<'_>, vip: &Vip) -> Result {
    let Vip {
        network: _,
        port: _,
        protocol: _,
        hash,
        server_id,
        ping,
        fragments,
        udp_leaves_down,
        slow_start,
        check,
        reals,
    } = vip;
    let plural = if reals.len() == 1 { "" } else { "s" };
    writeln!(f, "vip {}: {} real{plural}", vip.key(), reals.len())?;
    row(f, "hash", hash)?;
    row(f, "server_id", server_id)?;
    row(f, "ping", ping)?;
    row(f, "fragments", fragments)?;
    row(f, "udp_leaves_down", udp_leaves_down)?;
    row(f, "slow_start", &Time(*slow_start))?;
    match check {
        Some(check) => write_check(f, check)?,
        None => row(f, "check", &"none: all reals count as healthy")?,
    }
    write_reals(f, reals)
}

fn write_check(f: &mut Formatter<'_>, check: &Check) -> Result {
    let Check { probe, interval, timeout, rise, fall, jitter, flap } = check;
    match probe {
        Probe::Icmp => row(f, "check type", &"icmp")?,
        Probe::Tcp { port } => {
            row(f, "check type", &"tcp")?;
            row(f, "check port", port)?;
        }
        Probe::Http { port, path, host, status, tls } => {
            row(f, "check type", if *tls == Tls::Off { &"http" } else { &"https" })?;
            row(f, "check port", port)?;
            row(f, "check path", path)?;
            row(f, "check host", &host.as_deref().unwrap_or("the real's address"))?;
            let range = |range: &RangeInclusive<u16>| match (range.start(), range.end()) {
                (first, last) if first == last => first.to_string(),
                (first, last) => format!("{first}-{last}"),
            };
            row(f, "check status", &list(&status.iter().map(range).collect::<Vec<_>>()))?;
            if let Tls::On { verify } = tls {
                row(f, "check verify", verify)?;
            }
        }
        Probe::Command { command, port } => {
            row(f, "check type", &"command")?;
            row(f, "check command", &format!("{command:?}"))?;
            row(f, "check port", &port.map_or_else(|| "none".to_owned(), |port| port.to_string()))?;
        }
    }
    row(f, "check interval", &format!("{}, {jitter} % more or less", Time(*interval)))?;
    row(f, "check timeout", &Time(*timeout))?;
    row(f, "check rise", &format!("up after {rise} good"))?;
    row(f, "check fall", &format!("down after {fall} bad"))?;
    let Flap { limit, window, hold } = flap;
    let limit = if *limit == 0 { "off".to_owned() } else { format!("kept down after {limit} times down") };
    row(f, "check flap_limit", &limit)?;
    row(f, "check flap_window", &Time(*window))?;
    row(f, "check flap_hold", &Time(*hold))
}

/// The reals as a table.
fn write_reals(f: &mut Formatter<'_>, reals: &[Real]) -> Result {
    if reals.is_empty() {
        return Ok(());
    }
    let head = ["real", "weight", "state", "next_hop", "server_ids", "sources"].map(str::to_owned);
    let cells = |real: &Real| {
        let Real { address, weight, state, next_hop, server_ids, sources } = real;
        let next_hop = next_hop.map_or_else(|| "default".to_owned(), |mac| mac.to_string());
        [
            address.to_string(),
            weight.to_string(),
            state.to_string(),
            next_hop,
            list(server_ids),
            list(sources),
        ]
    };
    let rows: Vec<[String; 6]> = std::iter::once(head).chain(reals.iter().map(cells)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: [usize; 6] = std::array::from_fn(width);
    for row in &rows {
        // The first as wide as the keys at least, numbers to the right, and no blanks at the end.
        let mut line =
            format!("  {:<width$} {:>w$}", row[0], row[1], width = widths[0].max(KEYS), w = widths[1]);
        for column in 2..6 {
            line += &format!("  {:<width$}", row[column], width = widths[column]);
        }
        writeln!(f, "{}", line.trim_end())?;
    }
    Ok(())
}
