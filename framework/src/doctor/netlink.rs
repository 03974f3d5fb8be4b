//! Questions over netlink: what a driver's XDP can do (family `netdev`), what an interface is, and which network namespace
//! its other end is in.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};
use netlink_sys::protocols::NETLINK_ROUTE;

use crate::machine::netlink::{Attributes, ask, netdev};

/// `NETDEV_CMD_DEV_GET` and attributes `NETDEV_A_DEV_*` of `linux/netdev.h`.
const DEVICE_GET: u8 = 1;
const IFINDEX: u16 = 1;
const XDP_FEATURES: u16 = 3;
const XDP_ZC_MAX_SEGS: u16 = 4;
const XDP_RX_METADATA: u16 = 5;

/// `NETDEV_XDP_ACT_*` of `linux/netdev.h`.
pub(super) const BASIC: u64 = 1;
pub(super) const REDIRECT: u64 = 2;
pub(super) const ZERO_COPY: u64 = 8;
pub(super) const RX_SG: u64 = 32;

/// What the XDP of an interface's driver can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct XdpFeatures {
    /// `NETDEV_XDP_ACT_*`.
    pub(super) actions: u64,
    /// Buffers of a packet in zero-copy mode.
    pub(super) zero_copy_segments: u32,
    /// `NETDEV_XDP_RX_METADATA_*`: time, hash, VLAN tag. None where the kernel does not tell (before 6.7).
    pub(super) metadata: Option<u64>,
}

impl XdpFeatures {
    pub(super) fn can(&self, actions: u64) -> bool {
        self.actions & actions == actions
    }

    fn parse(attributes: &Attributes) -> Self {
        let number = |kind| attributes.number(kind).unwrap_or(0);
        Self {
            actions: number(XDP_FEATURES),
            zero_copy_segments: number(XDP_ZC_MAX_SEGS) as u32,
            metadata: attributes.number(XDP_RX_METADATA),
        }
    }
}

/// What the driver of an interface says of its XDP.
///
/// # Errors
/// [`io::ErrorKind::NotFound`] where the kernel (before 6.3) has no family `netdev`; what it answers otherwise.
pub(super) fn xdp_features(index: u32) -> io::Result<XdpFeatures> {
    let question = Attributes::default().with(IFINDEX, &index.to_ne_bytes());
    Ok(XdpFeatures::parse(&netdev(DEVICE_GET, question)?))
}

/// What `ip link show` says of an interface.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Link {
    pub(super) name: String,
    /// `veth`, `bridge`; empty for a card.
    pub(super) kind: String,
    pub(super) is_up: bool,
    pub(super) has_carrier: bool,
    pub(super) mtu: u32,
    /// The index of the interface that this one belongs to or leads to.
    pub(super) other: Option<u32>,
    /// This namespace's number of the one that the other is in, where it is not this one.
    pub(super) other_namespace: Option<i32>,
}

/// An interface of this thread's network namespace.
///
/// # Errors
/// The kernel's.
pub(super) fn link(index: u32) -> io::Result<Link> {
    let mut question = LinkMessage::default();
    question.header.index = index;
    let RouteNetlinkMessage::NewLink(answer) = ask(NETLINK_ROUTE, RouteNetlinkMessage::GetLink(question))?
    else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let flags = answer.header.flags;
    let mut link = Link {
        is_up: flags.contains(LinkFlags::Up),
        has_carrier: flags.contains(LinkFlags::LowerUp),
        ..Link::default()
    };
    for attribute in answer.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Link(other) if other != 0 && other != index => link.other = Some(other),
            LinkAttribute::LinkNetNsId(namespace) => link.other_namespace = Some(namespace),
            LinkAttribute::LinkInfo(infos) => {
                let kind = infos.iter().find_map(|info| match info {
                    LinkInfo::Kind(InfoKind::Other(kind)) => Some(kind.clone()),
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
                link.kind = kind.unwrap_or_default();
            }
            _ => {}
        }
    }
    // The index of a veth's other end may be the same as its own, where that is in another namespace.
    if link.kind == "veth" && link.other.is_none() && link.other_namespace.is_some() {
        link.other = Some(index);
    }
    Ok(link)
}

/// This thread's network namespace's number of another one; None where it has none for it.
///
/// # Errors
/// The kernel's.
pub(super) fn namespace_number(namespace: &File) -> io::Result<Option<i32>> {
    let mut question = NsidMessage::default();
    question.attributes.push(NsidAttribute::Fd(namespace.as_raw_fd() as u32));
    let RouteNetlinkMessage::NewNsId(answer) = ask(NETLINK_ROUTE, RouteNetlinkMessage::GetNsId(question))?
    else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    Ok(answer.attributes.into_iter().find_map(|attribute| match attribute {
        NsidAttribute::Id(number) if number >= 0 => Some(number),
        _ => None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Linux 6.18 says of a card whose driver has zero-copy: header left out.
    const CARD: [u8; 52] = [
        8, 0, 1, 0, 2, 0, 0, 0, // the index
        12, 0, 5, 0, 3, 0, 0, 0, 0, 0, 0, 0, // metadata: time and hash
        12, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, // what sockets can have
        12, 0, 3, 0, 0x2b, 0, 0, 0, 0, 0, 0, 0, // features
        8, 0, 4, 0, 5, 0, 0, 0, // segments
    ];

    #[test]
    fn features_are_read() {
        let parse = |bytes: &[u8]| XdpFeatures::parse(&Attributes::from(bytes));
        let features = parse(&CARD);
        assert_eq!(features, XdpFeatures { actions: 0x2b, zero_copy_segments: 5, metadata: Some(3) });
        assert!(features.can(BASIC | REDIRECT) && features.can(ZERO_COPY) && features.can(RX_SG));
        assert_eq!(parse(&CARD[..11]), XdpFeatures::default(), "cut short");
    }

    #[test]
    fn the_kernel_answers_for_loopback() {
        let link = link(1).unwrap();
        assert_eq!((link.name.as_str(), link.kind.as_str(), link.other), ("lo", "", None));
        match xdp_features(1) {
            Ok(features) => assert!(!features.can(BASIC), "{features:?}"),
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::ENOENT)),
        }
        let own = File::open("/proc/thread-self/ns/net").unwrap();
        // A namespace may have a number for itself.
        namespace_number(&own).unwrap();
        assert!(super::link(u32::MAX >> 1).is_err());
    }
}
