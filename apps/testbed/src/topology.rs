//! Networks described in a TOML file: `apps/testbed/examples/routed.toml` shows every key.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, de};
use toml::Spanned;

use crate::error::{Error, Result};
use crate::host::{Host, Route, check_sysctl};
use crate::link::{End, Link, Mac, check_sizes, parse_address};
use crate::name::{checked, checked_interface};
use crate::testbed::{Switch, Testbed};

/// The only version of the format there is.
const VERSION: u32 = 1;

/// A network's description, found right as a whole: building it makes no more mistakes than the kernel finds.
///
/// ```
/// let topology = afx_testbed::Topology::parse(r#"
///     version = 1
///     name = "pair"
///     hosts.a = {}
///     hosts.b = {}
///     [[links]]
///     ends = [
///         { host = "a", interface = "eth0", addresses = ["10.0.0.1/24"] },
///         { host = "b", interface = "eth0", addresses = ["10.0.0.2/24"] },
///     ]
/// "#)?;
/// assert_eq!(topology.name(), "pair");
/// # Ok::<(), afx_testbed::Error>(())
/// ```
#[derive(Debug)]
pub struct Topology {
    file: File,
}

impl Topology {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when it cannot be read, [`Error::Topology`] with line and column of what is wrong.
    pub fn load(file: impl AsRef<Path>) -> Result<Self> {
        let file = file.as_ref();
        let text = fs::read_to_string(file).map_err(Error::io(format!("reading {}", file.display())))?;
        Self::read(&text, file)
    }

    /// Reads a text.
    ///
    /// # Errors
    ///
    /// [`Error::Topology`] with line and column of what is wrong.
    pub fn parse(text: &str) -> Result<Self> {
        Self::read(text, Path::new("<text>"))
    }

    fn read(text: &str, path: &Path) -> Result<Self> {
        let wrong = |message: String| Error::Topology { file: PathBuf::from(path), message };
        let file: File =
            toml::from_str(text).map_err(|error| wrong(error.to_string().trim_end().to_owned()))?;
        file.check().map_err(|mistake| {
            let before = &text[..mistake.offset.min(text.len())];
            let line = before.matches('\n').count() + 1;
            let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
            wrong(format!("line {line}, column {column}: {}", mistake.message))
        })?;
        Ok(Self { file })
    }

    /// The network's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.file.name.0
    }

    /// Builds the network in an empty testbed: hosts, switches, links, routes, and then the programs.
    ///
    /// # Errors
    ///
    /// What [`Testbed`] and [`Host`] say. Part of the network is there then: drop the testbed.
    pub fn build(&self, net: &Testbed) -> Result<()> {
        let mut hosts = BTreeMap::new();
        for (name, description) in &self.file.hosts {
            let host = net.host(&name.0)?;
            if description.forward {
                host.forward()?;
            }
            hosts.insert(name.0.as_str(), (host, description));
        }
        let mut switches = BTreeMap::new();
        for name in &self.file.switches {
            switches.insert(name.get_ref().0.as_str(), net.switch(&name.get_ref().0)?);
        }
        for link in &self.file.links {
            let link = link.get_ref();
            let [a, b] = [&link.ends[0], &link.ends[1]].map(|end| end.get_ref().end(&hosts, &switches));
            net.link(Link::between(a, b).queues(link.queues).mtu(link.mtu))?;
        }
        // After the links: sysctls of interfaces are there now, and routes have their next hops.
        for (host, description) in hosts.values() {
            for (key, value) in &description.sysctls {
                host.sysctl(key.get_ref(), &value.0)?;
            }
            for route in &description.routes {
                host.route(&route.get_ref().to, &route.get_ref().via)?;
            }
        }
        for (host, description) in hosts.values() {
            for line in &description.commands {
                if let [program, arguments @ ..] = line.get_ref().as_slice() {
                    host.command(program).args(arguments).spawn()?;
                }
            }
        }
        Ok(())
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: Spanned<u32>,
    name: Name,
    hosts: BTreeMap<Name, HostDescription>,
    #[serde(default)]
    switches: Vec<Spanned<Name>>,
    #[serde(default)]
    links: Vec<Spanned<LinkDescription>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct HostDescription {
    #[serde(default)]
    forward: bool,
    #[serde(default)]
    sysctls: BTreeMap<Spanned<String>, Value>,
    #[serde(default)]
    routes: Vec<Spanned<RouteDescription>>,
    #[serde(default)]
    commands: Vec<Spanned<Vec<String>>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RouteDescription {
    to: String,
    via: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LinkDescription {
    ends: Vec<Spanned<EndDescription>>,
    #[serde(default = "one")]
    queues: u32,
    #[serde(default = "ethernet")]
    mtu: u32,
}

fn one() -> u32 {
    1
}

fn ethernet() -> u32 {
    1500
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct EndDescription {
    host: Option<Name>,
    interface: Option<Interface>,
    switch: Option<Name>,
    #[serde(default)]
    addresses: Vec<Address>,
    mac: Option<MacText>,
    #[serde(default = "yes")]
    gro: bool,
    #[serde(default)]
    offloads: bool,
}

fn yes() -> bool {
    true
}

impl EndDescription {
    /// The end, on a host or switch that `check` has found to be there.
    fn end(
        &self,
        hosts: &BTreeMap<&str, (Host, &HostDescription)>,
        switches: &BTreeMap<&str, Switch>,
    ) -> End {
        const CHECKED: &str = "`check` has found this end to be on a host or switch of the file";
        let mut end = match (&self.host, &self.interface, &self.switch) {
            (Some(host), Some(interface), None) => {
                hosts.get(host.0.as_str()).expect(CHECKED).0.end(&interface.0)
            }
            (_, _, Some(switch)) => switches.get(switch.0.as_str()).expect(CHECKED).port(),
            _ => unreachable!("{CHECKED}"),
        };
        for address in &self.addresses {
            end = end.address(address.0);
        }
        if let Some(mac) = &self.mac {
            end = end.mac(mac.0);
        }
        end.gro(self.gro).offloads(self.offloads)
    }
}

/// What is wrong between parts of the file that are right by themselves.
struct Mistake {
    offset: usize,
    message: String,
}

fn mistake<T>(at: &Spanned<T>, message: impl ToString) -> Mistake {
    Mistake { offset: at.span().start, message: message.to_string() }
}

impl File {
    fn check(&self) -> std::result::Result<(), Mistake> {
        if *self.version.get_ref() != VERSION {
            let message = format!("version {} is unknown: expected {VERSION}", self.version.get_ref());
            return Err(mistake(&self.version, message));
        }
        let mut switches = BTreeSet::new();
        for name in &self.switches {
            if !switches.insert(name.get_ref()) {
                return Err(mistake(name, format!("a second switch named {:?}", name.get_ref().0)));
            }
        }
        for host in self.hosts.values() {
            host.check()?;
        }
        let mut interfaces = BTreeSet::new();
        for link in &self.links {
            let ends = &link.get_ref().ends;
            if ends.len() != 2 {
                return Err(mistake(link, format!("a link has 2 ends, this one {}", ends.len())));
            }
            let LinkDescription { queues, mtu, .. } = *link.get_ref();
            check_sizes(queues, mtu).map_err(|error| mistake(link, error))?;
            for end in ends {
                self.check_end(end, &switches, &mut interfaces)?;
            }
        }
        Ok(())
    }

    fn check_end<'a>(
        &'a self,
        at: &'a Spanned<EndDescription>,
        switches: &BTreeSet<&Name>,
        interfaces: &mut BTreeSet<(&'a str, &'a str)>,
    ) -> std::result::Result<(), Mistake> {
        let end = at.get_ref();
        let listed = |names: Vec<&str>| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        match (&end.host, &end.interface, &end.switch) {
            (Some(host), Some(interface), None) => {
                if !self.hosts.contains_key(host) {
                    let known = listed(self.hosts.keys().map(|name| name.0.as_str()).collect());
                    return Err(mistake(at, format!("no host {:?}; there are: {known}", host.0)));
                }
                if !interfaces.insert((&host.0, &interface.0)) {
                    return Err(mistake(
                        at,
                        format!("a second interface {:?} on host {:?}", interface.0, host.0),
                    ));
                }
                Ok(())
            }
            (None, None, Some(switch)) => {
                if !switches.contains(switch) {
                    let known = listed(switches.iter().map(|name| name.0.as_str()).collect());
                    return Err(mistake(at, format!("no switch {:?}; there are: {known}", switch.0)));
                }
                if end.addresses.is_empty() {
                    Ok(())
                } else {
                    Err(mistake(at, "a switch's port has no addresses: give them to the hosts"))
                }
            }
            _ => Err(mistake(at, "an end has either `host` and `interface`, or `switch`")),
        }
    }
}

impl HostDescription {
    fn check(&self) -> std::result::Result<(), Mistake> {
        for key in self.sysctls.keys() {
            check_sysctl(key.get_ref()).map_err(|error| mistake(key, error))?;
        }
        for route in &self.routes {
            let RouteDescription { to, via } = route.get_ref();
            Route::parse(to, via).map_err(|error| mistake(route, error))?;
        }
        for line in &self.commands {
            if line.get_ref().first().is_none_or(String::is_empty) {
                return Err(mistake(
                    line,
                    "a command is a list of a program and its arguments: this one has no program",
                ));
            }
        }
        Ok(())
    }
}

/// A name of a network, host or switch.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Name(String);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        from_text(deserializer, |text| checked("name", text).map(Self))
    }
}

#[derive(Debug)]
struct Interface(String);

impl<'de> Deserialize<'de> for Interface {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        from_text(deserializer, |text| checked_interface(text).map(Self))
    }
}

#[derive(Debug)]
struct Address(IpNet);

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        from_text(deserializer, |text| parse_address(text).map(Self))
    }
}

#[derive(Debug)]
struct MacText(Mac);

impl<'de> Deserialize<'de> for MacText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        from_text(deserializer, |text| text.parse().map(Self))
    }
}

/// A sysctl's value, as text whichever way it is written.
#[derive(Debug)]
struct Value(String);

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a sysctl's value is a string or an integer")]
        enum Either {
            Integer(i64),
            Text(String),
        }
        Either::deserialize(deserializer).map(|either| match either {
            Either::Integer(number) => Self(number.to_string()),
            Either::Text(text) => Self(text),
        })
    }
}

fn from_text<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    parse: impl FnOnce(&str) -> Result<T>,
) -> std::result::Result<T, D::Error> {
    parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = include_str!("../examples/routed.toml");

    #[test]
    fn the_example_is_right() {
        let topology = Topology::parse(GOOD).unwrap();
        assert_eq!(topology.name(), "routed");
        assert_eq!((topology.file.hosts.len(), topology.file.links.len()), (4, 4));
    }

    #[test]
    fn mistakes_are_told_with_their_place_and_what_is_right() {
        let base = "version = 1\nname = \"n\"\nhosts.a = {}\nhosts.b = {}\nswitches = [\"s\"]\n";
        let ends = |a: &str, b: &str| format!("{base}[[links]]\nends = [{{ {a} }}, {{ {b} }}]\n");
        let a = "host = \"a\", interface = \"e\"";
        let cases = [
            (
                "version = 2\nname = \"n\"\nhosts = {}".to_owned(),
                "line 1",
                "version 2 is unknown: expected 1",
            ),
            ("name = \"n\"\nhosts = {}".to_owned(), "", "missing field `version`"),
            (format!("{base}colour = 1"), "line 6", "unknown field `colour`"),
            (base.replace("hosts.b", "hosts.\"b.c\""), "line 4", "letters, digits"),
            (base.replace("\"s\"]", "\"s\", \"s\"]"), "line 5", "a second switch"),
            (ends(a, "host = \"x\", interface = \"e\""), "line 7", "no host \"x\"; there are: a, b"),
            (ends(a, a), "line 7", "a second interface \"e\" on host \"a\""),
            (ends(a, "switch = \"x\""), "line 7", "no switch \"x\"; there are: s"),
            (ends(a, "switch = \"s\", addresses = [\"10.0.0.1/8\"]"), "line 7", "give them to the hosts"),
            (ends(a, "host = \"b\""), "line 7", "either `host` and `interface`, or `switch`"),
            (ends(a, "host = \"b\", interface = \"lo\""), "line 7", "choose another"),
            (
                ends(a, "host = \"b\", interface = \"e\", addresses = [\"10.0.0.1\"]"),
                "line 7",
                "prefix length",
            ),
            (ends(a, "host = \"b\", interface = \"e\", mac = \"2\""), "line 7", "six bytes"),
            (format!("{base}[[links]]\nends = []"), "line 6", "2 ends, this one 0"),
            (ends(a, "switch = \"s\"") + "queues = 0", "line 6", "1 to 4096"),
            (ends(a, "switch = \"s\"") + "mtu = 1", "line 6", "68 to 65535"),
            (base.replace("a = {}", "a.sysctls.\"vm.x\" = 1"), "line 3", "below `net.`"),
            (base.replace("a = {}", "a.sysctls.\"net.x\" = true"), "line 3", "a string or an integer"),
            (
                base.replace("a = {}", "a.routes = [{ to = \"x\", via = \"10.0.0.1\" }]"),
                "line 3",
                "a prefix such as",
            ),
            (base.replace("a = {}", "a.commands = [[]]"), "line 3", "no program"),
        ];
        for (text, place, expected) in cases {
            let message = Topology::parse(&text).expect_err(&text).to_string();
            assert!(message.contains(place) && message.contains(expected), "{text}\n-> {message}");
        }
    }
}
