//! Which real a packet goes to: hashing, states, sources, and packets that name their real.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use afx::packet::{Builder, Protocol, TcpFlags};
use afx::stage::balancer::{HashOn, RealState, ServerIdIn, Vip, VipOptions};

use crate::lab::{Lab, Real, Setup, vip};
use crate::outer::Outer;
use crate::packets::{tcp, too_big, udp, with_tcp_option};

const VIP: &str = "198.51.100.10:443";
const REALS: [&str; 4] = ["10.0.0.11", "10.0.0.12", "10.0.0.13", "10.0.0.14"];

fn to_vip() -> SocketAddr {
    VIP.parse().unwrap()
}

fn client(number: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], 10_000 + number))
}

/// The real that a packet goes to; none if it is dropped.
fn real_of(lab: &mut Lab, packet: &[u8]) -> Option<IpAddr> {
    let out = lab.exchange([packet]);
    out.first().map(|packet| Outer::decode(packet).destination)
}

fn reals() -> Vec<Real> {
    REALS.map(Real::new).into()
}

fn setup(protocol: Protocol, options: VipOptions) -> Setup {
    Setup::new([(vip(VIP, protocol), reals())]).options(options)
}

/// The same with one real in another state.
fn with_state(setup: &Setup, real: IpAddr, state: RealState) -> Setup {
    let mut setup = setup.clone();
    for of in setup.vips.iter_mut().flat_map(|served| &mut served.reals).filter(|of| of.address == real) {
        of.state = state;
    }
    setup
}

fn syn(number: u16) -> Vec<u8> {
    tcp(client(number), to_vip(), TcpFlags::SYN)
}

fn ack(number: u16) -> Vec<u8> {
    tcp(client(number), to_vip(), TcpFlags::ACK)
}

fn datagram(number: u16) -> Vec<u8> {
    udp(client(number), to_vip(), b"?")
}

#[test]
fn a_client_has_one_real_where_sources_are_hashed() {
    let options = VipOptions { hash: HashOn::Source, ..VipOptions::default() };
    let mut lab = Lab::new(&setup(Protocol::TCP, options));
    let real_of_client = |lab: &mut Lab, last: u8| -> BTreeSet<_> {
        let syn = |port: u16| tcp(SocketAddr::from(([192, 0, 2, last], port)), to_vip(), TcpFlags::SYN);
        (0..20).filter_map(|port| real_of(lab, &syn(20_000 + port))).collect()
    };
    let of_each: Vec<_> = (1..40).map(|last| real_of_client(&mut lab, last)).collect();
    assert!(of_each.iter().all(|reals| reals.len() == 1));
    let all: BTreeSet<_> = of_each.into_iter().flatten().collect();
    assert_eq!(all.len(), REALS.len(), "and different clients different ones");
    lab.finish();
}

#[test]
fn a_port_has_one_real_where_destination_ports_are_hashed() {
    let any: Vip = "198.51.100.10:*/tcp".parse().unwrap();
    let options = VipOptions { hash: HashOn::DestinationPort, ..VipOptions::default() };
    let mut lab = Lab::new(&Setup::new([(any, reals())]).options(options));
    let real_of_port = |lab: &mut Lab, port: u16| -> BTreeSet<_> {
        let to = SocketAddr::new(to_vip().ip(), port);
        let syn = |number| tcp(client(number), to, TcpFlags::SYN);
        (0..20).filter_map(|number| real_of(lab, &syn(number))).collect()
    };
    let of_each: Vec<_> = (1000..1040).map(|port| real_of_port(&mut lab, port)).collect();
    assert!(of_each.iter().all(|reals| reals.len() == 1));
    assert_eq!(of_each.into_iter().flatten().collect::<BTreeSet<_>>().len(), REALS.len());
    lab.finish();
}

#[test]
fn a_real_that_drains_keeps_its_flows_and_gets_no_new_ones() {
    let up = setup(Protocol::TCP, VipOptions::default());
    let mut lab = Lab::new(&up);
    let before: Vec<_> = (0..50).map(|number| real_of(&mut lab, &syn(number)).unwrap()).collect();
    let drained = before[0];
    lab.reload(&with_state(&up, drained, RealState::Draining));
    for (number, real) in (0..).zip(&before) {
        assert_eq!(real_of(&mut lab, &ack(number)), Some(*real));
        // Even a SYN again: it is of a flow that is known.
        assert_eq!(real_of(&mut lab, &syn(number)), Some(*real));
    }
    assert!((50..200).all(|number| real_of(&mut lab, &syn(number)) != Some(drained)));
    lab.finish();
}

#[test]
fn flows_stay_with_a_real_that_is_down_unless_they_begin_anew() {
    let up = setup(Protocol::TCP, VipOptions::default());
    let mut lab = Lab::new(&up);
    let down = real_of(&mut lab, &syn(0)).unwrap();
    lab.reload(&with_state(&up, down, RealState::Down));
    assert_eq!(real_of(&mut lab, &ack(0)), Some(down));
    assert_eq!(real_of(&mut lab, &tcp(client(0), to_vip(), TcpFlags::FIN)), Some(down));
    let error = too_big([203, 0, 113, 1].into(), to_vip(), client(0), Protocol::TCP);
    assert_eq!(real_of(&mut lab, &error), Some(down));
    let other = real_of(&mut lab, &syn(0));
    assert!(other.is_some_and(|other| other != down));
    // And with the one that it has then it stays.
    lab.reload(&up);
    assert_eq!(real_of(&mut lab, &ack(0)), other);
    assert!((1..100).any(|number| real_of(&mut lab, &syn(number)) == Some(down)), "it is back");
    lab.finish();
}

#[test]
fn datagrams_leave_a_real_that_is_down_where_the_vip_says_so() {
    for udp_leaves_down in [false, true] {
        let up = setup(Protocol::UDP, VipOptions { udp_leaves_down, ..VipOptions::default() });
        let mut lab = Lab::new(&up);
        let down = real_of(&mut lab, &datagram(0)).unwrap();
        lab.reload(&with_state(&up, down, RealState::Down));
        let then = real_of(&mut lab, &datagram(0));
        assert_eq!(then == Some(down), !udp_leaves_down);
        let error = too_big([203, 0, 113, 1].into(), to_vip(), client(0), Protocol::UDP);
        assert_eq!(real_of(&mut lab, &error), then, "the error follows its flow");
        assert!((1..100).all(|number| real_of(&mut lab, &datagram(number)) != Some(down)));
        lab.finish();
    }
}

#[test]
fn a_real_that_is_out_is_as_if_it_were_not_there_but_keeps_its_identity() {
    let up = setup(Protocol::TCP, VipOptions::default());
    let mut lab = Lab::new(&up);
    let out = real_of(&mut lab, &syn(0)).unwrap();
    let id = lab.directory.id(&vip(VIP, Protocol::TCP), &out).unwrap();
    lab.reload(&with_state(&up, out, RealState::Out));
    assert_eq!(lab.directory.id(&vip(VIP, Protocol::TCP), &out), Some(id));
    let error = too_big([203, 0, 113, 1].into(), to_vip(), client(0), Protocol::TCP);
    assert_ne!(real_of(&mut lab, &error), Some(out));
    let other = real_of(&mut lab, &ack(0));
    assert!(other.is_some_and(|other| other != out));
    lab.reload(&up);
    assert_eq!(real_of(&mut lab, &ack(0)), other, "what has gone does not come back");
    assert_eq!(lab.directory.release(|_| false), [], "it was never let go");
    lab.finish();
}

#[test]
fn an_identity_that_is_let_go_is_named() {
    let both = setup(Protocol::TCP, VipOptions::default());
    let mut lab = Lab::new(&both);
    let service = vip(VIP, Protocol::TCP);
    let id = lab.directory.id(&service, &REALS[0].parse().unwrap()).unwrap();
    let mut less = both.clone();
    less.vips[0].reals.remove(0);
    lab.reload(&less);
    assert_eq!(lab.directory.release(|leaving| leaving == id), []);
    assert_eq!(lab.directory.release(|_| false), [(service, id)]);
    assert_eq!(lab.directory.release(|_| false), [], "once");
    lab.finish();
}

#[test]
fn clients_go_where_their_prefix_says_the_longest_first() {
    let mut setup = setup(Protocol::UDP, VipOptions::default());
    setup.vips[0].reals.extend([
        Real::new("10.0.0.21").weight(0).source("192.168.0.0/17"),
        Real::new("10.0.0.22").weight(0).source("192.168.100.0/24"),
    ]);
    let mut lab = Lab::new(&setup);
    let from = |client: &str| udp(SocketAddr::new(client.parse().unwrap(), 9), to_vip(), b"?");
    let real = |lab: &mut Lab, client: &str| real_of(lab, &from(client)).unwrap().to_string();
    assert_eq!(real(&mut lab, "192.168.2.1"), "10.0.0.21");
    assert_eq!(real(&mut lab, "192.168.100.1"), "10.0.0.22");
    assert!(REALS.contains(&&*real(&mut lab, "192.168.200.1")));
    // Not up: as if it had no sources; known flows have their real already.
    for state in [RealState::Draining, RealState::Down] {
        lab.reload(&with_state(&setup, "10.0.0.22".parse().unwrap(), state));
        assert_eq!(real(&mut lab, "192.168.100.1"), "10.0.0.22", "{state:?}");
        assert_eq!(real(&mut lab, &format!("192.168.100.{}", 10 + state as u8)), "10.0.0.21", "{state:?}");
    }
    lab.worker.drain();
    assert_eq!(lab.monitor.work().by_source, 4);
    lab.finish();
}

#[test]
fn a_known_flow_keeps_its_real_whatever_its_source() {
    let before = setup(Protocol::UDP, VipOptions::default());
    let mut lab = Lab::new(&before);
    let known = real_of(&mut lab, &datagram(0));
    let mut after = before.clone();
    after.vips[0].reals.push(Real::new("10.0.0.21").weight(0).source("192.0.2.0/24"));
    lab.reload(&after);
    assert_eq!(real_of(&mut lab, &datagram(0)), known);
    assert_eq!(real_of(&mut lab, &datagram(1)).unwrap().to_string(), "10.0.0.21");
    lab.finish();
}

/// A QUIC packet with a short header, whose connection id has this number in 16 bits.
fn quic(number: u16, id: u16) -> Vec<u8> {
    let [a, b, c] = [0x40 | (id >> 10) as u8, (id >> 2) as u8, (id << 6) as u8];
    udp(client(number), to_vip(), &[0x40, a, b, c, 4, 5, 6, 7, 8])
}

/// A datagram with a header that names a server.
fn named(number: u16, id: u32) -> Vec<u8> {
    let [_, a, b, c] = id.to_be_bytes();
    udp(client(number), to_vip(), &[0x52, a, b, c, 0, 0, 0, 0, b'x'])
}

fn with_ids(protocol: Protocol, place: ServerIdIn) -> Setup {
    let options = VipOptions { server_id: Some(place), ..VipOptions::default() };
    let mut setup = setup(protocol, options);
    for (id, real) in (1001..).zip(&mut setup.vips[0].reals) {
        real.server_ids.push(id);
    }
    setup.vips[0].reals.push(Real::new("10.0.0.15").weight(0).server_id(1099));
    setup
}

#[test]
fn quic_packets_go_to_the_server_that_they_name_and_their_flow_with_them() {
    let setup = with_ids(Protocol::UDP, ServerIdIn::Quic);
    let mut lab = Lab::new(&setup);
    for (id, real) in (1001..).zip(REALS).chain([(1099, "10.0.0.15")]) {
        assert_eq!(real_of(&mut lab, &quic(1, id)).unwrap().to_string(), real);
        // One that names nobody, or somebody who is not there, follows the flow.
        assert_eq!(real_of(&mut lab, &datagram(1)).unwrap().to_string(), real);
        assert_eq!(real_of(&mut lab, &quic(1, 1077)).unwrap().to_string(), real);
    }
    let error = too_big([203, 0, 113, 1].into(), to_vip(), client(1), Protocol::UDP);
    assert_eq!(real_of(&mut lab, &error).unwrap().to_string(), "10.0.0.15");
    lab.worker.drain();
    assert_eq!((lab.monitor.work().by_server_id, lab.monitor.work().by_connection), (5, 11));
    lab.finish();
}

#[test]
fn a_name_in_a_udp_header_leaves_the_flow_where_it_is() {
    let mut lab = Lab::new(&with_ids(Protocol::UDP, ServerIdIn::UdpHeader));
    let own = real_of(&mut lab, &datagram(1)).unwrap();
    for (id, real) in (1001..).zip(REALS) {
        assert_eq!(real_of(&mut lab, &named(1, id)).unwrap().to_string(), real);
        assert_eq!(real_of(&mut lab, &datagram(1)), Some(own));
        assert_eq!(real_of(&mut lab, &named(1, 0)), Some(own), "no name");
    }
    assert_eq!(lab.finish().sent(), 13);
}

#[test]
fn a_name_in_a_tcp_option_counts_but_not_in_a_syn() {
    let mut lab = Lab::new(&with_ids(Protocol::TCP, ServerIdIn::TcpOption));
    let segment = |number: u16, flags, id| with_tcp_option(&tcp(client(number), to_vip(), flags), id);
    for (number, (id, real)) in (0..).zip((1001..).zip(REALS)) {
        let hashed = real_of(&mut lab, &syn(number));
        assert_eq!(real_of(&mut lab, &segment(number, TcpFlags::SYN, id)), hashed);
        assert_eq!(real_of(&mut lab, &segment(number, TcpFlags::ACK, id)).unwrap().to_string(), real);
        assert_eq!(real_of(&mut lab, &ack(number)).unwrap().to_string(), real, "the flow has gone with it");
    }
    lab.finish();
}

#[test]
fn a_name_counts_for_a_real_that_drains_but_not_for_one_that_is_down() {
    let setup = with_ids(Protocol::UDP, ServerIdIn::Quic);
    let first: IpAddr = REALS[0].parse().unwrap();
    for (state, counts) in [(RealState::Draining, true), (RealState::Down, false), (RealState::Out, false)] {
        let mut lab = Lab::new(&with_state(&setup, first, state));
        let real = real_of(&mut lab, &quic(1, 1001));
        assert_eq!(real == Some(first), counts, "{state:?}");
        assert!(real.is_some());
        lab.finish();
    }
}

#[test]
fn another_protocol_s_packets_are_not_read() {
    // What a connection id would be in UDP; a VIP of any protocol may be told to read anything.
    let service = Vip::host(to_vip().ip(), 0, Protocol(99));
    let options = VipOptions { server_id: Some(ServerIdIn::Quic), ..VipOptions::default() };
    let mut lab = Lab::new(&Setup::new([(service, vec![Real::new(REALS[0]).server_id(1)])]).options(options));
    let packet = Builder::ip(client(1).ip(), to_vip().ip(), Protocol(99));
    let packet = crate::packets::written(&packet, &[0x40, 0x40, 0, 0x40, 0, 0, 0, 0]);
    assert_eq!(real_of(&mut lab, &packet).unwrap().to_string(), REALS[0]);
    lab.worker.drain();
    assert_eq!(lab.monitor.work().by_maglev, 1);
    lab.finish();
}
