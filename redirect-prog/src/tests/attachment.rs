//! Attaching, refusing, replacing, and what is left when the process is killed.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};

use super::harness::{eventually, ifindex};
use super::namespace::{in_namespace, ip, link_state};
use crate::{
    AttachMode, Attached, Decap, DecapOptions, Error, Options, Protocol, Redirect, Rule, Steering,
    interface_index,
};

fn attach(interface: &str, mode: AttachMode) -> Result<Redirect, Error> {
    Redirect::attach(ifindex(interface), &Steering::All, &Options { mode, ..Options::default() })
}

#[test]
fn each_mode_binds_what_it_says_and_leaves_nothing_behind() {
    in_namespace(|| {
        let before = link_state("veth1");
        for (mode, attached, shown) in [
            (AttachMode::Auto, Attached::Native, "prog/xdp "),
            (AttachMode::Native, Attached::Native, "prog/xdp "),
            (AttachMode::Generic, Attached::Generic, "xdpgeneric"),
        ] {
            let redirect = attach("veth1", mode).expect("veth takes both modes");
            assert_eq!(redirect.mode(), attached);
            assert!(redirect.fallback().is_none());
            assert!(link_state("veth1").contains(shown), "{}", link_state("veth1"));
            drop(redirect);
            assert_eq!(link_state("veth1"), before);

            attach("veth1", mode).expect("veth takes both modes").detach().expect("it is attached");
            assert_eq!(link_state("veth1"), before);
        }
    });
}

#[test]
fn auto_falls_back_to_generic_and_says_why_where_native_fails() {
    in_namespace(|| {
        let redirect = attach("lo", AttachMode::Auto).expect("lo takes generic mode");
        assert_eq!(redirect.mode(), Attached::Generic);
        let reason = redirect.fallback().expect("lo does not take native mode");
        assert_eq!(reason.raw_os_error(), Some(libc::EOPNOTSUPP));
        drop(redirect);

        let error = attach("lo", AttachMode::Native).expect_err("lo does not take native mode");
        assert!(matches!(error, Error::Attach { mode: Attached::Native, .. }), "{error}");
        assert!(!link_state("lo").contains("xdp"));
    });
}

#[test]
fn an_interface_held_by_another_program_is_refused_and_the_program_named() {
    in_namespace(|| {
        for (theirs, attached) in
            [(AttachMode::Native, Attached::Native), (AttachMode::Generic, Attached::Generic)]
        {
            let holder =
                Decap::attach(ifindex("veth1"), &DecapOptions { mode: theirs, ..Default::default() })
                    .expect("veth takes both modes");
            let held = link_state("veth1");
            for ours in [AttachMode::Auto, AttachMode::Native, AttachMode::Generic] {
                let error = attach("veth1", ours).expect_err("the interface is held");
                let Error::Occupied { occupant, .. } = &error else { panic!("{error}") };
                assert_eq!(occupant.program_name, "afx_decap");
                assert_eq!(occupant.mode, attached);
                assert!(held.contains(&format!("prog/xdp id {}", occupant.program_id)), "{held}");
                assert!(error.to_string().contains("`afx_decap`"), "{error}");
                assert_eq!(link_state("veth1"), held, "who was there is left alone");
            }
            drop(holder);
        }
    });
}

#[test]
fn an_interface_that_is_not_there_is_an_error() {
    in_namespace(|| {
        let error =
            Redirect::attach(4242, &Steering::All, &Options::default()).expect_err("no such interface");
        assert!(matches!(error, Error::Attach { ifindex: 4242, .. }), "{error}");
        assert_eq!(
            interface_index("nosuch").expect_err("no such interface").raw_os_error(),
            Some(libc::ENODEV)
        );
    });
}

#[test]
fn an_interface_that_goes_away_takes_nothing_else_along() {
    in_namespace(|| {
        let mut redirect = attach("veth1", AttachMode::Native).expect("veth takes native mode");
        ip("link del veth1");
        let error = redirect.update_steering(&Steering::Match(vec![])).expect_err("nothing to replace it on");
        assert!(matches!(error, Error::Link { .. }), "{error}");
        redirect.counters().expect("the counters are still there");
        redirect.detach().expect("there is nothing left to do");
    });
}

#[test]
fn too_many_rules_leave_the_old_ones_in_place() {
    in_namespace(|| {
        let options = Options { max_rules: 4, ..Options::default() };
        let rules = |count: u8| {
            let rule = |last| {
                let to = std::net::IpAddr::from([10, 0, 0, last]);
                Rule::new(to, None, Some(Protocol::TCP)).expect("a valid rule")
            };
            Steering::Match((1..=count).map(rule).collect())
        };
        let mut redirect = Redirect::attach(ifindex("veth1"), &rules(4), &options).expect("four fit");
        let error = redirect.update_steering(&rules(200)).expect_err("only four fit");
        assert!(matches!(error, Error::Map { .. }), "{error}");
        assert!(error.to_string().contains("IPv4 addresses"), "{error}");
        // What had been added is gone again, or there would be no room.
        redirect.update_steering(&Steering::Match(vec![])).expect("none fit");
        redirect.update_steering(&rules(4)).expect("four fit");
        assert!(Redirect::attach(ifindex("veth0"), &rules(5), &options).is_err());
        assert!(!link_state("veth0").contains("xdp"));
    });
}

#[test]
fn the_program_is_replaced_in_place() {
    in_namespace(|| {
        let id = || {
            let state = link_state("veth1");
            let after = state.split("prog/xdp id ").nth(1).expect("a program is attached").to_owned();
            after.split(' ').next().expect("a number").to_owned()
        };
        let mut redirect = attach("veth1", AttachMode::Native).expect("veth takes native mode");
        let first = id();
        redirect.update_steering(&Steering::Match(vec![])).expect("the steering changes");
        let second = id();
        assert_ne!(first, second);
        redirect.update_blocklist(&["10.0.0.0/8".parse().expect("a prefix")]).expect("the blocklist changes");
        let third = id();
        assert_ne!(second, third);
        redirect.update_blocklist(&["11.0.0.0/8".parse().expect("a prefix")]).expect("the blocklist changes");
        assert_eq!(third, id(), "another entry needs no other program");
    });
}

/// Names the environment variable that makes this test, run again as a process of its own, hold the interface.
const HOLD: &str = "AFX_REDIRECT_TEST_HOLDS";
const HELD: &str = "held, and a child is alive: ";

#[test]
fn a_killed_process_leaves_the_interface_as_before_even_with_a_child_alive() {
    if let Ok(interface) = std::env::var(HOLD) {
        return hold(&interface);
    }
    in_namespace(|| {
        let before = link_state("veth1");
        let mut holder = Killed(
            Command::new(std::env::current_exe().expect("this test"))
                .args(["--exact", "--nocapture"])
                .arg("tests::attachment::a_killed_process_leaves_the_interface_as_before_even_with_a_child_alive")
                .env(HOLD, "veth1")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("this test runs again"),
        );
        let output = BufReader::new(holder.0.stdout.take().expect("piped"));
        let child: u32 = output
            .lines()
            .map(|line| line.expect("text"))
            .find_map(|line| line.split_once(HELD).map(|(_, pid)| pid.parse().expect("a number")))
            .expect("the holder says that it holds");
        assert!(link_state("veth1").contains("prog/xdp "));

        holder.0.kill().expect("it is ours");
        holder.0.wait().expect("it is ours");
        eventually("the interface is as before", || link_state("veth1") == before);
        let command = std::fs::read_to_string(format!("/proc/{child}/comm")).expect("the child outlives it");
        assert_eq!(command.trim(), "sleep");
        let child = nix::unistd::Pid::from_raw(child.try_into().expect("a process id"));
        nix::sys::signal::kill(child, nix::sys::signal::Signal::SIGKILL).expect("the child is ours");
    });
}

/// Holds the interface until killed, or until whoever started this is gone.
fn hold(interface: &str) {
    let redirect = attach(interface, AttachMode::Native).expect("the interface is free");
    let _beat = redirect.beat(0).expect("the first beat of the queue");
    let child =
        Command::new("sleep").arg("60").stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("sleep");
    writeln!(std::io::stdout(), "\n{HELD}{}", child.id()).expect("somebody listens");
    let _ = std::io::stdin().read(&mut [0]);
    drop(Killed(child));
}

/// Ends the process when the test does, however the test ends.
pub(super) struct Killed(pub(super) Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
