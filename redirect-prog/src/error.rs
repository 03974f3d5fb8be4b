//! What can go wrong between this crate and the kernel.

use std::io;

use ipnet::IpNet;

use crate::earlier::{Coexist, Obstacle};
use crate::kernel::LOWEST_KERNEL;
use crate::link::{Attached, Occupant};
use crate::metadata::NoMetadata;
use crate::steering::Protocol;

/// Why a program could not be attached, steered or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kernel did not accept a program or its maps. `log` is what libbpf and the verifier said, if anything.
    #[error("the kernel does not load the {program} program: {answer}{}{log}", if log.is_empty() { "" } else { "\n" })]
    Load {
        /// Which of the programs.
        program: &'static str,
        /// The kernel's answer.
        answer: io::Error,
        /// What libbpf and the verifier said, several lines.
        log: String,
    },

    /// The kernel did not accept a program, and is older than [`LOWEST_KERNEL`]: `log` is beside the point then, and not in
    /// the message.
    #[error(
        "Linux {release} does not load the {program} program ({answer}): afx needs Linux {}.{} or later",
        LOWEST_KERNEL.0,
        LOWEST_KERNEL.1
    )]
    TooOld {
        /// Which of the programs.
        program: &'static str,
        /// The kernel's release (`uname -r`).
        release: String,
        /// The kernel's answer.
        answer: io::Error,
        /// What libbpf and the verifier said, several lines.
        log: String,
    },

    /// This process may not load programs.
    #[error("loading the {program} program takes {}, which this process lacks", missing.join(", "))]
    Rights {
        /// Which of the programs.
        program: &'static str,
        /// The capabilities that are missing (capabilities(7)).
        missing: Vec<&'static str>,
        /// The kernel's answer.
        source: io::Error,
    },

    /// Another XDP program holds the interface. Nothing was changed.
    #[error(
        "interface {ifindex} is held by {occupant}: detach that first, or have it replaced or chained (`coexist`)"
    )]
    Occupied {
        /// The interface.
        ifindex: u32,
        /// Who is there.
        occupant: Occupant,
    },

    /// Another XDP program holds the interface, and cannot be replaced or chained as was asked. It stays.
    #[error("interface {ifindex} is held by {occupant}, which cannot be {}: {obstacle}", wanted.participle())]
    Stays {
        /// The interface.
        ifindex: u32,
        /// Who is there.
        occupant: Occupant,
        /// What was to be done with it.
        wanted: Coexist,
        /// Why that is not possible, and what would be right.
        obstacle: Obstacle,
        /// The kernel's answer.
        source: io::Error,
    },

    /// The program that was on the interface before could not be attached again: the interface has none, or that of
    /// whoever came in between.
    #[error("{occupant}, which was on interface {ifindex} before, cannot be put back: attach it anew")]
    PutBack {
        /// The interface.
        ifindex: u32,
        /// Who was there.
        occupant: Occupant,
        /// The kernel's answer.
        source: io::Error,
    },

    /// The interface does not take an XDP program in the mode asked for.
    #[error(
        "interface {ifindex} does not take an XDP program in {mode} mode{}",
        if *mode == Attached::Native { "; generic mode works on any" } else { "" }
    )]
    Attach {
        /// The interface.
        ifindex: u32,
        /// The mode tried last.
        mode: Attached,
        /// The kernel's answer.
        source: io::Error,
    },

    /// What the card knows of packets was demanded, and cannot be had.
    #[error("interface {ifindex} gives no metadata of received packets (`rx_metadata`)")]
    Metadata {
        /// The interface.
        ifindex: u32,
        /// Why, and what would be right.
        source: NoMetadata,
    },

    /// The program in place could not be replaced or taken off. It stays.
    #[error("the program on interface {ifindex} cannot be {action}")]
    Link {
        /// The interface.
        ifindex: u32,
        /// What was to be done with it.
        action: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },

    /// A map could not be written or read.
    #[error("cannot {action}")]
    Map {
        /// What was to be done.
        action: String,
        /// The kernel's answer.
        source: io::Error,
    },

    /// A queue beyond those that the program was loaded for.
    #[error("queue {queue} is out of range: the program was loaded for queues 0 to {}", queues.saturating_sub(1))]
    QueueOutOfRange {
        /// The queue asked for.
        queue: u32,
        /// [`Options::queues`](crate::Options::queues).
        queues: u32,
    },

    /// A second heart for one queue would make a stalled worker look alive.
    #[error("queue {queue} already has a beat: drop it before taking another")]
    BeatTaken {
        /// The queue asked for.
        queue: u32,
    },

    /// A rule that could never match.
    #[error("rule for {to}: {reason}")]
    Rule {
        /// The rule's addresses.
        to: IpNet,
        /// What is wrong with it, and what would be right.
        reason: RuleError,
    },
}

/// Why a rule could never match.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RuleError {
    /// Port 0 is no port: leave it out for any.
    #[error("port 0 does not exist; leave the port out to match any")]
    PortZero,
    /// Protocol 0 is an extension header of IPv6: leave it out for any.
    #[error("protocol 0 is no protocol above IP; leave the protocol out to match any")]
    ProtocolZero,
    /// Only TCP, UDP, UDP-Lite, SCTP and DCCP have ports.
    #[error("protocol {0} has no ports; leave the port out")]
    NoPorts(Protocol),
}

/// libbpf-rs keeps its errors to itself; what they say is kept.
pub(crate) fn io_error(error: libbpf_rs::Error) -> io::Error {
    let kind = match error.kind() {
        libbpf_rs::ErrorKind::PermissionDenied => io::ErrorKind::PermissionDenied,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, format!("{error:#}"))
}
