//! Which capabilities the balancer takes and keeps: what docs/privileges.md says, line by line.

mod common;

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use afx_redirect::Attached;
use afx_redirect::testing::OtherProgram;
use afx_testbed::{Process, wait_for};
use common::download::{Download, Server};
use common::{Net, PATIENCE, VIP4, vip, web};
use serde_json::Value;

const REALS: [(&str, u32); 1] = [("10.0.0.11", 100)];
const PAGE: &str = include_str!("../../../docs/privileges.md");

/// The page's first table: capabilities, and what is said without each.
fn documented() -> Vec<(String, String)> {
    let rows = PAGE.lines().filter_map(|line| line.strip_prefix("| `CAP_"));
    let row = |row: &str| {
        let mut cells = row.split('|').map(str::trim);
        let name = cells.next().unwrap().trim_end_matches('`').to_lowercase();
        (name, cells.nth(1).unwrap().to_owned())
    };
    let rows: Vec<_> = rows.map(row).collect();
    assert_eq!(rows.len(), 5, "{rows:?}");
    rows
}

/// Starts the balancer as nobody, in process and mount namespaces of its own, with little memory to lock and these
/// capabilities alone.
fn sandboxed(net: &Net, config: &str, capabilities: &[&str]) -> Process {
    let file = net.configure(config);
    fs::set_permissions(file.parent().unwrap(), Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
    let set: String = capabilities.iter().map(|name| format!(",+{name}")).collect();
    let command =
        net.lb.command("unshare").args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    let command = command.args(["prlimit", "--memlock=65536", "setpriv", "--reuid=65534", "--regid=65534"]);
    let command = command
        .arg("--clear-groups")
        .args(["bounding-set", "inh-caps", "ambient-caps"].map(|kind| format!("--{kind}=-all{set}")));
    command.arg(env!("CARGO_BIN_EXE_afx-lb")).args(["run", "--config"]).arg(&file).spawn().unwrap()
}

/// A configuration for a user who may write nowhere.
fn without_socket(config: &str) -> String {
    format!("{config}[control]\nsocket = \"none\"\n")
}

/// Ends the balancer in a sandbox, whose first process it is.
fn end(sandbox: Process) {
    let pid = sandbox.pid();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let child = nix::unistd::Pid::from_raw(children.trim().parse().unwrap());
    nix::sys::signal::kill(child, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_eq!(sandbox.wait_within(PATIENCE).unwrap().code(), Some(0), "{}", sandbox.stderr());
    assert!(sandbox.stderr().contains("balanced=true"), "{}", sandbox.stderr());
}

#[test]
fn the_documented_capabilities_are_enough_and_each_is_named_where_it_is_missing() {
    let net = Net::new("lb-rights", 1, 1);
    net.decapsulate();
    let _server = Server::start(&net.reals[0], 1, VIP4, 80);
    let config = without_socket(&web(&REALS));
    let table = documented();
    let all: Vec<_> = table.iter().map(|(name, _)| name.as_str()).collect();
    let sandbox = sandboxed(&net, &config, &all);
    sandbox.wait_for_output("balancing", PATIENCE).unwrap();
    Download::start(&net.client, VIP4, 80).finish();
    end(sandbox);
    assert!(!net.has_xdp_program());

    for (missing, said) in &table {
        let others: Vec<_> = all.iter().copied().filter(|name| name != missing).collect();
        let sandbox = sandboxed(&net, &config, &others);
        assert_eq!(sandbox.wait_within(PATIENCE).unwrap().code(), Some(2), "{missing}: {}", sandbox.stderr());
        assert!(sandbox.stderr().contains(said), "{missing}: {}", sandbox.stderr());
        assert!(!net.has_xdp_program(), "{missing}");
    }
}

#[test]
fn another_program_is_found_with_one_more_which_is_then_given_up() {
    let net = Net::new("lb-rights-chain", 1, 1);
    let other = OtherProgram::load(false).unwrap();
    let index = net.lb.interface_index("eth0").unwrap();
    net.lb.run(|| other.attach(index, Attached::Native)).unwrap().unwrap();
    let before = net.lb.xdp_program("eth0").unwrap();
    let config = without_socket(&web(&REALS)).replace("\"eth0\"", "\"eth0\"\ncoexist = \"chain\"");
    let table = documented();
    let mut names: Vec<_> = table.iter().map(|(name, _)| name.as_str()).collect();

    let sandbox = sandboxed(&net, &config, &names);
    assert_eq!(sandbox.wait_within(PATIENCE).unwrap().code(), Some(2), "{}", sandbox.stderr());
    let said = "that takes CAP_SYS_ADMIN, which this process lacks";
    assert!(PAGE.contains(said) && sandbox.stderr().contains(said), "{}", sandbox.stderr());
    assert_eq!(net.lb.xdp_program("eth0").unwrap(), before);

    names.push("sys_admin");
    let sandbox = sandboxed(&net, &config, &names);
    sandbox.wait_for_output("privileges kept", PATIENCE).unwrap();
    let said = sandbox.stderr();
    let kept = said.lines().find(|line| line.contains("privileges kept")).unwrap();
    assert!(kept.contains("CAP_NET_ADMIN") && !kept.contains("CAP_SYS_ADMIN"), "{kept}");
    end(sandbox);
    assert_eq!(net.lb.xdp_program("eth0").unwrap(), before, "what is left is enough to put it back");
}

/// What `/proc` says of a process's threads: the names of the capabilities that each may have, by its name.
fn threads(pid: u32) -> BTreeMap<String, Vec<&'static str>> {
    let task = |task: std::io::Result<fs::DirEntry>| {
        let status = fs::read_to_string(task.unwrap().path().join("status")).ok()?;
        let field =
            |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
        let set = |name: &str| u64::from_str_radix(&field(name), 16).unwrap();
        let (permitted, name) = (set("CapPrm:"), field("Name:"));
        assert_eq!(set("CapEff:"), permitted, "{name}");
        assert_eq!((set("CapInh:"), set("CapAmb:")), (0, 0), "{name}");
        const NAMES: [(u32, &str); 6] = [
            (12, "CAP_NET_ADMIN"),
            (13, "CAP_NET_RAW"),
            (14, "CAP_IPC_LOCK"),
            (21, "CAP_SYS_ADMIN"),
            (38, "CAP_PERFMON"),
            (39, "CAP_BPF"),
        ];
        let known = NAMES.iter().fold(0, |known, (number, _)| known | 1 << number);
        let mut names: Vec<_> =
            NAMES.iter().filter(|(number, _)| permitted >> number & 1 == 1).map(|(_, name)| *name).collect();
        if permitted & !known != 0 {
            names.push("others");
        }
        Some((name, names))
    };
    fs::read_dir(format!("/proc/{pid}/task")).unwrap().filter_map(task).collect()
}

/// That the threads have those capabilities, `pid` being the balancer; and that `status` says so.
fn check(net: &Net, pid: u32, main: &[&str], checker: &[&str]) {
    let threads = threads(pid);
    let expected = [
        ("afx-lb", main),
        ("afx-worker-0", &[]),
        ("afx-resolver", &["CAP_NET_ADMIN"]),
        ("afx-health", checker),
        ("afx-control", &[]),
        ("afx-metrics", &[]),
        ("afx-signals", &[]),
    ];
    for (name, capabilities) in expected {
        assert_eq!(threads.get(name).map(Vec::as_slice), Some(capabilities), "{name} of {threads:?}");
    }
    let mut union: Vec<_> = threads.values().flatten().copied().collect();
    union.sort_unstable();
    union.dedup();
    let status: Value = serde_json::from_str(&net.ask(&["status", "--json"])).unwrap();
    let mut said: Vec<_> = status["privileges"]["capabilities"]
        .as_array()
        .unwrap()
        .iter()
        .map(|name| name.as_str().unwrap())
        .collect();
    said.sort_unstable();
    assert_eq!(said, union);
}

fn with(net: &Net, privileges: &str) -> String {
    let (socket, config) = (net.socket(), web(&REALS));
    let socket = socket.display();
    format!(
        "{config}[control]\nsocket = \"{socket}\"\nmetrics = \"127.0.0.1:9464\"\nprivileges = \"{privileges}\"\n"
    )
}

/// Another VIP, of another kind of steering: it takes another redirect program.
fn prefix() -> String {
    vip("203.0.113.0/24", 80, "udp", &REALS)
}

fn no_new(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status.lines().any(|line| line == "NoNewPrivs:\t1")
}

#[test]
fn every_thread_keeps_what_is_documented_and_any_reload_works() {
    let net = Net::new("lb-rights-kept", 1, 1);
    net.decapsulate();
    let _server = Server::start(&net.reals[0], 1, VIP4, 80);
    let balancer = net.start(&with(&net, "reload"), &[]);
    wait_for("what is kept to be said", PATIENCE, || balancer.log().contains("privileges kept")).unwrap();
    let pid = balancer.process.pid();
    let kept = ["CAP_NET_ADMIN", "CAP_PERFMON", "CAP_BPF"];
    check(&net, pid, &kept, &["CAP_NET_RAW"]);
    assert!(no_new(pid));
    let line = "privileges     CAP_NET_ADMIN CAP_NET_RAW CAP_PERFMON CAP_BPF; none can be gained";
    let status = net.ask(&["status"]);
    assert!(status.contains(line) && PAGE.contains(line), "{status}");

    let download = Download::start(&net.client, VIP4, 80);
    let said = balancer.reload(&(with(&net, "reload") + &prefix()));
    assert!(said.contains("vip 203.0.113.0/24:80/udp: added"), "{said}");
    let ping = "[vip.check]\ntype = \"icmp\"\ninterval = \"1s\"\ntimeout = \"1s\"\n";
    let said = balancer.reload(&(with(&net, "reload") + &prefix() + ping));
    assert!(!said.contains("not reloaded"), "{said}");
    wait_for("the ping to be answered", PATIENCE, || net.ask(&["status"]).contains("1 up")).unwrap();
    download.advance(20_000);
    download.finish();
    check(&net, pid, &kept, &["CAP_NET_RAW"]);
    balancer.stop();
}

#[test]
fn with_the_least_what_needs_more_is_refused_and_named() {
    let net = Net::new("lb-rights-least", 1, 1);
    net.decapsulate();
    let _server = Server::start(&net.reals[0], 1, VIP4, 80);
    let balancer = net.start(&with(&net, "least"), &[]);
    wait_for("what is kept to be said", PATIENCE, || balancer.log().contains("privileges kept")).unwrap();
    let pid = balancer.process.pid();
    check(&net, pid, &[], &[]);

    let download = Download::start(&net.client, VIP4, 80);
    let said = balancer.reload(&(with(&net, "least") + &prefix()));
    assert!(said.contains("takes CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN, which this process lacks"), "{said}");
    assert!(said.contains("nothing was changed"), "{said}");
    // One more of a kind that there is.
    let said = balancer.reload(&(with(&net, "least") + &vip("198.51.100.11", 80, "tcp", &REALS)));
    assert!(said.contains("vip 198.51.100.11:80/tcp: added"), "{said}");
    download.advance(20_000);
    download.finish();
    balancer.stop();
}

#[test]
fn programs_of_checks_get_what_they_are_given_and_all_keeps_all() {
    let net = Net::new("lb-rights-all", 1, 1);
    let status = Path::new("/proc/self/status");
    let says = |config: &str, file: &Path| {
        let check = format!(
            "[vip.check]\ntype = \"command\"\ncommand = [\"/bin/sh\", \"-c\", \"grep CapPrm {} > {}.new && mv {}.new \
             {}\"]\ninterval = \"1s\"\ntimeout = \"1s\"\n",
            status.display(),
            file.display(),
            file.display(),
            file.display()
        );
        config.replace("[[vip.real]]", &format!("{check}[[vip.real]]"))
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("said");
    let mine = fs::read_to_string(status).unwrap();
    let mine = mine.lines().find(|line| line.starts_with("CapPrm")).unwrap();
    for privileges in ["reload", "all"] {
        let _ = fs::remove_file(&file);
        let balancer = net.start(&says(&with(&net, privileges), &file), &[]);
        wait_for("the program to run", PATIENCE, || file.exists()).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap().trim(), mine, "{privileges}");
        let pid = balancer.process.pid();
        assert!(!no_new(pid));
        wait_for("what is kept to be said", PATIENCE, || balancer.log().contains("privileges kept")).unwrap();
        let has_others = threads(pid)["afx-lb"].contains(&"others");
        assert_eq!(has_others, privileges == "all");
        balancer.stop();
    }
}
