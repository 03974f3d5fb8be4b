//! The steering and the blocklist as the entries of BPF maps, and how one set of entries becomes another
//! without an entry that both have ever being absent.

use std::collections::BTreeMap;
use std::io;

use ipnet::IpNet;
use libbpf_rs::{MapCore, MapFlags, MapHandle};

use crate::error::{Error, io_error};
use crate::steering::{Rule, Steering};

/// One for each map; the first four in the order of the `CLASSES_*` of redirect.bpf.c.
pub(crate) const TABLES: usize = 6;
const NAMES: [&str; TABLES] = [
    "IPv4 addresses",
    "IPv6 addresses",
    "IPv4 prefixes",
    "IPv6 prefixes",
    "blocked IPv4 prefixes",
    "blocked IPv6 prefixes",
];
const STEERED: usize = 4;
const BLOCKED4: usize = 4;
const BLOCKED6: usize = 5;

/// `ENTRY_MATCH`, `ENTRY_FRAGMENT`, `ENTRY_FLOWLESS` of redirect.bpf.c.
const MATCH: u32 = 1;
const FRAGMENT: u32 = 2;
const FLOWLESS: u32 = 4;

/// The entries of all tables, as the kernel shall have them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tables([BTreeMap<Key, u32>; TABLES]);

/// `struct key` of redirect.bpf.c, and the length of a prefix where the table is one of prefixes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    port: u16,
    protocol: u8,
    to: IpNet,
}

impl Tables {
    /// These tables with the rules of `steering` in place of those that they have.
    pub(crate) fn steering(&self, steering: &Steering) -> Self {
        let mut tables = self.clone();
        for table in &mut tables.0[..STEERED] {
            table.clear();
        }
        let Steering::Match(rules) = steering else { return tables };
        for rule in rules {
            tables.add(rule);
        }
        for table in &mut tables.0[..STEERED] {
            inherit(table);
        }
        tables
    }

    /// These tables with `blocklist` in place of the one that they have.
    pub(crate) fn blocking(&self, blocklist: &[IpNet]) -> Self {
        let mut tables = self.clone();
        tables.0[BLOCKED4].clear();
        tables.0[BLOCKED6].clear();
        for net in blocklist {
            let table = if matches!(net, IpNet::V4(_)) { BLOCKED4 } else { BLOCKED6 };
            tables.0[table].insert(Key { port: 0, protocol: 0, to: net.trunc() }, MATCH);
        }
        tables
    }

    fn add(&mut self, rule: &Rule) {
        let to = rule.to();
        let host = to.prefix_len() == to.max_prefix_len();
        let table = &mut self.0[usize::from(!host) * 2 + usize::from(matches!(to, IpNet::V6(_)))];
        let protocol = rule.protocol().map_or(0, |protocol| protocol.0);
        if rule.is_flowless() {
            *table.entry(Key { port: 0, protocol: 0, to }).or_default() |= FLOWLESS;
            return;
        }
        *table.entry(Key { port: rule.port().unwrap_or(0), protocol, to }).or_default() |= MATCH;
        if rule.port().is_some() {
            *table.entry(Key { port: 0, protocol, to }).or_default() |= FRAGMENT;
        }
    }

    /// `classes` of redirect.bpf.c: the lookups that can match something.
    pub(crate) fn classes(&self) -> u32 {
        let mut classes = 0;
        for (index, table) in self.0[..STEERED].iter().enumerate() {
            for (key, value) in table {
                if value & MATCH != 0 {
                    let open = usize::from(key.protocol == 0) * 2 + usize::from(key.port == 0);
                    classes |= 1 << (index * 4 + open);
                }
                if value & FLOWLESS != 0 {
                    classes |= 1 << (STEERED * 4 + index);
                }
            }
        }
        classes
    }

    pub(crate) fn blocks4(&self) -> bool {
        !self.0[BLOCKED4].is_empty()
    }

    pub(crate) fn blocks6(&self) -> bool {
        !self.0[BLOCKED6].is_empty()
    }

    /// Brings the maps from `old` to these tables, except that what only `old` has stays: see [`Self::prune`].
    /// Where an entry does not fit, all are put back.
    pub(crate) fn extend(&self, old: &Self, maps: &[MapHandle; TABLES]) -> Result<(), Error> {
        for (index, table) in self.0.iter().enumerate() {
            for (key, value) in table.iter().filter(|(key, value)| old.0[index].get(key) != Some(value)) {
                if let Err(source) = insert(&maps[index], index, key, *value) {
                    self.retract(old, maps);
                    let action = format!(
                        "add {} to the {} entries of the table of {}",
                        key.to,
                        table.len(),
                        NAMES[index]
                    );
                    return Err(Error::Map { action, source });
                }
            }
        }
        Ok(())
    }

    /// Undoes [`Self::extend`].
    pub(crate) fn retract(&self, old: &Self, maps: &[MapHandle; TABLES]) {
        for (index, table) in self.0.iter().enumerate() {
            for (key, value) in table {
                // Nothing is left to be done about a failure here: a stale entry steers what it steered.
                let _ = match old.0[index].get(key) {
                    Some(before) if before == value => Ok(()),
                    Some(before) => insert(&maps[index], index, key, *before),
                    None => remove(&maps[index], index, key),
                };
            }
        }
    }

    /// Removes what only `old` has.
    pub(crate) fn prune(&self, old: &Self, maps: &[MapHandle; TABLES]) -> Result<(), Error> {
        for (index, table) in old.0.iter().enumerate() {
            for key in table.keys().filter(|key| !self.0[index].contains_key(key)) {
                remove(&maps[index], index, key).map_err(|source| Error::Map {
                    action: format!("remove {} from the table of {}", key.to, NAMES[index]),
                    source,
                })?;
            }
        }
        Ok(())
    }
}

/// A trie yields the longest prefix only, so each entry takes on what shorter prefixes around it say.
fn inherit(table: &mut BTreeMap<Key, u32>) {
    let own = table.clone();
    for (key, value) in table {
        let mut net = key.to;
        while let Some(around) = net.supernet() {
            net = around;
            *value |= own.get(&Key { to: net, ..*key }).copied().unwrap_or(0);
        }
    }
}

fn insert(map: &MapHandle, table: usize, key: &Key, value: u32) -> io::Result<()> {
    map.update(&key.bytes(table), &value.to_ne_bytes(), MapFlags::ANY).map_err(io_error)
}

fn remove(map: &MapHandle, table: usize, key: &Key) -> io::Result<()> {
    map.delete(&key.bytes(table)).map_err(io_error)
}

impl Key {
    fn bytes(&self, table: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(24);
        let (is_prefix, is_rule) = (table >= 2, table < STEERED);
        if is_prefix {
            // Port, protocol and a zero are part of a rule's prefix.
            let before = if is_rule { 32 } else { 0 };
            bytes.extend((before + u32::from(self.to.prefix_len())).to_ne_bytes());
        }
        if is_rule {
            bytes.extend(self.port.to_be_bytes());
            bytes.extend([self.protocol, 0]);
        }
        match self.to {
            IpNet::V4(net) => bytes.extend(net.addr().octets()),
            IpNet::V6(net) => bytes.extend(net.addr().octets()),
        }
        bytes
    }
}
