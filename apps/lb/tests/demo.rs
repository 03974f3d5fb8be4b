//! `afx-lb demo` as whoever tries it out calls it: on real namespaces, with a real web server.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_afx-lb"));
    command.arg("demo").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// What the demo of that process has left: namespaces, folders, processes.
fn leftovers(pid: u32) -> Vec<String> {
    let mark = format!("afx.demo.{pid}-");
    let names = |folder: &str| {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path().display().to_string()).collect::<Vec<_>>()
    };
    let mut left = names("/run/netns");
    left.extend(names("/run/afx-testbed"));
    for process in names("/proc") {
        // Where it is no process, or one that has just ended, there is nothing to read.
        let arguments = fs::read(Path::new(&process).join("cmdline")).unwrap_or_default();
        left.push(format!("{process}: {}", String::from_utf8_lossy(&arguments).replace('\0', " ")));
    }
    left.retain(|text| text.contains(&mark));
    left
}

fn wait_until_nothing_is_left(pid: u32) {
    let deadline = Instant::now() + PATIENCE;
    while !leftovers(pid).is_empty() {
        assert!(Instant::now() < deadline, "left behind: {:#?}", leftovers(pid));
        thread::sleep(Duration::from_millis(20));
    }
}

/// A demo that is sending requests, long enough to be interrupted.
fn under_way() -> Child {
    let mut child = program().args(["--requests", "4000"]).spawn().expect("the program was built");
    let output = BufReader::new(child.stdout.as_mut().expect("it is piped"));
    let lines = output.lines().map_while(Result::ok).take_while(|line| !line.contains("pps in"));
    let before: Vec<_> = lines.collect();
    assert!(child.try_wait().expect("it is our child").is_none(), "it ended: {before:#?}");
    assert!(!leftovers(child.id()).is_empty(), "the mark by which leftovers are found is another");
    child
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id() as i32), signal).expect("it is our child and not reaped");
}

#[test]
fn all_requests_succeed_while_a_real_is_drained() {
    let child = program().args(["--requests", "600", "--json"]).spawn().expect("the program was built");
    let pid = child.id();
    let output = child.wait_with_output().expect("it is our child");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(leftovers(pid), Vec::<String>::new());
    assert_eq!(output.status.code(), Some(0), "{said}\n{}", String::from_utf8_lossy(&output.stdout));

    let summary: Value = serde_json::from_slice(&output.stdout).expect("one JSON object, and nothing else");
    let number = |pointer: &str| {
        let value = summary.pointer(pointer).and_then(Value::as_u64);
        value.unwrap_or_else(|| panic!("a number at {pointer} in {summary:#}"))
    };
    assert_eq!(summary["ok"], true, "{summary:#}");
    assert_eq!((number("/requests"), number("/failures")), (600, 0), "{summary:#}");
    assert_eq!(number("/answers_while_drained"), 0);

    let weights = [[100, 200, 100], [100, 0, 100], [100, 200, 100]];
    for (phase, weights) in weights.iter().enumerate() {
        for (real, weight) in weights.iter().enumerate() {
            let at = |key: &str| number(&format!("/phases/{phase}/reals/{real}/{key}"));
            assert_eq!(at("weight"), *weight);
            assert_eq!(at("connections") == 0, *weight == 0, "phase {phase}, real {real}: {summary:#}");
        }
    }
    let sum = |key: &str| (0..3).map(|real| number(&format!("/reals/{real}/{key}"))).sum::<u64>();
    assert_eq!(sum("answers"), 600);
    // A SYN that was sent again may come to another worker, and count there once more.
    assert!(sum("connections") >= 600, "{summary:#}");
    // At the least a SYN, an ACK, the request, a FIN and its ACK.
    assert!(number("/packets/sent") >= 5 * 600, "{summary:#}");
    assert_eq!(number("/packets/received"), number("/packets/sent") + number("/packets/dropped"));

    assert_eq!(summary["ledger_balanced"], true, "{summary:#}");
    let workers = summary["workers"].as_array().expect("an array");
    assert!(!workers.is_empty());
    for worker in workers {
        assert!(worker["frames"].as_u64() > Some(0) && worker["frames_missing"] == 0, "{worker:#}");
    }
}

#[test]
fn interrupted_it_takes_everything_down() {
    let child = under_way();
    let pid = child.id();
    signal(&child, Signal::SIGINT);
    let output = child.wait_with_output().expect("it is our child");
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("interrupted"), "{output:?}");
    assert_eq!(leftovers(pid), Vec::<String>::new());
}

#[test]
fn killed_it_leaves_nothing_behind() {
    let mut child = under_way();
    signal(&child, Signal::SIGKILL);
    child.wait().expect("it is our child");
    wait_until_nothing_is_left(child.id());
}

fn refused(mut command: Command) -> String {
    let child = command.spawn().expect("the program is there");
    let pid = child.id();
    let Output { status, stderr, .. } = child.wait_with_output().expect("it is our child");
    let said = String::from_utf8_lossy(&stderr).into_owned();
    assert_eq!(status.code(), Some(2), "{said}");
    assert_eq!(leftovers(pid), Vec::<String>::new());
    said
}

#[test]
fn without_rights_it_says_so() {
    // Root without any capability: may execute the program, wherever it was built.
    let mut command = Command::new("setpriv");
    command.args([
        "--bounding-set",
        "-all",
        "--inh-caps",
        "-all",
        "--",
        env!("CARGO_BIN_EXE_afx-lb"),
        "demo",
    ]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let said = refused(command);
    assert!(said.contains("CAP_NET_ADMIN") && said.contains("run it as root"), "{said}");
}

#[test]
fn without_nginx_it_names_the_package() {
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let path = std::env::var_os("PATH").expect("there is one");
    for name in ["ip", "ethtool"] {
        let found = std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.exists());
        symlink(found.expect("the testbed needs it"), folder.path().join(name)).expect("it is writable");
    }
    let mut command = program();
    command.env("PATH", folder.path());
    let said = refused(command);
    assert!(said.contains("install the package nginx-light"), "{said}");
}
