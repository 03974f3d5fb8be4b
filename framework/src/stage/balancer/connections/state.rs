//! The life of a connection as a balancer sees it, which is the client's half only: servers answer directly.

use std::time::Duration;

use crate::Time;

/// A moment in coarse units of 2^26 ns (67 ms), as fine as idle times need to be.
///
/// 27 bits are kept: it repeats after 104 days, so that no timeout may exceed [`Timeouts::MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tick(u32);

impl Tick {
    const SHIFT: u32 = 26;
    const BITS: u32 = 27;
    const MASK: u32 = (1 << Self::BITS) - 1;

    /// The tick of a point in time.
    #[inline]
    #[must_use]
    pub const fn at(time: Time) -> Self {
        Self((time.as_nanos() >> Self::SHIFT) as u32 & Self::MASK)
    }

    /// Ticks from `earlier` to this moment; 0 if `earlier` is the later one.
    #[inline]
    pub(super) const fn since(self, earlier: Self) -> u32 {
        let ticks = self.0.wrapping_sub(earlier.0) & Self::MASK;
        if ticks > Self::MASK / 2 { 0 } else { ticks }
    }

    /// As many ticks as a duration needs to be over for sure.
    pub(super) const fn count(duration: Duration) -> u32 {
        duration.as_nanos().div_ceil(1 << Self::SHIFT) as u32
    }

    pub(super) const fn duration(ticks: u32) -> Duration {
        Duration::from_nanos((ticks as u64) << Self::SHIFT)
    }
}

/// What a packet says about its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// A TCP segment that asks for a connection: SYN.
    Open,
    /// A TCP segment within one.
    Data,
    /// A TCP segment that ends one: FIN or RST.
    Close,
    /// A packet of a protocol without connections, UDP for one.
    Datagram,
}

impl Signal {
    /// What a TCP header's flags say (RFC 9293, section 3.1: the byte with URG, ACK, PSH, RST, SYN and FIN).
    #[inline]
    #[must_use]
    pub const fn of_tcp_flags(flags: u8) -> Self {
        const FIN: u8 = 0x01;
        const SYN: u8 = 0x02;
        const RST: u8 = 0x04;
        const ACK: u8 = 0x10;
        if flags & (FIN | RST) != 0 {
            Self::Close
        } else if flags & (SYN | ACK) == SYN {
            Self::Open
        } else {
            Self::Data
        }
    }

    /// The state of a connection whose packets all say this.
    #[inline(always)]
    pub(super) const fn steady(self) -> State {
        match self {
            Self::Open => State::Opening,
            Self::Data => State::Established,
            Self::Close => State::Closing,
            Self::Datagram => State::Datagram,
        }
    }
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// One packet was seen, or SYNs only. A flood from forged addresses makes nothing but these.
    Opening = 0,
    /// TCP, and the client sent more than a SYN.
    Established = 1,
    /// TCP, and the client sent FIN or RST.
    Closing = 2,
    /// UDP, and the client sent more than one packet.
    Datagram = 3,
}

impl State {
    /// The state of a connection whose first packet this is.
    #[inline]
    pub(super) const fn first(signal: Signal) -> Self {
        match signal {
            Signal::Close => Self::Closing,
            Signal::Open | Signal::Data | Signal::Datagram => Self::Opening,
        }
    }

    /// The state after one more packet. `None` if that packet belongs to a new connection: a client that asks
    /// for a connection from the port of one that is closing.
    #[inline]
    pub(super) const fn after(self, signal: Signal) -> Option<Self> {
        match (self, signal) {
            (Self::Closing, Signal::Open) => None,
            (Self::Closing, _) | (_, Signal::Close) => Some(Self::Closing),
            (Self::Opening, Signal::Data) => Some(Self::Established),
            (Self::Opening, Signal::Datagram) => Some(Self::Datagram),
            // A SYN within an established connection may be forged: it takes nothing from it.
            (state, Signal::Open | Signal::Data | Signal::Datagram) => Some(state),
        }
    }

    /// Who has to go first when there is no room: lower goes before higher.
    pub(super) const fn worth(self) -> u8 {
        match self {
            Self::Closing => 0,
            Self::Opening => 1,
            Self::Established | Self::Datagram => 2,
        }
    }
}

/// State and time of last use in 32 bits: the upper 27 are the tick, the lowest 2 the state. Between them is what a
/// packet leaves as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Zeroable)]
#[repr(transparent)]
pub(super) struct Meta(u32);

impl Meta {
    /// The entry stands in its second bucket.
    pub(super) const AWAY: u32 = 1 << 2;
    /// Bits of its bucket's number of entries that stand in their second one: of the bucket, not of the entry.
    pub(super) const COUNT: u32 = 0b11 << Self::COUNT_SHIFT;
    pub(super) const COUNT_BITS: u32 = 2;
    const COUNT_SHIFT: u32 = 3;
    const TICK_SHIFT: u32 = 5;

    /// Another state and time, the same flags.
    #[inline(always)]
    pub(super) const fn with(self, state: State, seen: Tick) -> Self {
        Self(seen.0 << Self::TICK_SHIFT | self.0 & (Self::AWAY | Self::COUNT) | state as u32)
    }

    /// Whether this is the state, and the time.
    #[inline(always)]
    pub(super) const fn is(self, state: State, seen: Tick) -> bool {
        self.0 & !(Self::AWAY | Self::COUNT) == seen.0 << Self::TICK_SHIFT | state as u32
    }

    /// Whether a flag, or any of several bits, is set.
    #[inline(always)]
    pub(super) const fn has(self, flag: u32) -> bool {
        self.0 & flag != 0
    }

    /// Sets a flag, or takes it away.
    #[inline(always)]
    pub(super) const fn set(&mut self, flag: u32, on: bool) {
        self.0 = if on { self.0 | flag } else { self.0 & !flag };
    }

    pub(super) const fn count_bits(self) -> usize {
        ((self.0 & Self::COUNT) >> Self::COUNT_SHIFT) as usize
    }

    /// Keeps the lowest bits of `number`.
    pub(super) const fn set_count_bits(&mut self, number: usize) {
        self.0 = self.0 & !Self::COUNT | (number as u32) << Self::COUNT_SHIFT & Self::COUNT;
    }

    #[inline]
    pub(super) const fn seen(self) -> Tick {
        Tick(self.0 >> Self::TICK_SHIFT)
    }

    #[inline]
    pub(super) const fn state(self) -> State {
        match self.0 & 0x3 {
            0 => State::Opening,
            1 => State::Established,
            2 => State::Closing,
            _ => State::Datagram,
        }
    }
}

/// For how long a connection may be silent in each state before it is forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// After the first packet, or a SYN: [`State::Opening`].
    pub opening: Duration,
    /// [`State::Established`].
    pub established: Duration,
    /// After FIN or RST: [`State::Closing`].
    pub closing: Duration,
    /// [`State::Datagram`].
    pub datagram: Duration,
}

impl Timeouts {
    /// The longest timeout: 30 days. Longer ones are cut to it.
    pub const MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);

    /// In ticks, by the number of the state: at least one, so that no entry is over in the tick that it was seen in.
    pub(super) fn ticks(&self) -> [u32; 4] {
        let mut ticks = [0; 4];
        for (state, timeout) in [
            (State::Opening, self.opening),
            (State::Established, self.established),
            (State::Closing, self.closing),
            (State::Datagram, self.datagram),
        ] {
            ticks[state as usize] = Tick::count(timeout.min(Self::MAX)).max(1);
        }
        ticks
    }
}

impl Default for Timeouts {
    /// 10 s opening, 15 min established, 30 s closing, 60 s datagrams.
    fn default() -> Self {
        Self {
            opening: Duration::from_secs(10),
            established: Duration::from_secs(15 * 60),
            closing: Duration::from_secs(30),
            datagram: Duration::from_secs(60),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_tell_what_a_segment_does() {
        assert_eq!(Signal::of_tcp_flags(0x02), Signal::Open);
        assert_eq!(Signal::of_tcp_flags(0xc2), Signal::Open, "with ECN");
        assert_eq!(Signal::of_tcp_flags(0x12), Signal::Data, "SYN and ACK: a server's answer");
        assert_eq!(Signal::of_tcp_flags(0x10), Signal::Data);
        assert_eq!(Signal::of_tcp_flags(0x11), Signal::Close);
        assert_eq!(Signal::of_tcp_flags(0x04), Signal::Close);
        assert_eq!(Signal::of_tcp_flags(0x03), Signal::Close, "SYN and FIN: nobody sends this honestly");
    }

    #[test]
    fn a_steady_connection_stays_as_it_is() {
        for signal in [Signal::Open, Signal::Data, Signal::Close, Signal::Datagram] {
            let steady = signal.steady();
            assert_eq!(steady.after(signal), Some(steady), "{signal:?}");
            let (now, later) = (Tick(7), Tick(8));
            let meta = Meta(Meta::AWAY | Meta::COUNT).with(steady, now);
            assert!(meta.is(steady, now), "{signal:?}");
            assert!(!meta.is(steady, later), "{signal:?}");
            let other = if steady == State::Opening { State::Closing } else { State::Opening };
            assert!(!meta.is(other, now), "{signal:?}");
        }
    }

    #[test]
    fn no_timeout_is_shorter_than_a_tick() {
        let none =
            Timeouts { opening: Duration::ZERO, closing: Duration::from_nanos(1), ..Timeouts::default() };
        assert_eq!(none.ticks()[State::Opening as usize], 1);
        assert_eq!(none.ticks()[State::Closing as usize], 1);
    }

    #[test]
    fn a_connection_opens_speaks_and_closes() {
        let opening = State::first(Signal::Open);
        assert_eq!(opening, State::Opening);
        assert_eq!(opening.after(Signal::Open), Some(State::Opening), "a SYN again");
        let established = opening.after(Signal::Data).unwrap();
        assert_eq!(established, State::Established);
        assert_eq!(established.after(Signal::Open), Some(State::Established), "forged");
        let closing = established.after(Signal::Close).unwrap();
        assert_eq!(closing.after(Signal::Data), Some(State::Closing), "the last ACK");
        assert_eq!(closing.after(Signal::Open), None, "the port is used again");
    }

    #[test]
    fn one_packet_is_no_connection_yet() {
        assert_eq!(State::first(Signal::Data), State::Opening);
        assert_eq!(State::first(Signal::Datagram), State::Opening);
        assert_eq!(State::Opening.after(Signal::Datagram), Some(State::Datagram));
    }

    #[test]
    fn entries_keep_state_and_time() {
        for state in [State::Opening, State::Established, State::Closing, State::Datagram] {
            for seen in [0, 1, Tick::MASK] {
                for flags in [0, Meta::AWAY, Meta::COUNT, Meta::AWAY | Meta::COUNT] {
                    let meta = Meta(flags).with(state, Tick(seen));
                    assert_eq!((meta.state(), meta.seen()), (state, Tick(seen)));
                    assert_eq!(meta.0 & (Meta::AWAY | Meta::COUNT), flags);
                }
            }
        }
    }

    #[test]
    fn ticks_survive_their_own_overflow_and_a_clock_that_steps_back() {
        let before = Tick(Tick::MASK);
        assert_eq!(Tick::at(Time::from_nanos((u64::from(Tick::MASK) + 3) << Tick::SHIFT)).since(before), 3);
        assert_eq!(before.since(Tick(1)), 0);
        assert_eq!(Tick(5).since(Tick(7)), 0);
        assert!(Tick::count(Timeouts::MAX) < Tick::MASK / 2);
    }
}
