//! Packets that come in tunnels to the balancer itself, and packets that leave in UDP.

use std::net::{IpAddr, SocketAddr};

use afx::packet::{Builder, Protocol, TcpFlags, VlanTag};
use afx::stage::balancer::{Forwarding, VipOptions};

use crate::lab::{Lab, Real, Setup, vip};
use crate::outer::Outer;
use crate::packets::{tcp, udp, written};

const VIP4: &str = "198.51.100.10:443";
const VIP6: &str = "[2001:db8::10]:443";
const END4: &str = "10.9.9.9";
const END6: &str = "fd00:9::9";

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn setup() -> Setup {
    let reals = || vec![Real::new("10.0.0.11"), Real::new("fd00::11")];
    let decapsulate = vec![END4.parse().unwrap(), END6.parse().unwrap()];
    Setup {
        decapsulate,
        ..Setup::new([
            (vip(VIP4, Protocol::TCP), reals()),
            (vip(VIP6, Protocol::TCP), vec![Real::new("fd00::11")]),
        ])
    }
}

fn syn4(ttl: u8) -> Vec<u8> {
    written(&Builder::tcp(address("192.0.2.77:4000"), address(VIP4)).flags(TcpFlags::SYN).ttl(ttl), b"")
}

fn syn6(hop_limit: u8) -> Vec<u8> {
    let builder = Builder::tcp(address("[2001:db8:c::77]:4000"), address(VIP6));
    written(&builder.flags(TcpFlags::SYN).ttl(hop_limit), b"")
}

/// An IP packet (without link header) in IPIP or, if there is a port, in UDP.
fn wrapped(ip: &[u8], to: &str, port: Option<u16>) -> Wrapped {
    let to: IpAddr = to.parse().unwrap();
    let from: IpAddr = if to.is_ipv4() { [10, 1, 1, 1].into() } else { [0xfd00, 1, 0, 0, 0, 0, 0, 1].into() };
    match port {
        Some(port) => {
            Wrapped(Builder::udp(SocketAddr::new(from, 0xc123), SocketAddr::new(to, port)), ip.to_vec())
        }
        None => {
            let protocol = if ip[0] >> 4 == 4 { Protocol::IPV4 } else { Protocol::IPV6 };
            Wrapped(Builder::ip(from, to, protocol), ip.to_vec())
        }
    }
}

/// A packet around another.
struct Wrapped(Builder, Vec<u8>);

impl Wrapped {
    fn bytes(&self) -> Vec<u8> {
        written(&self.0, &self.1)
    }
}

/// The inner packet as it is when it leaves: one hop further.
fn one_hop_further(packet: &[u8]) -> Vec<u8> {
    if packet[14] >> 4 == 4 { syn4(packet[22] - 1) } else { syn6(packet[21] - 1) }
}

#[test]
fn a_packet_in_a_tunnel_is_taken_out_and_balanced() {
    let mut lab = Lab::new(&setup());
    let mut sent = 0;
    for packet in [syn4(64), syn6(2)] {
        let direct = lab.exchange([one_hop_further(&packet)]);
        for to in [END4, END6] {
            for port in [None, Some(6080)] {
                let outer = wrapped(&packet[14..], to, port);
                let mut tagged = written(&outer.0.vlan(VlanTag(9)), &outer.1);
                // And padding, which is nobody's.
                tagged.resize(tagged.len() + 7, 0xee);
                // As if it had come so: the same flow, so the same real and outer header.
                assert_eq!(lab.exchange([outer.bytes()]), direct, "{to} {port:?}");
                assert_eq!(lab.exchange([tagged]), direct, "{to} {port:?}");
                sent += 2;
            }
        }
    }
    lab.worker.drain();
    assert_eq!(lab.monitor.work().decapsulated, sent);
    assert_eq!(lab.finish().dropped_total(), 0);
}

#[test]
fn what_is_in_no_tunnel_to_the_balancer_stays_as_it_is() {
    let mut setup = setup();
    // A VIP whose datagrams look as if they were in a tunnel, and are not.
    setup
        .vips
        .extend(Setup::new([("198.51.100.20:*/udp".parse().unwrap(), vec![Real::new("10.0.0.12")])]).vips);
    let mut lab = Lab::new(&setup);
    let inner = &syn4(64)[14..];
    let gue = wrapped(inner, "198.51.100.20", Some(6080)).bytes();
    let out = lab.exchange([&gue]);
    assert_eq!(Outer::decode(&out[0]).inner, gue[14..]);
    let others = [
        wrapped(inner, "198.51.100.10", None).bytes(),
        wrapped(inner, "10.9.9.8", None).bytes(),
        wrapped(inner, END4, Some(6081)).bytes(),
        udp(address("10.1.1.1:9"), SocketAddr::new(END4.parse().unwrap(), 6080), b""),
        udp(address("10.1.1.1:9"), SocketAddr::new(END4.parse().unwrap(), 6080), b"?"),
    ];
    assert_eq!(lab.exchange(others), Vec::<Vec<u8>>::new());
    lab.worker.drain();
    assert_eq!(lab.monitor.work().decapsulated, 0);
    assert_eq!(lab.finish().drops(), [("balancer.no_vip", 5)]);
}

#[test]
fn what_is_wrong_with_the_inner_packet_is_said() {
    let cut = &syn4(64)[14..50];
    let other = tcp(address("192.0.2.77:4000"), address("198.51.100.11:443"), TcpFlags::SYN);
    let fragment = Builder::ip([192, 0, 2, 77].into(), [198, 51, 100, 10].into(), Protocol::TCP);
    let fragment = written(&fragment.fragment(3, 80, false), b"the rest");
    let mut options = syn4(64);
    options.splice(34..34, [1; 4]);
    (options[14], options[17]) = (0x46, 44);
    let twice = wrapped(&wrapped(&syn4(64)[14..], END4, None).bytes()[14..], END4, Some(6080));
    let cases = [
        ("parse.ipv4_total_length", wrapped(cut, END4, None).bytes()),
        ("balancer.ttl_exceeded", wrapped(&syn4(1)[14..], END4, None).bytes()),
        ("balancer.ttl_exceeded", wrapped(&syn4(0)[14..], END6, Some(6080)).bytes()),
        ("balancer.ttl_exceeded", wrapped(&syn6(1)[14..], END4, Some(6080)).bytes()),
        ("balancer.no_vip", wrapped(&other[14..], END4, None).bytes()),
        ("balancer.fragment", wrapped(&fragment[14..], END4, None).bytes()),
        ("balancer.ip_options", wrapped(&options[14..], END4, None).bytes()),
        // Taken out once, and then there is an IPIP packet, which is for no VIP.
        ("balancer.no_vip", twice.bytes()),
        // A fragment of the tunnel: there is half a packet in it.
        ("balancer.fragment", written(&wrapped(cut, END4, None).0.fragment(3, 0, true), &syn4(64)[14..54])),
    ];
    for (reason, packet) in cases {
        let mut lab = Lab::new(&setup());
        assert_eq!(lab.exchange([&packet]), Vec::<Vec<u8>>::new(), "{reason}: {packet:02x?}");
        assert_eq!(lab.finish().drops(), [(reason, 1)], "{packet:02x?}");
    }
}

#[test]
fn the_inner_packet_s_ping_is_answered() {
    let setup = setup().options(VipOptions { answer_echo: true, ..VipOptions::default() });
    let mut lab = Lab::new(&setup);
    let ping = written(&Builder::echo([192, 0, 2, 77].into(), [198, 51, 100, 10].into(), 1, 2), b"data");
    let direct = lab.exchange([&ping]);
    assert_eq!(direct.len(), 1);
    assert_eq!(lab.exchange([wrapped(&ping[14..], END6, None).bytes()]), direct);
    lab.finish();
}

#[test]
fn gue_s_port_is_the_one_that_packets_are_sent_to() {
    let forwarding = Forwarding::Gue { source_v4: None, source_v6: None, port: 9886 };
    let mut lab = Lab::new(&Setup { forwarding, ..setup() });
    let packet = syn4(9);
    assert_eq!(lab.exchange([wrapped(&packet[14..], END4, Some(6080)).bytes()]), Vec::<Vec<u8>>::new());
    let out = lab.exchange([wrapped(&packet[14..], END4, Some(9886)).bytes()]);
    let outer = Outer::decode(&out[0]);
    assert_eq!(outer.inner, one_hop_further(&packet)[14..]);
    assert_eq!(outer.ports.map(|(_, to)| to), Some(9886));
    lab.finish();
}

#[test]
fn flows_in_udp_leave_from_many_ports_and_one_flow_from_one() {
    let forwarding = Forwarding::Gue { source_v4: None, source_v6: None, port: 6080 };
    let mut lab = Lab::new(&Setup { forwarding, ..setup() });
    let packet = |number: u16, flags| tcp(SocketAddr::from(([192, 0, 2, 77], number)), address(VIP4), flags);
    let port = |lab: &mut Lab, packet: Vec<u8>| {
        let outer = Outer::decode(&lab.exchange([packet])[0]);
        (outer.ports.unwrap().0, outer.destination.is_ipv4())
    };
    let ports: Vec<_> = (1..200).map(|number| port(&mut lab, packet(number, TcpFlags::SYN))).collect();
    for (number, before) in (1..200).zip(&ports) {
        assert_eq!(port(&mut lab, packet(number, TcpFlags::ACK)), *before);
    }
    assert!(ports.iter().all(|(port, _)| *port >= 0xc000));
    assert!(ports.iter().any(|(_, v4)| *v4) && ports.iter().any(|(_, v4)| !*v4));
    let distinct: std::collections::BTreeSet<_> = ports.iter().collect();
    assert!(distinct.len() > 150, "{} of 199", distinct.len());
    lab.finish();
}

#[test]
fn a_packet_of_several_segments_is_summed_whole() {
    let forwarding = Forwarding::Gue { source_v4: None, source_v6: None, port: 6080 };
    let mut setup = Setup { forwarding, ..setup() };
    setup.vips[1].reals[0].mtu = Some(9000);
    let mut lab = Lab::new(&setup);
    // An odd number of bytes in each.
    lab.peer.segment_at(701);
    let mut packet = vec![0; 5000];
    let payload: Vec<u8> = (0..3001).map(|at| (at * 31) as u8).collect();
    let builder = Builder::tcp(address("[2001:db8:c::77]:4000"), address(VIP6)).flags(TcpFlags::SYN);
    let len = builder.write(&mut packet, &payload).unwrap();
    packet.truncate(len);
    let out = lab.exchange([&packet]);
    assert_eq!(Outer::decode(&out[0]).inner, packet[14..]);
    lab.finish();
}
