//! How many requests each source has sent lately: one table for all cores, of a fixed size, that costs a request one or two atomic
//! operations before anything of it is read.

use super::{Instant, Key, Proved};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Sources that can be told apart at a time are four times as many. Where more are busy, some share what one may send.
const SETS: usize = 1 << 14;
/// Entries of a set: one cache line has two sets.
const WAYS: usize = 4;

/// A source may send what a second allows at once.
const BURST_US: u64 = 1_000_000;

/// The low bits of an entry are a time, the high ones tell its source from others of the set.
const TIME_BITS: u32 = 48;
const TIME: u64 = (1 << TIME_BITS) - 1;

/// Limits the requests of each source: an IPv4 address, or an IPv6 network of 64 bits, which one host has to itself.
///
/// Each entry is the time, microseconds, at which the requests so far would have come at the rate that is allowed (the generic cell
/// rate algorithm): a request is taken while that time is less than a second ahead.
#[derive(Debug)]
pub struct Sources {
    key: Key,
    /// Requests a second; 0: no limit.
    limit: AtomicU32,
    entries: Box<[AtomicU64]>,
    /// Those that have shown that they hear us.
    pub proved: Proved,
}

impl Sources {
    /// `limit` requests a second from each source; 0: any number.
    pub fn new(key: Key, limit: u32) -> Sources {
        Sources {
            key: key.derive("sources"),
            limit: AtomicU32::new(limit),
            entries: (0..SETS * WAYS).map(|_| AtomicU64::new(0)).collect(),
            proved: Proved::new(key),
        }
    }

    /// Requests a second that each source may send; 0: any number.
    pub fn limit(&self) -> u32 {
        self.limit.load(Ordering::Relaxed)
    }

    /// Another limit, valid at once.
    pub fn set_limit(&self, limit: u32) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// Counts a request from `peer`. False: it is one too many.
    pub fn admits(&self, now: Instant, peer: SocketAddr) -> bool {
        let limit = u64::from(self.limit());
        if limit == 0 {
            return true;
        }
        let cost = (BURST_US / limit).max(1);
        let now = (now.as_ms() * 1000) & TIME;
        let hash = self.key.hash_numbers(source(peer.ip()), 0, 0);
        // Never 0: an entry that nobody has used belongs to nobody.
        let tag = (hash >> TIME_BITS).max(1) << TIME_BITS;
        let first = hash as usize % SETS * WAYS;
        let Some(set) = self.entries.get(first..first + WAYS) else {
            return true;
        };
        let entry = place(set, tag, now);
        let mut admitted = false;
        let _ = entry.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |before| {
            let spent = (before & TIME).max(now);
            admitted = spent + cost <= now + BURST_US;
            admitted.then_some(tag | ((spent + cost) & TIME))
        });
        admitted
    }
}

/// The entry of the source with this tag: its own, else one that has been quiet for as long as it takes to be forgotten, else the one
/// that will be so first.
fn place(set: &[AtomicU64], tag: u64, now: u64) -> &AtomicU64 {
    let mut oldest = &set[0];
    let mut oldest_time = u64::MAX;
    for entry in set {
        let value = entry.load(Ordering::Relaxed);
        if value & !TIME == tag {
            return entry;
        }
        let time = (value & TIME).max(now);
        if time < oldest_time {
            (oldest, oldest_time) = (entry, time);
        }
    }
    oldest
}

/// What counts as one source.
fn source(ip: IpAddr) -> u64 {
    match ip.to_canonical() {
        IpAddr::V4(ip) => u64::from(u32::from(ip)),
        // Networks of IPv6 that begin with zeros are not in use for hosts, but for the loopback.
        IpAddr::V6(ip) => (u128::from(ip) >> 64) as u64 | 1 << 63,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn admitted(sources: &Sources, now_ms: u64, from: &str, requests: usize) -> usize {
        let now = Instant::from_ms(now_ms);
        let taken = |_: &usize| sources.admits(now, peer(from));
        (0..requests).filter(taken).count()
    }

    #[test]
    fn a_second_of_requests_at_once_and_then_the_rate() {
        let sources = Sources::new(Key::new(1, 2), 50);
        assert_eq!(admitted(&sources, 1000, "192.0.2.1:5060", 1000), 50);
        assert_eq!(admitted(&sources, 1019, "192.0.2.1:5060", 1000), 0);
        assert_eq!(admitted(&sources, 1020, "192.0.2.1:5060", 1000), 1);
        assert_eq!(admitted(&sources, 1520, "192.0.2.1:5060", 1000), 25);
        // What was refused does not count: nobody is shut out by going on to send.
        assert_eq!(admitted(&sources, 9000, "192.0.2.1:5060", 1000), 50);
    }

    #[test]
    fn a_source_is_an_address_or_a_network_of_ipv6_whatever_the_port() {
        let sources = Sources::new(Key::new(1, 2), 10);
        let count = |from| admitted(&sources, 5000, from, 20);
        assert_eq!(count("192.0.2.1:5060"), 10);
        assert_eq!(count("192.0.2.1:6000"), 0);
        assert_eq!(count("[::ffff:192.0.2.1]:5060"), 0);
        assert_eq!(count("192.0.2.2:5060"), 10);
        assert_eq!(count("[2001:db8:0:1::1]:5060"), 10);
        assert_eq!(count("[2001:db8:0:1:ffff::2]:5060"), 0);
        assert_eq!(count("[2001:db8:0:2::1]:5060"), 10);
        assert_eq!(count("[::1]:5060"), 10);
    }

    #[test]
    fn many_sources_do_not_share_and_too_many_share_a_few() {
        let sources = Sources::new(Key::new(3, 4), 2);
        let now = Instant::from_ms(1000);
        let from = |number: u32| SocketAddr::new(IpAddr::V4(number.into()), 5060);
        let taken = |number: u32| (0..3).filter(|_| sources.admits(now, from(number))).count();
        let whole = (1..=10_000).filter(|number| taken(*number) == 2).count();
        assert!(whole > 9_900, "{whole} of 10,000 have their two");
        // A flood from more addresses than there is room for: bounded by the table, and by nothing else.
        let flood: usize = (1 << 24..(1 << 24) + 400_000).map(taken).sum();
        assert!(flood <= 2 * SETS * WAYS, "{flood}");
    }

    #[test]
    fn no_limit_and_another() {
        let sources = Sources::new(Key::new(5, 6), 0);
        assert_eq!(admitted(&sources, 0, "192.0.2.1:5060", 5000), 5000);
        sources.set_limit(100_000);
        assert_eq!(admitted(&sources, 1, "192.0.2.1:5060", 200_000), 100_000);
        sources.set_limit(0);
        assert!(sources.admits(Instant::from_ms(1), peer("192.0.2.1:1")));
    }
}
