//! What the calling process may do: capabilities, and how much memory it may lock.

use super::{Finding, Remedy, Topic};
use crate::machine::files::{Files, field};

const TOPIC: Topic = Topic::Rights;

/// A capability that afx needs: its number in `linux/capability.h`, its name, and what for.
struct Needed {
    number: u32,
    name: &'static str,
    what_for: &'static str,
    /// Whether CAP_SYS_ADMIN stands for it.
    by_admin: bool,
}

const NEEDED: [Needed; 4] = [
    Needed { number: 12, name: "CAP_NET_ADMIN", what_for: "attaching the redirect program", by_admin: false },
    Needed { number: NET_RAW, name: "CAP_NET_RAW", what_for: "opening AF_XDP sockets", by_admin: false },
    Needed { number: 39, name: "CAP_BPF", what_for: "loading the redirect program", by_admin: true },
    Needed { number: 38, name: "CAP_PERFMON", what_for: "loading the redirect program", by_admin: true },
];
pub(super) const NET_RAW: u32 = 13;
const SYS_ADMIN: u32 = 21;
const IPC_LOCK: u32 = 14;

/// `memory` are the bytes that each worker has for packets, and `workers` is how many would work on the interface.
pub(super) fn examine(files: &Files, memory: usize, workers: u32) -> Vec<Finding> {
    let status = files.read("/proc/thread-self/status").unwrap_or_default();
    let set = |name: &str| field(&status, name).and_then(|set| u64::from_str_radix(set, 16).ok());
    let (Some(effective), Some(bounding)) = (set("CapEff"), set("CapBnd")) else {
        return vec![Finding::better(TOPIC, "capabilities", "not known", "/proc cannot be read")];
    };
    let has = |number: u32| effective >> number & 1 == 1;
    let is_given = |needed: &Needed| has(needed.number) || needed.by_admin && has(SYS_ADMIN);
    let missing = NEEDED.iter().filter(|needed| !is_given(needed));
    let mut findings: Vec<_> = missing
        .map(|needed| {
            let what = "this process lacks it";
            if bounding >> needed.number & 1 == 1 {
                let why = format!("{} takes it: run as root, or give the program what it needs", needed.what_for);
                return Finding::fails(TOPIC, needed.name, what, why).mend(Remedy::command(give()));
            }
            let why = format!(
                "{} takes it, and this process could not even get it: the container or service that starts it has to \
                 allow it (CapabilityBoundingSet=, docker run --cap-add)",
                needed.what_for
            );
            Finding::fails(TOPIC, needed.name, what, why)
        })
        .collect();
    if findings.is_empty() {
        let names: Vec<_> = NEEDED.iter().map(|needed| needed.name).collect();
        findings.push(Finding::good(TOPIC, "capabilities", names.join(", ")));
    }
    findings.extend(user_namespace(files));
    findings.push(locked_memory(files, has(IPC_LOCK), bounding >> IPC_LOCK & 1 == 1, (memory, workers)));
    findings
}

/// Whether the calling process has a capability, and in the first user namespace.
pub(super) fn holds(files: &Files, capability: u32) -> bool {
    let status = files.read("/proc/thread-self/status").unwrap_or_default();
    let effective = field(&status, "CapEff").and_then(|set| u64::from_str_radix(set, 16).ok());
    effective.is_some_and(|set| set >> capability & 1 == 1) && user_namespace(files).is_none()
}

/// The command that gives this program what afx needs.
fn give() -> String {
    let program = std::env::current_exe().map_or("PROGRAM".into(), |path| path.display().to_string());
    format!("setcap cap_net_admin,cap_net_raw,cap_bpf,cap_perfmon,cap_ipc_lock=ep {program}")
}

/// BPF programs are loaded by rights that count in the first user namespace alone.
fn user_namespace(files: &Files) -> Option<Finding> {
    let map = files.read("/proc/thread-self/uid_map").or_else(|| files.read("/proc/self/uid_map"))?;
    let words: Vec<_> = map.split_whitespace().collect();
    if words == ["0", "0", "4294967295"] {
        return None;
    }
    let why = "its capabilities do not count for loading BPF programs: run it outside, as a container without user \
               namespace remapping for instance";
    Some(Finding::fails(TOPIC, "user namespace", "this process is in one of its own", why))
}

/// `unlimited` is whether the process has CAP_IPC_LOCK, `could_be` whether it could be given it.
fn locked_memory(files: &Files, unlimited: bool, could_be: bool, (memory, workers): (usize, u32)) -> Finding {
    const NAME: &str = "locked memory";
    if unlimited {
        return Finding::good(TOPIC, NAME, "as much as is wanted (CAP_IPC_LOCK)");
    }
    let limits = files.read("/proc/thread-self/limits").or_else(|| files.read("/proc/self/limits"));
    let limit = limits.as_deref().and_then(soft_limit);
    let memory = memory as u64;
    let wanted = memory * u64::from(workers.max(1));
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    match limit {
        None => Finding::better(TOPIC, NAME, "not known", "/proc cannot be read"),
        Some(Limit::None) => Finding::good(TOPIC, NAME, "as much as is wanted (RLIMIT_MEMLOCK)"),
        Some(Limit::Bytes(bytes)) if bytes >= wanted => {
            Finding::good(TOPIC, NAME, format!("{:.0} MiB (RLIMIT_MEMLOCK)", mib(bytes)))
        }
        Some(Limit::Bytes(bytes)) => {
            let what = format!("{:.3} MiB (RLIMIT_MEMLOCK), and no CAP_IPC_LOCK", mib(bytes));
            let why = format!(
                "packet memory takes {:.1} MiB, {:.1} a worker: raise the limit of the shell or service \
                 (LimitMEMLOCK=) that starts it, or give it CAP_IPC_LOCK",
                mib(wanted),
                mib(memory)
            );
            // Raising a hard limit takes a right of its own, CAP_SYS_RESOURCE.
            let command = if could_be { give() } else { "prlimit --pid $$ --memlock=unlimited".to_owned() };
            Finding::fails(TOPIC, NAME, what, why).mend(Remedy::command(command))
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Limit {
    None,
    Bytes(u64),
}

/// In the text of `/proc/PID/limits`.
fn soft_limit(limits: &str) -> Option<Limit> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max locked memory"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(Limit::None),
        bytes => bytes.parse().ok().map(Limit::Bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    const ROOT: &str = "CapEff:\t000001ffffffffff\nCapBnd:\t000001ffffffffff\n";
    const USER: &str = "CapEff:\t0000000000000000\nCapBnd:\t000001ffffffffff\n";
    // What Docker leaves to root in a container.
    const DOCKER: &str = "CapEff:\t00000000a80425fb\nCapBnd:\t00000000a80425fb\n";
    const LIMITS: &str = "Limit                     Soft Limit           Hard Limit           Units     \n\
                          Max locked memory         8388608              8388608              bytes     \n";
    const OUTSIDE: &str = "         0          0 4294967295\n";

    fn files(status: &'static str, map: &'static str) -> Files {
        Files::captured([
            ("/proc/thread-self/status", status),
            ("/proc/self/limits", LIMITS),
            ("/proc/self/uid_map", map),
        ])
    }

    fn names(findings: &[Finding], verdict: Verdict) -> Vec<&str> {
        findings.iter().filter(|finding| finding.verdict == verdict).map(|finding| finding.name).collect()
    }

    #[test]
    fn root_may_do_all() {
        let findings = examine(&files(ROOT, OUTSIDE), 16 << 20, 4);
        assert_eq!(names(&findings, Verdict::Good), ["capabilities", "locked memory"]);
        assert_eq!(findings.len(), 2);
    }

    #[test]
    fn a_user_lacks_all_of_them_and_can_get_them() {
        let findings = examine(&files(USER, OUTSIDE), 16 << 20, 1);
        assert_eq!(
            names(&findings, Verdict::WillNotWork),
            ["CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_BPF", "CAP_PERFMON", "locked memory"]
        );
        assert!(findings[4].why.starts_with("packet memory takes 16.0 MiB, 16.0 a worker: "), "{findings:?}");
        for finding in findings {
            let remedy = finding.remedy.unwrap();
            assert!(remedy.command.starts_with("setcap cap_net_admin,") && !remedy.is_safe());
        }
    }

    #[test]
    fn a_container_has_to_be_given_them() {
        let findings = examine(&files(DOCKER, OUTSIDE), 16 << 20, 1);
        assert_eq!(
            names(&findings, Verdict::WillNotWork),
            ["CAP_NET_ADMIN", "CAP_BPF", "CAP_PERFMON", "locked memory"]
        );
        assert!(findings[0].remedy.is_none() && findings[0].why.contains("--cap-add"));
        assert!(findings[3].remedy.as_ref().unwrap().command.starts_with("prlimit "));
        let remapped = examine(&files(ROOT, "0 100000 65536"), 16 << 20, 1);
        assert_eq!(names(&remapped, Verdict::WillNotWork), ["user namespace"]);
    }

    #[test]
    fn the_old_right_for_all_stands_for_those_of_bpf() {
        let admin = "CapEff:\t0000000000207000\nCapBnd:\t0000000000207000\n";
        assert_eq!(
            names(&examine(&files(admin, OUTSIDE), 16 << 20, 1), Verdict::WillNotWork),
            [] as [&str; 0]
        );
    }

    #[test]
    fn limits_are_read() {
        assert_eq!(soft_limit(LIMITS), Some(Limit::Bytes(8_388_608)));
        assert_eq!(
            soft_limit("Max locked memory         unlimited            unlimited            bytes"),
            Some(Limit::None)
        );
        assert_eq!(soft_limit(""), None);
    }
}
