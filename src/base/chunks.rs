//! A vector that grows by whole chunks and never moves what it holds: growing by a million entries causes no pause.

use std::ops::{Index, IndexMut};

const CHUNK: usize = 1024;

/// Entries by index, stored in boxes of 1,024. Memory is kept when entries are reused by their owner, never copied.
pub struct Chunks<T> {
    chunks: Vec<Vec<T>>,
    len: usize,
}

impl<T> Default for Chunks<T> {
    fn default() -> Self {
        Chunks { chunks: Vec::new(), len: 0 }
    }
}

impl<T> Chunks<T> {
    pub fn len(&self) -> usize {
        self.len
    }

    /// Appends and returns the index.
    pub fn push(&mut self, value: T) -> usize {
        if self.len.is_multiple_of(CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        let index = self.len;
        self.chunks[index / CHUNK].push(value);
        self.len += 1;
        index
    }

    pub fn get(&self, index: usize) -> Option<&T> {
        self.chunks.get(index / CHUNK)?.get(index % CHUNK)
    }

    pub fn get_mut(&mut self, index: usize) -> Option<&mut T> {
        self.chunks.get_mut(index / CHUNK)?.get_mut(index % CHUNK)
    }
}

impl<T> Index<usize> for Chunks<T> {
    type Output = T;
    fn index(&self, index: usize) -> &T {
        &self.chunks[index / CHUNK][index % CHUNK]
    }
}

impl<T> IndexMut<usize> for Chunks<T> {
    fn index_mut(&mut self, index: usize) -> &mut T {
        &mut self.chunks[index / CHUNK][index % CHUNK]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_stay_where_they_are() {
        let mut chunks = Chunks::default();
        for n in 0..5000usize {
            assert_eq!(chunks.push(n), n);
        }
        let address = &raw const chunks[17];
        for n in 5000..20_000usize {
            chunks.push(n);
        }
        assert_eq!(address, &raw const chunks[17]);
        assert!((0..20_000).all(|n| chunks[n] == n));
        assert_eq!(chunks.get(20_000), None);
    }
}
