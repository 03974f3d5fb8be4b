//! Control of a running balancer: its command socket, its metrics page, and the commands that ask it.
//!
//! What is asked and answered is in [`protocol`]; the balancer answers as an [`Operator`]. Both sockets have threads of
//! their own that only hand over: everything is answered on the main loop's thread, in [`Control::turn`].

pub(crate) mod client;
mod desk;
mod exporter;
#[cfg(test)]
mod fake;
pub(crate) mod metrics;
pub(crate) mod protocol;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use afx::control::socket::{Request, Server};
use crossbeam::channel::{Receiver, Select, never};

use desk::Desk;
use exporter::{Exporter, Scrape};

use protocol::{
    Changed, ConfigText, Connection, ConnectionsWanted, Counter, Explanation, Flow, RealAdd, RealDrain,
    RealNamed, RealStatus, RealWeight, Status, VipAdd, VipKey, VipNamed, VipStatus,
};

/// Requests that are answered before the main loop looks at all else.
const MOST_AT_ONCE: usize = 16;

/// The command socket and the metrics page of a running balancer.
pub(crate) struct Control {
    // What is open is dropped before the threads that wait for it.
    desk: Desk,
    requests: Receiver<Request>,
    scrapes: Receiver<Scrape>,
    exporter: Option<Exporter>,
    _server: Option<Server>,
}

impl Control {
    /// Listens at those of the two that are given. Must be called in the network namespace in which metrics are to be
    /// served.
    pub(crate) fn start(socket: Option<&Path>, metrics: Option<SocketAddr>) -> anyhow::Result<Self> {
        let server = socket.map(Server::bind).transpose()?;
        let exporter = metrics.map(Exporter::start).transpose()?;
        let requests = server.as_ref().map_or_else(never, |server| server.requests().clone());
        let scrapes = exporter.as_ref().map_or_else(never, |exporter| exporter.scrapes().clone());
        Ok(Self { desk: Desk::default(), requests, scrapes, exporter, _server: server })
    }

    /// Where metrics are served.
    pub(crate) fn metrics_address(&self) -> Option<SocketAddr> {
        self.exporter.as_ref().map(Exporter::address)
    }

    /// Waits until something is asked, there is more to do for what was asked before, or there is a message in what
    /// `others` waits for; for so long at most. Takes nothing.
    pub(crate) fn wait<'a>(&'a self, mut others: Select<'a>, within: Duration) {
        let within = self.desk.next_turn().map_or(within, |next| next.min(within));
        others.recv(&self.requests);
        others.recv(&self.scrapes);
        // Which of them it is, is seen when they are looked at.
        let _ = others.ready_timeout(within);
    }

    /// Answers what is asked, and goes on with what takes longer. Does not wait.
    pub(crate) fn turn(&mut self, operator: &mut dyn Operator) {
        // Clients may ask faster than they are answered: the rest of the main loop has its turn all the same.
        for request in self.requests.try_iter().take(MOST_AT_ONCE) {
            self.desk.serve(request, operator);
        }
        self.desk.turn(operator);
        let scrapes: Vec<_> = self.scrapes.try_iter().collect();
        if !scrapes.is_empty() {
            let page = metrics::page(operator);
            scrapes.into_iter().for_each(|scrape| scrape.answer(page.clone()));
        }
    }
}

/// What a running balancer must offer to those who operate it.
///
/// Each method answers at once, on the thread that calls it; what takes longer is a [`Later`] or [`Connections`],
/// which is asked again and again. An error is a sentence for the operator; nothing has changed then.
pub(crate) trait Operator {
    /// How it goes.
    fn status(&mut self) -> Status;

    /// All VIPs, in the order of the configuration.
    fn vips(&mut self) -> Vec<VipStatus>;

    /// All reals, in the order of the configuration.
    fn reals(&mut self) -> Vec<RealStatus>;

    /// One real. Drains that are waited for ask this every second.
    fn real(&mut self, vip: &VipKey, address: &IpAddr) -> Option<RealStatus> {
        self.reals().into_iter().find(|real| (&real.vip, &real.address) == (vip, address))
    }

    /// All that is counted, zeros too.
    fn counters(&mut self) -> Vec<Counter>;

    /// What the framework has counted, for the metrics.
    fn stats(&mut self) -> afx::Stats;

    /// The configuration in force.
    fn config(&mut self) -> Result<ConfigText, String>;

    /// Begins a walk through the connection tables. Whoever walks may leave out what is not wanted, and need not:
    /// it is looked at again.
    fn connections(&mut self, wanted: &ConnectionsWanted) -> Result<Box<dyn Connections>, String>;

    /// What becomes of a flow. Source and destination are of one family.
    fn explain(&mut self, flow: &Flow) -> Result<Later<Explanation>, String>;

    /// Reads the configuration file again and puts it in force. The error holds what is wrong with the file.
    fn reload(&mut self) -> Result<Changed, String>;

    /// Adds a real to a VIP.
    fn real_add(&mut self, add: &RealAdd) -> Result<Changed, String>;

    /// Takes a real out of a VIP.
    fn real_remove(&mut self, real: &RealNamed) -> Result<Changed, String>;

    /// Gives a real another weight.
    fn real_weight(&mut self, weight: &RealWeight) -> Result<Changed, String>;

    /// Begins to drain a real, or gives a drain another deadline. Waiting for it is not the operator's affair.
    fn real_drain(&mut self, drain: &RealDrain) -> Result<Changed, String>;

    /// Ends a drain.
    fn real_undrain(&mut self, real: &RealNamed) -> Result<Changed, String>;

    /// Adds a VIP without reals.
    fn vip_add(&mut self, add: &VipAdd) -> Result<Changed, String>;

    /// Takes a VIP and its reals out.
    fn vip_remove(&mut self, vip: &VipNamed) -> Result<Changed, String>;
}

/// An answer that is not there at once: asked again and again until it is. Never blocks.
pub(crate) type Later<T> = Box<dyn FnMut() -> Option<Result<T, String>> + Send>;

/// A walk through the connection tables. Dropped when whoever asked is gone, or has enough.
pub(crate) trait Connections: Send {
    /// The next connection, if it is there now. Never blocks.
    fn next(&mut self) -> Next;
}

/// A step of a walk.
#[derive(Debug)]
pub(crate) enum Next {
    /// One more.
    Connection(Connection),
    /// None now; ask again.
    Pending,
    /// That was all.
    Done,
}
