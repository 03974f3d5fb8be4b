//! The machine that is measured on.

use std::fs;
use std::thread::available_parallelism;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

/// Facts that figures depend on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    /// Cores that programs may run on.
    pub(crate) cores: usize,
    /// Hardware threads of one core: two workers on one core are in each other's way.
    pub(crate) threads_per_core: usize,
    /// Whether it is a virtual machine.
    pub(crate) virtual_machine: bool,
    pub(crate) kernel: String,
    pub(crate) memory_mib: u64,
    /// Of `huge_page_kib` each, while it is measured.
    pub(crate) huge_pages: u64,
    pub(crate) huge_page_kib: u64,
    /// When it began (RFC 3339).
    pub(crate) date: String,
    /// The version of afx.
    pub(crate) afx: String,
    /// How it was built: `release`, or `development`, whose figures say nothing.
    pub(crate) build: String,
}

impl Machine {
    /// This one. What it does not say of itself is `unknown`, or 0.
    pub(crate) fn this() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let (cpu, memory) = (read("/proc/cpuinfo"), read("/proc/meminfo"));
        let siblings = read("/sys/devices/system/cpu/cpu0/topology/thread_siblings_list");
        let unknown = || "unknown".to_owned();
        Self {
            cpu: field(&cpu, "model name").or_else(|| field(&cpu, "CPU part")).unwrap_or_else(unknown),
            cores: available_parallelism().map_or(0, usize::from),
            threads_per_core: listed(siblings.trim()),
            virtual_machine: cpu
                .lines()
                .any(|line| line.starts_with("flags") && line.split(' ').any(|flag| flag == "hypervisor")),
            kernel: Some(read("/proc/sys/kernel/osrelease").trim().to_owned())
                .filter(|release| !release.is_empty())
                .unwrap_or_else(unknown),
            memory_mib: number(&memory, "MemTotal") / 1024,
            huge_pages: number(&memory, "HugePages_Total"),
            huge_page_kib: number(&memory, "Hugepagesize"),
            date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            afx: env!("CARGO_PKG_VERSION").to_owned(),
            build: if cfg!(debug_assertions) { "development" } else { "release" }.to_owned(),
        }
    }

    /// In one line.
    pub(crate) fn line(&self) -> String {
        let threads = match self.threads_per_core {
            1 => String::new(),
            count => format!(" ({count} hardware threads of one core share it)"),
        };
        let kind = if self.virtual_machine { " of a virtual machine" } else { "" };
        let build = match self.build.as_str() {
            "release" => "",
            _ => " **built for development, so that these figures say nothing of it**",
        };
        let date = self.date.split('T').next().unwrap_or_default();
        format!(
            "{}, {} cores{kind}{threads}, {:.0} GiB of memory, {} huge pages of {} KiB, Linux {}, afx {}{build}, {date}.",
            self.cpu,
            self.cores,
            self.memory_mib as f64 / 1024.0,
            self.huge_pages,
            self.huge_page_kib,
            self.kernel,
            self.afx,
        )
    }
}

/// The first value of a name in `name : value` lines.
fn field(text: &str, name: &str) -> Option<String> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':'))?;
    Some(line.trim().to_owned())
}

/// A number and perhaps its unit; 0 if there is none.
fn number(text: &str, name: &str) -> u64 {
    let value = field(text, name);
    value.and_then(|value| value.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// How many processors a list such as `0-1,4` has; 1 where there is none.
fn listed(list: &str) -> usize {
    let count = |range: &str| -> Option<usize> {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(last.parse::<usize>().ok()?.checked_sub(first.parse().ok()?)? + 1)
    };
    list.split(',').map(count).sum::<Option<usize>>().unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_read_from_what_the_kernel_says() {
        let cpu = "processor\t: 0\nmodel name\t: Some CPU @ 3 GHz\nflags\t\t: fpu hypervisor\n";
        assert_eq!(field(cpu, "model name").as_deref(), Some("Some CPU @ 3 GHz"));
        assert_eq!(number("HugePages_Total:     512\nHugepagesize:  2048 kB\n", "Hugepagesize"), 2048);
        assert_eq!(number("", "HugePages_Total"), 0);
        assert_eq!(["0", "0-1", "0,4", "0-1,4-5", "", "x"].map(listed), [1, 2, 2, 4, 1, 1]);
    }

    #[test]
    fn this_machine_says_what_it_is_and_whether_its_figures_count() {
        let machine = Machine::this();
        assert!(machine.cores > 0 && machine.memory_mib > 0 && machine.threads_per_core > 0, "{machine:?}");
        assert!(
            machine.line().contains(&machine.kernel) && machine.line().ends_with('.'),
            "{}",
            machine.line()
        );
    }
}
