//! Packets as bytes: parsing, header views, checksums and rewriting.
//!
//! Everything here works on borrowed bytes (`&[u8]`, `&mut [u8]`) that begin with the Ethernet header. Nothing
//! allocates, nothing panics on what a network may send, and nothing knows of sockets, batches or stages.
//!
//! [`parse`] is called once per packet and says where each header begins.

mod flow;
mod hash;
mod names;
mod parse;

pub use flow::{FlowKey, FlowKey4, FlowKey6, embedded_flow, flow_key};
pub use hash::HashSeed;
pub use names::{EtherType, IpVersion, MacAddress, MacAddressError, Protocol};
pub use parse::{Fragment, ParseError, Parsed, parse, parse_head};
