//! Which cores workers should have.

use super::files::{Files, list};
use super::interrupts::node_cores;

/// A core that may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) core: usize,
    /// Whether it is at the NUMA node of one of the interfaces; None where none of them is known to be at one.
    pub(crate) is_near: Option<bool>,
    /// How many threads of the same core come before it.
    pub(crate) thread: usize,
}

impl Place {
    /// Why it comes where it does in a list that has the best first.
    pub(crate) fn why(&self) -> String {
        let near = self.is_near.map(|is_near| match is_near {
            true => "at the card's NUMA node",
            false => "at another NUMA node than the card: there, none is left",
        });
        let thread = (self.thread > 0).then_some("a core's second thread: all first ones are taken");
        let words: Vec<_> = near.into_iter().chain(thread).collect();
        if words.is_empty() { "the first that is free".into() } else { words.join("; ") }
    }
}

/// The cores that may be used, best first: those near one of the interfaces before all others, and among these one thread
/// of each core before a second one, which would share the first one's caches and units.
pub(crate) fn best_first(files: &Files, interfaces: &[&str], allowed: &[usize]) -> Vec<Place> {
    let near: Vec<Vec<usize>> =
        interfaces.iter().filter_map(|name| node_cores(files, name)).map(|(_, cores)| cores).collect();
    let is_near = |core: usize| near.iter().any(|cores| cores.contains(&core));
    let thread = |core: usize| {
        let path = format!("/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list");
        let siblings = list(&files.read(&path).unwrap_or_default());
        siblings.iter().filter(|sibling| **sibling < core && allowed.contains(sibling)).count()
    };
    let place = |core: &usize| Place {
        core: *core,
        is_near: (!near.is_empty()).then(|| is_near(*core)),
        thread: thread(*core),
    };
    let mut places: Vec<Place> = allowed.iter().map(place).collect();
    places.sort_by_key(|place| (place.is_near == Some(false), place.thread, place.core));
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cores(files: &Files, interfaces: &[&str], allowed: &[usize]) -> Vec<usize> {
        best_first(files, interfaces, allowed).iter().map(|place| place.core).collect()
    }

    #[test]
    fn a_small_machine_is_taken_in_order() {
        let files = Files::captured([("/sys/devices/system/node/online", "0\n")]);
        assert_eq!(cores(&files, &["eth0"], &[0, 1]), [0, 1]);
        assert_eq!(cores(&files, &[], &[3, 1]), [1, 3]);
        assert_eq!(best_first(&files, &[], &[0])[0].why(), "the first that is free");
    }

    /// Two processors of two cores with two threads each, the card at the second.
    #[test]
    fn near_cores_come_first_and_their_second_threads_last() {
        let files = Files::captured([
            ("/sys/devices/system/node/online", "0-1\n"),
            ("/sys/devices/system/node/node0/cpulist", "0-1,4-5\n"),
            ("/sys/devices/system/node/node1/cpulist", "2-3,6-7\n"),
            ("/sys/class/net/eth0/device/numa_node", "1\n"),
            ("/sys/class/net/eth1/device/numa_node", "-1\n"),
            ("/sys/devices/system/cpu/cpu0/topology/thread_siblings_list", "0,4\n"),
            ("/sys/devices/system/cpu/cpu1/topology/thread_siblings_list", "1,5\n"),
            ("/sys/devices/system/cpu/cpu2/topology/thread_siblings_list", "2,6\n"),
            ("/sys/devices/system/cpu/cpu3/topology/thread_siblings_list", "3,7\n"),
            ("/sys/devices/system/cpu/cpu4/topology/thread_siblings_list", "0,4\n"),
            ("/sys/devices/system/cpu/cpu5/topology/thread_siblings_list", "1,5\n"),
            ("/sys/devices/system/cpu/cpu6/topology/thread_siblings_list", "2,6\n"),
            ("/sys/devices/system/cpu/cpu7/topology/thread_siblings_list", "3,7\n"),
        ]);
        let all: Vec<usize> = (0..8).collect();
        assert_eq!(cores(&files, &["eth0"], &all), [2, 3, 6, 7, 0, 1, 4, 5]);
        let why = |place: usize| best_first(&files, &["eth0"], &all)[place].why();
        assert_eq!(why(0), "at the card's NUMA node");
        assert_eq!(why(2), "at the card's NUMA node; a core's second thread: all first ones are taken");
        assert!(why(4).starts_with("at another NUMA node than the card"), "{}", why(4));
        // Where it is not known, threads alone decide; what may not be used keeps nobody off its core.
        assert_eq!(cores(&files, &["eth1"], &all), [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(cores(&files, &["eth0"], &[0, 4, 5]), [0, 5, 4]);
    }
}
