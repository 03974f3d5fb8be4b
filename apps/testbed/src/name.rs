//! Names: of networks, hosts and interfaces, and of the namespaces they become.
//!
//! All that the testbed makes can be found again by name alone, so that whoever comes later can clean up:
//!
//! ```text
//! afx.<network>.<pid>-<start>-<number>.<host>     a network that its owner, a process, takes down
//! afx.<network>.up.<host>                         a network without owner: stays until `afx-testbed down`
//! ```
//!
//! `start` is the owner's start time in clock ticks since boot (field 22 of `/proc/PID/stat`, see proc(5)): together
//! with the pid it names a process for good, even after the pid is used again.

use std::fmt;
use std::fs;
use std::str::FromStr;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::error::{Error, Result};

const PREFIX: &str = "afx";
/// Names of namespaces are file names, at most 255 bytes long: two names, a pid, a start time and a number fit.
const LONGEST: usize = 80;
/// `IFNAMSIZ` less the closing zero.
const LONGEST_INTERFACE: usize = 15;

/// The unique identity of an emulated network: its name and its owner.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NetworkId {
    name: String,
    owner: Owner,
}

/// Who takes a network down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Owner {
    /// Nobody: it stays until `afx-testbed down`.
    Nobody,
    /// The process that made it.
    Process {
        /// The process.
        pid: u32,
        /// When that process started, in clock ticks since boot.
        start: u64,
        /// Counts the networks of that process.
        number: u32,
    },
}

impl NetworkId {
    /// A new identity, owned by this process.
    pub(crate) fn owned(name: &str) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let pid = std::process::id();
        let start = start_time(pid).ok_or_else(|| Error::Io {
            what: "reading this process's start time from /proc/self/stat".to_owned(),
            source: std::io::Error::from(std::io::ErrorKind::InvalidData),
        })?;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Ok(Self { name: checked("network name", name)?, owner: Owner::Process { pid, start, number } })
    }

    /// The identity of the network of this name that nobody owns.
    pub(crate) fn unowned(name: &str) -> Result<Self> {
        Ok(Self { name: checked("network name", name)?, owner: Owner::Nobody })
    }

    /// The name given by who made it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Who takes it down.
    #[must_use]
    pub fn owner(&self) -> Owner {
        self.owner
    }

    /// Whether the network has an owner that no longer runs.
    #[must_use]
    pub fn is_orphan(&self) -> bool {
        match self.owner {
            Owner::Nobody => false,
            Owner::Process { pid, start, .. } => start_time(pid) != Some(start),
        }
    }

    /// The name of a host's namespace.
    pub(crate) fn namespace(&self, host: &str) -> String {
        format!("{self}.{host}")
    }

    /// Takes a namespace's name apart: the network, and the host. `None` when it is none of ours.
    pub(crate) fn of_namespace(namespace: &str) -> Option<(Self, &str)> {
        let (id, host) = namespace.rsplit_once('.')?;
        Some((id.parse().ok()?, host))
    }
}

impl fmt::Display for NetworkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}.{}.", self.name)?;
        match self.owner {
            Owner::Nobody => f.write_str("up"),
            Owner::Process { pid, start, number } => write!(f, "{pid}-{start}-{number}"),
        }
    }
}

impl FromStr for NetworkId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parsed = || {
            let mut parts = text.split('.');
            if parts.next()? != PREFIX {
                return None;
            }
            let name = checked("network name", parts.next()?).ok()?;
            let owner = parts.next()?;
            if parts.next().is_some() {
                return None;
            }
            if owner == "up" {
                return Some(Self { name, owner: Owner::Nobody });
            }
            let mut numbers = owner.split('-');
            let pid = numbers.next()?.parse().ok()?;
            let start = numbers.next()?.parse().ok()?;
            let number = numbers.next()?.parse().ok()?;
            numbers.next().is_none().then_some(Self { name, owner: Owner::Process { pid, start, number } })
        };
        parsed().ok_or_else(|| {
            Error::invalid("network", text, "expected afx.NAME.up or afx.NAME.PID-START-NUMBER")
        })
    }
}

/// Accepts what can stand in the names of namespaces, directories and `ip` batches alike.
pub(crate) fn checked(what: &'static str, name: &str) -> Result<String> {
    let good = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.is_empty() || name.len() > LONGEST || !name.chars().all(good) {
        let expected = format!("expected 1 to {LONGEST} letters, digits, '-' or '_'");
        return Err(Error::invalid(what, name, expected));
    }
    Ok(name.to_owned())
}

/// Accepts what the kernel accepts as an interface's name and `ip` cannot take for something else.
pub(crate) fn checked_interface(name: &str) -> Result<String> {
    let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let first = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if !first || name.len() > LONGEST_INTERFACE || !name.chars().all(good) {
        let expected = format!(
            "expected 1 to {LONGEST_INTERFACE} letters, digits, '-', '_' or '.', a letter or digit first"
        );
        return Err(Error::invalid("interface name", name, expected));
    }
    if ["lo", "all", "default"].contains(&name) {
        return Err(Error::invalid("interface name", name, "this name is the kernel's own: choose another"));
    }
    Ok(name.to_owned())
}

/// When a process started, in clock ticks since boot; `None` when it does not run (a zombie does not).
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field, the program's name in parentheses, may hold anything, spaces and parentheses included.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_survives_its_own_text() {
        for id in [NetworkId::owned("a-b_1").unwrap(), NetworkId::unowned("demo").unwrap()] {
            assert_eq!(id.to_string().parse::<NetworkId>().unwrap(), id);
            let namespace = id.namespace("lb-1");
            assert_eq!(NetworkId::of_namespace(&namespace), Some((id, "lb-1")));
        }
    }

    #[test]
    fn names_of_others_are_not_ours() {
        for other in
            ["client", "afx.x.y.z", "afx.demo.up", "afx.demo.1-2.h", "other.demo.up.h", "afx.a.b.up.h"]
        {
            assert_eq!(NetworkId::of_namespace(other), None, "{other}");
        }
    }

    #[test]
    fn two_networks_of_one_name_differ() {
        assert_ne!(NetworkId::owned("x").unwrap(), NetworkId::owned("x").unwrap());
    }

    #[test]
    fn owner_is_recognised_by_pid_and_start_time() {
        let id = NetworkId::owned("x").unwrap();
        assert!(!id.is_orphan());
        let Owner::Process { pid, start, number } = id.owner() else { panic!("no owner: {id}") };
        let reused = NetworkId { owner: Owner::Process { pid, start: start + 1, number }, ..id };
        assert!(reused.is_orphan(), "another process with the same pid is not the owner");
        assert!(!NetworkId::unowned("x").unwrap().is_orphan());
    }

    #[test]
    fn a_zombie_owns_nothing() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        crate::wait_for("the child to end", std::time::Duration::from_secs(30), || start_time(pid).is_none())
            .unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn bad_names_are_refused_with_what_is_right() {
        for bad in ["", "a.b", "a b", "a/b", "ä", &"x".repeat(81)] {
            let message = NetworkId::owned(bad).unwrap_err().to_string();
            assert!(message.contains("letters, digits"), "{message}");
        }
        for bad in ["", "a b", "-a", "a/b", "sixteen-letters-", "lo"] {
            assert!(checked_interface(bad).is_err(), "{bad}");
        }
        assert!(checked_interface("eth0.10").is_ok());
    }
}
