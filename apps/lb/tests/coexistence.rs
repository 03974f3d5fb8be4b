//! An interface that has somebody else's XDP program: put aside or chained while the balancer runs, and put back.

mod common;

use afx_redirect::Attached;
use afx_redirect::testing::OtherProgram;
use afx_testbed::{Signal, wait_for};
use common::download::{Download, Server};
use common::{Net, OWN, PATIENCE, VIP4, web};

const REALS: [(&str, u32); 1] = [("10.0.0.11", 100)];

fn with(coexist: &str) -> String {
    web(&REALS).replace("\"eth0\"", &format!("\"eth0\"\ncoexist = \"{coexist}\""))
}

/// Somebody else's program on the balancer's interface.
fn other(net: &Net) -> OtherProgram {
    let other = OtherProgram::load(false).unwrap();
    let index = net.lb.interface_index("eth0").unwrap();
    net.lb.run(|| other.attach(index, Attached::Native)).unwrap().unwrap();
    other
}

fn ping(net: &Net) {
    net.client.command("ping").args(["-c", "3", "-i", "0.2", "-W", "10", OWN]).check().unwrap();
}

#[test]
fn both_have_their_traffic_and_the_other_is_put_back() {
    let net = Net::new("lb-coexist", 1, 1);
    net.decapsulate();
    let _server = Server::start(&net.reals[0], 1, VIP4, 80);
    let other = other(&net);
    let before = net.lb.xdp_program("eth0").unwrap().unwrap();
    for (coexist, word) in [("replace", "replaced"), ("chain", "chained")] {
        let balancer = net.start(&with(coexist), &[]);
        assert_ne!(net.lb.xdp_program("eth0").unwrap().unwrap(), before);
        let status = net.ask(&["status"]).split_whitespace().collect::<Vec<_>>().join(" ");
        let beside = format!("{word} XDP program {} `others_count` in native mode", before.id);
        assert!(status.contains(&beside), "{status}");

        let seen = other.seen().unwrap();
        Download::start(&net.client, VIP4, 80).finish();
        ping(&net);
        let seen = other.seen().unwrap() - seen;
        // Three pings, and what goes with them: answers of neighbours.
        assert_eq!(seen >= 3, coexist == "chain", "{coexist}: {seen}");

        balancer.process.signal(Signal::SIGTERM).unwrap();
        assert_eq!(balancer.process.wait_within(PATIENCE).unwrap().code(), Some(0), "{}", balancer.log());
        assert!(balancer.log().contains("balanced=true"), "{}", balancer.log());
        assert_eq!(net.lb.xdp_program("eth0").unwrap().unwrap(), before);
        let seen = other.seen().unwrap();
        ping(&net);
        assert!(other.seen().unwrap() >= seen + 3);
    }
}

#[test]
fn after_a_kill_the_interface_has_no_program() {
    let net = Net::new("lb-coexist-kill", 1, 1);
    let other = other(&net);
    let balancer = net.start(&with("chain"), &[]);
    balancer.process.signal(Signal::SIGKILL).unwrap();
    wait_for("the program to go", PATIENCE, || !net.has_xdp_program()).unwrap();
    let seen = other.seen().unwrap();
    ping(&net);
    assert_eq!(other.seen().unwrap(), seen, "docs/coexistence.md says that it is not put back");
    // And the next start needs nothing of it.
    net.start(&with("chain"), &[]).stop();
}
