//! Why checks cannot be made at all.

use std::io;

use nix::errno::Errno;

/// Why a [`Checker`](super::Checker) does not start or does not take a list. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The system refuses what the checker's thread needs.
    #[error("cannot start health checks: {0}")]
    Start(#[source] io::Error),
    /// A check cannot be made as it is described.
    #[error("the check of {target}: {reason}")]
    Check {
        /// The target's address.
        target: std::net::IpAddr,
        /// What is wrong with it.
        reason: String,
    },
    /// The system refuses the socket for echo requests.
    #[error(
        "cannot open a socket for {family} echo requests: {source}; it takes the capability CAP_NET_RAW, or a \
         group of this process in net.ipv4.ping_group_range"
    )]
    Icmp {
        /// `ICMP` or `ICMPv6`.
        family: &'static str,
        /// What the kernel says.
        source: io::Error,
    },
    /// Certificates are to be verified, and this machine trusts nobody.
    #[error(
        "no trusted root certificates are found on this machine{0}; the variable SSL_CERT_FILE can name some"
    )]
    NoRoots(String),
    /// TLS cannot be set up.
    #[error("cannot set up TLS: {0}")]
    Tls(#[source] rustls::Error),
    /// The checker's thread has ended: it had panicked.
    #[error("the thread that makes health checks has ended")]
    Ended,
}

/// A result whose error is [`Error`] unless said.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, in the system's words, such as "connection refused".
pub(super) fn reason(error: &io::Error) -> String {
    let Some(code) = error.raw_os_error() else { return error.to_string() };
    let description = Errno::from_raw(code).desc();
    let mut letters = description.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_parts_of_a_sentence() {
        assert_eq!(reason(&Errno::ECONNREFUSED.into()), "connection refused");
        assert_eq!(reason(&Errno::EHOSTUNREACH.into()), "no route to host");
        assert_eq!(reason(&io::Error::other("it is late")), "it is late");
    }
}
