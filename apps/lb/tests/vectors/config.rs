//! A suite's setup as a configuration file of ours.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use crate::file::{Common, Suite, Vector, Vip, Wanted};
use crate::wire;

/// Outer sources of IP in IP: the other balancer makes them of these prefixes and the client's address and port, ours of
/// these and a hash.
pub(crate) const SOURCES_OF_IPIP: [&str; 2] = ["172.16.0.0/16", "100::/64"];

/// Bytes of an Ethernet header: frames are counted with it, packets without.
const ETHERNET: u32 = 14;

/// Where outer sources have to be from, of IPv4 and IPv6.
pub(crate) fn sources(suite: &Suite, common: &Common) -> Option<[IpNet; 2]> {
    if suite.config.encap == "gue" {
        return Some([common.encap_src_v4?.into(), common.encap_src_v6?.into()]);
    }
    Some(SOURCES_OF_IPIP.map(|prefix| prefix.parse().expect("it is one")))
}

/// What a suite says under keys that each writer of vectors calls otherwise.
struct About {
    /// TCP VIPs look for server ids in the option.
    tcp_option: bool,
    decapsulate: Vec<IpAddr>,
    /// Keys that are not known.
    strange: Vec<String>,
}

impl About {
    fn of(suite: &Suite) -> Self {
        let carries_option = |vector: &Vector| wire::tcp_options(&vector.input).contains(&SERVER_ID_OPTION);
        let mut about = Self {
            tcp_option: suite.vectors.iter().any(carries_option),
            decapsulate: Vec::new(),
            strange: Vec::new(),
        };
        for (key, value) in &suite.config.others {
            let is_off = matches!(value, Value::Null | Value::Bool(false));
            if key.contains("decap") {
                collect_addresses(value, &mut about.decapsulate);
            } else if !is_off && !is_remark(key) && !speaks_of_server_ids(&format!("{key} {value}")) {
                about.strange.push(format!("the key `{key}`"));
            }
        }
        for vip in &suite.config.vips {
            let strange = vip.others.keys().filter(|key| !is_remark(key));
            about.strange.extend(strange.map(|key| format!("the key `{key}` of a VIP")));
        }
        about
    }
}

/// The kind of the TCP option that carries a server id.
const SERVER_ID_OPTION: u8 = 0xb7;

fn is_remark(key: &str) -> bool {
    ["note", "comment", "description", "reason", "source"].iter().any(|word| key.contains(word))
}

/// Whether what it names is told from the packets and the flags as well.
fn speaks_of_server_ids(text: &str) -> bool {
    let text = text.to_lowercase().replace(['_', '-'], " ");
    ["tpr", "server id", "tcp option", "stable rt", "stable rout"].iter().any(|word| text.contains(word))
}

/// Every address in a value, however it is nested.
fn collect_addresses(value: &Value, addresses: &mut Vec<IpAddr>) {
    match value {
        Value::String(text) => addresses.extend(text.parse::<IpAddr>().ok()),
        Value::Array(values) => values.iter().for_each(|value| collect_addresses(value, addresses)),
        Value::Object(fields) => fields.values().for_each(|value| collect_addresses(value, addresses)),
        _ => {}
    }
}

/// Why a suite cannot be run, where that is known before it is.
pub(crate) fn unsupported(suite: &Suite, common: &Common) -> Option<String> {
    let config = &suite.config;
    if !["ipip", "gue"].contains(&&*config.encap) {
        return Some(format!("the encapsulation \"{}\" is not known here", config.encap));
    }
    if sources(suite, common).is_none() {
        return Some("the file does not say where outer sources are from".into());
    }
    for vip in &config.vips {
        if let Some(why) = unsupported_vip(vip) {
            return Some(why);
        }
    }
    for vector in &suite.vectors {
        let id = &vector.id;
        match vector.wanted() {
            None => return Some(format!("{id}: what is a {} of kind \"{}\"?", vector.verdict, vector.kind)),
            Some(Wanted::PassModified) => {
                return Some(format!(
                    "{id}: the kernel is to get it changed, and AF_XDP gives it nothing back"
                ));
            }
            Some(_) => {}
        }
        let local = config.vips.iter().find(|vip| {
            vip.flags.iter().any(|flag| flag == "LOCAL_VIP")
                && wire::destination(&vector.input) == Some(vip.addr)
        });
        if local.is_some() {
            return Some(format!("{id}: a real on the balancer's own machine"));
        }
    }
    None
}

fn unsupported_vip(vip: &Vip) -> Option<String> {
    const KNOWN: [&str; 7] = [
        "HASH_DPORT_ONLY",
        "HASH_NO_SRC_PORT",
        "SRC_ROUTING",
        "QUIC_VIP",
        "UDP_STABLE_ROUTING",
        "UDP_FLOW_MIGRATION",
        "LOCAL_VIP",
    ];
    if let Some(flag) =
        vip.flags.iter().find(|flag| !KNOWN.contains(&&***flag) && !speaks_of_server_ids(flag))
    {
        return Some(format!("the flag {flag} is not known here"));
    }
    let has = |flag: &str| vip.flags.iter().any(|own| own == flag);
    if has("QUIC_VIP") && has("UDP_STABLE_ROUTING") {
        return Some("a VIP whose packets carry server ids in two ways".into());
    }
    (!["tcp", "udp"].contains(&&*vip.proto)).then(|| format!("the protocol {}", vip.proto))
}

/// What of a suite's setup is not known here. Such a suite is tried: perhaps it makes no difference.
pub(crate) fn strange(suite: &Suite) -> Vec<String> {
    About::of(suite).strange
}

/// The configuration file.
pub(crate) fn toml(suite: &Suite, common: &Common) -> String {
    let (config, about) = (&suite.config, About::of(suite));
    let [source_v4, source_v6] = sources(suite, common).expect("asked before");
    let next_hop = suite.vectors.iter().find_map(|vector| Some(vector.encap.as_ref()?.eth_dst.clone()));
    let frame = config.max_frame.or(common.max_frame);
    let client_mtu = config.mtu_advertised.or(frame.map(|frame| frame - ETHERNET));

    let mut text =
        String::from("version = 1\n[control]\nsocket = \"none\"\n[[port]]\ninterface = \"eth0\"\n");
    let mut line = |what: std::fmt::Arguments<'_>| writeln!(text, "{what}").expect("a string takes all");
    line(format_args!("[forwarding]\nmethod = \"{}\"", config.encap));
    line(format_args!("source_v4 = \"{source_v4}\"\nsource_v6 = \"{source_v6}\""));
    if let (true, Some(port)) = (config.encap == "gue", config.gue_dport) {
        line(format_args!("gue_port = {port}"));
    }
    if let Some(mac) = next_hop {
        line(format_args!("next_hop = \"{mac}\""));
    }
    if let Some(mtu) = client_mtu {
        line(format_args!("client_mtu = {mtu}"));
    }
    let answers = suite
        .vectors
        .iter()
        .any(|vector| vector.wanted() == Some(Wanted::Answer) && !wire::is_echo_request(&vector.input));
    let too_big = answers || config.mtu_advertised.is_some();
    line(format_args!("[icmp]\ntoo_big = {too_big}\nper_second = 1000000"));
    if let Some(size) = common.ring_size {
        line(format_args!("[maglev]\ntable_size = {size}"));
    }
    if !about.decapsulate.is_empty() {
        line(format_args!("[decapsulation]\naddresses = {}", list(&about.decapsulate)));
    }
    for vip in &config.vips {
        line(format_args!("{}", vip_section(suite, vip, about.tcp_option)));
    }
    text
}

/// A real of ours, put together from all that a suite says of it.
#[derive(Default)]
struct Real {
    weight: u32,
    server_ids: Vec<u32>,
    sources: Vec<String>,
}

fn vip_section(suite: &Suite, vip: &Vip, tcp_option: bool) -> String {
    let config = &suite.config;
    let has = |flag: &str| vip.flags.iter().any(|own| own == flag);
    let server_id = match &*vip.proto {
        "udp" if has("QUIC_VIP") => Some("quic"),
        "udp" if has("UDP_STABLE_ROUTING") => Some("udp-header"),
        "tcp" if tcp_option && !config.server_id_map.is_empty() => Some("tcp-option"),
        _ => None,
    };
    let mut reals: BTreeMap<IpAddr, Real> = BTreeMap::new();
    for real in vip.reals.iter().filter(|real| !real.local) {
        reals.entry(real.addr).or_default().weight = real.weight;
    }
    // IPv6 packets do not go in IPv4.
    let carries = |real: &IpAddr| vip.addr.is_ipv4() || real.is_ipv6();
    if server_id.is_some() {
        for entry in config.server_id_map.iter().filter(|entry| carries(&entry.real) && entry.id != 0) {
            reals.entry(entry.real).or_default().server_ids.push(entry.id);
        }
    }
    if has("SRC_ROUTING") {
        let of_family = |prefix: &str| prefix.contains(':') != vip.addr.is_ipv4();
        for route in
            config.src_routing.iter().filter(|route| carries(&route.real) && of_family(&route.prefix))
        {
            reals.entry(route.real).or_default().sources.push(route.prefix.clone());
        }
    }

    let mut text = String::from("[[vip]]\n");
    let mut line = |what: std::fmt::Arguments<'_>| writeln!(text, "{what}").expect("a string takes all");
    match vip.prefix_len {
        Some(len) => line(format_args!("address = \"{}/{len}\"", vip.addr)),
        None => line(format_args!("address = \"{}\"", vip.addr)),
    }
    match vip.port {
        0 => line(format_args!("port = \"any\"")),
        port => line(format_args!("port = {port}")),
    }
    line(format_args!("protocol = \"{}\"", vip.proto));
    if has("HASH_DPORT_ONLY") {
        line(format_args!("hash = \"destination-port\""));
    } else if has("HASH_NO_SRC_PORT") {
        line(format_args!("hash = \"source\""));
    }
    if let Some(place) = server_id {
        line(format_args!("server_id = \"{place}\""));
    }
    if is_pinged(suite, vip) {
        line(format_args!("ping = true"));
    }
    if has("UDP_FLOW_MIGRATION") && vip.proto == "udp" {
        line(format_args!("udp_leaves_down = true"));
    }
    for (address, real) in &reals {
        line(format_args!("[[vip.real]]\naddress = \"{address}\"\nweight = {}", real.weight));
        if vip.down_reals.iter().any(|down| down.addr == *address) {
            line(format_args!("state = \"down\""));
        }
        if !real.server_ids.is_empty() {
            line(format_args!("server_ids = {:?}", real.server_ids));
        }
        if !real.sources.is_empty() {
            line(format_args!("sources = {}", list(&real.sources)));
        }
    }
    text
}

/// Whether a vector of the suite has the VIP answer an echo request.
fn is_pinged(suite: &Suite, vip: &Vip) -> bool {
    suite.vectors.iter().any(|vector| {
        vector.wanted() == Some(Wanted::Answer)
            && wire::is_echo_request(&vector.input)
            && wire::destination(&vector.input).is_some_and(|address| network(vip).contains(&address))
    })
}

/// The addresses of a VIP.
pub(crate) fn network(vip: &Vip) -> IpNet {
    let all = if vip.addr.is_ipv4() { 32 } else { 128 };
    IpNet::new(vip.addr, vip.prefix_len.unwrap_or(all)).expect("a prefix length of its family")
}

fn list(items: &[impl std::fmt::Display]) -> String {
    let items: Vec<String> = items.iter().map(|item| format!("\"{item}\"")).collect();
    format!("[{}]", items.join(", "))
}
