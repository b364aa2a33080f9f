//! Datagrams that the kernel has not taken yet: a queue limited in bytes, in sending order.

use super::sys::Datagram;
use std::net::{IpAddr, SocketAddr};

/// Keeps its allocation when it becomes empty.
pub struct Backlog {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    /// Entries before this one have been sent.
    next: usize,
    limit: usize,
}

struct Entry {
    peer: SocketAddr,
    local: Option<IpAddr>,
    start: usize,
    end: usize,
}

impl Backlog {
    /// `limit`: the most bytes that may wait.
    pub fn new(limit: usize) -> Backlog {
        Backlog { bytes: Vec::new(), entries: Vec::new(), next: 0, limit }
    }

    pub fn is_empty(&self) -> bool {
        self.next == self.entries.len()
    }

    /// Returns the number of bytes that wait.
    pub fn waiting(&self) -> usize {
        match self.entries.get(self.next) {
            Some(first) => self.bytes.len() - first.start,
            None => 0,
        }
    }

    /// Appends one datagram. Returns false if that exceeds the limit: the caller drops and counts it.
    pub fn push(&mut self, datagram: Datagram<'_>) -> bool {
        let Datagram { peer, local, bytes } = datagram;
        if self.waiting() + bytes.len() > self.limit {
            return false;
        }
        // What has been sent is removed only once it is half of what is held: each byte is moved once on average.
        if self.next > self.entries.len() / 2 {
            self.cut();
        }
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        self.entries.push(Entry { peer, local, start, end: self.bytes.len() });
        true
    }

    /// Returns the number of datagrams that wait.
    pub fn len(&self) -> usize {
        self.entries.len() - self.next
    }

    /// Returns a waiting datagram; 0 is the oldest. `number` must be below [`Backlog::len`].
    pub fn get(&self, number: usize) -> Datagram<'_> {
        let entry = &self.entries[self.next + number];
        Datagram { peer: entry.peer, local: entry.local, bytes: &self.bytes[entry.start..entry.end] }
    }

    /// Removes the oldest `count` datagrams, which have been sent.
    pub fn advance(&mut self, count: usize) {
        self.next = (self.next + count).min(self.entries.len());
        if self.is_empty() {
            self.cut();
        }
    }

    fn cut(&mut self) {
        let start = match self.entries.get(self.next) {
            Some(first) => first.start,
            None => self.bytes.len(),
        };
        self.bytes.drain(..start);
        self.entries.drain(..self.next);
        self.next = 0;
        for entry in &mut self.entries {
            entry.start -= start;
            entry.end -= start;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Rng;
    use std::collections::VecDeque;

    #[test]
    fn behaves_like_a_bounded_queue() {
        let mut rng = Rng::new(11);
        let mut backlog = Backlog::new(1000);
        let mut model: VecDeque<(SocketAddr, Option<IpAddr>, Vec<u8>)> = VecDeque::new();
        let (mut refused, mut emptied) = (0, 0);
        for step in 0..20_000u32 {
            if rng.chance(550) {
                let peer = SocketAddr::from(([127, 0, 0, 1], rng.below(65_536) as u16));
                let local = rng.chance(500).then(|| IpAddr::from([127, 0, 0, step as u8]));
                let bytes = vec![step as u8; rng.below(200) as usize];
                let waiting: usize = model.iter().map(|(_, _, bytes)| bytes.len()).sum();
                let fits = waiting + bytes.len() <= 1000;
                let bytes_of = bytes.as_slice();
                assert_eq!(backlog.push(Datagram { peer, local, bytes: bytes_of }), fits);
                if fits {
                    model.push_back((peer, local, bytes));
                } else {
                    refused += 1;
                }
            } else {
                let count = rng.below(4) as usize;
                backlog.advance(count);
                model.drain(..count.min(model.len()));
                emptied += usize::from(model.is_empty());
            }
            assert_eq!(backlog.is_empty(), model.is_empty());
            assert_eq!(backlog.waiting(), model.iter().map(|(_, _, bytes)| bytes.len()).sum::<usize>());
            let held = (0..backlog.len()).map(|number| backlog.get(number));
            assert!(held.eq(model.iter().map(|(peer, local, bytes)| Datagram { peer: *peer, local: *local, bytes })));
        }
        assert!(refused > 100 && emptied > 100, "both ends were reached");
        assert!(backlog.bytes.capacity() < 4096 && backlog.entries.capacity() < 1024);
    }
}
