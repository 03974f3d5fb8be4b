//! Vectors of our own, in the same form, of what other people's may be about: server ids in a TCP option, packets that
//! are taken out of another header first, server ids before UDP payloads, and routing by source over GUE.

mod packets;

use serde_json::{Value, json};

use crate::run;
use packets::{Carried, addr, carry, ethernet, hex, option, stable, tcp, udp, with_ttl};

/// Where packets to reals go, and where they came to.
const NEXT_HOP: [u8; 6] = [0x00, 0x00, 0xde, 0xad, 0xbe, 0xaf];
const OWN: [u8; 6] = [0x02, 0, 0, 0, 0, 0];
const CLIENT: [u8; 6] = [0x06, 0, 0, 0, 0, 1];

const SOURCE_V4: &str = "10.9.13.37";
const SOURCE_V6: &str = "fd00:9::1337";
const GUE_PORT: u16 = 9886;

const REALS_V4: [&str; 3] = ["10.9.0.1", "10.9.0.2", "10.9.0.3"];
const REALS_V6: [&str; 3] = ["fd00:9::1", "fd00:9::2", "fd00:9::3"];

/// An address for each of which packets are taken out of IP in IP and GUE.
const TUNNEL_ENDS: [&str; 2] = ["192.0.2.77", "2001:db8:77::1"];

/// A suite that is put together vector by vector.
struct Made {
    name: &'static str,
    how: Carried,
    vectors: Vec<Value>,
}

impl Made {
    fn new(name: &'static str, how: Carried) -> Self {
        Self { name, how, vectors: Vec::new() }
    }

    fn id(&self, number: usize) -> String {
        format!("{}/{number}", self.name)
    }

    /// The next vector: a packet, and what becomes of it.
    fn add(&mut self, description: &str, packet: &[u8], rest: Value) -> usize {
        let number = self.vectors.len() + 1;
        let mut vector = json!({
            "id": self.id(number), "description": description, "input_hex": hex(&ethernet(OWN, CLIENT, packet)),
            "output_hex": null,
        });
        let fields = rest.as_object().expect("fields").clone();
        vector.as_object_mut().expect("fields").extend(fields);
        self.vectors.push(vector);
        number
    }

    fn drops(&mut self, description: &str, packet: &[u8]) {
        self.add(description, packet, json!({"verdict": "XDP_DROP", "kind": "drop"}));
    }

    fn passes(&mut self, description: &str, packet: &[u8]) {
        let output = hex(&ethernet(OWN, CLIENT, packet));
        self.add(description, packet, json!({"verdict": "XDP_PASS", "kind": "pass", "output_hex": output}));
    }

    /// A packet that goes to one of the reals, the first in the vector's own bytes, as `inner`.
    fn sends(
        &mut self,
        description: &str,
        packet: &[u8],
        inner: &[u8],
        reals: &[&str],
        selection: Value,
    ) -> usize {
        let (real, v4) = (reals[0], addr(reals[0]).is_ipv4());
        let source = if v4 { SOURCE_V4 } else { SOURCE_V6 };
        let source =
            if self.how == Carried::Ipip { if v4 { "172.16.0.9" } else { "100::9" } } else { source };
        let outer = carry(inner, source, real, self.how);
        let encap = json!({
            "outer_src": source, "outer_dst": real, "ttl": 64, "tos": 0, "ip_id": v4.then_some(0),
            "frag": v4.then_some(0), "flow_label": (!v4).then_some(0), "eth_dst": mac(NEXT_HOP), "eth_src": mac(OWN),
            "inner_offset": 14 + outer.len() - inner.len(),
        });
        let kind = if packet == inner { "encap" } else { "decap_encap" };
        let output = hex(&ethernet(NEXT_HOP, OWN, &outer));
        let rest = json!({
            "verdict": "XDP_TX", "kind": kind, "output_hex": output, "encap": encap, "real_allowed": reals,
            "real_selection": selection,
        });
        self.add(description, packet, rest)
    }

    fn hashed(&mut self, description: &str, packet: &[u8], reals: &[&str]) -> usize {
        self.sends(description, packet, packet, reals, json!({"mode": "consistent_hash"}))
    }

    fn fixed(&mut self, description: &str, packet: &[u8], real: &str) -> usize {
        self.sends(description, packet, packet, &[real], json!({"mode": "fixed", "real": real}))
    }

    fn same_as(&mut self, description: &str, packet: &[u8], reals: &[&str], number: usize) -> usize {
        let ids = [self.id(number)];
        self.sends(description, packet, packet, reals, json!({"mode": "same_as", "ids": ids}))
    }

    fn suite(self, vips: Value, more: Value) -> Value {
        let mut config = json!({"encap": "ipip", "vips": vips});
        if let Carried::Gue(port) = self.how {
            config["encap"] = "gue".into();
            config["gue_dport"] = port.into();
        }
        let more = more.as_object().expect("fields").clone();
        config.as_object_mut().expect("fields").extend(more);
        json!({"name": self.name, "config": config, "vectors": self.vectors})
    }
}

fn mac(bytes: [u8; 6]) -> String {
    bytes.map(|byte| format!("{byte:02x}")).join(":")
}

fn vip(address: &str, proto: &str, flags: &[&str], reals: &[&str]) -> Value {
    let reals: Vec<Value> = reals.iter().map(|addr| json!({"addr": addr, "weight": 1})).collect();
    json!({"addr": address, "port": 80, "proto": proto, "flags": flags, "reals": reals})
}

/// 301 to 303 for the IPv4 reals, 196906 and so on for those of IPv6, which no 16 bits hold.
fn server_ids() -> Value {
    let v4 = REALS_V4.iter().zip(301u32..).map(|(real, id)| json!({"real": real, "id": id}));
    let v6 = REALS_V6.iter().zip(196_906u32..).map(|(real, id)| json!({"real": real, "id": id}));
    v4.chain(v6).collect()
}

const ID_V4: [u32; 3] = [301, 302, 303];
const ID_V6: [u32; 3] = [196_906, 196_907, 196_908];

fn tcp_option_suite(name: &'static str, how: Carried) -> Value {
    let mut made = Made::new(name, how);
    let (v4, both, v6) = ("198.51.100.1", "198.51.100.3", "2001:db8:1::1");
    let all: Vec<&str> = REALS_V4.iter().chain(&REALS_V6).copied().collect();
    let packet = |options: &[u8]| tcp("203.0.113.5", 31_337, v4, false, options);
    let syn = |options: &[u8]| tcp("203.0.113.5", 31_337, v4, true, options);
    // Three ids, and one real all the same.
    let first = made.hashed("SYN, its id is ignored", &syn(&option(ID_V4[0])), &REALS_V4);
    made.same_as("SYN, its id is ignored", &syn(&option(ID_V4[1])), &REALS_V4, first);
    made.same_as("SYN, its id is ignored", &syn(&option(ID_V4[2])), &REALS_V4, first);
    made.fixed("an id", &packet(&option(ID_V4[0])), REALS_V4[0]);
    let last = made.fixed("an id, past the connection table", &packet(&option(ID_V4[1])), REALS_V4[1]);
    made.same_as("no id: the table knows the last one", &packet(&[]), &REALS_V4, last);
    made.same_as("an id of nobody", &packet(&option(999)), &REALS_V4, last);
    made.same_as("id 0", &packet(&option(0)), &REALS_V4, last);
    made.same_as("an option too short", &packet(&[0xb7, 4, 45, 1]), &REALS_V4, last);
    made.same_as("an option longer than its header", &packet(&[1, 1, 0xb7, 6]), &REALS_V4, last);
    made.same_as("an option of length 0", &packet(&[1, 0xb7, 0, 0]), &REALS_V4, last);
    let after_end = [&[0][..], &option(ID_V4[0])].concat();
    made.same_as("the list of options ends before it", &packet(&after_end), &REALS_V4, last);
    let timestamps = [&[8, 10, 0, 0, 0, 1, 0, 0, 0, 3][..], &option(ID_V4[2])].concat();
    let last = made.fixed("behind another option", &packet(&timestamps), REALS_V4[2]);
    let sixteenth = [&[1; 15][..], &option(ID_V4[0])].concat();
    made.same_as("too far behind", &packet(&sixteenth), &REALS_V4, last);
    let fifteenth = [&[1; 14][..], &option(ID_V4[0])].concat();
    made.fixed("just not too far behind", &packet(&fifteenth), REALS_V4[0]);
    let of_v6 = tcp("203.0.113.5", 31_337, both, false, &option(ID_V6[2]));
    made.fixed("IPv4 VIP, IPv6 real", &of_v6, REALS_V6[2]);
    let new = tcp("203.0.113.6", 31_338, both, false, &option(998));
    made.hashed("an id of nobody, a flow that is new", &new, &all);
    let v6_packet = |options: &[u8]| tcp("2001:db8:5::5", 31_337, v6, false, options);
    let last = made.fixed("IPv6 VIP", &v6_packet(&option(ID_V6[1])), REALS_V6[1]);
    made.same_as("an id of an IPv4 real, at an IPv6 VIP", &v6_packet(&option(ID_V4[0])), &REALS_V6, last);
    let vips =
        json!([vip(v4, "tcp", &[], &REALS_V4), vip(both, "tcp", &[], &all), vip(v6, "tcp", &[], &REALS_V6)]);
    made.suite(vips, json!({"server_id_map": server_ids()}))
}

/// The port from which packets are taken out of GUE: that which others are sent to, or IANA's.
fn port_taken_out(how: Carried) -> u16 {
    if let Carried::Gue(port) = how { port } else { 6080 }
}

fn decapsulation_suite(name: &'static str, how: Carried) -> Value {
    let mut made = Made::new(name, how);
    let (v4, v6) = ("198.51.100.1", "2001:db8:1::1");
    let [end_v4, end_v6] = TUNNEL_ENDS;
    let port = port_taken_out(how);
    let hash = || json!({"mode": "consistent_hash"});
    let inner = udp("203.0.113.5", 31_337, v4, b"four");
    let less = with_ttl(inner.clone(), 63);
    let gue = |inner: &[u8]| carry(inner, "2001:db8:64::64", end_v6, Carried::Gue(port));
    let first = made.sends("IPv4 in GUE over IPv6", &gue(&inner), &less, &REALS_V4, hash());
    made.same_as("the same flow as it is", &inner, &REALS_V4, first);
    let same = json!({"mode": "same_as", "ids": [made.id(first)]});
    let packet = carry(&inner, "203.0.113.64", end_v4, Carried::Ipip);
    made.sends("the same flow, IPv4 in IPv4", &packet, &less, &REALS_V4, same.clone());
    let packet = carry(&inner, "2001:db8:64::64", end_v6, Carried::Ipip);
    made.sends("the same flow, IPv4 in IPv6", &packet, &less, &REALS_V4, same.clone());
    let packet = carry(&inner, "203.0.113.64", end_v4, Carried::Gue(port));
    made.sends("the same flow, IPv4 in GUE over IPv4", &packet, &less, &REALS_V4, same);
    let inner = tcp("2001:db8:5::5", 31_337, v6, false, &[]);
    let less = with_ttl(inner.clone(), 63);
    made.sends("IPv6 in GUE over IPv6", &gue(&inner), &less, &REALS_V6, hash());
    let packet = carry(&inner, "2001:db8:64::64", end_v6, Carried::Ipip);
    made.sends("IPv6 in IPv6", &packet, &less, &REALS_V6, hash());
    made.drops("its TTL is over", &gue(&with_ttl(udp("203.0.113.5", 31_337, v4, b"four"), 1)));
    made.drops("its hop limit is over", &gue(&with_ttl(inner.clone(), 1)));
    made.drops("for no VIP", &gue(&udp("203.0.113.5", 31_337, "198.51.100.9", b"nobody")));
    made.passes(
        "for another machine",
        &carry(&inner, "2001:db8:64::64", "2001:db8:78::1", Carried::Gue(port)),
    );
    made.passes("for another machine", &carry(&inner, "2001:db8:64::64", "2001:db8:78::1", Carried::Ipip));
    let vips = json!([vip(v4, "udp", &[], &REALS_V4), vip(v6, "tcp", &[], &REALS_V6)]);
    made.suite(vips, json!({"inline_decap_dst": TUNNEL_ENDS, "inline_decap_strict": true}))
}

fn udp_header_suite(name: &'static str, how: Carried) -> Value {
    let mut made = Made::new(name, how);
    let v6 = "2001:db8:1::9";
    let packet = |port: u16, payload: &[u8]| udp("2001:db8:5::5", port, v6, payload);
    let first = made.hashed("id 0", &packet(31_337, &stable(0)), &REALS_V6);
    for (real, id) in REALS_V6.iter().zip(ID_V6) {
        made.fixed("the same flow with an id", &packet(31_337, &stable(id)), real);
    }
    made.fixed("another flow with an id", &packet(31_339, &stable(ID_V6[2])), REALS_V6[2]);
    made.same_as("id 0: the table was not touched", &packet(31_337, &stable(0)), &REALS_V6, first);
    made.same_as("an id of nobody", &packet(31_337, &stable(77)), &REALS_V6, first);
    let mut other = stable(ID_V6[1]);
    other[0] = 0x53;
    made.same_as("another first byte", &packet(31_337, &other), &REALS_V6, first);
    made.same_as("shorter than the header", &packet(31_337, &stable(ID_V6[0])[..7]), &REALS_V6, first);
    made.same_as("no payload", &packet(31_337, &[]), &REALS_V6, first);
    let vips = json!([vip(v6, "udp", &["UDP_STABLE_ROUTING"], &REALS_V6)]);
    made.suite(vips, json!({"server_id_map": server_ids(), "stable_routing_first_byte": 0x52}))
}

fn source_suite(name: &'static str, how: Carried) -> Value {
    let mut made = Made::new(name, how);
    let (v4, v6) = ("198.51.100.1", "2001:db8:1::1");
    let packet = |client: &str| udp(client, 31_337, v4, b"of our own");
    made.fixed("a prefix", &packet("203.0.113.5"), "fd00:9::2307:1");
    made.fixed("a longer one", &packet("203.0.113.130"), "fd00:9::2307:2");
    made.hashed("none", &packet("192.0.2.5"), &REALS_V4);
    let tunnelled = packet("203.0.113.7");
    let carried = carry(&tunnelled, "2001:db8:64::64", TUNNEL_ENDS[1], Carried::Gue(port_taken_out(how)));
    let real = "fd00:9::2307:1";
    let fixed = json!({"mode": "fixed", "real": real});
    made.sends("a prefix, taken out of GUE", &carried, &with_ttl(tunnelled, 63), &[real], fixed);
    let packet = |client: &str| tcp(client, 31_337, v6, false, &[]);
    made.fixed("a prefix of IPv6", &packet("2001:db8:5::5"), "fd00:9::2307:3");
    made.fixed("a longer one", &packet("2001:db8:5:1::5"), "fd00:9::2307:4");
    made.hashed("none", &packet("2001:db8:6::5"), &REALS_V6);
    let vips =
        json!([vip(v4, "udp", &["SRC_ROUTING"], &REALS_V4), vip(v6, "tcp", &["SRC_ROUTING"], &REALS_V6)]);
    let routes = json!([
        {"prefix": "203.0.113.0/24", "real": "fd00:9::2307:1"},
        {"prefix": "203.0.113.128/25", "real": "fd00:9::2307:2"},
        {"prefix": "2001:db8:5::/48", "real": "fd00:9::2307:3"},
        {"prefix": "2001:db8:5:1::/64", "real": "fd00:9::2307:4"},
    ]);
    made.suite(vips, json!({"src_routing": routes, "inline_decap": TUNNEL_ENDS}))
}

fn suites() -> Vec<Value> {
    let gue = Carried::Gue(GUE_PORT);
    vec![
        tcp_option_suite("tcp_option_ipip", Carried::Ipip),
        tcp_option_suite("tcp_option_gue", gue),
        decapsulation_suite("decap_ipip", Carried::Ipip),
        decapsulation_suite("decap_gue", gue),
        udp_header_suite("udp_header_ipip", Carried::Ipip),
        udp_header_suite("udp_header_gue", gue),
        source_suite("source_ipip", Carried::Ipip),
        source_suite("source_gue", gue),
    ]
}

/// Runs suites as a file of their own.
fn run_suites(suites: &[Value]) -> crate::Report {
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let common = json!({"encap_src_v4": SOURCE_V4, "encap_src_v6": SOURCE_V6});
    let file = json!({"config": common, "suites": suites}).to_string();
    std::fs::write(folder.path().join("own.json"), file).expect("the temporary folder is writable");
    run(folder.path())
}

fn size(suite: &Value) -> usize {
    suite["vectors"].as_array().expect("a list").len()
}

#[test]
fn vectors_of_our_own_pass() {
    let suites = suites();
    let report = run_suites(&suites);
    assert!(report.wrong.is_empty(), "{}", report.wrong.join("\n"));
    let line =
        |suite: &Value| format!("own.json: {}: {} vectors", suite["name"].as_str().unwrap(), size(suite));
    let total: usize = suites.iter().map(size).sum();
    let expected: Vec<String> = suites.iter().map(line).chain([format!("{total} vectors")]).collect();
    assert_eq!(report.lines, expected);
}

#[test]
fn vectors_that_do_not_come_out_are_found() {
    let mut suite = decapsulation_suite("wrong", Carried::Ipip);
    let vectors = suite["vectors"].as_array_mut().unwrap();
    let all = vectors.len();
    // The first is left as it is. What is changed in each of the others, and what is to be said of it:
    vectors[1]["real_selection"] = json!({"mode": "fixed", "real": "10.9.0.99"});
    vectors[2]["encap"]["ttl"] = 63.into();
    vectors[3]["encap"]["tos"] = 4.into();
    let output = vectors[4]["output_hex"].as_str().unwrap();
    vectors[4]["output_hex"] = format!("{}00", &output[..output.len() - 2]).into();
    vectors[5]["real_allowed"] = json!(["fd00:9::99"]);
    vectors[6]["real_selection"] = json!({"mode": "same_as", "ids": ["wrong/1"]});
    for vector in &mut vectors[7..] {
        let changed = match vector["verdict"].as_str().unwrap() {
            "XDP_DROP" => json!({"verdict": "XDP_PASS"}),
            _ => json!({"verdict": "XDP_DROP", "output_hex": null}),
        };
        vector.as_object_mut().unwrap().extend(changed.as_object().unwrap().clone());
    }
    let report = run_suites(&[suite]);
    let wrong: Vec<_> = report.wrong.iter().map(|line| line.split(':').next().unwrap()).collect();
    let expected: Vec<_> = (2..=all).map(|number| format!("wrong/{number}")).collect();
    assert_eq!(wrong, expected);
    for (number, part) in
        [(0, "the real"), (1, "TTL"), (2, "TOS"), (3, "inner packet"), (4, "not allowed"), (5, "wrong/1")]
    {
        assert!(report.wrong[number].contains(part), "{}", report.wrong[number]);
    }
    assert_eq!(report.lines, [format!("own.json: wrong: {} are wrong", all - 1), "0 vectors".to_owned()]);
}

#[test]
fn suites_of_vectors_that_are_not_supported_are_named_and_not_counted() {
    let changed = |name: &str, change: &dyn Fn(&mut Value)| {
        let mut suite = source_suite("template", Carried::Gue(GUE_PORT));
        suite["name"] = name.into();
        change(&mut suite);
        suite
    };
    let suites = [
        changed("flag", &|suite| suite["config"]["vips"][0]["flags"] = json!(["LRU_BYPASS"])),
        changed("method", &|suite| suite["config"]["encap"] = "mpls".into()),
        changed("verdict", &|suite| suite["vectors"][0]["verdict"] = "TC_ACT_REDIRECT".into()),
        changed("modified", &|suite| {
            suite["vectors"][0]["encap"].take();
            suite["vectors"][0]["verdict"] = "XDP_PASS".into();
        }),
        changed("local", &|suite| suite["config"]["vips"][0]["flags"] = json!(["LOCAL_VIP"])),
        changed("orphan", &|suite| suite["config"]["runs_after"] = "nobody".into()),
        changed("form", &|suite| suite["config"]["vips"][0]["port"] = "eighty".into()),
        // One that makes a difference, and one that does not.
        changed("key", &|suite| {
            suite["config"]["clients"] = 7.into();
            suite["vectors"][0]["real_selection"]["real"] = "10.9.0.99".into();
        }),
        changed("key-tried", &|suite| suite["config"]["clients"] = 7.into()),
    ];
    let report = run_suites(&suites);
    assert!(report.wrong.is_empty(), "{}", report.wrong.join("\n"));
    let expected = [
        "unsupported: flag: the flag LRU_BYPASS is not known here",
        "unsupported: method: the encapsulation \"mpls\" is not known here",
        "unsupported: verdict: template/1: what is a TC_ACT_REDIRECT",
        "unsupported: modified: template/1: the kernel is to get it changed",
        "unsupported: local: template/1: a real on the balancer's own machine",
        "unsupported: orphan: it continues nobody, which is not there",
        "unsupported: form: it is of another form",
        "unsupported: key: the key `clients` is not known here, and template/1",
        "key-tried: 7 vectors, without knowing the key `clients`",
        "7 vectors",
    ];
    assert_eq!(report.lines.len(), expected.len(), "{}", report.lines.join("\n"));
    for (line, expected) in report.lines.iter().zip(expected) {
        let line = line.strip_prefix("own.json: ").unwrap_or(line);
        assert!(line.starts_with(expected), "{line}");
    }
}

#[test]
fn a_folder_without_vectors_is_skipped_and_other_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    let skipped =
        |folder: &std::path::Path| format!("skipped: no vectors in {} (set AFX_VECTORS)", folder.display());
    assert_eq!(run(&missing).lines, [skipped(&missing)]);
    std::fs::write(folder.path().join("other.json"), "{\"tables\": []}").unwrap();
    std::fs::write(folder.path().join("text.txt"), "{\"suites\": []}").unwrap();
    let expected =
        ["other.json: not packet vectors: there are no suites in it".to_owned(), skipped(folder.path())];
    assert_eq!(run(folder.path()).lines, expected);
}
