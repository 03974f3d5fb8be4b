//! Rings in the process's own memory: both ends are ours. They carry what
//! sockets' rings carry, without a socket: for memory ports, and for tests.

use std::ptr::NonNull;
use std::sync::Arc;

use super::ring::{Consumer, Memory, Producer};
use super::sync::{AtomicU32, Slot};

/// The two ends of a new, empty ring of `size` entries. Each may go to a thread
/// of its own; the memory goes with the last of them.
///
/// # Panics
///
/// If `size` is no power of two.
pub(crate) fn pair<T>(size: u32) -> (Producer<T>, Consumer<T>)
where
    T: Copy + Default + Send + 'static,
{
    starting_at(0, size)
}

/// As [`pair`], with both cursors at `start`: the ring behaves the same wherever
/// they stand, which tests want to see.
pub(super) fn starting_at<T>(start: u32, size: u32) -> (Producer<T>, Consumer<T>)
where
    T: Copy + Default + Send + 'static,
{
    let (producer, consumer) = shared(start, size);
    // SAFETY: `shared` keeps its word on pointers and slots. The memory is new: these are its only two
    // ends, and both keep to their side of the cursors.
    unsafe { (Producer::new(producer), Consumer::new(consumer)) }
}

/// New ring memory, twice: whoever holds both can be either side.
pub(super) fn shared<T>(start: u32, size: u32) -> (Memory<T>, Memory<T>)
where
    T: Copy + Default + Send + 'static,
{
    let heap = Arc::new(Heap {
        producer: Line(AtomicU32::new(start)),
        consumer: Line(AtomicU32::new(start)),
        flags: AtomicU32::new(0),
        slots: (0..size).map(|_| Slot::new(T::default())).collect(),
    });
    let memory = || Memory {
        producer: NonNull::from(&heap.producer.0),
        consumer: NonNull::from(&heap.consumer.0),
        flags: NonNull::from(&heap.flags),
        slots: NonNull::from(&*heap.slots).cast(),
        size,
        owner: heap.clone(),
    };
    (memory(), memory())
}

struct Heap<T> {
    producer: Line<AtomicU32>,
    consumer: Line<AtomicU32>,
    flags: AtomicU32,
    slots: Box<[Slot<T>]>,
}

/// Two cache lines of its own (adjacent lines are fetched in pairs), so that the
/// two ends do not take their cursors from each other.
#[repr(align(128))]
struct Line<T>(T);

// SAFETY: the atomics may be shared; the slots are reached through a `Producer` and a `Consumer`
// only, whose cursors keep them off each other's slots.
unsafe impl<T: Send> Sync for Heap<T> {}
