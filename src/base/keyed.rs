//! SipHash-1-3 with 128 bits of output (Aumasson, Bernstein: "SipHash: a fast short-input PRF", 2012), for texts that lie in one
//! piece. The values are those of the crate `siphasher`, which the tests compare with; but whoever needs only half of them does not
//! compute the other.

/// The state after a whole text.
pub(super) struct Hashed(State);

impl Hashed {
    /// Hashes a text with the halves of a key.
    #[inline(always)]
    pub(super) fn new(key: (u64, u64), text: &[u8]) -> Hashed {
        let mut state = State {
            v0: key.0 ^ 0x736f_6d65_7073_6575,
            v1: key.1 ^ 0x646f_7261_6e64_6f6d ^ 0xee,
            v2: key.0 ^ 0x6c79_6765_6e65_7261,
            v3: key.1 ^ 0x7465_6462_7974_6573,
        };
        let (words, rest) = text.as_chunks::<8>();
        for word in words {
            state.take(u64::from_le_bytes(*word));
        }
        state.take((text.len() as u64) << 56 | last_word(text, rest));
        Hashed(state)
    }

    /// The lower half of the hash.
    #[inline(always)]
    pub(super) fn low(mut self) -> u64 {
        self.0.finish(0xee, 0)
    }

    #[inline(always)]
    pub(super) fn whole(mut self) -> u128 {
        let low = self.0.finish(0xee, 0);
        let high = self.0.finish(0, 0xdd);
        u128::from(high) << 64 | u128::from(low)
    }
}

/// What is left behind the whole words of a text, as a number.
#[inline(always)]
fn last_word(text: &[u8], rest: &[u8]) -> u64 {
    if rest.is_empty() {
        return 0;
    }
    match text.last_chunk::<8>() {
        // Of the last eight bytes, those that were not hashed yet.
        Some(last) => u64::from_le_bytes(*last) >> (8 * (8 - rest.len())),
        None => rest.iter().rfold(0, |word, byte| word << 8 | u64::from(*byte)),
    }
}

struct State {
    v0: u64,
    v1: u64,
    v2: u64,
    v3: u64,
}

impl State {
    #[inline(always)]
    fn take(&mut self, word: u64) {
        self.v3 ^= word;
        self.round();
        self.v0 ^= word;
    }

    #[inline(always)]
    fn finish(&mut self, into_v2: u64, into_v1: u64) -> u64 {
        self.v2 ^= into_v2;
        self.v1 ^= into_v1;
        for _ in 0..3 {
            self.round();
        }
        self.v0 ^ self.v1 ^ self.v2 ^ self.v3
    }

    #[inline(always)]
    fn round(&mut self) {
        self.v0 = self.v0.wrapping_add(self.v1);
        self.v2 = self.v2.wrapping_add(self.v3);
        self.v1 = self.v1.rotate_left(13) ^ self.v0;
        self.v3 = self.v3.rotate_left(16) ^ self.v2;
        self.v0 = self.v0.rotate_left(32);
        self.v2 = self.v2.wrapping_add(self.v1);
        self.v0 = self.v0.wrapping_add(self.v3);
        self.v1 = self.v1.rotate_left(17) ^ self.v2;
        self.v3 = self.v3.rotate_left(21) ^ self.v0;
        self.v2 = self.v2.rotate_left(32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use siphasher::sip128::SipHasher13;

    #[test]
    fn each_length_hashes_as_the_reference_does() {
        let text: Vec<u8> = (0..=255).cycle().skip(7).take(600).collect();
        for len in 0..text.len() {
            let (a, b) = ((len as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15), !(len as u64));
            let text = &text[..len];
            let expected = SipHasher13::new_with_keys(a, b).hash(text);
            assert_eq!(Hashed::new((a, b), text).whole(), expected.as_u128(), "{len}");
            assert_eq!(Hashed::new((a, b), text).low(), expected.h1, "{len}");
        }
    }
}
