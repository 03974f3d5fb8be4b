//! The AF_XDP port: a network interface, its redirect program, and a socket per queue.

mod buffers;
mod health;
mod life;
mod metadata;
mod multi_buffer;
mod queue;

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use afx_redirect::{AttachMode, Coexist, Counters, OnStall, Redirect, RxMetadata, Steering};

use super::{Demand, RING_SIZE};
#[cfg(feature = "doctor")]
pub(crate) use buffers::frame_size as frame_size_of;
use health::Health;
#[cfg(feature = "doctor")]
pub(crate) use multi_buffer::longest_mtu;
pub use multi_buffer::{LongPackets, MultiBuffer};
use multi_buffer::{Takes, frame_room, ways};

use crate::error::{Error, Result};
#[cfg(feature = "settings")]
use crate::settings::{Applied, Settings};
use crate::worker::Memory;
use crate::xsk::{BusyPoll, ModeWanted, Socket, SocketConfig, Umem, interface};

/// A network interface, through AF_XDP.
///
/// What it takes from the interface is always said by its [`Steering`]; everything else stays with the
/// kernel. The redirect program is attached when the runtime starts and gone when it ends, whatever way
/// the process ends. An interface takes one XDP program: where there is another one already, the start fails
/// unless [`coexist`](Self::coexist) says otherwise.
///
/// ```no_run
/// use afx::port::{Mode, ModeWanted, Steering, XdpPort};
///
/// let port = XdpPort::new("eth1", Steering::All).queues([0, 1]).mode(ModeWanted::Demand(Mode::ZeroCopy));
/// ```
#[derive(Debug)]
pub struct XdpPort {
    interface: String,
    steering: Steering,
    queues: Option<Vec<u32>>,
    mode: ModeWanted,
    attach: AttachMode,
    coexist: Coexist,
    multi_buffer: MultiBuffer,
    busy_poll: Option<BusyPoll>,
    ring_size: u32,
    fill_level: Option<u32>,
    stall_limit: Option<Duration>,
    on_stall: Option<OnStall>,
    rx_metadata: RxMetadata,
    forced: bool,
    send_only: bool,
    #[cfg(feature = "settings")]
    settings: Settings,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    redirect: Option<Redirect>,
    /// Packets longer than a frame that are to be taken.
    long: Option<LongPackets>,
    /// Frames that a packet may have in zero-copy mode, where the driver has that.
    zero_copy: Option<u32>,
    /// Whether the driver's buffers take all of a packet that fits a frame.
    whole: bool,
    open: Vec<Open>,
    /// Sockets that wait for traffic to be let in.
    waiting: Vec<(u32, OwnedFd)>,
    /// The program's counters as they were when it was detached.
    last: Counters,
    /// Last: queues come and go only once nobody holds them.
    #[cfg(feature = "settings")]
    applied: Applied,
}

/// A queue that is open.
#[derive(Debug)]
struct Open {
    queue: u32,
    /// What was granted, in words.
    granted: String,
    takes: Takes,
    health: Arc<Health>,
    /// Its worker was stopped.
    closed: bool,
}

impl XdpPort {
    /// All queues that the interface has, in the best mode that works.
    pub fn new(interface: &str, steering: Steering) -> Self {
        Self {
            interface: interface.into(),
            steering,
            queues: None,
            mode: ModeWanted::Auto,
            attach: AttachMode::Auto,
            coexist: Coexist::Refuse,
            multi_buffer: MultiBuffer::Auto,
            busy_poll: None,
            ring_size: RING_SIZE,
            fill_level: None,
            stall_limit: Some(Duration::from_millis(500)),
            on_stall: None,
            rx_metadata: RxMetadata::Off,
            forced: false,
            send_only: false,
            #[cfg(feature = "settings")]
            settings: Settings::new(),
            state: Mutex::default(),
        }
    }

    /// All queues that the interface has, to send on and nothing else: every packet that arrives stays with the
    /// kernel, no frame is lent for receiving, and no system call is made to look for packets.
    pub fn send_only(interface: &str) -> Self {
        Self { send_only: true, ..Self::new(interface, Steering::Match(Vec::new())) }
    }

    /// Only these queues; packets on the others stay with the kernel.
    pub fn queues(mut self, queues: impl IntoIterator<Item = u32>) -> Self {
        self.queues = Some(queues.into_iter().collect());
        self
    }

    /// Zero-copy or copy: the first that works unless demanded.
    pub fn mode(mut self, mode: ModeWanted) -> Self {
        self.mode = mode;
        self
    }

    /// Where the redirect program is attached: in the driver where that works unless demanded.
    pub fn attach_mode(mut self, attach: AttachMode) -> Self {
        self.attach = attach;
        self
    }

    /// What is done with an XDP program that is on the interface already: the start fails unless said.
    ///
    /// ```no_run
    /// use afx::port::{Coexist, Steering, XdpPort};
    ///
    /// // What is passed goes to the other program, as it would without us.
    /// let port = XdpPort::new("eth1", Steering::Match(Vec::new())).coexist(Coexist::Chain);
    /// ```
    pub fn coexist(mut self, coexist: Coexist) -> Self {
        self.coexist = coexist;
        self
    }

    /// Whether packets longer than a frame are taken: where the interface's MTU lets them come, unless said.
    pub fn multi_buffer(mut self, multi_buffer: MultiBuffer) -> Self {
        self.multi_buffer = multi_buffer;
        self
    }

    /// How preferred busy polling is done; a `Busy` worker does it by default, an adaptive one does not.
    pub fn busy_poll(mut self, busy_poll: BusyPoll) -> Self {
        self.busy_poll = Some(busy_poll);
        self
    }

    /// Descriptors in the RX and in the TX ring: a power of two, 2048 unless said.
    pub fn ring_size(mut self, descriptors: u32) -> Self {
        self.ring_size = descriptors;
        self
    }

    /// Frames lent to the kernel for receiving, at most: as many as the RX ring has places in copy mode; in
    /// zero-copy mode as many more as the card's ring has, and a batch. Fewer stay in the cache; more outlast
    /// longer bursts.
    pub fn fill_level(mut self, frames: u32) -> Self {
        self.fill_level = Some(frames);
        self
    }

    /// How long a worker may stand still before its packets are no longer redirected: 500 ms unless said,
    /// `None` for ever.
    pub fn stall_limit(mut self, limit: Option<Duration>) -> Self {
        self.stall_limit = limit;
        self
    }

    /// What becomes of a stalled worker's packets, and of a [stopped](crate::Running::stop_worker) one's: they go to the
    /// kernel with [`Steering::All`], and are dropped with [`Steering::Match`], unless said.
    pub fn on_stall(mut self, on_stall: OnStall) -> Self {
        self.on_stall = Some(on_stall);
        self
    }

    /// Takes [`Steering::All`] also on the interface that the default route leaves by, and with it
    /// every connection to this machine that comes that way.
    pub fn force(mut self) -> Self {
        self.forced = true;
        self
    }

    /// Settings of the interface that are changed while the runtime runs: none unless said.
    #[cfg(feature = "settings")]
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn error(
        &self,
        what: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Error {
        Error::port(&self.interface, what, source)
    }

    fn refused(&self, what: impl std::fmt::Display) -> Error {
        Error::config(format!("port {}: {what}", self.interface))
    }

    /// Binds a queue, in the best of the ways that there are.
    fn bind(&self, umem: &Umem, queue: u32, mode: ModeWanted, memory: &Memory) -> Result<Socket> {
        let State { zero_copy, whole, .. } = *self.state();
        // All sockets do as the first.
        let wanted = memory.long_packets().filter(|_| !umem.is_bound());
        let ways = ways(mode, wanted, zero_copy, whole);
        let mut ways = ways.into_iter().peekable();
        loop {
            let (mode, multi_buffer) = ways.next().expect("there is a way, and after the last an error");
            let config = SocketConfig {
                rx_entries: self.ring_size,
                tx_entries: self.ring_size,
                mode,
                multi_buffer,
                busy_poll: self.busy_poll.or_else(|| memory.busy().then(BusyPoll::default)),
                ..SocketConfig::default()
            };
            let error = match Socket::bind(umem, &self.interface, queue, &config) {
                Ok(socket) => return Ok(socket),
                Err(error) => error,
            };
            if ways.peek().is_none() || !error.is_of_the_way() {
                return Err(self.error(format!("opening queue {queue}"), error));
            }
            tracing::info!(interface = self.interface, queue, %error, "bound in another way");
        }
    }

    /// Changes what is wanted of the interface, if it is not another's.
    #[cfg(feature = "settings")]
    fn apply(&self, index: u32) -> Result<Applied> {
        if self.coexist == Coexist::Refuse && afx_redirect::occupant(index).is_some() {
            // Attaching will say who that is.
            return Ok(Applied::default());
        }
        Applied::start(&self.interface, &self.settings).map_err(|source| self.not_applied(source))
    }

    #[cfg(feature = "settings")]
    fn not_applied(&self, source: crate::settings::Error) -> Error {
        self.error("changing settings", source)
    }

    /// The demand of a queue, with as many frames lent for receiving as was said.
    fn lent(&self, demand: Demand) -> Demand {
        match self.fill_level {
            _ if self.send_only => demand.sending(),
            Some(level) => demand.with_level(level),
            None => demand,
        }
    }

    /// The name of its driver; empty where there is none that says so.
    fn driver(&self) -> String {
        interface::driver(&self.interface).unwrap_or_default()
    }

    /// Whether the driver's buffers take whole packets in zero-copy mode, of those that fit a frame.
    fn takes_whole(&self, mtu: u32, frame_size: usize) -> bool {
        let fits = (mtu as usize).min(frame_room(frame_size) - multi_buffer::LINK);
        self.send_only || fits <= buffers::longest(&self.driver(), frame_size)
    }

    fn rx_queues(&self) -> Result<u32> {
        interface::rx_queues(&self.interface).map_err(|source| self.error("asking for its queues", source))
    }

    /// The queues wanted, each of which must be one of those that are there.
    fn checked_queues(&self, there: u32) -> Result<Vec<u32>> {
        let queues = self.queues.clone().unwrap_or_else(|| (0..there).collect());
        match queues.iter().find(|queue| **queue >= there) {
            Some(queue) => {
                Err(self.refused(format_args!("no queue {queue}: it has queues 0 to {}", there - 1)))
            }
            None if queues.is_empty() => Err(self.refused("no queue: name at least one")),
            None => Ok(queues),
        }
    }
}
