//! What the journal of the bindings needs from the location service: which records have changed, in rounds, and how far the disk
//! is.
//!
//! Memory is authoritative, and there is no log of changes: each shard keeps the names of its records that have changed since they
//! were last taken, each once. So the backlog for the disk is bounded by the table itself, refreshes coalesce, and a worker pays
//! one push under a lock that it holds anyway.
//!
//! The journal works in numbered rounds. It begins one ([`Location::begin_round`]), takes what has changed, shard by shard, writes
//! it, and reports it as written ([`Location::finish_round`]). A change belongs at the latest to the round after the one in
//! progress when it was made, so the worker knows its round without a further lock: the mark of its shard is set *before* the
//! number is read, and the number is raised before the marks are read.
//!
//! If several servers share the table, each stores only what it has answered for itself, and without versions. The others' bindings
//! come back from the store; if that is lost too, each node brings its own. What is read back is older than any version of the same
//! CSeq that is known elsewhere, so a row that should not have been there any more is not told to anybody.

use super::Location;
use super::record::{Counted, Lists, Record};
use super::rounds::{Progress, Round, SHARDS};
use super::row::Row;
use crate::base::{ShareHolder, Span};
use crate::settings::Durability;
use crate::stack::location::BindingText;

impl Location {
    /// Adds a journal: changes are recorded from now on.
    #[must_use]
    pub fn with_journal(mut self, durability: impl Into<Option<Durability>>) -> Location {
        self.rounds.durability = durability.into();
        self
    }

    pub fn durability(&self) -> Option<Durability> {
        self.rounds.durability
    }

    /// Returns how far the disk is.
    pub fn disk_progress(&self) -> Progress {
        self.rounds.progress()
    }

    /// Returns true if a round would take something.
    pub fn has_changes(&self) -> bool {
        self.rounds.has_changes()
    }

    /// Returns the round after which everything changed until now is on disk.
    pub fn last_round(&self) -> u64 {
        self.rounds.last()
    }

    /// Begins a round of the shards in which something has changed, or of all of them if `all` is true.
    pub fn begin_round(&self, all: bool) -> Round {
        self.rounds.begin(all)
    }

    /// Copies what has changed in a shard and takes it off the list, or copies everything in the shard if `all` is true.
    pub fn take_changed(&self, shard: usize, all: bool, taken: &mut Taken) {
        let mut guard = self.lock(shard);
        let shard = &mut *guard;
        if all {
            shard.lists.changed.clear();
            shard.records.retain(|name, record| {
                self.touch(*name, &mut shard.lists);
                taken.take(record);
                record.is_remembered()
            });
            return;
        }
        let changed = std::mem::take(&mut shard.lists.changed);
        for name in &changed {
            // What the disk has of it changes.
            self.touch(*name, &mut shard.lists);
            let Some(record) = shard.records.get_mut(name) else {
                continue;
            };
            taken.take(record);
            if !record.is_remembered() {
                shard.records.remove(name);
            }
        }
        // Its allocation is used again.
        shard.lists.changed = changed;
        shard.lists.changed.clear();
    }

    /// Notes that what this and earlier rounds took is on disk.
    pub fn finish_round(&self, number: u64) {
        self.rounds.finish(number);
    }

    /// Sets whether writing to disk is failing.
    pub fn set_failing(&self, is_failing: bool) {
        self.rounds.set_failing(is_failing);
    }

    /// Returns the records that have changed and were not taken yet. Visits every shard: only for occasional use.
    pub fn untaken(&self) -> usize {
        (0..SHARDS).map(|number| self.lock(number).lists.changed.len()).sum()
    }

    /// Restores an address from disk: `rows` are valid, `on_disk` is how many are there, and `is_same` tells whether they agree.
    /// What memory already has of the address is newer and stays. Returns false if `[limits] bindings` leaves no room.
    pub fn restore(&self, aor: &[u8], rows: &[Row], on_disk: u32, is_same: bool) -> bool {
        let (number, name) = self.name(aor);
        let mut guard = self.lock(number);
        let shard = &mut *guard;
        if let Some(record) = shard.records.get_mut(&name) {
            record.rows = record.rows.max(on_disk);
            record.is_changed = true;
            self.note(number, name, record, &mut shard.lists, false);
            return true;
        }
        let mut record = Box::<Record>::default();
        record.address = aor.into();
        record.rows = on_disk;
        record.restore(rows, |row| self.place_of(row.text.uri));
        let source = rows.iter().find_map(|row| row.source);
        record.holder = source.map_or(ShareHolder::NOBODY, |flow| self.holder(flow.peer.ip()));
        if record.weight() > self.room() {
            return false;
        }
        // Expired rows are to be removed from disk.
        record.is_changed = !is_same || rows.len() != on_disk as usize;
        if let Some(sharing) = &self.sharing {
            sharing.adopt(&mut record);
        }
        let has_news = self.sharing.is_some() && !record.bindings.is_empty();
        self.note(number, name, &mut record, &mut shard.lists, has_news);
        if record.is_remembered() || record.lists.have(Lists::DISK) {
            self.account(Counted::default(), record.counted());
            shard.records.insert(name, record);
        }
        true
    }
}

impl Record {
    /// Returns false if memory holds it only for the journal.
    pub(super) fn is_remembered(&self) -> bool {
        self.weight() > 0
    }
}

/// Copies of changed records. Its allocation is reused.
#[derive(Default)]
pub struct Taken {
    bytes: Vec<u8>,
    records: Vec<TakenRecord>,
    rows: Vec<TakenRow>,
}

struct TakenRecord {
    address: Span,
    /// Its rows end here in [`Taken::rows`].
    rows_end: u32,
    rows_before: u32,
}

struct TakenRow {
    uri: Span,
    call_id: Span,
    path: Span,
    instance: Span,
    row: Row<'static>,
}

/// One address-of-record as it is to be on disk.
pub struct TakenView<'a> {
    pub address: &'a [u8],
    /// Maximum number of rows that the disk has of it.
    pub rows_before: u32,
    taken: &'a Taken,
    rows: &'a [TakenRow],
}

impl TakenView<'_> {
    pub fn rows(&self) -> impl ExactSizeIterator<Item = Row<'_>> {
        self.rows.iter().map(|row| Row {
            text: BindingText {
                uri: self.taken.get(row.uri),
                call_id: self.taken.get(row.call_id),
                path: self.taken.get(row.path),
                instance: self.taken.get(row.instance),
            },
            ..row.row
        })
    }
}

impl Taken {
    fn take(&mut self, record: &mut Record) {
        record.lists.take_off(Lists::DISK);
        record.is_changed = false;
        if !record.concerns_disk() {
            return;
        }
        let address = self.append(&record.address);
        let before = self.rows.len();
        for binding in record.bindings.iter().filter(|binding| !binding.is_elsewhere()) {
            let text = binding.text();
            let row = TakenRow {
                uri: self.append(text.uri),
                call_id: self.append(text.call_id),
                path: self.append(text.path),
                instance: self.append(text.instance),
                row: Row {
                    text: BindingText::default(),
                    source: binding.source(),
                    expires: binding.expires,
                    reg_id: binding.reg_id,
                    cseq: binding.cseq,
                    q: binding.q,
                    removed: binding.removed,
                    reached: binding.reached,
                },
            };
            self.rows.push(row);
        }
        self.records.push(TakenRecord { address, rows_end: self.rows.len() as u32, rows_before: record.rows });
        record.rows = (self.rows.len() - before) as u32;
    }

    fn append(&mut self, bytes: &[u8]) -> Span {
        Span::append(bytes, &mut self.bytes)
    }

    fn get(&self, span: Span) -> &[u8] {
        span.in_text(&self.bytes)
    }

    /// Returns the number of records.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Returns the bytes of memory in use.
    pub fn size(&self) -> usize {
        self.bytes.len() + self.rows.len() * size_of::<TakenRow>() + self.records.len() * size_of::<TakenRecord>()
    }

    pub fn clear(&mut self) {
        self.bytes.clear();
        self.records.clear();
        self.rows.clear();
    }

    pub fn iter(&self) -> impl Iterator<Item = TakenView<'_>> {
        (0..self.records.len()).filter_map(|number| self.view(number))
    }

    /// Returns one of them, by its index in the order of [`Taken::iter`].
    pub fn view(&self, number: usize) -> Option<TakenView<'_>> {
        let record = self.records.get(number)?;
        let before = number.checked_sub(1).and_then(|n| self.records.get(n));
        let start = before.map_or(0, |before| before.rows_end as usize);
        Some(TakenView {
            address: self.get(record.address),
            rows_before: record.rows_before,
            taken: self,
            rows: self.rows.get(start..record.rows_end as usize)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Key;
    use crate::base::{Flow, Instant};
    use crate::stack::location::{Print, REMOVED_MS, Reached};

    fn at(ms: u64) -> Instant {
        Instant::from_ms(ms)
    }

    fn location(durability: impl Into<Option<Durability>>) -> Location {
        Location::new(Key::new(1, 2), 1000).with_journal(durability)
    }

    fn uri(n: u32) -> Vec<u8> {
        format!("sip:u@192.0.2.{n}").into_bytes()
    }

    /// Returns what one round takes: `address: uri uri (of so many before)`.
    fn round(location: &Location) -> Vec<String> {
        let mut round = location.begin_round(false);
        let mut taken = Taken::default();
        while let Some(shard) = round.next_shard() {
            location.take_changed(shard, false, &mut taken);
        }
        location.finish_round(round.number);
        words(&taken)
    }

    fn words(taken: &Taken) -> Vec<String> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let each = |view: TakenView| {
            let uris: Vec<String> = view.rows().map(|row| text(row.text.uri)).collect();
            let before = view.rows_before;
            format!("{}: {} ({before})", text(view.address), uris.join(" "))
        };
        let mut all: Vec<String> = taken.iter().map(each).collect();
        all.sort();
        all
    }

    #[test]
    fn a_change_is_taken_once_and_refreshes_fall_together() {
        let location = location(Durability::Batched);
        assert!(!location.has_changes());
        assert_eq!(round(&location), [""; 0]);
        location.add(at(0), b"a@x", &uri(1), 60).unwrap();
        location.add(at(1), b"a@x", &uri(1), 90).unwrap();
        location.add(at(1), b"b@x", &uri(2), 90).unwrap();
        assert!(location.has_changes());
        assert_eq!(location.untaken(), 2);
        assert_eq!(round(&location), ["a@x: sip:u@192.0.2.1 (0)", "b@x: sip:u@192.0.2.2 (0)"]);
        assert!(!location.has_changes());
        assert_eq!(round(&location), [""; 0]);
        location.add(at(2), b"a@x", &uri(3), 60).unwrap();
        assert_eq!(round(&location), ["a@x: sip:u@192.0.2.1 sip:u@192.0.2.3 (1)"]);
    }

    #[test]
    fn what_is_gone_is_taken_as_gone_and_then_forgotten() {
        let location = location(Durability::Batched);
        location.add(at(0), b"a@x", &uri(1), 60).unwrap();
        location.add(at(0), b"b@x", &uri(2), 60).unwrap();
        location.add(at(0), b"c@x", &uri(3), 600).unwrap();
        round(&location);
        // Removed by hand, and by the sweep.
        assert_eq!(location.remove(at(1), b"a@x", None), 1);
        (0..SHARDS).for_each(|_| _ = location.sweep(at(60_000)));
        assert_eq!(location.bindings(), 1);
        assert!(!location.lookup(at(60_000), b"a@x", |_| ()));
        assert_eq!(location.untaken(), 2);
        assert_eq!(round(&location), ["a@x:  (1)", "b@x:  (1)"]);
        assert_eq!(location.records(), 1);
        // A binding added again before its removal was taken is there.
        assert_eq!(location.remove(at(1), b"c@x", None), 1);
        location.add(at(2), b"c@x", &uri(4), 600).unwrap();
        assert_eq!(round(&location), ["c@x: sip:u@192.0.2.4 (1)"]);
    }

    #[test]
    fn what_was_never_on_disk_leaves_nothing_behind() {
        let location = location(Durability::Batched);
        for n in 0..100 {
            let aor = format!("u{n}@x");
            location.add(at(0), aor.as_bytes(), &uri(1), 60).unwrap();
        }
        for n in 0..50 {
            assert_eq!(location.remove(at(1), format!("u{n}@x").as_bytes(), None), 1);
        }
        assert_eq!((location.records(), location.untaken()), (50, 50));
        // The disk is dead; what has expired still takes no memory.
        (0..SHARDS).for_each(|_| _ = location.sweep(at(60_000)));
        assert_eq!((location.records(), location.untaken()), (0, 0));
        assert_eq!(round(&location), [""; 0]);
        let memory = super::tests::location(None);
        memory.add(at(0), b"a@x", &uri(1), 60).unwrap();
        assert_eq!((memory.untaken(), memory.has_changes()), (0, false));
    }

    #[test]
    fn the_round_of_a_change_is_known_when_it_is_made() {
        let location = location(Durability::Acknowledged);
        let change = |now: u64| {
            let change = |record: &mut Record, _: usize| {
                record.note_change(at(now), Print::default());
                if record.bindings.is_empty() {
                    let text = BindingText { uri: b"sip:a@192.0.2.1", ..BindingText::default() };
                    record.add(super::super::Binding::new(text, None));
                }
            };
            location.change(at(now), b"a@x", change).1
        };
        let look = || location.change(at(0), b"a@x", |_, _| ()).1;
        assert_eq!(change(1), 1);
        assert_eq!(look(), 1, "it waits still");
        let mut one = location.begin_round(false);
        assert_eq!(look(), 2, "it may not have been taken");
        let mut taken = Taken::default();
        while let Some(shard) = one.next_shard() {
            location.take_changed(shard, false, &mut taken);
        }
        assert_eq!(look(), 1, "it is in the round under way");
        assert_eq!(change(2), 2, "and this is not");
        assert_eq!(location.progress().durable, 0);
        location.finish_round(one.number);
        assert_eq!(location.progress().durable, 1);
        assert_eq!(look(), 2);
        assert_eq!(round(&location).len(), 1);
        assert_eq!((look(), location.progress().durable), (2, 2));
        // If nothing waits, nothing is notified.
        let batched = super::tests::location(Durability::Batched);
        let (_, round) = batched.change(at(1), b"a@x", |record, _| record.note_change(at(1), Print::default()));
        assert_eq!(round, 0);
    }

    #[test]
    fn a_round_of_all_takes_what_has_not_changed_too() {
        let location = location(Durability::Batched);
        location.add(at(0), b"a@x", &uri(1), 60).unwrap();
        round(&location);
        location.add(at(0), b"b@x", &uri(2), 60).unwrap();
        let mut all = location.begin_round(true);
        let mut taken = Taken::default();
        while let Some(shard) = all.next_shard() {
            location.take_changed(shard, true, &mut taken);
        }
        assert_eq!(words(&taken).len(), 2);
        assert!(!location.has_changes());
        assert_eq!(round(&location), [""; 0]);
    }

    #[test]
    fn what_the_disk_has_comes_back_and_what_memory_has_is_newer() {
        let location = location(Durability::Batched);
        let flow = Flow::datagram(3, "192.0.2.9:40123".parse().unwrap());
        let row = Row {
            text: BindingText { uri: b"sip:a@10.0.0.1", call_id: b"call", path: b"<sip:p;lr>", instance: b"\"<urn:x>\"" },
            source: Some(flow),
            expires: at(60_000),
            reg_id: 7,
            cseq: 42,
            q: 500,
            removed: false,
            reached: Reached::ByFlow,
        };
        let tombstone = Row { removed: true, expires: at(REMOVED_MS), ..row };
        assert!(location.restore(b"a@x", &[row, tombstone], 2, true));
        assert!(!location.has_changes(), "it is as the disk has it");
        assert_eq!(location.bindings(), 2);
        let mut seen = 0;
        location.lookup(at(1), b"a@x", |binding| {
            seen += 1;
            let text = binding.text();
            assert_eq!(text.call_id, b"call");
            assert_eq!(text.path, b"<sip:p;lr>");
            assert_eq!(text.instance, b"\"<urn:x>\"");
            assert_eq!(binding.source(), Some(flow));
            assert_eq!((binding.reg_id, binding.cseq, binding.q), (7, 42, 500));
            assert_eq!(binding.reached, Reached::ByFlow);
        });
        assert_eq!(seen, 1);
        // All of it had expired: the rows are to be removed.
        assert!(location.restore(b"b@x", &[], 3, true));
        assert_eq!(round(&location), ["b@x:  (3)"]);
        // The log has newer rows than the table: they are to be written.
        assert!(location.restore(b"d@x", &[row], 1, false));
        assert_eq!(round(&location), ["d@x: sip:a@10.0.0.1 (1)"]);
        // Registered here before the disk could be read.
        location.add(at(0), b"c@x", &uri(5), 60).unwrap();
        round(&location);
        assert!(location.restore(b"c@x", &[row, row], 2, true));
        assert_eq!(round(&location), ["c@x: sip:u@192.0.2.5 (2)"]);

        let full = Location::new(Key::new(1, 2), 1);
        assert!(!full.restore(b"a@x", &[row, row], 2, true));
        assert!(full.restore(b"a@x", &[row], 1, true));
    }
}
