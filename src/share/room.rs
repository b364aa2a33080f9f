//! What the threads that speak to Redis have in common: the table, its clock and rules, what is counted, and how well they are.

use super::access::Access;
use super::form::ReadRow;
use super::trouble::Trouble;
use crate::base::{Channel, Flow, Instant, LogBudget, Transport};
use crate::stack::location::telling::SharedLocation;
use crate::stack::location::{Location, Reached, Row, RowRules, SharedRow, TakenIn};
use crate::stack::relay::RelayTokens;
use std::mem::Discriminant;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time;

/// What is shared, with whom, and as whom.
pub struct Settings {
    pub access: Access,
    /// This server's name among the nodes.
    pub node: String,
    /// Where it takes requests for phones that only it can reach.
    pub relay: Option<SocketAddr>,
    /// Replicas that must have a change before it counts as told.
    pub replicas: usize,
    /// Changes that Redis keeps of each part.
    pub stream: usize,
    /// What writes and reads the ways to phones that only this server can reach.
    pub tokens: RelayTokens,
    /// As bound, by position.
    pub listeners: Vec<(Transport, SocketAddr)>,
    /// The rules that bindings from Redis are checked against.
    pub rules: RowRules,
}

/// The clock of the rules, and that of the wall.
pub struct Clocks {
    pub now: Box<dyn Fn() -> Instant + Send + Sync>,
    /// The time since 1970 at time 0, milliseconds, by the wall clock as it is now. What the servers tell each other is by Redis's clock;
    /// this one is only compared with that.
    pub wall_ms: Box<dyn Fn() -> u64 + Send + Sync>,
}

/// Called by the threads.
pub struct Hooks {
    /// At the beginning of each.
    pub prepare: Box<dyn Fn() + Send + Sync>,
    /// When waiting answers may go, or must be refused.
    pub progress: Box<dyn Fn() + Send + Sync>,
}

/// The two things that are done with Redis, each on a thread and connections of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Duty {
    Telling,
    Following,
}

/// What is counted.
#[derive(Default)]
pub struct Counts {
    /// Versions that Redis has accepted, or had.
    pub told: AtomicU64,
    /// Changes of others that were taken in.
    pub taken_in: AtomicU64,
    /// Versions that Redis has rejected, because it has a better one.
    pub rejected: AtomicU64,
    /// What is in Redis and cannot be used.
    pub unusable: AtomicU64,
    /// What `[limits] bindings` left no room for.
    pub no_room: AtomicU64,
    pub failures: AtomicU64,
    pub readings: AtomicU64,
    /// Versions that were taken off the lists and not answered yet.
    pub in_hand: AtomicUsize,
    /// When everything had been told, the last time, in milliseconds of the rules' clock.
    pub caught_up_ms: AtomicU64,
}

/// How well the two are.
#[derive(Default)]
struct Condition {
    ill: [bool; 2],
    /// Since when one of them is.
    since: Option<time::Instant>,
    /// The table was read in full, once at least.
    is_joined: bool,
    /// Changes were missed, and the table is read anew.
    is_reading: bool,
    /// The kinds of trouble that this outage has brought.
    said: Vec<Discriminant<Trouble>>,
}

impl Condition {
    /// Returns whether changes must not be promised: Redis cannot be told of them, or what is known here may be old.
    fn is_failing(&self) -> bool {
        self.ill.contains(&true) || self.is_reading
    }
}

pub struct Room {
    pub location: Arc<Location>,
    pub settings: Settings,
    pub clocks: Clocks,
    pub counts: Counts,
    pub is_stopping: AtomicBool,
    /// Set once, when the threads start.
    pub hooks: OnceLock<Hooks>,
    condition: Mutex<Condition>,
    budget: Mutex<LogBudget>,
    /// By how many seconds the clocks differ, as the log has said.
    said_skew_s: AtomicI64,
    /// The primary that the sentinels name.
    named: Mutex<Option<(String, u16)>>,
}

impl Room {
    /// `location` shares its table ([`Location::with_sharing`]).
    pub fn new(location: Arc<Location>, settings: Settings, clocks: Clocks) -> Room {
        Room {
            location,
            settings,
            clocks,
            counts: Counts::default(),
            is_stopping: AtomicBool::new(false),
            hooks: OnceLock::new(),
            condition: Mutex::default(),
            budget: Mutex::new(LogBudget::new("the shared location table")),
            said_skew_s: AtomicI64::new(0),
            named: Mutex::default(),
        }
    }

    pub fn now(&self) -> Instant {
        (self.clocks.now)()
    }

    /// Returns the table; `None` if it is not shared, which cannot be.
    pub fn shared(&self) -> Option<SharedLocation<'_>> {
        self.location.shared()
    }

    pub fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::SeqCst)
    }

    pub fn progress(&self) {
        if let Some(hooks) = self.hooks.get() {
            (hooks.progress)();
        }
    }

    /// Lets lines about others be logged again.
    pub fn renew(&self) {
        lock(&self.budget).renew(self.now());
    }

    // ---- the clock -----------------------------------------------------------------------------------------------------

    /// Returns the time since 1970 in milliseconds by Redis's clock; by ours until that is known.
    pub fn now_ms(&self) -> u64 {
        let start_ms = self.shared().map_or_else(|| (self.clocks.wall_ms)(), |shared| shared.wall_ms());
        start_ms.saturating_add(self.now().as_ms())
    }

    /// Learns what time it is by Redis's clock: it has said `time_ms` after `before`, and we have heard it at `after`.
    pub fn learn_time(&self, time_ms: u64, before: Instant, after: Instant) {
        let Some(shared) = self.shared() else {
            return;
        };
        let known_ms = shared.wall_ms();
        let (earliest, latest) = (time_ms.saturating_sub(after.as_ms()), time_ms.saturating_add(1).saturating_sub(before.as_ms()));
        if !(earliest..=latest).contains(&known_ms) {
            let start_ms = earliest.midpoint(latest);
            shared.set_wall_ms(start_ms);
            // What Redis has not taken may have been refused for its times.
            if start_ms.abs_diff(known_ms) >= NOTABLE_MS {
                shared.list_untold();
            }
        }
        self.note_skew((self.clocks.wall_ms)() as i64 - shared.wall_ms() as i64);
    }

    /// Says that the clocks differ, once for each such difference.
    fn note_skew(&self, ahead_ms: i64) {
        let said_s = self.said_skew_s.load(Ordering::Relaxed);
        let is_notable = ahead_ms.unsigned_abs() >= SKEW_MS;
        if is_notable == (said_s != 0) && ahead_ms.abs_diff(said_s * 1000) < SKEW_MS {
            return;
        }
        let (seconds, store) = (ahead_ms / 1000, &self.settings.access.store);
        self.said_skew_s.store(if is_notable { seconds } else { 0 }, Ordering::Relaxed);
        match seconds {
            _ if !is_notable => log::info!("{store}: this server's clock and that of Redis agree again"),
            1.. => log::warn!("{store}: this server's clock is {seconds} s ahead of that of Redis, by which bindings are shared"),
            _ => log::warn!("{store}: this server's clock is {} s behind that of Redis, by which bindings are shared", -seconds),
        }
    }

    // ---- the sentinels -------------------------------------------------------------------------------------------------

    /// Returns the primary that the sentinels name; `None` if there are none, or none of them has said it yet.
    pub fn named(&self) -> Option<(String, u16)> {
        lock(&self.named).clone()
    }

    pub fn set_named(&self, server: (String, u16)) {
        *lock(&self.named) = Some(server);
    }

    // ---- well and ill --------------------------------------------------------------------------------------------------

    pub fn is_joined(&self) -> bool {
        lock(&self.condition).is_joined
    }

    /// Returns whether the table is shared now.
    pub fn is_up(&self) -> bool {
        let condition = lock(&self.condition);
        condition.is_joined && condition.since.is_none()
    }

    pub fn suffer(&self, duty: Duty, trouble: &Trouble) {
        self.counts.failures.fetch_add(1, Ordering::Relaxed);
        let mut condition = lock(&self.condition);
        condition.ill[duty as usize] = true;
        let is_first = condition.since.is_none();
        condition.since.get_or_insert_with(time::Instant::now);
        let kind = std::mem::discriminant(trouble);
        let is_new = !condition.said.contains(&kind);
        if is_new {
            condition.said.push(kind);
        }
        self.show(&condition);
        drop(condition);
        self.progress();
        if !is_first && is_new {
            log::error!("{}: still not shared, and now for another reason: {trouble}", self.settings.access.store);
        }
        if is_first {
            let consequence = match self.location.refuses_changes() {
                true => "registrations are answered 503 until it is, calls go on",
                false => "calls and registrations go on with what this server knows",
            };
            log::error!("{}: the location table is not shared: {trouble}; {consequence}", self.settings.access.store);
        }
    }

    pub fn recover(&self, duty: Duty) {
        let mut condition = lock(&self.condition);
        condition.ill[duty as usize] = false;
        self.show(&condition);
        if condition.ill.contains(&true) {
            return;
        }
        let Some(since) = condition.since.take() else {
            return;
        };
        condition.said.clear();
        drop(condition);
        let (seconds, untold) = (since.elapsed().as_secs_f64(), self.untold());
        log::info!(
            "{}: the location table is shared again after {seconds:.1} s; {untold} addresses are still to be told",
            self.settings.access.store
        );
    }

    /// Has the workers refuse what cannot be promised.
    fn show(&self, condition: &Condition) {
        if let Some(shared) = self.shared() {
            shared.set_failing(condition.is_failing());
        }
    }

    pub fn join(&self) {
        lock(&self.condition).is_joined = true;
    }

    /// Notes that the table is being read, or has been.
    pub fn set_reading(&self, is_reading: bool) {
        let mut condition = lock(&self.condition);
        condition.is_reading = is_reading;
        self.show(&condition);
    }

    /// Returns what Redis has still to be told. Visits every shard.
    pub fn untold(&self) -> usize {
        let listed = self.shared().map_or(0, |shared| shared.untold());
        listed + self.counts.in_hand.load(Ordering::Relaxed)
    }

    // ---- what comes from Redis -----------------------------------------------------------------------------------------

    /// Takes in a value that Redis has in a field of an address. `is_settled`: it comes in Redis's own order, from the stream or as
    /// the answer to a change; otherwise from a full reading.
    pub fn take_in(&self, reader: &mut ReadRow, aor: &[u8], field: &[u8], value: &[u8], is_settled: bool) -> Option<TakenIn> {
        let row = match self.read(reader, aor, field, value) {
            Ok(row) => row,
            Err(why) => {
                self.unusable(aor, why);
                return None;
            }
        };
        let taken = self.shared()?.take_in(self.now(), &row, is_settled);
        if taken == TakenIn::Expired && !row.removed {
            let (over_ms, aor) = (self.now_ms().saturating_sub(row.lease_ms), String::from_utf8_lossy(aor));
            log::debug!("a binding of {aor:?} at another server is not known here: its lease was over {over_ms} ms ago");
        }
        match taken {
            TakenIn::Added | TakenIn::Replaced | TakenIn::Removed => {
                self.counts.taken_in.fetch_add(1, Ordering::Relaxed);
            }
            TakenIn::Full => {
                self.counts.no_room.fetch_add(1, Ordering::Relaxed);
                if lock(&self.budget).may_say() {
                    let aor = String::from_utf8_lossy(aor);
                    log::warn!("a binding of {aor:?} at another server is not known here: [limits] bindings leaves no room");
                }
            }
            TakenIn::Same | TakenIn::Kept | TakenIn::Expired => {}
        }
        Some(taken)
    }

    /// Counts what is in Redis and cannot be used.
    pub fn unusable(&self, aor: &[u8], why: &str) {
        self.counts.unusable.fetch_add(1, Ordering::Relaxed);
        if lock(&self.budget).may_say() {
            let (store, aor) = (&self.settings.access.store, String::from_utf8_lossy(aor));
            log::warn!("{store}: what it has of {aor:?} is left alone and not used: {why}");
        }
    }

    /// Notes that Redis has not taken a version, because nobody keeps it any longer by Redis's clock.
    pub fn over(&self, row: &SharedRow) {
        let Some(shared) = self.shared() else {
            return;
        };
        // Nor does anybody keep what a removal removes.
        if row.removed {
            shared.told(row, row.position);
            return;
        }
        shared.blocked(row);
        self.counts.unusable.fetch_add(1, Ordering::Relaxed);
        if lock(&self.budget).may_say() {
            let (store, aor) = (&self.settings.access.store, String::from_utf8_lossy(row.aor));
            log::warn!("{store}: a binding of {aor:?} is not shared: it is over by the clock of Redis");
        }
    }

    /// Notes that a key of another program keeps Redis from taking a version.
    pub fn blocked(&self, row: &SharedRow, key: &[u8], why: &str) {
        if let Some(shared) = self.shared() {
            shared.blocked(row);
        }
        self.counts.unusable.fetch_add(1, Ordering::Relaxed);
        if lock(&self.budget).may_say() {
            let (store, key, aor) = (&self.settings.access.store, String::from_utf8_lossy(key), String::from_utf8_lossy(row.aor));
            let consequence = match self.location.waits_for_sharing() {
                true => "registrations of that are answered 503 until the key is removed",
                false => "that is known to this server alone until the key is removed and it registers again",
            };
            log::warn!(
                "{store}: what it has under {key:?} is left alone and not used, so {aor:?} is not shared: {why}; {consequence}"
            );
        }
    }

    fn read<'a>(&self, reader: &'a mut ReadRow, aor: &'a [u8], field: &[u8], value: &[u8]) -> Result<SharedRow<'a>, &'static str> {
        reader.read(value)?;
        let mut row = reader.row(aor);
        let mut own_field = Vec::new();
        row.write_field(&mut own_field);
        if own_field != field {
            return Err("the field is not that of the binding");
        }
        let now = self.now();
        let rules = &self.settings.rules;
        let longest_ms = u64::from(rules.max_expires_s()) * 1000;
        let now_ms = self.now_ms();
        row.lease_ms = row.lease_ms.min(now_ms + LEASES * longest_ms);
        row.expires_ms = row.expires_ms.min(now_ms + longest_ms).min(row.lease_ms);
        row.lifetime_s = row.lifetime_s.min(rules.max_expires_s());
        row.flow = self.own_flow(&row);
        let checked = Row {
            text: row.text,
            source: row.peer.map(|(transport, peer)| Flow { transport, ..Flow::datagram(0, peer) }),
            expires: now,
            reg_id: row.reg_id,
            cseq: row.version.cseq,
            q: row.q,
            removed: row.removed,
            reached: row.reached,
        };
        rules.check(aor, &checked)?;
        let is_by_contact = row.reached == Reached::ByContact && row.text.path.is_empty();
        row.leads_back = is_by_contact && rules.leads_back(row.text.uri, aor);
        Ok(row)
    }

    /// Returns the flow that a token of our own names, if it may still lead to the phone: connections of an earlier run do not.
    fn own_flow(&self, row: &SharedRow) -> Option<Flow> {
        if row.node != self.settings.node.as_bytes() {
            return None;
        }
        let flow = self.settings.tokens.read(&self.shared()?.own(), row.relay)?;
        let (transport, _) = self.settings.listeners.get(usize::from(flow.listener))?;
        let is_ours = matches!(flow.channel, Channel::Datagram { .. }) && *transport == Transport::Udp;
        (is_ours && row.peer == Some((Transport::Udp, flow.peer))).then_some(flow)
    }
}

/// The longest lease of a binding, in the longest lifetimes that a REGISTER is granted.
const LEASES: u64 = 7;

/// From what difference of the clocks on it is said, and from which on what was refused is told again, in milliseconds.
const SKEW_MS: u64 = 5000;
const NOTABLE_MS: u64 = 1000;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
