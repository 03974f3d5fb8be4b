//! What becomes of a target's state with each result: no clock, no socket, no thread.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// What is known of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Nothing yet: the first result decides.
    Unknown,
    /// It answers.
    Up,
    /// It does not.
    Down,
}

impl std::fmt::Display for State {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.pad(match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Down => "down",
        })
    }
}

/// When a target that keeps going down is no longer believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flaps {
    /// How often it has to go down within the window. 0: it is always believed.
    pub limit: u32,
    /// How far back is counted.
    pub window: Duration,
    /// How long it then stays down, whatever its checks say.
    pub hold: Duration,
}

/// So long after; a time that the clock cannot tell is as good as any other that never comes.
pub(super) fn later(now: Instant, duration: Duration) -> Instant {
    now.checked_add(duration).unwrap_or(now + Duration::from_secs(1 << 32))
}

/// How many results it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rules {
    /// Good results in a row that bring a target up; 0 counts as 1.
    pub(super) rise: u32,
    /// Bad ones in a row that take it down; 0 counts as 1.
    pub(super) fall: u32,
    pub(super) flaps: Option<Flaps>,
}

/// The state of one target, and what it depends on.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    state: State,
    since: Instant,
    /// Results in a row. One of the two is always 0.
    good: u32,
    bad: u32,
    /// When it last went down: as many times as can still count.
    downs: VecDeque<Instant>,
    held_until: Option<Instant>,
}

impl Machine {
    pub(super) fn new(initially: State, now: Instant) -> Self {
        Self { state: initially, since: now, good: 0, bad: 0, downs: VecDeque::new(), held_until: None }
    }

    pub(super) fn state(&self) -> State {
        self.state
    }

    /// When it came into this state.
    pub(super) fn since(&self) -> Instant {
        self.since
    }

    /// Good and bad results in a row.
    pub(super) fn in_a_row(&self) -> (u32, u32) {
        (self.good, self.bad)
    }

    /// Until when it stays down whatever its checks say.
    pub(super) fn held_until(&self, now: Instant) -> Option<Instant> {
        self.held_until.filter(|end| now < *end)
    }

    /// Takes in a result; true if the state is another now. `now` never goes back.
    pub(super) fn result(&mut self, good: bool, rules: &Rules, now: Instant) -> bool {
        (self.good, self.bad) = match good {
            true => (self.good.saturating_add(1), 0),
            false => (0, self.bad.saturating_add(1)),
        };
        let next = match self.state {
            State::Unknown if good => State::Up,
            State::Unknown => State::Down,
            State::Up if self.bad >= rules.fall.max(1) => State::Down,
            State::Down if self.good >= rules.rise.max(1) && self.held_until(now).is_none() => State::Up,
            unchanged => unchanged,
        };
        if next == self.state {
            return false;
        }
        // What was never known to be up has not flapped.
        if self.state == State::Up {
            self.note_down(rules.flaps, now);
        }
        self.state = next;
        self.since = now;
        true
    }

    fn note_down(&mut self, flaps: Option<Flaps>, now: Instant) {
        let Some(flaps) = flaps.filter(|flaps| flaps.limit > 0) else { return };
        self.downs.push_back(now);
        self.downs.retain(|down| now.duration_since(*down) < flaps.window);
        if self.downs.len() >= flaps.limit as usize {
            self.held_until = Some(later(now, flaps.hold));
            // Older ones cannot matter: the next `limit` times begin with one of these.
            while self.downs.len() >= flaps.limit as usize {
                self.downs.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn rules(rise: u32, fall: u32) -> Rules {
        Rules { rise, fall, flaps: None }
    }

    /// The states after each result, one a second.
    fn states(machine: &mut Machine, rules: &Rules, results: &str) -> String {
        let start = machine.since();
        let letters = results.chars().enumerate().map(|(second, result)| {
            machine.result(result == '+', rules, start + SECOND * second as u32);
            match machine.state() {
                State::Unknown => '?',
                State::Up => 'U',
                State::Down => 'D',
            }
        });
        letters.collect()
    }

    #[test]
    fn the_first_result_decides_when_nothing_is_known() {
        for (first, state) in [("+", "U"), ("-", "D")] {
            let mut machine = Machine::new(State::Unknown, Instant::now());
            assert_eq!(states(&mut machine, &rules(9, 9), first), state);
        }
    }

    #[test]
    fn it_takes_so_many_results_in_a_row() {
        let mut machine = Machine::new(State::Up, Instant::now());
        assert_eq!(states(&mut machine, &rules(2, 3), "--+---+-++-"), "UUUUUDDDDUU");
        let mut machine = Machine::new(State::Down, Instant::now());
        assert_eq!(states(&mut machine, &rules(2, 3), "+-++"), "DDDU");
        let mut machine = Machine::new(State::Up, Instant::now());
        assert_eq!(states(&mut machine, &rules(0, 0), "-+-"), "DUD", "0 counts as 1");
    }

    #[test]
    fn what_keeps_going_down_is_held_down() {
        let flaps = Some(Flaps { limit: 2, window: SECOND * 10, hold: SECOND * 5 });
        let rules = Rules { flaps, ..rules(1, 1) };
        let mut machine = Machine::new(State::Up, Instant::now());
        // Down at 0 and 2: held until 7.
        assert_eq!(states(&mut machine, &rules, "-+-++++++"), "DUDDDDDUU");
        let now = machine.since();
        assert_eq!(machine.held_until(now), None);
        assert_eq!(machine.held_until(now - SECOND), Some(now), "it came up as soon as it could");
    }

    #[test]
    fn times_out_of_the_window_do_not_count() {
        let flaps = Some(Flaps { limit: 2, window: SECOND * 3, hold: SECOND * 100 });
        let rules = Rules { flaps, ..rules(1, 1) };
        let mut machine = Machine::new(State::Up, Instant::now());
        assert_eq!(states(&mut machine, &rules, "-+++-+++-+-+"), "DUUUDUUUDUDD");
    }

    #[test]
    fn a_limit_of_0_holds_nothing() {
        let flaps = Some(Flaps { limit: 0, window: SECOND * 100, hold: SECOND * 100 });
        let rules = Rules { flaps, ..rules(1, 1) };
        let mut machine = Machine::new(State::Up, Instant::now());
        assert_eq!(states(&mut machine, &rules, "-+-+-+"), "DUDUDU");
    }

    /// The same by its definition: the whole history is looked through for each result.
    struct Model {
        initially: State,
        rules: Rules,
        /// Time, result, and the state after it.
        history: Vec<(Duration, bool, State)>,
    }

    impl Model {
        fn result(&mut self, good: bool, now: Duration) -> State {
            let before = self.history.last().map_or(self.initially, |(_, _, state)| *state);
            let alike = self.history.iter().rev().take_while(|(_, earlier, _)| *earlier == good).count() + 1;
            let needed = if good { self.rules.rise } else { self.rules.fall }.max(1) as usize;
            let after = match (before, good) {
                (State::Unknown, true) => State::Up,
                (State::Unknown, false) => State::Down,
                (State::Up, false) if alike >= needed => State::Down,
                (State::Down, true) if alike >= needed && !self.is_held(now) => State::Up,
                _ => before,
            };
            self.history.push((now, good, after));
            after
        }

        fn downs(&self) -> Vec<Duration> {
            let before =
                std::iter::once(self.initially).chain(self.history.iter().map(|(_, _, state)| *state));
            let changes = before.zip(&self.history);
            changes
                .filter(|(before, (_, _, after))| *before == State::Up && *after == State::Down)
                .map(|(_, (time, _, _))| *time)
                .collect()
        }

        /// Held, if any going down before was one of `limit` within the window, and its hold lasts.
        fn is_held(&self, now: Duration) -> bool {
            let Some(flaps) = self.rules.flaps else { return false };
            let downs = self.downs();
            downs.iter().enumerate().any(|(index, down)| {
                let within = downs[..=index].iter().filter(|earlier| *down - **earlier < flaps.window);
                flaps.limit > 0 && within.count() >= flaps.limit as usize && now < *down + flaps.hold
            })
        }
    }

    fn any_state() -> impl Strategy<Value = State> {
        prop_oneof![Just(State::Unknown), Just(State::Up), Just(State::Down)]
    }

    fn any_rules() -> impl Strategy<Value = Rules> {
        let flaps = (0u32..5, 0u64..60, 0u64..60).prop_map(|(limit, window, hold)| Flaps {
            limit,
            window: Duration::from_secs(window),
            hold: Duration::from_secs(hold),
        });
        (0u32..4, 0u32..4, proptest::option::of(flaps)).prop_map(|(rise, fall, flaps)| Rules {
            rise,
            fall,
            flaps,
        })
    }

    proptest! {
        #[test]
        fn it_does_as_its_definition_says(
            initially in any_state(),
            rules in any_rules(),
            results in proptest::collection::vec((any::<bool>(), 0u64..8), 0..200),
        ) {
            let start = Instant::now();
            let mut machine = Machine::new(initially, start);
            let mut model = Model { initially, rules, history: Vec::new() };
            let mut now = Duration::ZERO;
            for (good, pause) in results {
                now += Duration::from_secs(pause);
                let before = machine.state();
                let changed = machine.result(good, &rules, start + now);
                prop_assert_eq!(machine.state(), model.result(good, now));
                prop_assert_eq!(changed, before != machine.state());
                prop_assert_eq!(machine.held_until(start + now).is_some(), model.is_held(now));
                if changed {
                    prop_assert_eq!(machine.since(), start + now);
                }
            }
        }
    }
}
