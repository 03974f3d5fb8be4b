//! Every way to the reals, with real clients and servers at both ends.

mod common;

use std::collections::BTreeSet;

use afx_testbed::{Link, wait_for};
use common::download::{Download, Server};
use common::{Net, PATIENCE, VIP4, VIP6, echo, head, vip};

const REALS_V4: [&str; 2] = ["10.0.0.11", "10.0.0.12"];
const REALS_V6: [&str; 2] = ["fd00::11", "fd00::12"];

fn equal<'r>(reals: &[&'r str]) -> Vec<(&'r str, u32)> {
    reals.iter().map(|real| (*real, 1)).collect()
}

/// Serves a TCP and a UDP VIP by this forwarding, from both reals, and ends. Returns how many packets were sent.
fn both_reals_serve(net: &Net, forwarding: &str, address: &str, reals: &[&str]) -> u64 {
    let vips = vip(address, 80, "tcp", &equal(reals)) + &vip(address, 53, "udp", &equal(reals));
    served(net, &(head(1, forwarding) + &vips), address)
}

fn served(net: &Net, config: &str, address: &str) -> u64 {
    let numbered = || (1..).zip(&net.reals);
    let _web: Vec<_> = numbered().map(|(number, real)| Server::start(real, number, address, 80)).collect();
    let _names: Vec<_> =
        numbered().map(|(number, real)| echo::Server::start(real, number, address, 53)).collect();
    let balancer = net.start(config, &[]);
    let (mut by_tcp, mut by_udp) = ([0; 3], [0; 3]);
    for _ in 0..16 {
        let client = echo::Client::connect(&net.client, address, 53);
        let real = client.ask();
        by_udp[usize::from(real)] += 1;
        // The same one again, as often as it is asked.
        assert!((0..3).all(|_| client.ask() == real));
        let download = Download::start(&net.client, address, 80);
        by_tcp[usize::from(download.real())] += 1;
        download.advance(3000);
        download.finish();
    }
    // That one of two gets none of 16: once in 32,768 runs, thrice the same in a row never.
    assert!(by_udp[1..].iter().chain(&by_tcp[1..]).all(|count| *count > 0), "{by_tcp:?} {by_udp:?}");
    let counts = balancer.stop();
    assert_eq!(counts.dropped, 0);
    counts.sent
}

#[test]
fn ipv4_in_ipv4() {
    let net = Net::new("lb-4in4", 2, 1);
    net.decapsulate();
    both_reals_serve(&net, "method = \"ipip\"", VIP4, &REALS_V4);
}

#[test]
fn ipv6_in_ipv6() {
    let net = Net::new("lb-6in6", 2, 1);
    net.decapsulate();
    both_reals_serve(&net, "method = \"ipip\"", VIP6, &REALS_V6);
}

#[test]
fn ipv4_in_ipv6() {
    let net = Net::new("lb-4in6", 2, 1);
    net.decapsulate();
    both_reals_serve(&net, "method = \"ipip\"", VIP4, &REALS_V6);
}

#[test]
fn layer_2() {
    let net = Net::new("lb-l2", 2, 1);
    both_reals_serve(&net, "method = \"l2dsr\"", VIP4, &REALS_V4);
    both_reals_serve(&net, "method = \"l2dsr\"", VIP6, &REALS_V6);
}

#[test]
fn outer_sources_are_the_flows_own() {
    let net = Net::new("lb-sources", 2, 1);
    net.decapsulate();
    // Where the balancer is plugged in: the second port of the switch.
    let capture = net.switch.as_host().capture("p1", "ip proto 4 and src net 10.200.0.0/16").unwrap();
    let sent = both_reals_serve(&net, "method = \"ipip\"\nsource_v4 = \"10.200.0.0/16\"", VIP4, &REALS_V4);
    capture.wait_for_packets(sent as usize, PATIENCE).unwrap();
    let file = capture.stop().unwrap();
    let text = net.lb.command("tcpdump").args(["-n", "-t", "-r"]).arg(file).check().unwrap();
    let sources: BTreeSet<_> = text.lines().filter_map(|line| line.split_whitespace().nth(1)).collect();
    // 32 flows, and 65,536 addresses to choose from.
    assert!((30..=32).contains(&sources.len()), "{sources:?}");
}

#[test]
fn a_next_hop_that_is_given_needs_no_route() {
    let net = Net::new("lb-next-hop", 2, 1);
    net.decapsulate();
    // Addresses that the balancer has no route to; the reals' MAC addresses lead there.
    let hops: Vec<_> = net.reals.iter().map(|real| real.mac("eth0").unwrap().to_string()).collect();
    let mut vips = String::new();
    for (port, protocol) in [(80, "tcp"), (53, "udp")] {
        vips += &vip(VIP4, port, protocol, &[]);
        for (hop, real) in hops.iter().zip(["192.0.2.11", "192.0.2.12"]) {
            vips += &format!("[[vip.real]]\naddress = \"{real}\"\nnext_hop = \"{hop}\"\n");
        }
    }
    for (real, address) in net.reals.iter().zip(["192.0.2.11", "192.0.2.12"]) {
        real.ip(&format!("address add {address}/32 dev eth0")).unwrap();
    }
    served(&net, &(head(1, "method = \"ipip\"") + &vips), VIP4);
}

#[test]
fn a_real_that_goes_and_comes_back_elsewhere_is_found_again() {
    let net = Net::new("lb-ways", 1, 1);
    net.decapsulate();
    let real = &net.reals[0];
    let _server = echo::Server::start(real, 1, VIP4, 53);
    real.ip("link set eth0 down").unwrap();
    let config = head(1, "method = \"ipip\"") + &vip(VIP4, 53, "udp", &[("10.0.0.11", 1)]);
    let balancer = net.start(&config, &[]);
    assert!(
        balancer.log().contains("WARN the real 10.0.0.11 is not reachable: its next hop"),
        "{}",
        balancer.log()
    );

    real.ip("link set eth0 up").unwrap();
    let client = echo::Client::connect(&net.client, VIP4, 53);
    assert_eq!(client.ask(), 1);

    // The same address on another card, which says so.
    real.sysctl("net.ipv4.conf.eth0.arp_notify", "1").unwrap();
    real.ip("link set eth0 address 02:00:00:00:77:11").unwrap();
    assert_eq!(client.ask(), 1);
    balancer.stop();
}

#[test]
fn a_real_behind_an_interface_without_a_port_is_named() {
    let net = Net::new("lb-no-port", 1, 1);
    let end = |host: &afx_testbed::Host, address| host.end("eth1").address(address);
    net.bed.link(Link::between(end(&net.lb, "10.1.0.2/24"), end(&net.reals[0], "10.1.0.11/24"))).unwrap();
    let balancer =
        net.start(&(head(1, "method = \"ipip\"") + &vip(VIP4, 53, "udp", &[("10.1.0.11", 1)])), &[]);
    let expected =
        "WARN the real 10.1.0.11 is not reachable: its route leads to an interface that has no [[port]]";
    assert!(balancer.log().contains(expected), "{}", balancer.log());
    echo::Client::connect(&net.client, VIP4, 53).send(b"?");
    wait_for("the packet to be received", PATIENCE, || {
        let counters = net.lb.command("ethtool").args(["-S", "eth0"]).check().unwrap();
        counters.lines().any(|line| line.trim() == "rx_queue_0_xdp_redirect: 1")
    })
    .unwrap();
    assert_eq!(balancer.stop().dropped, 1);
}
