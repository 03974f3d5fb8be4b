//! A command socket: other processes of this machine ask a running program, and it answers.
//!
//! A Unix stream socket, for its owner alone (mode 0600). A request is a JSON object on one line, and so is its
//! answer: `{"ok": …}` or `{"error": "…"}`. A request that takes long may be answered by lines `{"more": …}` first. A
//! client may ask again on the same connection.
//!
//! The [`Server`] reads requests on threads of its own and hands them to whoever holds the receiving end of
//! [`Server::requests`]: the program's main loop, which so can answer without a lock on what it works on. The number
//! of clients, the length of a request and every time are bounded, so that a slow, mute or hostile client does no harm.
//!
//! ```
//! use afx::control::socket::{Client, Server};
//! use serde_json::json;
//!
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("program.sock");
//! let server = Server::bind(&path)?;
//! let asking = std::thread::spawn(move || Client::connect(&path)?.call(&json!({"do": "greet", "whom": "world"})));
//!
//! let request = server.requests().recv()?;
//! let greeting = format!("hello, {}", request.body["whom"].as_str().unwrap_or("whoever"));
//! request.reply(Ok(greeting.into()));
//!
//! assert_eq!(asking.join().expect("it does not panic")?, "hello, world");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod bind;
mod client;
mod server;
#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;

pub use client::{Client, ClientError};
pub use server::{MAX_REQUEST, NotSent, Peer, Request, Server};

/// Why a program cannot have its command socket.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SocketError {
    /// Somebody answers there.
    #[error(
        "socket path taken: {}: another process answers there; stop that one, or give this one another path",
        path.display()
    )]
    Taken {
        /// The path.
        path: PathBuf,
    },
    /// Something else is there. It is left as it is.
    #[error("no socket: {}: there is something else at this path; remove it, or choose another", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// There is no folder to put it into.
    #[error("no folder for the socket: {}; make it, or choose another path", folder.display())]
    NoFolder {
        /// The folder.
        folder: PathBuf,
    },
    /// The system does not allow it.
    #[error("the socket {} may not be made: {source}; run as one who may, or choose another path", path.display())]
    Permission {
        /// The path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The path has more than 107 bytes, which is what the kernel's addresses of sockets have room for (unix(7)).
    #[error("the socket's path is too long: {}; the system takes 107 bytes", path.display())]
    TooLong {
        /// The path.
        path: PathBuf,
    },
    /// Anything else.
    #[error("the socket {} cannot be made: {source}", path.display())]
    Other {
        /// The path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}
