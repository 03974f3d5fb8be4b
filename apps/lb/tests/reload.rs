//! SIGHUP: the configuration changes, connections do not notice.

mod common;

use common::download::{Download, Server};
use common::{Net, VIP4, head, vip, web};

const REALS: [&str; 4] = ["10.0.0.11", "10.0.0.12", "10.0.0.13", "10.0.0.14"];

fn servers(net: &Net) -> Vec<Server> {
    (1..).zip(&net.reals).map(|(number, real)| Server::start(real, number, VIP4, 80)).collect()
}

fn reals(weights: &[u32]) -> Vec<(&'static str, u32)> {
    REALS.iter().copied().zip(weights.iter().copied()).collect()
}

/// Which reals serve so many new connections.
fn newcomers(net: &Net, count: usize) -> Vec<u8> {
    let download = |_| {
        let download = Download::start(&net.client, VIP4, 80);
        let real = download.real();
        download.finish();
        real
    };
    (0..count).map(download).collect()
}

#[test]
fn downloads_outlive_changes_of_the_other_reals() {
    let net = Net::new("lb-reload", 4, 1);
    net.decapsulate();
    let _servers = servers(&net);
    let balancer = net.start(&web(&reals(&[100, 100, 100])), &[]);
    // Until each real has one, and at least six.
    let mut downloads: Vec<Download> = Vec::new();
    while downloads.len() < 6 || (1..=3).any(|real| downloads.iter().all(|download| download.real() != real))
    {
        assert!(downloads.len() < 100, "one of three reals is never chosen");
        downloads.push(Download::start(&net.client, VIP4, 80));
    }
    let all_go_on = |downloads: &[Download]| downloads.iter().for_each(|download| download.advance(20_000));
    all_go_on(&downloads);

    // One more.
    assert!(balancer.reload(&web(&reals(&[100, 100, 100, 100]))).contains("INFO reloaded"));
    all_go_on(&downloads);
    assert!(newcomers(&net, 40).contains(&4));

    // Other weights.
    assert!(balancer.reload(&web(&reals(&[100, 1, 1, 300]))).contains("INFO reloaded"));
    all_go_on(&downloads);

    // One drains: its connections stay, new ones go elsewhere.
    assert!(balancer.reload(&web(&reals(&[0, 100, 100, 100]))).contains("INFO reloaded"));
    all_go_on(&downloads);
    assert!(!newcomers(&net, 40).contains(&1));

    // Drained, it goes; the others' connections stay.
    let (drained, others): (Vec<_>, Vec<_>) =
        downloads.into_iter().partition(|download| download.real() == 1);
    drained.into_iter().for_each(Download::finish);
    assert!(balancer.reload(&web(&reals(&[0, 100, 100, 100])[1..])).contains("INFO reloaded"));
    all_go_on(&others);
    others.into_iter().for_each(Download::finish);
    let counts = balancer.stop();
    assert_eq!(counts.dropped, 0);
}

#[test]
fn a_file_that_is_not_right_changes_nothing() {
    let net = Net::new("lb-reload-bad", 1, 1);
    net.decapsulate();
    let _servers = servers(&net);
    let right = web(&reals(&[100]));
    let balancer = net.start(&right, &[]);
    let download = Download::start(&net.client, VIP4, 80);
    let program = net.lb.xdp_program("eth0").unwrap();

    let cases = [
        (right.replace("weight", "wait"), "the key `wait` is not known"),
        ("version = 1".to_owned(), "there is no port"),
        (right.replace("\"eth0\"", "\"eth1\""), "a change of [[port]] takes a restart; nothing was changed"),
        (right.replace("\"eth0\"", "\"eth0\"\nqueues = 1"), "a change of [[port]] takes a restart"),
        (right.replace("count = 1", "count = 2"), "a change of [workers] takes a restart"),
        (right.replace("4096", "8192"), "a change of [connections] takes a restart"),
    ];
    for (file, expected) in cases {
        let said = balancer.reload(&file);
        assert!(said.contains("not reloaded") && said.contains(expected), "{said}");
        download.advance(5000);
        assert_eq!(newcomers(&net, 1), [1]);
    }
    assert_eq!(net.lb.xdp_program("eth0").unwrap(), program);
    download.finish();
    assert_eq!(balancer.stop().dropped, 0);
}

#[test]
fn vips_come_and_go() {
    let net = Net::new("lb-reload-vips", 1, 1);
    net.decapsulate();
    let servers = [80, 81].map(|port| Server::start(&net.reals[0], 1, VIP4, port));
    let with = |ports: &[u16]| {
        let vips = ports.iter().map(|port| vip(VIP4, *port, "tcp", &reals(&[1])));
        head(1, "method = \"ipip\"") + &vips.collect::<String>()
    };
    let balancer = net.start(&with(&[80]), &[]);
    let download = Download::start(&net.client, VIP4, 80);

    assert!(balancer.reload(&with(&[80, 81])).contains("INFO reloaded"));
    let second = Download::start(&net.client, VIP4, 81);
    assert!(balancer.reload(&with(&[81])).contains("INFO reloaded"));
    // The first VIP is nobody's now: the balancer's kernel, which is not a router, says nothing.
    let refused = net.client.run(|| {
        let address = format!("{VIP4}:80").parse().unwrap();
        std::net::TcpStream::connect_timeout(&address, std::time::Duration::from_secs(1)).unwrap_err().kind()
    });
    assert_eq!(refused.unwrap(), std::io::ErrorKind::TimedOut);
    second.advance(20_000);
    assert!(balancer.reload(&with(&[80, 81])).contains("INFO reloaded"));
    // It was away for a moment, and nobody has told its connections.
    download.advance(20_000);
    download.finish();
    second.finish();
    drop(servers);
    balancer.stop();
}
