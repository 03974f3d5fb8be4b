use proptest::prelude::*;

use super::super::simulated::{Simulated, settings, with};
use super::*;

const LINE: f64 = 14_880_952.0;

fn found(device: &mut Simulated, settings: &Settings) -> (Ceiling, Throughput) {
    with(device, settings, |runner| {
        let ceiling = ceiling(runner, LINE, Limit::Line).unwrap();
        let found = throughput(runner, &ceiling).unwrap();
        (ceiling, found)
    })
}

/// Whether a rate is the capacity, up to a resolution.
fn is_near(rate: Option<f64>, capacity: f64, resolution: f64) -> bool {
    rate.is_some_and(|rate| rate <= capacity * 1.000_001 && rate >= capacity * (1.0 - resolution) * 0.999)
}

proptest! {
    #[test]
    fn the_capacity_is_found_within_the_resolution(
        capacity in 2e3..LINE * 0.99, resolution in 0.001..0.2f64, held_up in 0u32..3
    ) {
        let settings = Settings { resolution, ..settings() };
        let mut device = Simulated { held_up, ..Simulated::new(capacity) };
        let (ceiling, found) = found(&mut device, &settings);
        if held_up > 0 && ceiling.limit == Limit::Sender {
            // It was held up in the very first trial: nothing above what it reached then was tried.
            prop_assert!(is_near(found.rate, capacity.min(ceiling.rate), resolution), "{found:?}");
        } else {
            prop_assert!(is_near(found.rate, capacity, resolution), "{found:?}");
            prop_assert_eq!(found.limit, None);
            let failed = found.failed_at.unwrap();
            prop_assert!(failed > capacity && failed - found.rate.unwrap() <= resolution * failed);
        }
        prop_assert!(found.tried.len() < 40, "{} trials", found.tried.len());
    }

    #[test]
    fn a_small_loss_may_be_allowed(capacity in 1e5..1e7, loss in 0.001..0.1f64) {
        let settings = Settings { loss, ..settings() };
        let (_, found) = found(&mut Simulated::new(capacity), &settings);
        // At a rate r the part 1 - capacity / r is lost.
        let highest = (capacity / (1.0 - loss)).min(LINE);
        prop_assert!(is_near(found.rate, highest, 0.011), "{:?} for {highest}", found.rate);
    }
}

#[test]
fn a_device_that_is_faster_than_the_line_is_limited_by_the_line() {
    let mut device = Simulated::new(2.0 * LINE);
    let (ceiling, found) = found(&mut device, &settings());
    assert_eq!((ceiling.limit, found.limit, found.failed_at), (Limit::Line, Some(Limit::Line), None));
    assert_eq!((found.rate, device.trials), (Some(LINE), 1));
}

#[test]
fn a_sender_that_is_slower_than_the_device_is_named_as_the_limit() {
    let mut device = Simulated { sender: 4e5, ..Simulated::new(1e6) };
    let (ceiling, found) = found(&mut device, &settings());
    assert_eq!((ceiling.limit, ceiling.rate), (Limit::Sender, 4e5));
    assert_eq!((found.rate, found.limit), (Some(4e5), Some(Limit::Sender)));
    // What was wanted was never sent, and is not believed.
    assert!(found.tried.iter().all(|tried| tried.sent_pps <= 4e5));
}

#[test]
fn a_sender_that_is_faster_than_the_device_only_just_does_not_hide_it() {
    let mut device = Simulated { sender: 4e5, ..Simulated::new(3.7e5) };
    let (_, found) = found(&mut device, &settings());
    assert!(is_near(found.rate, 3.7e5, 0.01), "{found:?}");
    assert_eq!(found.limit, None);
}

#[test]
fn a_device_that_forwards_nothing_is_said_to_and_the_search_ends() {
    let mut device = Simulated::new(0.0);
    let (_, found) = found(&mut device, &settings());
    assert_eq!((found.rate, found.limit), (None, None));
    assert!(found.outcome.is_none() && found.failed_at.is_some());
    assert!(device.trials < 25, "{}", device.trials);
}

#[test]
fn a_sender_that_sends_nothing_ends_the_search() {
    let mut device = Simulated { sender: 0.0, ..Simulated::new(1e6) };
    let (ceiling, found) = found(&mut device, &settings());
    assert_eq!((found.rate, ceiling.outcome.offered), (None, 0));
    assert!(device.trials < 25);
}

#[test]
fn now_and_then_a_lost_frame_is_overruled_by_repeats() {
    let close = |repeats| {
        let settings = Settings { repeats, ..settings() };
        // A third of all trials loses a frame whatever the rate.
        let mut device = Simulated { noise: 0.33, ..Simulated::new(1e6) };
        let results = (0..50).map(|_| found(&mut device, &settings).1);
        results.filter(|found| is_near(found.rate, 1e6, 0.03)).count()
    };
    let (once, often) = (close(1), close(15));
    assert!(often >= 40, "{often} of 50 with 15 repeats");
    assert!(once < often, "{once} without, {often} with");
}

#[test]
fn a_tie_is_no_majority() {
    let settings = Settings { repeats: 2, ..settings() };
    let mut device = Simulated { noise: 1.0, ..Simulated::new(1e6) };
    let (_, found) = found(&mut device, &settings);
    assert_eq!(found.rate, None);
}

#[test]
fn an_interruption_ends_the_search_at_once() {
    let mut device = Simulated { interrupted_after: 3, ..Simulated::new(1e6) };
    let stop = with(&mut device, &settings(), |runner| {
        let ceiling = ceiling(runner, LINE, Limit::Line).unwrap();
        throughput(runner, &ceiling).unwrap_err()
    });
    assert!(matches!(stop, Stop::Interrupted));
    assert_eq!(device.trials, 3);
}

#[test]
fn halvings_are_counted() {
    assert_eq!(trials_left((0.0, 100.0), 0.01), 7);
    assert_eq!(trials_left((99.5, 100.0), 0.01), 1);
    assert_eq!(trials_left((0.0, 0.0), 0.01), 1);
}
