//! The JSON that goes over the command socket: one object a line, each way. docs/control.md shows each of them.
//!
//! A request is an [`Ask`]: `{"do": "status"}`. Its answer is `{"ok": …}` with one of the types in [`answer`], or
//! `{"error": "…"}`. Requests that take long are answered by lines `{"more": …}` first.
//!
//! These shapes are a public interface. Fields may be added to answers; none goes, changes its meaning or its unit
//! without a line in the changelog. Units are part of names: `_seconds`, `_per_second`. Parts of a whole are numbers
//! from 0 to 1. What is not known is null or left out.

pub(crate) mod answer;
pub(crate) mod ask;

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub(crate) use answer::*;
pub(crate) use ask::*;

/// Makes an enum of words, which are the same in JSON, on the command line and in tables.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        pub(crate) enum $name { $($(#[$variant_doc])* #[serde(rename = $word)] $variant),+ }

        impl $name {
            /// The word for it.
            pub(crate) const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.word())
            }
        }

        impl clap::ValueEnum for $name {
            fn value_variants<'a>() -> &'a [Self] {
                &[$(Self::$variant),+]
            }

            fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
                Some(clap::builder::PossibleValue::new(self.word()))
            }
        }
    };
}

words! {
    /// The protocol of a VIP.
    Protocol { Tcp = "tcp", Udp = "udp" }
}
words! {
    /// What of a flow decides which real it gets: `hash` of a VIP.
    HashOn { FiveTuple = "5-tuple", Source = "source", DestinationPort = "destination-port" }
}
words! {
    /// Where packets of a VIP may carry a server's id: `server_id` of a VIP.
    ServerIdIn { None = "none", Quic = "quic", TcpOption = "tcp-option", UdpHeader = "udp-header" }
}
words! {
    /// What becomes of a VIP's fragments.
    Fragments { Drop = "drop", Together = "together" }
}
words! {
    /// What a real gets.
    RealState {
        /// New flows and known ones.
        Up = "up",
        /// Known flows and packets that name it, but no new ones: until its connections are over.
        Drain = "drain",
        /// Known TCP flows alone.
        Down = "down",
        /// Nothing: its drain is over.
        Out = "out",
    }
}
words! {
    /// Who has taken a real down.
    DownBy { Admin = "admin", Check = "check" }
}
words! {
    /// What the health check says of a real.
    HealthState {
        /// It serves.
        Up = "up",
        /// It does not.
        Down = "down",
        /// There was no verdict yet.
        Unknown = "unknown",
        /// It went up and down too often, and is kept down for a while.
        Held = "held",
    }
}
words! {
    /// How far a connection is.
    ConnectionState {
        /// One packet was seen, or SYNs alone.
        Opening = "opening",
        /// TCP, and the client sent more than a SYN.
        Established = "established",
        /// TCP, and the client sent FIN or RST.
        Closing = "closing",
        /// UDP, and the client sent more than one packet.
        Datagram = "udp",
    }
}
words! {
    /// How a flow's real was chosen.
    How { Connection = "connection", ServerId = "server-id", Source = "source", Maglev = "maglev" }
}
words! {
    /// How packets get to the reals.
    Method { Ipip = "ipip", Gue = "gue", L2Dsr = "l2dsr" }
}

/// A VIP as it is named: `198.51.100.10:443/tcp`, `[2001:db8::10]:443/tcp`, `198.51.100.0/24:443/tcp`,
/// `[fc00:1::/96]:*/udp`; `*` stands for any port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct VipName {
    /// The address, or the prefix; it has no host bits.
    pub(crate) network: IpNet,
    /// None: any port.
    pub(crate) port: Option<u16>,
    pub(crate) protocol: afx::packet::Protocol,
}

impl fmt::Display for VipName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { network, port, protocol } = self;
        let port = port.map_or_else(|| "*".to_owned(), |port| port.to_string());
        let network = if network.prefix_len() == network.max_prefix_len() {
            network.addr().to_string()
        } else {
            network.to_string()
        };
        let network = if self.network.addr().is_ipv6() { format!("[{network}]") } else { network };
        f.pad(&format!("{network}:{port}/{protocol}"))
    }
}

/// A text that names no VIP.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} names no VIP: {why}. Expected is a name such as {EXAMPLES}")]
pub(crate) struct VipNameError {
    text: String,
    why: String,
}

const EXAMPLES: &str = "198.51.100.10:443/tcp, [2001:db8::10]:443/udp or 198.51.100.0/24:*/tcp";

impl FromStr for VipName {
    type Err = VipNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = |why: &str| VipNameError { text: text.to_owned(), why: why.to_owned() };
        let (rest, protocol) = text.rsplit_once('/').ok_or_else(|| wrong("it has no protocol"))?;
        let protocol = match protocol {
            "tcp" => afx::packet::Protocol::TCP,
            "udp" => afx::packet::Protocol::UDP,
            _ => return Err(wrong("its protocol is neither tcp nor udp")),
        };
        let (address, port) = rest.rsplit_once(':').ok_or_else(|| wrong("it has no port"))?;
        let port = match port {
            "*" => None,
            number => match number.parse() {
                Ok(port) if port > 0 => Some(port),
                _ => return Err(wrong("its port is no number from 1 to 65535, nor *")),
            },
        };
        let bracketed = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let network = bracketed.unwrap_or(address);
        let network = network.parse::<IpAddr>().map(IpNet::from).or_else(|_| network.parse::<IpNet>());
        let network = network.map_err(|_| wrong("its address is neither an IP address nor a prefix"))?;
        if network.addr().is_ipv6() != bracketed.is_some() {
            return Err(wrong("an IPv6 address stands in brackets, an IPv4 address does not"));
        }
        if network != network.trunc() {
            return Err(wrong(&format!("its address has bits set after the prefix ({})", network.trunc())));
        }
        Ok(Self { network, port, protocol })
    }
}

/// Types that are a string in JSON: the one that they are shown as.
macro_rules! as_string {
    ($name:ty) => {
        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

as_string!(VipName);
as_string!(Mac);

/// A MAC address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mac(pub(crate) afx::packet::MacAddress);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.to_string())
    }
}

impl FromStr for Mac {
    type Err = afx::packet::MacAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}
