//! The atomics and cells that rings, and what stands beside them, are made of: the standard ones, or loom's
//! under `cfg(loom)`. Nothing else in the crate chooses between them.

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU32, Ordering, fence};
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, Ordering, fence};

/// One entry of a ring. Read by one side and written by the other, never at the
/// same time: the ring's cursors say whose it is.
#[cfg(not(loom))]
#[repr(transparent)]
pub(crate) struct Slot<T>(std::cell::UnsafeCell<T>);

#[cfg(not(loom))]
impl<T: Copy> Slot<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(std::cell::UnsafeCell::new(value))
    }

    /// # Safety
    ///
    /// Nobody writes this slot meanwhile.
    #[inline(always)]
    pub(crate) unsafe fn read(&self) -> T {
        // SAFETY: the caller excludes a writer; the cell is valid as long as it is borrowed.
        unsafe { *self.0.get() }
    }

    /// # Safety
    ///
    /// Nobody reads or writes this slot meanwhile.
    #[inline(always)]
    pub(crate) unsafe fn write(&self, value: T) {
        // SAFETY: the caller excludes everybody else; the cell is valid as long as it is borrowed.
        unsafe { *self.0.get() = value }
    }
}

/// As above, and loom fails the test that breaks either contract.
#[cfg(loom)]
pub(crate) struct Slot<T>(loom::cell::UnsafeCell<T>);

#[cfg(loom)]
impl<T: Copy> Slot<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(loom::cell::UnsafeCell::new(value))
    }

    /// # Safety
    ///
    /// Nobody writes this slot meanwhile.
    pub(crate) unsafe fn read(&self) -> T {
        // SAFETY: the caller excludes a writer, and loom checks it.
        self.0.with(|value| unsafe { *value })
    }

    /// # Safety
    ///
    /// Nobody reads or writes this slot meanwhile.
    pub(crate) unsafe fn write(&self, value: T) {
        // SAFETY: the caller excludes everybody else, and loom checks it.
        self.0.with_mut(|slot| unsafe { *slot = value })
    }
}
