//! Putting back what was changed.

use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use super::Result;
use super::journal::{Entry, Folder, Identity, Journal, Lock};

/// What became of a setting that was to be put back.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// It is as before.
    Restored,
    /// It was as before already.
    Already,
    /// Someone else has set it to this since, and it stays so.
    ChangedSince(String),
    /// The interface, or what was set of it, is gone.
    Gone,
    /// It could not be put back, and why. It stays on record.
    Failed(String),
    /// The process that has set it runs.
    InForce {
        /// Its number.
        pid: u32,
    },
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Restored => f.write_str("put back"),
            Self::Already => f.write_str("was as before already"),
            Self::ChangedSince(now) => write!(f, "left alone: someone else has set it to {now}"),
            Self::Gone => f.write_str("gone, nothing to put back"),
            Self::Failed(why) => write!(f, "could not be put back: {why}"),
            Self::InForce { pid } => write!(f, "in force: process {pid} runs"),
        }
    }
}

/// A setting on record.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Restored {
    /// The interface.
    pub interface: String,
    /// What was set: `channels`.
    pub setting: String,
    /// What it was before.
    pub before: String,
    /// What it was set to.
    pub value: String,
    /// What became of it.
    pub outcome: Outcome,
}

impl Restored {
    fn of(interface: &str, entry: &Entry, outcome: Outcome) -> Self {
        let shown = |value: &str| entry.setting.shown(value);
        let outcome = match outcome {
            Outcome::ChangedSince(now) => Outcome::ChangedSince(shown(&now)),
            other => other,
        };
        Self {
            interface: interface.into(),
            setting: entry.setting.name(),
            before: shown(&entry.before),
            value: shown(&entry.value),
            outcome,
        }
    }
}

/// Puts back what processes that run no more have left changed: of one interface of the calling thread's network
/// namespace, or of all of them. Says of everything that is on record what became of it.
///
/// # Errors
/// [`Error::Unreadable`](super::Error::Unreadable) for a record that is none, before anything is changed;
/// [`Error::System`](super::Error::System) where there is no such interface, or records cannot be read or deleted.
pub fn restore(interface: Option<&str>) -> Result<Vec<Restored>> {
    let one = interface.map(|name| {
        Identity::of(name)
            .map_err(|source| super::Error::System { what: format!("looking for {name}"), source })
    });
    let one = one.transpose()?;
    let folder = Folder::usual();
    let Some(lock) = folder.lock()? else { return Ok(Vec::new()) };
    let journals = match &one {
        Some(interface) => lock.find(interface)?.into_iter().collect(),
        None => {
            lock.forget()?;
            lock.files_here()?.iter().map(|file| lock.read(file)).collect::<Result<Vec<_>>>()?
        }
    };
    let mut all = Vec::new();
    for journal in journals {
        all.extend(recover(&folder, &lock, journal)?);
    }
    Ok(all)
}

/// Puts back what is in a journal of this network namespace, if its owner runs no more.
pub(super) fn recover(folder: &Folder, lock: &Lock<'_>, mut journal: Journal) -> Result<Vec<Restored>> {
    let name = journal.interface.name.clone();
    let all = |outcome: Outcome| -> Vec<Restored> {
        journal.entries.iter().map(|entry| Restored::of(&name, entry, outcome.clone())).collect()
    };
    if journal.is_in_force() {
        return Ok(all(Outcome::InForce { pid: journal.owner.pid }));
    }
    let found = if journal.is_of_this_boot() { journal.interface.found() } else { Ok(None) };
    match found {
        Ok(None) => {}
        Ok(Some(name)) => {
            let restored = put_back(&name, &mut journal.entries);
            if journal.entries.is_empty() {
                lock.remove(&journal)?;
            } else {
                folder.write(&journal)?;
            }
            return Ok(restored);
        }
        Err(error) => return Ok(all(Outcome::Failed(error.to_string()))),
    }
    let gone = all(Outcome::Gone);
    lock.remove(&journal)?;
    Ok(gone)
}

/// How long the kernel is given to let go of what a process held that has just ended.
const PATIENCE: Duration = Duration::from_secs(2);

/// Puts back settings, the last first. Those that could not be put back stay.
pub(super) fn put_back(interface: &str, entries: &mut Vec<Entry>) -> Vec<Restored> {
    let deadline = Instant::now() + PATIENCE;
    let mut all = Vec::new();
    let mut left = Vec::new();
    for entry in entries.drain(..).rev() {
        let outcome = put_back_one(interface, &entry, deadline);
        all.push(Restored::of(interface, &entry, outcome.clone()));
        if matches!(outcome, Outcome::Failed(_)) {
            left.push(entry);
        }
    }
    left.reverse();
    *entries = left;
    all
}

/// Whether waiting does not help.
fn is_final(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied)
}

fn put_back_one(interface: &str, entry: &Entry, deadline: Instant) -> Outcome {
    let Entry { setting, before, value } = entry;
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => Outcome::Gone,
        _ => Outcome::Failed(error.to_string()),
    };
    loop {
        let now = match setting.read(interface) {
            Ok(now) => now,
            // A driver makes its queues anew where a socket has just gone.
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(20));
                continue;
            }
            Err(error) => return failed(error),
        };
        if now == *before {
            return Outcome::Already;
        }
        if now != *value {
            return Outcome::ChangedSince(now);
        }
        let result = setting.write(interface, before).and_then(|()| setting.read(interface));
        match result {
            Ok(now) if now == *before => return Outcome::Restored,
            Err(error) if is_final(&error) => return failed(error),
            _ if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(20)),
            Ok(now) => return Outcome::Failed(format!("it is {} now", setting.shown(&now))),
            Err(error) => return failed(error),
        }
    }
}
