//! Huge pages.

use super::{Finding, Remedy, Topic};
use crate::machine::files::{Files, field};

const TOPIC: Topic = Topic::Memory;

/// Bytes of a worker's frames: 8192 of 2048.
pub(super) const PACKET_MEMORY: u64 = 8192 * 2048;

/// `workers` is how many would work on the interface.
pub(super) fn examine(files: &Files, workers: u32) -> Vec<Finding> {
    let info = files.read("/proc/meminfo").unwrap_or_default();
    vec![huge_pages(&info, workers)]
}

fn huge_pages(info: &str, workers: u32) -> Finding {
    const NAME: &str = "huge pages";
    let number = |name: &str| -> Option<u64> { field(info, name)?.split(' ').next()?.parse().ok() };
    let (Some(size), Some(total), Some(free)) =
        (number("Hugepagesize"), number("HugePages_Total"), number("HugePages_Free"))
    else {
        let why = "packets and tables lie on ordinary pages, where each look costs more: take a kernel that was built \
                   with CONFIG_HUGETLBFS";
        return Finding::better(TOPIC, NAME, "the kernel has none", why);
    };
    let wanted = (PACKET_MEMORY * u64::from(workers.max(1))).div_ceil(size << 10);
    let pages = format!("{free} of {} MiB are free", size >> 10);
    if free >= wanted {
        return Finding::good(TOPIC, NAME, format!("{pages}; packet memory takes {wanted}"));
    }
    let what = format!("{pages}, and packet memory takes {wanted}");
    let why = "packets lie on ordinary pages without them, where each look costs more; tables of connections take some \
               as well, which `afx-lb run` says at its start";
    let more = total + wanted - free;
    Finding::better(TOPIC, NAME, what, why).mend(Remedy::command(format!("sysctl vm.nr_hugepages={more}")))
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn as_many_as_are_missing_are_asked_for() {
        let info = |total, free| {
            format!(
                "MemTotal: 1\nHugePages_Total:     {total}\nHugePages_Free:      {free}\nHugepagesize:       2048 kB\n"
            )
        };
        assert_eq!(huge_pages(&info(512, 496), 2).verdict, Verdict::Good);
        let none = huge_pages(&info(0, 0), 2);
        assert_eq!(none.verdict, Verdict::CouldBeBetter);
        assert_eq!(none.remedy.unwrap().command, "sysctl vm.nr_hugepages=16");
        let some = huge_pages(&info(20, 5), 1);
        assert_eq!(some.remedy.unwrap().command, "sysctl vm.nr_hugepages=23");
        let gigantic = "HugePages_Total: 1\nHugePages_Free: 1\nHugepagesize: 1048576 kB\n";
        assert_eq!(huge_pages(gigantic, 8).what, "1 of 1024 MiB are free; packet memory takes 1");
        assert_eq!(huge_pages("MemTotal: 1\n", 1).remedy, None);
    }
}
