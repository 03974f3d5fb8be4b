//! The client: some threads that send requests and look at every byte of the answers.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::network::{NAME_HEADER, PORT, REALS, REALS_COUNT, VIP, body};

/// How many requests are under way at a time, at most.
pub(super) const THREADS: u32 = 8;
/// How long all requests are to take, unless there are few: long enough to watch.
const DURATION: Duration = Duration::from_secs(12);
/// Requests per second at least, if the machine can do it.
const LEAST_RATE: u32 = 300;
/// How long an answer may take: a lost SYN is sent again after one, two and four seconds.
const PATIENCE: Duration = Duration::from_secs(15);
/// How many failures are told in full.
const TOLD: usize = 5;

/// The requests, and what became of them.
pub(super) struct Load {
    pub(super) requests: u32,
    begun: AtomicU32,
    ended: AtomicU32,
    failed: AtomicU32,
    /// By real: answers that it gave.
    answered: [AtomicU32; REALS_COUNT],
    /// Answers that a real gave to requests made while it was drained.
    strayed: AtomicU32,
    /// Which real is drained; `REALS_COUNT` for none.
    drained: AtomicU32,
    /// No further requests are to be made.
    stopped: AtomicBool,
    /// None is under way, and none will be.
    over: AtomicBool,
    failures: Mutex<Vec<String>>,
}

impl Load {
    pub(super) fn new(requests: u32) -> Self {
        Self {
            requests,
            begun: AtomicU32::new(0),
            ended: AtomicU32::new(0),
            failed: AtomicU32::new(0),
            answered: Default::default(),
            strayed: AtomicU32::new(0),
            drained: AtomicU32::new(NONE),
            stopped: AtomicBool::new(false),
            over: AtomicBool::new(false),
            failures: Mutex::default(),
        }
    }

    /// Sends all requests. Returns when they have ended; earlier after [`stop`](Self::stop).
    pub(super) fn run(&self) {
        let (start, body) = (Instant::now(), body());
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| self.work(start, &body));
            }
        });
    }

    fn work(&self, start: Instant, body: &[u8]) {
        let gap = (DURATION / self.requests).min(Duration::from_secs(1) / LEAST_RATE);
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .proxy(None)
            // No connection is used twice.
            .max_idle_connections(0)
            .timeout_global(Some(PATIENCE))
            .build()
            .into();
        while !self.stopped.load(Ordering::Relaxed) {
            let turn = self.begun.fetch_add(1, Ordering::Relaxed);
            if turn >= self.requests {
                break;
            }
            thread::sleep((start + gap * turn).saturating_duration_since(Instant::now()));
            let before = self.drained.load(Ordering::Acquire);
            match request(&agent, body) {
                Ok(real) => {
                    self.answered[real].fetch_add(1, Ordering::Relaxed);
                    // A request that saw the change either way may have gone to either.
                    let after = self.drained.load(Ordering::Acquire);
                    if before == after && before as usize == real {
                        self.strayed.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Err(error) => {
                    self.failed.fetch_add(1, Ordering::Relaxed);
                    let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
                    if failures.len() < TOLD {
                        failures.push(format!("request {turn}: {error:#}"));
                    }
                }
            }
            self.ended.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// From now on this real is drained, or none.
    pub(super) fn drained(&self, real: Option<usize>) {
        self.drained.store(real.map_or(NONE, |real| real as u32), Ordering::Release);
    }

    /// No further requests; those under way are finished.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Over in whatever way its scope is left, so that nobody waits for requests that will not come.
    pub(super) fn over_when_dropped(&self) -> impl Drop + use<'_> {
        struct Over<'a>(&'a Load);
        impl Drop for Over<'_> {
            fn drop(&mut self) {
                self.0.over.store(true, Ordering::Release);
            }
        }
        Over(self)
    }

    /// Whether no request is under way, and none will be.
    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// Requests that have ended, failed ones included.
    pub(super) fn ended(&self) -> u32 {
        self.ended.load(Ordering::Relaxed)
    }

    /// Requests that failed.
    pub(super) fn failed(&self) -> u32 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Answers that a real gave to requests made while it was drained.
    pub(super) fn strayed(&self) -> u32 {
        self.strayed.load(Ordering::Relaxed)
    }

    /// Answers by real.
    pub(super) fn answered(&self) -> [u32; REALS_COUNT] {
        self.answered.each_ref().map(|count| count.load(Ordering::Relaxed))
    }

    /// The first failures.
    pub(super) fn failures(&self) -> Vec<String> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

const NONE: u32 = REALS_COUNT as u32;

/// One request on a connection of its own. Returns which real has answered.
fn request(agent: &ureq::Agent, expected: &[u8]) -> Result<usize> {
    let mut response =
        agent.get(format!("http://{VIP}:{PORT}/index.html")).header("connection", "close").call()?;
    let name = response.headers().get(NAME_HEADER).and_then(|name| name.to_str().ok()).map(str::to_owned);
    let body = response.body_mut().read_to_vec().context("reading the body")?;
    ensure!(
        body.len() == expected.len(),
        "the body has {} bytes, where {} were expected",
        body.len(),
        expected.len()
    );
    if let Some(place) = body.iter().zip(expected).position(|(got, wanted)| got != wanted) {
        anyhow::bail!("byte {place} of the body is wrong");
    }
    let name = name.with_context(|| format!("the answer has no header {NAME_HEADER}"))?;
    REALS.iter().position(|real| real.name == name).with_context(|| format!("no real is called {name}"))
}
