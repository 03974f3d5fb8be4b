//! What there is to see: status, VIPs, reals, counters.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Instant;

use afx::Stats;
use afx::control::health;
use afx::stage::balancer::{RealState, RealStats};

use super::Operation;
use super::rates::Rate;
use crate::config::{self, Queues, VipKey};
use crate::control::protocol::{
    ChecksStatus, ConfigurationStatus, Counter, DownBy, Drain, Drops, Fact, Health, HealthState, Mac,
    NextHop, PortStatus, RealState as Shown, RealStatus, SettingStatus, Status, TableStatus, Totals, Traffic,
    VipStatus, VipSummary, WorkerStatus,
};
use crate::privileges;
use crate::service::plan::vip_of;
use crate::service::{Health as Found, Standing};

impl Operation {
    /// How it goes.
    pub(super) fn show_status(&self) -> Status {
        let stats = self.service.running().stats();
        let vips = self.show_vips();
        let summary = |vip: &VipStatus| VipSummary {
            vip: vip.vip,
            reals: vip.reals,
            reals_up: vip.reals_up,
            connections: vip.connections,
            packets: vip.traffic.packets,
            bytes: vip.traffic.bytes,
        };
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_seconds: self.started.elapsed().as_secs_f64(),
            configuration: ConfigurationStatus {
                file: self.file.display().to_string(),
                loaded_seconds_ago: self.loaded.elapsed().as_secs_f64(),
                reloads: self.reloads,
                changed: *self.service.config() != self.from_file,
                failed_reload: self.failed_reload.clone(),
            },
            socket: self.service.config().control.socket.as_ref().map(|path| path.display().to_string()),
            metrics: self.metrics,
            privileges: privileges::status(),
            ports: self.ports(),
            workers: self.workers(&stats),
            totals: self.totals(&stats),
            connections: self.table(),
            vips: vips.iter().map(summary).collect(),
            checks: self.checks(),
            warnings: self.service.warnings(),
        }
    }

    fn ports(&self) -> Vec<PortStatus> {
        let mut seen: BTreeMap<String, (Vec<Fact>, Vec<SettingStatus>)> = self
            .service
            .running()
            .status()
            .into_iter()
            .map(|status| {
                let fact = |(name, value)| Fact { name, value };
                let facts = status.facts.into_iter().map(fact).collect();
                let change = |change: afx::port::Change| SettingStatus {
                    setting: change.setting,
                    before: change.before,
                    value: change.value,
                };
                (status.port, (facts, status.changes.into_iter().map(change).collect()))
            })
            .collect();
        let port = |port: &config::Port| {
            let (facts, changes) = seen.remove(&port.interface).unwrap_or_default();
            PortStatus {
                name: port.interface.clone(),
                mode: port.mode.to_string(),
                queues: match port.queues {
                    Queues::All => "all".to_owned(),
                    Queues::First(count) => count.to_string(),
                },
                attach: port.attach.to_string(),
                facts,
                changes,
            }
        };
        self.service.config().ports.iter().map(port).collect()
    }

    fn workers(&self, stats: &Stats) -> Vec<WorkerStatus> {
        let memory = self.service.running().memory();
        let show = |(worker, seen): (usize, &afx::stats::WorkerStats)| WorkerStatus {
            worker,
            core: seen.core,
            queues: seen.queues.iter().map(|queue| format!("{}:{}", queue.port, queue.queue)).collect(),
            received: seen.queues.iter().map(|queue| queue.received).sum(),
            sent: seen.queues.iter().map(|queue| queue.sent).sum(),
            dropped: seen.drops.iter().sum(),
            busy: self.rates.busy(worker),
            frames: seen.ledger.frames,
            memory: memory.get(worker).map(ToString::to_string).unwrap_or_default(),
            frames_missing: seen.ledger.missing(),
            balanced: seen.ledger.balanced(),
        };
        stats.workers.iter().enumerate().map(show).collect()
    }

    fn totals(&self, stats: &Stats) -> Totals {
        let bytes =
            |stats: &Stats, of: fn(&afx::stats::QueueStats) -> u64| stats.queues().map(of).sum::<u64>();
        let bits = |of: fn(&afx::stats::QueueStats) -> u64| {
            self.rates.of(|stats| bytes(stats, of)).map(|rate| rate * 8.0)
        };
        let received = Traffic {
            packets: stats.received(),
            bytes: bytes(stats, |queue| queue.received_bytes),
            packets_per_second: self.rates.of(Stats::received),
            bits_per_second: bits(|queue| queue.received_bytes),
        };
        let sent = Traffic {
            packets: stats.sent(),
            bytes: bytes(stats, |queue| queue.sent_bytes),
            packets_per_second: self.rates.of(Stats::sent),
            bits_per_second: bits(|queue| queue.sent_bytes),
        };
        let meaning = |name: &str| {
            let reason = stats.reasons.iter().find(|reason| reason.name == name);
            reason.map_or_else(String::new, |reason| reason.sentence.to_string())
        };
        let drops = stats.drops().into_iter().map(|(reason, packets)| Drops {
            reason: reason.to_owned(),
            meaning: meaning(reason),
            packets,
        });
        Totals {
            received,
            sent,
            dropped: stats.dropped_total(),
            dropped_per_second: self.rates.of(Stats::dropped_total),
            kernel_dropped: stats.queues().map(|queue| queue.kernel_dropped).sum(),
            drops: drops.collect(),
        }
    }

    fn table(&self) -> TableStatus {
        let table = self.service.monitor().table();
        TableStatus {
            connections: table.connections,
            closing: table.closing,
            capacity: table.capacity,
            inserted: table.inserted,
            expired: table.expired,
            evicted_live: table.evicted_live,
            evicted_closing: table.evicted_closing,
        }
    }

    fn checks(&self) -> ChecksStatus {
        let mut checks = ChecksStatus::default();
        let found = self.service.health();
        for vip in &self.service.config().vips {
            for real in &vip.reals {
                let state = found.get(&(vip.key(), real.address)).map(health_state);
                *match state {
                    None => &mut checks.unchecked,
                    Some(HealthState::Up) => &mut checks.up,
                    Some(HealthState::Down) => &mut checks.down,
                    Some(HealthState::Unknown) => &mut checks.unknown,
                    Some(HealthState::Held) => &mut checks.held,
                } += 1;
            }
        }
        checks
    }

    /// The VIPs.
    pub(super) fn show_vips(&self) -> Vec<VipStatus> {
        let now = Instant::now();
        let totals = self.service.totals();
        let show = |vip: &config::Vip| {
            let total = totals.get(&vip_of(vip)).copied().unwrap_or_default();
            let is_up =
                |real: &&config::Real| self.service.standings().now(vip, real, now).0 == RealState::Up;
            let rates = vip.reals.iter().map(|real| self.rate(vip, real));
            // None of a real that has just come is as good as nothing.
            let rate = self.rates.of(|_| 0).map(|_| {
                rates.flatten().fold(Rate::default(), |sum, rate| Rate {
                    packets: sum.packets + rate.packets,
                    bits: sum.bits + rate.bits,
                })
            });
            VipStatus {
                vip: vip.key(),
                hash: vip.hash,
                server_id: vip.server_id,
                fragments: vip.fragments,
                ping: vip.ping,
                check: vip.check.as_ref().map(|check| check.probe.kind().to_string()),
                reals: vip.reals.len() as u64,
                reals_up: vip.reals.iter().filter(is_up).count() as u64,
                connections: total.connections,
                opened: total.opened,
                traffic: traffic(total, rate),
            }
        };
        self.service.config().vips.iter().map(show).collect()
    }

    fn rate(&self, vip: &config::Vip, real: &config::Real) -> Option<Rate> {
        self.rates.real(self.service.directory().id(&vip_of(vip), &real.address)?)
    }

    /// The reals of all VIPs.
    pub(super) fn show_reals(&self) -> Vec<RealStatus> {
        let shown = self.shown();
        let vips = &self.service.config().vips;
        let of_vip = |vip| {
            let all = self.weights(vip, shown.now);
            let shown = &shown;
            vip.reals.iter().map(move |real| self.show_real(vip, real, all, shown))
        };
        vips.iter().flat_map(of_vip).collect()
    }

    /// One real of a VIP.
    pub(super) fn show_one(&self, vip: &VipKey, address: IpAddr) -> Option<RealStatus> {
        let vip = self.service.config().vip(vip)?;
        let real = vip.reals.iter().find(|real| real.address == address)?;
        let shown = self.shown();
        Some(self.show_real(vip, real, self.weights(vip, shown.now), &shown))
    }

    /// The weights that count now, of a VIP's reals together.
    fn weights(&self, vip: &config::Vip, now: Instant) -> u64 {
        let weight = |real| match self.service.standings().now(vip, real, now) {
            (RealState::Up, weight) => u64::from(weight),
            _ => 0,
        };
        vip.reals.iter().map(weight).sum()
    }

    /// What is looked up once for all reals.
    fn shown(&self) -> Shared {
        Shared { now: Instant::now(), health: self.service.health() }
    }

    /// `all` is the sum of the weights that count in its VIP.
    fn show_real(&self, vip: &config::Vip, real: &config::Real, all: u64, shared: &Shared) -> RealStatus {
        let Shared { now, health } = shared;
        let standing = self.service.standings().of(&vip.key(), real.address);
        let (state, weight) = self.service.standings().now(vip, real, *now);
        let id = self.service.directory().id(&vip_of(vip), &real.address);
        let counted = id.map_or_else(RealStats::default, |id| self.service.monitor().real(id));
        let found = health.get(&(vip.key(), real.address));
        let hop = self.service.hop(real);
        let by = match real.state {
            config::RealState::Down => DownBy::Admin,
            config::RealState::Up | config::RealState::Drain => DownBy::Check,
        };
        RealStatus {
            vip: vip.key(),
            address: real.address,
            state: match state {
                RealState::Up => Shown::Up,
                RealState::Draining => Shown::Drain,
                RealState::Down => Shown::Down,
                RealState::Out => Shown::Out,
            },
            down_by: (state == RealState::Down).then_some(by),
            health: found.map(|found| Health {
                state: health_state(found),
                since_seconds: (*now - found.since).as_secs_f64(),
                error: failure(found),
            }),
            weight: real.weight,
            weight_now: if state == RealState::Up { weight } else { 0 },
            share: if state == RealState::Up { part(weight, all) } else { 0.0 },
            connections: counted.connections,
            opened: counted.opened,
            traffic: traffic(counted, id.and_then(|id| self.rates.real(id))),
            next_hop: hop.map(|hop| NextHop {
                port: self.service.config().ports[hop.port.index()].interface.clone(),
                mac: Mac(hop.destination_mac),
                mtu: hop.mtu,
            }),
            unreachable: self.service.obstacle(real),
            drain: standing.and_then(Standing::drain).map(|drain| Drain {
                since_seconds: (*now - drain.since).as_secs_f64(),
                deadline_seconds: drain.deadline.map(|deadline| (deadline - drain.since).as_secs_f64()),
                remaining_seconds: drain
                    .deadline
                    .map(|end| end.saturating_duration_since(*now).as_secs_f64()),
            }),
        }
    }

    /// Everything that is counted.
    pub(super) fn show_counters(&self) -> Vec<Counter> {
        let mut counters = Vec::new();
        let mut add = |group: &str, name: &str, value: u64, meaning: &str| {
            counters.push(Counter {
                group: group.to_owned(),
                name: name.to_owned(),
                value,
                meaning: meaning.to_owned(),
            });
        };
        let stats = self.service.running().stats();
        for port in &self.service.config().ports {
            if let Some(redirected) = self.service.running().redirect_counters(&port.interface) {
                let group = format!("redirect {}", port.interface);
                redirected.each().for_each(|(name, meaning, value)| add(&group, name, value, meaning));
            }
        }
        for queue in stats.queues() {
            let group = format!("port {} queue {}", queue.port, queue.queue);
            add(&group, "received_packets", queue.received, "Packets taken from the RX ring.");
            add(&group, "received_bytes", queue.received_bytes, "Their bytes.");
            add(&group, "sent_packets", queue.sent, "Packets put on the TX ring.");
            add(&group, "sent_bytes", queue.sent_bytes, "Their bytes.");
            let meaning = "Packets that the kernel dropped before they came here: the RX ring was full.";
            add(&group, "kernel_dropped_packets", queue.kernel_dropped, meaning);
            add(&group, "wakeups", queue.wakeups, "System calls made to wake the kernel.");
        }
        for (number, worker) in stats.workers.iter().enumerate() {
            let group = format!("worker {number}");
            add(&group, "turns", worker.turns, "Turns of the loop.");
            add(&group, "empty_turns", worker.empty_turns, "Turns in which no packet came.");
            add(&group, "sleeps", worker.sleeps, "Times that the worker went to sleep.");
            add(&group, "handed_over", worker.handed_over, "Packets handed over to other workers.");
            add(&group, "taken_over", worker.taken_over, "Packets taken over from other workers.");
            let meaning = "Packets that could not be made for want of a frame or a slot.";
            add(&group, "not_created", worker.not_created, meaning);
        }
        for (index, reason) in stats.reasons.iter().enumerate() {
            let packets = stats.workers.iter().filter_map(|worker| worker.drops.get(index)).sum();
            add("drops", &reason.name, packets, &reason.sentence);
        }
        let work = self.service.monitor().work();
        work.each().for_each(|(name, meaning, value)| add("balancer", name, value, meaning));
        let table = self.service.monitor().table();
        add("connections", "now", table.connections, "Connections there are.");
        add("connections", "closing", table.closing, "Those of them whose client has said FIN or RST.");
        add("connections", "capacity", table.capacity, "Connections there is room for.");
        add("connections", "inserted", table.inserted, "Connections made since the start.");
        add("connections", "expired", table.expired, "Connections that were silent for too long.");
        let meaning = "Connections in use that had to go for lack of room.";
        add("connections", "evicted_live", table.evicted_live, meaning);
        let meaning = "Connections about to end that had to go for lack of room.";
        add("connections", "evicted_closing", table.evicted_closing, meaning);
        counters
    }
}

/// What is looked up once for all reals.
struct Shared {
    now: Instant,
    health: Found,
}

/// The table gives each real its part within one slot.
fn part(weight: u32, of: u64) -> f64 {
    if of == 0 { 0.0 } else { f64::from(weight) / of as f64 }
}

fn traffic(counted: RealStats, rate: Option<Rate>) -> Traffic {
    Traffic {
        packets: counted.packets,
        bytes: counted.bytes,
        packets_per_second: rate.map(|rate| rate.packets),
        bits_per_second: rate.map(|rate| rate.bits),
    }
}

fn health_state<K>(found: &health::Status<K>) -> HealthState {
    match found.state {
        _ if found.held_until.is_some() => HealthState::Held,
        health::State::Up => HealthState::Up,
        health::State::Down => HealthState::Down,
        health::State::Unknown => HealthState::Unknown,
    }
}

/// Why the newest check failed, if it did.
fn failure<K>(found: &health::Status<K>) -> Option<String> {
    match &found.last {
        Some(health::Outcome::Bad(why) | health::Outcome::Unable(why)) => Some(why.clone()),
        Some(health::Outcome::Good) | None => None,
    }
}
