//! Lists of targets, replaced while their checks run.

use std::time::Duration;

use afx::control::health::{Check, Error, Kind, State, Target};

use super::lab::{checker, expect, host, often, target, wait_for};
use super::server::listen;

const PORT_80: Kind = Kind::Tcp { port: 80 };

#[test]
fn what_stays_goes_on_and_what_is_new_begins() {
    let host = host();
    let _server = listen(&host, "127.0.0.1:80");
    let checker = checker(&host, vec![target("stays", "127.0.0.1", often(PORT_80))]);
    expect(&checker, "stays", State::Unknown, State::Up);
    let before = wait_for(&checker, &"stays", |status| status.checks >= 5);

    let new = Target { initially: State::Up, ..target("new", "127.0.0.1", often(Kind::Tcp { port: 81 })) };
    checker.set(vec![target("stays", "127.0.0.1", often(PORT_80)), new]).expect("both can be checked");
    let after = wait_for(&checker, &"stays", |status| status.checks > before.checks);
    assert_eq!((after.state, after.since), (State::Up, before.since));
    expect(&checker, "new", State::Up, State::Down);

    checker.set(vec![target("new", "127.0.0.1", often(PORT_80))]).expect("it can be checked");
    assert_eq!(checker.states().len(), 1, "what is not on the list is forgotten");
    expect(&checker, "new", State::Unknown, State::Up);
}

#[test]
fn a_target_is_what_the_caller_says_until_enough_results_say_otherwise() {
    let host = host();
    let check = Check { fall: 3, rise: 3, ..often(PORT_80) };
    let server = listen(&host, "127.0.0.1:80");
    let up = Target { initially: State::Up, ..target("up", "127.0.0.1", check.clone()) };
    let down = Target { initially: State::Down, ..target("down", "127.0.0.1", check) };
    let checker = checker(&host, vec![up, down]);
    expect(&checker, "down", State::Down, State::Up);
    let status = wait_for(&checker, &"down", |status| status.good >= 3);
    assert_eq!(status.failed, 0);
    assert_eq!(wait_for(&checker, &"up", |status| status.good >= 3).state, State::Up);
    assert!(checker.events().try_recv().is_err(), "nothing happened to the other");
    drop(server);
}

#[test]
fn a_list_with_a_check_that_makes_no_sense_changes_nothing() {
    let host = host();
    let checker = checker(&host, vec![target("stays", "127.0.0.1", often(PORT_80))]);
    let senseless = Check { interval: Duration::ZERO, ..often(PORT_80) };
    let list = vec![target("new", "127.0.0.1", often(PORT_80)), target("odd", "127.0.0.2", senseless)];
    let error = checker.set(list).expect_err("one of them makes no sense");
    assert!(matches!(error, Error::Check { target, .. } if target == super::lab::ip("127.0.0.2")), "{error}");
    assert_eq!(error.to_string(), "the check of 127.0.0.2: its interval is to be above 0 and at most a year");
    let keys: Vec<_> = checker.states().iter().map(|status| status.key).collect();
    assert_eq!(keys, ["stays"]);
}
