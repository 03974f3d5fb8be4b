//! Which cores workers should have.

use super::files::{Files, list};
use super::interrupts::node_cores;

/// The cores that may be used, best first: those near one of the interfaces before all others, and among these one thread
/// of each core before a second one, which would share the first one's caches and units.
pub(crate) fn best_first(files: &Files, interfaces: &[&str], allowed: &[usize]) -> Vec<usize> {
    let near: Vec<Vec<usize>> =
        interfaces.iter().filter_map(|name| node_cores(files, name)).map(|(_, cores)| cores).collect();
    let is_far = |core: usize| !near.is_empty() && !near.iter().any(|cores| cores.contains(&core));
    // How many threads of the same core come before it.
    let thread = |core: usize| {
        let path = format!("/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list");
        let siblings = list(&files.read(&path).unwrap_or_default());
        siblings.iter().filter(|sibling| **sibling < core && allowed.contains(sibling)).count()
    };
    let mut cores = allowed.to_vec();
    cores.sort_by_key(|core| (is_far(*core), thread(*core), *core));
    cores
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_machine_is_taken_in_order() {
        let files = Files::captured([("/sys/devices/system/node/online", "0\n")]);
        assert_eq!(best_first(&files, &["eth0"], &[0, 1]), [0, 1]);
        assert_eq!(best_first(&files, &[], &[3, 1]), [1, 3]);
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
        assert_eq!(best_first(&files, &["eth0"], &all), [2, 3, 6, 7, 0, 1, 4, 5]);
        // Where it is not known, threads alone decide; what may not be used keeps nobody off its core.
        assert_eq!(best_first(&files, &["eth1"], &all), [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(best_first(&files, &["eth0"], &[0, 4, 5]), [0, 5, 4]);
    }
}
