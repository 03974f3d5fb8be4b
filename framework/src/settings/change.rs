//! Making changes, all of them or none.

use std::io;

use super::journal::Entry;
#[cfg(feature = "doctor")]
use super::restore::Outcome;
use super::restore::{Restored, put_back};
use super::setting::Setting;
use super::{Error, Result};

/// Where changes of an interface are written down before they are made.
pub(super) trait Record {
    fn interface(&self) -> &str;
    fn entries(&mut self) -> &mut Vec<Entry>;
    /// Keeps what the entries say now.
    fn keep(&self) -> Result<()>;
}

/// What became of changes that are made together.
pub(super) enum Made {
    /// All of them have the values wanted.
    All,
    /// None is made: why one of them could not be, and what was put back.
    None(io::Error, Vec<Restored>),
}

/// Makes all of these changes, those before the first that cannot be made put back.
pub(super) fn all_or_none(record: &mut impl Record, changes: &[(Setting, String)]) -> Result<Made> {
    let before = record.entries().len();
    for (setting, value) in changes {
        let error = match change(record, setting, value) {
            Ok(Ok(())) => continue,
            Ok(Err(error)) => error,
            // No record, no change.
            Err(Error::System { source, .. }) => source,
            Err(error) => return Err(error),
        };
        return Ok(Made::None(error, undo(record, before)?));
    }
    Ok(Made::All)
}

/// Makes a change, once it is on record. The inner error is the interface's.
fn change(record: &mut impl Record, setting: &Setting, value: &str) -> Result<io::Result<()>> {
    let name = record.interface().to_owned();
    let before = match setting.read(&name) {
        Ok(before) if before == value => return Ok(Ok(())),
        Ok(before) => before,
        Err(error) => return Ok(Err(error)),
    };
    let entry = Entry { setting: setting.clone(), before: before.clone(), value: value.into() };
    record.entries().push(entry);
    if let Err(error) = record.keep() {
        record.entries().pop();
        return Err(error);
    }
    let result = setting.write(&name, value);
    // Drivers round, and some do half of it and fail.
    let now = setting.read(&name).unwrap_or_else(|_| value.to_owned());
    let result = match result {
        Ok(()) if now == before => {
            Err(io::Error::new(io::ErrorKind::Unsupported, "the driver has left it as it was"))
        }
        result => result,
    };
    if now == before {
        record.entries().pop();
    } else if let Some(entry) = record.entries().last_mut() {
        entry.value = now;
    }
    record.keep()?;
    Ok(result)
}

/// Puts back the changes after the first so many.
fn undo(record: &mut impl Record, first: usize) -> Result<Vec<Restored>> {
    if record.entries().len() <= first {
        return Ok(Vec::new());
    }
    let mut last = record.entries().split_off(first);
    let restored = put_back(record.interface(), &mut last);
    record.entries().append(&mut last);
    record.keep()?;
    Ok(restored)
}

/// Changes that stay, and of which nothing is written down.
#[cfg(feature = "doctor")]
struct Lasting {
    interface: String,
    entries: Vec<Entry>,
}

#[cfg(feature = "doctor")]
impl Record for Lasting {
    fn interface(&self) -> &str {
        &self.interface
    }

    fn entries(&mut self) -> &mut Vec<Entry> {
        &mut self.entries
    }

    fn keep(&self) -> Result<()> {
        Ok(())
    }
}

/// Makes all of these changes for good, or none, and returns in words what was there before: nothing where all was as
/// wanted.
///
/// # Errors
/// Why the first could not be made; then what was changed before it is put back.
#[cfg(feature = "doctor")]
pub(crate) fn for_good(interface: &str, changes: &[(Setting, String)]) -> io::Result<Vec<String>> {
    let mut lasting = Lasting { interface: interface.into(), entries: Vec::new() };
    match all_or_none(&mut lasting, changes).map_err(io::Error::other)? {
        Made::All => {}
        Made::None(error, restored) => {
            let left = restored.iter().filter_map(|one| match &one.outcome {
                Outcome::Failed(why) => Some(format!("; {} could not be put back: {why}", one.setting)),
                _ => None,
            });
            let left: String = left.collect();
            return Err(if left.is_empty() {
                error
            } else {
                io::Error::new(error.kind(), format!("{error}{left}"))
            });
        }
    }
    let before =
        |Entry { setting, before, .. }: &Entry| format!("{} {}", setting.name(), setting.shown(before));
    Ok(lasting.entries.iter().map(before).collect())
}
