//! What the kernel says of the machine in `/proc` and `/sys`, as far as it matters for who works where.

pub(crate) mod files;
pub(crate) mod interrupts;
#[cfg(feature = "settings")]
pub(crate) mod netlink;
pub(crate) mod topology;

pub(crate) use files::Files;

/// Folders in which network namespaces have names: those of `ip netns`, and of Docker.
#[cfg(feature = "settings")]
pub(crate) const NAMED: [&str; 2] = ["/run/netns", "/run/docker/netns"];
