//! The decapsulation program, packet by packet and in front of a server's stack.

use std::net::UdpSocket;
use std::num::NonZero;
use std::time::Duration;

use super::harness::{Wire, eventually, ifindex};
use super::namespace::{in_namespace, ip as ip_command, ip_says};
use super::packets::*;
use crate::testing::{DecapProgram, Verdict};
use crate::{AttachMode, Attached, Decap, DecapCounters, DecapOptions, OnFragment, TunnelEnds};

const BALANCER4: &str = "10.0.0.1";
const SERVER4: &str = "10.0.0.2";
const BALANCER6: &str = "fd00::1";
const SERVER6: &str = "fd00::2";
const CLIENT4: &str = "198.51.100.7";
const VIP4: &str = "192.0.2.1";
const CLIENT6: &str = "2001:db8:ffff::7";
const VIP6: &str = "2001:db8::1";
const GUE_PORT: u16 = 6080;

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

/// `inner` in UDP to a port, in IPv4 and IPv6: with a checksum, and in IPv4 without.
fn gue(port: u16, inner: &[u8]) -> Vec<Vec<u8>> {
    let mut without = udp(BALANCER4, SERVER4, port, inner);
    without[20 + 6..][..2].fill(0);
    vec![udp(BALANCER4, SERVER4, port, inner), without, udp(BALANCER6, SERVER6, port, inner)]
}

struct Bench(DecapProgram);

impl Bench {
    fn new(options: DecapOptions) -> Self {
        Self(DecapProgram::load(&options).expect("the program loads"))
    }

    /// IP in IP alone.
    fn plain(ends: TunnelEnds) -> Self {
        Self::new(DecapOptions { ends, ..DecapOptions::default() })
    }

    fn with_gue() -> Self {
        Self::new(DecapOptions { gue_port: NonZero::new(GUE_PORT), ..DecapOptions::default() })
    }

    /// What the stack receives of a packet, and the one counter that it goes to.
    fn passes(&self, packet: &[u8]) -> (Vec<u8>, &'static str) {
        let (verdict, after, name) = self.sees(packet);
        assert_eq!(verdict, Verdict::Pass);
        (after, name)
    }

    fn sees(&self, packet: &[u8]) -> (Verdict, Vec<u8>, &'static str) {
        let before = self.0.counters().expect("counters");
        let (verdict, made) = self.0.run(packet).expect("a run");
        let after = self.0.counters().expect("counters");
        let grown: Vec<_> = before
            .each()
            .zip(after.each())
            .filter(|(before, after)| after.2 != before.2)
            .map(|((name, _, before), (_, _, after))| (name, after - before))
            .collect();
        let [(name, 1)] = grown[..] else { panic!("not one counter for one packet: {grown:?}") };
        if name != "decapsulated" {
            assert_eq!(made, packet, "a packet counted as {name} is not touched");
        }
        (verdict, made, name)
    }
}

#[test]
fn the_outer_header_goes_and_the_rest_stays() {
    in_namespace(|| {
        let bench = Bench::plain(TunnelEnds::Any);
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
        let bench = Bench::plain(TunnelEnds::Any);
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
            let bench = Bench::plain(TunnelEnds::These(ends));
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
        let bench = Bench::plain(TunnelEnds::Any);
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
fn ip_in_udp_to_the_port_is_taken_apart() {
    in_namespace(|| {
        let bench = Bench::with_gue();
        for (protocol, inner) in inner() {
            for packet in gue(GUE_PORT, &inner) {
                assert_eq!(bench.passes(&frame(&packet)), (frame(&inner), "decapsulated"));
                assert_eq!(
                    bench.passes(&tagged(&[0x88a8, 0x8100], &packet)),
                    (tagged(&[0x88a8, 0x8100], &inner), "decapsulated")
                );
            }
            // A wrong checksum is what some balancers write.
            let mut wrong = udp(BALANCER6, SERVER6, GUE_PORT, &inner);
            wrong[40 + 6] ^= 0x55;
            assert_eq!(bench.passes(&frame(&wrong)), (frame(&inner), "decapsulated"));
            for packet in outer(protocol, &inner) {
                assert_eq!(bench.passes(&frame(&packet)).1, "decapsulated", "IP in IP is still taken");
            }
            let behind = udp(BALANCER6, SERVER6, GUE_PORT, &inner)[40..].to_vec();
            let with_extension = ip(BALANCER6, SERVER6, DESTINATION_OPTIONS, &extension(UDP, 0, &behind));
            assert_eq!(bench.passes(&frame(&with_extension)), (frame(&inner), "decapsulated"));
        }
    });
}

#[test]
fn udp_that_carries_no_packet_or_goes_elsewhere_passes_as_it_is() {
    in_namespace(|| {
        let (with, without) = (Bench::with_gue(), Bench::plain(TunnelEnds::Any));
        let elsewhere = Bench::new(DecapOptions {
            ends: TunnelEnds::These(vec!["10.0.0.3".parse().expect("an address")]),
            gue_port: NonZero::new(GUE_PORT),
            ..DecapOptions::default()
        });
        for (_, inner) in inner() {
            for packet in gue(GUE_PORT + 1, &inner) {
                assert_eq!(with.passes(&frame(&packet)).1, "passed_other", "another port");
            }
            for packet in gue(GUE_PORT, &inner) {
                assert_eq!(without.passes(&frame(&packet)).1, "passed_other", "nobody asked for it");
                assert_eq!(elsewhere.passes(&frame(&packet)).1, "passed_other", "another address");
            }
            for (from, to) in [(BALANCER4, SERVER4), (BALANCER6, SERVER6)] {
                for first in [true, false] {
                    let packet = fragment(from, to, UDP, first, &udp(from, to, GUE_PORT, &inner)[20..]);
                    assert_eq!(with.passes(&frame(&packet)).1, "passed_fragment");
                    assert_eq!(without.passes(&frame(&packet)).1, "passed_other");
                }
            }
        }
        for (first_byte, counted) in [
            // Variant 0, and the two that nobody has defined: others may know what to do with them.
            (0x00, "passed_other"),
            (0x3f, "passed_other"),
            (0x80, "passed_other"),
            (0xff, "passed_other"),
            (0x55, "malformed"),
            (0x75, "malformed"),
        ] {
            for packet in gue(GUE_PORT, &[first_byte; 60]) {
                assert_eq!(with.passes(&frame(&packet)).1, counted, "{first_byte:#x}");
            }
        }
        for packet in gue(GUE_PORT, &[]) {
            assert_eq!(with.passes(&frame(&packet)).1, "malformed", "nothing in it");
        }
    });
}

#[test]
fn ip_in_udp_cut_at_any_length_is_malformed_until_the_inner_header_is_there() {
    in_namespace(|| {
        let bench = Bench::with_gue();
        for (protocol, inner) in inner() {
            let header = if protocol == IPIP { 20 } else { 40 };
            for packet in gue(GUE_PORT, &inner) {
                let whole = tagged(&[0x8100], &packet);
                let before = whole.len() - inner.len();
                for length in 14..=whole.len() {
                    let expected = if length < before + header { "malformed" } else { "decapsulated" };
                    assert_eq!(bench.passes(&whole[..length]).1, expected, "{length} of {whole:02x?}");
                }
                // What UDP says it carries counts too, whatever lies behind it.
                for length in 0..=inner.len() + 8 {
                    let mut short = whole.clone();
                    short[before - 4..before - 2].copy_from_slice(&(length as u16).to_be_bytes());
                    let expected = if length < 8 + header { "malformed" } else { "decapsulated" };
                    assert_eq!(bench.passes(&short).1, expected, "UDP length {length}");
                }
            }
        }
    });
}

#[test]
fn fragments_to_the_tunnels_ends_are_dropped_where_that_is_asked_for() {
    in_namespace(|| {
        let dropping = |ends| {
            let on_fragment = OnFragment::Drop;
            let gue_port = NonZero::new(GUE_PORT);
            Bench::new(DecapOptions { ends, on_fragment, gue_port, ..DecapOptions::default() })
        };
        let (all, some) = (
            dropping(TunnelEnds::Any),
            dropping(TunnelEnds::These(vec![SERVER4.parse().expect("IPv4"), SERVER6.parse().expect("IPv6")])),
        );
        for (from, to, vip) in [(BALANCER4, SERVER4, VIP4), (BALANCER6, SERVER6, VIP6)] {
            for protocol in [IPIP, IPV6, UDP, TCP] {
                for first in [true, false] {
                    let packet = frame(&fragment(from, to, protocol, first, &[0x45; 48]));
                    for bench in [&all, &some] {
                        let (verdict, _, counted) = bench.sees(&packet);
                        assert_eq!((verdict, counted), (Verdict::Drop, "dropped_fragment"));
                    }
                    let packet = frame(&fragment(from, vip, protocol, first, &[0x45; 48]));
                    assert_eq!(all.sees(&packet).0, Verdict::Drop);
                    assert_eq!(some.passes(&packet).1, "passed_other");
                }
            }
        }
        for (protocol, inner) in inner() {
            for packet in outer(protocol, &inner).into_iter().chain(gue(GUE_PORT, &inner)) {
                assert_eq!(all.passes(&frame(&packet)).1, "decapsulated", "whole packets are as ever");
            }
        }
    });
}

/// What Katran's own decapsulation program does, in a file that is not part of the project. It drops fragments.
#[test]
#[allow(clippy::print_stderr, reason = "says when there is nothing to compare with")]
fn published_vectors_come_out() {
    let folder = std::env::var("AFX_VECTORS")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/vectors").to_owned());
    let Ok(text) = std::fs::read_to_string(format!("{folder}/katran.json")) else {
        eprintln!("skipped: no katran.json in {folder} (set AFX_VECTORS)");
        return;
    };
    let vectors: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let bytes = |text: &str| -> Vec<u8> {
        let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal");
        (0..text.len()).step_by(2).map(byte).collect()
    };
    let bench = Bench::new(DecapOptions { on_fragment: OnFragment::Drop, ..DecapOptions::default() });
    let suites = vectors["suites"].as_array().expect("suites");
    let suite = suites.iter().find(|suite| suite["name"] == "host_decap_ipip").expect("the suite is there");
    for vector in suite["vectors"].as_array().expect("vectors") {
        let (verdict, after, _) = bench.sees(&bytes(vector["input_hex"].as_str().expect("a packet")));
        let passes = verdict == Verdict::Pass;
        assert_eq!(passes, vector["verdict"] == "XDP_PASS", "{}", vector["id"]);
        assert_eq!(
            passes.then_some(after),
            vector["output_hex"].as_str().map(bytes),
            "{}: what the stack gets",
            vector["id"]
        );
    }
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
            let options = DecapOptions { gue_port: NonZero::new(GUE_PORT), mode, ..DecapOptions::default() };
            let decap = Decap::attach(ifindex("veth1"), &options).expect("veth takes both modes");
            assert_eq!(decap.mode(), attached);
            for ((protocol, inner), service) in inner().iter().zip(&services) {
                for packet in outer(*protocol, inner).into_iter().chain(gue(GUE_PORT, inner)) {
                    wire.send(&frame(&packet));
                    let mut data = [0; 64];
                    let (length, from) = service.recv_from(&mut data).expect("the service is asked");
                    assert_eq!(&data[..length], b"a question to the VIP");
                    assert_eq!(from.ip().to_string(), if from.is_ipv4() { CLIENT4 } else { CLIENT6 });
                }
            }
            eventually("all ten are counted", || {
                decap.counters().expect("counters")
                    == DecapCounters { decapsulated: 10, ..Default::default() }
            });
            decap.detach().expect("it is attached");
        }
    });
}
