//! One AF_XDP socket: one queue of one interface, on a UMEM.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::str::FromStr;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use xsk_rs::config::{BindFlags, Interface, LibxdpFlags, SocketConfig as LibraryConfig};

use super::access::{LibraryQueues, Rings};
use super::frames::FrameRings;
use super::mapped::Sizes;
use super::umem::{errno, ring_entries};
use crate::mem::Region as _;

use super::{BusyPoll, Error, Mode, Statistics, Umem, interface, sockopt};

/// Which mode is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ModeWanted {
    /// Zero-copy where the driver does it, copy otherwise.
    #[default]
    Auto,
    /// This one, or an error.
    Demand(Mode),
}

/// How the rings are reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum RingAccess {
    /// Natively; through xsk-rs where the kernel (before 6.4) does not allow it.
    #[default]
    Auto,
    /// Mapped by us and driven in Rust, or an error.
    Native,
    /// Through xsk-rs's queue calls.
    Library,
}

/// What a socket shall be. The fill and completion rings' sizes are the UMEM's.
#[derive(Debug, Clone)]
pub(crate) struct SocketConfig {
    /// Entries of the RX ring; a power of two.
    pub(crate) rx_entries: u32,
    /// Entries of the TX ring; a power of two.
    pub(crate) tx_entries: u32,
    pub(crate) mode: ModeWanted,
    pub(crate) ring_access: RingAccess,
    /// Whether packets may span several frames (`XDP_USE_SG`, kernel 6.6); said by
    /// the first socket of a UMEM for all.
    pub(crate) multi_buffer: bool,
    /// Preferred busy polling, where the kernel (5.11) has it.
    pub(crate) busy_poll: Option<BusyPoll>,
    /// How long to wait for a queue that another socket still has: one that was
    /// closed a moment ago is not free at once.
    pub(crate) patience: Duration,
}

impl Default for SocketConfig {
    fn default() -> Self {
        Self {
            rx_entries: 2048,
            tx_entries: 2048,
            mode: ModeWanted::Auto,
            ring_access: RingAccess::Auto,
            multi_buffer: false,
            busy_poll: None,
            patience: Duration::from_secs(5),
        }
    }
}

/// What a socket was given of what it wanted, as the kernel tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Granted {
    pub(crate) mode: Mode,
    /// Whether packets may have several frames.
    pub(crate) multi_buffer: bool,
    /// Native or Library, never Auto.
    pub(crate) ring_access: RingAccess,
    /// `None` if not wanted, or the kernel has none.
    pub(crate) busy_poll: Option<BusyPoll>,
    /// Packets that one wakeup sends in copy mode; `None`: the kernel's 32 (before 6.17).
    pub(crate) tx_budget: Option<u32>,
    /// Bytes of socket buffer that packets on their way out may take, in copy mode.
    pub(crate) send_buffer_bytes: u32,
}

/// What became of an attempt to wake the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wake {
    /// The kernel did not ask for it.
    NotNeeded,
    /// Woken.
    Done,
    /// Not everything could be done at once (EAGAIN, EBUSY): ask again next turn.
    Again,
    /// No memory for packets just now (ENOBUFS): ask again next turn.
    NoBuffers,
    /// The interface is down (ENETDOWN); entries wait until it is up again.
    Down,
    /// The interface is gone, and this socket is bound to nothing (ENXIO).
    Gone,
}

/// A bound socket and its four rings.
///
/// Dropping it frees the queue, except that a UMEM's first socket stays bound
/// until the UMEM goes too (libxdp keeps both in one descriptor).
pub(crate) struct Socket {
    pub(crate) rings: FrameRings,
    name: Name,
    granted: Granted,
    /// Since when calls to send have not made the driver take a packet; `None` once that is of no interest.
    in_vain: Option<InVain>,
    fd: RawFd,
    _owners: Option<LibraryQueues>,
    _alive: Alive,
}

/// Counts a living socket on its UMEM.
struct Alive(Umem);

impl Alive {
    fn new(umem: &Umem) -> Self {
        umem.sockets.fetch_add(1, Ordering::AcqRel);
        Self(umem.clone())
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.sockets.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Socket {
    /// Opens a socket on a queue of an interface of the current network
    /// namespace. Packets come once an XDP program redirects them to it.
    ///
    /// # Errors
    ///
    /// See [`Error`]. Nothing stays bound then, but for a UMEM's first socket if
    /// it failed after binding: drop the UMEM.
    pub(crate) fn bind(
        umem: &Umem,
        interface: &str,
        queue: u32,
        config: &SocketConfig,
    ) -> Result<Self, Error> {
        let name = Name { interface: interface.to_owned(), queue };
        let sizes = Sizes {
            rx: ring_entries("RX ring entries", config.rx_entries)?.get(),
            tx: ring_entries("TX ring entries", config.tx_entries)?.get(),
            fill: umem.fill_entries(),
            completion: umem.completion_entries(),
        };
        name.check_against(umem, config.mode)?;
        let library = name.open(umem, config)?;
        let fd = library.tx.fd().as_raw_fd();
        sockopt::close_on_exec(fd).map_err(|source| name.failed("close on exec", source))?;

        let mode = bound_mode(fd).map_err(|source| name.failed("ask for its mode", source))?;
        umem.mode.get_or_init(|| mode);
        let multi_buffer = *umem.multi_buffer.get_or_init(|| config.multi_buffer);
        let alive = Alive::new(umem);

        let busy_poll = config.busy_poll.and_then(|wanted| {
            wanted
                .apply(fd)
                .inspect_err(|error| tracing::info!(%interface, queue, %error, "no preferred busy polling"))
                .ok()
        });
        let tx_budget = sockopt::write(fd, libc::SOL_XDP, sockopt::XDP_MAX_TX_SKB_BUDGET, sizes.tx)
            .ok()
            .map(|()| sizes.tx);
        let send_buffer_bytes =
            raise_send_buffer(fd, sizes.tx).map_err(|source| name.failed("raise its send buffer", source))?;

        let rings = name.rings(library, sizes, umem, config.ring_access)?;
        let ring_access = if rings.owners.is_some() { RingAccess::Native } else { RingAccess::Library };
        let granted = Granted { mode, multi_buffer, ring_access, busy_poll, tx_budget, send_buffer_bytes };
        let Rings { rx, tx, fill, completion, owners } = rings;
        // SAFETY: the other side is the kernel, and works on the socket's UMEM.
        let rings = unsafe {
            let mut rings = FrameRings::new(fill, rx, tx, completion);
            rings.work_on(umem.base());
            rings
        };
        // In copy mode a call sends, whoever polls.
        let in_vain = (mode == Mode::ZeroCopy && busy_poll.is_some()).then(InVain::default);
        Ok(Self { rings, name, granted, in_vain, fd, _owners: owners, _alive: alive })
    }

    /// What the kernel has granted.
    pub(crate) fn granted(&self) -> Granted {
        self.granted
    }

    /// Has the kernel send what was submitted on the TX ring, if it waits to be told.
    ///
    /// In copy mode it always does: packets leave during this call.
    ///
    /// # Errors
    ///
    /// [`Error::Socket`] for what is no outcome named by [`Wake`].
    #[inline]
    pub(crate) fn wake_tx(&mut self) -> Result<Wake, Error> {
        let Granted { mode, busy_poll, .. } = self.granted;
        let told = mode == Mode::Copy || busy_poll.is_some() || self.rings.tx.needs_wakeup();
        let pending = if told { self.rings.tx.pending() } else { 0 };
        if pending == 0 {
            return Ok(Wake::NotNeeded);
        }
        // SAFETY: sends no bytes from no address: the kernel looks at the TX ring instead.
        let result =
            unsafe { libc::sendto(self.fd, std::ptr::null(), 0, libc::MSG_DONTWAIT, std::ptr::null(), 0) };
        let outcome = self.outcome("wake it for sending", result);
        if let Some(in_vain) = self.in_vain {
            self.watch_sending(in_vain, pending);
        }
        outcome
    }

    /// With preferred busy polling the kernel does not wake the driver to send: it polls it for what was received, and
    /// most drivers send on that occasion. Those that send on another, such as virtio-net, would never send: there it is
    /// given up.
    #[cold]
    fn watch_sending(&mut self, in_vain: InVain, pending: u32) {
        if self.rings.tx.pending() < pending {
            self.in_vain = None;
            return;
        }
        let InVain { calls, since } = in_vain;
        let since = since.unwrap_or_else(Instant::now);
        self.in_vain = Some(InVain { calls: calls.saturating_add(1), since: Some(since) });
        if calls < IN_VAIN_CALLS || since.elapsed() < IN_VAIN {
            return;
        }
        // Without a link nothing is sent, whoever polls.
        if !interface::is_running(&self.name.interface).unwrap_or(false) {
            self.in_vain = Some(InVain::default());
            return;
        }
        let stopped = sockopt::write(self.fd, libc::SOL_SOCKET, libc::SO_PREFER_BUSY_POLL, 0)
            .and_then(|()| sockopt::write(self.fd, libc::SOL_SOCKET, libc::SO_BUSY_POLL, 0));
        let Name { interface, queue } = &self.name;
        match stopped {
            Ok(()) => {
                tracing::info!(%interface, queue, "its driver does not send when polled: no busy polling")
            }
            Err(error) => tracing::warn!(%interface, queue, %error, "busy polling cannot be given up"),
        }
        self.granted.busy_poll = None;
        self.in_vain = None;
    }

    /// Has the kernel look at the fill ring, if it waits to be told, and when busy
    /// polling take packets from the card here and now.
    ///
    /// # Errors
    ///
    /// [`Error::Socket`] for what is no outcome named by [`Wake`].
    #[inline]
    pub(crate) fn wake_rx(&mut self) -> Result<Wake, Error> {
        if self.granted.busy_poll.is_none() && !self.rings.fill.needs_wakeup() {
            return Ok(Wake::NotNeeded);
        }
        // SAFETY: receives no bytes to no address: the kernel looks at the fill ring instead.
        let result = unsafe {
            libc::recvfrom(
                self.fd,
                std::ptr::null_mut(),
                0,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
                std::ptr::null_mut(),
            )
        };
        self.outcome("wake it for receiving", result)
    }

    /// The kernel's counters since the socket was bound.
    ///
    /// # Errors
    ///
    /// [`Error::Socket`] if the kernel does not answer.
    pub(crate) fn statistics(&self) -> Result<Statistics, Error> {
        Statistics::read(self.fd).map_err(|source| self.name.failed("read its statistics", source))
    }

    fn outcome(&self, step: &'static str, result: libc::ssize_t) -> Result<Wake, Error> {
        if result >= 0 {
            return Ok(Wake::Done);
        }
        let source = io::Error::last_os_error();
        match source.raw_os_error() {
            Some(libc::EAGAIN | libc::EBUSY | libc::EINTR) => Ok(Wake::Again),
            Some(libc::ENOBUFS) => Ok(Wake::NoBuffers),
            Some(libc::ENETDOWN) => Ok(Wake::Down),
            Some(libc::ENXIO) => Ok(Wake::Gone),
            _ => Err(self.name.failed(step, source)),
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is open until the socket, which is borrowed, is dropped.
        unsafe { BorrowedFd::borrow_raw(self.fd) }
    }
}

impl AsRawFd for Socket {
    /// For registering with an XSKMAP and for polling; closed when the socket is dropped.
    fn as_raw_fd(&self) -> RawFd {
        self.fd
    }
}

/// What the socket is bound to, for errors, and the way to there.
struct Name {
    interface: String,
    queue: u32,
}

impl Name {
    fn failed(&self, step: &'static str, source: io::Error) -> Error {
        Error::Socket { interface: self.interface.clone(), queue: self.queue, step, source }
    }

    fn check_against(&self, umem: &Umem, wanted: ModeWanted) -> Result<(), Error> {
        let Some(&bound) = umem.mode.get() else { return Ok(()) };
        if umem.sockets.load(Ordering::Acquire) == 0 {
            let source =
                io::Error::other("the UMEM's first socket stays bound to its queue until the UMEM goes");
            return Err(self.failed("bind to a UMEM whose sockets are all gone", source));
        }
        match wanted {
            ModeWanted::Demand(demanded) if demanded != bound => Err(Error::ModeFixed {
                interface: self.interface.clone(),
                queue: self.queue,
                demanded,
                bound,
            }),
            _ => Ok(()),
        }
    }

    /// Opens and binds, waiting for a queue that is still taken.
    fn open(&self, umem: &Umem, config: &SocketConfig) -> Result<LibraryQueues, Error> {
        let interface = self.interface()?;
        let library_config = library_config(config)?;
        // All sockets of a UMEM have the mode of its first.
        let zero_copy_only = match config.mode {
            ModeWanted::Demand(mode) => mode == Mode::ZeroCopy,
            ModeWanted::Auto => umem.mode.get() == Some(&Mode::ZeroCopy),
        };
        let asked = Asked {
            zero_copy: zero_copy_only,
            // The first socket says so for all.
            multi_buffer: config.multi_buffer && !umem.is_bound(),
        };
        let began = Instant::now();
        loop {
            // SAFETY: asks for no program loading where the queue is bound on this UMEM already:
            // `library_config` inhibits it always.
            let opened =
                unsafe { xsk_rs::Socket::new(library_config, &umem.library, &interface, self.queue) };
            let error = match opened {
                Ok((tx, rx, Some((fill, completion)))) => {
                    return Ok(LibraryQueues { rx, tx, fill, completion });
                }
                // A second socket of ours on this queue: it would share the first one's rings.
                Ok((_, _, None)) => {
                    let (interface, queue) = (self.interface.clone(), self.queue);
                    return Err(Error::Busy { interface, queue, waited: began.elapsed() });
                }
                Err(error) => errno(&error),
            };
            match error.raw_os_error() {
                Some(libc::EBUSY) if began.elapsed() < config.patience => {
                    thread::sleep(Duration::from_millis(10));
                }
                Some(libc::EBUSY) => {
                    let (interface, queue) = (self.interface.clone(), self.queue);
                    return Err(Error::Busy { interface, queue, waited: config.patience });
                }
                _ => return Err(self.refused(error, asked, self.has_queue())),
            }
        }
    }

    /// What the kernel's refusal to bind means. `has_queue`: the interface has the queue.
    ///
    /// Without a demand for zero-copy the kernel itself goes over to copy mode, whatever the driver says
    /// (`xp_assign_dev` in `net/xdp/xsk_buff_pool.c`); with one, what the driver says is its answer.
    fn refused(&self, source: io::Error, asked: Asked, has_queue: bool) -> Error {
        let (interface, queue) = (self.interface.clone(), self.queue);
        let Asked { zero_copy, multi_buffer } = asked;
        match source.raw_os_error() {
            // The kernel does not know the flag, or its answer is the driver's, which does not do both.
            Some(libc::EOPNOTSUPP | ENOTSUPP | libc::EINVAL) if zero_copy && multi_buffer && has_queue => {
                Error::LongZeroCopyUnavailable { interface, queue, source }
            }
            Some(libc::EOPNOTSUPP | ENOTSUPP) => Error::ZeroCopyUnavailable { interface, queue, source },
            // Where the driver could, but not with this card: virtio-net, say, whose memory it cannot map.
            Some(libc::EINVAL) if zero_copy && has_queue => {
                Error::ZeroCopyUnavailable { interface, queue, source }
            }
            // A flag that it does not know.
            Some(libc::EINVAL) if multi_buffer && has_queue => {
                Error::MultiBufferUnavailable { interface, queue, source }
            }
            Some(libc::EINVAL) => self.failed(
                "bind (is there a queue of that number, and is no setting out of the kernel's range?)",
                source,
            ),
            Some(libc::ENODEV | libc::ENXIO) => Error::NoSuchInterface { interface },
            Some(libc::EPERM | libc::EACCES) => {
                self.failed("bind (this needs root, or CAP_NET_RAW and CAP_NET_ADMIN)", source)
            }
            Some(libc::ENETDOWN) => self.failed("bind (the interface is down: set it up first)", source),
            // No memory for the card's rings, say.
            _ if zero_copy && has_queue => Error::ZeroCopyFailed { interface, queue, source },
            _ => self.failed("bind", source),
        }
    }

    /// Whether the interface has the queue.
    fn has_queue(&self) -> bool {
        interface::rx_queues(&self.interface).is_ok_and(|queues| self.queue < queues)
    }

    fn rings(
        &self,
        queues: LibraryQueues,
        sizes: Sizes,
        umem: &Umem,
        wanted: RingAccess,
    ) -> Result<Rings, Error> {
        let queues = if wanted == RingAccess::Library {
            queues
        } else {
            match Rings::native(queues, sizes).map_err(|refused| *refused) {
                Ok(rings) => return Ok(rings),
                Err((_, error)) if wanted == RingAccess::Native => {
                    return Err(self.failed("map its rings (a bound socket's: from Linux 6.4 on)", error));
                }
                Err((queues, error)) => {
                    let Self { interface, queue } = self;
                    tracing::info!(%interface, queue, %error, "rings through xsk-rs: slower");
                    queues
                }
            }
        };
        Rings::library(queues, sizes, umem.samples)
            .map_err(|error| self.failed("use its rings through xsk-rs", error))
    }

    fn interface(&self) -> Result<Interface, Error> {
        let fits = !self.interface.is_empty() && self.interface.len() < libc::IFNAMSIZ;
        Interface::from_str(&self.interface)
            .ok()
            .filter(|_| fits)
            .ok_or_else(|| Error::NoSuchInterface { interface: self.interface.clone() })
    }
}

/// What a socket demands beyond what every driver does.
#[derive(Debug, Clone, Copy)]
struct Asked {
    zero_copy: bool,
    multi_buffer: bool,
}

/// Calls to send that were in vain.
#[derive(Debug, Clone, Copy, Default)]
struct InVain {
    calls: u32,
    since: Option<Instant>,
}

/// How many calls to send, and for how long, may be in vain before that counts as the driver's way: others may be polling
/// the card just then, or it is being set up.
const IN_VAIN_CALLS: u32 = 1000;
const IN_VAIN: Duration = Duration::from_millis(100);

/// The kernel's own ENOTSUPP, which some drivers let out; libc has no name for it.
const ENOTSUPP: libc::c_int = 524;

fn library_config(config: &SocketConfig) -> Result<LibraryConfig, Error> {
    let mut bind = BindFlags::XDP_USE_NEED_WAKEUP;
    match config.mode {
        // Neither flag: the kernel tries zero-copy first.
        ModeWanted::Auto => {}
        ModeWanted::Demand(Mode::Copy) => bind |= BindFlags::XDP_COPY,
        ModeWanted::Demand(Mode::ZeroCopy) => bind |= BindFlags::XDP_ZEROCOPY,
    }
    if config.multi_buffer {
        bind |= BindFlags::XDP_USE_SG;
    }
    Ok(LibraryConfig::builder()
        .rx_queue_size(ring_entries("RX ring entries", config.rx_entries)?)
        .tx_queue_size(ring_entries("TX ring entries", config.tx_entries)?)
        .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
        .bind_flags(bind)
        .build())
}

fn bound_mode(fd: RawFd) -> io::Result<Mode> {
    let (flags, _) = sockopt::read::<u32>(fd, libc::SOL_XDP, libc::XDP_OPTIONS)?;
    Ok(if flags & libc::XDP_OPTIONS_ZEROCOPY != 0 { Mode::ZeroCopy } else { Mode::Copy })
}

/// In copy mode each packet on its way out is charged to the socket, about 3 KiB
/// with the kernel's own overhead; a full TX ring should fit. Returns the size granted.
fn raise_send_buffer(fd: RawFd, tx_entries: u32) -> io::Result<u32> {
    // The kernel doubles what it is told.
    let bytes = tx_entries.saturating_mul(2048).min(1 << 30);
    let before = sockopt::read::<u32>(fd, libc::SOL_SOCKET, libc::SO_SNDBUF)?.0;
    if before < 2 * bytes {
        sockopt::write(fd, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, bytes)
            .or_else(|_| sockopt::write(fd, libc::SOL_SOCKET, libc::SO_SNDBUF, bytes))?;
    }
    Ok(sockopt::read::<u32>(fd, libc::SOL_SOCKET, libc::SO_SNDBUF)?.0)
}

#[cfg(all(test, not(loom)))]
#[path = "socket_tests.rs"]
mod tests;
