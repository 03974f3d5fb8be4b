//! The resolver's thread: wait for a change, look everything up, publish.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, PipeReader, Read as _};
use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use netlink_packet_route::neighbour::NeighbourState;
use netlink_packet_route::route::RouteType;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::events::Events;
use super::kernel::{Hop, Kernel, Link};
use super::neighbours::Neighbours;
use super::paths::Paths;
use super::{NextHop, Resolution, Resolutions, Shared, Unresolved, lock};

/// Everything is looked up at least this often: a safety net, and what asks silent neighbours again.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// And at most this often: a router that loads its table makes a hundred thousand changes in a row.
const SHORTEST_PAUSE: Duration = Duration::from_millis(20);

const SILENT: Resolution = Resolution::Unresolved(Unresolved::NeighbourFailed);

pub(super) struct Watcher {
    shared: Arc<Shared>,
    woken: PipeReader,
    events: Events,
    paths: Paths,
    kernel: Kernel,
    neighbours: Neighbours,
    /// The next hops in use.
    hops: BTreeSet<Hop>,
}

impl Watcher {
    pub(super) fn new(shared: Arc<Shared>, woken: PipeReader) -> io::Result<Self> {
        Ok(Self {
            shared,
            woken,
            // Subscribed before the first question: no change falls in between.
            events: Events::subscribe()?,
            paths: Paths::follow(),
            kernel: Kernel::open()?,
            neighbours: Neighbours::default(),
            hops: BTreeSet::new(),
        })
    }

    /// Returns when the owner closes the pipe.
    pub(super) fn run(mut self) {
        let mut last = Instant::now();
        let mut is_due = false;
        loop {
            let pause = if is_due { SHORTEST_PAUSE } else { LONGEST_PAUSE };
            let wait = (last + pause).saturating_duration_since(Instant::now());
            match self.wait(wait) {
                Ok(Wake::Stop) => break,
                Ok(Wake::Relevant) => is_due = true,
                Ok(Wake::Irrelevant) => {}
                Err(error) => {
                    tracing::error!(%error, "notifications of routes and neighbours cannot be read");
                    // The safety net has to do: better a few seconds late than never.
                    std::thread::sleep(SHORTEST_PAUSE);
                }
            }
            if last.elapsed() >= if is_due { SHORTEST_PAUSE } else { LONGEST_PAUSE } {
                is_due = false;
                self.look_up();
                last = Instant::now();
            }
        }
        self.neighbours.release(&mut self.kernel, |_| false);
    }

    /// Waits for a notification, a new set of addresses, or the end.
    fn wait(&mut self, at_most: Duration) -> io::Result<Wake> {
        let timeout = PollTimeout::try_from(at_most.as_millis() + 1).unwrap_or(PollTimeout::MAX);
        let mut descriptors = vec![
            PollFd::new(self.woken.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.events.as_fd(), PollFlags::POLLIN),
        ];
        // Errors are told without being asked for.
        descriptors.extend(self.paths.as_fds().map(|path| PollFd::new(path, PollFlags::empty())));
        match poll(&mut descriptors, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let has = |descriptor: &PollFd<'_>| descriptor.any().unwrap_or(false);
        let (woken, notified) = (has(&descriptors[0]), has(&descriptors[1]));
        let learnt = descriptors[2..].iter().any(has);
        let mut wake = Wake::Irrelevant;
        if woken {
            if self.woken.read(&mut [0; 64])? == 0 {
                return Ok(Wake::Stop);
            }
            wake = Wake::Relevant;
        }
        if notified && self.events.drain(|hop| self.hops.contains(&hop))? {
            wake = Wake::Relevant;
        }
        if learnt {
            self.paths.drain();
            wake = Wake::Relevant;
        }
        Ok(wake)
    }

    /// Looks up all addresses. One that the kernel fails at keeps what was known of it before.
    fn look_up(&mut self) {
        let watched = lock(&self.shared.watched).clone();
        let before = lock(&self.shared.resolutions).clone();
        let mut links = BTreeMap::new();
        let mut hops = BTreeSet::new();
        let mut resolutions = Resolutions::new();
        for address in watched {
            let known = before.get(&address);
            let resolution = match self.resolve(address, &mut links, &mut hops) {
                Ok(Ok(next_hop)) => Resolution::Resolved(next_hop),
                // It is asked again and again: until it answers that is no news.
                Ok(Err(Unresolved::NeighbourPending)) if known == Some(&SILENT) => SILENT,
                Ok(Err(reason)) => Resolution::Unresolved(reason),
                Err(error) => {
                    tracing::warn!(%address, %error, "the way to an address could not be looked up");
                    if let Some(next_hop) = known.and_then(Resolution::next_hop) {
                        let address = next_hop.gateway.unwrap_or(address);
                        hops.insert(Hop { interface: next_hop.interface, address });
                    }
                    known.cloned().unwrap_or(Resolution::Unresolved(Unresolved::Kernel(error.kind())))
                }
            };
            resolutions.insert(address, resolution);
        }
        self.hops = hops;
        self.neighbours.release(&mut self.kernel, |hop| self.hops.contains(&hop));
        self.shared.publish(resolutions);
    }

    fn resolve(
        &mut self,
        address: IpAddr,
        links: &mut BTreeMap<u32, Option<Link>>,
        hops: &mut BTreeSet<Hop>,
    ) -> io::Result<Result<NextHop, Unresolved>> {
        let Some(route) = self.kernel.route(address)? else { return Ok(Err(Unresolved::NoRoute)) };
        match route.kind {
            RouteType::Unicast => {}
            RouteType::BlackHole | RouteType::Unreachable | RouteType::Prohibit | RouteType::Throw => {
                return Ok(Err(Unresolved::NoRoute));
            }
            _ => return Ok(Err(Unresolved::NotUnicast)),
        }
        let interface = route.interface;
        if let std::collections::btree_map::Entry::Vacant(entry) = links.entry(interface) {
            entry.insert(self.kernel.link(interface)?);
        }
        let Some(Some(link)) = links.get(&interface) else { return Ok(Err(Unresolved::NoRoute)) };
        if !link.is_up {
            return Ok(Err(Unresolved::LinkDown));
        }
        let Some(source_mac) = link.mac else { return Ok(Err(Unresolved::NotEthernet)) };

        let hop = Hop { interface, address: route.gateway.unwrap_or(address) };
        let entry = self.kernel.neighbour(hop)?;
        if hops.insert(hop)
            && let Err(error) = self.neighbours.hold(&mut self.kernel, hop, entry.as_ref())
        {
            tracing::warn!(address = %hop.address, interface, %error,
                "the kernel would not keep a next hop's neighbour entry alive");
        }
        Ok(match entry {
            Some(entry) if is_usable(entry.state) && entry.mac.is_some() => Ok(NextHop {
                interface,
                source_mac,
                destination_mac: entry.mac.unwrap_or_default(),
                source: route.source,
                gateway: route.gateway,
                mtu: route.mtu.map_or(link.mtu, |mtu| mtu.min(link.mtu)),
            }),
            Some(entry) if entry.state == NeighbourState::Failed => Err(Unresolved::NeighbourFailed),
            _ => Err(Unresolved::NeighbourPending),
        })
    }
}

enum Wake {
    Stop,
    Relevant,
    Irrelevant,
}

/// Whether the MAC address holds: also while the kernel checks it (NUD_VALID in `net/neighbour.h`).
fn is_usable(state: NeighbourState) -> bool {
    matches!(
        state,
        NeighbourState::Reachable
            | NeighbourState::Stale
            | NeighbourState::Delay
            | NeighbourState::Probe
            | NeighbourState::Permanent
            | NeighbourState::Noarp
    )
}
