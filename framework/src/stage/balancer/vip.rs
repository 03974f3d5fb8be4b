//! What clients connect to, and how it is written.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

use crate::packet::Protocol;

/// What clients connect to: an address or all of a prefix, a port or all of them, and a protocol.
///
/// Of several VIPs that a packet fits, the one with the longest prefix has it, and within one prefix that which
/// names the port before that which takes any.
///
/// ```
/// use afx::stage::balancer::Vip;
///
/// let https: Vip = "198.51.100.10:443/tcp".parse()?;
/// assert!(https.is_host() && https.port == Some(443));
/// let all: Vip = "[2001:db8:1::/96]:*/udp".parse()?;
/// assert_eq!((all.port, all.network.prefix_len()), (None, 96));
/// assert_eq!(all.to_string(), "[2001:db8:1::/96]:*/udp");
/// # Ok::<(), afx::stage::balancer::VipError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vip {
    /// The addresses; bits behind the prefix are zero.
    pub network: IpNet,
    /// The port; any if none.
    pub port: Option<u16>,
    /// TCP or UDP.
    pub protocol: Protocol,
}

impl Vip {
    /// One address and one port.
    #[must_use]
    pub fn host(address: IpAddr, port: u16, protocol: Protocol) -> Self {
        Self { network: IpNet::from(address), port: Some(port), protocol }
    }

    /// Whether it is one address.
    #[must_use]
    pub fn is_host(&self) -> bool {
        self.network.prefix_len() == self.network.max_prefix_len()
    }

    /// Whether it is of IPv4.
    #[must_use]
    pub fn is_ipv4(&self) -> bool {
        matches!(self.network, IpNet::V4(_))
    }
}

/// As in `198.51.100.10:443/tcp`, `[2001:db8::10]:443/tcp`, `198.51.100.0/24:443/tcp` or `[fc00:1::/96]:*/udp`.
impl fmt::Display for Vip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.is_host(), self.is_ipv4()) {
            (true, true) => write!(f, "{}", self.network.addr())?,
            (true, false) => write!(f, "[{}]", self.network.addr())?,
            (false, true) => write!(f, "{}", self.network)?,
            (false, false) => write!(f, "[{}]", self.network)?,
        }
        match self.port {
            Some(port) => write!(f, ":{port}/{}", self.protocol),
            None => write!(f, ":*/{}", self.protocol),
        }
    }
}

/// A text that is no VIP.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a VIP: address or prefix without host bits (of IPv6 in brackets), port or *, and protocol, as in \
     198.51.100.10:443/tcp or [2001:db8::/64]:*/udp"
)]
pub struct VipError(String);

impl FromStr for Vip {
    type Err = VipError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        read(text).ok_or_else(|| VipError(text.to_owned()))
    }
}

fn read(text: &str) -> Option<Vip> {
    let (rest, protocol) = text.rsplit_once('/')?;
    let (network, port) = rest.rsplit_once(':')?;
    let protocol = match protocol {
        "tcp" => Protocol::TCP,
        "udp" => Protocol::UDP,
        "sctp" => Protocol::SCTP,
        number => Protocol(plain_number(number)?),
    };
    let port = match port {
        "*" => None,
        number => Some(plain_number(number)?),
    };
    let bracketed = network.strip_prefix('[').and_then(|inside| inside.strip_suffix(']'));
    let inside = bracketed.unwrap_or(network);
    let network: IpNet =
        if inside.contains('/') { inside.parse().ok()? } else { inside.parse::<IpAddr>().ok()?.into() };
    let as_written = bracketed.is_some() == matches!(network, IpNet::V6(_)) && network == network.trunc();
    as_written.then_some(Vip { network, port, protocol })
}

/// Digits alone: `parse` takes a sign, too.
fn plain_number<N: FromStr>(text: &str) -> Option<N> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_vip_is_read_as_it_is_written() {
        for text in [
            "198.51.100.10:443/tcp",
            "[2001:db8::10]:443/tcp",
            "198.51.100.0/24:443/tcp",
            "0.0.0.0/0:*/sctp",
            "[fc00:1::/96]:*/udp",
            "198.51.100.10:0/250",
        ] {
            assert_eq!(text.parse::<Vip>().unwrap().to_string(), text);
        }
        let host = Vip::host("2001:db8::1".parse().unwrap(), 53, Protocol::UDP);
        assert_eq!("[2001:db8::1]:53/udp".parse(), Ok(host));
        assert!(host.is_host() && !host.is_ipv4());
        assert_eq!("198.51.100.10/32:53/udp".parse::<Vip>().unwrap().to_string(), "198.51.100.10:53/udp");
    }

    #[test]
    fn what_is_no_vip_is_refused_with_an_example() {
        for wrong in [
            "",
            "198.51.100.10",
            "198.51.100.10:443",
            "198.51.100.10/tcp",
            "198.51.100.10:/tcp",
            "198.51.100.10:65536/tcp",
            "198.51.100.10:+80/tcp",
            "198.51.100.10:80/TCP",
            "198.51.100.10:80/256",
            "198.51.100.10/24:80/tcp",
            "198.51.100.0/33:80/tcp",
            "[198.51.100.10]:80/tcp",
            "2001:db8::10:80/tcp",
            "[2001:db8::10:80/tcp",
            "[2001:db8::10/64]:80/tcp",
            "[2001:db8::/64]:**/tcp",
        ] {
            let error = wrong.parse::<Vip>().expect_err(wrong);
            assert!(error.to_string().contains("as in 198.51.100.10:443/tcp"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(v4: bool, address: u128, len in 0..=128_u8, port: Option<u16>, protocol: u8) {
            let address = if v4 { IpAddr::from((address as u32).to_be_bytes()) } else { IpAddr::from(address.to_be_bytes()) };
            let max = if v4 { 32 } else { 128 };
            let network = IpNet::new(address, len.min(max)).unwrap().trunc();
            // Names of other protocols are written, but no VIP is of these.
            prop_assume!(![1, 58].contains(&protocol));
            let vip = Vip { network, port, protocol: Protocol(protocol) };
            prop_assert_eq!(vip.to_string().parse(), Ok(vip));
        }
    }
}
