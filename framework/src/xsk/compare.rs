//! What a descriptor costs on the rings of a socket, driven natively and through xsk-rs's calls: for the side-by-side
//! harness. The kernel is never woken; its part, moving its cursors, is played here, the same for both.

use std::hint::black_box;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;

use xsk_rs::config::{Interface, LibxdpFlags, SocketConfig, UmemConfig};
use xsk_rs::{CompQueue, FillQueue, FrameDesc, RxQueue, Socket, TxQueue, Umem};

use super::Descriptor;
use super::anonymous::pair;
use super::mapped::{MappedMemory, MappedRings, Sizes};
use super::ring::{Consumer, Producer};
use super::sync::{AtomicU32, Ordering};
use super::umem::errno;

const BATCH: u32 = 64;
const SIZES: Sizes = Sizes { rx: 2048, tx: 2048, fill: 2048, completion: 2048 };

/// The four rings of a real socket, driven natively.
#[doc(hidden)]
pub struct NativeRings {
    ours: MappedRings,
    kernel: MappedMemory,
    descriptors: Vec<Descriptor>,
    addresses: Vec<u64>,
    _bound: Bound,
}

impl NativeRings {
    /// Of a socket on queue 0 of `interface`, which must carry no AF_XDP traffic. Needs Linux 6.4.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open(interface: &str) -> io::Result<Self> {
        let bound = Bound::open(interface)?;
        let fd = bound.tx.fd().as_raw_fd();
        // SAFETY: the socket was bound just now with rings of these sizes, and its queues in `bound` are never called.
        let ours = unsafe { MappedRings::new(fd, SIZES)? };
        Ok(Self {
            ours,
            kernel: MappedMemory::new(fd, SIZES)?,
            descriptors: bound.frames.iter().map(descriptor).collect(),
            addresses: bound.frames.iter().map(|frame| frame.addr() as u64).collect(),
            _bound: bound,
        })
    }

    /// Takes 64 descriptors off the RX and the completion ring and puts 64 on the TX and the fill ring, `turns` times.
    /// Returns how many descriptors that were.
    pub fn run(&mut self, turns: u32) -> u64 {
        let Self { ours, kernel, descriptors, addresses, .. } = self;
        for _ in 0..turns {
            advance(kernel.rx.producer);
            let mut into = descriptors.iter_mut();
            let received = ours.rx.consume(BATCH, |descriptor| {
                if let Some(slot) = into.next() {
                    *slot = descriptor;
                }
            });
            let sent = ours.tx.extend(black_box(&*descriptors).iter().copied());
            ours.tx.submit();
            advance(kernel.tx.consumer);
            advance(kernel.completion.producer);
            let mut into = addresses.iter_mut();
            let completed = ours.completion.consume(BATCH, |address| {
                if let Some(slot) = into.next() {
                    *slot = address;
                }
            });
            let filled = ours.fill.extend(black_box(&*addresses).iter().copied());
            ours.fill.submit();
            advance(kernel.fill.consumer);
            assert_eq!([received, sent, completed, filled], [BATCH; 4]);
        }
        u64::from(turns) * u64::from(BATCH) * 4
    }
}

/// Four rings as a socket has them, in the process's own memory: needs neither root nor an interface.
#[doc(hidden)]
pub struct MemoryRings {
    rx: (Producer<Descriptor>, Consumer<Descriptor>),
    tx: (Producer<Descriptor>, Consumer<Descriptor>),
    fill: (Producer<u64>, Consumer<u64>),
    completion: (Producer<u64>, Consumer<u64>),
}

impl MemoryRings {
    /// Empty rings.
    #[expect(clippy::new_without_default, reason = "it is no value, but something to be measured")]
    pub fn new() -> Self {
        Self {
            rx: pair(SIZES.rx),
            tx: pair(SIZES.tx),
            fill: pair(SIZES.fill),
            completion: pair(SIZES.completion),
        }
    }

    /// Sends a batch of 64 descriptors the way that frames take: fill ring, RX ring, TX ring, completion ring, each
    /// written and read. Returns how many came out at the end.
    pub fn run(&mut self) -> u32 {
        let Self { rx, tx, fill, completion } = self;
        let descriptor = |addr| Descriptor { addr, len: 60, options: 0 };
        fill.0.extend((0..u64::from(BATCH)).map(|frame| black_box(frame << 11)));
        fill.0.submit();
        fill.1.consume(BATCH, |frame| {
            rx.0.push(descriptor(frame));
        });
        rx.0.submit();
        rx.1.consume(BATCH, |received| {
            tx.0.push(received);
        });
        tx.0.submit();
        tx.1.consume(BATCH, |sent| {
            completion.0.push(sent.addr);
        });
        completion.0.submit();
        completion.1.consume(BATCH, |frame| {
            black_box(frame);
        })
    }
}

/// The four rings of a real socket, through xsk-rs's calls.
#[doc(hidden)]
pub struct LibraryRings {
    bound: Bound,
    kernel: MappedMemory,
}

impl LibraryRings {
    /// As [`NativeRings::open`].
    ///
    /// # Errors
    /// The kernel's.
    pub fn open(interface: &str) -> io::Result<Self> {
        let bound = Bound::open(interface)?;
        let kernel = MappedMemory::new(bound.tx.fd().as_raw_fd(), SIZES)?;
        Ok(Self { bound, kernel })
    }

    /// As [`NativeRings::run`].
    pub fn run(&mut self, turns: u32) -> u64 {
        let Self { bound: Bound { rx, tx, fill, completion, frames, .. }, kernel } = self;
        for _ in 0..turns {
            advance(kernel.rx.producer);
            // SAFETY: no frame is touched, here or by the kernel, which is not woken.
            let received = unsafe { rx.consume(frames) };
            // SAFETY: as above.
            let sent = unsafe { tx.produce(black_box(&*frames)) };
            advance(kernel.tx.consumer);
            advance(kernel.completion.producer);
            // SAFETY: as above.
            let completed = unsafe { completion.consume(frames) };
            // SAFETY: as above.
            let filled = unsafe { fill.produce(black_box(&*frames)) };
            advance(kernel.fill.consumer);
            assert_eq!([received, sent, completed, filled], [BATCH as usize; 4]);
        }
        u64::from(turns) * u64::from(BATCH) * 4
    }
}

/// A socket of xsk-rs, and as many frames as a batch has.
struct Bound {
    rx: RxQueue,
    tx: TxQueue,
    fill: FillQueue,
    completion: CompQueue,
    frames: Vec<FrameDesc>,
    _umem: Umem,
}

impl Bound {
    fn open(interface: &str) -> io::Result<Self> {
        let interface: Interface = interface.parse().map_err(io::Error::other)?;
        let count = BATCH.try_into().expect("not 0");
        let (umem, frames) = Umem::new(UmemConfig::default(), count, false).map_err(|error| errno(&error))?;
        let config =
            SocketConfig::builder().libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD).build();
        // SAFETY: no program is loaded, and nobody else uses the queue: else binding fails.
        let (tx, rx, others) =
            unsafe { Socket::new(config, &umem, &interface, 0) }.map_err(|error| errno(&error))?;
        let (fill, completion) = others.ok_or(io::ErrorKind::AddrInUse)?;
        Ok(Self { rx, tx, fill, completion, frames, _umem: umem })
    }
}

fn descriptor(frame: &FrameDesc) -> Descriptor {
    Descriptor { addr: frame.addr() as u64, len: 60, options: 0 }
}

/// Moves a cursor of the kernel's on by a batch.
fn advance(cursor: NonNull<AtomicU32>) {
    // SAFETY: in a mapping that the caller holds. Nobody else moves it: the kernel is not woken.
    let cursor = unsafe { cursor.as_ref() };
    cursor.store(cursor.load(Ordering::Relaxed).wrapping_add(BATCH), Ordering::Release);
}
