//! Offloads of an interface, and whether the kernel has AF_XDP at all.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use super::interface::{ETHTOOL_GSTRINGS, NAME, ethtool, text};

/// `ETHTOOL_GSSET_INFO`, `ETHTOOL_GFEATURES` and `ETHTOOL_SFEATURES` of `linux/ethtool.h`, and the set of strings that
/// names the features.
const ETHTOOL_GSSET_INFO: u32 = 0x37;
const ETHTOOL_GFEATURES: u32 = 0x3a;
const ETHTOOL_SFEATURES: u32 = 0x3b;
const ETH_SS_FEATURES: u32 = 4;
/// Features are kept in blocks of 32 bits. The kernel has two of them, and its type for them has room for no more.
const BLOCKS: usize = 8;
const FEATURES: usize = BLOCKS * 32;

/// `struct ethtool_sset_info`, asked for one set.
#[repr(C)]
struct SetInfo {
    cmd: u32,
    reserved: u32,
    mask: u64,
    count: u32,
}

/// `struct ethtool_gstrings` with room for the names of features.
#[repr(C)]
struct Names {
    cmd: u32,
    set: u32,
    count: u32,
    names: [[u8; NAME]; FEATURES],
}

/// `struct ethtool_get_features_block`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct State {
    available: u32,
    requested: u32,
    active: u32,
    never_changed: u32,
}

/// `struct ethtool_gfeatures`.
#[repr(C)]
struct States {
    cmd: u32,
    blocks: u32,
    states: [State; BLOCKS],
}

/// `struct ethtool_sfeatures`: for each block, which features are meant, and what is wanted of them.
#[repr(C)]
struct Wanted {
    cmd: u32,
    blocks: u32,
    wanted: [[u32; 2]; BLOCKS],
}

/// An offload of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Feature {
    /// The kernel's number of it.
    number: usize,
    /// The kernel's name of it: `rx-lro`.
    pub(crate) name: String,
    pub(crate) active: bool,
    /// Whether the driver can turn it on and off.
    pub(crate) changeable: bool,
}

#[cfg(test)]
impl Feature {
    pub(crate) fn of(name: &str, active: bool, changeable: bool) -> Self {
        Self { number: 0, name: name.into(), active, changeable }
    }
}

/// The offloads of an interface, in the kernel's order.
///
/// # Errors
/// The kernel's.
pub(crate) fn features(interface: &str) -> io::Result<Vec<Feature>> {
    let mut info = SetInfo { cmd: ETHTOOL_GSSET_INFO, reserved: 0, mask: 1 << ETH_SS_FEATURES, count: 0 };
    // SAFETY: the structure of ETHTOOL_GSSET_INFO, which asks for one number.
    unsafe { ethtool(interface, &mut info) }?;
    if info.mask == 0 || info.count as usize > FEATURES {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let mut names = Box::new(Names {
        cmd: ETHTOOL_GSTRINGS,
        set: ETH_SS_FEATURES,
        count: info.count,
        names: [[0; NAME]; FEATURES],
    });
    // SAFETY: the structure of ETHTOOL_GSTRINGS. How many names there are is fixed when the kernel is built, and
    // checked above.
    unsafe { ethtool(interface, &mut *names) }?;
    let states = states(interface)?;
    let feature = |(number, name): (usize, &[u8; NAME])| {
        let (state, bit) = (states.states[number / 32], 1 << (number % 32));
        Feature {
            number,
            name: text(name),
            active: state.active & bit != 0,
            changeable: state.available & !state.never_changed & bit != 0,
        }
    };
    let named = names.names.iter().take(names.count.min(info.count) as usize).enumerate();
    Ok(named.map(feature).filter(|feature| !feature.name.is_empty()).collect())
}

/// What each feature is like, and how many blocks of them the kernel has.
fn states(interface: &str) -> io::Result<States> {
    let mut states =
        States { cmd: ETHTOOL_GFEATURES, blocks: BLOCKS as u32, states: [State::default(); BLOCKS] };
    // SAFETY: the structure of ETHTOOL_GFEATURES, with room for as many blocks as it says.
    unsafe { ethtool(interface, &mut states) }?;
    Ok(states)
}

/// Turns an offload on or off, by the kernel's name of it.
///
/// # Errors
/// The kernel's; [`io::ErrorKind::NotFound`] where it knows none of that name, [`io::ErrorKind::Unsupported`] where the
/// driver has left it as it was.
pub(crate) fn set_feature(interface: &str, name: &str, on: bool) -> io::Result<()> {
    let found = features(interface)?.into_iter().find(|feature| feature.name == name);
    let number = found.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?.number;
    // The kernel takes just as many blocks as it has.
    let blocks = states(interface)?.blocks;
    let mut wanted = Wanted { cmd: ETHTOOL_SFEATURES, blocks, wanted: [[0; 2]; BLOCKS] };
    let bit = 1 << (number % 32);
    wanted.wanted[number / 32] = [bit, if on { bit } else { 0 }];
    // SAFETY: the structure of ETHTOOL_SFEATURES, which the kernel reads.
    unsafe { ethtool(interface, &mut wanted) }?;
    let is_as_wanted = |feature: &Feature| feature.name == name && feature.active == on;
    if features(interface)?.iter().any(is_as_wanted) {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::Unsupported, "the driver has left it as it was"))
}

/// `ETHTOOL_GRXFHINDIR` and `ETHTOOL_SRXFHINDIR` of `linux/ethtool.h`, and the most places of a table that are read: more
/// than any driver has.
const ETHTOOL_GRXFHINDIR: u32 = 0x38;
const ETHTOOL_SRXFHINDIR: u32 = 0x39;
const PLACES: usize = 4096;

/// `struct ethtool_rxfh_indir`: the queue that each value of the hash leads to.
#[repr(C)]
struct Indirection {
    cmd: u32,
    size: u32,
    queues: [u32; PLACES],
}

/// The table by which a card spreads packets over its queues; None where it has none, or does not show it.
///
/// # Errors
/// The kernel's.
pub(crate) fn indirection(interface: &str) -> io::Result<Option<Vec<u32>>> {
    let mut table = Box::new(Indirection { cmd: ETHTOOL_GRXFHINDIR, size: 0, queues: [0; PLACES] });
    // SAFETY: the structure of ETHTOOL_GRXFHINDIR, which with a size of 0 asks for the size alone.
    match unsafe { ethtool(interface, &mut *table) } {
        Ok(()) if table.size == 0 || table.size as usize > PLACES => return Ok(None),
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => return Ok(None),
        Err(error) => return Err(error),
    }
    let size = table.size as usize;
    // SAFETY: the structure of ETHTOOL_GRXFHINDIR, with room for as many places as it says.
    unsafe { ethtool(interface, &mut *table) }?;
    Ok(Some(table.queues[..size.min(table.size as usize)].to_vec()))
}

/// Has a card spread packets by a table with as many places as its own has; without any, as it does by itself.
///
/// # Errors
/// The kernel's: where the table has another size, or names a queue that is not there.
pub(crate) fn set_indirection(interface: &str, places: &[u32]) -> io::Result<()> {
    let mut table =
        Box::new(Indirection { cmd: ETHTOOL_SRXFHINDIR, size: places.len() as u32, queues: [0; PLACES] });
    table.queues.get_mut(..places.len()).ok_or(io::ErrorKind::InvalidInput)?.copy_from_slice(places);
    // SAFETY: the structure of ETHTOOL_SRXFHINDIR, of which the kernel reads as many places as it says.
    unsafe { ethtool(interface, &mut *table) }
}

/// `ETHTOOL_GRSSH` and `ETHTOOL_SRSSH` of `linux/ethtool.h`, and the most bytes of a key that are read: more than any
/// driver has.
const ETHTOOL_GRSSH: u32 = 0x46;
const ETHTOOL_SRSSH: u32 = 0x47;
const KEY: usize = 256;
/// `ETH_RXFH_INDIR_NO_CHANGE`: the table stays. A hash function of 0 stays too (`ETH_RSS_HASH_NO_CHANGE`).
const TABLE_STAYS: u32 = u32::MAX;

/// `struct ethtool_rxfh` with room for a key, and none for a table.
#[repr(C)]
struct Hash {
    cmd: u32,
    context: u32,
    places: u32,
    key_size: u32,
    function: u8,
    /// Since 6.8; before, it has to be 0.
    transformation: u8,
    reserved: [u8; 6],
    key: [u8; KEY],
}

/// The hash of a card that has a key, and the key; None where it has none, or does not show it.
fn hash(interface: &str) -> io::Result<Option<Hash>> {
    let mut hash = Hash {
        cmd: ETHTOOL_GRSSH,
        context: 0,
        places: 0,
        key_size: 0,
        function: 0,
        transformation: 0,
        reserved: [0; 6],
        key: [0; KEY],
    };
    // SAFETY: the structure of ETHTOOL_GRSSH, which with sizes of 0 asks for the sizes alone.
    match unsafe { ethtool(interface, &mut hash) } {
        Ok(()) if hash.key_size == 0 || hash.key_size as usize > KEY => return Ok(None),
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => return Ok(None),
        Err(error) => return Err(error),
    }
    hash.places = 0;
    // SAFETY: the structure of ETHTOOL_GRSSH, with room for as many bytes of a key as it says, and for no table.
    unsafe { ethtool(interface, &mut hash) }?;
    Ok(Some(hash))
}

/// The key that a card hashes packets with, by which its table spreads them; None where it has none, or does not show it.
///
/// # Errors
/// The kernel's.
pub(crate) fn hash_key(interface: &str) -> io::Result<Option<Vec<u8>>> {
    Ok(hash(interface)?.map(|hash| hash.key[..hash.key_size as usize].to_vec()))
}

/// Has a card hash packets with a key as long as its own.
///
/// # Errors
/// The kernel's; [`io::ErrorKind::Unsupported`] where it has no key, [`io::ErrorKind::InvalidInput`] for one of another
/// length.
pub(crate) fn set_hash_key(interface: &str, key: &[u8]) -> io::Result<()> {
    let mut hash = hash(interface)?.ok_or(io::ErrorKind::Unsupported)?;
    if key.len() != hash.key_size as usize {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    hash.key[..key.len()].copy_from_slice(key);
    // What is made of addresses before they are hashed stays as it was read.
    (hash.cmd, hash.places, hash.function) = (ETHTOOL_SRSSH, TABLE_STAYS, 0);
    // SAFETY: the structure of ETHTOOL_SRSSH, of which the kernel reads as many bytes of a key as it says, and no table.
    unsafe { ethtool(interface, &mut hash) }
}

/// Whether the kernel has AF_XDP sockets; a process that lacks the rights for one is told so by an error of its own.
///
/// # Errors
/// The kernel's.
pub(crate) fn open_af_xdp() -> io::Result<()> {
    // SAFETY: a plain socket call; the descriptor that it returns is ours alone, and closed at once.
    unsafe {
        let fd = libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        drop(OwnedFd::from_raw_fd(fd));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_has_offloads() {
        let features = features("lo").unwrap();
        let find = |name: &str| features.iter().find(|feature| feature.name == name).unwrap();
        assert!(find("rx-gro").changeable, "{features:?}");
        // It is its own sender: what it does not finish, nobody misses.
        assert!(!find("tx-checksum-ip-generic").changeable && find("tx-checksum-ip-generic").active);
        assert!(super::features("no-such-link").is_err());
        assert_eq!(set_feature("lo", "no-such-feature", true).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
