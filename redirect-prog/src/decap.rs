//! The decapsulation program on a server behind a load balancer.

use std::io;
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::num::NonZero;
use std::os::fd::{AsFd, OwnedFd};

use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{MapCore, MapFlags, MapHandle};

use crate::counters::DecapCounters;
use crate::error::{Error, io_error};
use crate::link::{AttachMode, Attached, Link};
use crate::program::decap::DecapSkelBuilder;
use crate::program::with_log;

/// What the decapsulation program is to do. By default it takes IP-in-IP packets to any address apart.
///
/// ```
/// use std::num::NonZero;
/// use afx_redirect::{DecapOptions, TunnelEnds};
///
/// let server = "10.0.0.11".parse::<std::net::IpAddr>().unwrap();
/// let options = DecapOptions {
///     ends: TunnelEnds::These(vec![server]),
///     gue_port: NonZero::new(6080),
///     ..DecapOptions::default()
/// };
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[expect(clippy::exhaustive_structs, reason = "made by struct update from Default")]
pub struct DecapOptions {
    /// Which outer destinations the outer header is taken off for.
    pub ends: TunnelEnds,
    /// The UDP port that IP-in-UDP packets come to: Generic UDP Encapsulation in its variant 1, where the IP packet
    /// follows the UDP header. None: such packets are left alone.
    pub gue_port: Option<NonZero<u16>>,
    /// What becomes of fragments.
    pub on_fragment: OnFragment,
    /// Native or generic.
    pub mode: AttachMode,
}

/// What becomes of IP fragments that are addressed to the tunnel's ends, whatever they carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnFragment {
    /// They go to the server's stack as they are, which puts them together. It needs a tunnel device of its own to
    /// make something of those that carry another packet.
    #[default]
    Pass,
    /// They are dropped and counted: for a server that is to get packets from its balancer alone, which sends whole
    /// ones, and whose memory for fragments is not to be filled by others. With [`TunnelEnds::Any`] no fragment comes
    /// through at all, large answers to its own DNS queries included.
    Drop,
}

/// Which outer destinations a server takes the outer header off for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[expect(clippy::exhaustive_enums, reason = "there is nothing between any and these")]
pub enum TunnelEnds {
    /// Whatever arrives: right where the network in front does not let strangers send IP-in-IP.
    #[default]
    Any,
    /// Packets to these addresses.
    These(Vec<IpAddr>),
}

/// The decapsulation program, attached to an interface until this is dropped or the process ends.
///
/// It takes the outer headers off IP-in-IP and IP-in-UDP packets (IPv4 or IPv6, in IPv4 or IPv6), and the stack
/// receives the packet within as if it had come bare: the VIP must be an address of the server's, commonly on `lo`. The
/// outer header's congestion mark is not carried over (RFC 6040), and an outer UDP checksum is not verified.
#[derive(Debug)]
pub struct Decap {
    link: Link,
    loaded: Loaded,
}

impl Decap {
    /// Loads the program and attaches it to the interface `ifindex` of the calling thread's network namespace.
    ///
    /// # Errors
    ///
    /// As [`Redirect::attach`](crate::Redirect::attach).
    pub fn attach(ifindex: u32, options: &DecapOptions) -> Result<Self, Error> {
        let loaded = Loaded::new(options)?;
        let link = Link::attach(loaded.program.as_fd(), ifindex, options.mode)?;
        Ok(Self { link, loaded })
    }

    /// The mode that the program is attached in.
    pub fn mode(&self) -> Attached {
        self.link.mode()
    }

    /// Why native mode did not work, where [`AttachMode::Auto`] fell back to generic mode.
    pub fn fallback(&self) -> Option<&io::Error> {
        self.link.fallback()
    }

    /// What became of the packets so far.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn counters(&self) -> Result<DecapCounters, Error> {
        self.loaded.counters()
    }

    /// Takes the program off the interface. Dropping does the same, but cannot say that it failed.
    ///
    /// # Errors
    ///
    /// [`Error::Link`].
    pub fn detach(self) -> Result<(), Error> {
        self.link.detach()
    }
}

/// The program and its maps, loaded: all but the attachment.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) program: OwnedFd,
    counters: MapHandle,
}

impl Loaded {
    /// All but [`DecapOptions::mode`] counts.
    pub(crate) fn new(options: &DecapOptions) -> Result<Self, Error> {
        let addresses: &[IpAddr] = match &options.ends {
            TunnelEnds::Any => &[],
            TunnelEnds::These(addresses) => addresses,
        };
        let (program, counters, tunnel_ends) = with_log("decapsulation", || {
            let mut object = MaybeUninit::uninit();
            let mut open = DecapSkelBuilder::default().open(&mut object)?;
            let constants = open.maps.rodata_data.as_mut().expect("the program has constants");
            constants.only_tunnel_ends = (options.ends != TunnelEnds::Any).into();
            constants.gue_port = options.gue_port.map_or(0, |port| port.get().into());
            constants.drop_fragments = (options.on_fragment == OnFragment::Drop).into();
            open.maps
                .tunnel_ends
                .set_max_entries(u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1))?;
            let loaded = open.load()?;
            Ok((
                loaded.progs.afx_decap.as_fd().try_clone_to_owned()?,
                MapHandle::try_from(&loaded.maps.counters)?,
                MapHandle::try_from(&loaded.maps.tunnel_ends)?,
            ))
        })?;
        for address in addresses {
            let mapped = match address {
                IpAddr::V4(address) => address.to_ipv6_mapped(),
                IpAddr::V6(address) => *address,
            };
            tunnel_ends.update(&mapped.octets(), &1u32.to_ne_bytes(), MapFlags::ANY).map_err(|error| {
                Error::Map { action: format!("add the tunnel end {address}"), source: io_error(error) }
            })?;
        }
        Ok(Self { program, counters })
    }

    pub(crate) fn counters(&self) -> Result<DecapCounters, Error> {
        DecapCounters::read(&self.counters, 0)
    }
}
