//! Packets in and out of another balancer, Katran, as far as this one is to do the same.

use std::collections::HashMap;
use std::net::IpAddr;

use afx::packet::Protocol;
use afx::stage::balancer::{Forwarding, Vip};
use serde::Deserialize;

use crate::lab::{Lab, Real, Setup};
use crate::outer::Outer;

#[derive(Deserialize)]
struct File {
    suites: Vec<Suite>,
}

#[derive(Deserialize)]
struct Suite {
    name: String,
    config: Config,
    vectors: Vec<Vector>,
}

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    vips: Vec<VipOf>,
}

#[derive(Deserialize)]
struct VipOf {
    addr: String,
    port: u16,
    proto: String,
    #[serde(default)]
    flags: Vec<String>,
    #[serde(default)]
    reals: Vec<RealOf>,
}

#[derive(Deserialize)]
struct RealOf {
    addr: String,
    weight: u32,
}

#[derive(Deserialize)]
struct Vector {
    id: String,
    description: String,
    kind: String,
    input_hex: String,
    vip: Option<String>,
    encap: Option<Encap>,
    #[serde(default)]
    real_allowed: Vec<IpAddr>,
    real_selection: Option<Selection>,
}

#[derive(Deserialize)]
struct Encap {
    ttl: u8,
    tos: u8,
    inner_offset: usize,
}

#[derive(Deserialize)]
struct Selection {
    mode: String,
    #[serde(default)]
    ids: Vec<String>,
}

/// What this balancer does not do, or does otherwise, by vector.
fn unsupported(suite: &Suite, vector: &Vector) -> Option<&'static str> {
    match &*suite.name {
        "ipip_base" => {}
        "src_routing_ipip" => return Some("routing by the client's address"),
        "cidr_vip" => return Some("prefixes as VIPs"),
        "icmp_too_big" | "icmp_too_big_gue_origin" => return Some("telling the client what is too big"),
        "host_decap_ipip" => return Some("decapsulation is another program's"),
        _ => return Some("GUE encapsulation"),
    }
    if vector.id == "ipip_base/12" {
        // It is dropped here, too: its options leave no TCP header. But options alone are no reason here.
        return Some("dropping packets because they have IPv4 options");
    }
    if vector.kind == "icmp_echo_reply" {
        return Some("answering pings to a VIP");
    }
    let service =
        vector.vip.as_deref().and_then(|name| suite.config.vips.iter().find(|vip| vip.name() == name));
    service.and_then(VipOf::unsupported)
}

impl VipOf {
    /// As vectors name it.
    fn name(&self) -> String {
        format!("{}:{}/{}", self.addr, self.port, self.proto)
    }

    fn unsupported(&self) -> Option<&'static str> {
        if self.port == 0 {
            return Some("a VIP with any port");
        }
        match self.flags.first().map(String::as_str) {
            None => None,
            Some("QUIC_VIP") => Some("routing by QUIC's connection ids"),
            Some("HASH_DPORT_ONLY") => Some("hashing the destination port only"),
            Some("UDP_FLOW_MIGRATION") => Some("moving UDP flows off a real that is down"),
            Some(_) => Some("a VIP with a flag that is not known here"),
        }
    }

    fn definition(&self) -> (Vip, Vec<Real>) {
        let protocol = if self.proto == "tcp" { Protocol::TCP } else { Protocol::UDP };
        let vip = Vip::host(self.addr.parse().unwrap(), self.port, protocol);
        (vip, self.reals.iter().map(|real| Real::new(&real.addr).weight(real.weight)).collect())
    }
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

/// The file is not part of the project: other people's data.
#[test]
#[allow(clippy::print_stderr, reason = "says what is compared, and when there is nothing to compare with")]
fn katran_vectors_come_out() {
    let folder = std::env::var("AFX_VECTORS")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/vectors").to_owned());
    let Ok(text) = std::fs::read_to_string(format!("{folder}/katran.json")) else {
        eprintln!("skipped: no katran.json in {folder} (set AFX_VECTORS)");
        return;
    };
    let file: File = serde_json::from_str(&text).unwrap();
    let mut passed = Vec::new();
    for suite in &file.suites {
        let vips = suite.config.vips.iter().filter(|vip| vip.unsupported().is_none());
        let forwarding = Forwarding::Ipip {
            source_v4: Some("172.16.0.0/16".parse().unwrap()),
            source_v6: Some("100::/64".parse().unwrap()),
        };
        let setup = Setup { forwarding, table_size: 65_537, ..Setup::new(vips.map(VipOf::definition)) };
        let mut lab = Lab::new(&setup);
        let mut chosen = HashMap::new();
        let (mut compared, mut sent) = (0, 0);
        for vector in &suite.vectors {
            if let Some(why) = unsupported(suite, vector) {
                eprintln!("unsupported: {} ({}): {why}", vector.id, vector.description);
                continue;
            }
            compared += 1;
            sent += compare(vector, &mut lab, &mut chosen);
            passed.push(&*vector.id);
        }
        let stats = lab.finish();
        assert_eq!((stats.received(), stats.sent()), (compared, sent), "{}", suite.name);
    }
    eprintln!("passed: {}", passed.join(", "));
    assert!(!passed.is_empty());
}

/// Sends a vector's packet and looks at what comes out; returns how many packets that is.
fn compare<'v>(vector: &'v Vector, lab: &mut Lab, chosen: &mut HashMap<&'v str, IpAddr>) -> u64 {
    let id = &*vector.id;
    let input = bytes(&vector.input_hex);
    let out = lab.exchange([&input]);
    match &*vector.kind {
        // What is passed to the host there is not steered here in the first place; the stage sends none of it on.
        "drop" | "pass" => {
            assert_eq!(out, Vec::<Vec<u8>>::new(), "{id}");
            0
        }
        "encap" => {
            let [packet] = &*out else {
                panic!("{id}: {} packets came out: {:?}", out.len(), lab.worker.stats().drops())
            };
            let outer = Outer::decode(packet);
            let encap = vector.encap.as_ref().unwrap();
            assert_eq!((outer.ttl, outer.tos), (encap.ttl, encap.tos), "{id}");
            assert_eq!(
                packet.len() - outer.inner.len(),
                if outer.destination.is_ipv4() { 34 } else { 54 },
                "{id}"
            );
            assert_eq!(encap.inner_offset, packet.len() - outer.inner.len(), "{id}");
            assert_eq!(outer.inner, input[14..], "{id}");
            assert!(vector.real_allowed.contains(&outer.destination), "{id}: {}", outer.destination);
            let selection = vector.real_selection.as_ref().unwrap();
            if selection.mode == "same_as" {
                let same = selection.ids.iter().any(|other| chosen.get(&**other) == Some(&outer.destination));
                assert!(same, "{id}: {} is none of {:?}'s", outer.destination, selection.ids);
            }
            chosen.insert(id, outer.destination);
            1
        }
        kind => panic!("{id}: what is a {kind}?"),
    }
}
