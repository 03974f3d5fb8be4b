//! Network namespaces: entering one, making and removing them, finding who lives in them.
//!
//! A thread enters a namespace for good, so that everything here happens on a fresh thread: what that thread starts,
//! processes and threads, inherits the namespace.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::error::{Error, Result};
use crate::name::NetworkId;

/// Where iproute2 keeps named namespaces.
const DIRECTORY: &str = "/run/netns";
/// How long killed processes may take to leave a namespace.
const LEAVE: Duration = Duration::from_secs(20);

/// What of `/sys` is seen from inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sysfs {
    /// The machine's: enough for whoever does not read `/sys/class/net`.
    Machine,
    /// The namespace's own interfaces in `/sys/class/net`, the machine's otherwise.
    Namespace,
}

/// Where a namespace of this name is.
pub(crate) fn path(name: &str) -> PathBuf {
    Path::new(DIRECTORY).join(name)
}

/// Runs `work` on a fresh thread inside the namespace. A panic of `work` goes on in the caller.
pub(crate) fn inside<T: Send>(name: &str, sysfs: Sysfs, work: impl FnOnce() -> T + Send) -> Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("testbed-host".to_owned())
            .spawn_scoped(scope, || enter(name, sysfs).map(|()| work()))
            .map_err(Error::io(format!("starting a thread to enter the namespace {name}")))?;
        thread.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

/// Moves the calling thread into the namespace, for good.
pub(crate) fn enter(name: &str, sysfs: Sysfs) -> Result<()> {
    let enter = || {
        let file = File::open(path(name))?;
        setns(&file, CloneFlags::CLONE_NEWNET)?;
        if sysfs == Sysfs::Namespace { show_own_interfaces() } else { Ok(()) }
    };
    enter().map_err(Error::io(format!("entering the network namespace {name}")))
}

/// Lays this namespace's interfaces over the machine's in `/sys`, for this thread and what it starts.
///
/// A sysfs shows the interfaces of the namespace in which it was mounted. Only the two folders that tell of
/// interfaces are laid over, so that what is mounted below `/sys` (cgroups, bpf, tracing) stays reachable: `ip netns
/// exec` hides it.
fn show_own_interfaces() -> io::Result<()> {
    const NONE: Option<&str> = None;
    const OVERLAID: [&str; 2] = ["class/net", "devices/virtual/net"];
    unshare(CloneFlags::CLONE_NEWNS)?;
    // Slave, not private: a namespace that is taken down outside must go here, too, or it would never end.
    mount(NONE, "/", NONE, MsFlags::MS_SLAVE | MsFlags::MS_REC, NONE)?;
    // Any folder would do to mount it for a moment; this one exists, and nobody else sees it.
    mount(Some("sysfs"), DIRECTORY, Some("sysfs"), MsFlags::empty(), NONE)?;
    for folder in OVERLAID {
        let (own, machine) = (Path::new(DIRECTORY).join(folder), Path::new("/sys").join(folder));
        mount(Some(&own), &machine, NONE, MsFlags::MS_BIND, NONE)?;
    }
    umount2(DIRECTORY, MntFlags::MNT_DETACH)?;
    Ok(())
}

/// The namespaces that belong to emulated networks: network, host, namespace.
pub(crate) fn all() -> Result<Vec<(NetworkId, String, String)>> {
    let entries = match fs::read_dir(DIRECTORY) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io(format!("listing {DIRECTORY}"))(error)),
    };
    let mut found: Vec<_> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter_map(|name| {
            let (network, host) = NetworkId::of_namespace(&name)?;
            Some((network, host.to_owned(), name))
        })
        .collect();
    found.sort();
    Ok(found)
}

/// Kills every process that lives in one of these namespaces, except this one, and removes the namespaces.
///
/// Others may be at it at the same time: what is gone already is no error.
pub(crate) fn remove(names: &[String]) -> Result<()> {
    kill_inhabitants(names)?;
    for name in names {
        let path = path(name);
        match umount2(&path, MntFlags::MNT_DETACH) {
            // Not a mount point: what a reboot, or a removal cut short, leaves behind.
            Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
            Err(error) => return Err(Error::io(format!("unmounting {}", path.display()))(error.into())),
        }
        match fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io(format!("removing {}", path.display()))(error)),
        }
    }
    Ok(())
}

fn kill_inhabitants(names: &[String]) -> Result<()> {
    let inodes: BTreeSet<_> = names.iter().filter_map(|name| identity(&path(name))).collect();
    let deadline = Instant::now() + LEAVE;
    loop {
        let living = inhabitants(&inodes);
        if living.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(Error::Deadline {
                what: format!("the processes of {} to end after SIGKILL", names.join(", ")),
                within: LEAVE,
                detail: format!("; still there: {living:?}"),
            });
        }
        for pid in living {
            // An error says that it ended by itself meanwhile.
            let _ = kill(pid, Signal::SIGKILL);
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// The processes whose main thread is in one of these namespaces, this process left out.
pub(crate) fn processes(names: &[String]) -> Vec<Pid> {
    inhabitants(&names.iter().filter_map(|name| identity(&path(name))).collect())
}

fn inhabitants(inodes: &BTreeSet<(u64, u64)>) -> Vec<Pid> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| i64::from(*pid) != i64::from(std::process::id()))
        .filter(|pid| {
            let namespace = PathBuf::from(format!("/proc/{pid}/ns/net"));
            identity(&namespace).is_some_and(|identity| inodes.contains(&identity))
        })
        .map(Pid::from_raw)
        .collect()
}

/// Device and inode: what tells one namespace from another, see namespaces(7).
fn identity(namespace: &Path) -> Option<(u64, u64)> {
    fs::metadata(namespace).ok().map(|found| (found.dev(), found.ino()))
}
