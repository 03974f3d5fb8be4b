use std::time::Duration;

use proptest::prelude::*;

use super::super::search::Settings;
use super::super::simulated::{Simulated, settings, with};
use super::*;

const RATE: f64 = 1e6;

fn losses(device: &mut Simulated) -> Vec<(f64, f64)> {
    let mut rows = Vec::new();
    with(device, &settings(), |runner| {
        loss(runner, RATE, |row| rows.push((row.percent, row.outcome.loss())))
    })
    .unwrap();
    rows
}

#[test]
fn loss_is_measured_downwards_until_two_lose_nothing() {
    let rows = losses(&mut Simulated::new(0.75e6));
    let loads: Vec<_> = rows.iter().map(|row| row.0).collect();
    assert_eq!(loads, [100.0, 90.0, 80.0, 70.0, 60.0]);
    for ((_, found), right) in rows.iter().zip([0.25, 1.0 / 6.0, 0.0625, 0.0, 0.0]) {
        assert!((found - right).abs() < 1e-5, "{found} for {right}");
    }
    assert_eq!(losses(&mut Simulated::new(2e6)).len(), 2);
    // One that always loses some is measured down to the lowest load.
    assert_eq!(losses(&mut Simulated { noise: 1.0, ..Simulated::new(2e6) }).len(), 10);
}

#[test]
fn latency_is_measured_at_each_load_over_all_repeats() {
    let settings = Settings { repeats: 3, ..settings() };
    let mut rows = Vec::new();
    with(&mut Simulated::new(RATE), &settings, |runner| latency(runner, RATE, |row| rows.push(row))).unwrap();
    let found: Vec<_> = rows.iter().map(|row| (row.percent, row.rate, row.outcome.sent_rate)).collect();
    assert_eq!(found, [(10.0, 1e5, 1e5), (50.0, 5e5, 5e5), (90.0, 9e5, 9e5)]);
    for row in rows {
        let times = row.outcome.latency.percentiles().unwrap();
        assert_eq!((times.count, times.min, times.max), (3, 10_000, 10_000));
        assert_eq!(row.outcome.offered, (3.0 * 10.0 * row.rate) as u64);
    }
}

fn found(device: &mut Simulated, settings: &Settings) -> Bursts {
    let mut found = None;
    with(device, settings, |runner| bursts(runner, RATE, |bursts| found = Some(bursts))).unwrap();
    found.unwrap()
}

proptest! {
    #[test]
    fn the_longest_burst_is_found(buffer in 1.0..1e5f64, capacity in 0.0..0.9f64, resolution in 0.001..0.1f64) {
        let settings = Settings { resolution, ..settings() };
        let mut device = Simulated { buffer, ..Simulated::new(capacity * RATE) };
        let found = found(&mut device, &settings);
        // Of n frames the part 1 - capacity / rate has to be kept; less than one frame more is none.
        let right = (buffer + 1.0) / (1.0 - capacity);
        if right < found.tried_at_most as f64 {
            prop_assert!(found.mean() <= right + 1.0, "{} for {right}", found.mean());
            prop_assert!(found.mean() + 2.0 >= right * (1.0 - resolution), "{} for {right}", found.mean());
            let seconds = found.buffer_seconds(Some(capacity * RATE)).unwrap();
            prop_assert!(seconds <= (buffer + 2.0) / RATE, "{seconds} s");
        } else {
            prop_assert!(found.is_open());
        }
        prop_assert!(device.trials < 60);
    }
}

#[test]
fn a_device_that_is_fast_enough_takes_the_longest_burst() {
    let found = found(&mut Simulated::new(2.0 * RATE), &settings());
    assert_eq!((found.longest.as_slice(), found.tried_at_most), (&[2_000_000][..], 2_000_000));
    assert!(found.is_open());
    assert_eq!(found.buffer_seconds(Some(RATE)), None);
}

#[test]
fn a_device_that_forwards_nothing_takes_no_burst() {
    let mut device = Simulated { noise: 1.0, ..Simulated::new(0.0) };
    let found = found(&mut device, &settings());
    assert_eq!((found.longest.as_slice(), found.is_open()), (&[0][..], false));
    assert!(device.trials < 30);
}

#[test]
fn searches_are_averaged() {
    let settings = Settings { repeats: 4, burst: Duration::from_millis(1), ..settings() };
    let found = found(&mut Simulated { buffer: 100.0, ..Simulated::new(0.0) }, &settings);
    assert_eq!(found.longest.len(), 4);
    assert_eq!(found.mean(), found.longest[0] as f64);
    assert_eq!(found.tried_at_most, 1000);
}
