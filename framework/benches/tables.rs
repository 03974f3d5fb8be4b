//! What lookups cost in tables larger than caches are: connections, Maglev, prefixes. A batch of 64 at a time, as the
//! stages do.

use std::time::{Duration, Instant};

use afx_guard::paths::{BATCH, Lookups, MaglevBuild, MaglevLookup, PrefixLookups, Prefixes};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// As many prefixes as the Internet's IPv4 table has, and addresses enough that none is in a cache for long.
const PREFIXES: u32 = 900_000;
const ADDRESSES: usize = 1 << 20;

fn maglev(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("maglev/build");
    for reals in [10, 100, 1000] {
        let build = MaglevBuild::new(reals);
        group.bench_function(reals.to_string(), |bencher| bencher.iter(|| build.run()));
    }
    group.finish();
    let mut group = criterion.benchmark_group("maglev");
    group.throughput(Throughput::Elements(BATCH as u64));
    let lookup = MaglevLookup::new();
    group.bench_function("lookup", |bencher| bencher.iter(|| lookup.run()));
    group.finish();
}

fn connections(criterion: &mut Criterion) {
    for (size, capacity) in [("64k", 1 << 16), ("1m", 1 << 20)] {
        let mut lookups = Lookups::new(capacity);
        bench(criterion, "connections/hit", size, &mut lookups, Lookups::choose_known, |lookups| {
            lookups.look_up();
        });
        bench(criterion, "connections/miss", size, &mut lookups, Lookups::choose_unknown, |lookups| {
            lookups.look_up();
        });
        // What the last run has put in is taken out again, so that the table stays as full as it was.
        let again = |lookups: &mut Lookups| {
            lookups.remove();
            lookups.choose_unknown();
        };
        bench(criterion, "connections/insert", size, &mut lookups, again, Lookups::insert);
        lookups.remove();
    }
}

fn prefixes(criterion: &mut Criterion) {
    let v4 = PrefixLookups::<u32>::new(PREFIXES, ADDRESSES).uniform();
    prefixes_of(criterion, "v4", v4);
    prefixes_of(criterion, "v6", PrefixLookups::<u128>::new(PREFIXES, ADDRESSES));
}

fn prefixes_of<A: Prefixes>(criterion: &mut Criterion, family: &str, mut lookups: PrefixLookups<A>) {
    bench(
        criterion,
        "prefix/lookup",
        family,
        &mut lookups,
        |_| (),
        |lookups| {
            lookups.one_by_one();
        },
    );
    bench(
        criterion,
        "prefix/bulk",
        family,
        &mut lookups,
        |_| (),
        |lookups| {
            lookups.bulk();
        },
    );
}

/// Times `run`, but not what comes before it.
fn bench<T>(
    criterion: &mut Criterion,
    group: &str,
    name: &str,
    table: &mut T,
    before: impl Fn(&mut T),
    run: impl Fn(&mut T),
) {
    let mut group = criterion.benchmark_group(group);
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function(name, |bencher| {
        bencher.iter_custom(|runs| {
            let mut spent = Duration::ZERO;
            for _ in 0..runs {
                before(table);
                let start = Instant::now();
                run(table);
                spent += start.elapsed();
            }
            spent
        });
    });
    group.finish();
}

criterion_group!(benches, maglev, connections, prefixes);
criterion_main!(benches);
