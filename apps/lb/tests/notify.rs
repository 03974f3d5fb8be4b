//! What a service manager hears: readiness, reloads, the end, and signs of life.

mod common;

use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use afx_testbed::{Process, Signal};
use common::download::{Download, Server};
use common::{Net, PATIENCE, VIP4, head, vip, web};
use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

const REALS: [(&str, u32); 2] = [("10.0.0.11", 100), ("10.0.0.12", 100)];

/// The manager's end of the socket.
struct Manager {
    socket: UnixDatagram,
    folder: tempfile::TempDir,
}

impl Manager {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        Self { socket, folder }
    }

    /// Starts a balancer that is to give signs of life within so many microseconds.
    fn start(&self, net: &Net, config: &str, watchdog_usec: u32, arguments: &[&str]) -> Process {
        let command = net.lb.command(env!("CARGO_BIN_EXE_afx-lb")).args(["run", "--config"]);
        let command = command.arg(net.configure(config)).args(arguments);
        let command = command.env("NOTIFY_SOCKET", self.folder.path().join("notify"));
        command.env("WATCHDOG_USEC", watchdog_usec.to_string()).spawn().unwrap()
    }

    /// The next message, unless there is none for a while.
    fn hear(&self) -> Option<String> {
        let mut buffer = [0; 4096];
        match self.socket.recv(&mut buffer) {
            Ok(length) => Some(String::from_utf8(buffer[..length].to_vec()).unwrap()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// The first message to come that has a line which begins so.
    fn wait_for(&self, line: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut heard = Vec::new();
        while Instant::now() < deadline {
            let Some(message) = self.hear() else { continue };
            if message.lines().any(|said| said.starts_with(line)) {
                return message;
            }
            heard.push(message);
        }
        panic!("waited for {line}, heard {heard:?}");
    }
}

/// The value of a variable in a message.
fn value<'m>(message: &'m str, name: &str) -> &'m str {
    let value = message.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    value.unwrap_or_else(|| panic!("no {name} in {message:?}"))
}

fn now_usec() -> u128 {
    Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap()).as_micros()
}

/// Has a thread of another process stand still, while the others go on: what a worker does that is caught in a loop.
struct Stopped(Pid);

impl Stopped {
    fn thread(process: &Process, name: &str) -> Self {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", process.pid())).unwrap();
        let called = |task: &std::path::Path| {
            std::fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim_end() == name)
        };
        let task = tasks.map(|task| task.unwrap().path()).find(|task| called(task));
        let task = task.unwrap_or_else(|| panic!("no thread {name}"));
        let id = Pid::from_raw(task.file_name().unwrap().to_str().unwrap().parse().unwrap());
        ptrace::seize(id, ptrace::Options::empty()).unwrap();
        ptrace::interrupt(id).unwrap();
        let status = waitpid(id, Some(WaitPidFlag::__WALL)).unwrap();
        assert!(matches!(status, WaitStatus::PtraceEvent(..)), "{status:?}");
        Self(id)
    }

    fn go_on(self) {
        ptrace::detach(self.0, None).unwrap();
    }
}

/// Waits for its end, told already, and demands that it leaves everything as it was.
fn ended(net: &Net, process: &Process) {
    let status = process.wait_within(PATIENCE).unwrap();
    let log = process.stderr();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("balanced=true"), "the frame ledger: {log}");
    assert!(!net.has_xdp_program());
}

#[test]
fn the_manager_hears_of_readiness_reloads_and_the_end() {
    let net = Net::new("lb-notify", 2, 1);
    let manager = Manager::new();
    // One that nobody answers for, and one that drains, take no new flows.
    let reals = [REALS[0], REALS[1], ("10.0.0.99", 100)];
    let drains = [(REALS[0].0, 0), REALS[1]];
    let config = web(&reals) + &vip(VIP4, 81, "tcp", &drains);
    let process = manager.start(&net, &config, 0, &[]);
    let ready = manager.wait_for("READY=1");
    assert!(net.has_xdp_program());
    assert_eq!(value(&ready, "STATUS"), "balancing 2 VIPs over 3 of 5 reals");

    let before = now_usec();
    net.configure(&web(&REALS));
    process.signal(Signal::SIGHUP).unwrap();
    let reloading = manager.wait_for("RELOADING=1");
    let at = value(&reloading, "MONOTONIC_USEC").parse().unwrap();
    assert!((before..=now_usec()).contains(&at));
    let ready = manager.wait_for("READY=1");
    assert_eq!(value(&ready, "STATUS"), "balancing 1 VIP over 2 of 2 reals");

    // A file that is wrong: the balancer is ready as before, and says what is the matter.
    net.configure("version = 2");
    process.signal(Signal::SIGHUP).unwrap();
    manager.wait_for("RELOADING=1");
    let ready = manager.wait_for("READY=1");
    let status = value(&ready, "STATUS");
    assert!(status.starts_with("balancing 1 VIP over 2 of 2 reals; the newest reload failed: "), "{status}");
    // Put right by a command instead of a signal: that takes time as well, and the status follows.
    net.configure(&web(&REALS[..1]));
    net.ask(&["ctl", "reload"]);
    manager.wait_for("EXTEND_TIMEOUT_USEC=");
    let status = manager.wait_for("STATUS=balancing 1 VIP over 1 of 1 real");
    assert!(!status.contains("failed"), "{status}");

    // Without being asked: a real that is no longer to be reached.
    net.lb.ip("neigh replace 10.0.0.11 lladdr 02:00:00:00:00:aa dev eth0 nud permanent").unwrap();
    net.lb.ip("link set eth0 down").unwrap();
    manager.wait_for("STATUS=balancing 1 VIP over 0 of 1 real");

    process.signal(Signal::SIGTERM).unwrap();
    manager.wait_for("STOPPING=1");
    ended(&net, &process);
}

#[test]
fn while_it_drains_it_asks_for_time() {
    let net = Net::new("lb-notify-drain", 2, 1);
    net.decapsulate();
    let _servers: Vec<_> =
        (1..).zip(&net.reals).map(|(number, real)| Server::start(real, number, VIP4, 80)).collect();
    let manager = Manager::new();
    let process = manager.start(&net, &web(&REALS), 500_000, &["--drain", "1000"]);
    manager.wait_for("READY=1");
    let download = Download::start(&net.client, VIP4, 80);
    download.advance(5000);
    process.signal(Signal::SIGTERM).unwrap();
    manager.wait_for("STOPPING=1");
    // Again and again, since draining may take longer than the manager waits on its own.
    for _ in 0..2 {
        let status = manager.wait_for("STATUS=stopping; 1 connection left");
        assert!(value(&status, "EXTEND_TIMEOUT_USEC").parse::<u64>().unwrap() > 1_000_000);
    }
    manager.wait_for("WATCHDOG=1");
    // A reload now is no news: said to be ready, it would count as running again.
    process.signal(Signal::SIGHUP).unwrap();
    process.wait_for_output("reloaded", PATIENCE).unwrap();
    download.finish();
    ended(&net, &process);
    while let Some(message) = manager.hear() {
        assert!(!message.contains("READY=1") && !message.contains("RELOADING=1"), "{message}");
    }
}

#[test]
fn a_stalled_worker_gives_no_sign_of_life() {
    let net = Net::new("lb-notify-dog", 2, 2);
    let manager = Manager::new();
    let config = head(2, "method = \"ipip\"") + &vip(VIP4, 80, "tcp", &REALS);
    let process = manager.start(&net, &config, 500_000, &[]);
    manager.wait_for("READY=1");
    // Without any traffic.
    (0..5).for_each(|_| drop(manager.wait_for("WATCHDOG=1")));

    let stopped = Stopped::thread(&process, "afx-worker-1");
    process.wait_for_output("worker is stalled", PATIENCE).unwrap();
    let silent_until = Instant::now() + Duration::from_secs(2);
    // What was said before that.
    while manager.hear().is_some() {}
    while Instant::now() < silent_until {
        let heard = manager.hear();
        assert!(!heard.as_ref().is_some_and(|message| message.contains("WATCHDOG")), "{heard:?}");
    }
    stopped.go_on();
    (0..3).for_each(|_| drop(manager.wait_for("WATCHDOG=1")));

    process.signal(Signal::SIGTERM).unwrap();
    ended(&net, &process);
}
