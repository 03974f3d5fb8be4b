//! What can go wrong, said so that the reader knows what to do about it.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why something on an emulated network did not work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The process may not make network namespaces.
    #[error(
        "emulated networks need the capabilities CAP_SYS_ADMIN and CAP_NET_ADMIN, \
         and this process lacks {missing}: run it as root"
    )]
    NotPermitted {
        /// The capabilities that lack.
        missing: String,
    },

    /// A program that the testbed itself calls is not installed.
    #[error("{program} was not found in PATH: install the package {package}")]
    MissingProgram {
        /// The program's name.
        program: String,
        /// The Debian package that has it.
        package: &'static str,
    },

    /// A program ended with another exit status than 0.
    #[error("{command} on {place} failed ({status}): {output}")]
    Failed {
        /// The command line.
        command: String,
        /// The host, or the network.
        place: String,
        /// How it ended.
        status: std::process::ExitStatus,
        /// What it printed to standard error, or else to standard output.
        output: String,
    },

    /// The operating system refused something.
    #[error("{what}: {source}")]
    Io {
        /// What was being done, and where.
        what: String,
        /// What the system said.
        source: io::Error,
    },

    /// Something waited for did not come to pass.
    #[error("{what}: not within {within:?}{detail}")]
    Deadline {
        /// What was waited for.
        what: String,
        /// How long it was waited for.
        within: Duration,
        /// What was there instead: empty, or a clause beginning with punctuation.
        detail: String,
    },

    /// An argument makes no sense.
    #[error("{what} {value:?}: {expected}")]
    Invalid {
        /// Which argument.
        what: &'static str,
        /// What it was.
        value: String,
        /// What would be right.
        expected: String,
    },

    /// No network of this name, or no such host in it.
    #[error("no {what} {name:?}; there are: {known}")]
    Unknown {
        /// `network`, `host` or `interface`.
        what: &'static str,
        /// The name asked for.
        name: String,
        /// The names there are.
        known: String,
    },

    /// A network file is wrong.
    #[error("{}: {message}", file.display())]
    Topology {
        /// The file, or `<text>`.
        file: PathBuf,
        /// Where in it, and what would be right.
        message: String,
    },
}

impl Error {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    pub(crate) fn invalid(what: &'static str, value: impl ToString, expected: impl Into<String>) -> Self {
        Self::Invalid { what, value: value.to_string(), expected: expected.into() }
    }
}
