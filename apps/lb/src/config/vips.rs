//! The VIPs.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Range;
use std::time::Duration;

use afx::stage::balancer::maglev::TableSize;
use afx::stage::balancer::real::RealId;

use super::diagnostic::Problem;
use super::reader::Section;
use super::reals::{self, Of};
use super::{
    Forwarding, Fragments, HashOn, Protocol, Real, RealState, ServerIdIn, Vip, VipKey, checks, networks,
    times, values,
};

/// What of the rest of the file the VIPs must fit.
pub(super) struct Around<'a> {
    /// None if the file has that wrong.
    pub(super) forwarding: Option<&'a Forwarding>,
    pub(super) decapsulate: &'a [IpAddr],
}

/// Reads all VIPs.
pub(super) fn read(root: &Section<'_>, around: &Around<'_>, table_size: TableSize) -> Vec<Vip> {
    let mut seen = BTreeMap::new();
    let mut vips = Vec::new();
    for section in root.sections("vip") {
        let Some((vip, span)) = read_one(&section, around) else { continue };
        let name = vip.key();
        if let Some(first) = seen.insert(name, span.clone()) {
            let first = section.line(&first);
            let what = format!("the VIP {name} is given twice");
            let help = format!("it is in line {first} already: put all its reals in one `[[vip]]`");
            section.error_at(span.clone(), Problem::new(what).help(help));
        }
        if vip.reals.len() > table_size.slots() as usize {
            let what = format!("the VIP {name} has {} reals, more than its table has slots", vip.reals.len());
            let help = format!("raise `table_size` in [maglev] above {}", table_size.slots());
            section.error_at(span.clone(), Problem::new(what).help(help));
        }
        if vip.network.prefix_len() == 0 {
            let what =
                format!("the VIP {name} takes packets to all addresses, those of this machine among them");
            section.warn_at(span.clone(), Problem::new(what).help("name the prefix that clients connect to"));
        }
        check_usable(&section, span, &vip);
        vips.push(vip);
    }
    let reals: usize = vips.iter().map(|vip| vip.reals.len()).sum();
    if reals > RealId::LIMIT {
        let what = format!("there are {reals} reals in all VIPs together");
        root.error(Problem::new(what).help(format!("at most {} can be told apart", RealId::LIMIT)));
    }
    if vips.is_empty() && !root.has("vip") {
        root.warn(
            Problem::new("there is no VIP: no packet will be taken").help("add a section `[[vip]]` for each"),
        );
    }
    vips
}

/// Reads one VIP, and the place of its address. None if it cannot be told from others, or its check cannot be made.
fn read_one(section: &Section<'_>, around: &Around<'_>) -> Option<(Vip, Range<usize>)> {
    let network = section
        .required("address", |value| networks::vip_network(values::string(value, networks::VIP_EXAMPLE)?));
    let port = section.required("port", values::port_or_any);
    let protocol = section.required("protocol", |value| values::word(value, Protocol::WORDS));
    let hash = section.value("hash", |value| values::word(value, HashOn::WORDS));
    let server_id = section.optional("server_id", |value| values::word(value, ServerIdIn::WORDS));
    let ping = section.value("ping", values::boolean);
    let fragments = section.value("fragments", |value| values::word(value, Fragments::WORDS));
    let udp_leaves_down = section.optional("udp_leaves_down", values::boolean);
    let slow_start = section
        .value("slow_start", |value| times::time(value, Duration::ZERO..=Duration::from_secs(60 * 60)));

    if let (Some(place), Some(protocol)) = (&server_id, &protocol) {
        check_server_id(section, place.span(), *place.get_ref(), *protocol.get_ref());
    }
    if let (Some(leaves), Some(protocol)) = (&udp_leaves_down, &protocol)
        && (*leaves.get_ref(), *protocol.get_ref()) == (true, Protocol::Tcp)
    {
        section.error_at(
            leaves.span(),
            Problem::new("the flows of a TCP VIP are not UDP: they stay with a real that is down")
                .help("leave this key out, or say `protocol = \"udp\"`"),
        );
    }
    let server_id = match server_id {
        Some(server_id) => Some(server_id.into_inner()),
        None => (!section.has("server_id")).then_some(ServerIdIn::None),
    };
    let check_section = section.section("check");
    let check =
        check_section.as_ref().map(|check| checks::read(check, port.as_ref().map(|port| *port.get_ref())));
    let of = Of { around, network: network.as_ref().map(|network| *network.get_ref()), server_id };
    let reals = reals::read(section, &of);
    section.finish();
    let network = network?;
    let span = network.span();
    let key =
        VipKey { network: network.into_inner(), port: port?.into_inner(), protocol: protocol?.into_inner() };
    let default = Vip::new(key);
    let vip = Vip {
        hash: hash.unwrap_or(default.hash),
        server_id: server_id.unwrap_or(default.server_id),
        ping: ping.unwrap_or(default.ping),
        fragments: fragments.unwrap_or(default.fragments),
        udp_leaves_down: udp_leaves_down.map_or(default.udp_leaves_down, toml::Spanned::into_inner),
        slow_start: slow_start.unwrap_or(default.slow_start),
        // Where it cannot be made, that is an error already.
        check: check.flatten(),
        reals,
        ..default
    };
    Some((vip, span))
}

fn check_server_id(section: &Section<'_>, span: Range<usize>, server_id: ServerIdIn, protocol: Protocol) {
    let (needs, other) = match (server_id, protocol) {
        (ServerIdIn::Quic | ServerIdIn::UdpHeader, Protocol::Tcp) => (Protocol::Udp, "\"tcp-option\""),
        (ServerIdIn::TcpOption, Protocol::Udp) => (Protocol::Tcp, "\"quic\" or \"udp-header\""),
        _ => return,
    };
    let what = format!("\"{server_id}\" is in packets of a {needs} VIP only, and this one is {protocol}");
    section.error_at(span, Problem::new(what).help(format!("expected is {other}, or \"none\"")));
}

/// Tells of VIPs whose packets will be dropped: an error where that cannot be what is meant.
fn check_usable(section: &Section<'_>, span: Range<usize>, vip: &Vip) {
    let name = vip.key();
    // One that is wrong might be usable.
    if section.count("real") != Some(vip.reals.len()) {
        return;
    }
    if vip.reals.is_empty() {
        let what = format!("the VIP {name} has no reals: its packets will be dropped");
        section.warn_at(span, Problem::new(what).help("add sections `[[vip.real]]`"));
        return;
    }
    let can_get_flows =
        |real: &&Real| real.weight > 0 || !real.sources.is_empty() || !real.server_ids.is_empty();
    let usable: Vec<&Real> = vip.reals.iter().filter(can_get_flows).collect();
    if usable.is_empty() {
        let what = format!("no usable weight: all reals of the VIP {name} have weight 0");
        let help = "give one a weight above 0; a real that shall get no new flows has `state = \"drain\"`";
        section.error_at(span, Problem::new(what).help(help));
    } else if usable.iter().all(|real| real.state != RealState::Up) {
        let what = format!("no real of the VIP {name} is up: new flows will be dropped");
        section.warn_at(span, Problem::new(what).help("give one `state = \"up\"`"));
    }
}
