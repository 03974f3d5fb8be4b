//! `afx-lb check` as an operator calls it.

use std::process::{Command, Output};

fn check(file: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_afx-lb"))
        .args(["check", "--config", file])
        .output()
        .expect("the program was built")
}

#[test]
fn a_valid_file_is_explained() {
    let output = check(concat!(env!("CARGO_MANIFEST_DIR"), "/lb.example.toml"));
    let text = String::from_utf8(output.stdout).expect("it prints UTF-8");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for part in [
        "port eth1: all queues",
        "on each of the cores [2, 3]",
        "from 10.200.0.0/16",
        "65537 slots",
        "900s established",
        "real 10.0.0.13 weight 0 (drains)",
        "vip [2001:db8::10]:53 udp: 1 real\n",
        "next hop 02:00:00:00:00:11",
    ] {
        assert!(text.contains(part), "{part} in:\n{text}");
    }
}

#[test]
fn a_wrong_file_is_refused_with_all_its_errors() {
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let file = folder.path().join("lb.toml");
    std::fs::write(&file, "version = 1\n[[port]]\ninterface = \"eth1\"\nmod = 1\n").expect("it is writable");
    let output = check(file.to_str().expect("a UTF-8 path"));
    let text = String::from_utf8(output.stderr).expect("it prints UTF-8");
    assert_eq!(output.status.code(), Some(2));
    assert!(text.contains("lb.toml:4:1: error: the key `mod` is not known in [[port]]"), "{text}");
    assert!(text.contains("it is not said how packets get to the reals"), "{text}");
    assert!(text.trim_end().ends_with("2 errors"), "{text}");
    assert!(output.stdout.is_empty());
}
