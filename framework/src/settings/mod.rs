//! Settings of an interface that a port changes when it starts, and puts back when it ends.
//!
//! ```no_run
//! use afx::port::{Steering, XdpPort};
//! use afx::settings::{Settings, Want};
//!
//! let settings = Settings::new().channels(4).spread(Want::Required).interrupts(Want::Auto).defer(Want::Auto);
//! let port = XdpPort::new("eth1", Steering::All).settings(settings);
//! ```
//!
//! Nothing is changed that was not asked for. Each change is written down, on `/run`, before it is made. When the runtime
//! has stopped, everything is put back, in the opposite order. Where the process was killed, the next start on the interface
//! does that first, whatever it wants itself; [`restore`] does it at any time. A value that someone else has set meanwhile
//! is left alone.

mod applied;
mod change;
mod journal;
mod napi;
mod restore;
mod setting;

use std::io;
use std::path::{Path, PathBuf};

pub(crate) use applied::Applied;
pub use restore::{Outcome, Restored, restore};
#[cfg(feature = "doctor")]
pub(crate) use {change::for_good, setting::Setting};

/// What keeps a queue's interrupts off while a worker polls it (`Documentation/networking/napi.rst`): rounds without a
/// packet before they are let in again, and ns from one round to the next.
pub(crate) const DEFER: [(&str, &str); 2] = [("napi_defer_hard_irqs", "2"), ("gro_flush_timeout", "200000")];

/// A key by which most cards hash both directions of a flow alike: repeated, it is the same for source and destination.
/// Well known: whoever sends can choose flows that all come on one queue.
pub const SYMMETRIC_KEY: [u8; 2] = [0x6d, 0x5a];

/// Whether a setting may be changed, or must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Want {
    /// It stays as it is.
    #[default]
    Off,
    /// It is changed where that can be done; [`Running::status`](crate::Running::status) says why where it cannot.
    Auto,
    /// The start fails where it cannot be done.
    Required,
}

/// Which settings of its interface a port is to change. None, unless said.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    channels: Option<u32>,
    spread: Want,
    key: Option<Vec<u8>>,
    interrupts: Want,
    defer: Want,
}

impl Settings {
    /// None at all.
    pub fn new() -> Self {
        Self::default()
    }

    /// The interface gets so many queues that receive (`ethtool -L`). With many cards the link goes down for a moment.
    pub fn channels(mut self, count: u32) -> Self {
        self.channels = Some(count);
        self
    }

    /// The card spreads packets over the port's queues and no others, in equal parts (`ethtool -X`): what a queue without a
    /// worker received would go to the kernel.
    pub fn spread(mut self, want: Want) -> Self {
        self.spread = want;
        self
    }

    /// The card hashes packets with this key, repeated until it is as long as the card's (`ethtool -X IF hkey`). With
    /// [`SYMMETRIC_KEY`], or any other of two bytes, both directions of a flow come on the same queue.
    ///
    /// ```
    /// use afx::settings::{SYMMETRIC_KEY, Settings};
    ///
    /// let settings = Settings::new().rss_key(&SYMMETRIC_KEY);
    /// ```
    pub fn rss_key(mut self, bytes: &[u8]) -> Self {
        self.key = Some(bytes.to_vec());
        self
    }

    /// The interrupts of each queue come on the core of its worker (`/proc/irq/N/smp_affinity_list`), which works on the
    /// packets next. `irqbalance`, where it runs, moves them away again.
    pub fn interrupts(mut self, want: Want) -> Self {
        self.interrupts = want;
        self
    }

    /// Interrupts are put off while workers poll (`napi_defer_hard_irqs` and `gro_flush_timeout`), rather than take turns
    /// with them: for workers that are [`Idle::Busy`](crate::Idle::Busy). Those of the port's queues alone where the kernel
    /// (6.13) and the driver can, else those of the interface. What the kernel receives on the same may wait for 0.2 ms.
    pub fn defer(mut self, want: Want) -> Self {
        self.defer = want;
        self
    }

    pub(crate) fn wanted_channels(&self) -> Option<u32> {
        self.channels
    }

    fn wants(&self) -> impl Iterator<Item = Want> {
        let required = |is_given: bool| if is_given { Want::Required } else { Want::Off };
        let given = [self.channels.is_some(), self.key.is_some()].map(required);
        given.into_iter().chain([self.spread, self.interrupts, self.defer])
    }
}

/// Why settings could not be changed or put back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The record of what was changed is no such record: nothing is put back by it.
    #[error(
        "{} is no record of settings that this program can read ({what}): look into it, put back by hand what it says, \
         and delete it",
        file.display()
    )]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// Another runtime has changed settings of the interface.
    #[error("process {pid} has changed settings of {interface}, and runs: stop it first")]
    InForce {
        /// The interface.
        interface: String,
        /// The process.
        pid: u32,
    },
    /// The system refuses something.
    #[error("{what}")]
    System {
        /// What was being done, and to what.
        what: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
}

/// [`std::result::Result`] with this module's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    fn of_file(file: &Path, what: &str, source: io::Error) -> Self {
        Self::System { what: format!("{what} {}", file.display()), source }
    }
}
