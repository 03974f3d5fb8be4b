//! `afx-pktgen echo` on real interfaces: packets come back, and measure round trips. Needs root.

mod signed;

use std::os::fd::AsRawFd as _;

use afx_testbed::{Host, Link, Signal, Testbed};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType};
use nix::sys::socket::{bind, recv, send as send_on, setsockopt, socket, sockopt};
use nix::sys::time::TimeVal;

use signed::*;

/// Two hosts on a link; the echo is at `b`.
fn pair(name: &str) -> (Testbed, Host, Host) {
    pair_with_mtu(name, 1500)
}

fn pair_with_mtu(name: &str, mtu: u32) -> (Testbed, Host, Host) {
    let bed = Testbed::new(name).unwrap();
    let (a, b) = (bed.host("a").unwrap(), bed.host("b").unwrap());
    let end = |host: &Host, number| {
        host.end("eth0").address(format!("10.0.0.{number}/24")).address(format!("fd00::{number}/64"))
    };
    bed.link(Link::between(end(&a, 1), end(&b, 2)).mtu(mtu)).unwrap();
    // The echo takes all that comes, and answers nobody.
    for address in ["10.0.0.2", "fd00::2"] {
        a.neighbour("eth0", address.parse().unwrap(), b.mac("eth0").unwrap()).unwrap();
    }
    (bed, a, b)
}

#[test]
fn a_socket_gets_back_what_it_sends() {
    let (_bed, a, b) = pair("pgback");
    let process = start(&b, &["echo", "eth0", "--swap", "l4", "--json"]);
    for to in ["10.0.0.2:9", "[fd00::2]:9"] {
        // The kernel gives a connected socket only what comes from its peer, with the right checksums.
        let socket = connected(&a, to);
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        for len in [0, 1, 17, 500, 1400] {
            let sent: Vec<u8> = (0..len).map(|index| (index * 7 + len) as u8).collect();
            socket.send(&sent).unwrap();
            let mut buffer = [0; 2000];
            let back = socket.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..back], sent, "{len} bytes to {to}");
        }
    }
    process.signal(Signal::SIGINT).unwrap();
    let result = result(&b, &process, 0);
    assert!(number(&result, "sent") >= 10, "{result:#}");
    assert_eq!(number(&result, "received"), number(&result, "sent") + number(&result, "dropped"));
}

#[test]
fn jumbo_frames_come_back_whole() {
    let (_bed, a, b) = pair_with_mtu("pgjumbo", 9000);
    let process = start(&b, &["echo", "eth0", "--swap", "l4", "--json"]);
    for (to, longest) in [("10.0.0.2:9", 8972), ("[fd00::2]:9", 8952)] {
        let socket = connected(&a, to);
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        for len in [0, 17, 1472, 1750, 1751, 5000, longest] {
            let sent: Vec<u8> = (0..len).map(|index| (index * 7 + len) as u8).collect();
            socket.send(&sent).unwrap();
            let mut buffer = vec![0; 1 << 16];
            let back = socket.recv(&mut buffer).unwrap();
            assert!(buffer[..back] == sent, "{back} of {len} bytes to {to}");
        }
    }
    process.signal(Signal::SIGINT).unwrap();
    let result = result(&b, &process, 0);
    assert_eq!(number(&result, "received"), number(&result, "sent") + number(&result, "dropped"));
    // The checksum of the link, which nobody sees, counts as ever: once a packet.
    assert!(number(&result, "sent_bytes") > 2 * (1472 + 1750 + 1751 + 5000 + 8952), "{result:#}");
}

#[test]
fn only_the_addresses_that_are_asked_for_change_places() {
    let (_bed, a, b) = pair("pgplaces");
    let wire = a
        .run(|| {
            let protocol = SockProtocol::EthAll;
            let fd = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol).unwrap();
            let interfaces = nix::ifaddrs::getifaddrs().unwrap();
            let address = interfaces
                .filter(|found| found.interface_name == "eth0")
                .find_map(|found| found.address?.as_link_addr().copied())
                .unwrap();
            bind(fd.as_raw_fd(), &address).unwrap();
            setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::new(PATIENCE.as_secs() as i64, 0)).unwrap();
            fd
        })
        .unwrap();
    // Written by hand: MAC addresses, then IPv4 and UDP with right checksums.
    let header =
        "020000000901 020000000902 0800 4500002000010000 4011 66ca 0a000001 0a000002 1234 0009 000c 0000";
    let digits: Vec<char> = header.chars().filter(|digit| *digit != ' ').collect();
    let hex = |pair: &[char]| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap();
    let mut packet: Vec<u8> = digits.chunks(2).map(hex).collect();
    packet.extend(b"echo");
    packet.resize(60, 0);
    let swapped = |ranges: &[(usize, usize, usize)]| {
        let mut bytes = packet.clone();
        for (first, second, len) in ranges {
            bytes[*first..first + len].copy_from_slice(&packet[*second..second + len]);
            bytes[*second..second + len].copy_from_slice(&packet[*first..first + len]);
        }
        bytes
    };
    let (mac, ip, ports) = ((0, 6, 6), (26, 30, 4), (34, 36, 2));
    for (swap, expected) in
        [("mac", swapped(&[mac])), ("l3", swapped(&[mac, ip])), ("l4", swapped(&[mac, ip, ports]))]
    {
        let process = start(&b, &["echo", "eth0", "--swap", swap]);
        assert_eq!(send_on(wire.as_raw_fd(), &packet, MsgFlags::empty()).unwrap(), packet.len());
        let mut buffer = [0; 2000];
        let answer = loop {
            let len = recv(wire.as_raw_fd(), &mut buffer, MsgFlags::empty()).expect("the packet comes back");
            if buffer[..len].starts_with(&expected[..14]) {
                break &buffer[..len];
            }
        };
        assert_eq!(answer, expected, "{swap}");
        process.signal(Signal::SIGTERM).unwrap();
        let (code, table) = ended(&b, "eth0", &process);
        assert_eq!(code, 0);
        assert!(table.starts_with("eth0 (copy mode, "), "{table}");
        assert!(table.lines().any(|line| line.starts_with("sent back ")), "{table}");
    }
}

#[test]
fn round_trips_are_measured_where_packets_come_back() {
    const COUNT: u32 = 1500;
    let (_bed, a, b) = pair("pgtrips");
    let echo = start(&b, &["echo", "eth0", "--swap", "l4", "--match", "udp:10.0.0.2:9", "--json"]);
    let receive = start(
        &a,
        &["receive", "eth0", "--latency", "round-trip", "--expect", "1500", "--fail-on-loss", "--json"],
    );
    let before = (a.packet_counters("eth0").unwrap(), b.packet_counters("eth0").unwrap());
    send(&connected(&a, "10.0.0.2:9"), 0, 0..COUNT);
    let trips = result(&a, &receive, 0);
    assert_eq!((number(&trips, "packets"), number(&trips, "reordered")), (COUNT.into(), 0));
    assert_eq!(trips["latency"], "round-trip");
    assert_eq!(number(&trips["latency_ns"], "count"), u64::from(COUNT));
    // What was matched came and went; the counters have the kernel's own packets as well.
    echo.signal(Signal::SIGTERM).unwrap();
    let echoed = result(&b, &echo, 0);
    for name in ["received", "sent"] {
        assert_eq!(number(&echoed, name), u64::from(COUNT), "{echoed:#}");
        assert_eq!(number(&echoed, &format!("{name}_bytes")), u64::from(COUNT) * 64);
    }
    assert_eq!((number(&echoed, "dropped"), number(&echoed, "kernel_dropped")), (0, 0));
    let now = (a.packet_counters("eth0").unwrap(), b.packet_counters("eth0").unwrap());
    assert!(now.0.rx_packets - before.0.rx_packets >= COUNT.into());
    assert!(now.1.rx_packets - before.1.rx_packets >= COUNT.into());
}

#[test]
fn what_cannot_come_back_is_dropped_with_a_reason() {
    let (_bed, a, b) = pair("pgnoway");
    let process = start(&b, &["echo", "eth0", "--swap", "l3", "--json"]);
    let socket = connected(&a, "10.0.0.2:9");
    socket.set_broadcast(true).unwrap();
    let broadcast = a
        .run(|| {
            let socket = std::net::UdpSocket::bind("10.0.0.1:0").unwrap();
            socket.set_broadcast(true).unwrap();
            socket
        })
        .unwrap();
    for _ in 0..7 {
        broadcast.send_to(b"to all", "10.0.0.255:9").unwrap();
    }
    send(&socket, 0, 0..3);
    afx_testbed::wait_for("what comes back", PATIENCE, || a.packet_counters("eth0").unwrap().rx_packets >= 3)
        .unwrap();
    process.signal(Signal::SIGTERM).unwrap();
    let result = result(&b, &process, 0);
    assert!(number(&result["dropped_by_reason"], "echo.group") >= 7, "{result:#}");
    assert_eq!(number(&result, "received"), number(&result, "sent") + number(&result, "dropped"));
}

#[test]
fn killed_it_leaves_no_program() {
    let (_bed, _a, b) = pair("pgkill");
    let process = start(&b, &["echo", "eth0"]);
    assert!(b.xdp_program("eth0").unwrap().is_some());
    process.signal(Signal::SIGKILL).unwrap();
    assert!(!process.wait_within(PATIENCE).unwrap().success());
    wait_until_untouched(&b, "eth0");
}

#[test]
fn it_ends_by_count_and_time() {
    let (_bed, a, b) = pair("pgcount");
    let process = start(&b, &["echo", "eth0", "--count", "20", "--json"]);
    send(&connected(&a, "10.0.0.2:9"), 0, 0..30);
    assert!(number(&result(&b, &process, 0), "received") >= 20);
    let process = start(&b, &["echo", "eth0", "--time", "200ms", "--json"]);
    assert!(result(&b, &process, 0)["seconds"].as_f64().unwrap() >= 0.2);
    let output = pktgen(&b, &["echo", "eth0", "--swap", "l5"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stderr.contains("possible values: mac, l3, l4"), "{}", output.stderr);
}
