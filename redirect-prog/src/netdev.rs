//! What a driver says of its XDP that libbpf does not ask for: the kernel's generic netlink family `netdev`.

use std::io;

use crate::earlier::{attribute, exchange, netlink};
use crate::metadata::Kinds;

/// `GENL_ID_CTRL`, `CTRL_CMD_GETFAMILY`, `CTRL_ATTR_FAMILY_ID` and `CTRL_ATTR_FAMILY_NAME` of `linux/genetlink.h`.
const CONTROL: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;

/// `NETDEV_CMD_DEV_GET`, `NETDEV_A_DEV_IFINDEX` and `NETDEV_A_DEV_XDP_RX_METADATA_FEATURES` of `linux/netdev.h`.
const DEVICE_GET: u8 = 1;
const IFINDEX: u16 = 1;
const RX_METADATA: u16 = 5;

/// Bytes of `struct nlmsghdr` and of `struct genlmsghdr`.
const HEADER: usize = 16;
const GENERIC: usize = 4;

/// What metadata the driver of an interface has. None where the kernel (before 6.7) does not say.
pub(crate) fn rx_metadata(ifindex: u32) -> io::Result<Option<Kinds>> {
    let family = ask(CONTROL, GET_FAMILY, attribute(FAMILY_NAME, b"netdev\0"))?;
    let family = find(&family, FAMILY_ID).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
    let family = family.ok_or(io::ErrorKind::NotFound)?;
    let device = ask(family, DEVICE_GET, attribute(IFINDEX, &ifindex.to_ne_bytes()))?;
    let bits = find(&device, RX_METADATA).and_then(|bytes| bytes.try_into().ok()).map(u64::from_ne_bytes);
    Ok(bits.map(Kinds::from_bits))
}

/// Asks one question, and returns the attributes of the answer.
fn ask(family: u16, command: u8, attribute: Vec<u8>) -> io::Result<Vec<u8>> {
    let mut message = Vec::new();
    message.extend(((HEADER + GENERIC + attribute.len()) as u32).to_ne_bytes());
    message.extend(family.to_ne_bytes());
    message.extend((libc::NLM_F_REQUEST as u16).to_ne_bytes());
    // Sequence number and port: one question is answered before the next, on a socket of its own.
    message.extend([0; 8]);
    message.extend([command, 1, 0, 0]);
    message.extend(attribute);
    let answer = exchange(&netlink(libc::NETLINK_GENERIC)?, &message)?;
    match answer.get(4..6) {
        Some(&[a, b]) if u16::from_ne_bytes([a, b]) == family => {
            Ok(answer.get(HEADER + GENERIC..).unwrap_or_default().to_vec())
        }
        _ => Err(io::ErrorKind::NotFound.into()),
    }
}

/// The value of the first attribute of that kind.
fn find(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    /// Bytes of `struct nlattr`, to a multiple of which attributes are padded.
    const HEAD: usize = 4;
    loop {
        let &[l0, l1, k0, k1] = attributes.first_chunk()?;
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = attributes.get(HEAD..length)?;
        if u16::from_ne_bytes([k0, k1]) == wanted {
            return Some(value);
        }
        attributes = attributes.get(length.next_multiple_of(HEAD)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attribute_is_found_behind_others_and_none_where_lengths_are_wrong() {
        let attributes = [attribute(1, b"netdev\0"), attribute(5, &7u64.to_ne_bytes())].concat();
        assert_eq!(find(&attributes, 1), Some(&b"netdev\0"[..]));
        assert_eq!(find(&attributes, 5), Some(&7u64.to_ne_bytes()[..]));
        assert_eq!(find(&attributes, 2), None);
        for length in 0..attributes.len() {
            assert_eq!(find(&attributes[..length], 5), None);
        }
        assert_eq!(find(&[0; 64], 5), None);
    }

    #[test]
    fn an_interface_that_is_not_there_is_an_error() {
        assert!(rx_metadata(u32::MAX).is_err());
    }
}
