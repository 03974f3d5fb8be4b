//! What there is of all that a program on AF_XDP takes from the system, so that it can be compared afterwards: for tests
//! that nothing is left of it. What cannot be counted is a panic, as what is left is.
//!
//! ```no_run
//! use afx_testbed::census::{Census, assert_nothing_left};
//! # fn start_and_kill() {}
//!
//! let bed = afx_testbed::Testbed::new("leaks")?;
//! let host = bed.host("server")?;
//! let before = Census::take(Some(&host), "eth0");
//! start_and_kill();
//! assert_nothing_left(&before, || Census::take(Some(&host), "eth0"));
//! # Ok::<(), afx_testbed::Error>(())
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::{Host, wait_for};
use libbpf_rs::query::{LinkInfoIter, MapInfoIter, ProgInfoIter};

/// How long the kernel may take to undo what it does late: RCU, its work queues.
const WITHIN: Duration = Duration::from_secs(60);

/// Mappings that an allocator and the stacks of threads may add to a process in the long run. A socket that is left
/// has four.
const MORE_MAPPINGS: u64 = 40;

/// BPF objects: what they are, and the kernel's number of each, which is not used again soon.
pub type Objects = BTreeSet<(&'static str, u32)>;

const KINDS: [(&str, &str); 3] = [("program", "prog_id:"), ("map", "map_id:"), ("link", "link_id:")];

/// The objects that a process has open; `pid` may be `self`.
pub fn objects_of(pid: &str) -> Objects {
    let files = fs::read_dir(format!("/proc/{pid}/fdinfo")).into_iter().flatten().flatten();
    let texts = files.filter_map(|file| fs::read_to_string(file.path()).ok());
    let of = |text: String| {
        let found = KINDS.iter().filter_map(|(kind, field)| {
            let number = text.lines().find_map(|line| line.strip_prefix(field))?;
            Some((*kind, number.trim().parse().ok()?))
        });
        found.collect::<Vec<_>>()
    };
    texts.flat_map(of).collect()
}

/// All objects that the kernel has.
pub fn all_objects() -> Objects {
    let programs = ProgInfoIter::default().map(|program| ("program", program.id));
    let maps = MapInfoIter::default().map(|map| ("map", map.id));
    let links = LinkInfoIter::default().map(|link| ("link", link.id));
    programs.chain(maps).chain(links).collect()
}

/// Demands that these objects are gone, and that there were some of each kind.
///
/// # Panics
/// If one is there a minute later.
pub fn assert_gone(objects: &Objects) {
    for (kind, _) in KINDS {
        assert!(objects.iter().any(|object| object.0 == kind), "no {kind} was seen: {objects:?}");
    }
    let gone = wait_for("BPF objects to go", WITHIN, || objects.is_disjoint(&all_objects()));
    assert!(gone.is_ok(), "left behind: {:?}", objects.intersection(&all_objects()).collect::<Vec<_>>());
}

/// Counts, and settings of one interface.
#[derive(Debug, Clone)]
pub struct Census {
    counts: BTreeMap<&'static str, u64>,
    /// Lines in which programs tell of them, and how often each comes.
    settings: BTreeMap<String, u64>,
}

impl Census {
    /// Of this process, of what runs on a host, and of the host's interface; without a host, of the machine's own.
    ///
    /// # Panics
    /// If the kernel does not say.
    pub fn take(host: Option<&Host>, interface: &str) -> Self {
        let protocols = || fs::read_to_string("/proc/thread-self/net/protocols").unwrap();
        let sockets = host.map_or_else(protocols, |host| host.run(protocols).unwrap());
        let sockets = sockets.lines().find(|line| line.starts_with("XDP ")).expect("AF_XDP is in the kernel");
        let mut counts = BTreeMap::from([
            ("open files", entries("/proc/self/fd")),
            ("threads", entries("/proc/self/task")),
            ("mappings", fs::read_to_string("/proc/self/maps").unwrap().lines().count() as u64),
            ("AF_XDP sockets of the host", sockets.split_whitespace().nth(2).unwrap().parse().unwrap()),
            ("huge pages of no process", huge_pages_of_nobody()),
        ]);
        counts.extend(host.map(|host| ("processes on the host", processes_on(host))));
        Self { counts, settings: settings(host, interface) }
    }

    /// Of the whole machine besides, where nobody else uses it: BPF objects, huge pages, namespaces, processes, and the
    /// cores of interrupts.
    ///
    /// # Panics
    /// If the kernel does not say.
    pub fn take_of_machine(host: Option<&Host>, interface: &str) -> Self {
        let mut census = Self::take(host, interface);
        let objects = all_objects();
        for (kind, name) in [("program", "BPF programs"), ("map", "BPF maps"), ("link", "BPF links")] {
            census.counts.insert(name, objects.iter().filter(|object| object.0 == kind).count() as u64);
        }
        census.counts.extend([
            ("huge pages in use", meminfo("HugePages_Total") - meminfo("HugePages_Free")),
            ("huge pages reserved", meminfo("HugePages_Rsvd")),
            ("named namespaces", entries("/run/netns")),
            ("processes", processes().count() as u64),
        ]);
        let interrupts = fs::read_dir("/proc/irq").unwrap().flatten().filter_map(|interrupt| {
            let cores = fs::read_to_string(interrupt.path().join("smp_affinity_list")).ok()?;
            Some(format!("interrupt {} on {}", interrupt.file_name().to_string_lossy(), cores.trim()))
        });
        census.settings.extend(interrupts.map(|line| (line, 1)));
        census
    }

    /// What there is more of than there was, and settings that are others.
    pub fn beyond(&self, before: &Self) -> Vec<String> {
        let more = self.counts.iter().filter_map(|(name, count)| {
            let allowed = before.counts[name] + if *name == "mappings" { MORE_MAPPINGS } else { 0 };
            (*count > allowed).then(|| format!("{name}: {count}, and were {}", before.counts[name]))
        });
        let only = |these: &Self, those: &Self, what: &str| {
            let count = |line| those.settings.get(line).copied().unwrap_or(0);
            let lines = these.settings.iter().filter(|(line, times)| **times > count(line.as_str()));
            lines.map(|(line, _)| format!("{what}: {line}")).collect::<Vec<_>>()
        };
        more.chain(only(before, self, "was")).chain(only(self, before, "is")).collect()
    }
}

/// Demands that soon nothing is there that was not before; in words what there was, for a test to print.
///
/// # Panics
/// If something is there a minute later, which is named.
pub fn assert_nothing_left(before: &Census, mut take: impl FnMut() -> Census) -> String {
    let mut beyond = Vec::new();
    let clean = wait_for("what there was before", WITHIN, || {
        beyond = take().beyond(before);
        beyond.is_empty()
    });
    assert!(clean.is_ok(), "left behind: {beyond:#?}");
    format!("as before: {:?}, {} lines of settings", before.counts, before.settings.len())
}

fn entries(folder: &str) -> u64 {
    fs::read_dir(folder).map_or(0, |entries| entries.count() as u64)
}

fn meminfo(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap();
    number(&text, name).unwrap_or_else(|| panic!("no {name} in {text}"))
}

/// The number in a line `name: number`.
fn number(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Folders of all processes but the kernel's own threads, which have no command line.
fn processes() -> impl Iterator<Item = PathBuf> {
    let all = fs::read_dir("/proc").unwrap().flatten();
    let numbered = all.filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok());
    let folders = numbered.map(|entry| entry.path());
    folders.filter(|folder| fs::read(folder.join("cmdline")).is_ok_and(|line| !line.is_empty()))
}

/// Processes in the network namespace of a host.
fn processes_on(host: &Host) -> u64 {
    let identity =
        |path: PathBuf| fs::metadata(path).map(|namespace| (namespace.dev(), namespace.ino())).ok();
    let namespace = identity(host.netns_path());
    assert!(namespace.is_some(), "{host} has no namespace");
    processes().filter(|process| identity(process.join("ns/net")) == namespace).count() as u64
}

/// Huge pages that are in use though no process has them: memory of a socket that is gone, say.
fn huge_pages_of_nobody() -> u64 {
    let size = meminfo("Hugepagesize");
    let used = meminfo("HugePages_Total") - meminfo("HugePages_Free");
    let of = |process: PathBuf| number(&fs::read_to_string(process.join("status")).ok()?, "HugetlbPages");
    let owned: u64 = processes().filter_map(of).sum();
    used.saturating_sub(owned / size)
}

/// All that can be set of an interface, and the program that it has.
fn settings(host: Option<&Host>, interface: &str) -> BTreeMap<String, u64> {
    let script = format!(
        "for option in -k -l -g -c -x; do ethtool $option {interface} 2>&1; done; \
         ip -details link show dev {interface}; \
         cd /sys/class/net/{interface} && grep -H . napi_defer_hard_irqs gro_flush_timeout threaded"
    );
    // `ip netns exec` shows the namespace's own /sys, those of cards included.
    let enter = host.map_or_else(Vec::new, |host| vec!["ip", "netns", "exec", host.namespace()]);
    let words: Vec<_> = enter.into_iter().chain(["sh", "-c", &script]).collect();
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut lines = BTreeMap::new();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        *lines.entry(line.to_owned()).or_default() += 1;
    }
    lines
}
