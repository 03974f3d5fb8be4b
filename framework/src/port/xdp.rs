//! The AF_XDP port: a network interface, its redirect program, and a socket per queue.

mod buffers;
mod health;
mod metadata;
mod multi_buffer;
mod queue;

use std::error::Error as _;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use afx_redirect::{AttachMode, Coexist, Counters, OnStall, Options, Redirect, RxMetadata, Steering};

use super::rings::Begun;
use super::{Demand, FRAME_SIZE, Port, Queue, RING_SIZE, carries_default_route};
#[cfg(feature = "doctor")]
pub(crate) use buffers::frame_size as frame_size_of;
use health::{Health, describe};
#[cfg(feature = "doctor")]
pub(crate) use multi_buffer::longest_mtu;
pub use multi_buffer::{LongPackets, MultiBuffer};
use multi_buffer::{Takes, frame_room, ways};
use queue::XdpQueue;

use crate::error::{Error, Result};
#[cfg(feature = "settings")]
use crate::port::Change;
#[cfg(feature = "settings")]
use crate::settings::{Applied, Settings};
use crate::worker::Memory;
use crate::xsk::{BusyPoll, Mode, ModeWanted, Socket, SocketConfig, Umem, interface};

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

impl Port for XdpPort {
    fn name(&self) -> &str {
        &self.interface
    }

    fn needs_umem(&self) -> bool {
        true
    }

    fn prepare(&self, frame_size: usize) -> Result<Vec<u32>> {
        let index = nix::net::if_::if_nametoindex(self.interface.as_str())
            .map_err(|_| self.refused("there is no interface of that name in this network namespace"))?;
        let is_up =
            interface::is_up(&self.interface).map_err(|source| self.error("asking for its state", source))?;
        if !is_up {
            let name = &self.interface;
            return Err(self.refused(format_args!("it is down: say `ip link set {name} up` first")));
        }
        let would_take_all = matches!(self.steering, Steering::All) && !self.forced;
        let carries = || carries_default_route(&self.interface);
        if would_take_all && carries().map_err(|source| self.error("looking for default routes", source))? {
            return Err(self.refused(
                "the default route leaves by this interface, and steering `all` would take every connection \
                 to this machine, SSH too: steer by match, or force it",
            ));
        }
        #[cfg(feature = "settings")]
        let mut applied = self.apply(index)?;
        let queues = self.checked_queues(self.rx_queues()?)?;
        let mtu =
            interface::mtu(&self.interface).map_err(|source| self.error("asking for its MTU", source))?;
        let long = self.multi_buffer.wanted(mtu, frame_size);
        let whole = self.takes_whole(mtu, frame_size);
        let several = afx_redirect::zero_copy_segments(index).is_some_and(|segments| segments > 1);
        if !whole && !several && self.mode == ModeWanted::Demand(Mode::ZeroCopy) {
            let driver = self.driver();
            let would_do = match self.takes_whole(mtu, 4096) {
                true => "give frames 4096 bytes".into(),
                false => {
                    format!("lower it to {}, or leave the mode open", buffers::longest(&driver, frame_size))
                }
            };
            return Err(self.refused(format_args!(
                "in zero-copy mode its driver has buffers of {} bytes in frames of {frame_size}, and an MTU of {mtu} \
                 lets longer packets come: {would_do}",
                buffers::room(&driver, frame_size)
            )));
        }
        let options = Options {
            mode: self.attach,
            coexist: self.coexist,
            // Until it is known what the sockets take.
            frame_limit: frame_room(frame_size) as u32,
            multi_buffer: long.is_some(),
            queues: queues.iter().max().map_or(1, |last| last + 1),
            stall_limit: self.stall_limit,
            on_stall: self.on_stall,
            rx_metadata: self.rx_metadata,
            ..Options::default()
        };
        let redirect = Redirect::attach(index, &self.steering, &options)
            .map_err(|source| self.error("attaching the redirect program", source))?;
        #[cfg(feature = "settings")]
        applied.with_queues(&queues).map_err(|source| self.not_applied(source))?;
        let mut state = self.state();
        state.redirect = Some(redirect);
        (state.long, state.whole) = (long, whole);
        state.zero_copy = afx_redirect::zero_copy_segments(index);
        #[cfg(feature = "settings")]
        {
            state.applied = applied;
        }
        Ok(queues)
    }

    fn long_packets(&self, frame_size: usize) -> Option<LongPackets> {
        let state = self.state();
        if state.redirect.is_some() {
            return state.long;
        }
        self.multi_buffer.wanted(interface::mtu(&self.interface).ok()?, frame_size)
    }

    fn frame_size(&self) -> usize {
        match (self.mode, interface::mtu(&self.interface)) {
            (ModeWanted::Auto | ModeWanted::Demand(Mode::ZeroCopy), Ok(mtu))
                if !self.send_only && self.attach != AttachMode::Generic =>
            {
                buffers::frame_size(&self.driver(), mtu)
            }
            _ => FRAME_SIZE,
        }
    }

    fn queues(&self) -> Result<Vec<u32>> {
        #[cfg(feature = "settings")]
        if let Some(count) = self.settings.wanted_channels() {
            return self.checked_queues(count);
        }
        self.checked_queues(self.rx_queues()?)
    }

    fn demand(&self, copying: bool) -> Demand {
        let card = interface::rings(&self.interface).ok().flatten();
        self.lent(match self.mode {
            ModeWanted::Demand(mode) => Demand::of_xdp(self.ring_size, card, mode),
            ModeWanted::Auto if copying => Demand::of_xdp(self.ring_size, card, Mode::Copy),
            ModeWanted::Auto => Demand::of_xdp_auto(self.ring_size, card),
        })
    }

    fn node(&self) -> Option<u32> {
        let number = |path: &str| std::fs::read_to_string(path).ok()?.trim().parse().ok();
        // /sys may be of another network namespace, which has another interface of this name or none.
        let index = nix::net::if_::if_nametoindex(self.interface.as_str()).ok()?;
        let seen = number(&format!("/sys/class/net/{}/ifindex", self.interface));
        if seen != Some(i64::from(index)) {
            return None;
        }
        interface::card_node(&self.interface, number)
    }

    fn open(&self, queue: u32, memory: &Memory) -> Result<Box<dyn Queue>> {
        let umem = memory.umem().ok_or_else(|| self.refused("its worker's memory is no UMEM"))?;
        let mode = match self.mode {
            ModeWanted::Auto if memory.copy_only() => ModeWanted::Demand(Mode::Copy),
            mode => mode,
        };
        // Opened before, where the worker tries again in another mode: that socket must go first.
        self.state().waiting.retain(|(opened, _)| *opened != queue);
        let socket = self.bind(umem, queue, mode, memory)?;
        let granted = socket.granted();
        let State { long, zero_copy, whole, .. } = *self.state();
        let takes = Takes::new(&granted, zero_copy, memory.frame_size());
        let mut words = describe(&granted, umem.pages());
        if !whole && self.mode == ModeWanted::Auto && granted.mode == Mode::Copy {
            let room = buffers::room(&self.driver(), memory.frame_size());
            words = format!("{words}, since its driver's zero-copy takes {room} bytes a frame");
        }
        if long.is_some() {
            words = format!("{words}, {}", takes.describe());
        }
        if let Some(LongPackets { demanded, .. }) = long
            && takes.segments == 1
        {
            let what = takes.describe();
            if demanded {
                return Err(self.refused(format_args!(
                    "queue {queue} takes {what}: leave the mode open, or multi-buffer"
                )));
            }
            tracing::warn!(interface = self.interface, queue, "it takes {what}");
        }
        let fd = socket.as_fd().try_clone_to_owned();
        let fd = fd.map_err(|source| self.error(format!("keeping the socket of queue {queue}"), source))?;
        let health = Arc::new(Health::default());
        let mut state = self.state();
        let redirect = state.redirect.as_ref().ok_or(Error::Stopped)?;
        let beat = redirect
            .beat(queue)
            .map_err(|source| self.error(format!("finding the heartbeat of queue {queue}"), source))?;
        state.waiting.push((queue, fd));
        state.open.retain(|open| open.queue != queue);
        state.open.push(Open { queue, granted: words, takes, health: health.clone(), closed: false });
        state.open.sort_by_key(|open| open.queue);
        let card = interface::rings(&self.interface).ok().flatten();
        let level = self.lent(Demand::of_xdp(self.ring_size, card, granted.mode)).receiving();
        let notes = state.redirect.as_ref().and_then(Redirect::noting).map(metadata::Notes::new);
        let segments = if self.multi_buffer == MultiBuffer::Off { 1 } else { takes.segments };
        let send_only = self.send_only;
        Ok(Box::new(XdpQueue {
            beat,
            socket,
            begun: Begun::Nothing,
            level,
            segments,
            drained: true,
            send_only,
            notes,
            health,
        }))
    }

    fn attach(&self) -> Result<()> {
        let mut state = self.state();
        #[cfg(feature = "settings")]
        {
            let queues: Vec<u32> = state.open.iter().map(|open| open.queue).collect();
            state.applied.with_sockets(&queues).map_err(|source| self.not_applied(source))?;
        }
        if state.long.is_some()
            && let Some(longest) = state.open.iter().map(|open| open.takes.longest).min()
            && let Some(redirect) = &mut state.redirect
        {
            let updated = redirect.update_frame_limit(longest as u32);
            updated.map_err(|source| self.error("having it take long packets", source))?;
        }
        let waiting = std::mem::take(&mut state.waiting);
        let redirect = state.redirect.as_ref().ok_or(Error::Stopped)?;
        waiting.iter().try_for_each(|(queue, socket)| {
            redirect
                .register(*queue, socket.as_fd())
                .map_err(|source| self.error(format!("steering queue {queue}"), source))
        })
    }

    fn detach(&self) {
        let mut state = self.state();
        state.waiting.clear();
        if let Some(redirect) = state.redirect.take() {
            state.last = redirect.counters().unwrap_or_default();
            if let Err(error) = redirect.detach() {
                let cause = error.source().map_or_else(String::new, |cause| format!(": {cause}"));
                tracing::warn!(port = self.interface, "{error}{cause}");
            }
        }
    }

    fn close(&self, queue: u32) {
        let mut state = self.state();
        state.waiting.retain(|(opened, _)| *opened != queue);
        for open in state.open.iter_mut().filter(|open| open.queue == queue) {
            open.closed = true;
        }
        if let Some(redirect) = &state.redirect
            && let Err(error) = redirect.give_up(queue)
        {
            let cause = error.source().map_or_else(String::new, |cause| format!(": {cause}"));
            tracing::warn!(port = self.interface, queue, "{error}{cause}");
        }
    }

    fn steer(&self, steering: &Steering) -> Result<()> {
        match &mut self.state().redirect {
            Some(redirect) => redirect
                .update_steering(steering)
                .map_err(|source| self.error("changing its steering", source)),
            None => Err(Error::Stopped),
        }
    }

    fn status(&self) -> Vec<(String, String)> {
        let state = self.state();
        let mut facts = Vec::new();
        if let Some(redirect) = &state.redirect {
            facts.push(("attached".into(), redirect.mode().to_string()));
            match redirect.beside() {
                Some((other, Coexist::Chain)) => {
                    facts.push((
                        "chained".into(),
                        format!("{other}: it gets what is passed, and comes back at the end"),
                    ));
                }
                Some((other, _)) => {
                    facts.push(("replaced".into(), format!("{other}: it comes back at the end")));
                }
                None => {}
            }
            if let Some(why) = redirect.fallback() {
                facts.push(("native mode".into(), format!("not available: {why}")));
            }
            facts.extend(metadata::describe(redirect));
        }
        for Open { queue, granted, health, closed, .. } in &state.open {
            let state =
                if *closed { "; closed, since its worker was stopped".into() } else { health.describe() };
            facts.push((format!("queue {queue}"), format!("{granted}{state}")));
        }
        #[cfg(feature = "settings")]
        for (name, why) in state.applied.skipped() {
            facts.push(((*name).into(), why.clone()));
        }
        facts
    }

    fn interface(&self) -> Option<&str> {
        Some(&self.interface)
    }

    #[cfg(feature = "settings")]
    fn placed(&self, cores: &[(u32, usize)]) -> Result<()> {
        self.state().applied.with_cores(cores).map_err(|source| self.not_applied(source))
    }

    #[cfg(feature = "settings")]
    fn changes(&self) -> Vec<Change> {
        self.state().applied.changes()
    }

    fn redirect_counters(&self) -> Option<Counters> {
        let state = self.state();
        Some(match &state.redirect {
            Some(redirect) => redirect.counters().unwrap_or_default(),
            None => state.last,
        })
    }
}
