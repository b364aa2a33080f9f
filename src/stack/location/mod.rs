//! The location service: address-of-record → bindings (RFC 3261 §10). All cores share it: it is sharded, and a lock is held for one
//! lookup or one change. What a REGISTER does to it is in [`crate::stack::registrar`], what of it goes to disk in [`journal`].

pub mod binding;
pub mod handover;
pub mod journal;
mod record;
mod rounds;
mod row;
mod rules;
mod shared_note;
mod shared_row;
mod sharing;
pub mod taking_in;
pub mod telling;
mod version;

pub use crate::settings::Durability;
pub use binding::{Binding, BindingText, Reached, weight};
use binding::{WEIGHED, weight_of_address};
pub use record::REMOVED_MS;
use record::{Counted, Lists};
pub use record::{Print, Recalled, Record};
pub use rounds::{Progress, Round, SHARDS};
pub use row::Row;
pub use rules::RowRules;
pub use shared_note::NodeNumber;
pub use shared_row::{SharedRow, TokenOf, Untold};
use sharing::Sharing;
pub use sharing::{Node, Server, SharingTerms, held_ms};
pub use taking_in::TakenIn;
pub use telling::SharedLocation;
pub use version::{Claim, Version};

use crate::base::{BuildPrehashed, Flow, Instant, Key, ShareHolder, Shares};
use crate::sip::Uri;
use crate::stack::moved::Moved;
use rounds::Rounds;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// All bindings of the server.
pub struct Location {
    key: Key,
    shards: Box<[Mutex<Shard>]>,
    bindings: AtomicUsize,
    /// The total of [`Binding::weight`].
    weight: AtomicUsize,
    max_bindings: usize,
    /// The share of each holder in that.
    shares: Shares,
    /// What was removed since memory was last returned, in the units of [`Binding::weight`].
    gone: AtomicUsize,
    /// The shard at which the next [`Location::sweep`] starts.
    sweep_at: AtomicUsize,
    rounds: Rounds,
    /// `None`: no other server has a part in it.
    sharing: Option<Box<Sharing>>,
    /// The table is on its way to another process ([`handover`]).
    is_handed_over: AtomicBool,
    /// Where parties to dialogs are, as distinct from where their users are.
    pub(in crate::stack) moved: Moved,
}

/// A shard of the table.
#[derive(Default)]
struct Shard {
    /// By the name that [`Location::name`] gives their address. Boxed, because a record is large and the table half empty.
    records: HashMap<u64, Box<Record>, BuildPrehashed>,
    lists: ShardLists,
}

impl Shard {
    /// Removes a record of which there is nothing left, and nothing to tell.
    fn forget(&mut self, name: u64) {
        let gone = self.records.remove(&name);
        if gone.is_some_and(|record| record.lists.have(Lists::DISK)) {
            self.lists.changed.retain(|listed| *listed != name);
        }
    }
}

/// The names of records that have changed, each once.
#[derive(Default)]
struct ShardLists {
    /// Since the journal last took them.
    changed: Vec<u64>,
    /// Since the store was last told, if several servers share the table.
    news: Vec<u64>,
    /// Since they were last handed over ([`handover`]). Some are here several times.
    touched: Vec<u64>,
}

/// A binding as shown to the outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindingView {
    pub uri: Vec<u8>,
    /// Thousandths, 0 to 1000.
    pub q: u16,
    pub expires: Instant,
    pub call_id: Vec<u8>,
    pub cseq: u32,
    pub path: Vec<u8>,
    pub instance: Vec<u8>,
    pub reg_id: u32,
    pub source: Option<Flow>,
}

/// Error: `[limits] bindings` is reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LocationFull;

/// Bindings that must have been removed before the allocator is asked to return their memory: some 16 MB.
const GONE: usize = 1 << 15;

/// Shards swept at a time, and again for each shard that was mostly expired.
const SWEPT: usize = 4;

/// The same if the table is shared: the other servers hear from the sweep what has expired here.
const SWEPT_SHARED: usize = 16;
const SWEPT_MOST: usize = 64;

/// Names that a shard's list of changes keeps capacity for.
const SPARE_CHANGES: usize = 64;

/// The Call-ID of bindings made by an operator.
pub const OPERATOR_CALL_ID: &[u8] = b"operator";

impl Location {
    pub fn new(key: Key, max_bindings: usize) -> Location {
        let moved = Moved::new(key);
        let key = key.derive("location");
        Location {
            moved,
            key,
            shards: (0..SHARDS).map(|_| Mutex::new(Shard::default())).collect(),
            bindings: AtomicUsize::new(0),
            weight: AtomicUsize::new(0),
            max_bindings,
            shares: Shares::new(key),
            gone: AtomicUsize::new(0),
            sweep_at: AtomicUsize::new(0),
            rounds: Rounds::default(),
            sharing: None,
            is_handed_over: AtomicBool::new(false),
        }
    }

    /// Returns how far whatever answers wait for is: the store that several servers share, or the disk.
    pub fn progress(&self) -> Progress {
        self.awaited().progress()
    }

    /// Returns whether an address-of-record cannot be shared, though answers wait for that: then they are refused.
    pub fn is_blocked(&self, aor: &[u8]) -> bool {
        self.sharing.as_ref().is_some_and(|sharing| sharing.is_blocked(aor))
    }

    /// Returns whether a 200 waits until the other servers can know of it.
    pub fn waits_for_sharing(&self) -> bool {
        self.sharing.as_ref().is_some_and(|sharing| sharing.rounds.durability == Some(crate::settings::Durability::Acknowledged))
    }

    /// Returns whether there is any such.
    pub fn has_blocked(&self) -> bool {
        self.sharing.as_ref().is_some_and(|sharing| sharing.has_blocked())
    }

    /// Returns true if a change could not be answered because the store, or the disk, accepts none.
    pub fn refuses_changes(&self) -> bool {
        self.awaited().refuses_changes()
    }

    /// Returns the rounds that answers wait for.
    fn awaited(&self) -> &Rounds {
        self.sharing.as_ref().map_or(&self.rounds, |sharing| &sharing.rounds)
    }

    /// Returns the bindings now held, including removed and expired ones until the sweep has passed.
    pub fn bindings(&self) -> usize {
        self.bindings.load(Ordering::Relaxed)
    }

    /// Returns the bytes of text that they may hold according to their weight under `[limits] bindings`.
    pub fn bytes(&self) -> usize {
        self.weight.load(Ordering::Relaxed).saturating_mul(WEIGHED)
    }

    /// Returns the bindings that are valid now. Visits every one: only for occasional use.
    pub fn live_bindings(&self, now: Instant) -> usize {
        let live = |record: &Record| record.bindings.iter().filter(|b| b.is_live(now)).count();
        (0..SHARDS)
            .map(|number| {
                let shard = self.lock(number);
                let records = shard.records.values();
                records.map(|record| live(record)).sum::<usize>()
            })
            .sum()
    }

    /// Returns the addresses-of-record of which anything is remembered. Visits every shard.
    pub fn records(&self) -> usize {
        (0..SHARDS).map(|number| self.lock(number).records.len()).sum()
    }

    /// Returns how much more may be bound, in the units of [`Binding::weight`].
    fn room(&self) -> usize {
        let weight = self.weight.load(Ordering::Relaxed);
        self.max_bindings.saturating_sub(weight)
    }

    /// Returns whose share is charged for registrations from this address.
    pub fn holder(&self, ip: IpAddr) -> ShareHolder {
        self.shares.of_source(ip)
    }

    /// Returns whether the holder may bind more.
    pub fn admits(&self, holder: ShareHolder) -> bool {
        self.shares.admits(holder, self.room(), self.max_bindings)
    }

    /// Returns whether enough was removed to make returning memory to the system worthwhile; reports it once.
    pub fn take_freed(&self) -> bool {
        let is_much = self.gone.load(Ordering::Relaxed) >= GONE;
        is_much && self.gone.swap(0, Ordering::Relaxed) >= GONE
    }

    /// Updates the totals for a record that counted for `before`: bindings, their weight, and whose share they take.
    fn account(&self, before: Counted, after: Counted) {
        let follow = |total: &AtomicUsize, before: usize, after: usize| {
            if after != before {
                total.fetch_add(after, Ordering::Relaxed);
                total.fetch_sub(before, Ordering::Relaxed);
            }
        };
        follow(&self.bindings, before.bindings, after.bindings);
        follow(&self.weight, before.weight, after.weight);
        if after.weight < before.weight {
            let gone = before.weight - after.weight;
            self.gone.fetch_add(gone, Ordering::Relaxed);
        }
        if before != after {
            self.shares.take(after.holder, after.charged as u32);
            self.shares.give_back(before.holder, before.charged as u32);
        }
    }

    /// Clears the lists of what is to go to disk.
    #[cfg(test)]
    pub(in crate::stack) fn spoil(&self) {
        (0..SHARDS).for_each(|number| self.lock(number).lists.changed.clear());
    }

    /// Asserts that the totals agree with the records, that each record that is to go to disk or to the store is on its shard's list
    /// for that once, and that versions are as they must be. Visits all.
    #[cfg(debug_assertions)]
    pub fn check(&self) {
        let (mut bindings, mut weight) = (0, 0);
        for number in 0..SHARDS {
            let shard = self.lock(number);
            for record in shard.records.values() {
                let counted = record.counted();
                (bindings, weight) = (bindings + counted.bindings, weight + counted.weight);
                match &self.sharing {
                    Some(sharing) => sharing.check(record),
                    None => assert!(record.bindings.iter().all(|b| b.shared.is_none()), "a version, but nobody shares"),
                }
            }
            let ShardLists { changed, news, .. } = &shard.lists;
            for (list, names, whom) in [(Lists::DISK, changed, "the disk"), (Lists::NEWS, news, "the store")] {
                let listed = shard.records.values().filter(|record| record.lists.have(list));
                assert_eq!(listed.count(), names.len(), "what shard {number} has for {whom}");
                for name in names {
                    let is_listed = shard.records.get(name).is_some_and(|record| record.lists.have(list));
                    assert!(is_listed, "shard {number} has {name:#x} for {whom}");
                }
            }
        }
        let totals = (self.bindings(), self.weight.load(Ordering::Relaxed));
        assert_eq!(totals, (bindings, weight), "bindings, and what they weigh");
    }

    /// Returns a number that equal URIs share (RFC 3261 §19.1.4), including the SIP and the SIPS version of one; without the
    /// server's key, nobody can make two others share it. `scratch` is a temporary buffer.
    pub fn place(&self, uri: &Uri, scratch: &mut Vec<u8>) -> u32 {
        scratch.clear();
        uri.write_common(scratch);
        self.key.hash(&[scratch]) as u32
    }

    /// The same for the text of a URI; 0 if it is not one.
    fn place_of(&self, uri: &[u8]) -> u32 {
        Uri::parse(uri).map_or(0, |uri| self.place(&uri, &mut Vec::new()))
    }

    /// Returns a 32-bit hash of these parts.
    pub fn print(&self, parts: &[&[u8]]) -> u32 {
        (self.key.hash(parts) >> 32) as u32
    }

    /// Calls `each` for every live binding of the address. Returns false if the address is not known at all. An address whose
    /// bindings are gone is known until the sweep has passed.
    pub fn lookup(&self, now: Instant, aor: &[u8], mut each: impl FnMut(&Binding)) -> bool {
        let (number, name) = self.name(aor);
        let shard = self.lock(number);
        let Some(record) = shard.records.get(&name) else {
            return false;
        };
        for binding in record.bindings.iter().filter(|b| b.is_live(now)) {
            each(binding);
        }
        !record.bindings.is_empty()
    }

    /// Runs `change` on the record of one address under its lock; an empty record is created or removed as needed. `change` gets
    /// how much may be added, in the units of [`Binding::weight`]. Also returns the round after which the record's present state is
    /// on disk ([`journal`]), or in the store that several servers share ([`telling`]); 0 if nothing waits for that.
    pub fn change<R>(&self, now: Instant, aor: &[u8], change: impl FnOnce(&mut Record, usize) -> R) -> (R, u64) {
        let (number, name) = self.name(aor);
        let mut guard = self.lock(number);
        let shard = &mut *guard;
        self.touch(name, &mut shard.lists);
        let room = self.room();
        let Some(record) = shard.records.get_mut(&name) else {
            // A long address takes room of its own.
            let mut record = Record::default();
            let result = change(&mut record, room.saturating_sub(weight_of_address(aor.len())));
            let has_news = self.sharing.is_some() && self.settle(Vec::new(), &mut record, now);
            let weight = record.weight();
            let is_kept = weight > 0 && room > 0;
            if is_kept {
                record.address = aor.into();
                self.account(Counted::default(), record.counted());
                self.note(number, name, &mut record, &mut shard.lists, has_news);
            }
            let round = self.round_of(&record);
            if is_kept {
                shard.records.insert(name, Box::new(record));
            }
            return (result, round);
        };
        if self.sharing.is_some() {
            let before = (record.counted(), record.bindings.clone());
            let result = change(record, room);
            return (result, self.finish_shared(now, before, (number, name), shard));
        }
        let before = record.counted();
        let result = change(record, room);
        let after = record.counted();
        self.account(before, after);
        self.rounds.note(number, name, record, &mut shard.lists.changed);
        let round = self.rounds.round_of(record.lists.have(Lists::DISK));
        if after.weight == 0 && !self.is_awaited(record) {
            shard.forget(name);
        }
        (result, round)
    }

    /// The rest of a change if the table is shared.
    #[cold]
    fn finish_shared(&self, now: Instant, before: (Counted, Vec<Binding>), place: (usize, u64), shard: &mut Shard) -> u64 {
        let (number, name) = place;
        let Some(record) = shard.records.get_mut(&name) else {
            return 0;
        };
        let (before, bindings) = before;
        let has_news = self.settle(bindings, record, now);
        let after = record.counted();
        self.account(before, after);
        self.note(number, name, record, &mut shard.lists, has_news);
        let round = self.round_of(record);
        if after.weight == 0 {
            if record.lists.have(Lists::NEWS) {
                record.lists.take_off(Lists::NEWS);
                shard.lists.news.retain(|listed| *listed != name);
            }
            if !self.is_awaited(record) {
                shard.forget(name);
            }
        }
        round
    }

    /// Gives what a change has made of a record its versions, if the table is shared. Returns whether there is something to tell.
    fn settle(&self, before: Vec<Binding>, record: &mut Record, now: Instant) -> bool {
        self.sharing.as_ref().is_some_and(|sharing| record.is_changed && sharing.settle(before, record, now))
    }

    /// Notes that a record is about to change, if the table is on its way to another process. Under the lock of its shard, so what is
    /// not noted is handed over later.
    fn touch(&self, name: u64, lists: &mut ShardLists) {
        if self.is_handed_over.load(Ordering::Relaxed) && lists.touched.last() != Some(&name) {
            lists.touched.push(name);
        }
    }

    /// Puts a changed record on its shard's lists.
    fn note(&self, number: usize, name: u64, record: &mut Record, lists: &mut ShardLists, has_news: bool) {
        self.touch(name, lists);
        self.rounds.note(number, name, record, &mut lists.changed);
        if let (Some(sharing), true, false) = (&self.sharing, has_news, record.lists.have(Lists::NEWS)) {
            sharing.rounds.list(number, name, &mut lists.news);
            record.lists.put(Lists::NEWS);
        }
    }

    fn round_of(&self, record: &Record) -> u64 {
        match &self.sharing {
            None => self.rounds.round_of(record.lists.have(Lists::DISK)),
            Some(sharing) => sharing.rounds.round_of(record.lists.have(Lists::NEWS)),
        }
    }

    /// Returns whether the disk has rows of the record that the journal is to remove.
    fn is_awaited(&self, record: &Record) -> bool {
        record.lists.have(Lists::DISK) && record.rows > 0
    }

    /// Shows the live bindings of one address, or of all, in no particular order.
    pub fn show(&self, now: Instant, aor: Option<&[u8]>, each: &mut dyn FnMut(&[u8], BindingView)) {
        let mut show = |record: &Record| {
            for binding in record.bindings.iter().filter(|b| b.is_live(now)) {
                let text = binding.text();
                each(
                    &record.address,
                    BindingView {
                        uri: text.uri.to_vec(),
                        q: binding.q,
                        expires: binding.granted_until(now),
                        call_id: text.call_id.to_vec(),
                        cseq: binding.cseq,
                        path: text.path.to_vec(),
                        instance: text.instance.to_vec(),
                        reg_id: binding.reg_id,
                        source: binding.source(),
                    },
                );
            }
        };
        match aor {
            Some(aor) => {
                let (number, name) = self.name(aor);
                if let Some(record) = self.lock(number).records.get(&name) {
                    show(record);
                }
            }
            None => {
                for number in 0..SHARDS {
                    for record in self.lock(number).records.values() {
                        show(record);
                    }
                }
            }
        }
    }

    /// Adds an operator's binding: it replaces one with the same URI, whatever its Call-ID.
    pub fn add(&self, now: Instant, aor: &[u8], uri: &[u8], expires_s: u32) -> Result<(), LocationFull> {
        self.add_as(now, aor, (uri, b""), 1000, expires_s)
    }

    /// The same with a Path, and with `q` in thousandths.
    pub fn add_as(
        &self,
        now: Instant,
        aor: &[u8],
        (uri, path): (&[u8], &[u8]),
        q: u16,
        expires_s: u32,
    ) -> Result<(), LocationFull> {
        let place = self.place_of(uri);
        let add = |record: &mut Record, room: usize| {
            let text = BindingText { uri, call_id: OPERATOR_CALL_ID, path, ..BindingText::default() };
            if !text.fits() {
                return Err(LocationFull);
            }
            let mut binding = Binding::new(text, None);
            binding.expires = now.after_ms(u64::from(expires_s) * 1000);
            binding.place = place;
            binding.q = q;
            match record.bindings.iter_mut().find(|b| b.uri() == uri) {
                Some(existing) => *existing = binding,
                None if room < binding.weight() => return Err(LocationFull),
                None => record.add(binding),
            }
            record.is_changed = true;
            Ok(())
        };
        self.change(now, aor, add).0
    }

    /// Removes one contact or all on behalf of an operator. Returns how many live bindings were removed.
    pub fn remove(&self, now: Instant, aor: &[u8], uri: Option<&[u8]>) -> usize {
        let remove = |record: &mut Record, _| {
            let mut gone = 0;
            record.bindings.retain(|binding| {
                let chosen = uri.is_none_or(|uri| uri == binding.uri());
                gone += usize::from(chosen && binding.is_live(now));
                record.is_changed |= chosen;
                !chosen
            });
            gone
        };
        self.change(now, aor, remove).0
    }

    /// Sweeps a part of the table: at twenty calls per second, all of it in 51 s (13 s if it is shared), or in 3 s if much has expired at
    /// once.
    pub fn sweep_some(&self, now: Instant) {
        let (mut swept, mut wanted) = (0, if self.sharing.is_some() { SWEPT_SHARED } else { SWEPT });
        while swept < wanted.min(SWEPT_MOST) {
            swept += 1;
            if self.sweep(now) {
                wanted += SWEPT;
            }
        }
    }

    /// Removes what has expired from the next shard; [`SHARDS`] calls cover all. An expired binding is never used, so this only
    /// frees memory. Returns true if most of the shard was removed.
    pub fn sweep(&self, now: Instant) -> bool {
        let number = self.sweep_at.fetch_add(1, Ordering::Relaxed) % SHARDS;
        let mut guard = self.lock(number);
        let Shard { records, lists } = &mut *guard;
        let (mut held, mut kept, mut unlisted) = (0, 0, false);
        records.retain(|name, record| {
            let before = record.counted();
            let has_news = self.sharing.as_ref().is_some_and(|sharing| sharing.expire(record, now));
            record.is_changed |= has_news;
            record.sweep(now);
            let after = record.counted();
            self.account(before, after);
            (held, kept) = (held + before.weight, kept + after.weight);
            if has_news || record.is_changed || before != after {
                self.note(number, *name, record, lists, has_news);
            }
            if after.weight > 0 {
                return true;
            }
            unlisted |= record.lists.have(Lists::NEWS);
            record.lists.take_off(Lists::NEWS);
            let stays = self.is_awaited(record);
            unlisted |= !stays && record.lists.have(Lists::DISK);
            stays
        });
        if unlisted {
            let is_on = |name: &u64, list| records.get(name).is_some_and(|record| record.lists.have(list));
            lists.changed.retain(|name| is_on(name, Lists::DISK));
            lists.news.retain(|name| is_on(name, Lists::NEWS));
        }
        // After a peak, the memory is returned.
        if records.is_empty() || records.len() < records.capacity() / 4 {
            records.shrink_to(records.len() * 2);
        }
        for list in [&mut lists.changed, &mut lists.news] {
            if list.capacity() > SPARE_CHANGES && list.len() < list.capacity() / 4 {
                list.shrink_to(SPARE_CHANGES);
            }
        }
        2 * kept < held
    }

    /// Returns the shard of an address, and its name there: 76 bits in all under the server's key, so many that nobody can make two
    /// addresses share them, and that among ten million two do by chance on fewer than one server in a billion.
    fn name(&self, aor: &[u8]) -> (usize, u64) {
        let wide = self.key.wide(&[aor]);
        ((wide >> 64) as usize % SHARDS, wide as u64)
    }

    /// Locks a shard. A shard is never left half changed, so a poisoned lock is usable.
    fn lock(&self, number: usize) -> MutexGuard<'_, Shard> {
        self.shards[number].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_ms(ms)
    }

    fn uris(location: &Location, now: u64, aor: &[u8]) -> Vec<String> {
        let mut found = Vec::new();
        location.lookup(at(now), aor, |b| {
            found.push(String::from_utf8_lossy(b.uri()).into_owned());
        });
        found
    }

    /// It was weighed as one, and a table full of them took four times the memory that it may have.
    #[test]
    fn a_long_address_counts_by_what_it_holds() {
        let location = Location::new(Key::new(1, 2), 10);
        let long = |first: u8| [&[first; 1000][..], b"@x"].concat();
        let add = |aor: &[u8]| location.add(at(0), aor, b"sip:a@1.1.1.1", 10);
        assert_eq!(weight_of_address(long(b'a').len()), 3);
        assert_eq!((add(&long(b'a')), add(&long(b'b'))), (Ok(()), Ok(())));
        assert_eq!(add(&long(b'c')), Err(LocationFull), "there is room for two more of usual length");
        assert_eq!(location.add(at(0), &long(b'a'), b"sip:a@1.1.1.2", 10), Ok(()), "its address is there already");
        assert_eq!((add(b"a@x"), add(b"b@x")), (Ok(()), Err(LocationFull)));
        assert_eq!((location.bindings(), location.bytes()), (4, 10 * WEIGHED));
        location.check();
        (0..SHARDS).for_each(|_| _ = location.sweep(at(60_000)));
        assert_eq!((location.bindings(), location.bytes()), (0, 0));
    }

    #[test]
    fn add_show_expire_remove() {
        let location = Location::new(Key::new(1, 2), 3);
        location.add(at(0), b"a@x", b"sip:a@1.1.1.1", 10).unwrap();
        location.add(at(0), b"a@x", b"sip:a@1.1.1.2", 20).unwrap();
        location.add(at(0), b"b@x", b"sip:b@1.1.1.3", 20).unwrap();
        let full = location.add(at(0), b"c@x", b"sip:c@1.1.1.3", 20);
        assert_eq!(full, Err(LocationFull));
        location.add(at(0), b"b@x", b"sip:b@1.1.1.3", 30).unwrap();
        assert_eq!(location.bindings(), 3);
        assert_eq!(uris(&location, 0, b"a@x").len(), 2);
        assert_eq!(uris(&location, 10_000, b"a@x"), ["sip:a@1.1.1.2"]);
        let mut shown = 0;
        location.show(at(15_000), None, &mut |_, _| shown += 1);
        assert_eq!(shown, 2);
        (0..SHARDS).for_each(|_| _ = location.sweep(at(15_000)));
        assert_eq!(location.bindings(), 2);
        assert_eq!(location.remove(at(15_000), b"b@x", None), 1);
        assert_eq!(location.remove(at(15_000), b"b@x", None), 0);
        (0..SHARDS).for_each(|_| _ = location.sweep(at(25_000)));
        assert_eq!(location.bindings(), 0);
        assert!(!location.lookup(at(25_000), b"a@x", |_| ()));
    }

    #[test]
    fn what_expires_all_at_once_is_gone_in_seconds() {
        let location = Location::new(Key::new(1, 2), 1 << 20);
        let add = |location: &Location, expires_s| {
            for number in 0..2 * SHARDS {
                let aor = format!("sip:u{number}@example.com");
                let added = location.add(at(0), aor.as_bytes(), b"sip:u@192.0.2.1", expires_s);
                assert!(added.is_ok());
            }
        };
        add(&location, 5);
        let mut parts = 0;
        while location.bindings() > 0 {
            location.sweep_some(at(60_000));
            parts += 1;
            assert!(parts <= SHARDS / SWEPT_MOST + 8);
        }
        assert_eq!(location.bytes(), 0);
        // The REGISTERs are remembered longer than their bindings.
        let uri = [b'x'; 700];
        for number in 0..2 * SHARDS {
            let aor = format!("sip:u{number}@example.com");
            location.change(at(60_000), aor.as_bytes(), |record, _| {
                let text = BindingText { uri: &uri, ..BindingText::default() };
                let mut binding = Binding::new(text, None);
                binding.expires = at(65_000);
                record.add(binding);
                record.note_change(at(60_000), Print::default());
            });
        }
        for _ in 0..SHARDS / SWEPT_MOST + 8 {
            location.sweep_some(at(66_000));
        }
        assert_eq!(location.bytes(), 2 * SHARDS * WEIGHED);
        (0..SHARDS).for_each(|_| _ = location.sweep(at(100_000)));
        // While most entries stay, a little at a time.
        add(&location, 3600);
        let before = location.sweep_at.load(Ordering::Relaxed);
        location.sweep_some(at(100_000));
        assert_eq!(location.sweep_at.load(Ordering::Relaxed), before + SWEPT);
    }
}
