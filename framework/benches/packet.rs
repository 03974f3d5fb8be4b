//! What a packet costs in parsing, checksums and rewriting, apart from all else: in cache, over a batch of 64 flows.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use afx::packet::checksum::{Change, checksum};
use afx::packet::encap::OuterIpv4;
use afx::packet::{Builder, HashSeed, Protocol, parse_head, rewrite};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const BATCH: u16 = 64;

/// A batch of packets of 64 bytes or more, each of another flow.
fn batch(builder: impl Fn(SocketAddr) -> Builder) -> Vec<Vec<u8>> {
    (0..BATCH)
        .map(|flow| {
            let mut bytes = vec![0; 256];
            let source = SocketAddr::from((Ipv4Addr::new(192, 0, 2, flow as u8), 1024 + flow));
            let len = builder(source).write(&mut bytes, &[0; 18]).expect("it fits");
            bytes.truncate(len);
            bytes
        })
        .collect()
}

fn parsing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("packet/parse");
    group.throughput(Throughput::Elements(BATCH.into()));
    let destination = SocketAddr::from(([198, 51, 100, 7], 443));
    let v6 = |address: SocketAddr| SocketAddr::from((Ipv4Addr::LOCALHOST.to_ipv6_mapped(), address.port()));
    let kinds: [(&str, Vec<Vec<u8>>); 5] = [
        ("tcp4", batch(|source| Builder::tcp(source, destination))),
        ("udp4", batch(|source| Builder::udp(source, destination))),
        ("icmp4", batch(|source| Builder::echo(source.ip(), destination.ip(), 1, 2))),
        ("tcp6", batch(|source| Builder::tcp(v6(source), v6(destination)))),
        ("tcp4_vlan", batch(|source| Builder::tcp(source, destination).vlan(afx::packet::VlanTag(7)))),
    ];
    for (name, packets) in kinds {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                for bytes in &packets {
                    let _ = black_box(parse_head(black_box(bytes), bytes.len(), HashSeed(1)));
                }
            });
        });
    }
    group.finish();
}

fn checksums(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("packet/checksum");
    for len in [20usize, 64, 576, 1480] {
        let bytes = vec![0x5a; len];
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(len.to_string(), |bencher| bencher.iter(|| checksum(black_box(&bytes))));
    }
    group.finish();
    criterion.bench_function("packet/change_address", |bencher| {
        let (old, new) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(198, 51, 100, 7));
        bencher.iter(|| Change::new().replace_v4(black_box(old), black_box(new)).apply(black_box(0x1234)));
    });
}

fn rewriting(criterion: &mut Criterion) {
    let destination = SocketAddr::from(([198, 51, 100, 7], 443));
    let mut packets = batch(|source| Builder::tcp(source, destination));
    let parsed: Vec<_> =
        packets.iter().map(|bytes| parse_head(bytes, bytes.len(), HashSeed(1)).expect("valid")).collect();
    let mut group = criterion.benchmark_group("packet/rewrite");
    group.throughput(Throughput::Elements(BATCH.into()));
    group.bench_function("destination_and_port", |bencher| {
        let address = IpAddr::from([203, 0, 113, 5]);
        bencher.iter(|| {
            for (bytes, parsed) in packets.iter_mut().zip(&parsed) {
                rewrite::set_destination(bytes, parsed, black_box(address));
                rewrite::set_destination_port(bytes, parsed, black_box(8443));
            }
        });
    });
    group.bench_function("outer_ipv4", |bencher| {
        let tunnel = OuterIpv4::new(
            Ipv4Addr::new(192, 0, 2, 1),
            Ipv4Addr::new(198, 51, 100, 7),
            Protocol::IPV4,
            64,
            true,
        );
        let mut out = [[0; 20]; BATCH as usize];
        bencher.iter(|| {
            for header in &mut out {
                tunnel.write(header, black_box(100), black_box(0), 0);
            }
            black_box(&out);
        });
    });
    group.finish();
}

criterion_group!(benches, parsing, checksums, rewriting);
criterion_main!(benches);
