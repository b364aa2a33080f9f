//! The bindings of one address-of-record, and which REGISTERs last changed them.

use super::binding::{Binding, weight_of_address};
use super::row::Row;
use crate::base::pack::{Pack, Unpack};
use crate::base::{Instant, ShareHolder};

/// How long a removed binding is remembered: the maximum lifetime of a datagram or a retransmission (64·T1).
pub const REMOVED_MS: u64 = 32_000;

/// How long a completed REGISTER is remembered: the same.
const CHANGE_MS: u64 = REMOVED_MS;

/// The bindings of one address-of-record.
#[derive(Default)]
pub struct Record {
    pub(super) address: Box<[u8]>,
    pub bindings: Vec<Binding>,
    /// Whose share they take: that of the last registration's source.
    pub holder: ShareHolder,
    /// The last change: its REGISTER must not be carried out again when it is repeated.
    latest: Change,
    /// Earlier ones that may still be repeated. There is almost never one.
    earlier: Option<Box<Earlier>>,
    /// Its rows on disk, once everything that was taken is written.
    pub(super) rows: u32,
    /// Something has changed that the disk should know.
    pub(super) is_changed: bool,
    /// On which of its shard's lists it is.
    pub(super) lists: Lists,
}

/// A set of a shard's lists.
#[derive(Clone, Copy, Default)]
pub(super) struct Lists(u8);

impl Lists {
    /// What the journal is to take.
    pub const DISK: u8 = 1;
    /// What the store is to be told, if several servers share the table.
    pub const NEWS: u8 = 2;

    pub fn have(self, list: u8) -> bool {
        self.0 & list != 0
    }

    pub fn put(&mut self, list: u8) {
        self.0 |= list;
    }

    pub fn take_off(&mut self, list: u8) {
        self.0 &= !list;
    }
}

/// What a record counts for.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counted {
    pub bindings: usize,
    /// In the units of [`Binding::weight`], the address included.
    pub weight: usize,
    /// The part of it that its holder's share is charged with: all but what other nodes have answered for.
    pub charged: usize,
    pub holder: ShareHolder,
}

/// A completed REGISTER.
#[derive(Clone, Copy, Default)]
struct Change {
    what: Print,
    /// The low half of its milliseconds, which is enough for a sweep once a minute; 0 for none.
    until_ms: u32,
}

impl Change {
    fn new(what: Print, until: Instant) -> Change {
        Change { what, until_ms: (until.as_ms() as u32).max(1) }
    }

    fn is_over(&self, now: Instant) -> bool {
        let left = self.until_ms.wrapping_sub(now.as_ms() as u32) as i32;
        self.until_ms == 0 || left <= 0
    }
}

/// A fingerprint of a REGISTER under the server's key.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Print {
    /// Its Call-ID and CSeq: what the phone increments from one REGISTER to the next.
    pub order: u32,
    /// What it asks for: contacts, Expires, Path.
    pub contents: u32,
    /// The key of its transaction (§17.2.3).
    pub transaction: u32,
}

/// What a record remembers of a REGISTER.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Recalled {
    /// Nothing.
    New,
    /// It was carried out.
    Repeated,
    /// One with its Call-ID and CSeq was carried out and asked for something else.
    Other,
}

/// Changes in a ring.
#[derive(Default)]
struct Earlier {
    changes: Vec<Change>,
    oldest: u8,
}

/// Maximum number of changes remembered per address-of-record. Phones refresh minutes apart; this is for the moment after a power
/// cut.
const CHANGES: usize = 16;

impl Record {
    pub(super) fn counted(&self) -> Counted {
        let (mut weight, mut elsewhere) = (0, 0);
        for binding in &self.bindings {
            weight += binding.weight();
            if binding.is_elsewhere() {
                elsewhere += binding.weight();
            }
        }
        let bindings = self.count();
        let weight = weight.max(bindings);
        let charged = self.with_address(weight.saturating_sub(elsewhere));
        Counted { bindings, weight: self.with_address(weight), charged, holder: self.holder }
    }

    /// Adds what the address weighs to the weight of what is kept of it, if anything is.
    fn with_address(&self, weight: usize) -> usize {
        weight + if weight > 0 { weight_of_address(self.address.len()) } else { 0 }
    }

    /// Returns whether this REGISTER has already changed the record.
    pub fn recall(&self, now: Instant, register: Print) -> Recalled {
        let earlier = self.earlier.iter().flat_map(|earlier| &earlier.changes);
        let mut memory = Recalled::New;
        for change in std::iter::once(&self.latest).chain(earlier) {
            if change.is_over(now) || change.what.order != register.order {
                continue;
            }
            if change.what == register {
                return Recalled::Repeated;
            }
            // In a transaction of its own, by another path or after a while: the bindings decide.
            if change.what.contents != register.contents {
                memory = Recalled::Other;
            }
        }
        memory
    }

    /// Notes that a REGISTER has changed the bindings.
    pub fn note_change(&mut self, now: Instant, register: Print) {
        self.is_changed = true;
        let latest = Change::new(register, now.after_ms(CHANGE_MS));
        let change = std::mem::replace(&mut self.latest, latest);
        if change.is_over(now) {
            return;
        }
        let Earlier { changes, oldest } = &mut **self.earlier.get_or_insert_default();
        let full = changes.len() >= CHANGES;
        match changes.get_mut(usize::from(*oldest)) {
            Some(place) if full || place.is_over(now) => {
                *place = change;
                *oldest = (*oldest + 1) % changes.len() as u8;
            }
            _ => changes.push(change),
        }
    }

    /// Writes the changes that are remembered, for the process that takes over.
    pub(super) fn hand_over_changes(&self, out: &mut Vec<u8>) {
        let earlier = self.earlier.as_deref();
        let (changes, oldest) = earlier.map_or((&[][..], 0), |earlier| (&earlier.changes[..], earlier.oldest));
        out.put_u8(oldest);
        out.put_u8(changes.len() as u8);
        for change in std::iter::once(&self.latest).chain(changes) {
            for number in [change.what.order, change.what.contents, change.what.transaction, change.until_ms] {
                out.put_u32(number);
            }
        }
    }

    /// Reads what that has written. `None`: it was something else.
    pub(super) fn take_over_changes(&mut self, from: &mut Unpack) -> Option<()> {
        let (oldest, count) = (from.u8()?, usize::from(from.u8()?));
        let mut read = || {
            let what = Print { order: from.u32()?, contents: from.u32()?, transaction: from.u32()? };
            Some(Change { what, until_ms: from.u32()? })
        };
        self.latest = read()?;
        let changes = (0..count).map(|_| read()).collect::<Option<Vec<Change>>>()?;
        if count > CHANGES || usize::from(oldest) > count {
            return None;
        }
        self.earlier = (count > 0).then(|| Box::new(Earlier { changes, oldest }));
        Some(())
    }

    /// Adds a binding. It is almost always the only one, so no capacity is kept for others.
    pub fn add(&mut self, binding: Binding) {
        self.bindings.reserve_exact(1);
        self.bindings.push(binding);
    }

    /// Returns the number of bindings; 1 if only a change is remembered, 0 if there is nothing left to remember.
    pub(super) fn count(&self) -> usize {
        self.bindings.len().max(usize::from(self.latest.until_ms > 0))
    }

    /// Returns its weight under `[limits] bindings`; 0 if there is nothing left to remember.
    pub(super) fn weight(&self) -> usize {
        let bindings = self.bindings.iter().map(Binding::weight).sum::<usize>();
        self.with_address(bindings.max(self.count()))
    }

    /// Removes what has expired.
    pub(super) fn sweep(&mut self, now: Instant) {
        let before = self.bindings.len();
        self.bindings.retain(|binding| binding.is_kept(now));
        self.is_changed |= self.bindings.len() != before;
        if self.bindings.len() < self.bindings.capacity() / 2 {
            self.bindings.shrink_to_fit();
        }
        // Nothing was changed after the latest change.
        if self.latest.is_over(now) {
            self.latest = Change::default();
            self.earlier = None;
        }
    }

    /// Returns whether the rows on disk are not as they should be, or will not be once this is written.
    pub(super) fn concerns_disk(&self) -> bool {
        self.rows > 0 || self.bindings.iter().any(|binding| !binding.is_elsewhere())
    }

    /// Restores the bindings; `place` returns the number of a row's URI.
    pub(super) fn restore(&mut self, rows: &[Row], place: impl Fn(&Row) -> u32) {
        self.bindings.reserve_exact(rows.len());
        for row in rows {
            let mut binding = Binding::new(row.text, row.source.as_ref());
            binding.expires = row.expires;
            binding.reg_id = row.reg_id;
            binding.cseq = row.cseq;
            binding.q = row.q;
            binding.removed = row.removed;
            binding.reached = row.reached;
            binding.place = place(row);
            self.bindings.push(binding);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_remembered_for_as_long_as_it_is_said_and_not_a_moment_longer() {
        let print = |order| Print { order, contents: 1, transaction: 1 };
        // From the first moment on, and when the low half of the milliseconds wraps.
        for start in [0, 1, 5_000, u64::from(u32::MAX) - 100, 1 << 32, 3 << 40] {
            let at = |ms| Instant::from_ms(start + ms);
            let mut record = Record::default();
            assert_eq!(record.recall(at(0), print(1)), Recalled::New);
            record.note_change(at(0), print(1));
            record.note_change(at(10), print(2));
            assert_eq!(record.count(), 1);
            let recalled = |ms| (record.recall(at(ms), print(1)), record.recall(at(ms), print(2)));
            assert_eq!(recalled(CHANGE_MS - 1), (Recalled::Repeated, Recalled::Repeated));
            assert_eq!(recalled(CHANGE_MS + 1), (Recalled::New, Recalled::Repeated));
            assert_eq!(recalled(CHANGE_MS + 10), (Recalled::New, Recalled::New));
            let other = Print { contents: 2, ..print(2) };
            assert_eq!(record.recall(at(10), other), Recalled::Other);
            record.sweep(at(CHANGE_MS + 10));
            assert_eq!(record.count(), 0);
        }
    }
}
