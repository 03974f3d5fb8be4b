//! Outer headers: for IP in IP, RFC 2003 (4 in 4), RFC 2473 (4 and 6 in 6) and RFC 4213 (6 in 4); and for IP in UDP,
//! which is variant 1 of Generic UDP Encapsulation (draft-ietf-intarea-gue, section 4).
//!
//! [`decap`](super::decap) is the way back.

mod gue;
mod ip;

pub use gue::{GueIpv4, GueIpv6};
pub use ip::{OuterIpv4, OuterIpv6};
