//! A checker that is dropped leaves nothing: a test binary of its own, since it counts what the process has.

use std::collections::BTreeSet;
use std::net::{IpAddr, TcpListener};
use std::path::Path;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use afx::control::health::{Check, Checker, Command, Http, Kind, State, Target, Tls};

const PATIENCE: Duration = Duration::from_secs(60);

/// This process's threads, their children, and its descriptors.
#[derive(Debug, PartialEq, Eq)]
struct Belongings {
    threads: BTreeSet<String>,
    children: BTreeSet<String>,
    descriptors: BTreeSet<String>,
}

impl Belongings {
    fn now() -> Self {
        let names = |folder: &str| -> BTreeSet<String> {
            let entries = std::fs::read_dir(folder).expect("/proc is mounted");
            entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
        };
        let threads = names("/proc/self/task");
        let children = threads
            .iter()
            .filter_map(|thread| std::fs::read_to_string(format!("/proc/self/task/{thread}/children")).ok())
            .flat_map(|children| children.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
            .collect();
        // The descriptor that the folder is read by is one of them, and of the same number each time if none
        // is left.
        Self { threads, children, descriptors: names("/proc/self/fd") }
    }
}

/// Waits for something.
#[track_caller]
fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Whether a process has ended; it may be that nobody has reaped it yet.
fn has_ended(process: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{process}/stat"))
        .map_or(true, |status| status.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['Z', 'X'])))
}

fn targets(hanging: &TcpListener, folder: &Path) -> Vec<Target<u32>> {
    let hanging = hanging.local_addr().expect("it listens");
    let http = Kind::Http(Http {
        port: hanging.port(),
        tls: Tls::Off,
        host: None,
        path: "/".to_owned(),
        statuses: vec![200..=200],
    });
    let https = match &http {
        Kind::Http(http) => Kind::Http(Http { tls: Tls::Unverified, ..http.clone() }),
        _ => unreachable!("made just now"),
    };
    let program = |key: u32| {
        let file = folder.join(key.to_string());
        let script = format!("trap '' TERM; sleep 1000 & echo $$ $! > {}; wait", file.display());
        Kind::Command(Command {
            program: "sh".into(),
            arguments: vec!["-c".to_owned(), script],
            environment: Vec::new(),
        })
    };
    let loopback = hanging.ip();
    let target = |key: u32, address: IpAddr, kind: Kind| {
        // Whoever waits for a check to end waits longer than this test does.
        let (interval, timeout) = (Duration::from_millis(50), Duration::from_secs(3600));
        let check = Check { interval, timeout, ..Check::new(kind) };
        Target { key, address, check, initially: State::Unknown }
    };
    let mut targets = vec![
        target(100, loopback, http),
        target(101, loopback, https),
        target(102, loopback, Kind::Icmp),
        target(103, loopback, Kind::Tcp { port: hanging.port() }),
    ];
    targets.extend((0..8).map(|key| target(key, loopback, program(key))));
    targets
}

#[test]
fn a_checker_that_is_dropped_leaves_nothing() {
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    // Takes connections, and never answers.
    let hanging = TcpListener::bind("127.0.0.1:0").expect("loopback is up");
    let before = Belongings::now();

    let checker = Checker::start().expect("the system has threads");
    checker.set(targets(&hanging, folder.path())).expect("all can be checked");
    let processes =
        |key: u32| std::fs::read_to_string(folder.path().join(key.to_string())).unwrap_or_default();
    until("the programs do not run", || (0..8).all(|key| processes(key).ends_with('\n')));
    let checked = |key: u32| checker.states().iter().any(|status| status.key == key && status.checks > 0);
    until("what can answer is not checked", || checked(102) && checked(103));
    let during = Belongings::now();
    assert!(during.threads.len() > before.threads.len());
    assert!(during.children.len() >= before.children.len() + 8, "{during:?}");

    // In another thread, so that one that hangs is noticed.
    let events = checker.events().clone();
    let (tell, told) = channel();
    let stopping = std::thread::spawn(move || {
        checker.stop();
        let _ = tell.send(());
    });
    told.recv_timeout(PATIENCE).expect("it stops, though checks hang");
    stopping.join().expect("it does not panic");
    until("the reader of events is not told", || {
        events.try_recv() == Err(crossbeam::channel::TryRecvError::Disconnected)
    });
    until("something is left", || Belongings::now() == before);
    for key in 0..8 {
        for process in processes(key).split_whitespace() {
            until("a program goes on", || has_ended(process));
        }
    }
}
