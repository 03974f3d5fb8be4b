//! What a fake says at first.

use std::net::IpAddr;

use super::super::protocol::*;

fn traffic(packets: u64) -> Traffic {
    Traffic {
        packets,
        bytes: packets * 500,
        packets_per_second: Some(packets as f64 / 1000.0),
        bits_per_second: Some(packets as f64 * 4.0),
    }
}

pub(super) fn mac(last: u8) -> Mac {
    Mac(afx::packet::MacAddress([2, 0, 0, 0, 0, last]))
}

fn vip(name: &str) -> VipKey {
    name.parse().unwrap()
}

pub(super) fn reals() -> Vec<RealStatus> {
    let web = vip("198.51.100.10:443/tcp");
    let real = |vip: VipKey, last: u8, weight: u32, share: f64| RealStatus {
        vip,
        address: IpAddr::from([10, 0, 0, last]),
        state: RealState::Up,
        down_by: None,
        health: Some(Health { state: HealthState::Up, since_seconds: 7260.0, error: None }),
        weight,
        weight_now: weight,
        share,
        connections: 1000 * u64::from(last),
        opened: 123_456,
        traffic: traffic(1_000_000 * u64::from(last)),
        next_hop: Some(NextHop { port: "eth0".into(), mac: mac(last), mtu: 1500 }),
        unreachable: None,
        drain: None,
    };
    let health = |state, since_seconds, error: &str| {
        let error = (!error.is_empty()).then(|| error.to_owned());
        Some(Health { state, since_seconds, error })
    };
    vec![
        real(web, 11, 100, 2.0 / 3.0),
        RealStatus {
            weight_now: 50,
            health: health(HealthState::Up, 12.0, ""),
            ..real(web, 12, 200, 1.0 / 3.0)
        },
        RealStatus {
            state: RealState::Drain,
            weight_now: 0,
            drain: Some(Drain {
                since_seconds: 20.0,
                deadline_seconds: Some(100.0),
                remaining_seconds: Some(80.0),
            }),
            ..real(web, 13, 100, 0.0)
        },
        RealStatus {
            state: RealState::Down,
            down_by: Some(DownBy::Check),
            weight_now: 0,
            connections: 3,
            health: health(HealthState::Down, 4.2, "connection refused"),
            ..real(web, 14, 100, 0.0)
        },
        RealStatus {
            health: health(HealthState::Unknown, 0.5, ""),
            next_hop: None,
            unreachable: Some("its next hop does not answer".into()),
            traffic: Traffic::default(),
            connections: 0,
            ..real(web, 15, 100, 0.0)
        },
        RealStatus {
            address: "fd00:1::11".parse().unwrap(),
            state: RealState::Down,
            down_by: Some(DownBy::Admin),
            health: None,
            weight_now: 0,
            connections: 0,
            traffic: Traffic { packets_per_second: None, bits_per_second: None, ..traffic(0) },
            ..real(vip("[2001:db8::10]:53/udp"), 11, 100, 0.0)
        },
    ]
}

pub(super) fn vips(reals: &[RealStatus]) -> Vec<VipStatus> {
    let of = |name: &str| {
        let vip = vip(name);
        let reals: Vec<_> = reals.iter().filter(|real| real.vip == vip).collect();
        VipStatus {
            vip,
            hash: HashOn::FiveTuple,
            server_id: ServerIdIn::None,
            fragments: Fragments::Drop,
            ping: false,
            check: None,
            reals: reals.len() as u64,
            reals_up: reals.iter().filter(|real| real.state == RealState::Up).count() as u64,
            connections: reals.iter().map(|real| real.connections).sum(),
            opened: reals.iter().map(|real| real.opened).sum(),
            traffic: traffic(reals.iter().map(|real| real.traffic.packets).sum()),
        }
    };
    vec![
        VipStatus { check: Some("https".into()), ping: true, ..of("198.51.100.10:443/tcp") },
        VipStatus {
            hash: HashOn::Source,
            server_id: ServerIdIn::Quic,
            fragments: Fragments::Together,
            ..of("[2001:db8::10]:53/udp")
        },
        of("198.51.100.0/24:*/tcp"),
    ]
}

pub(super) fn status(vips: &[VipStatus]) -> Status {
    let summary = |vip: &VipStatus| VipSummary {
        vip: vip.vip,
        reals: vip.reals,
        reals_up: vip.reals_up,
        connections: vip.connections,
        packets: vip.traffic.packets,
        bytes: vip.traffic.bytes,
    };
    let worker = |worker: usize| {
        WorkerStatus {
        worker,
        core: Some(worker + 2),
        queues: vec![format!("eth0:{worker}")],
        received: 32_500_000,
        sent: 32_499_000,
        dropped: 1000,
        busy: Some(0.25 + worker as f64 / 8.0),
        frames: 7168,
        memory: "7,168 frames, 14.0 MiB on huge pages of NUMA node 0: the rings take 6,400 = RX ring 2,048 + TX ring \
                 2,048 + leaving 2,048 + 3 batches of 64 + held by stages 64"
            .into(),
        frames_missing: 0,
        balanced: true,
    }
    };
    let change = |setting: &str, before: &str, value: &str| SettingStatus {
        setting: setting.into(),
        before: before.into(),
        value: value.into(),
    };
    let fact = |name: &str, value: &str| Fact { name: name.into(), value: value.into() };
    Status {
        version: "0.1.0".into(),
        pid: 4242,
        uptime_seconds: 273_720.0,
        configuration: ConfigurationStatus {
            file: "/etc/afx-lb.toml".into(),
            loaded_seconds_ago: 7500.0,
            reloads: 3,
            changed: true,
            failed_reload: None,
        },
        socket: Some("/run/afx-lb.sock".into()),
        metrics: Some(([127, 0, 0, 1], 9900).into()),
        privileges: PrivilegesStatus {
            capabilities: ["CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_PERFMON", "CAP_BPF"].map(Into::into).into(),
            no_new: true,
        },
        ports: vec![PortStatus {
            name: "eth0".into(),
            mode: "auto".into(),
            queues: "all".into(),
            attach: "auto".into(),
            facts: vec![
                fact("attached", "native"),
                fact("queue 0", "copy, no busy polling, rings mapped, huge pages of 2 MiB"),
                fact("queue 1", "copy, no busy polling, rings mapped, huge pages of 2 MiB"),
            ],
            changes: vec![change("channels", "1", "2"), change("napi_defer_hard_irqs", "0", "2")],
        }],
        workers: vec![worker(0), worker(1)],
        totals: Totals {
            received: traffic(65_000_000),
            sent: traffic(64_998_000),
            dropped: 2000,
            dropped_per_second: Some(0.4),
            kernel_dropped: 17,
            drops: vec![Drops {
                reason: "balancer.no_vip".into(),
                meaning: "No VIP has this address, port and protocol.".into(),
                packets: 2000,
            }],
        },
        connections: TableStatus {
            connections: vips.iter().map(|vip| vip.connections).sum(),
            closing: 120,
            capacity: 2_097_152,
            inserted: 740_736,
            expired: 704_613,
            evicted_live: 0,
            evicted_closing: 120,
        },
        vips: vips.iter().map(summary).collect(),
        checks: ChecksStatus { up: 3, down: 1, unknown: 1, held: 0, unchecked: 1 },
        warnings: vec!["the real 10.0.0.15 is not reachable: its next hop does not answer".into()],
    }
}
