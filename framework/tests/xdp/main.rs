//! The AF_XDP port on real interfaces: veth between network namespaces. Needs root.
//!
//! Each test ends with every frame accounted for and no XDP program left behind.

mod download;
mod examples;
mod forwarding;
mod jumbo;
mod lifecycle;
mod metadata;
mod settings;
mod steering;
mod stopping;
mod support;
mod wire;
