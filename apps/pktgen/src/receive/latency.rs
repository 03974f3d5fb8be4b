//! How long packets were under way.

use hdrhistogram::Histogram;

/// The longest time that is recorded, in ns: 60 s. What seems to have taken longer was sent by another clock.
pub(crate) const MAX: u64 = 60_000_000_000;

/// Decimal digits that the histogram keeps of a time.
const DIGITS: u8 = 3;

/// Times in ns, from 1 to [`MAX`]. Recording neither allocates nor fails.
#[derive(Clone, Debug)]
pub(crate) struct Latency {
    histogram: Histogram<u64>,
    min: u64,
    max: u64,
    sum: u128,
    out_of_range: u64,
}

/// What there is to say of times, in ns. Percentiles are exact to three digits, the others are exact.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Percentiles {
    /// Packets that were recorded.
    pub(crate) count: u64,
    pub(crate) min: u64,
    pub(crate) p50: u64,
    pub(crate) p90: u64,
    pub(crate) p99: u64,
    pub(crate) p99_9: u64,
    pub(crate) max: u64,
    pub(crate) mean: f64,
}

impl Percentiles {
    /// The packet delay variation (RFC 5481, section 4.2) at the percentile 99.9: how much longer than the fastest.
    pub(crate) fn delay_variation(&self) -> u64 {
        self.p99_9.saturating_sub(self.min)
    }
}

impl Latency {
    pub(crate) fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1, MAX, DIGITS).expect("bounds that a histogram can have");
        Self { histogram, min: u64::MAX, max: 0, sum: 0, out_of_range: 0 }
    }

    /// Records the time from `sent` to `arrived`.
    #[inline]
    pub(crate) fn record(&mut self, sent: u64, arrived: u64) {
        // In the same nanosecond, by a clock that is not as fine as that.
        let time = arrived.wrapping_sub(sent).max(1);
        if time > MAX || self.histogram.record(time).is_err() {
            self.out_of_range += 1;
            return;
        }
        self.min = self.min.min(time);
        self.max = self.max.max(time);
        self.sum += u128::from(time);
    }

    /// Packets that seem to have arrived before they were sent, or to have been under way for longer than [`MAX`]: their
    /// time is of another machine's clock, or is none.
    pub(crate) fn out_of_range(&self) -> u64 {
        self.out_of_range
    }

    /// None where nothing was recorded.
    pub(crate) fn percentiles(&self) -> Option<Percentiles> {
        let count = self.histogram.len();
        // A percentile is the upper end of what the histogram does not tell apart.
        let at = |quantile| self.histogram.value_at_quantile(quantile).clamp(self.min, self.max);
        (count > 0).then(|| Percentiles {
            count,
            min: self.min,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
            max: self.max,
            mean: self.sum as f64 / count as f64,
        })
    }

    /// Takes in what another has recorded.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.histogram.add(&other.histogram).expect("histograms of the same bounds");
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.sum += other.sum;
        self.out_of_range += other.out_of_range;
    }

    /// Becomes a copy of another, without allocating.
    pub(crate) fn copy_from(&mut self, other: &Self) {
        self.clear();
        self.merge(other);
    }

    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        self.histogram.reset();
        (self.min, self.max, self.sum, self.out_of_range) = (u64::MAX, 0, 0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_times() {
        let mut latency = Latency::new();
        assert_eq!(latency.percentiles(), None);
        for time in 1..=10_000 {
            latency.record(5_000, 5_000 + time * 1000);
        }
        let found = latency.percentiles().unwrap();
        assert_eq!((found.count, found.min, found.max, found.mean), (10_000, 1000, 10_000_000, 5_000_500.0));
        for (found, right) in [(found.p50, 5e6), (found.p90, 9e6), (found.p99, 9.9e6), (found.p99_9, 9.99e6)]
        {
            assert!((found as f64 / right - 1.0).abs() < 0.001, "{found} for {right}");
        }
        assert_eq!(found.delay_variation(), found.p99_9 - 1000);
    }

    #[test]
    fn what_another_clock_has_said_is_counted_and_not_recorded() {
        let mut latency = Latency::new();
        latency.record(2, 1);
        latency.record(0, MAX + 1);
        latency.record(0, u64::MAX);
        assert_eq!((latency.out_of_range(), latency.percentiles()), (3, None));
        latency.record(7, 7);
        latency.record(0, MAX);
        let found = latency.percentiles().unwrap();
        assert_eq!((found.count, found.min, found.max), (2, 1, MAX));
    }

    #[test]
    fn a_merge_is_as_if_one_had_recorded_all() {
        let (mut one, mut other, mut both) = (Latency::new(), Latency::new(), Latency::new());
        for time in 1..1000 {
            let latency = if time % 3 == 0 { &mut one } else { &mut other };
            latency.record(0, time * time);
            both.record(0, time * time);
        }
        other.record(1, 0);
        one.merge(&other);
        assert_eq!((one.percentiles(), one.out_of_range()), (both.percentiles(), 1));
        other.copy_from(&one);
        assert_eq!((other.percentiles(), other.out_of_range()), (one.percentiles(), 1));
    }
}
