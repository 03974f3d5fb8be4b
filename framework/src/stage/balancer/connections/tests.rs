//! Single behaviours one by one, and random histories against a plain map.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use proptest::prelude::*;

use super::super::flow::FlowHasher;
use super::bucket::MOST_AWAY;
use super::*;
use crate::packet::{FlowKey4, Protocol};

const REAL: RealId = RealId::new(1, 0);
const OTHER: RealId = RealId::new(2, 0);

fn flow(n: u32) -> FlowHash {
    let key = FlowKey4::new(Ipv4Addr::from(n), Ipv4Addr::LOCALHOST, Protocol::TCP, 40_000, 443);
    FlowHasher::new([11, 13]).hash_v4(&key)
}

fn after(time: Duration) -> Tick {
    Tick::at(Time::ZERO + Duration::from_secs(1000) + time)
}

fn seconds(n: u64) -> Tick {
    after(Duration::from_secs(n))
}

fn settled(counters: Counters) -> u64 {
    let Counters { expired, removed, evicted_closing, evicted_live, .. } = counters;
    expired + removed + evicted_closing + evicted_live
}

impl Connections {
    /// What a batch does for each of its packets.
    fn look_up(&mut self, flow: FlowHash, signal: Signal, now: Tick) -> Option<RealId> {
        self.prefetch(flow);
        self.lookup_first(flow, signal, now).or_else(|| self.lookup(flow, signal, now))
    }

    /// Asserts that each entry knows in which of its buckets it stands, and each bucket how many are in their second.
    fn assert_counts_agree(&self, flows: &HashMap<u64, FlowHash>) {
        let mut away = vec![0; self.buckets.len()];
        for place in (0..self.buckets.len()).flat_map(lanes_of) {
            let bucket = &self.buckets[place.bucket];
            let Some(flow) = flows.get(&bucket.tags[place.lane]) else {
                assert_eq!(bucket.tags[place.lane], 0, "an entry of nobody's");
                continue;
            };
            let first = first_bucket(*flow) & (self.buckets.len() - 1);
            let second = other_bucket(first, flow.tag) & (self.buckets.len() - 1);
            assert_eq!(place.bucket, if bucket.metas[place.lane].has(Meta::AWAY) { second } else { first });
            away[first] += usize::from(place.bucket != first);
        }
        let counted: Vec<_> = self.buckets.iter().map(Bucket::away).collect();
        assert_eq!(counted, away);
    }
}

/// Calls `tick` as often as a whole pass over the table needs.
fn sweep(connections: &mut Connections, now: Tick) {
    for _ in 0..=connections.buckets.len() as u64 * (1 + Sweep::AWAY * LANES as u64) / Sweep::MOST {
        connections.tick(now);
    }
}

#[test]
fn a_flow_stays_with_its_real() {
    let mut connections = Connections::new(100, Timeouts::default());
    assert_eq!(connections.look_up(flow(1), Signal::Open, seconds(0)), None);
    assert_eq!(connections.insert(flow(1), REAL, Signal::Open, seconds(0)), None);
    assert_eq!(connections.look_up(flow(1), Signal::Data, seconds(1)), Some(REAL));
    assert_eq!(connections.look_up(flow(2), Signal::Data, seconds(1)), None);
    assert_eq!((connections.len(), connections.connections_of(REAL)), (1, 1));
    assert_eq!(connections.remove(flow(1)), Some(REAL));
    assert_eq!(connections.look_up(flow(1), Signal::Data, seconds(1)), None);
    assert!(connections.is_empty());
}

#[test]
fn a_second_insert_moves_the_flow() {
    let mut connections = Connections::new(100, Timeouts::default());
    connections.insert(flow(1), REAL, Signal::Open, seconds(0));
    connections.insert(flow(1), OTHER, Signal::Open, seconds(0));
    assert_eq!(connections.peek(flow(1), seconds(0)).map(|c| c.real), Some(OTHER));
    assert_eq!(connections.len(), 1);
    assert_eq!((connections.connections_of(REAL), connections.connections_of(OTHER)), (0, 1));
}

#[test]
fn each_state_has_its_timeout() {
    let timeouts = Timeouts {
        opening: Duration::from_secs(10),
        established: Duration::from_secs(1000),
        closing: Duration::from_secs(20),
        datagram: Duration::from_secs(50),
    };
    for (signals, state, timeout) in [
        (&[Signal::Open][..], State::Opening, timeouts.opening),
        (&[Signal::Data], State::Opening, timeouts.opening),
        (&[Signal::Open, Signal::Data], State::Established, timeouts.established),
        (&[Signal::Open, Signal::Data, Signal::Close], State::Closing, timeouts.closing),
        (&[Signal::Open, Signal::Data, Signal::Close, Signal::Data], State::Closing, timeouts.closing),
        (&[Signal::Datagram], State::Opening, timeouts.opening),
        (&[Signal::Datagram, Signal::Datagram], State::Datagram, timeouts.datagram),
    ] {
        for by_lookup in [true, false] {
            let mut connections = Connections::new(1, timeouts);
            connections.insert(flow(1), REAL, signals[0], seconds(0));
            for &signal in &signals[1..] {
                assert_eq!(connections.look_up(flow(1), signal, seconds(0)), Some(REAL));
            }
            let just_before = timeout - Duration::from_millis(100);
            sweep(&mut connections, after(just_before));
            assert_eq!(connections.peek(flow(1), after(just_before)).unwrap().state, state);
            let over = after(timeout + Duration::from_millis(100));
            assert_eq!(connections.peek(flow(1), over), None, "over before anybody removed it");
            if by_lookup {
                assert_eq!(connections.look_up(flow(1), Signal::Data, over), None);
            } else {
                sweep(&mut connections, after(timeout + Duration::from_secs(11)));
            }
            assert_eq!((connections.len(), connections.counters().expired), (0, 1), "{signals:?}");
        }
    }
}

#[test]
fn use_keeps_a_connection() {
    let mut connections = Connections::new(10, Timeouts::default());
    connections.insert(flow(1), REAL, Signal::Open, seconds(0));
    for minute in 1..100 {
        let now = seconds(minute * if minute == 1 { 5 } else { 60 });
        connections.tick(now);
        assert_eq!(connections.look_up(flow(1), Signal::Data, now), Some(REAL), "minute {minute}");
    }
}

#[test]
fn a_client_that_uses_its_port_again_is_a_new_flow() {
    let mut connections = Connections::new(10, Timeouts::default());
    connections.insert(flow(1), REAL, Signal::Open, seconds(0));
    connections.look_up(flow(1), Signal::Close, seconds(1));
    assert_eq!(connections.look_up(flow(1), Signal::Open, seconds(2)), None);
    assert_eq!((connections.len(), connections.connections_of(REAL)), (0, 0));
}

/// Two buckets: each flow can stand anywhere, so what goes first is exactly known.
#[test]
fn the_closing_go_first_then_the_opening_then_the_longest_silent() {
    let mut connections = Connections::new(5, Timeouts::default());
    for n in 0..8 {
        connections.insert(flow(n), REAL, Signal::Open, seconds(0));
    }
    for n in [1, 2, 3, 4, 5, 6, 7] {
        connections.look_up(flow(n), Signal::Data, seconds(u64::from(10 - n)));
    }
    connections.look_up(flow(3), Signal::Close, seconds(9));
    // 3 is closing, 0 is opening; of the rest 7 is the longest silent.
    let mut order = Vec::new();
    for n in 8..11 {
        let evicted = connections.insert(flow(n), OTHER, Signal::Open, seconds(9)).expect("it is full");
        order.push(evicted.tag);
        // The newcomer shall not be the next to go.
        connections.look_up(flow(n), Signal::Data, seconds(9));
    }
    assert_eq!(order, [3, 0, 7].map(|n| flow(n).tag));
    let counters = connections.counters();
    assert_eq!((counters.evicted_closing, counters.evicted_live), (1, 2));
    assert_eq!((connections.connections_of(REAL), connections.connections_of(OTHER)), (5, 3));
}

#[test]
fn the_expired_make_room_before_anybody_is_evicted() {
    let mut connections = Connections::new(5, Timeouts::default());
    for n in 0..8 {
        connections.insert(flow(n), REAL, Signal::Open, seconds(0));
    }
    connections.look_up(flow(5), Signal::Data, seconds(1));
    assert_eq!(connections.insert(flow(8), REAL, Signal::Open, seconds(15)), None);
    // Those of the other bucket may wait for the sweep.
    let expired = connections.counters().expired;
    assert!(expired >= 3, "{expired}");
    assert_eq!(connections.len() as u64, 9 - expired);
}

#[test]
fn one_bucket_is_enough_for_those_that_are_at_home_in_it_and_others_come_home() {
    const CAPACITY: u32 = 87_381;
    let mut connections = Connections::new(CAPACITY as usize, Timeouts::default());
    for n in 0..CAPACITY {
        connections.insert(flow(n), REAL, Signal::Data, seconds(0));
    }
    let is_away = |connections: &Connections, flow| {
        let place = connections.find(flow).expect("it is there");
        connections.buckets.at(place.bucket).metas[place.lane].has(Meta::AWAY)
    };
    let mut away = Vec::new();
    for n in 0..CAPACITY {
        let found = connections.lookup_first(flow(n), Signal::Data, seconds(1));
        assert_eq!(found.is_none(), is_away(&connections, flow(n)), "{n}");
        if found.is_none() {
            away.push(n);
        }
    }
    assert!(away.len() < CAPACITY as usize / 10, "{} of {CAPACITY} are away", away.len());
    // With all others gone there is room at home, but for those that share it with more than three of their like.
    let (leave, stay): (Vec<u32>, Vec<u32>) = (0..CAPACITY).partition(|n| away.binary_search(n).is_err());
    for n in leave {
        connections.remove(flow(n));
    }
    for n in &stay {
        assert_eq!(connections.look_up(flow(*n), Signal::Data, seconds(2)), Some(REAL));
    }
    let left = stay.iter().filter(|n| is_away(&connections, flow(**n))).count();
    assert!(left * 100 < stay.len(), "{left} of {} are still away", stay.len());
    connections.assert_counts_agree(&stay.iter().map(|n| (flow(*n).tag, flow(*n))).collect());
}

#[test]
fn more_flows_of_one_bucket_than_it_can_count_are_all_found() {
    let mut connections = Connections::new(4000, Timeouts::default());
    let of_one = |n: u64| FlowHash { index: 0, tag: (2 * n + 1) << 32 | (n + 1) };
    for _ in 0..2 {
        for n in 0..300 {
            assert_eq!(connections.insert(of_one(n), REAL, Signal::Data, seconds(0)), None);
        }
        assert_eq!(connections.buckets[0].away(), MOST_AWAY);
        for n in 0..300 {
            assert_eq!(connections.remove(of_one(n)), Some(REAL), "{n}");
        }
        assert!(connections.is_empty() && connections.buckets[0].has_away());
    }
}

#[test]
fn filled_to_capacity_it_has_room_for_all() {
    // 87381 and 699050 are the most that 2^17 and 2^20 entries are meant for: the fullest that a table can be.
    for capacity in [1000, 87_381, 699_050] {
        let mut connections = Connections::new(capacity, Timeouts::default());
        for n in 0..capacity as u32 {
            assert_eq!(connections.insert(flow(n), REAL, Signal::Data, seconds(0)), None, "the {n}th");
        }
        assert_eq!(connections.connections_of(REAL), capacity as u32);
        for n in 0..capacity as u32 {
            assert_eq!(connections.look_up(flow(n), Signal::Data, seconds(1)), Some(REAL), "the {n}th");
        }
    }
}

#[test]
fn a_connection_takes_48_bytes_at_most() {
    for capacity in (1000..5000).chain([1 << 20, 1_398_101, 1 << 21]) {
        let bytes = Connections::new(capacity, Timeouts::default()).memory_bytes();
        assert!(bytes <= 48 * capacity, "{capacity}: {bytes}");
        assert!(!capacity.is_power_of_two() || bytes == 32 * capacity);
    }
}

#[test]
fn a_flood_of_syns_takes_nothing_from_the_established() {
    let mut connections = Connections::new(10_000, Timeouts::default());
    for n in 0..5000 {
        connections.insert(flow(n), REAL, Signal::Open, seconds(0));
        connections.look_up(flow(n), Signal::Data, seconds(0));
    }
    for n in 1_000_000..1_200_000 {
        connections.insert(flow(n), OTHER, Signal::Open, seconds(1));
    }
    let kept =
        (0..5000).filter(|&n| connections.look_up(flow(n), Signal::Data, seconds(2)) == Some(REAL)).count();
    assert!(kept >= 4999, "{kept} of 5000 kept");
    let counters = connections.counters();
    assert!(counters.evicted_live > 100_000);
    assert_eq!(counters.inserted, connections.len() as u64 + settled(counters));
}

#[test]
fn a_dump_in_pieces_shows_each_connection_once() {
    let mut connections = Connections::new(1000, Timeouts::default());
    for n in 0..700 {
        connections.insert(flow(n), RealId::new(n as u16, 0), Signal::Datagram, seconds(0));
    }
    let mut shown = Vec::new();
    let mut position = 0;
    loop {
        let before = shown.len();
        for (next, connection) in connections.iter_from(position, seconds(3)).take(64) {
            position = next;
            shown.push((connection.tag, connection.real));
            assert_eq!(connection.idle.as_secs_f64().round(), 3.0);
        }
        if shown.len() == before {
            break;
        }
    }
    shown.sort_unstable();
    let mut expected: Vec<_> = (0..700).map(|n| (flow(n).tag, RealId::new(n as u16, 0))).collect();
    expected.sort_unstable();
    assert_eq!(shown, expected);
    assert_eq!(connections.iter_from(0, seconds(60)).count(), 0, "what is over is not shown");
}

#[test]
fn the_sweep_keeps_its_pace_and_its_bound() {
    let mut connections = Connections::new(100_000, Timeouts::default());
    connections.tick(seconds(0));
    for n in 0..100_000 {
        connections.insert(flow(n), REAL, Signal::Open, seconds(0));
    }
    connections.tick(seconds(20));
    let visited = Sweep::MOST as usize;
    assert!(connections.counters().expired as usize <= visited * LANES, "bounded, however late");
    sweep(&mut connections, seconds(20));
    assert!(connections.is_empty());
    assert_eq!(connections.connections_of(REAL), 0);
}

#[test]
fn the_one_tag_that_means_empty_is_a_flow_like_others() {
    let mut connections = Connections::new(100, Timeouts::default());
    let zero = FlowHash { index: 0, tag: 0 };
    assert_eq!(connections.look_up(zero, Signal::Data, seconds(0)), None);
    connections.insert(zero, REAL, Signal::Data, seconds(0));
    assert_eq!(connections.look_up(zero, Signal::Data, seconds(0)), Some(REAL));
    assert_eq!(connections.len(), 1);
}

/// The same table as a map without bounds; evictions are told to it.
#[derive(Default)]
struct Model {
    entries: HashMap<u64, (RealId, State, Tick)>,
}

impl Model {
    fn is_over(timeouts: &Timeouts, state: State, seen: Tick, now: Tick) -> bool {
        let timeout = match state {
            State::Opening => timeouts.opening,
            State::Established => timeouts.established,
            State::Closing => timeouts.closing,
            State::Datagram => timeouts.datagram,
        };
        Tick::duration(now.since(seen)) >= timeout
    }

    fn lookup(&mut self, timeouts: &Timeouts, tag: u64, signal: Signal, now: Tick) -> Option<RealId> {
        let (real, state, seen) = *self.entries.get(&tag)?;
        let over = Self::is_over(timeouts, state, seen, now);
        let Some(state) = state.after(signal).filter(|_| !over) else {
            self.entries.remove(&tag);
            return None;
        };
        self.entries.insert(tag, (real, state, now));
        Some(real)
    }
}

fn any_signal() -> impl Strategy<Value = Signal> {
    prop_oneof![
        2 => Just(Signal::Open),
        4 => Just(Signal::Data),
        1 => Just(Signal::Close),
        2 => Just(Signal::Datagram),
    ]
}

#[derive(Clone, Debug)]
enum Step {
    /// A flow's packet, which may be looked for in the first bucket first.
    Packet(u32, Signal, bool),
    Remove(u32),
    Wait(u64),
    Tick,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => (0_u32..120, any_signal(), any::<bool>())
            .prop_map(|(flow, signal, first)| Step::Packet(flow, signal, first)),
        1 => (0_u32..120).prop_map(Step::Remove),
        4 => (0_u64..4000).prop_map(Step::Wait),
        3 => Just(Step::Tick),
    ]
}

proptest! {
    #[test]
    fn any_history_is_as_in_a_map(
        capacity in 1_usize..100,
        steps in prop::collection::vec(any_step(), 1..600),
    ) {
        let timeouts = Timeouts {
            opening: Duration::from_secs(5),
            established: Duration::from_secs(60),
            closing: Duration::from_secs(3),
            datagram: Duration::from_secs(20),
        };
        let mut connections = Connections::new(capacity, timeouts);
        let mut model = Model::default();
        let flows = (0..120).map(|n| (flow(n).tag, flow(n))).collect();
        let mut evicted = 0;
        let mut time = Duration::ZERO;
        for step in steps {
            let now = after(time);
            match step {
                Step::Packet(n, signal, first) => {
                    let flow = flow(n);
                    let real = if first {
                        connections.look_up(flow, signal, now)
                    } else {
                        connections.lookup(flow, signal, now)
                    };
                    prop_assert_eq!(real, model.lookup(&timeouts, flow.tag, signal, now));
                    if real.is_none() {
                        let real = RealId::new(n as u16 % 5, 0);
                        if let Some(gone) = connections.insert(flow, real, signal, now) {
                            evicted += 1;
                            let (real, state, seen) = model.entries.remove(&gone.tag).expect("it was there");
                            prop_assert_eq!((gone.real, gone.state), (real, state));
                            prop_assert!(!Model::is_over(&timeouts, state, seen, now));
                        }
                        model.entries.insert(flow.tag, (real, State::first(signal), now));
                    }
                }
                Step::Remove(n) => {
                    let removed = connections.remove(flow(n));
                    let expected = model.entries.remove(&flow(n).tag);
                    // Expired entries may or may not be there still.
                    if let Some((real, state, seen)) = expected
                        && !Model::is_over(&timeouts, state, seen, now)
                    {
                        prop_assert_eq!(removed, Some(real));
                    }
                }
                Step::Wait(ms) => time += Duration::from_millis(ms),
                Step::Tick => connections.tick(now),
            }
            let counters = connections.counters();
            prop_assert_eq!(counters.evicted_closing + counters.evicted_live, evicted);
            prop_assert_eq!(counters.inserted, connections.len() as u64 + settled(counters));
            connections.assert_counts_agree(&flows);
        }

        // Once all that is over was swept away, table and model are the same.
        let now = after(time);
        for bucket in 0..connections.buckets.len() {
            connections.expire(bucket, now);
        }
        model.entries.retain(|_, (_, state, seen)| !Model::is_over(&timeouts, *state, *seen, now));
        let left: HashMap<u64, (RealId, State)> =
            connections.iter_from(0, now).map(|(_, c)| (c.tag, (c.real, c.state))).collect();
        let expected: HashMap<u64, (RealId, State)> =
            model.entries.iter().map(|(&tag, &(real, state, _))| (tag, (real, state))).collect();
        prop_assert_eq!(connections.len(), expected.len());
        let closing = expected.values().filter(|(_, state)| *state == State::Closing).count();
        prop_assert_eq!(connections.closing(), closing);
        prop_assert_eq!(left, expected);
        for real in (0..5).map(|index| RealId::new(index, 0)) {
            let count = model.entries.values().filter(|(r, ..)| *r == real).count();
            prop_assert_eq!(connections.connections_of(real) as usize, count);
        }
    }
}
