//! The examples, as their users run them.

use std::net::UdpSocket;

use afx_testbed::{Link, Signal, Testbed};

use crate::support::*;

#[test]
fn forward_is_a_cable() {
    let net = Testbed::new("exforward").unwrap();
    let [client, middle, server] = ["client", "middle", "server"].map(|name| net.host(name).unwrap());
    net.link(Link::between(client.end("eth0").address("10.0.0.1/24"), middle.end("eth1"))).unwrap();
    net.link(Link::between(server.end("eth0").address("10.0.0.2/24"), middle.end("eth2"))).unwrap();
    let process = middle.command(example("forward")).args(["eth1", "eth2"]).spawn().unwrap();
    process.wait_for_output("forwarding between eth1 and eth2", PATIENCE).unwrap();
    client.command("ping").args(["-c", "3", "-i", "0.2", "-W", "30", "10.0.0.2"]).check().unwrap();
    process.signal(Signal::SIGTERM).unwrap();
    assert!(process.wait().unwrap().success(), "{}", process.stderr());
    let text = process.stdout();
    assert!(text.contains("eth1: ") && text.contains("eth2: "), "{text}");
    assert_untouched(&middle, "eth1");
    assert_untouched(&middle, "eth2");
}

#[test]
fn block_list_drops_what_comes_from_networks_of_its_list() {
    let net = Testbed::new("exblock").unwrap();
    let [client, middle, server] = ["client", "middle", "server"].map(|name| net.host(name).unwrap());
    let addresses = client.end("eth0").address("10.0.0.1/24").address("10.0.0.65/24");
    net.link(Link::between(addresses, middle.end("eth1"))).unwrap();
    net.link(Link::between(server.end("eth0").address("10.0.0.2/24"), middle.end("eth2"))).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let list = directory.path().join("networks.txt");
    std::fs::write(&list, "10.0.0.64/26\n2001:db8::/32\n").unwrap();
    let process = middle.command(example("block_list")).arg(&list).args(["eth1", "eth2"]).spawn().unwrap();
    process.wait_for_output("blocking 1 IPv4 and 1 IPv6 networks", PATIENCE).unwrap();

    // The first also waits until the example is at work.
    let ping = |source: &str, patience: &str| {
        let arguments = ["-c", "1", "-W", patience, "-I", source, "10.0.0.2"];
        client.command("ping").args(arguments).output().unwrap().status.success()
    };
    let deadline = std::time::Instant::now() + PATIENCE;
    while !ping("10.0.0.1", "1") {
        assert!(std::time::Instant::now() < deadline, "nothing crosses: {}", process.stderr());
    }
    assert!(!ping("10.0.0.65", "1"));
    std::fs::write(&list, "10.0.0.1\n").unwrap();
    process.signal(Signal::SIGHUP).unwrap();
    process.wait_for_output("blocking 1 IPv4 and 0 IPv6 networks", PATIENCE).unwrap();
    while !ping("10.0.0.65", "1") {
        assert!(std::time::Instant::now() < deadline, "nothing crosses: {}", process.stderr());
    }
    assert!(!ping("10.0.0.1", "1"));
    process.signal(Signal::SIGTERM).unwrap();
    assert!(process.wait().unwrap().success(), "{}", process.stderr());
    assert!(process.stdout().contains("dropped: block_list.blocked"), "{}", process.stdout());
    assert_untouched(&middle, "eth1");
    assert_untouched(&middle, "eth2");
}

#[test]
fn count_tells_protocols_and_ports_apart() {
    let (_net, a, b) = pair("excount", 1);
    a.neighbour("eth0", "10.0.0.2".parse().unwrap(), b.mac("eth0").unwrap()).unwrap();
    let process = b.command(example("count")).args(["eth0", "53", "443"]).spawn().unwrap();
    // From then on all that comes is counted.
    process.wait_for_output("0 packets: ", PATIENCE).unwrap();
    let socket = a.run(|| UdpSocket::bind("10.0.0.1:0")).unwrap().unwrap();
    for (port, packets) in [(53, 7), (443, 5), (99, 3)] {
        for _ in 0..packets {
            socket.send_to(b"counted", ("10.0.0.2", port)).unwrap();
        }
    }
    process.wait_for_output("udp 15,", PATIENCE).unwrap();
    process.wait_for_output("to port 53 7, to port 443 5", PATIENCE).unwrap();
    process.signal(Signal::SIGINT).unwrap();
    assert!(process.wait().unwrap().success(), "{}", process.stderr());
    assert_untouched(&b, "eth0");
}

#[test]
fn capture_shows_what_became_of_each_packet() {
    let (_net, a, b) = pair("excapture", 1);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("verdicts.pcapng");
    let process = b.command(example("capture")).arg("eth0").arg(&path).spawn().unwrap();
    process.wait_for_output("capturing from eth0", PATIENCE).unwrap();
    // Nobody answers ARP: dropped as no IP. With the neighbour known, pings come back as they were sent.
    let ping = || a.command("ping").args(["-c", "2", "-i", "0.2", "-W", "1", "10.0.0.2"]).output().unwrap();
    ping();
    a.neighbour("eth0", "10.0.0.2".parse().unwrap(), b.mac("eth0").unwrap()).unwrap();
    ping();
    process.signal(Signal::SIGTERM).unwrap();
    assert!(process.wait().unwrap().success(), "{}", process.stderr());
    assert!(process.stdout().contains("0 of them not captured"), "{}", process.stdout());

    let mut reader = pcap_file::pcapng::PcapNgReader::new(std::fs::File::open(&path).unwrap()).unwrap();
    let (mut dropped, mut sent) = (0, 0);
    while let Some(block) = reader.next_block() {
        if let Some(packet) = block.unwrap().into_enhanced_packet() {
            let arp = packet.data[12..14] == [8, 6];
            let comment = format!("{:?}", packet.options);
            match () {
                () if comment.contains("dropped: capture.no_ip") => dropped += usize::from(arp),
                () if comment.contains("sent to port 0") => sent += usize::from(!arp),
                () => panic!("{comment}"),
            }
        }
    }
    assert!(dropped >= 1 && sent >= 2, "{dropped} ARP packets dropped, {sent} others sent");
    assert_untouched(&b, "eth0");
}
