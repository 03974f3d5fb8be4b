//! What a descriptor costs on each ring of an AF_XDP socket: driven natively, as
//! afx does, and through xsk-rs, which calls into C for each. A batch is 64.
//!
//! The rings are a real socket's, on the loopback interface of a network
//! namespace of its own (needs root, and Linux 6.4). The kernel is never woken:
//! the benchmark moves the kernel's cursors itself, the same way for both.
#![allow(unsafe_code, reason = "plays the kernel's part in shared memory, and xsk-rs's calls are unsafe")]
#![allow(missing_docs, reason = "a benchmark has no users; criterion's macros make public items")]

use std::hint::black_box;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use xsk_rs::config::{Interface, LibxdpFlags, SocketConfig, UmemConfig};
use xsk_rs::{FrameDesc, Socket, Umem};

#[allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    reason = "the crate's own module, most of it unused here"
)]
#[path = "../src/xsk/mod.rs"]
mod xsk;

use xsk::Descriptor;
use xsk::mapped::{MappedMemory, Sizes};
use xsk::ring::{Consumer, Producer};
use xsk::sync::{AtomicU32, Ordering};

const BATCH: u32 = 64;
const SIZES: Sizes = Sizes { rx: 2048, tx: 2048, fill: 2048, completion: 2048 };

fn rings(criterion: &mut Criterion) {
    native(criterion);
    through_xsk_rs(criterion);
}

fn native(criterion: &mut Criterion) {
    let bound = Bound::open();
    let memory = || MappedMemory::new(bound.tx.fd().as_raw_fd(), SIZES).expect("maps (Linux 6.4)");
    let kernel = memory();
    let MappedMemory { rx, tx, fill, completion } = memory();
    // SAFETY: nobody else uses these rings: the kernel is not woken, xsk-rs's queues are not called.
    let (mut rx, mut tx, mut fill, mut completion) =
        unsafe { (Consumer::new(rx), Producer::new(tx), Producer::new(fill), Consumer::new(completion)) };
    let mut group = criterion.benchmark_group("ring-native");
    group.throughput(Throughput::Elements(BATCH.into()));

    let mut descriptors: Vec<_> =
        (0..u64::from(BATCH)).map(|n| Descriptor { addr: n * 4096 + 256, len: 60, options: 0 }).collect();
    let mut addresses: Vec<_> = (0..u64::from(BATCH)).map(|n| n * 4096).collect();

    group.bench_function("rx", |bencher| {
        bencher.iter(|| {
            kernel_produces(kernel.rx.producer);
            let mut into = descriptors.iter_mut();
            let count = rx.consume(BATCH, |descriptor| {
                if let Some(slot) = into.next() {
                    *slot = descriptor;
                }
            });
            assert_eq!(count, BATCH);
            black_box(&descriptors);
        });
    });
    group.bench_function("tx", |bencher| {
        bencher.iter(|| {
            let count = tx.extend(black_box(&descriptors).iter().copied());
            assert_eq!((count, tx.submit()), (BATCH, BATCH));
            kernel_consumes(kernel.tx.consumer);
        });
    });
    group.bench_function("fill", |bencher| {
        bencher.iter(|| {
            let count = fill.extend(black_box(&addresses).iter().copied());
            assert_eq!((count, fill.submit()), (BATCH, BATCH));
            kernel_consumes(kernel.fill.consumer);
        });
    });
    group.bench_function("completion", |bencher| {
        bencher.iter(|| {
            kernel_produces(kernel.completion.producer);
            let mut into = addresses.iter_mut();
            let count = completion.consume(BATCH, |address| {
                if let Some(slot) = into.next() {
                    *slot = address;
                }
            });
            assert_eq!(count, BATCH);
            black_box(&addresses);
        });
    });
    group.finish();
}

fn through_xsk_rs(criterion: &mut Criterion) {
    let Bound { mut rx, mut tx, mut fill, mut completion, mut frames, .. } = Bound::open();
    let kernel = MappedMemory::new(tx.fd().as_raw_fd(), SIZES).expect("maps (Linux 6.4)");
    let mut group = criterion.benchmark_group("ring-xsk-rs");
    group.throughput(Throughput::Elements(BATCH.into()));

    // SAFETY, for all four: no frame is touched, here or by the kernel, which is not woken.
    group.bench_function("rx", |bencher| {
        bencher.iter(|| {
            kernel_produces(kernel.rx.producer);
            // SAFETY: as above.
            assert_eq!(unsafe { rx.consume(&mut frames) }, BATCH as usize);
            black_box(&frames);
        });
    });
    group.bench_function("tx", |bencher| {
        bencher.iter(|| {
            // SAFETY: as above.
            assert_eq!(unsafe { tx.produce(black_box(&frames)) }, BATCH as usize);
            kernel_consumes(kernel.tx.consumer);
        });
    });
    group.bench_function("fill", |bencher| {
        bencher.iter(|| {
            // SAFETY: as above.
            assert_eq!(unsafe { fill.produce(black_box(&frames)) }, BATCH as usize);
            kernel_consumes(kernel.fill.consumer);
        });
    });
    group.bench_function("completion", |bencher| {
        bencher.iter(|| {
            kernel_produces(kernel.completion.producer);
            // SAFETY: as above.
            assert_eq!(unsafe { completion.consume(&mut frames) }, BATCH as usize);
            black_box(&frames);
        });
    });
    group.finish();
}

/// A socket of xsk-rs, and as many frames as a batch has.
struct Bound {
    rx: xsk_rs::RxQueue,
    tx: xsk_rs::TxQueue,
    fill: xsk_rs::FillQueue,
    completion: xsk_rs::CompQueue,
    frames: Vec<FrameDesc>,
    _umem: Umem,
}

impl Bound {
    fn open() -> Self {
        // SAFETY: concerns this thread alone.
        assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0, "a namespace of its own needs root");
        let count = BATCH.try_into().expect("not 0");
        let (umem, frames) = Umem::new(UmemConfig::default(), count, false).expect("a small UMEM");
        let config =
            SocketConfig::builder().libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD).build();
        let loopback: Interface = "lo".parse().expect("a name");
        // SAFETY: no program is loaded.
        let (tx, rx, others) =
            unsafe { Socket::new(config, &umem, &loopback, 0) }.expect("bound to loopback");
        let (fill, completion) = others.expect("the first socket on its queue");
        Self { rx, tx, fill, completion, frames, _umem: umem }
    }
}

fn kernel_produces(producer: NonNull<AtomicU32>) {
    // SAFETY: in a mapping that the caller holds.
    let producer = unsafe { producer.as_ref() };
    producer.store(producer.load(Ordering::Relaxed).wrapping_add(BATCH), Ordering::Release);
}

fn kernel_consumes(consumer: NonNull<AtomicU32>) {
    kernel_produces(consumer);
}

criterion_group!(benches, rings);
criterion_main!(benches);
