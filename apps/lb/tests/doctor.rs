//! `afx-lb doctor` on interfaces of emulated networks: what it finds, that what it says will not work does not, that its
//! commands mend it, and that it changes nothing that it was not told to.
//!
//! What a veth does not have is provoked in the guest (framework/tests/zero_copy): LRO, hardware GRO, a host's offloads
//! (doctor.rs there), a kernel that is too old (too_old.rs). AF_XDP and BPF that are kept from a process, and a program
//! that cannot be taken off again: policies.rs.

mod common;

use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use afx_redirect::{Decap, DecapOptions};
use afx_testbed::{Host, Link, Output, Testbed, wait_for};
use common::{PATIENCE, VIP4, echo, head, vip};
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_afx-lb");
const DOCUMENT: &str = include_str!("../../../docs/doctor.md");

/// Two hosts with a veth between them, `eth0` at both.
struct Net {
    host: Host,
    other: Host,
    // Last: what runs on it goes first.
    _bed: Testbed,
}

impl Net {
    /// As the testbed lays it: made for AF_XDP.
    fn new(name: &str, queues: u32) -> Self {
        let net = Self::unlinked(name);
        let ends = Link::between(net.host.end("eth0").address("10.0.0.1/24"), net.other.end("eth0"));
        net._bed.link(ends.queues(queues)).unwrap();
        net
    }

    /// As `ip` makes it, but with one queue whatever number of cores there is.
    fn as_it_comes(name: &str) -> Self {
        let net = Self::unlinked(name);
        let namespace = net.other.namespace();
        let one = "numrxqueues 1 numtxqueues 1";
        net.host
            .ip(&format!("link add eth0 {one} type veth peer name eth0 {one} netns {namespace}"))
            .unwrap();
        net.host.ip("link set eth0 up").unwrap();
        net.other.ip("link set eth0 up").unwrap();
        net
    }

    fn unlinked(name: &str) -> Self {
        let bed = Testbed::new(name).unwrap();
        let (host, other) = (bed.host("host").unwrap(), bed.host("other").unwrap());
        Self { host, other, _bed: bed }
    }

    fn doctor(&self, arguments: &[&str]) -> Output {
        self.host.command(PROGRAM).arg("doctor").args(arguments).output().unwrap()
    }

    /// The report of `eth0` as JSON, which has to come with that status.
    #[track_caller]
    fn report(&self, options: &[&str], status: i32) -> Report {
        Report::of(&self.doctor(&[&["eth0", "--json"], options].concat()), status)
    }

    /// All that the kernel says of an interface and could be changed.
    fn settings(&self, interface: &str) -> Vec<String> {
        Self::settings_on(&self.host, interface)
    }

    fn settings_on(host: &Host, interface: &str) -> Vec<String> {
        let tool = |option: &str| {
            let output = host.command("ethtool").args([option, interface]).output().unwrap();
            format!("{}{}", output.stdout, output.stderr)
        };
        let read = |name: &str| {
            let path = format!("/sys/class/net/{interface}/{name}");
            format!("{name} {}", host.run(|| std::fs::read_to_string(path)).unwrap().unwrap().trim())
        };
        let link = host.ip(&format!("-details link show dev {interface}")).unwrap();
        // A bridge's line shows its timers at work.
        let is_setting = |line: &&str| !line.trim_start().starts_with("bridge ");
        let mut all: Vec<String> = link.lines().filter(is_setting).map(str::to_owned).collect();
        for option in ["--show-features", "--show-channels", "--show-ring", "--show-coalesce"] {
            all.extend(tool(option).lines().map(str::to_owned));
        }
        all.extend(["napi_defer_hard_irqs", "gro_flush_timeout", "threaded"].map(read));
        all
    }
}

/// What was printed with `--json`.
struct Report(Value);

impl Report {
    #[track_caller]
    fn of(output: &Output, status: i32) -> Self {
        let (said, complaint) = (&output.stdout, &output.stderr);
        assert_eq!(output.status.code(), Some(status), "{said}{complaint}");
        assert_eq!(complaint, "");
        let report = Self(serde_json::from_str(said).unwrap_or_else(|error| panic!("{error}: {said}")));
        report.findings().for_each(assert_documented);
        report
    }

    fn findings(&self) -> impl Iterator<Item = &Value> {
        self.0["findings"].as_array().expect("a list").iter()
    }

    #[track_caller]
    fn find(&self, name: &str) -> &Value {
        self.findings()
            .find(|finding| finding["name"] == name)
            .unwrap_or_else(|| panic!("{name}: {:#}", self.0))
    }

    /// The names of what has that verdict.
    fn named(&self, verdict: &str) -> Vec<&str> {
        let has = |finding: &&Value| finding["verdict"] == verdict;
        self.findings().filter(has).map(|finding| finding["name"].as_str().expect("a text")).collect()
    }

    #[track_caller]
    fn verdict(&self, name: &str) -> &str {
        self.find(name)["verdict"].as_str().expect("a text")
    }

    #[track_caller]
    fn remedy(&self, name: &str) -> &str {
        self.find(name)["remedy"]["command"].as_str().unwrap_or_else(|| panic!("{:#}", self.find(name)))
    }
}

/// That the document says of a finding that it can be so, and what mends it.
#[track_caller]
fn assert_documented(finding: &Value) {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let name = text(&finding["name"]);
    // A capability that is missing has its own name, in the row of all.
    let named = if name.starts_with("CAP_") { "capabilities" } else { &name };
    let mut tables = DOCUMENT.split("\n\n").filter(|table| table.contains("could be better"));
    let row = tables.find_map(|table| {
        let row = table.lines().find(|line| line.starts_with(&format!("| `{named}` ")))?;
        let columns = table.lines().next().expect("a line").split('|').map(str::trim);
        Some(columns.zip(row.split('|').map(str::trim)).collect::<Vec<_>>())
    });
    let row = row.unwrap_or_else(|| panic!("{named} is in no table"));
    let cell = |column: &str| row.iter().find(|(name, _)| *name == column).map_or("", |(_, cell)| cell);
    let verdict = text(&finding["verdict"]).replace('_', " ");
    assert!(verdict == "good" || !cell(&verdict).is_empty(), "{name}: {verdict}");
    if let Some(command) = finding["remedy"]["command"].as_str() {
        // Up to what is different for each interface, or namespace.
        let entered = command.starts_with("ip netns exec ") || command.starts_with("nsenter ");
        let own = command.split(' ').skip(if !entered {
            0
        } else if command.starts_with("ip") {
            4
        } else {
            2
        });
        let is_same = |word: &&str| !word.contains(['=', '/']) && word.parse::<u64>().is_err();
        let words: Vec<_> = own.take(2).filter(is_same).collect();
        assert!(!words.is_empty() && cell("mended by").contains(&words.join(" ")), "{name}: {command}");
    }
}

#[test]
fn a_veth_made_for_it_is_good() {
    let net = Net::new("doctor-good", 2);
    let report = net.report(&[], 0);
    assert_eq!(report.named("will_not_work"), [] as [&str; 0]);
    for name in [
        "AF_XDP",
        "BPF",
        "capabilities",
        "locked memory",
        "state",
        "MTU",
        "XDP program",
        "native XDP",
        "LRO",
        "hardware GRO",
        "GRO",
        "rings",
        "interrupts",
        "other end's checksums",
        "other end's segmentation",
        "other end's MTU",
        "other end's queues",
    ] {
        assert_eq!(report.verdict(name), "good", "{name}");
    }
    for name in ["zero-copy", "busy polling"] {
        assert_eq!(report.verdict(name), "could_be_better", "{name}");
    }
    assert_eq!(report.0["interface"], "eth0");
    let interfaces = report.0["interfaces"].as_array().unwrap();
    let eth0 = interfaces.iter().find(|interface| interface["name"] == "eth0").unwrap();
    assert_eq!((&eth0["driver"], &eth0["rx_queues"]), (&"veth".into(), &2.into()));
    assert_eq!((&eth0["xdp"], &eth0["program"]), (&"native, copy".into(), &Value::Null));
    let counts = ["good", "could_be_better", "will_not_work"].map(|verdict| report.named(verdict).len());
    for (name, count) in [("good", counts[0]), ("could_be_better", counts[1]), ("will_not_work", counts[2])] {
        assert_eq!(report.0[name], count, "{name}");
    }
}

#[test]
fn a_veth_as_it_comes_is_mended_by_what_is_said() {
    let net = Net::as_it_comes("doctor-raw");
    let report = net.report(&[], 1);
    assert_eq!(report.named("will_not_work"), ["other end's checksums"]);
    let command = report.remedy("other end's checksums");
    assert_eq!(command, format!("ip netns exec {} ethtool -K eth0 tx off", net.other.namespace()));
    net.host.command("sh").args(["-c", command]).check().unwrap();
    assert_eq!(net.report(&[], 0).verdict("other end's checksums"), "good");
}

#[test]
fn both_ends_in_one_namespace() {
    let net = Net::unlinked("doctor-both");
    net.host.ip("link add eth0 type veth peer name back").unwrap();
    for interface in ["eth0", "back"] {
        net.host.ip(&format!("link set {interface} up")).unwrap();
    }
    let report = net.report(&[], 1);
    assert_eq!(report.named("will_not_work"), ["other end's checksums"]);
    assert_eq!(report.remedy("other end's checksums"), "ethtool -K back tx off");
}

/// As in a container, whose namespace has no name.
#[test]
fn an_other_end_where_a_process_is() {
    let net = Net::unlinked("doctor-process");
    let process = net.host.command("unshare").args(["--net", "sleep", "600"]).spawn().unwrap();
    let namespace = format!("/proc/{}/ns/net", process.pid());
    let own = net.host.run(|| std::fs::read_link("/proc/thread-self/ns/net").unwrap()).unwrap();
    let has_its_own = || std::fs::read_link(&namespace).is_ok_and(|its| its != own);
    wait_for("the process to have a namespace of its own", PATIENCE, has_its_own).unwrap();
    net.host.ip(&format!("link add eth0 type veth peer name inside netns {}", process.pid())).unwrap();
    net.host.ip("link set eth0 up").unwrap();
    let report = net.report(&[], 1);
    let command = report.remedy("other end's checksums");
    assert_eq!(command, format!("nsenter --net={namespace} ethtool -K inside tx off"));
    net.host.command("sh").args(["-c", command]).check().unwrap();
    assert_eq!(net.report(&[], 0).verdict("other end's checksums"), "good");
    process.kill();
}

/// That what is said of checksums is so: servers drop what the balancer sends them.
#[test]
fn unfinished_checksums_do_not_arrive() {
    let net = common::Net::new("doctor-sums", 1, 1);
    net.decapsulate();
    net.client.command("ethtool").args(["-K", "eth0", "tx", "on"]).check().unwrap();
    let switch = net.switch.as_host();
    for port in switch.interfaces().unwrap() {
        // The bridge itself, among them, has nothing to turn on.
        let _ = switch.command("ethtool").args(["-K", &port, "tx", "on"]).output().unwrap();
    }
    let doctor = |status| {
        let output = net.lb.command(PROGRAM).args(["doctor", "eth0", "--json"]).output().unwrap();
        Report::of(&output, status)
    };
    let report = doctor(1);
    assert_eq!(report.named("will_not_work"), ["other end's checksums"]);

    let _server = echo::Server::start(&net.reals[0], 1, VIP4, 53);
    let config = head(1, "method = \"ipip\"") + &vip(VIP4, 53, "udp", &[("10.0.0.11", 1)]);
    let balancer = net.start(&config, &[]);
    let ask = net.client.run(|| UdpSocket::bind("0.0.0.0:0")).unwrap().unwrap();
    let wrong = || {
        let table =
            net.reals[0].run(|| std::fs::read_to_string("/proc/thread-self/net/snmp")).unwrap().unwrap();
        let mut lines = table.lines().filter_map(|line| line.strip_prefix("Udp: "));
        let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
        let place = names.split(' ').position(|name| name == "InCsumErrors").unwrap();
        values.split(' ').nth(place).unwrap().parse::<u64>().unwrap()
    };
    wait_for("a packet to be dropped for its checksum", PATIENCE, || {
        ask.send_to(b"?", (VIP4, 53)).unwrap();
        wrong() > 0
    })
    .unwrap();

    net.lb.command("sh").args(["-c", report.remedy("other end's checksums")]).check().unwrap();
    doctor(0);
    assert_eq!(echo::Client::connect(&net.client, VIP4, 53).ask(), 1);
    balancer.stop();
}

#[test]
fn an_interface_that_is_down() {
    let net = Net::new("doctor-down", 1);
    net.host.ip("link set eth0 down").unwrap();
    let report = net.report(&[], 1);
    assert_eq!(report.named("will_not_work"), ["state"]);
    net.host.command("sh").args(["-c", report.remedy("state")]).check().unwrap();
    assert_eq!(net.report(&[], 0).verdict("state"), "good");
}

#[test]
fn an_interface_that_another_program_holds() {
    let net = Net::new("doctor-held", 1);
    let index = net.host.interface_index("eth0").unwrap();
    let other = net.host.run(|| Decap::attach(index, &DecapOptions::default())).unwrap().unwrap();
    let report = net.report(&[], 1);
    assert_eq!(report.named("will_not_work"), ["XDP program"]);
    let what = report.find("XDP program")["what"].as_str().unwrap();
    assert!(what.contains("`afx_decap` in native mode"), "{what}");
    // Nothing is tried on it.
    let program = net.host.xdp_program("eth0").unwrap();
    assert_eq!(net.report(&["--try"], 1).verdict("trying"), "could_be_better");
    assert_eq!(net.host.xdp_program("eth0").unwrap(), program);
    drop(other);
    assert_eq!(net.report(&[], 0).verdict("XDP program"), "good");
}

#[test]
fn rights_that_are_missing() {
    let net = Net::new("doctor-rights", 1);
    let cases: [(&str, &[&str]); 6] = [
        ("net_admin", &["CAP_NET_ADMIN"]),
        ("net_raw", &["CAP_NET_RAW"]),
        ("bpf", &["CAP_BPF"]),
        ("perfmon", &["CAP_PERFMON"]),
        ("ipc_lock", &["locked memory"]),
        (
            "net_admin,-net_raw,-bpf,-perfmon,-ipc_lock",
            &["CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_BPF", "CAP_PERFMON", "locked memory"],
        ),
    ];
    for (missing, expected) in cases {
        let set = format!("--bounding-set=-all,+net_admin,+net_raw,+bpf,+perfmon,+ipc_lock,-{missing}");
        let command = net.host.command("prlimit").args(["--memlock=65536", "setpriv", &set, PROGRAM]);
        let output = command.args(["doctor", "eth0", "--json"]).output().unwrap();
        assert_eq!(Report::of(&output, 1).named("will_not_work"), expected, "{missing}");
    }
    // It tries, and says what came of it.
    let command = net.host.command("setpriv").args(["--bounding-set=-all", PROGRAM]);
    let output = command.args(["doctor", "eth0", "--try", "--json"]).output().unwrap();
    let report = Report::of(&output, 1);
    for name in ["generic XDP, tried", "copy, tried"] {
        assert_eq!(report.verdict(name), "will_not_work", "{name}");
    }
}

#[test]
fn a_user_gets_what_is_missing_by_the_command_that_is_said() {
    let net = Net::new("doctor-nobody", 1);
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let program = folder.path().join("afx-lb");
    // By a process of its own: one that another test has just forked would hold the file open for writing.
    net.host.command("cp").arg(PROGRAM).arg(&program).check().unwrap();
    let as_nobody = |options: &[&str], status| {
        let command = net.host.command("setpriv").args(["--reuid=65534", "--clear-groups"]).arg(&program);
        Report::of(&command.args(["doctor", "eth0", "--json"]).args(options).output().unwrap(), status)
    };
    let report = as_nobody(&[], 1);
    for name in ["CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_BPF", "CAP_PERFMON"] {
        assert_eq!(report.verdict(name), "will_not_work", "{name}");
    }
    net.host.command("sh").args(["-c", report.remedy("CAP_BPF")]).check().unwrap();
    let report = as_nobody(&["--try"], 0);
    for name in ["capabilities", "locked memory", "native XDP, tried", "copy, tried"] {
        assert_eq!(report.verdict(name), "good", "{name}");
    }
}

#[test]
fn a_user_namespace_of_its_own() {
    let net = Net::new("doctor-user", 1);
    let command = net.host.command("unshare").args(["--user", "--map-root-user", PROGRAM]);
    let output = command.args(["doctor", "eth0", "--json"]).output().unwrap();
    let report = Report::of(&output, 1);
    assert_eq!(report.verdict("user namespace"), "will_not_work");
    // Nor may the other end be looked into from there.
    assert_eq!(report.verdict("other end"), "could_be_better");
}

#[test]
fn an_other_end_with_packets_too_long_for_native_xdp() {
    let net = Net::new("doctor-mtu", 1);
    net.other.ip("link set eth0 mtu 3507").unwrap();
    let report = net.report(&["--try"], 1);
    assert_eq!(report.named("will_not_work"), ["other end's MTU"]);
    // What was said is so.
    assert_eq!(report.verdict("native XDP, tried"), "could_be_better", "{:#}", report.0);
    assert_eq!(report.verdict("generic XDP, tried"), "good");
    net.other.ip("link set eth0 mtu 3506").unwrap();
    assert_eq!(net.report(&["--try"], 0).verdict("native XDP, tried"), "good");
}

#[test]
fn an_other_end_with_more_queues() {
    let net = Net::new("doctor-queues", 4);
    net.host.command("ethtool").args(["-L", "eth0", "rx", "1"]).check().unwrap();
    let report = net.report(&["--try"], 1);
    assert_eq!(report.named("will_not_work"), ["other end's queues"]);
    assert_eq!(report.verdict("native XDP, tried"), "could_be_better", "{:#}", report.0);
    assert_eq!(report.remedy("other end's queues"), "ethtool -L eth0 rx 4");
    net.host.command("sh").args(["-c", report.remedy("other end's queues")]).check().unwrap();
    let report = net.report(&["--try"], 0);
    assert_eq!(report.verdict("native XDP, tried"), "good");
}

#[test]
fn trying_leaves_everything_as_it_was() {
    let net = Net::as_it_comes("doctor-try");
    let settings = || [&net.host, &net.other].map(|host| Net::settings_on(host, "eth0"));
    let before = settings();
    let report = net.report(&["--try"], 1);
    for (name, verdict) in [
        ("native XDP, tried", "good"),
        ("generic XDP, tried", "good"),
        ("zero-copy, tried", "could_be_better"),
        ("copy, tried", "good"),
    ] {
        assert_eq!(report.verdict(name), verdict, "{name}");
    }
    assert_eq!(settings(), before);
    assert_eq!(net.host.xdp_program("eth0").unwrap(), None);
    // The queue is free, too.
    assert_eq!(net.report(&["--try"], 1).verdict("copy, tried"), "good");
}

#[test]
fn looking_changes_nothing() {
    let net = Net::as_it_comes("doctor-look");
    let before = net.settings("eth0");
    net.report(&[], 1);
    assert_eq!(net.settings("eth0"), before);
}

#[test]
fn mending_changes_what_it_says_and_nothing_else() {
    let net = Net::new("doctor-fix", 1);
    // A bridge has no XDP of its own: generic XDP is what it gets, which GRO comes before.
    net.host.ip("link add br0 type bridge").unwrap();
    net.host.ip("link set br0 up").unwrap();
    let before = net.settings("br0");
    let others = net.settings("eth0");
    let report = Report::of(&net.doctor(&["br0", "--fix", "--json"]), 0);
    let fixed = report.0["fixed"].as_array().unwrap();
    let said: Vec<_> = fixed
        .iter()
        .map(|fixed| (fixed["command"].as_str().unwrap(), fixed["before"].as_str().unwrap()))
        .collect();
    assert_eq!(
        said,
        [
            ("ethtool -K br0 gro off", "rx-gro on"),
            (
                "echo 2 > /sys/class/net/br0/napi_defer_hard_irqs && \
                 echo 200000 > /sys/class/net/br0/gro_flush_timeout",
                "napi_defer_hard_irqs 0, gro_flush_timeout 0"
            ),
        ]
    );
    assert_eq!((report.verdict("GRO"), report.verdict("busy polling")), ("good", "good"));
    let changed: Vec<_> = net.settings("br0").into_iter().filter(|line| !before.contains(line)).collect();
    let expected = ["generic-receive-offload: off", "napi_defer_hard_irqs 2", "gro_flush_timeout 200000"];
    assert_eq!(changed, expected);
    assert_eq!(net.settings("eth0"), others);
    // The commands do the same as the option: undone and done by hand.
    net.host.command("ethtool").args(["-K", "br0", "gro", "on"]).check().unwrap();
    assert_eq!(Report::of(&net.doctor(&["br0", "--json"]), 0).verdict("GRO"), "could_be_better");
    net.host.command("sh").args(["-c", "ethtool -K br0 gro off"]).check().unwrap();
    let again = net.doctor(&["br0", "--fix"]);
    assert_eq!(again.status.code(), Some(0));
    assert!(again.stdout.starts_with("There is nothing that may be mended at once.\n"), "{}", again.stdout);
}

#[test]
fn mending_without_the_right_to_says_so_and_changes_nothing() {
    let net = Net::new("doctor-unfix", 1);
    net.host.ip("link add br0 type bridge").unwrap();
    let before = net.settings("br0");
    let command = net.host.command("setpriv").args(["--bounding-set=-all", PROGRAM]);
    let output = command.args(["doctor", "br0", "--fix", "--json"]).output().unwrap();
    let report = Report::of(&output, 1);
    let fixed = report.0["fixed"].as_array().unwrap();
    assert_eq!(fixed.len(), 2);
    for fixed in fixed {
        let error = fixed["error"].as_str().unwrap_or_else(|| panic!("{fixed}"));
        assert!(error.contains("not permitted") || error.contains("denied"), "{error}");
    }
    assert_eq!(net.settings("br0"), before);
}

#[test]
fn input_that_cannot_work() {
    let net = Net::new("doctor-input", 1);
    let output = net.doctor(&["eth7"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        output.stderr,
        "afx-lb: there is no interface eth7 in this network namespace: it has lo, eth0\n"
    );
    assert_eq!(output.stdout, "");
    for option in ["--try", "--fix"] {
        let output = net.doctor(&[option]);
        assert_eq!(output.status.code(), Some(2), "{option}");
        assert!(output.stderr.contains("INTERFACE"), "{}", output.stderr);
    }
}

#[test]
fn the_machine_alone() {
    let net = Net::new("doctor-machine", 1);
    let report = Report::of(&net.doctor(&["--json"]), 0);
    assert_eq!(report.0["interface"], Value::Null);
    assert!(report.findings().all(|finding| finding["topic"] != "interface"));
    let names: Vec<_> = report.0["interfaces"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
    assert_eq!(names, ["lo", "eth0"]);
    let text = net.doctor(&[]).stdout;
    assert!(text.ends_with("`afx-lb doctor INTERFACE` looks at one of them.\n"), "{text}");
}

#[test]
fn interfaces_that_sys_does_not_show() {
    let net = Net::new("doctor-sys", 1);
    let path = format!("--net={}", net.host.netns_path().display());
    let output = Command::new("nsenter").args([&path, PROGRAM, "doctor", "eth0", "--json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let report = Report(serde_json::from_slice(&output.stdout).unwrap());
    assert_eq!(report.find("busy polling")["what"], "not known");
    assert_eq!(report.find("busy polling")["remedy"], Value::Null);
}

/// What a page shows of an interface: from its heading to the next empty line.
fn section<'t>(page: &'t str, heading: &str) -> &'t str {
    let rest = page.split_once(heading).unwrap_or_else(|| panic!("{heading}\nin\n{page}")).1;
    rest.split_once("\n\n").map_or(rest, |(section, _)| section)
}

#[test]
fn the_document_shows_what_is_printed() {
    let net = Net::as_it_comes("doctor-doc");
    let page = net.doctor(&["eth0"]).stdout.replace(net.other.namespace(), "client");
    let heading = "\ninterface eth0\n";
    // Names of namespaces differ in length: lines are compared as they are, there are no columns behind them.
    let (shown, printed) = (section(DOCUMENT, heading), section(&page, heading));
    assert!(shown == printed, "printed:\n{printed}\nshown:\n{shown}");
    // Every name that there is has a line in the document.
    net.report(&["--try"], 1).findings().for_each(assert_documented);
}

#[test]
fn the_document_lists_every_field() {
    let net = Net::as_it_comes("doctor-fields");
    let report = net.report(&["--fix"], 1);
    let mut fields = Vec::new();
    let object = |value: &Value, prefix: &str, fields: &mut Vec<String>| {
        let object = value.as_object().unwrap_or_else(|| panic!("{prefix}: {value}"));
        fields.extend(object.keys().map(|key| format!("{prefix}{key}")));
    };
    object(&report.0, "", &mut fields);
    object(report.find("state"), "findings[].", &mut fields);
    object(&report.find("other end's checksums")["remedy"], "findings[].remedy.", &mut fields);
    object(&report.0["interfaces"][0], "interfaces[].", &mut fields);
    object(&report.0["fixed"][0], "fixed[].", &mut fields);
    let listed = DOCUMENT.split_once("## JSON").expect("it has that section").1;
    for field in &fields {
        assert!(listed.contains(&format!("| `{field}` ")), "{field}");
    }
    let count = listed.lines().filter(|line| line.starts_with("| `")).count();
    assert_eq!(count, fields.len(), "{fields:?}");
}
