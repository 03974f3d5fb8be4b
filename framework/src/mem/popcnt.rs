//! Counting the ones of a word by the processor's own instruction, which not every processor of the kind has.

/// What is worth compiling twice. A closure would not be inlined into both.
pub(crate) trait Work {
    /// Does it. To be `inline(always)`, or it is compiled without the instruction.
    fn run(self);
}

/// Does `work`, in which [`count_ones`](u32::count_ones) is one instruction where the processor has it, and a dozen
/// where not. Asking costs a few instructions: do many at once.
#[inline(always)]
pub(crate) fn with_popcnt(work: impl Work) {
    imp::with_popcnt(work);
}

#[cfg(target_arch = "x86_64")]
mod imp {
    use super::Work;

    #[inline(always)]
    pub(super) fn with_popcnt(work: impl Work) {
        if is_x86_feature_detected!("popcnt") {
            // SAFETY: the processor has the instruction, as asked just now.
            unsafe { compiled_with(work) }
        } else {
            work.run();
        }
    }

    #[target_feature(enable = "popcnt")]
    fn compiled_with(work: impl Work) {
        work.run();
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod imp {
    #[inline(always)]
    pub(super) fn with_popcnt(work: impl super::Work) {
        work.run();
    }
}
