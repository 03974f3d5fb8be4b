//! SipHash (Aumasson and Bernstein, 2012): a keyed hash whose collisions nobody can construct without the key.
//!
//! Written here rather than taken from `std`, whose hasher promises no stable result: balancers of different
//! versions must agree on a flow's real. `C` rounds per block and `D` at the end: 2-4 is the conservative
//! choice of the paper, 1-3 the faster one that Rust's and Linux' hash tables use.

/// The state after the initial mixing of key and constants.
#[derive(Clone, Copy)]
struct State {
    v: [u64; 4],
}

impl State {
    #[inline(always)]
    fn new(key: [u64; 2]) -> Self {
        // "somepseudorandomlygeneratedbytes", as the paper has it.
        Self {
            v: [
                key[0] ^ 0x736f_6d65_7073_6575,
                key[1] ^ 0x646f_7261_6e64_6f6d,
                key[0] ^ 0x6c79_6765_6e65_7261,
                key[1] ^ 0x7465_6462_7974_6573,
            ],
        }
    }

    #[inline(always)]
    fn rounds(&mut self, count: usize) {
        let [mut a, mut b, mut c, mut d] = self.v;
        for _ in 0..count {
            a = a.wrapping_add(b);
            b = b.rotate_left(13) ^ a;
            a = a.rotate_left(32);
            c = c.wrapping_add(d);
            d = d.rotate_left(16) ^ c;
            a = a.wrapping_add(d);
            d = d.rotate_left(21) ^ a;
            c = c.wrapping_add(b);
            b = b.rotate_left(17) ^ c;
            c = c.rotate_left(32);
        }
        self.v = [a, b, c, d];
    }

    #[inline(always)]
    fn absorb<const C: usize>(&mut self, block: u64) {
        self.v[3] ^= block;
        self.rounds(C);
        self.v[0] ^= block;
    }

    #[inline(always)]
    fn folded(&self) -> u64 {
        self.v[0] ^ self.v[1] ^ self.v[2] ^ self.v[3]
    }
}

/// The 128-bit variant over whole blocks: the last one must hold the message's length in its top byte, as
/// [`blocks`] makes it.
#[inline(always)]
pub(super) fn hash128<const C: usize, const D: usize>(key: [u64; 2], blocks: &[u64]) -> [u64; 2] {
    let mut state = State::new(key);
    state.v[1] ^= 0xee;
    for &block in blocks {
        state.absorb::<C>(block);
    }
    state.v[2] ^= 0xee;
    state.rounds(D);
    let first = state.folded();
    state.v[1] ^= 0xdd;
    state.rounds(D);
    [first, state.folded()]
}

/// The 64-bit variant over a message of any length.
pub(super) fn hash64<const C: usize, const D: usize>(key: [u64; 2], message: &[u8]) -> u64 {
    let mut state = State::new(key);
    for block in blocks(message) {
        state.absorb::<C>(block);
    }
    state.v[2] ^= 0xff;
    state.rounds(D);
    state.folded()
}

/// Cuts a message into little-endian blocks; the last one carries the length modulo 256 in its top byte.
fn blocks(message: &[u8]) -> impl Iterator<Item = u64> {
    let (whole, rest) = message.as_chunks::<8>();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    last[7] = message.len() as u8;
    whole.iter().map(|block| u64::from_le_bytes(*block)).chain([u64::from_le_bytes(last)])
}

#[cfg(test)]
mod tests {
    use std::hash::Hasher as _;

    use super::*;

    /// Key and message of the paper's appendix A: the bytes 0, 1, 2, ...
    const KEY: [u64; 2] = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];

    #[test]
    fn the_paper_s_example_comes_out() {
        let message: Vec<u8> = (0..15).collect();
        assert_eq!(hash64::<2, 4>(KEY, &message), 0xa129_ca61_49be_45e5);
    }

    #[test]
    fn the_authors_first_128_bit_vector_comes_out() {
        let blocks: Vec<u64> = blocks(&[]).collect();
        let [low, high] = hash128::<2, 4>(KEY, &blocks);
        assert_eq!(
            [low.to_le_bytes(), high.to_le_bytes()].concat(),
            [0xa3, 0x81, 0x7f, 0x04, 0xba, 0x25, 0xa8, 0xe6, 0x6d, 0xf6, 0x72, 0x14, 0xc7, 0x55, 0x02, 0x93]
        );
    }

    #[test]
    fn one_three_agrees_with_the_standard_library_at_every_length() {
        let message: Vec<u8> = (0..64).collect();
        for length in 0..message.len() {
            let mut theirs = std::hash::DefaultHasher::new();
            theirs.write(&message[..length]);
            assert_eq!(hash64::<1, 3>([0, 0], &message[..length]), theirs.finish(), "length {length}");
        }
    }
}
