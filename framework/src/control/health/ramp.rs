//! Slow start: a target that came up reaches its weight step by step.

use std::time::{Duration, Instant};

/// A ramp has so many steps: each of them may have a table built anew.
const STEPS: u32 = 20;

/// The weight at `now` of a target that came up at `since` and has its whole `weight` after `duration`.
///
/// It grows in 20 equal steps, the first at once, and takes at most 20 values; a weight above 0 is never less
/// than 1. The whole weight is reached after `duration`, not before.
///
/// ```
/// use std::time::{Duration, Instant};
///
/// use afx::control::health::{next_step, ramp};
///
/// let (up, minute) = (Instant::now(), Duration::from_secs(60));
/// assert_eq!(ramp(100, up, up, minute), 5);
/// assert_eq!(ramp(100, up, up + minute / 2, minute), 50);
/// assert_eq!(ramp(100, up, up + minute, minute), 100);
/// assert_eq!(next_step(up, up, minute), Some(up + Duration::from_secs(6)));
/// assert_eq!(next_step(up, up + minute, minute), None);
/// ```
#[must_use]
pub fn ramp(weight: u32, since: Instant, now: Instant, duration: Duration) -> u32 {
    let part = u64::from(weight) * u64::from(step(since, now, duration));
    u32::try_from(part.div_ceil(u64::from(STEPS))).unwrap_or(weight)
}

/// When [`ramp`] may next give another weight; none when it has given the whole.
#[must_use]
pub fn next_step(since: Instant, now: Instant, duration: Duration) -> Option<Instant> {
    let step = step(since, now, duration);
    let next = (step < STEPS).then_some(step + 1)?;
    since.checked_add(start_of(next, duration))
}

/// The step at `now`, from 1 to [`STEPS`]. The first lasts as long as two: there is no step of 0.
fn step(since: Instant, now: Instant, duration: Duration) -> u32 {
    let elapsed = now.saturating_duration_since(since);
    (2..=STEPS).rev().find(|step| elapsed >= start_of(*step, duration)).unwrap_or(1)
}

/// How long after the beginning a step begins. Rounded up to nanoseconds: a step does not begin early.
fn start_of(step: u32, duration: Duration) -> Duration {
    let nanos = duration.as_nanos() * u128::from(step);
    Duration::from_nanos_u128(nanos.div_ceil(u128::from(STEPS)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn no_time_is_no_ramp() {
        let now = Instant::now();
        assert_eq!(ramp(100, now, now, Duration::ZERO), 100);
        assert_eq!(next_step(now, now, Duration::ZERO), None);
    }

    #[test]
    fn what_comes_up_later_begins_at_the_first_step() {
        let now = Instant::now();
        let minute = Duration::from_secs(60);
        assert_eq!(ramp(100, now + minute, now, minute), 5);
    }

    #[test]
    fn the_longest_time_does_not_overflow() {
        let now = Instant::now();
        assert_eq!(ramp(u32::MAX, now, now, Duration::MAX), u32::MAX.div_ceil(20));
        assert_eq!(ramp(0, now, now, Duration::MAX), 0);
        assert!(next_step(now, now, Duration::MAX).is_some_and(|next| next > now));
    }

    proptest! {
        #[test]
        fn it_climbs_in_at_most_twenty_steps_from_next_to_next(
            weight in 0u32..=u32::MAX,
            duration in (0u64..100_000_000_000_000).prop_map(Duration::from_nanos),
        ) {
            let since = Instant::now();
            let (mut now, mut weights) = (since, vec![ramp(weight, since, since, duration)]);
            while let Some(next) = next_step(since, now, duration) {
                prop_assert!(next > now);
                // Nothing changes in between.
                let eve = next - Duration::from_nanos(1);
                prop_assert_eq!(Some(&ramp(weight, since, eve, duration)), weights.last());
                now = next;
                weights.push(ramp(weight, since, now, duration));
            }
            prop_assert!(weights.is_sorted());
            prop_assert!(weights.len() <= 20, "{} steps", weights.len());
            prop_assert_eq!(weights.last(), Some(&weight));
            prop_assert!(weight == 0 || weights[0] > 0);
            prop_assert_eq!(now, since + duration);
        }
    }
}
