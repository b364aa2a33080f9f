//! The rounds in which changes are taken: which shards have changed, and how far the taker is. There are two, each with rounds of
//! its own: the journal ([`super::journal`]), and what tells the store that several servers share ([`super::telling`]).

use super::record::{Lists, Record};
use crate::settings::Durability;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Enough that two cores rarely collide, and that neither growing nor sweeping one shard causes a pause.
pub const SHARDS: usize = 4096;

/// How far the disk is, or the store that several servers share.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    /// All rounds up to this one are on disk.
    pub durable: u64,
    /// Writing to disk is failing at present.
    pub is_failing: bool,
}

#[derive(Default)]
pub(super) struct Rounds {
    /// `None`: there is no taker, and nothing is noted.
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
    /// Puts a changed record on its shard's list for the journal.
    pub(super) fn note(&self, shard: usize, name: u64, record: &mut Record, changed: &mut Vec<u64>) {
        let is_changed = std::mem::take(&mut record.is_changed);
        let counts = is_changed && !record.lists.have(Lists::DISK) && record.concerns_disk();
        if !counts || self.durability.is_none() {
            return;
        }
        self.list(shard, name, changed);
        record.lists.put(Lists::DISK);
    }

    /// Adds a record to its shard's list, on which it is not yet.
    pub(super) fn list(&self, shard: usize, name: u64, list: &mut Vec<u64>) {
        list.push(name);
        // If the list was not empty before, the mark is set or a round is about to take the shard.
        if list.len() == 1 {
            self.marks.0[shard / 64].fetch_or(1 << (shard % 64), Ordering::SeqCst);
        }
    }

    /// Returns the round after which the present content of a record is taken care of; 0 if nothing waits for that.
    pub(super) fn round_of(&self, is_listed: bool) -> u64 {
        if self.durability != Some(Durability::Acknowledged) {
            return 0;
        }
        // What was taken already was taken in the round begun last, or before.
        self.started.load(Ordering::SeqCst) + u64::from(is_listed)
    }

    pub(super) fn progress(&self) -> Progress {
        Progress {
            // In one total order with a worker's announcement that it is about to sleep.
            durable: self.durable.load(Ordering::SeqCst),
            is_failing: self.is_failing.load(Ordering::SeqCst),
        }
    }

    pub(super) fn refuses_changes(&self) -> bool {
        self.durability == Some(Durability::Acknowledged) && self.is_failing.load(Ordering::Relaxed)
    }

    pub(super) fn has_changes(&self) -> bool {
        let marked = |marks: &AtomicU64| marks.load(Ordering::SeqCst) != 0;
        self.marks.0.iter().any(marked)
    }

    /// Returns the round after which everything changed until now is taken care of.
    pub(super) fn last(&self) -> u64 {
        let started = || self.started.load(Ordering::SeqCst);
        // What is marked now is taken by the next round, which may begin before we look again.
        let before = started();
        match self.has_changes() {
            true => before + 1,
            false => started(),
        }
    }

    /// Begins a round of the shards in which something has changed, or of all of them if `all` is true.
    pub(super) fn begin(&self, all: bool) -> Round {
        let number = self.started.fetch_add(1, Ordering::SeqCst) + 1;
        let mut marks = [0; SHARDS / 64];
        for (own, shared) in marks.iter_mut().zip(&self.marks.0) {
            *own = shared.swap(0, Ordering::SeqCst);
            if all {
                *own = u64::MAX;
            }
        }
        Round { number, marks }
    }

    /// Notes that what this and earlier rounds took is taken care of.
    pub(super) fn finish(&self, number: u64) {
        self.reach(number);
        self.set_failing(false);
    }

    /// The same, but whether something is failing is another question.
    pub(super) fn reach(&self, number: u64) {
        self.durable.fetch_max(number, Ordering::SeqCst);
    }

    pub(super) fn set_failing(&self, is_failing: bool) {
        self.is_failing.store(is_failing, Ordering::SeqCst);
    }
}
