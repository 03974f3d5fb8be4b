//! Whether a runtime's memory has to lie on huge pages.

/// Whether a runtime's memory has to lie on huge pages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum HugePages {
    /// Where there are enough of them; else on ordinary pages, which is said in the log.
    #[default]
    Auto,
    /// It has to: too few of them are an error at the start.
    Demand,
}

/// How many huge pages so many bytes take, how many are free, and how to have enough: for errors and the log.
pub(crate) fn shortage(bytes: usize) -> String {
    shortage_by(bytes, &std::fs::read_to_string("/proc/meminfo").unwrap_or_default())
}

/// By the text of `/proc/meminfo` (proc_meminfo(5)).
fn shortage_by(bytes: usize, meminfo: &str) -> String {
    let field = |name: &str| -> Option<usize> {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse().ok()
    };
    let Some(size) = field("Hugepagesize").map(|kib| kib << 10).filter(|size| *size > 0) else {
        return "this kernel has no huge pages (CONFIG_HUGETLBFS)".to_owned();
    };
    let needed = bytes.div_ceil(size);
    let [total, free, reserved] =
        ["HugePages_Total", "HugePages_Free", "HugePages_Rsvd"].map(|name| field(name).unwrap_or(0));
    let free = free.saturating_sub(reserved);
    let wanted = total + needed.saturating_sub(free);
    format!(
        "it takes {needed} huge pages of {} MiB, and {free} are free: `sysctl vm.nr_hugepages={wanted}` provides them",
        size >> 20
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortage_is_told_with_the_command_that_ends_it() {
        let meminfo = "MemTotal: 24629420 kB\nHugePages_Total:      10\nHugePages_Free:        8\n\
                       HugePages_Rsvd:        3\nHugepagesize:       2048 kB\n";
        assert_eq!(
            shortage_by(16 << 20, meminfo),
            "it takes 8 huge pages of 2 MiB, and 5 are free: `sysctl vm.nr_hugepages=13` provides them"
        );
        assert_eq!(shortage_by(1, ""), "this kernel has no huge pages (CONFIG_HUGETLBFS)");
    }
}
