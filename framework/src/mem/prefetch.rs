//! Software prefetch: asks for a cache line that will be needed a few packets later.

/// Asks for the cache line at the start of `value`, to be read soon. Never faults, costs no stall.
#[inline(always)]
pub fn prefetch_read<T: ?Sized>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch is a hint: it changes no memory and cannot fault; the reference is valid anyway.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(core::ptr::from_ref(value).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}

/// Asks for the cache line at the start of `value`, to be written soon.
#[inline(always)]
pub fn prefetch_write<T: ?Sized>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use core::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
        // SAFETY: as in `prefetch_read`: a hint that cannot fault and changes no memory.
        unsafe { _mm_prefetch::<_MM_HINT_ET0>(core::ptr::from_ref(value).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}
