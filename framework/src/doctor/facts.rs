//! What is asked of an interface, all of it at once, so that what is made of it can be tested on what others have said.

use std::io;

use afx_redirect::Occupant;
use nix::net::if_::{if_nameindex, if_nametoindex};

use super::interface::fits;
use super::netlink::{self, BASIC, Link, REDIRECT, XdpFeatures, ZERO_COPY};
use super::peer::Peer;
use super::{Error, Overview, Result};
use crate::settings::Setting;
use crate::xsk::ethtool::{self, Feature};
use crate::xsk::interface::{self, Channels, Rings};

/// An interface, as it was when asked.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    pub(super) name: String,
    pub(super) index: u32,
    pub(super) link: Link,
    /// The driver's name, else the kind of interface; empty where neither is known.
    pub(super) driver: String,
    pub(super) channels: Option<Channels>,
    pub(super) rings: Option<Rings>,
    /// The table and the key of RSS in words, where the driver shows them.
    pub(super) table: Option<String>,
    pub(super) key: Option<String>,
    /// Interrupts are put off for each queue, whatever holds for the interface.
    pub(super) deferred: bool,
    pub(super) features: Vec<Feature>,
    /// None where the kernel does not say.
    pub(super) xdp: Option<XdpFeatures>,
    pub(super) occupant: Option<Occupant>,
    /// The other end of a veth.
    pub(super) peer: Option<Peer>,
}

impl Facts {
    pub(super) fn gather(name: &str) -> Result<Self> {
        let asked = |what: &str, source| Error::Kernel { what: format!("interface {name}: {what}"), source };
        let index = if_nametoindex(name).map_err(|errno| asked("asking for its index", errno.into()))?;
        let link = netlink::link(index).map_err(|source| asked("asking for its state", source))?;
        let driver = driver(name, &link);
        let peer = Peer::find(&link);
        Ok(Self {
            name: name.to_owned(),
            index,
            driver,
            // Drivers answer all kinds of errors: what they do not say is not known.
            channels: interface::channels(name).ok().flatten(),
            rings: interface::rings(name).ok().flatten(),
            table: shown(&Setting::Spread, name),
            key: shown(&Setting::Key, name),
            deferred: (0..interface::rx_queues(name).unwrap_or(1)).all(|queue| is_deferred(name, queue)),
            features: ethtool::features(name).unwrap_or_default(),
            xdp: netlink::xdp_features(index).ok(),
            occupant: afx_redirect::occupant(index),
            link,
            peer,
        })
    }

    pub(super) fn overview(name: &str) -> io::Result<Overview> {
        let index = if_nametoindex(name)?;
        let link = netlink::link(index)?;
        Ok(Overview {
            name: name.to_owned(),
            driver: driver(name, &link),
            is_up: link.is_up,
            rx_queues: interface::rx_queues(name).unwrap_or(1),
            mtu: link.mtu,
            xdp: in_words(netlink::xdp_features(index).ok()),
            program: afx_redirect::occupant(index).map(|occupant| occupant.to_string()),
        })
    }

    /// Whether an offload is on, by the kernel's name of it.
    pub(super) fn active(&self, name: &str) -> Option<&Feature> {
        active(&self.features, name)
    }

    pub(super) fn rx_queues(&self) -> u32 {
        self.channels.map_or(1, |channels| (channels.rx_count + channels.combined_count).max(1))
    }

    /// Whether the driver runs XDP programs; not known where the kernel does not say.
    pub(super) fn is_native(&self) -> Option<bool> {
        self.xdp.map(|xdp| xdp.can(BASIC | REDIRECT))
    }

    /// Whether a port takes packets that are longer than a frame, unless told otherwise.
    pub(super) fn takes_long_packets(&self) -> bool {
        self.link.mtu > fits(self)
    }
}

pub(super) fn active<'f>(features: &'f [Feature], name: &str) -> Option<&'f Feature> {
    features.iter().find(|feature| feature.name == name && feature.active)
}

fn shown(setting: &Setting, name: &str) -> Option<String> {
    setting.read(name).ok().map(|value| setting.shown(&value))
}

fn is_deferred(name: &str, queue: u32) -> bool {
    let values = Setting::Defer { queue }.read(name);
    values.is_ok_and(|values| values.split_whitespace().all(|value| value != "0"))
}

fn driver(name: &str, link: &Link) -> String {
    let driver = interface::driver(name).unwrap_or_default();
    if driver.is_empty() { link.kind.clone() } else { driver }
}

fn in_words(xdp: Option<XdpFeatures>) -> String {
    match xdp {
        None => "not known".into(),
        Some(xdp) if !xdp.can(BASIC | REDIRECT) => "generic".into(),
        Some(xdp) if !xdp.can(ZERO_COPY) => "native, copy".into(),
        Some(_) => "native, zero-copy".into(),
    }
}

/// The names of all interfaces of this thread's network namespace.
pub(super) fn interfaces() -> Result<Vec<String>> {
    let all = if_nameindex()
        .map_err(|errno| Error::Kernel { what: "listing the interfaces".into(), source: errno.into() })?;
    Ok(all.iter().map(|interface| interface.name().to_string_lossy().into_owned()).collect())
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::peer::Seen;
    use super::*;

    fn link(name: &str, kind: &str) -> Link {
        let (name, kind) = (name.to_owned(), kind.to_owned());
        Link { name, kind, is_up: true, has_carrier: true, mtu: 1500, ..Link::default() }
    }

    fn facts(name: &str, driver: &str, kind: &str, actions: u64) -> Facts {
        Facts {
            name: name.into(),
            index: 2,
            link: link(name, kind),
            driver: driver.into(),
            channels: None,
            rings: None,
            table: None,
            key: None,
            deferred: false,
            features: Vec::new(),
            xdp: Some(XdpFeatures { actions, metadata: Some(0), ..XdpFeatures::default() }),
            occupant: None,
            peer: None,
        }
    }

    /// A card with zero-copy (ice), as it comes.
    pub(crate) fn card() -> Facts {
        Facts {
            channels: Some(Channels::combined(8, 16)),
            rings: Some(Rings::of((2048, 8160), (256, 8160))),
            table: Some("queues 0-7".into()),
            key: Some("1fa2…, 52 bytes".into()),
            features: vec![
                Feature::of("rx-gro", true, true),
                Feature::of("rx-lro", false, false),
                Feature::of("rx-vlan-hw-parse", true, true),
            ],
            xdp: Some(XdpFeatures { actions: 0x2b, zero_copy_segments: 5, metadata: Some(3) }),
            ..facts("enp1s0", "ice", "", 0)
        }
    }

    /// A veth as `ip link add` makes it, its other end in a named namespace.
    pub(crate) fn veth() -> Facts {
        let sending =
            ["tx-checksum-ip-generic", "tx-tcp-segmentation", "tx-generic-segmentation", "tx-vlan-hw-insert"];
        let peer = Seen {
            name: "eth1".into(),
            reach: "ip netns exec client ".into(),
            mtu: 1500,
            channels: Some(Channels::separate(1, 1)),
            features: sending.map(|name| Feature::of(name, true, true)).into(),
        };
        Facts {
            channels: Some(Channels::separate(1, 1)),
            features: vec![Feature::of("rx-gro", true, true), Feature::of("rx-vlan-hw-parse", true, true)],
            peer: Some(Peer::Seen(peer)),
            ..facts("eth0", "veth", "veth", 0x23)
        }
    }

    /// The card of a virtual machine whose host joins packets, as Firecracker gives it.
    pub(crate) fn virtio() -> Facts {
        Facts {
            channels: Some(Channels::combined(1, 1)),
            rings: Some(Rings::of((256, 256), (256, 256))),
            features: vec![Feature::of("rx-gro", true, true), Feature::of("rx-gro-hw", true, false)],
            ..facts("eth0", "virtio_net", "", 0x3)
        }
    }

    /// A bridge: no native XDP.
    pub(crate) fn bridge() -> Facts {
        Facts { features: vec![Feature::of("rx-gro", true, true)], ..facts("br0", "bridge", "bridge", 0) }
    }

    /// A card on Linux 6.1, where drivers do not say what they can do.
    pub(crate) fn old_kernel() -> Facts {
        Facts { xdp: None, ..card() }
    }

    #[test]
    fn what_xdp_there_is_is_said_in_two_words() {
        let words = [card(), veth(), bridge(), old_kernel()].map(|facts| in_words(facts.xdp));
        assert_eq!(words, ["native, zero-copy", "native, copy", "generic", "not known"]);
    }
}
