//! Stateless nonces (RFC 7616 §5.4): the time, the run and a keyed check, so that they cannot run out and are valid on every core.
//! State begins with the first request that uses one: a window of the counts received (RFC 7616 §3.4, `nc`), so that no request is
//! accepted twice.
//!
//! The check covers when the nonce was made, in which run of the server, for which realm, and to which address it was sent. It
//! proves that we made the nonce then, but nothing about its user: the accompanying credentials do that. If it comes back from the
//! address that it was sent to, its sender receives what is sent there ([`Nonces::is_from`]); from elsewhere it is equally valid,
//! because a phone's address may change. A nonce of an earlier run is stale, because that run's counts are lost. Time is counted
//! from the start of the run, so no step of the machine's clock makes an old nonce young.
//!
//! If other servers share the secret ([`Nonces::shared`]), time is counted from 1970, by the clock as it was at the start, and
//! their nonces are good here too, under two conditions. They must come from the address that they were sent to: here nobody knows
//! which counts were used there, so whoever has overheard an answer could use it once more. And they must be younger than this run:
//! an older one may be of an earlier run of this server, and used here.

use crate::base::hash::{read_hex, write_hex, write_hex_digits};
use crate::base::proved::words;
use crate::base::{BuildPrehashed, Key};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard};

/// Hexadecimal digits of the time and serial number, of the run, of the challenged address, and of the check.
const NUMBER_LEN: usize = 16;
const RUN_LEN: usize = 8;
const PLACE_LEN: usize = 8;
const CHECK_LEN: usize = 16;

/// Bits of a nonce's number below the milliseconds: 6 for the core, 14 for a count.
const SERIAL_BITS: u32 = 20;
const COUNT_BITS: u32 = 14;

/// Another core may have read the clock slightly later.
const AHEAD_MS: u64 = 5_000;

/// Counts below the highest that are still accepted: a client's requests can overtake each other.
const WINDOW: u32 = 64;

/// Requests per nonce that are recognised when they are repeated.
const REMEMBERED: usize = 4;

const SHARDS: usize = 64;

/// What a nonce is worth.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    Good(Nonce),
    /// Ours, but too old, or of another run whose nonces are not good here.
    Stale,
    /// Not ours.
    Foreign,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Nonce {
    /// When it was made, and what makes it differ from others of its run.
    number: u64,
    /// A hash of the address that it was sent to.
    place: u32,
    /// Identifies it among those of all runs.
    window: u64,
    /// Which secret it was made with; 0: the first.
    secret: u8,
}

impl Nonce {
    fn made_ms(self) -> u64 {
        self.number >> SERIAL_BITS
    }
}

/// The result of using a nonce.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Use {
    /// This count has not been used before.
    First,
    /// The same request again: a retransmission.
    Again,
    /// The count was used by another request, or is too far behind.
    Replayed,
    /// Too much has happened since: it is unknown whether the count was used before.
    Forgotten,
}

/// All nonces of a server, shared by its cores.
pub struct Nonces {
    key: Key,
    requests: Key,
    /// Distinguishes this run of the server from others with the same secret.
    run: u32,
    /// `None`: no other server's nonces are good here.
    sharing: Option<Sharing>,
    /// The keys of the secrets besides the first: nothing new is made with them.
    others: Vec<Key>,
    shards: Box<[Mutex<Shard>]>,
}

/// How time is counted if other servers share the secret.
#[derive(Clone, Copy)]
struct Sharing {
    /// The time since 1970 at the start, in milliseconds.
    wall_ms: u64,
    /// When this run began to make nonces, since 1970.
    begun_ms: u64,
}

impl Nonces {
    /// Creates it. `run` differs from that of every earlier run. At least `windows` nonces in use are remembered, at most twice as
    /// many.
    pub fn new(secret: Key, run: u32, windows: usize) -> Nonces {
        let room = windows.div_ceil(SHARDS).max(1);
        Nonces {
            key: nonce_key(&secret),
            requests: secret.derive("authorised request"),
            run,
            sharing: None,
            others: Vec::new(),
            shards: (0..SHARDS).map(|_| Mutex::new(Shard::new(room))).collect(),
        }
    }

    /// Accepts the nonces of other servers with the same secret. `wall_ms` is the time since 1970 at the start, and `now_ms` the time
    /// since then.
    pub fn shared(mut self, wall_ms: u64, now_ms: u64) -> Nonces {
        self.sharing = Some(Sharing { wall_ms, begun_ms: wall_ms + now_ms });
        self
    }

    /// Recognises nonces that were made with these secrets.
    pub fn accepting(mut self, others: &[Key]) -> Nonces {
        self.others = others.iter().map(nonce_key).collect();
        self
    }

    /// Returns the time as nonces count it.
    fn time(&self, now_ms: u64) -> u64 {
        now_ms + self.sharing.map_or(0, |sharing| sharing.wall_ms)
    }

    /// Returns the identifier of this run.
    pub fn run(&self) -> u32 {
        self.run
    }

    /// Writes a new nonce. `now_ms` is the time since the start; `count` differs from the core's recent ones. `to` is the address
    /// that it is sent to.
    pub fn write(&self, now_ms: u64, core: u8, count: u32, realm: &[u8], to: IpAddr, out: &mut Vec<u8>) {
        let serial = u64::from(core & 63) << COUNT_BITS | u64::from(count) & ((1 << COUNT_BITS) - 1);
        let number = self.time(now_ms) << SERIAL_BITS | serial;
        let nonce = Nonce { number, place: place_of(&self.key, number, to), window: number, secret: 0 };
        write_hex(number, out);
        write_hex_digits(u64::from(self.run), RUN_LEN, out);
        write_hex_digits(u64::from(nonce.place), PLACE_LEN, out);
        write_hex(check(&self.key, nonce, self.run, realm), out);
    }

    /// Returns whether a nonce was sent to this address: a sender that answers it from there receives what we send.
    pub fn is_from(&self, nonce: Nonce, source: IpAddr) -> bool {
        let key = match nonce.secret.checked_sub(1) {
            None => &self.key,
            Some(number) => self.others.get(usize::from(number)).unwrap_or(&self.key),
        };
        nonce.place == place_of(key, nonce.number, source)
    }

    /// Returns whether a nonce is ours, for this realm, not older than `lifetime_ms`, and of this run or good here all the same.
    /// `source` is where it comes from.
    pub fn read(&self, now_ms: u64, lifetime_ms: u64, realm: &[u8], text: &[u8], source: IpAddr) -> Verdict {
        let parts = || {
            let (number, rest) = text.split_at_checked(NUMBER_LEN)?;
            let (run, rest) = rest.split_at_checked(RUN_LEN)?;
            let (place, check) = rest.split_at_checked(PLACE_LEN)?;
            let check = check.get(..CHECK_LEN).filter(|_| check.len() == CHECK_LEN)?;
            let number = read_hex(number)?;
            let nonce = Nonce { number, place: read_hex(place)? as u32, window: number, secret: 0 };
            Some((nonce, read_hex(run)? as u32, read_hex(check)?))
        };
        let Some((mut nonce, run, shown)) = parts() else {
            return Verdict::Foreign;
        };
        // A single comparison of two words takes the same time wherever they differ.
        if shown ^ check(&self.key, nonce, run, realm) != 0 {
            let mut others = (1..).zip(&self.others);
            let Some((secret, _)) = others.find(|(_, key)| shown ^ check(key, nonce, run, realm) == 0) else {
                return Verdict::Foreign;
            };
            nonce.secret = secret;
        }
        let (now_ms, made_ms) = (self.time(now_ms), nonce.made_ms());
        let is_old = made_ms + lifetime_ms < now_ms || now_ms + AHEAD_MS < made_ms;
        match run == self.run && nonce.secret == 0 {
            _ if is_old => Verdict::Stale,
            true => Verdict::Good(nonce),
            false => self.judge_others(nonce, run, source),
        }
    }

    /// Judges a nonce of another run that is young enough.
    #[cold]
    fn judge_others(&self, nonce: Nonce, run: u32, source: IpAddr) -> Verdict {
        let is_younger = self.sharing.is_some_and(|sharing| nonce.made_ms() >= sharing.begun_ms);
        if !is_younger || !self.is_from(nonce, source) {
            return Verdict::Stale;
        }
        // Two runs may give the same number.
        let window = self.key.hash_numbers(nonce.number, u64::from(run) << 32 | u64::from(nonce.place), 1);
        Verdict::Good(Nonce { window, ..nonce })
    }

    /// Returns an authorised request's identifier for [`Nonces::note`]. It covers every byte of the message, and its source: if
    /// anything differs (Request-URI, To, From, Contact, Expires, credentials, body) it is another request, which was not
    /// authorised.
    pub fn request(&self, message: &[u8], source: IpAddr) -> u32 {
        let hash = match source.to_canonical() {
            IpAddr::V4(ip) => self.requests.hash(&[message, &ip.octets()]),
            IpAddr::V6(ip) => self.requests.hash(&[message, &ip.octets()]),
        };
        hash as u32
    }

    /// Notes the arrival of a request with this count and a correct digest. `count` is 0 if there is none: then the nonce is valid
    /// for one request. `request` comes from [`Nonces::request`]: the same one again within `repeats_ms` is a retransmission, later
    /// it is not.
    pub fn note(&self, now_ms: u64, lifetime_ms: u64, nonce: Nonce, count: u32, request: u32, repeats_ms: u64) -> Use {
        let place = self.key.hash_numbers(nonce.window, 0, 0);
        let shard = &self.shards[place as usize % SHARDS];
        let now_ms = self.time(now_ms);
        let this = Request { count, name: request, came_ms: now_ms as u32 };
        let ahead_ms = self.sharing.map_or(0, |_| AHEAD_MS);
        lock(shard).note(now_ms, (lifetime_ms, ahead_ms), nonce, this, repeats_ms)
    }
}

fn nonce_key(secret: &Key) -> Key {
    secret.derive("nonce")
}

fn place_of(key: &Key, number: u64, ip: IpAddr) -> u32 {
    let (high, low) = words(ip);
    key.hash_numbers(number, high, low) as u32
}

fn check(key: &Key, nonce: Nonce, run: u32, realm: &[u8]) -> u64 {
    let place = u64::from(run) << 32 | u64::from(nonce.place);
    let (number, place) = (nonce.number.to_be_bytes(), place.to_be_bytes());
    key.hash(&[&number, &place, realm])
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// A shard of the windows, in two generations: what is not used for one generation is dropped with the next.
struct Shard {
    /// Maximum number of windows in one generation.
    room: usize,
    young: Windows,
    old: Windows,
    /// When `young` and `old` began.
    young_since_ms: u64,
    old_since_ms: u64,
    /// Some windows of nonces made until then were dropped while the nonces were valid.
    forgotten_ms: Option<u64>,
}

/// What identifies a nonce can be its own hash: its check has been verified before.
type Windows = HashMap<u64, Window, BuildPrehashed>;

impl Shard {
    fn new(room: usize) -> Shard {
        Shard { room, young: Windows::default(), old: Windows::default(), young_since_ms: 0, old_since_ms: 0, forgotten_ms: None }
    }

    /// `life_ms`: how long nonces are valid, and how far ahead of now they may have been made.
    fn note(&mut self, now_ms: u64, life_ms: (u64, u64), nonce: Nonce, this: Request, repeats_ms: u64) -> Use {
        if self.young.len() >= self.room || now_ms > self.young_since_ms + life_ms.0 {
            self.age(now_ms, life_ms);
        }
        if let Some(window) = self.young.get_mut(&nonce.window) {
            return window.note(this, repeats_ms);
        }
        if let Some(mut window) = self.old.remove(&nonce.window) {
            let verdict = window.note(this, repeats_ms);
            self.young.insert(nonce.window, window);
            return verdict;
        }
        if self.forgotten_ms.is_some_and(|until| nonce.made_ms() <= until) {
            return Use::Forgotten;
        }
        self.young.insert(nonce.window, Window::new(this));
        Use::First
    }

    /// Drops the old generation and makes the young one old. All nonces in the old one were made before the young one began, or as
    /// far ahead of that as clocks may differ.
    fn age(&mut self, now_ms: u64, (lifetime_ms, ahead_ms): (u64, u64)) {
        let last_ms = self.young_since_ms + ahead_ms;
        if !self.old.is_empty() && last_ms + lifetime_ms >= now_ms {
            self.forgotten_ms = Some(last_ms);
        }
        std::mem::swap(&mut self.young, &mut self.old);
        self.young.clear();
        self.old_since_ms = self.young_since_ms;
        self.young_since_ms = now_ms;
    }
}

#[derive(Clone, Copy)]
struct Request {
    count: u32,
    name: u32,
    /// The time since the start, truncated.
    came_ms: u32,
}

/// The counts received for one nonce.
struct Window {
    highest: u32,
    /// Bit n: `highest - n` was received.
    came: u64,
    /// A ring; a new window has the first request in every place.
    last: [Request; REMEMBERED],
    next: u8,
}

impl Window {
    fn new(first: Request) -> Window {
        Window { highest: first.count, came: 1, last: [first; REMEMBERED], next: 0 }
    }

    fn note(&mut self, this: Request, repeats_ms: u64) -> Use {
        let count = this.count;
        // A nonce valid for one request and a counting one are never the same.
        let counts = self.highest > 0;
        if (count > 0) != counts {
            return Use::Replayed;
        }
        let is_same = |before: &Request| {
            let since_ms = this.came_ms.wrapping_sub(before.came_ms);
            (before.count, before.name) == (count, this.name) && u64::from(since_ms) <= repeats_ms
        };
        if self.last.iter().any(is_same) {
            return Use::Again;
        }
        if count > self.highest {
            let steps = count - self.highest;
            self.came = self.came.checked_shl(steps).unwrap_or(0) | 1;
            self.highest = count;
        } else {
            let behind = self.highest - count;
            if behind >= WINDOW || self.came >> behind & 1 == 1 {
                return Use::Replayed;
            }
            self.came |= 1 << behind;
        }
        self.last[usize::from(self.next)] = this;
        self.next = (self.next + 1) % REMEMBERED as u8;
        Use::First
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000_000;
    const RUN: u32 = 7;
    const LIFE: u64 = 300_000;
    const REALM: &[u8] = b"example.com";
    const REPEATS: u64 = 32_000;
    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    const THERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    fn nonces(windows: usize) -> Nonces {
        Nonces::new(Key::new(1, 2), RUN, windows)
    }

    fn text(nonces: &Nonces, made_ms: u64, count: u32) -> Vec<u8> {
        let mut out = Vec::new();
        nonces.write(made_ms, 3, count, REALM, HERE, &mut out);
        out
    }

    fn good(nonces: &Nonces, made_ms: u64, count: u32) -> Nonce {
        match nonces.read(made_ms, LIFE, REALM, &text(nonces, made_ms, count), HERE) {
            Verdict::Good(nonce) => nonce,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_we_made_is_good_everywhere_for_its_life_and_nothing_else_is() {
        let here = nonces(1);
        let nonce = text(&here, NOW, 5);
        assert_eq!(nonce.len(), NUMBER_LEN + RUN_LEN + PLACE_LEN + CHECK_LEN);
        // Another core, which does not share the windows.
        let there = nonces(1);
        let read = |at, realm| there.read(at, LIFE, realm, &nonce, THERE);
        assert!(matches!(read(NOW, REALM), Verdict::Good(_)));
        assert!(matches!(read(NOW + LIFE, REALM), Verdict::Good(_)));
        assert!(matches!(read(NOW - AHEAD_MS, REALM), Verdict::Good(_)));
        assert_eq!(read(NOW + LIFE + 1, REALM), Verdict::Stale);
        assert_eq!(read(NOW - AHEAD_MS - 1, REALM), Verdict::Stale);
        assert_eq!(read(NOW, b"example.net"), Verdict::Foreign);
        let other = Nonces::new(Key::new(1, 3), RUN, 1);
        assert_eq!(other.read(NOW, LIFE, REALM, &nonce, HERE), Verdict::Foreign);
        for place in 0..nonce.len() {
            let mut forged = nonce.clone();
            forged[place] = if forged[place] == b'0' { b'1' } else { b'0' };
            assert_eq!(here.read(NOW, LIFE, REALM, &forged, HERE), Verdict::Foreign);
        }
        for bad in [&b""[..], b"0", &nonce[..47], &[&nonce[..], b"0"].concat()] {
            assert_eq!(here.read(NOW, LIFE, REALM, bad, HERE), Verdict::Foreign);
        }
    }

    #[test]
    fn a_nonce_knows_to_whom_it_was_sent() {
        let nonces = nonces(1);
        let nonce = good(&nonces, NOW, 5);
        let is_from = |ip: &str| nonces.is_from(nonce, ip.parse().unwrap());
        assert!(is_from("192.0.2.1") && is_from("::ffff:192.0.2.1"));
        assert!(!is_from("192.0.2.2") && !is_from("2001:db8::1") && !is_from("::"));
    }

    /// Whatever the clocks of the two runs say.
    #[test]
    fn what_an_earlier_run_made_is_stale() {
        let text = text(&nonces(1), NOW, 5);
        let later = Nonces::new(Key::new(1, 2), RUN + 1, 1);
        for now in [0, 1_000, NOW - LIFE, NOW - 1, NOW, NOW + 1, NOW + LIFE] {
            assert_eq!(later.read(now, LIFE, REALM, &text, HERE), Verdict::Stale, "{now}");
        }
        assert_eq!(later.read(NOW, LIFE, b"else", &text, HERE), Verdict::Foreign);
    }

    /// A server that has begun at `begun_ms`, and shares its secret; its own time is 0 an hour before.
    fn sharing(run: u32, begun_ms: u64, windows: usize) -> Sharer {
        const HOUR: u64 = 3_600_000;
        let start_ms = begun_ms - HOUR;
        Sharer { nonces: Nonces::new(Key::new(1, 2), run, windows).shared(start_ms, HOUR), start_ms }
    }

    struct Sharer {
        nonces: Nonces,
        start_ms: u64,
    }

    impl Sharer {
        fn text(&self, at: u64) -> Vec<u8> {
            text(&self.nonces, at - self.start_ms, 1)
        }

        fn read(&self, at: u64, text: &[u8], source: IpAddr) -> Verdict {
            self.nonces.read(at - self.start_ms, LIFE, REALM, text, source)
        }

        fn note(&self, at: u64, text: &[u8], count: u32) -> Option<Use> {
            let Verdict::Good(nonce) = self.read(at, text, HERE) else { return None };
            Some(self.nonces.note(at - self.start_ms, LIFE, nonce, count, count, REPEATS))
        }
    }

    #[test]
    fn what_another_server_made_is_good_from_where_it_was_sent_to() {
        let (one, other) = (sharing(7, NOW - 99_999, 100), sharing(8, NOW - 1_000_000, 100));
        let made = one.text(NOW);
        let is_good = |verdict| matches!(verdict, Verdict::Good(_));
        for at in [NOW - AHEAD_MS, NOW, NOW + LIFE] {
            assert!(is_good(one.read(at, &made, HERE)) && is_good(one.read(at, &made, THERE)), "{at}");
            assert!(is_good(other.read(at, &made, HERE)), "{at}");
            assert_eq!(other.read(at, &made, THERE), Verdict::Stale, "{at}");
        }
        for at in [NOW - AHEAD_MS - 1, NOW + LIFE + 1] {
            assert_eq!(other.read(at, &made, HERE), Verdict::Stale, "{at}");
        }
        // One that shares nothing, and one that has another secret.
        let alone = Nonces::new(Key::new(1, 2), 9, 100);
        assert_eq!(alone.read(NOW, LIFE, REALM, &made, HERE), Verdict::Stale);
        let stranger = Nonces::new(Key::new(1, 3), 9, 100).shared(NOW, 0);
        assert_eq!(stranger.read(0, LIFE, REALM, &made, HERE), Verdict::Foreign);
    }

    #[test]
    fn each_server_takes_each_count_of_the_other_once() {
        let (one, other) = (sharing(7, NOW - 1, 100), sharing(8, NOW - 1, 100));
        // The same number at both.
        let (made, own) = (one.text(NOW), other.text(NOW));
        assert_eq!(made[..NUMBER_LEN], own[..NUMBER_LEN]);
        for count in [1, 2, 3] {
            assert_eq!(one.note(NOW, &made, count), Some(Use::First));
            assert_eq!(other.note(NOW, &made, count), Some(Use::First));
            assert_eq!(other.note(NOW, &own, count), Some(Use::First), "its own nonce is another one");
        }
        let late = NOW + REPEATS + 1;
        for server in [&one, &other] {
            for count in [1, 2, 3] {
                assert_eq!(server.note(late, &made, count), Some(Use::Replayed));
            }
        }
    }

    #[test]
    fn what_was_used_before_a_restart_is_not_used_again() {
        let before = sharing(7, NOW - 1000, 100);
        let made = before.text(NOW);
        assert_eq!(before.note(NOW, &made, 1), Some(Use::First));
        let after = sharing(8, NOW + 1, 100);
        assert_eq!(after.read(NOW + 2, &made, HERE), Verdict::Stale);
        // A server that has gone on makes nonces for both.
        let other = sharing(9, NOW - 1000, 100);
        let later = other.text(NOW + 1);
        assert_eq!(after.note(NOW + 2, &later, 1), Some(Use::First));
    }

    #[test]
    fn what_another_of_the_secrets_made_is_good_if_it_is_shared() {
        let (old, new) = (Key::new(1, 2), Key::new(3, 4));
        let one = Nonces::new(old, 7, 100).shared(NOW, 0).accepting(&[new]);
        let other = Nonces::new(new, 8, 100).shared(NOW, 0).accepting(&[old]);
        for (maker, reader) in [(&one, &other), (&other, &one)] {
            let made = text(maker, 0, 1);
            let read = |source| reader.read(0, LIFE, REALM, &made, source);
            let Verdict::Good(nonce) = read(HERE) else { panic!("{:?}", read(HERE)) };
            assert!(reader.is_from(nonce, HERE) && !reader.is_from(nonce, THERE));
            assert_eq!(read(THERE), Verdict::Stale);
            assert_eq!(reader.note(0, LIFE, nonce, 1, 1, REPEATS), Use::First);
            assert_eq!(reader.note(0, LIFE, nonce, 1, 2, REPEATS), Use::Replayed);
        }
        // After a restart with another first secret, alone: its user learns that it must ask again.
        let made = text(&Nonces::new(old, 7, 100), NOW, 1);
        assert_eq!(Nonces::new(new, 7, 100).accepting(&[old]).read(NOW, LIFE, REALM, &made, HERE), Verdict::Stale);
        assert_eq!(Nonces::new(new, 7, 100).read(NOW, LIFE, REALM, &made, HERE), Verdict::Foreign);
    }

    #[test]
    fn what_a_faster_clock_made_is_not_forgotten_too_early() {
        let (fast, slow) = (sharing(7, NOW, 100), sharing(8, NOW, 1));
        let made = fast.text(NOW + AHEAD_MS);
        assert_eq!(slow.note(NOW, &made, 1), Some(Use::First));
        // Others push its window out.
        let mut forgotten = false;
        for n in 1..1000 {
            let at = NOW + n;
            slow.note(at, &slow.text(at), 1);
            forgotten |= slow.nonces.shards.iter().map(lock).any(|shard| shard.forgotten_ms >= Some(NOW + AHEAD_MS));
        }
        assert!(forgotten);
        let again = slow.note(NOW + REPEATS + 1000, &made, 1);
        assert!(matches!(again, Some(Use::Forgotten | Use::Replayed)), "{again:?}");
    }

    #[test]
    fn a_request_is_the_same_byte_for_byte_from_the_same_source() {
        let nonces = nonces(1);
        let ip = |text: &str| text.parse().unwrap();
        let this = nonces.request(b"REGISTER x", ip("192.0.2.1"));
        assert_eq!(this, nonces.request(b"REGISTER x", ip("::ffff:192.0.2.1")));
        assert_ne!(this, nonces.request(b"REGISTER y", ip("192.0.2.1")));
        assert_ne!(this, nonces.request(b"REGISTER x", ip("192.0.2.2")));
        assert_ne!(this, nonces.request(b"REGISTER x", ip("2001:db8::1")));
    }

    #[test]
    fn ten_million_are_all_different_and_all_good() {
        let nonces = nonces(1);
        let mut last = Vec::new();
        for n in 0..10_000_000u64 {
            // 10,000 in each millisecond.
            let mut out = Vec::new();
            nonces.write(NOW + n / 10_000, 0, n as u32, REALM, HERE, &mut out);
            if n % 1_000 == 0 {
                let verdict = nonces.read(NOW + n / 10_000, LIFE, REALM, &out, HERE);
                assert!(matches!(verdict, Verdict::Good(_)), "{n}");
            }
            assert_ne!(out, last);
            last = out;
        }
    }

    #[test]
    fn a_count_comes_once_in_any_order_within_the_window() {
        let nonces = nonces(100);
        let nonce = good(&nonces, NOW, 1);
        let mut request = 0;
        let mut note = |count| {
            request += 1;
            nonces.note(NOW, LIFE, nonce, count, request, REPEATS)
        };
        for count in [1, 2, 5, 3, 4, 100, 40, 37] {
            assert_eq!(note(count), Use::First, "{count}");
        }
        for count in [1, 2, 5, 100, 40, 37, 36, 0] {
            assert_eq!(note(count), Use::Replayed, "{count}");
        }
        assert_eq!(note(u32::MAX), Use::First);
        assert_eq!(note(100), Use::Replayed);
        assert_eq!(note(u32::MAX - 63), Use::First);
    }

    #[test]
    fn a_retransmission_is_known() {
        let nonces = nonces(100);
        let nonce = good(&nonces, NOW, 1);
        assert_eq!(nonces.note(NOW, LIFE, nonce, 1, 71, REPEATS), Use::First);
        assert_eq!(nonces.note(NOW, LIFE, nonce, 1, 71, REPEATS), Use::Again);
        assert_eq!(nonces.note(NOW, LIFE, nonce, 1, 72, REPEATS), Use::Replayed);
        let late = |ms| nonces.note(NOW + ms, LIFE, nonce, 1, 71, REPEATS);
        assert_eq!(late(REPEATS), Use::Again);
        assert_eq!(late(REPEATS + 1), Use::Replayed, "nobody repeats that late");
        for count in 2..=4 {
            let request = 70 + count;
            assert_eq!(nonces.note(NOW, LIFE, nonce, count, request, REPEATS), Use::First);
        }
        assert_eq!(nonces.note(NOW, LIFE, nonce, 1, 71, REPEATS), Use::Again);
        assert_eq!(nonces.note(NOW, LIFE, nonce, 5, 75, REPEATS), Use::First);
        assert_eq!(nonces.note(NOW, LIFE, nonce, 1, 71, REPEATS), Use::Replayed);
    }

    #[test]
    fn without_a_count_a_nonce_is_good_for_one_request() {
        let nonces = nonces(100);
        let nonce = good(&nonces, NOW, 1);
        assert_eq!(nonces.note(NOW, LIFE, nonce, 0, 1, REPEATS), Use::First);
        assert_eq!(nonces.note(NOW, LIFE, nonce, 0, 1, REPEATS), Use::Again);
        assert_eq!(nonces.note(NOW, LIFE, nonce, 0, 2, REPEATS), Use::Replayed);
        assert_eq!(nonces.note(NOW, LIFE, nonce, 1, 3, REPEATS), Use::Replayed);
    }

    #[test]
    fn memory_is_bounded_and_nothing_is_taken_twice() {
        let nonces = nonces(10 * SHARDS);
        let first = good(&nonces, NOW, 0);
        assert_eq!(nonces.note(NOW, LIFE, first, 1, 1, REPEATS), Use::First);
        for n in 1..100_000u32 {
            let at = NOW + u64::from(n);
            let nonce = good(&nonces, at, n);
            assert_eq!(nonces.note(at, LIFE, nonce, 1, 1, REPEATS), Use::First, "{n}");
        }
        let held: usize = nonces.shards.iter().map(lock).map(|shard| shard.young.len() + shard.old.len()).sum();
        assert!(held <= 20 * SHARDS, "{held}");
        let late = NOW + 100_000;
        assert_eq!(nonces.note(late, LIFE, first, 1, 2, REPEATS), Use::Forgotten);
        let last = good(&nonces, NOW + 99_999, 99_999);
        assert_eq!(nonces.note(late, LIFE, last, 1, 2, REPEATS), Use::Replayed);
    }

    #[test]
    fn windows_live_as_long_as_their_nonces() {
        let nonces = nonces(1_000_000);
        let nonce = good(&nonces, NOW, 1);
        assert_eq!(nonces.note(NOW, LIFE, nonce, 1, 1, REPEATS), Use::First);
        for (count, at) in [(2, NOW + LIFE / 2), (3, NOW + LIFE - 1), (4, NOW + LIFE)] {
            assert_eq!(nonces.note(at, LIFE, nonce, count, count, REPEATS), Use::First);
            assert_eq!(nonces.note(at, LIFE, nonce, 1, 99, REPEATS), Use::Replayed);
        }
        // Another one, made late in that time, is not forgotten with it.
        let other = good(&nonces, NOW + LIFE, 2);
        let at = NOW + LIFE + LIFE;
        assert_eq!(nonces.note(at, LIFE, other, 1, 1, REPEATS), Use::First);
    }
}
