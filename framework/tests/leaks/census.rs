//! What there is of all that a runtime takes from the system, so that it can be compared afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use afx_testbed::{Host, wait_for};
use libbpf_rs::query::{LinkInfoIter, MapInfoIter, ProgInfoIter};

/// How long the kernel may take to undo what it does late: RCU, its work queues.
const WITHIN: Duration = Duration::from_secs(60);

/// Mappings that an allocator and the stacks of threads may add to a process in the long run. A socket that is left
/// has four.
const MORE_MAPPINGS: u64 = 40;

/// BPF objects: what they are, and the kernel's number of each, which is not used again soon.
pub(crate) type Objects = BTreeSet<(&'static str, u32)>;

const KINDS: [(&str, &str); 3] = [("program", "prog_id:"), ("map", "map_id:"), ("link", "link_id:")];

/// The objects that a process has open; `pid` may be `self`.
pub(crate) fn objects_of(pid: &str) -> Objects {
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
pub(crate) fn all_objects() -> Objects {
    let programs = ProgInfoIter::default().map(|program| ("program", program.id));
    let maps = MapInfoIter::default().map(|map| ("map", map.id));
    let links = LinkInfoIter::default().map(|link| ("link", link.id));
    programs.chain(maps).chain(links).collect()
}

/// Demands that these objects are gone, and that there were some of each kind.
pub(crate) fn assert_gone(objects: &Objects) {
    for (kind, _) in KINDS {
        assert!(objects.iter().any(|object| object.0 == kind), "no {kind} was seen: {objects:?}");
    }
    let gone = wait_for("BPF objects to go", WITHIN, || objects.is_disjoint(&all_objects()));
    assert!(gone.is_ok(), "left behind: {:?}", objects.intersection(&all_objects()).collect::<Vec<_>>());
}

/// Counts, and settings of one interface.
#[derive(Debug, Clone)]
pub(crate) struct Census {
    counts: BTreeMap<&'static str, u64>,
    settings: Vec<String>,
}

impl Census {
    /// Of this process, and of an interface of a host.
    pub(crate) fn take(host: &Host, interface: &str) -> Self {
        let sockets = host.run(|| fs::read_to_string("/proc/thread-self/net/protocols")).unwrap().unwrap();
        let sockets = sockets.lines().find(|line| line.starts_with("XDP ")).expect("AF_XDP is in the kernel");
        let counts = BTreeMap::from([
            ("open files", entries("/proc/self/fd")),
            ("threads", entries("/proc/self/task")),
            ("mappings", fs::read_to_string("/proc/self/maps").unwrap().lines().count() as u64),
            ("AF_XDP sockets of the host", sockets.split_whitespace().nth(2).unwrap().parse().unwrap()),
            ("huge pages of no process", huge_pages_of_nobody()),
        ]);
        Self { counts, settings: settings(host, interface) }
    }

    /// Of the whole machine besides, where nobody else uses it.
    #[allow(dead_code, reason = "only the guest is a test's alone")]
    pub(crate) fn take_of_machine(host: &Host, interface: &str) -> Self {
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
        census.settings.extend(interrupts.collect::<BTreeSet<_>>());
        census
    }

    /// What there is more of than there was, and settings that are others.
    fn beyond(&self, before: &Self) -> Vec<String> {
        let more = self.counts.iter().filter_map(|(name, count)| {
            let allowed = before.counts[name] + if *name == "mappings" { MORE_MAPPINGS } else { 0 };
            (*count > allowed).then(|| format!("{name}: {count}, and were {}", before.counts[name]))
        });
        let only = |these: &Self, those: &Self, what: &str| {
            let lines = these.settings.iter().filter(|line| !those.settings.contains(line));
            lines.map(|line| format!("{what}: {line}")).collect::<Vec<_>>()
        };
        more.chain(only(before, self, "was")).chain(only(self, before, "is")).collect()
    }
}

/// Demands that soon nothing is there that was not before; what there was before is printed.
pub(crate) fn assert_nothing_left(before: &Census, mut take: impl FnMut() -> Census) {
    let mut beyond = Vec::new();
    let clean = wait_for("what there was before", WITHIN, || {
        beyond = take().beyond(before);
        beyond.is_empty()
    });
    assert!(clean.is_ok(), "left behind: {beyond:#?}");
    println!("as before: {:?}, {} lines of settings", before.counts, before.settings.len());
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

/// Huge pages that are in use though no process has them: memory of a socket that is gone, say.
fn huge_pages_of_nobody() -> u64 {
    let size = meminfo("Hugepagesize");
    let used = meminfo("HugePages_Total") - meminfo("HugePages_Free");
    let of = |process: PathBuf| number(&fs::read_to_string(process.join("status")).ok()?, "HugetlbPages");
    let owned: u64 = processes().filter_map(of).sum();
    used.saturating_sub(owned / size)
}

/// All that can be set of an interface, and the program that it has.
fn settings(host: &Host, interface: &str) -> Vec<String> {
    let script = format!(
        "for option in -k -l -g -c; do ethtool $option {interface} 2>&1; done; ip -details link show dev {interface}; \
         cd /sys/class/net/{interface} && head napi_defer_hard_irqs gro_flush_timeout threaded"
    );
    // It shows the namespace's own /sys, those of cards included.
    let shell = ["netns", "exec", host.namespace(), "sh", "-c", &script];
    let output = Command::new("ip").args(shell).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}
