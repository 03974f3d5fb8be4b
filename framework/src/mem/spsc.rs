//! A bounded single-producer, single-consumer ring for values that move between threads: what
//! workers hand packets over by. Lamport's queue with each side's view of the other cached: no
//! lock, no atomic read-modify-write.

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam::utils::CachePadded;

struct Ring<T> {
    slots: Box<[UnsafeCell<MaybeUninit<T>>]>,
    /// Next to be read; written by the receiver alone.
    head: CachePadded<AtomicUsize>,
    /// Next to be written; written by the sender alone.
    tail: CachePadded<AtomicUsize>,
}

// SAFETY: a slot is touched by one side at a time: by the sender from when it is free until `tail`
// passes it (release), by the receiver (acquire) until `head` passes it (release).
unsafe impl<T: Send> Sync for Ring<T> {}
// SAFETY: the ring owns values that may be sent.
unsafe impl<T: Send> Send for Ring<T> {}

/// The end that puts in.
pub(crate) struct Sender<T> {
    ring: Arc<Ring<T>>,
    tail: usize,
    head: usize,
}

/// The end that takes out.
pub(crate) struct Receiver<T> {
    ring: Arc<Ring<T>>,
    head: usize,
    tail: usize,
}

/// A ring of `capacity` values (rounded up to a power of two).
pub(crate) fn channel<T: Send>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let slots = (0..capacity.next_power_of_two()).map(|_| UnsafeCell::new(MaybeUninit::uninit())).collect();
    let ring = Arc::new(Ring {
        slots,
        head: CachePadded::new(AtomicUsize::new(0)),
        tail: CachePadded::new(AtomicUsize::new(0)),
    });
    (Sender { ring: ring.clone(), tail: 0, head: 0 }, Receiver { ring, head: 0, tail: 0 })
}

impl<T> Ring<T> {
    fn slot(&self, position: usize) -> *mut MaybeUninit<T> {
        self.slots[position & (self.slots.len() - 1)].get()
    }
}

impl<T> Sender<T> {
    /// Puts a value in; gives it back where the ring is full.
    pub(crate) fn send(&mut self, value: T) -> Result<(), T> {
        let capacity = self.ring.slots.len();
        if self.tail.wrapping_sub(self.head) == capacity {
            self.head = self.ring.head.load(Ordering::Acquire);
            if self.tail.wrapping_sub(self.head) == capacity {
                return Err(value);
            }
        }
        // SAFETY: the slot is free: the receiver's `head`, read with acquire, has passed its last value,
        // and no one else sends.
        unsafe { (*self.ring.slot(self.tail)).write(value) };
        self.tail = self.tail.wrapping_add(1);
        self.ring.tail.store(self.tail, Ordering::Release);
        Ok(())
    }
}

impl<T> Receiver<T> {
    /// Whether there is a value to take.
    pub(crate) fn waiting(&self) -> bool {
        self.head != self.ring.tail.load(Ordering::Acquire)
    }

    /// Takes the oldest value out.
    pub(crate) fn receive(&mut self) -> Option<T> {
        if self.head == self.tail {
            self.tail = self.ring.tail.load(Ordering::Acquire);
            if self.head == self.tail {
                return None;
            }
        }
        // SAFETY: the sender's `tail`, read with acquire, has passed this slot, so it is written, and no
        // one else receives; it is read once, since `head` moves on.
        let value = unsafe { (*self.ring.slot(self.head)).assume_init_read() };
        self.head = self.head.wrapping_add(1);
        self.ring.head.store(self.head, Ordering::Release);
        Some(value)
    }
}

impl<T> Drop for Ring<T> {
    fn drop(&mut self) {
        let (head, tail) = (self.head.load(Ordering::Relaxed), self.tail.load(Ordering::Relaxed));
        for position in 0..tail.wrapping_sub(head) {
            // SAFETY: both ends are gone; what lies between head and tail was written and not read.
            unsafe { (*self.slot(head.wrapping_add(position))).assume_init_drop() };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_kept_the_bound_holds_and_the_rest_is_dropped_once() {
        let (mut sender, mut receiver) = channel::<Arc<u32>>(4);
        let values: Vec<_> = (0..6).map(Arc::new).collect();
        for value in &values[..4] {
            sender.send(value.clone()).unwrap();
        }
        assert_eq!(*sender.send(values[4].clone()).unwrap_err(), 4);
        assert_eq!(receiver.receive().as_deref(), Some(&0));
        sender.send(values[5].clone()).unwrap();
        assert_eq!(receiver.receive().as_deref(), Some(&1));
        drop((sender, receiver));
        assert!(values.iter().all(|value| Arc::strong_count(value) == 1));
    }

    #[test]
    fn a_million_values_cross_threads_in_order() {
        let (mut sender, mut receiver) = channel::<Box<u64>>(64);
        let producer = std::thread::spawn(move || {
            for value in 0..1_000_000u64 {
                let mut boxed = Box::new(value);
                while let Err(back) = sender.send(boxed) {
                    boxed = back;
                    std::thread::yield_now();
                }
            }
        });
        for expected in 0..1_000_000u64 {
            let value = loop {
                match receiver.receive() {
                    Some(value) => break value,
                    None => std::thread::yield_now(),
                }
            };
            assert_eq!(*value, expected);
        }
        producer.join().unwrap();
        assert!(receiver.receive().is_none());
    }
}
