//! The parts of an L4 load balancer: who serves a new flow ([`maglev`]).
//!
//! A flow is seen only through its hash ([`flow`]).

pub mod flow;
pub mod maglev;
mod siphash;
