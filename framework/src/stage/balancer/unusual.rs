//! What most packets do not need: ICMP, fragments, and packets that name their real.

use super::connections::Signal;
use super::decision::How;
use super::definition::ServerIdIn;
use super::explain::signal_within;
use super::flow::FlowHash;
use super::real::RealId;
use super::services::ANY;
use super::stage::{Balancer, BatchFacts, Kind, Refused, Work, signal_of_tcp};
use crate::batch::{Packet, Slot};
use crate::packet::reply::echo_reply;
use crate::packet::{
    FlowKey, Fragment, Parsed, Protocol, TcpFlags, embedded_flow, flow_key, quic_server_id,
    tcp_option_server_id, udp_header_server_id,
};
use crate::worker::WorkerId;

impl Balancer {
    /// The first look at what is no plain TCP or UDP packet.
    #[cold]
    pub(super) fn look_at_unusual<const TUNNELLED: bool>(
        &mut self,
        slot: Slot,
        packet: &mut Packet<'_>,
    ) -> Result<(), Refused> {
        let parsed = packet.parsed().map_err(|error| self.reasons.malformed.reason(error))?;
        let Some(protocol) = parsed.protocol() else { return Err(self.reasons.not_ip.into()) };
        if parsed.is_ipv4() && parsed.has_ip_options() {
            return Err(self.reasons.ip_options.into());
        }
        if parsed.fragment() != Fragment::None {
            return self.look_at_fragment(slot, packet, &parsed);
        }
        let signal = match protocol {
            Protocol::TCP => signal_of_tcp(packet, &parsed),
            Protocol::ICMP | Protocol::ICMPV6 => return self.look_at_icmp(slot, packet, &parsed),
            _ => {
                if !TUNNELLED && let Some(outcome) = self.look_inside(slot, packet) {
                    return outcome;
                }
                Signal::Datagram
            }
        };
        let key = flow_key(packet.bytes(), &parsed).ok_or(self.reasons.no_vip)?;
        self.admit_unusual(slot, packet, &key, signal, Kind::Flow)
    }

    /// The first look at an ICMP packet: an error goes where its flow goes, a ping may be answered.
    fn look_at_icmp(&mut self, slot: Slot, packet: &mut Packet<'_>, parsed: &Parsed) -> Result<(), Refused> {
        match embedded_flow(packet.bytes(), parsed) {
            Some(quoted) => {
                let key = quoted.reversed();
                self.admit_unusual(slot, packet, &key, signal_within(key.protocol()), Kind::Error)
            }
            None => self.answer_echo(slot, packet, parsed),
        }
    }

    fn answer_echo(&mut self, slot: Slot, packet: &mut Packet<'_>, parsed: &Parsed) -> Result<(), Refused> {
        let no_vip = self.reasons.no_vip;
        let destination = flow_key(packet.bytes(), parsed).ok_or(no_vip)?.destination();
        let service = self.services.echo.find(destination, 0, ANY).ok_or(no_vip)?;
        if !echo_reply(packet.bytes_mut(), parsed) {
            return Err(no_vip.into());
        }
        self.counts.echo_replies += 1;
        let work = &mut self.work[slot.index()];
        *work = Work { service, how: None, ..*work };
        self.decided |= slot.bit();
        packet.transmit(packet.ingress());
        Ok(())
    }

    /// A packet for a VIP that is longer than clients' packets may be.
    #[cold]
    pub(super) fn too_long(&mut self, slot: Slot) -> Refused {
        self.decided |= slot.bit();
        Refused::TooBig(self.services.client_mtu as u32)
    }

    /// Takes note of the real that a packet names, if it names one that is there.
    #[cold]
    pub(super) fn read_server_id(&mut self, slot: Slot, packet: &mut Packet<'_>) {
        let Ok(parsed) = packet.parsed() else { return };
        let work = &mut self.work[slot.index()];
        let Some(service) = self.services.list.get(work.service as usize) else { return };
        let Some(place) = service.options.server_id else { return };
        let id = match place {
            ServerIdIn::Quic => udp_payload(packet, &parsed).and_then(quic_server_id),
            ServerIdIn::UdpHeader => udp_payload(packet, &parsed).and_then(udp_header_server_id),
            ServerIdIn::TcpOption => tcp_within(packet, &parsed).and_then(tcp_option_server_id),
        };
        if let Some(real) = id.and_then(|id| service.server_ids.lookup(id.into())) {
            work.real = RealId::from_bits(real);
            work.kind = if place == ServerIdIn::UdpHeader { Kind::Apart } else { Kind::Named };
        }
    }

    /// The third look at a packet that is not simply one of its flow's.
    #[cold]
    pub(super) fn forward_unusual(
        &mut self,
        slot: Slot,
        packet: &mut Packet<'_>,
        batch: BatchFacts,
    ) -> Result<(), Refused> {
        let Work { flow, real, signal, kind, .. } = self.work[slot.index()];
        let parsed = packet.parsed().map_err(|error| self.reasons.malformed.reason(error))?;
        if parsed.fragment() == Fragment::Later {
            self.put_off(slot);
            return Ok(());
        }
        let key = match kind {
            Kind::Error | Kind::Fragment => self.keys[slot.index()],
            Kind::Flow | Kind::Named | Kind::Apart => {
                flow_key(packet.bytes(), &parsed).ok_or(self.reasons.no_vip)?
            }
        };
        let (real, how) = match kind {
            Kind::Apart => (real, How::ServerId),
            Kind::Named => {
                if self.known(flow, signal, batch) != Some(real) {
                    self.connections.insert(flow, real, signal, batch.now);
                    self.cells.opened(real);
                }
                (real, How::ServerId)
            }
            Kind::Error => match self.real_of_error(slot, &key, packet, batch)? {
                Some(chosen) => chosen,
                None => return Ok(()),
            },
            Kind::Fragment | Kind::Flow => match self.known(flow, signal, batch) {
                Some(real) if self.keeps(real, signal) => (real, How::Connection),
                _ => self.choose_anew(slot, &key, batch.now)?,
            },
        };
        // Of a fragment, or an error, what was parsed has another hash than the flow.
        let entropy = key.hash(batch.seed);
        if parsed.fragment() == Fragment::First {
            self.remember(packet, &parsed, real, entropy);
        }
        self.deliver_to(real, how, slot, packet, &parsed, entropy)
    }

    /// An ICMP error goes to the real that its flow has. It makes no connection and keeps none alive. None: another
    /// worker was given the packet.
    fn real_of_error(
        &self,
        slot: Slot,
        key: &FlowKey,
        packet: &mut Packet<'_>,
        batch: BatchFacts,
    ) -> Result<Option<(RealId, How)>, Refused> {
        let Work { flow, service, signal, .. } = self.work[slot.index()];
        match self.connections.peek(flow, batch.now).map(|connection| connection.real) {
            Some(real) if self.keeps(real, signal) => return Ok(Some((real, How::Connection))),
            // Another worker may have the flow: each is asked in turn, the last one decides.
            None if self.asks_on(packet) => return Ok(None),
            _ => {}
        }
        Ok(Some(self.services.choose(service, key).ok_or(self.reasons.no_real)?))
    }

    #[inline(never)]
    fn known(&mut self, flow: FlowHash, signal: Signal, batch: BatchFacts) -> Option<RealId> {
        self.connections.lookup(flow, signal, batch.now)
    }

    pub(super) fn keeps(&self, real: RealId, signal: Signal) -> bool {
        self.services.real(real).is_some_and(|place| place.keeps(signal))
    }

    /// Hands a packet to the next worker, unless all others have had it.
    fn asks_on(&self, packet: &mut Packet<'_>) -> bool {
        let is_last = usize::from(packet.origin().hops) + 1 >= self.workers;
        if !is_last {
            packet.hand_over(WorkerId::new((self.worker.index() + 1) % self.workers));
        }
        !is_last
    }
}

/// What follows the UDP header in the packet's first segment.
fn udp_payload<'p>(packet: &'p Packet<'_>, parsed: &Parsed) -> Option<&'p [u8]> {
    if parsed.protocol() != Some(Protocol::UDP) {
        return None;
    }
    let range = parsed.transport_range()?;
    let datagram = packet.bytes().get(range.start..range.end.min(packet.bytes().len()))?;
    let len = u16::from_be_bytes([*datagram.get(4)?, *datagram.get(5)?]);
    datagram.get(8..usize::from(len).min(datagram.len()))
}

/// The TCP header, and what follows it in the packet's first segment, unless it asks for a connection.
fn tcp_within<'p>(packet: &'p Packet<'_>, parsed: &Parsed) -> Option<&'p [u8]> {
    if parsed.protocol() != Some(Protocol::TCP) {
        return None;
    }
    let segment = packet.bytes().get(parsed.transport()?..)?;
    (segment.get(13)? & TcpFlags::SYN.0 == 0).then_some(segment)
}
