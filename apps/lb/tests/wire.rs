//! What goes over the wire, as a program reads it that knows nothing of this one: tshark.

mod common;

use std::path::Path;

use common::download::{Download, Server};
use common::{Net, PATIENCE, VIP4, VIP6, echo, head, vip};

const REAL_V4: &str = "10.0.0.11";
const REAL_V6: &str = "fd00::11";
/// A port that no dissector takes for its own.
const ECHO: u16 = 7007;

/// What tshark says of a checksum (`proto_checksum_enum_e` in Wireshark's `epan/proto.h`).
const GOOD: &str = "1";
const NOT_PRESENT: &str = "3";

/// One packet: its protocols from the outside in, and the values of each layer that has them, in the same order.
#[derive(Debug)]
struct Dissected {
    protocols: String,
    /// Source and destination of each IP header.
    addresses: Vec<(String, String)>,
    ip_checksums: Vec<String>,
    udp_checksums: Vec<String>,
    tcp_checksums: Vec<String>,
    udp_ports: Vec<String>,
}

/// Reads a capture, every checksum verified.
fn dissect(net: &Net, file: &Path) -> Vec<Dissected> {
    let fields = [
        "frame.protocols",
        "ip.src",
        "ip.dst",
        "ipv6.src",
        "ipv6.dst",
        "ip.checksum.status",
        "udp.checksum.status",
        "tcp.checksum.status",
        "udp.dstport",
        "tcp.checksum.ffff",
    ];
    let mut tshark = net.lb.command("tshark").arg("-r").arg(file).args(["-n", "-T", "fields"]);
    for protocol in ["ip", "udp", "tcp"] {
        tshark = tshark.args(["-o", &format!("{protocol}.check_checksum:TRUE")]);
    }
    // IP right in UDP, which this port does not stand for everywhere.
    tshark = tshark.args(["-d", "udp.port==6080,ip"]);
    for field in fields {
        tshark = tshark.args(["-e", field]);
    }
    let text =
        tshark.args(["-E", "separator=;", "-E", "occurrence=a", "-E", "aggregator=,"]).check().unwrap();
    text.lines().map(parse).collect()
}

fn parse(line: &str) -> Dissected {
    let fields: Vec<_> = line.split(';').collect();
    let [protocols, src4, dst4, src6, dst6, ip, udp, tcp, ports, ffff] = fields[..] else { panic!("{line}") };
    // The client's kernel writes zero as ffff (`skb_checksum_help`): right too, but tshark likes only the other one.
    let tcp = if ffff.is_empty() { tcp } else { GOOD };
    let list = |text: &str| text.split(',').filter(|part| !part.is_empty()).map(str::to_owned).collect();
    let pairs = |sources: &str, destinations: &str| {
        let (sources, destinations): (Vec<_>, Vec<_>) = (list(sources), list(destinations));
        sources.into_iter().zip(destinations).collect::<Vec<_>>()
    };
    // tshark has the two families apart. Where both are there, the outer one is IPv6: IPv6 is not put in IPv4.
    let addresses = [pairs(src6, dst6), pairs(src4, dst4)].concat();
    Dissected {
        protocols: protocols.to_owned(),
        addresses,
        ip_checksums: list(ip),
        udp_checksums: list(udp),
        tcp_checksums: list(tcp),
        udp_ports: list(ports),
    }
}

/// What is to be seen of one encapsulation.
struct Case {
    name: &'static str,
    forwarding: &'static str,
    vip: &'static str,
    real: &'static str,
    /// The layers of every packet, before TCP or UDP.
    layers: &'static str,
    /// tcpdump's name for it.
    filter: &'static str,
    /// Of the outer UDP header, where there is one.
    outer_udp: Option<&'static str>,
}

/// Serves TCP and UDP from one real, captures what the balancer sends, and has it dissected.
fn decodes(case: &Case) {
    let net = Net::new(case.name, 1, 1);
    net.decapsulate();
    let _web = Server::start(&net.reals[0], 1, case.vip, 80);
    let _echo = echo::Server::start(&net.reals[0], 1, case.vip, ECHO);
    let vips = vip(case.vip, 80, "tcp", &[(case.real, 1)]) + &vip(case.vip, ECHO, "udp", &[(case.real, 1)]);
    let balancer = net.start(&(head(1, case.forwarding) + &vips), &[]);
    // Where the balancer is plugged in: the second port of the switch.
    let capture = net.switch.as_host().capture("p1", case.filter).unwrap();
    for _ in 0..4 {
        let download = Download::start(&net.client, case.vip, 80);
        download.advance(10_000);
        download.finish();
        echo::Client::connect(&net.client, case.vip, ECHO).ask();
    }
    let sent = balancer.stop().sent as usize;
    capture.wait_for_packets(sent, PATIENCE).unwrap();
    let packets = dissect(&net, &capture.stop().unwrap());
    assert_eq!(packets.len(), sent);
    let (own, client) = if case.real == REAL_V4 { (common::OWN, "10.0.0.1") } else { ("fd00::2", "fd00::1") };
    let client = if case.vip == VIP4 { "10.0.0.1" } else { client };
    let mut transports = [0, 0];
    for packet in &packets {
        let inner = packet.protocols.strip_prefix(case.layers).unwrap_or_else(|| panic!("{packet:?}"));
        let is_tcp = inner.starts_with(":tcp");
        assert!(is_tcp || inner.starts_with(":udp"), "{packet:?}");
        transports[usize::from(is_tcp)] += 1;
        let both = [(own, case.real), (client, case.vip)];
        let both = both.map(|(source, destination)| (source.to_owned(), destination.to_owned()));
        assert_eq!(packet.addresses, both, "{packet:?}");
        assert!(packet.ip_checksums.iter().all(|status| status == GOOD), "{packet:?}");
        let own_checksums = [case.vip, case.real].iter().filter(|address| address.contains('.')).count();
        assert_eq!(packet.ip_checksums.len(), own_checksums, "{packet:?}");
        let mut udp: Vec<_> = case.outer_udp.into_iter().collect();
        if is_tcp {
            assert_eq!(packet.tcp_checksums, [GOOD], "{packet:?}");
        } else {
            udp.push(GOOD);
        }
        assert_eq!(packet.udp_checksums, udp, "{packet:?}");
        if case.outer_udp.is_some() {
            assert_eq!(packet.udp_ports[0], "6080", "{packet:?}");
        }
    }
    assert!(transports.iter().all(|count| *count >= 4), "{transports:?}");
}

#[test]
fn ipv4_in_ipv4() {
    decodes(&Case {
        name: "lb-wire-4in4",
        forwarding: "method = \"ipip\"",
        vip: VIP4,
        real: REAL_V4,
        layers: "eth:ethertype:ip:ip",
        filter: "ip proto 4",
        outer_udp: None,
    });
}

#[test]
fn ipv4_in_ipv6() {
    decodes(&Case {
        name: "lb-wire-4in6",
        forwarding: "method = \"ipip\"",
        vip: VIP4,
        real: REAL_V6,
        layers: "eth:ethertype:ipv6:ip",
        filter: "ip6 proto 4",
        outer_udp: None,
    });
}

#[test]
fn ipv6_in_ipv6() {
    decodes(&Case {
        name: "lb-wire-6in6",
        forwarding: "method = \"ipip\"",
        vip: VIP6,
        real: REAL_V6,
        layers: "eth:ethertype:ipv6:ipv6",
        filter: "ip6 proto 41",
        outer_udp: None,
    });
}

#[test]
fn ipv4_in_udp_in_ipv4() {
    decodes(&Case {
        name: "lb-wire-gue44",
        forwarding: "method = \"gue\"",
        vip: VIP4,
        real: REAL_V4,
        layers: "eth:ethertype:ip:udp:ip",
        filter: "ip and udp port 6080",
        // Allowed by IPv4, and the cheapest.
        outer_udp: Some(NOT_PRESENT),
    });
}

#[test]
fn ipv4_in_udp_in_ipv6() {
    decodes(&Case {
        name: "lb-wire-gue46",
        forwarding: "method = \"gue\"",
        vip: VIP4,
        real: REAL_V6,
        layers: "eth:ethertype:ipv6:udp:ip",
        filter: "ip6 and udp port 6080",
        outer_udp: Some(GOOD),
    });
}

#[test]
fn ipv6_in_udp_in_ipv6() {
    decodes(&Case {
        name: "lb-wire-gue66",
        forwarding: "method = \"gue\"",
        vip: VIP6,
        real: REAL_V6,
        // tshark's IP dissector, told to read what UDP carries, sees an IPv6 header and passes it on.
        layers: "eth:ethertype:ipv6:udp:ip:ipv6",
        filter: "ip6 and udp port 6080",
        outer_udp: Some(GOOD),
    });
}
