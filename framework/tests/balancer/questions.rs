//! What a balancer says when it is asked: explanations, and the connections that a worker has.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use afx::packet::{FlowKey, HashSeed, Protocol, TcpFlags};
use afx::stage::balancer::real::RealId;
use afx::stage::balancer::{Answer, Explanation, Forwarding, HashOn, How, Inspection, RealState, VipOptions};

use crate::lab::{HASH_SEED, IPIP, Lab, OWN_MAC, Real, Setup, mac_of, vip};
use crate::outer::Outer;
use crate::packets::{tcp, udp};

const VIP4: &str = "198.51.100.10:443";
const VIP6: &str = "[2001:db8::10]:443";

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn flow(client: SocketAddr, to: &str, protocol: Protocol) -> FlowKey {
    let to = address(to);
    FlowKey::new(client.ip(), to.ip(), protocol, client.port(), to.port()).unwrap()
}

fn explained(lab: &Lab, flow: &FlowKey, known: Option<RealId>) -> Explanation {
    lab.services.explain(flow, HashSeed(HASH_SEED), known)
}

fn setup(forwarding: Forwarding) -> Setup {
    let reals = || ["10.0.0.11", "10.0.0.12", "fd00::13"].map(Real::new).to_vec();
    let v6 = || ["fd00::14", "fd00::15"].map(Real::new).to_vec();
    Setup {
        forwarding,
        ..Setup::new([(vip(VIP4, Protocol::TCP), reals()), (vip(VIP6, Protocol::TCP), v6())])
    }
}

#[test]
fn a_flow_s_packets_leave_as_was_explained() {
    let (source_v4, source_v6) = ("10.200.0.0/20".parse().ok(), "fd00:afb::/100".parse().ok());
    let gue = Forwarding::Gue { source_v4, source_v6, port: 6080 };
    let prefixes = Forwarding::Ipip { source_v4, source_v6 };
    for (forwarding, hash) in
        [(IPIP, HashOn::FiveTuple), (prefixes, HashOn::Source), (gue, HashOn::DestinationPort)]
    {
        let options = VipOptions { hash, ..VipOptions::default() };
        let mut lab = Lab::new(&setup(forwarding).options(options));
        for number in 0..50 {
            let clients = [
                (SocketAddr::from(([192, 0, 2, number], 4000)), VIP4),
                (SocketAddr::from(([0x2001, 0xdb8, 0xc, 0, 0, 0, 0, number.into()], 4000)), VIP6),
            ];
            for (client, to) in clients {
                let explanation = explained(&lab, &flow(client, to, Protocol::TCP), None);
                let leaving = explanation.leaving.unwrap();
                let out = lab.exchange([tcp(client, address(to), TcpFlags::SYN)]);
                let outer = Outer::decode(&out[0]);
                let (from, to) = outer.ports.unwrap_or((0, 0));
                let expected =
                    FlowKey::new(outer.source, outer.destination, Protocol(outer.protocol), from, to);
                assert_eq!(leaving.outer, expected);
                assert_eq!(
                    (leaving.source_mac, leaving.destination_mac),
                    (OWN_MAC, mac_of(&outer.destination))
                );
                assert_eq!(leaving.longest as usize, 1500 - (out[0].len() - 14 - outer.inner.len()));
                let decision = lab.decisions()[0].unwrap();
                assert_eq!(
                    (Some(decision.vip), decision.real, decision.how),
                    (explanation.vip, explanation.real, explanation.how)
                );
            }
        }
        lab.finish();
    }
}

#[test]
fn an_explanation_goes_by_what_the_worker_knows() {
    let options = VipOptions { udp_leaves_down: true, ..VipOptions::default() };
    let mut setup = Setup { forwarding: Forwarding::L2Dsr, ..Setup::new([]) };
    let services = [Protocol::TCP, Protocol::UDP].map(|protocol| vip(VIP4, protocol));
    let reals =
        || vec![Real::new("10.0.0.11"), Real::new("10.0.0.12").weight(0), Real::new("10.0.0.13").weight(0)];
    setup.vips = Setup::new(services.map(|service| (service, reals()))).options(options).vips;
    setup.vips[0].reals.push(Real { mtu: None, ..Real::new("10.0.0.14").weight(0).source("192.0.2.9/32") });
    for served in &mut setup.vips {
        served.reals[1].state = RealState::Down;
        served.reals[2].state = RealState::Out;
    }
    let lab = Lab::new(&setup);
    let client = SocketAddr::from(([192, 0, 2, 1], 4000));
    let known = |protocol, real: &str| {
        let id = lab.directory.id(&vip(VIP4, protocol), &real.parse().unwrap());
        let explanation = explained(&lab, &flow(client, VIP4, protocol), id);
        let of = |(_, address, other)| (Some(other) == explanation.real).then_some(address);
        (lab.directory.reals().find_map(of).unwrap().to_string(), explanation.how.unwrap())
    };
    let chosen = |real: &str, how| (real.to_owned(), how);
    assert_eq!(known(Protocol::TCP, "10.0.0.12"), chosen("10.0.0.12", How::Connection), "down, but known");
    assert_eq!(known(Protocol::UDP, "10.0.0.12"), chosen("10.0.0.11", How::Maglev), "datagrams leave");
    assert_eq!(known(Protocol::TCP, "10.0.0.13"), chosen("10.0.0.11", How::Maglev), "out");

    let by_source = explained(&lab, &flow(SocketAddr::from(([192, 0, 2, 9], 1)), VIP4, Protocol::TCP), None);
    assert_eq!((by_source.how, by_source.leaving), (Some(How::Source), None), "there is no way");
    let leaving = explained(&lab, &flow(client, VIP4, Protocol::TCP), None).leaving.unwrap();
    assert_eq!((leaving.outer, leaving.longest), (None, 1500), "by MAC address alone");
    let nowhere = explained(&lab, &flow(client, "198.51.100.11:443", Protocol::TCP), None);
    assert_eq!((nowhere.vip, nowhere.real, nowhere.how, nowhere.leaving), (None, None, None, None));
    lab.finish();
}

#[test]
fn a_vip_without_reals_explains_itself() {
    let lab = Lab::new(&Setup::new([(vip(VIP4, Protocol::TCP), vec![])]));
    let explanation = explained(&lab, &flow(address("192.0.2.1:1"), VIP4, Protocol::TCP), None);
    assert_eq!((explanation.vip, explanation.real), (Some(vip(VIP4, Protocol::TCP)), None));
    lab.finish();
}

/// All that a worker answers to a question.
fn answers(lab: &mut Lab, question: Inspection) -> (Vec<Answer>, bool) {
    let question = Arc::new(question);
    lab.worker.configure(question.clone());
    let mut answers = Vec::new();
    for _ in 0..1_000_000 {
        lab.worker.turn();
        while let Some(answer) = question.answer() {
            if let Answer::Done { more, .. } = answer {
                assert_eq!(question.answer(), None, "there is nothing to come");
                return (answers, more);
            }
            answers.push(answer);
        }
    }
    panic!("not done after {} answers", answers.len());
}

#[test]
fn all_connections_of_a_worker_are_shown_however_many() {
    const FLOWS: u16 = 10_000;
    let mut lab = Lab::with_capacity(&setup(IPIP), 20_000);
    let client = |number| SocketAddr::from(([192, 0, 2, 1], 10_000 + number));
    lab.exchange((0..FLOWS).map(|number| tcp(client(number), address(VIP4), TcpFlags::SYN)));
    let (all, more) = answers(&mut lab, Inspection::connections(usize::MAX));
    assert!(!more);
    let tags: BTreeSet<_> = all.iter().map(|answer| connection(answer).tag).collect();
    assert_eq!((all.len(), tags.len()), (FLOWS.into(), FLOWS.into()));
    for real in ["10.0.0.11", "10.0.0.12", "fd00::13"] {
        let id = lab.directory.id(&vip(VIP4, Protocol::TCP), &real.parse().unwrap()).unwrap();
        let shown = all.iter().filter(|answer| connection(answer).real == id).count();
        assert_eq!(shown as u64, lab.monitor.real(id).opened);
    }
    let (some, more) = answers(&mut lab, Inspection::connections(100));
    assert_eq!((some.len(), more), (100, true));
    let (exactly, more) = answers(&mut lab, Inspection::connections(FLOWS.into()));
    assert_eq!((exactly.len(), more), (FLOWS.into(), false));
    lab.finish();
}

fn connection(answer: &Answer) -> afx::stage::balancer::connections::Connection {
    match answer {
        Answer::Connection { worker, connection } => {
            assert_eq!(worker.index(), 0);
            *connection
        }
        _ => panic!("{answer:?}"),
    }
}

#[test]
fn a_question_nobody_listens_to_holds_nothing_up() {
    let mut lab = Lab::with_capacity(&setup(IPIP), 20_000);
    let client = |number: u16| SocketAddr::from(([192, 0, 2, 1], 10_000 + number));
    lab.exchange((0..10_000).map(|number| tcp(client(number), address(VIP4), TcpFlags::SYN)));
    lab.worker.configure(Arc::new(Inspection::connections(usize::MAX)));
    for number in 0..1000 {
        assert_eq!(lab.exchange([tcp(client(number), address(VIP4), TcpFlags::ACK)]).len(), 1);
    }
    // And another one is answered in its place.
    let (some, _) = answers(&mut lab, Inspection::connections(10));
    assert_eq!(some.len(), 10);
    lab.finish();
}

#[test]
fn a_decision_is_of_the_last_batch() {
    let mut lab = Lab::new(&setup(IPIP));
    let client = address("192.0.2.1:4000");
    let packets = [tcp(client, address(VIP4), TcpFlags::SYN), udp(client, address(VIP4), b"no VIP")];
    lab.exchange(&packets);
    let decisions = lab.decisions();
    assert_eq!(decisions[0].map(|decision| decision.how), Some(Some(How::Maglev)));
    assert_eq!(decisions[1], None);
    // A batch of one: of what was in the second slot nothing is left.
    lab.exchange([&packets[1]]);
    assert_eq!(lab.decisions(), [None]);
    lab.finish();
}
