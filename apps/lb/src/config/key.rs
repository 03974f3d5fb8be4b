//! What tells a VIP from all others, and how it is written.

use std::fmt;
use std::str::FromStr;

use ipnet::IpNet;

use super::diagnostic::Problem;
use super::{Protocol, networks};

/// The network, port and protocol of a VIP. Written as `198.51.100.10:443/tcp`, `198.51.100.0/24:443/tcp`,
/// `[2001:db8::10]:443/tcp` or `[fc00:1::/96]:*/udp`, where `*` is any port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct VipKey {
    /// Without host bits.
    pub(crate) network: IpNet,
    /// None for any.
    pub(crate) port: Option<u16>,
    pub(crate) protocol: Protocol,
}

/// Why a text names no VIP, and what would be right.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct VipKeyError(String);

impl fmt::Display for VipKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let network = Network(&self.network);
        match self.network {
            IpNet::V4(_) => write!(f, "{network}:")?,
            IpNet::V6(_) => write!(f, "[{network}]:")?,
        }
        match self.port {
            Some(port) => write!(f, "{port}")?,
            None => f.write_str("*")?,
        }
        write!(f, "/{}", self.protocol)
    }
}

/// A network as files write it: one address without its length.
pub(super) struct Network<'a>(pub(super) &'a IpNet);

impl fmt::Display for Network<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.prefix_len() == self.0.max_prefix_len() { self.0.addr().fmt(f) } else { self.0.fmt(f) }
    }
}

impl FromStr for VipKey {
    type Err = VipKeyError;

    fn from_str(text: &str) -> Result<Self, VipKeyError> {
        let wrong = |why: String| VipKeyError(format!("\"{text}\" names no VIP: {why}"));
        let form = "expected is ADDRESS:PORT/PROTOCOL, such as 198.51.100.10:443/tcp, [2001:db8::10]:53/udp or, \
                    for any port, 198.51.100.0/24:*/tcp";
        let (rest, protocol) =
            text.rsplit_once('/').ok_or_else(|| wrong(format!("the protocol is missing; {form}")))?;
        let words = Protocol::WORDS;
        let Some((_, protocol)) = words.iter().find(|(word, _)| *word == protocol) else {
            // As in "198.51.100.0/24", or a prefix of IPv6 in brackets.
            let missing = protocol.bytes().all(|byte| byte.is_ascii_digit() || b"]:*".contains(&byte));
            return Err(wrong(match missing {
                true => format!("the protocol is missing; {form}"),
                false => format!("the protocol \"{protocol}\" is not known; expected is tcp or udp"),
            }));
        };
        let (network, port) = match rest.strip_prefix('[') {
            Some(inner) => inner
                .split_once(']')
                .ok_or_else(|| wrong("the bracket around the address is not closed; write ] after it".into()))
                .and_then(|(network, port)| match port.strip_prefix(':') {
                    Some(port) => Ok((network, port)),
                    None => Err(wrong(format!("the port is missing; {form}"))),
                })?,
            None => rest.rsplit_once(':').ok_or_else(|| wrong(format!("the port is missing; {form}")))?,
        };
        if network.contains(':') != rest.starts_with('[') {
            return Err(wrong(match network.contains(':') {
                true => "an IPv6 address is written in brackets, such as [2001:db8::10]:53/udp".to_owned(),
                false => "an IPv4 address is written without brackets".to_owned(),
            }));
        }
        let network = networks::vip_network(network).map_err(|problem: Problem| wrong(problem.sentence()))?;
        let port = match port {
            "*" => None,
            _ => {
                let number = port.parse().ok().filter(|number| *number != 0);
                // A sign would be taken for part of the number.
                let number = number.filter(|_| port.bytes().all(|byte| byte.is_ascii_digit()));
                Some(number.ok_or_else(|| {
                    wrong(format!(
                        "\"{port}\" is no port; expected is a number from 1 to 65535, or * for any"
                    ))
                })?)
            }
        };
        Ok(Self { network, port, protocol: *protocol })
    }
}
