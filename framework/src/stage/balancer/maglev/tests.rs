//! Published tables, the properties that the paper promises, and a slow second implementation.

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;
use serde_json::Value;

use super::super::flow::FlowHasher;
use super::*;
use crate::packet::{FlowKey4, Protocol};

const SEED: [u64; 2] = [0x6d61_676c, 0x6576];

fn reals(weights: impl IntoIterator<Item = u32>) -> Vec<(IpAddr, u32)> {
    (1..).map(|n: u32| IpAddr::from(Ipv4Addr::from(0x0a00_0000 + n))).zip(weights).collect()
}

fn slots_of(table: &Table, real: usize) -> usize {
    table.iter().filter(|&r| r == real).count()
}

fn preference(entry: &Value) -> Preference {
    Preference {
        offset: entry["offset"].as_u64().unwrap(),
        skip: entry["skip"].as_u64().unwrap() - 1,
        weight: entry.get("weight").map_or(1, |weight| weight.as_u64().unwrap() as u32),
    }
}

fn filled(m: &Value, backends: &[Value]) -> Vec<usize> {
    let size = TableSize::new(m.as_u64().unwrap() as u32).unwrap();
    let preferences: Vec<Preference> = backends.iter().map(preference).collect();
    Table::fill(size, &preferences).unwrap().iter().collect()
}

/// Tables published with the paper, by go-maglev and by Katran, in a file that is not part of the project.
#[test]
#[allow(clippy::print_stderr, reason = "says when there is nothing to compare with")]
fn published_vectors_come_out() {
    let folder = std::env::var("AFX_VECTORS")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/vectors").to_owned());
    let Ok(text) = std::fs::read_to_string(format!("{folder}/maglev.json")) else {
        eprintln!("skipped: no maglev.json in {folder} (set AFX_VECTORS)");
        return;
    };
    let vectors: Value = serde_json::from_str(&text).unwrap();

    let paper = &vectors["maglev_paper_example"];
    let backends = paper["backends"].as_array().unwrap();
    let names = |backends: &[Value]| -> Vec<Value> {
        filled(&paper["m"], backends).into_iter().map(|real| backends[real]["name"].clone()).collect()
    };
    assert_eq!(Value::from(names(backends)), paper["table_all"]);
    let without_b1: Vec<Value> = backends.iter().filter(|b| b["name"] != "B1").cloned().collect();
    assert_eq!(Value::from(names(&without_b1)), paper["table_after_b1_removed"]);

    let go = &vectors["go_maglev_example"];
    let backends = go["backends"].as_array().unwrap();
    let indices = |backends: &[Value]| -> Vec<Value> {
        filled(&go["m"], backends).into_iter().map(|real| backends[real]["index"].clone()).collect()
    };
    assert_eq!(Value::from(indices(backends)), go["table_all"]);
    let without_1: Vec<Value> = backends.iter().filter(|b| b["index"] != 1).cloned().collect();
    assert_eq!(Value::from(indices(&without_1)), go["table_after_1_removed"]);

    let cases = vectors["fill_vectors"]["cases"].as_array().unwrap();
    assert!(!cases.is_empty());
    for case in cases {
        let table = filled(&case["m"], case["backends"].as_array().unwrap());
        assert_eq!(Value::from(table), case["table_cumulative_weight"], "{}", case["name"]);
    }
}

#[test]
fn removing_one_real_of_a_hundred_moves_few_other_slots() {
    let all = reals([1; 100]);
    let before = Table::of_addresses(TableSize::DEFAULT, SEED, &all).unwrap();
    for removed in [0, 17, 50, 99] {
        let mut left = all.clone();
        left.remove(removed);
        let after = Table::of_addresses(TableSize::DEFAULT, SEED, &left).unwrap();
        let others: Vec<(IpAddr, IpAddr)> = before
            .iter()
            .zip(after.iter())
            .filter(|&(old, _)| old != removed)
            .map(|(old, new)| (all[old].0, left[new].0))
            .collect();
        let moved = others.iter().filter(|(old, new)| old != new).count();
        assert!(moved * 1000 < others.len() * 15, "{moved} of {} moved", others.len());
    }
}

#[test]
fn draining_moves_the_same_slots_as_removing() {
    let mut all = reals([10; 8]);
    let removed = Table::of_addresses(TableSize::DEFAULT, SEED, &all[..7]).unwrap();
    all[7].1 = 0;
    let drained = Table::of_addresses(TableSize::DEFAULT, SEED, &all).unwrap();
    assert_eq!(drained, removed);
}

#[test]
fn weights_share_out_the_slots_to_within_one() {
    // Every order of turns: which real's turn comes last in the last round decides who gets the remainder.
    for rotation in 0..10 {
        let mut weights: Vec<u32> = (1..=10).collect();
        for order in [false, true] {
            weights.rotate_left(rotation);
            if order {
                weights.reverse();
            }
            let table = Table::of_addresses(TableSize::DEFAULT, SEED, &reals(weights.clone())).unwrap();
            for (real, &weight) in weights.iter().enumerate() {
                let exact = 65_537.0 * f64::from(weight) / 55.0;
                let slots = slots_of(&table, real);
                assert!(
                    (slots as f64 - exact).abs() <= 1.0,
                    "weight {weight}: {slots} slots, exactly {exact}"
                );
            }
        }
    }
}

#[test]
fn random_flows_meet_the_weights() {
    let flows = 100_000_u32;
    let hasher = FlowHasher::new(SEED);
    for weights in [vec![1; 10], (1..=10).collect::<Vec<u32>>()] {
        let total: u32 = weights.iter().sum();
        let table = Table::of_addresses(TableSize::DEFAULT, SEED, &reals(weights.clone())).unwrap();
        let mut count = vec![0_u32; weights.len()];
        for n in 0..flows {
            let flow = hasher.hash_v4(&FlowKey4::new(
                Ipv4Addr::from(n / 7),
                Ipv4Addr::LOCALHOST,
                Protocol::TCP,
                n as u16,
                80,
            ));
            count[table.lookup(flow).unwrap()] += 1;
        }
        for (&weight, &count) in weights.iter().zip(&count) {
            let p = f64::from(weight) / f64::from(total);
            let mean = f64::from(flows) * p;
            let deviation = (mean * (1.0 - p)).sqrt();
            assert!(
                (f64::from(count) - mean).abs() <= 4.0 * deviation,
                "weight {weight} of {total}: {count} flows, expected {mean:.0} with deviation {deviation:.0}"
            );
        }
    }
}

#[test]
fn the_order_in_which_reals_are_told_does_not_matter() {
    let all = reals([3, 1, 4, 1, 5, 9, 2, 6]);
    let mut shuffled = all.clone();
    shuffled.rotate_left(3);
    shuffled.swap(0, 5);
    let owners = |reals: &[(IpAddr, u32)]| -> Vec<IpAddr> {
        let table = Table::of_addresses(TableSize::DEFAULT, SEED, reals).unwrap();
        table.iter().map(|real| reals[real].0).collect()
    };
    assert_eq!(owners(&all), owners(&shuffled));
}

#[test]
fn another_seed_gives_another_table() {
    let table = |seed| Table::of_addresses(TableSize::DEFAULT, seed, &reals([1; 4])).unwrap();
    assert_ne!(table([1, 1]), table([1, 2]));
}

#[test]
fn reals_may_have_ipv6_addresses() {
    let reals: Vec<(IpAddr, u32)> = (0..5).map(|n| (Ipv6Addr::from(n).into(), 2)).collect();
    let table = Table::of_addresses(TableSize::DEFAULT, SEED, &reals).unwrap();
    for real in 0..reals.len() {
        assert!((13_107..=13_108).contains(&slots_of(&table, real)));
    }
}

#[test]
fn a_drained_real_gets_nothing_and_a_single_one_everything() {
    let table = Table::of_addresses(TableSize::DEFAULT, SEED, &reals([0, 7, 0])).unwrap();
    assert_eq!(table.iter().len(), 65_537);
    assert_eq!(slots_of(&table, 1), 65_537);
}

#[test]
fn no_weight_no_real() {
    let flow = FlowHash { index: 1, tag: 1 };
    for none in [reals([]), reals([0, 0])] {
        assert_eq!(Table::of_addresses(TableSize::DEFAULT, SEED, &none).unwrap().lookup(flow), None);
    }
}

#[test]
fn the_first_and_the_last_hash_have_a_slot() {
    let table = Table::of_addresses(TableSize::new(7).unwrap(), SEED, &reals([1, 1])).unwrap();
    let at = |index| table.lookup(FlowHash { index, tag: 0 });
    assert_eq!(at(0), table.iter().next());
    assert_eq!(at(u64::MAX), table.iter().last());
}

#[test]
fn a_size_that_is_not_prime_names_its_neighbours() {
    assert_eq!(
        TableSize::new(65_536).unwrap_err().to_string(),
        "a table of 65536 slots is not possible, since 65536 is not prime: the nearest primes are 65521 and 65537"
    );
    assert_eq!(
        TableSize::new(0).unwrap_err().to_string(),
        "a table of 0 slots is not possible, since 0 is not prime: the nearest prime is 2"
    );
    assert_eq!(
        TableSize::new(u32::MAX).unwrap_err().to_string(),
        "a table of 4294967295 slots is too large: the largest has 8388593"
    );
    for prime in [2, 3, 7, 65_537, 655_373, TableSize::MAX.slots()] {
        assert_eq!(TableSize::new(prime).map(TableSize::slots), Ok(prime));
    }
}

#[test]
fn more_reals_than_slots_are_refused() {
    let error = Table::of_addresses(TableSize::new(7).unwrap(), SEED, &reals([1; 8])).unwrap_err();
    assert_eq!(error, TooManyReals { reals: 8, slots: 7 });
    let many = reals(vec![1; MAX_REALS + 1]);
    let error = Table::of_addresses(TableSize::new(655_373).unwrap(), SEED, &many).unwrap_err();
    assert_eq!(error.to_string(), "65537 reals in a table of 655373 slots: at most 65536 can have a place");
}

/// The paper's pseudocode round by round, with whole permutations written out.
fn slow_model(size: u64, preferences: &[Preference]) -> Vec<usize> {
    let total: u64 = preferences.iter().map(|p| u64::from(p.weight)).sum();
    let heaviest = preferences.iter().map(|p| u64::from(p.weight)).max().unwrap_or(0);
    if total == 0 {
        return Vec::new();
    }
    let mut wanted: Vec<std::collections::VecDeque<u64>> = preferences
        .iter()
        .map(|p| (0..size).map(|j| (p.offset % size + j * (p.skip % (size - 1) + 1)) % size).collect())
        .collect();
    let mut gained = vec![0; preferences.len()];
    let mut table = vec![None; size as usize];
    loop {
        for (real, p) in preferences.iter().enumerate() {
            gained[real] += u64::from(p.weight);
            if gained[real] < heaviest {
                continue;
            }
            gained[real] -= heaviest;
            let has = table.iter().filter(|&&owner| owner == Some(real)).count() as u64;
            if has * total >= size * u64::from(p.weight) {
                continue; // Its exact share is met.
            }
            while let Some(slot) = wanted[real].pop_front() {
                if table[slot as usize].is_none() {
                    table[slot as usize] = Some(real);
                    break;
                }
            }
            if table.iter().all(Option::is_some) {
                return table.into_iter().flatten().collect();
            }
        }
    }
}

proptest! {
    #[test]
    fn agrees_with_the_slow_model(
        size in prop::sample::select(vec![2_u32, 3, 7, 13, 101, 251]),
        reals in prop::collection::vec((any::<u64>(), any::<u64>(), 0_u32..30), 0..20),
    ) {
        let preferences: Vec<Preference> = reals
            .into_iter()
            .take(size as usize)
            .map(|(offset, skip, weight)| Preference { offset, skip, weight })
            .collect();
        let table = Table::fill(TableSize::new(size).unwrap(), &preferences).unwrap();
        prop_assert_eq!(table.iter().collect::<Vec<_>>(), slow_model(u64::from(size), &preferences));
    }
}
