//! What a batch of packets costs in the rings, in the framework and in the balancer, over rings in memory: without
//! the kernel's part and a card's.

use std::time::{Duration, Instant};

use afx_guard::paths::{BATCH, Balancing, Composition, Family, Mirroring, Rings, Traffic};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn rings(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ring");
    // Through four rings each.
    group.throughput(Throughput::Elements(BATCH as u64));
    let mut rings = Rings::new();
    group.bench_function("round_trip", |bencher| bencher.iter(|| rings.run()));
    group.finish();
}

fn pipeline(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pipeline");
    group.throughput(Throughput::Elements(BATCH as u64));
    for (name, composition) in [("static", Composition::Static), ("dyn", Composition::Dyn)] {
        let mut worker = Mirroring::new(composition);
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|turns| timed(turns, &mut worker, Mirroring::run, Mirroring::deliver));
        });
    }
    group.finish();
}

fn balancer(criterion: &mut Criterion) {
    for (name, traffic) in [("known", Traffic::Known), ("new", Traffic::New)] {
        let mut group = criterion.benchmark_group(format!("balancer/{name}"));
        group.throughput(Throughput::Elements(Balancing::PACKETS as u64));
        for (family, version) in [("v4", Family::V4), ("v6", Family::V6)] {
            let mut worker = Balancing::new(version, traffic, false, 1 << 16);
            group.bench_function(family, |bencher| {
                bencher.iter_custom(|turns| timed(turns, &mut worker, Balancing::run, Balancing::deliver));
            });
        }
        group.finish();
    }
}

/// The time that turns take, without what gets the next packets ready.
fn timed<T>(turns: u64, worker: &mut T, turn: impl Fn(&mut T), deliver: impl Fn(&mut T)) -> Duration {
    let mut spent = Duration::ZERO;
    for _ in 0..turns {
        let start = Instant::now();
        turn(worker);
        spent += start.elapsed();
        deliver(worker);
    }
    spent
}

criterion_group!(benches, rings, pipeline, balancer);
criterion_main!(benches);
