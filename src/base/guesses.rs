//! Wrong passwords and unknown users, counted for a minute each: of one source for one user, of one source for all users, and of
//! all sources for one user. Fixed-size tables shared by all cores; in a full set, the entry with the lowest count is replaced.
//!
//! A source counts only if it is known to be real: the other end of a connection, or an address that has answered a nonce sent to
//! it. A datagram that proves nothing counts against no source, and such datagrams have a separate limit for each user.

use super::source::source;
use super::{Instant, Key};
use crate::base::marks::Marks;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

/// How long an attempt counts, in seconds.
pub const WINDOW_S: u64 = 60;

/// One source may try this many times the limit at all users together, and so may all sources at one user.
pub const MANY: u32 = 10;

/// Each table holds four times as many names at a time.
const SETS: usize = 1 << 13;
const WAYS: usize = 4;

/// An entry is a tag, the second at which it began, and a count.
const COUNT_BITS: u32 = 16;
const COUNT: u64 = (1 << COUNT_BITS) - 1;
const SECOND_BITS: u32 = 24;
const SECOND: u64 = (1 << SECOND_BITS) - 1;
const TAG_SHIFT: u32 = COUNT_BITS + SECOND_BITS;

/// Four times as many places where a user's password was right are remembered; below, for how many seconds.
const KNOWN_SETS: usize = 1 << 15;
const KNOWN_S: u64 = 24 * 3600;

/// The limit that was reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bound {
    /// Of one source for one user.
    Pair,
    /// Of one source for all users.
    Source,
    /// Of all sources for one user.
    User,
    /// Of all unproved senders for one user.
    Unproved,
}

/// A password attempt: from where, and for which user.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Guess {
    /// [`Guesses::user`].
    pub user: u64,
    /// `None`: the sender's address is unproved.
    pub from: Option<SocketAddr>,
}

#[derive(Debug)]
pub struct Guesses {
    key: Key,
    pairs: Windows,
    sources: Windows,
    users: Windows,
    unproved: Windows,
    /// Users with the places, and with the addresses, where their passwords were right.
    known: Marks,
    /// Until then, in seconds, some limit may have been reached; afterwards no table is searched.
    reached_s: AtomicU64,
}

impl Guesses {
    pub fn new(key: Key) -> Guesses {
        Guesses {
            key: key.derive("guesses"),
            pairs: Windows::default(),
            sources: Windows::default(),
            users: Windows::default(),
            unproved: Windows::default(),
            known: Marks::new(KNOWN_SETS, KNOWN_S),
            reached_s: AtomicU64::new(0),
        }
    }

    /// Returns the hash of a user: the name as it is, or with `@` and the realm appended, whether or not the user exists.
    pub fn user(&self, login: &[u8], realm: &[u8]) -> u64 {
        let name = match memchr::memrchr(b'@', login) {
            Some(at) if login[at + 1..].eq_ignore_ascii_case(realm) => &login[..at],
            _ => login,
        };
        let mut lower = [0; 256];
        match lower.get_mut(..realm.len()) {
            Some(lower) => {
                lower.copy_from_slice(realm);
                lower.make_ascii_lowercase();
                self.key.hash(&[name, lower])
            }
            None => self.key.hash(&[name, realm]),
        }
    }

    /// Returns the limit that forbids checking this attempt, if any; `limit` is the wrong attempts a minute allowed to a pair.
    pub fn bound(&self, now: Instant, limit: u32, guess: &Guess) -> Option<Bound> {
        let now_s = second(now);
        if self.reached_s.load(Ordering::Relaxed) <= now_s {
            return None;
        }
        let many = limit.saturating_mul(MANY);
        let Some(peer) = guess.from else {
            let name = self.name(guess.user, 0, NOBODY);
            return (self.unproved.count(now_s, name) >= limit).then_some(Bound::Unproved);
        };
        let (pair, spraying, user) = self.names(guess.user, peer);
        if self.known.holds(now, self.place(guess.user, peer)) {
            return None;
        }
        if self.pairs.count(now_s, pair) >= limit {
            return Some(Bound::Pair);
        }
        let is_spraying = self.sources.count(now_s, spraying) >= many;
        if !is_spraying && self.users.count(now_s, user) < many {
            return None;
        }
        // Where the password was right recently it is still checked, whatever others do.
        let address = self.name(guess.user, source(peer.ip()), KNOWN);
        match (self.known.holds(now, address), is_spraying) {
            (true, _) => None,
            (false, true) => Some(Bound::Source),
            (false, false) => Some(Bound::User),
        }
    }

    /// Counts a wrong attempt. Returns the limit that it has reached, once a minute.
    pub fn wrong(&self, now: Instant, limit: u32, guess: &Guess) -> Option<Bound> {
        let now_s = second(now);
        let many = limit.saturating_mul(MANY);
        let reached = match guess.from {
            None => {
                let name = self.name(guess.user, 0, NOBODY);
                (self.unproved.add(now_s, name) == limit).then_some(Bound::Unproved)
            }
            Some(peer) => {
                let (pair, source, user) = self.names(guess.user, peer);
                // A sender that knew the password but no longer does is treated like any other.
                self.known.forget(self.place(guess.user, peer));
                let counts = [
                    (Bound::Pair, self.pairs.add(now_s, pair) == limit),
                    (Bound::Source, self.sources.add(now_s, source) == many),
                    (Bound::User, self.users.add(now_s, user) == many),
                ];
                let mut reached = counts.into_iter().filter(|(_, is_reached)| *is_reached);
                reached.next().map(|(bound, _)| bound)
            }
        };
        if reached.is_some() {
            self.reached_s.fetch_max(now_s + WINDOW_S, Ordering::Relaxed);
        }
        reached
    }

    /// Notes that the password was right, and the sender is real.
    pub fn right(&self, now: Instant, user: u64, peer: SocketAddr) {
        if self.known.mark(now, self.place(user, peer)) {
            let address = self.name(user, source(peer.ip()), KNOWN);
            self.known.mark(now, address);
        }
    }

    /// Returns the names of pair, source and user under which attempts are counted.
    fn names(&self, user: u64, peer: SocketAddr) -> (u64, u64, u64) {
        let source = source(peer.ip());
        let pair = self.name(user, source, PAIR);
        (pair, self.name(0, source, SOURCE), self.name(user, 0, USER))
    }

    /// A user at one address and port.
    fn place(&self, user: u64, peer: SocketAddr) -> u64 {
        let source = source(peer.ip());
        self.name(user, source, PLACE | u64::from(peer.port()) << 8)
    }

    fn name(&self, user: u64, source: u64, what: u64) -> u64 {
        self.key.hash_numbers(user, source, what)
    }
}

// The kinds of names.
const PAIR: u64 = 1;
const SOURCE: u64 = 2;
const USER: u64 = 3;
const NOBODY: u64 = 4;
const KNOWN: u64 = 5;
const PLACE: u64 = 6;

/// Counts that begin with the first attempt of a minute and expire with that minute.
#[derive(Debug)]
struct Windows {
    entries: Box<[AtomicU64]>,
}

impl Default for Windows {
    fn default() -> Windows {
        Windows { entries: (0..SETS * WAYS).map(|_| AtomicU64::new(0)).collect() }
    }
}

impl Windows {
    fn set(&self, name: u64) -> &[AtomicU64] {
        let first = name as usize % SETS * WAYS;
        self.entries.get(first..first + WAYS).unwrap_or(&[])
    }

    fn count(&self, now_s: u64, name: u64) -> u32 {
        let mut set = self.set(name).iter();
        let count = set.find_map(|entry| counted(entry.load(Ordering::Relaxed), now_s, name));
        count.unwrap_or(0)
    }

    /// Adds one and returns the new count.
    fn add(&self, now_s: u64, name: u64) -> u32 {
        let mut place: Option<(&AtomicU64, u32)> = None;
        for entry in self.set(name) {
            let value = entry.load(Ordering::Relaxed);
            if counted(value, now_s, name).is_some() {
                place = Some((entry, 0));
                break;
            }
            let weight = match is_over(value, now_s) {
                true => 0,
                false => (value & COUNT) as u32,
            };
            if place.is_none_or(|(_, least)| weight < least) {
                place = Some((entry, weight));
            }
        }
        let Some((entry, _)) = place else {
            return 0;
        };
        let mut count = 1;
        let _ = entry.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |value| {
            Some(match counted(value, now_s, name) {
                Some(before) if u64::from(before) < COUNT => {
                    count = before + 1;
                    value + 1
                }
                Some(before) => {
                    count = before;
                    value
                }
                None => {
                    count = 1;
                    tag(name) << TAG_SHIFT | (now_s & SECOND) << COUNT_BITS | 1
                }
            })
        });
        count
    }
}

/// Returns what an entry has counted for this name, if it is the name's entry and its minute is not over.
fn counted(value: u64, now_s: u64, name: u64) -> Option<u32> {
    let is_ours = value >> TAG_SHIFT == tag(name) && !is_over(value, now_s);
    is_ours.then_some((value & COUNT) as u32)
}

fn is_over(value: u64, now_s: u64) -> bool {
    let began = value >> COUNT_BITS & SECOND;
    value & COUNT == 0 || now_s.wrapping_sub(began) & SECOND >= WINDOW_S
}

fn tag(name: u64) -> u64 {
    name >> TAG_SHIFT
}

fn second(now: Instant) -> u64 {
    now.as_ms() / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u32 = 10;

    fn at(s: u64) -> Instant {
        Instant::from_ms(s * 1000)
    }

    fn guess(guesses: &Guesses, user: &str, from: &str) -> Guess {
        Guess { user: guesses.user(user.as_bytes(), b"example.com"), from: (!from.is_empty()).then(|| from.parse().unwrap()) }
    }

    /// Tries until attempts are no longer checked; returns how many that took, and the limits reported.
    fn tries(guesses: &Guesses, s: u64, user: &str, from: &str) -> (usize, Vec<Bound>) {
        let guess = guess(guesses, user, from);
        let (mut looked_at, mut said) = (0, Vec::new());
        for _ in 0..1000 {
            if guesses.bound(at(s), LIMIT, &guess).is_none() {
                looked_at += 1;
                said.extend(guesses.wrong(at(s), LIMIT, &guess));
            }
        }
        (looked_at, said)
    }

    #[test]
    fn a_pair_has_ten_a_minute() {
        let guesses = Guesses::new(Key::new(1, 2));
        let from = "192.0.2.1:5060";
        assert_eq!(tries(&guesses, 100, "bob", from), (10, vec![Bound::Pair]));
        for (user, other) in [("bob", "192.0.2.1:9"), ("bob", "[::ffff:192.0.2.1]:5060"), ("bob@EXAMPLE.com", from)] {
            assert_eq!(tries(&guesses, 101, user, other).0, 0, "{user} {other}");
        }
        assert_eq!(tries(&guesses, 102, "bob", "192.0.2.2:5060").0, 10);
        assert_eq!(tries(&guesses, 103, "alice", from).0, 10);
        assert_eq!(tries(&guesses, 104, "bob", "[2001:db8::1]:1").0, 10);
        assert_eq!(tries(&guesses, 104, "bob", "[2001:db8::2]:1").0, 0);
        assert_eq!(tries(&guesses, 159, "bob", from).0, 0);
        assert_eq!(tries(&guesses, 160, "bob", from), (10, vec![Bound::Pair]));
    }

    #[test]
    fn a_source_has_a_hundred_for_all_users() {
        let guesses = Guesses::new(Key::new(1, 2));
        let mut sum = 0;
        for number in 0..1000 {
            let guess = guess(&guesses, &format!("u{number}"), "192.0.2.1:5060");
            if guesses.bound(at(9), LIMIT, &guess).is_none() {
                sum += 1;
                guesses.wrong(at(9), LIMIT, &guess);
            }
        }
        assert_eq!(sum, 100);
    }

    #[test]
    fn a_user_has_a_hundred_from_everywhere_and_itself_any_number() {
        let guesses = Guesses::new(Key::new(1, 2));
        let user = guesses.user(b"bob", b"example.com");
        let home = "198.51.100.1:5060";
        guesses.right(at(1), user, home.parse().unwrap());
        let mut sum = 0;
        for number in 0..50_000u32 {
            let from = format!("{}:5060", std::net::Ipv4Addr::from(number + (1 << 24)));
            let guess = guess(&guesses, "bob", &from);
            if guesses.bound(at(9), LIMIT, &guess).is_none() {
                sum += 1;
                guesses.wrong(at(9), LIMIT, &guess);
            }
        }
        assert_eq!(sum, 100);
        let bound = |from| guesses.bound(at(10), LIMIT, &guess(&guesses, "bob", from));
        assert_eq!(bound(home), None);
        assert_eq!(bound("198.51.100.1:9"), None, "its address has another port");
        assert_eq!(bound("198.51.100.2:5060"), Some(Bound::User));
        // A neighbour behind the same address may not keep guessing, and does not shut the user out.
        assert_eq!(tries(&guesses, 11, "bob", "198.51.100.1:7777").0, 10);
        assert_eq!(bound(home), None);
        // A sender that knew the password but no longer does is treated like any other.
        assert_eq!(tries(&guesses, 12, "bob", home).0, 1);
    }

    #[test]
    fn what_proves_nothing_counts_against_nobody_else() {
        let guesses = Guesses::new(Key::new(1, 2));
        assert_eq!(tries(&guesses, 5, "bob", ""), (10, vec![Bound::Unproved]));
        assert_eq!(tries(&guesses, 6, "bob", "192.0.2.1:5060").0, 10);
        assert_eq!(tries(&guesses, 6, "alice", "").0, 10);
    }

    #[test]
    fn many_names_do_not_push_out_one_that_is_tried_often() {
        let guesses = Guesses::new(Key::new(1, 2));
        assert_eq!(tries(&guesses, 5, "bob", "192.0.2.1:5060").0, 10);
        for number in 0..300_000u64 {
            let other = Guess { user: number, from: Some(SocketAddr::from(([10, 0, (number >> 8) as u8, number as u8], 9))) };
            guesses.wrong(at(6), LIMIT, &other);
        }
        assert_eq!(tries(&guesses, 7, "bob", "192.0.2.1:5060").0, 0);
    }
}
