//! The stage that makes packets: as many as are due, and as the port has room for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use afx::{BATCH, Batch, PortId, Stage, Time};

use crate::traffic::Writer;

use super::pace::Pace;
use super::replay::Recording;

/// Where packets come from.
#[derive(Debug)]
pub(super) enum Supply {
    Traffic(Writer),
    Replay { recording: Arc<Recording>, place: usize },
}

impl Supply {
    #[inline(always)]
    fn length(&self) -> usize {
        match self {
            Self::Traffic(writer) => writer.length(),
            Self::Replay { recording, place } => recording.packets[*place].len(),
        }
    }

    /// Writes the next packet, as long as `out`.
    #[inline(always)]
    fn write(&mut self, out: &mut [u8], now: Time) {
        match self {
            Self::Traffic(writer) => writer.write(out, now),
            Self::Replay { recording, place } => {
                out.copy_from_slice(&recording.packets[*place]);
                *place = (*place + 1) % recording.packets.len();
            }
        }
    }
}

/// What one worker shows of itself. It alone writes, but for `stop`.
#[derive(Debug, Default)]
pub(super) struct Meter {
    /// Packets given to the port, and their bytes.
    pub(super) packets: AtomicU64,
    pub(super) bytes: AtomicU64,
    /// When the first left, in ns of CLOCK_MONOTONIC; 0 before.
    pub(super) began: AtomicU64,
    /// All packets that it is to send were given to the port.
    pub(super) done: AtomicBool,
    pub(super) stop: AtomicBool,
}

/// Makes packets between batches.
pub(super) struct Sender {
    pub(super) supply: Supply,
    pub(super) pace: Pace,
    pub(super) port: PortId,
    /// Packets to be sent in all.
    pub(super) wanted: u64,
    pub(super) sent: u64,
    pub(super) bytes: u64,
    pub(super) meter: Arc<Meter>,
}

impl Sender {
    #[inline(always)]
    fn send(&mut self, batch: &mut Batch) {
        let left = self.wanted - self.sent;
        let room = batch.room_to_send(self.port).min(batch.free_frames()).min(BATCH) as u64;
        let now = batch.now();
        let due = self.pace.due(now, self.sent, room.min(left));
        // Receivers compare it with their own reading of the clock.
        let stamp = if due > 0 { Time::monotonic() } else { now };
        for _ in 0..due {
            let length = self.supply.length();
            let made = batch.create_with(length, |bytes| self.supply.write(bytes, stamp));
            let Some(slot) = made else { break };
            batch.packet(slot).transmit(self.port);
            self.sent += 1;
            self.bytes += length as u64;
        }
        if due > 0 {
            if self.meter.began.load(Ordering::Relaxed) == 0 {
                self.meter.began.store(now.as_nanos(), Ordering::Relaxed);
            }
            self.meter.bytes.store(self.bytes, Ordering::Relaxed);
            self.meter.packets.store(self.sent, Ordering::Relaxed);
        }
    }
}

impl Stage for Sender {
    fn process(&mut self, _: &mut Batch) {}

    #[inline(always)]
    fn tick(&mut self, batch: &mut Batch) {
        if self.sent < self.wanted && !self.meter.stop.load(Ordering::Relaxed) {
            self.send(batch);
        } else {
            self.meter.done.store(true, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use afx::{MemoryPort, Runtime};

    use super::*;

    fn recording(packets: u8) -> Arc<Recording> {
        let packets = (0..packets).map(|number| vec![number; 60 + usize::from(number)]).collect();
        Arc::new(Recording { packets, ..Recording::default() })
    }

    #[test]
    fn a_port_that_is_slow_loses_nothing() {
        let (port, mut peers) = MemoryPort::with_queues("out", 1, 128);
        let meter = Arc::new(Meter::default());
        let stage_meter = meter.clone();
        let build = move |build: &mut afx::worker::Build<'_>| Sender {
            supply: Supply::Replay { recording: recording(100), place: 0 },
            pace: Pace::Max,
            port: build.port("out").expect("the port"),
            wanted: 1000,
            sent: 0,
            bytes: 0,
            meter: stage_meter.clone(),
        };
        let runtime = Runtime::builder().port(port).tick(Duration::ZERO).frames_per_queue(1024);
        let mut worker = runtime.pipeline(build).inline().expect("it starts");
        let mut seen = Vec::new();
        while seen.len() < 1000 {
            worker.turn();
            worker.turn();
            // Fewer than come, so that the ring is full most of the time.
            seen.extend((0..10).map_while(|_| peers[0].receive()));
        }
        worker.turn();
        assert!(meter.done.load(Ordering::Acquire));
        assert_eq!(meter.packets.load(Ordering::Relaxed), 1000);
        assert_eq!(meter.bytes.load(Ordering::Relaxed), 10 * (0..100).map(|number| 60 + number).sum::<u64>());
        for (index, bytes) in seen.iter().enumerate() {
            let number = (index % 100) as u8;
            assert_eq!(*bytes, vec![number; 60 + usize::from(number)]);
        }
        assert_eq!((worker.stats().dropped_total(), worker.stats().sent()), (0, 1000));
        assert!(worker.stats().balanced());
    }
}
