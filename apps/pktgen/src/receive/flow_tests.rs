//! Against a model that remembers every packet.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const WINDOW: u64 = 128;

fn record_all(packets: impl IntoIterator<Item = (u32, u64)>) -> Flow {
    let (mut flow, mut seen) = (Flow::default(), [0; WINDOW as usize / 64]);
    packets.into_iter().for_each(|(sequence, time)| flow.record(sequence, time, &mut seen));
    flow
}

/// Of these sequences, sent at the same time.
fn record(sequences: impl IntoIterator<Item = u32>) -> Flow {
    record_all(sequences.into_iter().map(|sequence| (sequence, 0)))
}

/// What is to be counted of packets with these numbers, which do not wrap, in the order in which they came.
#[derive(Debug, Default, PartialEq)]
struct Model {
    lost: u64,
    distinct: u64,
    reordered: u64,
    extent: u64,
    duplicates: u64,
    too_late: u64,
}

impl Model {
    fn of(arrivals: &[u64]) -> Self {
        let mut model = Self::default();
        let mut came = BTreeSet::new();
        let mut begin = 0;
        for &number in arrivals {
            let Some(highest) = came.last().copied() else {
                came.insert(number);
                // A flow that is joined midway begins with its first packet.
                begin = if (number as u32 as u64) < WINDOW { number - number as u32 as u64 } else { number };
                continue;
            };
            if highest >= number + WINDOW {
                model.too_late += 1;
                model.reordered += 1;
            } else if !came.insert(number) {
                model.duplicates += 1;
            } else if number < highest {
                model.reordered += 1;
                model.extent = model.extent.max(came.range(number + 1..).count() as u64);
            }
        }
        if let (Some(lowest), Some(highest)) = (came.first(), came.last()) {
            model.distinct = came.len() as u64;
            model.lost = highest - lowest.min(&begin) + 1 - model.distinct;
        }
        model
    }

    fn from(flow: &Flow) -> Self {
        Self {
            lost: flow.lost(),
            distinct: flow.distinct(),
            reordered: flow.reordered,
            extent: flow.extent,
            duplicates: flow.duplicates,
            too_late: flow.too_late,
        }
    }
}

/// What a network does to packets: each is lost, doubled, or late by so many places.
#[derive(Debug, Clone)]
enum Fate {
    Arrives,
    Lost,
    Late(usize),
    Doubled(usize),
}

fn fates() -> impl Strategy<Value = Vec<Fate>> {
    let fate = prop_oneof![
        6 => Just(Fate::Arrives),
        1 => Just(Fate::Lost),
        1 => (1..300usize).prop_map(Fate::Late),
        1 => (0..300usize).prop_map(Fate::Doubled),
    ];
    prop::collection::vec(fate, 1..600)
}

fn arrivals(first: u64, fates: &[Fate]) -> Vec<u64> {
    let mut places = Vec::new();
    for (place, (number, fate)) in (first..).zip(fates).enumerate() {
        match fate {
            Fate::Arrives => places.push((place, number)),
            Fate::Lost => {}
            Fate::Late(by) => places.push((place + by, number)),
            Fate::Doubled(by) => places.extend([(place, number), (place + by, number)]),
        }
    }
    places.sort_by_key(|(place, _)| *place);
    places.into_iter().map(|(_, number)| number).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn all_is_counted_as_the_model_does(
        // From the start, midway, and over the end of the 32 bits.
        first in prop_oneof![
            Just(1u64 << 32),
            (0..1u64 << 20).prop_map(|first| (1 << 32) + first),
            (0..700u64).prop_map(|before| (2 << 32) - before),
        ],
        fates in fates(),
    ) {
        let arrivals = arrivals(first, &fates);
        let flow = record(arrivals.iter().map(|number| *number as u32));
        prop_assert_eq!(Model::from(&flow), Model::of(&arrivals));
        prop_assert_eq!(flow.received, arrivals.len() as u64);
        prop_assert_eq!(flow.received, flow.distinct() + flow.duplicates + flow.too_late);
    }

    #[test]
    fn parts_of_a_flow_that_several_have_counted_make_up_the_whole(
        // None twice, and none too late: what is a copy only beside the other part is not known as such.
        fates in prop::collection::vec(
            prop_oneof![6 => Just(Fate::Arrives), 1 => Just(Fate::Lost), 2 => (1..40usize).prop_map(Fate::Late)],
            100..600,
        ),
        sides in prop::collection::vec(any::<bool>(), 600),
    ) {
        let arrivals = arrivals(0, &fates);
        let part = |side: bool| {
            let of = arrivals.iter().zip(&sides).filter(move |(_, own)| **own == side);
            record(of.map(|(number, _)| *number as u32))
        };
        let (mut one, other) = (part(false), part(true));
        one.merge(&other);
        let (count, highest) = (arrivals.len() as u64, arrivals.iter().max().copied().unwrap_or(0));
        prop_assert_eq!((one.received, one.distinct(), one.joined), (count, count, false));
        prop_assert_eq!(one.lost(), highest + 1 - count);
    }
}

#[test]
fn what_is_missing_before_the_first_packet_is_lost() {
    assert_eq!(record([3, 4]).lost(), 3);
    assert!(!record([3, 4]).joined);
    let joined = record([1_000_000, 1_000_002]);
    assert_eq!((joined.lost(), joined.joined), (1, true));
}

#[test]
fn late_packets_are_taken_back_from_the_lost() {
    assert_eq!(record([0, 1, 5]).lost(), 3);
    let flow = record([0, 1, 5, 3]);
    assert_eq!((flow.lost(), flow.reordered, flow.extent), (2, 1, 1));
    let flow = record([0, 1, 5, 3, 2, 4]);
    assert_eq!((flow.lost(), flow.reordered, flow.extent), (0, 3, 2));
    // Before the first of a flow that was joined midway.
    let flow = record([1000, 998]);
    assert_eq!((flow.lost(), flow.reordered), (1, 1));
}

#[test]
fn copies_are_no_packets() {
    let flow = record([0, 1, 1, 1, 0, 2]);
    assert_eq!((flow.received, flow.distinct(), flow.duplicates, flow.reordered), (6, 3, 3, 0));
}

#[test]
fn sequences_wrap() {
    let flow = record([u32::MAX - 1, u32::MAX, 0, 2, 1]);
    assert_eq!((flow.lost(), flow.reordered, flow.distinct()), (0, 1, 5));
    let flow = record([0, 1 << 30, 1 << 31, 3 << 30, 0]);
    assert_eq!((flow.lost(), flow.distinct(), flow.reordered), ((1 << 32) + 1 - 5, 5, 0));
}

#[test]
fn a_sender_that_starts_anew_has_lost_nothing() {
    let sent = |from: u64, sequences: &[u32]| {
        let packets: Vec<_> = sequences.iter().map(|s| (*s, from + u64::from(*s))).collect();
        packets
    };
    let second = 1_000_000_000;
    let flow = record_all([sent(0, &[0, 1, 3]), sent(second, &[0, 2, 1])].concat());
    assert_eq!((flow.restarts, flow.lost(), flow.distinct(), flow.duplicates), (1, 1, 6, 0));
    assert_eq!((flow.reordered, flow.extent), (1, 1));
    // One of the first run comes after that.
    let flow = record_all([sent(0, &[0, 1, 3]), sent(second, &[0, 1]), sent(0, &[9])].concat());
    assert_eq!((flow.too_late, flow.lost(), flow.distinct()), (1, 1, 5));
}
