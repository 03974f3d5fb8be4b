//! Fragments that are kept together.

use std::net::SocketAddr;
use std::time::Duration;

use afx::packet::{Builder, Protocol, TcpFlags};
use afx::stage::balancer::{Fragments, How, ServerIdIn, VipOptions};
use afx_testbed::wait_for;

use crate::lab::{Lab, Real, Setup, vip};
use crate::outer::Outer;
use crate::packets::{tcp, udp, written};

const VIP4: &str = "198.51.100.10:443";
const VIP6: &str = "[2001:db8::10]:443";
const PATIENCE: Duration = Duration::from_secs(30);

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn setup() -> Setup {
    let reals = |of: &str| (1..5).map(|number| Real::new(&format!("{of}{number}"))).collect::<Vec<_>>();
    let options = VipOptions { fragments: Fragments::Together, ..VipOptions::default() };
    let together = Setup::new([
        (vip(VIP4, Protocol::UDP), reals("10.0.0.1")),
        (vip(VIP6, Protocol::UDP), reals("fd00::1")),
    ]);
    let mut setup = together.options(options);
    setup.vips.extend(Setup::new([(vip("198.51.100.10:444", Protocol::UDP), reals("10.0.0.2"))]).vips);
    setup
}

/// The fragments of a datagram, in order.
fn fragments(client: &str, to: &str, id: u32) -> [Vec<u8>; 3] {
    let (client, to) = (address(client), address(to));
    let first = written(&Builder::udp(client, to).fragment(id, 0, true), &[1; 24]);
    let later = |offset, more| {
        let builder = Builder::ip(client.ip(), to.ip(), Protocol::UDP).fragment(id, offset, more);
        written(&builder, &[2; 32])
    };
    [first, later(32, true), later(64, false)]
}

fn inner(out: &[Vec<u8>]) -> Vec<Vec<u8>> {
    out.iter().map(|packet| Outer::decode(packet).inner).collect()
}

#[test]
fn fragments_follow_their_first_one() {
    let mut lab = Lab::new(&setup());
    for (number, (client, to)) in
        (0..40_u32).flat_map(|number| [(number, ("192.0.2.77", VIP4)), (number, ("2001:db8::77", VIP6))])
    {
        let bracketed = if client.contains(':') { format!("[{client}]") } else { client.to_owned() };
        let client = format!("{bracketed}:{}", 4000 + number);
        let whole = lab.exchange([udp(address(&client), address(to), b"whole")]);
        let expected = Outer::decode(&whole[0]);
        let packets = fragments(&client, to, 1000 + number);
        let out = lab.exchange(&packets);
        assert_eq!(inner(&out), packets.map(|packet| packet[14..].to_vec()));
        // In the same outer header as the flow's whole packets: the network does not part them.
        for packet in out.iter().map(|packet| Outer::decode(packet)) {
            assert_eq!(
                (packet.source, packet.destination, packet.flow_label),
                (expected.source, expected.destination, expected.flow_label)
            );
        }
    }
    lab.worker.drain();
    assert_eq!(lab.monitor.work().fragments_held, 0);
    lab.finish();
}

#[test]
fn one_that_comes_first_waits_for_the_first() {
    let mut lab = Lab::new(&setup());
    let [first, second, third] = fragments("192.0.2.77:4000", VIP4, 7);
    let [_, other, _] = fragments("192.0.2.77:4000", VIP4, 8);
    assert_eq!(lab.exchange([&third, &second, &other]), Vec::<Vec<u8>>::new());
    assert_eq!(lab.decisions(), [None; 3], "nothing is decided");
    let out = lab.exchange([&first]);
    assert_eq!(inner(&out), [&first, &third, &second].map(|packet| packet[14..].to_vec()));
    let reals: Vec<_> = out.iter().map(|packet| Outer::decode(packet).destination).collect();
    assert!(reals.iter().all(|real| *real == reals[0]));
    // The same batch, in any order.
    let packets = fragments("192.0.2.77:4000", VIP4, 9);
    let out = lab.exchange(packets.iter().rev());
    assert_eq!(inner(&out).len(), 3);
    lab.worker.drain();
    assert_eq!(lab.monitor.work().fragments_held, 3);
    // Its first one never came.
    assert_eq!(lab.finish().drops(), [("balancer.fragment", 1)]);
}

#[test]
fn one_whose_first_never_comes_is_given_up() {
    let mut lab = Lab::new(&setup());
    let [_, later, _] = fragments("192.0.2.77:4000", VIP4, 7);
    assert_eq!(lab.exchange([&later]), Vec::<Vec<u8>>::new());
    wait_for("the fragment to be dropped", PATIENCE, || {
        lab.worker.turn();
        lab.worker.stats().dropped("balancer.fragment") == 1
    })
    .unwrap();
    assert!(!lab.worker.stats().drops().iter().any(|(name, _)| *name == "held_discarded"));
    lab.finish();
}

#[test]
fn so_many_wait_and_no_more() {
    let mut lab = Lab::new(&setup());
    let later = |id| fragments("192.0.2.77:4000", VIP4, id)[1].clone();
    assert_eq!(lab.exchange((0..100).map(later)), Vec::<Vec<u8>>::new());
    assert_eq!(lab.worker.stats().dropped("balancer.fragment"), 100 - 64);
    // Those that wait are released when their first ones come, and then there is room again.
    let first = |id| fragments("192.0.2.77:4000", VIP4, id)[0].clone();
    assert_eq!(lab.exchange((0..64).map(first)).len(), 2 * 64);
    assert_eq!(lab.exchange([later(200)]), Vec::<Vec<u8>>::new());
    assert_eq!(lab.exchange([first(200)]).len(), 2);
    lab.finish();
}

#[test]
fn a_vip_that_takes_none_drops_them_all() {
    let mut lab = Lab::new(&setup());
    // The first says that it is for the VIP with port 444, which has none; those after it are for nobody knows whom.
    let [first, second, third] = fragments("192.0.2.77:4000", "198.51.100.10:444", 7);
    assert_eq!(lab.exchange([&first, &second, &third]), Vec::<Vec<u8>>::new());
    // TCP, whose VIPs take none at this address: dropped at once.
    let to = address(VIP4);
    let later = Builder::ip([192, 0, 2, 77].into(), to.ip(), Protocol::TCP).fragment(8, 64, false);
    assert_eq!(lab.exchange([written(&later, b"the rest")]), Vec::<Vec<u8>>::new());
    // Of a VIP that there is not.
    let nobody = fragments("192.0.2.77:4000", "198.51.100.10:445", 9)[0].clone();
    assert_eq!(lab.exchange([nobody]), Vec::<Vec<u8>>::new());
    lab.worker.drain();
    assert_eq!(lab.monitor.work().fragments_held, 2);
    assert_eq!(lab.finish().drops(), [("balancer.no_vip", 1), ("balancer.fragment", 4)]);
}

#[test]
fn a_first_fragment_begins_a_flow_and_may_name_its_real() {
    let mut setup = setup();
    setup.vips[0].options.server_id = Some(ServerIdIn::UdpHeader);
    setup.vips[0].reals.push(Real::new("10.0.0.99").weight(0).server_id(5));
    let mut lab = Lab::new(&setup);
    let (client, to) = (address("192.0.2.77:4000"), address(VIP4));
    let first = |payload: &[u8], id| written(&Builder::udp(client, to).fragment(id, 0, true), payload);
    let out = lab.exchange([first(&[0; 24], 1)]);
    assert_eq!(lab.decisions()[0].unwrap().how, Some(How::Maglev));
    let real = Outer::decode(&out[0]).destination;
    let out = lab.exchange([udp(client, to, b"whole")]);
    assert_eq!(Outer::decode(&out[0]).destination, real);
    assert_eq!(lab.decisions()[0].unwrap().how, Some(How::Connection));

    let named = first(&[0x52, 0, 0, 5, 0, 0, 0, 0], 2);
    let later = Builder::ip(client.ip(), to.ip(), Protocol::UDP).fragment(2, 16, false);
    let out = lab.exchange([named, written(&later, b"the rest")]);
    assert!(out.iter().all(|packet| Outer::decode(packet).destination.to_string() == "10.0.0.99"));
    let how: Vec<_> = lab.decisions().iter().map(|decision| decision.unwrap().how).collect();
    assert_eq!(how, [Some(How::ServerId), Some(How::Connection)]);
    lab.finish();
}

#[test]
fn fragments_of_a_real_that_is_gone_are_dropped() {
    let before = setup();
    let mut lab = Lab::new(&before);
    let [first, second, _] = fragments("192.0.2.77:4000", VIP4, 7);
    lab.exchange([&first]);
    let mut after = before.clone();
    after.vips[0].reals.clear();
    lab.reload(&after);
    assert_eq!(lab.exchange([&second]), Vec::<Vec<u8>>::new());
    assert_eq!(lab.finish().drops(), [("balancer.no_real", 1)]);
}

#[test]
fn a_fragment_too_big_for_its_way_is_dropped() {
    let mut setup = setup();
    setup.vips[0].reals = vec![Real { mtu: Some(100), ..Real::new("10.0.0.11") }];
    let mut lab = Lab::new(&setup);
    let (client, to) = (address("192.0.2.77:4000"), address(VIP4));
    let first = written(&Builder::udp(client, to).fragment(1, 0, true), &[0; 24]);
    let later = Builder::ip(client.ip(), to.ip(), Protocol::UDP).fragment(1, 32, false);
    assert_eq!(lab.exchange([first, written(&later, &[0; 80])]).len(), 1);
    assert_eq!(lab.finish().drops(), [("balancer.too_big", 1)]);
}

#[test]
fn whole_packets_do_not_wait_for_anything() {
    let options = VipOptions { fragments: Fragments::Together, ..VipOptions::default() };
    let mut lab =
        Lab::new(&Setup::new([(vip(VIP4, Protocol::TCP), vec![Real::new("10.0.0.11")])]).options(options));
    let syn = tcp(address("192.0.2.77:4000"), address(VIP4), TcpFlags::SYN);
    assert_eq!(lab.exchange([syn]).len(), 1);
    lab.finish();
}
