//! The reals of a VIP.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Range;

use ipnet::IpNet;
use toml::Spanned;

use super::diagnostic::Problem;
use super::key::Network;
use super::reader::Section;
use super::vips::Around;
use super::{Forwarding, Real, RealState, ServerIdIn, networks, values};

/// What of a VIP its reals must fit. None where the file has that wrong.
pub(super) struct Of<'a> {
    pub(super) around: &'a Around<'a>,
    pub(super) network: Option<IpNet>,
    pub(super) server_id: Option<ServerIdIn>,
}

/// Reads all reals of a VIP.
pub(super) fn read(vip: &Section<'_>, of: &Of<'_>) -> Vec<Real> {
    let mut reals = Vec::new();
    let mut addresses = BTreeMap::new();
    let mut server_ids = BTreeMap::new();
    let mut sources = BTreeMap::new();
    for section in vip.sections("real") {
        let Some(Read { address, ids, prefixes, real }) = read_one(&section) else { continue };
        if let Some(first) = addresses.insert(real.address, address.clone()) {
            let first = section.line(&first);
            let what = format!("the real {} is given twice in this VIP", real.address);
            let help = format!("it is in line {first} already: give it once, with the weight it shall have");
            section.error_at(address.clone(), Problem::new(what).help(help));
        }
        check_address(&section, address, real.address, of);
        check_server_ids(&section, real.address, &ids, of, &mut server_ids);
        check_sources(&section, real.address, &prefixes, of, &mut sources);
        reals.push(real);
    }
    reals
}

/// A real by itself, and the places in the file of what has to fit the rest.
struct Read {
    address: Range<usize>,
    ids: Vec<Spanned<u32>>,
    prefixes: Vec<Spanned<IpNet>>,
    real: Real,
}

/// Reads one real. None if it has no address.
fn read_one(section: &Section<'_>) -> Option<Read> {
    let address = section.required("address", networks::unicast_address);
    let weight = section.value("weight", |value| values::integer(value, 0..=65_535));
    let state = section.value("state", |value| values::word(value, RealState::WORDS));
    let next_hop = section.value("next_hop", networks::mac);
    let example = "expected is a list of numbers, such as [1022, 197630]";
    let ids = section.list("server_ids", example, |value| {
        values::integer(value, 1..=u64::from(u32::MAX)).map(|id| id as u32)
    });
    let example = "expected is a list of prefixes, such as [\"192.0.2.0/24\"]";
    let prefixes = section.list("sources", example, networks::prefix);
    section.finish();
    let (address, ids, prefixes) = (address?, ids.unwrap_or_default(), prefixes.unwrap_or_default());
    let default = Real::new(*address.get_ref());
    let real = Real {
        weight: weight.map_or(default.weight, |weight| weight as u32),
        state: state.unwrap_or(default.state),
        next_hop,
        server_ids: ids.iter().map(|id| *id.get_ref()).collect(),
        sources: prefixes.iter().map(|prefix| *prefix.get_ref()).collect(),
        ..default
    };
    Some(Read { address: address.span(), ids, prefixes, real })
}

fn check_address(section: &Section<'_>, span: Range<usize>, address: IpAddr, of: &Of<'_>) {
    if of.around.decapsulate.contains(&address) {
        let what =
            format!("the real {address} is an address of [decapsulation]: packets would come back here");
        let help = "give the address that the server has for itself";
        section.error_at(span.clone(), Problem::new(what).help(help));
    }
    let Some(network) = of.network else { return };
    if network == IpNet::from(address) {
        section.error_at(
            span.clone(),
            Problem::new("a VIP cannot be its own real: packets would come back here forever")
                .help("give the address that the server has for itself"),
        );
    } else if network.contains(&address) {
        let what =
            format!("the real {address} has an address of its VIP {network}: packets may come back here");
        section.warn_at(span.clone(), Problem::new(what).help("have a route for it that is more specific"));
    }
    let vip_is_v6 = matches!(network, IpNet::V6(_));
    if let Some((why, help)) = of.around.forwarding.and_then(|f| refusal(f, vip_is_v6, address.is_ipv6())) {
        section.error_at(span, Problem::new(why).help(help));
    }
}

/// Why packets for a VIP cannot get to a real of that family, and what would be right.
fn refusal(
    forwarding: &Forwarding,
    vip_is_v6: bool,
    real_is_v6: bool,
) -> Option<(&'static str, &'static str)> {
    match (forwarding, vip_is_v6, real_is_v6) {
        (Forwarding::L2Dsr, true, false) => Some((
            "layer 2 forwarding cannot take packets of an IPv6 VIP to an IPv4 real",
            "give the real's IPv6 address",
        )),
        (Forwarding::L2Dsr, false, true) => Some((
            "layer 2 forwarding cannot take packets of an IPv4 VIP to an IPv6 real",
            "give the real's IPv4 address, or forward by \"ipip\" or \"gue\"",
        )),
        (Forwarding::Ipip { .. } | Forwarding::Gue { .. }, true, false) => Some((
            "IPv6 packets are not carried in IPv4: an IPv6 VIP cannot have an IPv4 real",
            "give the real's IPv6 address",
        )),
        (Forwarding::Ipip { .. } | Forwarding::Gue { .. } | Forwarding::L2Dsr, _, _) => None,
    }
}

fn check_server_ids(
    section: &Section<'_>,
    real: IpAddr,
    ids: &[Spanned<u32>],
    of: &Of<'_>,
    seen: &mut BTreeMap<u32, IpAddr>,
) {
    if let (Some(first), Some(ServerIdIn::None)) = (ids.first(), of.server_id) {
        let what = "server ids are nothing to a VIP whose packets carry none";
        let help = "say where they are with `server_id` in [[vip]], or leave `server_ids` out";
        section.error_at(first.span(), Problem::new(what).help(help));
    }
    for id in ids {
        if let Some(other) = seen.insert(*id.get_ref(), real) {
            let (what, help) = twice(format!("the server id {}", id.get_ref()), real, other);
            section.error_at(id.span(), Problem::new(what).help(help));
        }
    }
}

fn check_sources(
    section: &Section<'_>,
    real: IpAddr,
    prefixes: &[Spanned<IpNet>],
    of: &Of<'_>,
    seen: &mut BTreeMap<IpNet, IpAddr>,
) {
    for prefix in prefixes {
        let source = prefix.get_ref();
        if let Some(network) = of.network
            && matches!(network, IpNet::V6(_)) != matches!(source, IpNet::V6(_))
        {
            let (vip, other) = if matches!(network, IpNet::V6(_)) { (6, 4) } else { (4, 6) };
            let what = format!(
                "clients of an IPv{vip} VIP have no IPv{other} addresses such as {}",
                Network(source)
            );
            section.error_at(prefix.span(), Problem::new(what).help(format!("give an IPv{vip} prefix")));
        }
        if let Some(other) = seen.insert(*source, real) {
            let (what, help) = twice(format!("the source {}", Network(source)), real, other);
            section.error_at(prefix.span(), Problem::new(what).help(help));
        }
    }
}

/// What is wrong where something of one real belongs to another one already, or to itself, and what would be right.
fn twice(what: String, real: IpAddr, other: IpAddr) -> (String, &'static str) {
    if real == other {
        (format!("{what} is given twice"), "give it once")
    } else {
        (format!("{what} is the real {other}'s already"), "give it to one real of the VIP only")
    }
}
