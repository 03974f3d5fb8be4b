//! What is different between two configurations, in words, key by key.
//!
//! Both are compared in the form of their files, so that no key can be forgotten here.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use serde::Serialize;
use serde_json::{Map, Value};

use super::form::{FileForm, PortForm, RealForm, VipForm};
use super::{Config, Port, Real, RealState, Vip, VipKey};

/// One difference: "vip 198.51.100.10:443/tcp: real 10.0.0.12 weight 100 -> 200".
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) subject: Subject,
    pub(crate) what: What,
}

/// What has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    /// A section of which there is one, by its name.
    Section(String),
    /// The order of the ports, by which workers know them.
    Ports,
    /// A port, by its interface.
    Port(String),
    Vip(VipKey),
    Real(VipKey, IpAddr),
}

/// How it has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// It is new. What stands out about it, or nothing.
    Added(String),
    Removed,
    /// One of its keys, with its old value and the new one.
    Set {
        key: String,
        old: String,
        new: String,
    },
}

impl Change {
    /// The section that cannot change while workers run, if it is part of one.
    pub(crate) fn needs_restart(&self) -> Option<&str> {
        match &self.subject {
            Subject::Ports | Subject::Port(_) => Some("[[port]]"),
            Subject::Section(name) => {
                ["workers", "connections", "control"].contains(&name.trim_matches(['[', ']'])).then_some(name)
            }
            Subject::Vip(_) | Subject::Real(..) => None,
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let separator = match &self.subject {
            Subject::Section(name) => {
                f.write_str(name)?;
                ""
            }
            Subject::Ports => {
                f.write_str("ports")?;
                ":"
            }
            Subject::Port(interface) => {
                write!(f, "port {interface}")?;
                ":"
            }
            Subject::Vip(key) => {
                write!(f, "vip {key}")?;
                ":"
            }
            Subject::Real(key, address) => {
                write!(f, "vip {key}: real {address}")?;
                ""
            }
        };
        match &self.what {
            What::Added(with) if with.is_empty() => write!(f, "{separator} added"),
            What::Added(with) => write!(f, "{separator} added, {with}"),
            What::Removed => write!(f, "{separator} removed"),
            What::Set { key, old, new } => write!(f, "{separator} {key} {old} -> {new}"),
        }
    }
}

/// All that a reload from one configuration to the other changes: ports, sections and then VIPs, each with its keys
/// by name. The order of VIPs and reals means nothing.
pub(crate) fn diff(old: &Config, new: &Config) -> Vec<Change> {
    let mut changes = ports(&old.ports, &new.ports);
    let sections = |config| table(&FileForm::settings(config)).into_iter().collect::<BTreeMap<_, _>>();
    let old_sections = sections(old);
    for (name, new) in sections(new) {
        let subject = Subject::Section(format!("[{name}]"));
        keys(&subject, &old_sections[&name], &new, &mut changes);
    }
    let old_vips: BTreeMap<_, _> = old.vips.iter().map(|vip| (vip.key(), vip)).collect();
    let new_vips: BTreeSet<_> = new.vips.iter().map(Vip::key).collect();
    for vip in &new.vips {
        match old_vips.get(&vip.key()) {
            Some(old) => vips(old, vip, &mut changes),
            None => {
                let plural = if vip.reals.len() == 1 { "" } else { "s" };
                let what = What::Added(format!("with {} real{plural}", vip.reals.len()));
                changes.push(Change { subject: Subject::Vip(vip.key()), what });
            }
        }
    }
    let gone = old.vips.iter().map(Vip::key).filter(|key| !new_vips.contains(key));
    changes.extend(gone.map(|key| Change { subject: Subject::Vip(key), what: What::Removed }));
    changes
}

fn ports(old: &[Port], new: &[Port]) -> Vec<Change> {
    let mut changes = Vec::new();
    let find = |ports: &'_ [Port], interface: &str| ports.iter().position(|port| port.interface == interface);
    for port in new {
        let subject = Subject::Port(port.interface.clone());
        match find(old, &port.interface) {
            Some(index) => {
                table_keys(&subject, &PortForm::of(&old[index]), &PortForm::of(port), &mut changes)
            }
            None => changes.push(Change { subject, what: What::Added(String::new()) }),
        }
    }
    for port in old.iter().filter(|port| find(new, &port.interface).is_none()) {
        changes.push(Change { subject: Subject::Port(port.interface.clone()), what: What::Removed });
    }
    let names = |ports: &[Port]| ports.iter().map(|port| port.interface.clone()).collect::<Vec<_>>();
    let (old, new) = (names(old), names(new));
    if old != new && old.iter().collect::<BTreeSet<_>>() == new.iter().collect() {
        let what = What::Set { key: "order".to_owned(), old: old.join(", "), new: new.join(", ") };
        changes.push(Change { subject: Subject::Ports, what });
    }
    changes
}

fn vips(old: &Vip, new: &Vip, changes: &mut Vec<Change>) {
    let key = new.key();
    table_keys(&Subject::Vip(key), &VipForm::settings(old), &VipForm::settings(new), changes);
    let old_reals: BTreeMap<_, _> = old.reals.iter().map(|real| (real.address, real)).collect();
    let new_reals: BTreeSet<_> = new.reals.iter().map(|real| real.address).collect();
    for real in &new.reals {
        let subject = Subject::Real(key, real.address);
        match old_reals.get(&real.address) {
            Some(old) => table_keys(&subject, &RealForm::of(old), &RealForm::of(real), changes),
            None => changes.push(Change { subject, what: What::Added(share(real)) }),
        }
    }
    for real in old.reals.iter().filter(|real| !new_reals.contains(&real.address)) {
        changes.push(Change { subject: Subject::Real(key, real.address), what: What::Removed });
    }
}

/// What decides how much a new real gets.
fn share(real: &Real) -> String {
    match real.state {
        RealState::Up => format!("weight {}", real.weight),
        state => format!("weight {}, state {state}", real.weight),
    }
}

/// The tables of a file, and their keys.
fn table(form: &impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(form) {
        Ok(Value::Object(map)) => map,
        other => unreachable!("a form is a table with keys that are strings: {other:?}"),
    }
}

fn table_keys(subject: &Subject, old: &impl Serialize, new: &impl Serialize, changes: &mut Vec<Change>) {
    keys(subject, &Value::Object(table(old)), &Value::Object(table(new)), changes);
}

/// Finds the keys whose values differ.
fn keys(subject: &Subject, old: &Value, new: &Value, changes: &mut Vec<Change>) {
    let (Value::Object(old), Value::Object(new)) = (old, new) else { return };
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    for name in names {
        let (old, new) = (old.get(name).unwrap_or(&Value::Null), new.get(name).unwrap_or(&Value::Null));
        match (old, new) {
            _ if old == new => {}
            (Value::Object(before), Value::Object(after)) => {
                let inner: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
                for key in inner {
                    let get = |table: &Map<String, Value>| table.get(key).cloned().unwrap_or_default();
                    set(subject, format!("{name} {key}"), &get(before), &get(after), changes);
                }
            }
            _ => set(subject, name.clone(), old, new, changes),
        }
    }
}

fn set(subject: &Subject, key: String, old: &Value, new: &Value, changes: &mut Vec<Change>) {
    if old != new {
        let what = What::Set { key, old: written(old), new: written(new) };
        changes.push(Change { subject: subject.clone(), what });
    }
}

/// A value as an operator would say it.
fn written(value: &Value) -> String {
    match value {
        Value::Null => "(none)".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(values) => format!("[{}]", values.iter().map(written).collect::<Vec<_>>().join(", ")),
        // A section within another one, as a whole: the check of a VIP.
        Value::Object(table) => table.get("type").map_or_else(|| "(some)".to_owned(), written),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}
