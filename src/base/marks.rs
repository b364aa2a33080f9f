//! Names that are marked for a while: a fixed-size table shared by all cores, with a time for each.

use super::Instant;
use std::sync::atomic::{AtomicU64, Ordering};

/// Entries of a set.
const WAYS: usize = 4;

/// A mark is renewed only if it is older than this many seconds: most messages write nothing.
const FRESH_S: u64 = 60;

/// The low bits of an entry are a second, counted from 1; the high bits tell its name from others in the set.
const TIME_BITS: u32 = 32;
const TIME: u64 = (1 << TIME_BITS) - 1;

/// See the module documentation. In a full set, the oldest mark is replaced.
#[derive(Debug)]
pub struct Marks {
    entries: Box<[AtomicU64]>,
    /// How long a mark holds, seconds.
    holds_s: u64,
}

impl Marks {
    /// Creates room for four times `sets` names.
    pub fn new(sets: usize, holds_s: u64) -> Marks {
        Marks { entries: (0..sets * WAYS).map(|_| AtomicU64::new(0)).collect(), holds_s }
    }

    fn set(&self, name: u64) -> &[AtomicU64] {
        let first = name as usize % (self.entries.len() / WAYS).max(1) * WAYS;
        self.entries.get(first..first + WAYS).unwrap_or(&[])
    }

    /// True if the mark of `name`, a keyed hash, still holds.
    pub fn holds(&self, now: Instant, name: u64) -> bool {
        let now_s = second(now);
        self.set(name).iter().any(|entry| {
            let value = entry.load(Ordering::Relaxed);
            value & !TIME == tag(name) && (value & TIME) + self.holds_s > now_s && value & TIME != 0
        })
    }

    /// Marks `name`. Returns false if that was done a moment ago. If two cores write at the same time, one mark may be lost: it
    /// will be repeated.
    pub fn mark(&self, now: Instant, name: u64) -> bool {
        let now_s = second(now);
        let mut oldest: Option<(&AtomicU64, u64)> = None;
        for entry in self.set(name) {
            let value = entry.load(Ordering::Relaxed);
            let (is_ours, at) = (value & !TIME == tag(name), value & TIME);
            if is_ours && at != 0 && at + FRESH_S > now_s {
                return false;
            }
            if is_ours {
                oldest = Some((entry, at));
                break;
            }
            if oldest.is_none_or(|(_, before)| at < before) {
                oldest = Some((entry, at));
            }
        }
        if let Some((entry, _)) = oldest {
            entry.store(tag(name) | now_s, Ordering::Relaxed);
        }
        true
    }

    /// Removes the mark of `name`.
    pub fn forget(&self, name: u64) {
        for entry in self.set(name) {
            let value = entry.load(Ordering::Relaxed);
            if value & !TIME == tag(name) {
                let _ = entry.compare_exchange(value, 0, Ordering::Relaxed, Ordering::Relaxed);
            }
        }
    }
}

fn tag(name: u64) -> u64 {
    name & !TIME
}

/// Never 0: an entry with that time is unused.
fn second(now: Instant) -> u64 {
    (now.as_ms() / 1000 + 1) & TIME
}
