//! The program against what the rules mean: over any rules, packets and changes of steering it does as
//! [`Steering::matches`] says, and both as is known of packets that were made for it.

use std::cell::RefCell;
use std::net::IpAddr;
use std::os::fd::AsFd;

use ipnet::IpNet;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::harness::{Bench, ifindex, run};
use super::namespace::in_namespace;
use super::packets::{self, extension, fragment_header, icmp, ip, ipv4, ports, tagged};
use crate::{Options, Protocol, Rule, Steering};

/// Few enough that rules and packets meet.
const ADDRESSES: [&str; 6] = ["10.0.0.1", "10.0.0.2", "10.1.0.1", "fd00::1", "fd00::2", "fd00:1::1"];
const NETS: [&str; 8] = [
    "10.0.0.1/32",
    "10.0.0.0/30",
    "10.0.0.0/8",
    "0.0.0.0/0",
    "fd00::1/128",
    "fd00::/16",
    "fd00::/126",
    "::/0",
];
const PORTS: [u16; 2] = [80, 443];
const PROTOCOLS: [Protocol; 4] = [Protocol::TCP, Protocol::UDP, Protocol::ICMP, Protocol::ICMPV6];
const EXTENSIONS: [u8; 3] = [packets::HOP_BY_HOP, packets::ROUTING, packets::DESTINATION_OPTIONS];
const TAGS: [u16; 2] = [0x8100, 0x88a8];
/// What the program looks behind.
const TAGS_MOST: usize = 2;
const EXTENSIONS_MOST: usize = 8;

/// What a rule is held against.
#[derive(Debug, Clone, Copy)]
struct End {
    address: IpAddr,
    protocol: Protocol,
    /// `None` where it is not known, or there is none.
    port: Option<u16>,
    fragment: bool,
    /// Of a fragment, or an IPv4 packet with options, and its destination.
    flowless: bool,
}

impl End {
    fn is_matched_by(&self, rule: &Rule) -> bool {
        if rule.is_flowless() {
            return self.flowless && rule.to().contains(&self.address);
        }
        rule.to().contains(&self.address)
            && rule.protocol().is_none_or(|protocol| protocol == self.protocol)
            && rule
                .port()
                .is_none_or(|port| self.port == Some(port) || self.fragment && self.protocol.has_ports())
    }
}

#[derive(Debug, Clone)]
struct Flow {
    to: &'static str,
    protocol: Protocol,
    port: u16,
    form: Form,
    dress: Dress,
    /// The type of the ICMP message that quotes the packet: of either version, an error or not.
    quoted_by: u8,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Form {
    Whole,
    /// Whole in IPv6, and with a fragment header all the same.
    Atomic,
    Fragment {
        first: bool,
    },
}

/// What stands between the headers that count.
#[derive(Debug, Clone)]
struct Dress {
    tags: Vec<u16>,
    /// In words of four bytes.
    options: usize,
    /// Each with its length.
    extensions: Vec<(u8, u8)>,
}

impl Dress {
    /// Whether the program looks behind it, `atomic` where a fragment header counts as one extension more.
    fn is_seen_through(&self, version6: bool, atomic: bool) -> bool {
        self.tags.len() <= TAGS_MOST
            && (!version6 || self.extensions.len() + usize::from(atomic) <= EXTENSIONS_MOST)
    }
}

impl Flow {
    fn version6(&self) -> bool {
        self.to.contains(':')
    }

    fn has_options(&self) -> bool {
        !self.version6() && self.dress.options > 0
    }

    fn peer(&self) -> &'static str {
        if self.version6() { "2001:db8::9" } else { "203.0.113.9" }
    }

    fn end(&self) -> End {
        let fragment = matches!(self.form, Form::Fragment { .. });
        let port = (self.protocol.has_ports() && !fragment).then_some(self.port);
        let flowless = fragment || self.has_options();
        End {
            address: self.to.parse().expect("an address"),
            protocol: self.protocol,
            port,
            fragment,
            flowless,
        }
    }

    /// The packet to `self.to`; or, `reverse`, from there.
    fn packet(&self, reverse: bool) -> Vec<u8> {
        let (from, to) = if reverse { (self.to, self.peer()) } else { (self.peer(), self.to) };
        let (source, destination) = if reverse { (self.port, 9) } else { (9, self.port) };
        // An echo request, for ICMP of either version.
        let payload = match self.protocol {
            Protocol::ICMP => icmp(8, &[]),
            Protocol::ICMPV6 => icmp(128, &[]),
            _ => ports(source, destination),
        };
        self.wrap(from, to, self.protocol.0, self.form, &payload)
    }

    /// In an IP header and what else there is to be.
    fn wrap(&self, from: &str, to: &str, protocol: u8, form: Form, payload: &[u8]) -> Vec<u8> {
        // More to come; a fragment that is not the first begins 800 bytes into the packet.
        let (more, offset) = match form {
            Form::Whole | Form::Atomic => (false, 0),
            Form::Fragment { first } => (true, if first { 0 } else { 100 }),
        };
        if let (Ok(from), Ok(to)) = (from.parse(), to.parse()) {
            let options = vec![1; self.dress.options * 4];
            return ipv4(from, to, protocol, u16::from(more) << 13 | offset, &options, payload);
        }
        let (mut next, mut payload) = (protocol, payload.to_vec());
        if form != Form::Whole {
            payload = fragment_header(next, offset << 3 | u16::from(more), &payload);
            next = packets::FRAGMENT;
        }
        for &(kind, length) in &self.dress.extensions {
            payload = extension(next, length, &payload);
            next = kind;
        }
        ip(from, to, next, &payload)
    }

    /// An ICMP message that quotes the packet from `self.to`, sent there by a router.
    fn error(&self) -> (Vec<u8>, End) {
        let protocol = if self.version6() { packets::ICMPV6 } else { packets::ICMP };
        let message = icmp(self.quoted_by, &self.packet(true));
        let packet = self.wrap(self.peer(), self.to, protocol, Form::Whole, &message);
        let flowless = self.has_options();
        let outer = End { protocol: Protocol(protocol), port: None, fragment: false, flowless, ..self.end() };
        (packet, outer)
    }

    /// Whether the packet, or the one that an error quotes, can be read.
    fn is_seen(&self) -> bool {
        self.dress.is_seen_through(self.version6(), self.form == Form::Atomic)
    }

    fn is_quoted_by_an_error(&self) -> bool {
        if self.version6() { matches!(self.quoted_by, 1..=4) } else { matches!(self.quoted_by, 3 | 11 | 12) }
    }

    fn error_is_seen(&self) -> bool {
        self.dress.is_seen_through(self.version6(), false)
    }
}

fn rules() -> impl Strategy<Value = Vec<Rule>> {
    let rule =
        (select(&NETS[..]), prop::option::of(select(&PORTS[..])), prop::option::of(select(&PROTOCOLS[..])));
    let rule = rule.prop_filter_map("could never match", |(to, port, protocol)| {
        Rule::new(to.parse::<IpNet>().expect("a prefix"), port, protocol).ok()
    });
    let flowless = select(&NETS[..]).prop_map(|to| Rule::flowless(to.parse::<IpNet>().expect("a prefix")));
    prop::collection::vec(prop_oneof![4 => rule, 1 => flowless], 0..10)
}

fn flow() -> impl Strategy<Value = Flow> {
    let form = prop_oneof![
        3 => Just(Form::Whole),
        1 => Just(Form::Atomic),
        2 => any::<bool>().prop_map(|first| Form::Fragment { first }),
    ];
    let dress = prop_oneof![
        1 => Just(Dress { tags: vec![], options: 0, extensions: vec![] }),
        2 => (
            prop::collection::vec(select(&TAGS[..]), 0..=TAGS_MOST + 1),
            0..=10usize,
            prop::collection::vec((select(&EXTENSIONS[..]), 0..4u8), 0..=EXTENSIONS_MOST + 1),
        )
            .prop_map(|(tags, options, extensions)| Dress { tags, options, extensions }),
    ];
    let quoted_by = prop_oneof![0..6u8, 10..14u8, 127..130u8];
    (select(&ADDRESSES[..]), select(&PROTOCOLS[..]), select(&PORTS[..]), form, dress, quoted_by).prop_map(
        |(to, protocol, port, form, dress, quoted_by)| Flow { to, protocol, port, form, dress, quoted_by },
    )
}

/// Whether the program redirects the packet.
fn redirects(bench: &Bench, packet: &[u8]) -> bool {
    let outcome = run(bench.loaded.program.as_fd(), packet, ifindex("veth1"), Bench::QUEUE).expect("a run");
    outcome.verdict == libbpf_sys::XDP_REDIRECT
}

#[test]
fn the_program_matches_as_the_model_does_after_any_changes() {
    in_namespace(|| {
        let options = Options { stall_limit: None, ..Options::default() };
        let bench = RefCell::new(Bench::new(&Steering::All, &options));
        let config = ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() };
        proptest!(config, |(rules in rules(), flows in prop::collection::vec(flow(), 40))| {
            let mut bench = bench.borrow_mut();
            // Each case changes the steering that the one before it left.
            let steering = Steering::Match(rules.clone());
            bench.steer(&steering);
            let is_matched = |end: End| rules.iter().any(|rule| end.is_matched_by(rule));
            for flow in flows {
                let packet = tagged(&flow.dress.tags, &flow.packet(false));
                let expected = flow.is_seen() && is_matched(flow.end());
                prop_assert_eq!(steering.matches(&packet), expected, "{:?}", flow);
                prop_assert_eq!(redirects(&bench, &packet), expected, "{:?}", flow);

                let (error, outer) = flow.error();
                let error = tagged(&flow.dress.tags, &error);
                // What is quoted went to somebody else.
                let from = End { flowless: false, ..flow.end() };
                let quoted = flow.is_quoted_by_an_error() && flow.is_seen() && is_matched(from);
                let expected = flow.error_is_seen() && (is_matched(outer) || quoted);
                prop_assert_eq!(steering.matches(&error), expected, "error about {:?}", flow);
                prop_assert_eq!(redirects(&bench, &error), expected, "error about {:?}", flow);
            }
        });
    });
}

#[test]
fn the_program_and_the_model_agree_on_damaged_packets() {
    in_namespace(|| {
        let options = Options { stall_limit: None, ..Options::default() };
        let bench = RefCell::new(Bench::new(&Steering::All, &options));
        let config = ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() };
        // Values that lead somewhere else: lengths, versions, protocols, types of ICMP.
        let value = prop_oneof![
            select(&[0u8, 1, 3, 4, 6, 17, 43, 44, 58, 60, 0x44, 0x45, 0x4f, 0x60][..]),
            any::<u8>()
        ];
        // Anywhere, and more often where the IP header begins behind no tag, one or two.
        let place = prop_oneof![any::<Index>().prop_map(Ok), select(&[14usize, 18, 22][..]).prop_map(Err)];
        let change = (place, value);
        let damage = (prop::collection::vec(change, 0..4), prop::option::of(any::<Index>()));
        let packet = (flow(), any::<bool>(), damage).prop_map(|(flow, error, (changes, cut))| {
            let packet = if error { flow.error().0 } else { flow.packet(false) };
            let mut packet = tagged(&flow.dress.tags, &packet);
            for (place, byte) in changes {
                let at = place.map_or_else(|at: usize| at, |index| 12 + index.index(packet.len() - 12));
                packet[at] = byte;
            }
            if let Some(cut) = cut {
                packet.truncate(14 + cut.index(packet.len() - 13));
            }
            packet
        });
        proptest!(config, |(rules in rules(), packets in prop::collection::vec(packet, 60))| {
            let mut bench = bench.borrow_mut();
            let steering = Steering::Match(rules);
            bench.steer(&steering);
            for packet in packets {
                prop_assert_eq!(steering.matches(&packet), redirects(&bench, &packet), "{:02x?}", packet);
            }
        });
    });
}
