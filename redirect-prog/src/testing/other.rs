//! Somebody else's program on an interface, which counts packets and passes them on.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{MapCore, MapFlags, MapHandle};

use crate::error::io_error;
use crate::link::{AttachMode, Link, check};
use crate::program::other::OtherSkelBuilder;
use crate::program::with_log;
use crate::{Attached, Error};

/// A program that counts the packets that it sees and passes them on, called `others_count`: what another application
/// might have on an interface.
#[derive(Debug)]
pub struct OtherProgram {
    program: OwnedFd,
    seen: MapHandle,
    link: Option<Link>,
}

impl OtherProgram {
    /// Loads it. `segments` is whether it takes packets in several buffers.
    ///
    /// # Errors
    ///
    /// [`Error::Load`], [`Error::Rights`].
    pub fn load(segments: bool) -> Result<Self, Error> {
        let (program, seen) = with_log("other", || {
            let mut object = MaybeUninit::uninit();
            let mut open = OtherSkelBuilder::default().open(&mut object)?;
            if segments {
                open.progs.others_count.set_flags(libbpf_sys::BPF_F_XDP_HAS_FRAGS);
            }
            let loaded = open.load()?;
            let seen = MapHandle::try_from(&loaded.maps.seen)?;
            Ok((loaded.progs.others_count.as_fd().try_clone_to_owned()?, seen))
        })?;
        Ok(Self { program, seen, link: None })
    }

    /// Attaches it by netlink, as `ip link set xdp` does: it stays when this is dropped.
    ///
    /// # Errors
    ///
    /// What the kernel answers.
    #[allow(unsafe_code, reason = "calls libbpf's C interface")]
    pub fn attach(&self, ifindex: u32, mode: Attached) -> io::Result<()> {
        let flags = mode.flag() | libbpf_sys::XDP_FLAGS_UPDATE_IF_NOEXIST;
        // SAFETY: the descriptor is open, borrowed for the call, and options may be null.
        let attached = unsafe {
            libbpf_sys::bpf_xdp_attach(ifindex as i32, self.program.as_raw_fd(), flags, std::ptr::null())
        };
        check(attached).map(drop)
    }

    /// Attaches it through a bpf_link, until this is dropped.
    ///
    /// # Errors
    ///
    /// [`Error::Occupied`], [`Error::Attach`].
    pub fn attach_by_link(&mut self, ifindex: u32) -> Result<(), Error> {
        self.link = Some(Link::attach(self.program.as_fd(), ifindex, AttachMode::Auto)?);
        Ok(())
    }

    /// How many packets it has seen.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn seen(&self) -> Result<u64, Error> {
        let per_cpu = self
            .seen
            .lookup_percpu(&0u32.to_ne_bytes(), MapFlags::ANY)
            .map_err(|error| Error::Map { action: "read the counter".into(), source: io_error(error) })?;
        let count = |bytes: &Vec<u8>| bytes.as_slice().try_into().map_or(0, u64::from_ne_bytes);
        Ok(per_cpu.iter().flatten().map(count).sum())
    }
}
