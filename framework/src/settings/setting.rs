//! One setting: what it is called, how it is read and how it is written. The one place that changes any.

use std::fs;
use std::io;

use serde::{Deserialize, Serialize};

use super::napi::{self, Defer};
use crate::machine::files::written;
use crate::machine::{Files, interrupts};
use crate::xsk::ethtool;
use crate::xsk::interface::{self, Channels};

/// A setting of an interface. Values are text, as [`read`](Self::read) gives them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", deny_unknown_fields)]
pub(crate) enum Setting {
    /// How many queues receive.
    Channels,
    /// The card's table that spreads packets over queues: a queue's number for each place, with blanks between.
    Spread,
    /// The key of the card's hash, which chooses a place in that table: its bytes in hexadecimal.
    Key,
    /// The cores that an interrupt may come on.
    Interrupt {
        /// The interrupt's number.
        number: u32,
    },
    /// A file of `/sys/class/net/INTERFACE`.
    Attribute {
        /// The file's name.
        name: String,
    },
    /// How long a single queue's interrupts are put off: `napi_defer_hard_irqs` and `gro_flush_timeout`, a blank between.
    Defer {
        /// The queue's number.
        queue: u32,
    },
    /// Whether an offload is `on` or `off`.
    Offload {
        /// The kernel's name of it.
        name: String,
    },
}

impl Setting {
    pub(crate) fn attribute(name: &str) -> Self {
        Self::Attribute { name: name.into() }
    }

    /// What people know it by.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Channels => "channels".into(),
            Self::Spread => "RSS table".into(),
            Self::Key => "RSS key".into(),
            Self::Defer { queue } => format!("interrupts put off, queue {queue}"),
            Self::Interrupt { number } => format!("cores of interrupt {number}"),
            Self::Attribute { name } | Self::Offload { name } => name.clone(),
        }
    }

    /// A value as people read it.
    pub(crate) fn shown(&self, value: &str) -> String {
        match self {
            Self::Spread => {
                let mut queues: Vec<usize> = places(value).into_iter().map(|queue| queue as usize).collect();
                queues.sort_unstable();
                queues.dedup();
                let plural = if queues.len() == 1 { "queue" } else { "queues" };
                format!("{plural} {}", written(&queues))
            }
            Self::Key => key_in_words(value),
            Self::Defer { .. } => match defer(value) {
                Some(Defer { rounds, timeout }) => format!("{rounds} times {timeout} ns"),
                None => value.to_owned(),
            },
            _ => value.to_owned(),
        }
    }

    /// What it is now.
    ///
    /// # Errors
    /// The kernel's; [`io::ErrorKind::Unsupported`] where the interface has no such setting.
    pub(crate) fn read(&self, interface: &str) -> io::Result<String> {
        match self {
            Self::Channels => Ok(receiving(&channels(interface)?).to_string()),
            Self::Spread => {
                let table = ethtool::indirection(interface)?;
                let table =
                    table.ok_or_else(|| unsupported("the driver has no table to spread packets by"))?;
                Ok(text(&table))
            }
            Self::Key => {
                let key = ethtool::hash_key(interface)?;
                Ok(hex(&key.ok_or_else(|| unsupported("the driver has no key of a hash to show"))?))
            }
            Self::Defer { queue } => {
                let Defer { rounds, timeout } = napi::read(interface, *queue)?;
                Ok(format!("{rounds} {timeout}"))
            }
            Self::Interrupt { number } => read_file(&interrupt(interface, *number)?),
            Self::Attribute { name } => read_file(&attribute(interface, name)?),
            Self::Offload { name } => {
                let features = ethtool::features(interface)?;
                let feature = features.iter().find(|feature| feature.name == *name);
                let feature = feature.ok_or_else(|| unsupported("the kernel has no such offload"))?;
                Ok(if feature.active { "on" } else { "off" }.into())
            }
        }
    }

    /// Sets it.
    ///
    /// # Errors
    /// As [`read`](Self::read), and [`io::ErrorKind::InvalidInput`] for what is no value of it.
    pub(crate) fn write(&self, interface: &str, value: &str) -> io::Result<()> {
        match self {
            Self::Channels => {
                let now = channels(interface)?;
                let most = now.max_rx.max(now.max_combined);
                let count: u32 = value.parse().map_err(|_| no_value(value))?;
                if !(1..=most).contains(&count) {
                    let what = format!("{count} queues: it can have 1 to {most}");
                    return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
                }
                let set = interface::set_channels(interface, now.with_receiving(count));
                set.map_err(|error| hindered(interface, count, error))
            }
            Self::Spread => {
                let table = places(value);
                // What the driver would do by itself is asked for as that: a table that was set by hand keeps the kernel
                // from taking queues away later on.
                let queues = interface::rx_queues(interface)?;
                let is_usual = table.iter().zip(0..).all(|(queue, place): (_, u32)| *queue == place % queues);
                let table: &[u32] = if is_usual { &[] } else { &table };
                ethtool::set_indirection(interface, table)
            }
            Self::Key => ethtool::set_hash_key(interface, &bytes(value).ok_or_else(|| no_value(value))?),
            Self::Defer { queue } => {
                napi::write(interface, *queue, defer(value).ok_or_else(|| no_value(value))?)
            }
            Self::Interrupt { number } => write_file(&interrupt(interface, *number)?, value),
            Self::Attribute { name } => write_file(&attribute(interface, name)?, value),
            Self::Offload { name } => ethtool::set_feature(interface, name, value == "on"),
        }
    }
}

fn unsupported(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, why)
}

fn no_value(value: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("`{value}` is no value of it"))
}

/// What may be behind a driver's or the kernel's "Invalid argument" to a number of queues: some drivers, virtio-net among
/// them, change none while an XDP program is attached; and the kernel takes none that a table of RSS set by somebody leads
/// to (`ethnl_set_channels` in `net/ethtool/channels.c`).
fn hindered(interface: &str, count: u32, error: io::Error) -> io::Error {
    let index = nix::net::if_::if_nametoindex(interface).unwrap_or_default();
    let what = if let Some(occupant) = afx_redirect::occupant(index) {
        format!(
            "{error}; the driver may change none while an XDP program is attached, and there is {occupant}: set them \
             before it comes"
        )
    } else if error.kind() == io::ErrorKind::InvalidInput
        && Setting::Spread.read(interface).is_ok_and(|table| places(&table).iter().any(|to| *to >= count))
    {
        format!(
            "{error}; the RSS table leads to queues from {count} on, and where somebody has set it, it has to go first: \
             ethtool -X {interface} default"
        )
    } else {
        return error;
    };
    io::Error::new(error.kind(), what)
}

fn channels(interface: &str) -> io::Result<Channels> {
    interface::channels(interface)?.ok_or_else(|| unsupported("the driver has no number of queues to set"))
}

fn receiving(channels: &Channels) -> u32 {
    if channels.max_combined > 0 { channels.combined_count } else { channels.rx_count }
}

/// A table as text.
pub(super) fn text(table: &[u32]) -> String {
    table.iter().map(u32::to_string).collect::<Vec<_>>().join(" ")
}

/// The places of a table in text.
pub(super) fn places(table: &str) -> Vec<u32> {
    table.split_whitespace().filter_map(|queue| queue.parse().ok()).collect()
}

/// Rounds and ns that are in text.
pub(super) fn defer(text: &str) -> Option<Defer> {
    let (rounds, timeout) = text.split_once(' ')?;
    Some(Defer { rounds: rounds.parse().ok()?, timeout: timeout.parse().ok()? })
}

/// Bytes in hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes that are in hexadecimal.
fn bytes(hex: &str) -> Option<Vec<u8>> {
    let byte = |place: usize| u8::from_str_radix(hex.get(place..place + 2)?, 16).ok();
    (0..hex.len()).step_by(2).map(byte).collect()
}

/// A key, of which so much is told as tells it from others: who knows all of it can have all packets come on one queue.
pub(crate) fn key_in_words(hex: &str) -> String {
    // A record may be damaged.
    let (first, rest) = hex.split_at_checked(4).unwrap_or((hex, ""));
    let is_symmetric = !rest.is_empty() && rest.as_bytes().chunks(4).all(|part| part == first.as_bytes());
    if is_symmetric {
        return format!("{first} repeated, the same both ways");
    }
    format!("{first}…, {} bytes", hex.len() / 2)
}

/// The path of an interrupt's cores, if it is one of the interface's: its number may have come to another device.
fn interrupt(interface: &str, number: u32) -> io::Result<String> {
    let all = interrupts::of(&Files::Machine, interface);
    if all.iter().any(|interrupt| interrupt.number == number) {
        return Ok(format!("/proc/irq/{number}/smp_affinity_list"));
    }
    Err(io::Error::new(io::ErrorKind::NotFound, format!("interrupt {number} is none of {interface}")))
}

/// The path of an interface's file.
fn attribute(interface: &str, name: &str) -> io::Result<String> {
    let folder = format!("/sys/class/net/{interface}");
    // /sys may be of another network namespace, which has another interface of this name or none.
    let index = nix::net::if_::if_nametoindex(interface)?;
    let seen = fs::read_to_string(format!("{folder}/ifindex")).unwrap_or_default();
    if seen.trim() != index.to_string() {
        return Err(unsupported("/sys is of another network namespace: start from `ip netns exec`"));
    }
    Ok(format!("{folder}/{name}"))
}

fn read_file(path: &str) -> io::Result<String> {
    let text = fs::read_to_string(path).map_err(|error| of_file(path, &error))?;
    Ok(text.trim().to_owned())
}

fn write_file(path: &str, value: &str) -> io::Result<()> {
    fs::write(path, value).map_err(|error| of_file(path, &error))
}

fn of_file(path: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{path}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_shown_in_few_words() {
        assert_eq!(Setting::Spread.shown("0 1 2 0 1 2"), "queues 0-2");
        assert_eq!(Setting::Spread.shown("3 3"), "queue 3");
        assert_eq!(Setting::Key.shown("6d5a6d5a6d5a"), "6d5a repeated, the same both ways");
        assert_eq!(Setting::Key.shown("6d5a6d5a6d5b"), "6d5a…, 6 bytes");
        assert_eq!(Setting::Key.shown("6d5a6d5a6d"), "6d5a…, 5 bytes");
        assert_eq!(Setting::Channels.shown("4"), "4");
        assert_eq!(Setting::Interrupt { number: 41 }.name(), "cores of interrupt 41");
    }

    #[test]
    fn a_key_is_text_and_bytes() {
        assert_eq!(hex(&[0x6d, 0x0a, 0xff]), "6d0aff");
        assert_eq!(bytes("6d0aff"), Some(vec![0x6d, 0x0a, 0xff]));
        for wrong in ["6d0", "zz", "6dß0"] {
            assert_eq!(bytes(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_loopback_does_not_have_is_said() {
        for setting in [Setting::Channels, Setting::Spread, Setting::Key] {
            assert_eq!(setting.read("lo").unwrap_err().kind(), io::ErrorKind::Unsupported, "{setting:?}");
        }
        assert_eq!(Setting::Offload { name: "rx-gro".into() }.read("lo").unwrap().len(), 2);
        assert!(Setting::attribute("mtu").read("lo").unwrap().parse::<u32>().is_ok());
        let error = Setting::attribute("no-such-file").read("lo").unwrap_err();
        assert!(error.to_string().contains("/sys/class/net/lo/no-such-file"), "{error}");
    }
}
