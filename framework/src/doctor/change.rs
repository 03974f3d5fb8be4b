//! What mends a finding, and doing it.

use std::fs;
use std::io;
use std::path::PathBuf;

use crate::xsk::ethtool;

/// What mends a finding.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Remedy {
    /// The command, as one types it as root.
    pub command: String,
    change: Option<Change>,
}

/// What a remedy changes, where it may be applied at once: settings of the interface examined, which nothing but speed
/// depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Change {
    Offload { interface: String, name: &'static str, on: bool },
    Settings(Vec<(PathBuf, String)>),
}

impl Remedy {
    /// A command that is for the operator alone to decide about.
    pub(super) fn command(command: impl Into<String>) -> Self {
        Self { command: command.into(), change: None }
    }

    /// An offload turned off: by the name that ethtool has for it, and the kernel's.
    pub(super) fn offload_off(interface: &str, short: &str, name: &'static str) -> Self {
        let command = format!("ethtool -K {interface} {short} off");
        Self { command, change: Some(Change::Offload { interface: interface.into(), name, on: false }) }
    }

    /// Settings of an interface in `/sys/class/net`.
    pub(super) fn settings(interface: &str, settings: &[(&str, &str)]) -> Self {
        let path = |name: &str| format!("/sys/class/net/{interface}/{name}");
        let commands: Vec<_> =
            settings.iter().map(|(name, value)| format!("echo {value} > {}", path(name))).collect();
        let settings = settings.iter().map(|(name, value)| (path(name).into(), (*value).to_owned()));
        Self { command: commands.join(" && "), change: Some(Change::Settings(settings.collect())) }
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
        match &self.change {
            None => Err(io::Error::new(io::ErrorKind::InvalidInput, "this is for the operator to do")),
            Some(Change::Offload { interface, name, on }) => {
                ethtool::set_feature(interface, name, *on)?;
                Ok(format!("{name} {}", if *on { "off" } else { "on" }))
            }
            Some(Change::Settings(settings)) => set(settings),
        }
    }
}

/// Writes all of the files, or none.
fn set(settings: &[(PathBuf, String)]) -> io::Result<String> {
    let read = |path: &PathBuf| fs::read_to_string(path).map(|text| text.trim().to_owned());
    let before = settings.iter().map(|(path, _)| read(path)).collect::<io::Result<Vec<_>>>()?;
    for (place, (path, value)) in settings.iter().enumerate() {
        if let Err(error) = fs::write(path, value) {
            for ((path, _), before) in settings[..place].iter().zip(&before) {
                // What could be written a moment ago can be written again; more cannot be done.
                let _ = fs::write(path, before);
            }
            return Err(io::Error::new(error.kind(), format!("{}: {error}", path.display())));
        }
    }
    let name = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let texts = settings.iter().zip(&before).map(|((path, _), before)| format!("{} {before}", name(path)));
    Ok(texts.collect::<Vec<_>>().join(", "))
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
    fn all_settings_are_made_or_none() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        fs::write(file("one"), "0\n").unwrap();
        fs::write(file("two"), "0\n").unwrap();
        let both = [(file("one"), "2".to_owned()), (file("two"), "200000".to_owned())];
        assert_eq!(set(&both).unwrap(), "one 0, two 0");
        assert_eq!(fs::read_to_string(file("two")).unwrap(), "200000");
        // The last of them is a folder: it can be neither read nor written.
        fs::create_dir(file("three")).unwrap();
        let wrong = [(file("one"), "7".to_owned()), (file("three"), "7".to_owned())];
        assert!(set(&wrong).is_err());
        assert_eq!(fs::read_to_string(file("one")).unwrap(), "2");
    }

    #[test]
    fn the_command_is_what_an_operator_types() {
        let remedy = Remedy::settings("eth0", &[("a", "1"), ("b", "2")]);
        assert_eq!(remedy.command, "echo 1 > /sys/class/net/eth0/a && echo 2 > /sys/class/net/eth0/b");
        assert_eq!(Remedy::offload_off("eth0", "lro", "rx-lro").command, "ethtool -K eth0 lro off");
    }
}
