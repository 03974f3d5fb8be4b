//! What becomes of a network whose owner is killed.

mod common;

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use afx_testbed::{NetworkId, Testbed, list, sweep, wait_for, wait_for_some};
use common::{PATIENCE, pair};

/// Set in the process that the tests start to be killed: this very test binary, running the same test again.
const OWNER: &str = "AFX_TESTBED_TEST_OWNER";

/// A network's owner as a child process, and what it says of its network.
struct Owner {
    child: Child,
    id: NetworkId,
    program: String,
}

impl Owner {
    /// Starts the owner. In the child itself this makes the network and never returns.
    fn start(test: &str) -> Self {
        if std::env::var_os(OWNER).is_some() {
            let (net, a, _) = pair("victim", 1);
            // Another session: neither its parent's end nor a signal to a group reaches it.
            let program = a.command("setsid").args(["sleep", "1000"]).spawn().unwrap();
            let _busy = a
                .command("sh")
                .args(["-c", "trap '' TERM HUP INT; while :; do sleep 1; done"])
                .spawn()
                .unwrap();
            fs::write(std::env::var_os(OWNER).unwrap(), format!("{} {}\n", net.id(), program.pid())).unwrap();
            loop {
                std::thread::park();
            }
        }
        let directory = tempfile::tempdir().unwrap();
        let said = directory.path().join("said");
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(OWNER, &said)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let said = wait_for_some("the owner's network", PATIENCE, || {
            fs::read_to_string(&said).ok().filter(|said| said.ends_with('\n'))
        });
        let said = said.unwrap();
        let (id, program) = said.trim().split_once(' ').unwrap();
        Self { child, id: id.parse().unwrap(), program: program.to_owned() }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn namespaces(&self) -> usize {
        let prefix = format!("{}.", self.id);
        let names = fs::read_dir("/run/netns").unwrap().flatten().map(|entry| entry.file_name());
        names.filter(|name| name.to_string_lossy().starts_with(&prefix)).count()
    }

    fn is_gone(&self) -> bool {
        let files = Path::new("/run/afx-testbed").join(self.id.to_string());
        self.namespaces() == 0 && !Path::new("/proc").join(&self.program).exists() && !files.exists()
    }
}

#[test]
fn a_killed_owner_leaves_nothing() {
    let mut owner = Owner::start("a_killed_owner_leaves_nothing");
    assert_eq!(owner.namespaces(), 2);
    assert!(!owner.is_gone());
    owner.kill();
    wait_for("the watchdog to clean up", PATIENCE, || owner.is_gone()).unwrap();
    assert!(list().unwrap().iter().all(|network| network.id != owner.id));
}

#[test]
fn the_next_network_sweeps_up_where_the_watchdog_was_killed_too() {
    let mut owner = Owner::start("the_next_network_sweeps_up_where_the_watchdog_was_killed_too");
    let children = format!("/proc/{0}/task", owner.child.id());
    let children: Vec<u32> = fs::read_dir(children)
        .unwrap()
        .flatten()
        .filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok())
        .flat_map(|pids| pids.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>())
        .collect();
    let is_watchdog = |pid: &&u32| {
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.contains("afx-testbed-watchdog") && line.contains(&owner.id.to_string())
    };
    let watchdog = *children.iter().find(is_watchdog).expect("the owner has a watchdog");
    let kill = Command::new("kill").args(["-9", &watchdog.to_string()]).status().unwrap();
    assert!(kill.success());
    owner.kill();

    // Other tests make networks at the same time, and so may sweep before this one does.
    let _net = Testbed::new("sweeper").unwrap();
    sweep().unwrap();
    wait_for("the sweep", PATIENCE, || owner.is_gone()).unwrap();
}

#[test]
fn sweeping_spares_what_has_an_owner_or_is_to_stay() {
    let (net, a, _) = pair("spared", 1);
    let kept = Testbed::to_keep(&format!("spared-{}", std::process::id())).unwrap();
    kept.host("h").unwrap();
    let kept_id = kept.id().clone();
    kept.keep();
    sweep().unwrap();
    assert!(a.netns_path().exists());
    let ids: Vec<_> = list().unwrap().into_iter().map(|network| network.id).collect();
    assert!(ids.contains(&kept_id) && ids.contains(net.id()));
    afx_testbed::down(kept_id.name()).unwrap();
    assert!(list().unwrap().iter().all(|network| network.id != kept_id));
}
