//! The time of a turn.

use crate::mem::{cycles, cycles_per_ns, with_cycles};
use crate::time::Time;

/// Tells the system's monotonic time from the cycle counter, which a turn reads anyway. The system itself is asked once
/// a millisecond only, and after a sleep: that takes as long as three packets do.
///
/// Within a millisecond the two drift apart by some nanoseconds, since the counter's rate is known to about five
/// millionths; while the system's clock is being adjusted, by as much as it is: half a microsecond, mostly.
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

    /// Has the system asked the next time: the counter may have stood still, as it does in some processors' sleep.
    pub(super) fn doubt(&mut self) {
        self.since = cycles().wrapping_sub(u64::MAX / 2);
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
    fn it_tells_the_system_s_time() {
        let mut clock = Clock::new();
        let end = Instant::now() + Duration::from_millis(50);
        while Instant::now() < end {
            let earliest = Time::monotonic();
            let now = clock.at(cycles());
            let latest = Time::monotonic();
            assert!(now + Duration::from_micros(2) >= earliest, "{now}, but {earliest} before");
            assert!(now <= latest + Duration::from_micros(2), "{now}, but {latest} afterwards");
        }
    }

    #[test]
    fn a_counter_that_is_fast_makes_no_time_earlier_than_one_before() {
        let mut clock = Clock::new();
        clock.scale += clock.scale / 4;
        let (mut last, mut stood_still) = (Time::ZERO, 0);
        let end = Instant::now() + Duration::from_millis(20);
        while Instant::now() < end {
            let now = clock.at(cycles());
            assert!(now >= last, "{now} after {last}");
            stood_still += u32::from(now == last);
            last = now;
        }
        assert!(stood_still > 0, "it was ahead, and waited for the system's");
        assert!(
            last <= Time::monotonic() + Duration::from_micros(300),
            "{last}: a quarter of a millisecond ahead"
        );
    }

    #[test]
    fn the_system_is_asked_once_a_millisecond_and_in_doubt() {
        let mut clock = Clock::new();
        clock.at(cycles());
        let asked = clock.since;
        clock.at(asked + clock.good_for - 1);
        assert_eq!(clock.since, asked);
        clock.doubt();
        clock.at(cycles());
        assert!(clock.since.wrapping_sub(asked) < u64::MAX / 4 && clock.since != asked);
        let asked = clock.since;
        clock.at(asked + clock.good_for);
        assert_ne!(clock.since, asked);
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
