//! A network namespace for one test.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// Receive queues of each end of the veth pair of [`in_namespace`].
pub(crate) const QUEUES: u32 = 4;
/// The hardware address of `veth1`.
pub(crate) const VETH1_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// Runs `test` on a thread with a network namespace of its own, which holds the veth pair `veth0` and `veth1`,
/// quiet but for what the test sends. It has no name, and goes with its last user, however that ends.
pub(crate) fn in_namespace<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("a new network namespace");
            // No neighbour discovery between the packets that are counted.
            std::fs::write("/proc/sys/net/ipv6/conf/default/addr_gen_mode", "1").expect("IPv6 is there");
            ip("link add veth0 numrxqueues 4 numtxqueues 4 type veth peer name veth1 numrxqueues 4 numtxqueues 4");
            ip("link set veth1 address 02:00:00:00:00:01");
            ip("link set lo up");
            ip("link set veth0 arp off up");
            ip("link set veth1 arp off up");
            // The kernel gives a new link its queueing discipline in its own time, and drops what comes before.
            let deadline = Instant::now() + Duration::from_secs(10);
            while ["veth0", "veth1"].iter().any(|end| !link_state(end).contains("state UP")) {
                assert!(Instant::now() < deadline, "the link does not come up: {}", link_state("veth1"));
                thread::sleep(Duration::from_millis(5));
            }
            test()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Runs `ip` with these arguments.
pub(crate) fn ip(arguments: &str) {
    ip_says(arguments);
}

/// Runs `ip` with these arguments, and returns what it prints.
pub(crate) fn ip_says(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("iproute2 is installed");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// What `ip link` says of an interface.
pub(crate) fn link_state(interface: &str) -> String {
    ip_says(&format!("-d link show {interface}"))
}
