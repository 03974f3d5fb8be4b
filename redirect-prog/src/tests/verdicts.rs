//! Each outcome of the redirect program, with its verdict and its counter.

use ipnet::IpNet;

use super::harness::Bench;
use super::namespace::in_namespace;
use super::packets::*;
use crate::{Options, Protocol, Rule, Steering};

const CLIENT4: &str = "198.51.100.7";
const VIP4: &str = "192.0.2.1";
const CLIENT6: &str = "2001:db8:ffff::7";
const VIP6: &str = "2001:db8::1";

fn rule(to: &str, port: impl Into<Option<u16>>, protocol: impl Into<Option<Protocol>>) -> Rule {
    let to =
        to.parse::<IpNet>().unwrap_or_else(|_| to.parse::<std::net::IpAddr>().expect("an address").into());
    Rule::new(to, port.into(), protocol.into()).expect("a valid rule")
}

/// No worker beats here, and none is missed, however slow the machine.
fn heartless() -> Options {
    Options { stall_limit: None, ..Options::default() }
}

fn bench(rules: &[Rule]) -> Bench {
    Bench::new(&Steering::Match(rules.to_vec()), &heartless())
}

fn https() -> [Rule; 2] {
    [rule(VIP4, 443, Protocol::TCP), rule(VIP6, 443, Protocol::TCP)]
}

/// To the VIP of either version.
fn to_vip(protocol: u8, payload: &[u8]) -> [Vec<u8>; 2] {
    [ip(CLIENT4, VIP4, protocol, payload), ip(CLIENT6, VIP6, protocol, payload)]
}

#[test]
fn steering_all_redirects_whatever_comes() {
    in_namespace(|| {
        let bench = Bench::new(&Steering::All, &heartless());
        for packet in to_vip(TCP, &ports(1, 22)) {
            assert_eq!(bench.sees(&frame(&packet)), "redirected");
        }
        assert_eq!(bench.sees(&ethernet(0x0806, &[0; 46])), "redirected");
        assert_eq!(bench.sees(&ethernet(0x0800, &[])), "redirected");
    });
}

#[test]
fn a_rule_steers_its_address_port_and_protocol_only() {
    in_namespace(|| {
        let bench = bench(&https());
        for packet in to_vip(TCP, &ports(1, 443)) {
            assert_eq!(bench.sees(&frame(&packet)), "redirected");
        }
        for packet in to_vip(TCP, &ports(443, 80)).into_iter().chain(to_vip(UDP, &ports(1, 443))) {
            assert_eq!(bench.sees(&frame(&packet)), "passed_unmatched");
        }
        let others =
            [ip(CLIENT4, "192.0.2.2", TCP, &ports(1, 443)), ip(CLIENT6, "2001:db8::2", TCP, &ports(1, 443))];
        for packet in others {
            assert_eq!(bench.sees(&frame(&packet)), "passed_unmatched");
        }
        assert_eq!(bench.sees(&ethernet(0x0806, &[0; 46])), "passed_unmatched");
        assert_eq!(bench.sees(&ethernet(0x88cc, &[])), "passed_unmatched");
    });
}

#[test]
fn port_and_protocol_can_be_left_open() {
    in_namespace(|| {
        let mut bench = bench(&[]);
        let tcp443 = || to_vip(TCP, &ports(1, 443)).map(|packet| frame(&packet));
        let tcp0 = || to_vip(TCP, &ports(1, 0)).map(|packet| frame(&packet));
        let udp443 = || to_vip(UDP, &ports(1, 443)).map(|packet| frame(&packet));
        let ping = || [(ICMP, 8), (ICMPV6, 128)].map(|(protocol, kind)| (protocol, icmp(kind, &[])));
        let pings = || {
            let [(p4, m4), (p6, m6)] = ping();
            [frame(&ip(CLIENT4, VIP4, p4, &m4)), frame(&ip(CLIENT6, VIP6, p6, &m6))]
        };
        let mut expect = |port: Option<u16>, protocol: Option<Protocol>, steered: [bool; 4]| {
            bench.steer(&Steering::Match(vec![rule(VIP4, port, protocol), rule(VIP6, port, protocol)]));
            for (packets, steered) in [tcp443(), tcp0(), udp443(), pings()].into_iter().zip(steered) {
                for packet in packets {
                    let expected = if steered { "redirected" } else { "passed_unmatched" };
                    assert_eq!(bench.sees(&packet), expected, "{port:?} {protocol:?}: {packet:02x?}");
                }
            }
        };
        expect(Some(443), Some(Protocol::TCP), [true, false, false, false]);
        expect(Some(443), None, [true, false, true, false]);
        expect(None, Some(Protocol::TCP), [true, true, false, false]);
        expect(None, None, [true, true, true, true]);
    });
}

#[test]
fn prefixes_steer_all_that_some_rule_covers() {
    in_namespace(|| {
        let bench = bench(&[
            rule("10.0.0.0/8", None, Protocol::UDP),
            rule("10.1.0.0/16", 80, Protocol::TCP),
            rule("10.1.2.3", 81, Protocol::TCP),
            rule("10.1.0.0/16", 53, Protocol::UDP),
            rule("fd00::/8", 53, None),
            rule("fd00:1::/32", None, Protocol::TCP),
        ]);
        let sees = |to: &str, protocol, port| {
            let from = if to.contains(':') { CLIENT6 } else { CLIENT4 };
            bench.sees(&frame(&ip(from, to, protocol, &ports(9, port))))
        };
        assert_eq!(sees("10.9.9.9", UDP, 1), "redirected");
        assert_eq!(
            sees("10.1.0.1", UDP, 1),
            "redirected",
            "a longer prefix does not hide the shorter one's rule"
        );
        assert_eq!(sees("10.1.2.3", UDP, 1), "redirected", "nor does an address");
        assert_eq!(sees("10.1.2.3", TCP, 80), "redirected");
        assert_eq!(sees("10.1.2.3", TCP, 81), "redirected");
        assert_eq!(sees("10.1.2.4", TCP, 81), "passed_unmatched");
        assert_eq!(sees("10.2.0.1", TCP, 80), "passed_unmatched");
        assert_eq!(sees("11.0.0.1", UDP, 1), "passed_unmatched");
        assert_eq!(sees("fd00:2::1", UDP, 53), "redirected");
        assert_eq!(sees("fd00:1::1", UDP, 53), "redirected");
        assert_eq!(sees("fd00:1::1", TCP, 54), "redirected");
        assert_eq!(sees("fd00:2::1", TCP, 54), "passed_unmatched");
        assert_eq!(sees("fe00::1", UDP, 53), "passed_unmatched");
    });
}

#[test]
fn up_to_two_vlan_tags_are_looked_behind() {
    in_namespace(|| {
        let bench = bench(&https());
        for packet in to_vip(TCP, &ports(1, 443)) {
            assert_eq!(bench.sees(&tagged(&[0x8100], &packet)), "redirected");
            assert_eq!(bench.sees(&tagged(&[0x88a8, 0x8100], &packet)), "redirected");
            assert_eq!(bench.sees(&tagged(&[0x8100, 0x8100, 0x8100], &packet)), "passed_unmatched");
        }
        let other = ip(CLIENT4, VIP4, TCP, &ports(1, 80));
        assert_eq!(bench.sees(&tagged(&[0x8100], &other)), "passed_unmatched");
    });
}

#[test]
fn options_and_extension_headers_are_stepped_over() {
    in_namespace(|| {
        let bench = bench(&https());
        let (from, to) = (CLIENT4.parse().expect("IPv4"), VIP4.parse().expect("IPv4"));
        for words in 1..=10 {
            let packet = ipv4(from, to, TCP, 0, &vec![1; words * 4], &ports(1, 443));
            assert_eq!(bench.sees(&frame(&packet)), "redirected");
        }

        let sees6 = |next, payload: &[u8]| bench.sees(&frame(&ip(CLIENT6, VIP6, next, payload)));
        for kind in [HOP_BY_HOP, ROUTING, DESTINATION_OPTIONS] {
            assert_eq!(sees6(kind, &extension(TCP, 3, &ports(1, 443))), "redirected");
            assert_eq!(sees6(kind, &extension(TCP, 3, &ports(1, 80))), "passed_unmatched");
            assert_eq!(sees6(kind, &extension(TCP, 255, &[])), "malformed");
        }
        let chain =
            extension(ROUTING, 0, &extension(DESTINATION_OPTIONS, 1, &extension(TCP, 0, &ports(1, 443))));
        assert_eq!(sees6(HOP_BY_HOP, &chain), "redirected");

        let chain_of = |length: usize| {
            (1..length)
                .fold(extension(TCP, 0, &ports(1, 443)), |inner, _| extension(DESTINATION_OPTIONS, 0, &inner))
        };
        assert_eq!(sees6(DESTINATION_OPTIONS, &chain_of(8)), "redirected");
        assert_eq!(sees6(DESTINATION_OPTIONS, &chain_of(9)), "malformed");
    });
}

#[test]
fn fragments_follow_their_address_and_protocol() {
    in_namespace(|| {
        let mut bench = bench(&https());
        for (from, to) in [(CLIENT4, VIP4), (CLIENT6, VIP6)] {
            for first in [true, false] {
                let sees = |to, protocol, port| {
                    bench.sees(&frame(&fragment(from, to, protocol, first, &ports(1, port))))
                };
                assert_eq!(sees(to, TCP, 443), "redirected");
                assert_eq!(sees(to, TCP, 80), "redirected", "as the other fragments go, which have no port");
                assert_eq!(sees(to, UDP, 443), "passed_unmatched");
                assert_eq!(sees(from, TCP, 443), "passed_unmatched");
            }
            let short = fragment(from, to, TCP, false, &[]);
            assert_eq!(bench.sees(&frame(&short)), "redirected", "a fragment need not have room for ports");
        }
        // RFC 6946: a fragment header on a whole packet.
        let atomic = |port| ip(CLIENT6, VIP6, FRAGMENT, &fragment_header(TCP, 0, &ports(1, port)));
        assert_eq!(bench.sees(&frame(&atomic(443))), "redirected");
        assert_eq!(bench.sees(&frame(&atomic(80))), "passed_unmatched");

        bench.steer(&Steering::Match(vec![rule(VIP4, 53, None), rule("2001:db8::/32", 53, Protocol::UDP)]));
        assert_eq!(bench.sees(&frame(&fragment(CLIENT4, VIP4, TCP, false, &[1]))), "redirected");
        assert_eq!(bench.sees(&frame(&fragment(CLIENT4, VIP4, ICMP, false, &[1]))), "passed_unmatched");
        assert_eq!(bench.sees(&frame(&fragment(CLIENT6, VIP6, UDP, false, &[1]))), "redirected");
        assert_eq!(bench.sees(&frame(&fragment(CLIENT6, VIP6, TCP, false, &[1]))), "passed_unmatched");
    });
}

#[test]
fn a_flowless_rule_steers_all_fragments_and_packets_with_options_and_nothing_else() {
    in_namespace(|| {
        let net = |text: &str| text.parse::<IpNet>().expect("a prefix");
        let mut bench = bench(&https());
        for rules in [
            vec![Rule::flowless(net("192.0.2.1/32")), Rule::flowless(net("2001:db8::1/128"))],
            vec![Rule::flowless(net("192.0.2.0/24")), Rule::flowless(net("2001:db8::/48"))],
        ] {
            // Beside other rules, and alone.
            for others in [&https()[..], &[]] {
                bench.steer(&Steering::Match([others, &rules].concat()));
                for (from, to) in [(CLIENT4, VIP4), (CLIENT6, VIP6)] {
                    for first in [true, false] {
                        for protocol in [TCP, UDP, ICMP, ICMPV6, 122] {
                            let packet = fragment(from, to, protocol, first, &ports(1, 80));
                            assert_eq!(bench.sees(&frame(&packet)), "redirected", "{protocol}");
                        }
                        let elsewhere = fragment(to, from, UDP, first, &ports(1, 80));
                        assert_eq!(bench.sees(&frame(&elsewhere)), "passed_unmatched");
                    }
                    let whole = ip(from, to, UDP, &ports(1, 80));
                    assert_eq!(bench.sees(&frame(&whole)), "passed_unmatched");
                }
                let (client, vip) = (CLIENT4.parse().expect("IPv4"), VIP4.parse().expect("IPv4"));
                let options = |to, from| frame(&ipv4(from, to, UDP, 0, &[1; 4], &ports(1, 80)));
                assert_eq!(bench.sees(&options(vip, client)), "redirected");
                assert_eq!(bench.sees(&options(client, vip)), "passed_unmatched");
            }
        }
        bench.steer(&Steering::Match(https().to_vec()));
        assert_eq!(bench.sees(&frame(&fragment(CLIENT4, VIP4, UDP, true, &[1]))), "passed_unmatched");
    });
}

#[test]
fn icmp_errors_follow_the_packet_that_they_quote() {
    in_namespace(|| {
        let bench = bench(&https());
        let router = |version6| if version6 { "2001:db8:eeee::1" } else { "203.0.113.9" };
        for (client, vip, protocol, errors, others) in
            [(CLIENT4, VIP4, ICMP, [3, 11, 12], [0, 5, 8]), (CLIENT6, VIP6, ICMPV6, [1, 2, 3], [0, 128, 135])]
        {
            let router = router(protocol == ICMPV6);
            let sees =
                |kind, quoted: &[u8]| bench.sees(&frame(&ip(router, vip, protocol, &icmp(kind, quoted))));
            let sent = |port| ip(vip, client, TCP, &ports(port, 50_000));
            for kind in errors {
                assert_eq!(sees(kind, &sent(443)), "redirected");
                assert_eq!(sees(kind, &sent(80)), "passed_unmatched");
                assert_eq!(
                    sees(kind, &ip(client, vip, TCP, &ports(443, 443))),
                    "passed_unmatched",
                    "not sent by the VIP"
                );
                let header = sent(443).len() - ports(0, 0).len();
                assert_eq!(sees(kind, &sent(443)[..header + 4]), "redirected", "four bytes are the ports");
                assert_eq!(
                    sees(kind, &sent(80)[..header + 3]),
                    "redirected",
                    "without ports, by address and protocol"
                );
                assert_eq!(sees(kind, &sent(443)[..header - 1]), "passed_unmatched");
                assert_eq!(sees(kind, &fragment(vip, client, TCP, false, &[0; 8])), "redirected");
                assert_eq!(sees(kind, &fragment(vip, client, UDP, false, &[0; 8])), "passed_unmatched");
            }
            for kind in others {
                assert_eq!(
                    sees(kind, &sent(443)),
                    "passed_unmatched",
                    "type {kind} is no error about a packet"
                );
            }
        }
        let behind_options = ip(VIP6, CLIENT6, DESTINATION_OPTIONS, &extension(TCP, 1, &ports(443, 9)));
        let error = ip(router(true), VIP6, HOP_BY_HOP, &extension(ICMPV6, 0, &icmp(2, &behind_options)));
        assert_eq!(bench.sees(&frame(&error)), "redirected");
    });
}

#[test]
fn a_packet_cut_at_any_length_is_malformed_until_its_ports_are_there() {
    in_namespace(|| {
        let bench = bench(&https());
        let destination_options = extension(TCP, 1, &ports(1, 443));
        let samples = [
            (frame(&ip(CLIENT4, VIP4, TCP, &ports(1, 443))), 14 + 20 + 4),
            (frame(&ip(CLIENT6, VIP6, TCP, &ports(1, 443))), 14 + 40 + 4),
            (tagged(&[0x88a8, 0x8100], &ip(CLIENT4, VIP4, TCP, &ports(1, 443))), 22 + 20 + 4),
            (frame(&ip(CLIENT6, VIP6, DESTINATION_OPTIONS, &destination_options)), 14 + 40 + 16 + 4),
            (frame(&fragment(CLIENT6, VIP6, TCP, true, &ports(1, 443))), 14 + 40 + 8),
            (frame(&fragment(CLIENT4, VIP4, TCP, true, &ports(1, 443))), 14 + 20),
        ];
        for (whole, enough) in &samples {
            for length in 14..=whole.len() {
                let expected = if length < *enough { "malformed" } else { "redirected" };
                assert_eq!(bench.sees(&whole[..length]), expected, "{length} of {whole:02x?}");
            }
        }

        // Too short an ICMP error is malformed; too short a quotation is just not ours.
        let error = frame(&ip(CLIENT4, VIP4, ICMP, &icmp(3, &ip(VIP4, CLIENT4, TCP, &ports(443, 1)))));
        for length in 14..=error.len() {
            let expected = match length {
                0..42 => "malformed",
                42..62 => "passed_unmatched",
                _ => "redirected",
            };
            assert_eq!(bench.sees(&error[..length]), expected, "{length} of {error:02x?}");
        }
    });
}

#[test]
fn headers_that_say_nonsense_are_malformed() {
    in_namespace(|| {
        let bench = bench(&https());
        let [good4, good6] = to_vip(TCP, &ports(1, 443)).map(|packet| frame(&packet));
        for first_byte in [0x35, 0x65, 0x44, 0x40] {
            let mut bad = good4.clone();
            bad[14] = first_byte;
            assert_eq!(bench.sees(&bad), "malformed", "{first_byte:#x}");
        }
        for first_byte in [0x40, 0x70] {
            let mut bad = good6.clone();
            bad[14] = first_byte;
            assert_eq!(bench.sees(&bad), "malformed", "{first_byte:#x}");
        }
    });
}

#[test]
fn blocked_sources_are_dropped_steered_or_not() {
    in_namespace(|| {
        let mut bench = bench(&https());
        let probes = |bench: &Bench| {
            [
                frame(&ip("198.51.100.7", VIP4, TCP, &ports(1, 443))),
                frame(&ip("198.51.100.7", "192.0.2.99", UDP, &ports(1, 1))),
                frame(&ip("2001:db8:ffff::7", VIP6, TCP, &ports(1, 443))),
                frame(&ip("203.0.113.1", VIP4, TCP, &ports(1, 443))),
            ]
            .map(|packet| bench.sees(&packet))
        };
        assert_eq!(probes(&bench), ["redirected", "passed_unmatched", "redirected", "redirected"]);
        bench.block(&["198.51.100.0/24"]);
        assert_eq!(probes(&bench), ["blocked", "blocked", "redirected", "redirected"]);
        bench.block(&["2001:db8:ffff::/48", "203.0.113.1/32"]);
        assert_eq!(probes(&bench), ["redirected", "passed_unmatched", "blocked", "blocked"]);
        let unreadable = ip("2001:db8:ffff::7", VIP6, DESTINATION_OPTIONS, &extension(TCP, 255, &[]));
        assert_eq!(bench.sees(&frame(&unreadable)), "blocked");
        bench.steer(&Steering::All);
        assert_eq!(probes(&bench), ["redirected", "redirected", "blocked", "blocked"]);
        assert_eq!(
            bench.sees(&ethernet(0x0800, &[0x45])),
            "redirected",
            "no source can be read, so none is blocked"
        );
        assert_eq!(bench.sees(&ethernet(0x86dd, &[0x60])), "redirected");
        bench.block(&[]);
        assert_eq!(probes(&bench), ["redirected"; 4]);
    });
}

#[test]
fn queues_without_a_socket_pass_to_the_kernel() {
    in_namespace(|| {
        let bench = Bench::new(&Steering::Match(https().to_vec()), &Options { queues: 3, ..heartless() });
        let [packet, _] = to_vip(TCP, &ports(1, 443)).map(|packet| frame(&packet));
        let [other, _] = to_vip(TCP, &ports(1, 80)).map(|packet| frame(&packet));
        assert_eq!(bench.sees_on(Bench::QUEUE, &packet), "redirected");
        assert_eq!(bench.sees_on(0, &packet), "passed_no_socket");
        assert_eq!(bench.sees_on(0, &other), "passed_unmatched");
        assert_eq!(
            bench.sees_on(3, &packet),
            "passed_no_socket",
            "a queue that the program has no entry for"
        );

        bench.loaded.unregister(Bench::QUEUE).expect("there is a socket");
        assert_eq!(bench.sees(&packet), "passed_no_socket");
        bench.loaded.unregister(Bench::QUEUE).expect("twice does no harm");
        bench.loaded.register(Bench::QUEUE, bench.socket.fd()).expect("the socket registers again");
        assert_eq!(bench.sees(&packet), "redirected");
    });
}

#[test]
fn packets_that_do_not_fit_a_frame_pass_to_the_kernel() {
    in_namespace(|| {
        for multi_buffer in [false, true] {
            let options = Options { frame_limit: 1000, multi_buffer, ..heartless() };
            let bench = Bench::new(&Steering::All, &options);
            assert_eq!(bench.sees(&[0; 1000]), "redirected");
            assert_eq!(bench.sees(&[0; 1001]), "oversize");
        }
        // More than a page: in several buffers, whose lengths count together.
        let options = Options { frame_limit: 9000, multi_buffer: true, ..heartless() };
        let bench = Bench::new(&Steering::All, &options);
        assert_eq!(bench.sees(&[0; 9000]), "redirected");
        assert_eq!(bench.sees(&[0; 9001]), "oversize");
    });
}

#[test]
fn what_fits_changes_while_the_program_runs() {
    in_namespace(|| {
        let options = Options { frame_limit: 1000, multi_buffer: true, ..heartless() };
        let mut bench = Bench::new(&Steering::All, &options);
        assert_eq!(bench.sees(&[0; 9000]), "oversize");
        bench.loaded.limit(9000, |_| Ok(())).expect("the limit changes");
        assert_eq!(bench.sees(&[0; 9000]), "redirected");
        assert_eq!(bench.sees(&[0; 9001]), "oversize");
        // What else changes leaves it as it is.
        bench.steer(&Steering::Match(vec![]));
        bench.steer(&Steering::All);
        assert_eq!(bench.sees(&[0; 9000]), "redirected");
        // The same again needs no program.
        bench.loaded.limit(9000, |_| unreachable!("nothing to attach")).expect("nothing changes");
    });
}

#[test]
fn long_packets_are_steered_by_their_headers() {
    in_namespace(|| {
        let options = Options { frame_limit: 32_000, multi_buffer: true, ..heartless() };
        let bench = Bench::new(&Steering::Match(https().to_vec()), &options);
        let long = |port| to_vip(TCP, &[ports(1, port), vec![0; 9000]].concat()).map(|packet| frame(&packet));
        for (packet, other) in long(443).into_iter().zip(long(80)) {
            assert_eq!(bench.sees(&packet), "redirected");
            assert_eq!(bench.sees(&other), "passed_unmatched");
        }
    });
}
