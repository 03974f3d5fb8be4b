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
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub(crate) use answer::*;
pub(crate) use ask::*;

pub(crate) use crate::config::{Fragments, HashOn, Protocol, ServerIdIn, VipKey};
use crate::words::words;

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

as_string!(VipKey);
as_string!(Mac);

/// A MAC address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mac(pub(crate) afx::packet::MacAddress);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Mac {
    type Err = afx::packet::MacAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl From<Mac> for crate::config::MacAddress {
    fn from(mac: Mac) -> Self {
        Self(mac.0.0)
    }
}
