//! Which sources are heard: how many requests each has sent lately, and which are banned. Fixed-size tables for all cores that cost
//! a request a few atomic operations before any of it is read.
//!
//! Datagrams can be sent with a forged source address. So datagrams from places that have not proved to hear us, datagrams from
//! places that have, and what arrives on connections are counted separately: forging an address takes nothing from the other two.

use super::bans::Sure;
use super::source::source;
use super::{Bans, Guesses, Instant, Key, Network, Proved, Rates};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{PoisonError, RwLock};

/// The ports of an address are divided into this many parts: beyond what the address may send, each part may send an eighth of it.
/// A flood from one port leaves the ports of the other parts their allowance.
const PARTS: u64 = 8;

/// A banned address that might have been forged may send this many REGISTERs a second from each part of its ports: with one that is
/// challenged and one that answers, the owner proves that it is there, and is heard.
const KNOCKS: u32 = 2;

/// Limits what each source sends: an IPv4 address, or an IPv6 /64 network, which is assumed to belong to one host.
#[derive(Debug)]
pub struct Sources {
    key: Key,
    /// Requests a second; 0: no limit.
    limit: AtomicU32,
    unproved: Rates,
    proved_rates: Rates,
    bans: Bans,
    /// Sources without any limit.
    trusted: RwLock<Vec<Network>>,
    /// The places that have proved to hear us.
    pub proved: Proved,
    /// Wrong passwords.
    pub guesses: Guesses,
    /// Request rates of each user, and for each address-of-record.
    pub users: Rates,
    aors: Rates,
}

/// The verdict on a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hearing {
    Heard,
    /// It is one too many.
    TooMany,
    /// It is one too many, and its source is banned for it from now on.
    BanBegins(Sure),
    /// Its source is banned.
    Banned,
}

/// A question about a datagram whose address alone does not get it read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Question {
    IsRegister,
    /// Does it bear a nonce of ours that was sent to its address? A forger of the address has none.
    BearsNonce,
    /// Does it bear the cookie of a dialog? Only parties to the dialog have one, whatever address they use.
    BearsCookie,
}

/// How a request arrived, which determines how certain its source is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    /// A datagram from a place that has proved nothing.
    Unproved = 0,
    /// A datagram from a place that has proved to hear us.
    Proved = 1,
    Stream = 2,
}

impl Sources {
    /// `limit`: requests a second from each source; 0: any number.
    pub fn new(key: Key, limit: u32) -> Sources {
        Sources {
            key: key.derive("sources"),
            limit: AtomicU32::new(limit),
            unproved: Rates::default(),
            proved_rates: Rates::default(),
            bans: Bans::default(),
            trusted: RwLock::default(),
            proved: Proved::new(key),
            guesses: Guesses::new(key),
            users: Rates::default(),
            aors: Rates::default(),
        }
    }

    /// Returns how many requests a second each source may send; 0: any number.
    pub fn limit(&self) -> u32 {
        self.limit.load(Ordering::Relaxed)
    }

    /// Sets a new limit, valid at once.
    pub fn set_limit(&self, limit: u32) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// Sets how long a source that exceeds its limit is banned, in milliseconds; 0 disables bans and lifts existing ones.
    pub fn set_ban_ms(&self, ms: u64) {
        self.bans.set_lasts_ms(ms);
    }

    pub fn ban_ms(&self) -> u64 {
        self.bans.lasts_ms()
    }

    /// Sets the networks that no limit and no ban applies to.
    pub fn set_trusted(&self, networks: Vec<Network>) {
        *self.trusted.write().unwrap_or_else(PoisonError::into_inner) = networks;
    }

    pub fn is_trusted(&self, ip: IpAddr) -> bool {
        let trusted = self.trusted.read().unwrap_or_else(PoisonError::into_inner);
        trusted.iter().any(|network| network.contains(ip))
    }

    /// True if there is no limit and no ban.
    pub fn hears_all(&self, now: Instant) -> bool {
        self.limit() == 0 && self.bans.is_empty(now)
    }

    /// Counts a request from `peer` and returns whether it is read. `look` answers questions about it, which are asked only of
    /// datagrams, and only if the answer matters.
    pub fn hear(&self, now: Instant, peer: SocketAddr, by_stream: bool, mut look: impl FnMut(Question) -> bool) -> Hearing {
        if self.hears_all(now) {
            return Hearing::Heard;
        }
        let way = match by_stream {
            true => Way::Stream,
            false if self.proved.knows(now, peer) => Way::Proved,
            false => Way::Unproved,
        };
        if !self.bans.is_empty(now) && self.is_banned_by(now, peer, way) && !self.is_trusted(peer.ip()) {
            let knocks = way == Way::Unproved
                && !self.is_banned_by(now, peer, Way::Proved)
                && (self.is_vouched_for(now, peer, &mut look)
                    || look(Question::IsRegister) && self.unproved.admit(now, self.name(peer, KNOCK, part(peer)), KNOCKS));
            return match knocks {
                true => Hearing::Heard,
                false => Hearing::Banned,
            };
        }
        if self.admits(now, peer, way) || self.is_trusted(peer.ip()) {
            return Hearing::Heard;
        }
        if way != Way::Stream && self.is_vouched_for(now, peer, &mut look) {
            return Hearing::Heard;
        }
        let sure = match way {
            Way::Stream => Sure::Yes,
            // A sender that knows its port can forge it, so a ban could be provoked by a forger. Nor is the flood a burden: over
            // the limit it is dropped just as cheaply.
            Way::Proved => return Hearing::TooMany,
            Way::Unproved => Sure::No,
        };
        match self.bans.begin(now, self.name(peer, BAN, 0), sure) {
            true => Hearing::BanBegins(sure),
            false => Hearing::TooMany,
        }
    }

    /// Bans a source that is known to be real. Returns false if it is already banned or trusted, or bans are disabled.
    pub fn ban(&self, now: Instant, peer: SocketAddr) -> bool {
        self.ban_ms() > 0 && !self.is_trusted(peer.ip()) && self.bans.begin(now, self.name(peer, BAN, 0), Sure::Yes)
    }

    /// True if connections from there are not accepted.
    pub fn is_banned(&self, now: Instant, peer: SocketAddr) -> bool {
        !self.bans.is_empty(now) && self.is_banned_by(now, peer, Way::Stream) && !self.is_trusted(peer.ip())
    }

    /// Returns how many sources are banned.
    pub fn banned(&self, now: Instant) -> usize {
        self.bans.count(now)
    }

    fn is_banned_by(&self, now: Instant, peer: SocketAddr, way: Way) -> bool {
        let name = self.name(peer, BAN, 0);
        self.bans.holds(now, name, Sure::Yes) || (way == Way::Unproved && self.bans.holds(now, name, Sure::No))
    }

    fn admits(&self, now: Instant, peer: SocketAddr, way: Way) -> bool {
        let limit = self.limit();
        if limit == 0 {
            return true;
        }
        let rates = match way {
            Way::Unproved => &self.unproved,
            Way::Proved | Way::Stream => &self.proved_rates,
        };
        rates.admit(now, self.name(peer, way as u64, 0), limit)
            || (way != Way::Stream && {
                let part = self.name(peer, way as u64, part(peer));
                rates.admit(now, part, limit / PARTS as u32)
            })
    }

    /// True if a datagram whose address alone does not get it read contains what a forger of that address does not have. What
    /// nonces and cookies admit is limited too, each separately, like the address itself: a phone that floods has both.
    fn is_vouched_for(&self, now: Instant, peer: SocketAddr, look: &mut impl FnMut(Question) -> bool) -> bool {
        let limit = self.limit();
        let shows = [(Question::BearsNonce, NONCE), (Question::BearsCookie, COOKIE)];
        limit > 0
            && shows
                .into_iter()
                .any(|(question, what)| look(question) && self.proved_rates.admit(now, self.name(peer, what, 0), limit))
    }

    /// Counts a new request for an address-of-record, with `limit` a second permitted.
    pub fn admits_for(&self, now: Instant, aor: &[u8], limit: u32) -> bool {
        limit == 0 || self.aors.admit(now, self.key.hash(&[aor]), limit)
    }

    fn name(&self, peer: SocketAddr, what: u64, part: u64) -> u64 {
        self.key.hash_numbers(source(peer.ip()), what, part)
    }
}

// The purpose of a name, in addition to the ways.
const BAN: u64 = 3;
const KNOCK: u64 = 4;
const NONCE: u64 = 5;
const COOKIE: u64 = 6;

/// Returns the part of its address's ports that this port belongs to, from 1. Adjacent ports belong to different parts.
fn part(peer: SocketAddr) -> u64 {
    1 + u64::from(peer.port()) % PARTS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn heard(sources: &Sources, now_ms: u64, from: &str, by_stream: bool, requests: usize) -> usize {
        let now = Instant::from_ms(now_ms);
        let hear = |_: &usize| sources.hear(now, peer(from), by_stream, |_| false) == Hearing::Heard;
        (0..requests).filter(hear).count()
    }

    /// By UDP, from a place that has proved nothing.
    fn admitted(sources: &Sources, now_ms: u64, from: &str, requests: usize) -> usize {
        heard(sources, now_ms, from, false, requests)
    }

    #[test]
    fn a_second_of_requests_at_once_and_then_the_rate() {
        let sources = Sources::new(Key::new(1, 2), 40);
        assert_eq!(admitted(&sources, 1000, "192.0.2.1:5060", 1000), 40 + 5);
        assert_eq!(admitted(&sources, 1024, "192.0.2.1:5060", 1000), 0);
        assert_eq!(admitted(&sources, 1025, "192.0.2.1:5060", 1000), 1);
        assert_eq!(admitted(&sources, 1525, "192.0.2.1:5060", 1000), 20 + 2);
        // Refused requests do not count: continuing to send does not prolong the refusal.
        assert_eq!(admitted(&sources, 9000, "192.0.2.1:5060", 1000), 45);
        // For streams, ports make no difference.
        assert_eq!(heard(&sources, 9000, "192.0.2.1:5060", true, 1000), 40);
        assert_eq!(heard(&sources, 9000, "192.0.2.1:9999", true, 1000), 0);
    }

    #[test]
    fn a_source_is_an_address_or_a_network_of_ipv6() {
        let sources = Sources::new(Key::new(1, 2), 16);
        let count = |from| admitted(&sources, 5000, from, 40);
        assert_eq!(count("192.0.2.1:5060"), 18);
        assert_eq!(count("192.0.2.1:6004"), 0, "of the same part");
        assert_eq!(count("[::ffff:192.0.2.1]:5060"), 0);
        assert_eq!(count("192.0.2.2:5060"), 18);
        assert_eq!(count("[2001:db8:0:1::1]:5060"), 18);
        assert_eq!(count("[2001:db8:0:1:ffff::2]:5060"), 0);
        assert_eq!(count("[2001:db8:0:2::1]:5060"), 18);
        assert_eq!(count("[::1]:5060"), 18);
    }

    #[test]
    fn a_flood_from_one_port_leaves_the_others_a_share() {
        let sources = Sources::new(Key::new(1, 2), 40);
        assert_eq!(admitted(&sources, 5000, "192.0.2.1:5060", 10_000), 45);
        for port in 5061..5068 {
            let from = format!("192.0.2.1:{port}");
            assert_eq!(admitted(&sources, 5000, &from, 10_000), 5, "{from}");
        }
        // All ports together have twice the limit.
        let all = |port: u16| admitted(&sources, 9000, &format!("192.0.2.1:{port}"), 10);
        assert_eq!((1000..9000).map(all).sum::<usize>(), 80);
    }

    #[test]
    fn who_forges_an_address_takes_nothing_from_what_is_proved() {
        let sources = Sources::new(Key::new(1, 2), 80);
        let owner = "192.0.2.1:5060";
        sources.proved.note(Instant::from_ms(1), peer(owner));
        for s in 1..=10 {
            for port in 10_000..12_000 {
                admitted(&sources, s * 1000, &format!("192.0.2.1:{port}"), 2);
            }
            assert_eq!(admitted(&sources, s * 1000, owner, 72), 72, "second {s}");
            assert_eq!(heard(&sources, s * 1000, "192.0.2.1:7", true, 72), 72);
        }
    }

    #[test]
    fn who_floods_by_a_connection_is_banned_by_every_way() {
        let sources = Sources::new(Key::new(1, 2), 10);
        sources.set_ban_ms(60_000);
        let from = peer("192.0.2.1:9");
        let now = Instant::from_ms(1000);
        sources.proved.note(now, peer("192.0.2.1:5060"));
        let outcomes: Vec<_> = (0..13).map(|_| sources.hear(now, from, true, |_| false)).collect();
        assert_eq!(outcomes[..10], [Hearing::Heard; 10]);
        assert_eq!(outcomes[10], Hearing::BanBegins(Sure::Yes));
        assert_eq!(outcomes[11..], [Hearing::Banned; 2]);
        assert!(sources.is_banned(now, peer("[::ffff:192.0.2.1]:77")));
        for (way, by_stream) in [("192.0.2.1:5060", false), ("192.0.2.1:8", false), ("192.0.2.1:8", true)] {
            let hear = |ms| sources.hear(Instant::from_ms(ms), peer(way), by_stream, |_| true);
            assert_eq!(hear(60_999), Hearing::Banned, "{way}");
            assert_eq!(hear(61_000), Hearing::Heard, "{way}");
        }
        assert_eq!(sources.banned(now), 1);
        assert!(!sources.is_banned(now, peer("192.0.2.2:9")));
    }

    #[test]
    fn who_forges_an_address_bans_neither_what_is_proved_nor_who_comes_to_prove() {
        let sources = Sources::new(Key::new(1, 2), 10);
        sources.set_ban_ms(60_000);
        let at = Instant::from_ms;
        let registers = |question| question == Question::IsRegister;
        sources.proved.note(at(1), peer("192.0.2.1:5060"));
        let mut begun = 0;
        for port in 10_000..10_100 {
            let from = peer(&format!("192.0.2.1:{port}"));
            let outcome = sources.hear(at(1000), from, false, |_| false);
            begun += usize::from(outcome == Hearing::BanBegins(Sure::No));
        }
        assert_eq!(begun, 1);
        let stranger = peer("192.0.2.1:5070");
        assert_eq!(sources.hear(at(9000), stranger, false, |_| false), Hearing::Banned);
        assert_eq!(admitted(&sources, 9000, "192.0.2.1:5060", 10), 10);
        assert_eq!(heard(&sources, 9000, "192.0.2.1:5070", true, 10), 10);
        assert!(!sources.is_banned(at(9000), stranger));
        // Its owner registers from another port, and is challenged; a flood from one port cannot prevent that.
        for _ in 0..100 {
            let forged = peer("192.0.2.1:5071");
            sources.hear(at(9000), forged, false, registers);
        }
        for (ms, hearing) in [(9000, Hearing::Heard), (9000, Hearing::Heard), (9100, Hearing::Banned), (9500, Hearing::Heard)] {
            assert_eq!(sources.hear(at(ms), stranger, false, registers), hearing);
        }
        sources.proved.note(at(10_000), stranger);
        assert_eq!(sources.hear(at(10_000), stranger, false, |_| false), Hearing::Heard);
        // A flood from a proved place, which others may forge, is limited and bans nothing.
        let flood: Vec<_> = (0..100).map(|_| sources.hear(at(20_000), stranger, false, |_| false)).collect();
        assert!(flood[20..].iter().all(|one| *one == Hearing::TooMany));
        assert_eq!(sources.banned(at(20_000)), 1);
    }

    #[test]
    fn whoever_forges_an_address_with_its_port_takes_nothing_from_what_bears_a_nonce_or_a_cookie() {
        let sources = Sources::new(Key::new(1, 2), 40);
        sources.set_ban_ms(60_000);
        let (owner, mut now) = (peer("192.0.2.1:5060"), Instant::from_ms(1000));
        let heard = |now, bears, times| {
            let hear = || sources.hear(now, owner, false, |question| question == bears);
            (0..times).filter(|_| hear() == Hearing::Heard).count()
        };
        for proves in [false, true] {
            if proves {
                sources.proved.note(now, owner);
            }
            for _ in 0..10 {
                now = now.after_ms(1000);
                heard(now, Question::IsRegister, 1000);
                // Each has its own limit, whatever the other uses.
                assert_eq!(heard(now, Question::BearsCookie, 1000), 40);
                assert_eq!(heard(now, Question::BearsNonce, 1000), 40);
                assert_eq!(heard(now, Question::IsRegister, 100), 0);
            }
            now = now.after_ms(100_000);
        }
        // A certain ban holds, whatever the datagram bears.
        sources.ban(now, owner);
        assert_eq!(heard(now, Question::BearsNonce, 10), 0);
    }

    #[test]
    fn who_is_trusted_is_neither_limited_nor_banned() {
        let sources = Sources::new(Key::new(1, 2), 10);
        sources.set_ban_ms(60_000);
        let network = |address: &str, prefix| Network { address: address.parse().unwrap(), prefix };
        sources.set_trusted(vec![network("192.0.2.0", 24), network("2001:db8::", 32)]);
        for from in ["192.0.2.7:1", "[::ffff:192.0.2.7]:1", "[2001:db8:1::7]:1"] {
            assert_eq!(admitted(&sources, 1000, from, 500), 500, "{from}");
            assert_eq!(heard(&sources, 1000, from, true, 500), 500, "{from}");
            assert!(!sources.ban(Instant::from_ms(1000), peer(from)));
        }
        assert_eq!(sources.banned(Instant::from_ms(1000)), 0);
        // A banned source is heard as soon as it is trusted.
        assert!(heard(&sources, 1000, "198.51.100.1:1", true, 500) < 20);
        sources.set_trusted(vec![network("198.51.100.1", 32)]);
        assert_eq!(heard(&sources, 1001, "198.51.100.1:1", true, 500), 500);
        assert!(!sources.is_banned(Instant::from_ms(1001), peer("198.51.100.1:1")));
    }

    #[test]
    fn many_sources_do_not_share_and_too_many_share_a_few() {
        let sources = Sources::new(Key::new(3, 4), 2);
        let now = Instant::from_ms(1000);
        let from = |number: u32| SocketAddr::new(IpAddr::V4(number.into()), 5060);
        let hear = |number| sources.hear(now, from(number), false, |_| false) == Hearing::Heard;
        let taken = |number: u32| (0..4).filter(|_| hear(number)).count();
        let whole = (1..=5_000).filter(|number| taken(*number) == 3).count();
        assert!(whole > 4_900, "{whole} of 5,000 have their two, and one for the part");
        // A flood from more addresses than there is room for is bounded by the table alone.
        let flood: usize = (1 << 24..(1 << 24) + 400_000).map(taken).sum();
        assert!(flood <= 2 * Rates::NAMES, "{flood}");
    }

    #[test]
    fn no_limit_and_another() {
        let sources = Sources::new(Key::new(5, 6), 0);
        assert_eq!(admitted(&sources, 0, "192.0.2.1:5060", 5000), 5000);
        sources.set_limit(100_000);
        assert_eq!(admitted(&sources, 1, "192.0.2.1:5060", 200_000), 112_500);
        sources.set_limit(0);
        assert_eq!(admitted(&sources, 1, "192.0.2.1:1", 7), 7);
    }
}
