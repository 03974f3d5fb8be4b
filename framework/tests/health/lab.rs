//! What all tests here need: a network, a checker in it, and patience.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use afx::control::health::{Check, Checker, Event, Kind, Outcome, State, Status, Target};

use super::namespace::Namespace;

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// For checks that are to run into it.
pub(crate) const SHORT: Duration = Duration::from_millis(300);

/// A host with loopback and a link, on which packets to 10.0.0.0/8 and fd00:10::/32 are never answered.
pub(crate) fn host() -> Namespace {
    let host = Namespace::new();
    for command in [
        "link set lo up",
        "link add lan type veth peer name far",
        "link set lan up",
        "link set far up",
        "addr add 192.0.2.1/24 dev lan",
        "addr add 2001:db8::1/64 dev lan nodad",
        "neigh add 192.0.2.2 lladdr 02:00:00:00:00:99 dev lan nud permanent",
        "neigh add 2001:db8::2 lladdr 02:00:00:00:00:99 dev lan nud permanent",
        "route add 10.0.0.0/8 via 192.0.2.2",
        "route add fd00:10::/32 via 2001:db8::2",
    ] {
        host.ip(command);
    }
    host
}

/// Checks often, believes every result, and is patient.
pub(crate) fn often(kind: Kind) -> Check {
    let interval = Duration::from_millis(50);
    Check { interval, timeout: PATIENCE, rise: 1, fall: 1, ..Check::new(kind) }
}

pub(crate) fn ip(address: &str) -> IpAddr {
    address.parse().expect("the tests name addresses")
}

pub(crate) fn target(key: &'static str, address: &str, check: Check) -> Target<&'static str> {
    Target { key, address: ip(address), check, initially: State::Unknown }
}

/// A checker in that namespace.
pub(crate) fn checker(host: &Namespace, targets: Vec<Target<&'static str>>) -> Checker<&'static str> {
    let checker = host.run(|| Checker::start().expect("the system has threads"));
    checker.set(targets).expect("these checks can be made");
    checker
}

/// The next event, which is this one; returns why.
#[track_caller]
pub(crate) fn expect<K: Clone + Ord + Send + std::fmt::Debug + 'static>(
    checker: &Checker<K>,
    key: K,
    from: State,
    to: State,
) -> Option<String> {
    let event: Event<K> = checker.events().recv_timeout(PATIENCE).unwrap_or_else(|_| {
        panic!("no event of {key:?}, {from:?} to {to:?}; it is {:?}", checker.states());
    });
    assert_eq!((&event.key, event.from, event.to), (&key, from, to), "{event:?}");
    event.why
}

/// The one target's first state is that it is down; returns why.
#[track_caller]
pub(crate) fn why_down(host: &Namespace, address: &str, check: Check) -> String {
    let checker = checker(host, vec![target("it", address, check)]);
    expect(&checker, "it", State::Unknown, State::Down).expect("what goes down has a reason")
}

/// The one target's first state is that it is up.
#[track_caller]
pub(crate) fn is_up(host: &Namespace, address: &str, check: Check) {
    let checker = checker(host, vec![target("it", address, check)]);
    assert_eq!(expect(&checker, "it", State::Unknown, State::Up), None);
}

/// Waits until the checker says this of a target.
#[track_caller]
pub(crate) fn wait_for<K: Clone + Ord + Send + std::fmt::Debug + 'static>(
    checker: &Checker<K>,
    key: &K,
    is_so: impl Fn(&Status<K>) -> bool,
) -> Status<K> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let states = checker.states();
        let status = states.into_iter().find(|status| status.key == *key).expect("it is on the list");
        if is_so(&status) {
            return status;
        }
        assert!(Instant::now() < deadline, "it stayed {status:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The sentence of a check that could not be made.
pub(crate) fn unable<'a>(status: &'a Status<&'static str>) -> Option<&'a str> {
    match &status.last {
        Some(Outcome::Unable(sentence)) => Some(sentence),
        _ => None,
    }
}
