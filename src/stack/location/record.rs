//! The bindings of one address-of-record, and which REGISTERs changed them last.

use super::binding::Binding;
use super::{CHANGE_MS, Row};
use crate::base::Instant;

/// The bindings of one address-of-record.
#[derive(Default)]
pub struct Record {
    pub(super) address: Box<[u8]>,
    pub bindings: Vec<Binding>,
    /// The change made last: a REGISTER that comes again must not be carried out again.
    latest: Change,
    /// Those before it that may still come again. Nearly always there is none.
    earlier: Option<Box<Earlier>>,
    /// Rows on disk that speak of it, once all is written that was taken.
    pub(super) rows: u32,
    /// Something has changed that the disk should know.
    pub(super) is_changed: bool,
    /// It stands on its shard's list of what has changed.
    pub(super) is_listed: bool,
}

/// A REGISTER that was carried out, by the key of its transaction.
#[derive(Clone, Copy, Default)]
struct Change {
    transaction: u64,
    until: Instant,
}

/// Changes in a ring.
#[derive(Default)]
struct Earlier {
    changes: Vec<Change>,
    oldest: u8,
}

/// Changes of one address-of-record that are remembered at most. Phones refresh minutes apart; this is for the moment after a
/// power cut.
const CHANGES: usize = 16;

impl Record {
    /// True when this very transaction has changed the record already.
    pub fn is_repeated(&self, now: Instant, transaction: u64) -> bool {
        let earlier = self.earlier.iter().flat_map(|earlier| &earlier.changes);
        std::iter::once(&self.latest)
            .chain(earlier)
            .any(|change| change.transaction == transaction && change.until > now)
    }

    /// A REGISTER has changed the bindings.
    pub fn note_change(&mut self, now: Instant, transaction: u64) {
        self.is_changed = true;
        let change = std::mem::replace(
            &mut self.latest,
            Change {
                transaction,
                until: now.after_ms(CHANGE_MS),
            },
        );
        if change.until <= now {
            return;
        }
        let Earlier { changes, oldest } = &mut **self.earlier.get_or_insert_default();
        let full = changes.len() >= CHANGES;
        match changes.get_mut(usize::from(*oldest)) {
            Some(place) if full || place.until <= now => {
                *place = change;
                *oldest = (*oldest + 1) % changes.len() as u8;
            }
            _ => changes.push(change),
        }
    }

    /// Adds a binding. Nearly always it is the only one: no room is made for others.
    pub fn add(&mut self, binding: Binding) {
        self.bindings.reserve_exact(1);
        self.bindings.push(binding);
    }

    /// What it counts for under `[limits] bindings`; 0 when there is nothing left to remember.
    pub(super) fn weight(&self) -> usize {
        self.bindings
            .len()
            .max(usize::from(self.latest.until > Instant::default()))
    }

    /// Forgets what has expired.
    pub(super) fn sweep(&mut self, now: Instant) {
        let before = self.bindings.len();
        self.bindings.retain(|binding| binding.expires > now);
        self.is_changed |= self.bindings.len() != before;
        // Nothing was changed after the latest.
        if self.latest.until <= now {
            self.latest = Change::default();
            self.earlier = None;
        }
    }

    /// The disk has rows that are not what they should be, or will be when this is written.
    pub(super) fn concerns_disk(&self) -> bool {
        self.rows > 0 || !self.bindings.is_empty()
    }

    pub(super) fn restore(&mut self, rows: &[Row]) {
        self.bindings.reserve_exact(rows.len());
        for row in rows {
            let mut binding = Binding::new(row.text, row.source.as_ref());
            binding.expires = row.expires;
            binding.reg_id = row.reg_id;
            binding.cseq = row.cseq;
            binding.q = row.q;
            binding.removed = row.removed;
            binding.reached = row.reached;
            self.bindings.push(binding);
        }
    }
}
