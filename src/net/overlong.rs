//! Detects overload: waiting times that are too long for longer than a burst takes to be worked off.

use crate::base::Instant;

/// How long, as a multiple of the patience, new ones may wait too long before any are refused: a burst, such as all phones coming
/// back at once, is worked off; what lasts longer is overload.
const BURST: u64 = 10;

/// An interval between two checks shorter than this, in milliseconds, is not a gap: a turn may take as long.
const GAP_MS: u64 = 100;

/// Since when and until when some have waited too long, without a gap longer than a burst.
#[derive(Clone, Copy, Default, Debug)]
pub struct Overlong {
    lasts: Option<(Instant, Instant)>,
}

impl Overlong {
    /// Returns `waited_ms`, how long the next one has waited, if that is too long and has been for longer than a burst. With a
    /// patience of 0 it never is.
    pub fn check(&mut self, waited_ms: u64, patience_ms: u64, now: Instant) -> Option<u64> {
        if patience_ms == 0 || waited_ms < patience_ms {
            return None;
        }
        let burst_ms = BURST * patience_ms;
        let since = match self.lasts {
            Some((since, last)) if now.ms_since(last) <= burst_ms.max(GAP_MS) => since,
            _ => now,
        };
        self.lasts = Some((since, now));
        (now.ms_since(since) >= burst_ms).then_some(waited_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_worked_off_and_overload_is_refused() {
        let at = |ms: u64| Instant::from_ms(1000 + ms);
        let mut overlong = Overlong::default();
        // From now on the first has always waited 150 ms.
        for ms in (150..=2000).step_by(50) {
            let refused = overlong.check(150, 100, at(ms));
            assert_eq!(refused, (ms >= 1150).then_some(150), "{ms}");
            assert_eq!(overlong.check(150, 0, at(ms)), None);
        }
        // The queue is worked off: others are admitted again. If it soon returns, it is the same overload.
        assert_eq!(overlong.check(0, 100, at(2050)), None);
        assert_eq!(overlong.check(150, 100, at(2250)), Some(150));
        // After a longer time it is a new one.
        assert_eq!(overlong.check(150, 100, at(4150)), None);
    }
}
