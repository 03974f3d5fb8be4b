//! The program against a slow model of what the rules mean, over any rules, packets and changes of steering.

use std::cell::RefCell;
use std::net::IpAddr;

use ipnet::IpNet;
use proptest::prelude::*;
use proptest::sample::select;

use super::harness::Bench;
use super::namespace::in_namespace;
use super::packets::{self, fragment, frame, icmp, ip, ports};
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

/// What a rule is held against.
#[derive(Debug, Clone, Copy)]
struct End {
    address: IpAddr,
    protocol: Protocol,
    /// `None` where it is not known, or there is none.
    port: Option<u16>,
    fragment: bool,
}

impl End {
    fn is_matched_by(&self, rule: &Rule) -> bool {
        rule.to().contains(&self.address)
            && rule.protocol().is_none_or(|protocol| protocol == self.protocol)
            && rule
                .port()
                .is_none_or(|port| self.port == Some(port) || self.fragment && self.protocol.has_ports())
    }
}

#[derive(Debug, Clone, Copy)]
struct Flow {
    to: &'static str,
    protocol: Protocol,
    port: u16,
    form: Form,
}

#[derive(Debug, Clone, Copy)]
enum Form {
    Whole,
    Fragment { first: bool },
}

impl Flow {
    fn peer(&self) -> &'static str {
        if self.to.contains(':') { "2001:db8::9" } else { "203.0.113.9" }
    }

    fn end(&self) -> End {
        let fragment = matches!(self.form, Form::Fragment { .. });
        let port = (self.protocol.has_ports() && !fragment).then_some(self.port);
        End { address: self.to.parse().expect("an address"), protocol: self.protocol, port, fragment }
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
        match self.form {
            Form::Whole => ip(from, to, self.protocol.0, &payload),
            Form::Fragment { first } => fragment(from, to, self.protocol.0, first, &payload),
        }
    }

    /// An ICMP error about the packet from `self.to`, sent there by a router.
    fn error(&self) -> (Vec<u8>, End) {
        let version6 = self.to.contains(':');
        let (protocol, kind) = if version6 { (packets::ICMPV6, 1) } else { (packets::ICMP, 3) };
        let packet = ip(self.peer(), self.to, protocol, &icmp(kind, &self.packet(true)));
        let outer = End { protocol: Protocol(protocol), port: None, fragment: false, ..self.end() };
        (packet, outer)
    }
}

fn rules() -> impl Strategy<Value = Vec<Rule>> {
    let rule =
        (select(&NETS[..]), prop::option::of(select(&PORTS[..])), prop::option::of(select(&PROTOCOLS[..])));
    prop::collection::vec(
        rule.prop_filter_map("could never match", |(to, port, protocol)| {
            Rule::new(to.parse::<IpNet>().expect("a prefix"), port, protocol).ok()
        }),
        0..10,
    )
}

fn flow() -> impl Strategy<Value = Flow> {
    let form = prop_oneof![
        2 => Just(Form::Whole),
        1 => any::<bool>().prop_map(|first| Form::Fragment { first }),
    ];
    (select(&ADDRESSES[..]), select(&PROTOCOLS[..]), select(&PORTS[..]), form)
        .prop_map(|(to, protocol, port, form)| Flow { to, protocol, port, form })
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
            bench.steer(&Steering::Match(rules.clone()));
            let expected = |ends: &[End]| {
                let steered = ends.iter().any(|end| rules.iter().any(|rule| end.is_matched_by(rule)));
                if steered { "redirected" } else { "passed_unmatched" }
            };
            for flow in flows {
                let packet = frame(&flow.packet(false));
                prop_assert_eq!(bench.sees(&packet), expected(&[flow.end()]), "{:?}", flow);
                let (error, outer) = flow.error();
                prop_assert_eq!(bench.sees(&frame(&error)), expected(&[outer, flow.end()]), "error about {:?}", flow);
            }
        });
    });
}
