//! One trial: frames are sent at a rate, and those that come out of the device are counted (RFC 2544, section 23).

use std::time::Duration;

use serde::Serialize;

use crate::receive::latency::Latency;
use crate::units::{FCS, GAP, Sizes};

/// What the frames of a test are: sizes in the order in which they are sent, over and over.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Frames {
    /// As it was said: `64`, `imix`.
    pub(super) label: String,
    /// Bytes, frame check sequence included. At least one.
    pub(super) sizes: Vec<u16>,
}

impl Frames {
    /// None for sizes at random, which no two trials would have alike.
    pub(super) fn of(sizes: &Sizes) -> Option<Self> {
        let order = match sizes {
            Sizes::Fixed(size) => vec![*size],
            Sizes::Between(..) => return None,
            Sizes::Shares(shares) => spread(shares),
        };
        Some(Self { label: sizes.to_string(), sizes: order })
    }

    /// The mean size in bytes.
    pub(super) fn mean(&self) -> f64 {
        self.sizes.iter().copied().map(f64::from).sum::<f64>() / self.sizes.len() as f64
    }

    /// Frames per second on a line of `line` bit/s.
    pub(super) fn line_rate(&self, line: u64) -> f64 {
        line as f64 / (8.0 * (self.mean() + GAP as f64))
    }

    /// Bits per second of so many frames per second.
    pub(super) fn bits_per_second(&self, packets_per_second: f64) -> f64 {
        packets_per_second * 8.0 * self.mean()
    }

    /// Bytes that the longest takes of the card's memory.
    pub(super) fn longest(&self) -> usize {
        self.sizes.iter().copied().map(usize::from).max().unwrap_or(0) - FCS
    }
}

/// Sizes by their shares, each as evenly spread over the whole as can be.
fn spread(shares: &[(u16, u32)]) -> Vec<u16> {
    let all: u32 = shares.iter().map(|(_, share)| share).sum();
    let mut credit = vec![0i64; shares.len()];
    let next = |_| {
        credit.iter_mut().zip(shares).for_each(|(credit, (_, share))| *credit += i64::from(*share));
        let most = (0..shares.len()).rev().max_by_key(|index| credit[*index]).unwrap_or(0);
        credit[most] -= i64::from(all);
        shares[most].0
    };
    (0..all).map(next).collect()
}

/// When a trial has sent enough.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Amount {
    /// After this time.
    Time(Duration),
    /// After so many frames, back to back.
    Frames(u64),
}

/// What a trial is to send.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request<'f> {
    pub(super) frames: &'f Frames,
    /// Frames per second.
    pub(super) rate: f64,
    pub(super) amount: Amount,
}

impl Request<'_> {
    /// How long the sending takes.
    pub(super) fn time(&self) -> Duration {
        match self.amount {
            Amount::Time(time) => time,
            Amount::Frames(frames) => Duration::from_secs_f64(frames as f64 / self.rate),
        }
    }
}

/// How far a trial has come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) sent: u64,
    pub(super) received: u64,
    /// The sending has ended; stragglers are waited for.
    pub(super) settling: bool,
}

/// What a trial has measured.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    /// Frames that really left: all counts of loss are of these.
    pub(super) offered: u64,
    /// Frames per second at which they did.
    pub(super) sent_rate: f64,
    /// Different frames that arrived.
    pub(super) received: u64,
    pub(super) reordered: u64,
    pub(super) duplicates: u64,
    pub(super) latency: Latency,
    /// What the interfaces themselves have counted meanwhile; None where there are none.
    pub(super) interfaces: Option<Interfaces>,
}

/// What the kernel's counters of both interfaces rose by during a trial. They also count what is not the test's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Interfaces {
    /// Of the interface that sends: packets sent, and those that it dropped instead.
    pub(super) sender_sent: u64,
    pub(super) sender_dropped: u64,
    /// Of the interface that receives: packets received, and those that it dropped instead.
    pub(super) receiver_received: u64,
    pub(super) receiver_dropped: u64,
}

/// How much slower than wanted a sender may be and still have reached the rate.
pub(super) const RATE_TOLERANCE: f64 = 0.01;

impl Outcome {
    /// Frames that have not arrived.
    pub(super) fn lost(&self) -> u64 {
        self.offered.saturating_sub(self.received)
    }

    /// The lost part of what was offered: 1 where nothing was.
    pub(super) fn loss(&self) -> f64 {
        if self.offered == 0 { 1.0 } else { self.lost() as f64 / self.offered as f64 }
    }

    /// Whether the sender was as fast as wanted.
    pub(super) fn reached(&self, rate: f64) -> bool {
        self.offered > 0 && self.sent_rate >= rate * (1.0 - RATE_TOLERANCE)
    }

    /// Frames per second that came through.
    pub(super) fn forwarding_rate(&self) -> f64 {
        self.sent_rate * (1.0 - self.loss())
    }
}

/// Why there is no outcome.
#[derive(Debug)]
pub(super) enum Stop {
    /// Somebody wants it to end.
    Interrupted,
    /// It cannot go on.
    Failed(anyhow::Error),
}

impl From<anyhow::Error> for Stop {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

/// Something that frames can be sent through: a device between two interfaces, or one that is simulated.
pub(super) trait Trial {
    /// Sends frames, waits for stragglers, and says what came of it; meanwhile `watch` is told how far it is.
    ///
    /// # Errors
    /// [`Stop`].
    fn run(&mut self, request: &Request<'_>, watch: &mut dyn FnMut(Moment)) -> Result<Outcome, Stop>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mix_is_spread_and_whole() {
        let frames = Frames::of(&Sizes::imix()).unwrap();
        let of = |wanted: u16| frames.sizes.iter().filter(|size| **size == wanted).count();
        assert_eq!((of(64), of(570), of(1518), frames.sizes.len()), (7, 4, 1, 12));
        assert_eq!(frames.mean(), Sizes::imix().mean());
        // Never two of the longer ones on end.
        assert!(frames.sizes.windows(2).all(|pair| pair[0] == 64 || pair[1] == 64 || pair[0] != pair[1]));
        assert_eq!(Frames::of(&"64-128".parse().unwrap()), None);
    }

    #[test]
    fn the_line_takes_what_everyone_says() {
        let rate = |size: &str| Frames::of(&size.parse().unwrap()).unwrap().line_rate(10_000_000_000);
        assert_eq!((rate("64").floor(), rate("1518").floor()), (14_880_952.0, 812_743.0));
    }
}
