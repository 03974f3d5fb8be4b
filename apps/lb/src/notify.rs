//! What a service manager such as systemd is told: `sd_notify(3)`. Without one, nothing.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;

use crate::operation::Operation;

/// How often the status line is looked at.
const STATUS_EVERY: Duration = Duration::from_secs(1);

/// What may take so long that there is no sign of life meanwhile: building many large tables keeps the main loop.
const LONG_WORK: Duration = Duration::from_secs(60);

/// Asked for again and again while draining, which may take longer than the manager waits for a service to stop.
const STOP_WITHIN: Duration = Duration::from_secs(30);

/// Tells the service manager how things are.
pub(crate) struct Notifier {
    /// Nobody listens.
    mute: bool,
    watchdog: Option<Watchdog>,
    next_status: Instant,
    /// The status line last sent.
    status: String,
    stopping: bool,
}

impl Notifier {
    /// Finds out from the environment whether a manager listens, and whether it waits for signs of life.
    pub(crate) fn new() -> Self {
        let limit = sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero());
        let now = Instant::now();
        Self {
            mute: std::env::var_os("NOTIFY_SOCKET").is_none(),
            watchdog: limit.map(|limit| Watchdog::new(limit, now)),
            next_status: now,
            status: String::new(),
            stopping: false,
        }
    }

    /// Traffic is let in.
    pub(crate) fn ready(&mut self, operation: &Operation) {
        if !self.mute {
            self.status = self.line(operation);
            send(&[NotifyState::Ready, NotifyState::Status(&self.status)]);
        }
    }

    /// A reload begins; [`reloaded`](Self::reloaded) must follow.
    pub(crate) fn reloading(&self) {
        if self.mute || self.stopping {
            return;
        }
        // The manager asks for the time to know this reload from one before it.
        match NotifyState::monotonic_usec_now() {
            Ok(now) => send(&[NotifyState::Reloading, now]),
            Err(error) => tracing::warn!("the service manager is not told of the reload: {error}"),
        }
    }

    /// A reload has ended; what is in force balances.
    pub(crate) fn reloaded(&mut self, operation: &Operation) {
        if self.stopping {
            return;
        }
        self.ready(operation);
        // A stall would go unseen in the time that the reload was given.
        if let Some(watchdog) = &mut self.watchdog {
            watchdog.next = Instant::now();
        }
    }

    /// The end begins: only connections are waited for.
    pub(crate) fn stopping(&mut self) {
        self.stopping = true;
        if !self.mute {
            send(&[NotifyState::Stopping, extend(STOP_WITHIN)]);
        }
    }

    /// To be called in each turn of the main loop: says that this and the workers live, and what has changed.
    pub(crate) fn turn(&mut self, operation: &Operation) {
        if self.mute {
            return;
        }
        let now = Instant::now();
        if let Some(watchdog) = &mut self.watchdog {
            let turns =
                || operation.service().running().stats().workers.iter().map(|worker| worker.turns).collect();
            match watchdog.look(now, turns) {
                Look::Early => {}
                Look::Alive => send(&[NotifyState::Watchdog]),
                Look::Stalled(None) => {}
                Look::Stalled(Some(worker)) => {
                    tracing::error!(worker, "the worker is stalled: the watchdog gets no sign of life");
                }
            }
        }
        if now < self.next_status {
            return;
        }
        self.next_status = now + STATUS_EVERY;
        let status = self.line(operation);
        if self.stopping {
            send(&[NotifyState::Status(&status), extend(STOP_WITHIN)]);
        } else if status != self.status {
            send(&[NotifyState::Status(&status)]);
        }
        self.status = status;
    }

    fn line(&self, operation: &Operation) -> String {
        let service = operation.service();
        if self.stopping {
            let table = service.monitor().table();
            let connections = table.connections.saturating_sub(table.closing);
            return format!("stopping; {connections} {} left", plural(connections, "connection"));
        }
        let (serving, reals) = service.reals();
        balancing(service.config().vips.len(), serving, reals, operation.failed_reload())
    }
}

/// Something begins that may keep the main loop. The next sign of life ends the time that this gives.
pub(crate) fn long_work() {
    send(&[extend(LONG_WORK)]);
}

fn balancing(vips: usize, serving: usize, reals: usize, failed_reload: Option<&str>) -> String {
    let (vip, real) = (plural(vips as u64, "VIP"), plural(reals as u64, "real"));
    let mut line = format!("balancing {vips} {vip} over {serving} of {reals} {real}");
    // One line, whatever an error is made of.
    if let Some(why) = failed_reload.and_then(|why| why.lines().next()) {
        line += &format!("; the newest reload failed: {why}");
    }
    line
}

fn plural(count: u64, word: &str) -> String {
    if count == 1 { word.to_owned() } else { format!("{word}s") }
}

fn extend(by: Duration) -> NotifyState<'static> {
    NotifyState::ExtendTimeoutUsec(by.as_micros().try_into().unwrap_or(u32::MAX))
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!("the service manager cannot be told: {error}");
    }
}

/// Decides when the manager's watchdog gets a sign of life: twice within its limit, if every worker has turned since
/// the last one. Workers turn when they have nothing to do, too, some hundred times a second.
struct Watchdog {
    every: Duration,
    next: Instant,
    /// By worker: its turns at the last sign.
    turns: Vec<u64>,
    stalled: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Look {
    Early,
    Alive,
    /// No sign is due to be given. The worker, when that is news.
    Stalled(Option<usize>),
}

impl Watchdog {
    fn new(limit: Duration, now: Instant) -> Self {
        Self { every: limit / 2, next: now, turns: Vec::new(), stalled: false }
    }

    fn look(&mut self, now: Instant, turns: impl FnOnce() -> Vec<u64>) -> Look {
        if now < self.next {
            return Look::Early;
        }
        let turns = turns();
        let stalled = turns.iter().zip(&self.turns).position(|(now, then)| now == then);
        if stalled.is_some() {
            // Asked again in the next turn: the sign comes as soon as the worker does.
            let news = !std::mem::replace(&mut self.stalled, true);
            return Look::Stalled(stalled.filter(|_| news));
        }
        *self = Self { every: self.every, next: now + self.every, turns, stalled: false };
        Look::Alive
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn at(begin: Instant, milliseconds: u64) -> Instant {
        begin + Duration::from_millis(milliseconds)
    }

    #[test]
    fn the_watchdog_gets_a_sign_twice_within_its_limit() {
        let begin = Instant::now();
        let mut watchdog = Watchdog::new(LIMIT, begin);
        assert_eq!(watchdog.look(begin, || vec![1, 1]), Look::Alive);
        let unasked = || panic!("counted although nothing is due");
        assert_eq!(watchdog.look(at(begin, 4_999), unasked), Look::Early);
        assert_eq!(watchdog.look(at(begin, 5_040), || vec![2, 900]), Look::Alive);
        assert_eq!(watchdog.look(at(begin, 10_000), unasked), Look::Early);
        assert_eq!(watchdog.look(at(begin, 10_040), || vec![3, 901]), Look::Alive);
    }

    #[test]
    fn one_stalled_worker_of_many_is_enough_for_no_sign() {
        let begin = Instant::now();
        let mut watchdog = Watchdog::new(LIMIT, begin);
        assert_eq!(watchdog.look(begin, || vec![7, 7, 7]), Look::Alive);
        assert_eq!(watchdog.look(at(begin, 5_000), || vec![8, 7, 9]), Look::Stalled(Some(1)));
        // Said once; and that the others go on is no sign of life.
        assert_eq!(watchdog.look(at(begin, 5_050), || vec![9, 7, 10]), Look::Stalled(None));
        assert_eq!(watchdog.look(at(begin, 60_000), || vec![99, 7, 99]), Look::Stalled(None));
    }

    #[test]
    fn a_worker_that_comes_back_is_told_at_once_and_watched_anew() {
        let begin = Instant::now();
        let mut watchdog = Watchdog::new(LIMIT, begin);
        assert_eq!(watchdog.look(begin, || vec![7]), Look::Alive);
        assert_eq!(watchdog.look(at(begin, 5_000), || vec![7]), Look::Stalled(Some(0)));
        assert_eq!(watchdog.look(at(begin, 6_000), || vec![8]), Look::Alive);
        assert_eq!(watchdog.look(at(begin, 10_000), || vec![8]), Look::Early);
        assert_eq!(watchdog.look(at(begin, 11_000), || vec![8]), Look::Stalled(Some(0)));
    }

    #[test]
    fn the_status_is_one_line_of_plain_english() {
        assert_eq!(balancing(2, 3, 4, None), "balancing 2 VIPs over 3 of 4 reals");
        let failed = balancing(1, 0, 1, Some("it is wrong\nREADY=1"));
        assert_eq!(failed, "balancing 1 VIP over 0 of 1 real; the newest reload failed: it is wrong");
    }
}
