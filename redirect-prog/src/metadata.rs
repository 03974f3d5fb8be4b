//! What the card knows of a packet beside its bytes: asked of the driver by the redirect program, which is bound to the
//! interface's device for it, and noted before the packet.

use std::fmt;
use std::fs::File;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt as _;

use crate::error::Error;
use crate::load::PROGRAM;
use crate::netdev;
use crate::program::load_error;

/// Whether the redirect program notes what the card knows of a packet: [`Note`].
///
/// The kernel does it from Linux 6.3 on, packets of several frames from 6.7 on, and VLAN tags from 6.8 on; in native mode, and where no other program is
/// chained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum RxMetadata {
    /// Not: it costs some time for each packet.
    #[default]
    Off,
    /// Where the kernel and the driver can.
    Auto,
    /// Or an error.
    On,
}

/// Kinds of metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Kinds(u32);

impl Kinds {
    /// When the card received the packet.
    pub const TIMESTAMP: Self = Self(1);
    /// The card's hash of the flow.
    pub const HASH: Self = Self(2);
    /// The VLAN tag that the card took off.
    pub const VLAN_TAG: Self = Self(4);
    const ALL: Self = Self(7);

    /// Those of a word whose bits are numbered as the kernel's `NETDEV_XDP_RX_METADATA_*`.
    pub fn from_bits(bits: u64) -> Self {
        Self(bits as u32 & Self::ALL.0)
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether all of `others` are among them.
    #[inline]
    pub fn contain(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }

    pub(crate) fn bits(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Kinds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = [(Self::HASH, "hash"), (Self::TIMESTAMP, "timestamp"), (Self::VLAN_TAG, "VLAN tag")];
        let names: Vec<_> =
            named.iter().filter(|(kind, _)| self.contain(*kind)).map(|(_, name)| *name).collect();
        f.write_str(&names.join(", "))
    }
}

/// Why nothing is noted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NoMetadata {
    /// A program that is bound to a device may call no other.
    #[error(
        "another program is chained, and the kernel lets no program that reads metadata call another: replace it instead"
    )]
    Chained,
    /// Drivers know; generic mode has none.
    #[error("generic mode has none: native mode does")]
    Generic,
    /// The driver says that it has none.
    #[error("the driver has none")]
    Driver,
    /// The kernel does not take the program that reads metadata.
    #[error(
        "the kernel does not take a program that reads it, as it does from Linux 6.3 on (with packets of several frames \
         6.7), built with BTF"
    )]
    Kernel(#[source] Box<Error>),
    /// The driver does not take a program in native mode.
    #[error("the driver does not take the program that reads it")]
    Attach(#[source] Box<Error>),
}

/// What the card knows of one packet, as the redirect program has noted it in the [`SIZE`](Self::SIZE) bytes before the
/// packet.
///
/// A sender far away cannot write there. What an earlier packet has left in the frame is not believed, since a note ends
/// with a mark that is random for each attachment, and is taken once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Note {
    /// When the card received the packet, in nanoseconds of the card's own clock (the PHC), not of any of the system's.
    pub timestamp_ns: Option<u64>,
    /// The card's hash of the flow.
    pub hash: Option<RxHash>,
    /// The VLAN tag that the card took off: it is not in the packet's bytes.
    pub vlan: Option<TakenOff>,
}

/// The card's hash of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RxHash {
    /// The hash.
    pub value: u32,
    /// Whether ports are in it, not addresses alone.
    pub with_ports: bool,
}

/// A VLAN tag that the card took off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct TakenOff {
    /// The tag: priority, drop eligibility and VLAN number.
    pub tag: u16,
    /// The tag's EtherType: 0x8100, or 0x88a8 for a service's.
    pub ethertype: u16,
}

impl Note {
    /// Bytes of a note: those right before the packet.
    pub const SIZE: usize = 24;

    /// Takes the note off: the next call finds none. `mark` is [`Noting::mark`].
    #[inline]
    pub fn take(before: &mut [u8; Self::SIZE], mark: u32) -> Option<Self> {
        /// `XDP_RSS_L4` of `net/xdp.h`.
        const WITH_PORTS: u16 = 1 << 3;

        // `struct note` in metadata.h.
        let [time @ .., h0, h1, h2, h3, t0, t1, v0, v1, p0, p1, k0, k1, m0, m1, m2, m3] = *before;
        if u32::from_ne_bytes([m0, m1, m2, m3]) != mark {
            return None;
        }
        before[Self::SIZE - size_of::<u32>()..].copy_from_slice(&(!mark).to_ne_bytes());
        let known = Kinds(u16::from_ne_bytes([k0, k1]).into());
        let hash = RxHash {
            value: u32::from_ne_bytes([h0, h1, h2, h3]),
            with_ports: u16::from_ne_bytes([t0, t1]) & WITH_PORTS != 0,
        };
        let vlan = TakenOff { tag: u16::from_ne_bytes([v0, v1]), ethertype: u16::from_be_bytes([p0, p1]) };
        Some(Self {
            timestamp_ns: known.contain(Kinds::TIMESTAMP).then_some(u64::from_ne_bytes(time)),
            hash: known.contain(Kinds::HASH).then_some(hash),
            vlan: known.contain(Kinds::VLAN_TAG).then_some(vlan),
        })
    }
}

/// What is noted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Noting {
    kinds: Option<Kinds>,
    mark: u32,
}

impl Noting {
    /// What the driver says that it can tell; none of it need be known of every packet. None where the kernel (before
    /// 6.7) does not let it say.
    pub fn kinds(&self) -> Option<Kinds> {
        self.kinds
    }

    /// What the notes of this attachment end with.
    pub fn mark(&self) -> u32 {
        self.mark
    }
}

/// The device that a program is bound to.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(crate) ifindex: u32,
    pub(crate) noting: Noting,
    /// Of the interface. The kernel looks a device's index up in the calling thread's.
    namespace: File,
}

impl Bound {
    /// Where metadata can be had, by what is known before a program is loaded.
    pub(crate) fn to(ifindex: u32) -> Result<Self, NoMetadata> {
        let kinds = netdev::rx_metadata(ifindex).unwrap_or_default();
        if kinds.is_some_and(Kinds::is_empty) {
            return Err(NoMetadata::Driver);
        }
        let namespace = File::open(NAMESPACE).map_err(kernel)?;
        // Keyed at random for each. A frame that nothing has been in is full of zeros.
        let mark = RandomState::new().build_hasher().finish() as u32 | 1;
        Ok(Self { ifindex, noting: Noting { kinds, mark }, namespace })
    }

    /// The bits of what the program is to ask for: all, where the driver does not say what it has.
    pub(crate) fn wanted(&self) -> u32 {
        self.noting.kinds.unwrap_or(Kinds::ALL).bits()
    }

    /// Runs `load` in the interface's network namespace. From a thread of another one that takes CAP_SYS_ADMIN.
    pub(crate) fn in_its_namespace<T: Send>(&self, load: impl FnOnce() -> T + Send) -> io::Result<T> {
        let identity = |file: &File| file.metadata().map(|file| (file.dev(), file.ino()));
        if identity(&File::open(NAMESPACE)?)? == identity(&self.namespace)? {
            return Ok(load());
        }
        let there = || enter(&self.namespace).map(|()| load());
        std::thread::scope(|scope| scope.spawn(there).join())
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

const NAMESPACE: &str = "/proc/thread-self/ns/net";

#[allow(unsafe_code, reason = "the standard library knows no namespaces")]
fn enter(namespace: &File) -> io::Result<()> {
    // SAFETY: takes a descriptor, which is open, and changes this thread alone.
    match unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn kernel(source: io::Error) -> NoMetadata {
    NoMetadata::Kernel(Box::new(load_error(PROGRAM, source)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What the program writes.
    fn note(known: u16, mark: u32) -> [u8; Note::SIZE] {
        let mut bytes = Vec::new();
        bytes.extend(1_234_567_890_123u64.to_ne_bytes());
        bytes.extend(0xdead_beefu32.to_ne_bytes());
        bytes.extend(0b1001u16.to_ne_bytes());
        bytes.extend(0x6064u16.to_ne_bytes());
        bytes.extend(0x88a8u16.to_be_bytes());
        bytes.extend(known.to_ne_bytes());
        bytes.extend(mark.to_ne_bytes());
        bytes.try_into().expect("24 bytes")
    }

    #[test]
    fn only_what_the_card_knows_is_told() {
        let take = |known| Note::take(&mut note(known, 7), 7).expect("a note");
        let hash = RxHash { value: 0xdead_beef, with_ports: true };
        let vlan = TakenOff { tag: 0x6064, ethertype: 0x88a8 };
        let all = Note { timestamp_ns: Some(1_234_567_890_123), hash: Some(hash), vlan: Some(vlan) };
        assert_eq!(take(7), all);
        assert_eq!(take(1), Note { hash: None, vlan: None, ..all });
        assert_eq!(take(2), Note { timestamp_ns: None, vlan: None, ..all });
        assert_eq!(take(4), Note { timestamp_ns: None, hash: None, ..all });
        assert_eq!(take(0), Note { timestamp_ns: None, hash: None, vlan: None });
    }

    proptest! {
        #[test]
        fn a_note_is_taken_once_and_nothing_else_is_taken_for_one(
            mut bytes in any::<[u8; Note::SIZE]>(), known in any::<u16>(), mark in any::<u32>(),
        ) {
            let is_mark = bytes[20..] == mark.to_ne_bytes();
            prop_assert_eq!(Note::take(&mut bytes, mark).is_some(), is_mark);
            let mut bytes = note(known, mark);
            prop_assert_eq!(Note::take(&mut bytes, !mark), None);
            prop_assert!(Note::take(&mut bytes, mark).is_some());
            prop_assert_eq!(Note::take(&mut bytes, mark), None);
        }
    }

    #[test]
    fn kinds_are_named() {
        assert_eq!(Kinds::from_bits(7).to_string(), "hash, timestamp, VLAN tag");
        assert_eq!(Kinds::from_bits(5).to_string(), "timestamp, VLAN tag");
        assert!(Kinds::from_bits(8).is_empty());
    }
}
