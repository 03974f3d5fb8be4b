//! The decapsulation program, packet by packet and in front of a server's stack.

use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::time::Duration;

use super::harness::{Wire, eventually, ifindex, run};
use super::namespace::{in_namespace, ip as ip_command, ip_says};
use super::packets::*;
use crate::decap::Loaded;
use crate::{AttachMode, Attached, Decap, DecapCounters, TunnelEnds};

const BALANCER4: &str = "10.0.0.1";
const SERVER4: &str = "10.0.0.2";
const BALANCER6: &str = "fd00::1";
const SERVER6: &str = "fd00::2";
const CLIENT4: &str = "198.51.100.7";
const VIP4: &str = "192.0.2.1";
const CLIENT6: &str = "2001:db8:ffff::7";
const VIP6: &str = "2001:db8::1";

/// A packet of each version to the VIP, each with its number as a payload.
fn inner() -> [(u8, Vec<u8>); 2] {
    [
        (IPIP, udp(CLIENT4, VIP4, 443, b"a question to the VIP")),
        (IPV6, udp(CLIENT6, VIP6, 443, b"a question to the VIP")),
    ]
}

fn outer(protocol: u8, inner: &[u8]) -> [Vec<u8>; 2] {
    [ip(BALANCER4, SERVER4, protocol, inner), ip(BALANCER6, SERVER6, protocol, inner)]
}

struct Bench(Loaded);

impl Bench {
    fn new(ends: &TunnelEnds) -> Self {
        Self(Loaded::new(ends).expect("the program loads"))
    }

    /// What the stack receives of a packet, and the one counter that it goes to.
    fn passes(&self, packet: &[u8]) -> (Vec<u8>, &'static str) {
        let before = self.0.counters().expect("counters");
        let outcome = run(self.0.program.as_fd(), packet, ifindex("veth1"), 0).expect("a run");
        let after = self.0.counters().expect("counters");
        assert_eq!(outcome.verdict, libbpf_sys::XDP_PASS);
        let grown: Vec<_> = before
            .each()
            .zip(after.each())
            .filter(|(before, after)| after.2 != before.2)
            .map(|((name, _, before), (_, _, after))| (name, after - before))
            .collect();
        let [(name, 1)] = grown[..] else { panic!("not one counter for one packet: {grown:?}") };
        if name != "decapsulated" {
            assert_eq!(outcome.packet, packet, "a packet counted as {name} is not touched");
        }
        (outcome.packet, name)
    }
}

#[test]
fn the_outer_header_goes_and_the_rest_stays() {
    in_namespace(|| {
        let bench = Bench::new(&TunnelEnds::Any);
        for (protocol, inner) in inner() {
            for packet in outer(protocol, &inner) {
                assert_eq!(bench.passes(&frame(&packet)), (frame(&inner), "decapsulated"));
                assert_eq!(
                    bench.passes(&tagged(&[0x8100], &packet)),
                    (tagged(&[0x8100], &inner), "decapsulated")
                );
                assert_eq!(
                    bench.passes(&tagged(&[0x88a8, 0x8100], &packet)),
                    (tagged(&[0x88a8, 0x8100], &inner), "decapsulated")
                );
            }
            let (from, to) = (BALANCER4.parse().expect("IPv4"), SERVER4.parse().expect("IPv4"));
            let with_options = ipv4(from, to, protocol, 0, &[1; 40], &inner);
            assert_eq!(bench.passes(&frame(&with_options)), (frame(&inner), "decapsulated"));
            // Linux's own ip6tnl puts its encapsulation limit in front.
            let with_extension = ip(BALANCER6, SERVER6, DESTINATION_OPTIONS, &extension(protocol, 0, &inner));
            assert_eq!(bench.passes(&frame(&with_extension)), (frame(&inner), "decapsulated"));
        }
    });
}

#[test]
fn everything_else_passes_as_it_is() {
    in_namespace(|| {
        let bench = Bench::new(&TunnelEnds::Any);
        for (_, packet) in inner() {
            assert_eq!(bench.passes(&frame(&packet)).1, "passed_other");
        }
        assert_eq!(bench.passes(&ethernet(0x0806, &[0; 46])).1, "passed_other");
        for (protocol, inner) in inner() {
            for (from, to) in [(BALANCER4, SERVER4), (BALANCER6, SERVER6)] {
                for first in [true, false] {
                    let packet = fragment(from, to, protocol, first, &inner);
                    assert_eq!(bench.passes(&frame(&packet)).1, "passed_fragment");
                }
            }
            for packet in outer(if protocol == IPIP { IPV6 } else { IPIP }, &inner) {
                assert_eq!(
                    bench.passes(&frame(&packet)).1,
                    "malformed",
                    "the inner version is not what was said"
                );
            }
        }
    });
}

#[test]
fn only_packets_to_the_tunnels_ends_are_touched() {
    in_namespace(|| {
        for (ends, counted) in [
            (vec![SERVER4], ["decapsulated", "passed_other"]),
            (vec![SERVER6], ["passed_other", "decapsulated"]),
            (vec![SERVER4, SERVER6], ["decapsulated", "decapsulated"]),
            (vec![], ["passed_other", "passed_other"]),
        ] {
            let ends = ends.iter().map(|end| end.parse().expect("an address")).collect();
            let bench = Bench::new(&TunnelEnds::These(ends));
            for (protocol, inner) in inner() {
                let counters = outer(protocol, &inner).map(|packet| bench.passes(&frame(&packet)).1);
                assert_eq!(counters, counted);
            }
        }
    });
}

#[test]
fn a_packet_cut_at_any_length_is_malformed_until_the_inner_header_is_there() {
    in_namespace(|| {
        let bench = Bench::new(&TunnelEnds::Any);
        for (protocol, inner) in inner() {
            for packet in outer(protocol, &inner) {
                let whole = tagged(&[0x8100], &packet);
                let enough = whole.len() - inner.len() + if protocol == IPIP { 20 } else { 40 };
                for length in 14..=whole.len() {
                    let expected = if length < enough { "malformed" } else { "decapsulated" };
                    assert_eq!(bench.passes(&whole[..length]).1, expected, "{length} of {whole:02x?}");
                }
            }
        }
    });
}

#[test]
fn a_servers_stack_receives_what_was_inside_in_both_modes() {
    in_namespace(|| {
        for setting in ["all", "default", "veth1"] {
            std::fs::write(format!("/proc/sys/net/ipv4/conf/{setting}/rp_filter"), "0").expect("a setting");
        }
        ip_command("addr add 10.0.0.2/24 dev veth1");
        ip_command("addr add 192.0.2.1/32 dev lo");
        ip_command("addr add 2001:db8::1/128 dev lo nodad");
        // The kernel makes the route to an IPv6 address in its own time.
        eventually("the host takes packets to its address", || {
            ip_says("-6 route show table local").contains(VIP6)
        });
        let services = [VIP4, VIP6].map(|vip| {
            let service = UdpSocket::bind((vip, 443)).expect("a service on the VIP");
            service.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
            service
        });
        let wire = Wire::new("veth0");
        for (mode, attached) in
            [(AttachMode::Native, Attached::Native), (AttachMode::Generic, Attached::Generic)]
        {
            let decap =
                Decap::attach(ifindex("veth1"), &TunnelEnds::Any, mode).expect("veth takes both modes");
            assert_eq!(decap.mode(), attached);
            for ((protocol, inner), service) in inner().iter().zip(&services) {
                for packet in outer(*protocol, inner) {
                    wire.send(&frame(&packet));
                    let mut data = [0; 64];
                    let (length, from) = service.recv_from(&mut data).expect("the service is asked");
                    assert_eq!(&data[..length], b"a question to the VIP");
                    assert_eq!(from.ip().to_string(), if from.is_ipv4() { CLIENT4 } else { CLIENT6 });
                }
            }
            eventually("all four are counted", || {
                decap.counters().expect("counters") == DecapCounters { decapsulated: 4, ..Default::default() }
            });
            decap.detach().expect("it is attached");
        }
    });
}
