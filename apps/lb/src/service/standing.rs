//! How each real stands at this moment: what the configuration wants of it, what its health check says, how far its
//! drain is, and how much of its weight it has reached in a slow start.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use afx::control::health::{self, next_step, ramp};
use afx::stage::balancer::RealState;

use crate::config::{self, Config, VipKey};

/// A real of a VIP.
pub(crate) type RealKey = (VipKey, IpAddr);

/// How all reals of a configuration stand.
#[derive(Debug, Clone, Default)]
pub(crate) struct Standings {
    reals: BTreeMap<RealKey, Standing>,
}

/// How one real stands.
#[derive(Debug, Clone)]
pub(crate) struct Standing {
    /// What the configuration says, kept to see changes.
    wanted: config::RealState,
    /// Since when `wanted` is so.
    wanted_since: Instant,
    /// When connections that are left of a drain are cut.
    deadline: Option<Instant>,
    /// What the health check says; none where there is no check.
    health: Option<health::State>,
    /// While there is no verdict yet: whether that counts as well. At the start it does, so that a balancer that starts
    /// anew serves at once; for a real that is added later it does not, so that nothing is sent to it too early.
    trusted: bool,
    /// Since when it takes new flows, if it did not before: the beginning of its slow start.
    up_since: Option<Instant>,
}

/// A drain, as of now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Draining {
    pub(crate) since: Instant,
    pub(crate) deadline: Option<Instant>,
}

impl Standing {
    fn new(real: &config::Real, is_checked: bool, trusted: bool, now: Instant) -> Self {
        let mut standing = Self {
            wanted: real.state,
            wanted_since: now,
            deadline: None,
            health: is_checked.then_some(health::State::Unknown),
            trusted,
            up_since: None,
        };
        // One that is added while the balancer runs starts slowly.
        standing.up_since = (!trusted && standing.state(now) == RealState::Up).then_some(now);
        standing
    }

    /// What the balancer is to do with it.
    pub(crate) fn state(&self, now: Instant) -> RealState {
        let is_well = match self.health {
            None | Some(health::State::Up) => true,
            Some(health::State::Unknown) => self.trusted,
            Some(health::State::Down) => false,
        };
        match self.wanted {
            config::RealState::Down => RealState::Down,
            config::RealState::Drain if self.deadline.is_some_and(|deadline| deadline <= now) => {
                RealState::Out
            }
            _ if !is_well => RealState::Down,
            config::RealState::Drain => RealState::Draining,
            config::RealState::Up => RealState::Up,
        }
    }

    /// What of its weight counts now.
    fn weight(&self, weight: u32, slow_start: Duration, now: Instant) -> u32 {
        self.up_since.map_or(weight, |since| ramp(weight, since, now, slow_start))
    }

    /// The drain that it is in, or had.
    pub(crate) fn drain(&self) -> Option<Draining> {
        let draining = Draining { since: self.wanted_since, deadline: self.deadline };
        (self.wanted == config::RealState::Drain).then_some(draining)
    }

    /// Changes something, and sees whether that brings the real up.
    fn change(&mut self, now: Instant, change: impl FnOnce(&mut Self)) {
        let before = self.state(now);
        change(self);
        match (before, self.state(now)) {
            (RealState::Up, RealState::Up) => {}
            (_, RealState::Up) => self.up_since = Some(now),
            _ => self.up_since = None,
        }
    }

    /// When it will be another without anybody's doing.
    fn next_change(&self, slow_start: Duration, now: Instant) -> Option<Instant> {
        let deadline = self.drain().and_then(|drain| drain.deadline).filter(|deadline| *deadline > now);
        let step = self.up_since.and_then(|since| next_step(since, now, slow_start));
        deadline.into_iter().chain(step).min()
    }
}

impl Standings {
    /// How the reals stand when the balancer starts.
    pub(crate) fn at_start(config: &Config, now: Instant) -> Self {
        let mut standings = Self::default();
        standings.follow(config, true, now);
        standings
    }

    /// The same for another configuration: reals that stay stand as they do.
    pub(crate) fn after(&self, config: &Config, now: Instant) -> Self {
        let mut standings = self.clone();
        standings.follow(config, false, now);
        standings
    }

    fn follow(&mut self, config: &Config, trusted: bool, now: Instant) {
        let mut old = std::mem::take(&mut self.reals);
        for vip in &config.vips {
            let is_checked = vip.check.is_some();
            for real in &vip.reals {
                let key = (vip.key(), real.address);
                let standing = match old.remove(&key) {
                    None => Standing::new(real, is_checked, trusted, now),
                    Some(mut standing) => {
                        standing.change(now, |standing| {
                            if standing.wanted != real.state {
                                (standing.wanted, standing.wanted_since) = (real.state, now);
                                standing.deadline = None;
                            }
                            if standing.health.is_some() != is_checked {
                                // It served until now: a check that is new has to say that it does not.
                                standing.health = is_checked.then_some(health::State::Unknown);
                                standing.trusted = true;
                            }
                        });
                        standing
                    }
                };
                self.reals.insert(key, standing);
            }
        }
    }

    /// A real's.
    pub(crate) fn of(&self, vip: &VipKey, real: IpAddr) -> Option<&Standing> {
        self.reals.get(&(*vip, real))
    }

    /// State and weight of a VIP's real now. One that is not known is out.
    pub(crate) fn now(&self, vip: &config::Vip, real: &config::Real, now: Instant) -> (RealState, u32) {
        match self.of(&vip.key(), real.address) {
            Some(standing) => (standing.state(now), standing.weight(real.weight, vip.slow_start, now)),
            None => (RealState::Out, real.weight),
        }
    }

    /// Its health check says something else. False for a real that is not there (any more).
    pub(crate) fn health(&mut self, key: &RealKey, state: health::State, now: Instant) -> bool {
        let Some(standing) = self.reals.get_mut(key).filter(|standing| standing.health.is_some()) else {
            return false;
        };
        standing.change(now, |standing| standing.health = Some(state));
        true
    }

    /// Until when its drain may last. Whether that is new: it has to be draining.
    pub(crate) fn set_deadline(&mut self, key: &RealKey, deadline: Option<Instant>) -> bool {
        let standing = self.reals.get_mut(key).filter(|standing| standing.drain().is_some());
        standing.is_some_and(|standing| std::mem::replace(&mut standing.deadline, deadline) != deadline)
    }

    /// When some real will stand otherwise without anybody's doing: a deadline, a step of a slow start.
    pub(crate) fn next_change(&self, config: &Config, now: Instant) -> Option<Instant> {
        let reals = config.vips.iter().flat_map(|vip| vip.reals.iter().map(move |real| (vip, real)));
        reals
            .filter_map(|(vip, real)| self.of(&vip.key(), real.address)?.next_change(vip.slow_start, now))
            .min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Outcome;

    const SECOND: Duration = Duration::from_secs(1);

    fn config(vip: &str, reals: &[&str]) -> Config {
        let reals: String = (11..)
            .zip(reals)
            .map(|(number, keys)| format!("[[vip.real]]\naddress = \"10.0.0.{number}\"\n{keys}\n"))
            .collect();
        let text = format!(
            "version = 1\n[[port]]\ninterface = \"eth0\"\n[forwarding]\nmethod = \"ipip\"\n[[vip]]\n\
             address = \"198.51.100.10\"\nport = 80\nprotocol = \"tcp\"\n{vip}\n{reals}"
        );
        let Outcome { config, diagnostics } = Config::parse("lb.toml", &text);
        config.unwrap_or_else(|| panic!("{diagnostics:?}"))
    }

    const CHECK: &str = "check = { type = \"tcp\" }";

    fn key(config: &Config, real: usize) -> RealKey {
        (config.vips[0].key(), config.vips[0].reals[real].address)
    }

    #[track_caller]
    fn stands(standings: &Standings, config: &Config, now: Instant, expected: &[(RealState, u32)]) {
        let vip = &config.vips[0];
        let found: Vec<_> = vip.reals.iter().map(|real| standings.now(vip, real, now)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn at_the_start_a_real_that_was_not_checked_yet_serves_and_a_later_one_waits_for_its_check() {
        let now = Instant::now();
        let one = config(CHECK, &[""]);
        let mut standings = Standings::at_start(&one, now);
        stands(&standings, &one, now, &[(RealState::Up, 100)]);

        let two = config(CHECK, &["", ""]);
        standings = standings.after(&two, now);
        stands(&standings, &two, now, &[(RealState::Up, 100), (RealState::Down, 100)]);
        assert!(standings.health(&key(&two, 1), health::State::Up, now));
        stands(&standings, &two, now, &[(RealState::Up, 100), (RealState::Up, 100)]);
        assert!(standings.health(&key(&two, 0), health::State::Down, now));
        stands(&standings, &two, now, &[(RealState::Down, 100), (RealState::Up, 100)]);

        // What is known stays over a reload; who is gone is forgotten, and news of it are no news.
        standings = standings.after(&config(CHECK, &["weight = 7", ""]), now);
        stands(&standings, &two, now, &[(RealState::Down, 100), (RealState::Up, 100)]);
        standings = standings.after(&one, now);
        assert!(!standings.health(&key(&two, 1), health::State::Down, now));
    }

    #[test]
    fn a_real_that_serves_is_trusted_until_a_check_that_is_new_says_otherwise() {
        let now = Instant::now();
        let unchecked = config("", &[""]);
        let checked = config(CHECK, &[""]);
        let mut standings = Standings::at_start(&unchecked, now).after(&checked, now);
        stands(&standings, &checked, now, &[(RealState::Up, 100)]);
        standings.health(&key(&checked, 0), health::State::Down, now);
        stands(&standings, &checked, now, &[(RealState::Down, 100)]);
        let standings = standings.after(&unchecked, now);
        stands(&standings, &unchecked, now, &[(RealState::Up, 100)]);
    }

    #[test]
    fn a_drain_ends_at_its_deadline_and_that_is_known_beforehand() {
        let now = Instant::now();
        let drained = config("", &["state = \"drain\"", ""]);
        let mut standings = Standings::at_start(&drained, now);
        stands(&standings, &drained, now, &[(RealState::Draining, 100), (RealState::Up, 100)]);
        assert_eq!(standings.next_change(&drained, now), None);

        let end = now + 10 * SECOND;
        assert!(standings.set_deadline(&key(&drained, 0), Some(end)));
        assert!(!standings.set_deadline(&key(&drained, 0), Some(end)), "it was so already");
        assert!(!standings.set_deadline(&key(&drained, 1), Some(end)), "that one does not drain");
        assert_eq!(standings.next_change(&drained, now), Some(end));
        stands(&standings, &drained, end - SECOND, &[(RealState::Draining, 100), (RealState::Up, 100)]);
        stands(&standings, &drained, end, &[(RealState::Out, 100), (RealState::Up, 100)]);
        assert_eq!(standings.next_change(&drained, end), None);

        // The deadline was that drain's alone.
        let up = config("", &["", ""]);
        let standings = standings.after(&up, end).after(&drained, end);
        stands(&standings, &drained, end + SECOND, &[(RealState::Draining, 100), (RealState::Up, 100)]);
    }

    #[test]
    fn a_real_that_is_down_is_down_whatever_its_check_or_drain_says() {
        let now = Instant::now();
        let down = config(CHECK, &["state = \"down\"", "state = \"drain\"", ""]);
        let mut standings = Standings::at_start(&down, now);
        standings.health(&key(&down, 0), health::State::Up, now);
        standings.health(&key(&down, 1), health::State::Down, now);
        let expected = [(RealState::Down, 100), (RealState::Down, 100), (RealState::Up, 100)];
        stands(&standings, &down, now, &expected);
    }

    #[test]
    fn whoever_comes_up_later_starts_slowly() {
        let now = Instant::now();
        let slow = config(&format!("slow_start = \"10s\"\n{CHECK}"), &["", "weight = 1000"]);
        let mut standings = Standings::at_start(&slow, now);
        stands(&standings, &slow, now, &[(RealState::Up, 100), (RealState::Up, 1000)]);
        assert_eq!(standings.next_change(&slow, now), None);

        standings.health(&key(&slow, 1), health::State::Down, now);
        standings.health(&key(&slow, 1), health::State::Up, now);
        let mut at = now;
        let mut last = 0;
        let mut steps = 0;
        while let Some(next) = standings.next_change(&slow, at) {
            let (state, weight) = standings.now(&slow.vips[0], &slow.vips[0].reals[1], at);
            assert!(state == RealState::Up && weight > 0 && weight >= last && weight < 1000, "{weight}");
            assert!(next > at && next <= now + 10 * SECOND);
            (at, last) = (next, weight);
            steps += 1;
        }
        assert!(steps > 2, "{steps} steps");
        stands(&standings, &slow, at, &[(RealState::Up, 100), (RealState::Up, 1000)]);
    }
}
