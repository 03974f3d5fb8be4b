//! AF_XDP sockets, single runs of a program, and frames put on the wire.
#![allow(unsafe_code, reason = "calls libbpf's and libxdp's C interfaces")]

use std::io;
use std::num::NonZeroU32;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use xsk_rs::config::{BindFlags, Interface, LibxdpFlags, SocketConfig, UmemConfig};
use xsk_rs::{CompQueue, FillQueue, FrameDesc, RxQueue, Socket, TxQueue, Umem};

use crate::redirect::Loaded;
use crate::{Note, Options, Steering, interface_index, testing};

/// The redirect program with a socket on [`Bench::QUEUE`], fed packet by packet.
pub(crate) struct Bench {
    pub(crate) loaded: Loaded,
    pub(crate) socket: XskSocket,
    ifindex: u32,
}

impl Bench {
    pub(crate) const QUEUE: u32 = 1;

    pub(crate) fn new(steering: &Steering, options: &Options) -> Self {
        let loaded = Loaded::new(steering, options, false, None).expect("the program loads");
        let socket = XskSocket::bind("veth1", Self::QUEUE);
        loaded.register(Self::QUEUE, socket.fd()).expect("the socket registers");
        Self { loaded, socket, ifindex: ifindex("veth1") }
    }

    /// The name of the counter that a packet on [`Self::QUEUE`] goes to.
    pub(crate) fn sees(&self, packet: &[u8]) -> &'static str {
        self.sees_on(Self::QUEUE, packet)
    }

    /// The name of the one counter that a packet goes to, where the verdict is what the counter says.
    pub(crate) fn sees_on(&self, queue: u32, packet: &[u8]) -> &'static str {
        let before = self.loaded.counters().expect("counters");
        let outcome = run(self.loaded.program.as_fd(), packet, self.ifindex, queue).expect("a run");
        let after = self.loaded.counters().expect("counters");

        let grown: Vec<_> =
            before.each().zip(after.each()).filter(|(before, after)| before.2 != after.2).collect();
        let [((name, _, before), (_, _, after))] = grown[..] else {
            panic!("not one counter for one packet: {grown:?}")
        };
        assert_eq!(after - before, 1, "{name}");
        let verdict = match name {
            "redirected" => libbpf_sys::XDP_REDIRECT,
            "blocked" | "dropped_stalled" => libbpf_sys::XDP_DROP,
            _ => libbpf_sys::XDP_PASS,
        };
        assert_eq!(outcome.verdict, verdict, "verdict of a packet counted as {name}");
        assert_eq!(outcome.packet, packet, "the redirect program changes no packet");
        name
    }

    /// Changes the steering as [`crate::Redirect`] does.
    pub(crate) fn steer(&mut self, steering: &Steering) {
        let tables = self.loaded.tables().steering(steering);
        self.loaded.change(tables, *steering == Steering::All, |_| Ok(())).expect("the steering changes");
    }

    /// Changes the blocklist as [`crate::Redirect`] does.
    pub(crate) fn block(&mut self, blocklist: &[&str]) {
        let blocklist: Vec<_> = blocklist.iter().map(|net| net.parse().expect("a prefix")).collect();
        let tables = self.loaded.tables().blocking(&blocklist);
        self.loaded.change(tables, self.loaded.steers_all(), |_| Ok(())).expect("the blocklist changes");
    }
}

/// An AF_XDP socket in copy mode and all that has to live as long.
pub(crate) struct XskSocket {
    rx: RxQueue,
    _tx: TxQueue,
    _rings: Option<(FillQueue, CompQueue)>,
    umem: Umem,
}

impl XskSocket {
    const FRAMES: u32 = 64;

    pub(crate) fn bind(interface: &str, queue: u32) -> Self {
        let frames = NonZeroU32::new(Self::FRAMES).expect("not zero");
        let (umem, frames) = Umem::new(UmemConfig::default(), frames, false).expect("a small UMEM");
        let config = SocketConfig::builder()
            .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
            .bind_flags(BindFlags::XDP_COPY)
            .build();
        let interface: Interface = interface.parse().expect("an interface name");
        let mut bound = None;
        // The queue of a socket just closed is free when the kernel gets to it.
        eventually("an AF_XDP socket binds", || {
            // SAFETY: the UMEM is not shared with another socket, and lives as long as this one.
            bound = unsafe { Socket::new(config, &umem, &interface, queue) }.ok();
            bound.is_some()
        });
        let (tx, rx, mut rings) = bound.expect("bound just now");
        // libxdp leaves its sockets open across exec. SAFETY: the descriptor is open and stays so.
        unsafe { libc::fcntl(rx.fd().as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) };
        if let Some((fill, _)) = &mut rings {
            // SAFETY: the frames are this UMEM's and are given away once.
            unsafe { fill.produce(&frames) };
        }
        Self { rx, _tx: tx, _rings: rings, umem }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the socket is open as long as `self`, which the result borrows.
        unsafe { BorrowedFd::borrow_raw(self.rx.fd().as_raw_fd()) }
    }

    /// The packets received since.
    pub(crate) fn receive(&mut self) -> Vec<Vec<u8>> {
        self.receive_noted().into_iter().map(|(_, packet)| packet).collect()
    }

    /// The packets received since, and the bytes before each in which a note may be.
    pub(crate) fn receive_noted(&mut self) -> Vec<([u8; Note::SIZE], Vec<u8>)> {
        let mut descriptors = [FrameDesc::default(); Self::FRAMES as usize];
        // SAFETY: the descriptors are written from the ring, of this UMEM.
        let received = unsafe { self.rx.consume(&mut descriptors) };
        let read = |descriptor| {
            // SAFETY: the frame was received and is not given back to the fill ring, so the kernel leaves it alone.
            let data = unsafe { self.umem.data(descriptor) };
            let packet = data.contents();
            // SAFETY: as above; the kernel keeps 256 bytes of the frame free before the packet.
            let before = unsafe { packet.as_ptr().sub(Note::SIZE).cast::<[u8; Note::SIZE]>().read() };
            (before, packet.to_vec())
        };
        descriptors[..received].iter().map(read).collect()
    }
}

/// The index of an interface in the calling thread's namespace.
pub(crate) fn ifindex(name: &str) -> u32 {
    interface_index(name).expect("the interface exists")
}

/// What a program made of one packet.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) verdict: u32,
    pub(crate) packet: Vec<u8>,
}

/// Runs `program` once on `packet`, 14 bytes at least, as if it had come on `queue` of `ifindex`.
pub(crate) fn run(program: BorrowedFd<'_>, packet: &[u8], ifindex: u32, queue: u32) -> io::Result<Outcome> {
    let context = libbpf_sys::xdp_md {
        data_end: packet.len() as u32,
        ingress_ifindex: ifindex,
        rx_queue_index: queue,
        ..Default::default()
    };
    let (verdict, packet) = testing::run(program, packet, Some(&context))?;
    Ok(Outcome { verdict, packet })
}

/// Puts frames on the wire of one interface.
pub(crate) struct Wire {
    socket: OwnedFd,
    address: libc::sockaddr_ll,
}

impl Wire {
    pub(crate) fn new(interface: &str) -> Self {
        // SAFETY: makes a descriptor, owned by nobody else.
        let socket = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        assert!(socket >= 0, "{}", io::Error::last_os_error());
        // SAFETY: as above.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        let address = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_ifindex: ifindex(interface) as i32,
            sll_halen: 6,
            // SAFETY: numbers only.
            ..unsafe { std::mem::zeroed() }
        };
        Self { socket, address }
    }

    pub(crate) fn send(&self, frame: &[u8]) {
        // SAFETY: frame and address outlive the call, and their sizes are said.
        let sent = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
                (&raw const self.address).cast(),
                size_of_val(&self.address) as u32,
            )
        };
        assert_eq!(sent, frame.len() as isize, "{}", io::Error::last_os_error());
    }
}

/// Waits, ten seconds at most, until `what` is so.
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !is_so() {
        assert!(Instant::now() < deadline, "not within ten seconds: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
