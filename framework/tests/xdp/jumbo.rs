//! Packets longer than a frame, over links with an MTU of 9000 bytes.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use afx::packet::rewrite;
use afx::port::{AttachMode, MultiBuffer, Steering, XdpPort};
use afx::worker::WorkerId;
use afx::{Batch, Runtime, RuntimeBuilder, Stage};
use afx_testbed::{Host, Link, Testbed, wait_for};

use crate::download::download;
use crate::kernel_is_at_least;
use crate::support::*;

/// An MTU of jumbo frames, and the longest UDP payload that it takes.
const MTU: u32 = 9000;
const LONGEST: usize = MTU as usize - 20 - 8;

/// Sends UDP back to its sender: addresses and ports change places.
#[derive(Clone, Copy)]
struct Answer;

impl Answer {
    fn turn_round(batch: &mut Batch, slot: afx::Slot) {
        let mut packet = batch.packet(slot);
        let Ok(parsed) = packet.parsed() else { return };
        rewrite::swap_ip_addresses(packet.bytes_mut(), &parsed);
        rewrite::swap_ports(packet.bytes_mut(), &parsed);
        packet.swap_mac_addresses();
        packet.transmit(packet.ingress());
    }
}

impl Stage for Answer {
    fn process(&mut self, batch: &mut Batch) {
        for slot in batch.live() {
            Self::turn_round(batch, slot);
        }
    }
}

/// Whether the kernel has packets of several frames: from Linux 6.6 on.
fn is_known_to_the_kernel() -> bool {
    kernel_is_at_least((6, 6))
}

/// Two hosts on one link with an MTU of 9000; `b` is where afx runs.
fn jumbo_pair(name: &str, queues: u32) -> (Testbed, Host, Host) {
    pair_with_mtu(name, queues, MTU)
}

fn pair_with_mtu(name: &str, queues: u32, mtu: u32) -> (Testbed, Host, Host) {
    let net = Testbed::new(name).unwrap();
    let (a, b) = (net.host("a").unwrap(), net.host("b").unwrap());
    let link = Link::between(a.end("eth0").address("10.0.0.1/24"), b.end("eth0").address("10.0.0.2/24"));
    net.link(link.queues(queues).mtu(mtu)).unwrap();
    a.neighbour("eth0", "10.0.0.2".parse().unwrap(), b.mac("eth0").unwrap()).unwrap();
    (net, a, b)
}

/// What the port at `eth0` is.
fn port(multi_buffer: MultiBuffer) -> XdpPort {
    XdpPort::new("eth0", Steering::All).multi_buffer(multi_buffer)
}

/// A socket of `host` that asks 10.0.0.2. The kernel gives it what comes from there with the right checksums alone.
fn asking(host: &Host) -> UdpSocket {
    let socket = host
        .run(|| {
            let socket = UdpSocket::bind("10.0.0.1:0")?;
            socket.connect("10.0.0.2:9").map(|()| socket)
        })
        .unwrap()
        .unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    socket
}

/// The payload number `number`: its number first, and bytes that show when one is out of place.
fn payload(number: u32, len: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> =
        (0..len as u32).map(|at| (at.wrapping_mul(0x9e37_79b9).wrapping_add(number) >> 24) as u8).collect();
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    bytes
}

/// Sends a payload until it comes back, and compares every byte.
fn echoed(socket: &UdpSocket, number: u32, len: usize) {
    let (sent, deadline) = (payload(number, len), Instant::now() + PATIENCE);
    let mut buffer = vec![0; 1 << 16];
    loop {
        socket.send(&sent).unwrap();
        match socket.recv(&mut buffer) {
            Ok(count) if buffer[..4] == sent[..4] => {
                assert!(buffer[..count] == sent, "number {number}, {count} of {len} bytes");
                return;
            }
            // What was sent before, and late.
            Ok(_) => {}
            Err(error) => assert!(Instant::now() < deadline, "{len} bytes do not come back: {error}"),
        }
    }
}

/// Lengths of payloads around what one, two, three frames take, and all over.
fn lengths() -> impl Iterator<Item = usize> {
    let ends = (1..=5).flat_map(|frames| (0..3).map(move |more| frames * 1792 - 42 + more - 1));
    let all_over = (0..200usize).map(|number| 4 + number.wrapping_mul(2_654_435_761) % (LONGEST - 4));
    ends.chain([LONGEST, LONGEST - 1, 4, 18, 19]).chain(all_over).filter(|len| *len <= LONGEST)
}

#[test]
fn datagrams_of_all_lengths_come_back_whole() {
    if !is_known_to_the_kernel() {
        return;
    }
    let (_net, a, b) = jumbo_pair("afxjumbo", 1);
    for attach in [AttachMode::Native, AttachMode::Generic] {
        let builder = || Runtime::builder().port(port(MultiBuffer::Auto).attach_mode(attach));
        let running = start_on(&b, builder, |_| Answer).unwrap();
        let facts = &running.status()[0].facts;
        let says = "packets of up to 32256 bytes in 18 frames";
        assert!(facts.iter().any(|(name, value)| name == "queue 0" && value.contains(says)), "{facts:?}");
        let socket = asking(&a);
        for (number, len) in lengths().enumerate() {
            echoed(&socket, number as u32, len);
        }
        let counters = running.redirect_counters("eth0").unwrap();
        assert_eq!(counters.oversize, 0, "{counters:?}");
        let stats = running.stop().unwrap();
        assert_settled(&stats);
        // The ledger counts frames: more of them than packets.
        assert!(stats.workers[0].ledger.transmit.issued > 2 * stats.sent(), "{stats:?}");
        assert_untouched(&b, "eth0");
    }
}

#[test]
fn thousands_of_long_and_short_packets_are_whole_and_none_is_mixed_up() {
    if !is_known_to_the_kernel() {
        return;
    }
    let (_net, a, b) = jumbo_pair("afxjumbomix", 1);
    let builder = || Runtime::builder().port(port(MultiBuffer::Auto)).frame_size(4096);
    let running = start_on(&b, builder, |_| Answer).unwrap();
    let socket = asking(&a);
    socket.set_nonblocking(true).unwrap();
    let mut buffer = vec![0; 1 << 16];
    let (mut back, deadline) = (0, Instant::now() + PATIENCE);
    let length = |number: u32| match number % 3 {
        0 => 4 + number as usize % 1000,
        1 => LONGEST - number as usize % 2000,
        _ => 4 + number as usize * 7 % (LONGEST - 4),
    };
    // Many on their way at once, more than the rings take at times: what comes back is whole.
    let mut sent = 0;
    while back < 5000 {
        assert!(Instant::now() < deadline, "{back} of {sent} packets came back");
        for _ in 0..50 {
            if socket.send(&payload(sent, length(sent))).is_ok() {
                sent += 1;
            }
        }
        std::thread::sleep(Duration::from_micros(200));
        while let Ok(count) = socket.recv(&mut buffer) {
            let number = u32::from_be_bytes(buffer[..4].try_into().unwrap());
            assert!(buffer[..count] == payload(number, length(number)), "number {number}, {count} bytes");
            back += 1;
        }
    }
    let stats = running.stop().unwrap();
    assert_settled(&stats);
    assert_untouched(&b, "eth0");
}

/// Sends what comes in on one port out of the other.
struct Cable;

impl Stage for Cable {
    fn process(&mut self, batch: &mut Batch) {
        for slot in batch.live() {
            let mut packet = batch.packet(slot);
            let other = afx::PortId::new(1 - packet.ingress().index());
            packet.transmit(other);
        }
    }
}

#[test]
fn tcp_in_jumbo_frames_crosses_two_ports() {
    if !is_known_to_the_kernel() {
        return;
    }
    let net = Testbed::new("afxjumbotcp").unwrap();
    let [client, middle, server] = ["client", "middle", "server"].map(|name| net.host(name).unwrap());
    for (host, number, side) in [(&client, 1, "left"), (&server, 2, "right")] {
        let end =
            host.end("eth0").address(format!("10.0.0.{number}/24")).address(format!("fd00::{number}/64"));
        net.link(Link::between(end, middle.end(side)).mtu(MTU)).unwrap();
    }
    let builder = || {
        Runtime::builder()
            .port(XdpPort::new("left", Steering::All))
            .port(XdpPort::new("right", Steering::All))
    };
    let running = start_on(&middle, builder, |_| Cable).unwrap();
    // Not one fragment: don't fragment, and a payload that fills the MTU.
    for (address, len) in [("10.0.0.2", "8972"), ("fd00::2", "8952")] {
        let ping = client.command("ping").args(["-c", "3", "-i", "0.2", "-W", "30", "-M", "do"]);
        ping.args(["-s", len, address]).check().unwrap();
    }
    for address in ["10.0.0.2:80", "[fd00::2]:80"] {
        download(&client, &server, address);
    }
    let stats = running.stop().unwrap();
    // 8,000,000 bytes each way of addressing, in packets of several frames.
    let ledger = stats.workers[0].ledger;
    assert!(ledger.transmit.issued > stats.sent() + 16_000_000 / 8948 * 4, "{stats:?}");
    // None was copied on the way: what came in on the one left by the other in the very frames.
    if stats.dropped_total() == 0 {
        assert_eq!(ledger.transmit.issued, ledger.receive.returned);
    }
    assert_settled(&stats);
    assert_untouched(&middle, "left");
    assert_untouched(&middle, "right");
}

/// What a frame takes comes back; longer packets stay with the kernel and are counted.
fn long_packets_stay_with_the_kernel(name: &str, multi_buffer: MultiBuffer, says: Option<&str>) {
    let (_net, a, b) = jumbo_pair(name, 1);
    let running = start_on(&b, || Runtime::builder().port(port(multi_buffer)), |_| Answer).unwrap();
    let facts = &running.status()[0].facts;
    let (_, queue) = facts.iter().find(|(name, _)| name == "queue 0").unwrap();
    assert_eq!(queue.split_once("packets of up to ").map(|(_, what)| what), says, "{queue}");
    let kernels = b.run(|| UdpSocket::bind("10.0.0.2:9")).unwrap().unwrap();
    kernels.set_read_timeout(Some(PATIENCE)).unwrap();
    let socket = asking(&a);
    // 1792 bytes with all headers are what a frame takes.
    echoed(&socket, 1, 1792 - 42);
    let mut buffer = vec![0; 1 << 16];
    for (number, len) in [(2, 1792 - 41), (3, LONGEST)] {
        let sent = payload(number, len);
        socket.send(&sent).unwrap();
        let count = kernels.recv(&mut buffer).unwrap();
        assert!(buffer[..count] == sent, "{count} of {len} bytes");
    }
    let counters = running.redirect_counters("eth0").unwrap();
    assert_eq!(counters.oversize, 2, "{counters:?}");
    let stats = running.stop().unwrap();
    assert_settled(&stats);
    assert_untouched(&b, "eth0");
}

#[test]
fn switched_off_long_packets_stay_with_the_kernel() {
    long_packets_stay_with_the_kernel("afxjumbooff", MultiBuffer::Off, None);
}

#[test]
fn on_an_older_kernel_long_packets_stay_with_it() {
    if !is_known_to_the_kernel() {
        let says = "1792 bytes, since the kernel (before 6.6) takes no longer ones";
        long_packets_stay_with_the_kernel("afxjumboold", MultiBuffer::Auto, Some(says));
    }
}

#[test]
fn as_many_frames_as_the_kernel_sends_are_taken_and_no_more() {
    if !is_known_to_the_kernel() {
        return;
    }
    let (_net, a, b) = pair_with_mtu("afxjumbomost", 1, 40_000);
    let running = start_on(&b, || Runtime::builder().port(port(MultiBuffer::Auto)), |_| Answer).unwrap();
    let kernels = b.run(|| UdpSocket::bind("10.0.0.2:9")).unwrap().unwrap();
    kernels.set_read_timeout(Some(PATIENCE)).unwrap();
    let socket = asking(&a);
    let most = 18 * 1792 - 42;
    for (number, len) in [most - 1, most].into_iter().enumerate() {
        echoed(&socket, number as u32, len);
    }
    let longer = payload(7, most + 1);
    socket.send(&longer).unwrap();
    let mut buffer = vec![0; 1 << 16];
    let count = kernels.recv(&mut buffer).unwrap();
    assert!(buffer[..count] == longer, "{count} bytes");
    assert_eq!(running.redirect_counters("eth0").unwrap().oversize, 1);
    assert_settled(&running.stop().unwrap());
    assert_untouched(&b, "eth0");
}

#[test]
fn a_short_mtu_asks_for_none_of_it_unless_told() {
    let (_net, a, b) = pair("afxjumboshort", 1);
    a.neighbour("eth0", "10.0.0.2".parse().unwrap(), b.mac("eth0").unwrap()).unwrap();
    for (multi_buffer, has) in
        [(MultiBuffer::Auto, false), (MultiBuffer::On, true), (MultiBuffer::Off, false)]
    {
        let started = start_on(&b, || Runtime::builder().port(port(multi_buffer)), |_| Answer);
        if has && !is_known_to_the_kernel() {
            let error = format!("{:?}", started.map(drop).unwrap_err());
            assert!(error.contains("MultiBufferUnavailable"), "{error}");
            continue;
        }
        let running = started.unwrap();
        let facts = &running.status()[0].facts;
        assert_eq!(facts.iter().any(|(_, value)| value.contains("in 18 frames")), has, "{facts:?}");
        echoed(&asking(&a), 1, 1472);
        assert_settled(&running.stop().unwrap());
    }
    assert_untouched(&b, "eth0");
}

/// Hands over what the other worker is to answer, and answers what was handed over.
struct Elsewhere(WorkerId);

impl Stage for Elsewhere {
    fn process(&mut self, batch: &mut Batch) {
        for slot in batch.live() {
            if batch.packet(slot).origin().hops == 0 {
                batch.packet(slot).hand_over(self.0);
            } else {
                Answer::turn_round(batch, slot);
            }
        }
    }
}

#[test]
fn a_long_packet_is_handed_over_whole() {
    if !is_known_to_the_kernel() {
        return;
    }
    let (_net, a, b) = jumbo_pair("afxjumbohand", 2);
    let builder = || -> RuntimeBuilder { Runtime::builder().port(port(MultiBuffer::Auto)).workers(2) };
    let running =
        start_on(&b, builder, |build| Elsewhere(WorkerId::new(1 - build.worker().index()))).unwrap();
    let socket = asking(&a);
    for (number, len) in [1000, 1749, 1750, 1751, 1752, 4000, LONGEST].into_iter().enumerate() {
        echoed(&socket, number as u32, len);
    }
    wait_for("the counts", PATIENCE, || {
        running.stats().workers.iter().map(|worker| worker.taken_over).sum::<u64>() >= 7
    })
    .unwrap();
    let stats = running.stop().unwrap();
    assert!(stats.balanced(), "{stats:?}");
    assert_eq!(stats.dropped_total(), 0, "{:?}", stats.drops());
    assert_untouched(&b, "eth0");
}
