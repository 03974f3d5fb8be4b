//! An interface that has another program already: refused, replaced, chained, and what is left of either.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::UdpSocket;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::attachment::Killed;
use super::harness::{Wire, XskSocket, eventually, ifindex};
use super::live::{CLIENT, HOST, rule, sockets};
use super::namespace::{in_namespace, ip, link_state};
use super::packets::*;
use crate::earlier::Earlier;
use crate::testing::OtherProgram;
use crate::{AttachMode, Attached, Coexist, Error, Obstacle, Options, Redirect, Steering, occupant};

const BOTH: [Coexist; 2] = [Coexist::Replace, Coexist::Chain];

fn attach(coexist: Coexist, mode: AttachMode) -> Result<Redirect, Error> {
    let options = Options { mode, coexist, stall_limit: None, ..Options::default() };
    Redirect::attach(ifindex("veth1"), &Steering::Match(vec![rule(HOST, Some(443))]), &options)
}

fn other(mode: Attached) -> OtherProgram {
    let other = OtherProgram::load(false).expect("a small program");
    other.attach(ifindex("veth1"), mode).expect("veth takes both modes");
    other
}

/// A packet for the socket, and one for the host: both arrive.
fn send_both(sockets: &mut [XskSocket], host: &UdpSocket) {
    let wire = Wire::new("veth0");
    wire.send(&frame(&udp(CLIENT, HOST, 443, b"for the socket")));
    wire.send(&frame(&udp(CLIENT, HOST, 53, b"for the host")));
    eventually("the packet reaches a socket", || {
        sockets.iter_mut().any(|socket| !socket.receive().is_empty())
    });
    reaches(host);
}

fn reaches(host: &UdpSocket) {
    let mut data = [0; 64];
    let length = host.recv(&mut data).expect("the packet reaches the host");
    assert_eq!(&data[..length], b"for the host");
}

fn host() -> UdpSocket {
    ip("addr add 203.0.113.1/24 dev veth1");
    let host = UdpSocket::bind((HOST, 53)).expect("the host's own service");
    host.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    host
}

#[test]
fn packets_go_to_ours_alone_or_to_both_and_the_other_is_put_back() {
    in_namespace(|| {
        let host = host();
        for (theirs, ours) in [
            (Attached::Native, AttachMode::Auto),
            (Attached::Generic, AttachMode::Native),
            (Attached::Native, AttachMode::Generic),
        ] {
            let other = other(theirs);
            let before = link_state("veth1");
            let was = occupant(ifindex("veth1"));
            // What is passed comes to the other: the second packet, in chain.
            for (coexist, seen) in [(Coexist::Replace, 0), (Coexist::Chain, 1)] {
                let start = other.seen().expect("a count");
                let mut redirect = attach(coexist, ours).expect("it may take the place");
                assert_eq!(redirect.beside(), was.as_ref().map(|was| (was, coexist)));
                let mut sockets = sockets(&redirect);
                send_both(&mut sockets, &host);
                let counters = redirect.counters().expect("counters");
                assert_eq!((counters.redirected, counters.passed_unmatched), (1, 1));
                assert_eq!(other.seen().expect("a count") - start, seen, "{coexist:?}");

                // Another program of ours, with something else compiled in, knows who comes next.
                redirect.update_steering(&Steering::Match(vec![])).expect("the steering changes");
                Wire::new("veth0").send(&frame(&udp(CLIENT, HOST, 53, b"for the host")));
                reaches(&host);
                assert_eq!(other.seen().expect("a count") - start, 2 * seen, "{coexist:?}");

                redirect.detach().expect("it is put back");
                assert_eq!(link_state("veth1"), before);
                Wire::new("veth0").send(&frame(&udp(CLIENT, HOST, 53, b"for the host")));
                reaches(&host);
                assert_eq!(other.seen().expect("a count") - start, 2 * seen + 1, "{coexist:?}");
            }
            ip(match theirs {
                Attached::Native => "link set veth1 xdpdrv off",
                _ => "link set veth1 xdpgeneric off",
            });
        }
    });
}

#[test]
fn dropping_puts_it_back_also_from_a_thread_in_another_namespace() {
    in_namespace(|| {
        let _other = other(Attached::Native);
        let before = link_state("veth1");
        for coexist in BOTH {
            let redirect = attach(coexist, AttachMode::Auto).expect("it may take the place");
            assert_ne!(link_state("veth1"), before);
            in_namespace(|| drop(redirect));
            assert_eq!(link_state("veth1"), before);
        }
    });
}

#[test]
fn what_cannot_be_replaced_or_chained_is_said_and_left_alone() {
    in_namespace(|| {
        let refused = |coexist, expected: Obstacle, says: &str| {
            let before = link_state("veth1");
            let error = attach(coexist, AttachMode::Auto).expect_err("the interface is held");
            let Error::Stays { obstacle, occupant, .. } = &error else { panic!("{error}") };
            assert_eq!((*obstacle, occupant.program_name.as_str()), (expected, "others_count"));
            assert!(error.to_string().contains(says), "{error}");
            assert_eq!(link_state("veth1"), before);
        };
        let mut other = OtherProgram::load(false).expect("a small program");
        other.attach_by_link(ifindex("veth1")).expect("nobody is there");
        for coexist in BOTH {
            refused(coexist, Obstacle::HeldByLink, "end that process");
        }
        drop(other);

        let segments = OtherProgram::load(true).expect("a small program");
        segments.attach(ifindex("veth1"), Attached::Native).expect("nobody is there");
        refused(Coexist::Chain, Obstacle::NotAfterOurs, "several buffers");
        drop(attach(Coexist::Replace, AttachMode::Auto).expect("any program can be replaced"));

        let error = attach(Coexist::Refuse, AttachMode::Auto).expect_err("the interface is held");
        assert!(error.to_string().contains("replaced or chained (`coexist`)"), "{error}");
    });
}

#[test]
fn a_failed_start_puts_it_back() {
    in_namespace(|| {
        // The loopback interface takes generic mode alone.
        let _other = {
            let other = OtherProgram::load(false).expect("a small program");
            other.attach(ifindex("lo"), Attached::Generic).expect("nobody is there");
            other
        };
        let before = link_state("lo");
        for coexist in BOTH {
            let options = Options { mode: AttachMode::Native, coexist, ..Options::default() };
            let error =
                Redirect::attach(ifindex("lo"), &Steering::All, &options).expect_err("no native mode");
            assert!(matches!(error, Error::Attach { mode: Attached::Native, .. }), "{error}");
            assert_eq!(link_state("lo"), before);
        }
    });
}

#[test]
fn a_free_interface_needs_no_arrangement() {
    in_namespace(|| {
        let before = link_state("veth1");
        for coexist in BOTH {
            let redirect = attach(coexist, AttachMode::Auto).expect("nobody is there");
            assert!(redirect.beside().is_none());
            redirect.detach().expect("it is attached");
            assert_eq!(link_state("veth1"), before);
        }
    });
}

#[test]
fn whoever_came_in_between_is_left_alone() {
    in_namespace(|| {
        let _first = other(Attached::Native);
        let there = occupant(ifindex("veth1")).expect("a program is there");
        let mut earlier = Earlier::find(ifindex("veth1"), there, Coexist::Replace).expect("root may");
        earlier.take_off().expect("netlink attached it");
        let _second = other(Attached::Native);
        let now = link_state("veth1");
        let error = earlier.put_back().expect_err("the place is taken");
        assert_eq!(link_state("veth1"), now);
        assert!(matches!(error, Error::PutBack { .. }), "{error}");
        assert!(error.to_string().contains("attach it anew"), "{error}");
    });
}

/// Names the environment variable that makes a test, run again as a process of its own, hold the interface so.
const HOLD: &str = "AFX_REDIRECT_TEST_COEXISTS";
const HELD: &str = "it is held";

#[test]
fn a_killed_process_leaves_no_program_of_its_own_and_does_not_put_back() {
    let name = "tests::coexistence::a_killed_process_leaves_no_program_of_its_own_and_does_not_put_back";
    if let Ok(coexist) = std::env::var(HOLD) {
        let coexist = if coexist == "chain" { Coexist::Chain } else { Coexist::Replace };
        let _redirect = attach(coexist, AttachMode::Native).expect("it may take the place");
        writeln!(std::io::stdout(), "\n{HELD}").expect("somebody listens");
        let _ = std::io::stdin().read(&mut [0]);
        return;
    }
    in_namespace(|| {
        let bare = link_state("veth1");
        for coexist in ["replace", "chain"] {
            let other = other(Attached::Native);
            let mut holder = Killed(
                Command::new(std::env::current_exe().expect("this test"))
                    .args(["--exact", "--nocapture", name])
                    .env(HOLD, coexist)
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped())
                    .spawn()
                    .expect("this test runs again"),
            );
            let output = BufReader::new(holder.0.stdout.take().expect("piped"));
            assert!(output.lines().any(|line| line.expect("text") == HELD));
            assert!(link_state("veth1").contains("afx_redirect"));
            holder.0.kill().expect("it is ours");
            holder.0.wait().expect("it is ours");
            eventually("no program is left", || link_state("veth1") == bare);
            drop(other);
        }
    });
}
