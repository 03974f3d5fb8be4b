//! Queues, their rings and interrupts, and which memory is near.

use std::fmt::Write as _;

use super::facts::Facts;
use super::peer::Peer;
use super::{Finding, Remedy, Topic};
use crate::machine::files::{Files, list, written};
use crate::machine::interrupts::{self, node_cores};
use crate::settings;
use crate::worker::{Cores, Share, plan};
use crate::xsk::interface::{Channels, Rings};

const TOPIC: Topic = Topic::Interface;

/// `cores` are those that workers may run on.
pub(super) fn examine(files: &Files, facts: &Facts, cores: &[usize]) -> Vec<Finding> {
    let mut findings = vec![queues(facts, cores.len() as u32), spread(facts), rings(facts)];
    findings.extend(sending(facts, files));
    findings.extend([
        interrupts(files, facts, cores),
        node(files, facts, cores),
        workers(files, facts, cores),
        polling(files, facts),
    ]);
    findings
}

fn queues(facts: &Facts, cores: u32) -> Finding {
    const NAME: &str = "queues";
    let now = facts.rx_queues();
    let Some(channels) = facts.channels else {
        return Finding::good(TOPIC, NAME, "1; the driver does not say more");
    };
    let most = most(&channels);
    let what = format!("{now} of up to {most}");
    let kind = if channels.max_combined > 0 { "combined" } else { "rx" };
    // More than there are cores are no use.
    let wanted = most.min(cores.max(1));
    let mut command = format!("ethtool -L {} {kind} {wanted}", facts.name);
    // What a veth receives on a queue is sent on the one of the same number.
    if let Some(Peer::Seen(peer)) = &facts.peer {
        let _ = write!(command, " && {}ethtool -L {} tx {wanted}", peer.reach, peer.name);
    }
    let remedy = Remedy::command(command);
    if now < wanted {
        let why = format!("as many workers as queues can work, and there are {cores} cores");
        return Finding::better(TOPIC, NAME, what, why).mend(remedy);
    }
    if now > cores.max(1) && now > wanted {
        let why = format!("{cores} cores serve them: several a worker, and packets are spread thinly");
        return Finding::better(TOPIC, NAME, what, why).mend(remedy);
    }
    Finding::good(TOPIC, NAME, what)
}

/// How the card chooses a queue for a packet. Any way may be meant.
fn spread(facts: &Facts) -> Finding {
    const NAME: &str = "RSS";
    let table = facts.table.as_ref().map(|table| format!("packets are spread over {table}"));
    let key = facts.key.as_ref().map(|key| format!("by the key {key}"));
    match table.into_iter().chain(key).collect::<Vec<_>>().as_slice() {
        [] => Finding::good(TOPIC, NAME, "the driver shows neither a table nor a key"),
        found => Finding::good(TOPIC, NAME, found.join(", ")),
    }
}

fn most(channels: &Channels) -> u32 {
    (channels.max_rx + channels.max_combined).max(1)
}

fn rings(facts: &Facts) -> Finding {
    const NAME: &str = "rings";
    let Some(Rings { rx, rx_max, tx, tx_max, .. }) = facts.rings else {
        return Finding::good(TOPIC, NAME, "the driver has none to set");
    };
    let what = format!("{rx} of up to {rx_max} packets to receive, {tx} of up to {tx_max} to send");
    if rx >= rx_max && tx >= tx_max {
        return Finding::good(TOPIC, NAME, what);
    }
    // More than afx has of its own would be no use.
    let (rx_wanted, tx_wanted) = (rx_max.min(2048), tx_max.min(2048));
    if rx >= rx_wanted && tx >= tx_wanted {
        return Finding::good(TOPIC, NAME, what);
    }
    let why = "bursts that are longer are dropped by the card; setting them takes the link down for a moment";
    let command = format!("ethtool -G {} rx {} tx {}", facts.name, rx.max(rx_wanted), tx.max(tx_wanted));
    Finding::better(TOPIC, NAME, what, why).mend(Remedy::command(command))
}

/// virtio sends XDP frames on queues of their own, one a core, where it has them to spare (`virtnet_xdp_set` in
/// `drivers/net/virtio_net.c`).
fn sending(facts: &Facts, files: &Files) -> Option<Finding> {
    const NAME: &str = "queues to send";
    let channels = facts.channels.filter(|_| facts.driver == "virtio_net")?;
    let cores = list(&files.read("/sys/devices/system/cpu/possible").unwrap_or_default()).len().max(1) as u32;
    let (now, most) = (channels.combined_count, channels.max_combined);
    if most >= now + cores {
        return Some(Finding::good(TOPIC, NAME, "each core has one of its own for XDP"));
    }
    let what = format!("{most} in all, of which the kernel uses {now}");
    let why = format!(
        "{cores} more would give each core one of its own: without, XDP shares them with the kernel under a lock. The \
         host sets how many there are (QEMU: `queues=` of the netdev, and `vectors=`)"
    );
    Some(Finding::better(TOPIC, NAME, what, why))
}

fn interrupts(files: &Files, facts: &Facts, allowed: &[usize]) -> Finding {
    const NAME: &str = "interrupts";
    let found = interrupts::of(files, &facts.name);
    if found.is_empty() {
        let what = match facts.driver.as_str() {
            "veth" => "none: packets come on the core of whoever sends them",
            _ => "none that can be seen",
        };
        return Finding::good(TOPIC, NAME, what);
    }
    let mut cores: Vec<usize> = found.iter().flat_map(|interrupt| interrupt.cores.iter().copied()).collect();
    cores.sort_unstable();
    cores.dedup();
    let what = format!("{} of the queues, on cores {}", found.len(), written(&cores));
    let first = found[0].number;
    let near = node_cores(files, &facts.name);
    if let Some((node, near)) = &near
        && cores.iter().any(|core| !near.contains(core))
    {
        let why = format!("the card is at NUMA node {node}, whose cores are {}", written(near));
        let command =
            format!("echo {} > /proc/irq/{first}/smp_affinity_list # and the others", written(near));
        return Finding::better(TOPIC, NAME, what, why).mend(Remedy::command(command));
    }
    let online = list(&files.read("/sys/devices/system/cpu/online").unwrap_or_default());
    if cores.len() == 1 && facts.rx_queues() > 1 && online.len() > 1 {
        let why =
            "one core does the kernel's work for all queues: give each queue's interrupt a core of its own";
        let command = format!("echo {} > /proc/irq/{first}/smp_affinity_list # and so on", online[1]);
        return Finding::better(TOPIC, NAME, what, why).mend(Remedy::command(command));
    }
    let workers = shares(files, facts, allowed, false).unwrap_or_default();
    let elsewhere = found.iter().find_map(|interrupt| {
        let queue = interrupt.queue?;
        let worker = workers.iter().find(|share| share.queues.iter().any(|(_, its)| *its == queue))?;
        let core = worker.core?;
        (!interrupt.cores.contains(&core)).then_some((interrupt, queue, core))
    });
    if let Some((interrupt, queue, core)) = elsewhere {
        let why = format!(
            "that of queue {queue} comes on core {}, and its worker, unless it sleeps when idle or is told its core, is \
             on core {core}: packets change cores. `interrupts = \"auto\"` has afx see to it while it runs; for good:",
            written(&interrupt.cores)
        );
        let command = format!("echo {core} > /proc/irq/{}/smp_affinity_list # and so on", interrupt.number);
        return Finding::better(TOPIC, NAME, what, why).mend(Remedy::command(command));
    }
    Finding::good(TOPIC, NAME, what)
}

/// The workers of this interface's queues, unless told otherwise.
fn shares(files: &Files, facts: &Facts, cores: &[usize], by_interrupts: bool) -> crate::Result<Vec<Share>> {
    let there = Cores::among(files, &[Some(facts.name.as_str())], cores, by_interrupts);
    plan(&[(0..facts.rx_queues()).collect()], None, &[], &there)
}

fn node(files: &Files, facts: &Facts, cores: &[usize]) -> Finding {
    const NAME: &str = "NUMA";
    let Some((node, near)) = node_cores(files, &facts.name) else {
        return Finding::good(TOPIC, NAME, "all memory is equally near");
    };
    let usable: Vec<_> = cores.iter().copied().filter(|core| near.contains(core)).collect();
    let what = format!("the card is at node {node}, with cores {}", written(&near));
    if usable.is_empty() {
        let why = "this process may run on none of them: each packet crosses from one processor to the other; \
                   start it there:";
        let command = format!("numactl --cpunodebind={node} --membind={node} COMMAND");
        return Finding::better(TOPIC, NAME, what, why).mend(Remedy::command(command));
    }
    let folder = format!("/sys/devices/system/node/node{node}/hugepages");
    let free = files
        .names(&folder)
        .iter()
        .filter_map(|size| files.number(&format!("{folder}/{size}/free_hugepages")))
        .sum::<i64>();
    if free == 0 {
        let why = "there is no huge page free at that node";
        let command = format!("echo 64 > {folder}/hugepages-2048kB/nr_hugepages");
        return Finding::better(TOPIC, NAME, what, why).mend(Remedy::command(command));
    }
    Finding::good(TOPIC, NAME, format!("{what}; name them as `cores` of the workers"))
}

/// Where the workers of this interface's queues would be, unless told otherwise.
fn workers(files: &Files, facts: &Facts, cores: &[usize]) -> Finding {
    const NAME: &str = "workers";
    if cores.is_empty() {
        return Finding::better(TOPIC, NAME, "not known", "/proc does not say which cores may be used");
    }
    let places = |by_interrupts: bool| -> crate::Result<String> {
        let shares = shares(files, facts, cores, by_interrupts)?;
        let place = |share: &Share| {
            let queues: Vec<usize> = share.queues.iter().map(|(_, queue)| *queue as usize).collect();
            let plural = if queues.len() == 1 { "queue" } else { "queues" };
            let core = share.core.map_or_else(|| "no core of its own".into(), |core| format!("core {core}"));
            format!("{plural} {} on {core}", written(&queues))
        };
        Ok(shares.iter().map(place).collect::<Vec<_>>().join(", "))
    };
    match (places(false), places(true)) {
        (Ok(busy), Ok(asleep)) if busy == asleep => Finding::good(TOPIC, NAME, busy),
        (Ok(busy), Ok(asleep)) => {
            Finding::good(TOPIC, NAME, format!("{busy}; by their interrupts, where they sleep: {asleep}"))
        }
        (Err(error), _) | (_, Err(error)) => {
            Finding::better(TOPIC, NAME, "not without a say", error.to_string())
        }
    }
}

fn polling(files: &Files, facts: &Facts) -> Finding {
    const NAME: &str = "busy polling";
    let folder = format!("/sys/class/net/{}", facts.name);
    let number = |name: &str| files.number(&format!("{folder}/{name}"));
    // /sys may be of another network namespace, which has another interface of this name or none.
    if number("ifindex") != Some(facts.index.into()) {
        let why = "/sys is of another network namespace: look from `ip netns exec`";
        return Finding::better(TOPIC, NAME, "not known", why);
    }
    let [(defer_name, _), (timeout_name, _)] = settings::DEFER;
    let (Some(defer), Some(timeout)) = (number(defer_name), number(timeout_name)) else {
        return Finding::good(TOPIC, NAME, "the kernel has nothing to set");
    };
    let what = format!("{defer_name} {defer}, {timeout_name} {timeout}");
    if defer > 0 && timeout > 0 {
        return Finding::good(TOPIC, NAME, what);
    }
    if facts.deferred {
        return Finding::good(TOPIC, NAME, "interrupts are put off for each queue");
    }
    let why = "interrupts go on while workers poll, and take turns with them";
    let remedy = Remedy::attributes(&facts.name, &settings::DEFER);
    Finding::better(TOPIC, NAME, what, why).mend(remedy)
}

#[cfg(test)]
#[path = "queues_tests.rs"]
mod tests;
