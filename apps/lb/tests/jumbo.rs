//! Packets longer than a frame: networks with an MTU of 9000 bytes.

mod common;

use std::num::NonZero;

use afx_redirect::{Attached, Decap, DecapOptions};
use common::upload::{bytes, upload};
use common::{Net, OWN, VIP4, VIP6, echo, head, vip};

const MTU: u32 = 9000;
/// What is left of it for a client: the longest outer headers are 40 bytes long, and 8 more in UDP.
const INNER: usize = MTU as usize - 48;

/// Long and short packets to a VIP of both protocols, by this forwarding: all of them arrive, byte for byte.
fn long_packets_arrive(name: &str, forwarding: &str, address: &str, real: &str) {
    let net = Net::with_mtu(name, 1, 1, MTU);
    net.client.ip(&format!("route replace {VIP4}/32 via {OWN} mtu {INNER}")).unwrap();
    net.client.ip(&format!("route replace {VIP6}/128 via fd00::2 mtu {INNER}")).unwrap();
    let options = DecapOptions { gue_port: NonZero::new(6080), ..DecapOptions::default() };
    let index = net.reals[0].interface_index("eth0").unwrap();
    let decap = net.reals[0].run(|| Decap::attach(index, &options)).unwrap().unwrap();
    assert_eq!(decap.mode(), Attached::Native, "{:?}", decap.fallback());
    let _server = echo::Server::start(&net.reals[0], 1, address, 53);
    let vips = vip(address, 80, "tcp", &[(real, 1)]) + &vip(address, 53, "udp", &[(real, 1)]);
    let balancer = net.start(&(head(1, forwarding) + &vips), &[]);
    let status = net.ask(&["status"]);
    assert!(status.contains("packets of up to 32256 bytes in 18 frames"), "{status}");

    let client = echo::Client::connect(&net.client, address, 53);
    let header = if address == VIP4 { 28 } else { 48 };
    let longest = INNER - header;
    // Around the ends of frames, and all over.
    let ends = (1..=5).flat_map(|frames| (0..4).map(move |more| frames * 1792 - 14 - header + more - 2));
    let all_over = (0..100usize).map(|number| 1 + number.wrapping_mul(2_654_435_761) % longest);
    for (seed, len) in ends.chain([longest, longest - 1, 1]).chain(all_over).enumerate() {
        if len <= longest {
            assert_eq!(client.ask_this(&bytes(seed, len)), 1);
        }
    }
    upload(&net.client, &net.reals[0], (address, 80), 8_000_000);
    let counts = balancer.stop();
    assert_eq!(counts.dropped, 0, "{counts:?}");
    // 8,000,000 bytes of TCP alone would be over 4,464 packets, were none longer than a frame.
    assert!((1000..4464).contains(&counts.sent), "{counts:?}");
    let decapsulated = decap.counters().unwrap().decapsulated;
    assert_eq!(decapsulated, counts.sent);
}

#[test]
fn ipv4_in_ipv4() {
    long_packets_arrive("lb-jumbo-4in4", "method = \"ipip\"", VIP4, "10.0.0.11");
}

#[test]
fn ipv6_in_ipv6() {
    long_packets_arrive("lb-jumbo-6in6", "method = \"ipip\"", VIP6, "fd00::11");
}

#[test]
fn ipv6_in_udp_whose_checksum_is_over_all_frames() {
    long_packets_arrive("lb-jumbo-gue", "method = \"gue\"", VIP6, "fd00::11");
}

#[test]
fn what_is_too_long_for_the_way_to_the_real_is_answered() {
    let net = Net::with_mtu("lb-jumbo-big", 1, 1, MTU);
    // The client does not know of the outer header.
    net.client.ip(&format!("route replace {VIP4}/32 via {OWN}")).unwrap();
    net.decapsulate();
    let vips = vip(VIP4, 80, "tcp", &[("10.0.0.11", 1)]);
    let balancer = net.start(&(head(1, "method = \"ipip\"") + &vips), &[]);
    upload(&net.client, &net.reals[0], (VIP4, 80), 8_000_000);
    let route = net.client.ip(&format!("route get {VIP4}")).unwrap();
    assert!(route.contains("mtu 8980"), "{route}");
    let counts = balancer.stop_having_answered();
    assert!((1..1000).contains(&counts.dropped), "{counts:?}");
    assert_eq!(counts.received, counts.sent, "{counts:?}");
}

#[test]
fn switched_off_a_port_leaves_long_packets_to_the_kernel() {
    let net = Net::with_mtu("lb-jumbo-off", 1, 1, MTU);
    net.decapsulate();
    let _server = echo::Server::start(&net.reals[0], 1, VIP4, 53);
    let config = head(1, "method = \"ipip\"").replace("\"eth0\"", "\"eth0\"\nmulti_buffer = \"off\"");
    let balancer = net.start(&(config + &vip(VIP4, 53, "udp", &[("10.0.0.11", 1)])), &[]);
    let client = echo::Client::connect(&net.client, VIP4, 53);
    assert_eq!(client.ask_this(&bytes(1, 1750)), 1);
    client.send(&bytes(2, 1751));
    assert_eq!(client.ask_this(&bytes(3, 1)), 1);
    let counters = net.ask(&["ctl", "counters"]);
    assert!(counters.contains("oversize"), "{counters}");
    balancer.stop();
}
