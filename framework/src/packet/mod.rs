//! Packets as bytes: parsing, header views, checksums and rewriting.
//!
//! Everything here works on borrowed bytes (`&[u8]`, `&mut [u8]`) that begin with the Ethernet header. Nothing
//! allocates, nothing panics on what a network may send, and nothing knows of sockets, batches or stages.
//!
//! [`parse`] is called once per packet and says where each header begins. The header views ([`Ethernet`], [`Ipv4`]
//! and so on) then read and write fields at those offsets:
//!
//! ```
//! use afx::packet::{Builder, Protocol, Udp, parse};
//!
//! let mut bytes = [0; 128];
//! let len = Builder::udp("192.0.2.1:4000".parse()?, "198.51.100.7:53".parse()?).write(&mut bytes, b"query").unwrap();
//!
//! let parsed = parse(&bytes[..len])?;
//! assert_eq!(parsed.protocol(), Some(Protocol::UDP));
//! let udp = Udp::new_checked(&bytes[parsed.transport_range().unwrap()])?;
//! assert_eq!(udp.destination_port(), 53);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod build;
pub mod checksum;
pub mod decap;
pub mod encap;
mod flow;
mod hash;
mod names;
mod parse;
pub mod reply;
pub mod rewrite;
mod server_id;
mod view;

pub use build::Builder;
pub use flow::{FlowKey, FlowKey4, FlowKey6, embedded_flow, flow_key};
pub(crate) use flow::{plain_flow_v4, plain_flow_v6};
pub use hash::HashSeed;
pub use names::{EtherType, IpVersion, MacAddress, MacAddressError, Protocol};
pub use parse::{Fragment, ParseError, Parsed, parse, parse_head};
pub(crate) use parse::{Outcome, parse_any, parse_common};
pub use server_id::{quic_server_id, tcp_option_server_id, udp_header_server_id};
pub use view::{Ethernet, Icmp, Ipv4, Ipv6, Tcp, TcpFlags, Udp, VlanTag};
