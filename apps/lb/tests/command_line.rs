//! The command line: what is said where no balancer runs, completions and the manual.

use std::process::{Command, Output, Stdio};

fn afx_lb(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_afx-lb"))
        .args(arguments)
        .env_remove("AFX_LB_SOCKET")
        .env_remove("AFX_LOG_FORMAT")
        .output()
        .expect("the program was built")
}

fn error(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("it prints UTF-8")
}

#[test]
fn where_no_balancer_runs_that_is_said() {
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let socket = folder.path().join("afx-lb.sock");
    let path = socket.to_str().expect("a UTF-8 path");
    for command in [&["status"][..], &["ctl", "reals"], &["explain", "192.0.2.1:1", "192.0.2.2:2", "tcp"]] {
        let output = afx_lb(&[command, &["--socket", path]].concat());
        assert_eq!(output.status.code(), Some(1));
        let expected = format!(
            "afx-lb: there is no socket {path}: the program is not running, or has its socket elsewhere\n"
        );
        assert_eq!(error(&output), expected);
        assert!(output.stdout.is_empty());
    }
    // Left behind by one that was killed.
    drop(std::os::unix::net::UnixListener::bind(&socket).expect("the folder is writable"));
    let output = Command::new(env!("CARGO_BIN_EXE_afx-lb"))
        .arg("status")
        .env("AFX_LB_SOCKET", &socket)
        .output()
        .expect("the program was built");
    assert_eq!(output.status.code(), Some(1));
    assert!(error(&output).contains("nobody answers at "), "{}", error(&output));
}

#[test]
fn a_flow_of_two_families_is_bad_input() {
    let output = afx_lb(&["explain", "192.0.2.1:1", "[2001:db8::1]:2", "tcp"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(error(&output).contains("of different families"), "{}", error(&output));
}

#[test]
fn shells_understand_their_completions() {
    for (shell, part) in [("bash", "complete -F"), ("zsh", "#compdef afx-lb"), ("fish", "complete -c afx-lb")]
    {
        let output = afx_lb(&["completions", shell]);
        assert!(output.status.success(), "{}", error(&output));
        let script = String::from_utf8(output.stdout).expect("it prints UTF-8");
        for word in [part, "undrain", "idle-over", "log-format"] {
            assert!(script.contains(word), "{word} for {shell}");
        }
    }
    // Bash is there wherever this is built: scripts need it.
    let mut bash = Command::new("bash").arg("-n").stdin(Stdio::piped()).spawn().expect("bash can be started");
    let script = afx_lb(&["completions", "bash"]).stdout;
    std::io::Write::write_all(&mut bash.stdin.take().expect("it is piped"), &script).expect("bash reads it");
    assert!(bash.wait().expect("it can be waited for").success());
    assert_eq!(afx_lb(&["completions", "abacus"]).status.code(), Some(2));
}

#[test]
fn the_manual_has_a_page_for_each_command() {
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let pages = folder.path().join("man1");
    let output = afx_lb(&["man", pages.to_str().expect("a UTF-8 path")]);
    assert!(output.status.success(), "{}", error(&output));
    for command in [
        "",
        "-run",
        "-check",
        "-doctor",
        "-status",
        "-explain",
        "-ctl",
        "-ctl-reals",
        "-ctl-real-drain",
        "-ctl-vip-add",
    ] {
        let page = std::fs::read_to_string(pages.join(format!("afx-lb{command}.1")))
            .unwrap_or_else(|error| panic!("{command}: {error}"));
        assert!(page.contains(&format!(".TH afx-lb{command} 1")), "{page}");
    }
    assert!(!pages.join("afx-lb-man.1").exists(), "those who make packages need no page for it");

    let file = folder.path().join("file");
    std::fs::write(&file, "").expect("it is writable");
    let output = afx_lb(&["man", file.to_str().expect("a UTF-8 path")]);
    assert_eq!(output.status.code(), Some(2));
    assert!(error(&output).contains("the manual cannot be written to "), "{}", error(&output));
}

#[test]
fn a_log_format_that_there_is_not_is_bad_input() {
    let output = afx_lb(&["--log-format", "xml", "status"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(error(&output).contains("possible values: text, json"), "{}", error(&output));
}
