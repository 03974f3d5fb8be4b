//! Servers that say what a test wants them to.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use super::namespace::Namespace;

/// Listens in a namespace.
pub(crate) fn listen(host: &Namespace, address: &str) -> TcpListener {
    let address: SocketAddr = address.parse().expect("the tests name addresses");
    host.run(move || TcpListener::bind(address).expect("the namespace is the test's own"))
}

/// Serves each connection by a thread of its own; all end with the process.
pub(crate) fn serve(
    host: &Namespace,
    address: &str,
    service: impl Fn(TcpStream) + Clone + Send + 'static,
) -> SocketAddr {
    let listener = listen(host, address);
    let address = listener.local_addr().expect("it listens");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let service = service.clone();
            std::thread::spawn(move || service(stream.expect("nothing closes the listener")));
        }
    });
    address
}

/// What clients have asked for.
pub(crate) type Requests = Arc<Mutex<Vec<String>>>;

/// Reads a request's head.
pub(crate) fn request(stream: &mut impl Read) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read > 0) {
        head.push(byte[0]);
    }
    String::from_utf8(head).expect("the checker asks in ASCII")
}

/// Answers all requests with these bytes, and keeps what it was asked for.
pub(crate) fn answer(host: &Namespace, address: &str, answer: &'static str) -> Requests {
    let requests = Requests::default();
    let kept = requests.clone();
    serve(host, address, move |mut stream| {
        let request = request(&mut stream);
        kept.lock().expect("nothing panics with it").push(request);
        // The checker may have gone already.
        let _ = stream.write_all(answer.as_bytes());
    });
    requests
}
