//! Local overload control (RFC 7339 §5.10, RFC 6357 §4): what is new is refused, so that what has begun can end.
//!
//! A worker that takes messages more slowly than they come falls behind: they wait longer and longer, then the kernel drops what
//! does not fit, an ACK as soon as an INVITE, and what was dropped comes again. From then on a share of the new requests is
//! answered 503, which costs a fraction of what a call costs. The share follows from what the worker itself sees, window by
//! window: it falls while the queue is long and does not fall by itself, and rises when it is short. So the worker stays busy;
//! and a queue that a pause has left is worked off without refusing anybody.

use crate::base::{Instant, Load};
use crate::sip::{Message, Method};
use crate::stack::Endpoint;
use crate::stack::counters::Limit;
use crate::stack::passage::Passed;
use crate::stack::proxy::{Extra, Refusal};

/// The share is settled once in so many milliseconds.
const WINDOW_MS: u64 = 20;
/// All new requests are let in.
const ALL: u32 = 1 << 10;
/// Never fewer than these: who is let in shows whether there is room again.
const FEWEST: u32 = ALL / 64;
/// What a window takes away, and gives: a part of the share, and when it gives this at least.
const PART: u32 = 16;
const GIVEN: u32 = ALL / 128;
/// The refused come again after 1 to this many seconds, not all at once (RFC 3261 §20.33).
const RETRY_AFTER_S: u32 = 5;
/// So often at most a line says how many were refused, milliseconds.
const LINE_EVERY_MS: u64 = 1000;

/// How much of what is new one core lets in.
#[derive(Debug)]
pub struct Overload {
    /// Of [`ALL`].
    share: u32,
    /// What is left over of the shares of those before.
    credit: u32,
    /// When this window ends.
    until: Instant,
    /// All that had come was taken, at least once in this window.
    caught_up: bool,
    /// How long messages waited at the end of the last one.
    waited_ms: u64,
    refused: u64,
    untold: u64,
    said: Option<Instant>,
}

impl Default for Overload {
    fn default() -> Overload {
        Overload {
            share: ALL,
            credit: 0,
            until: Instant::default(),
            caught_up: true,
            waited_ms: 0,
            refused: 0,
            untold: 0,
            said: None,
        }
    }
}

impl Overload {
    /// Told once a turn. `patience_ms`: how long messages may wait; 0: for ever.
    pub fn turn(&mut self, now: Instant, load: Load, patience_ms: u64) {
        self.caught_up |= !load.is_behind;
        if now < self.until {
            return;
        }
        // After a sleep of any length nothing is known of the time that it took.
        let has_slept = now.ms_since(self.until) >= WINDOW_MS;
        self.until = now.after_ms(WINDOW_MS);
        let caught_up = std::mem::replace(&mut self.caught_up, !load.is_behind);
        let waited_ms = std::mem::replace(&mut self.waited_ms, load.waits_ms);
        // It begins when they wait too long. From then on they wait about a quarter as long, until it is over: then hardly any are
        // lost.
        let most_ms = match self.share == ALL {
            true => patience_ms,
            false => patience_ms / 4,
        };
        let is_too_long = load.waits_ms >= most_ms && load.waits_ms >= waited_ms;
        if caught_up || has_slept || patience_ms == 0 {
            self.give();
        } else if load.is_losing || is_too_long {
            self.share = (self.share - self.share / PART).max(FEWEST);
        } else if load.waits_ms < patience_ms / 8 {
            self.give();
        }
    }

    fn give(&mut self) {
        let given = (self.share / PART).max(GIVEN);
        self.share = (self.share + given).min(ALL);
    }

    /// Whether the next new request is let in: evenly, so many of so many.
    fn admits(&mut self) -> bool {
        if self.share == ALL {
            return true;
        }
        self.credit += self.share;
        if self.credit >= ALL {
            self.credit -= ALL;
            return true;
        }
        false
    }

    /// The share of new requests that is let in, 0 to 1.
    pub fn share(&self) -> f64 {
        f64::from(self.share) / f64::from(ALL)
    }

    /// Counts one refused, and says it now and then.
    fn refuse(&mut self, now: Instant) {
        self.refused += 1;
        self.untold += 1;
        if self
            .said
            .is_some_and(|said| now.ms_since(said) < LINE_EVERY_MS)
        {
            return;
        }
        log::warn!(
            "overloaded: messages come faster than this core takes them; {:.0} % of what is new is let in, the rest is answered 503; {} \
             refused since the last such line ([limits] overload)",
            self.share() * 100.0,
            self.untold
        );
        self.untold = 0;
        self.said = Some(now);
    }
}

impl Endpoint {
    /// Told once a turn.
    pub fn handle_load(&mut self, now: Instant, load: Load) {
        let patience_ms = self.settings.limits.overload_ms;
        self.overload.turn(now, load, patience_ms);
    }

    /// Refuses a share of the new requests while there is overload. All others pass: those in a dialog, or the call could not end;
    /// and what has passed here before, for it has begun already.
    pub(in crate::stack) fn check_overload(
        &mut self,
        message: &Message,
        passed: Option<Passed>,
        key: u128,
    ) -> Result<(), Refusal> {
        let is_new =
            passed.is_none() && message.to_tag().is_none() && message.method() != Method::Bye;
        if !is_new || self.overload.admits() {
            return Ok(());
        }
        self.overload.refuse(self.now);
        let later = 1 + (key % u128::from(RETRY_AFTER_S)) as u32;
        let busy = Refusal::new(503, "Overloaded").with(Extra::RetryAfter(later));
        Err(busy.because_of(Limit::Overload).told())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE_MS: u64 = 50;
    const BEHIND: Load = Load {
        is_behind: true,
        waits_ms: 60,
        is_losing: true,
    };

    /// Turns of a millisecond for `ms`; in each `come` new requests are worth a unit, and the core takes `takes` units. Refusing
    /// costs a quarter. Returns how many were let in, and how many refused.
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
                match load.admits() {
                    true => (work, admitted) = (work - 4, admitted + 1),
                    false => (work, refused) = (work - 1, refused + 1),
                }
            }
            let seen = Load {
                is_behind: queue >= 4,
                waits_ms: u64::from(queue / (4 * takes)),
                is_losing,
            };
            load.turn(*now, seen, PATIENCE_MS);
        }
        (admitted, refused)
    }

    #[test]
    fn nobody_is_refused_while_all_is_taken() {
        let (mut load, mut now) = (Overload::default(), Instant::from_ms(7000));
        assert_eq!(run(&mut load, &mut now, 2000, 20, 20), (40_000, 0));
        assert_eq!(load.share(), 1.0);
    }

    #[test]
    fn a_burst_is_only_late() {
        let (mut load, mut now) = (Overload::default(), Instant::from_ms(7000));
        run(&mut load, &mut now, 100, 5, 20);
        let (_, refused) = run(&mut load, &mut now, 40, 30, 20);
        assert_eq!(refused, 0);
        assert_eq!(run(&mut load, &mut now, 1000, 5, 20).1, 0);
    }

    /// The machine gave the core to somebody else for a while: what has come meanwhile is late, and served.
    #[test]
    fn a_pause_is_not_overload() {
        let (mut load, mut now) = (Overload::default(), Instant::from_ms(7000));
        run(&mut load, &mut now, 100, 16, 20);
        let mut queue = 16 * 80u32;
        let mut refused = 0;
        for _ in 0..1000 {
            now = now.after_ms(1);
            let come = queue + 16;
            let taken = come.min(20);
            refused += (0..taken).filter(|_| !load.admits()).count();
            queue = come - taken;
            let seen = Load {
                is_behind: queue > 0,
                waits_ms: u64::from(queue / 20),
                is_losing: false,
            };
            load.turn(now, seen, PATIENCE_MS);
        }
        assert_eq!((queue, refused), (0, 0));
    }

    #[test]
    fn under_overload_as_many_are_let_in_as_there_is_room_for() {
        for (come, least) in [(24, 17.5), (40, 12.0), (60, 5.5)] {
            let (mut load, mut now) = (Overload::default(), Instant::from_ms(7000));
            run(&mut load, &mut now, 2000, come, 20);
            let (admitted, refused) = run(&mut load, &mut now, 4000, come, 20);
            let (a, r) = (f64::from(admitted) / 4000.0, f64::from(refused) / 4000.0);
            // a + r/4 = 20 is all that the core can do; a + r = come is all that there is to do.
            assert!(
                a >= least,
                "{come}: {a} let in, {r} refused in a millisecond"
            );
            assert!(
                a + r >= 0.9 * f64::from(come),
                "{come}: {a} and {r} were taken"
            );
            // When it is over, it is over soon.
            run(&mut load, &mut now, 3000, 10, 20);
            assert_eq!(load.share(), 1.0);
        }
    }

    /// Many clients that each wait for an answer before they ask again: the sockets are never empty, and nobody waits for long.
    #[test]
    fn to_be_busy_is_not_overload() {
        let (mut load, mut now) = (Overload::default(), Instant::from_ms(7000));
        for _ in 0..10_000 {
            now = now.after_ms(1);
            let busy = Load {
                is_behind: true,
                waits_ms: 49,
                is_losing: false,
            };
            load.turn(now, busy, PATIENCE_MS);
        }
        assert_eq!(load.share(), 1.0);
    }

    #[test]
    fn a_sleep_is_no_overload() {
        let (mut load, mut now) = (Overload::default(), Instant::from_ms(7000));
        for _ in 0..50 {
            now = now.after_ms(400);
            load.turn(now, BEHIND, PATIENCE_MS);
        }
        assert_eq!(load.share(), 1.0);
    }

    #[test]
    fn it_can_be_switched_off() {
        let (mut load, mut now) = (Overload::default(), Instant::from_ms(7000));
        for _ in 0..10_000 {
            now = now.after_ms(1);
            load.turn(now, BEHIND, 0);
        }
        assert_eq!(load.share(), 1.0);
        assert!(load.admits());
    }
}
