//! Requests and answers over a real socket, good and bad ones, and many at once.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::{Value, json};

use super::fake::{Balancer, Fake, SOON};
use super::protocol::Ask;

fn error(balancer: &Balancer, request: &Value) -> String {
    balancer.client().call(request).unwrap_err().to_string()
}

#[test]
fn what_is_not_understood_is_said() {
    let balancer = Balancer::start(Fake::new());
    for (request, part) in [
        (json!({}), "missing field `do`"),
        (json!({"do": "dance"}), "unknown variant `dance`, expected one of `status`"),
        (json!({"do": 7}), "not understood"),
        (json!({"do": "status", "loud": true}), "unknown field `loud`"),
        (json!({"do": "reals", "vips": []}), "unknown field `vips`"),
        (json!({"do": "reals", "vip": "198.51.100.10"}), "names no VIP: the protocol is missing"),
        (json!({"do": "real-add", "vip": "192.0.2.1:1/tcp"}), "missing field `real`"),
        (
            json!({"do": "real-weight", "vip": "192.0.2.1:1/tcp", "real": "10.0.0.1", "weight": 65536}),
            "0 to 65535",
        ),
        (json!({"do": "real-weight", "vip": "192.0.2.1:1/tcp", "real": "10.0.0.1", "weight": -1}), "-1"),
        (
            json!({"do": "real-drain", "vip": "192.0.2.1:1/tcp", "real": "10.0.0.1", "deadline_seconds": -1}),
            "no time",
        ),
        (
            json!({"do": "real-drain", "vip": "192.0.2.1:1/tcp", "real": "10.0.0.1", "deadline_seconds": 1e300}),
            "no time",
        ),
        (json!({"do": "connections", "state": "open"}), "unknown variant `open`"),
        (json!({"do": "connections", "vip": "192.0.2.1:1/tcp"}), "there is no VIP 192.0.2.1:1/tcp"),
        (
            json!({"do": "explain", "source": "192.0.2.1:1", "destination": "[::1]:1", "protocol": "tcp"}),
            "families",
        ),
    ] {
        let error = error(&balancer, &request);
        assert!(error.contains(part), "{request}: {error}");
    }
    assert!(balancer.stop().asked.is_empty());
}

#[test]
fn many_connections_come_in_parts() {
    let balancer = Balancer::start(Fake::new().with_connections(100_000));
    let mut parts = Vec::new();
    let end = balancer.client().stream(&json!({"do": "connections"}), |part| parts.push(part)).unwrap();
    assert_eq!(end, json!({"matched": 100_000, "complete": true}));
    let lengths: Vec<_> = parts.iter().map(|part| part.as_array().unwrap().len()).collect();
    assert_eq!(lengths.iter().sum::<usize>(), 100_000);
    assert!(lengths.iter().all(|length| (1..=256).contains(length)));
    assert_eq!(parts[0][1]["tag"], "3c6ef372fe94f82a");

    let limited = balancer.client().stream(&json!({"do": "connections", "limit": 100_000}), |_| {}).unwrap();
    assert_eq!(limited, json!({"matched": 100_000, "complete": true}), "there are just as many");
}

#[test]
fn a_client_that_does_not_read_holds_nobody_up() {
    let balancer = Balancer::start(Fake::new().with_connections(100_000));
    let stuck: Vec<_> = (0..5)
        .map(|_| {
            let mut stream = UnixStream::connect(&balancer.socket).unwrap();
            stream.write_all(b"{\"do\":\"connections\"}\n").unwrap();
            stream
        })
        .collect();
    for _ in 0..20 {
        assert_eq!(balancer.client().call(&json!({"do": "status"})).unwrap()["pid"], 4242);
    }
    // Two of them go, the others read in the end: each gets all of its answer.
    let mut stuck = stuck.into_iter();
    stuck.by_ref().take(2).for_each(drop);
    for stream in stuck {
        stream.set_read_timeout(Some(SOON)).unwrap();
        let lines = BufReader::new(stream).lines();
        let last = lines.map(Result::unwrap).find(|line| line.starts_with("{\"ok\"")).unwrap();
        assert_eq!(last, "{\"ok\":{\"complete\":true,\"matched\":100000}}");
    }
}

#[test]
fn many_may_ask_at_once() {
    let balancer = Balancer::start(Fake::new());
    std::thread::scope(|scope| {
        for client in 0..20 {
            let mut client_of = balancer.client();
            scope.spawn(move || {
                for round in 0..20 {
                    let flow = json!({"do": "explain", "source": format!("192.0.2.{client}:{}", 1000 + round),
                        "destination": "198.51.100.10:443", "protocol": "tcp"});
                    let explained = client_of.call(&flow).unwrap();
                    assert_eq!(explained["flow"]["source"], flow["source"]);
                    assert_eq!(explained["real"], "10.0.0.11");
                }
            });
        }
    });
}

#[test]
fn a_drain_that_nobody_waits_for_any_more_goes_on() {
    let balancer = Balancer::start(Fake::new());
    let drain =
        json!({"do": "real-drain", "vip": "198.51.100.10:443/tcp", "real": "10.0.0.11", "wait": true});
    let mut stream = UnixStream::connect(&balancer.socket).unwrap();
    writeln!(stream, "{drain}").unwrap();
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line).unwrap();
    assert!(line.starts_with("{\"more\":"), "{line}");
    drop(stream);
    assert_eq!(balancer.client().call(&json!({"do": "status"})).unwrap()["pid"], 4242);
    let fake = balancer.stop();
    assert!(fake.reals[0].drain.is_some());
    assert!(matches!(fake.asked[..], [Ask::RealDrain(_)]));
}

#[test]
fn who_waits_at_the_end_is_told() {
    let balancer = Balancer::start(Fake::new());
    let drain =
        json!({"do": "real-drain", "vip": "198.51.100.10:443/tcp", "real": "10.0.0.11", "wait": true});
    let (begun, beginning) = crossbeam::channel::bounded(1);
    let mut client = balancer.client();
    let waiting = std::thread::spawn(move || {
        client.stream(&drain, |_| {
            let _ = begun.try_send(());
        })
    });
    beginning.recv_timeout(SOON).unwrap();
    balancer.stop();
    let error = waiting.join().unwrap().unwrap_err().to_string();
    assert_eq!(error, "the program ended before it had answered");
}

#[test]
fn neither_socket_nor_metrics_need_be() {
    let mut control = super::Control::start(None, None).unwrap();
    control.wait(crossbeam::channel::Select::new(), Duration::from_millis(1));
    control.turn(&mut Fake::new());
    assert_eq!(control.metrics_address(), None);

    let folder = tempfile::tempdir().unwrap();
    let error = |socket: &str, metrics: &str| {
        let made = super::Control::start(Some(&folder.path().join(socket)), Some(metrics.parse().unwrap()));
        made.err().unwrap().to_string()
    };
    assert!(error("missing/afx-lb.sock", "127.0.0.1:0").starts_with("no folder for the socket: "));
    assert!(error("afx-lb.sock", "192.0.2.1:1").starts_with("metrics cannot be served at 192.0.2.1:1: "));
    assert!(!folder.path().join("afx-lb.sock").exists(), "nothing is left behind");
}
