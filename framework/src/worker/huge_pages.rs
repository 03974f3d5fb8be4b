//! Huge pages: whether a runtime's memory has to lie on them, how many it takes, and what provides them.

use crate::mem::LARGE;

/// Whether a runtime's memory has to lie on huge pages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum HugePages {
    /// Where there are enough of them; else on ordinary pages, which is said in the log.
    #[default]
    Auto,
    /// It has to: too few of them are an error at the start.
    Demand,
}

impl HugePages {
    /// How many huge pages blocks of memory of so many bytes take, each of which begins on a page of its own, how many
    /// are free now, and the command that provides those that are missing.
    pub fn provision(blocks: impl IntoIterator<Item = usize>) -> String {
        provision(Supply::now(), blocks)
    }
}

/// The system's huge pages of the default size, at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Supply {
    /// Bytes of a page.
    pub(crate) size: usize,
    total: usize,
    /// Neither in use nor promised to somebody.
    pub(crate) free: usize,
}

impl Supply {
    /// As it is now; None where the kernel has no huge pages.
    pub(crate) fn now() -> Option<Self> {
        Self::of(&std::fs::read_to_string("/proc/meminfo").unwrap_or_default())
    }

    /// By the text of `/proc/meminfo` (proc_meminfo(5)).
    pub(crate) fn of(meminfo: &str) -> Option<Self> {
        let field = |name: &str| -> Option<usize> {
            let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            line.split_whitespace().next()?.parse().ok()
        };
        let size = field("Hugepagesize").map(|kib| kib << 10).filter(|size| *size > 0)?;
        let [total, free, promised] =
            ["HugePages_Total", "HugePages_Free", "HugePages_Rsvd"].map(|name| field(name).unwrap_or(0));
        Some(Self { size, total, free: free.saturating_sub(promised) })
    }

    /// How many pages blocks of so many bytes take.
    pub(crate) fn needed(&self, blocks: impl IntoIterator<Item = usize>) -> usize {
        // Small tables are not put there.
        blocks.into_iter().filter(|bytes| *bytes >= LARGE).map(|bytes| bytes.div_ceil(self.size)).sum()
    }

    /// The command that provides what is missing of so many pages, where any is.
    pub(crate) fn command(&self, needed: usize) -> Option<String> {
        let missing = needed.checked_sub(self.free).filter(|missing| *missing > 0)?;
        Some(format!("sysctl vm.nr_hugepages={}", self.total + missing))
    }
}

/// What blocks take of a supply, and how to have enough: for errors, the log, and people who plan.
pub(crate) fn provision(supply: Option<Supply>, blocks: impl IntoIterator<Item = usize>) -> String {
    let Some(supply) = supply else {
        return "this kernel has no huge pages (CONFIG_HUGETLBFS)".to_owned();
    };
    let needed = supply.needed(blocks);
    let text = format!("{needed} huge pages of {} MiB, and {} are free", supply.size >> 20, supply.free);
    match supply.command(needed) {
        None => text,
        Some(command) => format!("{text}: `{command}` provides them"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMINFO: &str = "MemTotal: 24629420 kB\nHugePages_Total:      10\nHugePages_Free:        8\n\
                           HugePages_Rsvd:        3\nHugepagesize:       2048 kB\n";

    #[test]
    fn a_shortage_is_told_with_the_command_that_ends_it() {
        let of = |blocks: &[usize]| provision(Supply::of(MEMINFO), blocks.iter().copied());
        assert_eq!(
            of(&[16 << 20]),
            "8 huge pages of 2 MiB, and 5 are free: `sysctl vm.nr_hugepages=13` provides them"
        );
        // Each block begins on a page of its own.
        assert_eq!(of(&[5 << 20, 3 << 20]), "5 huge pages of 2 MiB, and 5 are free");
        assert_eq!(of(&[4096, (1 << 20) - 1]), "0 huge pages of 2 MiB, and 5 are free");
        assert_eq!(provision(Supply::of(""), [1]), "this kernel has no huge pages (CONFIG_HUGETLBFS)");
    }
}
