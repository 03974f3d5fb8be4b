//! Start and end: whatever way the process ends, the interface is as before.

use afx::control::privileges::{self, Capabilities};
use afx::port::{Coexist, Steering, XdpPort};
use afx_redirect::Attached;
use afx_redirect::testing::OtherProgram;
use afx_testbed::{Host, Signal, XdpMode, wait_for};

use crate::support::*;

/// Demands that the kernel of `b` gets its packets again. Not of the first one: what the host `a` sends may wait for the
/// answer to a question that was asked, and lost, before.
fn assert_answers(a: &Host) {
    let ping = || a.command("ping").args(["-c", "1", "-W", "1", "10.0.0.2"]).output().unwrap();
    wait_for("an answer", PATIENCE, || ping().status.success()).unwrap();
}

#[test]
fn a_runtime_starts_again_at_once() {
    let (_net, a, b) = pair("afxagain", 1);
    for _ in 0..5 {
        let running = start_on(&b, all_of_eth0, |_| Mirror).unwrap();
        assert_eq!(b.xdp_program("eth0").unwrap().unwrap().mode, XdpMode::Native);
        // Somebody else's program is not put aside.
        let error = start_on(&b, all_of_eth0, |_| Mirror).err().expect("it is taken");
        let text = error.to_string();
        assert!(text.contains("port eth0") && text.contains("redirect program"), "{text}");
        let stats = running.stop().unwrap();
        assert_settled(&stats);
        assert_untouched(&b, "eth0");
    }
    assert_answers(&a);
}

struct Fuse;

impl afx::Stage for Fuse {
    fn process(&mut self, _: &mut afx::Batch) {
        panic!("blown");
    }
}

#[test]
fn a_panic_in_a_stage_gives_the_interface_back() {
    let (_net, a, b) = pair("afxpanic", 1);
    let running = start_on(&b, all_of_eth0, |_| Fuse).unwrap();
    wait_for("the panic", PATIENCE, || {
        let _ = a.command("ping").args(["-c", "1", "-W", "1", "10.0.0.2"]).output().unwrap();
        running.ended()
    })
    .unwrap();
    assert_untouched(&b, "eth0");
    assert_eq!(running.join().unwrap_err().to_string(), "worker 0 panicked: blown");
    assert_answers(&a);
    // The batch in which it happened keeps nothing: the same process may begin anew.
    start_on(&b, all_of_eth0, |_| Mirror).unwrap().stop().unwrap();
    assert_untouched(&b, "eth0");
}

#[test]
fn a_panic_in_a_stage_gives_the_interface_back_to_the_program_that_was_there() {
    let (_net, a, b) = pair("afxpanicother", 1);
    let other = OtherProgram::load(false).unwrap();
    let index = b.interface_index("eth0").unwrap();
    b.run(|| other.attach(index, Attached::Native)).unwrap().unwrap();
    let before = b.xdp_program("eth0").unwrap();
    let blown = || {
        let port = XdpPort::new("eth0", Steering::All).coexist(Coexist::Replace);
        // Putting it back takes no more than this.
        let kept = |_| privileges::keep(Capabilities::NET_ADMIN).unwrap();
        afx::Runtime::builder().port(port).on_ready(kept)
    };
    let running = start_on(&b, blown, |_| Fuse).unwrap();
    assert_ne!(b.xdp_program("eth0").unwrap(), before);
    wait_for("the panic", PATIENCE, || {
        let _ = a.command("ping").args(["-c", "1", "-W", "1", "10.0.0.2"]).output().unwrap();
        running.ended()
    })
    .unwrap();
    assert_eq!(b.xdp_program("eth0").unwrap(), before);
    assert_eq!(running.join().unwrap_err().to_string(), "worker 0 panicked: blown");
}

#[test]
fn an_interface_that_is_not_there_or_has_no_such_queue_is_refused() {
    let (_net, _a, b) = pair("afxrefuse", 1);
    let told = |port: XdpPort, expected: &str| {
        let builder = || afx::Runtime::builder().port(port);
        let text = start_on(&b, builder, |_| Mirror).err().unwrap().to_string();
        assert!(text.contains(expected), "{text}");
    };
    let port = |name| XdpPort::new(name, Steering::All);
    told(port("eth7"), "port eth7: there is no interface of that name");
    told(port("eth0").queues([1]), "no queue 1: it has queues 0 to 0");
    told(port("eth0").queues([]), "name at least one");
    assert_untouched(&b, "eth0");
    // All of what the default route carries would be everything.
    b.route("default", "10.0.0.1").unwrap();
    told(port("eth0"), "the default route leaves by this interface");
    let forced = || afx::Runtime::builder().port(port("eth0").force());
    start_on(&b, forced, |_| Mirror).unwrap().stop().unwrap();
    assert_untouched(&b, "eth0");
}

#[test]
fn the_echo_example_ends_well_by_every_signal() {
    let (_net, a, b) = pair("afxsignal", 1);
    // An ARP request that comes back answers nothing, and what waits for an answer is given up together.
    a.neighbour("eth0", "10.0.0.2".parse().unwrap(), b.mac("eth0").unwrap()).unwrap();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGKILL, Signal::SIGTERM] {
        let process = b.command(example("echo")).arg("eth0").spawn().unwrap();
        wait_for("its program", PATIENCE, || b.xdp_program("eth0").unwrap().is_some()).unwrap();
        let before = a.packet_counters("eth0").unwrap().rx_packets;
        wait_for("packets that come back", PATIENCE, || {
            // The kernel of `b` does not answer: what comes back is what was sent.
            let _ = a.command("ping").args(["-c", "1", "-W", "1", "10.0.0.2"]).output().unwrap();
            a.packet_counters("eth0").unwrap().rx_packets >= before + 3
        })
        .unwrap();
        process.signal(signal).unwrap();
        let status = process.wait().unwrap();
        assert_eq!(status.success(), signal != Signal::SIGKILL, "{signal}: {}", process.stderr());
        if status.success() {
            assert!(process.stdout().contains(" packets in, "), "{}", process.stdout());
        }
        wait_for("the interface as before", PATIENCE, || b.xdp_program("eth0").unwrap().is_none()).unwrap();
    }
    assert_answers(&a);
}

#[test]
fn there_is_no_system_call_per_packet() {
    let (_net, a, b) = pair("afxstrace", 1);
    a.neighbour("eth0", "10.0.0.2".parse().unwrap(), b.mac("eth0").unwrap()).unwrap();
    let summary = tempfile::NamedTempFile::new().unwrap();
    let process = b
        .command("strace")
        .args(["-f", "-c", "-U", "calls,name", "-o"])
        .arg(summary.path())
        .arg(example("echo"))
        .arg("eth0")
        .spawn()
        .unwrap();
    wait_for("its program", PATIENCE, || b.xdp_program("eth0").unwrap().is_some()).unwrap();
    // A flood: more come than go one by one.
    let back = || a.packet_counters("eth0").unwrap().rx_packets;
    let before = back();
    let payload = vec![0u8; 18];
    a.run(|| {
        let socket = std::net::UdpSocket::bind("10.0.0.1:0").unwrap();
        socket.connect("10.0.0.2:9").unwrap();
        wait_for("50,000 packets that come back", PATIENCE, || {
            (0..5_000).for_each(|_| drop(socket.send(&payload)));
            a.packet_counters("eth0").unwrap().rx_packets > before + 50_000
        })
        .unwrap();
    })
    .unwrap();
    let packets = back() - before;
    let pid = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", process.pid())).unwrap();
    let pid = nix::unistd::Pid::from_raw(pid.trim().parse().unwrap());
    nix::sys::signal::kill(pid, Signal::SIGTERM).unwrap();
    process.wait().unwrap();
    let text = std::fs::read_to_string(summary.path()).unwrap();
    let count = |name: &str| {
        let line = text.lines().find(|line| line.split_whitespace().nth(1) == Some(name));
        line.map_or(0, |line| line.split_whitespace().next().unwrap().parse::<u64>().unwrap())
    };
    // The kernel is told to send once per batch, and asked to sleep; nothing is asked per packet.
    let calls = count("sendto") + count("recvfrom") + count("poll") + count("recvmsg") + count("sendmsg");
    assert!(calls > 0 && calls < packets / 4, "{calls} system calls for {packets} packets:\n{text}");
    assert_untouched(&b, "eth0");
}
