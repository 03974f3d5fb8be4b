//! Questions over netlink that have one answer, and the family `netdev`: what the kernel says of queues.

use std::io;

use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable as _, NLM_F_ACK, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader,
    NetlinkMessage, NetlinkPayload, NetlinkSerializable, NlasIterator,
};
use netlink_sys::protocols::NETLINK_GENERIC;
use netlink_sys::{Socket, SocketAddr};

/// `GENL_ID_CTRL`, `CTRL_CMD_GETFAMILY`, `CTRL_ATTR_FAMILY_ID` and `CTRL_ATTR_FAMILY_NAME` of `linux/genetlink.h`.
const CONTROL: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;

/// Attributes of a message, one after the other.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Attributes(Vec<u8>);

impl From<&[u8]> for Attributes {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

impl Attributes {
    /// One more.
    pub(crate) fn with(mut self, kind: u16, value: &[u8]) -> Self {
        let attribute = DefaultNla::new(kind, value.to_vec());
        let end = self.0.len();
        self.0.resize(end + attribute.buffer_len(), 0);
        attribute.emit(&mut self.0[end..]);
        self
    }

    /// The number in the first attribute of that kind: of up to eight bytes, in the machine's order.
    pub(crate) fn number(&self, kind: u16) -> Option<u64> {
        let found = NlasIterator::new(&self.0).flatten().find(|attribute| attribute.kind() == kind)?;
        match *found.value() {
            [a, b] => Some(u16::from_ne_bytes([a, b]).into()),
            [a, b, c, d] => Some(u32::from_ne_bytes([a, b, c, d]).into()),
            [a, b, c, d, e, f, g, h] => Some(u64::from_ne_bytes([a, b, c, d, e, f, g, h])),
            _ => None,
        }
    }
}

/// A message of a generic netlink family: `struct genlmsghdr`, then attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Generic {
    family: u16,
    command: u8,
    attributes: Attributes,
}

/// Bytes of `struct genlmsghdr`: command, version, two that are reserved.
const GENERIC_HEADER: usize = 4;

impl NetlinkSerializable for Generic {
    fn message_type(&self) -> u16 {
        self.family
    }

    fn buffer_len(&self) -> usize {
        GENERIC_HEADER + self.attributes.0.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer[..GENERIC_HEADER].copy_from_slice(&[self.command, 1, 0, 0]);
        buffer[GENERIC_HEADER..].copy_from_slice(&self.attributes.0);
    }
}

impl NetlinkDeserializable for Generic {
    type Error = DecodeError;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        let (head, attributes) = payload
            .split_at_checked(GENERIC_HEADER)
            .ok_or_else(|| DecodeError::buffer_too_small(payload.len(), GENERIC_HEADER))?;
        Ok(Self { family: header.message_type, command: head[0], attributes: attributes.into() })
    }
}

/// Sends a message on a socket of its own, and returns the first that comes back.
fn exchange<M>(protocol: isize, message: M, flags: u16) -> io::Result<NetlinkPayload<M>>
where
    M: NetlinkSerializable + NetlinkDeserializable,
{
    let mut socket = Socket::new(protocol)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut packet = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::InnerMessage(message));
    packet.header.flags = NLM_F_REQUEST | flags;
    packet.finalize();
    let mut bytes = vec![0; packet.buffer_len()];
    packet.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let (bytes, _) = socket.recv_from_full()?;
    let answer = NetlinkMessage::<M>::deserialize(&bytes)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
    match answer.payload {
        NetlinkPayload::Error(error) if error.code.is_some() => Err(error.to_io()),
        payload => Ok(payload),
    }
}

/// Asks a question, and returns the one message that answers.
pub(crate) fn ask<M>(protocol: isize, question: M) -> io::Result<M>
where
    M: NetlinkSerializable + NetlinkDeserializable,
{
    match exchange(protocol, question, 0)? {
        NetlinkPayload::InnerMessage(message) => Ok(message),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "netlink gives no answer")),
    }
}

/// The number that the family `netdev` has here.
fn family() -> io::Result<u16> {
    let name = Attributes::default().with(FAMILY_NAME, b"netdev\0");
    let question = Generic { family: CONTROL, command: GET_FAMILY, attributes: name };
    let answer = ask(NETLINK_GENERIC, question)?;
    answer.attributes.number(FAMILY_ID).map(|id| id as u16).ok_or(io::ErrorKind::InvalidData.into())
}

/// Asks the family `netdev`, of this thread's network namespace.
///
/// # Errors
/// [`io::ErrorKind::NotFound`] where the kernel (before 6.3) has no such family; what it answers otherwise.
pub(crate) fn netdev(command: u8, question: Attributes) -> io::Result<Attributes> {
    let question = Generic { family: family()?, command, attributes: question };
    Ok(ask(NETLINK_GENERIC, question)?.attributes)
}

/// Has the family `netdev` do something.
///
/// # Errors
/// As [`netdev`]'s.
pub(crate) fn netdev_set(command: u8, what: Attributes) -> io::Result<()> {
    exchange(NETLINK_GENERIC, Generic { family: family()?, command, attributes: what }, NLM_F_ACK).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_written_and_read() {
        let attributes = Attributes::default()
            .with(1, &7_u32.to_ne_bytes())
            .with(2, b"ab\0")
            .with(3, &9_u64.to_ne_bytes());
        assert_eq!([1, 3].map(|kind| attributes.number(kind)), [Some(7), Some(9)]);
        assert_eq!([2, 4].map(|kind| attributes.number(kind)), [None; 2]);
        assert_eq!(attributes.0.len(), 8 + 8 + 12);
    }
}
