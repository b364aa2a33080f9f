//! Answers that wait for the disk: kept in order of arrival until the journal round they wait for is written, or until it is clear
//! that it will not be written in time. Their allocation is reused.

use crate::base::{Flow, Instant, counters};
use crate::stack::location::Progress;
use std::collections::VecDeque;

/// The longest an answer waits: shorter than a client waits (64·T1), longer than a disk takes to spin up.
const PATIENCE_MS: u64 = 10_000;

/// The answers that one core holds.
pub struct Held {
    queue: VecDeque<Entry>,
    /// The messages in queue order; those before `start` have been sent.
    bytes: Vec<u8>,
    start: usize,
    limit: usize,
    counters: HeldCounters,
}

struct Entry {
    round: u64,
    flow: Flow,
    len: usize,
    until: Instant,
}

counters! {
    /// One core's counters of held answers.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct HeldCounters {
        /// Held now.
        pub waiting: u64,
        /// Held, and sent once the disk had caught up.
        pub kept: u64,
        /// Turned into a refusal, because the disk did not take what they promise, or not in time.
        pub refused: u64,
        /// Turned into a refusal because too many answers waited.
        pub full: u64,
    }
}

/// The fate of the answer that has waited longest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It is sent unchanged.
    Kept,
    /// A refusal is sent instead.
    Refused,
}

impl Held {
    /// `limit`: the most bytes that may wait; each answer also counts for its bookkeeping.
    pub fn new(limit: usize) -> Held {
        Held { queue: VecDeque::new(), bytes: Vec::new(), start: 0, limit, counters: HeldCounters::default() }
    }

    pub fn counters(&self) -> HeldCounters {
        HeldCounters { waiting: self.queue.len() as u64, ..self.counters }
    }

    /// Holds an answer until a round is on disk. Returns false if too many wait already: then the request is to be refused.
    pub fn put(&mut self, now: Instant, round: u64, flow: Flow, bytes: &[u8]) -> bool {
        let waiting = self.bytes.len() - self.start + self.queue.len() * size_of::<Entry>();
        if waiting + bytes.len() + size_of::<Entry>() > self.limit {
            self.counters.full += 1;
            return false;
        }
        self.bytes.extend_from_slice(bytes);
        self.queue.push_back(Entry { round, flow, len: bytes.len(), until: now.after_ms(PATIENCE_MS) });
        true
    }

    /// Takes the answer that has waited longest, if it is due. `stands`: whether it may be sent as it is, as far as that depends on it alone.
    pub fn take(&mut self, now: Instant, progress: Progress, stands: impl Fn(&[u8]) -> bool) -> Option<(Fate, Flow, &[u8])> {
        let mut fate = self.fate(now, progress)?;
        let Entry { flow, len, .. } = self.queue.pop_front()?;
        self.compact();
        let from = self.start;
        self.start += len;
        let answer = self.bytes.get(from..self.start).unwrap_or(&[]);
        if !stands(answer) {
            fate = Fate::Refused;
        }
        match fate {
            Fate::Kept => self.counters.kept += 1,
            Fate::Refused => self.counters.refused += 1,
        }
        Some((fate, flow, answer))
    }

    /// Returns the fate of the answer that has waited longest; `None` while it still waits.
    fn fate(&self, now: Instant, progress: Progress) -> Option<Fate> {
        let first = self.queue.front()?;
        if first.round <= progress.durable {
            Some(Fate::Kept)
        } else if progress.is_failing || first.until <= now {
            Some(Fate::Refused)
        } else {
            None
        }
    }

    /// True if [`Held::take`] would return an answer.
    pub fn has_due(&self, now: Instant, progress: Progress) -> bool {
        self.fate(now, progress).is_some()
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Returns the deadline of the answer that has waited longest.
    pub fn next_timeout(&self) -> Option<Instant> {
        Some(self.queue.front()?.until)
    }

    /// Moves what waits to the front once more than half of the buffer has been sent: each byte is moved about once.
    fn compact(&mut self) {
        if self.start > self.bytes.len() / 2 {
            self.bytes.copy_within(self.start.., 0);
            self.bytes.truncate(self.bytes.len() - self.start);
            self.start = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_ms(ms)
    }

    fn flow(port: u16) -> Flow {
        Flow::datagram(0, ([127, 0, 0, 1], port).into())
    }

    fn durable(durable: u64) -> Progress {
        Progress { durable, is_failing: false }
    }

    fn take(held: &mut Held, now: u64, progress: Progress) -> Option<(Fate, u16, String)> {
        let due = held.has_due(at(now), progress);
        let taken = held.take(at(now), progress, |_| true).map(|(fate, flow, bytes)| {
            let text = String::from_utf8(bytes.to_vec()).unwrap();
            (fate, flow.peer.port(), text)
        });
        assert_eq!(due, taken.is_some());
        taken
    }

    #[test]
    fn answers_leave_in_order_when_their_round_is_on_disk() {
        let mut held = Held::new(1 << 20);
        for n in 1..=4u16 {
            assert!(held.put(at(0), u64::from(n / 2 + 1), flow(n), format!("m{n}").as_bytes()));
        }
        assert_eq!(take(&mut held, 1, durable(0)), None);
        assert_eq!(take(&mut held, 1, durable(1)), Some((Fate::Kept, 1, "m1".into())));
        assert_eq!(take(&mut held, 1, durable(1)), None);
        for n in 2..=3u16 {
            let text = format!("m{n}");
            assert_eq!(take(&mut held, 1, durable(2)), Some((Fate::Kept, n, text)));
        }
        assert_eq!(take(&mut held, 1, durable(2)), None);
        assert_eq!(take(&mut held, 1, durable(3)), Some((Fate::Kept, 4, "m4".into())));
        assert!(held.is_empty() && held.next_timeout().is_none());
        let counters = held.counters();
        assert_eq!((counters.kept, counters.refused, counters.waiting), (4, 0, 0));
    }

    #[test]
    fn a_disk_that_fails_or_sleeps_refuses_what_it_has_not_got() {
        let mut held = Held::new(1 << 20);
        for round in 1..=3 {
            held.put(at(0), round, flow(1), b"m");
        }
        let failing = Progress { durable: 1, is_failing: true };
        assert_eq!(take(&mut held, 1, failing).unwrap().0, Fate::Kept);
        assert_eq!(take(&mut held, 1, failing).unwrap().0, Fate::Refused);
        assert_eq!(take(&mut held, PATIENCE_MS - 1, durable(1)), None);
        assert_eq!(held.next_timeout(), Some(at(PATIENCE_MS)));
        assert_eq!(take(&mut held, PATIENCE_MS, durable(1)).unwrap().0, Fate::Refused);
        assert_eq!(held.counters().refused, 2);
    }

    #[test]
    fn memory_is_bounded_and_used_again() {
        let mut held = Held::new(100_000);
        let message = [b'm'; 400];
        let mut number = 0u16;
        while held.put(at(0), 1, flow(number), &message) {
            number += 1;
        }
        assert!((150..250).contains(&number), "{number}");
        assert_eq!(held.counters().full, 1);
        // One out, one in, a thousand times.
        let room = held.bytes.capacity();
        for round in 0..number * 5 {
            let (_, from, bytes) = held.take(at(0), durable(1), |_| true).unwrap();
            assert_eq!((from.peer.port(), bytes), (round, &message[..]));
            assert!(held.put(at(0), 1, flow(round + number), &message));
        }
        assert!(held.bytes.capacity() <= 2 * room.max(100_000));
        let capacity = held.bytes.capacity();
        while held.take(at(0), durable(1), |_| true).is_some() {}
        for n in 0..number {
            assert!(held.put(at(0), 1, flow(n), &message));
        }
        assert_eq!(held.bytes.capacity(), capacity);
    }
}
