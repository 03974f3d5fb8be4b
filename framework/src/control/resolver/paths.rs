//! Path MTUs: the kernel is made to believe what routers say of packets that it has not sent itself.
//!
//! A router that has to drop a packet for its length tells the packet's source. The kernel remembers the path's MTU only
//! where it has a use for it (`rawv6_err` in `net/ipv6/raw.c`, and its likes for other protocols): a socket of the
//! protocol that the packet carried, which wants to know of errors. Here are such sockets for what tunnels send from
//! AF_XDP. From then on the kernel's route to that address has the smaller MTU, for as long as its own packets would
//! heed it (`net.ipv6.route.mtu_expires`).
//!
//! IPv6 only: outer IPv4 headers leave it to routers to fragment.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::sys::socket::{MsgFlags, recvmsg, setsockopt, sockopt};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

/// What an outer IPv6 header carries: IPv4, IPv6 (RFC 2473), and IP in UDP.
const CARRIED: [i32; 3] = [libc::IPPROTO_IPIP, libc::IPPROTO_IPV6, libc::IPPROTO_UDP];

/// Sockets on which the kernel says that it has learnt something; none where it refuses them.
pub(super) struct Paths {
    sockets: Vec<Socket>,
}

impl Paths {
    /// Learns nothing where the kernel refuses: without CAP_NET_RAW, or without IPv6.
    pub(super) fn follow() -> Self {
        match CARRIED.into_iter().map(listen).collect() {
            Ok(sockets) => Self { sockets },
            Err(error) => {
                // Not wrong, only worse: what is too long for a link further on is lost there.
                tracing::debug!(%error, "path MTUs of IPv6 cannot be learnt");
                Self { sockets: Vec::new() }
            }
        }
    }

    /// The sockets to be polled, for errors alone.
    pub(super) fn as_fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.sockets.iter().map(AsFd::as_fd)
    }

    /// Takes all reports that are there; the kernel has acted on them by itself.
    pub(super) fn drain(&self) {
        for socket in &self.sockets {
            // As much of the packet that was too long as fits; the rest does not matter either.
            let mut quoted = [0; 64];
            let mut parts = [IoSliceMut::new(&mut quoted)];
            let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
            while recvmsg::<()>(socket.as_raw_fd(), &mut parts, None, flags).is_ok() {}
        }
    }
}

fn listen(protocol: i32) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::from(protocol)))?;
    // Of the packets themselves, all UDP among them, it wants none: "return 0", see bpf(4) of classic BPF.
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    socket.attach_filter(&[SockFilter::new(RETURN, 0, 0, 0)])?;
    setsockopt(&socket, sockopt::Ipv6RecvErr, &true)?;
    Ok(socket)
}
