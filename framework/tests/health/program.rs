//! Checks by programs.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use afx::control::health::{Check, Command, Kind, State};

use super::lab::{PATIENCE, SHORT, checker, expect, host, is_up, often, target, unable, wait_for, why_down};

fn command(program: impl Into<PathBuf>, arguments: &[&str]) -> Command {
    let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    Command { program: program.into(), arguments, environment: Vec::new() }
}

fn shell(script: &str) -> Check {
    often(Kind::Command(command("sh", &["-c", script])))
}

/// The number that a script has written to a file.
fn number(file: &Path) -> u32 {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let written = std::fs::read_to_string(file).unwrap_or_default();
        if let Some(number) = written.strip_suffix('\n') {
            return number.parse().expect("a number");
        }
        assert!(Instant::now() < deadline, "nothing is written to {}", file.display());
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Waits until a process has ended. Whoever is to reap it may take their time.
#[track_caller]
fn expect_end(process: u32) {
    let deadline = Instant::now() + PATIENCE;
    while let Ok(status) = std::fs::read_to_string(format!("/proc/{process}/stat")) {
        if status.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['Z', 'X'])) {
            break;
        }
        assert!(Instant::now() < deadline, "it goes on: {status}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn the_exit_status_decides() {
    let host = host();
    is_up(&host, "10.0.0.1", shell("echo all is well >&2; exit 0"));
    let whys = [
        ("exit 3", "exit status 3"),
        ("echo; echo '  it is ill ' >&2; echo more >&2; exit 1", "exit status 1: it is ill"),
        ("echo CRITICAL; exit 2", "exit status 2: CRITICAL"),
        ("echo this; echo 'rather this' >&2; exit 2", "exit status 2: rather this"),
        ("kill -TERM $$", "killed by SIGTERM"),
    ];
    for (script, why) in whys {
        assert_eq!(why_down(&host, "10.0.0.1", shell(script)), why);
    }
}

#[test]
fn a_script_that_looks_at_a_file_follows_it() {
    let host = host();
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let (script, file) = (folder.path().join("check"), folder.path().join("ok"));
    std::fs::write(&script, "test -e \"$1\" || { echo there is none >&2; exit 1; }\n")
        .expect("its own folder");
    let files = [&script, &file].map(|file| file.to_str().expect("a plain name"));
    let check = often(Kind::Command(command("/bin/sh", &files)));
    let checker = checker(&host, vec![target("file", "10.0.0.1", check)]);
    let why = expect(&checker, "file", State::Unknown, State::Down);
    assert_eq!(why.as_deref(), Some("exit status 1: there is none"));
    std::fs::write(&file, "").expect("its own folder");
    assert_eq!(expect(&checker, "file", State::Down, State::Up), None);
    std::fs::remove_file(&file).expect("written just now");
    expect(&checker, "file", State::Up, State::Down);
}

#[test]
fn a_program_gets_its_variables_and_nothing_of_this_process() {
    // What this process was itself given to pass on: usually nothing but 0 to 2. The next is the folder that
    // is read.
    let passed_on = std::process::Command::new("ls").arg("/proc/self/fd").output().expect("ls is there");
    let passed_on = String::from_utf8(passed_on.stdout).expect("numbers");
    let host = host();
    let _listener = super::server::listen(&host, "127.0.0.1:80");
    let script = "test \"$AFX_REAL\" = 10.0.0.1 && test \"$AFX_PORT\" = 80 && test -n \"$PATH\" || exit 10
        test -z \"$(cat)\" || exit 11
        test \"$(ls /proc/self/fd)\" = \"$DESCRIPTORS\" || exit 12
        read -r _ _ _ _ group _ < /proc/$$/stat
        test \"$group\" = $$ || exit 13";
    let environment = [("AFX_REAL", "10.0.0.1"), ("AFX_PORT", "80"), ("DESCRIPTORS", passed_on.trim())];
    let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let command = Command { environment, ..command("bash", &["-c", script]) };
    let checks = vec![
        target("program", "10.0.0.1", often(Kind::Command(command))),
        target("other", "127.0.0.1", often(Kind::Tcp { port: 80 })),
        target("ping", "127.0.0.1", often(Kind::Icmp)),
        target("long", "10.0.0.1", shell("sleep 1000")),
    ];
    let checker = checker(&host, checks);
    let status = wait_for(&checker, &"program", |status| status.checks >= 10);
    assert_eq!((status.failed, status.last_error), (0, None));
}

#[test]
fn a_program_that_takes_too_long_is_killed_with_all_that_it_has_started() {
    let host = host();
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let file = folder.path().join("child");
    let script = format!("trap '' TERM INT HUP; sleep 1000 & echo $! > {}; wait", file.display());
    let check = Check { timeout: Duration::from_secs(1), ..shell(&script) };
    let checker = checker(&host, vec![target("program", "10.0.0.1", check)]);
    let why = expect(&checker, "program", State::Unknown, State::Down);
    assert_eq!(why.as_deref(), Some("no end within 1 s"));
    // The first that came as far as to write it: the machine may be busy.
    expect_end(number(&file));
}

#[test]
fn what_a_program_leaves_behind_goes_with_it() {
    let host = host();
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let file = folder.path().join("child");
    is_up(&host, "10.0.0.1", shell(&format!("sleep 1000 & echo $! > {}; exit 0", file.display())));
    expect_end(number(&file));
}

#[test]
fn a_program_goes_with_its_target() {
    let host = host();
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let file = folder.path().join("program");
    let check = shell(&format!("echo $$ > {}; sleep 1000; exit 0", file.display()));
    let checker = checker(&host, vec![target("program", "10.0.0.1", check)]);
    let program = number(&file);
    checker.set(Vec::new()).expect("nothing can be wrong with it");
    expect_end(program);
    assert!(checker.states().is_empty());
}

#[test]
fn a_program_may_print_as_much_as_it_likes() {
    let host = host();
    let _listener = super::server::listen(&host, "127.0.0.1:80");
    let much =
        "i=0; while [ $i -lt 3000 ]; do echo \"line $i of a long, long, long, long story\"; i=$((i+1)); done";
    let why = why_down(&host, "10.0.0.1", shell(&format!("({much}) >&2; ({much}); exit 7")));
    assert_eq!(why, "exit status 7: line 0 of a long, long, long, long story");

    // One that never stops keeps nobody else.
    let endless = Check { timeout: SHORT, ..shell("yes 'and on'") };
    let checks = vec![
        target("endless", "10.0.0.1", endless),
        target("other", "127.0.0.1", often(Kind::Tcp { port: 80 })),
    ];
    let checker = checker(&host, checks);
    let status = wait_for(&checker, &"endless", |status| status.checks >= 3);
    assert_eq!(status.last_error.as_deref(), Some("no end within 300 ms"));
    let status = wait_for(&checker, &"other", |status| status.checks >= 10);
    assert_eq!(status.failed, 0);
}

#[test]
fn a_program_that_is_not_there_says_nothing_of_the_target() {
    let host = host();
    let check = often(Kind::Command(command("/nowhere/check", &[])));
    let checker = checker(&host, vec![target("program", "10.0.0.1", check)]);
    let status = wait_for(&checker, &"program", |status| status.unable >= 3);
    assert_eq!(unable(&status), Some("cannot run /nowhere/check: no such file or directory"));
    assert_eq!((status.state, status.checks), (State::Unknown, 0));
}
