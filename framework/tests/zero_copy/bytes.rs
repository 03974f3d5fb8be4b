//! Packets of all lengths, byte by byte, from the far end's kernel.

use std::ops::RangeInclusive;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Instant;

use afx::Idle;
use afx::port::Mode;
use afx_testbed::Host;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType};
use nix::sys::socket::{bind, recv, send, setsockopt, socket, sockopt};
use nix::sys::time::TimeVal;

use crate::cable::{Cable, End, wait_for_link};
use crate::support::*;

/// An ethertype for experiments (IEEE 802): nothing else sends it.
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];

/// Bytes of a packet: all that Ethernet has.
const LENGTHS: RangeInclusive<usize> = 60..=1514;

/// How long an answer takes at most, mostly: then a packet is sent again.
const SOON: TimeVal = TimeVal::new(1, 0);

/// A socket that sends and receives whole Ethernet packets on `eth0` of a host.
fn packet_socket(host: &Host) -> OwnedFd {
    host.run(|| {
        let fd = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll);
        let fd = fd.unwrap();
        let mut interfaces =
            nix::ifaddrs::getifaddrs().unwrap().filter(|found| found.interface_name == "eth0");
        let address = interfaces.find_map(|found| found.address?.as_link_addr().copied()).unwrap();
        bind(fd.as_raw_fd(), &address).unwrap();
        setsockopt(&fd, sockopt::ReceiveTimeout, &SOON).unwrap();
        fd
    })
    .unwrap()
}

/// A packet of so many bytes, each of which the length and its place make out.
fn packet(len: usize, to: [u8; 6], from: [u8; 6]) -> Vec<u8> {
    let mut packet: Vec<u8> = (0..len).map(|index| (index * 7 + len) as u8).collect();
    packet[..6].copy_from_slice(&to);
    packet[6..12].copy_from_slice(&from);
    packet[12..14].copy_from_slice(&ETHERTYPE);
    packet
}

/// Sends packets of every length to a mirror, and compares what comes back. Cards that lose some are sent them again.
pub(crate) fn every_length(name: &str, cable: Cable, mode: Mode) {
    let hosts = Hosts::new(name);
    hosts.join(cable, "eth0");
    let mirror = hosts.start(|| one_port(mode, Idle::ADAPTIVE), || Mirror).unwrap();
    assert_mode(&mirror, mode);
    wait_for_link(&hosts.near, "eth0");
    wait_for_link(&hosts.far, "eth0");
    let wire = packet_socket(&hosts.far);
    let (here, there) = (cable.mac(End::Far), cable.mac(End::Near));
    let mut buffer = vec![0; 2048];
    let mut sent = 0;
    for len in LENGTHS {
        let deadline = Instant::now() + PATIENCE;
        let mut came_back = false;
        while !came_back {
            assert!(Instant::now() < deadline, "{len} bytes do not come back: {:?}", mirror.stats());
            // A link that is down takes nothing.
            sent += u64::from(send(wire.as_raw_fd(), &packet(len, there, here), MsgFlags::empty()).is_ok());
            while let Ok(count) = recv(wire.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                let answer = &buffer[..count];
                if count > 14 && answer[..6] == here && answer[12..14] == ETHERTYPE {
                    assert!(*answer == packet(count, here, there), "{count} of {len} bytes: {answer:02x?}");
                    came_back |= count == len;
                    // Those before may come late, and twice.
                    assert!(count <= len, "{count} bytes come back of {len}");
                    if came_back {
                        break;
                    }
                }
            }
        }
    }
    let stats = mirror.stop().unwrap();
    println!("{sent} packets sent of {} lengths in {mode} mode", LENGTHS.count());
    assert_eq!(stats.dropped_total(), 0, "{:?}", stats.drops());
    match cable {
        // When its link goes down, the driver of igb drops what it was to send without a word.
        Cable::Igb => assert!(stats.balanced(), "{stats:?}"),
        _ => assert_settled(&stats, &hosts.near, &["eth0"]),
    }
    assert_eq!(hosts.near.xdp_program("eth0").unwrap(), None);
}
