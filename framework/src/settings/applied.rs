//! A port's changes, from its start to its end.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;

use nix::sched::{CloneFlags, setns};

use super::change::{Made, Record, all_or_none};
use super::journal::{Entry, Folder, Identity, Journal, namespace};
use super::napi::Defer;
use super::restore::{Outcome, Restored, put_back, recover};
use super::setting::{Setting, defer, hex, places, text};
use super::{DEFER, Error, Result, Settings, Want};
use crate::machine::{Files, interrupts};
use crate::port::Change;

/// What a port has changed. Puts it back when dropped, on whichever thread.
#[derive(Debug, Default)]
pub(crate) struct Applied {
    wanted: Settings,
    held: Option<Held>,
    /// What could not be changed as was wanted and need not be, and why.
    skipped: Vec<(&'static str, String)>,
}

/// An interface whose settings are this process's to change.
#[derive(Debug)]
struct Held {
    folder: Folder,
    journal: Journal,
    /// The network namespace that the interface is in.
    namespace: File,
}

impl Applied {
    /// Puts back what an earlier process may have left, and changes what is wanted before the port has its queues.
    pub(crate) fn start(interface: &str, wanted: &Settings) -> Result<Self> {
        let held = Held::claim(&Folder::usual(), interface, wanted.wants().any(|want| want != Want::Off));
        let mut applied = Self { wanted: wanted.clone(), ..Self::default() };
        match held {
            Ok(held) => applied.held = held,
            // Not where that is the only thing that can be wrong: nothing is demanded.
            Err(Error::System { what, source }) if wanted.wants().all(|want| want != Want::Required) => {
                applied.skipped.push(("settings", format!("stay as they are: {what}: {source}")));
            }
            Err(error) => return Err(error),
        }
        if let Some(count) = wanted.channels {
            applied.change(Want::Required, "channels", vec![(Setting::Channels, count.to_string())])?;
        }
        Ok(applied)
    }

    /// Changes what is wanted once the port has its queues.
    pub(crate) fn with_queues(&mut self, queues: &[u32]) -> Result<()> {
        self.hash()?;
        self.spread(queues)
    }

    fn hash(&mut self) -> Result<()> {
        let Some((held, key)) = self.held.as_ref().zip(self.wanted.key.as_ref()) else { return Ok(()) };
        const NAME: &str = "RSS key";
        let now = match Setting::Key.read(&held.journal.interface.name) {
            Ok(now) => now,
            Err(error) => return self.refused(Want::Required, NAME, error),
        };
        let size = now.len() / 2;
        if key.is_empty() || key.len() > size {
            let what =
                format!("a key of {} bytes: the card's has {size}, and a shorter one is repeated", key.len());
            return self.refused(Want::Required, NAME, io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        let whole: Vec<u8> = key.iter().copied().cycle().take(size).collect();
        self.change(Want::Required, NAME, vec![(Setting::Key, hex(&whole))]).map(drop)
    }

    /// Changes what is wanted once each queue has its socket, for which some drivers make queues anew.
    pub(crate) fn with_sockets(&mut self, queues: &[u32]) -> Result<()> {
        let Some(held) = self.held.as_ref().filter(|_| self.wanted.defer != Want::Off) else { return Ok(()) };
        let name = &held.journal.interface.name;
        // For these queues alone, so that the kernel's own packets on others do not wait; where all of them can have that.
        let [(_, rounds), (_, timeout)] = DEFER;
        let mut changes = Vec::new();
        for queue in queues {
            let setting = Setting::Defer { queue: *queue };
            match setting.read(name).map(|now| defer(&now)) {
                // Whoever has set both values has chosen for how long; a queue has those of the interface, too.
                Ok(Some(Defer { rounds: 1.., timeout: 1.. })) => {}
                Ok(_) => changes.push((setting, format!("{rounds} {timeout}"))),
                Err(error) => return self.defer_all(&error),
            }
        }
        let held = self.held.as_mut().expect("it is held: see above");
        match all_or_none(held, &changes)? {
            Made::All => Ok(()),
            Made::None(error, restored) => {
                restored.iter().for_each(report);
                self.defer_all(&error)
            }
        }
    }

    /// Does so for the whole interface. `why` it is not for queues.
    fn defer_all(&mut self, why: &io::Error) -> Result<()> {
        const NAME: &str = "interrupts put off";
        let Some(held) = &self.held else { return Ok(()) };
        let name = &held.journal.interface.name;
        let is_on =
            |(file, _): &(&str, &str)| Setting::attribute(file).read(name).is_ok_and(|value| value != "0");
        if DEFER.iter().all(is_on) {
            return Ok(());
        }
        let defer = DEFER.map(|(name, value)| (Setting::attribute(name), value.to_owned()));
        if self.change(self.wanted.defer, NAME, defer.into())? {
            self.skipped.push((NAME, format!("for the whole interface, not for single queues: {why}")));
        }
        Ok(())
    }

    fn spread(&mut self, queues: &[u32]) -> Result<()> {
        let Some(held) = self.held.as_ref().filter(|_| self.wanted.spread != Want::Off) else {
            return Ok(());
        };
        let changes = match Setting::Spread.read(&held.journal.interface.name) {
            Ok(now) => vec![(Setting::Spread, text(&spread_over(queues, &places(&now))))],
            Err(error) => return self.refused(self.wanted.spread, "RSS table", error),
        };
        self.change(self.wanted.spread, "RSS table", changes).map(drop)
    }

    /// Changes what is wanted once each queue has its worker: queues and the cores that their workers are pinned to.
    pub(crate) fn with_cores(&mut self, cores: &[(u32, usize)]) -> Result<()> {
        const NAME: &str = "cores of interrupts";
        let Some(held) = self.held.as_ref().filter(|_| self.wanted.interrupts != Want::Off) else {
            return Ok(());
        };
        let interrupts = interrupts::of(&Files::Machine, &held.journal.interface.name);
        let change = |interrupt: &interrupts::Interrupt| {
            let (_, core) = cores.iter().find(|(queue, _)| Some(*queue) == interrupt.queue)?;
            Some((Setting::Interrupt { number: interrupt.number }, core.to_string()))
        };
        let changes: Vec<_> = interrupts.iter().filter_map(change).collect();
        if changes.is_empty() {
            let why = if interrupts.is_empty() {
                "it has none that can be seen"
            } else {
                "none of them says which queue of a worker with a core of its own it is for"
            };
            return self.refused(
                self.wanted.interrupts,
                NAME,
                io::Error::new(io::ErrorKind::Unsupported, why),
            );
        }
        self.change(self.wanted.interrupts, NAME, changes).map(drop)
    }

    /// Makes these changes, as far as they are any. False where they are not made, and need not be.
    fn change(&mut self, want: Want, name: &'static str, changes: Vec<(Setting, String)>) -> Result<bool> {
        let Some(held) = self.held.as_mut().filter(|_| want != Want::Off) else { return Ok(false) };
        match all_or_none(held, &changes)? {
            Made::All => Ok(true),
            Made::None(error, restored) => {
                restored.iter().for_each(report);
                self.refused(want, name, error)?;
                Ok(false)
            }
        }
    }

    /// What the interface cannot do is an error where it was demanded.
    fn refused(&mut self, want: Want, name: &'static str, source: io::Error) -> Result<()> {
        if want == Want::Required {
            return Err(Error::System { what: format!("changing its {name}"), source });
        }
        self.skipped.push((name, format!("not changed: {source}")));
        Ok(())
    }

    /// What was changed.
    pub(crate) fn changes(&self) -> Vec<Change> {
        let entries = self.held.iter().flat_map(|held| &held.journal.entries);
        let change = |Entry { setting, before, value }: &Entry| Change {
            setting: setting.name(),
            before: setting.shown(before),
            value: setting.shown(value),
        };
        entries.map(change).collect()
    }

    /// What could not be changed as was wanted, and why.
    pub(crate) fn skipped(&self) -> &[(&'static str, String)] {
        &self.skipped
    }
}

impl Held {
    /// An interface whose settings no other process has changed, or none that still runs. None where nothing is wanted of it.
    fn claim(folder: &Folder, name: &str, is_wanted: bool) -> Result<Option<Self>> {
        let system = |source| Error::System { what: format!("looking at {name}"), source };
        let interface = Identity::of(name).map_err(system)?;
        let lock = if is_wanted { Some(folder.lock_or_make()?) } else { folder.lock()? };
        let Some(lock) = lock else { return Ok(None) };
        let mut left = Vec::new();
        if let Some(journal) = lock.find(&interface)? {
            // With nothing wanted, whoever has the interface says so itself.
            if is_wanted && journal.is_in_force() {
                return Err(Error::InForce { interface: name.into(), pid: journal.owner.pid });
            }
            recover(folder, &lock, journal)?.iter().for_each(report);
            // What could not be put back is tried again at the end.
            left = lock.find(&interface)?.map(|journal| journal.entries).unwrap_or_default();
        }
        if !is_wanted {
            return Ok(None);
        }
        lock.forget()?;
        let namespace = File::open("/proc/thread-self/ns/net").map_err(system)?;
        let mut journal = Journal::new(interface).map_err(system)?;
        journal.entries = left;
        folder.write(&journal)?;
        Ok(Some(Self { folder: folder.clone(), journal, namespace }))
    }

    fn put_back(&mut self) -> Result<Vec<Restored>> {
        let name = self.journal.interface.name_now();
        let name =
            name.map_err(|source| Error::System { what: "looking for the interface".into(), source })?;
        let restored = name.map(|name| put_back(&name, &mut self.journal.entries)).unwrap_or_default();
        let is_left = restored.iter().any(|restored| matches!(restored.outcome, Outcome::Failed(_)));
        if is_left {
            self.journal.owner = self.journal.owner.given_up();
            self.folder.write(&self.journal)?;
        } else if let Some(lock) = self.folder.lock()? {
            lock.remove(&self.journal)?;
        }
        Ok(restored)
    }
}

impl Record for Held {
    fn interface(&self) -> &str {
        &self.journal.interface.name
    }

    fn entries(&mut self) -> &mut Vec<Entry> {
        &mut self.journal.entries
    }

    fn keep(&self) -> Result<()> {
        self.folder.write(&self.journal)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let namespace_here = namespace();
        let namespace = self.namespace.metadata().and_then(|file| {
            let is_here = namespace_here.is_ok_and(|here| here == file.ino());
            Ok((!is_here).then_some(self.namespace.try_clone()?))
        });
        let result = match namespace {
            Ok(None) => self.put_back(),
            // A thread of its own: it stays in the namespace, and ends.
            Ok(Some(namespace)) => std::thread::scope(|scope| {
                let there = scope.spawn(|| {
                    setns(namespace, CloneFlags::CLONE_NEWNET).map_err(|errno| entering(errno.into()))?;
                    self.put_back()
                });
                there.join().unwrap_or_else(|_| Err(entering(io::Error::other("a panic"))))
            }),
            Err(source) => Err(entering(source)),
        };
        match result {
            Ok(restored) => restored.iter().for_each(report),
            Err(error) => {
                let why = std::error::Error::source(&error).map(|source| format!(": {source}"));
                tracing::warn!("settings are not put back: {error}{}", why.unwrap_or_default());
            }
        }
    }
}

fn entering(source: io::Error) -> Error {
    Error::System { what: "entering the interface's network namespace".into(), source }
}

/// Tells the log what became of a setting.
fn report(Restored { interface, setting, before, outcome, .. }: &Restored) {
    match outcome {
        Outcome::Restored | Outcome::Already => {
            tracing::info!(port = interface, "{setting}: {before} again");
        }
        Outcome::InForce { .. } => {}
        other => tracing::warn!(port = interface, "{setting}: {other}"),
    }
}

/// A table that leads to these queues in turn; the one that is there, where it does so already in equal parts.
fn spread_over(queues: &[u32], now: &[u32]) -> Vec<u32> {
    let counts: Vec<usize> =
        queues.iter().map(|queue| now.iter().filter(|place| *place == queue).count()).collect();
    let (least, most) = (counts.iter().min().copied(), counts.iter().max().copied());
    let is_even = least.zip(most).is_some_and(|(least, most)| most - least <= 1);
    if is_even && counts.iter().sum::<usize>() == now.len() {
        return now.to_vec();
    }
    queues.iter().copied().cycle().take(now.len()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_set, vec};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_table_that_is_even_stays() {
        assert_eq!(spread_over(&[0, 1], &[0, 1, 0, 1]), [0, 1, 0, 1]);
        assert_eq!(spread_over(&[0, 1], &[1, 1, 0, 0]), [1, 1, 0, 0]);
        assert_eq!(spread_over(&[0, 1], &[0, 0, 0, 1]), [0, 1, 0, 1]);
        assert_eq!(spread_over(&[0, 1], &[0, 1, 2, 3]), [0, 1, 0, 1]);
        assert_eq!(spread_over(&[2], &[0, 1, 2, 3]), [2, 2, 2, 2]);
    }

    proptest! {
        #[test]
        fn any_table_leads_to_the_queues_alone_and_evenly(
            queues in btree_set(0u32..64, 1..17),
            now in vec(0u32..64, 1..257),
        ) {
            let queues: Vec<u32> = queues.into_iter().collect();
            let table = spread_over(&queues, &now);
            prop_assert_eq!(table.len(), now.len());
            let count = |queue: &u32| table.iter().filter(|place| *place == queue).count();
            let counts: Vec<usize> = queues.iter().map(count).collect();
            prop_assert_eq!(counts.iter().sum::<usize>(), table.len());
            prop_assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1);
            // Doing it again changes nothing.
            prop_assert_eq!(&spread_over(&queues, &table), &table);
        }
    }
}
