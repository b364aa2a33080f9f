//! Whether what waits has waited too long for longer than a burst takes to be worked off.

use crate::base::Instant;

/// How many times the patience new ones may wait too long before any are refused: a burst, as when all phones come back at once, is worked
/// off; what lasts longer is overload.
const BURST: u64 = 10;

/// A shorter time than this between two looks is no gap, milliseconds: a turn may take as long.
const GAP_MS: u64 = 100;

/// Since when, and until when, some have waited too long, with no longer gap than a burst.
#[derive(Clone, Copy, Default, Debug)]
pub struct Overlong {
    lasts: Option<(Instant, Instant)>,
}

impl Overlong {
    /// `waited_ms`, how long the next one has waited, if that is too long and has been for longer than a burst. With a patience of 0 it
    /// never is.
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
        // Whatever is first has waited 150 ms each time, from now on.
        for ms in (150..=2000).step_by(50) {
            let refused = overlong.check(150, 100, at(ms));
            assert_eq!(refused, (ms >= 1150).then_some(150), "{ms}");
            assert_eq!(overlong.check(150, 0, at(ms)), None);
        }
        // It is worked off: the others come in again. When it comes back soon, it is the same overload.
        assert_eq!(overlong.check(0, 100, at(2050)), None);
        assert_eq!(overlong.check(150, 100, at(2250)), Some(150));
        // And another one after a longer time.
        assert_eq!(overlong.check(150, 100, at(4150)), None);
    }
}
