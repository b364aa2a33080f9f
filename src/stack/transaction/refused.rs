//! INVITEs that were answered with a non-2xx and left no transaction: refused statelessly within a dialog, or not acknowledged
//! until timer H. Only its branch distinguishes a late ACK to such an answer from the ACK to a 2xx (RFC 3261 §17.1.1.3).

/// How many are remembered, at most; a newer one takes an older one's place.
const PLACES: usize = 1024;

/// A short memory of transaction keys.
pub struct Refused {
    /// Indexed by some bits of the key, holding others; 0 if empty.
    keys: Box<[u64]>,
    is_empty: bool,
}

impl Default for Refused {
    fn default() -> Refused {
        Refused::with_places(PLACES)
    }
}

impl Refused {
    /// `places`: how many are remembered, at most.
    pub fn with_places(places: usize) -> Refused {
        Refused { keys: vec![0; places.max(1)].into(), is_empty: true }
    }

    fn place(&self, key: u128) -> usize {
        key as usize % self.keys.len()
    }

    /// An INVITE was answered with a non-2xx and left no transaction.
    pub fn note(&mut self, key: u128) {
        self.is_empty = false;
        let place = self.place(key);
        self.keys[place] = (key >> 64) as u64;
    }

    /// The INVITE has come again, and was accepted this time.
    pub fn forget(&mut self, key: u128) {
        if self.knows(key) {
            let place = self.place(key);
            self.keys[place] = 0;
        }
    }

    /// True if nothing was ever noted: computing the key can then be skipped.
    pub fn is_empty(&self) -> bool {
        self.is_empty
    }

    /// True if the ACK with this key is for such an answer, and must not leave this hop.
    pub fn knows(&self, key: u128) -> bool {
        self.keys[self.place(key)] == (key >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_refusals_are_known_and_nothing_else() {
        let mut refused = Refused::default();
        let key = |n: u128| (n + 1) << 64 | n;
        for n in 0..PLACES as u128 {
            refused.note(key(n));
        }
        assert!((0..PLACES as u128).all(|n| refused.knows(key(n))));
        assert!(!refused.knows(key(PLACES as u128)));
        refused.note(key(PLACES as u128));
        assert!(refused.knows(key(PLACES as u128)) && !refused.knows(key(0)));
    }
}
