//! What a container's or a service's policy keeps from the balancer, by a seccomp filter as they have it: the doctor says
//! so, and it is so.

mod common;

use afx_testbed::{Host, Output, Testbed, wait_for};
use common::{PATIENCE, web};
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_afx-lb");

/// Puts a filter on itself, and becomes the program named: number of the system call `prctl`, filter, program, arguments.
/// Of `linux/prctl.h`: PR_SET_NO_NEW_PRIVS and PR_SET_SECCOMP, of `linux/seccomp.h` SECCOMP_MODE_FILTER.
const FILTER_AND_RUN: &str = r#"
    my ($prctl, $filter) = (0 + shift, pack "H*", shift);
    my $program = pack "S x6 P", length($filter) / 8, $filter;
    syscall($prctl, 38, 1, 0, 0, 0) == 0 or die "no_new_privs: $!";
    syscall($prctl, 22, 2, $program, 0, 0) == 0 or die "seccomp: $!";
    exec @ARGV or die "$ARGV[0]: $!";
"#;

/// A filter that has a system call fail with an error, with that first argument only where one is said.
fn refusing(call: libc::c_long, argument: Option<u32>, error: i32) -> String {
    // Of `linux/bpf_common.h`: a word of `struct seccomp_data` is loaded, compared, and something returned.
    const LOAD: u16 = 0x20;
    const IS: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const ERROR: u32 = 0x0005_0000;
    const ALLOW: u32 = 0x7fff_0000;
    let mut filter = Vec::new();
    let mut say = |code: u16, on: u8, off: u8, value: u32| {
        filter.extend(code.to_ne_bytes());
        filter.extend([on, off]);
        filter.extend(value.to_ne_bytes());
    };
    say(LOAD, 0, 0, 0);
    say(IS, 0, if argument.is_some() { 3 } else { 1 }, call as u32);
    if let Some(argument) = argument {
        // The lower half of the first argument, on a machine whose words begin with it.
        say(LOAD, 0, 0, 16);
        say(IS, 0, 1, argument);
    }
    say(RETURN, 0, 0, ERROR | error as u32);
    say(RETURN, 0, 0, ALLOW);
    filter.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A host with a veth, and how the balancer's program is run there under a filter.
struct Net {
    host: Host,
    // Last: what runs on it goes first.
    bed: Testbed,
}

impl Net {
    fn new(name: &str) -> Self {
        let bed = Testbed::new(name).unwrap();
        let host = bed.host("host").unwrap();
        host.ip("link add eth0 type veth peer name back").unwrap();
        for interface in ["eth0", "back"] {
            host.ip(&format!("link set {interface} up")).unwrap();
        }
        Self { host, bed }
    }

    fn filtered(&self, filter: &str, arguments: &[&str]) -> Output {
        let prctl = libc::SYS_prctl.to_string();
        let command = self.host.command("perl").args(["-e", FILTER_AND_RUN, &prctl, filter, PROGRAM]);
        command.args(arguments).output().unwrap()
    }
}

/// What will not work, of a report.
fn bad(output: &Output) -> Vec<Value> {
    assert_eq!(output.status.code(), Some(1), "{}{}", output.stdout, output.stderr);
    let report: Value = serde_json::from_str(&output.stdout).unwrap();
    let findings = report["findings"].as_array().unwrap().iter();
    findings.filter(|finding| finding["verdict"] == "will_not_work").cloned().collect()
}

/// What the doctor finds, and that the balancer does not start, with that in its error.
fn is_refused(network: &str, filter: &str, name: &str, why: &str, error: &str) {
    let net = Net::new(network);
    let bad = bad(&net.filtered(filter, &["doctor", "--json"]));
    assert_eq!(bad.len(), 1, "{bad:?}");
    assert_eq!((&bad[0]["name"], &bad[0]["what"]), (&name.into(), &"it is kept from this process".into()));
    assert!(bad[0]["why"].as_str().unwrap().contains(why), "{}", bad[0]);

    let file = net.bed.directory().join("lb.toml");
    std::fs::write(&file, web(&[("10.0.0.11", 1)]) + "[control]\nsocket = \"none\"\n").unwrap();
    let output = net.filtered(filter, &["run", "--config", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2), "{}", output.stderr);
    assert!(output.stderr.contains(error), "{}", output.stderr);
    assert_eq!(net.host.xdp_program("eth0").unwrap(), None);
}

#[test]
fn a_family_of_sockets_that_is_not_allowed() {
    // As RestrictAddressFamilies= has it.
    let filter = refusing(libc::SYS_socket, Some(libc::AF_XDP as u32), libc::EAFNOSUPPORT);
    is_refused(
        "policy-family",
        &filter,
        "AF_XDP",
        "RestrictAddressFamilies=",
        "Address family not supported",
    );
}

#[test]
fn a_socket_that_is_not_permitted() {
    // As Docker's profile has it of what it does not list.
    let filter = refusing(libc::SYS_socket, Some(libc::AF_XDP as u32), libc::EPERM);
    is_refused("policy-socket", &filter, "AF_XDP", "seccomp", "Operation not permitted");
}

#[test]
fn a_system_call_of_bpf_that_is_not_permitted() {
    let filter = refusing(libc::SYS_bpf, None, libc::EPERM);
    is_refused("policy-bpf", &filter, "BPF", "SystemCallFilter=", "Operation not permitted");
}

#[test]
fn a_program_that_may_be_attached_and_not_taken_off() {
    // BPF_LINK_DETACH of `linux/bpf.h`.
    let filter = refusing(libc::SYS_bpf, Some(34), libc::EPERM);
    let net = Net::new("policy-detach");
    let bad = bad(&net.filtered(&filter, &["doctor", "eth0", "--try", "--json"]));
    let found = bad.iter().find(|finding| finding["name"] == "putting back");
    let said = found.unwrap_or_else(|| panic!("{bad:?}"))["what"].to_string();
    assert!(said.contains("Operation not permitted"), "{said}");
    // It goes with the process all the same.
    wait_for("the program to be gone", PATIENCE, || net.host.xdp_program("eth0").unwrap().is_none()).unwrap();
}
