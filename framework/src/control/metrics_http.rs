//! Statistics over HTTP, for Prometheus to scrape.
//!
//! The text comes from the application, each time that it is asked for: [`stats::metrics`](crate::stats::metrics)
//! makes one of a runtime's statistics.
//!
//! A server for this one purpose: HTTP/1.1 (RFC 9112), `GET` and `HEAD`, one request a connection, without TLS or
//! passwords. Whoever can reach its address can read it: give it an address of a network for such things, or
//! `127.0.0.1` and a proxy in front. The number of clients, the length of a request and every time are bounded.
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use afx::Running;
//! use afx::control::metrics_http::{MetricsServer, MetricsServerError};
//!
//! fn serve(running: Arc<Running>) -> Result<MetricsServer, MetricsServerError> {
//!     let address = ([127, 0, 0, 1], 9900).into();
//!     MetricsServer::start(address, move || afx::stats::metrics::render(&running.stats()))
//! }
//! ```

use std::fmt;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use super::threads::{Client, Serve, Threads, read_by, write_by};

/// What prometheus-client writes: OpenMetrics 1.0, section "Content Type".
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Clients that are connected at a time. There are few servers that scrape.
const CLIENTS: usize = 16;

/// The longest head of a request, in bytes.
const MAX_HEAD: usize = 16 << 10;

/// The most headers of a request.
const MAX_HEADERS: usize = 64;

/// How long a request may take to come in.
const REQUEST_WITHIN: Duration = Duration::from_secs(10);

/// How long an answer may take to be read.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// How long, and for how many bytes, to listen after the answer to what nobody asked for.
const REST_WITHIN: Duration = Duration::from_secs(1);
const MAX_REST: usize = 1 << 20;

/// Serves metrics; see the [module](self). Dropping it ends its threads.
pub struct MetricsServer {
    address: SocketAddr,
    _threads: Threads<TcpStream>,
}

/// What there is at `/metrics` at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Page {
    /// The metrics, as prometheus-client encodes them.
    Metrics(String),
    /// They cannot be told now: why. A scrape fails then (status 503), which is an alert of its own.
    Unavailable(String),
}

impl From<String> for Page {
    fn from(metrics: String) -> Self {
        Self::Metrics(metrics)
    }
}

/// Why metrics cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("metrics cannot be served at {address}: {why}")]
pub struct MetricsServerError {
    /// The address.
    pub address: SocketAddr,
    /// What is wrong, and what would be right.
    pub why: String,
    /// What the system says.
    #[source]
    pub source: io::Error,
}

impl MetricsServer {
    /// Serves at an address, in the network namespace of the calling thread. With port 0 the system chooses one.
    ///
    /// `page` is called for each scrape, on a thread of the server, by several at once perhaps, without capabilities.
    ///
    /// # Errors
    /// [`MetricsServerError`], where the address is taken or not this machine's, say.
    pub fn start<P: Into<Page>>(
        address: SocketAddr,
        page: impl Fn() -> P + Send + Sync + 'static,
    ) -> Result<Self, MetricsServerError> {
        let failed = |source: io::Error| {
            let why = match source.kind() {
                io::ErrorKind::AddrInUse => "another program listens there; choose another port".to_owned(),
                io::ErrorKind::AddrNotAvailable => {
                    "no interface of this network namespace has this address; choose one that it has"
                        .to_owned()
                }
                io::ErrorKind::PermissionDenied => {
                    "this port is for the privileged; choose one above 1023".to_owned()
                }
                _ => source.to_string(),
            };
            MetricsServerError { address, why, source }
        };
        let listener = TcpListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        let site = Site { page: Box::new(move || page().into()) };
        let threads = Threads::start("afx-metrics", listener, CLIENTS, site).map_err(failed)?;
        Ok(Self { address: bound, _threads: threads })
    }

    /// Where it serves.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl fmt::Debug for MetricsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetricsServer").field("address", &self.address).finish_non_exhaustive()
    }
}

/// All pages.
struct Site {
    page: Box<dyn Fn() -> Page + Send + Sync>,
}

/// What to answer.
struct Answer {
    status: &'static str,
    content_type: &'static str,
    body: String,
    with_body: bool,
}

impl Answer {
    fn text(status: &'static str, body: impl Into<String>) -> Self {
        let body = body.into() + "\n";
        Self { status, content_type: "text/plain; charset=utf-8", body, with_body: true }
    }

    fn write(&self, stream: &TcpStream) -> io::Result<()> {
        let Self { status, content_type, body, with_body } = self;
        // RFC 9110, section 15.5.6: who refuses a method says which there are.
        let allow = if status.starts_with("405") { "Allow: GET, HEAD\r\n" } else { "" };
        let mut answer = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n{allow}Connection: \
             close\r\n\r\n",
            body.len()
        );
        if *with_body {
            answer += body;
        }
        write_by(stream, answer.as_bytes(), Instant::now() + ANSWER_WITHIN)
    }
}

impl Serve<TcpStream> for Site {
    fn serve(&self, client: &Client<TcpStream>) {
        let Some(answer) = self.answer(client) else { return };
        if answer.write(&client.stream).is_ok() {
            finish(&client.stream);
        }
    }

    fn refuse(&self, stream: &TcpStream) {
        let _ = Answer::text("503 Service Unavailable", "Too many clients are connected: try again.")
            .write(stream);
    }
}

impl Site {
    /// What to answer to what a client asks; None where it is gone.
    fn answer(&self, client: &Client<TcpStream>) -> Option<Answer> {
        let mut head = Vec::new();
        let deadline = Instant::now() + REQUEST_WITHIN;
        loop {
            let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
            let mut request = httparse::Request::new(&mut headers);
            match request.parse(&head) {
                Ok(httparse::Status::Complete(_)) => {
                    client.busy();
                    // Both are there when the request is complete.
                    let (method, path) =
                        (request.method.unwrap_or_default(), request.path.unwrap_or_default());
                    return Some(self.page(method, path));
                }
                Ok(httparse::Status::Partial) if head.len() < MAX_HEAD => {}
                Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
                    return Some(Answer::text(
                        "431 Request Header Fields Too Large",
                        "The request has too many headers.",
                    ));
                }
                Err(error) => {
                    return Some(Answer::text("400 Bad Request", format!("This is no HTTP: {error}.")));
                }
            }
            let mut bytes = [0; 2048];
            match read_by(&client.stream, &mut bytes, deadline) {
                Ok(0) => return None,
                Ok(count) => head.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    return Some(Answer::text("408 Request Timeout", "The request did not come in whole."));
                }
                Err(_) => return None,
            }
        }
    }

    fn page(&self, method: &str, path: &str) -> Answer {
        if !matches!(method, "GET" | "HEAD") {
            return Answer::text("405 Method Not Allowed", "There is GET and HEAD.");
        }
        let path = path.split('?').next().unwrap_or_default();
        let answer = match path {
            "/metrics" => match (self.page)() {
                Page::Metrics(body) => {
                    Answer { status: "200 OK", content_type: CONTENT_TYPE, body, with_body: true }
                }
                Page::Unavailable(why) => Answer::text("503 Service Unavailable", why),
            },
            "/" => Answer {
                status: "200 OK",
                content_type: "text/html; charset=utf-8",
                body: "<!DOCTYPE html>\n<title>Metrics</title>\n<p>The metrics are at <a \
                       href=\"/metrics\">/metrics</a>, for Prometheus to scrape.\n"
                    .to_owned(),
                with_body: true,
            },
            _ => Answer::text("404 Not Found", "There is nothing here. The metrics are at /metrics."),
        };
        Answer { with_body: method == "GET", ..answer }
    }
}

/// Ends a connection such that the answer arrives: a socket closed with bytes unread resets the connection
/// (RFC 9112, section 9.6).
fn finish(stream: &TcpStream) {
    let deadline = Instant::now() + REST_WITHIN;
    let mut bytes = [0; 4096];
    let mut rest = 0;
    if stream.shutdown(Shutdown::Write).is_ok() {
        while let Ok(count @ 1..) = read_by(stream, &mut bytes, deadline)
            && rest < MAX_REST
        {
            rest += count;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// For what should happen at once.
    const SOON: Duration = Duration::from_secs(20);

    fn local() -> SocketAddr {
        "127.0.0.1:0".parse().unwrap()
    }

    fn connect(server: &MetricsServer) -> TcpStream {
        let stream = TcpStream::connect(server.address()).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream
    }

    /// All that comes back: head and body.
    fn ask(server: &MetricsServer, request: &[u8]) -> (String, String) {
        let answer = try_ask(server, request).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
        (head.to_owned(), body.to_owned())
    }

    fn try_ask(server: &MetricsServer, request: &[u8]) -> io::Result<String> {
        let mut stream = connect(server);
        stream.write_all(request)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    fn get(server: &MetricsServer, path: &str) -> (String, String) {
        ask(server, format!("GET {path} HTTP/1.1\r\nHost: balancer\r\n\r\n").as_bytes())
    }

    #[test]
    fn metrics_are_made_anew_for_each_scrape() {
        let asked = AtomicU64::new(0);
        let server = MetricsServer::start(local(), move || {
            format!("asked_total {}\n# EOF\n", asked.fetch_add(1, Ordering::Relaxed))
        });
        let server = server.unwrap();
        let (head, body) = get(&server, "/metrics");
        assert_eq!(
            head,
            "HTTP/1.1 200 OK\r\nContent-Type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n\
             Content-Length: 20\r\nConnection: close"
        );
        assert_eq!(body, "asked_total 0\n# EOF\n");
        assert_eq!(get(&server, "/metrics?name=x").1, "asked_total 1\n# EOF\n");
        let (head, body) = ask(&server, b"HEAD /metrics HTTP/1.0\r\n\r\n");
        assert!(head.contains("Content-Length: 20") && body.is_empty(), "{head}{body}");
        assert!(get(&server, "/").1.contains("href=\"/metrics\""));
    }

    #[test]
    fn what_is_not_there_is_said() {
        let server = MetricsServer::start(local(), || Page::Unavailable("it is starting".into())).unwrap();
        let cases: [(&[u8], &str, &str); 6] = [
            (b"GET /metrics HTTP/1.1\r\n\r\n", "503 Service Unavailable", "it is starting"),
            (b"GET /metric HTTP/1.1\r\n\r\n", "404 Not Found", "/metrics"),
            (b"POST /metrics HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", "405 Method Not Allowed", "GET"),
            (b"\x16\x03\x01\x02\x00", "400 Bad Request", "no HTTP"),
            (b"GET /metrics HTTP/1.1\r\nbad header\r\n\r\n", "400 Bad Request", "no HTTP"),
            (&[b"GET / HTTP/1.1\r\n".as_slice(), &b"a: b\r\n".repeat(100)].concat(), "431 ", "headers"),
        ];
        for (request, status, body) in cases {
            let (head, answer) = ask(&server, request);
            assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{head}");
            assert!(answer.contains(body), "{answer}");
        }
        let (head, _) = ask(&server, format!("GET /{} HTTP/1.1\r\n", "x".repeat(MAX_HEAD)).as_bytes());
        assert!(head.starts_with("HTTP/1.1 431 "), "{head}");
        assert!(ask(&server, b"PUT / HTTP/1.1\r\n\r\n").0.contains("\r\nAllow: GET, HEAD\r\n"));
    }

    #[test]
    fn mute_and_vanished_clients_keep_nobody_out() {
        let server = MetricsServer::start(local(), || "fine\n".to_owned()).unwrap();
        let mute: Vec<_> = (0..50).map(|_| connect(&server)).collect();
        (&mute[49]).write_all(b"GET /met").unwrap();
        drop(mute.into_iter().skip(25).collect::<Vec<_>>());
        let deadline = Instant::now() + SOON;
        // At first it may be turned away, and not even hear why.
        let ask = || try_ask(&server, b"GET /metrics HTTP/1.1\r\n\r\n");
        while !ask().is_ok_and(|answer| answer.ends_with("\r\n\r\nfine\n")) {
            assert!(Instant::now() < deadline);
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    #[test]
    fn the_end_does_not_wait_for_clients() {
        let server = MetricsServer::start(local(), || "x".repeat(32 << 20)).unwrap();
        let (mute, unread) = (connect(&server), connect(&server));
        (&unread).write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
        (&unread).read_exact(&mut [0; 8]).unwrap();
        let address = server.address();
        drop(server);
        assert_eq!((&mute).read(&mut [0; 8]).unwrap(), 0);
        assert!(TcpStream::connect(address).is_err());
    }

    #[test]
    fn an_address_that_cannot_be_had_is_said() {
        let server = MetricsServer::start(local(), String::new).unwrap();
        let message = |address: &str| {
            let address = address.parse().unwrap();
            MetricsServer::start(address, String::new).unwrap_err().to_string()
        };
        let taken = server.address().to_string();
        assert_eq!(
            message(&taken),
            format!(
                "metrics cannot be served at {taken}: another program listens there; choose another port"
            )
        );
        assert!(
            message("192.0.2.1:9900").contains("no interface of this network namespace has this address")
        );
    }
}
