//! Packets longer than a frame: whether a port takes them, and how its sockets are to be bound for it.

use crate::xsk::{Granted, Mode, ModeWanted};

/// Whether a port takes packets that are longer than a frame: multi-buffer. Each then lies in several frames
/// ([`Packet::segments`](crate::Packet::segments)). The kernel does it from Linux 6.6 on.
///
/// All sockets of a worker do as the first: where one port of several takes long packets, the others can send them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum MultiBuffer {
    /// Where the interface's MTU does not fit a frame at the start: in copy mode where the driver's zero-copy takes packets
    /// of one frame, unless zero-copy is demanded.
    #[default]
    Auto,
    /// Whatever the MTU; an error where the kernel has none of it, or zero-copy is demanded of a driver whose zero-copy takes
    /// packets of one frame.
    On,
    /// Not: longer packets stay with the kernel, counted as `oversize`. In zero-copy mode the driver never shows them
    /// whole: it drops or cuts them.
    Off,
}

/// Bytes that the kernel keeps free before each packet: `XDP_PACKET_HEADROOM` of `linux/bpf.h`.
const HEADROOM: usize = 256;

/// Frames of a packet that is sent in copy mode, at most: `MAX_SKB_FRAGS` and one, of which any kernel has 18
/// (`Documentation/networking/af_xdp.rst`). The frames of a packet that has more would never come back.
const COPY_SEGMENTS: u32 = 18;

/// What comes before an IP packet on the wire: Ethernet's header and a VLAN tag.
pub(super) const LINK: usize = 14 + 4;

/// The longest packet that fits one frame, in bytes.
pub(super) const fn frame_room(frame_size: usize) -> usize {
    frame_size - HEADROOM
}

/// The longest IP packet that fits one frame, in bytes.
pub(crate) const fn longest_mtu(frame_size: usize) -> u32 {
    (frame_room(frame_size) - LINK) as u32
}

/// Packets longer than a frame that a port is to take, as its preparation has found.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LongPackets {
    /// The longest that the interface's MTU allows, in bytes.
    pub(crate) longest: usize,
    /// Or an error.
    pub(crate) demanded: bool,
}

impl MultiBuffer {
    /// The longest packet that is received in copy mode, in bytes, from an interface with this MTU.
    pub fn longest(self, mtu: u32, frame_size: usize) -> usize {
        let segments = if self.wanted(mtu, frame_size).is_some() { COPY_SEGMENTS } else { 1 };
        frame_room(frame_size) * segments as usize
    }

    /// What the port of an interface with this MTU is to take.
    pub(super) fn wanted(self, mtu: u32, frame_size: usize) -> Option<LongPackets> {
        let longest = mtu as usize + LINK;
        match self {
            Self::Off => None,
            Self::Auto if mtu <= longest_mtu(frame_size) => None,
            Self::Auto => Some(LongPackets { longest, demanded: false }),
            Self::On => Some(LongPackets { longest, demanded: true }),
        }
    }
}

/// The ways to bind a socket, the best first: its mode, and whether with several frames a packet. A way that the
/// kernel or the driver does not have is followed by the next.
///
/// `zero_copy` is how many frames a packet may have in zero-copy mode, where the driver has that. `whole` is whether its
/// buffers take all of a packet that fits a frame.
pub(super) fn ways(
    mode: ModeWanted,
    wanted: Option<LongPackets>,
    zero_copy: Option<u32>,
    whole: bool,
) -> Vec<(ModeWanted, bool)> {
    const COPY: ModeWanted = ModeWanted::Demand(Mode::Copy);
    const ZERO_COPY: ModeWanted = ModeWanted::Demand(Mode::ZeroCopy);
    let of_one = if mode == ModeWanted::Auto && !whole { COPY } else { mode };
    let Some(LongPackets { demanded, .. }) = wanted else { return vec![(of_one, false)] };
    let several = zero_copy.is_some_and(|segments| segments > 1);
    let mut ways = match mode {
        // What a driver has is asked for by name: else the kernel would take copy mode for the several frames.
        ModeWanted::Auto if several => vec![(ZERO_COPY, true), (COPY, true)],
        // In zero-copy mode long packets would be lost or cut in the driver, the kernel's own as well.
        ModeWanted::Auto if zero_copy.is_some() => vec![(COPY, true)],
        ZERO_COPY if !several && !demanded => Vec::new(),
        mode => vec![(mode, true)],
    };
    if !demanded {
        ways.push((of_one, false));
    }
    ways
}

/// What one socket takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Takes {
    /// Frames of a packet, received or sent.
    pub(super) segments: u32,
    /// The longest packet that is received, in bytes.
    pub(super) longest: usize,
    mode: Mode,
}

impl Takes {
    /// By what the socket was granted, and how many frames a packet may have in zero-copy mode.
    pub(super) fn new(granted: &Granted, zero_copy: Option<u32>, frame_size: usize) -> Self {
        /// What drivers keep free at the end of frames in zero-copy mode, a `struct skb_shared_info`, and what they round
        /// down to (`xsk_pool_get_rx_frame_size` in `include/net/xdp_sock_drv.h`).
        const TAIL: usize = 320;
        const ROUND: usize = 128;
        let (mode, room) = (granted.mode, frame_room(frame_size));
        let (segments, of_each) = match mode {
            _ if !granted.multi_buffer => (1, room),
            Mode::Copy => (COPY_SEGMENTS, room),
            Mode::ZeroCopy => (zero_copy.unwrap_or(1), (room - TAIL) / ROUND * ROUND),
        };
        let longest = if segments == 1 { room } else { of_each * segments as usize };
        Self { segments, longest, mode }
    }

    /// In words, where packets longer than a frame were wanted.
    pub(super) fn describe(self) -> String {
        let Self { segments, longest, mode } = self;
        let why = match mode {
            _ if segments > 1 => return format!("packets of up to {longest} bytes in {segments} frames"),
            Mode::ZeroCopy => "the driver's zero-copy takes no longer ones: it drops or cuts them",
            Mode::Copy => "the kernel (before 6.6) takes no longer ones",
        };
        format!("packets of up to {longest} bytes, since {why}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xsk::RingAccess;

    const COPY: ModeWanted = ModeWanted::Demand(Mode::Copy);
    const ZERO_COPY: ModeWanted = ModeWanted::Demand(Mode::ZeroCopy);

    #[test]
    fn by_itself_a_port_takes_what_its_mtu_lets_come() {
        let long = |mtu: u32, demanded| Some(LongPackets { longest: mtu as usize + 18, demanded });
        assert_eq!(MultiBuffer::Auto.wanted(1500, 2048), None);
        assert_eq!(MultiBuffer::Auto.wanted(1774, 2048), None);
        assert_eq!(MultiBuffer::Auto.wanted(1775, 2048), long(1775, false));
        assert_eq!(MultiBuffer::Auto.wanted(1775, 4096), None);
        assert_eq!(MultiBuffer::Auto.wanted(9000, 4096), long(9000, false));
        assert_eq!(MultiBuffer::On.wanted(1500, 2048), long(1500, true));
        assert_eq!(MultiBuffer::Off.wanted(9000, 2048), None);
        let longest = |multi_buffer: MultiBuffer| [1500, 9000].map(|mtu| multi_buffer.longest(mtu, 2048));
        assert_eq!(longest(MultiBuffer::Auto), [1792, 32_256]);
        assert_eq!(longest(MultiBuffer::On), [32_256; 2]);
        assert_eq!(longest(MultiBuffer::Off), [1792; 2]);
    }

    #[test]
    fn zero_copy_is_given_up_where_it_takes_no_long_packets_unless_it_is_demanded() {
        let auto = Some(LongPackets { longest: 9018, demanded: false });
        let on = Some(LongPackets { longest: 9018, demanded: true });
        let ways = |mode, wanted, zero_copy| ways(mode, wanted, zero_copy, true);
        // A driver without zero-copy, or of which nothing is known.
        assert_eq!(ways(ModeWanted::Auto, auto, None), [(ModeWanted::Auto, true), (ModeWanted::Auto, false)]);
        assert_eq!(ways(ModeWanted::Auto, on, None), [(ModeWanted::Auto, true)]);
        // One whose zero-copy takes packets of one frame.
        assert_eq!(ways(ModeWanted::Auto, auto, Some(1)), [(COPY, true), (ModeWanted::Auto, false)]);
        assert_eq!(ways(ModeWanted::Auto, on, Some(1)), [(COPY, true)]);
        // One that can do both.
        let both = [(ZERO_COPY, true), (COPY, true), (ModeWanted::Auto, false)];
        assert_eq!(ways(ModeWanted::Auto, auto, Some(5)), both);
        assert_eq!(ways(ModeWanted::Auto, on, Some(5)), both[..2]);
        // A mode that is demanded is kept.
        assert_eq!(ways(ZERO_COPY, auto, Some(5)), [(ZERO_COPY, true), (ZERO_COPY, false)]);
        assert_eq!(ways(ZERO_COPY, auto, Some(1)), [(ZERO_COPY, false)]);
        assert_eq!(ways(ZERO_COPY, on, Some(1)), [(ZERO_COPY, true)]);
        assert_eq!(ways(COPY, auto, Some(5)), [(COPY, true), (COPY, false)]);
        assert_eq!(ways(COPY, on, Some(5)), [(COPY, true)]);
        // None that is wanted changes nothing.
        assert_eq!(ways(ModeWanted::Auto, None, Some(5)), [(ModeWanted::Auto, false)]);
    }

    #[test]
    fn zero_copy_is_given_up_where_buffers_are_smaller_than_packets() {
        let ways = |mode| ways(mode, None, Some(1), false);
        assert_eq!(ways(ModeWanted::Auto), [(COPY, false)]);
        assert_eq!(ways(COPY), [(COPY, false)]);
        // Where the kernel has no packets of several frames, either.
        let long = Some(LongPackets { longest: 2018, demanded: false });
        assert_eq!(super::ways(ModeWanted::Auto, long, None, false).last(), Some(&(COPY, false)));
        // The port does not start, with an error that says so.
        assert_eq!(ways(ZERO_COPY), [(ZERO_COPY, false)]);
    }

    #[test]
    fn what_is_granted_says_how_long_packets_may_be() {
        let granted = |mode, multi_buffer| Granted {
            mode,
            multi_buffer,
            ring_access: RingAccess::Native,
            busy_poll: None,
            tx_budget: None,
            send_buffer_bytes: 0,
        };
        let takes = |mode, multi_buffer, zero_copy, frame_size| {
            let takes = Takes::new(&granted(mode, multi_buffer), zero_copy, frame_size);
            (takes.segments, takes.longest)
        };
        assert_eq!(takes(Mode::Copy, false, Some(5), 2048), (1, 1792));
        assert_eq!(takes(Mode::Copy, true, Some(5), 2048), (18, 18 * 1792));
        assert_eq!(takes(Mode::Copy, true, None, 4096), (18, 18 * 3840));
        assert_eq!(takes(Mode::ZeroCopy, false, Some(5), 2048), (1, 1792));
        assert_eq!(takes(Mode::ZeroCopy, true, Some(5), 2048), (5, 5 * 1408));
        assert_eq!(takes(Mode::ZeroCopy, true, Some(8), 4096), (8, 8 * 3456));
        // A later socket on the memory, of a driver that can do less than the first one's.
        assert_eq!(takes(Mode::ZeroCopy, true, Some(1), 2048), (1, 1792));
    }
}
