//! ICMP checks.

use std::process::Command;

use afx::control::health::{Check, Checker, Error, Kind, State};

use super::lab::{SHORT, checker, expect, host, is_up, often, target, wait_for, why_down};
use super::namespace::Namespace;

/// Set for a test itself, run once more without the capability CAP_NET_RAW: what it is to find.
const WITHOUT_RAW: &str = "AFX_TEST_WITHOUT_RAW";

/// Two hosts on a link: 192.0.2.1 and .7, 2001:db8::1 and ::7.
fn pair() -> (Namespace, Namespace) {
    let (near, far) = (Namespace::new(), Namespace::new());
    near.link("lan", &far, "eth");
    for (namespace, name, number) in [(&near, "lan", 1), (&far, "eth", 7)] {
        namespace.ip("link set lo up");
        namespace.ip(&format!("addr add 192.0.2.{number}/24 dev {name}"));
        namespace.ip(&format!("addr add 2001:db8::{number}/64 dev {name} nodad"));
    }
    (near, far)
}

#[test]
fn a_host_is_up_while_it_answers() {
    let (near, far) = pair();
    let check = Check { timeout: SHORT, ..often(Kind::Icmp) };
    for (address, sysctl) in
        [("192.0.2.7", "ipv4/icmp_echo_ignore_all"), ("2001:db8::7", "ipv6/icmp/echo_ignore_all")]
    {
        let checker = checker(&near, vec![target("host", address, check.clone())]);
        expect(&checker, "host", State::Unknown, State::Up);
        far.sysctl(sysctl, "1");
        let why = expect(&checker, "host", State::Up, State::Down);
        assert_eq!(why.as_deref(), Some("no answer within 300 ms"));
        far.sysctl(sysctl, "0");
        expect(&checker, "host", State::Down, State::Up);
    }
}

#[test]
fn each_reply_belongs_to_one_host() {
    let host = host();
    // Loopback: what is asked comes by as well as what is answered, and all of it at both checkers.
    let silent = Check { timeout: SHORT, ..often(Kind::Icmp) };
    let targets = || {
        vec![
            target("first", "127.0.0.1", often(Kind::Icmp)),
            target("second", "127.0.0.2", often(Kind::Icmp)),
            target("own", "192.0.2.1", often(Kind::Icmp)),
            target("sixth", "::1", often(Kind::Icmp)),
            target("silent", "10.0.0.1", silent.clone()),
            target("mute", "fd00:10::1", silent.clone()),
        ]
    };
    let checkers = [checker(&host, targets()), checker(&host, targets())];
    for checker in &checkers {
        for key in ["first", "second", "own", "sixth"] {
            let status = wait_for(checker, &key, |status| status.checks >= 20);
            assert_eq!((status.state, status.failed), (State::Up, 0), "{status:?}");
        }
        for key in ["silent", "mute"] {
            let status = wait_for(checker, &key, |status| status.checks >= 3);
            assert_eq!((status.state, status.failed), (State::Down, status.checks), "{status:?}");
        }
    }
}

#[test]
fn a_host_that_no_route_leads_to_is_down() {
    let host = host();
    let why = why_down(&host, "203.0.113.1", often(Kind::Icmp));
    assert_eq!(why, "echo request to 203.0.113.1: network is unreachable");
}

/// Runs a test of this program in a namespace, without CAP_NET_RAW.
fn without_raw(host: &Namespace, test: &'static str, finding: &'static str) {
    let output = host.run(move || {
        let program = std::env::current_exe().expect("this program has a file");
        let mut setpriv = Command::new("setpriv");
        setpriv.args(["--bounding-set=-net_raw", "--inh-caps=-net_raw"]).arg(program);
        setpriv.args(["--exact", test, "--nocapture"]).env(WITHOUT_RAW, finding);
        setpriv.output().expect("util-linux is installed")
    });
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{printed}{}", String::from_utf8_lossy(&output.stderr));
    assert!(printed.contains("1 passed"), "{printed}");
}

#[test]
fn without_the_capability_the_groups_decide() {
    if let Some(finding) = std::env::var_os(WITHOUT_RAW) {
        let checker = Checker::start().expect("the system has threads");
        let targets = || {
            vec![target("first", "127.0.0.1", often(Kind::Icmp)), target("sixth", "::1", often(Kind::Icmp))]
        };
        if finding == "refused" {
            let error = checker.set(targets()).expect_err("neither is there");
            assert!(matches!(error, Error::Icmp { .. }), "{error}");
            let sentence = error.to_string();
            assert!(sentence.contains("CAP_NET_RAW") && sentence.contains("ping_group_range"), "{sentence}");
            assert!(checker.states().is_empty());
        } else {
            checker.set(targets()).expect("the group of root is let in");
            for key in ["first", "sixth"] {
                let status = wait_for(&checker, &key, |status| status.checks >= 5);
                assert_eq!((status.state, status.failed), (State::Up, 0), "{status:?}");
            }
        }
        return;
    }
    let host = host();
    let test = "icmp::without_the_capability_the_groups_decide";
    host.sysctl("ipv4/ping_group_range", "1 0");
    without_raw(&host, test, "refused");
    host.sysctl("ipv4/ping_group_range", "0 0");
    without_raw(&host, test, "allowed");
    is_up(&host, "127.0.0.1", often(Kind::Icmp));
}
