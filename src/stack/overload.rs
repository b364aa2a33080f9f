//! Local overload control (RFC 7339 §5.10, RFC 6357 §4): new requests are refused so that what has begun can finish.
//!
//! A worker that takes messages more slowly than they arrive falls behind: they wait longer and longer, then the kernel drops what
//! does not fit, an ACK as readily as an INVITE, and what was dropped is retransmitted. From then on new calls over UDP wait in a
//! queue of their own until what has begun is done ([`super::admission_queue`]), and a share of all other new requests is answered 503,
//! which costs a fraction of a call. The share follows from what the worker itself sees, window by window: it falls while the kernel's
//! queue is long and does not shrink by itself, and rises when it is short. So the worker stays busy, and a backlog left by a pause is
//! worked off without refusing anything.
//!
//! A call passes through the kernel's queue several times, so that queue tells of a share only some windows later. The steps of the
//! share are therefore halved whenever it turns around, until it stays near what the core can do, and doubled while it goes on in one
//! direction.
//!
//! A refusal costs a receive and a send, so most of what would be refused is better not received: the kernel drops new calls over UDP
//! ([`super::shedding`]), and the worker refuses only enough for the callers' side to learn what is wrong.

use crate::base::{Flow, Instant, Key, Load, Pool, Shed, Transport};
use crate::sip::Feedback;
use crate::stack::admission_queue::AdmissionQueue;
use crate::stack::shedding::{ALL, Shedding};

/// The interval at which the share is adjusted, in milliseconds.
const WINDOW_MS: u64 = 20;
/// The smallest share: the requests let in show whether there is room again.
const FEWEST: u32 = ALL / 64;
/// What a window takes from the share or adds to it is the share shifted right by these numbers of bits, at first and at least; it
/// adds at least that much.
const COARSEST: u32 = 5;
const FINEST: u32 = 7;
const GIVEN: u32 = ALL / 256;
/// The same at most, for a long queue; and while the queue is longer than it may ever be, or has hardly any room.
const LARGEST: u32 = 4;
const HARD: u32 = 3;
/// After this many further steps in the same direction they are doubled.
const PERSISTENT: u32 = 5;
/// Calls wait for this fraction of the patience, which leaves time for what they wait for in the kernel; and never so long that their
/// callers repeat them.
const WAITING: (u64, u64) = (3, 4);
const WAITING_MOST_MS: u64 = 200;
/// When nobody has been refused and no call has had to wait for this long, in milliseconds, the overload is over.
const CALM_MS: u64 = 500;
/// The interval at which the loss requested from neighbours is adjusted, in milliseconds; a request is valid for twice as long.
const ASKING_MS: u64 = 500;
/// The fraction of it that is taken off when no more loss is needed.
const ASKED_PART: u32 = 4;
/// The shortest interval between log lines that count refusals, in milliseconds.
const LINE_EVERY_MS: u64 = 1000;

/// Where the share went last.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Up,
    Down,
}

/// A longer message does not wait: the queue's memory is bounded by this too, in bytes.
const LONGEST: usize = 8 << 10;

/// What has been decided about a request before it is read.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Verdict {
    /// Nothing: it is no call, or not known to be one, or does not come by UDP, or nothing is overloaded.
    #[default]
    Open,
    /// A call that has waited.
    LetIn,
    /// A call for which there is no room.
    Refused,
}

/// How much of the new requests one core lets in.
pub struct Overload {
    /// Out of [`ALL`]; of what does not wait.
    share: u32,
    /// What remains of the shares of earlier requests.
    credit: u32,
    /// When this window began, and when it ends.
    since: Instant,
    until: Instant,
    /// Whether the worker took everything that had arrived, at least once in this window; and whether no call waited then.
    caught_up: bool,
    was_idle: bool,
    /// How long messages waited at the end of the last window.
    waited_ms: u64,
    /// New calls wait.
    is_on: bool,
    busy_at: Instant,
    queue: AdmissionQueue,
    /// Of the request that is being handled.
    pub verdict: Verdict,
    /// Whether the conf lets the kernel drop some.
    pub may_shed: bool,
    shedding: Shedding,
    /// The size of the share's steps, as a shift; the direction of the last one, and how many have had it since it was doubled.
    fineness: u32,
    direction: Option<Direction>,
    repeated: u32,
    /// The loss, out of [`ALL`], requested from neighbours that support it (RFC 7339), until it is adjusted again.
    asked: u32,
    asked_until: Instant,
    /// What was answered 503 since the last line and since this overload began; and the count of dropped requests, as it was then
    /// and is now.
    untold: u64,
    refused: u64,
    dropped_before: u64,
    dropped: u64,
    began: Option<Instant>,
    said: Option<Instant>,
}

impl Overload {
    pub fn new(key: Key) -> Overload {
        Overload {
            share: ALL,
            credit: 0,
            since: Instant::default(),
            until: Instant::default(),
            caught_up: true,
            was_idle: true,
            waited_ms: 0,
            is_on: false,
            busy_at: Instant::default(),
            queue: AdmissionQueue::default(),
            verdict: Verdict::Open,
            may_shed: true,
            shedding: Shedding::new(key),
            fineness: COARSEST,
            direction: None,
            repeated: 0,
            asked: 0,
            asked_until: Instant::default(),
            untold: 0,
            refused: 0,
            dropped_before: 0,
            dropped: 0,
            began: None,
            said: None,
        }
    }

    /// Called once per turn. `patience_ms` is how long messages may wait; 0 means forever.
    pub fn turn(&mut self, now: Instant, load: Load, patience_ms: u64) {
        self.caught_up |= !load.is_behind;
        self.was_idle |= !load.is_behind && self.queue.is_empty();
        self.dropped = load.shed;
        if now < self.until {
            return;
        }
        // After a sleep, however long, nothing is known of the time it took.
        let has_slept = now.ms_since(self.until) >= WINDOW_MS;
        let elapsed_ms = now.ms_since(self.since);
        (self.since, self.until) = (now, now.after_ms(WINDOW_MS));
        self.settle(load, patience_ms, has_slept);
        let was_idle = std::mem::replace(&mut self.was_idle, !load.is_behind && self.queue.is_empty());
        let waiting_ms = (patience_ms * WAITING.0 / WAITING.1).min(WAITING_MOST_MS);
        let window = self.queue.turn(was_idle, waiting_ms, elapsed_ms);
        let may_shed = self.may_shed && !load.cannot_shed && patience_ms > 0;
        if self.is_on {
            // A core that wakes up late does not count as one that has room.
            self.shedding.turn(now, window, was_idle && !has_slept, may_shed);
        }
        if self.share < ALL || self.shed().is_some() || window.refused > 0 || !was_idle {
            self.busy_at = now;
        }
        self.is_on = patience_ms > 0 && (self.share < ALL || self.is_on && now.ms_since(self.busy_at) < CALM_MS);
        self.ask(now);
        if !self.is_on {
            self.shedding.stop(now);
            self.log_end(now);
        }
    }

    /// Sets the share for the next window.
    fn settle(&mut self, load: Load, patience_ms: u64, has_slept: bool) {
        let caught_up = std::mem::replace(&mut self.caught_up, !load.is_behind);
        let waited_ms = std::mem::replace(&mut self.waited_ms, load.waits_ms);
        // Overload begins when messages wait too long. From then on the limit is about a quarter of that, until it is over: then
        // hardly any are lost.
        let most_ms = match self.share == ALL {
            true => patience_ms,
            false => patience_ms / 4,
        };
        // A pause fills the buffers at once, an overload from window to window.
        let is_filling = load.is_filling && waited_ms > 0;
        let is_too_long = (load.waits_ms >= most_ms || is_filling) && load.waits_ms >= waited_ms;
        if patience_ms == 0 {
            self.share = ALL;
        } else if caught_up || has_slept {
            self.rise();
        } else if load.is_losing || is_too_long {
            // The longer the queue, the larger the step.
            let quarters = (4 * load.waits_ms / patience_ms).min(4) as u32;
            self.fall(load.is_losing || is_filling || quarters >= 4, quarters);
        } else if load.waits_ms < patience_ms / 8 && load.waits_ms <= waited_ms {
            self.rise();
        }
        if self.share == ALL {
            (self.fineness, self.direction) = (COARSEST, None);
        }
    }

    fn fall(&mut self, is_hard: bool, further: u32) {
        self.turn_to(Direction::Down);
        let shift = match is_hard {
            true => HARD,
            false => self.fineness.saturating_sub(further).max(LARGEST),
        };
        self.share = (self.share - (self.share >> shift)).max(FEWEST);
    }

    fn rise(&mut self) {
        self.turn_to(Direction::Up);
        let given = (self.share >> self.fineness).max(GIVEN);
        self.share = (self.share + given).min(ALL);
    }

    /// Adjusts the size of the next step, which goes that way.
    fn turn_to(&mut self, direction: Direction) {
        if self.direction != Some(direction) {
            self.fineness = (self.fineness + u32::from(self.direction.is_some())).min(FINEST);
            (self.direction, self.repeated) = (Some(direction), 0);
            return;
        }
        self.repeated += 1;
        if self.repeated >= PERSISTENT {
            (self.fineness, self.repeated) = ((self.fineness - 1).max(COARSEST), 0);
        }
    }

    /// Returns what the kernel is to drop before it is received.
    pub fn shed(&self) -> Option<Shed> {
        self.shedding.shed()
    }

    /// Decides about a message that has arrived, before it is read; true if it waits now.
    pub fn makes_wait(&mut self, now: Instant, flow: Flow, bytes: &[u8], pool: &mut Pool) -> bool {
        if !self.is_on || flow.transport != Transport::Udp || bytes.len() > LONGEST {
            return false;
        }
        let Some(lot) = self.shedding.draw().of(bytes) else {
            return false;
        };
        self.decide(now, lot, flow, bytes, pool)
    }

    fn decide(&mut self, now: Instant, lot: u32, flow: Flow, bytes: &[u8], pool: &mut Pool) -> bool {
        let is_doubtful = self.shedding.count_lot(lot);
        if self.queue.push(now, flow, bytes, is_doubtful, pool) {
            return true;
        }
        self.verdict = Verdict::Refused;
        false
    }

    /// Returns whether calls wait.
    #[inline]
    pub fn has_waiting(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Returns how many calls wait.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Returns how many calls have waited in vain, and got no answer.
    pub fn forgotten(&self) -> u64 {
        self.queue.forgotten()
    }

    /// Takes out the call that is next, and moves its message to `bytes`.
    pub fn next_waiting(&mut self, now: Instant, pool: &mut Pool, bytes: &mut Vec<u8>) -> Option<Flow> {
        let flow = self.queue.pop(now, pool, bytes)?;
        self.verdict = Verdict::LetIn;
        Some(flow)
    }

    /// Returns the load that is reported to upstream neighbours (RFC 7339 §5.2).
    pub fn feedback(&self, wall_ms: u64) -> Feedback {
        Feedback {
            percent: (self.asked * 100).div_ceil(ALL) as u8,
            validity_ms: if self.asked > 0 { 2 * ASKING_MS as u32 } else { 0 },
            wall_ms,
        }
    }

    /// Adjusts the loss requested from neighbours. The share already applies to what they let through, so only half of the
    /// remaining excess is added; if there is none, they may send a little more, to see whether there is room.
    fn ask(&mut self, now: Instant) {
        if now < self.asked_until {
            return;
        }
        self.asked_until = now.after_ms(ASKING_MS);
        let kept = ALL - self.asked;
        self.asked = match ALL - self.least_share() {
            0 => self.asked - self.asked.div_ceil(ASKED_PART),
            lacking => (ALL - kept * (ALL - lacking / 2) / ALL).min(ALL - FEWEST),
        };
    }

    /// Returns the latest time at which [`Overload::turn`] must be called even if nothing arrives: what the kernel drops does not
    /// wake the worker.
    pub fn next_timeout(&self) -> Option<Instant> {
        let is_calm = !self.is_on && self.asked == 0;
        (!is_calm).then_some(self.until)
    }

    /// Returns whether the request that is being handled is let in; if nothing has been decided, lets them in evenly, in proportion
    /// to the share. `is_call`: it is one that would wait.
    #[inline]
    pub fn admits(&mut self, is_call: bool) -> bool {
        // A call that is not known to the kernel is let in as likely as the others.
        let share = match self.verdict {
            Verdict::LetIn => return true,
            Verdict::Refused => return false,
            Verdict::Open if is_call => self.least_share(),
            Verdict::Open => self.share,
        };
        if share == ALL {
            if is_call && !self.is_on {
                self.queue.count_let_in();
            }
            return true;
        }
        self.credit += share;
        if self.credit >= ALL {
            self.credit -= ALL;
            return true;
        }
        false
    }

    /// Returns the share of new requests that is let in, of calls or of others, whichever is less; out of [`ALL`].
    fn least_share(&self) -> u32 {
        match self.is_on {
            true => self.share.min(self.shedding.share()),
            false => self.share,
        }
    }

    /// Returns the share of new requests that is let in, 0 to 1.
    pub fn share(&self) -> f64 {
        f64::from(self.least_share()) / f64::from(ALL)
    }

    /// Counts one refusal, and logs the count now and then.
    pub fn refuse(&mut self, now: Instant) {
        match self.verdict {
            Verdict::Refused => self.queue.count_refused(),
            _ => self.shedding.count_other_refusal(),
        }
        if self.began.is_none() {
            self.began = Some(now);
            (self.refused, self.dropped_before) = (0, self.dropped);
        }
        self.untold += 1;
        self.refused += 1;
        if self.said.is_some_and(|said| now.ms_since(said) < LINE_EVERY_MS) {
            return;
        }
        log::warn!(
            "overloaded: messages come faster than this core takes them; {:.0} % of what is new is let in, {:.0} % (INVITEs over UDP) \
             dropped by the kernel, the rest answered 503; {} answered since the last such line ([limits] overload)",
            self.share() * 100.0,
            f64::from(self.shedding.dropped()) / f64::from(ALL) * 100.0,
            self.untold
        );
        self.untold = 0;
        self.said = Some(now);
    }

    fn log_end(&mut self, now: Instant) {
        if let Some(began) = self.began.take() {
            if self.said.is_none_or(|said| said < began) {
                // It began within a second of another's line, and has none of its own.
                return;
            }
            log::warn!(
                "no longer overloaded after {:.1} s: {} new requests were answered 503, {} INVITEs dropped by the kernel ([limits] overload)",
                now.ms_since(began) as f64 / 1000.0,
                self.refused,
                self.dropped.saturating_sub(self.dropped_before)
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new() -> Overload {
        Overload::new(Key::new(1, 2))
    }

    const PATIENCE_MS: u64 = 50;
    const BEHIND: Load = Load { is_behind: true, waits_ms: 60, is_filling: false, is_losing: true, cannot_shed: false, shed: 0 };

    /// Runs turns of a millisecond for `ms`; in each, `come` new requests of one unit arrive, and the core takes `takes` units. A
    /// refusal costs a quarter. Returns how many were let in and how many refused.
    fn run(load: &mut Overload, now: &mut Instant, ms: u64, come: u32, takes: u32) -> (u32, u32) {
        let (mut queue, mut admitted, mut refused) = (0u32, 0, 0);
        for _ in 0..ms {
            *now = now.after_ms(1);
            // What does not fit is lost.
            let room = 4 * takes * 100;
            let is_losing = queue + 4 * come > room;
            queue = (queue + 4 * come).min(room);
            let mut work = 4 * takes;
            while queue >= 4 && work >= 4 {
                queue -= 4;
                match load.admits(false) {
                    true => (work, admitted) = (work - 4, admitted + 1),
                    false => (work, refused) = (work - 1, refused + 1),
                }
            }
            let seen = Load { is_behind: queue >= 4, waits_ms: u64::from(queue / (4 * takes)), is_losing, ..Load::default() };
            load.turn(*now, seen, PATIENCE_MS);
        }
        (admitted, refused)
    }

    #[test]
    fn nobody_is_refused_while_all_is_taken() {
        let (mut load, mut now) = (new(), Instant::from_ms(7000));
        assert_eq!(run(&mut load, &mut now, 2000, 20, 20), (40_000, 0));
        assert_eq!(load.share(), 1.0);
    }

    #[test]
    fn a_burst_is_only_late() {
        let (mut load, mut now) = (new(), Instant::from_ms(7000));
        run(&mut load, &mut now, 100, 5, 20);
        let (_, refused) = run(&mut load, &mut now, 40, 30, 20);
        assert_eq!(refused, 0);
        assert_eq!(run(&mut load, &mut now, 1000, 5, 20).1, 0);
    }

    /// The machine gave the core to something else for a while: what arrived meanwhile is late, and is served.
    #[test]
    fn a_pause_is_not_overload() {
        let (mut load, mut now) = (new(), Instant::from_ms(7000));
        run(&mut load, &mut now, 100, 16, 20);
        let mut queue = 16 * 80u32;
        let mut refused = 0;
        for _ in 0..1000 {
            now = now.after_ms(1);
            let come = queue + 16;
            let taken = come.min(20);
            refused += (0..taken).filter(|_| !load.admits(false)).count();
            queue = come - taken;
            let seen = Load { is_behind: queue > 0, waits_ms: u64::from(queue / 20), ..Load::default() };
            load.turn(now, seen, PATIENCE_MS);
        }
        assert_eq!((queue, refused), (0, 0));
    }

    #[test]
    fn under_overload_as_many_are_let_in_as_there_is_room_for() {
        for (come, least) in [(24, 17.5), (40, 12.0), (60, 5.5)] {
            let (mut load, mut now) = (new(), Instant::from_ms(7000));
            run(&mut load, &mut now, 2000, come, 20);
            let (admitted, refused) = run(&mut load, &mut now, 4000, come, 20);
            let (a, r) = (f64::from(admitted) / 4000.0, f64::from(refused) / 4000.0);
            // a + r/4 = 20 is all that the core can do; a + r = come is all that there is to do.
            assert!(a >= least, "{come}: {a} let in, {r} refused in a millisecond");
            assert!(a + r >= 0.9 * f64::from(come), "{come}: {a} and {r} were taken");
            // When overload ends, refusals end soon.
            run(&mut load, &mut now, 3000, 10, 20);
            assert_eq!(load.share(), 1.0);
        }
    }

    /// Many clients that each wait for an answer before they send again: the sockets are never empty, and nobody waits long.
    #[test]
    fn to_be_busy_is_not_overload() {
        let (mut load, mut now) = (new(), Instant::from_ms(7000));
        for _ in 0..10_000 {
            now = now.after_ms(1);
            let busy = Load { is_behind: true, waits_ms: 49, ..Load::default() };
            load.turn(now, busy, PATIENCE_MS);
        }
        assert_eq!(load.share(), 1.0);
    }

    /// A buffer that a pause has filled is emptied; one that fills from window to window would run over.
    #[test]
    fn a_buffer_that_fills_begins_it() {
        for (waits, share) in [([0, 40, 30], 1.0), ([10, 20, 30], 0.875)] {
            let (mut load, mut now) = (new(), Instant::from_ms(7000));
            load.turn(now, BEHIND, 1000);
            for waits_ms in waits {
                now = now.after_ms(WINDOW_MS);
                let is_filling = waits_ms >= 30;
                load.turn(now, Load { is_behind: true, waits_ms, is_filling, ..Load::default() }, 1000);
            }
            assert_eq!(load.share(), share, "{waits:?}");
        }
    }

    #[test]
    fn a_sleep_is_no_overload() {
        let (mut load, mut now) = (new(), Instant::from_ms(7000));
        for _ in 0..50 {
            now = now.after_ms(400);
            load.turn(now, BEHIND, PATIENCE_MS);
        }
        assert_eq!(load.share(), 1.0);
    }

    #[test]
    fn it_can_be_switched_off() {
        let (mut load, mut now) = (new(), Instant::from_ms(7000));
        for _ in 0..10_000 {
            now = now.after_ms(1);
            load.turn(now, BEHIND, 0);
        }
        assert_eq!(load.share(), 1.0);
        assert!(load.admits(false));
    }

    /// What a call's messages cost, in parts of 100, each sent when the one before has been handled: the INVITE, the responses to it,
    /// the ACK, the BYE, and the response to that. And what a refusal costs.
    const COSTS: [i32; 5] = [45, 25, 10, 12, 8];
    const REFUSAL: i32 = 27;
    /// What it costs to put one aside.
    const WAITING: i32 = 1;

    /// A call's lot; the number is its identity.
    fn lot(draw: crate::base::Draw, number: u32) -> u32 {
        let product = (number ^ draw.start).wrapping_mul(draw.factor);
        (product ^ product >> 15).wrapping_mul(0x9e37_79b1).wrapping_add(draw.turn)
    }

    /// What the message of a call that waits says: the call, whether it is late, since when it waits.
    fn word_of(bytes: &[u8]) -> [u32; 3] {
        let mut words = bytes.chunks(4).map(|word| u32::from_be_bytes(word.try_into().unwrap()));
        std::array::from_fn(|_| words.next().expect("three words"))
    }

    /// The calls of a flood.
    const FLOOD: u32 = 7;

    /// As [`run`], with calls that are several messages, and a kernel that drops what it is told to; dropped calls are retransmitted
    /// after 500 ms, seven times at most.
    struct Model {
        load: Overload,
        /// They come by UDP; otherwise the kernel drops nothing.
        is_datagrams: bool,
        now: Instant,
        rng: crate::base::Rng,
        /// Of those that arrive in each millisecond, so many are calls of a flood, all with the same lot, and never retransmitted.
        flood: u32,
        /// When it is due, its number, and the interval since its last copy.
        again: std::collections::BTreeSet<(u64, u32, u64)>,
        /// The message's number in its call, the call's, whether its first copy was dropped.
        queue: std::collections::VecDeque<(usize, u32, bool)>,
        pool: Pool,
        /// What was handled in the last millisecond, and is answered.
        answers: Vec<(usize, u32, bool)>,
        /// Calls that can be handled in a millisecond: usually, the deviation, how often it changes, and now; and what is left of the
        /// work.
        usually: u32,
        noise: u32,
        spell_ms: u64,
        takes: u32,
        work: i32,
        /// Counts what was handled: however much comes, some of what waits is handled in between.
        turn: u32,
        /// Messages that the receive buffer has room for, and that were lost since the last window for want of it.
        room: usize,
        lost: u64,
        is_losing: bool,
    }

    /// Calls; `late`: those served whose first copy was dropped; `told`: how often the kernel was updated.
    #[derive(Default, Debug)]
    struct Tally {
        served: u32,
        late: u32,
        refused: u32,
        told: u32,
        /// The most that the kernel's queue held, in milliseconds.
        waits_ms: u64,
        /// Messages of calls that were let in, lost for want of room.
        broken: u32,
        /// The longest that a call waited that was let in; and how many the core could have served.
        waited_ms: u64,
        possible: u32,
    }

    impl Model {
        fn new(usually: u32, noise: u32) -> Model {
            Model {
                load: new(),
                is_datagrams: true,
                now: Instant::from_ms(7000),
                rng: crate::base::Rng::new(7),
                flood: 0,
                again: Default::default(),
                queue: Default::default(),
                pool: Pool::default(),
                answers: Vec::new(),
                usually,
                noise,
                spell_ms: 30,
                takes: usually,
                work: 0,
                turn: 0,
                room: usize::MAX,
                lost: 0,
                is_losing: false,
            }
        }

        fn run(&mut self, ms: u64, come: u32) -> Tally {
            let mut tally = Tally::default();
            for _ in 0..ms {
                self.arrive(come, &mut tally);
                self.work_off(&mut tally);
                let before = self.load.shed();
                // A message costs about a third of a call.
                let waits_ms = self.queue.len() as u64 / (3 * u64::from(self.takes));
                if self.now.as_ms().is_multiple_of(WINDOW_MS) {
                    self.is_losing = std::mem::take(&mut self.lost) > 0;
                }
                let seen = Load {
                    is_behind: !self.queue.is_empty(),
                    waits_ms,
                    is_filling: self.queue.len() > self.room / 2,
                    is_losing: self.is_losing,
                    ..Load::default()
                };
                tally.waits_ms = tally.waits_ms.max(waits_ms);
                self.load.turn(self.now, seen, 2 * PATIENCE_MS);
                tally.told += u32::from(self.load.shed() != before);
            }
            tally
        }

        fn arrive(&mut self, come: u32, tally: &mut Tally) {
            self.now = self.now.after_ms(1);
            let time = self.now.as_ms();
            if time.is_multiple_of(self.spell_ms) {
                let random = self.rng.next_u64() as u32 % (2 * self.noise + 1);
                self.takes = self.usually - self.noise + random;
            }
            let mut arriving = Vec::new();
            while let Some((_, call, wait)) = self.again.first().copied().filter(|next| next.0 <= time) {
                self.again.pop_first();
                arriving.push((call, wait * 2));
            }
            arriving.extend((0..come).map(|_| (self.rng.next_u64() as u32, 500)));
            arriving.extend((0..self.flood).map(|_| (FLOOD, 32_000)));
            let rest = arriving.split_off(arriving.len() / 2);
            self.begin(arriving);
            self.go_on(tally);
            self.begin(rest);
        }

        fn begin(&mut self, invites: Vec<(u32, u64)>) {
            for (call, wait) in invites {
                let is_dropped = self.load.shed().is_some_and(|shed| lot(shed.draw, call) < shed.below);
                let is_lost = !is_dropped && self.queue.len() >= self.room;
                self.lost += u64::from(is_lost);
                if !is_dropped && !is_lost {
                    self.queue.push_back((0, call, wait > 500));
                } else if wait <= 16_000 {
                    self.again.insert((self.now.as_ms() + wait, call, wait));
                }
            }
        }

        /// The next messages of calls that were let in arrive.
        fn go_on(&mut self, tally: &mut Tally) {
            for message in std::mem::take(&mut self.answers) {
                if self.queue.len() < self.room {
                    self.queue.push_back(message);
                } else {
                    self.lost += 1;
                    tally.broken += 1;
                }
            }
        }

        fn work_off(&mut self, tally: &mut Tally) {
            self.work = self.work.min(0) + 100 * self.takes as i32;
            tally.possible += self.takes;
            let mut bytes = Vec::new();
            while self.work > 0 {
                self.turn += 1;
                if !self.turn.is_multiple_of(33)
                    && let Some(message) = self.queue.pop_front()
                {
                    self.handle(message, tally);
                } else if self.load.next_waiting(self.now, &mut self.pool, &mut bytes).is_some() {
                    let [call, late, since] = word_of(&bytes);
                    tally.waited_ms = tally.waited_ms.max(self.now.as_ms() - u64::from(since));
                    self.begin_call(call, late > 0, tally);
                } else if self.queue.is_empty() {
                    return;
                }
            }
        }

        fn handle(&mut self, (number, call, is_late): (usize, u32, bool), tally: &mut Tally) {
            if number == 0 {
                let lot = lot(self.load.shedding.draw(), call);
                let flow = Flow::datagram(0, "127.0.0.1:5060".parse().unwrap());
                let words = [call, u32::from(is_late), self.now.as_ms() as u32];
                let bytes: Vec<u8> = words.into_iter().flat_map(u32::to_be_bytes).collect();
                if self.load.is_on && self.is_datagrams && self.load.decide(self.now, lot, flow, &bytes, &mut self.pool) {
                    self.work -= WAITING;
                    return;
                }
                return self.begin_call(call, is_late, tally);
            }
            self.work -= COSTS[number];
            if number + 1 < COSTS.len() {
                self.answers.push((number + 1, call, is_late));
            } else if call != FLOOD {
                tally.served += 1;
                tally.late += u32::from(is_late);
            }
        }

        fn begin_call(&mut self, call: u32, is_late: bool, tally: &mut Tally) {
            if self.load.admits(self.is_datagrams) {
                self.work -= COSTS[0];
                self.answers.push((1, call, is_late));
            } else {
                self.work -= REFUSAL;
                self.load.refuse(self.now);
                tally.refused += 1;
            }
            self.load.verdict = Verdict::Open;
        }
    }

    /// Percentage of what the core could do (20 per millisecond), and of what it serves of that, in thousandths; less if its speed
    /// changes by a fifth every 30 ms, or by a third every 300 ms.
    #[test]
    fn with_the_kernels_help_little_is_lost_for_refusals() {
        for (come, noise, spell_ms, least, most_late) in [
            (40, 0, 30, 97, 25),
            (60, 0, 30, 97, 25),
            (100, 0, 30, 95, 20),
            (40, 4, 30, 95, 30),
            (60, 4, 30, 95, 30),
            (40, 6, 300, 88, 90),
            (60, 6, 300, 88, 50),
        ] {
            for seed in 0..4 {
                let mut model = Model { spell_ms, rng: crate::base::Rng::new(seed), ..Model::new(20, noise) };
                model.run(3000, come);
                let tally = model.run(5000, come);
                let what = format!("{come}, {noise}, {spell_ms}, {seed}: {tally:?}");
                assert!(tally.served >= least * tally.possible / 100, "{what}");
                assert!(tally.late * 1000 <= most_late * tally.served, "{what}");
                assert!(tally.told < 15, "{what}");
                // They wait for three quarters of the patience (100 ms), or longer when the core becomes slower.
                assert!(tally.waited_ms <= 200 && tally.waits_ms <= 2, "{what}");
            }
        }
    }

    /// Answers alone: nobody is served late, but of what is possible the less is left the more must be answered.
    #[test]
    fn the_conf_can_forbid_the_kernels_help() {
        for (come, least) in [(24, 88), (40, 60), (60, 25)] {
            let mut model = Model::new(20, 2);
            model.load.may_shed = false;
            model.run(3000, come);
            let tally = model.run(5000, come);
            assert!(tally.served * 100 >= least * tally.possible && tally.late == 0 && tally.told == 0, "{come}: {tally:?}");
        }
    }

    /// A sudden load fills the receive buffer before anything can be known of it: some of what has begun is lost too, in the first
    /// second. Afterwards there is always room.
    #[test]
    fn what_has_begun_is_lost_in_the_first_second_at_most() {
        for (come, room) in [(40, 3000), (60, 3000), (60, 6000)] {
            let mut model = Model { room, ..Model::new(20, 2) };
            model.run(500, 12);
            let sudden = model.run(1000, come);
            assert!(sudden.broken < 3000, "{come}, {room}: {sudden:?}");
            model.run(1000, come);
            let tally = model.run(5000, come);
            assert!(tally.broken == 0 && tally.served >= 92_000, "{come}, {room}: {tally:?}");
        }
    }

    /// A flood of calls that all have one lot, which can neither keep others out nor have the bound raised over them for long.
    #[test]
    fn a_flood_of_one_lot_does_not_shut_out_the_others() {
        for flood in [30, 50, 90] {
            let mut model = Model { flood, room: 6000, ..Model::new(20, 2) };
            model.run(3000, 10);
            let tally = model.run(10_000, 10);
            assert!(tally.served - tally.late >= 60_000, "{flood}: {tally:?}");
        }
    }

    /// What comes over connections the kernel cannot drop.
    #[test]
    fn it_drops_nothing_that_it_cannot() {
        let mut model = Model { is_datagrams: false, ..Model::new(20, 0) };
        for _ in 0..200 {
            model.run(20, 60);
            assert_eq!(model.load.shed(), None);
        }
    }

    /// If a refusal costs less than silence does, all are answered.
    #[test]
    fn the_kernel_drops_nothing_while_about_half_are_refused() {
        for come in [24, 30] {
            let mut model = Model::new(20, 0);
            for _ in 0..200 {
                model.run(20, come);
                assert_eq!(model.load.shed(), None, "{come}");
            }
            assert!(model.load.share() < 1.0, "{come}");
        }
    }

    /// Dropped calls are retransmitted for 32 s; until then not all new requests are let in, although there would be room. That is
    /// the cost of silence.
    #[test]
    fn afterwards_those_that_wait_are_worked_off_beside_what_is_new() {
        let mut model = Model::new(20, 0);
        model.run(3000, 60);
        let soon = model.run(1000, 10);
        let fresh = soon.served - soon.late;
        assert!(fresh >= 2500, "{soon:?}");
        assert!(soon.late >= 3000, "{soon:?}");
        model.run(35_000, 10);
        let tally = model.run(1000, 10);
        assert_eq!((tally.served, tally.late, tally.refused), (10_000, 0, 0));
        assert_eq!((model.load.share(), model.load.shed()), (1.0, None));
    }

    /// Nothing arrives any more: the kernel is told to stop, although only its timer wakes the worker.
    #[test]
    fn it_ends_in_silence() {
        let mut model = Model::new(20, 0);
        model.run(2000, 60);
        let Model { mut load, mut now, mut pool, .. } = model;
        while load.next_waiting(now, &mut pool, &mut Vec::new()).is_some() {}
        assert!(load.shed().is_some());
        let silence = now;
        while let Some(next) = load.next_timeout() {
            now = next;
            load.turn(now, Load::default(), PATIENCE_MS);
            assert!(now.ms_since(silence) < 30_000, "it goes on and on");
        }
        assert_eq!((load.share(), load.shed()), (1.0, None));
    }
}
