//! Seeded pseudo-randomness (xoshiro256++ seeded by SplitMix64): the same seed gives the same run. Not for secrets.

/// A deterministic generator. For unpredictable values, use a keyed hash ([`crate::base::Key`]).
#[derive(Clone, Debug)]
pub struct Rng {
    state: [u64; 4],
    /// What is drawn first, two bytes a draw.
    tape: std::vec::IntoIter<u8>,
}

impl Rng {
    pub fn new(seed: u64) -> Rng {
        let mut z = seed;
        let mut next = || {
            z = z.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut x = z;
            x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            x ^ (x >> 31)
        };
        Rng { state: [next(), next(), next(), next()], tape: Vec::new().into_iter() }
    }

    /// As with a seed alone, but the first draws come from a tape: two bytes are the upper ones of a draw, which [`Rng::below`]
    /// uses. So the author of the tape decides the outcomes.
    pub fn with_tape(seed: u64, tape: &[u8]) -> Rng {
        Rng { tape: Vec::from(tape).into_iter(), ..Rng::new(seed) }
    }

    pub fn next_u64(&mut self) -> u64 {
        let s = &mut self.state;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        match (self.tape.next(), self.tape.next()) {
            (Some(high), Some(low)) => u64::from(high) << 56 | u64::from(low) << 48 | result >> 16,
            _ => result,
        }
    }

    /// Returns a number in `0..bound`; 0 if `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// True once in `one_in` draws on average; never if `one_in` is 0.
    pub fn one_in(&mut self, one_in: u64) -> bool {
        one_in != 0 && self.below(one_in) == 0
    }

    /// True with a probability of `per_mille` thousandths.
    pub fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_seed_same_run() {
        let (mut a, mut b, mut c) = (Rng::new(7), Rng::new(7), Rng::new(8));
        let run = |r: &mut Rng| (0..64).map(|_| r.next_u64()).collect::<Vec<_>>();
        let first = run(&mut a);
        assert_eq!(first, run(&mut b));
        assert_ne!(first, run(&mut c));
    }

    #[test]
    fn a_tape_decides_as_long_as_it_lasts() {
        let mut rng = Rng::with_tape(7, &[0, 0, 255, 255, 128, 0, 9]);
        assert_eq!([0, 1, 2].map(|_| rng.below(10)), [0, 9, 5]);
        let mut other = Rng::new(7);
        for _ in 0..3 {
            other.next_u64();
        }
        assert_eq!(rng.next_u64(), other.next_u64());
    }

    #[test]
    fn below_stays_below_and_reaches_all() {
        let mut rng = Rng::new(1);
        let mut seen = [false; 10];
        for _ in 0..1000 {
            seen[rng.below(10) as usize] = true;
        }
        assert_eq!(seen, [true; 10]);
        assert_eq!(rng.below(0), 0);
    }
}
