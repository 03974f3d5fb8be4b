//! The neighbour entries that the kernel keeps alive on our behalf, and putting them back as they were.

use std::collections::BTreeMap;
use std::io;

use super::kernel::{Hop, Kernel, Neighbour};

/// What was there before us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// No entry: it is to be removed in the end.
    Made,
    /// An entry that nobody kept alive.
    Found,
}

/// All next hops whose entries we changed.
#[derive(Default)]
pub(super) struct Neighbours {
    held: BTreeMap<Hop, Origin>,
    /// Whether the kernel refused for want of a capability, so that it is said only once.
    is_forbidden: bool,
}

impl Neighbours {
    /// Sees to it that a next hop is asked for and its entry kept alive. `entry` is what the kernel has now.
    pub(super) fn hold(
        &mut self,
        kernel: &mut Kernel,
        hop: Hop,
        entry: Option<&Neighbour>,
    ) -> io::Result<()> {
        match entry {
            None => {
                self.permitted(kernel.create(hop))?;
                self.held.insert(hop, Origin::Made);
            }
            Some(entry) if entry.is_fixed() => {}
            Some(entry) if entry.is_managed => {
                // Somebody else's, unless a resolver made it: this one, or one that was killed.
                if entry.is_ours {
                    self.held.insert(hop, Origin::Made);
                }
            }
            // Kernels before 5.16 know no management: there this is repeated, and is what keeps it alive.
            Some(entry) => {
                self.permitted(kernel.manage(hop, entry, true))?;
                self.held.entry(hop).or_insert(if entry.is_ours { Origin::Made } else { Origin::Found });
            }
        }
        Ok(())
    }

    /// Puts all entries back as they were, except those of next hops still needed.
    pub(super) fn release(&mut self, kernel: &mut Kernel, needed: impl Fn(Hop) -> bool) {
        self.held.retain(|&hop, &mut origin| {
            if needed(hop) {
                return true;
            }
            if let Err(error) = put_back(kernel, hop, origin) {
                tracing::warn!(address = %hop.address, interface = hop.interface, %error,
                    "the neighbour entry could not be put back as it was");
            }
            false
        });
    }

    /// Lets a refusal pass: without CAP_NET_ADMIN we use what the kernel finds out for others.
    fn permitted(&mut self, result: io::Result<()>) -> io::Result<()> {
        match result {
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
                if !self.is_forbidden {
                    self.is_forbidden = true;
                    tracing::warn!("neighbours cannot be asked for nor kept alive: CAP_NET_ADMIN is missing");
                }
                Ok(())
            }
            other => other,
        }
    }
}

fn put_back(kernel: &mut Kernel, hop: Hop, origin: Origin) -> io::Result<()> {
    match (kernel.neighbour(hop)?, origin) {
        (Some(entry), _) if entry.is_fixed() => Ok(()), // Somebody has fixed it since: it is theirs.
        (Some(_), Origin::Made) => kernel.remove(hop),
        (Some(entry), Origin::Found) if entry.is_managed => kernel.manage(hop, &entry, false),
        (Some(_), Origin::Found) | (None, _) => Ok(()),
    }
}
