//! `afx-lb explain`: what becomes of a flow.

use std::fmt::Write as _;

use super::super::protocol::{Explanation, How, Known, Method, Outer, OuterIp, OuterUdp};
use super::lists::colour;
use crate::text::{Color, Style, number, time};

/// The explanation, field by field.
pub(super) fn show(explanation: &Explanation, style: Style) -> String {
    let Explanation { flow, vip, real, real_state, how, why_not, known, outer } = explanation;
    let title = format!("{} -> {} {}", flow.source, flow.destination, flow.protocol);
    let mut text = style.bold(&title) + "\n";
    let mut fact = |name: &str, value: &str| {
        let _ = writeln!(text, "  {name:<10} {value}");
    };
    fact("vip", &vip.map_or_else(|| "none".to_owned(), |vip| vip.to_string()));
    if let Some(real) = real {
        let state = real_state.map(|state| format!(" ({})", style.paint(state.word(), colour(state))));
        fact("real", &format!("{real}{}{}", state.unwrap_or_default(), how.map_or("", chosen)));
    } else if vip.is_some() {
        fact("real", "none");
    }
    if let Some(why_not) = why_not {
        fact("", &style.paint(why_not, Color::Yellow));
    }
    for Known { worker, real, state, idle_seconds } in known {
        let real = real.map_or_else(|| "a real that is gone".to_owned(), |real| real.to_string());
        fact("known", &format!("worker {worker} has it: {real}, {state}, idle for {}", time(*idle_seconds)));
    }
    if known.is_empty() && real.is_some() {
        fact("known", "by no worker: the one that gets its first packet decides, as all would");
    }
    if let Some(outer) = outer {
        packet(outer, &mut fact);
    }
    text
}

/// How a real was chosen, to be said after its name.
fn chosen(how: How) -> &'static str {
    match how {
        How::Connection => ", as the connection table has it",
        How::ServerId => ", whose id the packet carries",
        How::Source => ", to which the client's prefix is bound",
        How::Maglev => ", from the Maglev table",
    }
}

fn packet(outer: &Outer, fact: &mut impl FnMut(&str, &str)) {
    let Outer { method, port, source_mac, destination_mac, ip, udp, mtu, client_mtu } = outer;
    let around = match method {
        Method::Ipip => "IP in IP",
        Method::Gue => "IP in UDP (GUE)",
        Method::L2Dsr => "unchanged but for its MAC addresses",
    };
    fact("goes out", &format!("on port {port}, {around}"));
    fact("Ethernet", &format!("{source_mac} -> {destination_mac}"));
    if let Some(OuterIp { source, destination, protocol, ttl }) = ip {
        let (version, limit) = if source.is_ipv4() { ("IPv4", "TTL") } else { ("IPv6", "hop limit") };
        fact(version, &format!("{source} -> {destination}, protocol {protocol}, {limit} {ttl}"));
    }
    if let Some(OuterUdp { source_port, destination_port }) = udp {
        fact("UDP", &format!("{source_port} -> {destination_port}"));
    }
    let (mtu, client_mtu) = (number((*mtu).into()), number((*client_mtu).into()));
    fact("MTU", &format!("{mtu} bytes on the way, so that the client's packets may have {client_mtu}"));
}
