//! The clock: read once a turn for the rules, and once more at its end to measure the turn.

use crate::base::Instant;
use std::time;

/// Time since the server's start, the same on all cores.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: time::Instant,
}

/// One reading, in nanoseconds since the origin.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Reading {
    pub ns: u64,
}

impl Reading {
    /// As used by the rules: whole milliseconds, rounded down, so that no timer fires early.
    pub const fn instant(self) -> Instant {
        Instant::from_ms(self.ns / 1_000_000)
    }
}

impl Clock {
    pub fn start() -> Clock {
        Clock {
            // The origin lies a second back: time 0 is never now.
            origin: time::Instant::now() - time::Duration::from_secs(1),
        }
    }

    /// Returns a clock that shows this now: that of the process before this one.
    pub fn showing(now: Reading) -> Clock {
        let here = time::Instant::now();
        Clock { origin: here.checked_sub(time::Duration::from_nanos(now.ns)).unwrap_or(here) }
    }

    pub fn read(&self) -> Reading {
        Reading { ns: self.origin.elapsed().as_nanos() as u64 }
    }

    /// Returns the time since 1970 at time 0, in milliseconds.
    pub fn wall_ms(&self) -> u64 {
        let since_1970 = time::SystemTime::now().duration_since(time::UNIX_EPOCH);
        let now_ms = since_1970.map_or(0, |time| time.as_millis() as u64);
        now_ms.saturating_sub(self.now().as_ms())
    }

    pub fn now(&self) -> Instant {
        self.read().instant()
    }
}
