//! Rates of what is counted.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How far samples are apart, at least.
const EVERY: Duration = Duration::from_secs(1);

/// Makes rates of counters that are noted now and then: of the last second, or since they were noted last, if that is
/// longer ago.
#[derive(Debug)]
pub(crate) struct Meter<K> {
    last: Option<(Instant, BTreeMap<K, u64>)>,
    rates: BTreeMap<K, f64>,
}

impl<K> Default for Meter<K> {
    fn default() -> Self {
        Self { last: None, rates: BTreeMap::new() }
    }
}

impl<K: Ord> Meter<K> {
    /// Whether it is time to note the counters.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.last.as_ref().is_none_or(|(last, _)| now.saturating_duration_since(*last) >= EVERY)
    }

    /// Notes counters. Nothing happens before it is due.
    pub(crate) fn note(&mut self, now: Instant, counters: impl IntoIterator<Item = (K, u64)>)
    where
        K: Clone,
    {
        if !self.is_due(now) {
            return;
        }
        let counters: BTreeMap<K, u64> = counters.into_iter().collect();
        if let Some((then, earlier)) = &self.last {
            let seconds = now.duration_since(*then).as_secs_f64();
            let rate = |(key, counter): (&K, &u64)| {
                // One that has begun anew has counted at least what it shows.
                let before = earlier.get(key).filter(|before| *before <= counter).copied().unwrap_or(0);
                earlier.contains_key(key).then(|| (key.clone(), (counter - before) as f64 / seconds))
            };
            self.rates = counters.iter().filter_map(rate).collect();
        }
        self.last = Some((now, counters));
    }

    /// A counter's rate a second; None before it was noted twice.
    pub(crate) fn per_second(&self, counter: &K) -> Option<f64> {
        self.rates.get(counter).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_those_between_two_notes() {
        let start = Instant::now();
        let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
        let mut meter = Meter::default();
        assert!(meter.is_due(start));
        meter.note(start, [("a", 100), ("b", 7)]);
        assert_eq!(meter.per_second(&"a"), None);

        assert!(!meter.is_due(at(0.5)));
        meter.note(at(0.5), [("a", 1000)]);
        assert_eq!(meter.per_second(&"a"), None, "too early to say");

        meter.note(at(2.0), [("a", 300), ("b", 7), ("c", 50)]);
        assert_eq!(meter.per_second(&"a"), Some(100.0));
        assert_eq!(meter.per_second(&"b"), Some(0.0));
        assert_eq!(meter.per_second(&"c"), None, "it was noted once");

        meter.note(at(3.0), [("a", 30), ("c", 60)]);
        assert_eq!(meter.per_second(&"a"), Some(30.0), "it has begun anew");
        assert_eq!(meter.per_second(&"b"), None, "it is gone");
        assert_eq!(meter.per_second(&"c"), Some(10.0));
    }
}
