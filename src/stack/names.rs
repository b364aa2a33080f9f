//! What one core knows of names: DNS answers while they are valid, what waits for which answer, and at most one query in flight for
//! each name however many wait for it.

use crate::base::dns::{Answer, DomainName, Failure, Outcome, Question, RecordType, Records};
use crate::base::{BuildPrehashed, Id, Instant, Key, ShareHolder, Shares};
use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

/// Records kept of one answer; those beyond, in order of preference, are dropped.
pub const MOST_RECORDS: usize = 16;

/// An answer is valid for a moment even if its TTL is 0, so that lookups of the same name in that moment send no further query.
const SHORTEST_MS: u64 = 1000;
/// RFC 8767 §4 allows a day for records and RFC 2308 §5 an hour for their absence: a wrong answer must not stay for weeks.
const LONGEST_MS: u64 = 86_400_000;
const LONGEST_NEGATIVE_MS: u64 = 3_600_000;
/// How long a failed query is not repeated (RFC 2308 §7).
const FAILED_MS: u64 = 5000;
const BUSY_MS: u64 = 1000;
/// How long expired records are used if the servers do not answer, while they are queried again (RFC 8767).
const STALE_MS: u64 = 86_400_000;
const STALE_AGAIN_MS: u64 = 30_000;
/// A query without any result for this long, not even a failure, was lost.
const LOST_MS: u64 = 60_000;

/// The names of one core.
pub struct Names {
    key: Key,
    entries: HashMap<u128, Entry, BuildPrehashed>,
    /// All names, oldest first: the order in which they are evicted, with a second chance for those in use.
    queue: VecDeque<u128>,
    limit: usize,
    /// Queries in flight, their maximum number, and their askers.
    asked: usize,
    questions: usize,
    shares: Shares,
}

struct Entry {
    known: Known,
    answered_at: Instant,
    expires: Instant,
    /// Until then its records are used if a query fails.
    stale_until: Instant,
    /// The time of the query in flight, if any.
    asked_at: Option<Instant>,
    asker: ShareHolder,
    /// Looked up since it was last considered for eviction.
    is_used: Cell<bool>,
    waiters: Vec<Id>,
}

enum Known {
    /// The first answer has not arrived.
    Unasked,
    Records(Records),
    Nothing {
        exists: bool,
    },
    Failed(Failure),
}

/// Why a query is not sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoRoom {
    /// As many queries are in flight as answers may be remembered.
    OfAll,
    /// Its asker has too many in flight.
    OfAsker,
}

/// What is known of one name and record type.
#[derive(Clone, Copy, Debug)]
pub enum Look<'a> {
    Records(&'a Records),
    Nothing {
        /// The name exists, with records of other kinds.
        exists: bool,
    },
    Failed(Failure),
    /// A query is needed; the number identifies what to wait for.
    Unknown(u128),
}

impl Names {
    /// Creates it. `limit`: maximum number of remembered answers; `questions`: maximum number of queries in flight.
    pub fn new(secret: Key, limit: usize, questions: usize) -> Names {
        Names {
            key: secret.derive("names"),
            entries: HashMap::default(),
            queue: VecDeque::new(),
            limit: limit.max(1),
            asked: 0,
            questions: questions.max(1),
            shares: Shares::new(secret.derive("askers")),
        }
    }

    /// Sets the limit for future answers.
    pub fn configure(&mut self, limit: usize) {
        self.limit = limit.max(1);
    }

    /// Returns the holder whose share is charged for a query caused by this address.
    pub fn asker(&self, ip: IpAddr) -> ShareHolder {
        self.shares.of_source(ip)
    }

    /// Returns the number of answers remembered or in flight.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns a number for one request and what belongs to it, which selects one of several equal servers, the same each time.
    pub fn seed(&self, call_id: &[u8]) -> u64 {
        self.key.hash(&[b"seed", call_id])
    }

    /// Returns the seed for one name.
    pub fn seed_for(&self, seed: u64, name: &DomainName) -> u64 {
        self.key.hash(&[&seed.to_be_bytes(), name.as_bytes()])
    }

    /// Looks a name up. `since` is when the lookup began. Anything answered later is valid for it, whatever its TTL: otherwise a
    /// chain of short-lived answers would never end.
    pub fn look(&self, now: Instant, since: Instant, name: &DomainName, kind: RecordType) -> Look<'_> {
        let key = self.key_of(&Question { name: *name, kind });
        let Some(entry) = self.entries.get(&key) else {
            return Look::Unknown(key);
        };
        if matches!(entry.known, Known::Unasked) || (now >= entry.expires && entry.answered_at < since) {
            return Look::Unknown(key);
        }
        entry.is_used.set(true);
        match &entry.known {
            Known::Records(records) => Look::Records(records),
            Known::Nothing { exists } => Look::Nothing { exists: *exists },
            Known::Failed(failure) => Look::Failed(*failure),
            Known::Unasked => Look::Unknown(key),
        }
    }

    /// Returns true if the query has to be sent: none is in flight, or its answer was lost.
    pub fn ask(&mut self, now: Instant, question: &Question, asker: ShareHolder) -> Result<bool, NoRoom> {
        let key = self.key_of(question);
        let lost = |at: Instant| now.ms_since(at) >= LOST_MS;
        let known = self.entries.get(&key);
        if known.is_some_and(|entry| entry.asked_at.is_some_and(|at| !lost(at))) {
            return Ok(false);
        }
        let free = self.questions.saturating_sub(self.asked);
        if asker != ShareHolder::NOBODY && !self.shares.admits(asker, free, self.questions) {
            return Err(NoRoom::OfAsker);
        }
        if let Some(entry) = self.entries.get_mut(&key) {
            let before = entry.asked_at.replace(now);
            let other = std::mem::replace(&mut entry.asker, asker);
            self.begin(asker);
            if before.is_some() {
                self.end(other);
            }
            return Ok(true);
        }
        while self.entries.len() >= self.limit {
            self.forget_one().ok_or(NoRoom::OfAll)?;
        }
        self.begin(asker);
        self.queue.push_back(key);
        self.entries.insert(
            key,
            Entry {
                known: Known::Unasked,
                answered_at: Instant::default(),
                expires: Instant::default(),
                stale_until: Instant::default(),
                asked_at: Some(now),
                asker,
                is_used: Cell::new(false),
                waiters: Vec::new(),
            },
        );
        Ok(true)
    }

    fn begin(&mut self, asker: ShareHolder) {
        self.asked += 1;
        self.shares.take(asker, 1);
    }

    fn end(&mut self, asker: ShareHolder) {
        self.asked = self.asked.saturating_sub(1);
        self.shares.give_back(asker, 1);
    }

    /// Registers `waiter`, to be returned with the answer.
    pub fn wait(&mut self, question: u128, waiter: Id) {
        if let Some(entry) = self.entries.get_mut(&question) {
            entry.waiters.push(waiter);
        }
    }

    /// Stores an answer; those that waited for it go into `waiters`, in order of arrival.
    pub fn learn(&mut self, now: Instant, answer: Answer, waiters: &mut Vec<Id>) {
        let key = self.key_of(&answer.question);
        let Some(entry) = self.entries.get_mut(&key) else {
            return;
        };
        waiters.append(&mut entry.waiters);
        let ended = entry.asked_at.take().map(|_| entry.asker);
        let lifetime_ms = match answer.outcome {
            Outcome::Found { mut records, ttl_ms } => {
                arrange(&mut records);
                entry.known = Known::Records(records);
                let lifetime_ms = ttl_ms.clamp(SHORTEST_MS, LONGEST_MS);
                entry.stale_until = now.after_ms(lifetime_ms + STALE_MS);
                lifetime_ms
            }
            Outcome::Nothing { exists, ttl_ms } => {
                entry.known = Known::Nothing { exists };
                ttl_ms.clamp(SHORTEST_MS, LONGEST_NEGATIVE_MS)
            }
            Outcome::Failed(_) if matches!(entry.known, Known::Records(_)) && now < entry.stale_until => STALE_AGAIN_MS,
            Outcome::Failed(failure) => {
                entry.known = Known::Failed(failure);
                match failure {
                    Failure::Busy => BUSY_MS,
                    Failure::Silence | Failure::Server => FAILED_MS,
                }
            }
        };
        entry.answered_at = now;
        entry.expires = now.after_ms(lifetime_ms);
        if let Some(asker) = ended {
            self.end(asker);
        }
    }

    /// Makes room for one. Returns `None` if all have queries in flight.
    fn forget_one(&mut self) -> Option<()> {
        for _ in 0..2 * self.queue.len() {
            let key = self.queue.pop_front()?;
            match self.entries.get(&key) {
                Some(entry) if entry.asked_at.is_some() || entry.is_used.take() => {
                    self.queue.push_back(key);
                }
                Some(_) => {
                    self.entries.remove(&key);
                    return Some(());
                }
                None => {}
            }
        }
        None
    }

    fn key_of(&self, question: &Question) -> u128 {
        let kind = [question.kind as u8];
        self.key.wide(&[question.name.as_bytes(), &kind])
    }
}

/// Puts records into an order that does not depend on how the server shuffled them (RFC 3263 §4.4), most preferred first.
fn arrange(records: &mut Records) {
    match records {
        Records::Naptr(list) => {
            list.sort_unstable();
            list.truncate(MOST_RECORDS);
        }
        // By priority; within one priority, weight 0 first (RFC 2782).
        Records::Srv(list) => {
            list.sort_unstable();
            list.dedup();
            list.truncate(MOST_RECORDS);
        }
        Records::Addresses(list) => {
            list.sort_unstable();
            list.dedup();
            list.truncate(MOST_RECORDS);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::dns::Srv;

    const SECRET: Key = Key::new(1, 2);

    fn at(ms: u64) -> Instant {
        Instant::from_ms(ms)
    }

    fn question(text: &str) -> Question {
        let name = DomainName::new(b"", text.as_bytes()).unwrap();
        let kind = RecordType::A;
        Question { name, kind }
    }

    fn id(slot: u32) -> Id {
        Id { slot, generation: 1 }
    }

    fn addresses(list: &[&str]) -> Records {
        Records::Addresses(list.iter().map(|text| text.parse().unwrap()).collect())
    }

    fn found(text: &str, list: &[&str], ttl_ms: u64) -> Answer {
        let records = addresses(list);
        Answer { question: question(text), outcome: Outcome::Found { records, ttl_ms } }
    }

    fn failed(text: &str) -> Answer {
        Answer { question: question(text), outcome: Outcome::Failed(Failure::Silence) }
    }

    /// Returns what a lookup at `now` finds.
    fn known(names: &Names, now: u64, text: &str) -> String {
        let question = question(text);
        match names.look(at(now), at(now), &question.name, question.kind) {
            Look::Records(Records::Addresses(list)) => format!("{list:?}"),
            Look::Records(other) => format!("{other:?}"),
            Look::Nothing { exists } => format!("nothing, exists {exists}"),
            Look::Failed(failure) => format!("{failure:?}"),
            Look::Unknown(_) => "unknown".into(),
        }
    }

    fn ask(names: &mut Names, now: Instant, question: &Question) {
        assert_eq!(names.ask(now, question, ShareHolder::NOBODY), Ok(true));
    }

    fn learn(names: &mut Names, now: u64, answer: Answer) -> Vec<Id> {
        let mut waiters = Vec::new();
        names.learn(at(now), answer, &mut waiters);
        waiters
    }

    #[test]
    fn one_asker_leaves_questions_for_others() {
        let mut names = Names::new(SECRET, 10_000, 100);
        let asker = |names: &Names, ip: &str| names.asker(ip.parse().unwrap());
        let (mallory, alice) = (asker(&names, "192.0.2.1"), asker(&names, "192.0.2.2"));
        let name = |n: usize| question(&format!("silent{n}.example"));
        let taken = (0..200).filter(|n| names.ask(at(0), &name(*n), mallory) == Ok(true));
        assert_eq!(taken.count(), 80);
        assert_eq!(names.ask(at(0), &name(500), mallory), Err(NoRoom::OfAsker));
        assert_eq!(names.ask(at(0), &question("good.example"), alice), Ok(true));
        // A query already in flight can be waited for.
        assert_eq!(names.ask(at(0), &name(0), alice), Ok(false));
        for n in 0..80 {
            let answer = Answer { question: name(n), outcome: Outcome::Failed(Failure::Silence) };
            learn(&mut names, 1, answer);
        }
        assert_eq!(names.ask(at(1), &name(500), mallory), Ok(true));
        assert_eq!((names.asked, names.shares.held(mallory)), (2, 1));
    }

    #[test]
    fn one_question_for_all_who_wait() {
        let mut names = Names::new(SECRET, 10, 512);
        let asked = question("a.example");
        assert_eq!(names.ask(at(0), &asked, ShareHolder::NOBODY), Ok(true));
        let Look::Unknown(key) = names.look(at(0), at(0), &asked.name, asked.kind) else {
            panic!("known before it was answered");
        };
        names.wait(key, id(1));
        assert_eq!(names.ask(at(10), &asked, ShareHolder::NOBODY), Ok(false));
        names.wait(key, id(2));
        let waiters = learn(&mut names, 20, found("A.example.", &["192.0.2.1"], 5000));
        assert_eq!(waiters, [id(1), id(2)]);
        assert_eq!(known(&names, 20, "a.example"), "[192.0.2.1]");
        // They are returned only once.
        assert!(learn(&mut names, 30, found("a.example", &["192.0.2.1"], 5000)).is_empty());
    }

    #[test]
    fn answers_hold_for_their_time_and_no_longer() {
        let mut names = Names::new(SECRET, 10, 512);
        ask(&mut names, at(0), &question("a.example"));
        learn(&mut names, 100, found("a.example", &["192.0.2.1"], 5000));
        assert_eq!(known(&names, 5099, "a.example"), "[192.0.2.1]");
        assert_eq!(known(&names, 5100, "a.example"), "unknown");
        assert_eq!(names.ask(at(5100), &question("a.example"), ShareHolder::NOBODY), Ok(true));

        let nothing = |exists, ttl_ms| Answer { question: question("b.example"), outcome: Outcome::Nothing { exists, ttl_ms } };
        ask(&mut names, at(0), &question("b.example"));
        learn(&mut names, 0, nothing(false, 60_000));
        assert_eq!(known(&names, 59_999, "b.example"), "nothing, exists false");
        assert_eq!(known(&names, 60_000, "b.example"), "unknown");
        // Absence is believed for at most an hour.
        learn(&mut names, 0, nothing(true, u64::MAX));
        assert_eq!(known(&names, 3_599_999, "b.example"), "nothing, exists true");
        assert_eq!(known(&names, 3_600_000, "b.example"), "unknown");

        ask(&mut names, at(0), &question("c.example"));
        learn(&mut names, 0, failed("c.example"));
        assert_eq!(known(&names, 4999, "c.example"), "Silence");
        assert_eq!(known(&names, 5000, "c.example"), "unknown");
    }

    #[test]
    fn an_answer_without_a_lifetime_is_good_for_who_asked() {
        let mut names = Names::new(SECRET, 10, 512);
        let asked = question("a.example");
        ask(&mut names, at(0), &asked);
        learn(&mut names, 10, found("a.example", &["192.0.2.1"], 0));
        let look = |now, since| {
            let look = names.look(at(now), at(since), &asked.name, asked.kind);
            matches!(look, Look::Records(_))
        };
        assert!(look(3000, 5), "asked before it came, and still on the way");
        assert!(!look(3000, 11), "began after it had come");
    }

    #[test]
    fn records_that_have_expired_stand_in_while_the_servers_are_silent() {
        let mut names = Names::new(SECRET, 10, 512);
        ask(&mut names, at(0), &question("a.example"));
        learn(&mut names, 0, found("a.example", &["192.0.2.1"], 10_000));
        assert_eq!(names.ask(at(20_000), &question("a.example"), ShareHolder::NOBODY), Ok(true));
        learn(&mut names, 22_000, failed("a.example"));
        assert_eq!(known(&names, 22_000, "a.example"), "[192.0.2.1]");
        // Queried again before long.
        assert_eq!(known(&names, 52_000, "a.example"), "unknown");
        // But not forever.
        let day = 86_400_000 + 10_000;
        learn(&mut names, day - 1, failed("a.example"));
        assert_eq!(known(&names, day - 1, "a.example"), "[192.0.2.1]");
        let mut old = Names::new(SECRET, 10, 512);
        ask(&mut old, at(0), &question("a.example"));
        learn(&mut old, 0, found("a.example", &["192.0.2.1"], 10_000));
        learn(&mut old, day, failed("a.example"));
        assert_eq!(known(&old, day, "a.example"), "Silence");
        // Fresh answers take precedence.
        ask(&mut names, at(52_000), &question("a.example"));
        let nothing = Answer { question: question("a.example"), outcome: Outcome::Nothing { exists: false, ttl_ms: 5000 } };
        learn(&mut names, day, nothing);
        assert_eq!(known(&names, day, "a.example"), "nothing, exists false");
    }

    #[test]
    fn a_question_without_any_answer_is_asked_again() {
        let mut names = Names::new(SECRET, 10, 512);
        let asked = question("a.example");
        assert_eq!(names.ask(at(0), &asked, ShareHolder::NOBODY), Ok(true));
        assert_eq!(names.ask(at(59_999), &asked, ShareHolder::NOBODY), Ok(false));
        assert_eq!(names.ask(at(60_000), &asked, ShareHolder::NOBODY), Ok(true));
    }

    #[test]
    fn what_nobody_uses_is_forgotten_first_and_what_is_asked_for_never() {
        let mut names = Names::new(SECRET, 3, 512);
        for text in ["a.example", "b.example", "c.example"] {
            assert_eq!(names.ask(at(0), &question(text), ShareHolder::NOBODY), Ok(true));
        }
        assert_eq!(names.ask(at(0), &question("d.example"), ShareHolder::NOBODY), Err(NoRoom::OfAll), "all asked");
        for text in ["a.example", "b.example"] {
            learn(&mut names, 0, found(text, &["192.0.2.1"], 50_000));
        }
        assert_eq!(known(&names, 1, "a.example"), "[192.0.2.1]");
        assert_eq!(names.ask(at(1), &question("d.example"), ShareHolder::NOBODY), Ok(true));
        assert_eq!(names.len(), 3);
        assert_eq!(known(&names, 1, "b.example"), "unknown");
        assert_eq!(known(&names, 1, "a.example"), "[192.0.2.1]");
        assert_eq!(names.ask(at(1), &question("c.example"), ShareHolder::NOBODY), Ok(false));
        // An answer to a question that was not asked is ignored.
        learn(&mut names, 2, found("b.example", &["192.0.2.1"], 50_000));
        assert_eq!(known(&names, 2, "b.example"), "unknown");
    }

    #[test]
    fn the_order_does_not_depend_on_the_servers() {
        let mut names = Names::new(SECRET, 3, 512);
        ask(&mut names, at(0), &question("a.example"));
        let list = ["192.0.2.3", "192.0.2.1", "192.0.2.2", "192.0.2.1"];
        learn(&mut names, 0, found("a.example", &list, 50_000));
        let sorted = "[192.0.2.1, 192.0.2.2, 192.0.2.3]";
        assert_eq!(known(&names, 0, "a.example"), sorted);
        let srv = |priority, weight| Srv { priority, weight, port: 5060, target: b"x.example".to_vec() };
        let mut records = Records::Srv(vec![srv(20, 0), srv(10, 5), srv(10, 0), srv(10, 5)]);
        arrange(&mut records);
        let sorted = vec![srv(10, 0), srv(10, 5), srv(20, 0)];
        assert_eq!(records, Records::Srv(sorted));
        let many = (0..40u8).map(|n| IpAddr::from([192, 0, 2, n]));
        let mut records = Records::Addresses(many.collect());
        arrange(&mut records);
        assert_eq!(records.len(), MOST_RECORDS);
    }
}
