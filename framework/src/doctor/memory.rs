//! Huge pages.

use super::facts::Facts;
use super::{Finding, Remedy, Topic};
use crate::machine::files::Files;
use crate::port::{Demand, FRAME_SIZE, RING_SIZE, frame_size_of};
use crate::worker::{Supply, memory_of};

const TOPIC: Topic = Topic::Memory;

/// Bytes of the packet memory of a worker with one queue of an interface.
pub(super) fn packet_memory(facts: Option<&Facts>) -> usize {
    let demand = Demand::of_xdp_auto(RING_SIZE, facts.and_then(|facts| facts.rings));
    memory_of(demand, facts.map_or(FRAME_SIZE, |facts| frame_size_of(&facts.driver, facts.link.mtu)))
}

/// `workers` is how many would work on the interface.
pub(super) fn examine(files: &Files, facts: Option<&Facts>, workers: u32) -> Vec<Finding> {
    let info = files.read("/proc/meminfo").unwrap_or_default();
    vec![huge_pages(Supply::of(&info), packet_memory(facts), workers)]
}

/// `bytes` is what a worker's packet memory has.
fn huge_pages(supply: Option<Supply>, bytes: usize, workers: u32) -> Finding {
    const NAME: &str = "huge pages";
    let Some(supply) = supply else {
        let why = "packets and tables lie on ordinary pages, where each look costs more: take a kernel that was built \
                   with CONFIG_HUGETLBFS";
        return Finding::better(TOPIC, NAME, "the kernel has none", why);
    };
    let wanted = supply.needed((0..workers.max(1)).map(|_| bytes));
    let pages = format!("{} of {} MiB are free", supply.free, supply.size >> 20);
    let Some(command) = supply.command(wanted) else {
        return Finding::good(TOPIC, NAME, format!("{pages}; packet memory takes {wanted}"));
    };
    let what = format!("{pages}, and packet memory takes {wanted}");
    let why = "packets lie on ordinary pages without them, where each look costs more; tables of connections take some \
               as well: `afx-lb check` counts all";
    Finding::better(TOPIC, NAME, what, why).mend(Remedy::command(command))
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn as_many_as_are_missing_are_asked_for() {
        let found = |total, free, workers| {
            let info = format!(
                "MemTotal: 1\nHugePages_Total:     {total}\nHugePages_Free:      {free}\nHugepagesize:       2048 kB\n"
            );
            huge_pages(Supply::of(&info), 16 << 20, workers)
        };
        assert_eq!(found(512, 496, 2).verdict, Verdict::Good);
        let none = found(0, 0, 2);
        assert_eq!(none.verdict, Verdict::CouldBeBetter);
        assert_eq!(none.remedy.unwrap().command, "sysctl vm.nr_hugepages=16");
        let some = found(20, 5, 1);
        assert_eq!(some.remedy.unwrap().command, "sysctl vm.nr_hugepages=23");
        let gigantic = "HugePages_Total: 1\nHugePages_Free: 1\nHugepagesize: 1048576 kB\n";
        // A page is one worker's alone.
        let found = huge_pages(Supply::of(gigantic), 16 << 20, 2);
        assert_eq!(found.what, "1 of 1024 MiB are free, and packet memory takes 2");
        assert_eq!(huge_pages(Supply::of("MemTotal: 1\n"), 16 << 20, 1).remedy, None);
    }

    #[test]
    fn packet_memory_is_what_the_rings_of_the_interface_take() {
        use super::super::facts::tests::{card, veth};
        assert_eq!(packet_memory(None), (3 * 2048 + 3 * 64) * 2048);
        assert_eq!(packet_memory(Some(&veth())), packet_memory(None));
        let frames = 2048 + 2048 + 64 + 2048 + 2048 + 3 * 64;
        assert_eq!(packet_memory(Some(&card())), frames * 2048);
        let in_kib = Facts { driver: "igb".into(), ..card() };
        assert_eq!(packet_memory(Some(&in_kib)), frames * 4096);
    }
}
