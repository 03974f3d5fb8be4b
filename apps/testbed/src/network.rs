//! A network as a whole: where its files are, and how it is taken down whatever became of its owner.

use std::fs;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::error::{Error, Result};
use crate::name::{NetworkId, Owner};
use crate::namespace;
use crate::process::Processes;

/// What the networks' programs print and captures record, one folder a network.
const FILES: &str = "/run/afx-testbed";

/// What all hosts of a network share.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) id: NetworkId,
    pub(crate) directory: PathBuf,
    pub(crate) processes: Processes,
}

impl Network {
    /// A new network. Its folder is the lock: of two at once with the same identity one gets it.
    pub(crate) fn create(id: NetworkId) -> Result<Self> {
        check_capabilities()?;
        let network = Self::attached(id);
        fs::create_dir_all(FILES).map_err(Error::io(format!("creating {FILES}")))?;
        match fs::create_dir(&network.directory) {
            Ok(()) => Ok(network),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let name = network.id.name();
                Err(Error::invalid(
                    "network",
                    name,
                    format!("it is up already: `afx-testbed down {name}` first"),
                ))
            }
            Err(error) => Err(Error::io(format!("creating {}", network.directory.display()))(error)),
        }
    }

    /// A network that is there already.
    pub(crate) fn attached(id: NetworkId) -> Self {
        let directory = Path::new(FILES).join(id.to_string());
        Self { id, directory, processes: Processes::default() }
    }

    /// Finds a network by the name of one without owner, or by any's full identity.
    pub(crate) fn find(name: &str, known: &[(NetworkId, String, String)]) -> Result<NetworkId> {
        let matches =
            |id: &NetworkId| id.to_string() == name || (id.owner() == Owner::Nobody && id.name() == name);
        if let Some((id, ..)) = known.iter().find(|(id, ..)| matches(id)) {
            return Ok(id.clone());
        }
        let mut names: Vec<_> = known
            .iter()
            .map(|(id, ..)| if id.owner() == Owner::Nobody { id.name().to_owned() } else { id.to_string() })
            .collect();
        names.dedup();
        let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        Err(Error::Unknown { what: "network", name: name.to_owned(), known })
    }

    /// Takes everything down: processes, namespaces (interfaces go with them), files.
    pub(crate) fn remove(&self) -> Result<()> {
        self.processes.kill_all();
        let known = namespace::all()?;
        let names: Vec<_> =
            known.into_iter().filter(|(id, ..)| *id == self.id).map(|(.., name)| name).collect();
        namespace::remove(&names)?;
        match fs::remove_dir_all(&self.directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::io(format!("removing {}", self.directory.display()))(error))
            }
            _ => Ok(()),
        }
    }
}

/// The networks that have left a namespace or a folder.
pub(crate) fn all() -> Result<Vec<NetworkId>> {
    let mut ids: Vec<_> = namespace::all()?.into_iter().map(|(id, ..)| id).collect();
    let folders = fs::read_dir(FILES).into_iter().flatten().flatten();
    ids.extend(folders.filter_map(|folder| folder.file_name().to_str()?.parse().ok()));
    ids.sort();
    ids.dedup();
    Ok(ids)
}

/// Removes the networks whose owner no longer runs, and returns them. [`Testbed::new`](crate::Testbed::new) does it,
/// too.
///
/// # Errors
///
/// [`Error::Io`] when the system refuses, [`Error::Deadline`] when a process cannot be killed.
pub fn sweep() -> Result<Vec<NetworkId>> {
    let orphans: Vec<_> = all()?.into_iter().filter(NetworkId::is_orphan).collect();
    for id in &orphans {
        Network::attached(id.clone()).remove()?;
    }
    Ok(orphans)
}

/// Takes down a network brought up by [`Testbed::keep`](crate::Testbed::keep) or `afx-testbed up`.
///
/// # Errors
///
/// [`Error::Unknown`] with the networks there are; [`Error::Io`] and [`Error::Deadline`] as [`sweep`].
pub fn down(name: &str) -> Result<()> {
    let id = NetworkId::unowned(name)?;
    let ids = all()?;
    if !ids.contains(&id) {
        let names: Vec<_> =
            ids.iter().filter(|id| id.owner() == Owner::Nobody).map(NetworkId::name).collect();
        let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        return Err(Error::Unknown { what: "network", name: name.to_owned(), known });
    }
    Network::attached(id).remove()
}

/// A shell that outlives this process by a moment: it waits on a pipe whose other end is held here alone, and which
/// closes however this process ends. Then it takes the network down.
#[derive(Debug)]
pub(crate) struct Watchdog {
    shell: Child,
}

/// `$1` is the network's identity, `$2` its folder. Two rounds: a command that this process had just started may still
/// have been making a namespace in the first.
const WATCH: &str = r#"
trap '' HUP INT TERM
read -r word && exit 0
for round in 1 2; do
    for file in /run/netns/"$1".*; do
        [ -e "$file" ] || continue
        name=${file##*/}
        tries=0
        while pids=$(ip netns pids "$name") && [ -n "$pids" ] && [ "$tries" -lt 200 ]; do
            kill -9 $pids
            sleep 0.02
            tries=$((tries + 1))
        done
        ip netns delete "$name"
    done
    rm -rf "$2"
    sleep 0.1
done
"#;

impl Watchdog {
    pub(crate) fn start(network: &Network) -> Result<Self> {
        let shell = Command::new("/bin/sh")
            .args(["-c", WATCH, "afx-testbed-watchdog", &network.id.to_string()])
            .arg(&network.directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Whoever kills this process's group, or its terminal, shall not kill the watchdog.
            .process_group(0)
            .current_dir("/")
            .spawn()
            .map_err(Error::io(format!("starting the shell that watches over {}", network.id)))?;
        Ok(Self { shell })
    }

    /// Ends the watch: the network is gone, or is to stay.
    pub(crate) fn dismiss(mut self) {
        if let Some(mut pipe) = self.shell.stdin.take() {
            let _ = pipe.write_all(b"done\n");
        }
        let _ = self.shell.wait();
    }
}

/// Asks the kernel for the rights before half a network is made.
fn check_capabilities() -> Result<()> {
    const NEEDED: [(u32, &str); 2] = [(21, "CAP_SYS_ADMIN"), (12, "CAP_NET_ADMIN")];
    let status = fs::read_to_string("/proc/thread-self/status")
        .map_err(Error::io("reading /proc/thread-self/status"))?;
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let Some(effective) = effective.and_then(|text| u64::from_str_radix(text.trim(), 16).ok()) else {
        return Ok(());
    };
    let missing: Vec<_> =
        NEEDED.iter().filter(|(bit, _)| effective & (1 << bit) == 0).map(|(_, name)| *name).collect();
    if missing.is_empty() { Ok(()) } else { Err(Error::NotPermitted { missing: missing.join(" and ") }) }
}
