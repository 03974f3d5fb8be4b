//! Packets of all lengths, byte by byte, from the far end's kernel.

use std::os::fd::{AsRawFd, OwnedFd};

use afx::Idle;
use afx::port::Mode;
use afx_testbed::Host;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType};
use nix::sys::socket::{bind, recv, send, setsockopt, socket, sockopt};
use nix::sys::time::TimeVal;

use crate::cable::{Cable, End};
use crate::support::*;

/// An ethertype for experiments (IEEE 802): nothing else sends it.
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];

/// A socket that sends and receives whole Ethernet packets on `eth0` of a host.
fn packet_socket(host: &Host) -> OwnedFd {
    host.run(|| {
        let fd = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll);
        let fd = fd.unwrap();
        let mut interfaces =
            nix::ifaddrs::getifaddrs().unwrap().filter(|found| found.interface_name == "eth0");
        let address = interfaces.find_map(|found| found.address?.as_link_addr().copied()).unwrap();
        bind(fd.as_raw_fd(), &address).unwrap();
        setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::new(PATIENCE.as_secs() as i64, 0)).unwrap();
        fd
    })
    .unwrap()
}

/// Sends packets of many lengths to a mirror, and compares what comes back.
pub(crate) fn every_length(name: &str, mode: Mode) {
    let hosts = Hosts::new(name);
    hosts.join(Cable::First, "eth0");
    let mirror = hosts.start(|| one_port(mode, Idle::ADAPTIVE), || Mirror).unwrap();
    assert_mode(&mirror, mode);
    let wire = packet_socket(&hosts.far);
    let (here, there) = (Cable::First.mac(End::Far), Cable::First.mac(End::Near));
    let mut buffer = vec![0; 2048];
    let lengths = [60, 61, 64, 65, 127, 128, 333, 1000, 1024, 1513, 1514];
    for len in lengths {
        let mut packet: Vec<u8> = (0..len).map(|index| (index * 7 + len) as u8).collect();
        packet[..6].copy_from_slice(&there);
        packet[6..12].copy_from_slice(&here);
        packet[12..14].copy_from_slice(&ETHERTYPE);
        assert_eq!(send(wire.as_raw_fd(), &packet, MsgFlags::empty()).unwrap(), len);
        let answer = loop {
            let received = recv(wire.as_raw_fd(), &mut buffer, MsgFlags::empty());
            let count = received.expect("the packet comes back");
            if count > 14 && buffer[..6] == here && buffer[12..14] == ETHERTYPE {
                break &buffer[..count];
            }
        };
        packet[..6].copy_from_slice(&here);
        packet[6..12].copy_from_slice(&there);
        assert!(answer == packet, "{len} bytes: {answer:02x?}");
    }
    let stats = mirror.stop().unwrap();
    assert!(stats.sent() >= lengths.len() as u64);
    assert_settled(&stats, &hosts.near, &["eth0"]);
}
