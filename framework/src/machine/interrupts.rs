//! The interrupts of an interface's queues, and its NUMA node.

use super::files::{Files, list};
use crate::xsk::interface::card_node;

/// An interrupt that is for packets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Interrupt {
    pub(crate) number: u32,
    /// The queue that it is for; not known where the driver gives it no name that says so.
    pub(crate) queue: Option<u32>,
    /// The cores that it comes on.
    pub(crate) cores: Vec<usize>,
}

/// The interrupts of an interface that are for packets, by number.
pub(crate) fn of(files: &Files, interface: &str) -> Vec<Interrupt> {
    let device = format!("/sys/class/net/{interface}/device");
    // A virtio card's belong to the PCI device above it.
    let numbers = [format!("{device}/msi_irqs"), format!("{device}/../msi_irqs")]
        .into_iter()
        .map(|folder| files.names(&folder))
        .find(|names| !names.is_empty())
        .unwrap_or_default();
    let mut numbers: Vec<u32> = numbers.iter().filter_map(|name| name.parse().ok()).collect();
    numbers.sort_unstable();
    let handlers = |number: &u32| -> Vec<String> {
        let names = files.names(&format!("/proc/irq/{number}"));
        names.into_iter().filter(|name| is_for_packets(name)).collect()
    };
    let handled: Vec<(u32, Vec<String>)> =
        numbers.into_iter().map(|number| (number, handlers(&number))).collect();
    // Where queues have interrupts of their own, the one with the bare name of the interface is for changes of the link.
    let is_own = |name: &String| name != interface;
    let only_bare = !handled.iter().any(|(_, names)| names.iter().any(is_own));
    let is_meant = |names: &[String]| names.iter().any(|name| only_bare || is_own(name));
    let cores = |number: u32| {
        let read = |name| files.read(&format!("/proc/irq/{number}/{name}")).map(|text| list(&text));
        let effective = read("effective_affinity_list").filter(|cores| !cores.is_empty());
        effective.or_else(|| read("smp_affinity_list")).unwrap_or_default()
    };
    let meant = handled.into_iter().filter(|(_, names)| is_meant(names));
    meant
        .map(|(number, names)| Interrupt {
            number,
            queue: names.iter().find_map(|name| queue_of(name)),
            cores: cores(number),
        })
        .collect()
}

/// Whether an interrupt's handler, by the name that its driver gave it, is for packets.
fn is_for_packets(handler: &str) -> bool {
    const SETTINGS: [&str; 8] = [
        "affinity_hint",
        "effective_affinity",
        "effective_affinity_list",
        "node",
        "smp_affinity",
        "smp_affinity_list",
        "spurious",
        "default_smp_affinity",
    ];
    let others = ["config", "mbx", "misc", "async", "cmd", "ctrl", "control"];
    !SETTINGS.contains(&handler) && !others.iter().any(|other| handler.contains(other))
}

/// The queue in a handler's name: `eth0-TxRx-3`, `virtio0-input.3`, `mlx5_comp3@pci:0000:01:00.0`.
fn queue_of(handler: &str) -> Option<u32> {
    let name = handler.split('@').next().unwrap_or_default();
    let before = name.trim_end_matches(|c: char| c.is_ascii_digit());
    // gve counts the blocks of sending and of receiving queues together. A name such as `eth0` has no queue in it.
    let says_so = ["-", ".", "_comp"].iter().any(|end| before.ends_with(end));
    if says_so { name[before.len()..].parse().ok() } else { None }
}

/// The NUMA node that a card is at, and the node's cores; None on machines that have but one.
pub(crate) fn node_cores(files: &Files, interface: &str) -> Option<(u32, Vec<usize>)> {
    let nodes = list(&files.read("/sys/devices/system/node/online")?);
    if nodes.len() < 2 {
        return None;
    }
    let node = card_node(interface, |path| files.number(path))?;
    let cores = files.read(&format!("/sys/devices/system/node/node{node}/cpulist"))?;
    Some((node, list(&cores)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handlers_say_which_queue_they_are_for() {
        for (handler, queue) in [
            ("eth0-TxRx-3", Some(3)),
            ("i40e-enp1s0f0-TxRx-12", Some(12)),
            ("eth0-rx-0", Some(0)),
            ("virtio3-input.1", Some(1)),
            ("virtio3-output.1", Some(1)),
            ("mlx5_comp7@pci:0000:01:00.0", Some(7)),
            ("eth0", None),
            ("virtio3-virtqueues", None),
            ("gve-ntfy-blk3@pci:0000:00:04.0", None),
        ] {
            assert_eq!(queue_of(handler), queue, "{handler}");
        }
    }

    #[test]
    fn interrupts_have_numbers_queues_and_cores() {
        let files = Files::captured([
            ("/sys/class/net/eth0/device/msi_irqs/40", ""),
            ("/sys/class/net/eth0/device/msi_irqs/41", ""),
            ("/sys/class/net/eth0/device/msi_irqs/42", ""),
            ("/proc/irq/40/eth0", ""),
            ("/proc/irq/41/eth0-TxRx-0", ""),
            ("/proc/irq/41/smp_affinity_list", "0-3\n"),
            ("/proc/irq/41/effective_affinity_list", "2\n"),
            ("/proc/irq/42/eth0-TxRx-1", ""),
            ("/proc/irq/42/smp_affinity_list", "3\n"),
        ]);
        let interrupt = |number, queue, core| Interrupt { number, queue: Some(queue), cores: vec![core] };
        assert_eq!(of(&files, "eth0"), [interrupt(41, 0, 2), interrupt(42, 1, 3)]);
        assert_eq!(of(&files, "eth1"), []);
    }
}
