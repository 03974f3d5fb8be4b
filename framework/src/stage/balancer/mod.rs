//! An L4 load balancer: packets to a VIP go to one of its reals, all packets of a flow to the same one.
//!
//! [`Balancer`] is the stage, one on each worker. What it serves is a [`Services`] snapshot, made by a
//! [`Directory`] of [`Definition`]s on the control side and given to workers whole. A flow seen before is found in
//! the worker's [`connections`]; a new one is sent where its client's address says, or else [`maglev`]. A packet may
//! name its real itself ([`ServerIdIn`]). It goes on in another IP header, in UDP, or as it is to the real's MAC
//! address ([`Forwarding`]). The real answers the client itself.
//!
//! Table and connections see a flow only through its hash ([`flow`]) and a real only through its identity
//! ([`real`]). They know neither packets nor workers.
//!
//! What the balancer does is told by a [`Monitor`] in numbers, packet by packet by [`Balancer::decision`], and when
//! it is asked: [`Services::explain`] says what becomes of a flow, an [`Inspection`] what workers know.

pub mod connections;
mod decision;
mod definition;
mod directory;
mod explain;
pub mod flow;
mod forward;
pub mod fragments;
mod inspection;
pub mod maglev;
mod map;
mod monitor;
pub mod rate;
pub mod real;
mod reasons;
mod services;
mod siphash;
mod stage;
mod together;
mod too_big;
mod tunnels;
mod unusual;
mod vip;
mod vips;

pub use decision::{Decision, How};
pub use definition::{
    Definition, Fragments, HashOn, RealDefinition, RealState, ServerIdIn, Settings, TooBig, VipOptions,
};
pub use directory::{Directory, DirectoryError};
pub use explain::{Explanation, Leaving};
pub use forward::{Forwarding, Hop};
pub use inspection::{Answer, Inspection};
pub use monitor::{Monitor, RealStats, TableStats, WorkStats};
pub use services::Services;
pub use stage::{Balancer, Options};
pub use vip::{Vip, VipError};
