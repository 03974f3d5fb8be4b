//! Queues of several kinds of machines.

use super::super::Verdict;
use super::super::facts::tests::{bridge, card, veth, virtio};
use super::*;

/// Those that the server's processes may run on.
const CORES: [usize; 8] = [0, 1, 2, 3, 4, 5, 6, 7];

/// Two processors with four cores each, and a card at the second.
fn server() -> Files {
    Files::captured([
        ("/sys/devices/system/cpu/online", "0-7"),
        ("/sys/devices/system/cpu/possible", "0-7"),
        ("/sys/devices/system/node/online", "0-1"),
        ("/sys/devices/system/node/node1/cpulist", "4-7"),
        ("/sys/devices/system/node/node1/hugepages/hugepages-2048kB/free_hugepages", "64"),
        ("/sys/class/net/enp1s0/ifindex", "2"),
        ("/sys/class/net/enp1s0/napi_defer_hard_irqs", "2"),
        ("/sys/class/net/enp1s0/gro_flush_timeout", "200000"),
        ("/sys/class/net/enp1s0/device/numa_node", "1"),
        ("/sys/class/net/enp1s0/device/msi_irqs/120", "msix"),
        ("/sys/class/net/enp1s0/device/msi_irqs/121", "msix"),
        ("/sys/class/net/enp1s0/device/msi_irqs/122", "msix"),
        ("/proc/irq/120/enp1s0", ""),
        ("/proc/irq/120/smp_affinity_list", "0-7"),
        ("/proc/irq/121/enp1s0-TxRx-0", ""),
        ("/proc/irq/121/effective_affinity_list", "4"),
        ("/proc/irq/122/enp1s0-TxRx-1", ""),
        ("/proc/irq/122/effective_affinity_list", "5"),
    ])
}

/// A virtual machine with two cores.
fn guest() -> Files {
    Files::captured([
        ("/sys/devices/system/cpu/online", "0-1"),
        ("/sys/devices/system/cpu/possible", "0-1"),
        ("/sys/devices/system/node/online", "0"),
        ("/sys/class/net/eth0/ifindex", "2"),
        ("/sys/class/net/eth0/napi_defer_hard_irqs", "0"),
        ("/sys/class/net/eth0/gro_flush_timeout", "0"),
        ("/sys/class/net/eth0/device/../msi_irqs/37", "msix"),
        ("/sys/class/net/eth0/device/../msi_irqs/38", "msix"),
        ("/proc/irq/37/virtio2-config", ""),
        ("/proc/irq/37/smp_affinity_list", "0"),
        ("/proc/irq/38/virtio2-input.0", ""),
        ("/proc/irq/38/smp_affinity_list", "1"),
    ])
}

#[test]
fn as_many_queues_as_cores() {
    let verdict = |facts: &Facts, cores| {
        let found = queues(facts, cores);
        (found.verdict, found.remedy.map(|remedy| remedy.command))
    };
    let mut facts = card();
    assert_eq!(verdict(&facts, 8), (Verdict::Good, None));
    let set = |count| Some(format!("ethtool -L enp1s0 combined {count}"));
    assert_eq!(verdict(&facts, 4), (Verdict::CouldBeBetter, set(4)));
    facts.channels = Some(Channels::combined(1, 16));
    assert_eq!(verdict(&facts, 2), (Verdict::CouldBeBetter, set(2)));
    facts.channels = None;
    assert_eq!(verdict(&facts, 2), (Verdict::Good, None));
    let mut facts = veth();
    assert_eq!(verdict(&facts, 2), (Verdict::Good, None));
    facts.channels = Some(Channels::separate(1, 8));
    let both = "ethtool -L eth0 rx 2 && ip netns exec client ethtool -L eth1 tx 2";
    assert_eq!(verdict(&facts, 2), (Verdict::CouldBeBetter, Some(both.into())));
}

#[test]
fn the_way_to_queues_is_shown() {
    assert_eq!(spread(&card()).what, "packets are spread over queues 0-7, by the key 1fa2…, 52 bytes");
    assert_eq!(spread(&virtio()).what, "the driver shows neither a table nor a key");
}

#[test]
fn rings_have_room_for_bursts() {
    let found = rings(&card());
    assert_eq!(found.verdict, Verdict::CouldBeBetter);
    assert_eq!(found.remedy.unwrap().command, "ethtool -G enp1s0 rx 2048 tx 2048");
    assert_eq!(rings(&virtio()).verdict, Verdict::Good);
    assert_eq!(rings(&bridge()).verdict, Verdict::Good);
}

#[test]
fn interrupts_and_memory_are_near_the_card() {
    let files = server();
    let found = interrupts(&files, &card(), &CORES);
    assert_eq!((found.verdict, found.what.as_str()), (Verdict::Good, "2 of the queues, on cores 4-5"));
    assert_eq!(node(&files, &card(), &[0, 1, 4]).verdict, Verdict::Good);
    let far = node(&files, &card(), &[0, 1]);
    assert_eq!(far.verdict, Verdict::CouldBeBetter);
    assert!(far.remedy.unwrap().command.starts_with("numactl --cpunodebind=1 "));
    assert_eq!(polling(&files, &card()).verdict, Verdict::Good);

    let Files::Captured(mut files) = server() else { unreachable!("it is captured") };
    files.insert("/proc/irq/122/effective_affinity_list", "1");
    let found = interrupts(&Files::Captured(files.clone()), &card(), &CORES);
    assert_eq!(found.verdict, Verdict::CouldBeBetter);
    assert!(found.why.contains("NUMA node 1, whose cores are 4-7"), "{}", found.why);
    files.insert("/proc/irq/122/effective_affinity_list", "4");
    files.insert("/sys/devices/system/node/node1/hugepages/hugepages-2048kB/free_hugepages", "0");
    let files = Files::Captured(files);
    assert!(interrupts(&files, &card(), &CORES).why.contains("one core does the kernel's work"));
    assert!(node(&files, &card(), &[4]).why.contains("huge page"));
}

#[test]
fn a_virtual_machine_has_what_its_host_gives() {
    let files = guest();
    let found = interrupts(&files, &virtio(), &[0, 1]);
    assert_eq!((found.verdict, found.what.as_str()), (Verdict::CouldBeBetter, "1 of the queues, on cores 1"));
    // Its worker is on the other core, or on the one that there may be.
    assert!(found.why.starts_with("that of queue 0 comes on core 1, and its worker, "), "{}", found.why);
    assert!(found.remedy.unwrap().command.starts_with("echo 0 > /proc/irq/38/smp_affinity_list"));
    assert_eq!(interrupts(&files, &virtio(), &[1]).verdict, Verdict::Good);
    assert_eq!(node(&files, &virtio(), &[0, 1]).verdict, Verdict::Good);
    let mut facts = virtio();
    assert_eq!(sending(&facts, &files).unwrap().verdict, Verdict::CouldBeBetter);
    facts.channels = Some(Channels::combined(2, 4));
    assert_eq!(sending(&facts, &files).unwrap().verdict, Verdict::Good);
    assert_eq!(sending(&card(), &files), None);
}

#[test]
fn workers_are_near_the_card() {
    let place = |cores: &[usize]| workers(&server(), &card(), cores).what;
    assert_eq!(place(&[0, 4, 5]), "queues 0,3,6 on core 4, queues 1,4,7 on core 5, queues 2,5 on core 0");
    // The queue's interrupts come on the other core, which counts for a worker that they wake.
    let found = workers(&guest(), &virtio(), &[0, 1]).what;
    assert_eq!(found, "queue 0 on core 0; by their interrupts, where they sleep: queue 0 on core 1");
    let mut many = card();
    many.channels = Some(Channels::combined(64, 64));
    let refused = workers(&server(), &many, &[4]);
    assert!(refused.why.contains("64 queues for one worker"), "{refused:?}");
}

#[test]
fn interrupts_keep_off_while_workers_poll() {
    let found = polling(&guest(), &virtio());
    assert_eq!(found.verdict, Verdict::CouldBeBetter);
    assert_eq!(found.what, "napi_defer_hard_irqs 0, gro_flush_timeout 0");
    assert!(found.remedy.unwrap().is_safe());
    // Another interface of the same name.
    let mut facts = virtio();
    facts.index = 7;
    let found = polling(&guest(), &facts);
    assert_eq!((found.verdict, found.remedy), (Verdict::CouldBeBetter, None));
}
