//! New calls that wait until this core has done what has begun.
//!
//! During overload a call that begins waits here, and everything else is handled as it is received: each call that is let in is
//! finished soon, little of what has begun is lost for want of room in the kernel, and nobody waits more than once in a call. A core
//! that is slower for a tenth of a second has a longer queue, one that is faster a shorter one, and neither refuses nor idles.
//!
//! The queue is as long as what is let in within the time that calls may wait. When it is full, calls are refused. Calls that may have
//! been dropped by the kernel before, and come again, are served after all others, with what is left over; of those at most as many wait.

use crate::base::{Blob, Flow, Instant, Pool};
use std::collections::VecDeque;

/// The share of the pace's average that one window changes, as a shift.
const AVERAGED: u32 = 3;
/// Parts of a call in which the pace is counted.
const UNIT: u64 = 1 << 12;
/// A call that has waited so long, in milliseconds, is forgotten without an answer, because its caller is about to repeat it: to answer
/// the first copy and serve the second would be worse. That happens only if this process was kept from running, or if most of what
/// there is to do is to refuse.
const FRESH_MS: u64 = 400;
/// The same for one that comes after all others.
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
    /// Those for which there was no room, or no time.
    pub refused: u32,
}

#[derive(Default)]
pub struct AdmissionQueue {
    fresh: VecDeque<Waiting>,
    doubtful: VecDeque<Waiting>,
    /// Calls let in in a millisecond, on average, in parts of a call.
    pace: u32,
    room: u32,
    window: Admitted,
    /// Calls forgotten without an answer.
    forgotten: u64,
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
        self.forget_overdue(now, pool);
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

    /// Moves the message that is next to `bytes`, and returns where it came from: it is let in.
    pub fn pop(&mut self, now: Instant, pool: &mut Pool, bytes: &mut Vec<u8>) -> Option<Flow> {
        self.forget_overdue(now, pool);
        let mut next = self.fresh.pop_front().or_else(|| self.doubtful.pop_front())?;
        bytes.clear();
        bytes.extend_from_slice(pool.get(&next.message));
        pool.release(&mut next.message);
        self.window.let_in += 1;
        Some(next.flow)
    }

    fn forget_overdue(&mut self, now: Instant, pool: &mut Pool) {
        for (queue, most_ms) in [(&mut self.fresh, FRESH_MS), (&mut self.doubtful, DOUBTFUL_MS)] {
            while queue.front().is_some_and(|first| now.ms_since(first.since) > most_ms)
                && let Some(mut overdue) = queue.pop_front()
            {
                pool.release(&mut overdue.message);
                self.window.refused += 1;
                self.forgotten += 1;
            }
        }
    }

    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    pub fn count_let_in(&mut self) {
        self.window.let_in += 1;
    }

    pub fn count_refused(&mut self) {
        self.window.refused += 1;
    }

    /// Ends a window that has lasted for `elapsed_ms`; from now on as many calls may wait as are let in within `waiting_ms`. `was_idle`:
    /// the core could have let in more.
    pub fn turn(&mut self, was_idle: bool, waiting_ms: u64, elapsed_ms: u64) -> Admitted {
        let window = std::mem::take(&mut self.window);
        let pace = (u64::from(window.let_in) * UNIT / elapsed_ms.max(1)).min(UNIT * UNIT) as u32;
        if !was_idle || pace > self.pace {
            self.pace = self.pace - (self.pace >> AVERAGED) + (pace >> AVERAGED);
        }
        self.room = ((u64::from(self.pace) * waiting_ms / UNIT) as u32).max(ROOM_LEAST);
        window
    }
}
