//! Which targets there are, when each is due, and what came of its checks. It does no check itself, and is
//! told the time.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasher as _, RandomState};
use std::time::{Duration, Instant};

use crossbeam::channel::{Sender, TrySendError};

use super::machine::{Machine, State, later};
use super::target::Target;
use super::{Event, Outcome, Status};

/// First checks are so far apart when their targets have come together, unless the interval is too short for
/// that.
const APART: Duration = Duration::from_millis(5);

/// A target's number, never used again.
pub(super) type Id = u64;

pub(super) struct Schedule<K> {
    entries: HashMap<Id, Entry<K>>,
    ids: BTreeMap<K, Id>,
    /// Targets that no check runs for, in the order in which they are due.
    due: BTreeSet<(Instant, Id)>,
    /// Targets whose state is another than the reader of events was told.
    unreported: BTreeSet<Id>,
    random: Random,
    last: Id,
}

struct Entry<K> {
    target: Target<K>,
    machine: Machine,
    /// When the next check is due, or the one that runs now has to be over.
    due: Instant,
    reported: State,
    last: Option<(Outcome, Instant)>,
    last_error: Option<String>,
    duration: Option<Duration>,
    checks: u64,
    failed: u64,
    unable: u64,
    late: u64,
    longest_delay: Duration,
}

impl<K: Clone + Ord> Schedule<K> {
    pub(super) fn new() -> Self {
        Self {
            entries: HashMap::new(),
            ids: BTreeMap::new(),
            due: BTreeSet::new(),
            unreported: BTreeSet::new(),
            random: Random::default(),
            last: 0,
        }
    }

    /// Replaces the list. Returns the targets that are no more: checks of theirs are to be given up.
    pub(super) fn set(&mut self, targets: Vec<Target<K>>, now: Instant) -> Vec<Id> {
        let mut wanted: BTreeMap<K, Target<K>> =
            targets.into_iter().map(|target| (target.key.clone(), target)).collect();
        let mut gone = Vec::new();
        self.ids.retain(|key, id| {
            let known = &self.entries[id].target;
            let stays = wanted
                .get(key)
                .is_some_and(|target| target.address == known.address && target.check == known.check);
            match stays {
                true => drop(wanted.remove(key)),
                false => gone.push(*id),
            }
            stays
        });
        for id in &gone {
            if let Some(entry) = self.entries.remove(id) {
                self.due.remove(&(entry.due, *id));
                self.unreported.remove(id);
            }
        }
        let count = u32::try_from(wanted.len()).unwrap_or(u32::MAX);
        for (index, (key, target)) in wanted.into_iter().enumerate() {
            let spread = target.check.interval.min(APART.saturating_mul(count));
            let place = (index as f64 + self.random.part()) / f64::from(count);
            let due = later(now, spread.mul_f64(place));
            self.last += 1;
            self.ids.insert(key, self.last);
            self.due.insert((due, self.last));
            self.entries.insert(self.last, Entry::new(target, due, now));
        }
        gone
    }

    /// When the next check is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Takes out a target that is due, for a check that begins now; [`end`](Self::end) puts it back.
    pub(super) fn begin(&mut self, now: Instant) -> Option<(Id, &Target<K>)> {
        let (due, id) = *self.due.first().filter(|(due, _)| *due <= now)?;
        self.due.remove(&(due, id));
        let entry = self.entries.get_mut(&id)?;
        let delay = now.duration_since(due);
        let check = &entry.target.check;
        entry.longest_delay = entry.longest_delay.max(delay);
        entry.late += u64::from(delay > check.interval / 10);
        let jitter = f64::from(check.jitter_percent) / 100.0 * (2.0 * self.random.part() - 1.0);
        let step = check.interval.mul_f64(1.0 + jitter);
        entry.due = later(due, step);
        if entry.due <= now {
            // All are behind when this process was stopped for a while: they are not to go on all at once.
            entry.due = later(now, step.mul_f64(self.random.part()));
        }
        Some((id, &entry.target))
    }

    /// Puts back a target whose check could not begin yet.
    pub(super) fn postpone(&mut self, id: Id, until: Instant) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.due = until;
            self.due.insert((until, id));
        }
    }

    /// Takes in what came of a check that began so long before `now`.
    pub(super) fn end(&mut self, id: Id, outcome: Outcome, duration: Duration, now: Instant) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        // Due long ago, unless this check has ended in time.
        self.due.insert((entry.due, id));
        entry.duration = Some(duration);
        let sentence = match &outcome {
            Outcome::Good => None,
            Outcome::Bad(sentence) | Outcome::Unable(sentence) => Some(sentence.clone()),
        };
        let is_good = sentence.is_none();
        if let Outcome::Unable(reason) = &outcome {
            if !matches!(entry.last, Some((Outcome::Unable(_), _))) {
                tracing::warn!(address = %entry.target.address, %reason, "a health check cannot be made");
            }
            entry.unable += 1;
        } else {
            entry.checks += 1;
            entry.failed += u64::from(!is_good);
        }
        entry.last_error = sentence.or(entry.last_error.take());
        let says_something = !matches!(outcome, Outcome::Unable(_));
        entry.last = Some((outcome, now));
        if says_something && entry.machine.result(is_good, &entry.target.check.rules(), now) {
            self.unreported.insert(id);
        }
    }

    /// Tells the reader of events what he does not know. One who is behind is told later, and then only of
    /// the state that a target is in: what is waiting to be told does not grow. False if there is something
    /// left to tell.
    pub(super) fn report(&mut self, events: &Sender<Event<K>>) -> bool {
        while let Some(id) = self.unreported.first().copied() {
            let Some(entry) = self.entries.get_mut(&id) else {
                self.unreported.remove(&id);
                continue;
            };
            let to = entry.machine.state();
            if to != entry.reported {
                let why = entry.last_error.clone().filter(|_| to == State::Down);
                let key = entry.target.key.clone();
                let event = Event { key, from: entry.reported, to, why, at: entry.machine.since() };
                match events.try_send(event) {
                    Err(TrySendError::Full(_)) => return false,
                    // Without a reader there is nobody to tell.
                    Ok(()) | Err(TrySendError::Disconnected(_)) => entry.reported = to,
                }
            }
            self.unreported.remove(&id);
        }
        true
    }

    /// What is known of each target, in the order of their keys.
    pub(super) fn states(&self, now: Instant) -> Vec<Status<K>> {
        self.ids.values().filter_map(|id| self.entries.get(id)).map(|entry| entry.status(now)).collect()
    }
}

impl<K: Clone> Entry<K> {
    fn new(target: Target<K>, due: Instant, now: Instant) -> Self {
        Self {
            machine: Machine::new(target.initially, now),
            reported: target.initially,
            target,
            due,
            last: None,
            last_error: None,
            duration: None,
            checks: 0,
            failed: 0,
            unable: 0,
            late: 0,
            longest_delay: Duration::ZERO,
        }
    }

    fn status(&self, now: Instant) -> Status<K> {
        let (good, bad) = self.machine.in_a_row();
        Status {
            key: self.target.key.clone(),
            state: self.machine.state(),
            since: self.machine.since(),
            held_until: self.machine.held_until(now),
            last: self.last.as_ref().map(|(outcome, _)| outcome.clone()),
            last_at: self.last.as_ref().map(|(_, at)| *at),
            last_error: self.last_error.clone(),
            duration: self.duration,
            good,
            bad,
            checks: self.checks,
            failed: self.failed,
            unable: self.unable,
            late: self.late,
            longest_delay: self.longest_delay,
        }
    }
}

/// Random numbers to spread checks with: the standard library's hash of a count, under its random key.
#[derive(Default)]
pub(super) struct Random {
    key: RandomState,
    drawn: u64,
}

impl Random {
    pub(super) fn bits(&mut self) -> u64 {
        self.drawn += 1;
        self.key.hash_one(self.drawn)
    }

    /// From 0 to below 1.
    fn part(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use crossbeam::channel::bounded;

    use super::super::target::{Check, Kind};
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn target(key: u32, interval: Duration) -> Target<u32> {
        let check = Check { interval, rise: 1, fall: 1, ..Check::new(Kind::Icmp) };
        Target { key, address: [127, 0, 0, 1].into(), check, initially: State::Unknown }
    }

    fn targets(count: u32) -> Vec<Target<u32>> {
        (0..count).map(|key| target(key, SECOND * 2)).collect()
    }

    fn bad() -> Outcome {
        Outcome::Bad("it is tired".to_owned())
    }

    /// Begins and ends all checks that are due by then, and returns when each began.
    fn check(schedule: &mut Schedule<u32>, until: Instant, outcome: &Outcome) -> Vec<Instant> {
        let mut begun = Vec::new();
        while let Some(now) = schedule.next().filter(|next| *next <= until) {
            let (id, _) = schedule.begin(now).expect("it is due");
            schedule.end(id, outcome.clone(), Duration::ZERO, now);
            begun.push(now);
        }
        begun
    }

    #[test]
    fn first_checks_are_spread_evenly() {
        for (count, whole) in [(10, 50), (400, 2000), (4000, 2000)] {
            let start = Instant::now();
            let mut schedule = Schedule::new();
            schedule.set(targets(count), start);
            let whole = Duration::from_millis(whole);
            let mut per_part = vec![0; 10];
            for (due, _) in &schedule.due {
                per_part[((*due - start).as_nanos() * 10 / whole.as_nanos()) as usize] += 1;
            }
            assert_eq!(per_part, vec![count / 10; 10]);
        }
    }

    #[test]
    fn checks_keep_their_interval_but_for_jitter() {
        let start = Instant::now();
        let mut schedule = Schedule::new();
        schedule.set(targets(1), start);
        let begun = check(&mut schedule, start + SECOND * 10_000, &Outcome::Good);
        for pair in begun.windows(2) {
            let step = pair[1] - pair[0];
            assert!((1.8..=2.2).contains(&step.as_secs_f64()), "{step:?}");
        }
        assert!((4900..5100).contains(&begun.len()), "{} in 10,000 s", begun.len());
        let status = &schedule.states(start)[0];
        assert_eq!((status.checks, status.late), (begun.len() as u64, 0));
    }

    #[test]
    fn what_stays_on_the_list_keeps_its_state_and_its_schedule() {
        let start = Instant::now();
        let mut schedule = Schedule::new();
        schedule.set(targets(3), start);
        check(&mut schedule, start + SECOND, &bad());
        let (before, due) = (schedule.states(start), schedule.due.clone());
        let other_check = target(1, SECOND);
        let other_address = Target { address: [127, 0, 0, 2].into(), ..target(2, SECOND * 2) };
        let same = Target { initially: State::Up, ..target(0, SECOND * 2) };
        let gone = schedule.set(vec![same, other_check, other_address, target(3, SECOND)], start);
        assert_eq!(gone, [2, 3]);
        let after = schedule.states(start);
        assert_eq!(after[0], before[0]);
        assert!(due.is_superset(&schedule.due.iter().filter(|(_, id)| *id == 1).copied().collect()));
        assert_eq!(schedule.due.len(), 4);
        let states: Vec<_> = after.iter().map(|status| (status.key, status.state, status.checks)).collect();
        let unknown = State::Unknown;
        assert_eq!(states, [(0, State::Down, 1), (1, unknown, 0), (2, unknown, 0), (3, unknown, 0)]);

        assert_eq!(schedule.set(Vec::new(), start).len(), 4);
        assert!(schedule.due.is_empty() && schedule.entries.is_empty() && schedule.unreported.is_empty());
    }

    #[test]
    fn of_two_targets_with_one_key_the_last_counts() {
        let start = Instant::now();
        let mut schedule = Schedule::new();
        schedule.set(vec![target(1, SECOND), Target { initially: State::Up, ..target(1, SECOND) }], start);
        let states = schedule.states(start);
        assert_eq!((states.len(), states[0].state), (1, State::Up));
    }

    #[test]
    fn a_check_that_outlasts_its_interval_puts_off_the_next_and_is_counted() {
        let start = Instant::now();
        let mut schedule = Schedule::new();
        schedule.set(targets(1), start);
        let began = schedule.next().expect("one is due");
        let (id, _) = schedule.begin(began).expect("it is due");
        assert_eq!(schedule.next(), None, "one at a time");
        let ended = began + SECOND * 5;
        schedule.end(id, bad(), SECOND * 5, ended);
        assert!(schedule.begin(ended).is_some());
        let status = &schedule.states(ended)[0];
        assert_eq!((status.late, status.duration), (1, Some(SECOND * 5)));
        assert!(status.longest_delay >= Duration::from_millis(2800), "{status:?}");
    }

    #[test]
    fn a_check_of_a_target_that_has_gone_says_nothing() {
        let start = Instant::now();
        let mut schedule = Schedule::new();
        schedule.set(targets(1), start);
        let (id, _) = schedule.begin(start + SECOND).expect("it is due");
        schedule.set(Vec::new(), start);
        schedule.end(id, Outcome::Good, SECOND, start);
        assert_eq!((schedule.next(), schedule.states(start)), (None, Vec::new()));
    }

    #[test]
    fn after_a_stop_of_the_process_checks_are_spread_anew() {
        let start = Instant::now();
        let mut schedule = Schedule::new();
        schedule.set(targets(1000), start);
        let woken = start + SECOND * 60;
        while let Some((id, _)) = schedule.begin(woken) {
            schedule.end(id, Outcome::Good, Duration::ZERO, woken);
        }
        let soon = schedule.due.iter().filter(|(due, _)| *due < woken + SECOND).count();
        assert!((300..700).contains(&soon), "{soon} of 1,000 within half an interval");
        assert!(schedule.states(woken).iter().all(|status| status.late == 1));
    }

    #[test]
    fn a_check_that_could_not_be_made_changes_nothing() {
        let start = Instant::now();
        let mut schedule = Schedule::new();
        schedule.set(targets(1), start);
        check(&mut schedule, start + SECOND, &Outcome::Good);
        check(&mut schedule, start + SECOND * 100, &Outcome::Unable("no descriptors".to_owned()));
        let status = &schedule.states(start)[0];
        assert_eq!((status.state, status.checks, status.failed, status.good), (State::Up, 1, 0, 1));
        assert!(status.unable > 40);
        assert_eq!(status.last, Some(Outcome::Unable("no descriptors".to_owned())));
        assert_eq!(status.last_error.as_deref(), Some("no descriptors"));
    }

    #[test]
    fn a_reader_who_is_behind_is_told_where_it_ended() {
        let start = Instant::now();
        let mut schedule = Schedule::new();
        schedule.set(targets(3), start);
        let (tell, told) = bounded(1);
        check(&mut schedule, start + SECOND, &bad());
        assert!(!schedule.report(&tell), "two are left");
        let first = told.try_recv().expect("one has room");
        assert_eq!((first.key, first.from, first.to), (0, State::Unknown, State::Down));
        assert_eq!(first.why.as_deref(), Some("it is tired"));

        schedule.report(&tell);
        // The third comes up before the reader knows that it went down.
        check(&mut schedule, start + SECOND * 4, &Outcome::Good);
        let mut events = Vec::new();
        for _ in 0..9 {
            events.extend(told.try_recv().map(|event| (event.key, event.from, event.to, event.why)));
            schedule.report(&tell);
        }
        let why = Some("it is tired".to_owned());
        let (unknown, up, down) = (State::Unknown, State::Up, State::Down);
        events.sort_by_key(|(key, ..)| *key);
        assert_eq!(
            events,
            [(0, down, up, None), (1, unknown, down, why), (1, down, up, None), (2, unknown, up, None)]
        );
        drop(told);
        check(&mut schedule, start + SECOND * 9, &bad());
        assert!(schedule.report(&tell), "nobody is left to be told");
    }
}
