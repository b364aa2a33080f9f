//! How fast messages arrive, and whether it pays to let a few gather before the next turn.
//!
//! A worker that is woken for each datagram spends more on the wake-up than on the message. While messages arrive fast, it
//! therefore sleeps briefly between two turns and then takes all that has arrived: one wake-up for several messages, and the faster
//! they arrive, the shorter the sleep. While they arrive slowly, each wakes the worker at once, so that a single call is not
//! delayed at all; and when the worker is busy it does not sleep, because there is always something to take.

use super::clock::Reading;
use std::time::Duration;

/// The rate is measured over periods of at least this length.
const PERIOD_NS: u64 = 20_000_000;

/// Gathering begins when this many messages are expected in one sleep. A sleep costs wake-ups of its own, and each hop of a call waits
/// for one: in the runs that were made it saved a quarter of a call's CPU time with twelve, and with three or six nothing that was seen.
const WORTH: u64 = 8;
/// Gathering ends when fewer than this are expected. The gap to the number above is hysteresis: one period with fewer messages than
/// the last is no reason to stop.
const STILL_WORTH: u64 = 6;

/// A sleep lasts at most until this many messages are expected: gathering more saves little.
const ENOUGH: u64 = 16;

/// Gathering ends at this many messages per millisecond, and may begin only below the other number. At that rate there is always
/// something to take; and if each peer waits for its answer before it sends more, the sleep would only wait for itself.
const FLOOD: u64 = 105;
const NO_FLOOD: u64 = 80;

/// Percentages of time spent in turns: gathering ends at the first, and may begin only below the second.
const BUSY_PERCENT: u64 = 45;
const IDLE: u64 = 35;

/// Measures one worker's rate.
#[derive(Debug)]
pub struct Pace {
    /// The longest sleep.
    gather: Duration,
    sleep: Duration,
    since: Reading,
    count: u64,
    busy_ns: u64,
    is_brisk: bool,
}

impl Pace {
    pub fn new(gather: Duration) -> Pace {
        Pace { gather, sleep: gather, since: Reading::default(), count: 0, busy_ns: 0, is_brisk: false }
    }

    /// Counts messages that have arrived.
    pub fn count(&mut self, messages: usize) {
        self.count += messages as u64;
    }

    /// Ends the turn that began at `start`.
    pub fn turn(&mut self, start: Reading, now: Reading) {
        self.busy_ns += now.ns.saturating_sub(start.ns);
        let elapsed_ns = now.ns.saturating_sub(self.since.ns);
        if elapsed_ns >= PERIOD_NS {
            let gather_ns = self.gather.as_nanos() as u64;
            let (worth, busy, flood) = match self.is_brisk {
                true => (STILL_WORTH, BUSY_PERCENT, FLOOD),
                false => (WORTH, IDLE, NO_FLOOD),
            };
            let comes_fast = self.count * gather_ns >= worth * elapsed_ns;
            let is_idle = self.busy_ns * 100 < busy * elapsed_ns;
            let is_flood = self.count * 1_000_000 >= flood * elapsed_ns;
            self.is_brisk = gather_ns > 0 && comes_fast && is_idle && !is_flood;
            let enough_ns = ENOUGH * elapsed_ns / self.count.max(1);
            self.sleep = Duration::from_nanos(gather_ns.min(enough_ns));
            self.since = now;
            self.count = 0;
            self.busy_ns = 0;
        }
    }

    /// Returns how long to let messages gather before the next turn; `None` if it would not pay.
    pub fn sleep(&self) -> Option<Duration> {
        self.is_brisk.then_some(self.sleep)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GATHER: Duration = Duration::from_micros(300);

    /// Turns with `messages` each, `gap_us` apart, for `ms`; returns whether it is brisk at the end.
    fn run(pace: &mut Pace, now: &mut Reading, messages: usize, gap_us: u64, ms: u64) -> bool {
        for _ in 0..ms * 1000 / gap_us {
            now.ns += gap_us * 1000;
            pace.count(messages);
            pace.turn(*now, *now);
        }
        pace.sleep().is_some()
    }

    #[test]
    fn brisk_while_messages_come_fast_and_only_then() {
        let (mut pace, mut now) = (Pace::new(GATHER), Reading::default());
        assert_eq!(pace.sleep(), None);
        assert!(!run(&mut pace, &mut now, 1, 40, 50), "25,000 a second");
        assert!(run(&mut pace, &mut now, 1, 36, 50), "28,000 a second");
        assert!(run(&mut pace, &mut now, 8, 360, 50), "22,000 a second, gathered");
        assert!(!run(&mut pace, &mut now, 7, 360, 50), "19,000 a second");
        assert!(run(&mut pace, &mut now, 1, 36, 50), "28,000 a second");
        assert!(!run(&mut pace, &mut now, 0, 500, 50), "nobody comes any more");
        assert!(!run(&mut pace, &mut now, 6, 9_000, 50), "a call now and then");
    }

    #[test]
    fn the_faster_they_come_the_shorter_the_sleep() {
        let (mut pace, mut now) = (Pace::new(GATHER), Reading::default());
        assert!(run(&mut pace, &mut now, 8, 250, 50), "32,000 a second");
        assert_eq!(pace.sleep(), Some(GATHER));
        assert!(run(&mut pace, &mut now, 16, 200, 50), "80,000 a second");
        let sleep = pace.sleep().unwrap().as_micros();
        assert!((190..=210).contains(&sleep), "{sleep}");
    }

    #[test]
    fn a_pause_ends_it_with_the_first_turn() {
        let (mut pace, mut now) = (Pace::new(GATHER), Reading::default());
        assert!(run(&mut pace, &mut now, 10, 300, 50));
        assert!(!run(&mut pace, &mut now, 1, 1_000_000, 1_000));
    }

    #[test]
    fn a_flood_is_not_waited_for() {
        let (mut pace, mut now) = (Pace::new(GATHER), Reading::default());
        assert!(!run(&mut pace, &mut now, 30, 300, 50), "100,000 a second");
        assert!(run(&mut pace, &mut now, 20, 300, 50), "66,667 a second");
        assert!(run(&mut pace, &mut now, 30, 300, 50), "still");
        assert!(!run(&mut pace, &mut now, 40, 350, 50), "114,286 a second");
    }

    #[test]
    fn who_is_busy_does_not_sleep() {
        let (mut pace, mut now) = (Pace::new(GATHER), Reading::default());
        let mut busy = |percent: u64| {
            for _ in 0..600 {
                let start = now;
                now.ns += 100_000;
                pace.count(5);
                let end = Reading { ns: start.ns + 1000 * percent };
                pace.turn(start, end);
            }
            pace.sleep().is_some()
        };
        assert!(busy(20));
        assert!(busy(40), "still");
        assert!(!busy(60));
        assert!(!busy(40), "not again yet");
        assert!(busy(30));
    }

    #[test]
    fn without_a_time_nothing_is_gathered() {
        let (mut pace, mut now) = (Pace::new(Duration::ZERO), Reading::default());
        assert!(!run(&mut pace, &mut now, 64, 10, 50));
    }
}
