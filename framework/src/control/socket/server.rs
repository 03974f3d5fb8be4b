//! The side that is asked.

use std::fmt;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvError, Sender, TrySendError, bounded, select};
use nix::poll::PollFlags;
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use serde_json::{Map, Value, json};

use super::SocketError;
use super::bind::{SocketFile, listen_at};
use crate::control::threads::{Client, Serve, Threads, read_by, wait, write_by};

/// The longest request, in bytes, its end of line not counted.
pub const MAX_REQUEST: usize = 64 << 10;

/// Clients that are connected at a time.
const CLIENTS: usize = 64;

/// Requests that wait for the program, of all clients.
const WAITING: usize = 64;

/// Parts of an answer that wait for their client.
const PARTS: usize = 32;

/// How long a client may be connected without a request.
const IDLE: Duration = Duration::from_secs(60);

/// How long a request may take to come in whole, from its first byte on.
const REQUEST_WITHIN: Duration = Duration::from_secs(10);

/// How long a client may take to read a line of an answer.
const LINE_WITHIN: Duration = Duration::from_secs(30);

/// How long a request waits for a place among those that wait for the program.
const PLACE_WITHIN: Duration = Duration::from_secs(5);

/// How often it is looked whether a client still waits for its answer.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The side of a command socket that is asked; see the [module](super). Dropping it ends its threads and removes the
/// socket's file.
pub struct Server {
    /// Dropped before the threads: as long as their listener is open, the file's inode is not another's.
    _file: SocketFile,
    _threads: Threads<UnixStream>,
    requests: Receiver<Request>,
}

impl Server {
    /// Makes the socket, and listens. One that was left behind by a process that was killed is replaced.
    ///
    /// The socket belongs to the network namespace of the calling thread only in name: whoever can open the file, from
    /// whatever namespace, can connect.
    ///
    /// # Errors
    /// [`SocketError`]. Nothing has changed then.
    pub fn bind(path: impl AsRef<Path>) -> Result<Self, SocketError> {
        let path = path.as_ref();
        let (listener, file) = listen_at(path)?;
        let (sender, requests) = bounded(WAITING);
        let threads = Threads::start("afx-control", listener, CLIENTS, Desk { requests: sender });
        let threads = threads.map_err(|source| SocketError::Other { path: path.to_owned(), source })?;
        Ok(Self { _file: file, _threads: threads, requests })
    }

    /// Where requests come out, of all clients, each to be answered. At most 64 wait; a client whose request finds no
    /// place for five seconds is told so.
    #[must_use]
    pub fn requests(&self) -> &Receiver<Request> {
        &self.requests
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("file", &self._file).finish_non_exhaustive()
    }
}

/// Who asks: the process at the other end when it connected (SO_PEERCRED, unix(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Peer {
    /// Its number; 0 where it belongs to another pid namespace.
    pub pid: i32,
    /// Its user.
    pub uid: u32,
}

/// A request, to be answered. One that is dropped without is answered as an error.
#[derive(Debug)]
pub struct Request {
    /// What is asked: a JSON object.
    pub body: Value,
    /// Who asks, where the system can tell.
    pub peer: Option<Peer>,
    parts: Sender<Value>,
    end: Sender<Result<Value, String>>,
    /// Held by the thread that serves the client.
    served: Weak<()>,
}

/// Why a part of an answer was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotSent {
    /// The client has not taken the parts before it yet: try again.
    #[error("the client has not taken the parts before it yet")]
    Full,
    /// The client is gone: nothing more need be said.
    #[error("the client is gone")]
    Gone,
}

impl Request {
    /// Answers.
    pub fn reply(self, answer: Result<Value, String>) {
        // It fails only where the client is gone.
        let _ = self.end.try_send(answer);
    }

    /// Sends a part of the answer. Never blocks.
    ///
    /// # Errors
    /// [`NotSent`].
    pub fn more(&self, part: Value) -> Result<(), NotSent> {
        self.parts.try_send(part).map_err(|error| match error {
            TrySendError::Full(_) => NotSent::Full,
            TrySendError::Disconnected(_) => NotSent::Gone,
        })
    }

    /// Whether [`more`](Self::more) would find room.
    #[must_use]
    pub fn has_room(&self) -> bool {
        !self.parts.is_full()
    }

    /// Whether the client is gone: it need not be answered.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.served.strong_count() == 0
    }
}

/// Where requests are taken.
struct Desk {
    requests: Sender<Request>,
}

impl Serve<UnixStream> for Desk {
    fn serve(&self, client: &Client<UnixStream>) {
        let credentials = getsockopt(&client.stream, PeerCredentials).ok();
        let peer = credentials.map(|peer| Peer { pid: peer.pid(), uid: peer.uid() });
        // An error means that the client is gone, or does not listen: nobody is left to be told.
        let _ = self.talk(client, peer);
    }

    fn refuse(&self, stream: &UnixStream) {
        let _ = write_line(stream, &error("too many clients are connected: try again"));
    }
}

impl Desk {
    fn talk(&self, client: &Client<UnixStream>, peer: Option<Peer>) -> io::Result<()> {
        let mut lines = Lines::default();
        loop {
            client.idle();
            let line = lines.next(&client.stream);
            client.busy();
            let line = match line? {
                Read::Line(line) => line,
                Read::End => return Ok(()),
                Read::TooLong => {
                    let what = format!("the request is longer than {MAX_REQUEST} bytes");
                    return write_line(&client.stream, &error(&what));
                }
                Read::TooSlow => {
                    let what =
                        format!("the request did not come in whole within {} s", REQUEST_WITHIN.as_secs());
                    return write_line(&client.stream, &error(&what));
                }
            };
            match serde_json::from_slice::<Map<String, Value>>(&line) {
                Ok(object) => self.ask(client, peer, object.into())?,
                Err(why) => {
                    let what = format!("the request is no JSON object on one line: {why}");
                    write_line(&client.stream, &error(&what))?;
                }
            }
        }
    }

    /// Has a request answered.
    fn ask(&self, client: &Client<UnixStream>, peer: Option<Peer>, body: Value) -> io::Result<()> {
        let (parts_in, parts) = bounded(PARTS);
        let (end_in, end) = bounded(1);
        let served = Arc::new(());
        let request = Request { body, peer, parts: parts_in, end: end_in, served: Arc::downgrade(&served) };
        select! {
            send(self.requests, request) -> sent => if sent.is_err() {
                return write_line(&client.stream, &error("the program is about to end"));
            },
            recv(client.stopping()) -> _ => return Err(io::ErrorKind::ConnectionAborted.into()),
            default(PLACE_WITHIN) => {
                return write_line(&client.stream, &error("the program is busy: try again"));
            }
        }
        loop {
            let part = select! {
                recv(parts) -> part => part,
                // What was answered already is still said.
                recv(client.stopping()) -> _ => parts.try_recv().map_err(|_| RecvError),
                default(LOOK_EVERY) => {
                    if is_gone(&client.stream) {
                        return Err(io::ErrorKind::ConnectionAborted.into());
                    }
                    continue;
                }
            };
            let Ok(part) = part else { break };
            write_line(&client.stream, &json!({ "more": part }))?;
        }
        let answer = match end.try_recv() {
            Ok(Ok(answer)) => json!({ "ok": answer }),
            Ok(Err(why)) => error(&why),
            Err(_) => error("the program ended before it had answered"),
        };
        write_line(&client.stream, &answer)
    }
}

fn error(what: &str) -> Value {
    json!({ "error": what })
}

fn write_line(stream: &UnixStream, answer: &Value) -> io::Result<()> {
    let mut line = answer.to_string();
    line.push('\n');
    write_by(stream, line.as_bytes(), Instant::now() + LINE_WITHIN)
}

/// Whether the other side has closed its end. One that only has no more to ask is still there.
fn is_gone(stream: &UnixStream) -> bool {
    // POLLHUP comes unasked.
    wait(stream.as_fd(), PollFlags::empty(), Duration::ZERO)
}

/// What comes next from a client.
enum Read {
    Line(Vec<u8>),
    /// There is nothing more, or nothing came for long.
    End,
    TooLong,
    TooSlow,
}

/// A client's requests, line by line.
#[derive(Default)]
struct Lines {
    /// What was read and is not asked yet: at most one request too long.
    buffer: Vec<u8>,
}

impl Lines {
    fn next(&mut self, stream: &UnixStream) -> io::Result<Read> {
        let idle_until = Instant::now() + IDLE;
        let mut whole_by = None;
        let mut looked_at = 0;
        loop {
            if let Some(length) = self.buffer[looked_at..].iter().position(|byte| *byte == b'\n') {
                let rest = self.buffer.split_off(looked_at + length + 1);
                let mut line = std::mem::replace(&mut self.buffer, rest);
                line.pop();
                if line.len() > MAX_REQUEST {
                    return Ok(Read::TooLong);
                }
                if line.trim_ascii().is_empty() {
                    (whole_by, looked_at) = (None, 0);
                    continue;
                }
                return Ok(Read::Line(line));
            }
            if self.buffer.len() > MAX_REQUEST {
                return Ok(Read::TooLong);
            }
            looked_at = self.buffer.len();
            if !self.buffer.is_empty() {
                whole_by = whole_by.or(Some(Instant::now() + REQUEST_WITHIN));
            }
            let mut bytes = [0; 4096];
            match read_by(stream, &mut bytes, whole_by.unwrap_or(idle_until)) {
                // The last request may lack its end of line.
                Ok(0) if self.buffer.trim_ascii().is_empty() => return Ok(Read::End),
                Ok(0) => return Ok(Read::Line(std::mem::take(&mut self.buffer))),
                Ok(count) => self.buffer.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    return Ok(if whole_by.is_some() { Read::TooSlow } else { Read::End });
                }
                Err(error) => return Err(error),
            }
        }
    }
}
