//! The calls in progress, and the record that each leaves when it is over: who called whom, which next hops were tried and with
//! what result, when it rang, when it was answered, and when and by whom it was ended. All cores share one table, because a BYE may
//! reach another core than its INVITE did.
//!
//! A call is identified by the keyed hash of its Call-ID and the opener's tag ([`crate::stack::identity::Dialog::call`]), so a
//! copy that loops back belongs to the call that it continues. Records are for people and programs: no rule depends on them, and
//! without `[records]` there is no table.
//!
//! A BYE ends a call when it has its answer, and then at the time when it came. Whoever sends one considers the call ended at once
//! (RFC 3261 §15.1.1), but one that is refused with 401 or 407 comes again, and a callee that has refused one may talk on. So a
//! refused BYE ends nothing; if nothing is heard of the call after it, it is what the record says in the end, instead of "lost".

use crate::base::hash::BuildPrehashed;
use crate::base::{Flow, Instant, Timestamp, Transport};
use crate::stack::health::Cause;
use serde::Serialize;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

const SHARDS: usize = 1024;

/// Shards searched for lost calls at a time.
const SWEPT: usize = 4;

/// Bytes kept of a Call-ID and of each URI: no real name is longer.
const TEXT: usize = 96;

/// Next hops that a record names; further ones are only counted.
const ATTEMPTS: usize = 8;

/// Dialogs that a call may be answered with: if two phones pick up at once there are two, and one of them ends immediately.
const DIALOGS: usize = 3;

/// Who ended a call, or why it is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum End {
    /// A BYE of the caller.
    Caller,
    /// A BYE of the callee.
    Callee,
    /// No next hop accepted it.
    Refused,
    /// The caller gave up before an answer.
    Cancelled,
    /// It was answered, but nothing has been heard of it for too long.
    Lost,
    /// It continues without us: `record_route` is false, or the server has stopped.
    Unseen,
}

/// The result of trying one next hop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// No result yet.
    Open,
    Status(u16),
    Failed(Cause),
}

/// What a BYE will have ended once it has its answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ending {
    pub call: u64,
    /// The dialog, by the hash of the callee's tag.
    pub dialog: u32,
    pub end: End,
}

/// A BYE that has passed.
#[derive(Clone, Copy, Debug)]
struct Bye {
    /// When it came, as the times of [`Call`].
    at: u32,
    dialog: u32,
    end: End,
    is_refused: bool,
}

/// What is known when a call begins.
#[derive(Clone, Copy, Debug)]
pub struct Beginning<'a> {
    pub call_id: &'a [u8],
    /// The URIs in From and To.
    pub from: &'a [u8],
    pub to: &'a [u8],
    /// The name that the caller proved with its password, if any.
    pub user: &'a [u8],
    pub source: Flow,
    /// The route's position in the conf.
    pub route: Option<u16>,
}

/// One call in progress. Times are milliseconds since its beginning, plus one; 0 means not yet.
#[derive(Debug)]
struct Call {
    begun: Instant,
    /// When any message of the call was last seen.
    heard: Instant,
    ringing: u32,
    answered: u32,
    /// The final status, once there is one.
    status: u16,
    route: u16,
    /// Copies of its INVITE here that await a final response: it may have looped back, or arrived by two paths.
    legs: u8,
    /// Its dialogs, by the hash of the callee's tag; 0 means none.
    dialogs: [u32; DIALOGS],
    /// The first BYE that was not refused, or the last that was.
    bye: Option<Bye>,
    source: Hop,
    /// Call-ID, From, To and user, concatenated.
    text: Box<[u8]>,
    lengths: [u8; 4],
    /// Attempts that did not fit.
    more: u16,
    attempts: Vec<(Hop, Outcome)>,
}

/// The other end of a flow, packed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Hop {
    ip: [u8; 16],
    port: u16,
    transport: Transport,
}

impl From<&Flow> for Hop {
    fn from(flow: &Flow) -> Hop {
        let ip = match flow.peer.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        Hop { ip: ip.octets(), port: flow.peer.port(), transport: flow.transport }
    }
}

impl Hop {
    fn address(&self) -> SocketAddr {
        SocketAddr::new(Ipv6Addr::from(self.ip).to_canonical(), self.port)
    }
}

type ShardMap = HashMap<u64, Box<Call>, BuildPrehashed>;
type Shard = Mutex<ShardMap>;

/// The table of calls; see the module documentation.
#[derive(Debug)]
pub struct Calls {
    shards: Box<[Shard]>,
    count: AtomicUsize,
    answered: AtomicUsize,
    /// Maximum number of concurrent calls; further ones leave no record.
    most: usize,
    unrecorded: AtomicU64,
    sweep_at: AtomicUsize,
}

/// A record, as written in one line of JSON.
#[derive(Serialize)]
struct Record<'a> {
    start: String,
    call_id: &'a str,
    from: &'a str,
    to: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    user: &'a str,
    source: String,
    transport: &'static str,
    /// The `[[route]]` it took, counted from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<u16>,
    tried: Vec<Tried>,
    #[serde(skip_serializing_if = "is_zero")]
    tried_more: u16,
    #[serde(skip_serializing_if = "is_zero")]
    status: u16,
    /// Milliseconds from the beginning to the first 180 or 183, to the 200, and to the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    ringing_ms: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    answered_ms: Option<u32>,
    ended_ms: u64,
    end: End,
}

#[derive(Serialize)]
struct Tried {
    to: String,
    transport: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<&'static str>,
}

fn is_zero(number: &u16) -> bool {
    *number == 0
}

impl Calls {
    pub fn new(most: usize) -> Calls {
        Calls {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            count: AtomicUsize::new(0),
            answered: AtomicUsize::new(0),
            most,
            unrecorded: AtomicU64::new(0),
            sweep_at: AtomicUsize::new(0),
        }
    }

    /// Returns the number of calls that have begun and are not over.
    pub fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns how many of them have been answered.
    pub fn answered(&self) -> usize {
        self.answered.load(Ordering::Relaxed)
    }

    /// Returns the number of calls left without a record because there were too many at a time.
    pub fn unrecorded(&self) -> u64 {
        self.unrecorded.load(Ordering::Relaxed)
    }

    /// Notes that an INVITE that opens a call is forwarded. A call that is already in the table continues: its INVITE has looped
    /// back, or is retried with credentials.
    pub fn begin(&self, now: Instant, call: u64, beginning: &Beginning) {
        let mut shard = self.shard(call);
        if let Some(known) = shard.get_mut(&call) {
            known.heard = now;
            known.legs = known.legs.saturating_add(1);
            return;
        }
        if self.len() >= self.most {
            self.unrecorded.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let texts = [beginning.call_id, beginning.from, beginning.to, beginning.user].map(|text| text.get(..TEXT).unwrap_or(text));
        shard.insert(
            call,
            Box::new(Call {
                begun: now,
                heard: now,
                ringing: 0,
                answered: 0,
                status: 0,
                route: beginning.route.unwrap_or(u16::MAX),
                legs: 1,
                dialogs: [0; DIALOGS],
                bye: None,
                source: Hop::from(&beginning.source),
                lengths: texts.map(|text| text.len() as u8),
                text: texts.concat().into(),
                more: 0,
                attempts: Vec::new(),
            }),
        );
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that a copy of the INVITE leaves for a next hop.
    pub fn attempt(&self, call: u64, to: &Flow) {
        self.with(call, |call| match call.attempts.len() < ATTEMPTS {
            true => call.attempts.push((Hop::from(to), Outcome::Open)),
            false => call.more = call.more.saturating_add(1),
        });
    }

    /// Notes the result of the last copy sent to this next hop. One that was given up for its silence may accept after all.
    pub fn outcome(&self, call: u64, to: &Flow, outcome: Outcome) {
        let hop = Hop::from(to);
        self.with(call, |call| {
            let is_accepted = matches!(outcome, Outcome::Status(200..300));
            let is_open = |before: &Outcome| match before {
                Outcome::Open => true,
                Outcome::Failed(Cause::NoResponse) => is_accepted,
                Outcome::Status(_) | Outcome::Failed(_) => false,
            };
            let mut attempts = call.attempts.iter_mut().rev();
            if let Some(attempt) = attempts.find(|(other, before)| *other == hop && is_open(before)) {
                attempt.1 = outcome;
            }
        });
    }

    /// Notes that it rings (180) or is about to (183).
    pub fn ringing(&self, now: Instant, call: u64) {
        self.with(call, |call| {
            if call.ringing == 0 && call.answered == 0 {
                call.ringing = after(now, call.begun);
            }
        });
    }

    /// Notes that it is answered by a 2xx, in the dialog identified by `dialog`, the hash of the callee's tag.
    pub fn answered_now(&self, now: Instant, call: u64, status: u16, dialog: u32) {
        self.with(call, |call| {
            call.heard = now;
            if call.answered == 0 {
                (call.answered, call.status) = (after(now, call.begun), status);
                self.answered.fetch_add(1, Ordering::Relaxed);
            }
            if !call.dialogs.contains(&dialog)
                && let Some(free) = call.dialogs.iter_mut().find(|known| **known == 0)
            {
                *free = dialog;
            }
        });
    }

    /// Notes that a request of an answered call has passed: it is not lost, and a BYE that was refused has not ended it.
    pub fn heard(&self, now: Instant, call: u64) {
        self.with(call, |call| {
            call.heard = now;
            call.bye = call.bye.filter(|bye| !bye.is_refused);
        });
    }

    /// Notes that a BYE has passed. Its answer says whether it ends the call.
    pub fn leaving(&self, now: Instant, ending: Ending) {
        self.with(ending.call, |call| {
            call.heard = now;
            if call.bye.is_none_or(|bye| bye.is_refused) {
                let Ending { dialog, end, .. } = ending;
                call.bye = Some(Bye { at: after(now, call.begun), dialog, end, is_refused: false });
            }
        });
    }

    /// Notes that this BYE was refused: its call goes on, unless nothing more is heard of it.
    pub fn stayed(&self, ending: Ending) {
        self.with(ending.call, |call| {
            if let Some(bye) = &mut call.bye
                && (bye.dialog, bye.end) == (ending.dialog, ending.end)
            {
                bye.is_refused = true;
            }
        });
    }

    /// Notes that a copy of its INVITE got a final response other than a 2xx; the last one ends the call if none was answered. A
    /// challenge alone leaves no record: the caller will try again, and that begins the call anew.
    pub fn refused(&self, now: Instant, call: u64, status: u16, end: End, wall_ms: u64, out: &mut Vec<u8>) {
        let is_last = |call: &mut Call| {
            call.legs = call.legs.saturating_sub(1);
            call.answered == 0 && call.legs == 0
        };
        let Some(mut gone) = self.take(call, is_last) else {
            return;
        };
        if matches!(status, 401 | 407) {
            return;
        }
        gone.status = status;
        gone.write(now, end, wall_ms, out);
    }

    /// Ends one of its dialogs, by a BYE that came at `came` and has its answer now; with the last one, the call ends. If both sides
    /// have sent one, the first counts.
    pub fn ended(&self, came: Instant, ending: Ending, wall_ms: u64, out: &mut Vec<u8>) {
        let Ending { call, dialog, end } = ending;
        let mut first = None;
        let is_last = |call: &mut Call| {
            let Some(known) = call.dialogs.iter_mut().find(|known| **known == dialog) else {
                return false;
            };
            *known = 0;
            first = call.bye.take_if(|bye| bye.dialog == dialog).filter(|bye| !bye.is_refused);
            call.dialogs.iter().all(|dialog| *dialog == 0)
        };
        if let Some(gone) = self.take(call, is_last) {
            match first {
                Some(bye) => gone.write(gone.time_of(bye), bye.end, wall_ms, out),
                None => gone.write(came, end, wall_ms, out),
            }
        }
    }

    /// Ends an answered call of which nothing more will pass here.
    pub fn unseen(&self, now: Instant, call: u64, wall_ms: u64, out: &mut Vec<u8>) {
        if let Some(gone) = self.take(call, |call| call.answered != 0) {
            gone.write(now, End::Unseen, wall_ms, out);
        }
    }

    /// Returns how often [`Calls::sweep`] is to be called, in milliseconds, so that a lost call is found without much delay.
    pub const fn sweep_every_ms(lost_after_ms: u64) -> u64 {
        let often = lost_after_ms / 4 / (SHARDS / SWEPT) as u64;
        match often {
            0..20 => 20,
            1001.. => 1000,
            often => often,
        }
    }

    /// Asserts that the table holds as many calls as were counted.
    #[cfg(debug_assertions)]
    pub fn check(&self) {
        let (mut calls, mut answered) = (0, 0);
        for shard in &self.shards {
            let shard = lock(shard);
            calls += shard.len();
            answered += shard.values().filter(|call| call.answered != 0).count();
        }
        assert_eq!((calls, answered), (self.len(), self.answered()), "calls in progress, and those of them that were answered");
    }

    /// Looks in a part of the table for calls of which nothing has been heard for `lost_after_ms`; a full round takes [`SHARDS`] ÷
    /// [`SWEPT`] invocations.
    pub fn sweep(&self, now: Instant, lost_after_ms: u64, wall_ms: u64, out: &mut Vec<u8>) {
        for _ in 0..SWEPT {
            let at = self.sweep_at.fetch_add(1, Ordering::Relaxed) % SHARDS;
            let mut shard = lock(&self.shards[at]);
            let lost = |call: &Call| now.ms_since(call.heard) >= lost_after_ms;
            for (_, call) in shard.extract_if(|_, call| lost(call)) {
                self.forget(&call);
                let end = if call.answered == 0 { End::Refused } else { End::Lost };
                call.write_last(now, end, wall_ms, out);
            }
        }
    }

    /// Takes all calls when the server stops, and hands their records to `take` in parts until that returns false.
    pub fn close(&self, now: Instant, wall_ms: u64, mut take: impl FnMut(&[u8]) -> bool) {
        let mut lines = Vec::new();
        for shard in &self.shards {
            for (_, call) in lock(shard).drain() {
                self.forget(&call);
                call.write_last(now, End::Unseen, wall_ms, &mut lines);
            }
            if !lines.is_empty() && !take(&lines) {
                return;
            }
            lines.clear();
        }
    }

    fn take(&self, call: u64, is_due: impl FnOnce(&mut Call) -> bool) -> Option<Box<Call>> {
        let mut shard = self.shard(call);
        if !is_due(shard.get_mut(&call)?) {
            return None;
        }
        let gone = shard.remove(&call)?;
        self.forget(&gone);
        Some(gone)
    }

    fn forget(&self, call: &Call) {
        self.count.fetch_sub(1, Ordering::Relaxed);
        if call.answered != 0 {
            self.answered.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn with<R>(&self, call: u64, work: impl FnOnce(&mut Call) -> R) -> Option<R> {
        self.shard(call).get_mut(&call).map(|call| work(call))
    }

    /// Returns the shard of a call: by the upper half of its hash, since the lower half spreads it within the shard.
    fn shard(&self, call: u64) -> MutexGuard<'_, ShardMap> {
        lock(&self.shards[(call >> 32) as usize % SHARDS])
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn after(now: Instant, begun: Instant) -> u32 {
    u32::try_from(now.ms_since(begun) + 1).unwrap_or(u32::MAX)
}

impl Call {
    /// When a BYE came.
    fn time_of(&self, bye: Bye) -> Instant {
        self.begun.after_ms(u64::from(bye.at.saturating_sub(1)))
    }

    /// Writes the record of a call of which nothing more will be known: if a BYE was the last of it, that has ended it.
    fn write_last(&self, now: Instant, end: End, wall_ms: u64, out: &mut Vec<u8>) {
        match self.bye {
            Some(bye) => self.write(self.time_of(bye), bye.end, wall_ms, out),
            None => self.write(now, end, wall_ms, out),
        }
    }

    /// Writes the record. `wall_ms` is the time since 1970 at [`Instant`] zero, in milliseconds.
    fn write(&self, now: Instant, end: End, wall_ms: u64, out: &mut Vec<u8>) {
        let mut rest = &self.text[..];
        let texts = self.lengths.map(|len| {
            let (text, after) = rest.split_at_checked(usize::from(len)).unwrap_or((rest, &[]));
            rest = after;
            String::from_utf8_lossy(text)
        });
        let tried = self.attempts.iter().map(|(hop, outcome)| Tried {
            to: hop.address().to_string(),
            transport: hop.transport.name(),
            status: match outcome {
                Outcome::Status(status) => Some(*status),
                _ => None,
            },
            failure: match outcome {
                Outcome::Failed(cause) => Some(cause.words()),
                _ => None,
            },
        });
        let time = |ms: u32| (ms > 0).then(|| ms - 1);
        let record = Record {
            start: Timestamp(wall_ms.saturating_add(self.begun.as_ms())).to_string(),
            call_id: &texts[0],
            from: &texts[1],
            to: &texts[2],
            user: &texts[3],
            source: self.source.address().to_string(),
            transport: self.source.transport.name(),
            route: self.route.checked_add(1),
            tried: tried.collect(),
            tried_more: self.more,
            status: self.status,
            ringing_ms: time(self.ringing),
            answered_ms: time(self.answered),
            ended_ms: now.ms_since(self.begun),
            end,
        };
        // Writing to memory does not fail, nor does serializing this.
        let written = serde_json::to_writer(&mut *out, &record);
        debug_assert!(written.is_ok(), "{written:?}");
        out.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    const WALL_MS: u64 = 1_764_410_400_000;

    fn at(ms: u64) -> Instant {
        Instant::from_ms(ms)
    }

    fn to(address: &str) -> Flow {
        Flow::datagram(0, address.parse().unwrap())
    }

    fn begin(calls: &Calls, now: u64, call: u64) {
        let beginning = Beginning {
            call_id: b"a84b4c76@h",
            from: b"sip:alice@example.com",
            to: b"sip:bob@example.com",
            user: b"alice",
            source: to("192.0.2.7:5060"),
            route: Some(0),
        };
        calls.begin(at(now), call, &beginning);
    }

    fn lines(out: &[u8]) -> Vec<Value> {
        let text = std::str::from_utf8(out).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn a_call_leaves_one_record() {
        let (calls, mut out) = (Calls::new(10), Vec::new());
        begin(&calls, 1000, 7);
        for (address, outcome) in
            [("192.0.2.1:5060", Outcome::Failed(Cause::NoResponse)), ("[2001:db8::1]:5070", Outcome::Status(200))]
        {
            calls.attempt(7, &to(address));
            calls.outcome(7, &to(address), outcome);
        }
        calls.ringing(at(5100), 7);
        calls.ringing(at(5300), 7);
        calls.answered_now(at(9000), 7, 200, 70);
        calls.answered_now(at(9500), 7, 200, 70);
        assert_eq!((calls.len(), calls.answered()), (1, 1));
        calls.ended(at(60_000), Ending { call: 7, dialog: 71, end: End::Callee }, WALL_MS, &mut out);
        assert!(out.is_empty(), "of no dialog of this call");
        calls.ended(at(69_000), Ending { call: 7, dialog: 70, end: End::Callee }, WALL_MS, &mut out);
        calls.ended(at(69_500), Ending { call: 7, dialog: 70, end: End::Callee }, WALL_MS, &mut out);
        calls.check();
        assert_eq!((calls.len(), calls.answered()), (0, 0));
        let expected = serde_json::json!({
            "start": "2025-11-29T10:00:01.000Z", "call_id": "a84b4c76@h", "from": "sip:alice@example.com", "to": "sip:bob@example.com",
            "user": "alice", "source": "192.0.2.7:5060", "transport": "UDP", "route": 1, "status": 200,
            "tried": [{"to": "192.0.2.1:5060", "transport": "UDP", "failure": "no response"},
                      {"to": "[2001:db8::1]:5070", "transport": "UDP", "status": 200}],
            "ringing_ms": 4100, "answered_ms": 8000, "ended_ms": 68_000, "end": "callee",
        });
        assert_eq!(lines(&out), [expected]);
    }

    #[test]
    fn a_challenge_is_no_call_and_a_cancelled_one_says_so() {
        let (calls, mut out) = (Calls::new(10), Vec::new());
        begin(&calls, 0, 7);
        calls.refused(at(5), 7, 407, End::Refused, WALL_MS, &mut out);
        assert!(out.is_empty() && calls.is_empty());
        begin(&calls, 10, 7);
        calls.refused(at(500), 7, 487, End::Cancelled, WALL_MS, &mut out);
        begin(&calls, 1000, 8);
        calls.refused(at(1001), 8, 486, End::Refused, WALL_MS, &mut out);
        let ends: Vec<_> = lines(&out).iter().map(|line| (line["end"].clone(), line["status"].clone())).collect();
        assert_eq!(ends, [("cancelled".into(), 487.into()), ("refused".into(), 486.into())]);
        // A late refusal of a second branch does not end a call that was answered.
        begin(&calls, 2000, 9);
        calls.answered_now(at(2001), 9, 200, 90);
        calls.refused(at(2002), 9, 486, End::Refused, WALL_MS, &mut out);
        assert_eq!(calls.answered(), 1);
        calls.check();
    }

    #[test]
    fn a_call_that_came_by_two_ways_is_refused_when_both_are() {
        let (calls, mut out) = (Calls::new(10), Vec::new());
        begin(&calls, 0, 7);
        begin(&calls, 5, 7);
        calls.refused(at(10), 7, 486, End::Refused, WALL_MS, &mut out);
        assert!(out.is_empty() && calls.len() == 1);
        calls.refused(at(20), 7, 404, End::Refused, WALL_MS, &mut out);
        let line = &lines(&out)[0];
        assert_eq!((&line["status"], &line["ended_ms"]), (&404.into(), &20.into()));
        assert!(calls.is_empty());
    }

    #[test]
    fn a_call_that_two_phones_have_answered_ends_with_the_second_dialog() {
        let (calls, mut out) = (Calls::new(10), Vec::new());
        begin(&calls, 0, 7);
        calls.answered_now(at(10), 7, 200, 70);
        calls.answered_now(at(11), 7, 200, 71);
        calls.ended(at(20), Ending { call: 7, dialog: 71, end: End::Caller }, WALL_MS, &mut out);
        assert!(out.is_empty());
        calls.ended(at(90), Ending { call: 7, dialog: 70, end: End::Callee }, WALL_MS, &mut out);
        assert_eq!(lines(&out)[0]["end"], "callee");
        assert_eq!(lines(&out)[0]["answered_ms"], 10);
    }

    #[test]
    fn at_the_end_of_the_server_all_calls_leave_their_records() {
        let calls = Calls::new(10);
        for call in [1, 2, 1025] {
            begin(&calls, 0, call);
        }
        calls.answered_now(at(0), 1, 200, 1);
        let mut out = Vec::new();
        calls.close(at(70), WALL_MS, |lines| {
            out.extend_from_slice(lines);
            true
        });
        assert_eq!(lines(&out).iter().filter(|line| line["end"] == "unseen").count(), 3);
        assert!(calls.is_empty());
        calls.check();
    }

    #[test]
    fn a_round_of_the_sweep_is_short_beside_what_it_looks_for() {
        for lost_after_ms in [60_000, 3_600_000, 43_200_000] {
            let round = Calls::sweep_every_ms(lost_after_ms) * (SHARDS / SWEPT) as u64;
            assert!(round <= lost_after_ms / 4 && round <= 300_000, "{round}");
        }
    }

    #[test]
    fn what_is_never_heard_of_again_is_lost_in_the_end() {
        let (calls, mut out) = (Calls::new(10), Vec::new());
        for call in [1, 2, 1025] {
            begin(&calls, 0, call);
            calls.answered_now(at(0), call, 200, 1);
        }
        calls.heard(at(5000), 2);
        let mut round = |now| {
            out.clear();
            for _ in 0..SHARDS / SWEPT {
                calls.sweep(at(now), 10_000, WALL_MS, &mut out);
            }
            lines(&out).iter().filter(|line| line["end"] == "lost").count()
        };
        assert_eq!(round(9_999), 0);
        assert_eq!(round(10_000), 2);
        assert_eq!(round(15_000), 1);
        assert!(calls.is_empty());
    }

    #[test]
    fn memory_has_an_end() {
        let calls = Calls::new(3);
        for call in 0..5 {
            begin(&calls, 0, call);
        }
        assert_eq!((calls.len(), calls.unrecorded()), (3, 2));
        for number in 0..20 {
            calls.attempt(1, &to(&format!("192.0.2.{number}:5060")));
        }
        let mut out = Vec::new();
        calls.answered_now(at(1), 1, 200, 1);
        calls.ended(at(2), Ending { call: 1, dialog: 1, end: End::Caller }, WALL_MS, &mut out);
        let line = &lines(&out)[0];
        assert_eq!((line["tried"].as_array().unwrap().len(), &line["tried_more"]), (ATTEMPTS, &12.into()));
        // A typical call with two attempts: the box, its text, two attempts, and its entry in the table.
        let bytes = size_of::<Call>() + 10 + 21 + 19 + 5 + 2 * size_of::<(Hop, Outcome)>() + 24;
        assert!(bytes <= 300, "{bytes}");
        let longest = size_of::<Call>() + 4 * TEXT + 24;
        assert!(longest <= 600, "{longest}");
    }
}
