//! The kernel's notifications: that something has changed which may concern a next hop.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};

use super::kernel::{self, Hop};

/// Subscribed: links, addresses, routes, rules, next-hop objects, neighbours.
const GROUPS: [u32; 9] = [
    libc::RTNLGRP_LINK,
    libc::RTNLGRP_NEIGH,
    libc::RTNLGRP_IPV4_IFADDR,
    libc::RTNLGRP_IPV6_IFADDR,
    libc::RTNLGRP_IPV4_ROUTE,
    libc::RTNLGRP_IPV6_ROUTE,
    libc::RTNLGRP_IPV4_RULE,
    libc::RTNLGRP_IPV6_RULE,
    libc::RTNLGRP_NEXTHOP,
];

/// A socket that notifications arrive on.
pub(super) struct Events {
    socket: Socket,
}

impl Events {
    pub(super) fn subscribe() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.set_non_blocking(true)?;
        for group in GROUPS {
            socket.add_membership(group)?;
        }
        Ok(Self { socket })
    }

    /// Takes all notifications that are there. True if one of them calls for looking things up again, which
    /// a neighbour's does if `concerns` says so, and every other does.
    pub(super) fn drain(&self, concerns: impl Fn(Hop) -> bool) -> io::Result<bool> {
        let mut is_relevant = false;
        loop {
            match self.socket.recv_from_full() {
                Ok((bytes, _)) => is_relevant |= any_relevant(&bytes, &concerns),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(is_relevant),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Notifications were lost: which ones nobody knows, so everything has to be looked up.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => is_relevant = true,
                Err(error) => return Err(error),
            }
        }
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn any_relevant(mut bytes: &[u8], concerns: impl Fn(Hop) -> bool) -> bool {
    while !bytes.is_empty() {
        // What cannot be read may matter.
        let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes) else { return true };
        let is_relevant = match &message.payload {
            NetlinkPayload::InnerMessage(
                RouteNetlinkMessage::NewNeighbour(neighbour) | RouteNetlinkMessage::DelNeighbour(neighbour),
            ) => kernel::hop_of(neighbour).is_some_and(&concerns),
            NetlinkPayload::InnerMessage(_) => true,
            _ => false,
        };
        if is_relevant {
            return true;
        }
        let length = (message.header.length as usize).next_multiple_of(4).max(16);
        bytes = bytes.get(length..).unwrap_or_default();
    }
    false
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    /// Runs in a network namespace of its own, which goes with the thread.
    fn isolated(test: fn()) {
        std::thread::spawn(move || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("the tests run as root");
            test();
        })
        .join()
        .unwrap();
    }

    fn ip_batch(commands: &str) {
        use std::io::Write as _;
        let mut ip = Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn().unwrap();
        ip.stdin.take().unwrap().write_all(commands.as_bytes()).unwrap();
        assert!(ip.wait().unwrap().success(), "{commands:.200}");
    }

    #[test]
    fn only_neighbours_that_matter_matter() {
        isolated(|| {
            ip_batch("link add left type veth peer name right\n");
            let events = Events::subscribe().unwrap();
            assert!(!events.drain(|_| true).unwrap(), "nothing has happened yet");

            ip_batch("neigh add 192.0.2.1 lladdr 02:00:00:00:00:01 dev left nud permanent\n");
            assert!(!events.drain(|hop| hop.address.to_string() == "192.0.2.2").unwrap());
            ip_batch("neigh del 192.0.2.1 dev left\n");
            assert!(events.drain(|hop| hop.address.to_string() == "192.0.2.1").unwrap());
            ip_batch("rule add to 198.51.100.0/24 table 100\n");
            assert!(events.drain(|_| false).unwrap());
        });
    }

    #[test]
    fn lost_notifications_call_for_looking_everything_up() {
        isolated(|| {
            ip_batch("link add left type veth peer name right\n");
            let events = Events::subscribe().unwrap();
            // Far more than the socket's buffer holds, and none that matters.
            let neighbours: String = (0..5000)
                .map(|n| {
                    format!(
                        "neigh add 10.0.{}.{} lladdr 02:00:00:00:00:01 dev left nud permanent\n",
                        n / 250,
                        n % 250 + 1
                    )
                })
                .collect();
            ip_batch(&neighbours);
            assert!(events.drain(|_| false).unwrap());
            assert!(!events.drain(|_| false).unwrap(), "said once");
        });
    }
}
