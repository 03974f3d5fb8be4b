//! How long a single queue's interrupts are put off: what `napi-set` of the netlink family `netdev` sets, since Linux 6.13.

use std::io;

use nix::net::if_::if_nametoindex;

use crate::machine::netlink::{Attributes, netdev, netdev_set};
use crate::xsk::interface;

/// `NETDEV_CMD_QUEUE_GET`, its attributes `NETDEV_A_QUEUE_*`, and the type of queues that receive, of `linux/netdev.h`.
const QUEUE_GET: u8 = 10;
const QUEUE_ID: u16 = 1;
const QUEUE_IFINDEX: u16 = 2;
const QUEUE_TYPE: u16 = 3;
const QUEUE_NAPI: u16 = 4;
const RX: u32 = 0;

/// `NETDEV_CMD_NAPI_GET` and `NETDEV_CMD_NAPI_SET`, and attributes `NETDEV_A_NAPI_*`.
const NAPI_GET: u8 = 11;
const NAPI_SET: u8 = 14;
const ID: u16 = 2;
const DEFER_HARD_IRQS: u16 = 5;
const GRO_FLUSH_TIMEOUT: u16 = 6;

/// What keeps a queue's interrupts off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Defer {
    /// Rounds without a packet before interrupts are let in again.
    pub(super) rounds: u32,
    /// ns from one round to the next.
    pub(super) timeout: u64,
}

/// The number of what polls a queue: another one each time that a driver makes it anew, so it is never kept.
fn id(interface: &str, queue: u32) -> io::Result<u32> {
    if !interface::is_up(interface)? {
        return Err(io::Error::new(io::ErrorKind::NetworkDown, format!("{interface} is down")));
    }
    let index = if_nametoindex(interface)?;
    let question = Attributes::default()
        .with(QUEUE_ID, &queue.to_ne_bytes())
        .with(QUEUE_IFINDEX, &index.to_ne_bytes())
        .with(QUEUE_TYPE, &RX.to_ne_bytes());
    let found = netdev(QUEUE_GET, question).map_err(|error| match error.raw_os_error() {
        // Of a number above those that there are (`netdev_nl_queue_validate`).
        Some(libc::EINVAL) => {
            io::Error::new(io::ErrorKind::NotFound, format!("{interface} has no queue {queue}"))
        }
        // No such family, before Linux 6.3; no such question, before 6.8.
        Some(libc::ENOENT | libc::EOPNOTSUPP) => whole_interfaces_alone(),
        _ => error,
    })?;
    found.number(QUEUE_NAPI).map(|id| id as u32).ok_or_else(|| unpolled(queue))
}

/// Said while a driver makes a queue anew, and always by drivers that do not tell.
fn unpolled(queue: u32) -> io::Error {
    let what = format!("the driver does not say what polls queue {queue}");
    io::Error::new(io::ErrorKind::ResourceBusy, what)
}

fn whole_interfaces_alone() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "the kernel sets this for whole interfaces alone")
}

/// Between the two questions a driver may have taken away what the first has told of.
fn gone_since(error: io::Error, queue: u32) -> io::Error {
    if error.kind() == io::ErrorKind::NotFound { unpolled(queue) } else { error }
}

/// What is set for a queue.
///
/// # Errors
/// [`io::ErrorKind::NotFound`] where there is no such queue, [`io::ErrorKind::ResourceBusy`] where the driver does not say
/// what polls it, or not just now, [`io::ErrorKind::Unsupported`] where the kernel has nothing to set for a single queue;
/// else the kernel's.
pub(super) fn read(interface: &str, queue: u32) -> io::Result<Defer> {
    let id = id(interface, queue)?;
    let answer = netdev(NAPI_GET, Attributes::default().with(ID, &id.to_ne_bytes()));
    let answer = answer.map_err(|error| gone_since(error, queue))?;
    match (answer.number(DEFER_HARD_IRQS), answer.number(GRO_FLUSH_TIMEOUT)) {
        (Some(rounds), Some(timeout)) => Ok(Defer { rounds: rounds as u32, timeout }),
        _ => Err(whole_interfaces_alone()),
    }
}

/// Sets it for a queue.
///
/// # Errors
/// As [`read`]'s.
pub(super) fn write(interface: &str, queue: u32, Defer { rounds, timeout }: Defer) -> io::Result<()> {
    let what = Attributes::default()
        .with(ID, &id(interface, queue)?.to_ne_bytes())
        .with(DEFER_HARD_IRQS, &rounds.to_ne_bytes())
        .with(GRO_FLUSH_TIMEOUT, &timeout.to_ne_bytes());
    netdev_set(NAPI_SET, what).map_err(|error| gone_since(error, queue))
}
