//! Processor cores: how fast they run, and what else runs on them.

use super::{Finding, Remedy, Topic};
use crate::machine::files::{Files, field, list, written};

const TOPIC: Topic = Topic::Cores;
const FOLDER: &str = "/sys/devices/system/cpu";

/// The cores that this thread may run on.
pub(super) fn allowed(files: &Files) -> Vec<usize> {
    let status = files.read("/proc/thread-self/status").unwrap_or_default();
    field(&status, "Cpus_allowed_list").map(list).unwrap_or_default()
}

/// `workers` is how many would work on the interface.
pub(super) fn examine(files: &Files, workers: u32) -> Vec<Finding> {
    let allowed = allowed(files);
    vec![
        number(files, &allowed),
        governor(files),
        isolation(files, &allowed, workers),
        threads(files),
        irqbalance(files),
    ]
}

fn number(files: &Files, allowed: &[usize]) -> Finding {
    const NAME: &str = "cores";
    let online = list(&files.read(&format!("{FOLDER}/online")).unwrap_or_default());
    let what = format!("{} of {} may be used: {}", allowed.len(), online.len(), written(allowed));
    match allowed.len() {
        0 => Finding::better(TOPIC, NAME, "not known", "/proc cannot be read"),
        1 => {
            let why = "a worker that polls and the kernel, which hands it its packets, take turns on the one core: \
                       have `idle = \"adaptive\"`, or give it more cores";
            Finding::better(TOPIC, NAME, what, why)
        }
        _ => Finding::good(TOPIC, NAME, what),
    }
}

fn governor(files: &Files) -> Finding {
    const NAME: &str = "governor";
    let folder = format!("{FOLDER}/cpufreq");
    let policies = files.names(&folder);
    let mut governors: Vec<_> = policies
        .iter()
        .filter_map(|policy| files.read(&format!("{folder}/{policy}/scaling_governor")))
        .collect();
    governors.sort();
    governors.dedup();
    if governors.is_empty() {
        return Finding::good(TOPIC, NAME, "the kernel does not change the cores' speed");
    }
    let names = governors.join(", ");
    if names == "performance" {
        return Finding::good(TOPIC, NAME, names);
    }
    Finding::better(TOPIC, NAME, names, "cores are slow until they have been busy for a while")
        .mend(Remedy::command("cpupower frequency-set --governor performance"))
}

fn isolation(files: &Files, allowed: &[usize], workers: u32) -> Finding {
    const NAME: &str = "isolated cores";
    let isolated = files.read(&format!("{FOLDER}/isolated")).unwrap_or_default();
    if !list(&isolated).is_empty() {
        return Finding::good(TOPIC, NAME, format!("{isolated}; name them as `cores` of the workers"));
    }
    // The first one is left to all others.
    let own: Vec<_> = allowed.iter().copied().skip(1).take(workers as usize).collect();
    let why = "other programs run on the workers' cores, and packets wait meanwhile";
    if own.is_empty() {
        return Finding::better(TOPIC, NAME, "none", format!("{why}; there is no core to spare here"));
    }
    let own = written(&own);
    let command =
        format!("sed -i 's/^GRUB_CMDLINE_LINUX=\"/&isolcpus={own} /' /etc/default/grub && update-grub");
    let why = format!("{why}. To keep {own} free of them from the next boot on:");
    Finding::better(TOPIC, NAME, "none", why).mend(Remedy::command(command))
}

fn threads(files: &Files) -> Finding {
    const NAME: &str = "hardware threads";
    if files.number(&format!("{FOLDER}/smt/active")) != Some(1) {
        return Finding::good(TOPIC, NAME, "one a core");
    }
    let siblings = files.read(&format!("{FOLDER}/cpu0/topology/thread_siblings_list")).unwrap_or_default();
    let what = format!("several a core: {siblings} share one");
    let why = "what runs on the other thread of a worker's core takes about half of its speed: name one of each for the \
               workers and leave the other idle, or turn them off";
    Finding::better(TOPIC, NAME, what, why).mend(Remedy::command(format!("echo off > {FOLDER}/smt/control")))
}

fn irqbalance(files: &Files) -> Finding {
    const NAME: &str = "irqbalance";
    let is_process = |name: &&String| name.bytes().all(|byte| byte.is_ascii_digit());
    let processes = files.names("/proc");
    let mut names = processes
        .iter()
        .filter(is_process)
        .filter_map(|process| files.read(&format!("/proc/{process}/comm")));
    if !names.any(|name| name == "irqbalance") {
        return Finding::good(TOPIC, NAME, "it does not run");
    }
    let why = "it moves the queues' interrupts from core to core, those of the workers among them";
    Finding::better(TOPIC, NAME, "it runs", why).mend(Remedy::command("systemctl disable --now irqbalance"))
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    fn verdicts(files: &Files, workers: u32) -> Vec<(&'static str, Verdict)> {
        examine(files, workers).into_iter().map(|finding| (finding.name, finding.verdict)).collect()
    }

    #[test]
    fn a_small_virtual_machine() {
        let files = Files::captured([
            ("/proc/thread-self/status", "Cpus_allowed:\t3\nCpus_allowed_list:\t0-1\n"),
            ("/sys/devices/system/cpu/online", "0-1\n"),
            ("/sys/devices/system/cpu/isolated", "\n"),
            ("/sys/devices/system/cpu/smt/active", "0\n"),
            ("/proc/1/comm", "systemd\n"),
        ]);
        assert_eq!(
            verdicts(&files, 2),
            [
                ("cores", Verdict::Good),
                ("governor", Verdict::Good),
                ("isolated cores", Verdict::CouldBeBetter),
                ("hardware threads", Verdict::Good),
                ("irqbalance", Verdict::Good),
            ]
        );
        let remedy = isolation(&files, &[0, 1], 2).remedy.unwrap();
        assert!(remedy.command.contains("isolcpus=1 "), "{}", remedy.command);
    }

    #[test]
    fn a_server_as_it_comes() {
        let files = Files::captured([
            ("/proc/thread-self/status", "Cpus_allowed_list:\t0-15\n"),
            ("/sys/devices/system/cpu/online", "0-15\n"),
            ("/sys/devices/system/cpu/isolated", ""),
            ("/sys/devices/system/cpu/smt/active", "1"),
            ("/sys/devices/system/cpu/cpu0/topology/thread_siblings_list", "0,8"),
            ("/sys/devices/system/cpu/cpufreq/policy0/scaling_governor", "schedutil"),
            ("/sys/devices/system/cpu/cpufreq/policy1/scaling_governor", "performance"),
            ("/proc/self/comm", "irqbalance"),
            ("/proc/811/comm", "irqbalance"),
        ]);
        let better = |name| (name, Verdict::CouldBeBetter);
        assert_eq!(
            verdicts(&files, 4),
            [
                ("cores", Verdict::Good),
                better("governor"),
                better("isolated cores"),
                better("hardware threads"),
                better("irqbalance"),
            ]
        );
        assert_eq!(governor(&files).what, "performance, schedutil");
        assert!(threads(&files).what.contains("0,8"));
        assert!(isolation(&files, &allowed(&files), 4).remedy.unwrap().command.contains("isolcpus=1-4 "));
    }

    #[test]
    fn cores_that_are_kept_free() {
        let files = Files::captured([
            ("/proc/thread-self/status", "Cpus_allowed_list:\t0\n"),
            ("/sys/devices/system/cpu/isolated", "2-3\n"),
            ("/sys/devices/system/cpu/cpufreq/policy0/scaling_governor", "performance"),
        ]);
        let found = verdicts(&files, 1);
        assert_eq!(found[0], ("cores", Verdict::CouldBeBetter));
        assert_eq!(found[1..3], [("governor", Verdict::Good), ("isolated cores", Verdict::Good)]);
    }
}
