//! Started and stopped, and killed, many times under load, with settings changed and on huge pages: nothing is left of
//! any of it.

mod common;

use std::net::UdpSocket;
use std::sync::{Mutex, PoisonError};

use afx_testbed::census::{Census, Objects, assert_gone, assert_nothing_left, objects_of};
use afx_testbed::{HugePages, Load, Signal, wait_for};
use common::settings::*;
use common::{Net, PATIENCE, VIP4, vip};

const STARTS: usize = 200;
const KILLS: usize = 50;

/// Each counts what its process has, and has the machine's huge pages.
static ALONE: Mutex<()> = Mutex::new(());

/// A network under load, and the huge pages for a balancer's packets.
struct Scene {
    net: Net,
    _load: Load,
    _pages: HugePages,
}

impl Scene {
    fn new(name: &str) -> Self {
        let net = net(name);
        let socket = net.client.run(|| UdpSocket::bind("0.0.0.0:0")).unwrap().unwrap();
        socket.connect((VIP4, 53)).unwrap();
        let load = Load::start(socket);
        // Seven are for the balancer; others on the machine may help themselves.
        Self { net, _load: load, _pages: HugePages::reserve(128).unwrap() }
    }

    /// With these lines in the section of the port.
    fn config(settings: &str) -> String {
        let config = config("eth0", "adaptive", settings) + &vip(VIP4, 53, "udp", &[("10.0.0.11", 1)]);
        config.replace("[workers]\n", "[workers]\nhuge_pages = \"required\"\n")
    }

    fn census(&self) -> Census {
        Census::take(Some(&self.net.lb), "eth0")
    }

    /// Starts the balancer, and waits until it balances with these settings; and the BPF objects that it has.
    fn start<'n>(&'n self, settings: &str, expected: [u64; 3]) -> (common::Balancer<'n>, Objects) {
        let balancer = self.net.start(&Self::config(settings), &[]);
        let received = || self.net.reals[0].packet_counters("eth0").unwrap().rx_packets;
        let before = received();
        wait_for("packets at the real", PATIENCE, || received() > before + 50).unwrap();
        assert_eq!(settings_of_eth0(&self.net), expected);
        let objects = objects_of(&balancer.process.pid().to_string());
        (balancer, objects)
    }

    fn start_and_stop(&self) -> Objects {
        let (balancer, objects) = self.start(ALL, CHANGED);
        balancer.stop();
        assert_eq!(settings_of_eth0(&self.net), BEFORE);
        objects
    }

    /// Kills it, and has the next one, which is to change nothing, put back what it has left.
    fn start_and_kill(&self) -> Objects {
        let (balancer, mut objects) = self.start(ALL, CHANGED);
        balancer.process.signal(Signal::SIGKILL).unwrap();
        balancer.process.wait().unwrap();
        wait_for("its program to go", PATIENCE, || !self.net.has_xdp_program()).unwrap();
        assert_eq!(settings_of_eth0(&self.net), CHANGED);
        let (balancer, next) = self.start("defer = \"off\"", BEFORE);
        balancer.stop();
        objects.extend(next);
        objects
    }
}

fn settings_of_eth0(net: &Net) -> [u64; 3] {
    settings(&net.lb, "eth0")
}

#[test]
fn nothing_is_left_of_two_hundred_starts() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let scene = Scene::new("lb-starts");
    // What is made once, and kept.
    scene.start_and_stop();
    let before = scene.census();
    let objects: Objects = (0..STARTS).flat_map(|_| scene.start_and_stop()).collect();
    assert_gone(&objects);
    println!("{}", assert_nothing_left(&before, || scene.census()));
}

#[test]
fn nothing_is_left_of_fifty_kills() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let scene = Scene::new("lb-kills");
    scene.start_and_kill();
    let before = scene.census();
    let objects: Objects = (0..KILLS).flat_map(|_| scene.start_and_kill()).collect();
    assert_gone(&objects);
    println!("{}", assert_nothing_left(&before, || scene.census()));
    assert!(!record(&scene.net.lb, "eth0").exists());
    // And it is as good as new.
    scene.start_and_stop();
}

/// That what may be left is seen at all.
#[test]
fn each_setting_that_is_left_is_named() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let scene = Scene::new("lb-census");
    let before = scene.census();
    assert_eq!(before.beyond(&before), [] as [&str; 0]);
    let changes = [
        ("ethtool -L eth0 rx 2", "RX:\t\t2"),
        ("ethtool -K eth0 gro off", "generic-receive-offload: off"),
        ("ip link set eth0 mtu 1400", "mtu 1400"),
        ("echo 2 > /sys/class/net/eth0/napi_defer_hard_irqs", "napi_defer_hard_irqs:2"),
        ("echo 7000 > /sys/class/net/eth0/gro_flush_timeout", "gro_flush_timeout:7000"),
    ];
    for (command, named) in changes {
        scene.net.lb.command("sh").args(["-c", command]).check().unwrap();
        let beyond = scene.census().beyond(&before);
        assert!(
            beyond.iter().any(|line| line.starts_with("is: ") && line.contains(named)),
            "{command}: {beyond:?}"
        );
    }
    let left = scene.net.lb.command("sleep").arg("600").spawn().unwrap();
    let beyond = scene.census().beyond(&before);
    assert!(beyond.iter().any(|line| line.starts_with("processes on the host: ")), "{beyond:?}");
    left.kill();
}
