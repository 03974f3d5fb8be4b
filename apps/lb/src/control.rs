//! Control of a running balancer: its command socket, its metrics page, and the commands that ask it.
//!
//! What is asked and answered is in [`protocol`]; the balancer answers as an [`Operator`].

pub(crate) mod protocol;

use std::net::IpAddr;

use protocol::{
    Changed, ConfigText, Connection, ConnectionsWanted, Counter, Explanation, Flow, RealAdd, RealDrain,
    RealNamed, RealStatus, RealWeight, Status, VipAdd, VipName, VipNamed, VipStatus,
};

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
    fn real(&mut self, vip: &VipName, address: &IpAddr) -> Option<RealStatus> {
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
pub(crate) type Later<T> = Box<dyn FnMut() -> Option<Result<T, String>>>;

/// A walk through the connection tables. Dropped when whoever asked is gone, or has enough.
pub(crate) trait Connections {
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
    /// The walk cannot go on: why.
    Failed(String),
}
