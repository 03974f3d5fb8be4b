//! The VIPs and their reals.

use std::collections::BTreeSet;

use afx::stage::balancer::maglev::TableSize;
use afx::stage::balancer::real::RealId;

use super::diagnostic::Problem;
use super::reader::Section;
use super::{Forwarding, Protocol, Real, Vip, values};

/// Reads all VIPs. `forwarding` is unknown if the file has that wrong.
pub(super) fn read(root: &Section<'_>, forwarding: Option<&Forwarding>, table_size: TableSize) -> Vec<Vip> {
    let mut seen = BTreeSet::new();
    let mut vips = Vec::new();
    for section in root.sections("vip") {
        let address = section.required("address", values::unicast_address);
        let port = section.required("port", |value| values::integer(value, 1..=65_535));
        let protocol = section.required("protocol", |value| values::word(value, Protocol::WORDS));
        let reals = read_reals(&section, address.as_ref().map(|a| *a.get_ref()), forwarding);
        section.finish();
        let (Some(address), Some(port), Some(protocol)) = (address, port, protocol) else { continue };

        let span = address.span();
        let vip = Vip {
            address: address.into_inner(),
            port: port.into_inner() as u16,
            protocol: protocol.into_inner(),
            reals,
        };
        let name = format!("{} {}", std::net::SocketAddr::new(vip.address, vip.port), vip.protocol);
        if !seen.insert((vip.address, vip.port, vip.protocol)) {
            section.error_at(
                span.clone(),
                Problem::new(format!("the VIP {name} is given twice"))
                    .help("put all its reals in one `[[vip]]`"),
            );
        }
        if vip.reals.len() > table_size.slots() as usize {
            let what = format!("the VIP {name} has {} reals, more than its table has slots", vip.reals.len());
            let help = format!("raise `table_size` in [maglev] above {}", table_size.slots());
            section.error_at(span.clone(), Problem::new(what).help(help));
        }
        if !section.has("real") {
            let what = format!("the VIP {name} has no reals: its packets will be dropped");
            section.warn_at(span, Problem::new(what).help("add sections `[[vip.real]]`"));
        } else if !vip.reals.is_empty() && vip.reals.iter().all(|real| real.weight == 0) {
            let what = format!("all reals of the VIP {name} have weight 0: new flows will be dropped");
            section.warn_at(span, Problem::new(what).help("give at least one real a weight above 0"));
        }
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

fn read_reals(
    vip: &Section<'_>,
    vip_address: Option<std::net::IpAddr>,
    forwarding: Option<&Forwarding>,
) -> Vec<Real> {
    let mut seen = BTreeSet::new();
    let mut reals = Vec::new();
    for section in vip.sections("real") {
        let address = section.required("address", values::unicast_address);
        let weight = section.optional("weight", |value| values::integer(value, 0..=65_535));
        let next_hop = section.optional("next_hop", values::mac);
        section.finish();
        let Some(address) = address else { continue };
        let span = address.span();
        let address = address.into_inner();
        if !seen.insert(address) {
            section.error_at(
                span.clone(),
                Problem::new(format!("the real {address} is given twice in this VIP"))
                    .help("give it once, with the weight it shall have"),
            );
        }
        if vip_address == Some(address) {
            section.error_at(
                span.clone(),
                Problem::new("a VIP cannot be its own real: packets would come back here forever")
                    .help("give the address that the server has for itself"),
            );
        }
        let refusal =
            forwarding.zip(vip_address).and_then(|(f, vip)| refusal(f, vip.is_ipv6(), address.is_ipv6()));
        if let Some((why, help)) = refusal {
            section.error_at(span, Problem::new(why).help(help));
        }
        reals.push(Real {
            address,
            weight: weight.map_or(100, |weight| weight.into_inner() as u32),
            next_hop: next_hop.map(toml::Spanned::into_inner),
        });
    }
    reals
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
            "give the real's IPv4 address, or forward by \"ipip\"",
        )),
        (Forwarding::Ipip { .. }, true, false) => Some((
            "IPv6 packets are not carried in IPv4: an IPv6 VIP cannot have an IPv4 real",
            "give the real's IPv6 address",
        )),
        (Forwarding::Ipip { .. } | Forwarding::L2Dsr, _, _) => None,
    }
}
