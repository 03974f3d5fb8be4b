//! What a process may do: giving up capabilities once they have been used.
//!
//! Capabilities belong to threads, and a thread begins with those of the one that starts it. A process has given one up
//! only when each of its threads has:
//!
//! - [`keep`] is for the calling thread, and for those that it starts from then on.
//! - [`with_only`] runs something that starts threads, such as a health checker, and these have few from the
//!   beginning.
//! - [`RuntimeBuilder::on_ready`](crate::RuntimeBuilder::on_ready) is where workers give theirs up: opening queues takes
//!   capabilities, and working on packets takes none.
//!
//! The threads behind a command socket and a metrics page have none, whoever starts them, and a resolver's has
//! CAP_NET_ADMIN at most.
//!
//! ```no_run
//! use afx::control::privileges::{self, Capabilities};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (page, given_up) = privileges::with_only(Capabilities::NONE, || std::thread::spawn(|| "what needs nothing"));
//! given_up?;
//! // Once all is started:
//! privileges::keep(Capabilities::NONE)?;
//! println!("{}", privileges::held()?);
//! # drop(page);
//! # Ok(())
//! # }
//! ```

use std::fmt;
use std::io;
use std::ops::{BitOr, BitOrAssign};

use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

/// A set of capabilities (capabilities(7)). Displayed as their names, `none` where there are none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities(CapabilitySet);

impl Capabilities {
    /// The empty set.
    pub const NONE: Self = Self(CapabilitySet::empty());
    /// Loading BPF programs.
    pub const BPF: Self = Self(CapabilitySet::BPF);
    /// More packet memory than `RLIMIT_MEMLOCK`.
    pub const IPC_LOCK: Self = Self(CapabilitySet::IPC_LOCK);
    /// Attaching programs to interfaces, busy polling, neighbour entries.
    pub const NET_ADMIN: Self = Self(CapabilitySet::NET_ADMIN);
    /// Sockets of AF_XDP, raw sockets.
    pub const NET_RAW: Self = Self(CapabilitySet::NET_RAW);
    /// Loading BPF programs that compute with pointers.
    pub const PERFMON: Self = Self(CapabilitySet::PERFMON);
    /// Finding another's BPF program.
    pub const SYS_ADMIN: Self = Self(CapabilitySet::SYS_ADMIN);

    /// Their names, such as `CAP_NET_ADMIN`, in the order of their numbers.
    pub fn names(self) -> Vec<String> {
        self.0.iter_names().map(|(name, _)| format!("CAP_{name}")).collect()
    }

    /// Whether all of `others` are among them.
    pub fn contains(self, others: Self) -> bool {
        self.0.contains(others.0)
    }
}

impl BitOr for Capabilities {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Capabilities {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.is_empty() {
            true => f.write_str("none"),
            false => f.write_str(&self.names().join(", ")),
        }
    }
}

/// Has the calling thread keep no capabilities but those of `kept` that it has, in effect or to be had, and pass on
/// none to programs that it starts. One that runs as root gives its programs more all the same, unless
/// [`limit_programs`] says otherwise.
///
/// # Errors
/// The system's: a filter of system calls may forbid `capset`. Then nothing has changed.
pub fn keep(kept: Capabilities) -> io::Result<()> {
    let CapabilitySets { effective, permitted, .. } = capabilities(None)?;
    let inheritable = CapabilitySet::empty();
    set_capabilities(
        None,
        CapabilitySets { effective: effective & kept.0, permitted: permitted & kept.0, inheritable },
    )?;
    // The ambient set is a part of what is permitted and inheritable, and so empty now; said once more, since what
    // remains is in effect in whatever is started.
    Ok(clear_ambient_capability_set()?)
}

/// Has programs that the calling thread and those after it start never be given more than `most`: neither as root nor by
/// the modes and capabilities of their files (`PR_SET_NO_NEW_PRIVS` of prctl(2)). It cannot be undone.
///
/// The bounding set is cut down too where the process has CAP_SETPCAP, without which that is not allowed.
///
/// # Errors
/// The system's.
pub fn limit_programs(most: Capabilities) -> io::Result<()> {
    set_no_new_privs(true)?;
    if !capabilities(None)?.effective.contains(CapabilitySet::SETPCAP) {
        return Ok(());
    }
    for capability in CapabilitySet::all() - most.0 {
        // A kernel may not have the newest.
        if capability_is_in_bounding_set(capability).unwrap_or(false) {
            remove_capability_from_bounding_set(capability)?;
        }
    }
    Ok(())
}

/// Runs `start` on a thread that keeps no capabilities but those, and hence the threads that it starts. What came of it,
/// and whether they were given up: where not, `start` has run with all of them.
///
/// # Panics
/// As `start`.
pub fn with_only<T: Send>(kept: Capabilities, start: impl FnOnce() -> T + Send) -> (T, io::Result<()>) {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let given_up = keep(kept);
            (start(), given_up)
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// The capabilities that any thread of this process has, in effect or to be had.
///
/// # Errors
/// Where `/proc` cannot be read.
pub fn held() -> io::Result<Capabilities> {
    let mut held = CapabilitySet::empty();
    for task in std::fs::read_dir("/proc/self/task")? {
        // A thread may end in between.
        let Ok(status) = std::fs::read_to_string(task?.path().join("status")) else { continue };
        let permitted = status.lines().find_map(|line| line.strip_prefix("CapPrm:"));
        let permitted = permitted.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
        held |= CapabilitySet::from_bits_retain(permitted.ok_or(io::ErrorKind::InvalidData)?);
    }
    Ok(Capabilities(held))
}

/// Whether programs that the calling thread starts can gain nothing that it has not.
///
/// # Errors
/// The system's.
pub fn programs_are_limited() -> io::Result<bool> {
    Ok(rustix::thread::no_new_privs()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On a thread of its own, which has given up all but those.
    fn on_thread<T: Send>(kept: Capabilities, test: impl FnOnce() -> T + Send) -> T {
        let (result, given_up) = with_only(kept, test);
        given_up.unwrap();
        result
    }

    fn of_thread() -> Capabilities {
        let sets = capabilities(None).unwrap();
        assert_eq!(sets.effective, sets.permitted);
        Capabilities(sets.permitted)
    }

    #[test]
    fn threads_begin_with_what_is_left() {
        let kept = Capabilities::NET_RAW | Capabilities::BPF;
        let before = of_thread();
        assert!(before.contains(kept), "the tests run as root");
        on_thread(kept, || {
            assert_eq!(of_thread(), kept);
            std::thread::scope(|scope| scope.spawn(|| assert_eq!(of_thread(), kept)).join().unwrap());
            // What is gone does not come back.
            keep(before).unwrap();
            assert_eq!(of_thread(), kept);
            keep(Capabilities::NONE).unwrap();
            assert_eq!(of_thread(), Capabilities::NONE);
        });
        assert_eq!(of_thread(), before, "the caller keeps its own");
        assert!(held().unwrap().contains(before), "and with it the process");
    }

    #[test]
    fn programs_are_given_no_more_than_is_said() {
        let most = Capabilities::NET_RAW;
        let of_program = || {
            let status = std::process::Command::new("cat").arg("/proc/self/status").output().unwrap();
            let status = String::from_utf8(status.stdout).unwrap();
            let set = status.lines().find_map(|line| line.strip_prefix("CapPrm:")).unwrap().trim();
            Capabilities(CapabilitySet::from_bits_retain(u64::from_str_radix(set, 16).unwrap()))
        };
        // Root's programs get all that is not forbidden, whatever root itself has kept.
        on_thread(most, || assert_ne!(of_program(), most));
        std::thread::scope(|scope| {
            let limited = scope.spawn(|| {
                assert!(!programs_are_limited().unwrap());
                limit_programs(most).unwrap();
                keep(most).unwrap();
                assert!(programs_are_limited().unwrap());
                assert_eq!(of_program(), most);
            });
            limited.join().unwrap();
        });
    }

    #[test]
    fn they_have_names() {
        let two = Capabilities::NET_ADMIN | Capabilities::BPF;
        assert_eq!(two.to_string(), "CAP_NET_ADMIN, CAP_BPF");
        assert_eq!(Capabilities::NONE.to_string(), "none");
    }
}
