//! Which real the fragments of a packet go to: only the first one has ports, the others follow it.
//!
//! Pure, as the connection table is: it knows no packets, takes the time as an argument, and stores any small value.

use std::net::IpAddr;
use std::time::Duration;

use super::flow::FlowHash;
use crate::Time;
use crate::packet::{FlowKey, IpVersion, Ipv4, Ipv6, Parsed, Protocol};

/// For how long a packet's fragments follow the first one: as long as Linux waits for the rest of a packet
/// (`net.ipv4.ipfrag_time`). A sender may then use its identification again.
pub const LIFETIME: Duration = Duration::from_secs(30);

/// Entries of one set: where a packet's entry may lie.
const WAYS: usize = 4;

/// What fragments of one packet have in common, as the key of a flow: the addresses, the protocol, and the
/// identification in place of the ports.
///
/// In IPv6 the protocol is always that of the fragment header, since fragments need not agree on what follows it
/// (RFC 8200, section 4.5).
///
/// Nothing unless the packet is a fragment.
#[inline]
pub fn fragment_key(bytes: &[u8], parsed: &Parsed) -> Option<FlowKey> {
    let id = parsed.fragment_id()?;
    let header = bytes.get(parsed.l3()..)?;
    let (source, destination, protocol): (IpAddr, IpAddr, _) = match parsed.ip()? {
        IpVersion::V4 => {
            let header = Ipv4::new_checked(header).ok()?;
            (header.source().into(), header.destination().into(), parsed.protocol()?)
        }
        IpVersion::V6 => {
            let header = Ipv6::new_checked(header).ok()?;
            (header.source().into(), header.destination().into(), Protocol::FRAGMENT)
        }
    };
    FlowKey::new(source, destination, protocol, (id >> 16) as u16, id as u16)
}

/// A table of fixed size: what was remembered for the fragments of a packet, for [`LIFETIME`].
///
/// Packets are told apart by the hash of their [`fragment_key`] alone, 128 bits under a secret key, so that nobody can
/// choose packets that meet in it. Each has four places where it may be; when all are taken by others, the oldest is
/// forgotten. No memory is allocated after [`new`](Self::new).
///
/// ```
/// use afx::Time;
/// use afx::packet::{Builder, Protocol, parse};
/// use afx::stage::balancer::flow::FlowHasher;
/// use afx::stage::balancer::fragments::{FragmentTable, fragment_key};
///
/// let (mut table, hasher) = (FragmentTable::new(1024), FlowHasher::new([1, 2]));
/// let fragment = |offset, more| {
///     let mut bytes = [0; 60];
///     let ip = Builder::ip([192, 0, 2, 1].into(), [198, 51, 100, 7].into(), Protocol::UDP).fragment(7, offset, more);
///     let len = ip.write(&mut bytes, &[0, 9, 0, 9, 0, 16, 0, 0]).unwrap();
///     hasher.hash(&fragment_key(&bytes, &parse(&bytes[..len]).unwrap()).unwrap())
/// };
/// table.insert(fragment(0, true), "real 1", Time::ZERO);
/// assert_eq!(table.get(fragment(8, false), Time::from_nanos(5)), Some("real 1"));
/// ```
#[derive(Debug)]
pub struct FragmentTable<T> {
    /// A power of two.
    sets: Box<[[Option<Entry<T>>; WAYS]]>,
}

#[derive(Clone, Copy, Debug)]
struct Entry<T> {
    key: FlowHash,
    value: T,
    since: Time,
}

impl<T: Copy> FragmentTable<T> {
    /// An empty table with room for `capacity` packets, rounded up to the next power of two, four at least.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let sets = capacity.div_ceil(WAYS).max(1).next_power_of_two();
        Self { sets: vec![[None; WAYS]; sets].into() }
    }

    /// For how many packets there is room.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.sets.len() * WAYS
    }

    /// What was remembered for this packet, unless that is too long ago or had to give way.
    #[inline]
    #[must_use]
    pub fn get(&self, key: FlowHash, now: Time) -> Option<T> {
        let entry = self.sets[self.index(key)].iter().flatten().find(|entry| entry.key == key)?;
        entry.is_live(now).then_some(entry.value)
    }

    /// Remembers `value` for this packet from now on, in place of what was.
    #[inline]
    pub fn insert(&mut self, key: FlowHash, value: T, now: Time) {
        let index = self.index(key);
        let set = &mut self.sets[index];
        let place = set.iter().position(|entry| entry.is_some_and(|entry| entry.key == key));
        // An empty place counts as older than all, and what has had its time is older than what has not.
        let place = place.or_else(|| (0..WAYS).min_by_key(|&place| set[place].map(|entry| entry.since)));
        set[place.unwrap_or(0)] = Some(Entry { key, value, since: now });
    }

    #[inline]
    fn index(&self, key: FlowHash) -> usize {
        key.index as usize & (self.sets.len() - 1)
    }
}

impl<T> Entry<T> {
    #[inline]
    fn is_live(&self, now: Time) -> bool {
        now - self.since < LIFETIME
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::packet::{Builder, parse};

    fn key(bytes: &[u8]) -> Option<FlowKey> {
        fragment_key(bytes, &parse(bytes).unwrap())
    }

    fn fragment(source: &str, destination: &str, protocol: Protocol, id: u32, first: bool) -> FlowKey {
        let mut bytes = [0; 120];
        let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
        let offset = if first { 0 } else { 160 };
        let builder = Builder::ip(source, destination, protocol).fragment(id, offset, first);
        // A header that is one in TCP as well as in UDP, and destination options in IPv6.
        let mut payload = [0; 40];
        (payload[0], payload[5], payload[12]) = (17, 40, 0x50);
        let len = builder.write(&mut bytes, &payload).unwrap();
        key(&bytes[..len]).unwrap()
    }

    #[test]
    fn fragments_of_one_packet_share_a_key_and_others_have_another() {
        use Protocol as P;
        let v4 = |protocol, id, first| fragment("192.0.2.1", "198.51.100.7", protocol, id, first);
        let v6 = |protocol, id, first| fragment("2001:db8::1", "2001:db8::2", protocol, id, first);
        assert_eq!(v4(P::UDP, 7, true), v4(P::UDP, 7, false));
        assert_eq!(v6(P::UDP, 0x1234_5678, true), v6(P::UDP, 0x1234_5678, false));
        assert_eq!(v6(P::DESTINATION_OPTIONS, 9, true), v6(P::UDP, 9, false), "they need not agree on it");
        let keys = [
            v4(P::UDP, 7, true),
            v4(P::UDP, 8, true),
            v4(P::TCP, 7, true),
            fragment("192.0.2.2", "198.51.100.7", P::UDP, 7, true),
            fragment("192.0.2.1", "198.51.100.8", P::UDP, 7, true),
            fragment("198.51.100.7", "192.0.2.1", P::UDP, 7, true),
            v6(P::UDP, 7, true),
            v6(P::UDP, 0x1_0007, true),
            fragment("2001:db8::2", "2001:db8::1", P::UDP, 7, true),
        ];
        let distinct: std::collections::HashSet<_> = keys.iter().collect();
        assert_eq!(distinct.len(), keys.len());
    }

    #[test]
    fn whole_packets_have_no_key() {
        let mut bytes = [0; 100];
        let builder = Builder::udp("192.0.2.1:1".parse().unwrap(), "192.0.2.2:2".parse().unwrap());
        builder.write(&mut bytes, b"whole").unwrap();
        assert_eq!(key(&bytes), None);
        assert_eq!(key(&[0; 60]), None);
    }

    /// The table as a list, in which everything takes long.
    struct Model {
        sets: u64,
        entries: Vec<(FlowHash, u32, Time)>,
    }

    impl Model {
        fn get(&self, key: FlowHash, now: Time) -> Option<u32> {
            let (.., value, since) = self.entries.iter().find(|entry| entry.0 == key)?;
            (since.as_nanos() + 30_000_000_000 > now.as_nanos()).then_some(*value)
        }

        fn insert(&mut self, key: FlowHash, value: u32, now: Time) {
            self.entries.retain(|entry| entry.0 != key);
            let set = |key: FlowHash| key.index % self.sets;
            let mates: Vec<_> =
                self.entries.iter().filter(|entry| set(entry.0) == set(key)).copied().collect();
            if mates.len() == 4 {
                let oldest = mates.iter().map(|entry| entry.2).min().unwrap();
                let gone = mates.iter().find(|entry| entry.2 == oldest).unwrap().0;
                self.entries.retain(|entry| entry.0 != gone);
            }
            self.entries.push((key, value, now));
        }
    }

    proptest! {
        #[test]
        fn the_table_does_as_a_list_does(
            capacity in 0..20usize,
            steps in prop::collection::vec((any::<bool>(), 0..6u64, 0..6u64, 1..8_000_000_000u64), 0..200),
        ) {
            let mut table = FragmentTable::new(capacity);
            prop_assert!(table.capacity() >= capacity && table.capacity().is_power_of_two());
            let mut model = Model { sets: table.capacity() as u64 / 4, entries: Vec::new() };
            let mut now = 0;
            for (number, (insert, index, tag, wait)) in (0..).zip(steps) {
                // Never twice at one time, for then it would be anybody's guess who is the older.
                now += wait;
                let (key, now) = (FlowHash { index, tag }, Time::from_nanos(now));
                prop_assert_eq!(table.get(key, now), model.get(key, now));
                if insert {
                    table.insert(key, number, now);
                    model.insert(key, number, now);
                    prop_assert_eq!(table.get(key, now), Some(number));
                }
            }
        }
    }

    #[test]
    fn an_entry_has_its_time_and_no_more() {
        let mut table = FragmentTable::new(4);
        let key = FlowHash { index: 1, tag: 2 };
        let at = |nanos: u64| Time::from_nanos(5 + nanos);
        table.insert(key, 'a', at(0));
        assert_eq!(table.get(key, at(29_999_999_999)), Some('a'), "asking does not make it younger");
        assert_eq!(table.get(key, at(30_000_000_000)), None);
        table.insert(key, 'b', at(31_000_000_000));
        assert_eq!(table.get(key, at(60_000_000_000)), Some('b'));
        assert_eq!(table.get(key, Time::ZERO), Some('b'), "a clock that steps back");
    }
}
