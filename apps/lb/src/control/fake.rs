//! A balancer that balances nothing: for tests of what is asked of one. What it says is made up, and always the same.

mod made_up;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use afx::control::socket::Client;
use crossbeam::channel::Select;
use tempfile::TempDir;

use super::protocol::*;
use super::{Connections, Control, Later, Next, Operator};
use made_up::{mac, reals, status, vips};

/// For what should happen at once.
pub(super) const SOON: Duration = Duration::from_secs(20);

/// A balancer with three VIPs.
#[derive(Clone)]
pub(super) struct Fake {
    pub(super) status: Status,
    pub(super) vips: Vec<VipStatus>,
    pub(super) reals: Vec<RealStatus>,
    pub(super) connections: Vec<Connection>,
    /// What was asked that changes something.
    pub(super) asked: Vec<Ask>,
    /// The file is wrong.
    pub(super) bad_file: bool,
    /// How many connections a drained real loses each time that it is looked at.
    pub(super) drains_by: u64,
    /// The state that a drained real is in all the same.
    pub(super) stays: Option<RealState>,
}

impl Fake {
    pub(super) fn new() -> Self {
        let reals = reals();
        let vips = vips(&reals);
        let status = status(&vips);
        let states = [ConnectionState::Established, ConnectionState::Opening, ConnectionState::Closing];
        let connection = |number: usize| Connection {
            worker: number % 2,
            vip: Some(reals[number % 3].vip),
            real: Some(reals[number % 3].address),
            state: states[number % 3],
            idle_seconds: 0.5 * number as f64,
            tag: format!("{:016x}", 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(number as u64 + 1)),
        };
        let gone = Connection { vip: None, real: None, ..connection(5) };
        let connections = (0..5).map(connection).chain([gone]).collect();
        Self {
            status,
            vips,
            reals,
            connections,
            asked: Vec::new(),
            bad_file: false,
            drains_by: 0,
            stays: None,
        }
    }

    /// A table of so many connections.
    pub(super) fn with_connections(mut self, count: usize) -> Self {
        self.connections = self.connections.iter().cycle().take(count).cloned().collect();
        self
    }

    fn changes(&mut self, ask: Ask, change: &str) -> Result<Changed, String> {
        self.asked.push(ask);
        Ok(Changed { changes: vec![change.into()], warnings: Vec::new() })
    }

    fn find(&mut self, vip: &VipKey, address: &IpAddr) -> Result<&mut RealStatus, String> {
        let found = self.reals.iter_mut().find(|real| (&real.vip, &real.address) == (vip, address));
        found.ok_or_else(|| format!("the VIP {vip} has no real {address}"))
    }
}

/// A walk through a list that now and then is not there yet.
struct Walk(std::vec::IntoIter<Connection>, u32);

impl Connections for Walk {
    fn next(&mut self) -> Next {
        self.1 += 1;
        if self.1 == 3 || self.1.is_multiple_of(1000) {
            Next::Pending
        } else {
            self.0.next().map_or(Next::Done, Next::Connection)
        }
    }
}

impl Operator for Fake {
    fn status(&mut self) -> Status {
        self.status.clone()
    }

    fn vips(&mut self) -> Vec<VipStatus> {
        self.vips.clone()
    }

    fn reals(&mut self) -> Vec<RealStatus> {
        let drains_by = self.drains_by;
        // Those that were asked for, not the one that drains from the beginning.
        let asked = |real: &&mut RealStatus| real.drain.is_some_and(|drain| drain.since_seconds == 0.0);
        for real in self.reals.iter_mut().filter(asked) {
            real.connections = real.connections.saturating_sub(drains_by);
        }
        self.reals.clone()
    }

    fn counters(&mut self) -> Vec<Counter> {
        let counter = |group: &str, name: &str, value, meaning: &str| Counter {
            group: group.into(),
            name: name.into(),
            value,
            meaning: meaning.into(),
        };
        vec![
            counter("worker 0", "turns", 123_456_789, "Turns of the loop."),
            counter("worker 0", "sleeps", 0, "Times that the worker went to sleep."),
            counter("drops", "balancer.no_vip", 2000, "No VIP has this address, port and protocol."),
            counter(
                "drops",
                "balancer.too_big",
                0,
                "The packet and its outer header exceed the MTU of the way.",
            ),
        ]
    }

    fn stats(&mut self) -> afx::Stats {
        afx::Stats::default()
    }

    fn config(&mut self) -> Result<ConfigText, String> {
        Ok(ConfigText { toml: "version = 1\n\n[[port]]\ninterface = \"eth0\"\n".into() })
    }

    fn connections(&mut self, _wanted: &ConnectionsWanted) -> Result<Box<dyn Connections>, String> {
        Ok(Box::new(Walk(self.connections.clone().into_iter(), 0)))
    }

    fn explain(&mut self, flow: &Flow) -> Result<Later<Explanation>, String> {
        let real = &self.reals[0];
        let nothing = Explanation {
            flow: flow.clone(),
            vip: None,
            real: None,
            real_state: None,
            how: None,
            why_not: Some("no VIP has this address, port and protocol: the kernel gets its packets".into()),
            known: Vec::new(),
            outer: None,
        };
        let explanation = if flow.destination.to_string() != "198.51.100.10:443" {
            nothing
        } else {
            let connected = flow.source.port() == 40_000;
            let known = Known {
                worker: 1,
                real: Some(real.address),
                state: ConnectionState::Established,
                idle_seconds: 1.5,
            };
            Explanation {
                vip: Some(real.vip),
                real: Some(real.address),
                real_state: Some(real.state),
                how: Some(if connected { How::Connection } else { How::Maglev }),
                why_not: None,
                known: if connected { vec![known] } else { Vec::new() },
                outer: Some(Outer {
                    method: Method::Gue,
                    port: "eth0".into(),
                    source_mac: mac(1),
                    destination_mac: mac(11),
                    ip: Some(OuterIp {
                        source: [10, 200, 1, 2].into(),
                        destination: real.address,
                        protocol: 17,
                        ttl: 64,
                    }),
                    udp: Some(OuterUdp { source_port: 50_001, destination_port: 6080 }),
                    mtu: 1500,
                    client_mtu: 1472,
                }),
                ..nothing
            }
        };
        let mut turns = 0;
        Ok(Box::new(move || {
            turns += 1;
            (turns > 3).then(|| Ok(explanation.clone()))
        }))
    }

    fn reload(&mut self) -> Result<Changed, String> {
        if self.bad_file {
            return Err(
                "/etc/afx-lb.toml is not valid; nothing was changed:\n/etc/afx-lb.toml:3:1: error: the key \
                        `mod` is not known in [[port]]\n    mod = 1\n    ^^^\n    did you mean `mode`?"
                    .into(),
            );
        }
        self.asked.push(Ask::Reload {});
        Ok(Changed {
            changes: vec![
                "vip 198.51.100.10:443/tcp: real 10.0.0.12 weight 100 -> 200".into(),
                "vip 198.51.100.10:443/tcp: real 10.0.0.16 added, weight 100".into(),
            ],
            warnings: vec!["the real 10.0.0.16 is not reachable: no route to it".into()],
        })
    }

    fn real_add(&mut self, add: &RealAdd) -> Result<Changed, String> {
        let weight = add.weight.unwrap_or(100);
        let change = format!("vip {}: real {} added, weight {weight}", add.vip, add.real);
        self.changes(Ask::RealAdd(add.clone()), &change)
    }

    fn real_remove(&mut self, real: &RealNamed) -> Result<Changed, String> {
        self.find(&real.vip, &real.real)?;
        let change = format!("vip {}: real {} removed", real.vip, real.real);
        self.changes(Ask::RealRemove(real.clone()), &change)
    }

    fn real_weight(&mut self, weight: &RealWeight) -> Result<Changed, String> {
        let real = self.find(&weight.vip, &weight.real)?;
        if real.weight == weight.weight {
            return Ok(Changed::default());
        }
        let change =
            format!("vip {}: real {} weight {} -> {}", weight.vip, weight.real, real.weight, weight.weight);
        self.changes(Ask::RealWeight(weight.clone()), &change)
    }

    fn real_drain(&mut self, drain: &RealDrain) -> Result<Changed, String> {
        let stays = self.stays;
        let real = self.find(&drain.vip, &drain.real)?;
        real.drain = Some(Drain {
            since_seconds: 0.0,
            deadline_seconds: drain.deadline_seconds,
            remaining_seconds: drain.deadline_seconds,
        });
        real.state = stays.unwrap_or(RealState::Drain);
        if real.state == RealState::Up {
            real.drain = None;
        }
        let change = format!("vip {}: real {} state up -> drain", drain.vip, drain.real);
        self.changes(Ask::RealDrain(drain.clone()), &change)
    }

    fn real_undrain(&mut self, real: &RealNamed) -> Result<Changed, String> {
        let found = self.find(&real.vip, &real.real)?;
        (found.drain, found.state) = (None, RealState::Up);
        let change = format!("vip {}: real {} state drain -> up", real.vip, real.real);
        self.changes(Ask::RealUndrain(real.clone()), &change)
    }

    fn vip_add(&mut self, add: &VipAdd) -> Result<Changed, String> {
        let change = format!("vip {}: added", add.vip);
        self.changes(Ask::VipAdd(add.clone()), &change)
    }

    fn vip_remove(&mut self, vip: &VipNamed) -> Result<Changed, String> {
        let change = format!("vip {}: removed", vip.vip);
        self.changes(Ask::VipRemove(vip.clone()), &change)
    }
}

/// A fake at work, with a command socket and a metrics page.
pub(super) struct Balancer {
    _folder: TempDir,
    pub(super) socket: PathBuf,
    pub(super) metrics: std::net::SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Fake>>,
}

impl Balancer {
    pub(super) fn start(mut fake: Fake) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("afx-lb.sock");
        let mut control = Control::start(Some(&socket), Some(([127, 0, 0, 1], 0).into())).unwrap();
        let metrics = control.metrics_address().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                control.wait(Select::new(), Duration::from_millis(10));
                control.turn(&mut fake);
            }
            fake
        });
        Self { _folder: folder, socket, metrics, stop, thread: Some(thread) }
    }

    pub(super) fn client(&self) -> Client {
        Client::connect(&self.socket).unwrap().within(SOON)
    }

    /// Ends it; it tells what it has become.
    pub(super) fn stop(mut self) -> Fake {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
