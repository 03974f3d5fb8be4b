//! A TCP connection, opened without waiting for it.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd as _;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockProtocol, SockType, SockaddrStorage, connect, setsockopt, socket, sockopt,
};

use super::super::Outcome;
use super::super::error::reason;

/// A connection, there already or on its way. When it is dropped it is reset: no side is left with a
/// connection in TIME_WAIT, of which there would be thousands.
pub(in super::super) struct Connection {
    stream: TcpStream,
    to: SocketAddr,
    is_open: bool,
}

impl Connection {
    pub(in super::super) fn begin(to: SocketAddr) -> Result<Self, Outcome> {
        let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let opened = socket(family, SockType::Stream, flags, SockProtocol::Tcp).and_then(|socket| {
            let at_once = libc::linger { l_onoff: 1, l_linger: 0 };
            setsockopt(&socket, sockopt::Linger, &at_once)?;
            Ok(socket)
        });
        let socket = opened
            .map_err(|error| Outcome::Unable(format!("cannot open a socket: {}", reason(&error.into()))))?;
        match connect(socket.as_raw_fd(), &SockaddrStorage::from(to)) {
            Ok(()) | Err(Errno::EINPROGRESS) => {}
            // No port, no route's source address, no memory: it says nothing of the server.
            Err(error @ (Errno::EADDRNOTAVAIL | Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM)) => {
                return Err(Outcome::Unable(format!("cannot connect to {to}: {}", reason(&error.into()))));
            }
            Err(error) => return Err(refused(to, &error.into())),
        }
        Ok(Self { stream: socket.into(), to, is_open: false })
    }

    /// Whether it is open by now.
    pub(in super::super) fn is_open(&mut self) -> Result<bool, Outcome> {
        if !self.is_open {
            match self.stream.take_error() {
                Ok(None) => self.is_open = self.stream.peer_addr().is_ok(),
                Ok(Some(error)) | Err(error) => return Err(refused(self.to, &error)),
            }
        }
        Ok(self.is_open)
    }

    /// The same, once more and without asking the kernel.
    pub(in super::super) fn was_open(&self) -> bool {
        self.is_open
    }

    pub(in super::super) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    pub(in super::super) fn to(&self) -> SocketAddr {
        self.to
    }

    /// What to say when it did not open in time.
    pub(in super::super) fn timed_out(&self, no_answer: &str) -> String {
        format!("connect to {}: {no_answer}", self.to)
    }
}

fn refused(to: SocketAddr, error: &io::Error) -> Outcome {
    Outcome::Bad(format!("connect to {to}: {}", reason(error)))
}
