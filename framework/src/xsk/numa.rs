//! Memory from the NUMA node of the network card.

use std::io;

/// `MPOL_*` of `linux/mempolicy.h`.
const MPOL_PREFERRED: libc::c_int = 1;

/// While this lives, pages that the current thread touches first come from one
/// node, as long as it has any.
#[must_use]
pub(super) struct Preferred {
    mode_before: libc::c_int,
    nodes_before: Nodes,
}

/// A bit per node; the kernel's largest configuration has 1024.
type Nodes = [libc::c_ulong; 1024 / libc::c_ulong::BITS as usize];
/// The kernel reads one bit less than it is told.
const NODES_BITS: usize = 1025;

impl Preferred {
    pub(super) fn new(node: u32) -> io::Result<Self> {
        let mut mode_before = 0;
        let mut nodes_before: Nodes = [0; _];
        // SAFETY: the kernel writes `mode_before` and `NODES_BITS - 1` bits of `nodes_before`, both ours
        // and large enough; with flags 0 the address is not looked at.
        check(unsafe {
            libc::syscall(
                libc::SYS_get_mempolicy,
                &raw mut mode_before,
                nodes_before.as_mut_ptr(),
                NODES_BITS - 1,
                std::ptr::null::<u8>(),
                0,
            )
        })?;
        let mut nodes: Nodes = [0; _];
        let word = nodes
            .get_mut((node / libc::c_ulong::BITS) as usize)
            .ok_or(io::Error::from_raw_os_error(libc::EINVAL))?;
        *word = 1 << (node % libc::c_ulong::BITS);
        set(MPOL_PREFERRED, &nodes)?;
        Ok(Self { mode_before, nodes_before })
    }
}

impl Drop for Preferred {
    fn drop(&mut self) {
        if let Err(error) = set(self.mode_before, &self.nodes_before) {
            tracing::warn!(%error, "the thread's memory policy could not be put back");
        }
    }
}

fn set(mode: libc::c_int, nodes: &Nodes) -> io::Result<()> {
    // SAFETY: the kernel reads `NODES_BITS - 1` bits of `nodes` during the call.
    check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, nodes.as_ptr(), NODES_BITS) })
}

fn check(result: libc::c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
