//! Zeroed memory on huge pages where there are any, else on ordinary ones, and tables in it.

use std::alloc::Layout;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::LazyLock;

use bytemuck::Zeroable;

/// On what kind of pages a memory lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageKind {
    /// Huge pages of the system's default size (`Hugepagesize` in `/proc/meminfo`).
    Huge,
    /// Ordinary pages: there were not enough huge ones.
    Normal,
}

/// Bytes of a block from which on huge pages are asked for.
pub(crate) const LARGE: usize = 1 << 20;

/// A zeroed block of memory, aligned to a page, freed on drop.
///
/// Its pages are of the NUMA node of the core on which it is made: a worker makes its tables on its own core. Every page
/// is present from the start.
pub(crate) struct Pages {
    base: NonNull<u8>,
    layout: Layout,
    kind: PageKind,
}

impl Pages {
    const ALIGN: usize = 4096;

    /// `len` zeroed bytes. Blocks that are not [`LARGE`] go to ordinary pages at once.
    pub(crate) fn new(len: usize) -> Self {
        let layout = Layout::from_size_align(len.max(1), Self::ALIGN).expect("a length below isize::MAX");
        if len >= LARGE && has_huge_pages() {
            // SAFETY: the layout's size is not zero. The memory is fresh from mmap, hence zeroed and unshared.
            if let Some(base) = NonNull::new(unsafe { hugepage_rs::alloc(layout) }) {
                let pages = Self { base, layout, kind: PageKind::Huge };
                // A limit on huge pages is met here, as an error, and not at some packet, as a signal.
                if pages.populate().is_ok() {
                    return pages;
                }
            }
        }
        // The standard library zeroes what is aligned to more than a few words itself, and so has every page present.
        // SAFETY: the layout's size is not zero.
        let Some(base) = NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) }) else {
            std::alloc::handle_alloc_error(layout);
        };
        Self { base, layout, kind: PageKind::Normal }
    }

    /// Has every page present (Linux 5.14; before that they come when touched).
    fn populate(&self) -> std::io::Result<()> {
        // SAFETY: the range is this block's own; populating changes no byte of it.
        let result = unsafe {
            libc::madvise(self.base.as_ptr().cast(), self.layout.size(), libc::MADV_POPULATE_WRITE)
        };
        match std::io::Error::last_os_error() {
            _ if result == 0 => Ok(()),
            error if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
            error => Err(error),
        }
    }

    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    pub(crate) fn len(&self) -> usize {
        self.layout.size()
    }

    pub(crate) fn kind(&self) -> PageKind {
        self.kind
    }
}

/// Whether the kernel has huge pages at all: hugepage-rs panics where it has none.
fn has_huge_pages() -> bool {
    static THERE: LazyLock<bool> = LazyLock::new(|| {
        std::fs::read_to_string("/proc/meminfo").is_ok_and(|text| text.contains("\nHugepagesize:"))
    });
    *THERE
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: `base` came from the allocator that `kind` names, with this very layout, and is freed once.
        unsafe {
            match self.kind {
                PageKind::Huge => hugepage_rs::dealloc(self.base.as_ptr(), self.layout),
                PageKind::Normal => std::alloc::dealloc(self.base.as_ptr(), self.layout),
            }
        }
    }
}

// SAFETY: `Pages` owns its memory as a `Box<[u8]>` would; nothing in it is tied to a thread.
unsafe impl Send for Pages {}
// SAFETY: through a shared reference only the address and the length can be read.
unsafe impl Sync for Pages {}

/// A large table on huge pages, zeroed when made: one TLB entry covers 2 MiB of it instead of 4 KiB,
/// which is what random look-ups in a connection table are bounded by.
///
/// ```
/// let mut table = afx::mem::HugeTable::<u64>::new(1024);
/// table[7] = 42;
/// assert_eq!((table.len(), table[7], table[8]), (1024, 42, 0));
/// ```
pub struct HugeTable<T> {
    pages: Pages,
    len: usize,
    _entries: std::marker::PhantomData<T>,
}

impl<T: Zeroable> HugeTable<T> {
    /// A table of `len` zeroed entries. Falls back to ordinary pages where huge ones run out
    /// ([`HugeTable::page_kind`] tells).
    ///
    /// # Panics
    /// If the table's size overflows, or `T` wants more than page alignment.
    pub fn new(len: usize) -> Self {
        assert!(align_of::<T>() <= Pages::ALIGN, "the entry's alignment is above a page's");
        let bytes = len.checked_mul(size_of::<T>()).expect("a table below the address space's size");
        Self { pages: Pages::new(bytes), len, _entries: std::marker::PhantomData }
    }
}

impl<T> HugeTable<T> {
    /// On what kind of pages the table lies.
    pub fn page_kind(&self) -> PageKind {
        self.pages.kind()
    }
}

impl<T> Deref for HugeTable<T> {
    type Target = [T];
    #[inline(always)]
    fn deref(&self) -> &[T] {
        // SAFETY: the block holds `len` entries, aligned (checked in `new`), zeroed at first (valid by
        // `Zeroable`), and is borrowed as this table is.
        unsafe { std::slice::from_raw_parts(self.pages.base().as_ptr().cast(), self.len) }
    }
}

impl<T> DerefMut for HugeTable<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`; `&mut self` makes the borrow exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.pages.base().as_ptr().cast(), self.len) }
    }
}

impl<T> Drop for HugeTable<T> {
    fn drop(&mut self) {
        if std::mem::needs_drop::<T>() {
            // SAFETY: all `len` entries are valid values, dropped here once and not touched again.
            unsafe { std::ptr::drop_in_place(&mut **self) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_is_present_from_the_start() {
        // Mappings of its own, and of what the allocator has.
        for len in [3 * 4096, LARGE - 4096, 4 * LARGE] {
            let pages = Pages::new(len);
            let mut present = vec![0u8; len.div_ceil(4096)];
            // SAFETY: the kernel writes a byte for each page of the block.
            let result = unsafe { libc::mincore(pages.base().as_ptr().cast(), len, present.as_mut_ptr()) };
            assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
            assert!(present.iter().all(|page| page & 1 == 1), "of {len} bytes on {:?} pages", pages.kind());
        }
    }

    #[test]
    fn a_table_is_zeroed_and_keeps_what_is_written() {
        for len in [0, 1, 1000, 1 << 20] {
            let mut table = HugeTable::<[u64; 2]>::new(len);
            assert_eq!(table.len(), len);
            assert!(table.iter().all(|entry| *entry == [0, 0]));
            for (index, entry) in table.iter_mut().enumerate() {
                *entry = [index as u64, !(index as u64)];
            }
            assert!(table.iter().enumerate().all(|(i, e)| *e == [i as u64, !(i as u64)]));
        }
    }
}
