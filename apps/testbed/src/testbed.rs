//! The emulated network itself.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Result};
use crate::host::Host;
use crate::link::{End, Link};
use crate::name::{NetworkId, checked};
use crate::network::{self, Network, Watchdog};

/// An emulated network. Dropping it takes everything down: the programs on its hosts, the namespaces, their interfaces
/// and the files. If this process is killed, a watchdog does so within a second.
///
/// Threads of this process that entered a host (see [`Host::run`]) must have ended before: a namespace lives as long as
/// a thread is in it.
///
/// ```no_run
/// use afx_testbed::{Link, Testbed};
///
/// let net = Testbed::new("echo")?;
/// let client = net.host("client")?;
/// let server = net.host("server")?;
/// net.link(
///     Link::between(
///         client.end("eth0").address("10.0.0.1/24"),
///         server.end("eth0").address("10.0.0.2/24").address("fd00::2/64"),
///     )
///     .queues(2),
/// )?;
/// client.command("ping").args(["-c", "1", "10.0.0.2"]).check()?;
/// let socket = server.run(|| std::net::UdpSocket::bind("10.0.0.2:7"))?;
/// # drop(socket);
/// # Ok::<(), afx_testbed::Error>(())
/// ```
#[derive(Debug)]
pub struct Testbed {
    network: Arc<Network>,
    hosts: Mutex<BTreeMap<String, Host>>,
    watchdog: Option<Watchdog>,
}

impl Testbed {
    /// A new network without hosts. Networks of the same name do not meet: each has an identity of its own.
    ///
    /// Removes what killed owners left behind, see [`sweep`](crate::sweep).
    ///
    /// # Errors
    ///
    /// [`Error::NotPermitted`] without the rights, [`Error::Invalid`] on a name that is none.
    pub fn new(name: &str) -> Result<Self> {
        // What cannot be swept, somebody else's leftovers, is no reason not to start.
        let _ = network::sweep();
        Self::create(NetworkId::owned(name)?)
    }

    /// A new network that may be left to itself by [`keep`](Self::keep), and is found by its name then.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new), and [`Error::Invalid`] when one of this name is up.
    pub fn to_keep(name: &str) -> Result<Self> {
        Self::create(NetworkId::unowned(name)?)
    }

    fn create(id: NetworkId) -> Result<Self> {
        let network = Arc::new(Network::create(id)?);
        let watchdog = match Watchdog::start(&network) {
            Ok(watchdog) => watchdog,
            Err(error) => {
                network.remove()?;
                return Err(error);
            }
        };
        Ok(Self { network, hosts: Mutex::default(), watchdog: Some(watchdog) })
    }

    /// The network's identity.
    #[must_use]
    pub fn id(&self) -> &NetworkId {
        &self.network.id
    }

    /// The network's folder, for the files of programs that run on its hosts. It goes with the network, also when the
    /// owner is killed. Only root can be expected to read it.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.network.directory
    }

    /// Adds a host.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] on a name that is none or is taken, [`Error::Failed`] when the kernel refuses.
    pub fn host(&self, name: &str) -> Result<Host> {
        let mut hosts = self.hosts();
        if hosts.contains_key(name) {
            return Err(Error::invalid("host name", name, "there is one of this name already"));
        }
        let host = Host::create(&self.network, name)?;
        hosts.insert(name.to_owned(), host.clone());
        Ok(host)
    }

    /// The host of this name, added before.
    ///
    /// # Errors
    ///
    /// [`Error::Unknown`] with the names there are.
    pub fn find(&self, name: &str) -> Result<Host> {
        let hosts = self.hosts();
        hosts.get(name).cloned().ok_or_else(|| {
            let known = hosts.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            Error::Unknown { what: "host", name: name.to_owned(), known }
        })
    }

    /// Adds a switch: a segment where any number of hosts meet.
    ///
    /// # Errors
    ///
    /// As [`host`](Self::host).
    pub fn switch(&self, name: &str) -> Result<Switch> {
        checked("switch name", name)?;
        let host = Host::create_as(&self.network, &format!("switch:{name}"))?;
        // No IPv6 of its own, no spanning tree, no snooping: it only passes frames on, the first one included.
        host.sysctl("net.ipv6.conf.all.disable_ipv6", "1")?;
        host.sysctl("net.ipv6.conf.default.disable_ipv6", "1")?;
        host.batch(&format!(
            "link add {BRIDGE} type bridge forward_delay 0 stp_state 0 mcast_snooping 0\nlink set {BRIDGE} up\n"
        ))?;
        Ok(Switch { host, ports: Arc::default() })
    }

    /// Lays a link. Its interfaces are up, and its addresses usable, when this returns.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] on an argument that is wrong, [`Error::Failed`] when the kernel refuses: an interface of that
    /// name is there already, for one.
    pub fn link(&self, link: Link) -> Result<()> {
        if let Some(stranger) = link.hosts().into_iter().find(|host| host.id() != self.id()) {
            let expected =
                format!("expected a host of {}: a link cannot leave its network", self.id().name());
            return Err(Error::invalid("end of a link", stranger, expected));
        }
        link.lay()
    }

    /// Takes everything down and says if something could not be; dropping does the same, silently.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when the system refuses, [`Error::Deadline`] when a process cannot be killed.
    pub fn close(mut self) -> Result<()> {
        self.take_down()
    }

    /// Leaves a network made by [`to_keep`](Self::to_keep) to itself: it, and the programs on it, stay until
    /// [`down`](crate::down) or `afx-testbed down`.
    ///
    /// # Panics
    ///
    /// On a network made by [`new`](Self::new): the next sweep would remove it.
    pub fn keep(mut self) {
        assert!(
            self.id().owner() == crate::Owner::Nobody,
            "only a network made by `Testbed::to_keep` can be kept"
        );
        self.network.processes.forget_all();
        if let Some(watchdog) = self.watchdog.take() {
            watchdog.dismiss();
        }
    }

    fn take_down(&mut self) -> Result<()> {
        let Some(watchdog) = self.watchdog.take() else { return Ok(()) };
        self.network.remove()?;
        watchdog.dismiss();
        Ok(())
    }

    fn hosts(&self) -> MutexGuard<'_, BTreeMap<String, Host>> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Testbed {
    fn drop(&mut self) {
        // On an error the watchdog's pipe closes undismissed: it tries in its turn. `close` says why.
        let _ = self.take_down();
    }
}

/// The bridge's name in a switch's namespace.
const BRIDGE: &str = "br0";

/// A switch of an emulated network: a bridge in a namespace of its own. Clones are the same switch.
#[derive(Debug, Clone)]
pub struct Switch {
    host: Host,
    ports: Arc<AtomicU32>,
}

impl Switch {
    /// The next free port, as the end of a link. Its interface is `p0`, `p1` and so on in the switch's namespace, its alias
    /// there the host and interface at the other end.
    #[must_use]
    pub fn port(&self) -> End {
        let number = self.ports.fetch_add(1, Ordering::Relaxed);
        End::new(self.host.clone(), &format!("p{number}")).bridged(BRIDGE)
    }

    /// The switch's own namespace, as a host: to capture there, or to look at its forwarding table.
    #[must_use]
    pub fn as_host(&self) -> &Host {
        &self.host
    }
}

/// A network as it stands, of whoever's making.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Summary {
    /// Its identity.
    pub id: NetworkId,
    /// Its hosts, and its switches as `switch:NAME`.
    pub hosts: Vec<HostSummary>,
}

/// A host as it stands.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HostSummary {
    /// Its name.
    pub name: String,
    /// Its namespace, as `ip netns` knows it.
    pub namespace: String,
    /// Its interfaces without `lo`, each with its addresses that are not link-local.
    pub interfaces: Vec<(String, Vec<String>)>,
    /// The ids of the processes on it.
    pub processes: Vec<i32>,
}

/// All networks there are. One that goes while being looked at is left out.
///
/// # Errors
///
/// [`Error::Io`] when the namespaces cannot be listed, [`Error::MissingProgram`] without `ip`.
pub fn list() -> Result<Vec<Summary>> {
    let known = crate::namespace::all()?;
    let ids: BTreeSet<_> = known.iter().map(|(id, ..)| id.clone()).collect();
    let mut networks = Vec::new();
    for id in ids {
        let mut hosts = Vec::new();
        for (_, name, namespace) in known.iter().filter(|(of, ..)| *of == id) {
            let summary =
                Host::attach(&id.to_string(), name).and_then(|host| HostSummary::of(&host, namespace));
            match summary {
                Ok(summary) => hosts.push(summary),
                Err(error @ Error::MissingProgram { .. }) => return Err(error),
                Err(_) => {}
            }
        }
        if !hosts.is_empty() {
            networks.push(Summary { id, hosts });
        }
    }
    Ok(networks)
}

impl HostSummary {
    fn of(host: &Host, namespace: &str) -> Result<Self> {
        let interfaces = crate::interface::addresses(host)?;
        let shown = interfaces.into_iter().filter(|found| found.ifname != "lo");
        Ok(Self {
            name: host.name().to_owned(),
            namespace: namespace.to_owned(),
            interfaces: shown.map(|found| (found.ifname.clone(), found.global())).collect(),
            processes: crate::namespace::processes(&[namespace.to_owned()])
                .iter()
                .map(|pid| pid.as_raw())
                .collect(),
        })
    }
}
