//! The rounds of the journal: which shards have changed, and how far the disk is ([`super::journal`]).

use super::record::Record;
use crate::settings::Durability;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Enough that two cores rarely collide, and that neither growing nor sweeping one shard causes a pause.
pub const SHARDS: usize = 4096;

/// How far the disk is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    /// All rounds up to this one are on disk.
    pub durable: u64,
    /// Writing to disk is failing at present.
    pub is_failing: bool,
}

#[derive(Default)]
pub(super) struct Rounds {
    /// `None`: there is no disk, and nothing is noted.
    pub(super) durability: Option<Durability>,
    /// The round begun last.
    pub(super) started: AtomicU64,
    pub(super) durable: AtomicU64,
    pub(super) is_failing: AtomicBool,
    /// One bit for each shard with a non-empty list, unless the round in progress is to take it.
    pub(super) marks: Marks,
}

pub(super) struct Marks(pub(super) [AtomicU64; SHARDS / 64]);

impl Default for Marks {
    fn default() -> Marks {
        Marks([const { AtomicU64::new(0) }; SHARDS / 64])
    }
}

/// A round in progress, and the shards still to be taken.
pub struct Round {
    pub number: u64,
    pub(super) marks: [u64; SHARDS / 64],
}

impl Round {
    /// Returns the next shard to be taken.
    pub fn next_shard(&mut self) -> Option<usize> {
        let place = self.marks.iter().position(|marks| *marks != 0)?;
        let bit = self.marks[place].trailing_zeros() as usize;
        self.marks[place] &= self.marks[place] - 1;
        Some(place * 64 + bit)
    }
}

impl Rounds {
    /// Puts a changed record on its shard's list.
    pub(super) fn note(&self, shard: usize, name: u64, record: &mut Record, changed: &mut Vec<u64>) {
        let is_changed = std::mem::take(&mut record.is_changed);
        let counts = is_changed && !record.is_listed && record.concerns_disk();
        if !counts || self.durability.is_none() {
            return;
        }
        record.is_listed = true;
        changed.push(name);
        // If the list was not empty before, the mark is set or a round is about to take the shard.
        if changed.len() == 1 {
            self.marks.0[shard / 64].fetch_or(1 << (shard % 64), Ordering::SeqCst);
        }
    }

    /// Returns the round after which the record's present content is on disk; 0 if nothing waits for that.
    pub(super) fn round_of(&self, record: &Record) -> u64 {
        if self.durability != Some(Durability::Acknowledged) {
            return 0;
        }
        // What was taken already was taken in the round begun last, or before.
        self.started.load(Ordering::SeqCst) + u64::from(record.is_listed)
    }
}
