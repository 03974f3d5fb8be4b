//! A device under test that is made up: the algorithms are tested against it.

use std::time::Duration;

use super::search::{Doing, Observer, Runner, Settings};
use super::trial::{Amount, Frames, Moment, Outcome, Request, Stop, Trial};
use crate::receive::latency::Latency;

/// Forwards so many frames per second, and keeps so many that come faster.
pub(super) struct Simulated {
    /// Frames per second.
    pub(super) capacity: f64,
    /// Frames.
    pub(super) buffer: f64,
    /// Frames per second that the sender reaches.
    pub(super) sender: f64,
    /// Which part of the trials loses a frame though the device is fast enough.
    pub(super) noise: f64,
    /// The next trials whose sender is held up, so that it reaches half its rate.
    pub(super) held_up: u32,
    /// After so many trials somebody interrupts.
    pub(super) interrupted_after: u32,
    pub(super) trials: u32,
    pub(super) random: u64,
}

impl Simulated {
    pub(super) fn new(capacity: f64) -> Self {
        Self {
            capacity,
            buffer: 0.0,
            sender: f64::INFINITY,
            noise: 0.0,
            held_up: 0,
            interrupted_after: u32::MAX,
            trials: 0,
            random: 0x9e37_79b9_7f4a_7c15,
        }
    }

    /// A number from 0 to 1 (xorshift).
    fn random(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as f64 / (1u64 << 53) as f64
    }
}

impl Trial for Simulated {
    fn run(&mut self, request: &Request<'_>, watch: &mut dyn FnMut(Moment)) -> Result<Outcome, Stop> {
        if self.trials >= self.interrupted_after {
            return Err(Stop::Interrupted);
        }
        self.trials += 1;
        let mut sent_rate = request.rate.min(self.sender);
        if self.held_up > 0 {
            self.held_up -= 1;
            sent_rate /= 2.0;
        }
        let offered = match request.amount {
            Amount::Time(time) => (sent_rate * time.as_secs_f64()) as u64,
            Amount::Frames(frames) => frames,
        };
        let too_fast = (1.0 - self.capacity / sent_rate).max(0.0);
        let mut lost = (offered as f64 * too_fast - self.buffer).max(0.0) as u64;
        if self.random() < self.noise {
            lost = lost.max(1);
        }
        let received = offered - lost.min(offered);
        watch(Moment { sent: offered, received, settling: true });
        let mut latency = Latency::new();
        if received > 0 {
            latency.record(0, 10_000);
        }
        Ok(Outcome { offered, sent_rate, received, reordered: 0, duplicates: 0, latency, interfaces: None })
    }
}

/// Sees nothing.
pub(super) struct Blind;

impl Observer for Blind {
    fn moment(&mut self, _: &Doing<'_>, _: Moment) {}
    fn done(&mut self, _: &Doing<'_>, _: &Outcome) {}
}

pub(super) fn settings() -> Settings {
    Settings {
        trial: Duration::from_secs(10),
        resolution: 0.01,
        loss: 0.0,
        repeats: 1,
        loads: vec![10.0, 50.0, 90.0],
        burst: Duration::from_secs(2),
    }
}

pub(super) fn frames(size: u16) -> Frames {
    Frames { label: size.to_string(), sizes: vec![size] }
}

/// Does something with a runner on a device.
pub(super) fn with<T>(
    device: &mut Simulated,
    settings: &Settings,
    work: impl FnOnce(&mut Runner<'_>) -> T,
) -> T {
    let frames = frames(64);
    let mut runner =
        Runner { trial: device, observer: &mut Blind, frames: &frames, settings, test: "", number: 0 };
    work(&mut runner)
}
