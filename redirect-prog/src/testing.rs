//! What the tests share: a network namespace, AF_XDP sockets, single runs of a program.
#![allow(unsafe_code, reason = "calls libbpf's and libxdp's C interfaces")]

use std::io;
use std::num::NonZeroU32;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::process::Command;
use std::thread;

use xsk_rs::config::{BindFlags, Interface, LibxdpFlags, SocketConfig, UmemConfig};
use xsk_rs::{CompQueue, FillQueue, RxQueue, Socket, TxQueue, Umem};

/// Queues of the veth pair `veth0` and `veth1` of [`in_namespace`].
pub(crate) const QUEUES: u32 = 4;

/// Runs `test` on a thread with a network namespace of its own, holding a veth pair `veth0` and `veth1`. The namespace has
/// no name: it goes when its last user does, however that ends.
pub(crate) fn in_namespace<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("a new network namespace");
            let queues = QUEUES.to_string();
            let queues = ["numrxqueues", &queues, "numtxqueues", &queues];
            let mut add = vec!["link", "add", "veth0"];
            add.extend(queues);
            add.extend(["type", "veth", "peer", "name", "veth1"]);
            add.extend(queues);
            ip(&add);
            ip(&["link", "set", "lo", "up"]);
            ip(&["link", "set", "veth0", "up"]);
            ip(&["link", "set", "veth1", "up"]);
            test()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

pub(crate) fn ip(arguments: &[&str]) {
    let status = Command::new("ip").args(arguments).status().expect("iproute2 is installed");
    assert!(status.success(), "ip {}", arguments.join(" "));
}

pub(crate) fn ifindex(name: &str) -> u32 {
    nix::net::if_::if_nametoindex(name).expect("the interface exists")
}

/// An AF_XDP socket in copy mode and all that has to live as long.
pub(crate) struct XskSocket {
    pub(crate) rx: RxQueue,
    _tx: TxQueue,
    _rings: Option<(FillQueue, CompQueue)>,
    _umem: Umem,
}

impl XskSocket {
    pub(crate) fn bind(interface: &str, queue: u32) -> Self {
        let (umem, frames) = Umem::new(UmemConfig::default(), NonZeroU32::new(64).expect("not zero"), false)
            .expect("a small UMEM");
        let config = SocketConfig::builder()
            .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
            .bind_flags(BindFlags::XDP_COPY)
            .build();
        let interface: Interface = interface.parse().expect("an interface name");
        // SAFETY: the UMEM is not shared with another socket, and lives as long as this one.
        let (tx, rx, rings) =
            unsafe { Socket::new(config, &umem, &interface, queue) }.expect("an AF_XDP socket");
        let mut rings = rings;
        if let Some((fill, _)) = &mut rings {
            // SAFETY: the frames are this UMEM's and are given away once.
            unsafe { fill.produce(&frames) };
        }
        Self { rx, _tx: tx, _rings: rings, _umem: umem }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the socket is open as long as `self`, which the result borrows.
        unsafe { BorrowedFd::borrow_raw(self.rx.fd().as_raw_fd()) }
    }
}

/// What a program made of one packet.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) verdict: u32,
    pub(crate) packet: Vec<u8>,
}

/// Runs `program` once on `packet` as if it had come on `queue` of `ifindex`.
pub(crate) fn run(program: BorrowedFd<'_>, packet: &[u8], ifindex: u32, queue: u32) -> io::Result<Outcome> {
    let context = libbpf_sys::xdp_md {
        data_end: packet.len() as u32,
        ingress_ifindex: ifindex,
        rx_queue_index: queue,
        ..Default::default()
    };
    let mut out = vec![0; packet.len() + 256];
    let mut options = libbpf_sys::bpf_test_run_opts {
        sz: size_of::<libbpf_sys::bpf_test_run_opts>() as libbpf_sys::size_t,
        data_in: packet.as_ptr().cast(),
        data_size_in: packet.len() as u32,
        data_out: out.as_mut_ptr().cast(),
        data_size_out: out.len() as u32,
        ctx_in: (&raw const context).cast(),
        ctx_size_in: size_of_val(&context) as u32,
        repeat: 1,
        ..Default::default()
    };
    // SAFETY: every buffer outlives the call and its size is said; the kernel writes `out` alone.
    let result = unsafe { libbpf_sys::bpf_prog_test_run_opts(program.as_raw_fd(), &raw mut options) };
    if result < 0 {
        return Err(io::Error::from_raw_os_error(-result));
    }
    out.truncate(options.data_size_out as usize);
    Ok(Outcome { verdict: options.retval, packet: out })
}
