//! Many targets at once, half of which hang.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use afx::control::health::{Check, Checker, Kind, State, Target, Tls};

use super::http::http;
use super::lab::{PATIENCE, host};
use super::server::{answer, listen};

/// Whether the target with that key answers.
fn answers(key: u32) -> bool {
    key.is_multiple_of(2)
}

#[test]
fn those_that_hang_do_not_keep_those_that_answer() {
    let host = host();
    // All of 127.0.0.0/8 is this host; nobody answers for 10.0.0.0/8.
    let tcp = listen(&host, "0.0.0.0:81");
    std::thread::spawn(move || tcp.incoming().for_each(drop));
    answer(&host, "0.0.0.0:80", "HTTP/1.1 204 No Content\r\n\r\n");
    let targets = (0..1000u32).map(|key| {
        let [_, _, third, fourth] = (key + 256).to_be_bytes();
        let address: IpAddr = [if answers(key) { 127 } else { 10 }, 0, third, fourth].into();
        let kind = match key / 2 % 4 {
            0 => Kind::Icmp,
            1 => Kind::Http(http(Tls::Off, &[200..=299])),
            _ => Kind::Tcp { port: 81 },
        };
        // One that answers has all the time it wants: the machine may be busy.
        let timeout = if answers(key) { PATIENCE } else { Duration::from_secs(1) };
        Target { key, address, check: Check { timeout, ..Check::new(kind) }, initially: State::Unknown }
    });
    let checker = host.run(|| Checker::<u32>::start().expect("the system has threads"));
    checker.set(targets.collect()).expect("all can be checked");

    let deadline = Instant::now() + PATIENCE * 2;
    loop {
        let states = checker.states();
        assert_eq!(states.len(), 1000);
        for status in &states {
            assert_eq!(status.unable, 0, "{status:?}");
            assert_eq!(status.failed, if answers(status.key) { 0 } else { status.checks }, "{status:?}");
        }
        if states.iter().all(|status| status.checks >= 4) {
            for status in &states {
                let expected = if answers(status.key) { State::Up } else { State::Down };
                assert_eq!(status.state, expected, "{status:?}");
            }
            break;
        }
        assert!(Instant::now() < deadline, "{:?}", states.iter().min_by_key(|status| status.checks));
        std::thread::sleep(Duration::from_millis(100));
    }
    let mut told: Vec<_> = checker.events().try_iter().map(|event| (event.key, event.to)).collect();
    told.sort_unstable_by_key(|(key, _)| *key);
    let expected = |key| (key, if answers(key) { State::Up } else { State::Down });
    assert_eq!(told, (0..1000).map(expected).collect::<Vec<_>>(), "each once");
}
