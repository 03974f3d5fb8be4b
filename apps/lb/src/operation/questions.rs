//! Questions that workers have to answer: who has a flow, which connections there are.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use afx::packet::{FlowKey, HashSeed, MacAddress, Protocol};
use afx::stage::balancer::connections::{Connection as Entry, State};
use afx::stage::balancer::real::RealId;
use afx::stage::balancer::{Answer, How, Inspection, Leaving, RealState, Services, Vip};

use super::{Operation, key};
use crate::config::Forwarding;
use crate::control::protocol::{
    self, Connection, ConnectionState, Explanation, Flow, How as Shown, Known, Mac, Method, Outer, OuterIp,
    OuterUdp, RealState as ShownState,
};
use crate::control::{Connections, Later, Next};

impl Operation {
    /// What becomes of a flow.
    pub(super) fn ask_flow(&mut self, flow: &Flow) -> Result<Later<Explanation>, String> {
        let protocol = match flow.protocol {
            protocol::Protocol::Tcp => Protocol::TCP,
            protocol::Protocol::Udp => Protocol::UDP,
        };
        let (source, destination) = (flow.source, flow.destination);
        let key = FlowKey::new(source.ip(), destination.ip(), protocol, source.port(), destination.port());
        let key = key.ok_or("source and destination are of different IP versions")?;
        let inspection = self.ask(Inspection::flow(key));
        let service = &self.service;
        service.running().publish(inspection.clone()).map_err(|error| format!("{error}"))?;
        let explainer = Explainer {
            flow: flow.clone(),
            key,
            services: service.services(),
            seed: service.hash_seed(),
            names: self.names(),
            states: self.states(),
            ports: service.config().ports.iter().map(|port| port.interface.clone()).collect(),
            method: match service.config().forwarding {
                Forwarding::Ipip { .. } => Method::Ipip,
                Forwarding::Gue { .. } => Method::Gue,
                Forwarding::L2Dsr => Method::L2Dsr,
            },
        };
        let mut missing = service.running().stats().workers.len();
        let mut known = Vec::new();
        Ok(Box::new(move || {
            while let Some(answer) = inspection.answer() {
                if let Answer::Flow { worker, known: entry } = answer {
                    missing = missing.saturating_sub(1);
                    known.extend(entry.map(|entry| (worker.index(), entry)));
                }
            }
            (missing == 0).then(|| Ok(explainer.explain(&known)))
        }))
    }

    /// The connections of all workers.
    pub(super) fn ask_connections(&mut self) -> Result<Box<dyn Connections>, String> {
        // Workers answer the newest question alone.
        if self.walk.strong_count() > 0 {
            return Err("somebody else is being shown the connections: try again in a moment".to_owned());
        }
        // Filters are not the workers' affair, nor is a limit that counts what passes them.
        let inspection = self.ask(Inspection::connections(usize::MAX));
        let service = &self.service;
        service.running().publish(inspection.clone()).map_err(|error| format!("{error}"))?;
        let alone = Arc::new(());
        self.walk = Arc::downgrade(&alone);
        Ok(Box::new(Walk {
            inspection,
            missing: service.running().stats().workers.len(),
            names: self.names(),
            _alone: alone,
        }))
    }

    /// Keeps a question until no worker has it any more: a worker never frees.
    fn ask(&mut self, question: Inspection) -> Arc<Inspection> {
        self.asked.retain(|asked| Arc::strong_count(asked) > 1);
        let question = Arc::new(question);
        self.asked.push(question.clone());
        question
    }

    /// Who has which identity.
    fn names(&self) -> BTreeMap<RealId, (Vip, IpAddr)> {
        self.service.directory().reals().map(|(vip, address, id)| (id, (vip, address))).collect()
    }

    fn states(&self) -> BTreeMap<(Vip, IpAddr), RealState> {
        self.service.states()
    }
}

/// What it takes to explain a flow.
struct Explainer {
    flow: Flow,
    key: FlowKey,
    services: Arc<Services>,
    seed: HashSeed,
    names: BTreeMap<RealId, (Vip, IpAddr)>,
    states: BTreeMap<(Vip, IpAddr), RealState>,
    ports: Vec<String>,
    method: Method,
}

impl Explainer {
    fn explain(&self, known: &[(usize, Entry)]) -> Explanation {
        let found = self.services.explain(&self.key, self.seed, known.first().map(|(_, entry)| entry.real));
        let named = found.real.and_then(|id| self.names.get(&id));
        let state = named.and_then(|name| self.states.get(name));
        let why_not = match (found.vip, found.real, found.leaving) {
            (None, ..) => Some("no VIP has this destination: its packets go to the kernel".to_owned()),
            (Some(_), None, _) => {
                Some("the VIP has no real that takes new flows: balancer.no_real".to_owned())
            }
            (Some(_), Some(_), None) => {
                Some("the way to the real is not known: balancer.no_next_hop".to_owned())
            }
            (Some(_), Some(_), Some(_)) => None,
        };
        Explanation {
            flow: self.flow.clone(),
            vip: found.vip.map(key),
            real: named.map(|(_, address)| *address),
            real_state: state.copied().map(shown_state),
            how: found.how.map(|how| match how {
                How::Connection => Shown::Connection,
                How::Maglev => Shown::Maglev,
                How::Source => Shown::Source,
                How::ServerId => Shown::ServerId,
            }),
            why_not,
            known: known.iter().map(|(worker, entry)| self.known(*worker, entry)).collect(),
            outer: found.leaving.map(|leaving| self.outer(&leaving)),
        }
    }

    fn known(&self, worker: usize, entry: &Entry) -> Known {
        Known {
            worker,
            real: self.names.get(&entry.real).map(|(_, address)| *address),
            state: connection_state(entry.state),
            idle_seconds: entry.idle.as_secs_f64(),
        }
    }

    fn outer(&self, leaving: &Leaving) -> Outer {
        let mac = |address: MacAddress| Mac(address);
        let udp = leaving.outer.filter(|outer| outer.protocol() == Protocol::UDP);
        Outer {
            method: self.method,
            port: self.ports.get(leaving.port.index()).cloned().unwrap_or_default(),
            source_mac: mac(leaving.source_mac),
            destination_mac: mac(leaving.destination_mac),
            ip: leaving.outer.map(|outer| OuterIp {
                source: outer.source(),
                destination: outer.destination(),
                protocol: outer.protocol().0,
                ttl: afx::stage::balancer::Forwarding::TTL,
            }),
            udp: udp.map(|outer| OuterUdp {
                source_port: outer.source_port(),
                destination_port: outer.destination_port(),
            }),
            mtu: leaving.mtu,
            client_mtu: leaving.longest,
        }
    }
}

/// On its way through the connection tables.
struct Walk {
    inspection: Arc<Inspection>,
    /// Workers that have more to say.
    missing: usize,
    names: BTreeMap<RealId, (Vip, IpAddr)>,
    _alone: Arc<()>,
}

/// A client may go in the middle of it.
impl Drop for Walk {
    fn drop(&mut self) {
        self.inspection.cancel();
    }
}

impl Connections for Walk {
    fn next(&mut self) -> Next {
        loop {
            if self.missing == 0 {
                return Next::Done;
            }
            match self.inspection.answer() {
                None => return Next::Pending,
                Some(Answer::Connection { worker, connection }) => {
                    let named = self.names.get(&connection.real);
                    return Next::Connection(Connection {
                        worker: worker.index(),
                        vip: named.map(|(vip, _)| key(*vip)),
                        real: named.map(|(_, address)| *address),
                        state: connection_state(connection.state),
                        idle_seconds: connection.idle.as_secs_f64(),
                        tag: format!("{:016x}", connection.tag),
                    });
                }
                Some(Answer::Done { .. }) => self.missing -= 1,
                Some(_) => {}
            }
        }
    }
}

fn connection_state(state: State) -> ConnectionState {
    match state {
        State::Opening => ConnectionState::Opening,
        State::Established => ConnectionState::Established,
        State::Closing => ConnectionState::Closing,
        State::Datagram => ConnectionState::Datagram,
    }
}

pub(super) fn shown_state(state: RealState) -> ShownState {
    match state {
        RealState::Up => ShownState::Up,
        RealState::Draining => ShownState::Drain,
        RealState::Down => ShownState::Down,
        RealState::Out => ShownState::Out,
    }
}
