//! A program that was on an interface before ours, attached by netlink: taken off, and put back.
//!
//! One that a bpf_link holds stays: the kernel lets nobody but the link's owner change it.
#![allow(unsafe_code, reason = "finds a program by its number, and talks netlink")]

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::error::Error;
use crate::link::{Attached, Occupant, check};

/// What is done with an XDP program that is on the interface already. An interface takes one program alone.
///
/// Either way but the first, the other program is put back when ours is taken off in order. It is not where the process
/// is killed: the interface then has no program, and whoever attached the other one has to do so again. Programs that
/// another process holds by a bpf_link, and those on the card itself, always stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Coexist {
    /// It stays, and ours is not attached.
    #[default]
    Refuse,
    /// Ours takes its place. Takes CAP_SYS_ADMIN beside what attaching takes.
    Replace,
    /// Ours comes first, and hands it each packet that is not for a socket and not dropped. Takes CAP_SYS_ADMIN too.
    Chain,
}

impl Coexist {
    pub(crate) fn participle(self) -> &'static str {
        match self {
            Self::Refuse => "joined",
            Self::Replace => "replaced",
            Self::Chain => "chained",
        }
    }
}

/// Why a program cannot be replaced or chained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Obstacle {
    /// Finding a program by its number takes a capability.
    NoRight,
    /// It is attached through a bpf_link.
    HeldByLink,
    /// It runs on the card.
    OnCard,
    /// Programs call each other only where they are alike in what `bpf_prog_map_compatible` (`kernel/bpf/core.c`)
    /// compares.
    NotAfterOurs,
    /// Somebody has changed it, or the kernel has another reason.
    Other,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoRight => "that takes CAP_SYS_ADMIN, which this process lacks",
            Self::HeldByLink => "another process holds it by a bpf_link: end that process",
            Self::OnCard => "it runs on the card itself: detach it first",
            Self::NotAfterOurs => {
                "the kernel does not let it come after the redirect program, since only one of the two takes packets \
                 in several buffers (`multi_buffer` says whether ours does), or it was loaded without saying that it is for \
                 XDP, is libxdp's dispatcher, or is bound to a device: replace it, or detach it first"
            }
            Self::Other => "it may have been changed just now: try again",
        })
    }
}

/// A program that had the interface, or still has it. Put back when this is dropped.
#[derive(Debug)]
pub(crate) struct Earlier {
    program: OwnedFd,
    occupant: Occupant,
    coexist: Coexist,
    ifindex: u32,
    /// Of the interface's network namespace, wherever the thread is that drops this.
    netlink: OwnedFd,
    taken_off: bool,
}

impl Earlier {
    /// Changes nothing yet.
    pub(crate) fn find(ifindex: u32, occupant: Occupant, coexist: Coexist) -> Result<Self, Error> {
        let stays = |obstacle, source| {
            let (occupant, wanted) = (occupant.clone(), coexist);
            Error::Stays { ifindex, occupant, wanted, obstacle, source }
        };
        if occupant.mode == Attached::Offloaded {
            return Err(stays(Obstacle::OnCard, io::ErrorKind::Unsupported.into()));
        }
        // SAFETY: takes a number.
        let program = check(unsafe { libbpf_sys::bpf_prog_get_fd_by_id(occupant.program_id) });
        let program = program.map_err(|source| match source.kind() {
            io::ErrorKind::PermissionDenied => stays(Obstacle::NoRight, source),
            _ => stays(Obstacle::Other, source),
        })?;
        // SAFETY: a descriptor just made by the kernel, close-on-exec, owned by nobody else.
        let program = unsafe { OwnedFd::from_raw_fd(program) };
        let netlink = netlink(libc::NETLINK_ROUTE).map_err(|source| stays(Obstacle::Other, source))?;
        Ok(Self { program, occupant, coexist, ifindex, netlink, taken_off: false })
    }

    pub(crate) fn program(&self) -> BorrowedFd<'_> {
        self.program.as_fd()
    }

    pub(crate) fn occupant(&self) -> &Occupant {
        &self.occupant
    }

    pub(crate) fn coexist(&self) -> Coexist {
        self.coexist
    }

    /// The error that says that it stays.
    pub(crate) fn stays(&self, obstacle: Obstacle, source: io::Error) -> Error {
        let Self { occupant, coexist, ifindex, .. } = self;
        Error::Stays { ifindex: *ifindex, occupant: occupant.clone(), wanted: *coexist, obstacle, source }
    }

    /// Takes it off, if it is still there.
    pub(crate) fn take_off(&mut self) -> Result<(), Error> {
        let flags = self.occupant.mode.flag() | libbpf_sys::XDP_FLAGS_REPLACE;
        let taken_off = self.set(-1, flags, Some(self.program.as_raw_fd()));
        self.taken_off = taken_off.is_ok();
        taken_off.map_err(|source| match source.raw_os_error() {
            // Asked by its number it was there, and is still: a link's are the only ones that netlink cannot take off.
            Some(libc::EBUSY) => self.stays(Obstacle::HeldByLink, source),
            _ => self.stays(Obstacle::Other, source),
        })
    }

    /// Attaches it again, as it was.
    pub(crate) fn put_back(mut self) -> Result<(), Error> {
        let Self { ifindex, occupant, .. } = &self;
        let (ifindex, occupant) = (*ifindex, occupant.clone());
        self.attach_again().map_err(|source| Error::PutBack { ifindex, occupant, source })
    }

    /// Does nothing where it is not taken off, or where the interface is gone.
    fn attach_again(&mut self) -> io::Result<()> {
        if !std::mem::take(&mut self.taken_off) {
            return Ok(());
        }
        // Whoever has come in between is left alone.
        let flags = self.occupant.mode.flag() | libbpf_sys::XDP_FLAGS_UPDATE_IF_NOEXIST;
        match self.set(self.program.as_raw_fd(), flags, None) {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
            result => result,
        }
    }

    /// Has the kernel set the interface's program: an RTM_SETLINK with IFLA_XDP.
    fn set(&self, program: i32, flags: u32, expected: Option<i32>) -> io::Result<()> {
        let mut xdp = attribute(XDP_FD, &program.to_ne_bytes());
        xdp.extend(attribute(XDP_FLAGS, &flags.to_ne_bytes()));
        if let Some(expected) = expected {
            xdp.extend(attribute(XDP_EXPECTED_FD, &expected.to_ne_bytes()));
        }
        let xdp = attribute(XDP | NESTED, &xdp);
        let mut message = Vec::new();
        message.extend(((HEADER + LINK + xdp.len()) as u32).to_ne_bytes());
        message.extend(libc::RTM_SETLINK.to_ne_bytes());
        message.extend(((libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16).to_ne_bytes());
        // Sequence number and port: one question is answered before the next, on a socket of its own.
        message.extend([0; 8]);
        // `struct ifinfomsg`: nothing but the index counts.
        message.extend([0; 4]);
        message.extend(self.ifindex.to_ne_bytes());
        message.extend([0; 8]);
        message.extend(xdp);
        ask(&self.netlink, &message)
    }
}

impl Drop for Earlier {
    fn drop(&mut self) {
        let _ = self.attach_again();
    }
}

/// Bytes of `struct nlmsghdr` and of `struct ifinfomsg`.
const HEADER: usize = 16;
const LINK: usize = 16;
/// `NLA_F_NESTED` of `linux/netlink.h`, and the `IFLA_*` of `linux/if_link.h`.
const NESTED: u16 = 1 << 15;
const XDP: u16 = 43;
const XDP_FD: u16 = 1;
const XDP_FLAGS: u16 = 3;
const XDP_EXPECTED_FD: u16 = 8;

/// A netlink attribute with its padding.
pub(crate) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = (4 + value.len()) as u16;
    let padding = [0; 4];
    let padding = &padding[..value.len().next_multiple_of(4) - value.len()];
    [&length.to_ne_bytes(), &kind.to_ne_bytes(), value, padding].concat()
}

pub(crate) fn netlink(protocol: i32) -> io::Result<OwnedFd> {
    // SAFETY: takes numbers.
    let fd = unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor just made by the kernel, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sends a request, and waits for its acknowledgement: an error number behind the header, 0 where all went well.
fn ask(netlink: &OwnedFd, message: &[u8]) -> io::Result<()> {
    match exchange(netlink, message)?.get(HEADER..HEADER + 4) {
        Some(&[a, b, c, d]) => match i32::from_ne_bytes([a, b, c, d]) {
            0 => Ok(()),
            error => Err(io::Error::from_raw_os_error(-error)),
        },
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Sends a message, and returns the one that answers.
pub(crate) fn exchange(netlink: &OwnedFd, message: &[u8]) -> io::Result<Vec<u8>> {
    // SAFETY: the message outlives the call, and its length is said. Sent to the kernel, which is whom an unconnected
    // socket talks to.
    let sent = unsafe { libc::send(netlink.as_raw_fd(), message.as_ptr().cast(), message.len(), 0) };
    if sent < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut answer = vec![0u8; 4096];
    // SAFETY: the kernel writes at most that many bytes to the buffer, which outlives the call.
    let received = unsafe { libc::recv(netlink.as_raw_fd(), answer.as_mut_ptr().cast(), answer.len(), 0) };
    let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
    answer.truncate(received);
    Ok(answer)
}
