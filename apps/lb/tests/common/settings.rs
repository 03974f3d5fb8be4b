//! Settings of an interface that the balancer changes, and what the kernel says of them.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use afx_testbed::Host;

use super::{Net, VIP4, vip};

/// A balancer's machine with one queue, which can have two.
pub(crate) fn net(name: &str) -> Net {
    let net = Net::new(name, 1, 2);
    one_queue(&net, "eth0", "p1");
    net
}

pub(crate) fn one_queue(net: &Net, interface: &str, other: &str) {
    // A veth with a program has as many queues as the other end sends on.
    net.switch.as_host().command("ethtool").args(["-L", other, "tx", "1"]).check().unwrap();
    net.lb.command("ethtool").args(["-L", interface, "rx", "1"]).check().unwrap();
}

/// A configuration with these lines in the section of the port.
pub(crate) fn config(interface: &str, idle: &str, settings: &str) -> String {
    format!(
        "version = 1\n[[port]]\ninterface = \"{interface}\"\n{settings}\n[workers]\ncount = 1\nidle = \"{idle}\"\n\
         [forwarding]\nmethod = \"ipip\"\n[connections]\ncapacity = 4096\n{}",
        vip(VIP4, 80, "tcp", &[("10.0.0.11", 1)])
    )
}

/// Everything that a veth lets be changed.
pub(crate) const ALL: &str = "channels = 2\ndefer = \"required\"";

/// Receive queues, `napi_defer_hard_irqs` and `gro_flush_timeout`, as the kernel says.
pub(crate) fn settings(host: &Host, interface: &str) -> [u64; 3] {
    let channels = host.command("ethtool").args(["-l", interface]).check().unwrap();
    let now = channels.split_once("Current hardware settings:").expect("two lists").1;
    let received = now.lines().find_map(|line| line.strip_prefix("RX:")).expect("a line");
    let file = |name: &str| {
        let path = format!("/sys/class/net/{interface}/{name}");
        host.run(|| fs::read_to_string(path)).unwrap().unwrap().trim().parse().unwrap()
    };
    [received.trim().parse().unwrap(), file("napi_defer_hard_irqs"), file("gro_flush_timeout")]
}

pub(crate) const BEFORE: [u64; 3] = [1, 0, 0];
pub(crate) const CHANGED: [u64; 3] = [2, 2, 200_000];

/// Where the balancer's process keeps its record of an interface.
pub(crate) fn record(host: &Host, interface: &str) -> PathBuf {
    let namespace = host.run(|| fs::metadata("/proc/thread-self/ns/net").unwrap().ino()).unwrap();
    let index = host.interface_index(interface).unwrap();
    format!("/run/afx-settings/{namespace}-{index}.json").into()
}
