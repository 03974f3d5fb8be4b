//! What the card knows of packets reaches the stage: the hash, and the VLAN tag that it took off. A veth has no clock.

use std::net::UdpSocket;
use std::sync::{Arc, Mutex};

use afx::packet::{EtherType, Ethernet, Protocol, VlanTag, flow_key};
use afx::port::{AttachMode, Coexist, RxMetadata, Steering, XdpPort};
use afx::worker::Build;
use afx::{Batch, Reason, Running, Runtime, Stage, Time};
use afx_redirect::Attached;
use afx_redirect::testing::{OtherProgram, tag_what_leaves};
use afx_testbed::{Host, Link, Testbed, wait_for, wait_for_some};

use crate::kernel_is_at_least;
use crate::steering::udp_port;
use crate::support::*;

/// What was known of one UDP packet.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    source_port: u16,
    payload: Vec<u8>,
    hash: Option<u32>,
    timestamp: Option<Time>,
    vlan: Option<(EtherType, VlanTag)>,
    /// The tag in the packet's bytes.
    tag: Option<VlanTag>,
}

type Log = Arc<Mutex<Vec<Seen>>>;

/// Writes down what is known of UDP packets to port 4433 or 4434, and drops all.
struct Record {
    log: Log,
    seen: Reason,
}

impl Record {
    fn new(build: &mut Build<'_>, log: &Log) -> Self {
        Self { log: log.clone(), seen: build.drop_reason("record.seen", "The packet was written down.") }
    }
}

impl Stage for Record {
    fn process(&mut self, batch: &mut Batch) {
        for slot in batch.live() {
            let bytes: Vec<u8> = batch.segments(slot).flatten().copied().collect();
            let mut packet = batch.packet(slot);
            packet.drop(self.seen);
            let Ok(parsed) = packet.parsed() else { continue };
            let Some(flow) = flow_key(packet.bytes(), &parsed) else { continue };
            if parsed.protocol() != Some(Protocol::UDP) || ![4433, 4434].contains(&flow.destination_port()) {
                continue;
            }
            let tag = Ethernet::new_checked(packet.bytes()).unwrap().vlan();
            // Ethernet, its tag, IPv4 and UDP.
            let payload = bytes[14 + tag.map_or(0, |_| 4) + 20 + 8..].to_vec();
            let hash = packet.rx_hash().map(|hash| hash.value);
            let (timestamp, vlan) = (packet.timestamp(), packet.vlan());
            let source_port = flow.source_port();
            self.log.lock().unwrap().push(Seen { source_port, payload, hash, timestamp, vlan, tag });
        }
    }
}

/// The port at `eth0`.
fn port(rx_metadata: RxMetadata) -> XdpPort {
    XdpPort::new("eth0", Steering::All).rx_metadata(rx_metadata)
}

/// Whether the kernel has it at all: from Linux 6.3 on.
fn is_known_to_the_kernel() -> bool {
    kernel_is_at_least((6, 3))
}

/// Runs [`Record`] on a host.
fn recording(host: &Host, port: XdpPort) -> (afx::Result<Running>, Log) {
    let log = Log::default();
    let of_stage = log.clone();
    let running =
        start_on(host, || Runtime::builder().port(port), move |build| Record::new(build, &of_stage));
    (running, log)
}

/// Two hosts whose kernels need not ask for each other's address.
fn acquainted(name: &str, mtu: u32) -> (Testbed, Host, Host) {
    let net = Testbed::new(name).unwrap();
    let (a, b) = (net.host("a").unwrap(), net.host("b").unwrap());
    let link = Link::between(a.end("eth0").address("10.0.0.1/24"), b.end("eth0").address("10.0.0.2/24"));
    net.link(link.mtu(mtu)).unwrap();
    a.neighbour("eth0", "10.0.0.2".parse().unwrap(), b.mac("eth0").unwrap()).unwrap();
    (net, a, b)
}

fn socket(host: &Host, address: &str) -> UdpSocket {
    host.run(|| UdpSocket::bind((address, 0))).unwrap().unwrap()
}

/// Sends a payload until it is seen.
fn seen(log: &Log, socket: &UdpSocket, to: &str, payload: &[u8]) -> Seen {
    let source_port = socket.local_addr().unwrap().port();
    wait_for_some("the packet", PATIENCE, || {
        socket.send_to(payload, to).unwrap();
        let log = log.lock().unwrap();
        log.iter().find(|seen| seen.source_port == source_port && seen.payload == payload).cloned()
    })
    .unwrap()
}

/// What the port's status says of metadata.
fn said(running: &Running) -> Option<String> {
    let status = running.status();
    let fact = status[0].facts.iter().find(|(name, _)| name == "RX metadata");
    fact.map(|(_, what)| what.clone())
}

fn stop(running: Running, host: &Host) {
    let stats = running.stop().unwrap();
    assert_settled(&stats);
    assert_untouched(host, "eth0");
}

#[test]
fn a_stage_is_told_the_hash_of_each_flow() {
    if !is_known_to_the_kernel() {
        return;
    }
    let (_net, a, b) = acquainted("afxmetahash", 1500);
    let (running, log) = recording(&b, port(RxMetadata::On));
    let running = running.unwrap();
    let what = said(&running).expect("it is asked for");
    assert!(what.contains("hash") || what.contains("does not say"), "{what}");
    let sockets: Vec<_> = (0..8).map(|_| socket(&a, "10.0.0.1")).collect();
    let hashes: Vec<_> = sockets
        .iter()
        .map(|socket| {
            let [one, other] = [b"one".as_slice(), b"another"].map(|payload| {
                let seen = seen(&log, socket, "10.0.0.2:4433", payload);
                assert_eq!((seen.timestamp, seen.vlan, seen.tag), (None, None, None));
                seen.hash.expect("veth knows a hash")
            });
            assert_eq!(one, other, "a flow has one hash");
            one
        })
        .collect();
    assert!(hashes.iter().any(|hash| *hash != hashes[0]), "flows differ: {hashes:?}");
    // Every packet has a note of its own, however many come at once.
    for _ in 0..50 {
        sockets.iter().for_each(|socket| drop(socket.send_to(b"many", "10.0.0.2:4433")));
    }
    let ports: Vec<_> = sockets.iter().map(|socket| socket.local_addr().unwrap().port()).collect();
    let many = || {
        let log = log.lock().unwrap();
        log.iter().filter(|seen| seen.payload == b"many").cloned().collect::<Vec<_>>()
    };
    wait_for("many packets", PATIENCE, || many().len() >= 400).unwrap();
    for seen in many() {
        let flow = ports.iter().position(|port| *port == seen.source_port).unwrap();
        assert_eq!(seen.hash, Some(hashes[flow]), "{seen:?}");
    }
    stop(running, &b);
}

#[test]
fn a_stage_is_told_the_tag_that_is_no_longer_in_the_packet() {
    if !is_known_to_the_kernel() {
        return;
    }
    let (_net, a, b) = acquainted("afxmetavlan", 1500);
    let (running, log) = recording(&b, port(RxMetadata::On));
    let running = running.unwrap();
    let socket = socket(&a, "10.0.0.1");
    let untagged = seen(&log, &socket, "10.0.0.2:4433", b"bare");
    assert_eq!((untagged.vlan, untagged.tag), (None, None));
    let tag = VlanTag(0x6007);
    a.run(|| tag_what_leaves(a.interface_index("eth0").unwrap(), tag.0)).unwrap().unwrap();
    // Known from Linux 6.8 on.
    if said(&running).unwrap().contains("VLAN tag") {
        let seen = seen(&log, &socket, "10.0.0.2:4433", b"taken off");
        assert_eq!((seen.vlan, seen.tag), (Some((EtherType::VLAN, tag)), None));
    }
    a.command("ethtool").args(["-K", "eth0", "txvlan", "off"]).check().unwrap();
    let left = seen(&log, &socket, "10.0.0.2:4433", b"left");
    assert_eq!((left.vlan, left.tag), (None, Some(tag)));
    stop(running, &b);
}

#[test]
fn a_packet_of_several_frames_has_its_note_and_every_byte() {
    // A program that is bound to a device takes packets of several frames from Linux 6.7 on.
    if !kernel_is_at_least((6, 7)) {
        return;
    }
    let (_net, a, b) = acquainted("afxmetajumbo", 9000);
    let (running, log) = recording(&b, port(RxMetadata::Auto));
    let running = running.unwrap();
    let socket = socket(&a, "10.0.0.1");
    for len in [1, 1700, 1750, 1800, 3600, 8972] {
        let payload: Vec<u8> = (0..len).map(|at| (at * 7 + len) as u8).collect();
        let seen = seen(&log, &socket, "10.0.0.2:4433", &payload);
        assert!(seen.hash.is_some(), "{len} bytes: {:?}", said(&running));
    }
    stop(running, &b);
}

#[test]
fn other_steering_keeps_it() {
    if !is_known_to_the_kernel() {
        return;
    }
    let (_net, a, b) = acquainted("afxmetasteer", 1500);
    let port = XdpPort::new("eth0", udp_port(4433)).rx_metadata(RxMetadata::On);
    let (running, log) = recording(&b, port);
    let running = running.unwrap();
    let socket = socket(&a, "10.0.0.1");
    let hash = seen(&log, &socket, "10.0.0.2:4433", b"before").hash;
    assert!(hash.is_some());
    // From a thread that is not in the interface's network namespace.
    for (steering, to) in [(udp_port(4434), "10.0.0.2:4434"), (Steering::All, "10.0.0.2:4433")] {
        running.steer("eth0", &steering).unwrap();
        assert!(seen(&log, &socket, to, to.as_bytes()).hash.is_some());
    }
    stop(running, &b);
}

#[test]
fn unless_asked_for_nothing_is_told() {
    let (_net, a, b) = acquainted("afxmetaoff", 1500);
    let (running, log) = recording(&b, port(RxMetadata::Off));
    let running = running.unwrap();
    assert_eq!(said(&running), None);
    assert_eq!(seen(&log, &socket(&a, "10.0.0.1"), "10.0.0.2:4433", b"bare").hash, None);
    stop(running, &b);
}

#[test]
fn where_it_cannot_be_had_the_port_goes_without_and_says_so_unless_it_is_demanded() {
    let (_net, a, b) = acquainted("afxmetanone", 1500);
    let refused = |port: XdpPort, expected: &str| {
        let error = recording(&b, port).0.err().expect("it is demanded");
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(error) = source {
            text = format!("{text}: {error}");
            source = error.source();
        }
        assert!(text.contains("gives no metadata") && text.contains(expected), "{text}");
    };

    // Generic mode.
    let generic = |rx_metadata| port(rx_metadata).attach_mode(AttachMode::Generic);
    refused(generic(RxMetadata::On), "generic mode has none");
    assert_untouched(&b, "eth0");
    let (running, log) = recording(&b, generic(RxMetadata::Auto));
    let running = running.unwrap();
    assert_eq!(said(&running).unwrap(), "not available: generic mode has none: native mode does");
    assert_eq!(seen(&log, &socket(&a, "10.0.0.1"), "10.0.0.2:4433", b"generic").hash, None);
    stop(running, &b);

    // A driver without, which says so from Linux 6.7 on.
    if kernel_is_at_least((6, 7)) {
        b.ip("link add bridge0 type bridge").unwrap();
        b.ip("link set bridge0 up").unwrap();
        refused(XdpPort::new("bridge0", Steering::All).rx_metadata(RxMetadata::On), "the driver has none");
        assert_untouched(&b, "bridge0");
    }

    // Another program that is chained.
    let other = OtherProgram::load(false).unwrap();
    b.run(|| other.attach(b.interface_index("eth0").unwrap(), Attached::Native)).unwrap().unwrap();
    let before = b.xdp_program("eth0").unwrap();
    let chained = |rx_metadata| port(rx_metadata).coexist(Coexist::Chain);
    refused(chained(RxMetadata::On), "another program is chained");
    assert_eq!(b.xdp_program("eth0").unwrap(), before);
    let (running, log) = recording(&b, chained(RxMetadata::Auto));
    let running = running.unwrap();
    assert!(said(&running).unwrap().starts_with("not available: another program is chained"));
    assert_eq!(seen(&log, &socket(&a, "10.0.0.1"), "10.0.0.2:4433", b"chained").hash, None);
    assert_settled(&running.stop().unwrap());
    assert_eq!(b.xdp_program("eth0").unwrap(), before);
}

#[test]
fn the_example_counts_what_each_packet_had() {
    if !is_known_to_the_kernel() {
        return;
    }
    let (_net, a, b) = acquainted("exmetadata", 1500);
    let process = b.command(example("rx_metadata")).arg("eth0").spawn().unwrap();
    process.wait_for_output("RX metadata", PATIENCE).unwrap();
    let socket = socket(&a, "10.0.0.1");
    wait_for("a hash", PATIENCE, || {
        socket.send_to(b"hello", "10.0.0.2:4433").unwrap();
        process.stdout().contains("hash 0x")
    })
    .unwrap();
    process.signal(afx_testbed::Signal::SIGINT).unwrap();
    assert!(process.wait().unwrap().success(), "{}", process.stderr());
    assert!(process.stdout().contains(" with a hash, 0 with a timestamp, "), "{}", process.stdout());
    assert_untouched(&b, "eth0");
}
