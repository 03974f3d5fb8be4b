//! The side that asks.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value};

use super::bind::connect_to;

/// How long to wait for a line, unless told otherwise.
const LINE_WITHIN: Duration = Duration::from_secs(30);

/// The longest line that is read, in bytes.
const MAX_LINE: u64 = 256 << 20;

/// The side of a command socket that asks; see the [module](super).
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
    path: PathBuf,
    within: Duration,
}

/// Why there is no answer, or none that helps.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// There is no socket at this path.
    #[error("there is no socket {}: the program is not running, or has its socket elsewhere", path.display())]
    NoSocket {
        /// The path.
        path: PathBuf,
    },
    /// There is a socket, and nobody at it.
    #[error("nobody answers at {}: the program is not running, the socket was left behind", path.display())]
    NotRunning {
        /// The path.
        path: PathBuf,
    },
    /// The socket is its owner's.
    #[error("the socket {} may not be used: it is its owner's alone; ask as that user, or as root", path.display())]
    Permission {
        /// The path.
        path: PathBuf,
    },
    /// No line came within that time.
    #[error("no answer within {} s at {}: the program does not get on", within.as_secs_f64(), path.display())]
    NoAnswer {
        /// The path.
        path: PathBuf,
        /// The time.
        within: Duration,
    },
    /// The connection was closed before the answer was whole.
    #[error("the connection to {} was closed before the answer was whole: has the program ended?", path.display())]
    Closed {
        /// The path.
        path: PathBuf,
    },
    /// What came is no answer.
    #[error("what answers at {} does not speak as expected: {what}", path.display())]
    Garbled {
        /// The path.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The program refuses, in its own words.
    #[error("{0}")]
    Refused(String),
    /// Anything else.
    #[error("{}: {source}", path.display())]
    Other {
        /// The path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl Client {
    /// Connects to a program.
    ///
    /// # Errors
    /// Where there is no socket, nobody at it, or no permission; see [`ClientError`].
    pub fn connect(path: impl AsRef<Path>) -> Result<Self, ClientError> {
        let path = path.as_ref().to_owned();
        match connect_to(&path) {
            Ok(stream) => Ok(Self { stream: BufReader::new(stream), path, within: LINE_WITHIN }),
            Err(source) => Err(match source.kind() {
                io::ErrorKind::NotFound => ClientError::NoSocket { path },
                io::ErrorKind::ConnectionRefused => ClientError::NotRunning { path },
                io::ErrorKind::PermissionDenied => ClientError::Permission { path },
                io::ErrorKind::TimedOut => ClientError::NoAnswer { path, within: Duration::from_secs(2) },
                _ => ClientError::Other { path, source },
            }),
        }
    }

    /// Waits for so long for each line of an answer, instead of 30 s.
    #[must_use]
    pub fn within(mut self, within: Duration) -> Self {
        self.within = within;
        self
    }

    /// Asks, and waits for the answer. Its parts that come before are not looked at.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with the program's words; others where no answer can be had.
    pub fn call(&mut self, request: &Value) -> Result<Value, ClientError> {
        self.stream(request, |_| {})
    }

    /// Asks, takes the parts of the answer as they come, and returns its end.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub fn stream(&mut self, request: &Value, mut part: impl FnMut(Value)) -> Result<Value, ClientError> {
        let socket = self.stream.get_ref();
        let timeouts = socket
            .set_read_timeout(Some(self.within))
            .and_then(|()| socket.set_write_timeout(Some(self.within)));
        timeouts.map_err(|error| self.failed(error))?;
        let line = format!("{request}\n");
        // Who has closed the connection may have said why: that is still to be read.
        let sent = self.stream.get_mut().write_all(line.as_bytes());
        loop {
            let answer = match self.line() {
                Err(ClientError::Closed { .. }) if sent.is_err() => {
                    return sent.map(|()| Value::Null).map_err(|error| self.failed(error));
                }
                line => line?,
            };
            let mut answer: Map<String, Value> =
                serde_json::from_slice(&answer).map_err(|error| self.garbled(error))?;
            if let Some(more) = answer.remove("more") {
                part(more);
            } else if let Some(answer) = answer.remove("ok") {
                return Ok(answer);
            } else if let Some(Value::String(why)) = answer.remove("error") {
                return Err(ClientError::Refused(why));
            } else {
                return Err(self.garbled("neither `ok` nor `error` nor `more` is in its answer"));
            }
        }
    }

    fn line(&mut self) -> Result<Vec<u8>, ClientError> {
        let mut line = Vec::new();
        let read = self.stream.by_ref().take(MAX_LINE).read_until(b'\n', &mut line);
        match read {
            Err(error) => Err(self.failed(error)),
            Ok(_) if line.ends_with(b"\n") => Ok(line),
            Ok(count) if count as u64 >= MAX_LINE => Err(self.garbled("its answer has no end")),
            Ok(_) => Err(ClientError::Closed { path: self.path.clone() }),
        }
    }

    fn garbled(&self, what: impl ToString) -> ClientError {
        ClientError::Garbled { path: self.path.clone(), what: what.to_string() }
    }

    fn failed(&self, source: io::Error) -> ClientError {
        let path = self.path.clone();
        match source.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                ClientError::NoAnswer { path, within: self.within }
            }
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => ClientError::Closed { path },
            _ => ClientError::Other { path, source },
        }
    }
}
