//! Loading an instance of the redirect program: of the one that notes metadata, or of the one that does not.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{MapHandle, OpenMapMut};

use crate::error::Error;
use crate::metadata::Bound;
use crate::program::{load_error, metadata, redirect, with_log};
use crate::redirect::{OnStall, Options};
use crate::tables::{TABLES, Tables};

pub(crate) const PROGRAM: &str = "redirect";
const XDP_DROP: u32 = libbpf_sys::XDP_DROP;
const XDP_PASS: u32 = libbpf_sys::XDP_PASS;

/// What is compiled into one instance of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) steer_all: bool,
    classes: u32,
    block4: bool,
    block6: bool,
}

impl Config {
    pub(crate) fn new(tables: &Tables, steer_all: bool) -> Self {
        Self { steer_all, classes: tables.classes(), block4: tables.blocks4(), block6: tables.blocks6() }
    }
}

/// Shared by all instances of the program.
#[derive(Debug)]
pub(crate) struct Maps {
    pub(crate) sockets: MapHandle,
    pub(crate) beats: MapHandle,
    pub(crate) watches: MapHandle,
    pub(crate) counters: MapHandle,
    /// None where the program notes metadata.
    pub(crate) next: Option<MapHandle>,
    pub(crate) tables: [MapHandle; TABLES],
}

/// Loads an instance of the program, with maps of its own or those of an earlier instance.
pub(crate) fn load(
    config: Config,
    options: &Options,
    chained: bool,
    bound: Option<&Bound>,
    shared: Option<&Maps>,
) -> Result<(OwnedFd, Maps), Error> {
    let stall_jiffies = match options.stall_limit {
        None => 0,
        Some(limit) => jiffies(limit).map_err(|source| load_error(PROGRAM, source))?,
    };
    let on_stall = options.on_stall.unwrap_or(if config.steer_all { OnStall::Pass } else { OnStall::Drop });
    let set_up = |map: &mut OpenMapMut<'_>, entries: u32, shared: Option<&MapHandle>| match shared {
        Some(shared) => map.reuse_fd(shared.as_fd()),
        None => map.set_max_entries(entries),
    };

    // The program with metadata and the one without are of one source, and their constants and maps of two types.
    macro_rules! constants {
        ($open:ident) => {{
            let constants = $open.maps.rodata_data.as_mut().expect("the program has constants");
            constants.steer_all = config.steer_all.into();
            constants.classes = config.classes;
            constants.block4 = config.block4.into();
            constants.block6 = config.block6.into();
            constants.queues = options.queues;
            constants.frame_limit = options.frame_limit;
            constants.multi_buffer = options.multi_buffer.into();
            constants.chained = chained.into();
            constants.stall_jiffies = stall_jiffies;
            constants.stall_verdict = match on_stall {
                OnStall::Pass => XDP_PASS,
                OnStall::Drop => XDP_DROP,
            };
            constants
        }};
    }
    macro_rules! set_up {
        ($open:ident) => {
            let maps = &mut $open.maps;
            set_up(&mut maps.sockets, options.queues, shared.map(|maps| &maps.sockets))?;
            set_up(&mut maps.beats, options.queues, shared.map(|maps| &maps.beats))?;
            set_up(&mut maps.watches, options.queues, shared.map(|maps| &maps.watches))?;
            set_up(&mut maps.counters, options.queues + 1, shared.map(|maps| &maps.counters))?;
            let tables = [
                (&mut maps.hosts4, options.max_rules),
                (&mut maps.hosts6, options.max_rules),
                (&mut maps.nets4, options.max_rules),
                (&mut maps.nets6, options.max_rules),
                (&mut maps.blocked4, options.max_blocked),
                (&mut maps.blocked6, options.max_blocked),
            ];
            for (index, (map, entries)) in tables.into_iter().enumerate() {
                set_up(map, entries, shared.map(|maps| &maps.tables[index]))?;
            }
        };
    }
    macro_rules! loaded {
        ($open:ident, $maps:ident => $next:expr) => {{
            let loaded = $open.load()?;
            let $maps = &loaded.maps;
            let handles = Maps {
                sockets: MapHandle::try_from(&$maps.sockets)?,
                beats: MapHandle::try_from(&$maps.beats)?,
                watches: MapHandle::try_from(&$maps.watches)?,
                counters: MapHandle::try_from(&$maps.counters)?,
                next: $next,
                tables: [
                    MapHandle::try_from(&$maps.hosts4)?,
                    MapHandle::try_from(&$maps.hosts6)?,
                    MapHandle::try_from(&$maps.nets4)?,
                    MapHandle::try_from(&$maps.nets6)?,
                    MapHandle::try_from(&$maps.blocked4)?,
                    MapHandle::try_from(&$maps.blocked6)?,
                ],
            };
            Ok((loaded.progs.afx_redirect.as_fd().try_clone_to_owned()?, handles))
        }};
    }

    let segments = if options.multi_buffer { libbpf_sys::BPF_F_XDP_HAS_FRAGS } else { 0 };
    let Some(bound) = bound else {
        return with_log(PROGRAM, || {
            let mut object = MaybeUninit::uninit();
            let mut open = redirect::RedirectSkelBuilder::default().open(&mut object)?;
            constants!(open);
            open.progs.afx_redirect.set_flags(segments);
            set_up!(open);
            set_up(&mut open.maps.next, 1, shared.and_then(|maps| maps.next.as_ref()))?;
            loaded!(open, maps => Some(MapHandle::try_from(&maps.next)?))
        });
    };
    let load = || {
        with_log(PROGRAM, || {
            let mut object = MaybeUninit::uninit();
            let mut open = metadata::RedirectSkelBuilder::default().open(&mut object)?;
            let constants = constants!(open);
            constants.metadata_wanted = bound.wanted();
            constants.metadata_mark = bound.noting.mark();
            open.progs.afx_redirect.set_flags(segments | libbpf_sys::BPF_F_XDP_DEV_BOUND_ONLY);
            open.progs.afx_redirect.set_ifindex(bound.ifindex);
            set_up!(open);
            loaded!(open, maps => None)
        })
    };
    bound.in_its_namespace(load).map_err(|source| load_error(PROGRAM, source))?
}

/// `limit` in ticks of the kernel, rounded up, at least one.
#[allow(unsafe_code, reason = "the standard library does not tell a clock's resolution")]
fn jiffies(limit: Duration) -> io::Result<u64> {
    let mut tick = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // The coarse clocks advance by the tick, whatever CONFIG_HZ the kernel was built with.
    // SAFETY: the kernel writes one timespec, which lives through the call.
    if unsafe { libc::clock_getres(libc::CLOCK_MONOTONIC_COARSE, &raw mut tick) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let tick_ns = u128::from(tick.tv_nsec.unsigned_abs().max(1));
    Ok(u64::try_from(limit.as_nanos().div_ceil(tick_ns)).unwrap_or(u64::MAX).max(1))
}
