//! Links: a veth pair between two hosts, or between a host and a switch.

use std::fmt;
use std::str::FromStr;

use ipnet::IpNet;

use crate::error::{Error, Result};
use crate::host::Host;
use crate::name::{NetworkId, checked_interface};
use crate::tool;

/// The kernel's limit for the queues of a veth.
const MOST_QUEUES: u32 = 4096;
/// IPv6 demands 1280 bytes, IPv4 68; a veth takes up to 65535.
const MTU: std::ops::RangeInclusive<u32> = 68..=65535;

/// A link to be laid by [`Testbed::link`](crate::Testbed::link).
///
/// Each queue of one end feeds the queue of the same number at the other end: the sender's choice of a TX queue is the
/// receiver's RX queue. There is no RSS on a veth; the kernel's own senders choose by the flow's hash.
#[derive(Debug, Clone)]
#[must_use = "a link is laid by `Testbed::link`"]
pub struct Link {
    ends: [End; 2],
    queues: u32,
    mtu: u32,
}

impl Link {
    /// A link between two ends, with one queue and an MTU of 1500 bytes unless told otherwise.
    pub fn between(a: End, b: End) -> Self {
        Self { ends: [a, b], queues: 1, mtu: 1500 }
    }

    /// The number of RX queues and of TX queues, the same at both ends (XDP demands that one end has at least as many
    /// RX queues as the other has TX queues).
    pub fn queues(mut self, number: u32) -> Self {
        self.queues = number;
        self
    }

    /// The MTU in bytes, the same at both ends.
    pub fn mtu(mut self, bytes: u32) -> Self {
        self.mtu = bytes;
        self
    }

    pub(crate) fn hosts(&self) -> [&Host; 2] {
        [&self.ends[0].host, &self.ends[1].host]
    }

    /// Makes the interfaces, in an order that matters (see below).
    pub(crate) fn lay(self) -> Result<()> {
        check_sizes(self.queues, self.mtu)?;
        let (queues, mtu) = (self.queues, self.mtu);
        let [a, b] = &self.ends;
        let (from, to) = (a.checked()?, b.checked()?);
        let tail = format!("mtu {mtu} numrxqueues {queues} numtxqueues {queues}");
        let mut make = format!(
            "link add {} address {} {tail} type veth peer name {} address {} {tail} netns {}\n",
            a.interface,
            from.mac,
            b.interface,
            to.mac,
            b.host.namespace()
        );
        make.push_str(&a.extra(b));
        a.host.batch(&make)?;
        b.host.batch(&b.extra(a))?;
        for end in &self.ends {
            end.set_offloads()?;
        }
        // Both ends come up before the first address is given: IPv6 on an interface that had addresses before it had a
        // carrier loses its first neighbour solicitation, and the retry takes a second.
        b.host.batch(&format!("link set {} up\n", b.interface))?;
        a.host.batch(&format!("link set {} up\n{}", a.interface, from.addresses(&a.interface)))?;
        b.host.batch(&to.addresses(&b.interface))
    }
}

pub(crate) fn check_sizes(queues: u32, mtu: u32) -> Result<()> {
    if !(1..=MOST_QUEUES).contains(&queues) {
        return Err(Error::invalid("number of queues", queues, format!("expected 1 to {MOST_QUEUES}")));
    }
    if !MTU.contains(&mtu) {
        return Err(Error::invalid("MTU", mtu, format!("expected {} to {} bytes", MTU.start(), MTU.end())));
    }
    Ok(())
}

pub(crate) fn parse_address(text: &str) -> Result<IpNet> {
    text.parse().map_err(|_| {
        Error::invalid("address", text, "expected an address and its prefix length, such as 10.0.0.1/24")
    })
}

/// One end of a link: an interface of a host, made by [`Host::end`], or a port of a switch, made by
/// [`Switch::port`](crate::Switch::port).
#[derive(Debug, Clone)]
pub struct End {
    host: Host,
    interface: String,
    bridge: Option<&'static str>,
    addresses: Vec<String>,
    mac: Option<Mac>,
    gro: bool,
    offloads: bool,
}

impl End {
    pub(crate) fn new(host: Host, interface: &str) -> Self {
        Self {
            host,
            interface: interface.to_owned(),
            bridge: None,
            addresses: Vec::new(),
            mac: None,
            gro: true,
            offloads: false,
        }
    }

    pub(crate) fn bridged(mut self, bridge: &'static str) -> Self {
        self.bridge = Some(bridge);
        self
    }

    /// Gives the interface an address with its prefix length, such as `10.0.0.1/24` or `fd00::1/64`. IPv6 addresses
    /// are usable at once (no duplicate address detection).
    #[must_use]
    pub fn address(mut self, address: impl ToString) -> Self {
        self.addresses.push(address.to_string());
        self
    }

    /// Sets the MAC address. Without it one is derived from the names of the network, the host and the interface, the
    /// same each time.
    #[must_use]
    pub fn mac(mut self, mac: Mac) -> Self {
        self.mac = Some(mac);
        self
    }

    /// Generic receive offload; on unless told otherwise.
    ///
    /// On a veth GRO turns NAPI on, and only an interface with NAPI accepts what its peer sends by `XDP_REDIRECT` (without
    /// it, and without an XDP program of its own, those packets vanish): that is why it is on. For what the peer sends by
    /// native `XDP_TX` NAPI is not enough: those packets wait until something else wakes it (`veth_xdp_flush` in the
    /// kernel's `drivers/net/veth.c`), unless the interface has an XDP program too, one that passes everything, say. What
    /// the peer sends through an AF_XDP socket in copy mode comes as any other packet.
    ///
    /// GRO merges TCP segments before a generic-mode XDP program, a packet socket or the routing sees them: where a test
    /// looks at single TCP segments there, turn it off. Native XDP, and so AF_XDP, comes before GRO.
    #[must_use]
    pub fn gro(mut self, on: bool) -> Self {
        self.gro = on;
        self
    }

    /// Checksum and segmentation offload on sending; off unless told otherwise.
    ///
    /// On a veth nobody makes up for what is offloaded: an AF_XDP socket at the other end sees partial checksums and
    /// packets longer than the MTU. Turn it on only to test how a program meets that.
    #[must_use]
    pub fn offloads(mut self, on: bool) -> Self {
        self.offloads = on;
        self
    }

    fn checked(&self) -> Result<Checked> {
        checked_interface(&self.interface)?;
        let mac = self.mac.unwrap_or_else(|| Mac::derived(self.host.id(), self.host.name(), &self.interface));
        Ok(Checked {
            addresses: self.addresses.iter().map(|text| parse_address(text)).collect::<Result<_>>()?,
            mac,
        })
    }

    /// What else is to be set on the interface while it is down.
    fn extra(&self, peer: &Self) -> String {
        let Some(bridge) = self.bridge else { return String::new() };
        let (port, alias) = (&self.interface, format!("{}:{}", peer.host.name(), peer.interface));
        format!("link set {port} master {bridge}\nlink set {port} alias {alias}\n")
    }

    fn set_offloads(&self) -> Result<()> {
        let (gro, sending) = (state(self.gro), state(self.offloads));
        let arguments =
            ["-K", &self.interface, "gro", gro, "tx", sending, "sg", sending, "tso", sending, "gso", sending];
        tool::run(Some(self.host.namespace()), "ethtool", &arguments, "").map(drop)
    }
}

fn state(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

/// What of an end is left to find wrong, found right.
struct Checked {
    addresses: Vec<IpNet>,
    mac: Mac,
}

impl Checked {
    fn addresses(&self, interface: &str) -> String {
        let line = |address: &IpNet| match address {
            IpNet::V4(address) => format!("address add {address} dev {interface}\n"),
            IpNet::V6(address) => format!("address add {address} dev {interface} nodad\n"),
        };
        self.addresses.iter().map(line).collect()
    }
}

/// A MAC address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// A locally administered unicast address that depends on nothing but these names (not on the owner: a network
    /// has the same addresses in every run).
    fn derived(network: &NetworkId, host: &str, interface: &str) -> Self {
        // FNV-1a, 64 bits: spreads short names well, and needs no dependency.
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for byte in [network.name(), host, interface].join(".").bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        let [a, b, c, d, e, ..] = (hash ^ (hash >> 40)).to_le_bytes();
        Self([0x02, a, b, c, d, e])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for Mac {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        let mut next = || {
            let part = parts.next().filter(|part| part.len() == 2)?;
            u8::from_str_radix(part, 16).ok()
        };
        let wrong = || Error::invalid("MAC address", text, "expected six bytes, such as 02:00:00:00:00:01");
        for byte in &mut bytes {
            *byte = next().ok_or_else(wrong)?;
        }
        if parts.next().is_some() { Err(wrong()) } else { Ok(Self(bytes)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn macs_are_local_unicast_and_differ() {
        let id = NetworkId::unowned("net").unwrap();
        let mut all: Vec<_> = (0..1000).map(|n| Mac::derived(&id, &format!("host{n}"), "eth0")).collect();
        assert!(all.iter().all(|mac| mac.0[0] == 0x02));
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 1000);
        assert_eq!(
            Mac::derived(&id, "h", "eth0"),
            Mac::derived(&NetworkId::owned("net").unwrap(), "h", "eth0"),
            "another run of the same network"
        );
    }

    #[test]
    fn mac_survives_its_own_text() {
        let mac = Mac([0x02, 0, 0xab, 0xff, 1, 9]);
        assert_eq!(mac.to_string(), "02:00:ab:ff:01:09");
        assert_eq!(mac.to_string().parse::<Mac>().unwrap(), mac);
        for bad in [
            "",
            "02:00:00:00:00",
            "02:00:00:00:00:00:00",
            "2:0:0:0:0:0",
            "02-00-00-00-00-01",
            "zz:00:00:00:00:00",
        ] {
            let message = bad.parse::<Mac>().unwrap_err().to_string();
            assert!(message.contains("such as 02:00"), "{message}");
        }
    }
}
