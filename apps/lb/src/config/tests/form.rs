//! A configuration written as a file means what it meant.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::time::Duration;

use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;

#[test]
fn a_file_is_written_in_the_order_of_the_example() {
    let config = valid(&with_vip("[vip.check]\ntype = \"icmp\""));
    let expected = r#"version = 1

[[port]]
interface = "eth1"
queues = "all"
mode = "auto"
attach = "auto"
multi_buffer = "auto"
coexist = "refuse"
spread = "off"
interrupts = "off"
defer = "auto"

[workers]
idle = "busy"
huge_pages = "auto"

[control]
socket = "/run/afx-lb.sock"
metrics = "none"
privileges = "reload"

[forwarding]
method = "ipip"

[icmp]
too_big = true
per_second = 1000

[decapsulation]
addresses = []

[maglev]
table_size = 65537
seed = 0

[connections]
capacity = 1048576
opening = "10s"
established = "15m"
closing = "30s"
udp = "1m"

[[vip]]
address = "198.51.100.10"
port = 443
protocol = "tcp"
hash = "5-tuple"
server_id = "none"
ping = false
fragments = "drop"
udp_leaves_down = false
slow_start = "0s"

[vip.check]
type = "icmp"
interval = "2s"
timeout = "1s"
rise = 2
fall = 3
jitter = 10
flap_limit = 0
flap_window = "1m"
flap_hold = "1m"

[[vip.real]]
address = "10.0.0.11"
weight = 100
state = "up"
server_ids = []
sources = []
"#;
    assert_eq!(config.to_toml(), expected);
}

proptest! {
    #[test]
    fn what_is_written_is_read_as_it_was(config in configs()) {
        let text = config.to_toml();
        let Outcome { config: read, diagnostics } = Config::parse("lb.toml", &text);
        let errors: Vec<String> =
            diagnostics.iter().filter(|problem| problem.is_error()).map(ToString::to_string).collect();
        prop_assert!(errors.is_empty(), "{}\n{text}", errors.join("\n"));
        prop_assert_eq!(read.expect("there are no errors"), config);
    }

    #[test]
    fn what_differs_is_seen(old in configs(), new in configs()) {
        prop_assert_eq!(diff(&old, &old), vec![]);
        prop_assert_eq!(diff(&old, &new).is_empty(), sorted(&old) == sorted(&new));
        // From settings alone as well as from everything.
        let settings = Config { vips: old.vips.clone(), ports: old.ports.clone(), ..new };
        prop_assert_eq!(diff(&old, &settings).is_empty(), old == settings);
    }
}

/// With VIPs and reals in an order of their own.
fn sorted(config: &Config) -> Config {
    let mut config = config.clone();
    config.vips.sort_by_key(Vip::key);
    config.vips.iter_mut().for_each(|vip| vip.reals.sort_by_key(|real| real.address));
    config
}

fn word<T: Copy + std::fmt::Debug + 'static>(words: &[(&str, T)]) -> impl Strategy<Value = T> + use<T> {
    select(words.iter().map(|(_, meaning)| *meaning).collect::<Vec<_>>())
}

/// Times of a range, in all units.
fn times(range: RangeInclusive<Duration>) -> impl Strategy<Value = Duration> {
    let (first, last) = (range.start().as_millis() as u64, range.end().as_millis() as u64);
    (first..=last, select(vec![1, 1000, 60_000, 3_600_000])).prop_map(move |(time, unit)| {
        let rounded = time / unit * unit;
        Duration::from_millis(if rounded < first { time } else { rounded })
    })
}

fn v4(net: [u8; 2]) -> impl Strategy<Value = IpAddr> {
    (any::<u8>(), 1..255u8).prop_map(move |(c, d)| Ipv4Addr::new(net[0], net[1], c, d).into())
}

fn v6(first: u16) -> impl Strategy<Value = IpAddr> {
    (any::<u16>(), 1..u16::MAX).prop_map(move |(g, h)| Ipv6Addr::new(first, 0xdb8, 0, 0, 0, 0, g, h).into())
}

/// The prefixes of addresses, of some length from a shortest one on.
fn networks(
    addresses: impl Strategy<Value = IpAddr>,
    shortest: u8,
    longest: u8,
) -> impl Strategy<Value = IpNet> {
    (addresses, prop_oneof![shortest..=longest, Just(longest)]).prop_map(|(address, length)| {
        IpNet::new(address, length).expect("the length is one of the family's").trunc()
    })
}

fn macs() -> impl Strategy<Value = MacAddress> {
    any::<[u8; 5]>().prop_map(|rest| MacAddress([2, rest[0], rest[1], rest[2], rest[3], rest[4]]))
}

fn forwardings() -> impl Strategy<Value = Forwarding> {
    let source_v4 = option::of(networks(v4([10, 200]), 8, 32).prop_map(|network| match network {
        IpNet::V4(network) => network,
        IpNet::V6(_) => unreachable!("it was made of IPv4 addresses"),
    }));
    let source_v6 = option::of(networks(v6(0xfd00), 16, 128).prop_map(|network| match network {
        IpNet::V6(network) => network,
        IpNet::V4(_) => unreachable!("it was made of IPv6 addresses"),
    }));
    (source_v4, source_v6, 1..=u16::MAX, 0..3).prop_map(|(source_v4, source_v6, port, method)| match method {
        0 => Forwarding::Ipip { source_v4, source_v6 },
        1 => Forwarding::Gue { source_v4, source_v6, port },
        _ => Forwarding::L2Dsr,
    })
}

fn machines() -> impl Strategy<Value = (Vec<Port>, Workers, Idle, HugePages, Control)> {
    let counts = (1..=4096u16).prop_map(|count| NonZeroU16::new(count).expect("it is not 0"));
    let queues = prop_oneof![Just(Queues::All), counts.clone().prop_map(Queues::First)];
    let want = || word(Want::WORDS);
    let key = prop_oneof![Just("symmetric".to_owned()), "([0-9a-f]{2}){1,52}"]
        .prop_map(|text| text.parse::<RssKey>().expect("it is a key"));
    let settings = (option::of(counts.clone()), want(), option::of(key), want(), want()).prop_map(
        |(channels, spread, rss_key, interrupts, defer)| Settings {
            channels,
            spread,
            rss_key,
            interrupts,
            defer,
        },
    );
    let port = (
        queues,
        word(Mode::WORDS),
        word(Attach::WORDS),
        word(MultiBuffer::WORDS),
        word(Coexist::WORDS),
        settings,
    );
    let ports = btree_map("[a-zü\"\\\\.0-9]{3,7}", port, 1..4).prop_map(|ports| {
        let port = |(interface, (queues, mode, attach, multi_buffer, coexist, settings))| Port {
            interface,
            queues,
            mode,
            attach,
            multi_buffer,
            coexist,
            settings,
        };
        ports.into_iter().map(port).collect()
    });
    let workers = prop_oneof![
        Just(Workers::Auto),
        counts.prop_map(Workers::Count),
        btree_set(0..4096u16, 1..5).prop_map(|cores| Workers::Cores(cores.into_iter().collect())),
    ];
    let socket = option::of("/[a-z ü\"'\\\\]{1,20}/s".prop_map(PathBuf::from));
    let metrics =
        option::of((prop_oneof![v4([127, 0]), v6(0xfe80)], 1..=u16::MAX).prop_map(SocketAddr::from));
    let control = (socket, metrics, word(Privileges::WORDS))
        .prop_map(|(socket, metrics, privileges)| Control { socket, metrics, privileges });
    (ports, workers, word(Idle::WORDS), word(HugePages::WORDS), control)
}

fn tables() -> impl Strategy<Value = (Maglev, Connections)> {
    let sizes =
        select(vec![65_537, 655_373, 8_388_593]).prop_map(|size| TableSize::new(size).expect("it is prime"));
    let maglev = (sizes, 0..=i64::MAX as u64).prop_map(|(table_size, seed)| Maglev { table_size, seed });
    let silence = || times(Duration::from_millis(100)..=Timeouts::MAX);
    let timeouts =
        (silence(), silence(), silence(), silence()).prop_map(|(opening, established, closing, datagram)| {
            Timeouts { opening, established, closing, datagram }
        });
    let connections =
        (1024..=1usize << 30, timeouts).prop_map(|(capacity, timeouts)| Connections { capacity, timeouts });
    (maglev, connections)
}

fn checks() -> impl Strategy<Value = Check> {
    let statuses = vec((100..=599u16, 100..=599u16).prop_map(|(a, b)| a.min(b)..=a.max(b)), 1..4);
    let tls = prop_oneof![Just(Tls::Off), any::<bool>().prop_map(|verify| Tls::On { verify })];
    let host = option::of("[a-z0-9.:-]{1,20}");
    let web = (1..=u16::MAX, "/[!-~]{0,20}", host, statuses, tls)
        .prop_map(|(port, path, host, status, tls)| Probe::Http { port, path, host, status, tls });
    // The VIP's port is filled in where none is given, so only one that is given can be told from it.
    let command =
        ("/[a-z]{1,9}", vec("[^\0]{0,12}", 0..3), 1..=u16::MAX).prop_map(|(program, mut rest, port)| {
            rest.insert(0, program);
            Probe::Command { command: rest, port: Some(port) }
        });
    let probe =
        prop_oneof![(1..=u16::MAX).prop_map(|port| Probe::Tcp { port }), Just(Probe::Icmp), web, command];
    let second = Duration::from_secs(1);
    let intervals = times(Duration::from_millis(100)..=3600 * second);
    let flap_times = || times(second..=86_400 * second);
    let flap = (0..=1000u32, flap_times(), flap_times()).prop_map(|(limit, window, hold)| Flap {
        limit,
        window,
        hold,
    });
    let timeouts = times(Duration::from_millis(10)..=3600 * second);
    (probe, intervals, timeouts, 1..=1000u32, 1..=1000u32, 0..=50u32, flap).prop_map(
        |(probe, interval, timeout, rise, fall, jitter, flap)| Check {
            probe,
            interval,
            timeout: timeout.min(interval),
            rise,
            fall,
            jitter,
            flap,
        },
    )
}

/// Reals by their addresses; those of IPv6 only, or of IPv4, or either.
fn reals(family: Option<bool>, server_ids: bool, vip_is_v6: bool) -> impl Strategy<Value = Vec<Real>> {
    let addresses = match family {
        Some(true) => v6(0xfd00).boxed(),
        Some(false) => v4([10, 0]).boxed(),
        None => prop_oneof![v4([10, 0]), v6(0xfd00)].boxed(),
    };
    let sources = match vip_is_v6 {
        true => networks(v6(0x2002), 16, 128).boxed(),
        false => networks(v4([192, 168]), 1, 32).boxed(),
    };
    let real = (0..=65_535u32, word(RealState::WORDS), option::of(macs()));
    // What belongs to one real only is shared out.
    let ids = btree_map(1..=u32::MAX, any::<usize>(), 0..if server_ids { 6 } else { 1 });
    let shares = (ids, btree_map(sources, any::<usize>(), 0..6));
    (btree_map(addresses, real, 0..5), shares).prop_map(|(reals, (ids, sources))| {
        let real = |(address, (weight, state, next_hop))| Real {
            address,
            weight,
            state,
            next_hop,
            server_ids: vec![],
            sources: vec![],
        };
        let mut reals: Vec<Real> = reals.into_iter().map(real).collect();
        if let Some(first) = reals.first_mut() {
            first.weight = first.weight.max(1);
        }
        let count = reals.len();
        if count > 0 {
            ids.into_iter().for_each(|(id, to)| reals[to % count].server_ids.push(id));
            sources.into_iter().for_each(|(source, to)| reals[to % count].sources.push(source));
        }
        reals
    })
}

fn vips(forwarding: Forwarding) -> impl Strategy<Value = Vec<Vip>> {
    let networks = prop_oneof![networks(v4([198, 51]), 9, 32), networks(v6(0x2001), 17, 128)];
    let key = (networks, option::of(1..=u16::MAX), word(Protocol::WORDS));
    btree_map(key, any::<prop::sample::Index>(), 0..4)
        .prop_flat_map(move |keys| {
            keys.into_keys()
                .map(|(network, port, protocol)| vip(forwarding, VipKey { network, port, protocol }))
                .collect::<Vec<_>>()
        })
        .prop_shuffle()
}

fn vip(forwarding: Forwarding, key: VipKey) -> impl Strategy<Value = Vip> {
    let VipKey { network, port, protocol } = key;
    let vip_is_v6 = matches!(network, IpNet::V6(_));
    let family = match forwarding {
        Forwarding::L2Dsr => Some(vip_is_v6),
        _ => vip_is_v6.then_some(true),
    };
    let places = match protocol {
        Protocol::Tcp => vec![ServerIdIn::None, ServerIdIn::TcpOption],
        Protocol::Udp => vec![ServerIdIn::None, ServerIdIn::Quic, ServerIdIn::UdpHeader],
    };
    let options = (word(HashOn::WORDS), any::<bool>(), word(Fragments::WORDS), any::<bool>());
    let times = times(Duration::ZERO..=Duration::from_secs(3600));
    (select(places), options, times, option::of(checks())).prop_flat_map(
        move |(server_id, (hash, ping, fragments, udp_leaves_down), slow_start, check)| {
            reals(family, server_id != ServerIdIn::None, vip_is_v6).prop_map(move |reals| Vip {
                network,
                port,
                protocol,
                hash,
                server_id,
                ping,
                fragments,
                udp_leaves_down: udp_leaves_down && protocol == Protocol::Udp,
                slow_start,
                check: check.clone(),
                reals,
            })
        },
    )
}

fn configs() -> impl Strategy<Value = Config> {
    let icmp =
        (any::<bool>(), 1..=1_000_000u32).prop_map(|(too_big, per_second)| Icmp { too_big, per_second });
    let decapsulate = btree_set(prop_oneof![v4([203, 0]), v6(0xfc00)], 0..4);
    let decapsulate = decapsulate.prop_map(|addresses| addresses.into_iter().collect::<Vec<_>>());
    let way = forwardings().prop_flat_map(|forwarding| (Just(forwarding), vips(forwarding)));
    let hop = (option::of(macs()), option::of(576..=65_535u32));
    (machines(), tables(), way, hop, icmp, decapsulate).prop_map(
        |(machine, (maglev, connections), (forwarding, vips), (next_hop, client_mtu), icmp, decapsulate)| {
            let (ports, workers, idle, huge_pages, control) = machine;
            Config {
                ports,
                workers,
                idle,
                huge_pages,
                control,
                forwarding,
                next_hop,
                client_mtu,
                icmp,
                decapsulate,
                maglev,
                connections,
                vips,
            }
        },
    )
}
