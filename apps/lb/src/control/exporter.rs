//! The metrics page: what Prometheus asks for is answered by the main loop, like all else.

use std::net::SocketAddr;
use std::time::Duration;

use afx::control::metrics_http::{MetricsServer, MetricsServerError, Page};
use crossbeam::channel::{Receiver, Sender, bounded};

/// How long the main loop may take for a page.
const PAGE_WITHIN: Duration = Duration::from_secs(5);

/// Scrapes that wait for the main loop.
const WAITING: usize = 4;

/// Serves the metrics.
#[derive(Debug)]
pub(crate) struct Exporter {
    /// Dropped before the threads that wait for what comes out of it.
    scrapes: Receiver<Scrape>,
    server: MetricsServer,
}

/// Somebody asks for the metrics.
#[derive(Debug)]
pub(crate) struct Scrape(Sender<String>);

impl Scrape {
    /// Gives them.
    pub(crate) fn answer(self, metrics: String) {
        // It fails only where nobody waits any more.
        let _ = self.0.try_send(metrics);
    }
}

impl Exporter {
    pub(crate) fn start(address: SocketAddr) -> Result<Self, MetricsServerError> {
        let (ask, scrapes) = bounded(WAITING);
        let server = MetricsServer::start(address, move || {
            let (answer, page) = bounded(1);
            let asked = ask.send_timeout(Scrape(answer), PAGE_WITHIN).is_ok();
            match page.recv_timeout(PAGE_WITHIN) {
                Ok(metrics) if asked => Page::Metrics(metrics),
                _ => {
                    Page::Unavailable("The balancer does not answer: it is about to end, or stalled.".into())
                }
            }
        })?;
        Ok(Self { scrapes, server })
    }

    /// Where it serves.
    pub(crate) fn address(&self) -> SocketAddr {
        self.server.address()
    }

    pub(crate) fn scrapes(&self) -> &Receiver<Scrape> {
        &self.scrapes
    }
}
