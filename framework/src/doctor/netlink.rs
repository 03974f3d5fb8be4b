//! Questions over netlink: what a driver's XDP can do (family `netdev`), what an interface is, and which network namespace
//! its other end is in.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable as _, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader,
    NetlinkMessage, NetlinkPayload, NetlinkSerializable, NlasIterator,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};
use netlink_sys::protocols::{NETLINK_GENERIC, NETLINK_ROUTE};
use netlink_sys::{Socket, SocketAddr};

/// `GENL_ID_CTRL`, `CTRL_CMD_GETFAMILY`, `CTRL_ATTR_FAMILY_ID` and `CTRL_ATTR_FAMILY_NAME` of `linux/genetlink.h`.
const CONTROL: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;

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
    /// `NETDEV_XDP_RX_METADATA_*`: time, hash, VLAN tag.
    pub(super) metadata: u64,
}

impl XdpFeatures {
    pub(super) fn can(&self, actions: u64) -> bool {
        self.actions & actions == actions
    }

    fn parse(attributes: &[u8]) -> Self {
        let number = |kind| attribute(attributes, kind).map_or(0, |bytes| number(&bytes));
        Self {
            actions: number(XDP_FEATURES),
            zero_copy_segments: number(XDP_ZC_MAX_SEGS) as u32,
            metadata: number(XDP_RX_METADATA),
        }
    }
}

/// A message of a generic netlink family: `struct genlmsghdr`, then attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Generic {
    family: u16,
    command: u8,
    attributes: Vec<u8>,
}

/// Bytes of `struct genlmsghdr`: command, version, two that are reserved.
const GENERIC_HEADER: usize = 4;

impl Generic {
    fn ask(family: u16, command: u8, kind: u16, value: Vec<u8>) -> Self {
        let attribute = DefaultNla::new(kind, value);
        let mut attributes = vec![0; attribute.buffer_len()];
        attribute.emit(&mut attributes);
        Self { family, command, attributes }
    }
}

impl NetlinkSerializable for Generic {
    fn message_type(&self) -> u16 {
        self.family
    }

    fn buffer_len(&self) -> usize {
        GENERIC_HEADER + self.attributes.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer[..GENERIC_HEADER].copy_from_slice(&[self.command, 1, 0, 0]);
        buffer[GENERIC_HEADER..].copy_from_slice(&self.attributes);
    }
}

impl NetlinkDeserializable for Generic {
    type Error = DecodeError;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        let (head, attributes) = payload
            .split_at_checked(GENERIC_HEADER)
            .ok_or_else(|| DecodeError::buffer_too_small(payload.len(), GENERIC_HEADER))?;
        Ok(Self { family: header.message_type, command: head[0], attributes: attributes.to_vec() })
    }
}

/// The value of the first attribute of that kind.
fn attribute(attributes: &[u8], kind: u16) -> Option<Vec<u8>> {
    let found = NlasIterator::new(attributes).flatten().find(|attribute| attribute.kind() == kind)?;
    Some(found.value().to_vec())
}

/// A number of up to eight bytes, in the machine's order.
fn number(bytes: &[u8]) -> u64 {
    match *bytes {
        [a, b] => u16::from_ne_bytes([a, b]).into(),
        [a, b, c, d] => u32::from_ne_bytes([a, b, c, d]).into(),
        [a, b, c, d, e, f, g, h] => u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
        _ => 0,
    }
}

/// Asks one question on a socket of its own, and returns the one message that answers.
fn ask<M>(protocol: isize, question: M) -> io::Result<M>
where
    M: NetlinkSerializable + NetlinkDeserializable,
{
    let mut socket = Socket::new(protocol)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut packet = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::InnerMessage(question));
    packet.header.flags = NLM_F_REQUEST;
    packet.finalize();
    let mut bytes = vec![0; packet.buffer_len()];
    packet.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let (bytes, _) = socket.recv_from_full()?;
    let answer = NetlinkMessage::<M>::deserialize(&bytes)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
    match answer.payload {
        NetlinkPayload::InnerMessage(message) => Ok(message),
        NetlinkPayload::Error(error) if error.code.is_some() => Err(error.to_io()),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "netlink gives no answer")),
    }
}

/// What the driver of an interface says of its XDP.
///
/// # Errors
/// [`io::ErrorKind::NotFound`] where the kernel (before 6.3) has no family `netdev`; what it answers otherwise.
pub(super) fn xdp_features(index: u32) -> io::Result<XdpFeatures> {
    let family = ask(NETLINK_GENERIC, Generic::ask(CONTROL, GET_FAMILY, FAMILY_NAME, b"netdev\0".to_vec()))?;
    let family = attribute(&family.attributes, FAMILY_ID).map_or(0, |bytes| number(&bytes) as u16);
    let question = Generic::ask(family, DEVICE_GET, IFINDEX, index.to_ne_bytes().to_vec());
    Ok(XdpFeatures::parse(&ask(NETLINK_GENERIC, question)?.attributes))
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
        let features = XdpFeatures::parse(&CARD);
        assert_eq!(features, XdpFeatures { actions: 0x2b, zero_copy_segments: 5, metadata: 3 });
        assert!(features.can(BASIC | REDIRECT) && features.can(ZERO_COPY) && features.can(RX_SG));
        assert_eq!(XdpFeatures::parse(&CARD[..11]), XdpFeatures::default(), "cut short");
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
