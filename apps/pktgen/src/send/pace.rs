//! When packets leave.

use afx::Time;

/// How far a sender may fall behind before it no longer makes up for it, in ns: what is lost then is the rate, not
/// the receiver.
const LATE_MAX: f64 = 100e6;

/// When packets leave: by a clock that begins with the first question.
#[derive(Debug, Clone)]
pub(super) enum Pace {
    /// At once.
    Max,
    /// So many a second, some together.
    Rate(Rate),
    /// As they were captured.
    Capture(Capture),
}

/// A rate. The clock's reading and nothing else says how many packets may have left by then, so that no error adds up.
#[derive(Debug, Clone)]
pub(super) struct Rate {
    packets_per_ns: f64,
    burst: u64,
    start: Option<Time>,
    /// Packets that are not made up for.
    forgone: u64,
}

/// Times of packets, again and again.
#[derive(Debug, Clone)]
pub(super) struct Capture {
    /// When each packet leaves, in ns after the start of its round.
    offsets: Vec<u64>,
    /// From one round's start to the next, in ns.
    round: u64,
    start: Option<Time>,
}

impl Pace {
    /// At a rate in packets per second, `burst` of them together.
    pub(super) fn rate(packets_per_second: f64, burst: u32) -> Self {
        Self::Rate(Rate {
            packets_per_ns: packets_per_second / 1e9,
            burst: burst.max(1).into(),
            start: None,
            forgone: 0,
        })
    }

    /// As captured at these times, `speed` times as fast. Times that go back count as those before.
    pub(super) fn capture(times: impl IntoIterator<Item = Time>, speed: f64) -> Self {
        let mut first = None;
        let mut last = 0;
        let offsets: Vec<u64> = times
            .into_iter()
            .map(|time| {
                let after = time - *first.get_or_insert(time);
                last = last.max((after.as_nanos() as f64 / speed) as u64);
                last
            })
            .collect();
        // The next round begins when another packet would have come.
        let gap = last / (offsets.len() as u64).saturating_sub(1).max(1);
        Self::Capture(Capture { offsets, round: last + gap, start: None })
    }

    /// How many packets more may leave by now, where `sent` have left: as far as `most`.
    #[inline(always)]
    pub(super) fn due(&mut self, now: Time, sent: u64, most: u64) -> u64 {
        match self {
            Self::Max => most,
            Self::Rate(rate) => rate.by(now, sent).saturating_sub(sent).min(most),
            Self::Capture(capture) => capture.due(now, sent, most),
        }
    }
}

impl Rate {
    fn by(&mut self, now: Time, sent: u64) -> u64 {
        let start = *self.start.get_or_insert(now);
        let bursts = ((now - start).as_nanos() as f64 * self.packets_per_ns / self.burst as f64) as u64 + 1;
        let allowed = bursts * self.burst - self.forgone;
        let late = (LATE_MAX * self.packets_per_ns) as u64 + self.burst;
        if allowed - sent.min(allowed) <= late {
            return allowed;
        }
        self.forgone += allowed - sent - late;
        sent + late
    }
}

impl Capture {
    fn due(&mut self, now: Time, sent: u64, most: u64) -> u64 {
        let passed = (now - *self.start.get_or_insert(now)).as_nanos() as u64;
        let count = self.offsets.len() as u64;
        let is_due = |packet: &u64| {
            let at = (packet / count).saturating_mul(self.round);
            at.saturating_add(self.offsets[(packet % count) as usize]) <= passed
        };
        (sent..sent.saturating_add(most)).take_while(is_due).count() as u64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(ns: u64) -> Time {
        Time::from_nanos(5_000 + ns)
    }

    #[test]
    fn bursts_leave_together() {
        let mut pace = Pace::rate(1_000_000.0, 10);
        assert_eq!(pace.due(at(0), 0, 64), 10);
        assert_eq!(pace.due(at(9_999), 10, 64), 0);
        assert_eq!(pace.due(at(10_001), 10, 64), 10);
    }

    #[test]
    fn who_was_away_for_long_does_not_make_up_for_it() {
        let mut pace = Pace::rate(1_000_000.0, 1);
        assert_eq!(pace.due(at(0), 0, u64::MAX), 1);
        // Ten seconds away: what was due in the last 100 ms is sent, and the rate goes on from there.
        let sent = 1 + pace.due(at(10_000_000_000), 1, u64::MAX);
        assert_eq!(sent, 1 + 100_000 + 1);
        assert_eq!(pace.due(at(10_000_000_000), sent, u64::MAX), 0);
        assert_eq!(pace.due(at(10_001_000_500), sent, u64::MAX), 1_000);
    }

    #[test]
    fn captures_keep_their_times() {
        let times = [100, 300, 250, 700].map(Time::from_nanos);
        let mut pace = Pace::capture(times, 2.0);
        // After 0, 100, 100 and 300 ns; then, a mean gap later, again.
        assert_eq!(pace.due(at(0), 0, 64), 1);
        assert_eq!(pace.due(at(99), 1, 64), 0);
        assert_eq!(pace.due(at(100), 1, 64), 2);
        assert_eq!(pace.due(at(300), 3, 64), 1);
        assert_eq!(pace.due(at(399), 4, 64), 0);
        assert_eq!(pace.due(at(400), 4, 64), 1);
        assert_eq!(pace.due(at(10_000), 5, 3), 3);
    }

    proptest! {
        #[test]
        fn a_rate_is_kept_and_never_exceeded(
            rate in 1_000.0..20e6f64, burst in 1u32..100, steps in prop::collection::vec(1u64..1_000_000, 1..100),
        ) {
            let mut pace = Pace::rate(rate, burst);
            let (mut now, mut sent) = (0, 0);
            pace.due(at(0), 0, 0);
            for step in steps {
                now += step;
                sent += pace.due(at(now), sent, u64::MAX);
                let exact = now as f64 * rate / 1e9;
                prop_assert!(sent as f64 <= exact + f64::from(burst) + 1e-3);
                prop_assert!(sent as f64 >= exact - 1e-3, "{sent} of {exact}: all steps are short");
            }
        }
    }
}
