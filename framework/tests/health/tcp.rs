//! TCP checks.

use std::io::Read as _;
use std::sync::mpsc::channel;
use std::time::Duration;

use afx::control::health::{Check, Kind, State};

use super::lab::{SHORT, checker, expect, host, is_up, often, target, unable, wait_for, why_down};
use super::server::listen;

const PORT_80: Kind = Kind::Tcp { port: 80 };

#[test]
fn a_server_is_up_while_it_listens() {
    let host = host();
    for (address, at) in [("127.0.0.1", "127.0.0.1:80"), ("::1", "[::1]:80")] {
        let server = listen(&host, at);
        let checker = checker(&host, vec![target("server", address, often(PORT_80))]);
        assert_eq!(expect(&checker, "server", State::Unknown, State::Up), None);
        drop(server);
        let why = expect(&checker, "server", State::Up, State::Down);
        assert_eq!(why, Some(format!("connect to {at}: connection refused")));
        let _server = listen(&host, at);
        assert_eq!(expect(&checker, "server", State::Down, State::Up), None);
    }
}

#[test]
fn it_takes_as_many_results_as_asked_for() {
    let host = host();
    let server = listen(&host, "127.0.0.1:80");
    let check = Check { rise: 3, fall: 4, ..often(PORT_80) };
    let checker = checker(&host, vec![target("server", "127.0.0.1", check)]);
    expect(&checker, "server", State::Unknown, State::Up);
    drop(server);
    expect(&checker, "server", State::Up, State::Down);
    let failed = wait_for(&checker, &"server", |status| status.bad >= 4);
    assert!(failed.failed >= 4 && failed.good == 0, "{failed:?}");
    let _server = listen(&host, "127.0.0.1:80");
    expect(&checker, "server", State::Down, State::Up);
    let status = wait_for(&checker, &"server", |status| status.good >= 3);
    assert_eq!((status.bad, status.unable), (0, 0));
    assert!(status.checks >= 8 && status.last_error.is_some_and(|error| error.contains("refused")));
}

#[test]
fn a_server_that_does_not_answer_is_down_after_the_timeout() {
    let host = host();
    for (address, at) in [("10.0.0.1", "10.0.0.1:80"), ("fd00:10::1", "[fd00:10::1]:80")] {
        let why = why_down(&host, address, Check { timeout: SHORT, ..often(PORT_80) });
        assert_eq!(why, format!("connect to {at}: no answer within 300 ms"));
    }
}

#[test]
fn a_server_that_no_route_leads_to_is_down() {
    let host = host();
    let why = why_down(&host, "203.0.113.1", often(PORT_80));
    assert_eq!(why, "connect to 203.0.113.1:80: network is unreachable");
}

#[test]
fn the_connection_is_reset() {
    let host = host();
    let server = listen(&host, "127.0.0.1:80");
    let _checker = checker(&host, vec![target("server", "127.0.0.1", often(PORT_80))]);
    let (mut stream, _) = server.accept().expect("it is checked");
    let error = stream.read(&mut [0]).expect_err("nothing is sent, and there is no orderly end");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn a_check_without_a_local_port_says_nothing_of_the_server() {
    let host = host();
    host.sysctl("ipv4/ip_local_port_range", "40000 40000");
    let server = listen(&host, "127.0.0.1:80");
    // Takes the only port there is.
    let taken = host.run(|| std::net::TcpStream::connect("127.0.0.1:80").expect("one port is there"));
    let checker = checker(&host, vec![target("server", "127.0.0.1", often(PORT_80))]);
    let status = wait_for(&checker, &"server", |status| status.unable > 3);
    let sentence = unable(&status).expect("it stays so");
    assert_eq!(sentence, "cannot connect to 127.0.0.1:80: cannot assign requested address");
    assert_eq!((status.state, status.checks), (State::Unknown, 0));
    // Reset: a port in TIME_WAIT would be taken as well.
    nix::sys::socket::setsockopt(
        &taken,
        nix::sys::socket::sockopt::Linger,
        &libc::linger { l_onoff: 1, l_linger: 0 },
    )
    .expect("it is a socket");
    drop(taken);
    expect(&checker, "server", State::Unknown, State::Up);
    drop(server);
}

#[test]
fn one_that_flaps_is_held_down() {
    let host = host();
    let flaps = afx::control::health::Flaps {
        limit: 2,
        window: Duration::from_secs(3600),
        hold: Duration::from_secs(3600),
    };
    let check = Check { flaps: Some(flaps), ..often(PORT_80) };
    let checker = checker(&host, vec![target("server", "127.0.0.1", check)]);
    expect(&checker, "server", State::Unknown, State::Down);
    for _ in 0..2 {
        let server = listen(&host, "127.0.0.1:80");
        expect(&checker, "server", State::Down, State::Up);
        drop(server);
        expect(&checker, "server", State::Up, State::Down);
    }
    let _server = listen(&host, "127.0.0.1:80");
    let status = wait_for(&checker, &"server", |status| status.good > 5);
    assert_eq!(status.state, State::Down, "its checks go well, but it is not believed");
    let left = status.held_until.expect("it is held").saturating_duration_since(std::time::Instant::now());
    assert!(left > Duration::from_secs(3000), "{left:?}");
}

#[test]
fn checks_run_where_the_checker_was_started() {
    let (host, other) = (host(), host());
    let _server = listen(&host, "127.0.0.1:80");
    is_up(&host, "127.0.0.1", often(PORT_80));
    why_down(&other, "127.0.0.1", often(PORT_80));
    // Also when another thread, elsewhere, says what to check.
    let checker = checker(&host, Vec::new());
    let (tell, told) = channel();
    other.run(move || {
        checker.set(vec![target("server", "127.0.0.1", often(PORT_80))]).expect("it can be checked");
        tell.send(checker).expect("the test waits for it");
    });
    expect(&told.recv().expect("sent just now"), "server", State::Unknown, State::Up);
}
