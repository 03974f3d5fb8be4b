//! The command socket as its clients meet it, good and bad ones.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;

/// For what should happen at once.
const SOON: Duration = Duration::from_secs(20);

/// A program that says what it was asked, and counts up where it is asked to.
struct Program {
    folder: TempDir,
    path: PathBuf,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Program {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("program.sock");
        let server = Server::bind(&path).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let Ok(request) = server.requests().recv_timeout(Duration::from_millis(10)) else { continue };
                match request.body["do"].as_str() {
                    Some("forget") => drop(request),
                    Some("fail") => request.reply(Err("it would not do".into())),
                    Some("count") => {
                        for number in 0..3 {
                            request.more(number.into()).unwrap();
                        }
                        request.reply(Ok("counted".into()));
                    }
                    _ => {
                        let body = request.body.clone();
                        request.reply(Ok(body));
                    }
                }
            }
        });
        Self { folder, path, stop, thread: Some(thread) }
    }

    fn client(&self) -> Client {
        Client::connect(&self.path).unwrap().within(SOON)
    }

    /// A client with manners of its own.
    fn raw(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.path).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream
    }

    /// Whether it still answers others.
    fn answers(&self) {
        assert_eq!(self.client().call(&json!({"do": "echo"})).unwrap(), json!({"do": "echo"}));
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().unwrap().join();
        if !std::thread::panicking() {
            ended.unwrap();
            assert!(!self.path.exists(), "the socket is gone with the program");
        }
    }
}

fn line(stream: &UnixStream) -> Value {
    let mut line = String::new();
    BufReader::with_capacity(1, stream).read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
}

/// Everything until the other side closes.
fn rest(mut stream: &UnixStream) -> String {
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    rest
}

/// A socket at which nobody has listened since a process was killed.
fn left_behind(folder: &Path) -> PathBuf {
    let path = folder.join("left.sock");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    path
}

#[test]
fn one_connection_takes_several_requests() {
    let program = Program::start();
    let mut client = program.client();
    for number in 0..100 {
        let request = json!({"do": "echo", "number": number, "text": "ü\n\"\u{0}"});
        assert_eq!(client.call(&request).unwrap(), request);
    }
    let refused = client.call(&json!({"do": "fail"})).unwrap_err();
    assert_eq!(refused.to_string(), "it would not do");
    let mut parts = Vec::new();
    assert_eq!(client.stream(&json!({"do": "count"}), |part| parts.push(part)).unwrap(), "counted");
    assert_eq!(parts, [0, 1, 2]);
    let forgotten = client.call(&json!({"do": "forget"})).unwrap_err();
    assert_eq!(forgotten.to_string(), "the program ended before it had answered");
    assert_eq!(client.call(&json!({})).unwrap(), json!({}), "it goes on after all that");
}

#[test]
fn requests_may_come_all_at_once_and_the_last_without_an_end_of_line() {
    let program = Program::start();
    let stream = program.raw();
    (&stream).write_all(b"{\"a\":1}\n\r\n  \n{\"a\":2}\n{\"a\":3}").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(&stream), "{\"ok\":{\"a\":1}}\n{\"ok\":{\"a\":2}}\n{\"ok\":{\"a\":3}}\n");
}

#[test]
fn the_socket_is_its_owners_alone_at_any_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("program.sock");
    let (done, seen) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                if let Ok(file) = std::fs::symlink_metadata(&path) {
                    assert_eq!(file.permissions().mode() & 0o777, 0o600);
                    seen.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        // Until it was seen often enough, at whatever moment.
        let deadline = Instant::now() + SOON;
        while seen.load(Ordering::Relaxed) < 200 && Instant::now() < deadline {
            let server = Server::bind(&path).unwrap();
            assert_eq!(std::fs::symlink_metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            drop(server);
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(seen.load(Ordering::Relaxed) > 0);
}

#[test]
fn a_socket_left_behind_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = left_behind(folder.path());
    let error = Client::connect(&path).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "nobody answers at {}: the program is not running, the socket was left behind",
            path.display()
        )
    );
    let server = Server::bind(&path).unwrap();
    assert!(Client::connect(&path).is_ok());
    drop(server);
    assert!(!path.exists());
    assert!(matches!(Client::connect(&path), Err(ClientError::NoSocket { .. })));
}

#[test]
fn of_many_who_want_a_path_one_gets_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = left_behind(folder.path());
    let (start, end) = (Arc::new(Barrier::new(8)), Arc::new(Barrier::new(8)));
    let bind = |_| {
        let (path, start, end) = (path.clone(), start.clone(), end.clone());
        std::thread::spawn(move || {
            start.wait();
            let server = Server::bind(&path);
            end.wait();
            let message = server.as_ref().err().map(ToString::to_string);
            assert!(message.is_none_or(|message| message.starts_with("socket path taken: ")));
            server.is_ok()
        })
    };
    let threads: Vec<_> = (0..8).map(bind).collect();
    assert_eq!(threads.into_iter().map(|thread| u32::from(thread.join().unwrap())).sum::<u32>(), 1);
}

#[test]
fn a_path_where_somebody_answers_is_left_to_them() {
    let program = Program::start();
    let error = Server::bind(&program.path).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "socket path taken: {}: another process answers there; stop that one, or give this one another path",
            program.path.display()
        )
    );
    program.answers();
}

#[test]
fn a_path_where_somebody_is_who_does_not_accept_is_left_to_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("program.sock");
    let stuck = socket(AddressFamily::Unix, SockType::Stream, SockFlag::empty(), None).unwrap();
    bind(stuck.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
    listen(&stuck, Backlog::new(0).unwrap()).unwrap();
    let _waiting = Client::connect(&path).unwrap();
    assert!(matches!(Server::bind(&path), Err(SocketError::Taken { .. })));
    assert!(matches!(Client::connect(&path), Err(ClientError::NoAnswer { .. })));
    assert!(path.exists());
}

#[test]
fn what_cannot_be_a_socket_is_said_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "precious").unwrap();
    let message = |path: &Path| Server::bind(path).unwrap_err().to_string();
    assert!(message(&file).starts_with(&format!("no socket: {}: ", file.display())));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");

    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    assert!(message(&link).starts_with("no socket: "));

    let missing = folder.path().join("missing/program.sock");
    assert!(message(&missing).starts_with("no folder for the socket: "), "{}", message(&missing));
    assert!(message(&file.join("program.sock")).starts_with("no folder for the socket: "));
    assert!(message(&folder.path().join("x".repeat(108))).contains("too long"));
    assert!(matches!(
        Server::bind("/proc/program.sock"),
        Err(SocketError::Permission { .. } | SocketError::Other { .. })
    ));
}

#[test]
fn a_file_that_is_anothers_by_now_is_not_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("program.sock");
    let first = Server::bind(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let second = Server::bind(&path).unwrap();
    drop(first);
    assert!(path.exists());
    assert!(Client::connect(&path).is_ok());
    drop(second);
    assert!(!path.exists());
}

#[test]
fn garbage_is_answered_and_hurts_nobody() {
    let program = Program::start();
    let stream = program.raw();
    for garbage in [&b"what?"[..], b"[1, 2]", b"\"text\"", b"{\"a\":", b"\xff\xfe{}", b"{} {}", b"\0\0\0"] {
        (&stream).write_all(garbage).unwrap();
        (&stream).write_all(b"\n").unwrap();
        let answer = line(&stream);
        let error = answer["error"].as_str().unwrap_or_else(|| panic!("{answer}"));
        assert!(error.starts_with("the request is no JSON object on one line: "), "{error}");
    }
    let deep = format!("{{\"a\":{}}}\n", "[".repeat(50_000));
    (&stream).write_all(deep.as_bytes()).unwrap();
    assert!(line(&stream)["error"].is_string());
    (&stream).write_all(b"{\"still\":true}\n").unwrap();
    assert_eq!(line(&stream), json!({"ok": {"still": true}}));
    program.answers();
}

#[test]
fn a_request_may_have_64_kib_and_no_more() {
    let program = Program::start();
    let stream = program.raw();
    let longest = format!("{{\"a\":\"{}\"}}", "x".repeat(MAX_REQUEST - 8));
    assert_eq!(longest.len(), MAX_REQUEST);
    (&stream).write_all(format!("{longest}\n").as_bytes()).unwrap();
    assert!(line(&stream)["ok"].is_object());

    for longer in [longest.replace("xx", "xxx") + "\n", "y".repeat(10 << 20)] {
        let stream = program.raw();
        // It may find the connection closed before all is written.
        let _ = (&stream).write_all(longer.as_bytes());
        let mut answer = String::new();
        // What was not read resets the connection, at worst before the answer was read.
        let _ = (&stream).read_to_string(&mut answer);
        assert!(
            answer.is_empty() || answer == "{\"error\":\"the request is longer than 65536 bytes\"}\n",
            "{answer}"
        );
        program.answers();
    }
}

#[test]
fn fifty_clients_are_served_at_once() {
    let program = Program::start();
    let start = Arc::new(Barrier::new(50));
    let client = |number: u64| {
        let (mut client, start) = (program.client(), start.clone());
        std::thread::spawn(move || {
            start.wait();
            for round in 0..20 {
                let request = json!({"client": number, "round": round});
                assert_eq!(client.call(&request).unwrap(), request);
            }
        })
    };
    let clients: Vec<_> = (0..50).map(client).collect();
    clients.into_iter().for_each(|client| client.join().unwrap());
}

#[test]
fn mute_clients_give_way() {
    let program = Program::start();
    let mute: Vec<_> = (0..200).map(|_| UnixStream::connect(&program.path)).collect();
    (mute[0].as_ref().unwrap()).write_all(b"{\"half").unwrap();
    let deadline = Instant::now() + SOON;
    // The first seconds all places may be taken by clients that are as new as this one.
    while let Err(error) = program.client().call(&json!({"a": 1})) {
        assert!(Instant::now() < deadline, "{error}");
        assert!(
            matches!(&error, ClientError::Refused(why) if why == "too many clients are connected: try again"),
            "{error}"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_client_that_does_not_read_is_told_from_one_that_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("program.sock");
    let server = Server::bind(&path).unwrap();
    let stream = UnixStream::connect(&path).unwrap();
    (&stream).write_all(b"{}\n").unwrap();
    let request = server.requests().recv_timeout(SOON).unwrap();
    assert_eq!(request.peer.unwrap().pid, std::process::id() as i32);

    // It fills up and never blocks. Meanwhile others are served.
    let part = Value::from("x".repeat(100_000));
    let mut sent = 0;
    let deadline = Instant::now() + SOON;
    loop {
        match request.more(part.clone()) {
            Ok(()) => sent += 1,
            Err(NotSent::Full) if sent > LEAST_BUFFERED => break,
            Err(NotSent::Full) => std::thread::sleep(Duration::from_millis(1)),
            Err(NotSent::Gone) => panic!("it is there"),
        }
        assert!(Instant::now() < deadline && sent < 10_000);
    }
    assert!(!request.has_room());
    let asking = {
        let path = path.clone();
        std::thread::spawn(move || Client::connect(path).unwrap().within(SOON).call(&json!({"b": 2})))
    };
    server.requests().recv_timeout(SOON).unwrap().reply(Ok(Value::Null));
    assert_eq!(asking.join().unwrap().unwrap(), Value::Null);

    assert!(!request.is_gone());
    drop(stream);
    while request.more(part.clone()) != Err(NotSent::Gone) {
        assert!(Instant::now() < deadline, "it is noticed that a client has gone");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(request.is_gone());
    request.reply(Ok(Value::Null));
}

/// Parts that are on their way for sure when there is no room for more.
const LEAST_BUFFERED: usize = 31;

#[test]
fn a_client_with_no_more_to_ask_still_gets_its_answer() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("program.sock");
    let server = Server::bind(&path).unwrap();
    let stream = UnixStream::connect(&path).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    (&stream).write_all(b"{}\n").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let request = server.requests().recv_timeout(SOON).unwrap();
    // Longer than it takes to look whether a client is gone.
    std::thread::sleep(Duration::from_millis(500));
    request.more(1.into()).unwrap();
    request.reply(Ok(2.into()));
    assert_eq!(rest(&stream), "{\"more\":1}\n{\"ok\":2}\n");
}

#[test]
fn the_end_finds_everyone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("program.sock");
    let server = Server::bind(&path).unwrap();
    let mute = UnixStream::connect(&path).unwrap();
    let half = UnixStream::connect(&path).unwrap();
    (&half).write_all(b"{\"half").unwrap();
    let ask = || {
        let stream = UnixStream::connect(&path).unwrap();
        (&stream).write_all(b"{}\n").unwrap();
        stream
    };
    // One that was asked and not answered, one that was not even looked at, one whose answer is on its way to a client
    // that does not read, and one that was answered this moment.
    let open = ask();
    let request = server.requests().recv_timeout(SOON).unwrap();
    let stuck = ask();
    let endless = server.requests().recv_timeout(SOON).unwrap();
    while endless.more("x".repeat(1 << 20).into()).is_ok() {}
    let answered = ask();
    let last = server.requests().recv_timeout(SOON).unwrap();
    let waiting = ask();
    while server.requests().is_empty() {
        std::thread::sleep(Duration::from_millis(1));
    }
    last.reply(Ok("bye".into()));
    drop(server);

    assert!(!path.exists());
    assert_eq!(rest(&mute), "");
    // It comes as if its client had ended it so.
    assert!(!rest(&half).contains("ok"));
    assert_eq!(rest(&answered), "{\"ok\":\"bye\"}\n");
    for stream in [open, waiting] {
        let answer = rest(&stream);
        assert!(answer.starts_with("{\"error\":\"the program "), "{answer}");
    }
    drop((stuck, request));
}

#[test]
fn what_is_no_answer_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("program.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let answers = ["hello\n", "{\"fine\":1}\n", "[]\n", "", "{\"ok\":"];
    let answering = std::thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            BufReader::new(&stream).read_line(&mut String::new()).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        }
        listener
    });
    let ask = || Client::connect(&path).unwrap().within(SOON).call(&json!({})).unwrap_err();
    for _ in 0..3 {
        let error = ask();
        assert!(matches!(error, ClientError::Garbled { .. }), "{error}");
        assert!(error.to_string().contains("does not speak as expected"), "{error}");
    }
    for _ in 0..2 {
        let error = ask();
        assert!(matches!(error, ClientError::Closed { .. }), "{error}");
    }
    // Nobody accepts any more, so nobody answers.
    let _listener = answering.join().unwrap();
    let mut client = Client::connect(&path).unwrap().within(Duration::from_millis(50));
    assert!(matches!(client.call(&json!({})), Err(ClientError::NoAnswer { .. })));
}

#[test]
fn the_path_is_clear_for_the_next_program() {
    let program = Program::start();
    let (path, folder) = (program.path.clone(), program.folder.path().to_owned());
    program.answers();
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), 1, "nothing else lies about");
    drop(program);
    assert!(!path.exists());
}
