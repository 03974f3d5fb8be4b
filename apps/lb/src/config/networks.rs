//! Addresses of hosts, prefixes, and cards.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use toml::de::DeValue;

use super::diagnostic::Problem;
use super::values::string;

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MacAddress(pub(crate) [u8; 6]);

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl serde::Serialize for MacAddress {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

pub(super) fn unicast_address(value: &DeValue<'_>) -> Result<IpAddr, Problem> {
    let example = "expected is an address such as \"192.0.2.1\" or \"2001:db8::1\"";
    let text = string(value, example)?;
    let address: IpAddr = text.parse().map_err(|_| {
        let help = if text.contains('/') { "one address is meant here, not a prefix" } else { example };
        Problem::new(format!("\"{text}\" is no IP address")).help(help)
    })?;
    of_one_host(address, example)
}

pub(super) const VIP_EXAMPLE: &str =
    "expected is an address or a prefix, such as \"192.0.2.1\", \"198.51.100.0/24\" or \"2001:db8::/64\"";

/// The address of a VIP, or the prefix of all its addresses.
pub(super) fn vip_network(text: &str) -> Result<IpNet, Problem> {
    let example = VIP_EXAMPLE;
    if let Ok(address) = text.parse::<IpAddr>() {
        return of_one_host(address, example).map(IpNet::from);
    }
    let network: IpNet = text
        .parse()
        .map_err(|_| Problem::new(format!("\"{text}\" is no IP address and no prefix")).help(example))?;
    if network.prefix_len() == network.max_prefix_len() {
        return of_one_host(network.addr(), example).map(IpNet::from);
    }
    if network.addr() != network.network() {
        return Err(host_bits(text, &network.trunc()));
    }
    if network.addr().is_multicast() || network.addr().is_loopback() {
        return Err(Problem::new(format!("{network} does not hold the addresses of hosts in a network"))
            .help(example));
    }
    if let IpNet::V6(v6) = network
        && v6.prefix_len() >= 96
        && let Some(v4) = v6.addr().to_ipv4_mapped()
    {
        let right = format!("write it as \"{v4}/{}\"", v6.prefix_len() - 96);
        return Err(Problem::new(format!("{network} holds IPv4 addresses in IPv6 form")).help(right));
    }
    Ok(network)
}

/// The address, if one host in a network can have it.
fn of_one_host(address: IpAddr, example: &str) -> Result<IpAddr, Problem> {
    let is_broadcast = address == IpAddr::V4(Ipv4Addr::BROADCAST);
    if address.is_unspecified() || address.is_multicast() || address.is_loopback() || is_broadcast {
        return Err(
            Problem::new(format!("{address} is not the address of one host in a network")).help(example)
        );
    }
    if let IpAddr::V6(v6) = address
        && let Some(v4) = v6.to_ipv4_mapped()
    {
        return Err(Problem::new(format!("{address} is an IPv4 address in IPv6 form"))
            .help(format!("write it as \"{v4}\"")));
    }
    Ok(address)
}

/// A prefix of either family, or one address.
pub(super) fn prefix(value: &DeValue<'_>) -> Result<IpNet, Problem> {
    let example = "expected is a prefix or an address, such as \"192.0.2.0/24\" or \"2001:db8::/64\"";
    let text = string(value, example)?;
    let alone = text.parse::<IpAddr>().ok().map(IpNet::from);
    let prefix = alone.or_else(|| text.parse().ok());
    let prefix = prefix.ok_or_else(|| Problem::new(format!("\"{text}\" is no prefix")).help(example))?;
    if prefix.addr() != prefix.network() {
        return Err(host_bits(text, &prefix.trunc()));
    }
    Ok(prefix)
}

pub(super) fn prefix_v4(value: &DeValue<'_>) -> Result<Ipv4Net, Problem> {
    let example = "expected is an IPv4 address or prefix, such as \"192.0.2.1\" or \"10.200.0.0/16\"";
    let text = string(value, example)?;
    let alone = text.parse::<Ipv4Addr>().ok().map(Ipv4Net::from);
    let prefix = alone.or_else(|| text.parse().ok());
    let prefix = prefix.ok_or_else(|| Problem::new(format!("\"{text}\" is no IPv4 prefix")).help(example))?;
    if prefix.addr() != prefix.network() {
        return Err(host_bits(text, &prefix.trunc()));
    }
    Ok(prefix)
}

pub(super) fn prefix_v6(value: &DeValue<'_>) -> Result<Ipv6Net, Problem> {
    let example = "expected is an IPv6 address or prefix, such as \"2001:db8::1\" or \"fd00:afb::/64\"";
    let text = string(value, example)?;
    let alone = text.parse::<Ipv6Addr>().ok().map(Ipv6Net::from);
    let prefix = alone.or_else(|| text.parse().ok());
    let prefix = prefix.ok_or_else(|| Problem::new(format!("\"{text}\" is no IPv6 prefix")).help(example))?;
    if prefix.addr() != prefix.network() {
        return Err(host_bits(text, &prefix.trunc()));
    }
    Ok(prefix)
}

fn host_bits(text: &str, right: &dyn fmt::Display) -> Problem {
    Problem::new(format!("\"{text}\" has bits set after its prefix")).help(format!("write \"{right}\""))
}

pub(super) fn mac(value: &DeValue<'_>) -> Result<MacAddress, Problem> {
    let example = "expected is a MAC address such as \"02:00:00:00:00:01\"";
    let text = string(value, example)?;
    let byte = |part: &str| {
        let is_hex = part.len() == 2 && part.bytes().all(|digit| digit.is_ascii_hexdigit());
        is_hex.then(|| u8::from_str_radix(part, 16).ok()).flatten()
    };
    let bytes: Option<Vec<u8>> = text.split(':').map(byte).collect();
    let bytes: Option<[u8; 6]> = bytes.and_then(|bytes| bytes.try_into().ok());
    let bytes = bytes.ok_or_else(|| Problem::new(format!("\"{text}\" is no MAC address")).help(example))?;
    if bytes[0] & 1 == 1 || bytes == [0; 6] {
        return Err(Problem::new(format!("\"{text}\" is not the MAC address of one host")).help(example));
    }
    Ok(MacAddress(bytes))
}
