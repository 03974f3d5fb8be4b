//! Running, killed, stopped, continued, ended: what the network sees of it.

mod common;

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use afx::packet::Protocol;
use afx::port::{Protocol as Steered, Rule, Steering, XdpPort};
use afx::{Batch, Runtime, Stage};
use afx_testbed::{Signal, wait_for};
use common::download::{Download, Server};
use common::{Net, PATIENCE, VIP4, web};

const REALS: [(&str, u32); 2] = [("10.0.0.11", 100), ("10.0.0.12", 100)];

/// What the kernel may take to undo what a killed process had.
const WITHIN: Duration = Duration::from_secs(1);

fn net(name: &str) -> (Net, Vec<Server>) {
    let net = Net::new(name, 2, 1);
    net.decapsulate();
    let servers = (1..).zip(&net.reals).map(|(number, real)| Server::start(real, number, VIP4, 80)).collect();
    (net, servers)
}

/// That the interface is as if nobody had ever used it, soon after a kill.
fn interface_is_free(net: &Net) {
    wait_for("the XDP program to be gone", WITHIN, || !net.has_xdp_program()).unwrap();
    net.own_address_answers();
}

#[test]
fn the_balancers_own_address_answers_while_it_serves_its_vip() {
    let (net, _servers) = net("lb-own");
    let balancer = net.start(&web(&REALS), &[]);
    let download = Download::start(&net.client, VIP4, 80);
    assert!(net.has_xdp_program());
    net.own_address_answers();
    download.advance(20_000);
    download.finish();
    balancer.stop();
    interface_is_free(&net);
}

#[test]
fn a_killed_balancer_leaves_nothing_and_starts_again_at_once() {
    let (net, _servers) = net("lb-kill");
    let balancer = net.start(&web(&REALS), &[]);
    let downloads: Vec<_> = (0..4).map(|_| Download::start(&net.client, VIP4, 80)).collect();
    for _ in 0..2 {
        balancer.process.kill();
        interface_is_free(&net);
        let balancer = net.start(&web(&REALS), &[]);
        // What it knew of connections is gone, but who serves them follows from the reals alone.
        downloads.iter().for_each(|download| download.advance(20_000));
        balancer.process.kill();
    }
    interface_is_free(&net);
    let balancer = net.start(&web(&REALS), &[]);
    downloads.into_iter().for_each(Download::finish);
    balancer.stop();
}

/// Said to this program by the test below, for it to become a balancer with a child.
const PARENT: &str = "AFX_TEST_PARENT";

/// A network function of somebody's own that has started another program.
fn parent() {
    struct Sink;
    impl Stage for Sink {
        fn process(&mut self, _: &mut Batch) {}
    }
    let vip: std::net::IpAddr = VIP4.parse().unwrap();
    let rule = Rule::new(vip, Some(80), Some(Steered(Protocol::TCP.0))).unwrap();
    let port = XdpPort::new("eth0", Steering::Match(vec![rule]));
    let running = Runtime::builder().port(port).workers(1).pipeline(|_| Sink).start().unwrap();
    let mut child =
        Command::new("sleep").arg("1000").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    println!("child {}.", child.id());
    child.wait().unwrap();
    drop(running);
}

#[test]
fn a_child_that_outlives_its_parent_keeps_nothing() {
    if std::env::var_os(PARENT).is_some() {
        return parent();
    }
    let (net, _servers) = net("lb-child");
    let program = std::env::current_exe().unwrap();
    let command = net.lb.command(program).args([
        "--exact",
        "a_child_that_outlives_its_parent_keeps_nothing",
        "--nocapture",
    ]);
    let parent = command.env(PARENT, "1").spawn().unwrap();
    parent.wait_for_output(".\n", PATIENCE).unwrap();
    let printed = parent.stdout();
    let child = printed.split_once("child ").unwrap().1.split_once('.').unwrap().0;
    let child_lives =
        || std::fs::read_to_string(format!("/proc/{child}/comm")).is_ok_and(|comm| comm == "sleep\n");
    assert!(net.has_xdp_program() && child_lives());

    // The parent alone, not its group.
    parent.signal(Signal::SIGKILL).unwrap();
    parent.wait_within(PATIENCE).unwrap();
    interface_is_free(&net);
    let balancer = net.start(&web(&REALS), &[]);
    assert!(child_lives());
    Download::start(&net.client, VIP4, 80).finish();
    balancer.stop();
    assert!(child_lives());
}

#[test]
fn nobody_is_reset_while_it_stands_still() {
    let (net, _servers) = net("lb-still");
    // Worst case: its own kernel has the VIP, and would answer for it that there is no such connection.
    net.lb.ip(&format!("address add {VIP4}/32 dev lo")).unwrap();
    let balancer = net.start(&web(&REALS), &[]);
    let downloads: Vec<_> = (0..4).map(|_| Download::start(&net.client, VIP4, 80)).collect();
    downloads.iter().for_each(|download| download.advance(5000));
    balancer.process.signal(Signal::SIGSTOP).unwrap();
    let stopped = Instant::now();

    // Who comes now waits; its kernel says nothing in the VIP's name.
    let address: SocketAddr = format!("{VIP4}:80").parse().unwrap();
    let connect = || TcpStream::connect_timeout(&address, Duration::from_secs(2));
    let error = net.client.run(connect).unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    net.own_address_answers();
    std::thread::sleep(Duration::from_secs(5).saturating_sub(stopped.elapsed()));

    balancer.process.signal(Signal::SIGCONT).unwrap();
    downloads.iter().for_each(|download| download.advance(20_000));
    downloads.into_iter().for_each(Download::finish);
    balancer.stop();
}

#[test]
fn sigterm_ends_it_in_the_middle_of_traffic() {
    let (net, _servers) = net("lb-term");
    let balancer = net.start(&web(&REALS), &[]);
    let downloads: Vec<_> = (0..4).map(|_| Download::start(&net.client, VIP4, 80)).collect();
    downloads.iter().for_each(|download| download.advance(20_000));
    // All that it had taken was settled: `stop` looks at the counts.
    let counts = balancer.stop();
    assert!(counts.sent > 0);
    interface_is_free(&net);
    // The next one goes on with the same connections.
    let balancer = net.start(&web(&REALS), &[]);
    downloads.into_iter().for_each(Download::finish);
    balancer.stop();
}

#[test]
fn draining_waits_for_connections_but_not_for_ever() {
    let (net, _servers) = net("lb-drain");
    let balancer = net.start(&web(&REALS), &["--drain", "1000"]);
    let download = Download::start(&net.client, VIP4, 80);
    download.advance(5000);
    balancer.process.signal(Signal::SIGTERM).unwrap();
    balancer.process.wait_for_output("stopping, within 1000 s", PATIENCE).unwrap();
    download.advance(50_000);
    assert!(balancer.process.is_running());
    // The client's last word is the end: nobody waits for the connection's memory to fade.
    download.finish();
    balancer.stopped();

    let balancer = net.start(&web(&REALS), &["--drain", "1"]);
    let download = Download::start(&net.client, VIP4, 80);
    let begun = Instant::now();
    // The connection is there when it is told.
    download.advance(20_000);
    balancer.stop();
    assert!(begun.elapsed() >= Duration::from_secs(1));

    // Told twice, it ends.
    let balancer = net.start(&web(&REALS), &["--drain", "1000"]);
    download.advance(20_000);
    balancer.process.signal(Signal::SIGTERM).unwrap();
    balancer.process.wait_for_output("stopping, within 1000 s", PATIENCE).unwrap();
    balancer.stop();
    drop(download);
}

#[test]
fn an_interface_that_goes_is_told_of() {
    let (net, _servers) = net("lb-gone");
    let balancer = net.start(&web(&REALS), &[]);
    assert!(!net.ask(&["status"]).contains("is gone"));
    net.lb.ip("link delete eth0").unwrap();
    wait_for("the log to say so", PATIENCE, || balancer.log().contains("the interface eth0 is gone"))
        .unwrap();
    assert!(net.ask(&["status"]).contains("the interface eth0 is gone"));
    balancer.process.signal(Signal::SIGTERM).unwrap();
    assert_eq!(balancer.process.wait_within(PATIENCE).unwrap().code(), Some(0), "{}", balancer.log());
}

#[test]
fn a_log_that_cannot_be_written_ends_nothing() {
    let (net, _servers) = net("lb-log-full");
    let file = net.configure(&web(&REALS));
    let program = env!("CARGO_BIN_EXE_afx-lb");
    let script = format!("exec {program} run --config {} 2>/dev/full", file.display());
    let process = net.lb.command("sh").args(["-c", &script]).spawn().unwrap();
    let socket = net.socket();
    wait_for("the balancer to answer", PATIENCE, || {
        let status = net.lb.command(program).args(["status", "--socket"]).arg(&socket).output().unwrap();
        status.status.success()
    })
    .unwrap();
    net.ask(&["ctl", "vip", "add", "198.51.100.77:80/tcp"]);
    Download::start(&net.client, VIP4, 80).finish();
    process.signal(Signal::SIGTERM).unwrap();
    assert_eq!(process.wait_within(PATIENCE).unwrap().code(), Some(0));
    interface_is_free(&net);
}
