//! How often something may be done: a token bucket.

use crate::Time;

/// Nanoseconds in a second: a token in the units that the bucket counts in.
const TOKEN: u64 = 1_000_000_000;

/// Allows so many a second, and some at once after a quiet time.
///
/// At once are allowed a tenth of a second's worth, or 64 where that is less, but never more than a second's worth. In
/// any stretch of time it is at most that many and those that the stretch is worth. In whole numbers: nothing is lost
/// to rounding, however often it is asked.
///
/// ```
/// use std::time::Duration;
/// use afx::Time;
/// use afx::stage::balancer::rate::TokenBucket;
///
/// let mut bucket = TokenBucket::new(2, Time::ZERO);
/// let now = Time::from_nanos(1_000);
/// assert_eq!([bucket.take(now), bucket.take(now), bucket.take(now)], [true, true, false]);
/// assert!(bucket.take(now + Duration::from_millis(500)));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct TokenBucket {
    per_second: u64,
    /// What the bucket holds at most, in parts of a token.
    most: u64,
    /// What it holds.
    held: u64,
    /// When it held that.
    since: Time,
}

impl TokenBucket {
    /// A full bucket for `per_second` a second; none at all if that is zero.
    #[must_use]
    pub const fn new(per_second: u32, now: Time) -> Self {
        let per_second = per_second as u64;
        let most = Self::burst(per_second) * TOKEN;
        Self { per_second, most, held: most, since: now }
    }

    /// Whether it may be done once, now. If so, that counts.
    #[inline]
    pub fn take(&mut self, now: Time) -> bool {
        // A nanosecond is worth as many parts of a token as there are tokens in a second.
        let elapsed = now.as_nanos().saturating_sub(self.since.as_nanos());
        self.held = self.held.saturating_add(elapsed.saturating_mul(self.per_second)).min(self.most);
        self.since = self.since.max(now);
        match self.held.checked_sub(TOKEN) {
            Some(left) => {
                self.held = left;
                true
            }
            None => false,
        }
    }

    const fn burst(per_second: u64) -> u64 {
        let tenth = per_second / 10;
        let burst = if tenth < 64 { 64 } else { tenth };
        if burst < per_second { burst } else { per_second }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The bucket filled nanosecond by nanosecond.
        #[test]
        fn it_does_as_one_that_counts_each_nanosecond(
            per_second in prop_oneof![0..100u32, 100..2_000_000u32, Just(u32::MAX)],
            steps in prop::collection::vec((0..2_000u64, 1..40usize), 1..30),
        ) {
            let mut bucket = TokenBucket::new(per_second, Time::ZERO);
            let burst = u128::from(per_second.min((per_second / 10).max(64)));
            let (mut now, mut held) = (0, burst * 1_000_000_000);
            for (wait, tries) in steps {
                for _ in 0..wait {
                    held = (held + u128::from(per_second)).min(burst * 1_000_000_000);
                }
                now += wait;
                for _ in 0..tries {
                    let expected = held >= 1_000_000_000;
                    if expected {
                        held -= 1_000_000_000;
                    }
                    prop_assert_eq!(bucket.take(Time::from_nanos(now)), expected);
                }
            }
        }

        /// Whatever the times between: the promise that users are made.
        #[test]
        fn it_never_allows_more_than_it_says_nor_less(
            per_second in 1..50_000u32,
            waits in prop::collection::vec(0..50_000_000u64, 1..100),
        ) {
            let mut bucket = TokenBucket::new(per_second, Time::ZERO);
            let burst = u128::from(per_second.min((per_second / 10).max(64)));
            let (mut now, mut allowed) = (0, 0u128);
            for wait in waits {
                now += wait;
                while bucket.take(Time::from_nanos(now)) {
                    allowed += 1;
                }
                let worth = u128::from(per_second) * u128::from(now) / 1_000_000_000;
                prop_assert!(allowed <= burst + worth, "{allowed} in {now} ns");
            }
            // Emptied without a pause in which it could run over, it has given away all it got.
            let (mut bucket, mut allowed) = (TokenBucket::new(per_second, Time::ZERO), 0u128);
            let pause = burst as u64 * 1_000_000_000 / u64::from(per_second) / 2;
            for turn in 0..100 {
                while bucket.take(Time::from_nanos(turn * pause)) {
                    allowed += 1;
                }
            }
            let worth = u128::from(per_second) * u128::from(99 * pause) / 1_000_000_000;
            prop_assert_eq!(allowed, burst + worth);
        }
    }

    #[test]
    fn a_long_time_and_a_clock_that_steps_back_do_no_harm() {
        let mut bucket = TokenBucket::new(u32::MAX, Time::ZERO);
        assert!(bucket.take(Time::from_nanos(u64::MAX)));
        let mut bucket = TokenBucket::new(1, Time::from_nanos(10_000_000_000));
        assert!(bucket.take(Time::ZERO));
        assert!(!bucket.take(Time::ZERO));
        assert!(!bucket.take(Time::from_nanos(10_999_999_999)), "no time is counted twice");
        assert!(bucket.take(Time::from_nanos(11_000_000_000)));
    }
}
