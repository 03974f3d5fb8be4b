//! Echo requests and their replies, on one socket for each family.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrLike as _, SockaddrStorage, recvfrom,
    sendto, socket,
};

use super::super::Outcome;
use super::super::error::{Error, reason};
use super::super::schedule::Random;
use crate::packet::checksum::Sum;

/// A socket is read from so often before others have their turn: it may get more than is asked for.
const MOST_READ: usize = 1024;

/// An IP family's echo requests that wait for replies.
pub(in super::super) struct Echo {
    socket: OwnedFd,
    is_v4: bool,
    /// A raw socket gets everybody's ICMP, and IPv4 headers with it. For the other kind, the kernel sets the
    /// identifier and gives it its own replies only.
    is_raw: bool,
    identifier: u16,
    last: u16,
    waiting: HashMap<u16, Waiting>,
    random: Random,
}

struct Waiting {
    check: u64,
    from: IpAddr,
    /// Sent along and come back: tells a reply from one to an earlier request of the same number.
    nonce: [u8; 8],
}

impl Echo {
    pub(in super::super) fn open(is_v4: bool) -> Result<Self, Error> {
        let (family, protocol) = match is_v4 {
            true => (AddressFamily::Inet, SockProtocol::Icmp),
            false => (AddressFamily::Inet6, SockProtocol::IcmpV6),
        };
        let open = |kind| {
            socket(family, kind, SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC, protocol)
                .map_err(io::Error::from)
        };
        let (socket, is_raw) = match open(SockType::Datagram) {
            Ok(socket) => (socket, false),
            Err(_) => {
                let family = if is_v4 { "ICMP" } else { "ICMPv6" };
                (open(SockType::Raw).map_err(|source| Error::Icmp { family, source })?, true)
            }
        };
        let mut random = Random::default();
        let identifier = random.bits() as u16;
        Ok(Self { socket, is_v4, is_raw, identifier, last: 0, waiting: HashMap::new(), random })
    }

    /// Sends a request for a check, and returns its number.
    pub(in super::super) fn send(&mut self, check: u64, to: IpAddr) -> Result<u16, Outcome> {
        let after = |count: u16| self.last.wrapping_add(count);
        let free = (1..=u16::MAX).map(after).find(|number| !self.waiting.contains_key(number));
        let number =
            free.ok_or_else(|| Outcome::Unable("too many echo requests wait for replies".to_owned()))?;
        let nonce = self.random.bits().to_ne_bytes();
        let request = request(self.is_v4, self.identifier, number, nonce);
        let destination = SockaddrStorage::from(SocketAddr::new(to, 0));
        let sent = sendto(self.socket.as_raw_fd(), &request, &destination, MsgFlags::empty());
        sent.map_err(|error| {
            let sentence = format!("echo request to {to}: {}", reason(&error.into()));
            match error {
                Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM | Errno::EADDRNOTAVAIL => {
                    Outcome::Unable(sentence)
                }
                _ => Outcome::Bad(sentence),
            }
        })?;
        self.last = number;
        self.waiting.insert(number, Waiting { check, from: to, nonce });
        Ok(number)
    }

    /// The checks whose replies have come.
    pub(in super::super) fn receive(&mut self) -> Vec<u64> {
        let mut answered = Vec::new();
        for _ in 0..MOST_READ {
            let mut bytes = [0; 256];
            match recvfrom::<SockaddrStorage>(self.socket.as_raw_fd(), &mut bytes) {
                Ok((len, from)) => {
                    let from = from.as_ref().and_then(address);
                    answered.extend(from.and_then(|from| self.accept(&bytes[..len.min(bytes.len())], from)));
                }
                Err(Errno::EINTR) => {}
                // An error that belongs to a request sent earlier: its check ends by its timeout.
                Err(_) => break,
            }
        }
        answered
    }

    /// A check is over without a reply.
    pub(in super::super) fn forget(&mut self, number: u16) {
        self.waiting.remove(&number);
    }

    fn accept(&mut self, bytes: &[u8], from: IpAddr) -> Option<u64> {
        let message = match (self.is_raw && self.is_v4, bytes.first()) {
            (true, Some(first)) => bytes.get(usize::from(first & 0x0f) * 4..)?,
            _ => bytes,
        };
        let (header, nonce) = message.split_at_checked(8)?;
        let [kind, 0, _, _, identifier @ .., high, low] = header else { return None };
        let number = u16::from_be_bytes([*high, *low]);
        let is_reply = *kind == if self.is_v4 { 0 } else { 129 };
        let is_ours = !self.is_raw || identifier == self.identifier.to_be_bytes();
        let waiting = self.waiting.get(&number)?;
        if !is_reply || !is_ours || waiting.from != from || waiting.nonce != nonce {
            return None;
        }
        self.waiting.remove(&number).map(|waiting| waiting.check)
    }
}

impl AsFd for Echo {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// An echo request (RFC 792; RFC 4443, section 4.1). The checksum of ICMPv6 is made by the kernel.
fn request(is_v4: bool, identifier: u16, number: u16, nonce: [u8; 8]) -> [u8; 16] {
    let mut request = [0; 16];
    request[0] = if is_v4 { 8 } else { 128 };
    request[4..6].copy_from_slice(&identifier.to_be_bytes());
    request[6..8].copy_from_slice(&number.to_be_bytes());
    request[8..].copy_from_slice(&nonce);
    if is_v4 {
        let checksum = Sum::new().add_bytes(&request).checksum();
        request[2..4].copy_from_slice(&checksum.to_be_bytes());
    }
    request
}

fn address(from: &SockaddrStorage) -> Option<IpAddr> {
    match from.family()? {
        AddressFamily::Inet => from.as_sockaddr_in().map(|from| from.ip().into()),
        _ => from.as_sockaddr_in6().map(|from| from.ip().into()),
    }
}
