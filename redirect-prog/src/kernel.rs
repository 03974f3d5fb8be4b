//! Which kernel this is, and which is needed.

/// The lowest version and patch level of Linux that the programs are tested on. Some older ones load them too, those
/// whose distribution has put in what came later.
pub const LOWEST_KERNEL: (u32, u32) = (6, 1);

/// Version and patch level of a release as `uname -r` says it, where it begins with such.
///
/// ```
/// use afx_redirect::{LOWEST_KERNEL, kernel_version};
///
/// assert_eq!(kernel_version("6.1.0-50-amd64"), Some(LOWEST_KERNEL));
/// assert_eq!(kernel_version("plan9"), None);
/// ```
#[must_use]
pub fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(version)), Some(Ok(level))) => Some((version, level)),
        _ => None,
    }
}

/// This kernel's release, if it is older than [`LOWEST_KERNEL`].
pub(crate) fn too_old() -> Option<String> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    let release = release.trim();
    (kernel_version(release)? < LOWEST_KERNEL).then(|| release.to_owned())
}
