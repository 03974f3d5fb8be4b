//! Four words compared at once.

/// Which of four words are equal to `word`: bit 0 stands for the first.
///
/// The compiler makes a dozen and a half instructions of the plain way to write this, and half as many of this one.
#[inline(always)]
pub(crate) fn equal_lanes(words: &[u64; 4], word: u64) -> u32 {
    imp::equal_lanes(words, word)
}

#[cfg(target_arch = "x86_64")]
mod imp {
    use core::arch::x86_64::{
        _mm_and_ps, _mm_castsi128_ps, _mm_cmpeq_epi32, _mm_loadu_si128, _mm_movemask_ps, _mm_set1_epi64x,
        _mm_shuffle_ps,
    };

    #[inline(always)]
    pub(super) fn equal_lanes(words: &[u64; 4], word: u64) -> u32 {
        // SAFETY: SSE2 is part of x86_64; both loads are within the four words, and need no alignment.
        unsafe {
            let word = _mm_set1_epi64x(word.cast_signed());
            let pair = words.as_ptr().cast::<core::arch::x86_64::__m128i>();
            // 64 bits are equal where both of their halves are: first all the lower halves, then all the upper ones.
            let low = _mm_castsi128_ps(_mm_cmpeq_epi32(_mm_loadu_si128(pair), word));
            let high = _mm_castsi128_ps(_mm_cmpeq_epi32(_mm_loadu_si128(pair.add(1)), word));
            let lower = _mm_shuffle_ps::<0b10_00_10_00>(low, high);
            let upper = _mm_shuffle_ps::<0b11_01_11_01>(low, high);
            _mm_movemask_ps(_mm_and_ps(lower, upper)).cast_unsigned()
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod imp {
    #[inline(always)]
    pub(super) fn equal_lanes(words: &[u64; 4], word: u64) -> u32 {
        (0..4).fold(0, |mask, lane| mask | u32::from(words[lane] == word) << lane)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Words that are often equal, or equal in one half.
    fn any_word() -> impl Strategy<Value = u64> {
        (0_u64..3, 0_u64..3).prop_map(|(high, low)| high << 32 | low)
    }

    proptest! {
        #[test]
        fn as_one_by_one(words in prop::array::uniform4(any_word()), word in any_word()) {
            let expected: Vec<bool> = words.iter().map(|other| *other == word).collect();
            let mask = equal_lanes(&words, word);
            prop_assert_eq!((0..4).map(|lane| mask >> lane & 1 == 1).collect::<Vec<_>>(), expected);
            prop_assert_eq!(mask >> 4, 0);
        }
    }
}
