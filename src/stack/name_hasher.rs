//! The hasher of tables whose keys are hashes already.

use std::hash::Hasher;

/// A name is a hash already: its lower half is as good as any.
#[derive(Default)]
pub(in crate::stack) struct NameHasher(u64);

impl Hasher for NameHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }

    fn write_u64(&mut self, name: u64) {
        self.0 = name;
    }

    fn write_u128(&mut self, name: u128) {
        self.0 = name as u64;
    }
}
