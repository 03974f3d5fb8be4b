//! The parts of an L4 load balancer: who serves a new flow ([`maglev`]), and who serves a flow already
//! seen ([`connections`]).
//!
//! Both see a flow only through its hash ([`flow`]) and a real only through its identity ([`real`]). They know
//! neither packets nor workers.

pub mod connections;
pub mod flow;
pub mod maglev;
pub mod real;
mod siphash;
