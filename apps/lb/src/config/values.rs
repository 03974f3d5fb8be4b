//! Values: each function makes one of a kind out of what the file says, or says why it is none.

use std::num::NonZeroU16;
use std::ops::RangeInclusive;

use afx::stage::balancer::maglev::{TableSize, TableSizeError};
use toml::de::DeValue;

use super::diagnostic::Problem;
use super::reader::nearest;
use super::{Queues, RssKey};

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

pub(super) fn boolean(value: &DeValue<'_>) -> Result<bool, Problem> {
    value.as_bool().ok_or_else(|| {
        Problem::new(format!("{} where true or false is expected", kind(value)))
            .help("expected is true or false, without quotes")
    })
}

pub(super) fn port(value: &DeValue<'_>) -> Result<u16, Problem> {
    Ok(integer(value, 1..=65_535)? as u16)
}

/// The port of a VIP: None for any.
pub(super) fn port_or_any(value: &DeValue<'_>) -> Result<Option<u16>, Problem> {
    let expected = "expected is a number from 1 to 65535, or \"any\"";
    match value {
        DeValue::String(text) if text == "any" => Ok(None),
        DeValue::String(text) => Err(Problem::new(format!("\"{text}\" is no port")).help(expected)),
        DeValue::Integer(_) => port(value).map(Some).map_err(|problem| problem.help(expected)),
        other => Err(Problem::new(format!("{} where a port is expected", kind(other))).help(expected)),
    }
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

pub(super) fn rss_key(value: &DeValue<'_>) -> Result<RssKey, Problem> {
    let expected = "expected is \"symmetric\", or a key in hexadecimal, such as \"6d5a\" or \"6d:5a\"";
    let text = string(value, expected)?;
    text.parse().map_err(|()| Problem::new(format!("\"{text}\" is no key")).help(expected))
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
pub(super) fn kind(value: &DeValue<'_>) -> &'static str {
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
