//! A GET over TCP or TLS, driven by readiness: a server that hangs holds a socket, not a thread.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr};

use nix::sys::epoll::EpollFlags;
use rustls::client::ClientConnection;

use super::super::Outcome;
use super::super::error::reason;
use super::super::target::Http;
use super::tcp::Connection;
use super::tls::TlsSettings;

/// No head of an answer is longer than that.
const LONGEST_HEAD: usize = 16 << 10;
const MOST_HEADERS: usize = 128;

/// One request and its answer.
pub(in super::super) struct Exchange {
    wire: Wire,
    /// What is still to be sent, from `sent` on.
    request: Vec<u8>,
    sent: usize,
    head: Vec<u8>,
    http: Http,
}

impl Exchange {
    pub(in super::super) fn begin(http: &Http, address: IpAddr, tls: &TlsSettings) -> Result<Self, Outcome> {
        let tls = tls.begin(http.tls, http.server_name(address), address).map_err(Outcome::Unable)?;
        let connection = Connection::begin(SocketAddr::new(address, http.port))?;
        let request = http.request(address);
        Ok(Self { wire: Wire { connection, tls }, request, sent: 0, head: Vec::new(), http: http.clone() })
    }

    pub(in super::super) fn connection(&self) -> &Connection {
        &self.wire.connection
    }

    /// What to wait for.
    pub(in super::super) fn interest(&self) -> EpollFlags {
        let is_sending = match &self.wire.tls {
            _ if !self.wire.connection.was_open() => return EpollFlags::EPOLLOUT,
            Some(tls) => tls.wants_write() || !tls.is_handshaking() && self.sent < self.request.len(),
            None => self.sent < self.request.len(),
        };
        match is_sending {
            true => EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT,
            false => EpollFlags::EPOLLIN,
        }
    }

    /// Goes on as far as it can without waiting; says how it went when it is over.
    pub(in super::super) fn advance(&mut self) -> Option<Outcome> {
        match self.wire.connection.is_open() {
            Ok(true) => {}
            Ok(false) => return None,
            Err(outcome) => return Some(outcome),
        }
        match self.send().and_then(|()| self.receive()) {
            Ok(outcome) => outcome,
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => Some(Outcome::Bad(format!("{}: {}", self.with_whom(), reason(&error)))),
        }
    }

    /// What to say when it was not over in time.
    pub(in super::super) fn timed_out(&self, no_answer: &str) -> String {
        match self.wire.connection.was_open() {
            true => format!("{}: {no_answer}", self.with_whom()),
            false => self.wire.connection.timed_out(no_answer),
        }
    }

    fn with_whom(&self) -> String {
        let to = self.wire.connection.to();
        match &self.wire.tls {
            Some(tls) if tls.is_handshaking() => format!("TLS with {to}"),
            Some(_) => format!("HTTPS from {to}"),
            None => format!("HTTP from {to}"),
        }
    }

    /// Sends what can be sent now. A server may answer before it has all.
    fn send(&mut self) -> io::Result<()> {
        while self.sent < self.request.len() {
            let rest = &self.request[self.sent..];
            match self.wire.write(rest) {
                Ok(sent) => self.sent += sent,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn receive(&mut self) -> io::Result<Option<Outcome>> {
        let mut bytes = [0; 4096];
        while self.head.len() <= LONGEST_HEAD {
            match self.wire.read(&mut bytes) {
                // Without a farewell of TLS, which is cut off here like everything behind the head.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(Some(self.cut_off())),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
                Ok(0) => return Ok(Some(self.cut_off())),
                Ok(read) => self.head.extend_from_slice(&bytes[..read]),
            }
            if let Some(status) = self.status() {
                return Ok(Some(match status {
                    Ok(status) => self.http.refuse(status).map_or(Outcome::Good, Outcome::Bad),
                    Err(error) => Outcome::Bad(format!("{}: no HTTP: {error}", self.with_whom())),
                }));
            }
        }
        Ok(Some(Outcome::Bad(format!("{}: a head of more than {LONGEST_HEAD} bytes", self.with_whom()))))
    }

    fn cut_off(&self) -> Outcome {
        let when = if self.head.is_empty() { "without an answer" } else { "within the head of the answer" };
        Outcome::Bad(format!("{}: closed {when}", self.with_whom()))
    }

    /// The status, when the whole head of an answer is there.
    fn status(&mut self) -> Option<Result<u16, httparse::Error>> {
        loop {
            let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
            let mut response = httparse::Response::new(&mut headers);
            let len = match response.parse(&self.head) {
                Ok(httparse::Status::Complete(len)) => len,
                Ok(httparse::Status::Partial) => return None,
                Err(error) => return Some(Err(error)),
            };
            match response.code {
                // "Continue" and the like: the answer comes behind it (RFC 9110, section 15.2).
                Some(100 | 102..=199) => drop(self.head.drain(..len)),
                Some(status) => return Some(Ok(status)),
                None => return Some(Err(httparse::Error::Status)),
            }
        }
    }
}

/// What bytes are written to and read from.
struct Wire {
    connection: Connection,
    tls: Option<ClientConnection>,
}

impl Read for Wire {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let mut stream = self.connection.stream();
        match &mut self.tls {
            None => stream.read(bytes),
            Some(tls) => rustls::Stream::new(tls, &mut stream).read(bytes),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut stream = self.connection.stream();
        match &mut self.tls {
            None => stream.write(bytes),
            Some(tls) => rustls::Stream::new(tls, &mut stream).write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut stream = self.connection.stream();
        match &mut self.tls {
            None => stream.flush(),
            Some(tls) => rustls::Stream::new(tls, &mut stream).flush(),
        }
    }
}
