//! Which next hops have failed, as seen from their own traffic: no connection, no response, 503, port unreachable (RFC 3263 §4.3,
//! RFC 3261 §16.7, §21.5.4). All cores share one table.
//!
//! A failed next hop is skipped for a time that doubles with each further failure. When that time is over, one request tries it.
//! Any answer makes it healthy again. Health only orders next hops: if all have failed, the one whose failure is oldest is tried.
//!
//! A caller's choices cannot harm another caller's next hop: targets of the conf, contacts of registrations and hosts of URIs have
//! separate health, even at one address. And a single request without an answer proves nothing while the next hop answers others:
//! see [`Health::note_answer`].

use crate::base::proved::words;
use crate::base::{Instant, Key, Transport};
use crate::stack::name_servers::NameServers;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Maximum number of next hops recorded as failed.
const MOST: usize = 4096;

/// How often, at most, consecutive failures double the time for which a next hop is skipped: from 30 s to 8 min.
const DOUBLINGS: u32 = 4;

/// The longest time that a Retry-After keeps requests away from a next hop, in milliseconds: never days.
const LONGEST_RETRY_AFTER_MS: u64 = 10 * 60_000;

/// How long the request that tries a failed next hop has for it, in milliseconds; then another may try.
const TRIAL_MS: u64 = 10_000;

/// A next hop that the conf does not name is forgotten if it is not retried for this long, in milliseconds, after it could have
/// been; and the interval at which such next hops are looked for.
const FORGOTTEN_MS: u64 = 600_000;
const SWEEP_MS: u64 = 60_000;

/// Next hops whose last answer is remembered; a power of two.
const HEARD: usize = 1024;

/// The last answer is noted in steps of 2 to the power of this, in milliseconds: most answers write nothing.
const STEP_BITS: u32 = 6;

/// The origin of a next hop's name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum NamedBy {
    /// The conf: a `target` of a `[[route]]`, or a server of the domain that it names.
    Conf,
    /// A registration.
    Contact,
    /// The message: its Request-URI or a Route.
    Message,
}

/// A next hop as health knows it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Neighbour {
    pub named_by: NamedBy,
    pub transport: Transport,
    pub address: SocketAddr,
}

/// What showed that a next hop has failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// No connection could be made, or it broke before an answer came.
    NoConnection,
    /// No response within `[next_hop] patience`.
    NoResponse,
    /// 503.
    Unavailable,
    /// The network reports that the destination is unreachable.
    Unreachable,
}

impl Cause {
    /// Returns the text for the log.
    pub const fn words(self) -> &'static str {
        match self {
            Cause::NoConnection => "no connection",
            Cause::NoResponse => "no response",
            Cause::Unavailable => "503 Service Unavailable",
            Cause::Unreachable => "port unreachable",
        }
    }
}

/// A next hop that has failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Failure {
    pub cause: Cause,
    /// Failures in a row.
    pub failures: u32,
    /// When the first and the last of them were seen.
    pub since: Instant,
    pub last: Instant,
    /// When one request may try it again.
    pub until: Instant,
    /// Whether that request is in progress.
    is_tried: bool,
}

/// Whether a request should go to a next hop.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Standing {
    /// There is nothing against it.
    Good,
    /// It has failed, last at this moment.
    Failed(Instant),
}

/// The table of failed next hops; see the module documentation.
#[derive(Debug)]
pub struct Health {
    key: Key,
    /// Salt for a cheap hash: there is nothing to gain from making two next hops share an entry of `heard`.
    salt: [u64; 3],
    /// The number of entries in `failures`: if it is 0, no lookup is needed.
    count: AtomicUsize,
    failures: Mutex<HashMap<Neighbour, Failure>>,
    /// When next hops that nobody has retried were last looked for, in milliseconds.
    swept_ms: AtomicU64,
    /// Where the names among the conf's targets have led.
    pub name_servers: NameServers,
    /// The step of the last answer in the low half, and whom it came from in the high half.
    heard: Box<[AtomicU64]>,
}

impl Health {
    pub fn new(key: Key) -> Health {
        let own = key.derive("health");
        Health {
            key: own,
            salt: [1, 2, 3].map(|number| own.hash_numbers(number, 0, 0)),
            count: AtomicUsize::new(0),
            failures: Mutex::default(),
            swept_ms: AtomicU64::new(0),
            name_servers: NameServers::new(key),
            heard: (0..HEARD).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Whether all next hops are well, as far as is known.
    pub fn is_all_well(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    /// Notes an answer from a next hop that nothing else could have sent. Returns its failure if it had failed before.
    pub fn note_answer(&self, now: Instant, neighbour: &Neighbour) -> Option<Failure> {
        let (entry, tag) = self.heard(neighbour);
        let heard = tag | step(now);
        if entry.load(Ordering::Relaxed) != heard {
            entry.store(heard, Ordering::Relaxed);
        }
        if self.is_all_well() {
            return None;
        }
        let mut failures = self.failures();
        let failure = failures.remove(neighbour);
        self.count.store(failures.len(), Ordering::Relaxed);
        failure
    }

    /// Returns whether the next hop has answered any request since this moment.
    pub fn has_answered_since(&self, since: Instant, neighbour: &Neighbour) -> bool {
        let (entry, tag) = self.heard(neighbour);
        let heard = entry.load(Ordering::Relaxed);
        heard & !u64::from(u32::MAX) == tag && heard & u64::from(u32::MAX) > step(since)
    }

    /// Notes a failure. `retry_ms` is how long the next hop is skipped at first, `asked_ms` what it requested itself (Retry-After).
    /// Returns how long it is skipped now if it was healthy before.
    pub fn note_failure(
        &self,
        now: Instant,
        neighbour: Neighbour,
        cause: Cause,
        retry_ms: u64,
        asked_ms: Option<u64>,
    ) -> Option<u64> {
        let mut failures = self.failures();
        let known = failures.get(&neighbour).copied();
        let count = match known {
            None => 1,
            Some(known) if known.is_tried => known.failures.saturating_add(1),
            // It was sent before the failure was known, and tells nothing new.
            Some(_) if asked_ms.is_none() => return None,
            Some(known) => known.failures,
        };
        if known.is_none() {
            self.sweep(&mut failures, now);
            if failures.len() >= MOST && neighbour.named_by != NamedBy::Conf {
                return None;
            }
        }
        let for_ms = match asked_ms {
            Some(asked) => asked.min(LONGEST_RETRY_AFTER_MS),
            None => self.backoff(&neighbour, retry_ms, count),
        };
        let failure = Failure {
            cause,
            failures: count,
            since: known.map_or(now, |known| known.since),
            last: now,
            until: now.after_ms(for_ms),
            is_tried: false,
        };
        failures.insert(neighbour, failure);
        self.count.store(failures.len(), Ordering::Relaxed);
        known.is_none().then_some(for_ms)
    }

    /// Forgets next hops that nobody has retried; called now and then. Those that the conf names are kept.
    fn sweep(&self, failures: &mut HashMap<Neighbour, Failure>, now: Instant) {
        let swept_ms = self.swept_ms.load(Ordering::Relaxed);
        if now.as_ms().saturating_sub(swept_ms) >= SWEEP_MS {
            self.swept_ms.store(now.as_ms(), Ordering::Relaxed);
            failures.retain(|neighbour, failure| neighbour.named_by == NamedBy::Conf || failure.until.after_ms(FORGOTTEN_MS) > now);
        }
    }

    /// Returns whether a request should go there.
    pub fn standing(&self, now: Instant, neighbour: &Neighbour) -> Standing {
        if self.is_all_well() {
            return Standing::Good;
        }
        match self.failures().get(neighbour) {
            Some(failure) if failure.until > now => Standing::Failed(failure.last),
            _ => Standing::Good,
        }
    }

    /// Notes a request that leaves for there. If the next hop has failed and may be retried, this request is the trial, and others
    /// skip it meanwhile.
    #[inline]
    pub fn note_attempt(&self, now: Instant, neighbour: &Neighbour) {
        if self.is_all_well() {
            return;
        }
        if let Some(failure) = self.failures().get_mut(neighbour)
            && failure.until <= now
        {
            failure.is_tried = true;
            failure.until = now.after_ms(TRIAL_MS);
        }
    }

    /// Returns all that have failed, in order.
    pub fn list(&self) -> Vec<(Neighbour, Failure)> {
        let mut list: Vec<_> = self.failures().iter().map(|(who, failure)| (*who, *failure)).collect();
        list.sort_by_key(|(neighbour, _)| *neighbour);
        list
    }

    /// Returns for how long it is skipped, give or take a tenth, so that not all cores and servers return at once.
    fn backoff(&self, neighbour: &Neighbour, retry_ms: u64, count: u32) -> u64 {
        let doublings = count.saturating_sub(1).min(DOUBLINGS);
        let plain = retry_ms.saturating_mul(1 << doublings);
        let (high, low) = words(neighbour.address.ip());
        let chance = self.key.hash_numbers(high ^ u64::from(count), low, self.number(neighbour)) % 201;
        plain / 1000 * (900 + chance) + plain % 1000
    }

    fn number(&self, neighbour: &Neighbour) -> u64 {
        let (by, transport) = (neighbour.named_by as u64, neighbour.transport as u64);
        u64::from(neighbour.address.port()) << 16 | by << 8 | transport
    }

    fn heard(&self, neighbour: &Neighbour) -> (&AtomicU64, u64) {
        let (high, low) = words(neighbour.address.ip());
        let [first, second, third] = self.salt;
        let hash = mix(mix(high ^ first, low ^ second) ^ self.number(neighbour), third);
        (&self.heard[hash as usize % HEARD], hash & !u64::from(u32::MAX))
    }

    fn failures(&self) -> MutexGuard<'_, HashMap<Neighbour, Failure>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Combines both halves of the product, so that every input bit affects each half.
fn mix(one: u64, other: u64) -> u64 {
    let product = u128::from(one) * u128::from(other);
    product as u64 ^ (product >> 64) as u64
}

/// Returns the step of a moment; never 0.
fn step(now: Instant) -> u64 {
    ((now.as_ms() >> STEP_BITS) + 1) & u64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETRY_MS: u64 = 30_000;

    fn neighbour(named_by: NamedBy, address: &str) -> Neighbour {
        Neighbour { named_by, transport: Transport::Udp, address: address.parse().unwrap() }
    }

    fn health() -> Health {
        Health::new(Key::new(1, 2))
    }

    fn at(ms: u64) -> Instant {
        Instant::from_ms(ms)
    }

    #[test]
    fn a_failed_next_hop_is_passed_over_and_then_tried_by_one_request() {
        let (health, gateway) = (health(), neighbour(NamedBy::Conf, "192.0.2.1:5060"));
        assert_eq!(health.standing(at(0), &gateway), Standing::Good);
        let passed_over = health.note_failure(at(1000), gateway, Cause::NoResponse, RETRY_MS, None);
        let for_ms = passed_over.expect("it was well before");
        assert!((27_000..=33_000).contains(&for_ms), "{for_ms}");
        assert_eq!(health.standing(at(1000 + for_ms - 1), &gateway), Standing::Failed(at(1000)));
        let due = at(1000 + for_ms);
        assert_eq!(health.standing(due, &gateway), Standing::Good);
        health.note_attempt(due, &gateway);
        assert_eq!(health.standing(due, &gateway), Standing::Failed(at(1000)), "one request tries it, no more");
        assert!(health.note_answer(due, &gateway).is_some());
        assert_eq!(health.standing(due, &gateway), Standing::Good);
        assert!(health.is_all_well());
        assert!(health.note_answer(due, &gateway).is_none(), "it is well already");
    }

    #[test]
    fn the_time_doubles_with_each_trial_that_fails_up_to_a_bound() {
        let (health, gateway) = (health(), neighbour(NamedBy::Conf, "192.0.2.1:5060"));
        let mut now = at(0);
        let mut longest = 0;
        for count in 0..8 {
            health.note_failure(now, gateway, Cause::NoConnection, RETRY_MS, None);
            // Others in flight at the time then tell nothing new.
            for _ in 0..5 {
                health.note_failure(now.after_ms(10), gateway, Cause::NoConnection, RETRY_MS, None);
            }
            let (_, failure) = health.list()[0];
            assert_eq!((failure.failures, failure.since), (count + 1, at(0)));
            let expected = RETRY_MS << count.min(DOUBLINGS);
            longest = failure.until.ms_since(now);
            assert!((expected * 9 / 10..=expected * 11 / 10).contains(&longest), "{count}: {longest}");
            now = failure.until;
            health.note_attempt(now, &gateway);
        }
        assert!(longest <= RETRY_MS * 16 * 11 / 10);
        // A trial request that is never heard of again does not keep others from trying.
        let (_, failure) = health.list()[0];
        assert_eq!(failure.until, now.after_ms(TRIAL_MS));
    }

    #[test]
    fn what_a_next_hop_asks_for_is_kept_within_reason() {
        let (health, gateway) = (health(), neighbour(NamedBy::Conf, "192.0.2.1:5060"));
        health.note_failure(at(0), gateway, Cause::Unavailable, RETRY_MS, Some(120_000));
        assert_eq!(health.list()[0].1.until, at(120_000));
        health.note_failure(at(1), gateway, Cause::Unavailable, RETRY_MS, Some(u64::MAX));
        assert_eq!(health.list()[0].1.until, at(1 + LONGEST_RETRY_AFTER_MS));
    }

    #[test]
    fn nobody_harms_anothers_next_hop() {
        let health = health();
        let by_conf = neighbour(NamedBy::Conf, "192.0.2.1:5060");
        for named_by in [NamedBy::Contact, NamedBy::Message] {
            health.note_failure(at(0), neighbour(named_by, "192.0.2.1:5060"), Cause::NoResponse, RETRY_MS, None);
        }
        assert_eq!(health.standing(at(1), &by_conf), Standing::Good);
        let elsewhere = neighbour(NamedBy::Contact, "192.0.2.1:5061");
        assert_eq!(health.standing(at(1), &elsewhere), Standing::Good, "another port is another next hop");
    }

    #[test]
    fn an_answer_to_one_request_speaks_for_all() {
        let (health, gateway) = (health(), neighbour(NamedBy::Conf, "192.0.2.1:5060"));
        assert!(!health.has_answered_since(at(0), &gateway));
        health.note_answer(at(5000), &gateway);
        assert!(health.has_answered_since(at(1000), &gateway));
        assert!(!health.has_answered_since(at(5000), &gateway), "not since then");
        assert!(!health.has_answered_since(at(1000), &neighbour(NamedBy::Message, "192.0.2.1:5060")));
    }

    #[test]
    fn next_hops_are_told_apart_by_address_port_transport_and_who_names_them() {
        let health = health();
        let mut seen = std::collections::BTreeSet::new();
        let mut count = 0;
        for address in (0..64u32).map(|n| std::net::Ipv4Addr::from(0xc000_0200 + n * 0x0101)) {
            for (port, named_by) in [(5060, NamedBy::Conf), (5061, NamedBy::Conf), (5060, NamedBy::Contact)] {
                for transport in [Transport::Udp, Transport::Tcp] {
                    let address = SocketAddr::new(address.into(), port);
                    let (_, tag) = health.heard(&Neighbour { named_by, transport, address });
                    seen.insert(tag);
                    count += 1;
                }
            }
        }
        assert_eq!(seen.len(), count);
    }

    #[test]
    fn what_strangers_name_fills_no_memory_and_pushes_nothing_out() {
        let health = health();
        let stranger = |number: u32| Neighbour {
            named_by: NamedBy::Message,
            transport: Transport::Udp,
            address: SocketAddr::new(std::net::Ipv4Addr::from(number).into(), 5060),
        };
        let gateway = neighbour(NamedBy::Conf, "192.0.2.1:5060");
        for number in 0..2 * MOST as u32 {
            health.note_failure(at(0), stranger(number), Cause::Unreachable, RETRY_MS, None);
        }
        assert_eq!(health.list().len(), MOST);
        assert!(health.note_failure(at(0), gateway, Cause::NoConnection, RETRY_MS, None).is_some());
        assert_eq!(health.standing(at(1), &gateway), Standing::Failed(at(0)));
        // Entries that nobody has looked up for long make room.
        let later = at(2 * FORGOTTEN_MS);
        health.note_failure(later, stranger(u32::MAX), Cause::Unreachable, RETRY_MS, None);
        let left: Vec<_> = health.list().into_iter().map(|(neighbour, _)| neighbour).collect();
        assert_eq!(left, [gateway, stranger(u32::MAX)], "what the conf names is remembered");
    }
}
