//! AES-128 (FIPS 197) by the processor's own instructions, for hashing under a key.

/// Encrypts blocks of 128 bits under one key; there is none where the processor has no instructions for it.
#[derive(Clone, Copy)]
pub(crate) struct Aes128(imp::RoundKeys);

impl Aes128 {
    /// A cipher with this key. None, where the processor cannot: an x86 processor before 2010, or another kind.
    pub(crate) fn new(key: [u8; 16]) -> Option<Self> {
        imp::expand(key).map(Self)
    }

    /// The encrypted block. Its words, and the result's, are in little-endian order.
    #[inline(always)]
    pub(crate) fn encrypt(&self, block: [u64; 2]) -> [u64; 2] {
        imp::encrypt(&self.0, block)
    }
}

#[cfg(target_arch = "x86_64")]
mod imp {
    use core::arch::x86_64::{
        __m128i, _mm_aesenc_si128, _mm_aesenclast_si128, _mm_aeskeygenassist_si128, _mm_cvtsi128_si64,
        _mm_set_epi64x, _mm_shuffle_epi32, _mm_slli_si128, _mm_unpackhi_epi64, _mm_xor_si128,
    };

    pub(super) type RoundKeys = [__m128i; 11];

    pub(super) fn expand(key: [u8; 16]) -> Option<RoundKeys> {
        if !is_x86_feature_detected!("aes") {
            return None;
        }
        let words = u128::from_le_bytes(key);
        // SAFETY: the processor has the instructions, as asked just now.
        Some(unsafe { schedule([words as u64, (words >> 64) as u64]) })
    }

    #[inline(always)]
    pub(super) fn encrypt(keys: &RoundKeys, block: [u64; 2]) -> [u64; 2] {
        // SAFETY: round keys come from `expand` alone, which makes them only where the processor has the instructions.
        let encrypted = unsafe { rounds(keys, block[0], block[1]) };
        [encrypted as u64, (encrypted >> 64) as u64]
    }

    #[target_feature(enable = "aes")]
    fn load(words: [u64; 2]) -> __m128i {
        _mm_set_epi64x(words[1].cast_signed(), words[0].cast_signed())
    }

    /// The key schedule (FIPS 197, section 5.2).
    #[target_feature(enable = "aes")]
    fn schedule(key: [u64; 2]) -> RoundKeys {
        let mut keys = [load(key); 11];
        macro_rules! expand {
            ($($round:literal: $constant:literal),*) => {$(
                let before = keys[$round - 1];
                let word = _mm_shuffle_epi32::<0xff>(_mm_aeskeygenassist_si128::<$constant>(before));
                let twice = _mm_xor_si128(before, _mm_slli_si128::<4>(before));
                keys[$round] = _mm_xor_si128(_mm_xor_si128(twice, _mm_slli_si128::<8>(twice)), word);
            )*};
        }
        expand!(1: 0x01, 2: 0x02, 3: 0x04, 4: 0x08, 5: 0x10, 6: 0x20, 7: 0x40, 8: 0x80, 9: 0x1b, 10: 0x36);
        keys
    }

    /// One number is returned in registers, two words are not.
    #[target_feature(enable = "aes")]
    fn rounds(keys: &RoundKeys, low: u64, high: u64) -> u128 {
        let mut state = _mm_xor_si128(load([low, high]), keys[0]);
        for key in &keys[1..10] {
            state = _mm_aesenc_si128(state, *key);
        }
        state = _mm_aesenclast_si128(state, keys[10]);
        let high = _mm_unpackhi_epi64(state, state);
        let [low, high] = [state, high].map(|word| u128::from(_mm_cvtsi128_si64(word).cast_unsigned()));
        low | high << 64
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod imp {
    /// There are none.
    #[derive(Clone, Copy)]
    pub(super) enum RoundKeys {}

    pub(super) fn expand(_: [u8; 16]) -> Option<RoundKeys> {
        None
    }

    #[inline(always)]
    pub(super) fn encrypt(keys: &RoundKeys, _: [u64; 2]) -> [u64; 2] {
        match *keys {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_standard_s_example_comes_out() {
        // FIPS 197, appendix C.1.
        let Some(cipher) = Aes128::new(std::array::from_fn(|byte| byte as u8)) else { return };
        let block: [u8; 16] = std::array::from_fn(|byte| byte as u8 * 0x11);
        let [low, high] = cipher.encrypt(bytemuck::cast(block));
        let expected = 0x69c4_e0d8_6a7b_0430_d8cd_b780_70b4_c55a_u128.to_be_bytes();
        assert_eq!([low.to_le_bytes(), high.to_le_bytes()].concat(), expected);
    }

    #[test]
    fn it_is_there_where_the_processor_has_it() {
        #[cfg(target_arch = "x86_64")]
        assert_eq!(Aes128::new([0; 16]).is_some(), is_x86_feature_detected!("aes"));
    }
}
