//! Health checks against real servers, in network namespaces of their own.

#[path = "../resolver/namespace.rs"]
#[allow(dead_code, reason = "not all that the resolver's tests do with namespaces is done here")]
mod namespace;

mod http;
mod https;
mod icmp;
mod lab;
mod many;
mod program;
mod server;
mod targets;
mod tcp;
