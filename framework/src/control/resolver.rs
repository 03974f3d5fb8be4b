//! Next hops: how to reach an address, by the kernel's own routes and neighbours.
//!
//! Packets sent on AF_XDP pass the kernel's routing by, so their sender has to know the interface, both MAC
//! addresses and the MTU. A [`Resolver`] looks them up for a set of addresses and keeps them current.
//!
//! For each address it asks the kernel as `ip route get` does: policy rules, multipath routes and route MTUs
//! are followed by the one who knows them best. It asks anew whenever routes, rules, addresses, links, or the
//! neighbours concerned change, and every few seconds besides, so that a lost notification does no lasting harm.
//!
//! Nor does the kernel learn from what routers say of AF_XDP traffic. The resolver has it learn the path MTUs of IPv6
//! for IP in IP and IP in UDP ("packet too big", RFC 8201), for packets from an address that is this machine's: the MTU
//! of a [`NextHop`] is the path's as far as it is known. That takes CAP_NET_RAW.
//!
//! Nor does AF_XDP traffic keep neighbour entries alive. The resolver has the kernel do it
//! (`NTF_EXT_MANAGED`, Linux 5.16; before that it triggers the probes itself). When it stops, or a next hop
//! is no longer needed, it removes the entries that it added and takes its mark from the others: the
//! neighbour table is as it was. After a SIGKILL entries stay, marked by the routing protocol number 175, and
//! the next resolver that uses them removes them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crossbeam::channel::{Receiver, Sender, bounded};

use super::privileges::{self, Capabilities};

mod events;
mod kernel;
mod neighbours;
mod paths;
mod watcher;

/// How to reach an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// The index of the interface to send on.
    pub interface: u32,
    /// That interface's MAC address: the Ethernet source.
    pub source_mac: [u8; 6],
    /// The next hop's MAC address: the Ethernet destination.
    pub destination_mac: [u8; 6],
    /// The address the kernel would send from. None if the interface has none of that family.
    pub source: Option<IpAddr>,
    /// The router on the way; none when the address is on the interface's own link.
    pub gateway: Option<IpAddr>,
    /// The largest IP packet in bytes that the interface and the route take, and the path as far as is known.
    pub mtu: u32,
}

/// What is known of the way to an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// Packets can be sent.
    Resolved(NextHop),
    /// They cannot, or not yet.
    Unresolved(Unresolved),
}

impl Resolution {
    /// The next hop, if there is one.
    #[must_use]
    pub fn next_hop(&self) -> Option<&NextHop> {
        match self {
            Self::Resolved(next_hop) => Some(next_hop),
            Self::Unresolved(_) => None,
        }
    }
}

/// Why an address cannot be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unresolved {
    /// The routing table has no route to it, or one that forbids it.
    #[error("no route to it")]
    NoRoute,
    /// It is this machine's own, or no unicast address.
    #[error("an address of this machine, or of a group")]
    NotUnicast,
    /// The route leads to an interface without MAC addresses: loopback, a tunnel.
    #[error("its route leads to an interface that is not Ethernet")]
    NotEthernet,
    /// The interface is down.
    #[error("the interface of its route is down")]
    LinkDown,
    /// The next hop was asked for its MAC address and may still answer.
    #[error("its next hop is being asked for its MAC address")]
    NeighbourPending,
    /// The next hop did not answer. It is asked again every few seconds.
    #[error("its next hop does not answer")]
    NeighbourFailed,
    /// The kernel would not say: it lacks IPv6, for instance.
    #[error("the kernel cannot tell the way to it: {0}")]
    Kernel(std::io::ErrorKind),
}

/// All watched addresses, and the way to each.
pub type Resolutions = BTreeMap<IpAddr, Resolution>;

/// Why a [`Resolver`] could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResolverError {
    /// A netlink socket could not be opened.
    #[error("cannot open a netlink socket for routes and neighbours: {0}")]
    Socket(#[source] std::io::Error),
    /// The thread could not be started.
    #[error("cannot start the thread that follows routes and neighbours: {0}")]
    Thread(#[source] std::io::Error),
}

/// Finds and follows next hops; see the [module](self). Stops when dropped.
///
/// ```no_run
/// use afx::control::resolver::Resolver;
///
/// let resolver = Resolver::start()?;
/// resolver.watch(["10.0.0.1".parse()?, "2001:db8::1".parse()?]);
/// while resolver.changes().recv().is_ok() {
///     for (address, resolution) in resolver.snapshot().iter() {
///         match resolution.next_hop() {
///             Some(hop) => tracing::info!(%address, interface = hop.interface, mtu = hop.mtu, "reachable"),
///             None => tracing::info!(%address, "not reachable"),
///         }
///     }
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Resolver {
    shared: Arc<Shared>,
    changes: Receiver<()>,
    /// A byte wakes the thread; closing it ends the thread.
    wake: Option<std::io::PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

/// What the resolver's owner and its thread both hold.
#[derive(Debug)]
struct Shared {
    watched: Mutex<BTreeSet<IpAddr>>,
    resolutions: Mutex<Arc<Resolutions>>,
    changed: Sender<()>,
}

impl Resolver {
    /// Starts following routes and neighbours of the calling thread's network namespace.
    ///
    /// Without CAP_NET_ADMIN it can look only: neighbours are neither asked for nor kept alive.
    ///
    /// # Errors
    /// [`ResolverError`] when the system refuses a socket or a thread.
    pub fn start() -> Result<Self, ResolverError> {
        let (changed, changes) = bounded(1);
        let shared = Arc::new(Shared { watched: Mutex::default(), resolutions: Mutex::default(), changed });
        let (woken, wake) = std::io::pipe().map_err(ResolverError::Socket)?;
        let watcher = watcher::Watcher::new(shared.clone(), woken).map_err(ResolverError::Socket)?;
        let thread = std::thread::Builder::new()
            .name("afx-resolver".to_owned())
            .spawn(move || {
                // Its sockets are open.
                if let Err(error) = privileges::keep(Capabilities::NET_ADMIN) {
                    tracing::debug!("capabilities cannot be given up: {error}");
                }
                watcher.run()
            })
            .map_err(ResolverError::Thread)?;
        Ok(Self { shared, changes, wake: Some(wake), thread: Some(thread) })
    }

    /// Says which addresses to follow, instead of those said before.
    pub fn watch(&self, addresses: impl IntoIterator<Item = IpAddr>) {
        *lock(&self.shared.watched) = addresses.into_iter().collect();
        if let Some(mut wake) = self.wake.as_ref() {
            // It fails only if the thread is gone, which Drop reports.
            let _ = wake.write_all(&[0]);
        }
    }

    /// What is known at this moment. An address that [`watch`](Self::watch) has just named may be missing.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Resolutions> {
        lock(&self.shared.resolutions).clone()
    }

    /// Receives a message whenever [`snapshot`](Self::snapshot) has become another; one for several changes if
    /// it is not taken at once. Disconnected when the resolver's thread has ended.
    #[must_use]
    pub fn changes(&self) -> &Receiver<()> {
        &self.changes
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        drop(self.wake.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that follows routes and neighbours had panicked");
        }
    }
}

impl Shared {
    fn publish(&self, resolutions: Resolutions) {
        {
            let mut current = lock(&self.resolutions);
            if **current == resolutions {
                return;
            }
            *current = Arc::new(resolutions);
        }
        // Full means that a message is waiting already: it will do.
        let _ = self.changed.try_send(());
    }
}

/// Locks even after a panic elsewhere: the values are replaced as a whole, never half.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
