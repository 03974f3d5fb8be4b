//! The library's error.

use std::io;

/// What can go wrong when a runtime starts, is reconfigured or stops.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration of a runtime cannot work.
    #[error("{what}")]
    Config {
        /// What is wrong, and what would be right.
        what: String,
    },
    /// A port could not be opened.
    #[error("port {port}: {what}")]
    Port {
        /// The port's name.
        port: String,
        /// What was being done.
        what: String,
        /// Why it failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The packet memory of a worker could not be had.
    #[error("packet memory: {what}")]
    Memory {
        /// How much was wanted, and what would help.
        what: String,
        /// Why it failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A worker's thread could not be started or pinned.
    #[error("worker {worker}: {what}")]
    Worker {
        /// The worker's number.
        worker: usize,
        /// What was being done.
        what: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A stage panicked; its worker has stopped and all ports are detached.
    #[error("worker {worker} panicked: {message}")]
    Panicked {
        /// The worker's number.
        worker: usize,
        /// The panic's message.
        message: String,
    },
    /// A worker has not taken earlier configurations yet: it is stalled, or they come too fast.
    #[error("worker {worker} has not taken the last {waiting} configurations yet")]
    Busy {
        /// The worker's number.
        worker: usize,
        /// How many configurations wait for it.
        waiting: usize,
    },
    /// The runtime has stopped.
    #[error("the runtime has stopped")]
    Stopped,
}

/// [`std::result::Result`] with the library's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn config(what: impl Into<String>) -> Self {
        Self::Config { what: what.into() }
    }

    pub(crate) fn port(
        port: impl Into<String>,
        what: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Port { port: port.into(), what: what.into(), source: source.into() }
    }
}
