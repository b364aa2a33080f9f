//! New calls that wait until this core has done what has begun.
//!
//! During overload a call that begins waits here, and everything else is handled as it is received: each call that is let in is
//! finished soon, little of what has begun is lost for want of room in the kernel, and nobody waits more than once in a call. A core
//! that is slower for a tenth of a second has a longer queue, one that is faster a shorter one, and neither refuses nor idles.
//!
//! The queue is as long as what is let in within the time that calls may wait. When it is full, calls are refused. Calls that may have
//! been dropped by the kernel before, and come again, are served after all others: with what is left over.

use crate::base::{Blob, Flow, Instant, Pool};
use std::collections::VecDeque;

/// The share of the pace's average that one window changes, as a shift.
const AVERAGED: u32 = 3;
/// Parts of a call in which the pace is counted.
const UNIT: u32 = 1 << 8;
/// How long a call waits at most, in milliseconds: until its caller is about to repeat it, which happens only if this process was kept
/// from running, or most of what there is to do is to refuse; and one that comes after all others, while these leave time for it.
const FRESH_MS: u64 = 400;
const DOUBTFUL_MS: u64 = 100;
/// Calls that may wait however slow the core is.
const ROOM_LEAST: u32 = 16;

struct Waiting {
    flow: Flow,
    since: Instant,
    message: Blob,
}

/// What became of new calls since the last look.
#[derive(Clone, Copy, Default, Debug)]
pub struct Admitted {
    pub arrived: u32,
    /// Those that were let in.
    pub let_in: u32,
    /// Those that were refused because too many waited.
    pub refused: u32,
}

#[derive(Default)]
pub struct AdmissionQueue {
    fresh: VecDeque<Waiting>,
    doubtful: VecDeque<Waiting>,
    /// Calls let in in a window, on average, in parts of a call.
    pace: u32,
    room: u32,
    window: Admitted,
}

impl AdmissionQueue {
    pub fn is_empty(&self) -> bool {
        self.fresh.is_empty() && self.doubtful.is_empty()
    }

    pub fn len(&self) -> usize {
        self.fresh.len() + self.doubtful.len()
    }

    /// Takes a message in; false if there is no room for it. `is_doubtful`: it may be a repetition.
    pub fn push(&mut self, now: Instant, flow: Flow, bytes: &[u8], is_doubtful: bool, pool: &mut Pool) -> bool {
        self.window.arrived += 1;
        let before = self.fresh.len() + if is_doubtful { self.doubtful.len() } else { 0 };
        if before >= self.room as usize {
            return false;
        }
        let Some(message) = pool.store(bytes) else {
            return false;
        };
        let queue = match is_doubtful {
            true => &mut self.doubtful,
            false => &mut self.fresh,
        };
        queue.push_back(Waiting { flow, since: now, message });
        true
    }

    /// Moves the message that is next to `bytes`; returns where it came from, and whether there is still time for it.
    pub fn pop(&mut self, now: Instant, pool: &mut Pool, bytes: &mut Vec<u8>) -> Option<(Flow, bool)> {
        let (mut next, most_ms) = match self.fresh.pop_front() {
            Some(next) => (next, FRESH_MS),
            None => (self.doubtful.pop_front()?, DOUBTFUL_MS),
        };
        bytes.clear();
        bytes.extend_from_slice(pool.get(&next.message));
        pool.release(&mut next.message);
        Some((next.flow, now.ms_since(next.since) <= most_ms))
    }

    pub fn count_let_in(&mut self) {
        self.window.let_in += 1;
    }

    pub fn count_refused(&mut self) {
        self.window.refused += 1;
    }

    /// Ends a window of `window_ms`, after which as many calls may wait as are let in within `waiting_ms`. `was_idle`: the core could
    /// have let in more.
    pub fn turn(&mut self, was_idle: bool, waiting_ms: u64, window_ms: u64) -> Admitted {
        let window = std::mem::take(&mut self.window);
        let let_in = window.let_in * UNIT;
        if !was_idle || let_in > self.pace {
            self.pace = self.pace - (self.pace >> AVERAGED) + (let_in >> AVERAGED);
        }
        self.room = ((u64::from(self.pace / UNIT) * waiting_ms / window_ms) as u32).max(ROOM_LEAST);
        window
    }
}
