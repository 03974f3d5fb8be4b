//! How many frames a queue can have in use at once.

use std::fmt;

use crate::batch::BATCH;
use crate::xsk::Mode;
use crate::xsk::interface::Rings;

/// The frames that one queue of a port has in use when all its rings are full.
///
/// As many as that of each queue are there: then a port that sends nothing any more takes no frame that another needs
/// to receive into.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demand {
    receive: Receive,
    /// Places in the TX ring.
    tx: u32,
    /// Frames that the kernel or the card has taken from there, and that were not taken back: as many as the completion
    /// ring has places, without one of which the kernel takes nothing to be sent (`xsk_tx_peek_desc` and
    /// `__xsk_generic_xmit` in `net/xdp/xsk.c`).
    leaving: u32,
}

/// The frames that are lent for receiving.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Receive {
    Nothing,
    /// As many as were asked for.
    Level(u32),
    /// In copy mode a frame is taken when a packet is there for it: it is waiting, or in the RX ring.
    Copied {
        rx: u32,
    },
    /// In zero-copy mode the card has its own ring full of frames to receive into. When the RX ring is full too, there
    /// must be some left to fill it from, or the redirect program is not run any more, and cannot notice the stall.
    Direct {
        rx: u32,
        card: u32,
    },
}

/// What is left for the card to go on with.
const SPARE: u32 = BATCH as u32;

/// Places in a port's RX and in its TX ring, unless said.
pub(crate) const RING_SIZE: u32 = 2048;

impl Demand {
    /// Of a port whose rings have so many places, and that has no card.
    pub(crate) const fn of_rings(places: u32) -> Self {
        Self { receive: Receive::Copied { rx: places }, tx: places, leaving: places }
    }

    /// Of a queue of an AF_XDP port whose own two rings have so many places, in a mode. `card` are those of the driver,
    /// where it says.
    pub(super) fn of_xdp(places: u32, card: Option<Rings>, mode: Mode) -> Self {
        let known = |ring: fn(&Rings) -> u32| card.as_ref().map(ring).filter(|places| *places > 0);
        let receive = match mode {
            Mode::Copy => Receive::Copied { rx: places },
            Mode::ZeroCopy => Receive::Direct { rx: places, card: known(|card| card.rx).unwrap_or(places) },
        };
        let leaving = known(|card| card.tx).unwrap_or(0).max(places).next_power_of_two();
        Self { receive, tx: places, leaving }
    }

    /// The same in the mode that will be the best that works, as far as can be told: drivers with zero-copy have rings,
    /// and say so.
    pub(crate) fn of_xdp_auto(places: u32, card: Option<Rings>) -> Self {
        let mode = if card.is_some() { Mode::ZeroCopy } else { Mode::Copy };
        Self::of_xdp(places, card, mode)
    }

    /// With so many frames lent for receiving, whatever the rings hold.
    pub(crate) fn with_level(self, frames: u32) -> Self {
        Self { receive: Receive::Level(frames), ..self }
    }

    /// Of a port that only sends.
    pub(crate) fn sending(self) -> Self {
        Self { receive: Receive::Nothing, ..self }
    }

    /// Frames lent for receiving at most.
    pub(crate) fn receiving(&self) -> u32 {
        match self.receive {
            Receive::Nothing => 0,
            Receive::Level(frames) => frames,
            Receive::Copied { rx } => rx,
            Receive::Direct { rx, card } => rx + card + SPARE,
        }
    }

    /// Entries that the completion ring is to have.
    pub(crate) fn completing(&self) -> u32 {
        self.leaving
    }

    /// Frames lent for sending at most.
    pub(crate) fn transmitting(&self) -> u32 {
        self.tx + self.leaving
    }

    pub(crate) fn frames(&self) -> usize {
        self.receiving() as usize + self.transmitting() as usize
    }
}

impl fmt::Display for Demand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let grouped = |places: u32| Grouped(places as usize);
        match self.receive {
            Receive::Nothing => {}
            Receive::Level(frames) => write!(f, "fill level {} + ", grouped(frames))?,
            Receive::Copied { rx } => write!(f, "RX ring {} + ", grouped(rx))?,
            Receive::Direct { rx, card } => {
                write!(f, "RX ring {} + the card's {} + spare {SPARE} + ", grouped(rx), grouped(card))?;
            }
        }
        write!(f, "TX ring {} + leaving {}", grouped(self.tx), grouped(self.leaving))
    }
}

/// A number as people read it: 12,544.
pub(crate) struct Grouped(pub(crate) usize);

impl fmt::Display for Grouped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(number) = *self;
        if number < 1000 {
            return write!(f, "{number}");
        }
        write!(f, "{},{:03}", Self(number / 1000), number % 1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        let texts = [0, 999, 1000, 12_544, 1_000_000].map(|number| Grouped(number).to_string());
        assert_eq!(texts, ["0", "999", "1,000", "12,544", "1,000,000"]);
    }

    #[test]
    fn all_rings_of_a_card_can_be_full_at_once_in_zero_copy_mode() {
        let card = Some(Rings::of((512, 8160), (4000, 8160)));
        let direct = Demand::of_xdp(2048, card, Mode::ZeroCopy);
        assert_eq!((direct.receiving(), direct.transmitting()), (2048 + 512 + 64, 2048 + 4096));
        assert_eq!(
            direct.to_string(),
            "RX ring 2,048 + the card's 512 + spare 64 + TX ring 2,048 + leaving 4,096"
        );
        let copied = Demand::of_xdp(2048, card, Mode::Copy);
        assert_eq!((copied.receiving(), copied.transmitting()), (2048, 2048 + 4096));
        // A short ring of the card's is no reason for a short one here.
        let short = Demand::of_xdp(2048, Some(Rings::of((512, 512), (256, 256))), Mode::ZeroCopy);
        assert_eq!(short.completing(), 2048);
    }

    #[test]
    fn what_a_driver_does_not_say_is_taken_to_be_as_much_as_afx_has() {
        for card in [None, Some(Rings::default())] {
            let direct = Demand::of_xdp(256, card, Mode::ZeroCopy);
            assert_eq!((direct.receiving(), direct.transmitting()), (256 + 256 + 64, 512));
            assert_eq!(Demand::of_xdp(256, card, Mode::Copy), Demand::of_rings(256));
        }
        assert_eq!(Demand::of_xdp_auto(256, None), Demand::of_rings(256));
        let virtio = Some(Rings::of((256, 256), (256, 256)));
        assert_eq!(Demand::of_xdp_auto(2048, virtio), Demand::of_xdp(2048, virtio, Mode::ZeroCopy));
    }

    #[test]
    fn fewer_are_lent_where_that_is_said() {
        let queue = Demand::of_rings(2048);
        let low = queue.with_level(512);
        assert_eq!((low.receiving(), low.frames()), (512, 512 + 4096));
        assert_eq!(low.to_string(), "fill level 512 + TX ring 2,048 + leaving 2,048");
        let silent = queue.sending();
        assert_eq!((silent.receiving(), silent.frames()), (0, 4096));
        assert_eq!(silent.to_string(), "TX ring 2,048 + leaving 2,048");
    }
}
