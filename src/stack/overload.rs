//! Local overload control (RFC 7339 §5.10, RFC 6357 §4): new requests are refused so that what has begun can finish.
//!
//! A worker that takes messages more slowly than they arrive falls behind: they wait longer and longer, then the kernel drops what
//! does not fit, an ACK as readily as an INVITE, and what was dropped is retransmitted. From then on a share of the new requests is
//! answered 503, which costs a fraction of a call. The share follows from what the worker itself sees, window by window: the share
//! let in falls while the queue is long and does not shrink by itself, and rises when it is short. So the worker stays busy, and a
//! backlog left by a pause is worked off without refusing anything.
//!
//! A call passes through the queue several times, so the queue tells of a share only some windows later. The steps of the share are
//! therefore halved whenever it turns around, until it stays near what the core can do, and doubled while it goes on in one direction.
//!
//! A refusal costs a receive and a send, so most of what would be refused is better not received: the kernel drops new INVITEs over
//! UDP, and the worker refuses only enough for the callers' side to learn what is wrong. Each call has its lot
//! ([`crate::base::lot`]). The lowest lots are dropped, those above them answered 503, the highest served. A dropped INVITE is
//! retransmitted after 500 ms, with the same lot, and six more times: served then, it would be served late. So the bound of the
//! dropped lots is set only now and then, to what the share would be if nobody had to be refused, and falls only when there has been
//! room for a while; the share moves among the lots that are answered, and is limited by this bound. A core is not equally fast all
//! the time, so the bound is set to the most that was possible lately: to answer some more costs less than to serve some late.
//!
//! That is fair, and the bound does what it should, as long as lots are evenly spread. A flood whose messages have one lot would be
//! served before everybody else, or never be dropped however high the bound. So if far more have lots of one range than should, all
//! lots are turned until those are the lowest.

use crate::base::{Draw, Instant, Key, Load, Shed};
use crate::sip::Feedback;

/// The interval at which the share is adjusted, in milliseconds.
const WINDOW_MS: u64 = 20;
/// All new requests are let in.
const ALL: u32 = 1 << 14;
/// The smallest share: the requests let in show whether there is room again.
const FEWEST: u32 = ALL / 64;
/// What a window takes from the share or adds to it is the share shifted right by these numbers of bits, at first and at least; it
/// adds at least that much.
const COARSEST: u32 = 5;
const FINEST: u32 = 7;
const GIVEN: u32 = ALL / 256;
/// The same at most, for a long queue; and while the queue is longer than it may ever be, or has hardly any room, and the kernel drops
/// nothing.
const LARGEST: u32 = 4;
const HARD: u32 = 3;
/// When the kernel begins to drop some, the queue is long. Until it is shorter than a quarter of the patience, the share is shifted
/// right by this number of bits: so it gets short soon, and the share remains what it will be. The same if the queue ever gets so
/// long again, which shows that the share was too high by about the second number.
const DRAINING: u32 = 3;
const TOO_HIGH: u32 = 3;
/// After this many further steps in the same direction they are doubled.
const PERSISTENT: u32 = 5;

/// A refusal costs about a call divided by this.
const REFUSAL_COST: u32 = 4;
/// While the kernel drops some, this many are answered 503: a fraction of those let in, but at least the minimum; the kernel is
/// updated when it is twice as many. It takes a sixtieth to a thirtieth of what the core can do.
const ANSWERED_PART: u32 = 16;
const ANSWERED_LEAST: u32 = ALL / 128;
/// The kernel begins to drop when this many are refused, because a refusal tells its caller more than silence does; and stops when
/// it would drop fewer than the minimum.
const REFUSED_FIRST: u32 = ALL / 8 * 5;
const DROPPED_LEAST: u32 = ALL / 8;
/// Updating the kernel takes a millisecond, so it is done at most once in this many milliseconds.
const TELLING_MS: u64 = 60;
/// What could be served is calculated from the averages of this many milliseconds. The kernel's part is what exceeds the most that
/// was possible in any of them, less this fraction for each later one; if more is refused than is possible, only the last one counts.
const RISING_MS: u64 = 200;
const BEST_PART: u32 = 32;
/// The kernel's part shrinks only after this many windows in which the core was idle at times: retransmissions are served late then.
/// The first step has this size, and each further one is twice the previous, but at most this fraction of the share, which must have
/// followed within so many milliseconds.
const ROOM_WINDOWS: u32 = 10;
const FIRST_STEP: u32 = ALL / 128;
const STEP_PART: u32 = 8;
const FOLLOWING_MS: u64 = 200;
/// The highest lots are counted in this many ranges of equal size. If there are this many in a period, and one range has this many
/// times its part, they are not evenly spread.
const RANGES: usize = 16;
const COUNTED_LEAST: u32 = 256;
const UNEVEN: u32 = 3;
/// The same for those that are refused, among whom are some who were dropped and come again.
const REPEATED: u64 = 12;
/// After lots have been turned the kernel drops the least that it may for so many milliseconds at least: what has the lowest lots
/// then may be most of what comes, and would be back at once.
const TURNED_MS: u64 = 10_000;
/// Converts a part of [`ALL`] to lots.
const LOTS: u32 = u32::BITS - ALL.ilog2();
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

/// How much of the new requests one core lets in.
pub struct Overload {
    key: Key,
    /// Out of [`ALL`]; an eighth of it while the queue is drained.
    share: u32,
    is_draining: bool,
    /// Refusing helps: the queue is long and getting shorter.
    is_shrinking: bool,
    /// What remains of the shares of earlier requests.
    credit: u32,
    /// When this window ends.
    until: Instant,
    /// Whether the worker took everything that had arrived, at least once in this window.
    caught_up: bool,
    /// How long messages waited at the end of the last window.
    waited_ms: u64,
    /// Whether the conf lets the kernel drop some.
    pub may_shed: bool,
    /// What the kernel drops, and since when.
    shed: Option<Shed>,
    shed_since: Instant,
    /// The sum of the shares of this many windows, and since when; and of what was let in, which is less while the queue is drained.
    sum: u32,
    sum_let_in: u32,
    windows: u32,
    sum_since: Instant,
    /// What was let in by its lot in them; what was refused, and how many of those the kernel could have dropped.
    admitted: u32,
    refusals: u32,
    droppable: u32,
    /// The size of the share's steps, as a shift; the direction of the last one, and how many have had it since it was doubled.
    fineness: u32,
    direction: Option<Direction>,
    repeated: u32,
    /// The number of windows in which more could have been let in but for the kernel, and the size of the bound's last fall.
    room: u32,
    step: u32,
    /// The most that could be served.
    best: u32,
    /// Those above the highest bound so far, which nobody has who was dropped and comes again, by range, since the time.
    highest: u32,
    lots: [u32; RANGES],
    lots_since: Instant,
    turned: Option<Instant>,
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
            key,
            share: ALL,
            is_draining: false,
            is_shrinking: false,
            credit: 0,
            until: Instant::default(),
            caught_up: true,
            waited_ms: 0,
            may_shed: true,
            shed: None,
            shed_since: Instant::default(),
            sum: 0,
            sum_let_in: 0,
            windows: 0,
            sum_since: Instant::default(),
            admitted: 0,
            refusals: 0,
            droppable: 0,
            fineness: COARSEST,
            direction: None,
            repeated: 0,
            room: 0,
            step: 0,
            best: 0,
            highest: 0,
            lots: [0; RANGES],
            lots_since: Instant::default(),
            turned: None,
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
        self.dropped = load.shed;
        if now < self.until {
            return;
        }
        self.settle(now, load, patience_ms);
        match self.may_shed && !load.cannot_shed {
            true => self.plan(now),
            false => self.shed = None,
        }
        self.ask(now);
        if self.share == ALL && self.shed.is_none() {
            self.log_end(now);
        }
    }

    /// Sets the share for the next window.
    fn settle(&mut self, now: Instant, load: Load, patience_ms: u64) {
        // After a sleep, however long, nothing is known of the time it took.
        let has_slept = now.ms_since(self.until) >= WINDOW_MS;
        self.until = now.after_ms(WINDOW_MS);
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
            (self.share, self.shed) = (ALL, None);
        } else if caught_up {
            self.rise(true);
        } else if has_slept {
            // While the kernel drops some, a core that wakes up late does not count as one that has room.
            if self.shed.is_none() {
                self.rise(true);
            }
        } else if load.is_losing || is_too_long {
            // The longer the queue, the larger the step.
            let quarters = (4 * load.waits_ms / patience_ms).min(4) as u32;
            self.fall(load.is_losing || is_filling || quarters >= 4, quarters);
        } else if load.waits_ms >= patience_ms / 8 {
            self.room = 0;
        } else if load.waits_ms <= waited_ms {
            self.rise(false);
        }
        if self.share == ALL {
            (self.fineness, self.direction) = (COARSEST, None);
        }
        let is_long = load.waits_ms >= patience_ms;
        self.is_shrinking = load.waits_ms >= patience_ms / 2 && load.waits_ms < waited_ms;
        let was_draining = self.is_draining;
        self.is_draining = self.shed.is_some() && (is_long || was_draining && load.waits_ms >= patience_ms / 4);
        if self.is_draining && !was_draining {
            self.share = (self.share - (self.share >> TOO_HIGH)).max(FEWEST);
        }
    }

    fn fall(&mut self, is_hard: bool, further: u32) {
        self.room = 0;
        self.turn_to(Direction::Down);
        let shift = match is_hard && self.shed.is_none() {
            true => HARD,
            false => self.fineness.saturating_sub(further).max(LARGEST),
        };
        self.share = (self.share - (self.share >> shift)).max(FEWEST);
    }

    fn rise(&mut self, is_idle: bool) {
        self.turn_to(Direction::Up);
        let given = (self.share >> self.fineness).max(GIVEN);
        let most = self.most();
        self.room += u32::from(is_idle && self.shed.is_some() && self.share + given > most);
        self.share = (self.share + given).min(most);
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

    /// Returns what the kernel drops now, out of [`ALL`].
    fn kernel_part(&self) -> u32 {
        self.shed.map_or(0, |shed| shed.below >> LOTS)
    }

    /// Returns the largest share: what the kernel drops cannot be let in.
    fn most(&self) -> u32 {
        ALL - self.kernel_part()
    }

    /// Decides what the kernel is to drop.
    fn plan(&mut self, now: Instant) {
        if self.share == ALL && self.shed.is_none() {
            return self.begin_sum(now);
        }
        (self.sum, self.windows) = (self.sum + self.share, self.windows + 1);
        self.sum_let_in += self.let_in();
        let dropped = self.kernel_part();
        if now.ms_since(self.lots_since) >= RISING_MS {
            self.lots_since = now;
            let lots = std::mem::take(&mut self.lots);
            if let (Some(shed), Some(range)) = (self.shed, uneven(&lots)) {
                let size = (u64::from(u32::MAX - self.highest) + 1) / RANGES as u64;
                return self.turn_lots(now, shed, self.highest + size as u32 * range as u32);
            }
        }
        if self.shed.is_some() && self.room >= ROOM_WINDOWS {
            let told_ms = now.ms_since(self.shed_since);
            if self.share >= self.most() {
                if told_ms >= TELLING_MS {
                    self.step = (self.step * 2).min(self.share / STEP_PART).max(FIRST_STEP);
                    self.set_shed(now, dropped.saturating_sub(self.step));
                }
                return;
            }
            if told_ms < FOLLOWING_MS {
                return;
            }
            self.room = 0;
        }
        self.step = 0;
        if now.ms_since(self.sum_since) < RISING_MS {
            return;
        }
        let share = self.sum / self.windows;
        let helps = self.droppable > self.refusals / 2;
        let refused = ALL.saturating_sub(dropped + share);
        // Far more are refused than should have such lots.
        let let_in = self.sum_let_in / self.windows;
        let lots = u64::from(self.admitted.max(1)) * u64::from(ALL.saturating_sub(dropped + let_in));
        let is_uneven = self.refusals >= COUNTED_LEAST && u64::from(self.refusals) * u64::from(let_in) > REPEATED * lots;
        self.begin_sum(now);
        if let Some(shed) = self.shed.filter(|_| is_uneven && helps) {
            return self.turn_lots(now, shed, shed.below);
        }
        // That many could be served if nobody had to be refused.
        let possible = share + refused / REFUSAL_COST;
        self.best = match self.shed.is_some() && refused <= possible {
            true => possible.max(self.best - self.best / BEST_PART),
            false => possible,
        };
        let answered = (self.best / ANSWERED_PART).max(ANSWERED_LEAST);
        let wanted = ALL.saturating_sub(self.best + answered);
        let is_more = match self.shed {
            None => refused >= REFUSED_FIRST && self.direction == Some(Direction::Down) && !self.is_shrinking,
            Some(_) => refused > 2 * answered && wanted > dropped,
        };
        if is_more && helps {
            self.set_shed(now, wanted);
            self.share = self.share.max(self.best).min(self.most());
            self.fineness = (self.fineness + 1).min(FINEST);
        }
    }

    fn begin_sum(&mut self, now: Instant) {
        (self.sum, self.sum_let_in, self.windows, self.sum_since) = (0, 0, 0, now);
        (self.admitted, self.refusals, self.droppable) = (0, 0, 0);
    }

    /// Returns what the kernel is to drop before it is received.
    pub fn shed(&self) -> Option<Shed> {
        self.shed
    }

    /// Returns the load that is reported to upstream neighbours (RFC 7339 §5.2).
    pub fn feedback(&self, wall_ms: u64) -> Feedback {
        Feedback {
            percent: (self.asked * 100).div_ceil(ALL) as u8,
            validity_ms: if self.asked > 0 { 2 * ASKING_MS as u32 } else { 0 },
            wall_ms,
        }
    }

    /// From now on those are the lowest lots that begin at `first`.
    fn turn_lots(&mut self, now: Instant, shed: Shed, first: u32) {
        if self.turned.is_none() {
            log::warn!(
                "overloaded: many of the new INVITEs are alike, and are dropped by the kernel before others ([limits] overload)"
            );
        }
        self.shed = Some(Shed { draw: shed.draw.turned(first), ..shed });
        // What was counted had other lots.
        (self.highest, self.lots, self.lots_since) = (shed.below, [0; RANGES], now);
        (self.shed_since, self.turned) = (now, Some(now));
        self.begin_sum(now);
    }

    fn set_shed(&mut self, now: Instant, dropped: u32) {
        self.turned = self.turned.filter(|turned| now.ms_since(*turned) < TURNED_MS);
        let dropped = match self.turned {
            Some(_) => dropped.max(DROPPED_LEAST),
            None => dropped,
        };
        // Nobody loses all of its calls to the lots of one overload.
        let draw = match self.shed {
            Some(shed) => shed.draw,
            None => Draw::new(self.key.hash_numbers(now.as_ms(), 0, 0)),
        };
        let below = dropped << LOTS;
        self.highest = match self.shed {
            Some(_) => self.highest.max(below),
            None => below,
        };
        self.shed = (dropped >= DROPPED_LEAST).then_some(Shed { draw, below });
        if self.shed.is_none() {
            self.room = 0;
        }
        self.shed_since = now;
        self.begin_sum(now);
    }

    /// Adjusts the loss requested from neighbours. The share already applies to what they let through, so only half of the
    /// remaining excess is added; if there is none, they may send a little more, to see whether there is room.
    fn ask(&mut self, now: Instant) {
        if now < self.asked_until {
            return;
        }
        self.asked_until = now.after_ms(ASKING_MS);
        let kept = ALL - self.asked;
        self.asked = match ALL - self.share {
            0 => self.asked - self.asked.div_ceil(ASKED_PART),
            lacking => (ALL - kept * (ALL - lacking / 2) / ALL).min(ALL - FEWEST),
        };
    }

    /// Returns the latest time at which [`Overload::turn`] must be called even if nothing arrives: what the kernel drops does not
    /// wake the worker.
    pub fn next_timeout(&self) -> Option<Instant> {
        let is_calm = self.share == ALL && self.shed.is_none() && self.asked == 0;
        (!is_calm).then_some(self.until)
    }

    /// Returns whether a call is let in by its lot; without a lot, lets new requests in evenly, in proportion to the share.
    pub fn admits(&mut self, lot: Option<u32>) -> bool {
        if let Some(above) = lot.and_then(|lot| lot.checked_sub(self.highest)) {
            let range = u64::from(above) * RANGES as u64 / (u64::from(u32::MAX - self.highest) + 1);
            if let Some(count) = self.lots.get_mut(range as usize) {
                *count += 1;
            }
        }
        let share = self.let_in();
        if share == ALL {
            return true;
        }
        if let Some(lot) = lot {
            let is_let_in = lot >= (ALL - share) << LOTS;
            self.admitted = self.admitted.saturating_add(u32::from(is_let_in));
            return is_let_in;
        }
        self.credit += share;
        if self.credit >= ALL {
            self.credit -= ALL;
            return true;
        }
        false
    }

    /// Returns how many of the new requests are let in now, out of [`ALL`].
    fn let_in(&self) -> u32 {
        match self.is_draining {
            true => (self.share >> DRAINING).max(FEWEST),
            false => self.share,
        }
    }

    /// Returns the share of new requests that is let in, 0 to 1.
    pub fn share(&self) -> f64 {
        f64::from(self.let_in()) / f64::from(ALL)
    }

    /// Counts one refusal, and logs the count now and then. `is_droppable`: it is one of those that the kernel can drop.
    pub fn refuse(&mut self, now: Instant, is_droppable: bool) {
        self.refusals = self.refusals.saturating_add(1);
        self.droppable = self.droppable.saturating_add(u32::from(is_droppable));
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
            f64::from(self.kernel_part()) / f64::from(ALL) * 100.0,
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

/// Returns the range that has far more than its part.
fn uneven(lots: &[u32; RANGES]) -> Option<usize> {
    let all: u32 = lots.iter().sum();
    let (range, most) = lots.iter().enumerate().max_by_key(|(_, count)| **count)?;
    (all >= COUNTED_LEAST && most * RANGES as u32 > UNEVEN * all).then_some(range)
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
                match load.admits(None) {
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
            refused += (0..taken).filter(|_| !load.admits(None)).count();
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
        assert!(load.admits(None));
    }

    /// What a call's messages cost, in parts of 100, each sent when the one before has been handled: the INVITE, the responses to it,
    /// the ACK, the BYE, and the response to that. And what a refusal costs.
    const COSTS: [i32; 5] = [45, 25, 10, 12, 8];
    const REFUSAL: i32 = 27;

    /// A call's lot; the number is its identity.
    fn lot(shed: Shed, number: u32) -> u32 {
        let product = (number ^ shed.draw.start).wrapping_mul(shed.draw.factor);
        (product ^ product >> 15).wrapping_mul(0x9e37_79b1).wrapping_add(shed.draw.turn)
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
        /// What was handled in the last millisecond, and is answered.
        answers: Vec<(usize, u32, bool)>,
        /// Calls that can be handled in a millisecond: usually, the deviation, how often it changes, and now; and what is left of the
        /// work.
        usually: u32,
        noise: u32,
        spell_ms: u64,
        takes: u32,
        work: i32,
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
        /// The most that the queue held, in milliseconds, in each of the periods.
        waits_ms: u64,
        /// Messages of calls that were let in, lost for want of room.
        broken: u32,
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
                answers: Vec::new(),
                usually,
                noise,
                spell_ms: 30,
                takes: usually,
                work: 0,
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
                let before = self.load.shed;
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
                tally.told += u32::from(self.load.shed != before);
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
                let is_dropped = self.load.shed.is_some_and(|shed| lot(shed, call) < shed.below);
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
            while self.work > 0
                && let Some((number, call, is_late)) = self.queue.pop_front()
            {
                if number == 0 && !self.load.admits(self.load.shed.map(|shed| lot(shed, call))) {
                    self.work -= REFUSAL;
                    self.load.refuse(self.now, self.is_datagrams);
                    tally.refused += 1;
                    continue;
                }
                self.work -= COSTS[number];
                if number + 1 < COSTS.len() {
                    self.answers.push((number + 1, call, is_late));
                } else if call != FLOOD {
                    tally.served += 1;
                    tally.late += u32::from(is_late);
                }
            }
        }
    }

    /// Percentage of what the core could do (20 per millisecond), and of what it serves of that; less if its speed changes by a fifth
    /// every 30 ms, or by a third every 300 ms.
    #[test]
    fn with_the_kernels_help_little_is_lost_for_refusals() {
        for (come, noise, spell_ms, least, most_late) in [
            (40, 0, 30, 96, 1),
            (60, 0, 30, 96, 1),
            (100, 0, 30, 92, 1),
            (40, 4, 30, 92, 2),
            (60, 4, 30, 92, 3),
            (40, 6, 300, 80, 6),
            (60, 6, 300, 80, 6),
        ] {
            let mut model = Model { spell_ms, ..Model::new(20, noise) };
            model.run(3000, come);
            let tally = model.run(5000, come);
            let what = format!("{come}, {noise}, {spell_ms}: {tally:?}");
            assert!(tally.served >= least * 1000, "{what}");
            assert!(tally.late * 100 <= most_late * tally.served, "{what}");
            // Some get an answer that says what is wrong.
            assert!(tally.refused >= 1000 && tally.told < 25, "{what}");
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

    /// A flood of calls that all have one lot, which cannot be below the bound and be let in before others for long.
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
            assert_eq!(model.load.shed, None);
        }
    }

    /// If a refusal costs less than silence does, all are answered.
    #[test]
    fn the_kernel_drops_nothing_while_about_half_are_refused() {
        for come in [24, 30] {
            let mut model = Model::new(20, 0);
            for _ in 0..200 {
                model.run(20, come);
                assert_eq!(model.load.shed, None, "{come}");
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
        assert_eq!((model.load.share(), model.load.shed), (1.0, None));
    }

    /// Nothing arrives any more: the kernel is told to stop, although only its timer wakes the worker.
    #[test]
    fn it_ends_in_silence() {
        let mut model = Model::new(20, 0);
        model.run(2000, 60);
        let Model { mut load, mut now, .. } = model;
        assert!(load.shed.is_some());
        let silence = now;
        while let Some(next) = load.next_timeout() {
            now = next;
            load.turn(now, Load::default(), PATIENCE_MS);
            assert!(now.ms_since(silence) < 30_000, "it goes on and on");
        }
        assert_eq!((load.share(), load.shed), (1.0, None));
    }
}
