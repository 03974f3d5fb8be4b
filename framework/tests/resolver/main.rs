//! The resolver against the kernel: networks of namespaces, changed with `ip` while it looks.

mod namespace;

use std::net::{IpAddr, Ipv6Addr, SocketAddrV6};
use std::time::{Duration, Instant};

use afx::control::resolver::{NextHop, Resolution, Resolver, Unresolved};
use namespace::Namespace;
use socket2::{Domain, Protocol, Socket, Type};

/// A balancer with the interface `lan` (02::1, 10.0.0.1, 2001:db8::1), and a host at its other end with `eth`
/// (02::2, 10.0.0.2, 2001:db8::2).
struct Network {
    balancer: Namespace,
    host: Namespace,
    interface: u32,
}

impl Network {
    fn new() -> Self {
        let (balancer, host) = (Namespace::new(), Namespace::new());
        balancer.link("lan", &host, "eth");
        for (namespace, name, number) in [(&balancer, "lan", 1), (&host, "eth", 2)] {
            namespace.ip(&format!("link set {name} address 02:00:00:00:00:0{number}"));
            namespace.ip(&format!("addr add 10.0.0.{number}/24 dev {name}"));
            namespace.ip(&format!("addr add 2001:db8::{number}/64 dev {name} nodad"));
        }
        // A host that does not answer shall be known as such in a second, not in three.
        balancer.sysctl("ipv4/neigh/lan/mcast_solicit", "1");
        balancer.sysctl("ipv6/neigh/lan/mcast_solicit", "1");
        let interface =
            balancer.run(|| nix::net::if_::if_nametoindex("lan").expect("the link was made just now"));
        Self { balancer, host, interface }
    }

    fn resolver(&self, addresses: &[&str]) -> Resolver {
        let resolver = self.balancer.run(|| Resolver::start().expect("root may"));
        resolver.watch(addresses.iter().map(|address| ip(address)));
        resolver
    }

    fn next_hop(&self, mac: u8, source: &str, gateway: Option<&str>) -> NextHop {
        NextHop {
            interface: self.interface,
            source_mac: [2, 0, 0, 0, 0, 1],
            destination_mac: [2, 0, 0, 0, 0, mac],
            source: Some(ip(source)),
            gateway: gateway.map(ip),
            mtu: 1500,
        }
    }
}

fn ip(address: &str) -> IpAddr {
    address.parse().expect("the tests name addresses")
}

/// Waits, by the resolver's own notifications, until it says this of an address.
#[track_caller]
fn expect(resolver: &Resolver, address: &str, expected: &Resolution) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let snapshot = resolver.snapshot();
        if snapshot.get(&ip(address)) == Some(expected) {
            return;
        }
        assert!(
            resolver.changes().recv_deadline(deadline).is_ok(),
            "{address}: expected {expected:?}, it stayed {:?}",
            snapshot.get(&ip(address))
        );
    }
}

#[track_caller]
fn expect_next_hop(resolver: &Resolver, address: &str, next_hop: NextHop) {
    expect(resolver, address, &Resolution::Resolved(next_hop));
}

#[track_caller]
fn expect_unresolved(resolver: &Resolver, address: &str, reason: Unresolved) {
    expect(resolver, address, &Resolution::Unresolved(reason));
}

#[test]
fn hosts_on_the_link_are_found_and_kept() {
    let network = Network::new();
    let resolver = network.resolver(&["10.0.0.2", "2001:db8::2"]);
    expect_next_hop(&resolver, "10.0.0.2", network.next_hop(2, "10.0.0.1", None));
    expect_next_hop(&resolver, "2001:db8::2", network.next_hop(2, "2001:db8::1", None));
    for address in ["10.0.0.2", "2001:db8::2"] {
        let entry = network.balancer.ip(&format!("neigh get {address} dev lan"));
        assert!(entry.contains("managed"), "the kernel is to keep it alive: {entry}");
    }
}

#[test]
fn routes_are_followed_when_they_change() {
    let network = Network::new();
    network.host.ip("addr add 10.0.0.3/24 dev eth");
    network.balancer.ip("route add 192.0.2.0/24 via 10.0.0.2");
    let resolver = network.resolver(&["192.0.2.7"]);
    expect_next_hop(&resolver, "192.0.2.7", network.next_hop(2, "10.0.0.1", Some("10.0.0.2")));

    network.balancer.ip("route replace 192.0.2.0/24 via 10.0.0.3 mtu 1400");
    let other = NextHop { mtu: 1400, ..network.next_hop(2, "10.0.0.1", Some("10.0.0.3")) };
    expect_next_hop(&resolver, "192.0.2.7", other);
    let entries = network.balancer.ip("neigh show dev lan");
    assert!(!entries.contains("10.0.0.2 "), "what is no longer needed goes: {entries}");

    network.balancer.ip("route replace blackhole 192.0.2.0/24");
    expect_unresolved(&resolver, "192.0.2.7", Unresolved::NoRoute);
    network.balancer.ip("route del 192.0.2.0/24");
    network.balancer.ip("route add 192.0.2.0/24 via inet6 2001:db8::2");
    expect_next_hop(&resolver, "192.0.2.7", network.next_hop(2, "10.0.0.1", Some("2001:db8::2")));

    // A policy rule that sends it elsewhere counts as well.
    network.balancer.ip("route add unreachable default table 100");
    network.balancer.ip("rule add to 192.0.2.0/24 table 100");
    expect_unresolved(&resolver, "192.0.2.7", Unresolved::NoRoute);
}

/// Sends an IPv6 packet that the kernel has no connection for, as tunnels on AF_XDP do.
fn send_tunnelled(network: &Network, to: &'static str, carried: u8, length: u16) {
    let (source, destination): (Ipv6Addr, Ipv6Addr) =
        ("2001:db8::1".parse().expect("an address"), to.parse().expect("an address"));
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend_from_slice(&(length - 40).to_be_bytes());
    packet.extend_from_slice(&[carried, 64]);
    packet.extend_from_slice(&source.octets());
    packet.extend_from_slice(&destination.octets());
    packet.resize(length.into(), 0);
    network.balancer.run(move || {
        let raw = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW)));
        let to = SocketAddrV6::new(destination, 0, 0, 0);
        raw.expect("root may").send_to(&packet, &to.into()).expect("it fits the first link");
    });
}

#[test]
fn the_mtu_of_a_path_is_learnt_from_what_routers_say_of_tunnels() {
    let network = Network::new();
    let far = Namespace::new();
    network.host.link("far", &far, "eth");
    network.host.ip("link set far mtu 1400");
    network.host.ip("addr add fd00:9::1/64 dev far nodad");
    network.host.sysctl("ipv6/conf/all/forwarding", "1");
    network.balancer.ip("route add fd00:9::/64 via 2001:db8::2");
    let resolver = network.resolver(&["fd00:9::41", "fd00:9::4", "fd00:9::17"]);
    let adjacent = network.next_hop(2, "2001:db8::1", Some("2001:db8::2"));
    for (to, carried) in [("fd00:9::41", 41), ("fd00:9::4", 4), ("fd00:9::17", 17)] {
        expect_next_hop(&resolver, to, adjacent.clone());
        // What fits teaches nothing.
        send_tunnelled(&network, to, carried, 1400);
        send_tunnelled(&network, to, carried, 1401);
        expect_next_hop(&resolver, to, NextHop { mtu: 1400, ..adjacent.clone() });
    }
}

#[test]
fn addresses_that_cannot_be_sent_to_say_why() {
    let network = Network::new();
    network.balancer.ip("link set lo up");
    network.balancer.ip("tuntap add mode tun name tun0");
    network.balancer.ip("addr add 10.9.0.1/24 dev tun0");
    network.balancer.ip("link set tun0 up");
    let resolver = network.resolver(&["10.0.0.1", "10.0.0.255", "203.0.113.1", "10.9.0.2"]);
    expect_unresolved(&resolver, "10.0.0.1", Unresolved::NotUnicast);
    expect_unresolved(&resolver, "10.0.0.255", Unresolved::NotUnicast);
    expect_unresolved(&resolver, "203.0.113.1", Unresolved::NoRoute);
    expect_unresolved(&resolver, "10.9.0.2", Unresolved::NotEthernet);
}

#[test]
fn interfaces_are_followed_when_they_change() {
    let network = Network::new();
    let resolver = network.resolver(&["10.0.0.2"]);
    let first = network.next_hop(2, "10.0.0.1", None);
    expect_next_hop(&resolver, "10.0.0.2", first.clone());

    network.balancer.ip("link set lan mtu 1300");
    expect_next_hop(&resolver, "10.0.0.2", NextHop { mtu: 1300, ..first.clone() });
    network.balancer.ip("link set lan address 02:00:00:00:00:09");
    let changed = NextHop { mtu: 1300, source_mac: [2, 0, 0, 0, 0, 9], ..first };
    expect_next_hop(&resolver, "10.0.0.2", changed.clone());
    network.balancer.ip("link set lan down");
    expect_unresolved(&resolver, "10.0.0.2", Unresolved::NoRoute);
    network.balancer.ip("link set lan up");
    expect_next_hop(&resolver, "10.0.0.2", changed);
}

#[test]
fn a_host_that_changes_its_mac_address_is_followed() {
    let network = Network::new();
    let resolver = network.resolver(&["10.0.0.2"]);
    expect_next_hop(&resolver, "10.0.0.2", network.next_hop(2, "10.0.0.1", None));
    network.host.ip("link set eth address 02:00:00:00:00:08");
    network.balancer.ip("neigh replace 10.0.0.2 lladdr 02:00:00:00:00:08 dev lan nud reachable");
    expect_next_hop(&resolver, "10.0.0.2", network.next_hop(8, "10.0.0.1", None));
}

#[test]
fn a_silent_host_is_asked_again_until_it_answers() {
    let network = Network::new();
    let resolver = network.resolver(&["10.0.0.7", "2001:db8::7"]);
    expect_unresolved(&resolver, "10.0.0.7", Unresolved::NeighbourFailed);
    expect_unresolved(&resolver, "2001:db8::7", Unresolved::NeighbourFailed);
    network.host.ip("addr add 10.0.0.7/24 dev eth");
    network.host.ip("addr add 2001:db8::7/64 dev eth nodad");
    expect_next_hop(&resolver, "10.0.0.7", network.next_hop(2, "10.0.0.1", None));
    expect_next_hop(&resolver, "2001:db8::7", network.next_hop(2, "2001:db8::1", None));
}

#[test]
fn a_host_that_goes_silent_is_noticed_without_any_traffic() {
    let network = Network::new();
    // Ask again after a second at most, and twice.
    network.balancer.sysctl("ipv4/neigh/lan/base_reachable_time_ms", "1000");
    network.balancer.sysctl("ipv4/neigh/lan/delay_first_probe_time", "1");
    network.balancer.sysctl("ipv4/neigh/lan/ucast_solicit", "2");
    let resolver = network.resolver(&["10.0.0.2"]);
    expect_next_hop(&resolver, "10.0.0.2", network.next_hop(2, "10.0.0.1", None));
    network.host.ip("addr del 10.0.0.2/24 dev eth");
    expect_unresolved(&resolver, "10.0.0.2", Unresolved::NeighbourFailed);
}

#[test]
fn an_entry_that_somebody_removes_is_made_again() {
    let network = Network::new();
    let resolver = network.resolver(&["10.0.0.2"]);
    let next_hop = network.next_hop(2, "10.0.0.1", None);
    expect_next_hop(&resolver, "10.0.0.2", next_hop.clone());
    network.balancer.ip("neigh flush dev lan");
    let deadline = Instant::now() + Duration::from_secs(30);
    while !network.balancer.ip("neigh show dev lan").contains("10.0.0.2 lladdr") {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(20));
    }
    expect_next_hop(&resolver, "10.0.0.2", next_hop);
}

/// The neighbour table without what changes by itself.
fn neighbours(network: &Network) -> Vec<String> {
    let table = network.balancer.ip("neigh show dev lan");
    let states = ["REACHABLE", "STALE", "DELAY", "PROBE"];
    let mut lines: Vec<String> = table
        .lines()
        .map(|line| {
            let words = line.split_whitespace();
            words
                .map(|word| if states.contains(&word) { "valid" } else { word })
                .collect::<Vec<_>>()
                .join(" ")
        })
        .filter(|line| !line.starts_with("fe80"))
        .collect();
    lines.sort();
    lines
}

#[test]
fn the_neighbour_table_is_left_as_it_was_found() {
    let network = Network::new();
    network.host.ip("addr add 10.0.0.3/24 dev eth");
    network.host.ip("addr add 10.0.0.4/24 dev eth");
    network.balancer.ip("neigh add 10.0.0.3 lladdr 02:00:00:00:00:02 dev lan nud reachable");
    network.balancer.ip("neigh add 10.0.0.4 dev lan managed");
    network.balancer.ip("neigh add 10.0.0.5 lladdr 02:00:00:00:00:05 dev lan nud permanent");
    let deadline = Instant::now() + Duration::from_secs(30);
    while !network.balancer.ip("neigh show dev lan").contains("10.0.0.4 lladdr") {
        assert!(Instant::now() < deadline, "the kernel asks for a managed entry by itself");
        std::thread::sleep(Duration::from_millis(20));
    }
    let before = neighbours(&network);
    assert_eq!(before.len(), 3, "{before:?}");

    let addresses = ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6", "2001:db8::2"];
    let resolver = network.resolver(&addresses);
    for (address, mac) in [("10.0.0.2", 2), ("10.0.0.3", 2), ("10.0.0.4", 2), ("10.0.0.5", 5)] {
        expect_next_hop(&resolver, address, network.next_hop(mac, "10.0.0.1", None));
    }
    expect_unresolved(&resolver, "10.0.0.6", Unresolved::NeighbourFailed);
    expect_next_hop(&resolver, "2001:db8::2", network.next_hop(2, "2001:db8::1", None));
    let during = network.balancer.ip("neigh show dev lan");
    assert_eq!(during.matches("managed").count(), 5, "all but the permanent one: {during}");
    drop(resolver);
    assert_eq!(neighbours(&network), before);
}

#[test]
fn what_a_killed_resolver_left_behind_is_cleaned_up_by_the_next() {
    let network = Network::new();
    // As one that was killed leaves it: managed, marked by its protocol.
    network.balancer.ip("neigh add 10.0.0.2 dev lan managed protocol 175");
    let resolver = network.resolver(&["10.0.0.2"]);
    expect_next_hop(&resolver, "10.0.0.2", network.next_hop(2, "10.0.0.1", None));
    drop(resolver);
    assert_eq!(neighbours(&network), Vec::<String>::new());
}

#[test]
fn addresses_can_be_added_and_taken_away() {
    let network = Network::new();
    network.host.ip("addr add 10.0.0.3/24 dev eth");
    let resolver = network.resolver(&["10.0.0.2"]);
    expect_next_hop(&resolver, "10.0.0.2", network.next_hop(2, "10.0.0.1", None));
    resolver.watch([ip("10.0.0.3")]);
    expect_next_hop(&resolver, "10.0.0.3", network.next_hop(2, "10.0.0.1", None));
    assert!(!resolver.snapshot().contains_key(&ip("10.0.0.2")));
    assert!(!neighbours(&network).iter().any(|line| line.starts_with("10.0.0.2 ")));
}

#[test]
fn a_storm_of_routes_is_weathered() {
    let network = Network::new();
    let resolver = network.resolver(&["10.0.0.2", "192.0.2.7"]);
    expect_next_hop(&resolver, "10.0.0.2", network.next_hop(2, "10.0.0.1", None));
    expect_unresolved(&resolver, "192.0.2.7", Unresolved::NoRoute);
    let routes: String = (0..20_000)
        .map(|n| format!("route add 172.{}.{}.{}/32 via 10.0.0.2\n", 16 + n / 65_536, n / 256, n % 256))
        .collect();
    let file = std::env::temp_dir().join(format!("afx-resolver-{}.routes", std::process::id()));
    std::fs::write(&file, routes + "route add 192.0.2.0/24 via 10.0.0.2\n")
        .expect("the temporary folder is writable");
    network.balancer.ip(&format!("-batch {}", file.display()));
    std::fs::remove_file(file).expect("it was written just now");
    expect_next_hop(&resolver, "192.0.2.7", network.next_hop(2, "10.0.0.1", Some("10.0.0.2")));
    assert_eq!(
        resolver.snapshot().get(&ip("10.0.0.2")).and_then(Resolution::next_hop),
        Some(&network.next_hop(2, "10.0.0.1", None))
    );
}
