//! Values: each function makes one of a kind out of what the file says, or says why it is none.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU16;
use std::ops::RangeInclusive;
use std::time::Duration;

use afx::stage::balancer::connections::Timeouts;
use afx::stage::balancer::maglev::{TableSize, TableSizeError};
use ipnet::{Ipv4Net, Ipv6Net};
use toml::de::DeValue;

use super::Queues;
use super::diagnostic::Problem;
use super::reader::nearest;

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MacAddress(pub(crate) [u8; 6]);

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

pub(super) fn string<'v>(value: &'v DeValue<'_>, example: &str) -> Result<&'v str, Problem> {
    value.as_str().ok_or_else(|| {
        Problem::new(format!("{} where a string is expected", kind(value))).help(example.to_owned())
    })
}

pub(super) fn integer(value: &DeValue<'_>, range: RangeInclusive<u64>) -> Result<u64, Problem> {
    let expected = format!("expected is a number from {} to {}", range.start(), range.end());
    let DeValue::Integer(integer) = value else {
        return Err(Problem::new(format!("{} where a whole number is expected", kind(value))).help(expected));
    };
    u64::from_str_radix(integer.as_str(), integer.radix())
        .ok()
        .filter(|number| range.contains(number))
        .ok_or_else(|| Problem::new(format!("{integer} is out of range")).help(expected))
}

pub(super) fn word<T: Copy>(value: &DeValue<'_>, words: &[(&'static str, T)]) -> Result<T, Problem> {
    let all: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    let expected =
        format!("expected is {}", all.iter().map(|w| format!("\"{w}\"")).collect::<Vec<_>>().join(" or "));
    let text = string(value, &expected)?;
    words.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning).ok_or_else(|| {
        let help = match nearest(text, &all) {
            Some(nearest) => format!("did you mean \"{nearest}\"?"),
            None => expected,
        };
        Problem::new(format!("\"{text}\" is not known here")).help(help)
    })
}

pub(super) fn count(value: &DeValue<'_>) -> Result<NonZeroU16, Problem> {
    let number = integer(value, 1..=4096)?;
    Ok(NonZeroU16::new(number as u16).expect("the range begins at 1"))
}

pub(super) fn queues(value: &DeValue<'_>) -> Result<Queues, Problem> {
    match value.as_str() {
        Some("all") => Ok(Queues::All),
        Some(other) => Err(Problem::new(format!("\"{other}\" is no set of queues"))
            .help("expected is \"all\", or how many of them, from the first on")),
        None => count(value).map(Queues::First),
    }
}

pub(super) fn cores(value: &DeValue<'_>) -> Result<Vec<u16>, Problem> {
    let expected = "expected is a list of core numbers, such as [2, 3]";
    let Some(array) = value.as_array() else {
        return Err(Problem::new(format!("{} where a list is expected", kind(value))).help(expected));
    };
    let mut cores = Vec::new();
    for core in array.iter() {
        let core = integer(core.get_ref(), 0..=4095)? as u16;
        if cores.contains(&core) {
            return Err(Problem::new(format!("core {core} is given twice")).help("a core takes one worker"));
        }
        cores.push(core);
    }
    if cores.is_empty() {
        return Err(Problem::new("the list of cores is empty").help("name cores, or leave `cores` out"));
    }
    Ok(cores)
}

pub(super) fn interface(value: &DeValue<'_>) -> Result<String, Problem> {
    let name = string(value, "expected is the name of a network interface, such as \"eth1\"")?;
    // As `dev_valid_name` in the kernel's net/core/dev.c has it.
    let is_valid = (1..=15).contains(&name.len())
        && name != "."
        && name != ".."
        && !name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace());
    if is_valid {
        return Ok(name.to_owned());
    }
    Err(Problem::new(format!("\"{name}\" cannot be the name of a network interface"))
        .help("it has 1 to 15 characters, and no slash, colon, or blank"))
}

pub(super) fn unicast_address(value: &DeValue<'_>) -> Result<IpAddr, Problem> {
    let example = "expected is an address such as \"192.0.2.1\" or \"2001:db8::1\"";
    let text = string(value, example)?;
    let address: IpAddr = text.parse().map_err(|_| {
        let help = if text.contains('/') { "one address is meant here, not a prefix" } else { example };
        Problem::new(format!("\"{text}\" is no IP address")).help(help)
    })?;
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

pub(super) fn timeout(value: &DeValue<'_>) -> Result<Duration, Problem> {
    let example = "expected is a time such as \"30s\", \"15m\" or \"2h\"";
    let text = string(value, example)?;
    let wrong = || Problem::new(format!("\"{text}\" is no time")).help(example);
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let number: u64 = text[..digits].parse().map_err(|_| wrong())?;
    let seconds = match &text[digits..] {
        "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        _ => return Err(wrong()),
    };
    let duration = Duration::from_secs(number.saturating_mul(seconds));
    if duration.is_zero() || duration > Timeouts::MAX {
        let most = Timeouts::MAX.as_secs() / (24 * 60 * 60);
        return Err(
            Problem::new(format!("\"{text}\" is out of range")).help(format!("it can be 1s to {most}d"))
        );
    }
    Ok(duration)
}

pub(super) fn table_size(value: &DeValue<'_>) -> Result<TableSize, Problem> {
    let slots = integer(value, 2..=u64::from(TableSize::MAX.slots()))? as u32;
    TableSize::new(slots).map_err(|error| {
        let help = match error {
            TableSizeError::NotPrime { below: Some(below), above, .. } => {
                format!("the nearest primes are {below} and {above}")
            }
            other => other.to_string(),
        };
        Problem::new(format!("the table's size {slots} is not prime")).help(help)
    })
}

/// What kind of value it is, as an operator would call it.
fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a section",
    }
}
