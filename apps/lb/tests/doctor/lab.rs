//! Two hosts, what `afx-lb doctor` says on one of them, and that the document says it too.

use afx_testbed::{Host, Link, Output, Testbed};
use serde_json::Value;

use crate::{DOCUMENT, PROGRAM};

/// Two hosts with a veth between them, `eth0` at both.
pub(crate) struct Net {
    pub(crate) host: Host,
    pub(crate) other: Host,
    // Last: what runs on it goes first.
    pub(crate) bed: Testbed,
}

impl Net {
    /// As the testbed lays it: made for AF_XDP.
    pub(crate) fn new(name: &str, queues: u32) -> Self {
        let net = Self::unlinked(name);
        let ends = Link::between(net.host.end("eth0").address("10.0.0.1/24"), net.other.end("eth0"));
        net.bed.link(ends.queues(queues)).unwrap();
        net
    }

    /// As `ip` makes it, but with one queue whatever number of cores there is.
    pub(crate) fn as_it_comes(name: &str) -> Self {
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

    pub(crate) fn unlinked(name: &str) -> Self {
        let bed = Testbed::new(name).unwrap();
        let (host, other) = (bed.host("host").unwrap(), bed.host("other").unwrap());
        Self { host, other, bed }
    }

    pub(crate) fn doctor(&self, arguments: &[&str]) -> Output {
        self.host.command(PROGRAM).arg("doctor").args(arguments).output().unwrap()
    }

    /// The report of `eth0` as JSON, which has to come with that status.
    #[track_caller]
    pub(crate) fn report(&self, options: &[&str], status: i32) -> Report {
        Report::of(&self.doctor(&[&["eth0", "--json"], options].concat()), status)
    }

    /// All that the kernel says of an interface and could be changed.
    pub(crate) fn settings(&self, interface: &str) -> Vec<String> {
        Self::settings_on(&self.host, interface)
    }

    pub(crate) fn settings_on(host: &Host, interface: &str) -> Vec<String> {
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
pub(crate) struct Report(pub(crate) Value);

impl Report {
    #[track_caller]
    pub(crate) fn of(output: &Output, status: i32) -> Self {
        let (said, complaint) = (&output.stdout, &output.stderr);
        assert_eq!(output.status.code(), Some(status), "{said}{complaint}");
        assert_eq!(complaint, "");
        let report = Self(serde_json::from_str(said).unwrap_or_else(|error| panic!("{error}: {said}")));
        report.findings().for_each(assert_documented);
        report
    }

    pub(crate) fn findings(&self) -> impl Iterator<Item = &Value> {
        self.0["findings"].as_array().expect("a list").iter()
    }

    #[track_caller]
    pub(crate) fn find(&self, name: &str) -> &Value {
        self.findings()
            .find(|finding| finding["name"] == name)
            .unwrap_or_else(|| panic!("{name}: {:#}", self.0))
    }

    /// The names of what has that verdict.
    pub(crate) fn named(&self, verdict: &str) -> Vec<&str> {
        let has = |finding: &&Value| finding["verdict"] == verdict;
        self.findings().filter(has).map(|finding| finding["name"].as_str().expect("a text")).collect()
    }

    #[track_caller]
    pub(crate) fn verdict(&self, name: &str) -> &str {
        self.find(name)["verdict"].as_str().expect("a text")
    }

    #[track_caller]
    pub(crate) fn remedy(&self, name: &str) -> &str {
        self.find(name)["remedy"]["command"].as_str().unwrap_or_else(|| panic!("{:#}", self.find(name)))
    }
}

/// That the document says of a finding that it can be so, and what mends it.
#[track_caller]
pub(crate) fn assert_documented(finding: &Value) {
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
