//! HTTP checks.

use std::io::Write as _;
use std::ops::RangeInclusive;
use std::time::Duration;

use afx::control::health::{Check, Http, Kind, Tls};

use super::lab::{SHORT, host, is_up, often, why_down};
use super::server::{Requests, answer, request, serve};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

pub(crate) fn http(tls: Tls, statuses: &[RangeInclusive<u16>]) -> Http {
    Http { port: 80, tls, host: None, path: "/".to_owned(), statuses: statuses.to_vec() }
}

fn plain() -> Check {
    often(Kind::Http(http(Tls::Off, &[200..=399])))
}

fn impatient() -> Check {
    Check { timeout: SHORT, ..plain() }
}

#[track_caller]
fn asked(requests: &Requests) -> String {
    requests.lock().expect("nothing panics with it").first().expect("it was asked").clone()
}

#[test]
fn a_server_that_answers_well_is_up() {
    let host = host();
    let requests = answer(&host, "127.0.0.1:80", OK);
    is_up(&host, "127.0.0.1", plain());
    assert!(asked(&requests).starts_with("GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n"), "{}", asked(&requests));

    let requests = answer(&host, "[::1]:8080", OK);
    let http = Http { port: 8080, path: "/up?deep=1".to_owned(), ..http(Tls::Off, &[200..=200]) };
    is_up(&host, "::1", often(Kind::Http(http.clone())));
    assert!(asked(&requests).starts_with("GET /up?deep=1 HTTP/1.1\r\nHost: [::1]:8080\r\n"));

    let requests = answer(&host, "127.0.0.1:8080", OK);
    is_up(&host, "127.0.0.1", often(Kind::Http(Http { host: Some("example.org".to_owned()), ..http })));
    assert!(asked(&requests).contains("\r\nHost: example.org\r\n"));
}

#[test]
fn the_status_decides() {
    let host = host();
    answer(&host, "127.0.0.1:80", "HTTP/1.1 503 Service Unavailable\r\n\r\n");
    assert_eq!(why_down(&host, "127.0.0.1", plain()), "HTTP status 503, expected 200-399");
    let statuses = [200..=204, 503..=503];
    is_up(&host, "127.0.0.1", often(Kind::Http(http(Tls::Off, &statuses))));
    answer(&host, "127.0.0.2:80", "HTTP/1.0 404 Not Found\r\n\r\n");
    let why = why_down(&host, "127.0.0.2", often(Kind::Http(http(Tls::Off, &statuses))));
    assert_eq!(why, "HTTP status 404, expected 200-204, 503");
}

#[test]
fn redirects_are_not_followed() {
    let host = host();
    let elsewhere = answer(&host, "127.0.0.2:80", OK);
    answer(&host, "127.0.0.1:80", "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.2/\r\n\r\n");
    is_up(&host, "127.0.0.1", plain());
    let strict = often(Kind::Http(http(Tls::Off, &[200..=299])));
    assert_eq!(why_down(&host, "127.0.0.1", strict), "HTTP status 302, expected 200-299");
    assert!(elsewhere.lock().expect("nothing panics with it").is_empty());
}

#[test]
fn an_answer_may_come_in_pieces_and_after_others() {
    let host = host();
    serve(&host, "127.0.0.1:80", |mut stream| {
        request(&mut stream);
        for byte in b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nServer: slow\r\n\r\n" {
            if stream.write_all(&[*byte]).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    is_up(&host, "127.0.0.1", plain());
}

#[test]
fn a_body_without_end_does_not_matter() {
    let host = host();
    serve(&host, "127.0.0.1:80", |mut stream| {
        request(&mut stream);
        let head = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        if head.is_ok() {
            while stream.write_all(&[0; 4096]).is_ok() {}
        }
    });
    is_up(&host, "127.0.0.1", plain());
}

#[test]
fn the_timeout_is_for_the_whole_check() {
    let host = host();
    assert_eq!(why_down(&host, "10.0.0.1", impatient()), "connect to 10.0.0.1:80: no answer within 300 ms");

    serve(&host, "127.0.0.1:80", |stream| {
        std::thread::park();
        drop(stream);
    });
    assert_eq!(why_down(&host, "127.0.0.1", impatient()), "HTTP from 127.0.0.1:80: no answer within 300 ms");

    // Not for each byte: this one goes on for ever.
    serve(&host, "127.0.0.2:80", |mut stream| {
        request(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nLong: ");
        while stream.write_all(b"x").is_ok() {
            std::thread::sleep(Duration::from_millis(30));
        }
    });
    assert_eq!(why_down(&host, "127.0.0.2", impatient()), "HTTP from 127.0.0.2:80: no answer within 300 ms");
}

#[test]
fn what_is_no_answer_is_said() {
    let host = host();
    let why = why_down(&host, "127.0.0.1", plain());
    assert_eq!(why, "connect to 127.0.0.1:80: connection refused");

    serve(&host, "127.0.0.1:80", |mut stream| {
        request(&mut stream);
    });
    assert_eq!(why_down(&host, "127.0.0.1", plain()), "HTTP from 127.0.0.1:80: closed without an answer");

    answer(&host, "127.0.0.2:80", "HTTP/1.1 200 OK\r\nContent");
    let why = why_down(&host, "127.0.0.2", plain());
    assert_eq!(why, "HTTP from 127.0.0.2:80: closed within the head of the answer");

    answer(&host, "127.0.0.3:80", "SSH-2.0-OpenSSH_9.9\r\n");
    let why = why_down(&host, "127.0.0.3", plain());
    assert!(why.starts_with("HTTP from 127.0.0.3:80: no HTTP: "), "{why}");

    serve(&host, "127.0.0.4:80", |mut stream| {
        request(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n");
        while stream.write_all(b"Longer: and longer\r\n").is_ok() {}
    });
    let why = why_down(&host, "127.0.0.4", plain());
    assert!(why.starts_with("HTTP from 127.0.0.4:80: "), "{why}");
}
