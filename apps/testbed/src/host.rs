//! A host: a network namespace, what is set in it, and what runs in it.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::capture::Capture;
use crate::error::{Error, Result};
use crate::interface::{self, PacketCounters, XdpProgram};
use crate::link::{End, Mac};
use crate::name::{NetworkId, checked, checked_interface};
use crate::namespace::{self, Sysfs};
use crate::network::Network;
use crate::process::Command;
use crate::tool;
use crate::wait::wait_for;

const PATIENCE: Duration = Duration::from_secs(30);

/// What every host begins with, whatever the machine has set: a new namespace inherits the machine's IPv4 settings.
///
/// - No forwarding: a router says so ([`Host::forward`]).
/// - No reverse path filter: a load balancer's replies come by other ways than the requests.
/// - No redirects, sent or accepted: what is routed through one arm stays so.
/// - IPv6 addresses usable at once, and nobody asks for routers: less noise in counters. (Multicast listener reports
///   remain; a host without IPv6 is silent: `host.sysctl("net.ipv6.conf.all.disable_ipv6", "1")`, before its links.)
const SYSCTLS: [(&str, &str); 18] = [
    ("net.ipv4.ip_forward", "0"),
    ("net.ipv4.conf.all.rp_filter", "0"),
    ("net.ipv4.conf.default.rp_filter", "0"),
    ("net.ipv4.conf.all.accept_local", "0"),
    ("net.ipv4.conf.default.accept_local", "0"),
    ("net.ipv4.conf.all.send_redirects", "0"),
    ("net.ipv4.conf.default.send_redirects", "0"),
    ("net.ipv4.conf.all.accept_redirects", "0"),
    ("net.ipv4.conf.default.accept_redirects", "0"),
    ("net.ipv4.conf.all.arp_ignore", "0"),
    ("net.ipv4.conf.default.arp_ignore", "0"),
    ("net.ipv6.conf.all.accept_dad", "0"),
    ("net.ipv6.conf.default.accept_dad", "0"),
    ("net.ipv6.conf.default.accept_ra", "0"),
    ("net.ipv6.conf.default.router_solicitations", "0"),
    ("net.ipv6.conf.all.accept_redirects", "0"),
    ("net.ipv6.conf.default.accept_redirects", "0"),
    ("net.ipv6.conf.all.forwarding", "0"),
];

/// A host of an emulated network. Clones are the same host; one that outlives its network only returns errors.
#[derive(Debug, Clone)]
pub struct Host {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    network: Arc<Network>,
    name: String,
    namespace: String,
}

impl Host {
    /// The host of a network that is there already: `network` is the name of one brought up by `afx-testbed up`, or the
    /// full identity of any (as `afx-testbed list` shows it).
    ///
    /// What is started on it goes with the network, not with this handle.
    ///
    /// # Errors
    ///
    /// [`Error::Unknown`] with the names there are.
    pub fn attach(network: &str, host: &str) -> Result<Self> {
        let known = namespace::all()?;
        let id = Network::find(network, &known)?;
        let hosts = || known.iter().filter(|(of, ..)| *of == id).map(|(_, host, _)| host.as_str());
        if !hosts().any(|known| known == host) {
            let known = hosts().collect::<Vec<_>>().join(", ");
            return Err(Error::Unknown { what: "host", name: host.to_owned(), known });
        }
        Ok(Self::of(&Arc::new(Network::attached(id)), host))
    }

    fn of(network: &Arc<Network>, name: &str) -> Self {
        let namespace = network.id.namespace(name);
        Self { inner: Arc::new(Inner { network: Arc::clone(network), name: name.to_owned(), namespace }) }
    }

    /// Makes the namespace and its first settings.
    pub(crate) fn create(network: &Arc<Network>, name: &str) -> Result<Self> {
        checked("host name", name)?;
        Self::create_as(network, name)
    }

    /// As [`create`](Self::create), for a name that cannot be a user's.
    pub(crate) fn create_as(network: &Arc<Network>, name: &str) -> Result<Self> {
        let host = Self::of(network, name);
        tool::run(None, "ip", &["netns", "add", host.namespace()], "")?;
        namespace::inside(host.namespace(), Sysfs::Machine, || {
            SYSCTLS.iter().try_for_each(|(key, value)| write_sysctl(&host, key, value))
        })??;
        host.batch("link set lo up\n")?;
        Ok(host)
    }

    /// The host's name in its network.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The identity of the network.
    #[must_use]
    pub fn id(&self) -> &NetworkId {
        &self.inner.network.id
    }

    /// The name of the network namespace, as `ip netns` knows it.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.inner.namespace
    }

    /// The file that stands for the network namespace, for `setns(2)` or `nsenter --net=`.
    #[must_use]
    pub fn netns_path(&self) -> PathBuf {
        namespace::path(&self.inner.namespace)
    }

    pub(crate) fn network(&self) -> &Network {
        &self.inner.network
    }

    /// An end of a link: the interface of this name, which the link will make.
    #[must_use]
    pub fn end(&self, interface: &str) -> End {
        End::new(self.clone(), interface)
    }

    /// A program to be run here.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        Command::new(self.clone(), program.as_ref())
    }

    /// Runs `work` here, on a fresh thread, and returns its value. A panic of `work` goes on in the caller.
    ///
    /// Threads started by `work` are on this host, too, and may outlive it: a packet-processing runtime started here goes
    /// on here. A socket opened here stays here wherever it is used later: return it. `/sys/class/net` shows this host's
    /// interfaces. Make no [`Testbed`](crate::Testbed) in here: its mounts would be seen by this thread alone.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when the namespace cannot be entered, as when the network is gone.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        namespace::inside(self.namespace(), Sysfs::Namespace, work)
    }

    /// Replaces this process by a program on this host; returns only when that fails. For commands such as `afx-testbed
    /// exec`: signals, terminal and exit status are the program's own.
    #[must_use]
    pub fn exec(
        &self,
        program: impl AsRef<OsStr>,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> Error {
        let program = program.as_ref();
        if let Err(error) = namespace::enter(self.namespace(), Sysfs::Namespace) {
            return error;
        }
        let error = std::process::Command::new(program).args(arguments).exec();
        Error::io(format!("starting `{}` on {self}", program.to_string_lossy()))(error)
    }

    /// Runs `ip` here with these arguments, split at white space, and returns what it prints: whatever this crate has no
    /// method for, such as `host.ip("rule add from 10.0.0.0/24 table 7")`.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] with what `ip` says.
    pub fn ip(&self, arguments: &str) -> Result<String> {
        let arguments: Vec<_> = arguments.split_ascii_whitespace().collect();
        tool::run(Some(self.namespace()), "ip", &arguments, "")
    }

    /// Runs `ip` commands here in one go.
    pub(crate) fn batch(&self, commands: &str) -> Result<()> {
        if commands.is_empty() {
            return Ok(());
        }
        tool::run(None, "ip", &["-n", self.namespace(), "-batch", "-"], commands).map(drop)
    }

    /// Adds a route: `destination` is a prefix such as `10.9.0.0/24` or `fd09::/64`, or `default`; `via` is an address
    /// of the next hop.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when one of them is no address, [`Error::Failed`] when the kernel refuses.
    pub fn route(&self, destination: &str, via: &str) -> Result<()> {
        let route = Route::parse(destination, via)?;
        self.batch(&format!("route add {} via {}\n", route.destination, route.via))
    }

    /// Adds a permanent neighbour entry, so that nobody has to be asked for that address.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] when the kernel refuses.
    pub fn neighbour(&self, interface: &str, address: IpAddr, mac: Mac) -> Result<()> {
        checked_interface(interface)?;
        self.batch(&format!("neighbour replace {address} lladdr {mac} dev {interface} nud permanent\n"))
    }

    /// Sets a sysctl of this host, such as `net.ipv4.ip_forward`.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when the key is not below `net.`: it would be the machine's. [`Error::Io`] when there is no such
    /// key in a namespace, or the value is refused.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        check_sysctl(key)?;
        namespace::inside(self.namespace(), Sysfs::Machine, || write_sysctl(self, key, value))?
    }

    /// Makes this host a router, for IPv4 and IPv6.
    ///
    /// # Errors
    ///
    /// As [`sysctl`](Self::sysctl).
    pub fn forward(&self) -> Result<()> {
        self.sysctl("net.ipv4.ip_forward", "1")?;
        self.sysctl("net.ipv6.conf.all.forwarding", "1")
    }

    /// The index of an interface.
    ///
    /// # Errors
    ///
    /// [`Error::Unknown`] with the interfaces there are.
    pub fn interface_index(&self, interface: &str) -> Result<u32> {
        let index = || nix::net::if_::if_nametoindex(interface);
        match namespace::inside(self.namespace(), Sysfs::Machine, index)? {
            Ok(index) => Ok(index),
            Err(_) => Err(interface::unknown(self, interface)),
        }
    }

    /// The MAC address of an interface.
    ///
    /// # Errors
    ///
    /// [`Error::Unknown`] with the interfaces there are.
    pub fn mac(&self, interface: &str) -> Result<Mac> {
        interface::describe(self, interface)?.mac()
    }

    /// The kernel's packet counters of an interface.
    ///
    /// # Errors
    ///
    /// [`Error::Unknown`] with the interfaces there are.
    pub fn packet_counters(&self, interface: &str) -> Result<PacketCounters> {
        interface::describe(self, interface)?.counters()
    }

    /// The XDP program attached to an interface, if any.
    ///
    /// # Errors
    ///
    /// [`Error::Unknown`] with the interfaces there are.
    pub fn xdp_program(&self, interface: &str) -> Result<Option<XdpProgram>> {
        Ok(interface::describe(self, interface)?.xdp())
    }

    /// The names of the interfaces, `lo` left out.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when the network is gone.
    pub fn interfaces(&self) -> Result<Vec<String>> {
        interface::names(self)
    }

    /// Starts tcpdump on an interface and waits until it listens; `filter` is in the language of pcap-filter(7), empty
    /// for everything.
    ///
    /// # Errors
    ///
    /// [`Error::MissingProgram`] without tcpdump; [`Error::Deadline`] with what it says when it does not come to listen.
    pub fn capture(&self, interface: &str, filter: &str) -> Result<Capture> {
        Capture::start(self, interface, filter)
    }

    /// Waits, at most 30 s, until a TCP connection from this host to `address` is accepted. The server there sees
    /// connections come and go: on its own host [`wait_for_listener`](Self::wait_for_listener) does without.
    ///
    /// # Errors
    ///
    /// [`Error::Deadline`].
    pub fn wait_for_tcp(&self, address: SocketAddr) -> Result<()> {
        self.run(|| {
            wait_for(&format!("a server at {address}, seen from {self}"), PATIENCE, || {
                TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
            })
        })?
    }

    /// Waits, at most 30 s, until something on this host listens on a port (UDP: has bound it), IPv4 or IPv6.
    ///
    /// # Errors
    ///
    /// [`Error::Deadline`].
    pub fn wait_for_listener(&self, transport: Transport, port: u16) -> Result<()> {
        let what = format!("a program on {self} to listen on {transport} port {port}");
        namespace::inside(self.namespace(), Sysfs::Machine, || {
            wait_for(&what, PATIENCE, || transport.is_listening(port))
        })?
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.inner.name, self.inner.network.id.name())
    }
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "the two that have ports and a table in /proc")]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Transport {
    /// Looks into the kernel's socket tables of the calling thread's namespace (see proc(5), `/proc/net/tcp`).
    fn is_listening(self, port: u16) -> bool {
        // TCP_LISTEN, and for UDP TCP_CLOSE: bound, not connected.
        let (tables, state) = match self {
            Self::Tcp => (["tcp", "tcp6"], "0A"),
            Self::Udp => (["udp", "udp6"], "07"),
        };
        let local = format!(":{port:04X}");
        tables.iter().any(|table| {
            let table = fs::read_to_string(format!("/proc/thread-self/net/{table}")).unwrap_or_default();
            table.lines().skip(1).any(|line| {
                let mut fields = line.split_ascii_whitespace().skip(1);
                let bound = fields.next().is_some_and(|address| address.ends_with(&local));
                bound && fields.nth(1) == Some(state)
            })
        })
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        })
    }
}

/// A route's destination and next hop, found right.
#[derive(Debug)]
pub(crate) struct Route {
    destination: String,
    via: IpAddr,
}

impl Route {
    pub(crate) fn parse(destination: &str, via: &str) -> Result<Self> {
        let via: IpAddr = via.parse().map_err(|_| {
            Error::invalid("next hop", via, "expected an address, such as 10.0.0.1 or fd00::1")
        })?;
        if destination == "default" {
            let all = if via.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
            return Ok(Self { destination: all.to_owned(), via });
        }
        let prefix: IpNet = destination.parse().map_err(|_| {
            Error::invalid("route", destination, "expected a prefix such as 10.9.0.0/24, or `default`")
        })?;
        if prefix.trunc() != prefix {
            let expected = format!("bits are set behind the prefix: did you mean {}?", prefix.trunc());
            return Err(Error::invalid("route", destination, expected));
        }
        Ok(Self { destination: prefix.to_string(), via })
    }
}

pub(crate) fn check_sysctl(key: &str) -> Result<()> {
    let key = key.replace('/', ".");
    let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if !key.starts_with("net.") || key.contains("..") || !key.chars().all(good) {
        let expected =
            "expected one below `net.`, such as net.ipv4.ip_forward (the others are the machine's)";
        return Err(Error::invalid("sysctl", key, expected));
    }
    Ok(())
}

/// `/proc/sys/net` is that of the writing thread's namespace.
fn write_sysctl(host: &Host, key: &str, value: &str) -> Result<()> {
    // As sysctl(8): with slashes given, dots belong to names such as eth0.10.
    let file = if key.contains('/') { key.to_owned() } else { key.replace('.', "/") };
    match fs::write(Path::new("/proc/sys").join(file), value) {
        // A kernel without IPv6 has nothing to be set right about it.
        Err(error) if error.kind() == io::ErrorKind::NotFound && key.starts_with("net.ipv6.") && !ipv6() => {
            Ok(())
        }
        other => other.map_err(Error::io(format!("setting {key} = {value} on {host}"))),
    }
}

fn ipv6() -> bool {
    Path::new("/proc/sys/net/ipv6").exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_checked_with_what_is_right() {
        let route = Route::parse("default", "fd00::1").unwrap();
        assert_eq!(route.destination, "::/0");
        for (destination, via, said) in [
            ("10.9.0.0", "10.0.0.1", "prefix such as"),
            ("10.9.0.7/24", "10.0.0.1", "did you mean 10.9.0.0/24?"),
            ("10.9.0.0/24", "10.0.0.1/24", "next hop"),
        ] {
            let message = Route::parse(destination, via).unwrap_err().to_string();
            assert!(message.contains(said), "{message}");
        }
    }

    #[test]
    fn the_machines_own_sysctls_are_refused() {
        for bad in ["vm.nr_hugepages", "kernel/panic", "net.ipv4/../../kernel/panic", "net"] {
            let message = check_sysctl(bad).unwrap_err().to_string();
            assert!(message.contains("below `net.`"), "{message}");
        }
        check_sysctl("net/ipv4/conf/eth0.10/forwarding").unwrap();
    }
}
