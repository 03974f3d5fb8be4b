//! A sender whose packets have a VLAN tag beside them.

use std::mem::MaybeUninit;
use std::os::fd::AsFd;

use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{TC_EGRESS, TcHookBuilder};

use crate::Error;
use crate::program::tag::TagSkelBuilder;
use crate::program::with_log;

/// Has every packet that leaves the interface `ifindex` of the calling thread's network namespace tagged: as by a VLAN
/// device of the sender's, the tag travels beside the packet where the interface inserts tags itself (`ethtool -K IF
/// txvlan on`), and in its bytes otherwise. It stays until the interface goes.
///
/// # Errors
///
/// [`Error::Load`], [`Error::Rights`].
pub fn tag_what_leaves(ifindex: u32, tag: u16) -> Result<(), Error> {
    with_log("tag", || {
        let mut object = MaybeUninit::uninit();
        let mut open = TagSkelBuilder::default().open(&mut object)?;
        open.maps.rodata_data.as_mut().expect("the program has a constant").tag = tag;
        let loaded = open.load()?;
        let mut hook = TcHookBuilder::new(loaded.progs.tag_packets.as_fd())
            .ifindex(ifindex as i32)
            .replace(true)
            .handle(1)
            .priority(1)
            .hook(TC_EGRESS);
        hook.create()?;
        hook.attach().map(drop)
    })
}
