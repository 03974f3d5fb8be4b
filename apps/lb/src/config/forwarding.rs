//! How packets get to the reals, what of packets that come in another header, and what clients are told.

use std::net::IpAddr;
use std::ops::Range;

use super::diagnostic::Problem;
use super::reader::Section;
use super::{Forwarding, Icmp, MacAddress, networks, values};

/// The section `[forwarding]`.
pub(super) struct Way {
    pub(super) method: Forwarding,
    pub(super) next_hop: Option<MacAddress>,
    pub(super) client_mtu: Option<u32>,
}

/// Reads `[forwarding]`. None if it does not say how.
pub(super) fn read(root: &Section<'_>) -> Option<Way> {
    let Some(section) = root.section("forwarding") else {
        if !root.has("forwarding") {
            root.error(Problem::new("it is not said how packets get to the reals").help(
                "add a section `[forwarding]` with `method = \"ipip\"`, `method = \"gue\"` or \
                 `method = \"l2dsr\"`",
            ));
        }
        return None;
    };
    #[derive(Clone, Copy)]
    enum Method {
        Ipip,
        Gue,
        L2Dsr,
    }
    let methods = [("ipip", Method::Ipip), ("gue", Method::Gue), ("l2dsr", Method::L2Dsr)];
    let method = section.required("method", |value| values::word(value, &methods));
    let source_v4 = section.optional("source_v4", networks::prefix_v4);
    let source_v6 = section.optional("source_v6", networks::prefix_v6);
    let port = section.optional("gue_port", values::port);
    let next_hop = section.value("next_hop", networks::mac);
    let client_mtu = section.value("client_mtu", |value| values::integer(value, 576..=65_535));
    section.finish();

    let method = method?.into_inner();
    let port_span = port.as_ref().map(|port| port.span());
    let refuse = |span: Option<Range<usize>>, what: &str, help: &str| {
        if let Some(span) = span {
            section.error_at(span, Problem::new(what).help(help));
        }
    };
    if !matches!(method, Method::Gue) {
        refuse(port_span, "only GUE sends to a port", "leave this key out, or say `method = \"gue\"`");
    }
    if matches!(method, Method::L2Dsr) {
        for span in [source_v4.as_ref().map(|s| s.span()), source_v6.as_ref().map(|s| s.span())] {
            refuse(
                span,
                "forwarding by layer 2 has no outer header, hence no source address for it",
                "leave this key out, or say `method = \"ipip\"` or `method = \"gue\"`",
            );
        }
    }
    let source_v4 = source_v4.map(toml::Spanned::into_inner);
    let source_v6 = source_v6.map(toml::Spanned::into_inner);
    let method = match method {
        Method::Ipip => Forwarding::Ipip { source_v4, source_v6 },
        Method::Gue => {
            let port = port.map_or(afx::stage::balancer::Forwarding::GUE_PORT, toml::Spanned::into_inner);
            Forwarding::Gue { source_v4, source_v6, port }
        }
        Method::L2Dsr => Forwarding::L2Dsr,
    };
    Some(Way { method, next_hop, client_mtu: client_mtu.map(|mtu| mtu as u32) })
}

/// Reads `[icmp]`.
pub(super) fn icmp(root: &Section<'_>) -> Icmp {
    let mut icmp = Icmp { too_big: true, per_second: 1000 };
    let Some(section) = root.section("icmp") else { return icmp };
    if let Some(too_big) = section.value("too_big", values::boolean) {
        icmp.too_big = too_big;
    }
    if let Some(number) = section.value("per_second", |value| values::integer(value, 1..=1_000_000)) {
        icmp.per_second = number as u32;
    }
    section.finish();
    icmp
}

/// Reads `[decapsulation]`.
pub(super) fn decapsulation(root: &Section<'_>) -> Vec<IpAddr> {
    let Some(section) = root.section("decapsulation") else { return Vec::new() };
    let example = "expected is a list of addresses, such as [\"192.0.2.1\", \"2001:db8::1\"]";
    let addresses = section.list("addresses", example, networks::unicast_address);
    section.finish();
    let mut all = Vec::new();
    for address in addresses.unwrap_or_default() {
        let span = address.span();
        let address = address.into_inner();
        if all.contains(&address) {
            let what = format!("the address {address} is given twice");
            section.error_at(span, Problem::new(what).help("give it once"));
        } else {
            all.push(address);
        }
    }
    all
}
