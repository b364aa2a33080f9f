//! Detects overload: waiting times that are too long for longer than a burst takes to be worked off.

use crate::base::Instant;

/// How long, as a multiple of the patience, new ones may wait too long before any are refused: a burst, such as all phones coming
/// back at once, is worked off; what lasts longer is overload.
const BURST: u64 = 10;

/// An interval between two checks shorter than this, in milliseconds, is not a gap: a turn may take as long.
const GAP_MS: u64 = 100;

/// So many may wait in any case: a few are no overload, however slow the core is at the moment.
const LEAST: usize = 16;

/// Since when and until when some have waited too long, without a gap longer than a burst.
#[derive(Clone, Copy, Default, Debug)]
pub struct Overlong {
    lasts: Option<(Instant, Instant)>,
}

impl Overlong {
    /// Returns how long a new one would wait, if it is refused: some have waited too long for longer than a burst, the next one has
    /// waited for `waited_ms`, and those that wait will take more than three quarters of the patience, which leaves a quarter
    /// to a core that becomes slower meanwhile. With a patience of 0 none is refused.
    pub fn check(&mut self, waited_ms: u64, waiting: usize, pace: &Pace, patience_ms: u64, now: Instant) -> Option<u64> {
        if patience_ms == 0 {
            return None;
        }
        if waited_ms < patience_ms && !self.is_overload(waiting, pace, patience_ms, now) {
            return None;
        }
        let since = match self.lasts {
            Some((since, last)) if now.ms_since(last) <= gap_ms(patience_ms) => since,
            _ => now,
        };
        self.lasts = Some((since, now));
        self.is_overload(waiting, pace, patience_ms, now).then(|| pace.takes_ms(waiting, now))
    }

    /// True if some have waited too long for longer than a burst, and those that wait will.
    pub fn is_overload(&self, waiting: usize, pace: &Pace, patience_ms: u64, now: Instant) -> bool {
        let is_crowded = waiting >= LEAST && 4 * pace.takes_ms(waiting, now) >= 3 * patience_ms;
        is_crowded && self.is_lasting(patience_ms, now)
    }

    fn is_lasting(&self, patience_ms: u64, now: Instant) -> bool {
        let Some((since, last)) = self.lasts else {
            return false;
        };
        now.ms_since(last) <= gap_ms(patience_ms) && now.ms_since(since) >= BURST * patience_ms
    }
}

fn gap_ms(patience_ms: u64) -> u64 {
    (BURST * patience_ms).max(GAP_MS)
}

/// How many are begun in a tenth of a second.
#[derive(Clone, Copy, Default, Debug)]
pub struct Pace {
    /// The number of the window in which the last one was begun.
    window: u64,
    begun: usize,
    /// In the window before that.
    before: usize,
}

const WINDOW_MS: u64 = 100;

impl Pace {
    /// Counts one that is begun.
    pub fn note(&mut self, now: Instant) {
        let window = now.as_ms() / WINDOW_MS;
        (self.begun, self.before) = match window - self.window {
            0 => (self.begun, self.before),
            1 => (0, self.begun),
            _ => (0, 0),
        };
        self.window = window;
        self.begun += 1;
    }

    /// Returns how long, in milliseconds, it takes until so many are begun.
    fn takes_ms(&self, count: usize, now: Instant) -> u64 {
        let last = match now.as_ms() / WINDOW_MS - self.window {
            0 => self.begun.max(self.before),
            1 => self.begun,
            _ => 0,
        };
        count as u64 * WINDOW_MS / last.max(1) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_worked_off_and_overload_is_refused() {
        let at = |ms: u64| Instant::from_ms(1000 + ms);
        let (mut overlong, mut pace) = (Overlong::default(), Pace::default());
        // One each 2 ms. From now on the first has always waited 150 ms, and 75 wait.
        for ms in (100..=2000).step_by(2) {
            pace.note(at(ms));
            if ms >= 150 && ms % 50 == 0 {
                let refused = overlong.check(150, 75, &pace, 100, at(ms));
                assert_eq!(refused.is_some(), ms >= 1150, "{ms}");
                assert_eq!(overlong.check(150, 75, &pace, 0, at(ms)), None);
            }
        }
        // Now it depends on how many wait: fifty in a tenth of a second is the pace.
        assert_eq!(overlong.check(0, 38, &pace, 100, at(2000)), Some(76));
        assert_eq!(overlong.check(0, 37, &pace, 100, at(2000)), None);
        // The queue is worked off: others are admitted again. If it soon returns, it is the same overload.
        assert_eq!(overlong.check(0, 0, &pace, 100, at(2050)), None);
        assert_eq!(overlong.check(150, 75, &pace, 100, at(2090)), Some(150));
        // After a longer time it is a new one.
        assert_eq!(overlong.check(150, 75, &pace, 100, at(4150)), None);
    }

    #[test]
    fn a_few_are_never_refused() {
        let (mut overlong, pace) = (Overlong::default(), Pace::default());
        for ms in 0..5000 {
            let now = Instant::from_ms(ms);
            assert_eq!(overlong.check(150, 15, &pace, 100, now), None);
            assert_eq!(overlong.check(150, 16, &pace, 100, now).is_some(), ms >= 1000, "{ms}: nothing at all is begun");
        }
        // The shortest patience is no exception.
        let now = Instant::from_ms(5000);
        assert_eq!(overlong.check(0, 0, &pace, 1, now), None);
        assert_eq!(overlong.check(150, 0, &pace, 1, now), None);
    }
}
