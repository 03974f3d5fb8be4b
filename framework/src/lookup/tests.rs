//! The table against a slow model: a list of prefixes, of which a scan finds the longest.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use proptest::prelude::*;

use super::{Address, PrefixError, PrefixTable};

fn v4(text: &str) -> Ipv4Net {
    text.parse().unwrap()
}

fn v6(text: &str) -> Ipv6Net {
    text.parse().unwrap()
}

fn look(table: &PrefixTable<u32>, address: &str) -> Option<u32> {
    table.lookup(address.parse::<Ipv4Addr>().unwrap())
}

#[test]
fn the_longest_prefix_counts_and_a_removed_one_gives_way_to_the_next() {
    let mut table = PrefixTable::<u32>::new(8);
    for (value, prefix) in
        ["0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.1.0/24", "10.1.1.128/25", "10.1.1.129/32"]
            .into_iter()
            .enumerate()
    {
        assert_eq!(table.insert(v4(prefix), value as u32), Ok(None));
    }
    let addresses = ["9.255.255.255", "10.0.0.0", "10.1.0.255", "10.1.1.127", "10.1.1.128", "10.1.1.129"];
    let values = |table: &PrefixTable<u32>| addresses.map(|address| look(table, address));
    assert_eq!(values(&table), [Some(0), Some(1), Some(2), Some(3), Some(4), Some(5)]);
    assert_eq!(table.remove(v4("10.1.1.128/25")), Some(4));
    assert_eq!(values(&table), [Some(0), Some(1), Some(2), Some(3), Some(3), Some(5)]);
    assert_eq!(table.remove(v4("10.1.1.0/24")), Some(3));
    assert_eq!(values(&table), [Some(0), Some(1), Some(2), Some(2), Some(2), Some(5)]);
    assert_eq!(table.remove(v4("0.0.0.0/0")), Some(0));
    assert_eq!(values(&table), [None, Some(1), Some(2), Some(2), Some(2), Some(5)]);
    assert_eq!(table.remove(v4("0.0.0.0/0")), None);
    assert_eq!(table.insert(v4("10.1.1.129/32"), 7), Ok(Some(5)));
    assert_eq!(look(&table, "10.1.1.129"), Some(7));
    assert_eq!(table.len(), 3);
}

#[test]
fn bits_behind_a_prefix_do_not_matter() {
    let mut table = PrefixTable::<u32>::new(1);
    table.insert(v4("10.1.2.3/8"), 1).unwrap();
    assert_eq!(table.get(v4("10.0.0.0/8")), Some(1));
    assert_eq!(table.iter().collect::<Vec<_>>(), [(v4("10.0.0.0/8"), 1)]);
    assert_eq!(table.remove(v4("10.9.9.9/8")), Some(1));
    assert!(table.is_empty());
}

#[test]
fn values_go_up_to_the_largest() {
    let mut table = PrefixTable::<u32>::new(1);
    let largest = PrefixTable::<u32>::MAX_VALUE;
    for (prefix, address) in [("10.0.0.0/8", "10.0.0.1"), ("11.0.0.1/32", "11.0.0.1")] {
        table.insert(v4(prefix), largest).unwrap();
        assert_eq!(look(&table, address), Some(largest));
        let error = table.insert(v4(prefix), largest + 1).unwrap_err();
        assert_eq!(error, PrefixError::ValueTooLarge { value: 2_147_483_647 });
        assert_eq!(error.to_string(), "the value 2147483647 is too large: the largest is 2147483646");
        assert_eq!(look(&table, address), Some(largest));
    }
}

#[test]
fn a_full_table_says_so_stays_as_it_was_and_takes_more_once_there_is_room() {
    let mut table = PrefixTable::<u128>::new(4);
    // Groups for 32 and 40 bits, then 48.
    table.insert(v6("2001:db8::/36"), 1).unwrap();
    assert_eq!(table.groups_used(), 2);
    table.insert(v6("2001:db8::/48"), 2).unwrap();
    assert_eq!(table.groups_used(), 3);
    let error = table.insert(v6("2001:db8::/64"), 3).unwrap_err();
    assert_eq!(error, PrefixError::Full { needed: 2, free: 1, groups: 4 });
    assert_eq!(error.to_string(), "the table is full: 1 of its 4 groups are free, and this prefix needs 2");
    assert_eq!((table.len(), table.groups_used()), (2, 3));
    assert_eq!(table.lookup("2001:db8::1".parse::<Ipv6Addr>().unwrap()), Some(2));
    // Without the others, the longest alone still needs all groups on its way.
    table.remove(v6("2001:db8::/48"));
    assert_eq!(table.groups_used(), 2);
    table.insert(v6("2001:db8::/56"), 3).unwrap();
    assert_eq!(table.groups_used(), 4);
    table.remove(v6("2001:db8::/36"));
    assert_eq!(table.groups_used(), 4);
    assert_eq!(table.lookup("2001:db8:1::".parse::<Ipv6Addr>().unwrap()), None);
    table.remove(v6("2001:db8::/56"));
    assert_eq!(table.groups_used(), 0);
}

#[test]
fn a_table_made_of_prefixes_has_the_groups_that_they_need() {
    let prefixes =
        ["10.0.0.0/25", "10.0.0.0/8", "10.0.0.128/26", "10.0.1.0/24", "10.0.2.1/32", "10.0.2.0/31"];
    let table = PrefixTable::<u32>::from_prefixes(prefixes.map(|prefix| (v4(prefix), 5))).unwrap();
    assert_eq!((table.len(), table.groups_used(), table.groups()), (6, 2, 2));
    let prefixes = ["2001:db8::/32", "2001:db8::/33", "2001:db8::1/128", "2001:db8::2/128", "::/0"];
    let table = PrefixTable::<u128>::from_prefixes(prefixes.map(|prefix| (v6(prefix), 5))).unwrap();
    assert_eq!((table.len(), table.groups_used(), table.groups()), (5, 13, 16));
    let error = PrefixTable::<u32>::from_prefixes([(v4("10.0.0.0/8"), u32::MAX)]).unwrap_err();
    assert_eq!(error, PrefixError::ValueTooLarge { value: u32::MAX });
}

#[test]
fn a_clone_is_apart_from_its_original() {
    let mut table = PrefixTable::<u32>::new(4);
    table.insert(v4("10.0.0.0/25"), 1).unwrap();
    let copy = table.clone();
    table.remove(v4("10.0.0.0/25"));
    table.insert(v4("11.0.0.0/26"), 2).unwrap();
    assert_eq!((look(&copy, "10.0.0.1"), look(&copy, "11.0.0.1")), (Some(1), None));
    assert_eq!((look(&table, "10.0.0.1"), look(&table, "11.0.0.1")), (None, Some(2)));
    assert_eq!((copy.groups_used(), copy.len()), (1, 1));
}

/// What is done to the table, and to the model.
#[derive(Debug, Clone)]
enum Step<A: Address> {
    Insert(A, u8, u32),
    Remove(A, u8),
    /// Remove one of the prefixes there are.
    RemoveThere(prop::sample::Index),
}

/// The model: every prefix, by its own first address and length.
struct Model<A>(BTreeMap<(A, u8), u32>);

impl<A: Address> Model<A> {
    fn contains(prefix: A, len: u8, address: A) -> bool {
        let (prefix, address): (u128, u128) = (prefix.into(), address.into());
        let host_bits = u32::from(A::BITS - len);
        host_bits == 128 || prefix >> host_bits == address >> host_bits
    }

    fn longest(&self, address: A) -> Option<u32> {
        let around = self.0.iter().filter(|((prefix, len), _)| Self::contains(*prefix, *len, address));
        around.max_by_key(|((_, len), _)| *len).map(|(_, value)| *value)
    }
}

/// Does the steps to a table and to the model, and compares them, at all borders of prefixes and some more places.
fn compare<A: Address>(groups: usize, steps: &[Step<A>], others: &[A]) -> Result<(), TestCaseError> {
    let mut table = PrefixTable::<A>::new(groups);
    let mut model = Model(BTreeMap::new());
    for step in steps {
        let (address, len, value) = match step {
            Step::Insert(address, len, value) => (*address, *len, Some(*value)),
            Step::Remove(address, len) => (*address, *len, None),
            Step::RemoveThere(_) if model.0.is_empty() => continue,
            Step::RemoveThere(index) => {
                let (address, len) = *model.0.keys().nth(index.index(model.0.len())).unwrap();
                (address, len, None)
            }
        };
        let key = (address.first_of(len), len);
        match value {
            Some(value) => match table.insert(address.prefix(len), value) {
                Ok(before) => prop_assert_eq!(before, model.0.insert(key, value)),
                Err(PrefixError::Full { .. }) => {}
                Err(error) => return Err(TestCaseError::fail(error.to_string())),
            },
            None => prop_assert_eq!(table.remove(address.prefix(len)), model.0.remove(&key)),
        }
    }
    let mut addresses = others.to_vec();
    for &(first, len) in model.0.keys() {
        let last = first.last_of(len);
        addresses.extend(
            [first.previous(), Some(first), first.next(), last.previous(), Some(last)].into_iter().flatten(),
        );
        addresses.extend(last.next());
    }
    let expected: Vec<_> = addresses.iter().map(|address| model.longest(*address)).collect();
    let found: Vec<_> = addresses.iter().map(|address| table.lookup(*address)).collect();
    prop_assert_eq!(&found, &expected);
    let mut bulk = vec![0; addresses.len()];
    let copy = table.clone();
    copy.lookup_bulk(&addresses, &mut bulk);
    let expected: Vec<_> = expected.iter().map(|value| value.unwrap_or(PrefixTable::<A>::NONE)).collect();
    prop_assert_eq!(&bulk, &expected);
    prop_assert_eq!(table.len(), model.0.len());

    // Made at once, it is the same, and has no group too few or too many.
    let prefixes = || model.0.iter().map(|(&(address, len), &value)| (address.prefix(len), value));
    let made = PrefixTable::<A>::from_prefixes(prefixes()).unwrap();
    made.lookup_bulk(&addresses, &mut bulk);
    prop_assert_eq!(&bulk, &expected);
    prop_assert_eq!(made.groups_used(), table.groups_used());
    prop_assert!(made.groups() < 2 * made.groups_used().max(1));
    prop_assert!(table.iter().eq(prefixes()));

    // With nothing in it, nothing is found and no group is in use.
    for (prefix, _) in prefixes() {
        prop_assert!(table.remove(prefix).is_some());
    }
    prop_assert_eq!(table.groups_used(), 0);
    prop_assert!(addresses.iter().all(|address| table.lookup(*address).is_none()));
    Ok(())
}

/// Addresses close to each other, so that prefixes overlap, and at both ends.
fn crowded_v4() -> impl Strategy<Value = u32> {
    prop_oneof![
        6 => (0u32..4, 0u32..3, any::<u8>()).prop_map(|(a, b, c)| 10 << 24 | a << 16 | b << 8 | u32::from(c)),
        1 => Just(0),
        1 => Just(u32::MAX),
        1 => any::<u32>(),
    ]
}

fn crowded_v6() -> impl Strategy<Value = u128> {
    let near = prop::collection::vec((0u32..16, 0u128..256), 0..3).prop_map(|bytes| {
        // A few bytes of a common address are others.
        bytes.into_iter().fold(0x2001_0db8_u128 << 96, |address, (at, byte)| address ^ byte << (8 * at))
    });
    prop_oneof![6 => near, 1 => Just(0), 1 => Just(u128::MAX), 1 => any::<u128>()]
}

fn length(bits: u8) -> impl Strategy<Value = u8> {
    // The lengths at which levels begin and end more often than others; not often the shortest, which cover millions of cells.
    let borders: Vec<u8> = (16..=bits).filter(|len| matches!(len % 8, 0 | 1 | 7)).collect();
    prop_oneof![4 => prop::sample::select(borders), 4 => 8..=bits, 1 => 0..=bits]
}

fn steps<A: Address>(
    address: impl Strategy<Value = A> + Clone + 'static,
) -> impl Strategy<Value = Vec<Step<A>>> {
    let value = prop_oneof![0u32..4, 0..=PrefixTable::<A>::MAX_VALUE];
    let step = prop_oneof![
        3 => (address.clone(), length(A::BITS), value).prop_map(|(a, len, value)| Step::Insert(a, len, value)),
        1 => (address, length(A::BITS)).prop_map(|(a, len)| Step::Remove(a, len)),
        1 => any::<prop::sample::Index>().prop_map(Step::RemoveThere),
    ];
    prop::collection::vec(step, 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn v4_agrees_with_a_list(
        groups in 1usize..40,
        steps in steps(crowded_v4().boxed()),
        others in prop::collection::vec(crowded_v4(), 0..200),
    ) {
        compare(groups, &steps, &others)?;
    }

    #[test]
    fn v6_agrees_with_a_list(
        groups in 1usize..200,
        steps in steps(crowded_v6().boxed()),
        others in prop::collection::vec(crowded_v6(), 0..200),
    ) {
        compare(groups, &steps, &others)?;
    }
}
