//! Questions to the kernel and their answers, over one netlink socket.

use std::io;
use std::net::IpAddr;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkLayerType, LinkMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteProtocol, RouteType, RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// The protocol number that marks the neighbour entries made here (see `rtnetlink(7)`: who installed it).
const OURS: RouteProtocol = RouteProtocol::Other(175);

/// A next hop: an address on an interface's link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Hop {
    pub(super) interface: u32,
    pub(super) address: IpAddr,
}

/// What `ip route get` says.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) kind: RouteType,
    pub(super) interface: u32,
    pub(super) gateway: Option<IpAddr>,
    pub(super) source: Option<IpAddr>,
    pub(super) mtu: Option<u32>,
}

/// What `ip link show` says.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) is_up: bool,
    /// None where frames have no MAC addresses.
    pub(super) mac: Option<[u8; 6]>,
    pub(super) mtu: u32,
}

/// What `ip neigh get` says.
#[derive(Debug)]
pub(super) struct Neighbour {
    pub(super) state: NeighbourState,
    pub(super) mac: Option<[u8; 6]>,
    /// The kernel keeps it alive.
    pub(super) is_managed: bool,
    /// A resolver made it.
    pub(super) is_ours: bool,
    learned: NeighbourFlags,
}

impl Neighbour {
    /// Whether somebody set it by hand, so that it needs no care and must get none.
    pub(super) fn is_fixed(&self) -> bool {
        matches!(self.state, NeighbourState::Permanent | NeighbourState::Noarp)
    }
}

/// A socket for questions. It belongs to the network namespace that it was opened in.
pub(super) struct Kernel {
    socket: Socket,
    sequence: u32,
}

impl Kernel {
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// The route that a packet to this address would take. None if there is none, or one that forbids it.
    pub(super) fn route(&mut self, to: IpAddr) -> io::Result<Option<Route>> {
        let mut question = RouteMessage::default();
        question.header.address_family = family(to);
        question.header.destination_prefix_length = if to.is_ipv4() { 32 } else { 128 };
        question.attributes.push(RouteAttribute::Destination(to.into()));
        let answer = match self.ask(RouteNetlinkMessage::GetRoute(question), 0) {
            Ok(Some(RouteNetlinkMessage::NewRoute(answer))) => answer,
            Ok(_) => return Ok(None),
            // The kernel's words for: no route, unreachable, prohibit, blackhole.
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES | libc::EINVAL)
                ) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let mut route =
            Route { kind: answer.header.kind, interface: 0, gateway: None, source: None, mtu: None };
        for attribute in answer.attributes {
            match attribute {
                RouteAttribute::Oif(index) => route.interface = index,
                RouteAttribute::Gateway(address) => route.gateway = ip(&address),
                RouteAttribute::Via(RouteVia::Inet(address)) => route.gateway = Some(address.into()),
                RouteAttribute::Via(RouteVia::Inet6(address)) => route.gateway = Some(address.into()),
                RouteAttribute::PrefSource(address) => {
                    route.source = ip(&address).filter(|address| !address.is_unspecified());
                }
                RouteAttribute::Metrics(metrics) => {
                    route.mtu = metrics.iter().find_map(|metric| match metric {
                        RouteMetric::Mtu(mtu) if *mtu > 0 => Some(*mtu),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
        Ok(Some(route))
    }

    /// An interface. None if there is none of that index.
    pub(super) fn link(&mut self, index: u32) -> io::Result<Option<Link>> {
        let mut question = LinkMessage::default();
        question.header.index = index;
        let answer = match self.ask(RouteNetlinkMessage::GetLink(question), 0) {
            Ok(Some(RouteNetlinkMessage::NewLink(answer))) => answer,
            Ok(_) => return Ok(None),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut link = Link { is_up: answer.header.flags.contains(LinkFlags::Up), mac: None, mtu: 0 };
        for attribute in answer.attributes {
            match attribute {
                LinkAttribute::Address(bytes) if answer.header.link_layer_type == LinkLayerType::Ether => {
                    link.mac = bytes.try_into().ok();
                }
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                _ => {}
            }
        }
        Ok(Some(link))
    }

    /// The neighbour table's entry of a next hop, if it has one.
    pub(super) fn neighbour(&mut self, hop: Hop) -> io::Result<Option<Neighbour>> {
        let answer = match self.ask(RouteNetlinkMessage::GetNeighbour(neighbour_message(hop)), 0) {
            Ok(Some(RouteNetlinkMessage::NewNeighbour(answer))) => answer,
            Ok(_) => return Ok(None),
            Err(error) if is_gone(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut neighbour = Neighbour {
            state: answer.header.state,
            mac: None,
            is_managed: false,
            is_ours: false,
            learned: answer.header.flags & NeighbourFlags::ExtLearned,
        };
        for attribute in answer.attributes {
            match attribute {
                NeighbourAttribute::LinkLayerAddress(bytes) => neighbour.mac = bytes.try_into().ok(),
                NeighbourAttribute::ExtFlags(flags) => {
                    neighbour.is_managed = flags.contains(NeighbourExtFlags::Managed);
                }
                NeighbourAttribute::Protocol(protocol) => neighbour.is_ours = protocol == OURS,
                _ => {}
            }
        }
        Ok(Some(neighbour))
    }

    /// Makes the entry of a next hop, has it asked for its MAC address, and kept alive from then on.
    pub(super) fn create(&mut self, hop: Hop) -> io::Result<()> {
        let mut message = neighbour_message(hop);
        message.header.flags = NeighbourFlags::Use;
        message.attributes.push(NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed));
        message.attributes.push(NeighbourAttribute::Protocol(OURS));
        self.tell(RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE)
    }

    /// Has the entry that there is kept alive, or no longer.
    ///
    /// Not for fixed entries: the kernel would make ordinary ones of them (`__neigh_update`).
    pub(super) fn manage(&mut self, hop: Hop, entry: &Neighbour, on: bool) -> io::Result<()> {
        let mut message = neighbour_message(hop);
        message.header.flags = NeighbourFlags::Use | entry.learned;
        if on {
            message.attributes.push(NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed));
        }
        self.tell(RouteNetlinkMessage::NewNeighbour(message), 0)
    }

    /// Removes the entry of a next hop.
    pub(super) fn remove(&mut self, hop: Hop) -> io::Result<()> {
        self.tell(RouteNetlinkMessage::DelNeighbour(neighbour_message(hop)), 0)
    }

    /// For changes: an entry or interface that has gone meanwhile is no error, it needs no change.
    fn tell(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        match self.ask(message, NLM_F_ACK | flags) {
            Ok(_) => Ok(()),
            Err(error) if is_gone(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The one message that answers; none for a mere acknowledgement.
    fn ask(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<Option<RouteNetlinkMessage>> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut packet = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::from(message));
        packet.header.flags = NLM_F_REQUEST | flags;
        packet.header.sequence_number = self.sequence;
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        loop {
            let (bytes, _) = self.socket.recv_from_full()?;
            let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&bytes)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
            if answer.header.sequence_number != self.sequence {
                continue; // The rest of an answer that could not be read.
            }
            return match answer.payload {
                NetlinkPayload::InnerMessage(message) => Ok(Some(message)),
                NetlinkPayload::Error(error) if error.code.is_some() => Err(error.to_io()),
                _ => Ok(None),
            };
        }
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV | libc::ENXIO))
}

fn neighbour_message(hop: Hop) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(hop.address);
    message.header.ifindex = hop.interface;
    message.attributes.push(NeighbourAttribute::Destination(hop.address.into()));
    message
}

/// The next hop that a message about a neighbour is about.
pub(super) fn hop_of(message: &NeighbourMessage) -> Option<Hop> {
    message.attributes.iter().find_map(|attribute| {
        let address = match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => (*address).into(),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => (*address).into(),
            _ => return None,
        };
        Some(Hop { interface: message.header.ifindex, address })
    })
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}
