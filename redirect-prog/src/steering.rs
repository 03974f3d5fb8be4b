//! Which packets are steered to the sockets.

use std::fmt;

use ipnet::IpNet;

use crate::error::{Error, RuleError};

/// Which of a port's packets are steered to AF_XDP sockets. The others go to the kernel's stack untouched.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "there is nothing between all and some")]
pub enum Steering {
    /// Every packet of the queues that have a socket, whatever it is: ARP and SSH too.
    All,
    /// Packets that some rule matches.
    Match(Vec<Rule>),
}

/// Packets to an address or prefix, optionally of one protocol and to one port.
///
/// [`Steering::matches`] says of one packet whether some rule matches it.
///
/// Fragments have no port, except the first: all are steered by address and protocol as soon as some rule for
/// the address has that protocol (and, where the rule has a port, the protocol has ports). ICMP errors are
/// steered when the packet that they quote was sent by an address, protocol and port that the rule matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rule {
    to: IpNet,
    port: Option<u16>,
    protocol: Option<Protocol>,
    flowless: bool,
}

impl Rule {
    /// A rule for `to`, an address or a prefix (bits behind its length do not count); `None` means any.
    ///
    /// # Errors
    ///
    /// [`Error::Rule`] where the rule could never match: port 0, protocol 0, a port with a protocol that has none.
    pub fn new(to: impl Into<IpNet>, port: Option<u16>, protocol: Option<Protocol>) -> Result<Self, Error> {
        let to = to.into().trunc();
        let reason = match (port, protocol) {
            (Some(0), _) => RuleError::PortZero,
            (_, Some(Protocol(0))) => RuleError::ProtocolZero,
            (Some(_), Some(protocol)) if !protocol.has_ports() => RuleError::NoPorts(protocol),
            _ => return Ok(Self { to, port, protocol, flowless: false }),
        };
        Err(Error::Rule { to, reason })
    }

    /// A rule for what is sent to `to` and tells of no flow in the usual way: fragments, of any protocol, and IPv4
    /// packets with options. For addresses of which a port is to take all that there is, beside rules that say what.
    ///
    /// ```
    /// use afx_redirect::{Protocol, Rule, Steering};
    ///
    /// let vip = "192.0.2.1".parse::<std::net::IpAddr>().unwrap();
    /// let https = Rule::new(vip, Some(443), Some(Protocol::TCP))?;
    /// let steering = Steering::Match(vec![https, Rule::flowless(vip)]);
    /// # Ok::<(), afx_redirect::Error>(())
    /// ```
    pub fn flowless(to: impl Into<IpNet>) -> Self {
        Self { to: to.into().trunc(), port: None, protocol: None, flowless: true }
    }

    /// The destination addresses.
    pub fn to(&self) -> IpNet {
        self.to
    }

    /// The destination port; `None` for any, and for protocols without ports.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// Whether it is for packets that tell of no flow, and for these alone: made by [`Rule::flowless`].
    pub fn is_flowless(&self) -> bool {
        self.flowless
    }

    /// The protocol above IP; `None` for any.
    pub fn protocol(&self) -> Option<Protocol> {
        self.protocol
    }
}

/// The number of a protocol above IP, as the IANA assigns them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Protocol(pub u8);

impl Protocol {
    /// ICMP for IPv4.
    pub const ICMP: Self = Self(1);
    /// TCP.
    pub const TCP: Self = Self(6);
    /// UDP.
    pub const UDP: Self = Self(17);
    /// DCCP.
    pub const DCCP: Self = Self(33);
    /// ICMP for IPv6.
    pub const ICMPV6: Self = Self(58);
    /// SCTP.
    pub const SCTP: Self = Self(132);
    /// UDP-Lite.
    pub const UDP_LITE: Self = Self(136);

    /// Whether its header begins with a source and a destination port.
    pub fn has_ports(self) -> bool {
        matches!(self, Self::TCP | Self::UDP | Self::DCCP | Self::SCTP | Self::UDP_LITE)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::ICMP => f.write_str("ICMP"),
            Self::TCP => f.write_str("TCP"),
            Self::UDP => f.write_str("UDP"),
            Self::DCCP => f.write_str("DCCP"),
            Self::ICMPV6 => f.write_str("ICMPv6"),
            Self::SCTP => f.write_str("SCTP"),
            Self::UDP_LITE => f.write_str("UDP-Lite"),
            Self(number) => write!(f, "{number}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net() -> IpNet {
        "10.1.2.3/8".parse().expect("a prefix")
    }

    #[test]
    fn a_rule_drops_the_bits_behind_its_prefix() {
        let rule = Rule::new(net(), None, None).expect("a valid rule");
        assert_eq!(rule.to(), "10.0.0.0/8".parse().expect("a prefix"));
    }

    #[test]
    fn rules_that_could_never_match_are_refused_with_what_would_be_right() {
        let refused =
            |port, protocol| Rule::new(net(), port, protocol).expect_err("could never match").to_string();
        assert!(refused(Some(0), None).contains("leave the port out"));
        assert!(refused(None, Some(Protocol(0))).contains("leave the protocol out"));
        assert_eq!(
            refused(Some(7), Some(Protocol::ICMP)),
            "rule for 10.0.0.0/8: protocol ICMP has no ports; leave the port out"
        );
    }
}
