//! Traffic that keeps itself going: a window of packets is sent, and each that comes back is sent on as the next. So no
//! more are under way than the cards have room for, and every one is checked.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use afx::packet::{Builder, MacAddress};
use afx::port::PortId;
use afx::worker::Build;
use afx::{Batch, Reason, Stage, Time};

use crate::cable::{Cable, End};

/// What is to be pumped.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// Packets that are to come back.
    pub(crate) packets: u64,
    /// Packets under way at once: fewer than a card's ring has places, so that none need be lost.
    pub(crate) window: u64,
    /// UDP flows, told apart by the source port.
    pub(crate) flows: u16,
    /// After how much silence what is under way counts as lost, where packets may be.
    pub(crate) give_up: Option<Duration>,
    /// Packets come back in IP in IP.
    pub(crate) wrapped: bool,
}

impl Plan {
    /// Packets none of which may be lost.
    pub(crate) fn whole(packets: u64) -> Self {
        Self { packets, window: 128, flows: 1, give_up: None, wrapped: false }
    }

    /// Packets for ever, some of which may be lost.
    pub(crate) fn endless() -> Self {
        Self { packets: u64::MAX, give_up: Some(Duration::from_millis(300)), ..Self::whole(0) }
    }

    pub(crate) fn flows(self, flows: u16) -> Self {
        Self { flows, ..self }
    }

    /// Of the packets that come back, the outer header is taken off.
    pub(crate) fn wrapped(self) -> Self {
        Self { wrapped: true, ..self }
    }

    /// Sends on although packets are lost all the time, so many at once.
    pub(crate) fn pressing(self, window: u64) -> Self {
        Self { window, give_up: Some(Duration::from_millis(30)), ..self }
    }
}

/// How far it has come.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    go: AtomicBool,
    sent: AtomicU64,
    returned: AtomicU64,
    wrong: AtomicU64,
}

impl Progress {
    /// Has the pump begin: workers run before traffic is let in, and what came back before that would be lost.
    pub(crate) fn go(&self) {
        self.go.store(true, Ordering::Relaxed);
    }

    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    pub(crate) fn returned(&self) -> u64 {
        self.returned.load(Ordering::Relaxed)
    }

    /// Packets that came back changed, or twice.
    pub(crate) fn wrong(&self) -> u64 {
        self.wrong.load(Ordering::Relaxed)
    }
}

/// Bytes of a packet, and where its number is: in the payload, twice, the second time with all bits turned.
const LEN: usize = 60;
const NUMBER: usize = 42;
const TURNED: usize = 50;
/// An outer IPv4 header without options, and where it says that a packet is within: protocol 4 (RFC 2003).
const OUTER: usize = 20;
const OUTER_PROTOCOL: usize = 23;
/// Where UDP has its source port.
const SOURCE_PORT: usize = 34;
/// The ports of a flow begin here.
const FIRST_PORT: u16 = 1024;
/// Packets made in one go.
const AT_ONCE: usize = 32;

/// The stage. It sends out of one port, and takes back from whichever the packets come in on.
pub(crate) struct Pump {
    plan: Plan,
    out: PortId,
    progress: Arc<Progress>,
    came_back: Reason,
    not_ours: Reason,
    template: [u8; LEN],
    /// A bit per packet of a plan that has an end: set when it has come back.
    seen: Vec<u64>,
    next: u64,
    returned: u64,
    /// Packets that are not waited for any more.
    given_up: u64,
    last_return: Time,
}

impl Pump {
    pub(crate) fn new(
        build: &mut Build<'_>,
        plan: Plan,
        out: &str,
        cable: Cable,
        progress: Arc<Progress>,
    ) -> Self {
        let mut template = [0; LEN];
        let (here, there) = ("10.0.0.1:1024".parse().unwrap(), "10.0.0.2:9".parse().unwrap());
        let macs = [End::Far, End::Near].map(|end| MacAddress(cable.mac(end)));
        let packet = Builder::udp(here, there).without_checksum().macs(macs[0], macs[1]);
        assert_eq!(packet.write(&mut template, &[0; LEN - NUMBER]), Some(LEN));
        let words = if plan.give_up.is_none() { plan.packets.div_ceil(64) } else { 0 };
        Self {
            plan,
            out: build.port(out).expect("it was given"),
            progress,
            came_back: build.drop_reason("pump.came_back", "The packet has come back, and was the last."),
            not_ours: build.drop_reason("pump.not_ours", "The packet is none of those sent, or was changed."),
            template,
            seen: vec![0; words as usize],
            next: 0,
            returned: 0,
            given_up: 0,
            last_return: Time::ZERO,
        }
    }

    /// Writes the next packet.
    fn write(&mut self, bytes: &mut [u8]) {
        bytes.copy_from_slice(&self.template);
        let flow = FIRST_PORT + (self.next % u64::from(self.plan.flows)) as u16;
        bytes[SOURCE_PORT..SOURCE_PORT + 2].copy_from_slice(&flow.to_be_bytes());
        bytes[NUMBER..NUMBER + 8].copy_from_slice(&self.next.to_be_bytes());
        bytes[TURNED..TURNED + 8].copy_from_slice(&(!self.next).to_be_bytes());
        self.next += 1;
    }

    /// The packet's number, if it is one of ours, whole, and comes back for the first time.
    fn accept(&mut self, bytes: &[u8]) -> Option<u64> {
        let word = |at: usize| Some(u64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let number = word(NUMBER)?;
        // All but the MAC addresses, which an echo exchanges, and what is different in each packet.
        let same = bytes.len() == LEN
            && bytes[12..SOURCE_PORT] == self.template[12..SOURCE_PORT]
            && bytes[SOURCE_PORT + 2..NUMBER] == self.template[SOURCE_PORT + 2..NUMBER];
        if !same || word(TURNED)? != !number || number >= self.next {
            return None;
        }
        if let Some(word) = self.seen.get_mut((number / 64) as usize) {
            let bit = 1 << (number % 64);
            if *word & bit != 0 {
                return None;
            }
            *word |= bit;
        }
        Some(number)
    }

    fn under_way(&self) -> u64 {
        self.next.saturating_sub(self.returned + self.given_up)
    }

    fn publish(&self) {
        self.progress.sent.store(self.next, Ordering::Relaxed);
        self.progress.returned.store(self.returned, Ordering::Relaxed);
    }
}

impl Stage for Pump {
    fn process(&mut self, batch: &mut Batch) {
        self.last_return = batch.now();
        for slot in batch.live() {
            let mut packet = batch.packet(slot);
            if self.plan.wrapped && packet.bytes().get(OUTER_PROTOCOL) == Some(&4) && packet.pull_front(OUTER)
            {
                // What is where the Ethernet header has to be is the end of the outer one.
                packet.bytes_mut()[12..14].copy_from_slice(&[8, 0]);
            }
            // The host's bridge and the kernel have things to say, too.
            let is_udp = packet.bytes().get(23) == Some(&17) && packet.bytes()[12..14] == [8, 0];
            if self.accept(packet.bytes()).is_none() {
                self.progress.wrong.fetch_add(u64::from(is_udp), Ordering::Relaxed);
                packet.drop(self.not_ours);
                continue;
            }
            self.returned += 1;
            if self.next < self.plan.packets {
                self.write(packet.bytes_mut());
                packet.transmit(self.out);
            } else {
                packet.drop(self.came_back);
            }
        }
        self.publish();
    }

    fn tick(&mut self, batch: &mut Batch) {
        if !self.progress.go.load(Ordering::Relaxed) {
            return;
        }
        let now = batch.now();
        if let Some(give_up) = self.plan.give_up
            && self.under_way() > 0
            && now >= self.last_return + give_up
        {
            self.given_up = self.next - self.returned;
            self.last_return = now;
        }
        let missing = self.plan.window.saturating_sub(self.under_way()).min(self.plan.packets - self.next);
        let count = (missing as usize).min(AT_ONCE).min(batch.room_to_send(self.out));
        for _ in 0..count {
            let Some(slot) = batch.create(LEN) else { break };
            let mut packet = batch.packet(slot);
            self.write(packet.bytes_mut());
            packet.transmit(self.out);
        }
        self.publish();
    }

    fn creates(&self) -> usize {
        AT_ONCE
    }
}
