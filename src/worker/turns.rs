//! Long turns of a loop: everything else on its core waits meanwhile, so each is counted, and one a second is logged with what it
//! handled and whether the thread was running at all.

use super::clock::Reading;
use crate::base::LogBudget;
use crate::net::sys;
use std::net::SocketAddr;

/// A turn is long if it takes more than this. Phones retransmit after 500 ms (T1); a fifth of that is far more than any work the
/// server does in one turn by design, and longer than the pauses of an ordinarily busy machine.
pub const LONG_NS: u64 = 100_000_000;

/// How often the thread's CPU time is read while turns are short, so that a long one has a baseline.
const LOOK_NS: u64 = 250_000_000;

/// Bytes kept of the beginning of a message for the log: the method or the status.
const BEGINNING: usize = 16;

/// The number of long turns, by what the thread did most of the time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LongTurns {
    /// The thread was running.
    pub working: u64,
    /// The thread was not running: the process was stopped, others had the CPU, or it waited for the disk.
    pub halted: u64,
}

/// What one turn has handled, and how much CPU time the turns before it took.
#[derive(Debug)]
pub struct Turns {
    worker: usize,
    messages: u64,
    bytes: u64,
    largest: Option<Largest>,
    /// When the CPU time was last read, its value, and the time spent in turns since.
    looked: Reading,
    cpu_ns: u64,
    turns_ns: u64,
    counters: LongTurns,
    log: LogBudget,
}

#[derive(Clone, Copy, Debug)]
struct Largest {
    size: usize,
    peer: SocketAddr,
    beginning: [u8; BEGINNING],
}

impl Turns {
    pub fn new(worker: usize) -> Turns {
        Turns {
            worker,
            messages: 0,
            bytes: 0,
            largest: None,
            looked: Reading::default(),
            cpu_ns: 0,
            turns_ns: 0,
            counters: LongTurns::default(),
            log: LogBudget::of_limit("turns of the loop that took long"),
        }
    }

    pub fn counters(&self) -> LongTurns {
        self.counters
    }

    /// Notes a message that is about to be handled.
    pub fn note(&mut self, peer: SocketAddr, bytes: &[u8]) {
        self.messages += 1;
        self.bytes += bytes.len() as u64;
        if self.largest.is_none_or(|largest| bytes.len() > largest.size) {
            self.largest = Some(Largest { size: bytes.len(), peer, beginning: bytes.first_chunk().copied().unwrap_or_default() });
        }
    }

    /// Ends the turn that began at `start`. To be called by the worker's own thread.
    pub fn end(&mut self, start: Reading, now: Reading) {
        let took_ns = now.ns.saturating_sub(start.ns);
        if took_ns > LONG_NS {
            self.tell(took_ns);
        }
        self.turns_ns += took_ns;
        if now.ns.saturating_sub(self.looked.ns) >= LOOK_NS {
            self.looked = now;
            self.cpu_ns = sys::thread_cpu_ns();
            self.turns_ns = 0;
        }
        self.log.renew(now.instant());
        self.messages = 0;
        self.bytes = 0;
        self.largest = None;
    }

    #[cold]
    fn tell(&mut self, took_ns: u64) {
        let cpu_ns = sys::thread_cpu_ns().saturating_sub(self.cpu_ns);
        // In the turns before, the thread was running for all or nearly all of their duration.
        let ran_ns = cpu_ns.saturating_sub(self.turns_ns).min(took_ns);
        let has_run = ran_ns >= took_ns / 2;
        match has_run {
            true => self.counters.working += 1,
            false => self.counters.halted += 1,
        }
        if !self.log.may_say() {
            return;
        }
        let largest = match &self.largest {
            Some(largest) => format!(", the largest {} of {} bytes from {}", largest.kind(), largest.size, largest.peer),
            None => String::new(),
        };
        let cause = match has_run {
            true => "",
            false => ": the process was stopped, others had the CPU, or it waited for the disk",
        };
        log::warn!(
            "worker {}: one turn of its loop took {} ms, and all else on its core waited; the thread ran for about {} ms of it{cause}; \
             it handled {} messages of {} bytes{largest}",
            self.worker,
            took_ns / 1_000_000,
            ran_ns / 1_000_000,
            self.messages,
            self.bytes
        );
    }
}

impl Largest {
    /// Returns the method of a request or the status of a response, as far as it was kept.
    fn kind(&self) -> String {
        let mut words = self.beginning.split(|byte| *byte == b' ');
        let kind = match (words.next(), words.next()) {
            (Some(b"SIP/2.0"), Some(status)) => status,
            (Some(method), _) => method,
            (None, _) => b"",
        };
        String::from_utf8_lossy(kind).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at_ms(ms: u64) -> Reading {
        Reading { ns: ms * 1_000_000 }
    }

    #[test]
    fn the_largest_message_is_named_by_its_first_words() {
        let peer = "192.0.2.1:5060".parse().unwrap();
        for (message, kind) in [
            (&b"INVITE sip:a@b SIP/2.0\r\n"[..], "INVITE"),
            (b"SIP/2.0 486 Busy Here\r\n", "486"),
            (b"ABCDEFGHIJKLMNOPQRSTUVW sip:a SIP/2.0", "ABCDEFGHIJKLMNOP"),
        ] {
            let mut turns = Turns::new(0);
            for message in [b"OPTIONS sip:a SIP/2.0", message, b"short", b""] {
                turns.note(peer, message);
            }
            let largest = turns.largest.unwrap();
            assert_eq!((turns.messages, largest.size), (4, message.len()));
            assert_eq!(largest.kind(), kind);
            turns.end(at_ms(1), at_ms(2));
            assert!(turns.messages == 0 && turns.largest.is_none());
        }
    }

    #[test]
    fn a_long_turn_counts_by_whether_the_thread_ran() {
        let mut turns = Turns::new(0);
        // The thread's CPU time is read here.
        turns.end(at_ms(1000), at_ms(1001));
        turns.end(at_ms(1001), at_ms(1101));
        assert_eq!(turns.counters(), LongTurns::default());
        // The thread is not running.
        turns.end(at_ms(1101), at_ms(1202));
        let halted = |halted, working| LongTurns { halted, working };
        assert_eq!(turns.counters(), halted(1, 0));
        turns.end(at_ms(2000), at_ms(2001));
        let begin = sys::thread_cpu_ns();
        while sys::thread_cpu_ns() - begin < 110_000_000 {}
        turns.end(at_ms(2001), at_ms(2111));
        assert_eq!(turns.counters(), halted(1, 1));
        // What it ran in earlier short turns does not count for this one.
        turns.end(at_ms(3000), at_ms(3001));
        let begin = sys::thread_cpu_ns();
        while sys::thread_cpu_ns() - begin < 90_000_000 {}
        turns.end(at_ms(3001), at_ms(3091));
        turns.end(at_ms(3091), at_ms(3192));
        assert_eq!(turns.counters(), halted(2, 1));
    }
}
