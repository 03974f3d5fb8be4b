//! Input that cannot work: what is said of it, word by word, with which exit status, and that nothing was touched.

mod common;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use afx_redirect::{Decap, DecapOptions};
use afx_testbed::{Host, Process, Signal};
use common::{Net, PATIENCE, VIP4, VIP6, vip, web};

const BALANCER: &str = env!("CARGO_BIN_EXE_afx-lb");
const REALS: [(&str, u32); 1] = [("10.0.0.11", 100)];

/// All that the kernel says of the balancer's interface and could be changed: state, queues, XDP program, addresses,
/// offloads, and the neighbour entries that are managed for somebody.
fn interface(lb: &Host) -> Vec<String> {
    let neighbours = lb.ip("neighbour show nud all").unwrap();
    let managed = neighbours.lines().filter(|line| line.contains("managed")).map(str::to_owned);
    let described = [
        lb.ip("-details -json link show dev eth0").unwrap(),
        lb.ip("-json address show dev eth0").unwrap(),
        lb.command("ethtool").args(["--show-features", "eth0"]).check().unwrap(),
        lb.command("ethtool").args(["--show-channels", "eth0"]).check().unwrap(),
    ];
    described.into_iter().chain(managed).collect()
}

/// What a program that cannot start says to the standard error, the log's lines left out and the file's folder too.
/// Demands exit status 2, and nothing on the standard output.
fn refusal(process: &Process, folder: &Path) -> String {
    let status = process.wait_within(PATIENCE).unwrap();
    let said = process.stderr();
    assert_eq!(status.code(), Some(2), "{said}");
    assert_eq!(process.stdout(), "");
    let is_log = |line: &str| line.get(4..5) == Some("-") && line.get(10..11) == Some("T");
    let lines: Vec<_> = said.lines().filter(|line| !is_log(line)).collect();
    lines.join("\n").replace(&format!("{}/", folder.display()), "")
}

fn spawn(net: &Net, program: &[&str], file: &Path) -> Process {
    let command = net.lb.command(program[0]).args(&program[1..]);
    command.args(["run", "--config"]).arg(file).spawn().unwrap()
}

/// Runs the balancer by a file that cannot work, compares what it says, and that nothing was touched.
#[track_caller]
fn refused(net: &Net, config: &str, expected: &str) {
    let before = interface(&net.lb);
    let file = net.configure(config);
    let said = refusal(&spawn(net, &[BALANCER], &file), file.parent().unwrap());
    assert_eq!(said, expected);
    assert_eq!(interface(&net.lb), before);
    assert!(!net.socket().exists());
}

#[test]
fn errors_of_the_file() {
    let net = Net::new("lb-bad-file", 1, 1);
    let right = web(&REALS);
    refused(
        &net,
        &right.replace("weight", "wait"),
        r"lb.toml:17:1: error: the key `wait` is not known in [[vip.real]]
    wait = 100
    ^^^^
    known are `address`, `weight`, `state`, `next_hop`, `server_ids`, `sources`

lb.toml: 1 error",
    );
    refused(
        &net,
        &right.replace("10.0.0.11", "10.0.0.300"),
        r#"lb.toml:16:11: error: "10.0.0.300" is no IP address
    address = "10.0.0.300"
              ^^^^^^^^^^^^
    expected is an address such as "192.0.2.1" or "2001:db8::1"

lb.toml: 1 error"#,
    );
    refused(
        &net,
        &right.replace("port = 80", "port = 65536"),
        r#"lb.toml:13:8: error: 65536 is out of range
    port = 65536
           ^^^^^
    expected is a number from 1 to 65535, or "any"

lb.toml: 1 error"#,
    );
    refused(
        &net,
        &(right.clone() + &vip(VIP4, 80, "tcp", &REALS)),
        r#"lb.toml:19:11: error: the VIP 198.51.100.10:80/tcp is given twice
    address = "198.51.100.10"
              ^^^^^^^^^^^^^^^
    it is in line 12 already: put all its reals in one `[[vip]]`

lb.toml: 1 error"#,
    );
    refused(
        &net,
        &right.replace("weight = 100", "weight = 0"),
        r#"lb.toml:12:11: error: no usable weight: all reals of the VIP 198.51.100.10:80/tcp have weight 0
    address = "198.51.100.10"
              ^^^^^^^^^^^^^^^
    give one a weight above 0; a real that shall get no new flows has `state = "drain"`

lb.toml: 1 error"#,
    );
    refused(
        &net,
        &right.replace(VIP4, "198.51.100.10/24"),
        r#"lb.toml:12:11: error: "198.51.100.10/24" has bits set after its prefix
    address = "198.51.100.10/24"
              ^^^^^^^^^^^^^^^^^^
    write "198.51.100.0/24"

lb.toml: 1 error"#,
    );
    refused(
        &net,
        &right.replace("[[port]]", "[control]\nsocket = \"lb.sock\"\n[[port]]"),
        r#"lb.toml:3:10: error: the socket's path "lb.sock" is not absolute
    socket = "lb.sock"
             ^^^^^^^^^
    expected is an absolute path such as "/run/afx-lb.sock", or "none"

lb.toml: 1 error"#,
    );
    refused(
        &net,
        &right.replace(VIP4, VIP6),
        r#"lb.toml:16:11: error: IPv6 packets are not carried in IPv4: an IPv6 VIP cannot have an IPv4 real
    address = "10.0.0.11"
              ^^^^^^^^^^^
    give the real's IPv6 address

lb.toml: 1 error"#,
    );
    refused(
        &net,
        &format!("{right}[maglev]\ntable_size = 65536\n"),
        r"lb.toml:19:14: error: the table's size 65536 is not prime
    table_size = 65536
                 ^^^^^
    the nearest primes are 65521 and 65537

lb.toml: 1 error",
    );
    // All of them at once.
    refused(
        &net,
        &right.replace("weight", "wait").replace("port = 80", "port = 0"),
        r#"lb.toml:13:8: error: 0 is out of range
    port = 0
           ^
    expected is a number from 1 to 65535, or "any"

lb.toml:17:1: error: the key `wait` is not known in [[vip.real]]
    wait = 100
    ^^^^
    known are `address`, `weight`, `state`, `next_hop`, `server_ids`, `sources`

lb.toml: 2 errors"#,
    );
    // With all that put right it starts.
    net.start(&right, &[]).stop();
}

#[test]
fn files_that_cannot_be_read() {
    let net = Net::new("lb-bad-read", 0, 1);
    let file = net.configure(&web(&REALS));
    let folder = file.parent().unwrap();
    std::fs::create_dir(folder.join("folder")).unwrap();
    std::fs::set_permissions(&file, Permissions::from_mode(0o000)).unwrap();
    let before = interface(&net.lb);
    for (name, expected) in [
        ("nothing", "there is no such file\n    give the path of a configuration"),
        ("folder", "it is a folder\n    give the path of a file in it"),
        ("lb.toml", "this user may not read it\n    run it as root, or change the file's mode or owner"),
    ] {
        // Without the rights by which root may read it.
        let program = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", BALANCER];
        let said = refusal(&spawn(&net, &program, &folder.join(name)), folder);
        assert_eq!(said, format!("{name}: error: {expected}\n\n{name}: 1 error"));
    }
    assert_eq!(interface(&net.lb), before);
}

#[test]
fn errors_of_the_interface() {
    let net = Net::new("lb-bad-port", 1, 2);
    let right = web(&REALS);
    let port = |key: &str| right.replace("\"eth0\"", &format!("\"eth0\"\n{key}"));
    refused(
        &net,
        &right.replace("\"eth0\"", "\"eth7\""),
        "afx-lb: port eth7: there is no interface eth7 in this network namespace",
    );
    refused(&net, &port("queues = 9"), "afx-lb: port eth0: no queue 2: it has queues 0 to 1");
    refused(
        &net,
        &port("mode = \"zero-copy\""),
        "afx-lb: port eth0: opening queue 0: eth0 queue 0: its driver does not do zero-copy; use copy mode for all \
         ports of the worker: Operation not supported (os error 95)",
    );
    refused(
        &net,
        &port("attach = \"native\"").replace("\"eth0\"", "\"lo\""),
        "afx-lb: port lo: attaching the redirect program: interface 1 does not take an XDP program in native mode; \
         generic mode works on any: Operation not supported (os error 95)",
    );
    net.lb.ip("link set eth0 down").unwrap();
    refused(&net, &right, "afx-lb: port eth0: it is down: say `ip link set eth0 up` first");
    net.lb.ip("link set eth0 up").unwrap();
    net.start(&right, &[]).stop();
}

#[test]
fn errors_of_the_machine() {
    let net = Net::new("lb-bad-machine", 1, 1);
    let right = web(&REALS);
    // What the machine has is said as well, and differs: the rest of the line is left out here.
    let begins = |config: &str, expected: &str| {
        let before = interface(&net.lb);
        let file = net.configure(config);
        let said = refusal(&spawn(&net, &[BALANCER], &file), file.parent().unwrap());
        assert!(said.starts_with(expected) && said.lines().count() == 1, "{said}");
        assert_eq!(interface(&net.lb), before);
        said
    };
    begins(
        &right.replace("count = 1", "cores = [4000]"),
        "afx-lb: core 4000 is not among those this process may run on: [",
    );
    // More than any machine that tests run on has: a table of 4 GiB.
    let demanding = right.replace("[workers]", "[workers]\nhuge_pages = \"required\"");
    let said = begins(
        &demanding.replace("capacity = 4096", "capacity = 134217728"),
        "afx-lb: too few huge pages, which are demanded: the connection table lies on ordinary pages, where each look \
         takes longer: packets and tables of all workers take ",
    );
    assert!(
        said.contains(" are free: `sysctl vm.nr_hugepages=") && said.ends_with("` provides them"),
        "{said}"
    );
}

#[test]
fn errors_of_the_socket() {
    let net = Net::new("lb-bad-socket", 1, 1);
    let right = web(&REALS);
    let at = |path: &str| format!("{right}[control]\nsocket = \"{path}\"\n");
    let folder = net.configure(&right).parent().unwrap().to_owned();
    let path = |name: &str| folder.join(name).display().to_string();
    std::fs::write(folder.join("file"), "").unwrap();
    refused(
        &net,
        &at(&path("file")),
        "afx-lb: no socket: file: there is something else at this path; remove it, or choose another",
    );
    assert!(folder.join("file").exists());
    refused(
        &net,
        &at("/nonexistent/lb.sock"),
        "afx-lb: no folder for the socket: /nonexistent; make it, or choose another path",
    );
    let metrics = |address: &str| at(&path("lb.sock")) + &format!("metrics = \"{address}\"\n");
    refused(
        &net,
        &metrics("192.0.2.1:9100"),
        "afx-lb: metrics cannot be served at 192.0.2.1:9100: no interface of this network namespace has this \
         address; choose one that it has: Cannot assign requested address (os error 99)",
    );
    let taken = net.lb.run(|| std::net::TcpListener::bind("10.0.0.2:9100")).unwrap().unwrap();
    refused(
        &net,
        &metrics("10.0.0.2:9100"),
        "afx-lb: metrics cannot be served at 10.0.0.2:9100: another program listens there; choose another port: \
         Address already in use (os error 98)",
    );
    drop(taken);
}

#[test]
fn another_xdp_program() {
    let net = Net::new("lb-bad-xdp", 1, 1);
    let index = net.lb.interface_index("eth0").unwrap();
    let other = net.lb.run(|| Decap::attach(index, &DecapOptions::default())).unwrap().unwrap();
    let program = net.lb.xdp_program("eth0").unwrap().unwrap();
    refused(
        &net,
        &web(&REALS),
        &format!(
            "afx-lb: port eth0: attaching the redirect program: interface {index} is held by XDP program {} \
             `afx_decap` in native mode: detach that first, or have it replaced or chained (`coexist`)",
            program.id
        ),
    );
    assert_eq!(net.lb.xdp_program("eth0").unwrap(), Some(program));
    drop(other);
    net.start(&web(&REALS), &[]).stop();
}

#[test]
fn capabilities_that_are_missing() {
    let net = Net::new("lb-bad-rights", 1, 1);
    let file = net.configure(&web(&REALS));
    let loading = "port eth0: attaching the redirect program: loading the redirect program takes";
    let memory = "packet memory: 6400 frames of 2048 bytes:";
    let denied = "which this process lacks: Operation not permitted (os error 1)";
    let hint =
        "\n    run it as root, or with CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF, CAP_PERFMON and CAP_IPC_LOCK";
    let cases = [
        ("net_admin", format!("{loading} CAP_NET_ADMIN, {denied}{hint}")),
        ("bpf", format!("{loading} CAP_BPF, {denied}{hint}")),
        (
            "perfmon",
            format!("{loading} CAP_PERFMON, which this process lacks: Permission denied (os error 13){hint}"),
        ),
        ("net_raw", format!("{memory} an AF_XDP socket takes CAP_NET_RAW, {denied}{hint}")),
        (
            "ipc_lock",
            format!(
                "{memory} they are more than this process may lock in memory: raise RLIMIT_MEMLOCK, or give it \
                 CAP_IPC_LOCK: No buffer space available (os error 105)"
            ),
        ),
        ("net_admin,-net_raw,-bpf,-perfmon,-ipc_lock", {
            format!("{loading} CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN, {denied}{hint}")
        }),
    ];
    let before = interface(&net.lb);
    for (missing, expected) in cases {
        // Root in name, so that it can read its files, with little memory to lock, and only these capabilities.
        let set = "-all,+net_admin,+net_raw,+bpf,+perfmon,+ipc_lock";
        let set = format!("--bounding-set={set},-{missing}");
        let program = ["prlimit", "--memlock=65536", "setpriv", &set, BALANCER];
        let said = refusal(&spawn(&net, &program, &file), file.parent().unwrap());
        assert_eq!(said, format!("afx-lb: {expected}"));
        assert_eq!(interface(&net.lb), before, "{said}");
    }
}

#[test]
fn the_capabilities_that_it_names_are_enough() {
    let net = Net::new("lb-enough-rights", 1, 1);
    let file = net.configure(&web(&REALS));
    // Root in name, so that it can read its files, and without a single capability; then with just those it names.
    let start = |bounding_set: &str| {
        spawn(&net, &["setpriv", &format!("--bounding-set=-all{bounding_set}"), BALANCER], &file)
    };
    let said = refusal(&start(""), file.parent().unwrap());
    let needed = said.split_once("    run it as root, or with ").unwrap_or_else(|| panic!("{said}")).1;
    let named = needed
        .split(|c: char| !(c.is_ascii_uppercase() || c == '_'))
        .filter_map(|word| word.strip_prefix("CAP_"));
    let process = start(&named.map(|name| format!(",+{}", name.to_lowercase())).collect::<String>());
    process.wait_for_output("balancing", PATIENCE).unwrap();
    process.signal(Signal::SIGTERM).unwrap();
    assert_eq!(process.wait_within(PATIENCE).unwrap().code(), Some(0));
    assert!(!net.has_xdp_program());
}

#[test]
fn two_balancers_do_not_share_a_socket_nor_an_interface() {
    let net = Net::new("lb-bad-two", 1, 1);
    let index = net.lb.interface_index("eth0").unwrap();
    let first = net.start(&web(&REALS), &[]);
    let program = net.lb.xdp_program("eth0").unwrap().unwrap();
    let before = interface(&net.lb);
    let second = |config: &str| {
        let file = net.configure(config);
        refusal(&spawn(&net, &[BALANCER], &file), file.parent().unwrap())
    };
    assert_eq!(
        second(&web(&REALS)),
        "afx-lb: socket path taken: lb.sock: another process answers there; stop that one, or give this one another \
         path"
    );
    assert_eq!(
        second(&(web(&REALS) + "[control]\nsocket = \"none\"\n")),
        format!(
            "afx-lb: port eth0: attaching the redirect program: interface {index} is held by XDP program {} \
             `afx_redirect` in native mode: detach that first, or have it replaced or chained (`coexist`)",
            program.id
        )
    );
    assert_eq!(interface(&net.lb), before);
    // The first one goes on.
    net.ask(&["status"]);
    first.stop();
}
