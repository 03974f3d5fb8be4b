//! An AF_XDP port at work: prepared, its queues opened, attached, detached, and what it says of itself meanwhile.

use std::error::Error as _;
use std::os::fd::AsFd;
use std::sync::Arc;

use afx_redirect::{AttachMode, Coexist, Counters, Options, Redirect, Steering};

use super::health::{Health, describe};
use super::multi_buffer::{LongPackets, MultiBuffer, Takes, frame_room};
use super::queue::XdpQueue;
use super::{Open, State, XdpPort, buffers, metadata};
use crate::error::{Error, Result};
#[cfg(feature = "settings")]
use crate::port::Change;
use crate::port::rings::Begun;
use crate::port::{Demand, FRAME_SIZE, Port, Queue, carries_default_route};
use crate::worker::Memory;
use crate::xsk::{Mode, ModeWanted, interface};

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
