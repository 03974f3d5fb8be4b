//! Which VIP a packet is for: the longest prefix that has one, and in it the port before any port.

use std::net::IpAddr;

use ipnet::IpNet;

use super::map::{Key, Map};
use super::vip::Vip;
use crate::packet::{FlowKey, FlowKey4, FlowKey6, Protocol};

/// A map of VIPs that is looked into for each packet and never changed.
#[derive(Debug)]
pub(super) struct Vips {
    v4: Family<u32>,
    v6: Family<u128>,
}

impl Vips {
    /// The map from each VIP to what is beside it. Of several that are the same the first counts.
    pub(super) fn new(entries: impl IntoIterator<Item = (Vip, u32)>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (vip, value) in entries {
            let port = vip.port;
            match vip.network.trunc() {
                IpNet::V4(network) => v4.push(Entry {
                    address: network.addr().to_bits(),
                    len: network.prefix_len(),
                    port,
                    protocol: vip.protocol,
                    value,
                }),
                IpNet::V6(network) => v6.push(Entry {
                    address: network.addr().to_bits(),
                    len: network.prefix_len(),
                    port,
                    protocol: vip.protocol,
                    value,
                }),
            }
        }
        Self { v4: Family::new(v4), v6: Family::new(v6) }
    }

    /// The map from prefixes, whatever port is asked for with them, to what is beside them.
    pub(super) fn any_port(entries: impl IntoIterator<Item = (IpNet, Protocol, u32)>) -> Self {
        let vip = |(network, protocol, value)| (Vip { network, port: None, protocol }, value);
        Self::new(entries.into_iter().map(vip))
    }

    /// What is beside the VIP that a flow goes to.
    #[inline(always)]
    pub(super) fn of(&self, flow: &FlowKey) -> Option<u32> {
        match flow {
            FlowKey::V4(flow) => self.of_v4(flow),
            FlowKey::V6(flow) => self.of_v6(flow),
        }
    }

    /// What is beside the VIP that an IPv4 flow goes to.
    #[inline(always)]
    pub(super) fn of_v4(&self, flow: &FlowKey4) -> Option<u32> {
        self.v4.find(flow.destination().to_bits(), flow.destination_port(), flow.protocol())
    }

    /// What is beside the VIP that an IPv6 flow goes to.
    #[inline(always)]
    pub(super) fn of_v6(&self, flow: &FlowKey6) -> Option<u32> {
        self.v6.find(flow.destination().to_bits(), flow.destination_port(), flow.protocol())
    }

    /// What is beside the VIP that has this address, port and protocol.
    #[inline(never)]
    pub(super) fn find(&self, address: IpAddr, port: u16, protocol: Protocol) -> Option<u32> {
        match address {
            IpAddr::V4(address) => self.v4.find(address.to_bits(), port, protocol),
            IpAddr::V6(address) => self.v6.find(address.to_bits(), port, protocol),
        }
    }
}

/// An address as a number, alone and together with port and protocol.
trait Address: Copy {
    type Key: Key;
    /// The mask of a prefix of this length.
    fn mask(len: u8) -> Self;
    fn and(self, mask: Self) -> Self;
    fn key(self, port: u16, protocol: Protocol) -> Self::Key;
}

impl Address for u32 {
    type Key = u64;

    fn mask(len: u8) -> Self {
        Self::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0)
    }

    #[inline(always)]
    fn and(self, mask: Self) -> Self {
        self & mask
    }

    #[inline(always)]
    fn key(self, port: u16, protocol: Protocol) -> u64 {
        u64::from(self) << 32 | u64::from(port) << 16 | u64::from(protocol.0)
    }
}

impl Address for u128 {
    type Key = (u128, u32);

    fn mask(len: u8) -> Self {
        Self::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0)
    }

    #[inline(always)]
    fn and(self, mask: Self) -> Self {
        self & mask
    }

    #[inline(always)]
    fn key(self, port: u16, protocol: Protocol) -> (u128, u32) {
        (self, u32::from(port) << 16 | u32::from(protocol.0))
    }
}

#[derive(Clone, Copy)]
struct Entry<A> {
    address: A,
    len: u8,
    port: Option<u16>,
    protocol: Protocol,
    value: u32,
}

impl<A: Address> Entry<A> {
    fn keyed(&self) -> (A::Key, u32) {
        (self.address.key(self.port.unwrap_or(0), self.protocol), self.value)
    }
}

/// The VIPs of one IP version.
#[derive(Debug)]
struct Family<A: Address> {
    /// Those of one address and one port, which have precedence: mostly there are no others.
    hosts: Map<A::Key>,
    /// The others, by prefix length and whether they name a port, in the order of precedence.
    steps: Box<[Step<A>]>,
}

/// The VIPs of one prefix length that name a port, or that do not.
#[derive(Debug)]
struct Step<A: Address> {
    mask: A,
    /// All ones where a port is named.
    port_mask: u16,
    vips: Map<A::Key>,
}

impl<A: Address> Family<A> {
    fn new(entries: Vec<Entry<A>>) -> Self {
        let whole = (size_of::<A>() * 8) as u8;
        let (hosts, others): (Vec<_>, Vec<_>) =
            entries.into_iter().partition(|entry| entry.len == whole && entry.port.is_some());
        let mut kinds: Vec<(u8, bool)> =
            others.iter().map(|entry| (entry.len, entry.port.is_some())).collect();
        kinds.sort_unstable_by(|a, b| b.cmp(a));
        kinds.dedup();
        let step = |(len, with_port): (u8, bool)| Step {
            mask: A::mask(len),
            port_mask: if with_port { u16::MAX } else { 0 },
            vips: Map::new(
                others
                    .iter()
                    .filter(|entry| (entry.len, entry.port.is_some()) == (len, with_port))
                    .map(Entry::keyed),
            ),
        };
        Self { hosts: Map::new(hosts.iter().map(Entry::keyed)), steps: kinds.into_iter().map(step).collect() }
    }

    #[inline(always)]
    fn find(&self, address: A, port: u16, protocol: Protocol) -> Option<u32> {
        let host = self.hosts.lookup(address.key(port, protocol));
        if host.is_some() || self.steps.is_empty() {
            return host;
        }
        self.find_in_steps(address, port, protocol)
    }

    #[inline(never)]
    fn find_in_steps(&self, address: A, port: u16, protocol: Protocol) -> Option<u32> {
        self.steps
            .iter()
            .find_map(|step| step.vips.lookup(address.and(step.mask).key(port & step.port_mask, protocol)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a packet fits, by the rule's words alone.
    fn slow(vips: &[Vip], address: IpAddr, port: u16, protocol: Protocol) -> Option<u32> {
        (0..)
            .zip(vips)
            .filter(|(_, vip)| vip.network.contains(&address) && vip.protocol == protocol)
            .filter(|(_, vip)| vip.port.is_none_or(|named| named == port))
            .max_by_key(|(_, vip)| (vip.network.prefix_len(), vip.port.is_some()))
            .map(|(index, _)| index)
    }

    fn vip(text: &str) -> Vip {
        text.parse().unwrap()
    }

    #[test]
    fn the_longest_prefix_counts_and_in_it_the_port_before_any() {
        let vips = [
            "198.51.0.0/16:*/tcp",
            "198.51.100.0/24:80/tcp",
            "198.51.100.0/24:*/udp",
            "198.51.100.7:*/tcp",
            "198.51.100.7:443/tcp",
            "198.51.100.8:443/tcp",
            "0.0.0.0/0:53/udp",
        ]
        .map(vip);
        let map = Vips::new(vips.iter().copied().zip(0..));
        let find = |address: &str, port, protocol| {
            let found = map.find(address.parse().unwrap(), port, protocol);
            found.map(|index| vips[index as usize].to_string())
        };
        let (tcp, udp) = (Protocol::TCP, Protocol::UDP);
        assert_eq!(find("198.51.100.7", 443, tcp).as_deref(), Some("198.51.100.7:443/tcp"));
        assert_eq!(find("198.51.100.7", 80, tcp).as_deref(), Some("198.51.100.7:*/tcp"), "not the /24's 80");
        assert_eq!(find("198.51.100.8", 80, tcp).as_deref(), Some("198.51.100.0/24:80/tcp"));
        assert_eq!(find("198.51.100.9", 81, tcp).as_deref(), Some("198.51.0.0/16:*/tcp"));
        assert_eq!(find("198.51.100.9", 53, udp).as_deref(), Some("198.51.100.0/24:*/udp"));
        assert_eq!(find("198.51.101.9", 53, udp).as_deref(), Some("0.0.0.0/0:53/udp"));
        assert_eq!(find("198.52.0.1", 80, tcp), None);
        assert_eq!(find("::198.51.100.7", 443, tcp), None);
    }

    /// Networks that often hold each other, of few ports and protocols.
    fn any_vip() -> impl Strategy<Value = Vip> {
        let network = prop_oneof![
            (0..4_u8, 0..4_u8, prop_oneof![Just(32), 0..=32_u8]).prop_map(|(a, b, len)| IpNet::new(
                [198, 51, a, b].into(),
                len
            )
            .unwrap()),
            (0..4_u16, 0..4_u16, prop_oneof![Just(128), 0..=128_u8]).prop_map(|(a, b, len)| IpNet::new(
                [0x2001, 0xdb8, 0, 0, 0, 0, a, b].into(),
                len
            )
            .unwrap()),
        ];
        let protocol = prop_oneof![Just(Protocol::TCP), Just(Protocol::UDP)];
        (network, prop::option::of(0..4_u16), protocol).prop_map(|(network, port, protocol)| Vip {
            network: network.trunc(),
            port,
            protocol,
        })
    }

    fn asked() -> impl Strategy<Value = (IpAddr, u16, Protocol)> {
        (any_vip(), 0..5_u16, 0..8_u8).prop_map(|(vip, port, last)| {
            let address = match vip.network.addr() {
                IpAddr::V4(address) => IpAddr::from((address.to_bits() ^ u32::from(last)).to_be_bytes()),
                IpAddr::V6(address) => IpAddr::from((address.to_bits() ^ u128::from(last)).to_be_bytes()),
            };
            (address, port, vip.protocol)
        })
    }

    proptest! {
        #[test]
        fn finds_what_a_look_at_all_of_them_finds(
            vips in prop::collection::hash_set(any_vip(), 0..40),
            asked in prop::collection::vec(asked(), 60),
        ) {
            let vips: Vec<_> = vips.into_iter().collect();
            let map = Vips::new(vips.iter().copied().zip(0..));
            for (address, port, protocol) in asked {
                let expected = slow(&vips, address, port, protocol);
                prop_assert_eq!(map.find(address, port, protocol), expected);
                let client = if address.is_ipv4() { IpAddr::from([10, 0, 0, 1]) } else { IpAddr::from([1; 16]) };
                let flow = FlowKey::new(client, address, protocol, 40_000, port).unwrap();
                prop_assert_eq!(map.of(&flow), expected);
            }
        }
    }
}
