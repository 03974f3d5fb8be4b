//! Real servers and clients, two thousand new connections a second, and an operator who changes things meanwhile.

#[path = "../common/mod.rs"]
mod common;
mod death;
mod load;
mod nginx;
mod quic;
mod stream;

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::sync::Mutex;
use std::time::Duration;

use common::{Net, VIP4, head};
use load::{Load, Plan};
use stream::{Curl, Iperf};

/// The machine is loaded by one of these tests at a time.
static LOADING: Mutex<()> = Mutex::new(());

const REALS: [&str; 4] = ["10.0.0.11", "10.0.0.12", "10.0.0.13", "10.0.0.14"];
const HTTP: u16 = 80;
const QUIC: u16 = 443;

/// The server ids in the connection ids of QUIC servers, one for each real.
const SERVER_IDS: [u32; 4] = [70_001, 70_002, 70_003, 70_004];

/// The addresses of clients, beside the client's own.
fn sources(net: &Net) -> Vec<IpAddr> {
    (101..=108)
        .map(|number| {
            net.client.ip(&format!("address add 10.0.0.{number}/24 dev eth0")).unwrap();
            IpAddr::from([10, 0, 0, number])
        })
        .collect()
}

/// Connections of all that these tests begin, and their reals.
fn head_for_many() -> String {
    head(1, "method = \"ipip\"").replace("capacity = 4096", "capacity = 262144")
}

fn plan(net: &Net, seconds: u32) -> Plan {
    Plan {
        server: SocketAddr::new(VIP4.parse().unwrap(), HTTP),
        path: nginx::SMALL,
        body: nginx::small(),
        sources: sources(net),
        per_second: 2000,
        seconds,
        patience: Duration::from_secs(20),
    }
}

/// The VIPs, each with so many of the reals.
fn config(reals: usize) -> String {
    let reals = |with_id: bool| -> String {
        let id = |id| if with_id { format!("server_ids = [{id}]") } else { String::new() };
        let reals = REALS.iter().zip(SERVER_IDS.map(id)).take(reals);
        reals.map(|(address, id)| format!("[[vip.real]]\naddress = \"{address}\"\n{id}\n")).collect()
    };
    let vip = |port: u16, protocol: &str, key: &str| {
        format!("[[vip]]\naddress = \"{VIP4}\"\nport = {port}\nprotocol = \"{protocol}\"\n{key}\n")
    };
    head_for_many()
        + &vip(HTTP, "tcp", "")
        + &reals(false)
        + &vip(QUIC, "udp", "server_id = \"quic\"")
        + &reals(true)
        // Both of iperf3's connections are to have the same real.
        + &vip(stream::IPERF, "tcp", "hash = \"source\"")
        + &reals(false)
}

/// Has the balancer do something with a real of the VIPs that come and go: `afx-lb ctl real DO VIP REAL MORE`.
fn ctl(net: &Net, what: &str, real: u8, more: &[&str]) {
    for vip in [format!("{VIP4}:{HTTP}/tcp"), format!("{VIP4}:{QUIC}/udp")] {
        net.ask(&[&["ctl", "real", what, &vip, REALS[usize::from(real) - 1]], more].concat());
    }
}

/// What the balancer has dropped, by reason.
fn drops(net: &Net) -> Vec<(String, u64)> {
    let counters: serde_json::Value = serde_json::from_str(&net.ask(&["ctl", "counters", "--json"])).unwrap();
    let counters = counters.as_array().unwrap_or_else(|| panic!("{counters}"));
    let drops = counters.iter().filter(|counter| counter["group"] == "drops");
    drops
        .map(|counter| (counter["name"].as_str().unwrap().to_owned(), counter["value"].as_u64().unwrap()))
        .collect()
}

#[test]
fn nothing_is_lost_while_reals_come_and_go() {
    let _alone = LOADING.lock();
    let net = Net::new("lb-load", 4, 1);
    net.decapsulate();
    let identity = quic::Identity::new();
    let quic_vip = SocketAddr::new(VIP4.parse().unwrap(), QUIC);
    let mut quic_servers = Vec::new();
    for ((number, real), id) in (1..).zip(&net.reals).zip(SERVER_IDS) {
        nginx::start(net.bed.directory(), real, number, HTTP);
        quic_servers.push(quic::Server::start(real, number, id, quic_vip, &identity));
        stream::serve(real);
    }
    let balancer = net.start(&config(3), &[]);

    // What is under way all the time.
    let iperf = Iperf::start(&net.client, VIP4, 32);
    let curls: Vec<_> = (0..6).map(|number| Curl::start(&net, number)).collect();
    let quics: Vec<_> = (0..6).map(|_| quic::Client::start(&net.client, quic_vip, &identity)).collect();
    let all_go_on = || quics.iter().for_each(|quic| quic.advance(3));

    let load = Load::start(&net.client, plan(&net, 30));
    // The times at which each change has been said to be in force.
    let change = |second, change: &dyn Fn()| {
        load.reach(Duration::from_secs(second));
        change();
        let done = load.elapsed();
        all_go_on();
        // From another port it is another flow, which only the connection id leads to the same real.
        quics.iter().for_each(quic::Client::change_port);
        all_go_on();
        done
    };
    let added = change(5, &|| assert!(balancer.reload(&config(4)).contains("INFO reloaded")));
    let drained = change(10, &|| ctl(&net, "drain", 2, &[]));
    let weighed = change(15, &|| ctl(&net, "weight", 1, &["300"]));
    let back = change(20, &|| ctl(&net, "undrain", 2, &[]));
    // All that commands have changed is as in the file again.
    let reloaded = change(25, &|| assert!(balancer.reload(&config(4)).contains("INFO reloaded")));
    let report = load.finish();
    print!("{report}");
    assert_eq!(report.failures().count(), 0, "{report}");
    all_go_on();
    quics.into_iter().for_each(quic::Client::finish);
    curls.into_iter().for_each(Curl::finish);
    iperf.finish();

    // The changes were changes.
    let before = |change: Duration| change.saturating_sub(Duration::from_secs(1));
    let share = |real: u8, time: Range<Duration>| {
        let all: usize = (1..=4).map(|real| report.served_by(real, time.clone())).sum();
        report.served_by(real, time) as f64 / all as f64
    };
    assert_eq!(report.served_by(4, Duration::ZERO..before(added)), 0);
    let newcomers = share(4, added..before(drained));
    assert!((0.2..0.3).contains(&newcomers), "{newcomers}");
    assert_eq!(report.served_by(2, drained..before(back)), 0);
    let heavy = share(1, weighed..before(back));
    assert!((0.55..0.65).contains(&heavy), "{heavy}");
    // One of 600 parts, and then one of 400.
    let returned = share(2, back..before(reloaded));
    assert!((0.12..0.22).contains(&returned), "{returned}");
    let equal = share(1, reloaded..Duration::MAX);
    assert!((0.2..0.3).contains(&equal), "{equal}");

    // A machine with too much to do may be late to send, which senders make up for; nothing else was dropped.
    let drops = drops(&net);
    assert!(drops.iter().all(|(reason, _)| reason == "tx_full"), "{drops:?}");
    balancer.stop();
}
