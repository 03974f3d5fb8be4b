//! The redirect program on one port: loaded, attached, steered, given sockets.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use libbpf_rs::{MapCore, MapFlags};

use crate::beat::{Beat, Beats, SLOT_SIZE};
use crate::counters::Counters;
use crate::earlier::{Coexist, Earlier, Obstacle};
use crate::error::{Error, io_error};
use crate::link::{AttachMode, Attached, Link, Occupant, occupant};
use crate::load::{Config, Maps, PROGRAM, load};
use crate::metadata::{Bound, NoMetadata, Noting, RxMetadata};
use crate::program::load_error;
use crate::steering::Steering;
use crate::tables::Tables;

/// What is settled when the redirect program is loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "made by struct update from Default")]
pub struct Options {
    /// Native or generic.
    pub mode: AttachMode,
    /// What is done where the interface has another program already.
    pub coexist: Coexist,
    /// Queues 0 to this number less one can have sockets; packets of others go to the kernel. Each queue costs
    /// 136 bytes and 64 bytes a CPU.
    pub queues: u32,
    /// The bytes of a packet that fit a frame of the sockets: frame size less headroom less
    /// `XDP_PACKET_HEADROOM` (256 bytes), of all frames a packet can take in multi-buffer.
    pub frame_limit: u32,
    /// Accept packets in several buffers (`xdp.frags`): the sockets need `XDP_USE_SG`.
    pub multi_buffer: bool,
    /// How long a worker's beat may stand still; `None` for no heartbeat. Rounded up to the kernel's tick.
    pub stall_limit: Option<Duration>,
    /// What becomes of a stalled or [stopped](Redirect::give_up) worker's packets; `None` for what suits the steering:
    /// pass with [`Steering::All`], and with [`Steering::Match`] drop, since the kernel would answer with resets.
    pub on_stall: Option<OnStall>,
    /// Upper bound on the entries of each steering table (addresses and prefixes, of each version of IP): one a
    /// rule, two for a rule with a port, one more for the addresses of flowless rules. While the steering changes, old and new must fit together.
    pub max_rules: u32,
    /// Upper bound on the prefixes of each version of IP in the blocklist.
    pub max_blocked: u32,
    /// Whether what the card knows of a packet is noted before it.
    pub rx_metadata: RxMetadata,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            mode: AttachMode::Auto,
            coexist: Coexist::Refuse,
            queues: 64,
            frame_limit: 4096 - 256,
            multi_buffer: false,
            stall_limit: Some(Duration::from_millis(500)),
            on_stall: None,
            max_rules: 32_768,
            max_blocked: 65_536,
            rx_metadata: RxMetadata::Off,
        }
    }
}

/// What becomes of steered packets whose worker is stalled, or was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnStall {
    /// They go to the kernel's stack.
    Pass,
    /// They are dropped and counted.
    Drop,
}

/// The redirect program, attached to a port until this is dropped or the process ends.
///
/// Drop it before the sockets: packets that arrive in between go to the kernel instead of a dying socket.
#[derive(Debug)]
pub struct Redirect {
    // In this order: what was there before comes back to an interface that is free.
    link: Link,
    earlier: Option<Earlier>,
    loaded: Loaded,
    no_metadata: Option<NoMetadata>,
}

impl Redirect {
    /// Loads the program and attaches it to the interface `ifindex` of the calling thread's network namespace.
    /// Until sockets are registered, every packet goes to the kernel.
    ///
    /// # Errors
    ///
    /// [`Error::Load`], [`Error::TooOld`] or [`Error::Rights`] where the kernel refuses the program, [`Error::Occupied`] where the
    /// interface has an XDP program already, [`Error::Stays`] where that cannot be replaced or chained as
    /// [`Options::coexist`] says, [`Error::Attach`] where it takes none in the mode demanded, [`Error::Metadata`] where
    /// metadata is demanded and cannot be had, [`Error::Map`] where the steering has too many rules. Nothing is left
    /// behind, and a program that had to go is back.
    pub fn attach(ifindex: u32, steering: &Steering, options: &Options) -> Result<Self, Error> {
        let there = if options.coexist == Coexist::Refuse { None } else { occupant(ifindex) };
        let chain = there.is_some() && options.coexist == Coexist::Chain;
        let (mut loaded, mut no_metadata) = load_for(ifindex, steering, options, chain)?;
        let earlier = match there {
            None => None,
            Some(occupant) => {
                let mut earlier = Earlier::find(ifindex, occupant, options.coexist)?;
                if chain {
                    loaded.follow_with(&earlier)?;
                }
                earlier.take_off()?;
                Some(earlier)
            }
        };
        // Where this fails, what was there is put back as it is dropped.
        let attach = |loaded: &Loaded, mode| Link::attach(loaded.program.as_fd(), ifindex, mode);
        let link = match &loaded.bound {
            None => attach(&loaded, options.mode)?,
            // Generic mode has no metadata, and older kernels do not refuse the program there.
            Some(_) => match attach(&loaded, AttachMode::Native) {
                Err(error @ Error::Attach { .. }) => {
                    let why = NoMetadata::Attach(Box::new(error));
                    no_metadata = Some(without(ifindex, options, why)?);
                    loaded = Loaded::new(steering, options, chain, None)?;
                    attach(&loaded, options.mode)?
                }
                attached => attached?,
            },
        };
        Ok(Self { link, earlier, loaded, no_metadata })
    }

    /// What is noted before each packet that is redirected; None where nothing is.
    pub fn noting(&self) -> Option<&Noting> {
        self.loaded.bound.as_ref().map(|bound| &bound.noting)
    }

    /// Why nothing is noted, where [`RxMetadata::Auto`] asked for it.
    pub fn no_metadata(&self) -> Option<&NoMetadata> {
        self.no_metadata.as_ref()
    }

    /// The program that was on the interface before, and what was done with it: replaced or chained.
    pub fn beside(&self) -> Option<(&Occupant, Coexist)> {
        self.earlier.as_ref().map(|earlier| (earlier.occupant(), earlier.coexist()))
    }

    /// The mode that the program is attached in.
    pub fn mode(&self) -> Attached {
        self.link.mode()
    }

    /// Why native mode did not work, where [`AttachMode::Auto`] fell back to generic mode.
    pub fn fallback(&self) -> Option<&io::Error> {
        self.link.fallback()
    }

    /// Steers `queue` to `socket`, an AF_XDP socket bound to that queue of this port. The socket's closing undoes it.
    ///
    /// # Errors
    ///
    /// [`Error::QueueOutOfRange`]; [`Error::Map`] where the descriptor is no AF_XDP socket with a ring.
    pub fn register(&self, queue: u32, socket: BorrowedFd<'_>) -> Result<(), Error> {
        self.loaded.register(queue, socket)
    }

    /// Gives the packets of `queue` back to the kernel. Without a socket there, does nothing.
    ///
    /// # Errors
    ///
    /// [`Error::QueueOutOfRange`], [`Error::Map`].
    pub fn unregister(&self, queue: u32) -> Result<(), Error> {
        self.loaded.unregister(queue)
    }

    /// Takes the socket of `queue` off, whose worker is about to end: from now on the queue's packets meet with what a
    /// stalled worker's do ([`Options::on_stall`]), and not with the kernel, which knows nothing of their flows. A socket
    /// that is registered undoes it.
    ///
    /// # Errors
    ///
    /// [`Error::QueueOutOfRange`], [`Error::Map`].
    pub fn give_up(&self, queue: u32) -> Result<(), Error> {
        self.loaded.give_up(queue)
    }

    /// The heartbeat of the worker that owns `queue`. Without one, a registered queue is stalled after the limit.
    ///
    /// # Errors
    ///
    /// [`Error::QueueOutOfRange`]; [`Error::BeatTaken`] while another [`Beat`] of the queue exists.
    pub fn beat(&self, queue: u32) -> Result<Beat, Error> {
        self.loaded.beat(queue)
    }

    /// Changes the steering while packets flow: what both old and new steer is steered throughout.
    ///
    /// # Errors
    ///
    /// [`Error::Map`] where there are too many rules, [`Error::Load`] or [`Error::Link`] where a program that is
    /// needed for it could not be put in place: the old steering stays.
    pub fn update_steering(&mut self, steering: &Steering) -> Result<(), Error> {
        let tables = self.loaded.tables().steering(steering);
        let steer_all = *steering == Steering::All;
        self.loaded.change(tables, steer_all, |program| self.link.update(program))
    }

    /// Replaces the blocklist, empty at first, while packets flow: packets from these prefixes are dropped, on
    /// all queues, whether steered or not.
    ///
    /// # Errors
    ///
    /// As [`update_steering`](Self::update_steering): the old blocklist stays.
    pub fn update_blocklist(&mut self, blocklist: &[IpNet]) -> Result<(), Error> {
        let tables = self.loaded.tables().blocking(blocklist);
        let steer_all = self.loaded.steers_all();
        self.loaded.change(tables, steer_all, |program| self.link.update(program))
    }

    /// Changes [`Options::frame_limit`] while packets flow: what the sockets take is known once they are bound.
    ///
    /// # Errors
    ///
    /// [`Error::Load`] or [`Error::Link`] where the new program could not be put in place: the old limit stays.
    pub fn update_frame_limit(&mut self, bytes: u32) -> Result<(), Error> {
        self.loaded.limit(bytes, |program| self.link.update(program))
    }

    /// The counters of all queues, summed. Takes a system call a queue.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn counters(&self) -> Result<Counters, Error> {
        self.loaded.counters()
    }

    /// The counters of one queue.
    ///
    /// # Errors
    ///
    /// [`Error::QueueOutOfRange`], [`Error::Map`].
    pub fn queue_counters(&self, queue: u32) -> Result<Counters, Error> {
        self.loaded.check(queue)?;
        Counters::read(&self.loaded.maps.counters, queue)
    }

    /// Takes the program off the port, and puts back the one that was there before. Dropping does the same, but cannot
    /// say that it failed.
    ///
    /// # Errors
    ///
    /// [`Error::Link`], [`Error::PutBack`].
    pub fn detach(self) -> Result<(), Error> {
        let Self { link, earlier, .. } = self;
        link.detach()?;
        earlier.map_or(Ok(()), Earlier::put_back)
    }
}

/// Loads the program: the one that notes metadata where that is wanted and can be had, else the other, and why.
fn load_for(
    ifindex: u32,
    steering: &Steering,
    options: &Options,
    chain: bool,
) -> Result<(Loaded, Option<NoMetadata>), Error> {
    let bound = match options {
        Options { rx_metadata: RxMetadata::Off, .. } => {
            return Ok((Loaded::new(steering, options, chain, None)?, None));
        }
        Options { mode: AttachMode::Generic, .. } => Err(NoMetadata::Generic),
        _ if chain => Err(NoMetadata::Chained),
        _ => Bound::to(ifindex),
    };
    let why = match bound.map(|bound| Loaded::new(steering, options, chain, Some(bound))) {
        Ok(Ok(loaded)) => return Ok((loaded, None)),
        Ok(Err(error @ (Error::Load { .. } | Error::TooOld { .. }))) => NoMetadata::Kernel(Box::new(error)),
        Ok(Err(error)) => return Err(error),
        Err(why) => why,
    };
    let why = without(ifindex, options, why)?;
    Ok((Loaded::new(steering, options, chain, None)?, Some(why)))
}

/// Goes on without metadata, unless that is demanded.
fn without(ifindex: u32, options: &Options, why: NoMetadata) -> Result<NoMetadata, Error> {
    match options.rx_metadata {
        RxMetadata::On => Err(Error::Metadata { ifindex, source: why }),
        RxMetadata::Auto | RxMetadata::Off => Ok(why),
    }
}

/// The program and its maps, loaded: all but the attachment.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) program: OwnedFd,
    maps: Maps,
    beats: Arc<Beats>,
    tables: Tables,
    config: Config,
    options: Options,
    chained: bool,
    /// The device that the program is bound to, where it notes metadata.
    bound: Option<Bound>,
}

impl Loaded {
    /// `chained` is whether another program is to come after this one; `bound` the device to ask for metadata.
    pub(crate) fn new(
        steering: &Steering,
        options: &Options,
        chained: bool,
        bound: Option<Bound>,
    ) -> Result<Self, Error> {
        let tables = Tables::default().steering(steering);
        let config = Config::new(&tables, *steering == Steering::All);
        let (program, maps) = load(config, options, chained, bound.as_ref(), None)?;
        let beats =
            Beats::map(maps.beats.as_fd(), options.queues).map_err(|source| load_error(PROGRAM, source))?;
        tables.extend(&Tables::default(), &maps.tables)?;
        Ok(Self { program, maps, beats, tables, config, options: options.clone(), chained, bound })
    }

    /// Has what is passed go to that program first.
    fn follow_with(&self, earlier: &Earlier) -> Result<(), Error> {
        let (first, program) = (0u32.to_ne_bytes(), earlier.program().as_raw_fd().to_ne_bytes());
        let next = self.maps.next.as_ref().expect("a program that is to be followed has a map for that");
        next.update(&first, &program, MapFlags::ANY)
            .map_err(|error| earlier.stays(Obstacle::NotAfterOurs, io_error(error)))
    }

    /// Goes over to `tables`. What is to be matched is there before a program that looks for it, and what is not
    /// goes last. A new program is handed to `attach` only where what is compiled into it changes.
    pub(crate) fn change(
        &mut self,
        tables: Tables,
        steer_all: bool,
        attach: impl FnOnce(BorrowedFd<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let config = Config::new(&tables, steer_all);
        tables.extend(&self.tables, &self.maps.tables)?;
        if config != self.config {
            let replaced = self.reload(config, &self.options).and_then(|program| {
                attach(program.as_fd())?;
                Ok(program)
            });
            match replaced {
                Ok(program) => self.program = program,
                Err(error) => {
                    tables.retract(&self.tables, &self.maps.tables);
                    return Err(error);
                }
            }
        }
        let old = std::mem::replace(&mut self.tables, tables);
        self.config = config;
        self.tables.prune(&old, &self.maps.tables)
    }

    /// Goes over to packets of up to `bytes`, by a new program that is handed to `attach` where that changes anything.
    pub(crate) fn limit(
        &mut self,
        bytes: u32,
        attach: impl FnOnce(BorrowedFd<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if bytes == self.options.frame_limit {
            return Ok(());
        }
        let options = Options { frame_limit: bytes, ..self.options.clone() };
        let program = self.reload(self.config, &options)?;
        attach(program.as_fd())?;
        (self.program, self.options) = (program, options);
        Ok(())
    }

    /// Another instance of the program, with the same maps and bound to the same device.
    fn reload(&self, config: Config, options: &Options) -> Result<OwnedFd, Error> {
        load(config, options, self.chained, self.bound.as_ref(), Some(&self.maps)).map(|(program, _)| program)
    }

    pub(crate) fn register(&self, queue: u32, socket: BorrowedFd<'_>) -> Result<(), Error> {
        self.check(queue)?;
        let action = || format!("register a socket for queue {queue}");
        let key = queue.to_ne_bytes();
        self.maps
            .watches
            .update(&key, &watch(false), MapFlags::ANY)
            .and_then(|()| self.maps.sockets.update(&key, &socket.as_raw_fd().to_ne_bytes(), MapFlags::ANY))
            .map_err(|error| Error::Map { action: action(), source: io_error(error) })
    }

    pub(crate) fn give_up(&self, queue: u32) -> Result<(), Error> {
        self.check(queue)?;
        // Said before the socket is gone: no packet shall find neither.
        let said = self.maps.watches.update(&queue.to_ne_bytes(), &watch(true), MapFlags::ANY);
        said.map_err(|error| Error::Map {
            action: format!("say that the worker of queue {queue} is stopped"),
            source: io_error(error),
        })?;
        self.unregister(queue)
    }

    pub(crate) fn unregister(&self, queue: u32) -> Result<(), Error> {
        self.check(queue)?;
        self.maps.sockets.delete(&queue.to_ne_bytes()).map_err(|error| Error::Map {
            action: format!("remove the socket of queue {queue}"),
            source: io_error(error),
        })
    }

    pub(crate) fn beat(&self, queue: u32) -> Result<Beat, Error> {
        self.check(queue)?;
        self.beats.take(queue)
    }

    pub(crate) fn counters(&self) -> Result<Counters, Error> {
        let mut sum = Counters::default();
        for slot in 0..=self.options.queues {
            sum += Counters::read(&self.maps.counters, slot)?;
        }
        Ok(sum)
    }

    /// The entries that are in place.
    pub(crate) fn tables(&self) -> &Tables {
        &self.tables
    }

    pub(crate) fn steers_all(&self) -> bool {
        self.config.steer_all
    }

    fn check(&self, queue: u32) -> Result<(), Error> {
        let queues = self.options.queues;
        if queue < queues { Ok(()) } else { Err(Error::QueueOutOfRange { queue, queues }) }
    }
}

/// A `struct watch` of redirect.bpf.c, of a queue that is taken, or whose worker was stopped.
fn watch(stopped: bool) -> [u8; SLOT_SIZE] {
    let mut watch = [0; SLOT_SIZE];
    // A beat that was never written: a new socket's worker has the whole limit from its first packet on.
    watch[..8].fill(0xff);
    watch[16..24].copy_from_slice(&u64::from(stopped).to_ne_bytes());
    watch
}
