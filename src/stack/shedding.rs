//! What the kernel is to drop during overload: calls that would be refused, before they cost a receive and a send.
//!
//! Each call has its lot ([`crate::base::lot`]), and the kernel drops the lowest lots. A dropped INVITE is retransmitted after 500 ms,
//! with the same lot, and six more times: served then, it would be served late. So the bound is set only now and then, to what could
//! be served if nobody had to be refused, and falls only when there has been room for a while. A core is not equally fast all the
//! time, so the bound is set to an average to which its fast times contribute most: to answer some more costs less than to serve some late.
//!
//! That is fair, and the bound does what it should, as long as lots are evenly spread. A flood whose messages have one lot would be
//! served before everybody else. So if far more have lots of one range than should, all lots are turned until those are the lowest.

use crate::base::{Draw, Instant, Key, Shed};
use crate::stack::admission_queue::Admitted;

/// All calls.
pub const ALL: u32 = 1 << 14;
/// A refusal costs about a call divided by this.
const REFUSAL_COST: u32 = 4;
/// While the kernel drops some, this many are answered 503: a fraction of those let in, but at least the minimum; the bound rises when
/// it is more than three times as many.
const ANSWERED_PART: u32 = 32;
const ANSWERED_LEAST: u32 = ALL / 256;
/// The kernel begins to drop when this many are refused, because a refusal tells its caller more than silence does; and stops when
/// it would drop fewer than the minimum.
const REFUSED_FIRST: u32 = ALL / 2;
const DROPPED_LEAST: u32 = ALL / 8;
/// What could be served is calculated once in this many milliseconds, and averaged: a higher value has the first weight, a lower one the
/// second, as shifts. A core is not equally fast all the time, and to answer some more costs less than to serve some late.
const PERIOD_MS: u64 = 200;
const RISING: u32 = 1;
const FALLING: u32 = 3;
/// Too few calls tell nothing.
const FEWEST: u32 = 32;
/// The bound falls when nobody was refused in a period, and the core was idle in this many of its windows: by this fraction of what it
/// could have done in addition, and at least and at most by so much.
const IDLE: u32 = 5;
const SPARE_PART: u32 = 4;
const FIRST_STEP: u32 = ALL / 256;
const LAST_STEP: u32 = ALL / 8;
/// The lots of what passes are counted in this many ranges of equal size. If there are this many in a period, and one range has this
/// many times as many as most others, they are not evenly spread. It takes more where there may be repetitions too, of which each call
/// that was dropped has six: so many times as many as most ranges had when most calls came.
const RANGES: usize = 16;
const COUNTED_LEAST: u32 = 256;
const UNEVEN: u32 = 3;
const UNEVEN_REPEATED: u64 = 12;
/// The most calls that came in a period lately; each period this fraction of it is forgotten, so that it outlasts repetitions.
const BUSIEST_PART: u64 = 256;
/// A call that was dropped is not repeated any more after so many milliseconds (Timer B, and a little).
const REPEATED_MS: u64 = 35_000;
/// After lots have been turned the kernel drops the least that it may for so many milliseconds at least: what has the lowest lots
/// then may be most of what comes, and would be back at once.
const TURNED_MS: u64 = 10_000;
/// Converts a part of [`ALL`] to lots.
const LOTS: u32 = u32::BITS - ALL.ilog2();

/// What the kernel drops on one core.
pub struct Shedding {
    key: Key,
    shed: Option<Shed>,
    /// How lots are drawn until this overload is over.
    draw: Option<Draw>,
    /// When the bound was set.
    bound_since: Instant,
    /// What became of calls in this period; and how many other requests were refused.
    admitted: Admitted,
    others_refused: u32,
    period_since: Instant,
    /// The number of windows in which more could have been let in.
    idle: u32,
    /// The size of the bound's last fall.
    step: u32,
    /// So many were refused in the last period that the kernel is to drop some.
    is_needed: bool,
    /// What could be served: out of [`ALL`], and in calls in a period.
    possible: u32,
    pace: u32,
    /// What has passed in this period, by the range of its lot; and the bound above which there are no repetitions.
    lots: [u32; RANGES],
    highest: u32,
    /// The most calls, of all lots, that came in a period.
    busiest: u64,
    turned: Option<Instant>,
    /// What was let in of what came, in the last period, out of [`ALL`].
    share: u32,
}

impl Shedding {
    pub fn new(key: Key) -> Shedding {
        Shedding {
            key,
            shed: None,
            draw: None,
            bound_since: Instant::default(),
            admitted: Admitted::default(),
            others_refused: 0,
            period_since: Instant::default(),
            idle: 0,
            step: 0,
            is_needed: false,
            possible: 0,
            pace: 0,
            highest: 0,
            busiest: 0,
            lots: [0; RANGES],
            turned: None,
            share: ALL,
        }
    }

    pub fn shed(&self) -> Option<Shed> {
        self.shed
    }

    /// Returns what the kernel drops now, out of [`ALL`].
    pub fn dropped(&self) -> u32 {
        self.shed.map_or(0, |shed| shed.below >> LOTS)
    }

    /// Returns the lowest lot that passes.
    fn below(&self) -> u32 {
        self.shed.map_or(0, |shed| shed.below)
    }

    /// Returns the share of calls that was let in lately, out of [`ALL`].
    pub fn share(&self) -> u32 {
        self.share
    }

    pub fn count_other_refusal(&mut self) {
        self.others_refused = self.others_refused.saturating_add(1);
    }

    /// Returns how lots are drawn; while the kernel has dropped nothing yet, some way or other.
    pub fn draw(&self) -> Draw {
        self.draw.unwrap_or(Draw::new(0))
    }

    /// Notes the lot of a call that has passed the kernel. Returns whether the kernel may have dropped it before.
    pub fn count_lot(&mut self, lot: u32) -> bool {
        // What had been queued before the bound rose does not count.
        let below = self.below();
        let range = lot.checked_sub(below).map(|above| above / range_size(below));
        if let Some(count) = range.and_then(|range| self.lots.get_mut(range as usize)) {
            *count += 1;
        }
        lot < self.highest
    }

    /// From now on the kernel drops nothing.
    pub fn stop(&mut self, now: Instant) {
        (self.shed, self.draw, self.highest) = (None, None, 0);
        (self.is_needed, self.possible, self.busiest, self.turned) = (false, 0, 0, None);
        self.share = ALL;
        self.begin_period(now);
    }

    /// Ends a window. `was_idle`: more could have been let in; `may_shed`: the kernel may drop some.
    pub fn turn(&mut self, now: Instant, window: Admitted, was_idle: bool, may_shed: bool) {
        self.admitted.arrived += window.arrived;
        self.admitted.let_in += window.let_in;
        self.admitted.refused += window.refused;
        self.idle += u32::from(was_idle);
        if !may_shed {
            self.shed = None;
        }
        if now.ms_since(self.period_since) < PERIOD_MS {
            return;
        }
        let (Admitted { arrived, let_in, refused }, others) = (self.admitted, self.others_refused);
        let (lots, idle) = (std::mem::take(&mut self.lots), self.idle);
        self.begin_period(now);
        let passes = ALL - self.dropped();
        let part = |count: u32| (u64::from(passes) * u64::from(count) / u64::from(arrived.max(1))).min(u64::from(ALL)) as u32;
        self.share = passes.saturating_sub(part(refused));
        let uneven = self.draw.and_then(|draw| Some(draw.turned(self.uneven(&lots)?)));
        if let Some(draw) = uneven.filter(|_| may_shed) {
            return self.turn_lots(now, draw);
        }
        // That many could be served if nobody had to be refused.
        let possible = part(let_in + refused / REFUSAL_COST);
        if arrived >= FEWEST && idle < IDLE {
            let pace = let_in + refused / REFUSAL_COST;
            (self.possible, self.pace) = match self.shed {
                Some(_) => (average(self.possible, possible), average(self.pace, pace)),
                None => (possible, pace),
            };
        }
        if refused > 0 || idle < IDLE {
            self.step = 0;
        }
        if now.ms_since(self.bound_since) >= REPEATED_MS {
            self.highest = self.below();
        }
        if !may_shed {
            return;
        }
        // To drop calls does not help if it is others that must be refused.
        let helps = refused >= others;
        let answered = (self.possible / ANSWERED_PART).max(ANSWERED_LEAST);
        match self.shed {
            None if part(refused) < REFUSED_FIRST || arrived < FEWEST || idle >= IDLE || !helps => self.is_needed = false,
            None if !self.is_needed => self.is_needed = true,
            // What began before the queue took calls in is being finished, so there will be more room than is seen now.
            None => self.set(now, ALL.saturating_sub(self.possible + 4 * answered)),
            Some(_) if refused == 0 && idle >= IDLE => {
                // Of what is opened now much has been dropped before, and comes again.
                let spare = self.pace.saturating_sub(let_in) * passes / self.pace.max(1);
                self.step = (self.step * 2).max(spare / SPARE_PART).clamp(FIRST_STEP, LAST_STEP);
                self.set(now, self.dropped().saturating_sub(self.step));
                self.possible = self.possible.max(ALL - self.dropped());
            }
            Some(_) if helps && passes > self.possible + 3 * answered => {
                self.set(now, ALL.saturating_sub(self.possible + answered))
            }
            Some(_) => {}
        }
    }

    fn begin_period(&mut self, now: Instant) {
        (self.admitted, self.others_refused, self.idle, self.period_since) = (Admitted::default(), 0, 0, now);
    }

    /// Returns the first lot of the range that has far more than most.
    fn uneven(&mut self, lots: &[u32; RANGES]) -> Option<u32> {
        let below = self.below();
        let (size, mut sorted) = (range_size(below), *lots);
        sorted.sort_unstable();
        let usual = sorted[RANGES / 2].max(1);
        let of_all = u64::from(usual) * (u64::from(u32::MAX) / u64::from(size));
        self.busiest = of_all.max(self.busiest - self.busiest / BUSIEST_PART);
        let (range, most) = lots.iter().enumerate().max_by_key(|(_, count)| **count)?;
        let first = below + range as u32 * size;
        let much = match first < self.highest {
            true => UNEVEN_REPEATED * self.busiest * u64::from(size) / u64::from(u32::MAX),
            false => u64::from(UNEVEN * usual),
        };
        (lots.iter().sum::<u32>() >= COUNTED_LEAST && u64::from(*most) > much).then_some(first)
    }

    /// From now on lots are drawn like this, and the kernel drops the lowest.
    fn turn_lots(&mut self, now: Instant, draw: Draw) {
        if self.turned.is_none() {
            log::warn!(
                "overloaded: many of the new INVITEs are alike, and are dropped by the kernel before others ([limits] overload)"
            );
        }
        let below = self.below().max(DROPPED_LEAST << LOTS);
        (self.shed, self.draw) = (Some(Shed { draw, below }), Some(draw));
        // Those that were dropped until now come again, with other lots.
        self.highest = u32::MAX;
        (self.turned, self.bound_since) = (Some(now), now);
    }

    fn set(&mut self, now: Instant, dropped: u32) {
        self.turned = self.turned.filter(|turned| now.ms_since(*turned) < TURNED_MS);
        let dropped = match self.turned {
            Some(_) => dropped.max(DROPPED_LEAST),
            None => dropped,
        };
        // Nobody loses all of its calls to the lots of one overload.
        let draw = *self.draw.get_or_insert_with(|| Draw::new(self.key.hash_numbers(now.as_ms(), 0, 0)));
        let below = dropped << LOTS;
        self.highest = self.highest.max(below);
        self.shed = (dropped >= DROPPED_LEAST).then_some(Shed { draw, below });
        (self.lots, self.bound_since) = ([0; RANGES], now);
        self.begin_period(now);
    }
}

fn average(before: u32, now: u32) -> u32 {
    let weight = if now > before { RISING } else { FALLING };
    before - (before >> weight) + (now >> weight)
}

/// Returns the size of each range of the lots from `below`.
fn range_size(below: u32) -> u32 {
    (u32::MAX - below) / RANGES as u32 + 1
}
