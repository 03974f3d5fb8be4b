//! The `afx-decap` command, as a user meets it.

#[path = "../src/tests/namespace.rs"]
#[allow(dead_code, reason = "shared with the tests of the crate itself")]
mod namespace;

use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use namespace::{in_namespace, ip, link_state};

fn afx_decap() -> Command {
    Command::new(env!("CARGO_BIN_EXE_afx-decap"))
}

#[test]
fn stays_attached_until_killed() {
    in_namespace(|| {
        let before = link_state("veth1");
        for (option, mode, shown) in
            [("--native", "native", "prog/xdp "), ("--generic", "generic", "xdpgeneric")]
        {
            let mut command = afx_decap()
                .args([option, "--gue", "6080", "--fragments", "drop", "veth1", "10.0.0.2", "fd00::2"])
                .stdout(Stdio::piped())
                .spawn()
                .expect("it starts");
            let mut line = String::new();
            let said = BufReader::new(command.stdout.take().expect("piped")).read_line(&mut line);
            let attached = link_state("veth1");
            command.kill().expect("it runs");
            command.wait().expect("it runs");

            said.expect("text");
            assert_eq!(line, format!("afx-decap: attached to veth1 in {mode} mode\n"));
            assert!(attached.contains(shown), "{attached}");
            let deadline = Instant::now() + Duration::from_secs(10);
            while link_state("veth1") != before {
                assert!(Instant::now() < deadline, "the interface is not as before: {}", link_state("veth1"));
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    });
}

#[test]
fn ends_when_the_interface_goes() {
    in_namespace(|| {
        let command = afx_decap().arg("veth1").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut command = command.expect("it starts");
        let mut line = String::new();
        let mut said = BufReader::new(command.stdout.take().expect("piped"));
        said.read_line(&mut line).expect("text");
        ip("link delete veth1");
        // Whoever has the name now is not meant.
        ip("link add veth1 type veth peer name other");
        let Output { status, stderr, .. } = command.wait_with_output().expect("it ran");
        assert_eq!(status.code(), Some(1));
        assert_eq!(String::from_utf8(stderr).expect("text"), "afx-decap: interface veth1 is gone\n");
    });
}

#[test]
fn says_what_is_wrong_and_fails() {
    in_namespace(|| {
        let fails = |arguments: &[&str]| {
            let Output { status, stderr, .. } = afx_decap().args(arguments).output().expect("it runs");
            assert!(!status.success(), "{arguments:?}");
            String::from_utf8(stderr).expect("text")
        };
        assert!(fails(&[]).contains("usage: afx-decap"));
        assert!(fails(&["--backwards", "veth1"]).contains("no such option: --backwards"));
        for port in ["0", "65536", "gue"] {
            assert!(fails(&["--gue", port, "veth1"]).contains(&format!("{port} is no UDP port")));
        }
        assert!(fails(&["veth1", "--gue"]).contains("a UDP port is missing"));
        assert!(fails(&["--fragments", "keep", "veth1"]).contains("say pass or drop"));
        assert!(fails(&["nosuch"]).starts_with("afx-decap: interface nosuch: "));
        assert!(fails(&["veth1", "10.0.0"]).contains("10.0.0 is no IP address"));
        assert!(fails(&["--native", "lo"]).contains("does not take an XDP program in native mode"));
    });
}
