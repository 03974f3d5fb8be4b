//! Packets in and out of another balancer, Katran: this one does the same.

use std::collections::HashMap;
use std::net::IpAddr;

use afx::packet::Protocol;
use afx::stage::balancer::{Forwarding, HashOn, RealState, ServerIdIn, TooBig, Vip, VipOptions};
use ipnet::IpNet;
use serde::Deserialize;

use crate::lab::{Lab, Real, Served, Setup};
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
    encap: String,
    #[serde(default)]
    vips: Vec<VipOf>,
    #[serde(default)]
    server_id_map: Vec<ServerId>,
    #[serde(default)]
    src_routing: Vec<Source>,
    mtu_advertised: Option<u32>,
    gue_dport: Option<u16>,
    runs_after: Option<String>,
}

#[derive(Deserialize)]
struct ServerId {
    real: String,
    id: u32,
}

#[derive(Deserialize)]
struct Source {
    prefix: String,
    real: String,
}

#[derive(Deserialize)]
struct VipOf {
    addr: String,
    prefix_len: Option<u8>,
    port: u16,
    proto: String,
    #[serde(default)]
    flags: Vec<String>,
    #[serde(default)]
    reals: Vec<RealOf>,
    #[serde(default)]
    down_reals: Vec<DownReal>,
}

#[derive(Deserialize)]
struct RealOf {
    addr: String,
    weight: u32,
}

#[derive(Deserialize)]
struct DownReal {
    addr: String,
}

#[derive(Deserialize)]
struct Vector {
    id: String,
    kind: String,
    input_hex: String,
    output_hex: Option<String>,
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
    gue_dport: Option<u16>,
}

#[derive(Deserialize)]
struct Selection {
    mode: String,
    #[serde(default)]
    ids: Vec<String>,
    real: Option<IpAddr>,
    #[serde(default)]
    must_not_be: Vec<IpAddr>,
}

impl Config {
    fn setup(&self) -> Setup {
        let (source_v4, source_v6) = ("172.16.0.0/16".parse().ok(), "100::/64".parse().ok());
        let forwarding = match &*self.encap {
            "gue" => Forwarding::Gue { source_v4, source_v6, port: self.gue_dport.unwrap_or(9886) },
            _ => Forwarding::Ipip { source_v4, source_v6 },
        };
        Setup {
            vips: self.vips.iter().map(|vip| self.served(vip)).collect(),
            forwarding,
            table_size: 65_537,
            // Where no answer is expected, what is too long is dropped as well.
            client_mtu: self.mtu_advertised.or(Some(1500)),
            too_big: TooBig { answer: self.mtu_advertised.is_some(), per_second: 1000 },
            ..Setup::new([])
        }
    }

    fn served(&self, of: &VipOf) -> Served {
        let address: IpAddr = of.addr.parse().unwrap();
        let network = of.prefix_len.map_or(address.into(), |len| IpNet::new(address, len).unwrap());
        let protocol = if of.proto == "tcp" { Protocol::TCP } else { Protocol::UDP };
        let has = |flag: &str| of.flags.iter().any(|other| other == flag);
        let options = VipOptions {
            hash: if has("HASH_DPORT_ONLY") { HashOn::DestinationPort } else { HashOn::FiveTuple },
            server_id: match (has("QUIC_VIP"), has("UDP_STABLE_ROUTING")) {
                (true, _) => Some(ServerIdIn::Quic),
                (_, true) => Some(ServerIdIn::UdpHeader),
                _ => None,
            },
            answer_echo: true,
            udp_leaves_down: has("UDP_FLOW_MIGRATION"),
            ..VipOptions::default()
        };
        let mut reals: Vec<_> =
            of.reals.iter().map(|real| with_mtu(&real.addr).weight(real.weight)).collect();
        // What stands beside the VIPs there is a real's own affair here.
        if options.server_id == Some(ServerIdIn::Quic) {
            for ServerId { real, id } in &self.server_id_map {
                of_address(&mut reals, real).server_ids.push(*id);
            }
        }
        if has("SRC_ROUTING") {
            for Source { prefix, real } in &self.src_routing {
                of_address(&mut reals, real).sources.push(prefix.parse().unwrap());
            }
        }
        for down in &of.down_reals {
            of_address(&mut reals, &down.addr).state = RealState::Down;
        }
        Served { vip: Vip { network, port: (of.port != 0).then_some(of.port), protocol }, options, reals }
    }
}

/// A real of which no packet is too big.
fn with_mtu(address: &str) -> Real {
    Real { mtu: Some(9000), ..Real::new(address) }
}

/// The real with that address; a new one gets no flows but those that name it.
fn of_address<'r>(reals: &'r mut Vec<Real>, address: &str) -> &'r mut Real {
    let real = with_mtu(address).weight(0);
    let at = reals.iter().position(|other| other.address == real.address).unwrap_or(reals.len());
    if at == reals.len() {
        reals.push(real);
    }
    &mut reals[at]
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
    let mut labs: HashMap<&str, Lab> = HashMap::new();
    let mut chosen = HashMap::new();
    let mut passed = 0;
    for suite in &file.suites {
        if suite.config.encap == "decap" {
            eprintln!("{}: decapsulation on the reals is another program's", suite.name);
            continue;
        }
        let setup = suite.config.setup();
        let mut lab = match suite.config.runs_after.as_deref().and_then(|before| labs.remove(before)) {
            Some(mut lab) => {
                lab.reload(&setup);
                lab
            }
            None => Lab::new(&setup),
        };
        for vector in &suite.vectors {
            compare(vector, &mut lab, &mut chosen);
            passed += 1;
        }
        labs.insert(&suite.name, lab);
    }
    labs.into_values().for_each(|lab| drop(lab.finish()));
    eprintln!("{passed} vectors");
    assert!(passed > 0);
}

/// Sends a vector's packet and looks at what comes out.
fn compare<'v>(vector: &'v Vector, lab: &mut Lab, chosen: &mut HashMap<&'v str, IpAddr>) {
    let id = &*vector.id;
    let input = bytes(&vector.input_hex);
    let out = lab.exchange([&input]);
    match &*vector.kind {
        // What is passed to the host there is not steered here in the first place; the stage sends none of it on.
        "drop" | "pass" => assert_eq!(out, Vec::<Vec<u8>>::new(), "{id}"),
        "icmp_echo_reply" | "icmp_too_big_reply" => {
            assert_eq!(out, [bytes(vector.output_hex.as_ref().unwrap())], "{id}");
        }
        "encap" => {
            let [packet] = &*out else {
                panic!("{id}: {} packets came out: {:?}", out.len(), lab.worker.stats().drops())
            };
            let outer = Outer::decode(packet);
            let encap = vector.encap.as_ref().unwrap();
            assert_eq!((outer.ttl, outer.tos), (encap.ttl, encap.tos), "{id}");
            assert_eq!(outer.ports.map(|ports| ports.1), encap.gue_dport, "{id}");
            let headers =
                34 + if outer.destination.is_ipv6() { 20 } else { 0 } + encap.gue_dport.map_or(0, |_| 8);
            assert_eq!(packet.len() - outer.inner.len(), headers, "{id}");
            assert_eq!(outer.inner, input[14..], "{id}");
            assert!(vector.real_allowed.contains(&outer.destination), "{id}: {}", outer.destination);
            let selection = vector.real_selection.as_ref().unwrap();
            assert!(!selection.must_not_be.contains(&outer.destination), "{id}");
            match &*selection.mode {
                "same_as" => {
                    let same =
                        selection.ids.iter().any(|other| chosen.get(&**other) == Some(&outer.destination));
                    assert!(same, "{id}: {} is none of {:?}'s", outer.destination, selection.ids);
                    assert_eq!(encap.inner_offset, headers, "{id}");
                }
                "fixed" => assert_eq!(Some(outer.destination), selection.real, "{id}"),
                _ => {}
            }
            chosen.insert(id, outer.destination);
        }
        kind => panic!("{id}: what is a {kind}?"),
    }
}
