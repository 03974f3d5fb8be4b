//! What mends a finding, and doing it.

use std::io;

use crate::settings::Setting;

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

    /// Does what the command says, and returns what was there before.
    ///
    /// # Errors
    /// The kernel's; [`io::ErrorKind::InvalidInput`] for one that is not [safe](Self::is_safe). Then all is as before.
    pub fn apply(&self) -> io::Result<String> {
        let Some(Change { interface, settings }) = &self.change else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "this is for the operator to do"));
        };
        let before = set_all(interface, settings)?;
        let texts = settings
            .iter()
            .zip(&before)
            .map(|((setting, _), before)| format!("{} {}", setting.name(), setting.shown(before)));
        Ok(texts.collect::<Vec<_>>().join(", "))
    }
}

/// Makes all of the changes or none, and returns the values from before.
///
/// # Errors
/// The first that fails; then what was changed is as before.
fn set_all(interface: &str, changes: &[(Setting, String)]) -> io::Result<Vec<String>> {
    let read = |setting: &Setting| setting.read(interface);
    all_or_none(changes, read, |setting, value| setting.write(interface, value))
}

fn all_or_none(
    changes: &[(Setting, String)],
    read: impl Fn(&Setting) -> io::Result<String>,
    write: impl Fn(&Setting, &str) -> io::Result<()>,
) -> io::Result<Vec<String>> {
    let before = changes.iter().map(|(setting, _)| read(setting)).collect::<io::Result<Vec<_>>>()?;
    for (place, (setting, value)) in changes.iter().enumerate() {
        if let Err(error) = write(setting, value) {
            for ((setting, _), before) in changes[..place].iter().zip(&before).rev() {
                // What could be written a moment ago can be written again; more cannot be done.
                let _ = write(setting, before);
            }
            return Err(error);
        }
    }
    Ok(before)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn all_settings_are_made_or_none() {
        let values =
            RefCell::new(BTreeMap::from([("one".to_owned(), "0".to_owned()), ("two".into(), "0".into())]));
        let read = |setting: &Setting| {
            values.borrow().get(&setting.name()).cloned().ok_or(io::ErrorKind::NotFound.into())
        };
        let write = |setting: &Setting, value: &str| {
            if value == "refused" {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
            values.borrow_mut().insert(setting.name(), value.into());
            Ok(())
        };
        let change = |name: &str, value: &str| (Setting::attribute(name), value.to_owned());
        let both = [change("one", "2"), change("two", "200000")];
        assert_eq!(all_or_none(&both, read, write).unwrap(), ["0", "0"]);
        assert_eq!(values.borrow()["two"], "200000");
        let half = [change("one", "7"), change("two", "refused")];
        assert_eq!(all_or_none(&half, read, write).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(values.borrow()["one"], "2");
        let unknown = [change("one", "7"), change("three", "7")];
        assert_eq!(all_or_none(&unknown, read, write).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(values.borrow()["one"], "2");
    }

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
