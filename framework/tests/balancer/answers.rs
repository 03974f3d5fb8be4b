//! What the balancer says itself: to pings, and to clients whose packets are too big.

use std::net::{IpAddr, SocketAddr};

use afx::packet::reply::{ErrorForm, IcmpError};
use afx::packet::{Builder, Protocol, TcpFlags, VlanTag, checksum, parse};
use afx::stage::balancer::{Decision, TooBig, VipOptions};

use crate::lab::{Lab, Real, Setup, vip};
use crate::outer::Outer;
use crate::packets::{tcp, too_big, udp, written};

const VIP4: &str = "198.51.100.10:443";
const VIP6: &str = "[2001:db8::10]:443";
const CLIENT4: &str = "192.0.2.77:40000";
const CLIENT6: &str = "[2001:db8:c::77]:40000";

const TOLD: TooBig = TooBig { answer: true, per_second: 1000 };

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn setup() -> Setup {
    Setup::new([
        (vip(VIP4, Protocol::UDP), vec![Real::new("10.0.0.11")]),
        (vip(VIP6, Protocol::UDP), vec![Real::new("fd00::11")]),
    ])
}

fn ping(from: IpAddr, to: IpAddr) -> Builder {
    Builder::echo(from, to, 7, 9).ttl(3)
}

#[test]
fn pings_are_answered_at_addresses_of_vips_that_say_so() {
    let options = VipOptions { answer_echo: true, ..VipOptions::default() };
    let mut setup = setup().options(options);
    let other = "203.0.113.0/24:*/tcp".parse().unwrap();
    setup.vips.extend(Setup::new([(other, vec![])]).options(options).vips);
    let silent = "203.0.113.77:80/tcp".parse().unwrap();
    setup.vips.extend(Setup::new([(silent, vec![])]).vips);
    let mut lab = Lab::new(&setup);
    let pings = [
        (CLIENT4, "198.51.100.10", "198.51.100.10:443/udp"),
        (CLIENT6, "2001:db8::10", "[2001:db8::10]:443/udp"),
        (CLIENT4, "203.0.113.5", "203.0.113.0/24:*/tcp"),
        // That another VIP of the address does not answer is no matter.
        (CLIENT4, "203.0.113.77", "203.0.113.0/24:*/tcp"),
    ];
    for (client, to, of) in pings {
        let request =
            written(&ping(address(client).ip(), to.parse().unwrap()).vlan(VlanTag(5)), b"ping data");
        let out = lab.exchange([&request]);
        let [reply] = &*out else { panic!("{to}: {out:02x?}") };
        // Back over the link that it came from.
        assert_eq!(
            (&reply[..6], &reply[6..12], &reply[12..16]),
            (&request[6..12], &request[..6], &request[12..16])
        );
        let parsed = parse(reply).unwrap();
        let flow = afx::packet::flow_key(reply, &parsed).unwrap();
        assert_eq!((flow.source(), flow.destination()), (to.parse().unwrap(), address(client).ip()));
        assert_eq!(checksum::verify_transport(reply, &parsed), Some(true));
        assert!(parsed.is_ipv6() || checksum::verify_ipv4(reply, &parsed));
        assert!(reply.ends_with(b"ping data"));
        assert_eq!(reply[if parsed.is_ipv4() { 18 + 8 } else { 18 + 7 }], 64);
        let decision = Decision { vip: of.parse().unwrap(), real: None, how: None };
        assert_eq!(lab.decisions(), [Some(decision)]);
    }
    // Not for a VIP, not whole, not a request, or not to one host.
    let (client, to) = (address(CLIENT4).ip(), address(VIP4).ip());
    let reply = [0, 0, 0, 0, 0, 7, 0, 9];
    let no_pings = [
        written(&ping(client, "203.0.114.1".parse().unwrap()), b""),
        written(&Builder::ip(client, to, Protocol::ICMP), &reply),
        written(&ping("0.0.0.0".parse().unwrap(), to), b""),
    ];
    assert_eq!(lab.exchange(no_pings), Vec::<Vec<u8>>::new());
    lab.worker.drain();
    assert_eq!(lab.monitor.work().echo_replies, 4);
    assert_eq!(lab.finish().drops(), [("balancer.no_vip", 3)]);
}

#[test]
fn pings_are_not_answered_unless_told_to() {
    let mut lab = Lab::new(&setup());
    let request = written(&ping(address(CLIENT4).ip(), address(VIP4).ip()), b"ping data");
    assert_eq!(lab.exchange([request]), Vec::<Vec<u8>>::new());
    assert_eq!(lab.finish().drops(), [("balancer.no_vip", 1)]);
}

/// What a client is told of a packet.
fn answer_to(packet: &[u8], mtu: u32) -> Vec<u8> {
    let parsed = parse(packet).unwrap();
    let vip = afx::packet::flow_key(packet, &parsed).unwrap().destination();
    let mut answer = [0; 400];
    let error = IcmpError::TooBig { mtu };
    let len = ErrorForm::BRIEF.write(packet, &parsed, error, vip, &mut answer).unwrap();
    answer[..len].to_vec()
}

fn datagram(client: &str, vip: &str, ip_len: usize) -> Vec<u8> {
    let headers = if address(vip).is_ipv4() { 28 } else { 48 };
    udp(address(client), address(vip), &vec![7; ip_len - headers])
}

#[test]
fn a_client_is_told_what_the_way_takes() {
    let mut lab = Lab::new(&Setup { too_big: TOLD, ..setup() });
    for (client, vip, most) in [(CLIENT4, VIP4, 1500 - 20), (CLIENT6, VIP6, 1500 - 40)] {
        let (fits, too_long) = (datagram(client, vip, most), datagram(client, vip, most + 1));
        let out = lab.exchange([&too_long, &fits]);
        assert_eq!(Outer::decode(&out[0]).inner, fits[14..]);
        assert_eq!(out[1..], [answer_to(&too_long, most as u32)]);
        let reals: Vec<_> = lab.decisions().iter().map(|decision| decision.and_then(|of| of.real)).collect();
        assert!(reals[0].is_some() && reals[0] == reals[1], "its real was chosen, all the same");
    }
    lab.worker.drain();
    let work = lab.monitor.work();
    assert_eq!((work.too_big_answers, work.too_big_suppressed), (2, 0));
    assert_eq!(lab.finish().drops(), [("balancer.too_big", 2)]);
}

#[test]
fn a_client_is_told_how_long_its_packets_may_be_whatever_the_way_takes() {
    let mut setup = Setup { too_big: TOLD, client_mtu: Some(1400), ..setup() };
    setup.vips.iter_mut().for_each(|served| served.reals.clear());
    let mut lab = Lab::new(&setup);
    for (client, vip) in [(CLIENT4, VIP4), (CLIENT6, VIP6)] {
        // Before it is looked for a real, of which there is none.
        let too_long = datagram(client, vip, 1401);
        assert_eq!(lab.exchange([&too_long]), [answer_to(&too_long, 1400)]);
        assert!(lab.decisions()[0].is_some_and(|decision| decision.real.is_none()));
        assert_eq!(lab.exchange([datagram(client, vip, 1400)]), Vec::<Vec<u8>>::new());
    }
    assert_eq!(lab.finish().drops(), [("balancer.no_real", 2), ("balancer.too_big", 2)]);
}

#[test]
fn nobody_is_told_of_an_error_or_unless_wished() {
    let mut lab = Lab::new(&Setup { too_big: TOLD, client_mtu: Some(50), ..setup() });
    let error = too_big([203, 0, 113, 1].into(), address(VIP4), address(CLIENT4), Protocol::UDP);
    assert!(error.len() > 14 + 50);
    assert_eq!(lab.exchange([&error]), Vec::<Vec<u8>>::new());
    lab.reload(&Setup { client_mtu: Some(50), ..setup() });
    assert_eq!(lab.exchange([datagram(CLIENT4, VIP4, 51)]), Vec::<Vec<u8>>::new());
    lab.worker.drain();
    let work = lab.monitor.work();
    assert_eq!((work.too_big_answers, work.too_big_suppressed), (0, 0));
    assert_eq!(lab.finish().drops(), [("balancer.too_big", 2)]);
}

#[test]
fn so_many_are_told_at_once_and_no_more() {
    let per_second =
        |per_second| Setup { too_big: TooBig { answer: true, per_second }, client_mtu: Some(100), ..setup() };
    let packet = datagram(CLIENT4, VIP4, 101);
    let mut lab = Lab::new(&per_second(3));
    // Within a second there may be one or two more, but not 300.
    let told = lab.exchange((0..300).map(|_| &packet)).len();
    assert!((3..100).contains(&told), "{told}");
    lab.reload(&per_second(0));
    assert_eq!(lab.exchange([&packet]), Vec::<Vec<u8>>::new());
    lab.worker.drain();
    let work = lab.monitor.work();
    assert_eq!((work.too_big_answers, work.too_big_suppressed), (told as u64, 301 - told as u64));
    assert_eq!(lab.finish().drops(), [("balancer.too_big", 301)]);
}

#[test]
fn a_full_batch_has_room_for_an_answer() {
    let mut lab = Lab::new(&Setup { too_big: TOLD, client_mtu: Some(100), ..setup() });
    let mut packets = vec![datagram(CLIENT4, VIP4, 100); 63];
    packets[30] = datagram(CLIENT4, VIP4, 101);
    assert_eq!(lab.exchange(&packets).len(), 62 + 1);
    assert_eq!(lab.finish().dropped("balancer.too_big"), 1);
}

#[test]
fn a_connection_is_made_by_a_packet_too_long_for_its_way_but_not_by_one_too_long_for_clients() {
    let tcp_vip = |client_mtu| Setup {
        client_mtu,
        ..Setup::new([(vip(VIP4, Protocol::TCP), vec![Real { mtu: Some(59), ..Real::new("10.0.0.11") }])])
    };
    for (client_mtu, made) in [(None, 1), (Some(39), 0)] {
        let mut lab = Lab::new(&tcp_vip(client_mtu));
        let syn = tcp(address(CLIENT4), address(VIP4), TcpFlags::SYN);
        assert_eq!(lab.exchange([syn]), Vec::<Vec<u8>>::new());
        lab.worker.drain();
        assert_eq!(lab.monitor.table().inserted, made);
        assert_eq!(lab.finish().drops(), [("balancer.too_big", 1)]);
    }
}
