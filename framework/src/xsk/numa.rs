//! Memory from the NUMA node of the network card.

use std::io;
use std::ptr::{self, NonNull};

/// `MPOL_*` of `linux/mempolicy.h`.
const MPOL_PREFERRED: libc::c_int = 1;
/// Asks for a node instead of a policy, and for that of an address.
const MPOL_F_NODE: libc::c_int = 1 << 0;
const MPOL_F_ADDR: libc::c_int = 1 << 1;

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
        let (mode_before, nodes_before) = policy()?;
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

/// The current thread's policy.
fn policy() -> io::Result<(libc::c_int, Nodes)> {
    let mut mode = 0;
    let mut nodes: Nodes = [0; _];
    // SAFETY: the kernel writes `mode` and `NODES_BITS - 1` bits of `nodes`, both ours and large enough; with flags 0
    // the address is not looked at.
    check(unsafe {
        libc::syscall(
            libc::SYS_get_mempolicy,
            &raw mut mode,
            nodes.as_mut_ptr(),
            NODES_BITS - 1,
            ptr::null::<u8>(),
            0,
        )
    })?;
    Ok((mode, nodes))
}

/// The node that the page at an address is of; None where the kernel does not say (without CONFIG_NUMA, that is). Of a
/// page that nobody has written to yet there is no saying: the kernel gives the node of the page of zeroes that stands
/// for it (`lookup_node` in `mm/mempolicy.c`).
pub(crate) fn node_of(address: NonNull<u8>) -> Option<u32> {
    let mut node: libc::c_int = -1;
    // SAFETY: the kernel writes `node`. It looks up the page of the address, as a read of it would, and changes nothing
    // there; one that is not mapped is an error.
    let result = unsafe {
        libc::syscall(
            libc::SYS_get_mempolicy,
            &raw mut node,
            ptr::null_mut::<libc::c_ulong>(),
            0,
            address.as_ptr(),
            MPOL_F_NODE | MPOL_F_ADDR,
        )
    };
    check(result).ok().and_then(|()| u32::try_from(node).ok())
}

/// The node of the core that this thread runs on.
pub(crate) fn current_node() -> Option<u32> {
    let (mut core, mut node) = (0u32, 0u32);
    // SAFETY: the kernel writes the two numbers.
    let result =
        unsafe { libc::syscall(libc::SYS_getcpu, &raw mut core, &raw mut node, ptr::null_mut::<u8>()) };
    check(result).ok().map(|()| node)
}

fn set(mode: libc::c_int, nodes: &Nodes) -> io::Result<()> {
    // SAFETY: the kernel reads `NODES_BITS - 1` bits of `nodes` during the call.
    check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, nodes.as_ptr(), NODES_BITS) })
}

fn check(result: libc::c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_preferred_for_as_long_as_it_is_said_and_no_longer() {
        let before = policy().unwrap();
        let node = current_node().unwrap();
        let preferred = Preferred::new(node).unwrap();
        let (mode, nodes) = policy().unwrap();
        assert_eq!(mode, MPOL_PREFERRED);
        let mut only: Nodes = [0; _];
        only[(node / libc::c_ulong::BITS) as usize] = 1 << (node % libc::c_ulong::BITS);
        assert_eq!(nodes, only);
        let page = Box::new([1u8; 65536]);
        assert_eq!(node_of(NonNull::from(&page[40_000])), Some(node));
        drop(preferred);
        assert_eq!(policy().unwrap(), before);
    }

    #[test]
    fn what_is_not_mapped_is_of_no_node() {
        assert_eq!(node_of(NonNull::dangling()), None);
    }
}
