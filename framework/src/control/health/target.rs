//! What is checked, and how.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use rustls::pki_types::ServerName;

use super::machine::{Flaps, Rules, State};

/// What is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target<K> {
    /// The caller's name for it, unique among all targets.
    pub key: K,
    /// Where it is.
    pub address: IpAddr,
    /// How it is checked.
    pub check: Check,
    /// What it counts as until its checks say otherwise.
    pub initially: State,
}

/// How a target is checked, and what it takes to believe the results.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What is done.
    pub kind: Kind,
    /// From the beginning of a check to the beginning of the next; up to a year. A check that takes longer
    /// than that puts off the next until it has ended.
    pub interval: Duration,
    /// How long a check may take in all; up to a year.
    pub timeout: Duration,
    /// Good results in a row that bring it up; 0 counts as 1.
    pub rise: u32,
    /// Bad results in a row that take it down; 0 counts as 1.
    pub fall: u32,
    /// Each interval is longer or shorter by up to so much, at random; up to 100.
    pub jitter_percent: u32,
    /// Whether one that keeps going down is held down.
    pub flaps: Option<Flaps>,
}

/// What a check does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Opens a TCP connection. Nothing is sent on it, and it is reset at once: neither side is left with a
    /// connection in TIME_WAIT.
    Tcp {
        /// The port.
        port: u16,
    },
    /// Asks for a page.
    Http(Http),
    /// Sends an echo request (RFC 792, RFC 4443) and waits for the reply.
    Icmp,
    /// Runs a program: exit status 0 is good.
    Command(Command),
}

/// A GET by HTTP/1.1 on a connection of its own, which is reset when the head of the answer is there. The
/// body is not read. Redirects are not followed: theirs is a status like any other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    /// The port.
    pub port: u16,
    /// Whether by HTTPS.
    pub tls: Tls,
    /// The header `Host`, and the name that the certificate has to be for; by default the target's address.
    pub host: Option<String>,
    /// What to ask for: a path, with a query if need be.
    pub path: String,
    /// The statuses that are good.
    pub statuses: Vec<RangeInclusive<u16>>,
}

/// What is between HTTP and TCP. With TLS (1.3, or 1.2 with forward secrecy), each check is a whole
/// handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    /// Nothing.
    Off,
    /// TLS; any certificate will do, one that is expired or signed by itself as well.
    Unverified,
    /// TLS; the certificate has to be for the host, valid, and signed by one whom this machine trusts. Whom,
    /// is read whenever a list of targets is set.
    Verified,
}

/// A program to run.
///
/// A program that cannot be started says nothing of the target ([`Outcome::Unable`](super::Outcome::Unable)).
/// Of one that fails, the first line that it printed is told, of the standard error if there is one.
///
/// It gets this process's environment and what is added to it, no input, none of this process's descriptors,
/// and a process group of its own. The whole group is killed when time is up, when the program ends, and when
/// the check is given up.
/// Only when this process itself is killed, it goes on to its own end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Its file, or a name to look up in `PATH`.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Variables added to this process's environment.
    pub environment: Vec<(String, String)>,
}

const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

impl Check {
    /// A check every 2 s that may take 1 s; 2 good results bring a target up, 3 bad ones take it down; 10 %
    /// of jitter; flaps are believed.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        let (interval, timeout) = (Duration::from_secs(2), Duration::from_secs(1));
        Self { kind, interval, timeout, rise: 2, fall: 3, jitter_percent: 10, flaps: None }
    }

    pub(super) fn rules(&self) -> Rules {
        Rules { rise: self.rise, fall: self.fall, flaps: self.flaps }
    }

    /// What is wrong with it, if anything is.
    pub(super) fn problem(&self, address: IpAddr) -> Option<String> {
        for (name, value) in [("interval", self.interval), ("timeout", self.timeout)] {
            if value.is_zero() || value > YEAR {
                return Some(format!("its {name} is to be above 0 and at most a year"));
            }
        }
        if self.jitter_percent > 100 {
            return Some("its jitter is to be at most 100 %".to_owned());
        }
        match &self.kind {
            Kind::Tcp { port: 0 } => Some("there is no port 0".to_owned()),
            Kind::Tcp { .. } | Kind::Icmp => None,
            Kind::Http(http) => http.problem(address),
            Kind::Command(command) => command.problem(),
        }
    }
}

impl Http {
    fn problem(&self, address: IpAddr) -> Option<String> {
        // A space or a line's end would end the path or begin another header.
        let is_word = |text: &str| text.chars().all(|letter| letter.is_ascii_graphic());
        let host = self.host.as_deref();
        if self.port == 0 {
            Some("there is no port 0".to_owned())
        } else if !self.path.starts_with('/') || !is_word(&self.path) {
            Some(format!(
                "the path {:?} is to begin with / and to have no spaces and no letters but ASCII",
                self.path
            ))
        } else if host.is_some_and(|host| host.is_empty() || !is_word(host)) {
            Some(format!("the host {:?} is no name", host.unwrap_or_default()))
        } else if self.statuses.iter().all(|statuses| statuses.is_empty()) {
            Some("no status is good".to_owned())
        } else if self.tls == Tls::Verified && self.server_name(address).is_none() {
            Some(format!("a certificate cannot be for the host {:?}", host.unwrap_or_default()))
        } else {
            None
        }
    }

    /// The request of a check.
    pub(super) fn request(&self, address: IpAddr) -> Vec<u8> {
        let default = if self.tls == Tls::Off { 80 } else { 443 };
        let host = match (&self.host, address) {
            (Some(host), _) => host.clone(),
            (None, _) if self.port != default => SocketAddr::new(address, self.port).to_string(),
            (None, IpAddr::V4(address)) => address.to_string(),
            (None, IpAddr::V6(address)) => format!("[{address}]"),
        };
        format!(
            "GET {} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: afx-health\r\nAccept: */*\r\nConnection: close\r\n\r\n",
            self.path
        )
        .into_bytes()
    }

    /// The name that the certificate has to be for: the host without its port, or the address.
    pub(super) fn server_name(&self, address: IpAddr) -> Option<ServerName<'static>> {
        let Some(host) = &self.host else { return Some(ServerName::IpAddress(address.into())) };
        let (name, port) = host.rsplit_once(':').unwrap_or((host, ""));
        let has_port = !port.contains(']') && port.bytes().all(|digit| digit.is_ascii_digit());
        let name = if has_port { name } else { host };
        let name = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
        ServerName::try_from(name.to_owned()).ok()
    }

    /// The sentence about a status that is not good.
    pub(super) fn refuse(&self, status: u16) -> Option<String> {
        if self.statuses.iter().any(|statuses| statuses.contains(&status)) {
            return None;
        }
        let mut sentence = format!("HTTP status {status}, expected ");
        for (index, statuses) in self.statuses.iter().enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            let (first, last) = (statuses.start(), statuses.end());
            // Writing to a string does not fail.
            let _ = match first == last {
                true => write!(sentence, "{comma}{first}"),
                false => write!(sentence, "{comma}{first}-{last}"),
            };
        }
        Some(sentence)
    }
}

impl Command {
    fn problem(&self) -> Option<String> {
        let names = self.environment.iter().map(|(name, _)| name);
        if self.program.as_os_str().is_empty() {
            return Some("it names no program".to_owned());
        }
        names
            .into_iter()
            .find(|name| name.is_empty() || name.contains('='))
            .map(|name| format!("{name:?} is no name of a variable"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 11));

    fn http() -> Http {
        Http { port: 80, tls: Tls::Off, host: None, path: "/".to_owned(), statuses: vec![200..=399] }
    }

    #[test]
    fn the_host_is_the_address_unless_said() {
        let request = |http: &Http, address: &str| {
            String::from_utf8(http.request(address.parse().expect("the test names addresses")))
                .expect("ASCII")
        };
        let whole = "GET / HTTP/1.1\r\nHost: 10.0.0.11\r\nUser-Agent: afx-health\r\nAccept: */*\r\nConnection: close\r\n\r\n";
        assert_eq!(request(&http(), "10.0.0.11"), whole);
        assert!(request(&http(), "2001:db8::1").contains("Host: [2001:db8::1]\r\n"));
        assert!(
            request(&Http { port: 8080, ..http() }, "2001:db8::1").contains("Host: [2001:db8::1]:8080\r\n")
        );
        assert!(
            request(&Http { tls: Tls::Verified, ..http() }, "10.0.0.11").contains("Host: 10.0.0.11:80\r\n")
        );
        let named =
            Http { port: 8080, host: Some("example.org".to_owned()), path: "/up?x=1".to_owned(), ..http() };
        assert!(request(&named, "10.0.0.11").starts_with("GET /up?x=1 HTTP/1.1\r\nHost: example.org\r\n"));
    }

    #[test]
    fn the_certificate_is_for_the_host_without_its_port() {
        let hosts = [
            (None, "10.0.0.11"),
            (Some("example.org"), "example.org"),
            (Some("example.org:8443"), "example.org"),
            (Some("[2001:db8::1]:8443"), "2001:db8::1"),
            (Some("[2001:db8::1]"), "2001:db8::1"),
            (Some("192.0.2.1:443"), "192.0.2.1"),
        ];
        for (host, expected) in hosts {
            let name = Http { host: host.map(str::to_owned), ..http() }.server_name(ADDRESS);
            assert_eq!(name.map(|name| name.to_str().into_owned()).as_deref(), Some(expected));
        }
    }

    #[test]
    fn a_status_is_refused_with_what_was_expected() {
        let several = Http { statuses: vec![200..=204, 301..=301], ..http() };
        assert_eq!(several.refuse(204), None);
        assert_eq!(several.refuse(301), None);
        assert_eq!(several.refuse(302).as_deref(), Some("HTTP status 302, expected 200-204, 301"));
        assert_eq!(http().refuse(503).as_deref(), Some("HTTP status 503, expected 200-399"));
    }

    #[test]
    fn what_cannot_be_checked_is_said() {
        let problem = |kind: Kind| Check::new(kind).problem(ADDRESS);
        assert_eq!(problem(Kind::Http(http())), None);
        assert_eq!(problem(Kind::Icmp), None);
        assert!(problem(Kind::Tcp { port: 0 }).is_some());
        for path in ["", "up", "/a b", "/a\r\nHost: b", "/ü"] {
            assert!(problem(Kind::Http(Http { path: path.to_owned(), ..http() })).is_some(), "{path:?}");
        }
        for host in ["", "a b", "a\nb"] {
            let host = Some(host.to_owned());
            assert!(problem(Kind::Http(Http { host, ..http() })).is_some());
        }
        let odd = Http { host: Some("a/b".to_owned()), ..http() };
        assert_eq!(problem(Kind::Http(odd.clone())), None);
        assert!(problem(Kind::Http(Http { tls: Tls::Verified, ..odd })).is_some());
        assert!(problem(Kind::Http(Http { statuses: Vec::new(), ..http() })).is_some());
        let command = |program: &str, name: &str| {
            let environment = vec![(name.to_owned(), "1".to_owned())];
            Kind::Command(Command { program: program.into(), arguments: Vec::new(), environment })
        };
        assert_eq!(problem(command("true", "AFX_VIP")), None);
        assert!(problem(command("", "AFX_VIP")).is_some());
        assert!(problem(command("true", "A=B")).is_some());
        let times = [(Duration::ZERO, YEAR), (YEAR, Duration::ZERO), (YEAR * 2, YEAR), (YEAR, Duration::MAX)];
        for (interval, timeout) in times {
            assert!(Check { interval, timeout, ..Check::new(Kind::Icmp) }.problem(ADDRESS).is_some());
        }
        assert!(Check { jitter_percent: 101, ..Check::new(Kind::Icmp) }.problem(ADDRESS).is_some());
    }
}
