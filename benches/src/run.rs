//! How long it is measured, and how far it has got.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What every measurement is told.
pub(crate) struct Run<'r> {
    pub(crate) name: &'static str,
    pub(crate) rounds: usize,
    /// How long each single figure is measured.
    pub(crate) during: Duration,
    /// Where results go, and programs that are compiled for the measurement.
    pub(crate) folder: &'r Path,
    pub(crate) progress: &'r Progress,
}

/// Tells on the standard error which measurement of how many runs, which round, and what time is left.
pub(crate) struct Progress {
    /// Expected seconds of each measurement.
    expected: Vec<f64>,
    rounds: usize,
    started: Instant,
    now: Mutex<Now>,
}

struct Now {
    /// Which measurement.
    index: usize,
    name: &'static str,
}

impl Progress {
    pub(crate) fn new(expected: Vec<f64>, rounds: usize) -> Self {
        Self { expected, rounds, started: Instant::now(), now: Mutex::new(Now { index: 0, name: "" }) }
    }

    /// The measurement of this index begins.
    pub(crate) fn begin(&self, index: usize, name: &'static str) {
        *self.now.lock().unwrap_or_else(PoisonError::into_inner) = Now { index, name };
        self.tell(index, name, 0, "preparing");
    }

    /// A round of it is over.
    pub(crate) fn round(&self, round: usize, figures: &str) {
        let now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        self.tell(now.index, now.name, round, figures);
    }

    fn tell(&self, index: usize, name: &str, round: usize, figures: &str) {
        let done = self.expected[..index].iter().sum::<f64>()
            + self.expected[index] * round as f64 / self.rounds as f64;
        let left = left(done, self.expected.iter().sum(), self.started.elapsed().as_secs_f64());
        let (number, all, rounds) = (index + 1, self.expected.len(), self.rounds);
        let line =
            format!("[{number:>2}/{all}] {name}: round {round} of {rounds}: {figures}; {} left", text(left));
        let mut out = std::io::stderr().lock();
        // That it cannot be told ends no measurement.
        let _ = if out.is_terminal() && round < self.rounds {
            write!(out, "\r\x1b[K{line}").and_then(|()| out.flush())
        } else if out.is_terminal() {
            writeln!(out, "\r\x1b[K{line}")
        } else {
            writeln!(out, "{line}")
        };
    }
}

/// Seconds left: as expected, stretched by how far the expectation was wrong up to now. In the first ten seconds there
/// is nothing to learn from.
fn left(done: f64, all: f64, elapsed: f64) -> f64 {
    let stretch = if done >= 10.0 { elapsed / done } else { 1.0 };
    (all - done).max(0.0) * stretch
}

fn text(seconds: f64) -> String {
    if seconds < 90.0 { format!("{seconds:.0} s") } else { format!("{:.0} min", seconds / 60.0) }
}

/// Rounds for tests, of nothing in particular.
#[cfg(test)]
pub(crate) fn test_run(rounds: usize) -> Run<'static> {
    let progress = Box::leak(Box::new(Progress::new(vec![1.0], rounds)));
    Run {
        name: "test",
        rounds,
        during: Duration::from_millis(1),
        folder: Path::new("/nonexistent"),
        progress,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_left_follows_what_the_machine_takes() {
        // At the start, as expected; halfway at half the speed, twice that.
        assert!((left(0.0, 100.0, 1.0) - 100.0).abs() < 1e-9);
        assert!((left(50.0, 100.0, 100.0) - 100.0).abs() < 1e-9);
        assert!((left(100.0, 100.0, 120.0)).abs() < 1e-9);
        assert_eq!(
            (text(89.4).as_str(), text(90.0).as_str(), text(600.0).as_str()),
            ("89 s", "2 min", "10 min")
        );
    }
}
