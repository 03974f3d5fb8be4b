//! Two interfaces on one worker: a cable made of afx.

use afx::port::{Steering, XdpPort};
use afx::{Batch, PortId, Runtime, Stage};
use afx_testbed::{Host, Link, Testbed};

use crate::download::download;
use crate::support::*;

/// Sends what comes in on one port out of the other.
struct Cable([PortId; 2]);

impl Stage for Cable {
    fn process(&mut self, batch: &mut Batch) {
        for slot in batch.live() {
            let mut packet = batch.packet(slot);
            let other = self.0[usize::from(packet.ingress() == self.0[0])];
            packet.transmit(other);
        }
    }
}

/// A client and a server of one network, and between them a host with an interface to each.
fn cable(name: &str) -> (Testbed, [Host; 3]) {
    let net = Testbed::new(name).unwrap();
    let hosts @ [client, middle, server] =
        &["client", "middle", "server"].map(|name| net.host(name).unwrap());
    for (end, middle_end) in [
        (client.end("eth0").address("10.0.0.1/24").address("fd00::1/64"), "left"),
        (server.end("eth0").address("10.0.0.2/24").address("fd00::2/64"), "right"),
    ] {
        net.link(Link::between(end, middle.end(middle_end))).unwrap();
    }
    let hosts = hosts.clone();
    (net, hosts)
}

#[test]
fn what_crosses_two_ports_of_one_worker_is_whole() {
    let (_net, [client, middle, server]) = cable("afxcable");
    let builder = || {
        Runtime::builder()
            .port(XdpPort::new("left", Steering::All))
            .port(XdpPort::new("right", Steering::All))
    };
    let running = start_on(&middle, builder, |build| {
        Cable(["left", "right"].map(|name| build.port(name).expect("it was given")))
    })
    .unwrap();
    for address in ["10.0.0.2", "fd00::2"] {
        client.command("ping").args(["-c", "3", "-i", "0.2", "-W", "30", address]).check().unwrap();
    }
    download(&client, &server, "10.0.0.2:80");

    let stats = running.stop().unwrap();
    assert_eq!(stats.workers.len(), 1);
    assert!(stats.sent() > 5_000, "{} packets", stats.sent());
    // One memory for both: what came in on the one left by the other without a copy, in the very frame.
    let ledger = stats.workers[0].ledger;
    assert_eq!(ledger.receive.returned, stats.received());
    assert_eq!(ledger.transmit.issued, stats.sent());
    assert_settled(&stats);
    assert_untouched(&middle, "left");
    assert_untouched(&middle, "right");
}
