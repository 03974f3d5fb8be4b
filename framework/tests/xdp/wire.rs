//! Packets on the wire, byte by byte.

use std::net::UdpSocket;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use afx::port::{Steering, XdpPort};
use afx::{Idle, Runtime};
use afx_testbed::{Host, wait_for};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType};
use nix::sys::socket::{bind, recv, send, setsockopt, socket, sockopt};
use nix::sys::time::TimeVal;

use crate::support::*;

/// A socket that sends and receives whole Ethernet packets on `eth0` of a host.
fn packet_socket(host: &Host) -> OwnedFd {
    host.run(|| {
        let fd = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll);
        let fd = fd.unwrap();
        let interfaces = nix::ifaddrs::getifaddrs().unwrap();
        let address = interfaces
            .filter(|found| found.interface_name == "eth0")
            .find_map(|found| found.address?.as_link_addr().copied())
            .unwrap();
        bind(fd.as_raw_fd(), &address).unwrap();
        setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::new(60, 0)).unwrap();
        fd
    })
    .unwrap()
}

#[test]
fn every_byte_comes_back() {
    let (_net, a, b) = pair("afxecho", 1);
    let running = start_on(&b, all_of_eth0, |_| Mirror).unwrap();
    let facts = &running.status()[0].facts;
    assert!(facts.iter().any(|(name, value)| name == "queue 0" && value.contains("copy")), "{facts:?}");

    let wire = packet_socket(&a);
    let mut buffer = vec![0; 2048];
    let (here, there) = ([2, 0, 0, 0, 9, 1], [2, 0, 0, 0, 9, 2]);
    for len in [60, 61, 64, 65, 333, 1000, 1513, 1514] {
        let mut packet: Vec<u8> = (0..len).map(|index| (index * 7 + len) as u8).collect();
        packet[..6].copy_from_slice(&there);
        packet[6..12].copy_from_slice(&here);
        packet[12..14].copy_from_slice(&[0x88, 0xb5]);
        assert_eq!(send(wire.as_raw_fd(), &packet, MsgFlags::empty()).unwrap(), len);
        let answer = loop {
            let count =
                recv(wire.as_raw_fd(), &mut buffer, MsgFlags::empty()).expect("the packet comes back");
            if count > 14 && buffer[..6] == here && buffer[12..14] == [0x88, 0xb5] {
                break &buffer[..count];
            }
        };
        packet[..6].copy_from_slice(&here);
        packet[6..12].copy_from_slice(&there);
        assert_eq!(answer, packet);
    }
    let stats = running.stop().unwrap();
    assert_settled(&stats);
    assert!(stats.sent() >= 8);
    assert_untouched(&b, "eth0");
}

#[test]
fn two_workers_share_an_interface_of_two_queues() {
    let (_net, a, b) = pair("afxqueues", 2);
    a.neighbour("eth0", "10.0.0.2".parse().unwrap(), b.mac("eth0").unwrap()).unwrap();
    let running = start_on(&b, || all_of_eth0().workers(2), |_| Mirror).unwrap();
    // veth picks the queue by the flow: of so many flows each queue has some.
    let sockets: Vec<_> =
        a.run(|| (0..32).map(|_| UdpSocket::bind("10.0.0.1:0").unwrap()).collect()).unwrap();
    let each = || running.stats().workers.iter().map(|worker| worker.queues[0].sent).collect::<Vec<_>>();
    wait_for("packets on both queues", PATIENCE, || {
        sockets.iter().for_each(|socket| drop(socket.send_to(b"hello", "10.0.0.2:9")));
        each().iter().all(|sent| *sent > 100)
    })
    .unwrap();
    let stats = running.stop().unwrap();
    let queues: Vec<_> = stats.queues().map(|queue| (queue.port.as_str(), queue.queue)).collect();
    assert_eq!(queues, [("eth0", 0), ("eth0", 1)]);
    assert_settled(&stats);
    assert_untouched(&b, "eth0");
}

#[test]
fn an_idle_worker_sleeps_and_wakes_for_a_packet() {
    let (_net, a, b) = pair("afxsleep", 1);
    a.neighbour("eth0", "10.0.0.2".parse().unwrap(), b.mac("eth0").unwrap()).unwrap();
    let builder =
        || Runtime::builder().port(XdpPort::new("eth0", Steering::All)).idle(Idle::Adaptive { turns: 10 });
    let running = start_on(&b, builder, |_| Mirror).unwrap();
    let worker = || running.stats().workers.remove(0);
    wait_for("sleep", PATIENCE, || worker().sleeps > 20).unwrap();
    let (before, received) = (worker(), running.stats().received());
    let socket = a.run(|| UdpSocket::bind("10.0.0.1:0")).unwrap().unwrap();
    for _ in 0..10 {
        socket.send_to(b"wake up", "10.0.0.2:9").unwrap();
        std::thread::sleep(Duration::from_millis(5));
    }
    wait_for("the packets", PATIENCE, || running.stats().received() >= received + 10).unwrap();
    wait_for("more sleep", PATIENCE, || worker().sleeps > before.sleeps + 20).unwrap();
    let stats = running.stop().unwrap();
    // Asleep, it turns a few times per nap, not as fast as it can.
    let (worker, turns) = (&stats.workers[0], stats.workers[0].turns);
    assert!(turns < 100 * (worker.sleeps + 10), "{turns} turns, {} naps", worker.sleeps);
    assert_settled(&stats);
    assert_untouched(&b, "eth0");
}
