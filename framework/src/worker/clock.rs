//! The time of a turn.

use crate::mem::{cycles, cycles_per_ns, with_cycles};
use crate::time::Time;

/// Tells the system's monotonic time from the cycle counter, which a turn reads anyway. The system itself is asked once
/// a millisecond only: that takes as long as three packets do.
///
/// Within a millisecond the two drift apart by some nanoseconds at most: the counter's rate is known to about five
/// millionths.
pub(super) struct Clock {
    /// When the system was asked: the counter, and what it said.
    since: u64,
    at: u64,
    /// Nanoseconds of a cycle, times 2^32.
    scale: u64,
    /// For how many cycles its answer is good.
    good_for: u64,
    /// The last time told: none is earlier than one before.
    told: Time,
}

impl Clock {
    /// Measures the counter's rate, if that has not been done before.
    pub(super) fn new() -> Self {
        let rate = cycles_per_ns();
        Self {
            // It asks at once.
            since: cycles().wrapping_sub(u64::MAX / 2),
            at: 0,
            scale: ((1_u64 << 32) as f64 / rate) as u64,
            good_for: (rate * 1e6) as u64,
            told: Time::ZERO,
        }
    }

    /// The time at which the counter stood there.
    #[inline(always)]
    pub(super) fn at(&mut self, count: u64) -> Time {
        let elapsed = count.wrapping_sub(self.since);
        let now = if elapsed < self.good_for {
            Time::from_nanos(self.at + ((elapsed * self.scale) >> 32))
        } else {
            self.ask()
        };
        self.told = self.told.max(now);
        self.told
    }

    #[cold]
    fn ask(&mut self) -> Time {
        let (now, count) = with_cycles(Time::monotonic);
        (self.since, self.at) = (count, now.as_nanos());
        now
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn it_tells_the_system_s_time_and_never_an_earlier_one() {
        let mut clock = Clock::new();
        let (mut last, mut asked) = (Time::ZERO, 0);
        let end = Instant::now() + Duration::from_millis(50);
        while Instant::now() < end {
            let earliest = Time::monotonic();
            let before = clock.since;
            let now = clock.at(cycles());
            let latest = Time::monotonic();
            asked += u32::from(clock.since != before);
            assert!(now >= last, "{now} after {last}");
            assert!(now + Duration::from_micros(2) >= earliest, "{now}, but {earliest} before");
            assert!(now <= latest + Duration::from_micros(2), "{now}, but {latest} afterwards");
            last = now;
        }
        assert!(asked <= 60, "the system was asked {asked} times in 50 ms");
    }

    #[test]
    fn a_counter_that_jumps_does_not_matter() {
        let mut clock = Clock::new();
        let before = clock.at(cycles());
        for count in [0, cycles() / 2, u64::MAX, cycles()] {
            let now = clock.at(count);
            assert!(now >= before && now <= Time::monotonic() + Duration::from_millis(1), "{now} at {count}");
        }
    }
}
