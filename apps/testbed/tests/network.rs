//! Networks as their users see them: real namespaces, real packets.

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};

use afx_testbed::{Error, Link, Mac, Testbed, XdpMode, wait_for};
use common::{PATIENCE, pair};

#[test]
fn two_hosts_reach_each_other_by_ipv4_and_ipv6() {
    let (_net, a, b) = pair("ping", 1);
    for (host, address) in
        [(&a, "10.0.0.2"), (&a, "fd00::2"), (&b, "10.0.0.1"), (&b, "fd00::1"), (&a, "127.0.0.1")]
    {
        host.command("ping").args(["-c", "1", "-W", "30", address]).check().unwrap();
    }
}

#[test]
fn queues_mtu_and_macs_are_as_asked() {
    let net = Testbed::new("queues").unwrap();
    let (a, b) = (net.host("a").unwrap(), net.host("b").unwrap());
    let mac = Mac([0x02, 0, 0, 0, 0, 0x42]);
    net.link(Link::between(a.end("eth0").mac(mac), b.end("wan")).queues(3).mtu(1400)).unwrap();

    assert_eq!(a.mac("eth0").unwrap(), mac);
    assert_eq!(b.mac("wan").unwrap().0[0], 0x02, "locally administered");
    assert_eq!(
        (a.interfaces().unwrap(), b.interfaces().unwrap()),
        (vec!["eth0".to_owned()], vec!["wan".to_owned()])
    );
    for (host, interface) in [(&a, "eth0"), (&b, "wan")] {
        let sysfs = |entry: &str| format!("/sys/class/net/{interface}/{entry}");
        let mut queues = host
            .run(|| {
                let entries = fs::read_dir(sysfs("queues")).unwrap();
                entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>()
            })
            .unwrap();
        queues.sort();
        assert_eq!(queues, ["rx-0", "rx-1", "rx-2", "tx-0", "tx-1", "tx-2"]);
        let read = |entry: &str| host.command("cat").arg(sysfs(entry)).check().unwrap().trim().to_owned();
        assert_eq!(read("mtu"), "1400");
        assert_eq!(read("ifindex"), host.interface_index(interface).unwrap().to_string());
    }
}

#[test]
fn offloads_are_off_and_gro_is_on_unless_asked_otherwise() {
    let net = Testbed::new("offload").unwrap();
    let (a, b) = (net.host("a").unwrap(), net.host("b").unwrap());
    net.link(Link::between(a.end("plain"), b.end("plain"))).unwrap();
    net.link(Link::between(a.end("other").offloads(true).gro(false), b.end("other"))).unwrap();
    let features = [
        "tx-checksumming",
        "scatter-gather",
        "tcp-segmentation-offload",
        "generic-segmentation-offload",
        "generic-receive-offload",
    ];
    for (host, interface, expected) in [
        (&a, "plain", ["off", "off", "off", "off", "on"]),
        (&b, "plain", ["off", "off", "off", "off", "on"]),
        (&a, "other", ["on", "on", "on", "on", "off"]),
        (&b, "other", ["off", "off", "off", "off", "on"]),
    ] {
        let shown = host.command("ethtool").args(["-k", interface]).check().unwrap();
        for (feature, state) in features.iter().zip(expected) {
            let line = format!("{feature}: {state}");
            assert!(shown.lines().any(|shown| shown.trim() == line), "{interface}: no {line:?} in\n{shown}");
        }
    }
}

#[test]
fn datagrams_carry_whole_checksums() {
    let (_net, a, b) = pair("checksum", 1);
    let capture = b.capture("eth0", "udp port 9").unwrap();
    let socket = a.run(|| UdpSocket::bind("10.0.0.1:1000")).unwrap().unwrap();
    socket.send_to(b"checked", "10.0.0.2:9").unwrap();
    capture.wait_for_packets(1, PATIENCE).unwrap();
    let file = capture.stop().unwrap();
    let shown = b.command("tcpdump").args(["-n", "-vv", "-r"]).arg(file).check().unwrap();
    assert!(shown.contains("[udp sum ok]"), "{shown}");
}

#[test]
fn tcp_crosses_a_router() {
    let net = Testbed::new("route").unwrap();
    let [client, router, server] = ["client", "router", "server"].map(|name| net.host(name).unwrap());
    net.link(Link::between(
        client.end("eth0").address("10.1.0.1/24").address("fd01::1/64"),
        router.end("eth0").address("10.1.0.254/24").address("fd01::fe/64"),
    ))
    .unwrap();
    net.link(Link::between(
        server.end("eth0").address("10.2.0.1/24").address("fd02::1/64"),
        router.end("eth1").address("10.2.0.254/24").address("fd02::fe/64"),
    ))
    .unwrap();
    router.forward().unwrap();
    client.route("10.2.0.0/24", "10.1.0.254").unwrap();
    server.route("default", "10.2.0.254").unwrap();
    client.route("default", "fd01::fe").unwrap();
    server.route("fd01::/64", "fd02::fe").unwrap();

    for address in ["10.2.0.1:80", "[fd02::1]:80"] {
        let address = address.parse().unwrap();
        let listener = server.run(|| TcpListener::bind(address)).unwrap().unwrap();
        client.wait_for_tcp(address).unwrap();
        let mut probe = listener.accept().unwrap().0;
        assert_eq!(probe.read(&mut [0]).unwrap(), 0, "the probe says nothing");
        let mut stream = client.run(|| TcpStream::connect(address)).unwrap().unwrap();
        let (mut accepted, peer) = listener.accept().unwrap();
        assert!(["10.1.0.1", "fd01::1"].contains(&peer.ip().to_string().as_str()), "{peer}");
        let sent = vec![0x5a; 200_000];
        let received = std::thread::scope(|scope| {
            scope.spawn(move || {
                stream.write_all(&sent).unwrap();
            });
            let mut received = Vec::new();
            accepted.read_to_end(&mut received).unwrap();
            received
        });
        assert_eq!(received.len(), 200_000);
    }
    let counters = router.packet_counters("eth1").unwrap();
    assert!(counters.tx_packets > 200 && counters.tx_bytes > 400_000, "{counters:?}");
    assert_eq!((counters.rx_dropped, counters.tx_dropped), (0, 0), "{counters:?}");
}

#[test]
fn without_forwarding_a_host_is_no_router() {
    let net = Testbed::new("noroute").unwrap();
    let [client, middle, server] = ["client", "middle", "server"].map(|name| net.host(name).unwrap());
    net.link(Link::between(
        client.end("eth0").address("10.1.0.1/24"),
        middle.end("eth0").address("10.1.0.2/24"),
    ))
    .unwrap();
    net.link(Link::between(
        server.end("eth0").address("10.2.0.1/24"),
        middle.end("eth1").address("10.2.0.2/24"),
    ))
    .unwrap();
    client.route("default", "10.1.0.2").unwrap();
    server.route("default", "10.2.0.2").unwrap();
    let ping = || client.command("ping").args(["-c", "1", "-W", "1", "10.2.0.1"]).output().unwrap();
    assert!(!ping().status.success());
    middle.sysctl("net.ipv4.ip_forward", "1").unwrap();
    wait_for("forwarding", PATIENCE, || ping().status.success()).unwrap();
}

#[test]
fn a_switch_joins_many_hosts() {
    let net = Testbed::new("switch").unwrap();
    let lan = net.switch("lan").unwrap();
    let hosts: Vec<_> = (1..=3)
        .map(|number| {
            let host = net.host(&format!("h{number}")).unwrap();
            let end =
                host.end("eth0").address(format!("10.0.0.{number}/24")).address(format!("fd00::{number}/64"));
            net.link(Link::between(end, lan.port()).queues(2)).unwrap();
            host
        })
        .collect();
    for host in &hosts {
        for address in ["10.0.0.1", "10.0.0.2", "10.0.0.3", "fd00::1", "fd00::2", "fd00::3"] {
            host.command("ping").args(["-c", "1", "-W", "30", address]).check().unwrap();
        }
    }
    let ports = lan.as_host().ip("link show master br0").unwrap();
    assert!(ports.contains("alias h1:eth0") && ports.contains("alias h3:eth0"), "{ports}");
}

#[test]
fn networks_of_one_name_do_not_meet() {
    let networks: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| pair("same", 1))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    // The same address and port four times over: each is its own network's.
    let servers: Vec<_> =
        networks.iter().map(|(_, _, b)| b.run(|| UdpSocket::bind("10.0.0.2:7")).unwrap().unwrap()).collect();
    for (number, (_, a, _)) in networks.iter().enumerate() {
        let client = a.run(|| UdpSocket::bind("10.0.0.1:0")).unwrap().unwrap();
        client.send_to(format!("network {number}").as_bytes(), "10.0.0.2:7").unwrap();
    }
    for (number, server) in servers.iter().enumerate() {
        server.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut buffer = [0; 64];
        let length = server.recv(&mut buffer).unwrap();
        assert_eq!(buffer[..length], *format!("network {number}").as_bytes());
        server.set_nonblocking(true).unwrap();
        assert!(server.recv(&mut buffer).is_err(), "a second datagram, from another network");
    }
}

#[test]
fn neighbour_entries_spare_the_asking() {
    let (_net, a, b) = pair("neighbour", 1);
    let mac = b.mac("eth0").unwrap();
    a.neighbour("eth0", "10.0.0.2".parse().unwrap(), mac).unwrap();
    b.neighbour("eth0", "10.0.0.1".parse().unwrap(), a.mac("eth0").unwrap()).unwrap();
    let capture = b.capture("eth0", "arp or icmp").unwrap();
    a.command("ping").args(["-c", "1", "-W", "30", "10.0.0.2"]).check().unwrap();
    capture.wait_for_packets(2, PATIENCE).unwrap();
    let file = capture.stop().unwrap();
    let shown = b.command("tcpdump").args(["-n", "-r"]).arg(file).check().unwrap();
    assert!(shown.contains("ICMP echo reply") && !shown.contains("ARP"), "{shown}");
}

#[test]
fn xdp_programs_are_seen_and_what_they_send_arrives() {
    let (net, a, b) = pair("xdp", 2);
    let directory = tempfile::tempdir().unwrap();
    let compile = |name: &str, body: &str| {
        let (source, object) = (directory.path().join(format!("{name}.c")), directory.path().join(name));
        let text = format!("__attribute__((section(\"xdp\"))) int program(void *context) {{ {body} }}\n");
        fs::write(&source, text).unwrap();
        b.command("clang")
            .args(["-O2", "-target", "bpf", "-c"])
            .arg(&source)
            .arg("-o")
            .arg(&object)
            .check()
            .unwrap();
        object.display().to_string()
    };
    let index = b.interface_index("eth0").unwrap();
    // Helper 23 is bpf_redirect: back through the interface where the packet came from.
    let redirect = format!("return ((long (*)(unsigned, unsigned long long)) 23)({index}, 0);");
    let (redirect, transmit, pass) =
        (compile("redirect", &redirect), compile("transmit", "return 3;"), compile("pass", "return 2;"));
    a.neighbour("eth0", "10.0.0.2".parse().unwrap(), b.mac("eth0").unwrap()).unwrap();
    let socket = a.run(|| UdpSocket::bind("10.0.0.1:0")).unwrap().unwrap();

    for (attach, mode, program, peer_has_xdp) in [
        ("xdpgeneric", XdpMode::Generic, &transmit, false),
        // For these two the peer needs what the default end has, NAPI, and what it has not, a program of its own.
        ("xdpdrv", XdpMode::Native, &redirect, false),
        ("xdpdrv", XdpMode::Native, &transmit, true),
    ] {
        assert_eq!(b.xdp_program("eth0").unwrap(), None);
        b.ip(&format!("link set eth0 {attach} object {program} section xdp")).unwrap();
        if peer_has_xdp {
            a.ip(&format!("link set eth0 xdpdrv object {pass} section xdp")).unwrap();
        }
        let found = b.xdp_program("eth0").unwrap().expect("a program is attached");
        assert!(found.mode == mode && found.id > 0, "{found:?}");

        let before = a.packet_counters("eth0").unwrap().rx_packets;
        wait_for(&format!("10 packets back from {program}"), PATIENCE, || {
            socket.send_to(b"and back", "10.0.0.2:9").unwrap();
            a.packet_counters("eth0").unwrap().rx_packets >= before + 10
        })
        .unwrap();
        b.ip(&format!("link set eth0 {attach} off")).unwrap();
    }
    assert_eq!(b.xdp_program("eth0").unwrap(), None);
    net.close().unwrap();
}

#[test]
fn a_host_begins_the_same_whatever_the_machine_has_set() {
    let net = Testbed::new("sysctl").unwrap();
    let host = net.host("h").unwrap();
    let read =
        |key: &str| host.command("cat").arg(format!("/proc/sys/{key}")).check().unwrap().trim().to_owned();
    for key in ["net/ipv4/ip_forward", "net/ipv4/conf/all/rp_filter", "net/ipv6/conf/all/forwarding"] {
        assert_eq!(read(key), "0", "{key}");
    }
    host.sysctl("net.ipv4.conf.all.rp_filter", "2").unwrap();
    assert_eq!(read("net/ipv4/conf/all/rp_filter"), "2");
    let error = host.sysctl("net.ipv4.no_such_key", "1").unwrap_err().to_string();
    assert!(error.contains("net.ipv4.no_such_key") && error.contains("h of sysctl"), "{error}");
}

#[test]
fn mistakes_are_told_with_what_would_be_right() {
    let (net, a, b) = pair("mistakes", 1);
    let told = |error: Error, expected: &[&str]| {
        let message = error.to_string();
        assert!(expected.iter().all(|part| message.contains(part)), "{message}");
    };
    told(Testbed::new("with space").unwrap_err(), &["with space", "letters, digits"]);
    told(net.host("a").unwrap_err(), &["\"a\"", "already"]);
    told(net.find("c").unwrap_err(), &["no host \"c\"", "a, b"]);
    told(a.mac("eth9").unwrap_err(), &["no interface \"eth9\"", "eth0"]);
    told(a.interface_index("eth9").unwrap_err(), &["no interface \"eth9\"", "eth0"]);
    told(a.route("10.9.0.7/24", "10.0.0.2").unwrap_err(), &["did you mean 10.9.0.0/24"]);
    let link = || Link::between(a.end("eth1"), b.end("eth1"));
    told(net.link(link().queues(0)).unwrap_err(), &["queues", "1 to 4096"]);
    told(net.link(link().mtu(9)).unwrap_err(), &["MTU", "68 to 65535"]);
    let no_prefix = Link::between(a.end("eth1").address("10.5.0.1"), b.end("eth1"));
    told(net.link(no_prefix).unwrap_err(), &["10.5.0.1", "prefix length"]);
    assert_eq!(a.interfaces().unwrap(), ["eth0"], "a wrong link makes nothing");
    told(net.link(Link::between(a.end("eth0"), b.end("eth1"))).unwrap_err(), &["ip", "File exists"]);
    let other = Testbed::new("elsewhere").unwrap();
    let stranger = other.host("x").unwrap();
    told(
        net.link(Link::between(a.end("eth1"), stranger.end("eth0"))).unwrap_err(),
        &["x of elsewhere", "a host of mistakes"],
    );
    net.close().unwrap();
    told(a.run(|| ()).unwrap_err(), &["entering", "No such file"]);
}
