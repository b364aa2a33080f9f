//! How often each of many names may do something: a table of a fixed size that all cores share, and that costs one or two atomic
//! operations for each time.

use super::Instant;
use std::sync::atomic::{AtomicU64, Ordering};

/// Names that can be told apart at a time are four times as many. Where more are busy, some share what one may do.
const SETS: usize = 1 << 14;
/// Entries of a set: one cache line has two sets.
const WAYS: usize = 4;

/// Each may do at once what a second allows.
const BURST_US: u64 = 1_000_000;

/// The low bits of an entry are a time, the high ones tell its name from others of the set.
const TIME_BITS: u32 = 48;
const TIME: u64 = (1 << TIME_BITS) - 1;

/// Each entry is the time, microseconds, at which what was done so far would have been done at the rate that is allowed (the generic
/// cell rate algorithm): more is allowed while that time is less than a second ahead.
///
/// A name that finds all entries of its set taken goes on where the one that has done least has stopped: nobody gets more by crowding a
/// set, and nobody less than he would if all of the set were one.
#[derive(Debug)]
pub struct Rates {
    entries: Box<[AtomicU64]>,
}

impl Default for Rates {
    fn default() -> Rates {
        Rates { entries: (0..SETS * WAYS).map(|_| AtomicU64::new(0)).collect() }
    }
}

impl Rates {
    /// How many names are counted apart at a time.
    #[cfg(test)]
    pub(crate) const NAMES: usize = SETS * WAYS;

    /// Counts one more for `name`, a keyed hash, of which there may be `limit` in a second. False: it is one too many.
    pub fn admit(&self, now: Instant, name: u64, limit: u32) -> bool {
        let cost = (BURST_US / u64::from(limit.max(1))).max(1);
        let now = (now.as_ms() * 1000) & TIME;
        // Never 0: an entry that nobody has used belongs to nobody.
        let tag = (name >> TIME_BITS).max(1) << TIME_BITS;
        let first = name as usize % SETS * WAYS;
        let Some(set) = self.entries.get(first..first + WAYS) else {
            return true;
        };
        let entry = place(set, tag, now);
        let mut admitted = false;
        let _ = entry.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |before| {
            let spent = (before & TIME).max(now);
            admitted = spent + cost <= now + BURST_US;
            admitted.then_some(tag | ((spent + cost) & TIME))
        });
        admitted
    }
}

/// The entry of the name with this tag: its own, else one that has been quiet for as long as it takes to be forgotten, else the one
/// that will be so first.
fn place(set: &[AtomicU64], tag: u64, now: u64) -> &AtomicU64 {
    let mut oldest = &set[0];
    let mut oldest_time = u64::MAX;
    for entry in set {
        let value = entry.load(Ordering::Relaxed);
        if value & !TIME == tag {
            return entry;
        }
        let time = (value & TIME).max(now);
        if time < oldest_time {
            (oldest, oldest_time) = (entry, time);
        }
    }
    oldest
}
