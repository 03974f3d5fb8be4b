//! What the tests share.

use std::time::Duration;

use afx_testbed::{Host, Link, Testbed};

/// How long to wait for what happens at once on a quiet machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Two hosts on one link, reachable by IPv4 and IPv6.
pub(crate) fn pair(name: &str, queues: u32) -> (Testbed, Host, Host) {
    let net = Testbed::new(name).unwrap();
    let (a, b) = (net.host("a").unwrap(), net.host("b").unwrap());
    let link = Link::between(
        a.end("eth0").address("10.0.0.1/24").address("fd00::1/64"),
        b.end("eth0").address("10.0.0.2/24").address("fd00::2/64"),
    );
    net.link(link.queues(queues)).unwrap();
    (net, a, b)
}
