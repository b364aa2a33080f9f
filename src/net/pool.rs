//! Buffers that exist only while bytes are in flight: taken when some arrive, returned when they have been sent.

/// Buffers kept for reuse; more would hold memory after a flood.
const KEPT: usize = 64;

/// A buffer that has grown beyond this size is not kept.
const LARGEST: usize = 64 << 10;

#[derive(Default)]
pub struct Buffers {
    spare: Vec<Vec<u8>>,
}

impl Buffers {
    /// Returns an empty buffer, with a kept allocation if available.
    pub fn take(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_default()
    }

    pub fn give(&mut self, mut buffer: Vec<u8>) {
        if (1..=LARGEST).contains(&buffer.capacity()) && self.spare.len() < KEPT {
            buffer.clear();
            self.spare.push(buffer);
        }
    }
}
