//! Buffers that exist only while bytes are in flight: taken when some come, given back when they have left.

/// Buffers kept for the next; more would be memory that stays after a flood.
const KEPT: usize = 64;

/// A buffer that has grown beyond this is not kept.
const LARGEST: usize = 64 << 10;

#[derive(Default)]
pub struct Buffers {
    spare: Vec<Vec<u8>>,
}

impl Buffers {
    /// An empty buffer, with memory where one is at hand.
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
