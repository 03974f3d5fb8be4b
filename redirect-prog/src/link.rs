//! Attaching an XDP program to an interface through a bpf_link.
//!
//! The link lives as long as its descriptor: when the process ends, however it ends, the kernel takes the program
//! off. libbpf-rs attaches through a link but cannot say in which mode; the call underneath can.
#![allow(unsafe_code, reason = "calls libbpf's C interface")]

use std::ffi::{CStr, CString, c_int};
use std::fmt;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use crate::error::Error;

/// How a program is to be attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum AttachMode {
    /// In native mode; where the driver cannot, in generic mode.
    #[default]
    Auto,
    /// In the driver, or not at all.
    Native,
    /// In the kernel's generic receive path, which every interface has: slower, copies each packet.
    Generic,
}

/// How a program is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Attached {
    /// In the driver.
    Native,
    /// In the kernel's generic receive path.
    Generic,
    /// On the card itself. Only ever found of others: this crate does not offload.
    Offloaded,
}

impl Attached {
    pub(crate) fn flag(self) -> u32 {
        match self {
            Self::Native => libbpf_sys::XDP_FLAGS_DRV_MODE,
            Self::Generic => libbpf_sys::XDP_FLAGS_SKB_MODE,
            Self::Offloaded => libbpf_sys::XDP_FLAGS_HW_MODE,
        }
    }
}

impl fmt::Display for Attached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Offloaded => "offloaded",
        })
    }
}

/// A program that holds an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Occupant {
    /// The kernel's number of the program.
    pub program_id: u32,
    /// Its name as the kernel keeps it, at most 15 bytes; empty where it has none or may not be asked.
    pub program_name: String,
    /// How it is attached.
    pub mode: Attached,
}

impl fmt::Display for Occupant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "XDP program {} `{}` in {} mode", self.program_id, self.program_name, self.mode)
    }
}

/// The index of the interface called `name` in the calling thread's network namespace.
///
/// # Errors
///
/// `ENODEV` where there is none of that name, `InvalidInput` where no interface could have it.
pub fn interface_index(name: &str) -> io::Result<u32> {
    let name = CString::new(name).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: a string that ends with a zero byte and outlives the call.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()),
        index => Ok(index),
    }
}

/// A program attached to an interface, until this is dropped.
#[derive(Debug)]
pub(crate) struct Link {
    fd: OwnedFd,
    ifindex: u32,
    mode: Attached,
    fallback: Option<io::Error>,
}

impl Link {
    pub(crate) fn attach(program: BorrowedFd<'_>, ifindex: u32, mode: AttachMode) -> Result<Self, Error> {
        // Asked first, since the kernel's refusals do not tell a program in the way from a driver that cannot.
        if let Some(occupant) = occupant(ifindex) {
            return Err(Error::Occupied { ifindex, occupant });
        }
        let native = match mode {
            AttachMode::Auto | AttachMode::Native => create(program, ifindex, Attached::Native),
            AttachMode::Generic => {
                let fd = create(program, ifindex, Attached::Generic)
                    .map_err(|source| refused(ifindex, Attached::Generic, source))?;
                return Ok(Self { fd, ifindex, mode: Attached::Generic, fallback: None });
            }
        };
        match native {
            Ok(fd) => Ok(Self { fd, ifindex, mode: Attached::Native, fallback: None }),
            Err(reason) if mode == AttachMode::Auto => {
                let fd = create(program, ifindex, Attached::Generic)
                    .map_err(|source| refused(ifindex, Attached::Generic, source))?;
                Ok(Self { fd, ifindex, mode: Attached::Generic, fallback: Some(reason) })
            }
            Err(source) => Err(refused(ifindex, Attached::Native, source)),
        }
    }

    /// Puts `program` in the place of the one attached. Each packet meets one or the other.
    pub(crate) fn update(&self, program: BorrowedFd<'_>) -> Result<(), Error> {
        // SAFETY: both descriptors are open, borrowed for the call, and options may be null.
        let result =
            unsafe { libbpf_sys::bpf_link_update(self.fd.as_raw_fd(), program.as_raw_fd(), ptr::null()) };
        check(result).map(drop).map_err(|source| Error::Link {
            ifindex: self.ifindex,
            action: "replaced",
            source,
        })
    }

    /// Takes the program off, and says so if that fails; dropping does the same in silence.
    pub(crate) fn detach(self) -> Result<(), Error> {
        self.take_off().map_err(|source| Error::Link { ifindex: self.ifindex, action: "detached", source })
    }

    /// Does nothing where it was done before, or where the interface is gone.
    fn take_off(&self) -> io::Result<()> {
        // SAFETY: the descriptor is open, borrowed for the call.
        check(unsafe { libbpf_sys::bpf_link_detach(self.fd.as_raw_fd()) }).map(drop)
    }

    pub(crate) fn mode(&self) -> Attached {
        self.mode
    }

    pub(crate) fn fallback(&self) -> Option<&io::Error> {
        self.fallback.as_ref()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // Closing the descriptor is not enough: a child just forked by another thread has it until it calls exec.
        let _ = self.take_off();
    }
}

fn create(program: BorrowedFd<'_>, ifindex: u32, mode: Attached) -> io::Result<OwnedFd> {
    let options = libbpf_sys::bpf_link_create_opts {
        sz: size_of::<libbpf_sys::bpf_link_create_opts>() as libbpf_sys::size_t,
        flags: mode.flag(),
        // SAFETY: numbers, pointers and a union of such: all zero is what libbpf takes for "not said".
        ..unsafe { mem::zeroed() }
    };
    // SAFETY: the descriptor is open, borrowed for the call; the options outlive it and say their size.
    let fd = check(unsafe {
        libbpf_sys::bpf_link_create(
            program.as_raw_fd(),
            interface(ifindex)?,
            libbpf_sys::BPF_XDP,
            &raw const options,
        )
    })?;
    // SAFETY: a descriptor just made by the kernel, close-on-exec, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Between the question and the attempt another program may have come: asked again.
fn refused(ifindex: u32, mode: Attached, source: io::Error) -> Error {
    match occupant(ifindex) {
        Some(occupant) => Error::Occupied { ifindex, occupant },
        None => Error::Attach { ifindex, mode, source },
    }
}

/// The XDP program on the interface of that index, if there is one and the kernel tells. Its name is told to those alone
/// that have CAP_SYS_ADMIN.
pub fn occupant(ifindex: u32) -> Option<Occupant> {
    let mut found = libbpf_sys::bpf_xdp_query_opts {
        sz: size_of::<libbpf_sys::bpf_xdp_query_opts>() as libbpf_sys::size_t,
        ..Default::default()
    };
    // SAFETY: the options outlive the call and say their size.
    check(unsafe { libbpf_sys::bpf_xdp_query(interface(ifindex).ok()?, 0, &raw mut found) }).ok()?;
    let (program_id, mode) = [
        (found.hw_prog_id, Attached::Offloaded),
        (found.drv_prog_id, Attached::Native),
        (found.skb_prog_id, Attached::Generic),
    ]
    .into_iter()
    .find(|(id, _)| *id != 0)?;
    Some(Occupant { program_id, program_name: program_name(program_id).unwrap_or_default(), mode })
}

/// Frames that a packet may have at most in zero-copy mode, by what the driver of the interface of that index says: 1
/// where it has no multi-buffer there. None where it has no zero-copy, and where the kernel (before 6.3) does not tell.
pub fn zero_copy_segments(ifindex: u32) -> Option<u32> {
    let mut found = libbpf_sys::bpf_xdp_query_opts {
        sz: size_of::<libbpf_sys::bpf_xdp_query_opts>() as libbpf_sys::size_t,
        ..Default::default()
    };
    // SAFETY: the options outlive the call and say their size.
    check(unsafe { libbpf_sys::bpf_xdp_query(interface(ifindex).ok()?, 0, &raw mut found) }).ok()?;
    (found.feature_flags & XSK_ZEROCOPY != 0).then(|| found.xdp_zc_max_segs.max(1))
}

/// `NETDEV_XDP_ACT_XSK_ZEROCOPY` of `linux/netdev.h`.
const XSK_ZEROCOPY: u64 = 8;

/// Whether this process may make the system call `bpf` at all; nothing is loaded, and it takes no right.
///
/// # Errors
/// `ENOSYS` where the kernel was built without it; otherwise what a policy answers that keeps it from the process, `EPERM`
/// mostly.
pub fn bpf_answers() -> io::Result<()> {
    let mut info = libbpf_sys::bpf_prog_info::default();
    let mut length = size_of_val(&info) as u32;
    // SAFETY: the kernel writes at most `length` bytes to `info`, which lives; and there is no such descriptor.
    let asked = unsafe { libbpf_sys::bpf_prog_get_info_by_fd(-1, &raw mut info, &raw mut length) };
    match check(asked) {
        // It has looked for the descriptor.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EBADFD | libc::EBADF)) => Ok(()),
        result => result.map(drop),
    }
}

fn program_name(id: u32) -> io::Result<String> {
    // SAFETY: takes a number; the descriptor made, close-on-exec, is owned by nobody else.
    let fd = unsafe { OwnedFd::from_raw_fd(check(libbpf_sys::bpf_prog_get_fd_by_id(id))?) };
    let mut info = libbpf_sys::bpf_prog_info::default();
    let mut length = size_of_val(&info) as u32;
    // SAFETY: the kernel writes at most `length` bytes to `info`, and none of its buffers are asked for.
    check(unsafe { libbpf_sys::bpf_prog_get_info_by_fd(fd.as_raw_fd(), &raw mut info, &raw mut length) })?;
    // SAFETY: the kernel ends the name with a zero byte within the array, which lives until the copy is made.
    Ok(unsafe { CStr::from_ptr(info.name.as_ptr()) }.to_string_lossy().into_owned())
}

fn interface(ifindex: u32) -> io::Result<c_int> {
    ifindex.try_into().map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// libbpf returns negative error numbers.
pub(crate) fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(result) }
}
