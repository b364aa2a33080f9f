//! What has changed within dialogs and is not in any cookie: where a side has moved to (RFC 3261 §12.2, target refresh), and the
//! name that it has borne since (RFC 4916). Shared by the cores, bounded, and forgotten when unused for long.

use crate::base::{BuildPrehashed, Instant, Key};
use crate::sip::Message;
use crate::stack::facts::{fact, write_name, write_place};
use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

const SHARDS: usize = 64;
/// Facts in one generation of a shard: a quarter of a million in all, some 10 bytes each.
const ROOM: usize = 4096;
/// How long a generation lasts: a fact that is not looked up is gone after one to two of these.
const LIFE_MS: u64 = 12 * 3_600_000;

/// The kind of fact noted about a party to a dialog.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// It wants to be reached at this URI.
    Target,
    /// It bears the name in this URI.
    Name,
}

/// The facts of all dialogs.
pub struct Moved {
    key: Key,
    shards: Box<[Mutex<Shard>]>,
}

type Facts = HashSet<u64, BuildPrehashed>;

#[derive(Default)]
struct Shard {
    young: Facts,
    old: Facts,
    young_since: Instant,
    /// Until then a fact that was not old may be missing.
    lost_until: Instant,
}

impl Moved {
    pub fn new(secret: Key) -> Moved {
        Moved { key: secret.derive("moved"), shards: (0..SHARDS).map(|_| Mutex::new(Shard::default())).collect() }
    }

    /// Notes that the party to the message's dialog that has this tag is also known by this URI from now on.
    pub fn note(&self, now: Instant, message: &Message, tag: &[u8], kind: Kind, uri: &[u8], facts: &mut Vec<u8>) {
        let name = self.name(message, tag, kind, uri, facts);
        self.lock(name).note(now, name);
    }

    /// Returns whether that was noted.
    pub fn knows(&self, now: Instant, message: &Message, tag: &[u8], kind: Kind, uri: &[u8], facts: &mut Vec<u8>) -> Known {
        let name = self.name(message, tag, kind, uri, facts);
        self.lock(name).knows(now, name)
    }

    /// Appends all facts. Returns whether some that had been noted are lost.
    pub fn write_all(&self, now: Instant, out: &mut Vec<u64>) -> bool {
        let mut has_lost = false;
        for shard in &self.shards {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            out.extend(shard.old.iter().chain(&shard.young));
            has_lost |= now < shard.lost_until;
        }
        has_lost
    }

    /// Takes in the facts that a predecessor has noted, under the same key. `has_lost`: it had lost some.
    pub fn take_over(&self, now: Instant, facts: &[u64], has_lost: bool) {
        for name in facts {
            self.lock(*name).note(now, *name);
        }
        if has_lost {
            for shard in &self.shards {
                let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
                shard.lost_until = now.after_ms(2 * LIFE_MS);
            }
        }
    }

    /// Returns the keyed 64-bit hash that stands for the fact.
    fn name(&self, message: &Message, tag: &[u8], kind: Kind, uri: &[u8], facts: &mut Vec<u8>) -> u64 {
        facts.clear();
        facts.push(kind as u8);
        let call_id = message.call_id().unwrap_or_default();
        fact(facts, |out| out.extend_from_slice(call_id));
        fact(facts, |out| out.extend_from_slice(tag));
        fact(facts, |out| match kind {
            Kind::Target => write_place(uri, out),
            Kind::Name => write_name(uri, out),
        });
        self.key.text(facts)
    }

    fn lock(&self, name: u64) -> MutexGuard<'_, Shard> {
        let shard = &self.shards[(name >> 32) as usize % SHARDS];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a fact was noted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Known {
    Yes,
    No,
    /// Not as far as we know, but there was more than we could keep.
    Perhaps,
}

impl Shard {
    fn note(&mut self, now: Instant, name: u64) {
        if self.young.contains(&name) {
            return;
        }
        let is_full = self.young.len() >= ROOM;
        if is_full || now.ms_since(self.young_since) > LIFE_MS {
            if is_full && !self.old.is_empty() {
                self.lost_until = now.after_ms(2 * LIFE_MS);
            }
            std::mem::swap(&mut self.young, &mut self.old);
            self.young = Facts::default();
            self.young_since = now;
        }
        self.young.insert(name);
    }

    fn knows(&mut self, now: Instant, name: u64) -> Known {
        if self.young.contains(&name) {
            return Known::Yes;
        }
        if self.old.contains(&name) {
            self.note(now, name);
            return Known::Yes;
        }
        match now < self.lost_until {
            true => Known::Perhaps,
            false => Known::No,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_noted_is_known_until_nobody_has_asked_for_long() {
        let mut shard = Shard::default();
        let hours = |hours: u64| Instant::default().after_ms(hours * 3_600_000);
        shard.note(hours(0), 1);
        shard.note(hours(0), 2);
        assert_eq!(shard.knows(hours(11), 1), Known::Yes);
        assert_eq!(shard.knows(hours(11), 3), Known::No);
        shard.note(hours(13), 4);
        assert_eq!(shard.knows(hours(13), 1), Known::Yes);
        shard.note(hours(26), 5);
        // Looked up, and so young again; the other one is gone without any loss.
        assert_eq!(shard.knows(hours(26), 1), Known::Yes);
        assert_eq!(shard.knows(hours(26), 2), Known::No);
    }

    #[test]
    fn what_was_noted_is_handed_over_with_the_doubt() {
        let (one, other) = (Moved::new(Key::new(1, 2)), Moved::new(Key::new(1, 2)));
        let now = Instant::from_ms(5);
        let names = |from: u64| (from..from + 1000).map(|name| name << 30);
        names(0).for_each(|name| one.lock(name).note(now, name));
        let mut all = Vec::new();
        assert!(!one.write_all(now, &mut all));
        assert_eq!(all.len(), 1000);
        other.take_over(now, &all, false);
        assert!(names(0).all(|name| other.lock(name).knows(now, name) == Known::Yes));
        assert!(names(1000).all(|name| other.lock(name).knows(now, name) == Known::No));
        one.lock(0).lost_until = now.after_ms(1);
        assert!(one.write_all(now, &mut all));
        other.take_over(now, &[], true);
        assert!(names(1000).all(|name| other.lock(name).knows(now, name) == Known::Perhaps));
    }

    #[test]
    fn there_is_a_bound_and_what_does_not_fit_is_not_denied() {
        let mut shard = Shard::default();
        let now = Instant::default();
        for name in 0..ROOM as u64 {
            shard.note(now, name);
        }
        shard.note(now, ROOM as u64);
        assert_eq!(shard.knows(now, 0), Known::Yes);
        assert_eq!(shard.knows(now, u64::MAX), Known::No);
        for name in 0..2 * ROOM as u64 {
            shard.note(now, 1_000_000 + name);
        }
        assert!(shard.young.len() + shard.old.len() <= 2 * ROOM);
        assert_eq!(shard.knows(now, u64::MAX), Known::Perhaps);
        assert_eq!(shard.knows(now, 1_000_000 + ROOM as u64), Known::Yes);
        let later = now.after_ms(2 * LIFE_MS);
        assert_eq!(shard.knows(later, u64::MAX), Known::No);
    }
}
