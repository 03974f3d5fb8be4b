//! What mends a finding, and doing it.

use std::io;

use crate::settings::{Setting, for_good};

/// What mends a finding.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Remedy {
    /// The command, as one types it as root.
    pub command: String,
    change: Option<Change>,
}

/// What a remedy changes, where it may be applied at once: settings of the interface examined, which nothing but speed
/// depends on, and their values.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Change {
    interface: String,
    settings: Vec<(Setting, String)>,
}

impl Remedy {
    /// A command that is for the operator alone to decide about.
    pub(super) fn command(command: impl Into<String>) -> Self {
        Self { command: command.into(), change: None }
    }

    /// An offload turned off: by the name that ethtool has for it, and the kernel's.
    pub(super) fn offload_off(interface: &str, short: &str, name: &str) -> Self {
        let settings = vec![(Setting::Offload { name: name.into() }, "off".into())];
        let command = format!("ethtool -K {interface} {short} off");
        Self { command, change: Some(Change { interface: interface.into(), settings }) }
    }

    /// Settings of an interface in `/sys/class/net`, and their values.
    pub(super) fn attributes(interface: &str, attributes: &[(&str, &str)]) -> Self {
        let command =
            |(name, value): &(&str, &str)| format!("echo {value} > /sys/class/net/{interface}/{name}");
        let commands: Vec<_> = attributes.iter().map(command).collect();
        let settings = attributes.iter().map(|(name, value)| (Setting::attribute(name), (*value).to_owned()));
        let change = Change { interface: interface.into(), settings: settings.collect() };
        Self { command: commands.join(" && "), change: Some(change) }
    }

    /// Whether it may be applied at once: it changes a setting of the interface examined, which nothing but speed
    /// depends on, and which takes no link down.
    pub fn is_safe(&self) -> bool {
        self.change.is_some()
    }

    /// Does what the command says, and returns what was there before, as far as it was anything else.
    ///
    /// # Errors
    /// The kernel's; [`io::ErrorKind::InvalidInput`] for one that is not [safe](Self::is_safe). Then all is as before.
    pub fn apply(&self) -> io::Result<String> {
        let Some(Change { interface, settings }) = &self.change else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "this is for the operator to do"));
        };
        let before = for_good(interface, settings)?;
        Ok(if before.is_empty() { "as wanted already".into() } else { before.join(", ") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_safe_is_not_applied() {
        let remedy = Remedy::command("reboot");
        assert!(!remedy.is_safe());
        assert_eq!(remedy.apply().unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn the_command_is_what_an_operator_types() {
        let remedy = Remedy::attributes("eth0", &[("a", "1"), ("b", "2")]);
        assert_eq!(remedy.command, "echo 1 > /sys/class/net/eth0/a && echo 2 > /sys/class/net/eth0/b");
        assert_eq!(Remedy::offload_off("eth0", "lro", "rx-lro").command, "ethtool -K eth0 lro off");
    }
}
