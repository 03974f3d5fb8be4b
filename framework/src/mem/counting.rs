//! An allocator that counts: for the test that a data path does not allocate.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator, which counts what each thread asks of it. Made the global one in a test binary
/// of its own, it shows whether a stage allocates:
///
/// ```
/// use afx::mem::CountingAllocator;
///
/// #[global_allocator]
/// static ALLOCATOR: CountingAllocator = CountingAllocator;
///
/// let before = CountingAllocator::calls();
/// let boxed = Box::new(5);
/// assert_eq!(CountingAllocator::calls() - before, 1);
/// drop(boxed);
/// assert_eq!(CountingAllocator::calls() - before, 2);
/// ```
#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::exhaustive_structs, reason = "it is written as a constant")]
pub struct CountingAllocator;

thread_local! {
    static CALLS: Cell<u64> = const { Cell::new(0) };
}

impl CountingAllocator {
    /// How often the calling thread has allocated, reallocated or freed memory.
    pub fn calls() -> u64 {
        CALLS.with(Cell::get)
    }

    fn count() {
        // A thread's last frees come when its variables are gone: nobody asks for those.
        let _ = CALLS.try_with(|calls| calls.set(calls.get() + 1));
    }
}

// SAFETY: every method passes its arguments on to the system's allocator and returns what that returns; the
// counter is a plain cell of the thread, initialised without allocating.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::count();
        // SAFETY: the caller's promises are those that `System` asks for; so in the methods below.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Self::count();
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        Self::count();
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        Self::count();
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}
