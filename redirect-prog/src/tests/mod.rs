//! The programs on the running kernel: packet by packet through `BPF_PROG_TEST_RUN`, and attached to veth pairs
//! in network namespaces of their own. Needs root.

mod attachment;
mod coexistence;
mod decapsulation;
mod harness;
mod heartbeat;
mod live;
mod metadata;
mod model;
mod namespace;
pub(crate) mod packets;
mod traffic;
mod verdicts;
