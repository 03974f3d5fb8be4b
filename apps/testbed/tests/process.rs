//! Programs on hosts: what they print, how they end, and that none stays.

mod common;

use std::path::Path;
use std::time::Duration;

use afx_testbed::{Error, Host, Signal, Testbed, Transport, wait_for};
use common::{PATIENCE, pair};

fn exists(pid: &str) -> bool {
    Path::new("/proc").join(pid.trim()).exists()
}

fn one_host(name: &str) -> (Testbed, Host) {
    let net = Testbed::new(name).unwrap();
    let host = net.host("h").unwrap();
    (net, host)
}

#[test]
fn output_status_and_input_are_the_programs_own() {
    let (_net, host) = one_host("output");
    let output = host.command("sh").args(["-c", "cat; echo no >&2; exit 7"]).input("yes").output().unwrap();
    assert_eq!(
        (output.status.code(), output.stdout.as_str(), output.stderr.as_str()),
        (Some(7), "yes", "no\n")
    );
    let error = output.check().unwrap_err().to_string();
    assert!(error.contains("sh -c") && error.contains("h of output") && error.contains("no"), "{error}");
    let shown =
        host.command("sh").args(["-c", "echo $WORD; pwd"]).env("WORD", "said").current_dir("/").check();
    assert_eq!(shown.unwrap(), "said\n/\n");
    let error = host.command("no-such-program").output().unwrap_err().to_string();
    assert!(error.contains("no-such-program") && error.contains("h of output"), "{error}");
}

#[test]
fn a_program_that_takes_too_long_is_killed_and_quoted() {
    let (_net, host) = one_host("slow");
    let slow = host.command("sh").args(["-c", "echo $$; sleep 1000"]).within(Duration::from_millis(300));
    let Err(Error::Deadline { detail, .. }) = slow.output() else { panic!("it ended") };
    let pid: String =
        detail.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
    assert!(!pid.is_empty(), "{detail}");
    wait_for("the program to be gone", PATIENCE, || !exists(&pid)).unwrap();
}

#[test]
fn processes_can_be_watched_signalled_and_killed() {
    let (_net, host) = one_host("signal");
    let script = "trap 'echo got it; exit 3' USR1; echo ready; while :; do sleep 0.01; done";
    let process = host.command("sh").args(["-c", script]).spawn().unwrap();
    process.wait_for_output("ready", PATIENCE).unwrap();
    assert!(process.is_running());
    process.signal(Signal::SIGUSR1).unwrap();
    assert_eq!(process.wait().unwrap().code(), Some(3));
    assert_eq!(process.stdout(), "ready\ngot it\n");
    assert!(!process.is_running());
    process.signal(Signal::SIGUSR1).unwrap();

    let script = "sleep 1000 & echo $!; wait";
    let parent = host.command("sh").args(["-c", script]).spawn().unwrap();
    parent.wait_for_output("\n", PATIENCE).unwrap();
    let child = parent.stdout();
    parent.kill();
    wait_for("the child to be gone with its parent", PATIENCE, || !exists(&child)).unwrap();
    let error = parent.wait_for_output("never", PATIENCE).unwrap_err().to_string();
    assert!(error.contains("never") && error.contains("it ended"), "{error}");
}

#[test]
fn nothing_stays_when_the_network_is_dropped() {
    let (net, a, b) = pair("drop", 2);
    let plain = a.command("sleep").arg("1000").spawn().unwrap();
    // A daemon: another session, another process group, its parent gone.
    let daemon =
        b.command("sh").args(["-c", "setsid sh -c 'echo $$; exec sleep 1000' & wait $!"]).spawn().unwrap();
    daemon.wait_for_output("\n", PATIENCE).unwrap();
    let daemon_pid = daemon.stdout();
    let capture = b.capture("eth0", "").unwrap();
    let (namespaces, pid) = ([a.netns_path(), b.netns_path()], plain.pid().to_string());
    assert!(exists(&pid) && exists(&daemon_pid) && namespaces.iter().all(|path| path.exists()));

    net.close().unwrap();
    for path in namespaces {
        assert!(!path.exists(), "{}", path.display());
    }
    assert!(!exists(&pid), "its handle is held, and yet it is gone");
    wait_for("init to reap the daemon", PATIENCE, || !exists(&daemon_pid)).unwrap();
    drop(capture);
}

#[test]
fn what_runs_inside_is_inside_and_panics_come_out() {
    let (_net, a, _) = pair("inside", 1);
    let threads_too =
        || std::thread::spawn(|| std::net::UdpSocket::bind("10.0.0.1:5").is_ok()).join().unwrap();
    assert!(a.run(threads_too).unwrap());
    assert!(!threads_too(), "the caller is where it was");
    let cgroups = || Path::new("/sys/fs/cgroup").read_dir().is_ok_and(|mut entries| entries.next().is_some());
    assert_eq!(a.run(cgroups).unwrap(), cgroups(), "only the interfaces differ in /sys");
    let panic = std::panic::catch_unwind(|| a.run(|| panic!("from inside"))).unwrap_err();
    assert_eq!(panic.downcast_ref::<&str>(), Some(&"from inside"));
}

#[test]
fn listeners_are_waited_for_without_disturbing_them() {
    let (_net, a, _) = pair("listen", 1);
    for transport in [Transport::Tcp, Transport::Udp] {
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let host = &a;
            scope.spawn(move || {
                host.wait_for_listener(transport, 5353).unwrap();
                sender.send(()).unwrap();
            });
            assert!(receiver.recv_timeout(Duration::from_millis(50)).is_err(), "nobody listens yet");
            let bind = || -> std::io::Result<Box<dyn Send>> {
                Ok(match transport {
                    Transport::Tcp => Box::new(std::net::TcpListener::bind("10.0.0.1:5353")?),
                    Transport::Udp => Box::new(std::net::UdpSocket::bind("10.0.0.1:5353")?),
                })
            };
            let _listener = host.run(bind).unwrap().unwrap();
            receiver.recv_timeout(PATIENCE).unwrap();
        });
    }
}
