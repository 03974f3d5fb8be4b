//! The other end of a veth: what its kernel sends is what comes in here.
//!
//! It is mostly in another network namespace. Which one it is, is found among those that have a name or a process.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;

use nix::sched::{CloneFlags, setns};

use super::facts::{Facts, active};
use super::netlink::{self, Link};
use super::{Finding, Remedy, Topic};
use crate::machine::NAMED;
use crate::xsk::ethtool::{self, Feature};
use crate::xsk::interface::{self, Channels};

/// The other end of a veth.
#[derive(Debug, Clone)]
pub(super) enum Peer {
    Seen(Seen),
    /// It is in a namespace that cannot be entered.
    Unseen {
        index: u32,
    },
}

/// What was asked of it.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) name: String,
    /// What to put before a command so that it reaches this interface: nothing, or `ip netns exec NAME `.
    pub(super) reach: String,
    pub(super) mtu: u32,
    pub(super) channels: Option<Channels>,
    pub(super) features: Vec<Feature>,
}

impl Peer {
    /// None for what is no veth.
    pub(super) fn find(link: &Link) -> Option<Self> {
        let index = link.other.filter(|_| link.kind == "veth")?;
        let seen = match link.other_namespace {
            None => Seen::ask(index, String::new()),
            Some(number) => find_namespace(number).and_then(|(namespace, reach)| {
                // A thread of its own: it stays in the namespace, and ends.
                std::thread::scope(|scope| {
                    let asking = scope.spawn(|| {
                        setns(namespace, CloneFlags::CLONE_NEWNET)?;
                        Seen::ask(index, reach)
                    });
                    asking.join().unwrap_or_else(|_| Err(io::Error::other("asking has panicked")))
                })
            }),
        };
        Some(seen.map_or(Self::Unseen { index }, Self::Seen))
    }
}

impl Seen {
    fn ask(index: u32, reach: String) -> io::Result<Self> {
        let link = netlink::link(index)?;
        Ok(Self {
            channels: interface::channels(&link.name).ok().flatten(),
            features: ethtool::features(&link.name)?,
            name: link.name,
            mtu: link.mtu,
            reach,
        })
    }
}

/// The namespace that this thread's has that number for, and how a command gets into it.
fn find_namespace(number: i32) -> io::Result<(File, String)> {
    let mut seen = BTreeSet::new();
    let mut is_it = |path: &str| -> Option<File> {
        let file = File::open(path).ok()?;
        let identity = file.metadata().ok()?;
        let is_new = seen.insert((identity.dev(), identity.ino()));
        let found = is_new && netlink::namespace_number(&file).ok()? == Some(number);
        found.then_some(file)
    };
    let names = |folder: &str| -> Vec<String> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    };
    for folder in NAMED {
        for name in names(folder) {
            if let Some(file) = is_it(&format!("{folder}/{name}")) {
                let reach = match folder {
                    "/run/netns" => format!("ip netns exec {name} "),
                    _ => format!("nsenter --net={folder}/{name} "),
                };
                return Ok((file, reach));
            }
        }
    }
    for process in names("/proc").iter().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())) {
        let path = format!("/proc/{process}/ns/net");
        if let Some(file) = is_it(&path) {
            return Ok((file, format!("nsenter --net={path} ")));
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

/// The longest IP packet that the other end of a veth may send for native XDP without several buffers: a page less the
/// kernel's room before and after the packet, and the Ethernet header (`veth_xdp_set` in `drivers/net/veth.c`).
pub(super) const MTU_MOST: u32 = 4096 - 256 - 320 - 14;

/// The same with several buffers: `MAX_SKB_FRAGS` pages more, of which any kernel has 17.
const MTU_MOST_OF_SEVERAL: u32 = MTU_MOST + 17 * 4096;

const NAME: &str = "other end";

pub(super) fn examine(facts: &Facts) -> Vec<Finding> {
    let topic = Topic::Interface;
    let name = &facts.name;
    match &facts.peer {
        None => Vec::new(),
        Some(Peer::Unseen { index }) => vec![
            Finding::better(
                topic,
                NAME,
                format!("interface {index} of a network namespace that cannot be looked into from here"),
                format!(
                    "what its kernel sends comes to {name} with unfinished checksums, unless it is told not to: say \
                     this there, with the name that the interface has there"
                ),
            )
            .mend(Remedy::command("ethtool -K INTERFACE tx off")),
        ],
        Some(Peer::Seen(seen)) => {
            vec![checksums(seen), segmentation(seen), vlan(seen), mtu(facts, seen), queues(facts, seen)]
        }
    }
}

fn checksums(peer: &Seen) -> Finding {
    const NAME: &str = "other end's checksums";
    let on = active(&peer.features, "tx-checksum-ip-generic").or(active(&peer.features, "tx-checksum-ipv4"));
    let Some(feature) = on else {
        return Finding::good(Topic::Interface, NAME, format!("{} finishes them before it sends", peer.name));
    };
    let what = format!("{} leaves those of TCP and UDP unfinished ({} is on)", peer.name, feature.name);
    let why = "what its own kernel sends is forwarded so, and whoever receives it drops it; packets that it has from \
               elsewhere are not concerned";
    let remedy = Remedy::command(format!("{}ethtool -K {} tx off", peer.reach, peer.name));
    Finding::fails(Topic::Interface, NAME, what, why).mend(remedy)
}

fn segmentation(peer: &Seen) -> Finding {
    const NAME: &str = "other end's segmentation";
    const OFFLOADS: [&str; 4] =
        ["tx-tcp-segmentation", "tx-tcp6-segmentation", "tx-generic-segmentation", "tx-udp-segmentation"];
    if OFFLOADS.iter().all(|name| active(&peer.features, name).is_none()) {
        return Finding::good(Topic::Interface, NAME, format!("{} sends no packet above its MTU", peer.name));
    }
    let what = format!("{} may send packets above its MTU", peer.name);
    let why = "with generic XDP they come whole, fit no frame, and go to the kernel; native XDP turns most of that off \
               while it is attached";
    let command = format!("{}ethtool -K {} tso off gso off tx-udp-segmentation off", peer.reach, peer.name);
    Finding::better(Topic::Interface, NAME, what, why).mend(Remedy::command(command))
}

fn vlan(peer: &Seen) -> Finding {
    const NAME: &str = "other end's VLAN tags";
    if active(&peer.features, "tx-vlan-hw-insert").is_none() {
        return Finding::good(Topic::Interface, NAME, "sent in the packet");
    }
    let what = format!("{} sends them beside the packet", peer.name);
    let why = "XDP does not see them: packets of its VLAN interfaces look untagged";
    let remedy = Remedy::command(format!("{}ethtool -K {} txvlan off", peer.reach, peer.name));
    Finding::better(Topic::Interface, NAME, what, why).mend(remedy)
}

fn mtu(facts: &Facts, peer: &Seen) -> Finding {
    const NAME: &str = "other end's MTU";
    let most = if facts.takes_long_packets() { MTU_MOST_OF_SEVERAL } else { MTU_MOST };
    if peer.mtu <= most {
        return Finding::good(Topic::Interface, NAME, format!("{} bytes", peer.mtu));
    }
    let what = format!("{} bytes, and native XDP takes at most {most}", peer.mtu);
    let why =
        "the kernel refuses native XDP here; with `attach = \"auto\"` generic XDP is used, which is slower";
    let remedy = Remedy::command(format!("{}ip link set {} mtu 1500", peer.reach, peer.name));
    Finding::fails(Topic::Interface, NAME, what, why).mend(remedy)
}

fn queues(facts: &Facts, peer: &Seen) -> Finding {
    const NAME: &str = "other end's queues";
    let sending = peer.channels.map_or(1, |channels| channels.tx_count + channels.combined_count);
    let receiving = facts.rx_queues();
    if sending <= receiving {
        let what = format!("it sends on {sending}, {receiving} receive here");
        return Finding::good(Topic::Interface, NAME, what);
    }
    let what = format!("it sends on {sending}, and only {receiving} receive here");
    let why =
        "the kernel refuses native XDP here; with `attach = \"auto\"` generic XDP is used, which is slower";
    let most = facts.channels.map_or(receiving, |channels| channels.max_rx.max(channels.max_combined));
    let command = if most >= sending {
        format!("ethtool -L {} rx {sending}", facts.name)
    } else {
        format!("{}ethtool -L {} tx {receiving}", peer.reach, peer.name)
    };
    Finding::fails(Topic::Interface, NAME, what, why).mend(Remedy::command(command))
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::super::facts::tests::{card, veth};
    use super::*;

    fn seen(facts: &mut Facts) -> &mut Seen {
        match &mut facts.peer {
            Some(Peer::Seen(seen)) => seen,
            other => panic!("{other:?}"),
        }
    }

    fn find(facts: &Facts, name: &str) -> Finding {
        examine(facts).into_iter().find(|finding| finding.name == name).unwrap()
    }

    #[test]
    fn a_veth_as_it_comes_has_unfinished_checksums() {
        assert_eq!(examine(&card()), []);
        let facts = veth();
        let checksums = find(&facts, "other end's checksums");
        assert_eq!(checksums.verdict, Verdict::WillNotWork);
        let remedy = checksums.remedy.unwrap();
        assert_eq!(remedy.command, "ip netns exec client ethtool -K eth1 tx off");
        // It is another host's interface.
        assert!(!remedy.is_safe());
        for name in ["other end's segmentation", "other end's VLAN tags"] {
            assert_eq!(find(&facts, name).verdict, Verdict::CouldBeBetter, "{name}");
        }
    }

    #[test]
    fn native_xdp_makes_demands_on_the_other_end() {
        let mut facts = veth();
        for name in ["other end's MTU", "other end's queues"] {
            assert_eq!(find(&facts, name).verdict, Verdict::Good, "{name}");
        }
        let peer = seen(&mut facts);
        peer.mtu = 9000;
        peer.channels = Some(Channels::separate(4, 4));
        assert_eq!(find(&facts, "other end's MTU").verdict, Verdict::WillNotWork);
        facts.link.mtu = 9000;
        assert_eq!(find(&facts, "other end's MTU").verdict, Verdict::Good);
        let queues = find(&facts, "other end's queues");
        assert_eq!(queues.verdict, Verdict::WillNotWork);
        assert_eq!(queues.remedy.unwrap().command, "ip netns exec client ethtool -L eth1 tx 1");
        facts.channels = Some(Channels::separate(1, 4));
        assert_eq!(find(&facts, "other end's queues").remedy.unwrap().command, "ethtool -L eth0 rx 4");
    }

    #[test]
    fn what_cannot_be_seen_is_said() {
        let mut facts = veth();
        facts.peer = Some(Peer::Unseen { index: 5 });
        let found = examine(&facts);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].verdict, Verdict::CouldBeBetter);
    }
}
