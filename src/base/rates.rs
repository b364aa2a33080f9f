//! How often each of many names may do something: a fixed-size table shared by all cores that costs one or two atomic operations
//! each time.

use super::Instant;
use std::sync::atomic::{AtomicU64, Ordering};

/// Four times as many names can be tracked at a time. If more are busy, some share an allowance.
const SETS: usize = 1 << 14;
/// Entries of a set; two sets share a cache line.
const WAYS: usize = 4;

/// The burst: each name may use a second's allowance at once.
const BURST_US: u64 = 1_000_000;

/// The low bits of an entry are a time; the high bits tell its name from others in the set.
const TIME_BITS: u32 = 48;
const TIME: u64 = (1 << TIME_BITS) - 1;

/// Each entry is the time, in microseconds, at which everything done so far would have been done at the permitted rate (the generic
/// cell rate algorithm): more is permitted while that time is less than a second ahead.
///
/// A name that finds its set full continues from the entry of the name that has done least: crowding a set gains nothing, and a
/// name never gets less than if the whole set were one entry.
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
    /// Returns how many names can be tracked separately at a time.
    #[cfg(test)]
    pub(crate) const NAMES: usize = SETS * WAYS;

    /// Counts one more event for `name`, a keyed hash, with `limit` a second permitted. Returns false if it is one too many.
    pub fn admit(&self, now: Instant, name: u64, limit: u32) -> bool {
        let cost = (BURST_US / u64::from(limit.max(1))).max(1);
        let now = (now.as_ms() * 1000) & TIME;
        // Never 0: an unused entry must not match any name.
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

/// Returns the entry of the name with this tag: its own, otherwise one that has been quiet long enough to be forgotten, otherwise
/// the one that will be forgotten first.
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
