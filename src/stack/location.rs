//! The location service: address-of-record → bindings (RFC 3261 §10). The one thing that the cores share: sharded, and a
//! lock is held for one lookup or one change. What REGISTER means for it is in [`crate::stack::registrar`].

use crate::base::{Flow, Instant, Key};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Enough that two cores rarely meet, and that neither the growth nor the sweep of one shard is a pause.
pub const SHARDS: usize = 4096;

/// All bindings of the server.
pub struct Location {
    key: Key,
    shards: Box<[Mutex<Shard>]>,
    bindings: AtomicUsize,
    max_bindings: usize,
    /// Where the next [`Location::sweep`] begins.
    sweep_at: AtomicUsize,
}

/// Records by the name that [`Location::name`] gives their address.
type Shard = HashMap<u128, Record, BuildHasherDefault<NameHasher>>;

/// The bindings of one address-of-record.
#[derive(Default)]
pub struct Record {
    address: Box<[u8]>,
    pub bindings: Vec<Binding>,
    /// The change made last: a REGISTER that comes again must not be carried out again.
    latest: Change,
    /// Those before it that may still come again, as a ring. Nearly always there is none.
    changes: Vec<Change>,
    /// The oldest of them.
    oldest: u8,
}

/// A REGISTER that was carried out, by the key of its transaction.
#[derive(Clone, Copy, Default)]
struct Change {
    transaction: u64,
    until: Instant,
}

/// Changes of one address-of-record that are remembered at most. Phones refresh minutes apart; this is for the moment after a
/// power cut.
const CHANGES: usize = 16;

impl Record {
    /// True when this very transaction has changed the record already.
    pub fn is_repeated(&self, now: Instant, transaction: u64) -> bool {
        std::iter::once(&self.latest)
            .chain(&self.changes)
            .any(|change| change.transaction == transaction && change.until > now)
    }

    pub fn note_change(&mut self, now: Instant, transaction: u64) {
        let change = std::mem::replace(
            &mut self.latest,
            Change {
                transaction,
                until: now.after_ms(REMOVED_MS),
            },
        );
        if change.until <= now {
            return;
        }
        let full = self.changes.len() >= CHANGES;
        match self.changes.get_mut(usize::from(self.oldest)) {
            Some(oldest) if full || oldest.until <= now => {
                *oldest = change;
                self.oldest = (self.oldest + 1) % self.changes.len() as u8;
            }
            _ => self.changes.push(change),
        }
    }

    /// What it counts for under `[limits] bindings`; 0 when there is nothing left to remember.
    fn weight(&self) -> usize {
        self.bindings
            .len()
            .max(usize::from(self.latest.until > Instant::default()))
    }

    /// Forgets what has expired.
    fn sweep(&mut self, now: Instant) {
        self.bindings.retain(|binding| binding.expires > now);
        // Nothing was changed after the latest.
        if self.latest.until <= now {
            self.latest = Change::default();
            self.changes = Vec::new();
            self.oldest = 0;
        }
    }
}

/// One contact of an address-of-record.
pub struct Binding {
    /// URI, Call-ID, Path and instance, one behind the other: one allocation for a binding.
    text: Box<[u8]>,
    uri_len: u16,
    call_id_len: u16,
    path_len: u16,
    pub reg_id: u32,
    /// Thousandths, 0 to 1000.
    pub q: u16,
    pub cseq: u32,
    pub expires: Instant,
    /// Removed; remembered until `expires` so that an older REGISTER that arrives late cannot bring it back.
    pub removed: bool,
    /// Where the REGISTER came from.
    pub source: Option<Flow>,
    /// Which way leads to the phone.
    pub reached: Reached,
}

/// How a request comes to the phone behind a binding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reached {
    /// The contact says where it is.
    ByContact,
    /// By the connection on which it registered; when that is gone, another can be opened to the contact.
    ByFlowFirst,
    /// By the way on which it registered and no other: it is behind a NAT.
    ByFlow,
}

/// What a binding holds as text, and what a REGISTER brings.
#[derive(Clone, Copy, Debug, Default)]
pub struct BindingText<'a> {
    pub uri: &'a [u8],
    pub call_id: &'a [u8],
    /// The Path header values in order, as one comma list; empty without.
    pub path: &'a [u8],
    /// `+sip.instance`, quotes kept; empty without.
    pub instance: &'a [u8],
}

impl BindingText<'_> {
    /// False when a part is longer than a binding can hold (65,535 bytes each).
    pub fn fits(&self) -> bool {
        [self.uri, self.call_id, self.path]
            .iter()
            .all(|part| part.len() <= usize::from(u16::MAX))
    }
}

impl Binding {
    pub fn new(text: BindingText) -> Binding {
        let mut binding = Binding {
            text: Box::default(),
            uri_len: 0,
            call_id_len: 0,
            path_len: 0,
            reg_id: 0,
            q: 1000,
            cseq: 0,
            expires: Instant::default(),
            removed: false,
            source: None,
            reached: Reached::ByContact,
        };
        binding.set_text(text);
        binding
    }

    pub fn text(&self) -> BindingText<'_> {
        let (uri, rest) = self.text.split_at(self.uri_len.into());
        let (call_id, rest) = rest.split_at(self.call_id_len.into());
        let (path, instance) = rest.split_at(self.path_len.into());
        BindingText {
            uri,
            call_id,
            path,
            instance,
        }
    }

    pub fn uri(&self) -> &[u8] {
        &self.text[..self.uri_len.into()]
    }

    /// Replaces the text; in place when the lengths add up to the same.
    pub fn set_text(&mut self, text: BindingText) {
        let parts = [text.uri, text.call_id, text.path, text.instance];
        let len = parts.iter().map(|part| part.len()).sum();
        if self.text.len() != len {
            self.text = vec![0; len].into();
        }
        let mut rest = &mut self.text[..];
        for part in parts {
            let (here, behind) = rest.split_at_mut(part.len());
            here.copy_from_slice(part);
            rest = behind;
        }
        self.uri_len = text.uri.len() as u16;
        self.call_id_len = text.call_id.len() as u16;
        self.path_len = text.path.len() as u16;
    }

    pub fn is_live(&self, now: Instant) -> bool {
        !self.removed && self.expires > now
    }

    /// Whole seconds left, rounded up.
    pub fn seconds_left(&self, now: Instant) -> u64 {
        self.expires.ms_since(now).div_ceil(1000)
    }
}

/// A binding as somebody outside sees it.
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

/// `[limits] bindings` is reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LocationFull;

/// How long a removed binding is remembered: as long as a datagram or a retransmission may live (64·T1).
pub const REMOVED_MS: u64 = 32_000;

/// The Call-ID of bindings that an operator made.
pub const OPERATOR_CALL_ID: &[u8] = b"operator";

impl Location {
    pub fn new(key: Key, max_bindings: usize) -> Location {
        let key = key.derive("location");
        Location {
            key,
            shards: (0..SHARDS).map(|_| Mutex::new(Shard::default())).collect(),
            bindings: AtomicUsize::new(0),
            max_bindings,
            sweep_at: AtomicUsize::new(0),
        }
    }

    /// Bindings held now, the recently removed and expired ones among them until the sweep has passed.
    pub fn bindings(&self) -> usize {
        self.bindings.load(Ordering::Relaxed)
    }

    /// Bindings that are valid now. Looks at every one: for those who ask now and then.
    pub fn live_bindings(&self, now: Instant) -> usize {
        let live = |record: &Record| record.bindings.iter().filter(|b| b.is_live(now)).count();
        (0..SHARDS)
            .map(|number| self.lock(number).values().map(live).sum::<usize>())
            .sum()
    }

    /// Calls `each` for every live binding of the address. False when the address is not known at all.
    pub fn lookup(&self, now: Instant, aor: &[u8], mut each: impl FnMut(&Binding)) -> bool {
        let name = self.name(aor);
        let shard = self.shard(name);
        let Some(record) = shard.get(&name) else {
            return false;
        };
        for binding in record.bindings.iter().filter(|b| b.is_live(now)) {
            each(binding);
        }
        !record.bindings.is_empty()
    }

    /// Runs `change` on the record of one address under its lock; an empty record is made or removed as needed. `change`
    /// gets how many bindings may be added.
    pub fn change<R>(&self, aor: &[u8], change: impl FnOnce(&mut Record, usize) -> R) -> R {
        let name = self.name(aor);
        let mut shard = self.shard(name);
        let room = self.max_bindings.saturating_sub(self.bindings());
        let Some(record) = shard.get_mut(&name) else {
            let mut record = Record::default();
            let result = change(&mut record, room);
            let weight = record.weight();
            if weight > 0 && room > 0 {
                self.bindings.fetch_add(weight, Ordering::Relaxed);
                record.address = aor.into();
                shard.insert(name, record);
            }
            return result;
        };
        let before = record.weight();
        let result = change(record, room);
        let after = record.weight();
        if after != before {
            self.bindings.fetch_add(after, Ordering::Relaxed);
            self.bindings.fetch_sub(before, Ordering::Relaxed);
        }
        if after == 0 {
            shard.remove(&name);
        }
        result
    }

    /// Shows the live bindings of one address, or of all, in no order.
    pub fn show(&self, now: Instant, aor: Option<&[u8]>, each: &mut dyn FnMut(&[u8], BindingView)) {
        let mut show = |record: &Record| {
            for binding in record.bindings.iter().filter(|b| b.is_live(now)) {
                let text = binding.text();
                each(
                    &record.address,
                    BindingView {
                        uri: text.uri.to_vec(),
                        q: binding.q,
                        expires: binding.expires,
                        call_id: text.call_id.to_vec(),
                        cseq: binding.cseq,
                        path: text.path.to_vec(),
                        instance: text.instance.to_vec(),
                        reg_id: binding.reg_id,
                        source: binding.source,
                    },
                );
            }
        };
        match aor {
            Some(aor) => {
                let name = self.name(aor);
                if let Some(record) = self.shard(name).get(&name) {
                    show(record);
                }
            }
            None => {
                for number in 0..SHARDS {
                    for record in self.lock(number).values() {
                        show(record);
                    }
                }
            }
        }
    }

    /// An operator's binding: replaces one with the same URI, whatever its Call-ID.
    pub fn add(
        &self,
        now: Instant,
        aor: &[u8],
        uri: &[u8],
        expires_s: u32,
    ) -> Result<(), LocationFull> {
        self.change(aor, |record, room| {
            let text = BindingText {
                uri,
                call_id: OPERATOR_CALL_ID,
                ..BindingText::default()
            };
            if !text.fits() {
                return Err(LocationFull);
            }
            let mut binding = Binding::new(text);
            binding.expires = now.after_ms(u64::from(expires_s) * 1000);
            match record.bindings.iter_mut().find(|b| b.uri() == uri) {
                Some(existing) => *existing = binding,
                None if room == 0 => return Err(LocationFull),
                None => record.bindings.push(binding),
            }
            Ok(())
        })
    }

    /// An operator's removal, of one contact or of all. Returns how many live bindings are gone.
    pub fn remove(&self, now: Instant, aor: &[u8], uri: Option<&[u8]>) -> usize {
        self.change(aor, |record, _| {
            let mut gone = 0;
            record.bindings.retain(|binding| {
                let chosen = uri.is_none_or(|uri| uri == binding.uri());
                gone += usize::from(chosen && binding.is_live(now));
                !chosen
            });
            gone
        })
    }

    /// Removes what has expired from the next shard; after [`SHARDS`] calls all have been seen. An expired binding is never
    /// used, so this is only about memory.
    pub fn sweep(&self, now: Instant) {
        let number = self.sweep_at.fetch_add(1, Ordering::Relaxed) % SHARDS;
        let mut shard = self.lock(number);
        let mut gone = 0;
        shard.retain(|_, record| {
            let before = record.weight();
            record.sweep(now);
            gone += before - record.weight();
            record.weight() > 0
        });
        if shard.is_empty() {
            shard.shrink_to_fit();
        }
        self.bindings.fetch_sub(gone, Ordering::Relaxed);
    }

    /// What an address is found by: so many bits under the server's key that nobody makes two addresses share them.
    fn name(&self, aor: &[u8]) -> u128 {
        self.key.wide(&[aor])
    }

    fn shard(&self, name: u128) -> MutexGuard<'_, Shard> {
        self.lock((name >> 64) as usize % SHARDS)
    }

    /// A shard is never left half changed, so a poisoned lock is as good as any.
    fn lock(&self, number: usize) -> MutexGuard<'_, Shard> {
        self.shards[number]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A name is a hash already: its lower half is as good as any.
#[derive(Default)]
pub(in crate::stack) struct NameHasher(u64);

impl Hasher for NameHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }

    fn write_u128(&mut self, name: u128) {
        self.0 = name as u64;
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
        (0..SHARDS).for_each(|_| location.sweep(at(15_000)));
        assert_eq!(location.bindings(), 2);
        assert_eq!(location.remove(at(15_000), b"b@x", None), 1);
        assert_eq!(location.remove(at(15_000), b"b@x", None), 0);
        (0..SHARDS).for_each(|_| location.sweep(at(25_000)));
        assert_eq!(location.bindings(), 0);
        assert!(!location.lookup(at(25_000), b"a@x", |_| ()));
    }

    #[test]
    fn text_is_replaced_in_place_when_it_fits() {
        let text = |call_id: &'static [u8]| BindingText {
            uri: b"sip:a@h",
            call_id,
            path: b"<sip:p;lr>",
            instance: b"\"<urn:x>\"",
        };
        let mut binding = Binding::new(text(b"abc"));
        let address = binding.text.as_ptr();
        binding.set_text(text(b"xyz"));
        assert_eq!(address, binding.text.as_ptr());
        let seen = binding.text();
        assert_eq!(seen.call_id, b"xyz");
        assert_eq!(seen.path, b"<sip:p;lr>");
        assert_eq!(seen.instance, b"\"<urn:x>\"");
        binding.set_text(text(b"longer"));
        assert_eq!(binding.text().call_id, b"longer");
        assert_eq!(binding.uri(), b"sip:a@h");
    }
}
