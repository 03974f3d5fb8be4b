//! Clients that come whether they are served or not: so many new connections a second, each for one request.
//!
//! The load is open: when a connection begins follows from the clock alone, never from how others fare. A request that
//! fails is not made again. Each connection has a source port that no other has had, so that none meets what an earlier
//! one left at a server.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use afx_testbed::Host;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

use super::nginx::REAL_HEADER;

/// The first source port; below are those that other clients of these tests get from the kernel.
const FIRST_PORT: u16 = 20_000;

/// What is asked for, how often, and by whom.
#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) server: SocketAddr,
    pub(crate) path: &'static str,
    /// What the server is to answer, to the byte.
    pub(crate) body: Arc<[u8]>,
    /// Addresses of the client. Connections take turns.
    pub(crate) sources: Vec<IpAddr>,
    pub(crate) per_second: u32,
    pub(crate) seconds: u32,
    /// How long a request may take, from the first packet to the last byte.
    pub(crate) patience: Duration,
}

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Failure {
    /// There was no connection.
    Connect(String),
    /// The connection broke, or ended too early.
    Broken(String),
    /// The answer was not what it is to be.
    Wrong(String),
    /// It took longer than clients have patience.
    Late,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(why) => write!(f, "no connection: {why}"),
            Self::Broken(why) => write!(f, "broken: {why}"),
            Self::Wrong(why) => write!(f, "wrong answer: {why}"),
            Self::Late => f.write_str("no whole answer in time"),
        }
    }
}

/// What became of a request. Times are since the load's start.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) source: SocketAddr,
    pub(crate) begun: Duration,
    pub(crate) ended: Duration,
    /// The number of the real that has answered.
    pub(crate) outcome: Result<u8, Failure>,
}

/// A load under way.
pub(crate) struct Load {
    plan: Plan,
    start: Instant,
    thread: JoinHandle<Vec<Request>>,
}

impl Load {
    pub(crate) fn start(client: &Host, plan: Plan) -> Self {
        allow_many_files();
        let connections = plan.per_second * plan.seconds;
        let ports = connections.div_ceil(plan.sources.len() as u32);
        assert!(u32::from(FIRST_PORT) + ports <= 1 << 16, "more connections than source ports");
        let start = Instant::now();
        let its = plan.clone();
        let thread = client.run(move || std::thread::spawn(move || run(&Arc::new(its), start))).unwrap();
        Self { plan, start, thread }
    }

    /// Waits until so much of it is over.
    pub(crate) fn reach(&self, time: Duration) {
        std::thread::sleep((self.start + time).saturating_duration_since(Instant::now()));
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Waits for the last request to end.
    pub(crate) fn finish(self) -> Report {
        let mut requests = self.thread.join().unwrap();
        requests.sort_by_key(|request| request.begun);
        assert_eq!(requests.len() as u32, self.plan.per_second * self.plan.seconds);
        Report { requests }
    }
}

/// The soft limit is often 1024: less than what a stall of a second opens.
fn allow_many_files() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard.min(1 << 17), hard).unwrap();
}

fn run(plan: &Arc<Plan>, start: Instant) -> Vec<Request> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let period = Duration::from_secs(1) / plan.per_second;
    runtime.block_on(async {
        let mut requests = tokio::task::JoinSet::new();
        for number in 0..plan.per_second * plan.seconds {
            tokio::time::sleep_until((start + period * number).into()).await;
            requests.spawn(request(plan.clone(), start, number));
        }
        requests.join_all().await
    })
}

async fn request(plan: Arc<Plan>, start: Instant, number: u32) -> Request {
    let count = plan.sources.len() as u32;
    let source =
        SocketAddr::new(plan.sources[(number % count) as usize], FIRST_PORT + (number / count) as u16);
    let begun = start.elapsed();
    let outcome = tokio::time::timeout(plan.patience, exchange(&plan, source)).await;
    Request { source, begun, ended: start.elapsed(), outcome: outcome.unwrap_or(Err(Failure::Late)) }
}

async fn exchange(plan: &Plan, source: SocketAddr) -> Result<u8, Failure> {
    let connect = |error: std::io::Error| Failure::Connect(error.to_string());
    let broken = |error: std::io::Error| Failure::Broken(error.to_string());
    let socket = if source.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let socket = socket.map_err(connect)?;
    socket.bind(source).map_err(connect)?;
    let mut stream = socket.connect(plan.server).await.map_err(connect)?;
    let question = format!("GET {} HTTP/1.1\r\nHost: vip\r\nConnection: close\r\n\r\n", plan.path);
    stream.write_all(question.as_bytes()).await.map_err(broken)?;
    let mut answer = Vec::with_capacity(plan.body.len() + 1024);
    stream.read_to_end(&mut answer).await.map_err(broken)?;
    checked(&answer, &plan.body)
}

/// The real that gave an answer which is right in status, length and every byte.
fn checked(answer: &[u8], expected: &[u8]) -> Result<u8, Failure> {
    let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Err(Failure::Broken(format!("after {} bytes, within the headers", answer.len())));
    };
    let head = String::from_utf8_lossy(&answer[..end]);
    let body = &answer[end + 4..];
    if !head.starts_with("HTTP/1.1 200 ") {
        return Err(Failure::Wrong(head.lines().next().unwrap_or_default().to_owned()));
    }
    if body.len() < expected.len() {
        return Err(Failure::Broken(format!("after {} of {} bytes", body.len(), expected.len())));
    }
    if body != expected {
        return Err(Failure::Wrong("other bytes".to_owned()));
    }
    let real = head.lines().find_map(|line| line.strip_prefix(REAL_HEADER)?.strip_prefix(": "));
    let real = real.and_then(|number| number.parse().ok());
    real.ok_or_else(|| Failure::Wrong("it does not say who gave it".to_owned()))
}

/// All requests of a load, in the order in which they began.
pub(crate) struct Report {
    pub(crate) requests: Vec<Request>,
}

impl Report {
    pub(crate) fn failures(&self) -> impl Iterator<Item = &Request> {
        self.requests.iter().filter(|request| request.outcome.is_err())
    }

    /// How many requests that began in this time a real has served.
    pub(crate) fn served_by(&self, real: u8, time: std::ops::Range<Duration>) -> usize {
        let begun = self.requests.iter().filter(|request| time.contains(&request.begun));
        begun.filter(|request| request.outcome == Ok(real)).count()
    }

    /// In how much time the connections were begun.
    pub(crate) fn span(&self) -> Duration {
        self.requests.last().unwrap().begun
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} requests begun in {:.1} s, {} failed",
            self.requests.len(),
            self.span().as_secs_f64(),
            self.failures().count()
        )?;
        let mut times: Vec<_> = self.requests.iter().map(|request| request.ended - request.begun).collect();
        times.sort();
        let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
        writeln!(
            f,
            "a request took {:.1} ms (half of them), {:.1} ms (99 %), {:.1} ms (the slowest)",
            at(0.5),
            at(0.99),
            at(1.0)
        )?;
        // The first ones tell what happened; a thousand would hide it.
        for Request { source, begun, ended, outcome } in self.failures().take(20) {
            let (begun, ended) = (begun.as_secs_f64(), ended.as_secs_f64());
            let why = outcome.as_ref().unwrap_err();
            writeln!(f, "from {source}, {begun:.3} s to {ended:.3} s: {why}")?;
        }
        Ok(())
    }
}
