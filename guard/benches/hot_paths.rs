//! Counts the instructions of the hot paths under callgrind, by gungraun. `make guard` runs it and compares.

#![allow(missing_docs, unreachable_pub, unused_qualifications, reason = "of what gungraun's macros generate")]

use std::hint::black_box;

use afx::packet::checksum::checksum as sum_of;
use afx::packet::{Builder, VlanTag};
use afx_guard::paths::{
    Balancing, Composition, Family, Lookups, MaglevBuild, MaglevLookup, Mirroring, Parsing, PrefixLookups,
    Prefixes, Rings, Traffic,
};
use gungraun::{library_benchmark, library_benchmark_group, main};

// What a function returns is dropped outside of what is counted. It is boxed, so that its size is not counted.

#[library_benchmark]
#[bench::tcp4(Box::new(Parsing::new(Family::V4, Builder::tcp)))]
#[bench::udp4(Box::new(Parsing::new(Family::V4, Builder::udp)))]
#[bench::icmp4(Box::new(Parsing::new(Family::V4, |from, to| Builder::echo(from.ip(), to.ip(), 1, 2))))]
#[bench::tcp4_vlan(Box::new(Parsing::new(Family::V4, |from, to| Builder::tcp(from, to).vlan(VlanTag(7)))))]
#[bench::tcp6(Box::new(Parsing::new(Family::V6, Builder::tcp)))]
#[bench::udp6(Box::new(Parsing::new(Family::V6, Builder::udp)))]
fn parse(packets: Box<Parsing>) -> Box<Parsing> {
    packets.run();
    packets
}

#[library_benchmark]
#[bench::bytes_20(vec![0x5a; 20])]
#[bench::bytes_1480(vec![0x5a; 1480])]
fn checksum(bytes: Vec<u8>) -> Vec<u8> {
    black_box(sum_of(black_box(&bytes)));
    bytes
}

#[library_benchmark]
#[bench::round_trip(Box::new(Rings::new()))]
fn ring(mut rings: Box<Rings>) -> Box<Rings> {
    rings.run();
    rings
}

#[library_benchmark]
#[bench::fixed(Box::new(Mirroring::new(Composition::Static)))]
#[bench::boxed(Box::new(Mirroring::new(Composition::Dyn)))]
fn pipeline(mut worker: Box<Mirroring>) -> Box<Mirroring> {
    worker.run();
    worker
}

fn balancing(family: Family, traffic: Traffic, gue: bool) -> Box<Balancing> {
    Box::new(Balancing::new(family, traffic, gue, 1024))
}

#[library_benchmark]
#[bench::known4_ipip(balancing(Family::V4, Traffic::Known, false))]
#[bench::known4_gue(balancing(Family::V4, Traffic::Known, true))]
#[bench::known6_ipip(balancing(Family::V6, Traffic::Known, false))]
#[bench::known6_gue(balancing(Family::V6, Traffic::Known, true))]
#[bench::new4(balancing(Family::V4, Traffic::New, false))]
#[bench::new6(balancing(Family::V6, Traffic::New, false))]
#[bench::errors4(balancing(Family::V4, Traffic::Errors, false))]
#[bench::errors6(balancing(Family::V6, Traffic::Errors, false))]
fn balancer(mut worker: Box<Balancing>) -> Box<Balancing> {
    worker.run();
    worker
}

fn connections(known: bool) -> Box<Lookups> {
    let mut lookups = Box::new(Lookups::new(1 << 14));
    if known {
        lookups.choose_known();
    } else {
        lookups.choose_unknown();
    }
    lookups
}

/// Flows whose last packet came in the same tick.
fn seen_connections() -> Box<Lookups> {
    let mut lookups = connections(true);
    lookups.look_up();
    lookups
}

#[library_benchmark]
#[bench::again(seen_connections())]
#[bench::hit(connections(true))]
#[bench::miss(connections(false))]
fn connection_lookup(mut lookups: Box<Lookups>) -> Box<Lookups> {
    black_box(lookups.look_up());
    lookups
}

#[library_benchmark]
#[bench::new(connections(false))]
fn connection_insert(mut lookups: Box<Lookups>) -> Box<Lookups> {
    lookups.insert();
    lookups
}

#[library_benchmark]
#[bench::reals_10(MaglevBuild::new(10))]
#[bench::reals_1000(MaglevBuild::new(1000))]
fn maglev_build(reals: MaglevBuild) -> MaglevBuild {
    black_box(reals.run());
    reals
}

#[library_benchmark]
#[bench::reals_100(Box::new(MaglevLookup::new()))]
fn maglev_lookup(lookups: Box<MaglevLookup>) -> Box<MaglevLookup> {
    black_box(lookups.run());
    lookups
}

fn prefixes<A: Prefixes>() -> Box<PrefixLookups<A>> {
    Box::new(PrefixLookups::new(2000, 64))
}

#[library_benchmark]
#[bench::v4(prefixes::<u32>())]
#[bench::v6(prefixes::<u128>())]
fn prefix_bulk<A: Prefixes>(mut lookups: Box<PrefixLookups<A>>) -> Box<PrefixLookups<A>> {
    black_box(lookups.bulk());
    lookups
}

#[library_benchmark]
#[bench::v4(prefixes::<u32>())]
#[bench::v6(prefixes::<u128>())]
fn prefix_lookup<A: Prefixes>(mut lookups: Box<PrefixLookups<A>>) -> Box<PrefixLookups<A>> {
    black_box(lookups.one_by_one());
    lookups
}

library_benchmark_group!(
    name = hot_paths,
    benchmarks = [
        parse,
        checksum,
        ring,
        pipeline,
        balancer,
        connection_lookup,
        connection_insert,
        maglev_build,
        maglev_lookup,
        prefix_bulk,
        prefix_lookup
    ]
);

main!(library_benchmark_groups = hot_paths);
