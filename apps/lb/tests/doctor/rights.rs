//! Rights that are missing.

use std::os::unix::fs::PermissionsExt as _;

use crate::PROGRAM;
use crate::lab::{Net, Report};

#[test]
fn rights_that_are_missing() {
    let net = Net::new("doctor-rights", 1);
    let cases: [(&str, &[&str]); 6] = [
        ("net_admin", &["CAP_NET_ADMIN"]),
        ("net_raw", &["CAP_NET_RAW"]),
        ("bpf", &["CAP_BPF"]),
        ("perfmon", &["CAP_PERFMON"]),
        ("ipc_lock", &["locked memory"]),
        (
            "net_admin,-net_raw,-bpf,-perfmon,-ipc_lock",
            &["CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_BPF", "CAP_PERFMON", "locked memory"],
        ),
    ];
    for (missing, expected) in cases {
        let set = format!("--bounding-set=-all,+net_admin,+net_raw,+bpf,+perfmon,+ipc_lock,-{missing}");
        let command = net.host.command("prlimit").args(["--memlock=65536", "setpriv", &set, PROGRAM]);
        let output = command.args(["doctor", "eth0", "--json"]).output().unwrap();
        assert_eq!(Report::of(&output, 1).named("will_not_work"), expected, "{missing}");
    }
    // It tries, and says what came of it.
    let command = net.host.command("setpriv").args(["--bounding-set=-all", PROGRAM]);
    let output = command.args(["doctor", "eth0", "--try", "--json"]).output().unwrap();
    let report = Report::of(&output, 1);
    for name in ["generic XDP, tried", "copy, tried"] {
        assert_eq!(report.verdict(name), "will_not_work", "{name}");
    }
}

#[test]
fn a_user_gets_what_is_missing_by_the_command_that_is_said() {
    let net = Net::new("doctor-nobody", 1);
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let program = folder.path().join("afx-lb");
    // By a process of its own: one that another test has just forked would hold the file open for writing.
    net.host.command("cp").arg(PROGRAM).arg(&program).check().unwrap();
    let as_nobody = |options: &[&str], status| {
        let command = net.host.command("setpriv").args(["--reuid=65534", "--clear-groups"]).arg(&program);
        Report::of(&command.args(["doctor", "eth0", "--json"]).args(options).output().unwrap(), status)
    };
    let report = as_nobody(&[], 1);
    for name in ["CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_BPF", "CAP_PERFMON"] {
        assert_eq!(report.verdict(name), "will_not_work", "{name}");
    }
    net.host.command("sh").args(["-c", report.remedy("CAP_BPF")]).check().unwrap();
    let report = as_nobody(&["--try"], 0);
    for name in ["capabilities", "locked memory", "native XDP, tried", "copy, tried"] {
        assert_eq!(report.verdict(name), "good", "{name}");
    }
}

#[test]
fn a_user_namespace_of_its_own() {
    let net = Net::new("doctor-user", 1);
    let command = net.host.command("unshare").args(["--user", "--map-root-user", PROGRAM]);
    let output = command.args(["doctor", "eth0", "--json"]).output().unwrap();
    let report = Report::of(&output, 1);
    assert_eq!(report.verdict("user namespace"), "will_not_work");
    // Nor may the other end be looked into from there.
    assert_eq!(report.verdict("other end"), "could_be_better");
}
