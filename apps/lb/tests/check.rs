//! `afx-lb check` as an operator calls it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/lb.example.toml");

/// A file with five errors: two that one sees, and three keys that are missing.
const WRONG: &str = "version = 1\n[[port]]\ninterface = \"eth1\"\nmod = 1\n[[vip]]\nport = 70000\n";

fn output(mut command: Command) -> Output {
    command.output().expect("the program was built")
}

fn check(file: impl AsRef<Path>, options: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_afx-lb"));
    command.args(["check", "--config"]).arg(file.as_ref()).args(options);
    output(command)
}

/// That it was refused, and returns what it said.
fn refused(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).expect("it prints UTF-8");
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(output.stdout.is_empty());
    text
}

/// A folder with a file that has that content.
fn file(content: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let file = folder.path().join("lb.toml");
    std::fs::write(&file, content).expect("it is writable");
    (folder, file)
}

#[test]
fn a_valid_file_is_explained() {
    let output = check(EXAMPLE, &[]);
    let text = String::from_utf8(output.stdout).expect("it prints UTF-8");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty());
    // What the file says, and what it leaves out.
    for lines in [
        "port eth1\n  queues             all\n  mode               auto\n",
        "  channels           as many as there are\n  spread             off\n  rss_key            the card's own\n  interrupts         off\n  defer              auto\n",
        "workers\n  cores              one on each of 2, 3\n  idle               busy\n  huge_pages         auto\n",
        "control\n  socket             /run/afx-lb.sock\n  metrics            none\n",
        "  method             ipip: in another IP header\n  source_v4          10.200.0.0/16\n",
        "  next_hop           what the kernel's routes and neighbours say\n",
        "icmp\n  too_big            true\n  per_second         1000 per worker\n",
        "decapsulation\n  addresses          none\n",
        "  table_size         65537 slots per VIP\n",
        "  established        15m\n",
        "vip 198.51.100.10:443/tcp: 3 reals\n  hash               5-tuple\n",
        "  check type         https\n  check port         443\n  check path         /\n",
        "  check interval     2s, 10 % more or less\n  check timeout      1s\n",
        "  check flap_hold    1m\n\
         \x20 real               weight  state  next_hop  server_ids  sources\n\
         \x20 10.0.0.11             100  up     default   none        none\n\
         \x20 10.0.0.12             200  up     default   none        none\n\
         \x20 10.0.0.13             100  drain  default   none        none\n",
        "  fd00:1::11            100  up     default   1022, 197630  none\n",
        "vip [2001:db8:0:10::/64]:*/udp: 1 real\n",
        "  check              none: all reals count as healthy\n",
        "  fd00:1::11            100  up     02:00:00:00:00:11  none        none\n",
    ] {
        assert!(text.contains(lines), "{lines}\nin:\n{text}");
    }
}

#[test]
fn a_wrong_file_is_refused_with_all_its_errors() {
    let (_folder, file) = file(WRONG.as_bytes());
    let text = refused(&check(file, &[]));
    assert!(text.contains("lb.toml:4:1: error: the key `mod` is not known in [[port]]"), "{text}");
    assert!(text.contains("it is not said how packets get to the reals"), "{text}");
    assert!(text.contains("lb.toml:6:8: error: 70000 is out of range"), "{text}");
    assert!(text.trim_end().ends_with("5 errors"), "{text}");
}

#[test]
fn programs_get_the_meaning_of_a_valid_file() {
    let output = check(EXAMPLE, &["--json"]);
    assert!(output.status.success() && output.stderr.is_empty());
    let meaning: Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    assert_eq!(
        meaning["control"],
        json!({"socket": "/run/afx-lb.sock", "metrics": "none", "privileges": "reload"})
    );
    assert_eq!(
        meaning["workers"],
        json!({"count": null, "cores": [2, 3], "idle": "busy", "huge_pages": "auto"})
    );
    assert_eq!(meaning["vip"][0]["check"]["type"], "https");
    assert_eq!(meaning["vip"][1]["real"][0]["server_ids"], json!([1022, 197_630]));
    assert_eq!(meaning["vip"][2]["address"], "2001:db8:0:10::/64");
    assert_eq!(meaning["warnings"], json!([]));
}

#[test]
fn programs_get_what_is_wrong_with_a_file() {
    let (_folder, path) = file(WRONG.as_bytes());
    let output = check(&path, &["--json"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stderr.is_empty());
    let problems: Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    let problems = problems.as_array().expect("it is a list");
    assert_eq!(problems.len(), 5);
    let expected = json!({
        "severity": "error",
        "file": path.to_str(),
        "line": 4,
        "column": 1,
        "message": "the key `mod` is not known in [[port]]",
        "help": "did you mean `mode`?",
    });
    assert!(problems.contains(&expected), "{problems:#?}");
    // What is about no place has none.
    let missing = check("/nonexistent/lb.toml", &["--json"]);
    assert_eq!(missing.status.code(), Some(2));
    let problems: Value = serde_json::from_slice(&missing.stdout).expect("it is JSON");
    let expected = json!([{
        "severity": "error",
        "file": "/nonexistent/lb.toml",
        "line": null,
        "column": null,
        "message": "there is no such file",
        "help": "give the path of a configuration",
    }]);
    assert_eq!(problems, expected);
}

#[test]
fn warnings_do_not_make_a_file_wrong() {
    let text = "version = 1\n[[port]]\ninterface = \"eth1\"\n[forwarding]\nmethod = \"gue\"\n";
    let (_folder, path) = file(text.as_bytes());
    let output = check(&path, &[]);
    assert!(output.status.success());
    let said = String::from_utf8(output.stderr).expect("it prints UTF-8");
    assert!(said.contains("lb.toml:1:1: warning: there is no VIP"), "{said}");
    let output = check(&path, &["--json"]);
    assert!(output.status.success() && output.stderr.is_empty());
    let meaning: Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    assert_eq!(meaning["warnings"][0]["severity"], "warning");
    assert_eq!(meaning["forwarding"]["gue_port"], 6080);
}

#[test]
fn a_file_that_cannot_be_read_is_refused_with_the_reason() {
    let (folder, path) = file(b"version = 1\nnot \xff text\n");
    let place = |path: &Path, what: &str| format!("{}{what}\n", path.display());
    let said = refused(&check("/nonexistent/lb.toml", &[]));
    assert!(said.starts_with("/nonexistent/lb.toml: error: there is no such file\n"), "{said}");
    let said = refused(&check(folder.path(), &[]));
    assert!(said.starts_with(&place(folder.path(), ": error: it is a folder")), "{said}");
    let said = refused(&check(&path, &[]));
    assert!(said.starts_with(&place(&path, ":2:5: error: the byte 0xff is no UTF-8")), "{said}");

    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o000)).expect("the file is this user's");
    // Not even root may read it without these.
    let mut command = Command::new("setpriv");
    command.arg("--bounding-set=-dac_override,-dac_read_search").arg(env!("CARGO_BIN_EXE_afx-lb"));
    command.args(["check", "--config"]).arg(&path);
    let said = refused(&output(command));
    assert!(said.starts_with(&place(&path, ": error: this user may not read it")), "{said}");
}
