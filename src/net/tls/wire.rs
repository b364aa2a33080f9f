//! The library's socket: two byte queues.

use std::io::{self, Read, Write};

/// Bytes received from the peer and bytes to be sent to it. Both hold memory only while bytes are in flight.
#[derive(Default)]
pub struct Wire {
    input: Vec<u8>,
    /// How far the library has read `input`.
    taken: usize,
    /// How far it may read: the end of the last complete record, so that it is not called for half of one.
    ready: usize,
    pub output: Vec<u8>,
}

impl Wire {
    pub fn push(&mut self, ciphertext: &[u8]) {
        self.input.reserve_exact(ciphertext.len());
        self.input.extend_from_slice(ciphertext);
    }

    /// Returns what has arrived and is not yet released.
    pub fn held(&self) -> &[u8] {
        &self.input[self.ready..]
    }

    /// Lets the library read `len` more bytes.
    pub fn release(&mut self, len: usize) {
        self.ready = (self.ready + len).min(self.input.len());
    }

    /// Returns what the library may read but has not.
    pub fn unread(&self) -> usize {
        self.ready - self.taken
    }

    /// Frees the memory of what was read.
    pub fn tidy(&mut self) {
        if self.taken == self.input.len() {
            self.input = Vec::new();
        } else if self.taken > 0 {
            self.input.drain(..self.taken);
        }
        self.ready -= self.taken;
        self.taken = 0;
    }

    #[cfg(test)]
    pub fn capacity(&self) -> usize {
        self.input.capacity()
    }

    /// Discards the input.
    pub fn clear_input(&mut self) {
        self.input = Vec::new();
        self.taken = 0;
        self.ready = 0;
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let waiting = &self.input[self.taken..self.ready];
        if waiting.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let len = waiting.len().min(buffer.len());
        buffer[..len].copy_from_slice(&waiting[..len]);
        self.taken += len;
        Ok(len)
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
