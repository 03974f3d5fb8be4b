//! The processor's cycle counter: what a stage's time is measured with, since it costs a few
//! nanoseconds less than a clock reading and is taken twice per stage and batch.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The cycle counter: monotonic on one core, of constant rate on every processor of the last
/// fifteen years. Turn differences into time with [`cycles_per_ns`].
#[inline(always)]
pub fn cycles() -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        // SAFETY: RDTSC reads a register, touches no memory, and exists on every x86-64 processor.
        unsafe { core::arch::x86_64::_rdtsc() }
    }
    #[cfg(target_arch = "aarch64")]
    {
        let count: u64;
        // SAFETY: reads the virtual counter register, which Linux lets user space read; no memory is touched.
        unsafe { core::arch::asm!("mrs {}, cntvct_el0", out(reg) count, options(nomem, nostack)) };
        count
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        fallback_ns()
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn fallback_ns() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

/// How many [`cycles`] pass in a nanosecond. The first call measures for ten milliseconds; call it
/// on the control side before the data path needs it.
pub fn cycles_per_ns() -> f64 {
    static RATE: OnceLock<f64> = OnceLock::new();
    *RATE.get_or_init(|| {
        let (start, first) = with_cycles(Instant::now);
        while start.elapsed() < Duration::from_millis(10) {
            std::hint::spin_loop();
        }
        let (end, last) = with_cycles(Instant::now);
        let count = last.wrapping_sub(first) as f64;
        (count / (end - start).as_nanos() as f64).max(f64::MIN_POSITIVE)
    })
}

/// What a clock says, and the counter at the same moment: of several tries the one in which the least time has gone by
/// meanwhile, for a thread may have to wait between the two.
pub(crate) fn with_cycles<T>(clock: impl Fn() -> T) -> (T, u64) {
    let tries = (0..4).map(|_| {
        let before = cycles();
        let said = clock();
        let between = cycles().wrapping_sub(before);
        (between, said, before.wrapping_add(between / 2))
    });
    let (_, said, count) = tries.min_by_key(|(between, ..)| *between).expect("there are tries");
    (said, count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_forward_at_a_plausible_rate() {
        let first = cycles();
        let rate = cycles_per_ns();
        assert!(cycles() > first);
        assert!((0.01..20.0).contains(&rate), "{rate} cycles per ns");
    }
}
