//! What was changed, on disk, before it is: a file for each interface, which outlives a process that is killed.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::setting::Setting;
use super::{Error, Result};
use crate::machine::NAMED;
use crate::xsk::interface;

/// The version of the file's format.
const VERSION: u32 = 1;

/// A file's contents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Journal {
    version: u32,
    /// Of the machine: what was set before it was started again is gone.
    boot: String,
    pub(super) interface: Identity,
    pub(super) owner: Owner,
    /// In the order in which they were made.
    pub(super) entries: Vec<Entry>,
}

/// A setting that was changed, or was about to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    pub(super) setting: Setting,
    pub(super) before: String,
    pub(super) value: String,
}

/// An interface, and no other that comes to have its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Identity {
    pub(super) name: String,
    index: u32,
    mac: [u8; 6],
    /// The number of the network namespace's file.
    namespace: u64,
}

impl Identity {
    /// An interface of this thread's network namespace.
    pub(super) fn of(name: &str) -> io::Result<Self> {
        let index = if_nametoindex(name)?;
        Ok(Self { name: name.into(), index, mac: interface::mac_address(name)?, namespace: namespace()? })
    }

    fn file_name(&self) -> String {
        format!("{}-{}.json", self.namespace, self.index)
    }

    /// Whether its network namespace is nowhere to be found: what was set there went with it. Not where processes are
    /// hidden from this one, which may be in it.
    pub(super) fn namespace_is_gone(&self) -> bool {
        let may_be_it = |path: &Path| match fs::metadata(path) {
            Ok(file) => file.ino() == self.namespace,
            // The process has ended meanwhile.
            Err(error) => error.kind() != io::ErrorKind::NotFound,
        };
        let entries = |folder: &str| fs::read_dir(folder).into_iter().flatten().flatten();
        let is_named = NAMED.iter().any(|folder| entries(folder).any(|entry| may_be_it(&entry.path())));
        let is_process = |entry: &fs::DirEntry| entry.file_name().as_bytes().iter().all(u8::is_ascii_digit);
        let mut processes = entries("/proc").filter(is_process);
        let sees_all = fs::metadata("/proc/1/ns/net").is_ok();
        sees_all && !is_named && !processes.any(|process| may_be_it(&process.path().join("ns/net")))
    }

    /// Its name now; None where it is gone.
    pub(super) fn name_now(&self) -> io::Result<Option<String>> {
        let all = nix::net::if_::if_nameindex()?;
        let found = all.iter().find(|interface| interface.index() == self.index);
        Ok(found.map(|found| found.name().to_string_lossy().into_owned()))
    }

    /// The same, for who has not seen it all the time: an error where another has its number, or may have.
    pub(super) fn found(&self) -> io::Result<Option<String>> {
        let Some(name) = self.name_now()? else { return Ok(None) };
        if interface::mac_address(&name)? == self.mac {
            return Ok(Some(name));
        }
        Err(io::Error::other(format!("{name} has another hardware address since")))
    }
}

/// The number of this thread's network namespace.
pub(super) fn namespace() -> io::Result<u64> {
    Ok(fs::metadata("/proc/thread-self/ns/net")?.ino())
}

/// A process, and no other that comes to have its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Owner {
    pub(super) pid: u32,
    /// When it was started, in the kernel's ticks since the machine was. 0 for one that has given up.
    started: u64,
    /// The number of the PID namespace's file, in which `pid` is its number.
    namespace: u64,
}

impl Owner {
    pub(super) fn this_process() -> io::Result<Self> {
        let pid = std::process::id();
        let (_, started) = stat(&fs::read_to_string("/proc/self/stat")?).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { pid, started, namespace: pid_namespace()? })
    }

    /// One that holds nothing any more, whether it still runs or not.
    pub(super) fn given_up(self) -> Self {
        Self { started: 0, ..self }
    }

    /// Whether it may still run: one that cannot be seen from here may.
    pub(super) fn is_alive(&self) -> bool {
        if self.started == 0 {
            return false;
        }
        if pid_namespace().is_ok_and(|here| here != self.namespace) {
            return true;
        }
        let text = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        let Some((state, started)) = stat(&text) else {
            // A service may be kept from seeing others in /proc: then it is known only that there is one of that number.
            return kill(Pid::from_raw(self.pid as i32), None) != Err(Errno::ESRCH);
        };
        // One that nobody has waited for yet is there, and holds nothing any more, once its last thread has ended.
        let threads = || fs::read_dir(format!("/proc/{}/task", self.pid)).map_or(0, Iterator::count);
        started == self.started && (!matches!(state, 'Z' | 'X') || threads() > 1)
    }
}

fn pid_namespace() -> io::Result<u64> {
    Ok(fs::metadata("/proc/self/ns/pid")?.ino())
}

/// State and start of a process, from its `stat` (proc_pid_stat(5)). Its name, in brackets, may have anything in it.
fn stat(text: &str) -> Option<(char, u64)> {
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

impl Journal {
    /// An empty one of this process.
    pub(super) fn new(interface: Identity) -> io::Result<Self> {
        let owner = Owner::this_process()?;
        Ok(Self { version: VERSION, boot: boot()?, interface, owner, entries: Vec::new() })
    }

    pub(super) fn is_of_this_boot(&self) -> bool {
        boot().is_ok_and(|boot| boot == self.boot)
    }

    /// Whether the process that has made the changes runs.
    pub(super) fn is_in_force(&self) -> bool {
        self.is_of_this_boot() && self.owner.is_alive()
    }

    fn parse(text: &str) -> std::result::Result<Self, String> {
        let version = serde_json::from_str::<serde_json::Value>(text).map_err(|error| error.to_string())?;
        match version.get("version").and_then(serde_json::Value::as_u64) {
            Some(version) if version == u64::from(VERSION) => {}
            Some(version) => {
                return Err(format!("it is of version {version}, and this program reads {VERSION}"));
            }
            None => return Err("it has no version".into()),
        }
        serde_json::from_str(text).map_err(|error| error.to_string())
    }
}

fn boot() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// Where journals are. Who reads and writes those of others holds its [`Lock`].
#[derive(Debug, Clone)]
pub(super) struct Folder(PathBuf);

/// A folder, held against other processes.
pub(super) struct Lock<'f> {
    folder: &'f Path,
    // Held as long as it is open.
    _file: File,
}

impl Folder {
    /// On tmpfs: a machine that is started anew has neither journals nor what they are about.
    pub(super) fn usual() -> Self {
        Self("/run/afx-settings".into())
    }

    #[cfg(test)]
    pub(super) fn at(path: &Path) -> Self {
        Self(path.into())
    }

    /// Waits until no one else holds it. None where there is no such folder, and so no journal.
    pub(super) fn lock(&self) -> Result<Option<Lock<'_>>> {
        let failed = |source| Error::of_file(&self.0, "locking the folder of records", source);
        loop {
            let file = match File::open(&self.0) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(failed(error)),
            };
            file.lock().map_err(failed)?;
            // Whoever held it may have taken it away.
            let number = file.metadata().map_err(failed)?.ino();
            if fs::metadata(&self.0).is_ok_and(|now| now.ino() == number) {
                return Ok(Some(Lock { folder: &self.0, _file: file }));
            }
        }
    }

    /// As [`lock`](Self::lock), and makes it where it is missing.
    pub(super) fn lock_or_make(&self) -> Result<Lock<'_>> {
        loop {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.0);
            made.map_err(|source| Error::of_file(&self.0, "making the folder of records", source))?;
            if let Some(lock) = self.lock()? {
                return Ok(lock);
            }
        }
    }

    /// Writes a journal, whole or not at all, and not before it is on its way to where it outlives this process. Its owner
    /// alone may, or who holds the lock.
    pub(super) fn write(&self, journal: &Journal) -> Result<()> {
        let file = self.0.join(journal.interface.file_name());
        let write = || {
            let new = file.with_extension("new");
            let mut text = serde_json::to_vec_pretty(journal)?;
            text.push(b'\n');
            let mut made = File::create(&new)?;
            made.write_all(&text)?;
            made.sync_all()?;
            fs::rename(&new, &file)?;
            File::open(&self.0)?.sync_all()
        };
        write().map_err(|source| Error::of_file(&file, "writing the record of settings", source))
    }
}

impl Lock<'_> {
    /// The journal of that interface.
    pub(super) fn find(&self, interface: &Identity) -> Result<Option<Journal>> {
        let file = self.folder.join(interface.file_name());
        if file.exists() { self.read(&file).map(Some) } else { Ok(None) }
    }

    /// Files of the journals of this thread's network namespace.
    pub(super) fn files_here(&self) -> Result<Vec<PathBuf>> {
        let here =
            namespace().map_err(|source| Error::of_file(self.folder, "looking for records", source))?;
        let here = format!("{here}-");
        let is_here = |file: &PathBuf| {
            file.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(&here))
        };
        Ok(self.files()?.into_iter().filter(is_here).collect())
    }

    /// Files of all journals.
    fn files(&self) -> Result<Vec<PathBuf>> {
        let failed = |source| Error::of_file(self.folder, "looking for records", source);
        let entries = fs::read_dir(self.folder).map_err(failed)?.collect::<io::Result<Vec<_>>>();
        let paths = entries.map_err(failed)?.into_iter().map(|entry| entry.path());
        let mut files: Vec<_> =
            paths.filter(|path| path.extension().is_some_and(|extension| extension == "json")).collect();
        files.sort();
        Ok(files)
    }

    pub(super) fn read(&self, file: &Path) -> Result<Journal> {
        let text = fs::read_to_string(file)
            .map_err(|source| Error::of_file(file, "reading the record of settings", source))?;
        Journal::parse(&text).map_err(|what| Error::Unreadable { file: file.into(), what })
    }

    /// Deletes what is about a network namespace that is gone, or an earlier run of the machine.
    pub(super) fn forget(&self) -> Result<()> {
        // What is no journal is for whoever looks for just that one.
        let journals: Vec<_> = self.files()?.iter().filter_map(|file| self.read(file).ok()).collect();
        let is_gone = |journal: &&Journal| {
            !journal.is_of_this_boot() || !journal.owner.is_alive() && journal.interface.namespace_is_gone()
        };
        journals.iter().filter(is_gone).try_for_each(|journal| self.remove(journal))
    }

    pub(super) fn remove(&self, journal: &Journal) -> Result<()> {
        let file = self.folder.join(journal.interface.file_name());
        match fs::remove_file(&file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::of_file(&file, "deleting the record of settings", error))
            }
            _ => Ok(()),
        }
    }
}

impl Drop for Lock<'_> {
    fn drop(&mut self) {
        // Goes if there is nothing in it; still locked, so that no one is about to put something there.
        let _ = fs::remove_dir(self.folder);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn entry(setting: Setting, before: &str, value: &str) -> Entry {
        Entry { setting, before: before.into(), value: value.into() }
    }

    /// Of loopback, by this process.
    pub(crate) fn journal(entries: Vec<Entry>) -> Journal {
        Journal { entries, ..Journal::new(Identity::of("lo").unwrap()).unwrap() }
    }

    #[test]
    fn a_journal_is_read_as_it_was_written() {
        let parent = tempfile::tempdir().unwrap();
        let folder = Folder::at(&parent.path().join("afx/settings"));
        assert!(folder.lock().unwrap().is_none());
        let settings = [
            Setting::Channels,
            Setting::Spread,
            Setting::Interrupt { number: 41 },
            Setting::attribute("gro_flush_timeout"),
            Setting::Offload { name: "rx-gro".into() },
            Setting::Key,
            Setting::Defer { queue: 1 },
        ];
        let written = journal(settings.map(|setting| entry(setting, "0 1", "1 1")).into());
        let lock = folder.lock_or_make().unwrap();
        folder.write(&written).unwrap();
        let read = lock.find(&Identity::of("lo").unwrap()).unwrap().unwrap();
        assert_eq!(read, written);
        assert!(
            read.is_of_this_boot()
                && read.owner.is_alive()
                && read.interface.found().unwrap().unwrap() == "lo"
        );
        assert_eq!(lock.files_here().unwrap(), lock.files().unwrap());
        assert_eq!(lock.files().unwrap().len(), 1);
        // With the last one the folder goes; whoever waited for it takes note.
        lock.remove(&read).unwrap();
        drop(lock);
        assert!(folder.lock().unwrap().is_none());
        assert!(folder.lock_or_make().unwrap().files().unwrap().is_empty());
    }

    #[test]
    fn what_is_no_journal_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let folder = Folder::at(folder.path());
        let lock = folder.lock_or_make().unwrap();
        let interface = Identity::of("lo").unwrap();
        let file = folder.0.join(interface.file_name());
        let whole = serde_json::to_string(&journal(Vec::new())).unwrap();
        let later = whole.replace("\"version\":1", "\"version\":2");
        let more = whole.replace("\"version\":1", "\"version\":1,\"unknown\":1");
        for (text, what) in [
            ("", "EOF"),
            (&whole[..whole.len() / 2], "EOF"),
            ("{}", "no version"),
            (&later, "version 2"),
            (&more, "unknown field"),
        ] {
            fs::write(&file, text).unwrap();
            let error = lock.find(&interface).unwrap_err().to_string();
            assert!(error.contains(what) && error.contains(file.to_str().unwrap()), "{error}");
        }
    }

    #[test]
    fn processes_are_told_apart() {
        let mut owner = Owner::this_process().unwrap();
        assert!(owner.is_alive());
        owner.started -= 1;
        assert!(!owner.is_alive(), "another process had this number");
        let owner = Owner::this_process().unwrap();
        assert!(!owner.given_up().is_alive());
        let nobody = Owner { pid: i32::MAX as u32, ..owner };
        assert!(!nobody.is_alive());
        let unseen = Owner { pid: u32::MAX, namespace: owner.namespace + 1, ..owner };
        assert!(unseen.is_alive(), "its number says nothing here");
        assert_eq!(stat("7 (a b) c) Z 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 99 20"), Some(('Z', 99)));
        // One that has ended, and that nobody has waited for.
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let path = format!("/proc/{}/stat", child.id());
        let (_, started) = stat(&fs::read_to_string(path).unwrap()).unwrap();
        let owner = Owner { pid: child.id(), started, ..Owner::this_process().unwrap() };
        while owner.is_alive() {
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert!(!owner.is_alive());
    }
}
